//! Gauges: one page of numbers that a worker shares with its supervisor.
//!
//! The page is a file that both map or read: the worker stores with plain atomic instructions, without a
//! system call, and the supervisor looks whenever it likes, also after the worker's death. Without a
//! supervisor there is no page, and every store is one test of a pointer.
//!
//! Layout: 64-bit words in the machine's byte order, then two texts, each a 16-bit length and bytes.
//! [`Gauge`] numbers the words. The layout is version [`VERSION`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The version of the layout, in [`Gauge::Version`].
pub const VERSION: u64 = 1;

/// Bytes of the page.
pub const PAGE_BYTES: usize = 4096;

/// Where the text of the request at work begins: its method and target.
pub const REQUEST_OFFSET: usize = 512;

/// Longest text of a request; more is cut.
pub const REQUEST_BYTES: usize = 510;

/// Where the last words begin: why the worker ended.
pub const LAST_WORDS_OFFSET: usize = 1024;

/// Longest last words; more is cut.
pub const LAST_WORDS_BYTES: usize = 3070;

/// The words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// [`VERSION`], written last when the page is set up.
    Version = 0,
    /// What the worker does: a [`Phase`].
    Phase = 1,
    /// Requests dispatched since the start.
    Requests = 2,
    /// Requests that are not answered yet.
    InFlight = 3,
    /// Open client connections.
    Connections = 4,
    /// Requests answered by an error of the server: 500, 504.
    Failures = 5,
    /// `CLOCK_MONOTONIC` in milliseconds of the last request's begin or end.
    ActiveMs = 6,
    /// Written by the supervisor: 1 if it wants to be told of the next request.
    Quiet = 7,
    /// Requests whose script was interrupted because it did not yield.
    Interrupted = 8,
    /// 1 while the worker takes no connection because of its concurrency limit.
    Full = 9,
    /// Number of the worker's descriptor of the channel.
    Channel = 10,
    /// Number of the worker's descriptor of the channel's other end, kept for a later supervisor.
    Peer = 11,
    /// Messages that wait until the supervisor reads.
    MessagesWaiting = 12,
    /// Open WebSockets of served requests.
    WebSockets = 13,
    /// The worker's process id in its own pid namespace.
    Pid = 14,
    /// How many of the words that follow name a descriptor of a listener.
    Listeners = 15,
    /// The first listener's descriptor; the others follow.
    FirstListener = 16,
}

/// Most listeners whose descriptors are told.
pub const MAX_LISTENERS: usize = 32;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Phase {
    /// The script's top level, `install` or `activate` runs.
    Starting = 1,
    /// It accepts connections.
    Serving = 2,
    /// It finishes what it has begun.
    Draining = 3,
}

static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

/// Maps the supervisor's page for the rest of the process's life.
///
/// # Errors
/// As mmap(2); the file must have [`PAGE_BYTES`].
pub fn map(file: BorrowedFd<'_>) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice; it is never unmapped.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    PAGE.store(page.cast(), Ordering::Release);
    set(Gauge::Pid, u64::from(std::process::id()));
    set(Gauge::Phase, Phase::Starting as u64);
    set(Gauge::Version, VERSION);
    Ok(())
}

/// Whether somebody looks at the gauges.
pub fn is_mapped() -> bool {
    !PAGE.load(Ordering::Acquire).is_null()
}

fn word(index: usize) -> Option<&'static AtomicU64> {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() || index >= REQUEST_OFFSET / size_of::<u64>() {
        return None;
    }
    // SAFETY: the page is mapped for ever, aligned, and longer than `index` words.
    unsafe { page.wrapping_add(index).as_ref() }
}

/// Sets a gauge.
pub fn set(gauge: Gauge, value: u64) {
    if let Some(word) = word(gauge as usize) {
        word.store(value, Ordering::Release);
    }
}

/// Reads a gauge; 0 if nobody looks at them.
pub fn get(gauge: Gauge) -> u64 {
    word(gauge as usize).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Adds to a gauge.
pub fn add(gauge: Gauge, value: u64) {
    if let Some(word) = word(gauge as usize) {
        word.fetch_add(value, Ordering::AcqRel);
    }
}

/// Takes from a gauge.
pub fn subtract(gauge: Gauge, value: u64) {
    if let Some(word) = word(gauge as usize) {
        word.fetch_sub(value, Ordering::AcqRel);
    }
}

/// Whether the supervisor wanted to be told of the next request; it is then told once.
pub fn take_quiet() -> bool {
    let quiet = word(Gauge::Quiet as usize);
    quiet.is_some_and(|word| word.load(Ordering::Acquire) != 0 && word.swap(0, Ordering::AcqRel) != 0)
}

/// Tells the supervisor which descriptors the listeners have.
pub fn set_listeners(descriptors: impl Iterator<Item = i32>) {
    let mut count = 0;
    for descriptor in descriptors.take(MAX_LISTENERS) {
        if let Some(word) = word(Gauge::FirstListener as usize + count) {
            word.store(u64::from(descriptor.unsigned_abs()), Ordering::Release);
        }
        count += 1;
    }
    set(Gauge::Listeners, count as u64);
}

/// Says which request is at work.
pub fn set_request(method: &[u8], target: &[u8]) {
    write_text(REQUEST_OFFSET, REQUEST_BYTES, &[method, b" ", target]);
}

/// Says why the worker is about to end. Async-signal-safe.
pub fn last_words(parts: &[&[u8]]) {
    write_text(LAST_WORDS_OFFSET, LAST_WORDS_BYTES, parts);
}

/// The request at work, for last words.
pub fn request() -> &'static [u8] {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return b"";
    }
    let start = page.cast::<u8>().cast_const().wrapping_add(REQUEST_OFFSET);
    // SAFETY: two bytes within the page.
    let length = unsafe { start.cast::<u16>().read_unaligned() };
    let length = usize::from(length).min(REQUEST_BYTES);
    // SAFETY: within the page, which lives for ever; only this thread writes these bytes.
    unsafe { std::slice::from_raw_parts(start.wrapping_add(2), length) }
}

fn write_text(offset: usize, limit: usize, parts: &[&[u8]]) {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return;
    }
    let start = page.cast::<u8>().wrapping_add(offset);
    let mut length = 0;
    for part in parts {
        let count = part.len().min(limit - length);
        // SAFETY: `offset + 2 + limit` lies within the page, and no part lies in what is written.
        unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), start.wrapping_add(2 + length), count) };
        length += count;
    }
    #[allow(clippy::cast_possible_truncation)]
    let written = length as u16;
    // SAFETY: two bytes within the page.
    unsafe { start.cast::<u16>().write_unaligned(written) };
}

const _: () = assert!(REQUEST_OFFSET + 2 + REQUEST_BYTES <= LAST_WORDS_OFFSET);
const _: () = assert!(LAST_WORDS_OFFSET + 2 + LAST_WORDS_BYTES <= PAGE_BYTES);
const _: () = assert!(Gauge::FirstListener as usize + MAX_LISTENERS <= REQUEST_OFFSET / size_of::<u64>());
