//! Memory that a burst of work has left behind goes back to the system when the work is over.
//!
//! ```text
//!   work --a collection of garbage, or malloc took memory--> grown --nothing happens for a while--> measured --little--> rest
//!     ^                                                        |                                       \--much--> collected
//!     +-------------------- something happens -----------------+
//! ```
//!
//! V8 by itself collects when it runs out of room, not when it runs out of work, and its reducer of memory works by time. A
//! collection is no gain for a clone of a seed that has done little: sweeping writes to pages that it shares until then. So there is
//! nothing to do, and no timer, until the process has grown; and a loop that waits has to wait a while before it is interrupted for this.
//!
//! While work goes on, V8 keeps its own heap small. What it and the built-ins have freed of native memory, most of it the compilers', goes
//! back after every few collections: nobody else would look at it before the work is over.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::malloc;

/// A process that has grown by less is left alone: more than what a collection copies of the pages that a worker shares with its seed.
const GROWTH_BYTES: usize = 3 << 20;

/// Or by less than this part of what it had.
const GROWTH_PART: usize = 8;

/// Nothing has happened for so long: work is over, and the next request does not come in the same moment.
const QUIET: Duration = Duration::from_millis(30);

/// Quiet for as many times as long as the last collection took: one that takes long must be the less likely to be in somebody's way.
const QUIET_TIMES: u32 = 20;

/// A heap of so many bytes may take a millisecond to collect, garbage included: a guess for the first time.
const BYTES_PER_MS: usize = 8 << 20;

/// The longest quiet that is waited for: whoever has had none for so long is not idle at all.
const LONGEST_QUIET: Duration = Duration::from_secs(30);

/// After so many collections native memory that is free goes back: they are some ten megabytes of garbage, thousands of requests, beside
/// which a walk over the blocks is nothing.
const COLLECTIONS_PER_RELIEF: u32 = 8;

/// Collections since native memory last went back.
static UNRELIEVED: AtomicU32 = AtomicU32::new(0);

/// After so many turns of its loop a worker has begun and, where no timers came first, answered its first request. It gives back what that has
/// left free: it may have to wait long for the next.
const FIRST_WORK: u32 = 3;

/// As far below the loop calls of the first work have used the stack.
const DEEPEST_CALLS: usize = 256 << 10;

/// Stacks of threads lie further from the process's own, between which the kernel leaves 128 MB at least.
const LARGEST_STACK: usize = 8 << 20;

const PAGE: usize = 4096;

/// Turns of the loop, until there are more than [`FIRST_WORK`].
static TURNS: AtomicU32 = AtomicU32::new(0);

/// A collection of V8's own has happened.
static COLLECTED: AtomicBool = AtomicBool::new(false);

/// malloc has taken memory from the system.
static GREW: AtomicBool = AtomicBool::new(false);

/// Bytes of the heap of JavaScript when V8 was last asked.
static HEAP: AtomicUsize = AtomicUsize::new(0);

/// Bytes held when the process was last small.
static BASELINE: AtomicUsize = AtomicUsize::new(0);

/// How long the last collection took, in microseconds.
static TOOK_US: AtomicU64 = AtomicU64::new(0);

/// Begins to watch the heap.
pub(super) fn install(isolate: &mut v8::Isolate) {
    isolate.add_gc_epilogue_callback(on_collection, std::ptr::null_mut(), v8::GCType::kGCTypeAll);
    rest(isolate);
}

unsafe extern "C" fn on_collection(
    _: v8::UnsafeRawIsolatePtr,
    _: v8::GCType,
    _: v8::GCCallbackFlags,
    _: *mut std::ffi::c_void,
) {
    COLLECTED.store(true, Ordering::Relaxed);
    UNRELIEVED.fetch_add(1, Ordering::Relaxed);
}

/// Gives native memory that is free back if there were many collections since the last time, or the first work is done;
/// between two turns of the loop.
pub fn relieve() {
    let turn = TURNS.load(Ordering::Relaxed);
    if turn <= FIRST_WORK {
        TURNS.store(turn + 1, Ordering::Relaxed);
    }
    if turn == FIRST_WORK {
        release_stack();
    }
    if turn == FIRST_WORK || UNRELIEVED.load(Ordering::Relaxed) >= COLLECTIONS_PER_RELIEF {
        UNRELIEVED.store(0, Ordering::Relaxed);
        malloc::release_free();
    }
}

/// Gives back what deeper calls than this one have used of the process's stack. That of another thread ends where other memory may begin.
#[inline(never)]
fn release_stack() {
    unsafe extern "C" {
        /// Where the process's stack begins.
        static __libc_stack_end: *const libc::c_void;
    }
    // SAFETY: the C library writes it once, before `main`.
    let beginning = unsafe { __libc_stack_end }.addr();
    let here = 0_u8;
    let here = std::ptr::from_ref(&here).addr();
    if beginning.wrapping_sub(here) > LARGEST_STACK {
        return;
    }
    let end = (here - 2 * PAGE) / PAGE * PAGE;
    let begin = end - DEEPEST_CALLS;
    // SAFETY: no frame lies there: the stack grows down, and madvise(2) needs less than a page of it. Below the stack the kernel keeps a
    // megabyte free of other mappings. An error (the stack is smaller) leaves nothing undone that matters.
    unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
}

/// What the process holds now is what it needs.
pub(super) fn rest(isolate: &mut v8::Isolate) {
    COLLECTED.store(true, Ordering::Relaxed);
    BASELINE.store(held(isolate), Ordering::Relaxed);
    look_away();
}

/// What has happened until now is no reason to measure, nor for a clone to give anything back.
pub(super) fn look_away() {
    COLLECTED.store(false, Ordering::Relaxed);
    UNRELIEVED.store(0, Ordering::Relaxed);
    TURNS.store(0, Ordering::Relaxed);
    malloc::take_grew();
    GREW.store(false, Ordering::Relaxed);
}

/// Bytes of the heap of JavaScript and of native memory, free parts of both included.
///
/// V8 is asked only if it has collected since it was asked last. To be counted it gives up the pages that it has begun to fill: each
/// clone of a seed would copy ten pages to begin others.
fn held(isolate: &mut v8::Isolate) -> usize {
    if COLLECTED.load(Ordering::Relaxed) {
        HEAP.store(isolate.get_heap_statistics().total_heap_size(), Ordering::Relaxed);
    }
    HEAP.load(Ordering::Relaxed) + malloc::held()
}

/// How long nothing must have happened until [`trim`] is to be called; none while it would do nothing.
pub fn quiet_needed() -> Option<Duration> {
    if malloc::take_grew() {
        GREW.store(true, Ordering::Relaxed);
    }
    (COLLECTED.load(Ordering::Relaxed) || GREW.load(Ordering::Relaxed)).then(|| {
        let took = Duration::from_micros(TOOK_US.load(Ordering::Relaxed));
        (took * QUIET_TIMES).clamp(QUIET, LONGEST_QUIET)
    })
}

/// Whether the process has grown so much that [`trim`] is worth its time. If not, it waits until it has grown further.
pub fn is_due(isolate: &mut v8::Isolate) -> bool {
    let (bytes, baseline) = (held(isolate), BASELINE.load(Ordering::Relaxed));
    if bytes.saturating_sub(baseline) < GROWTH_BYTES.max(baseline / GROWTH_PART) {
        look_away();
        return false;
    }
    if TOOK_US.load(Ordering::Relaxed) > 0 {
        return true;
    }
    // How long the first one takes is guessed. If that is long, so is the next wait.
    let guess = Duration::from_millis((bytes / BYTES_PER_MS) as u64);
    TOOK_US.store(micros(guess), Ordering::Relaxed);
    guess * QUIET_TIMES <= QUIET
}

/// Gives back what the process does not need: garbage, the young generation, free blocks. Some milliseconds for some megabytes that
/// are in use.
pub fn trim(isolate: &mut v8::Isolate) {
    let begun = Instant::now();
    isolate.low_memory_notification();
    malloc::release_free();
    TOOK_US.store(micros(begun.elapsed()), Ordering::Relaxed);
    rest(isolate);
}

/// At least one: zero is a time that nobody knows.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
