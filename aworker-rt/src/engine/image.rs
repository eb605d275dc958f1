//! The heap of JavaScript as a file in memory: what makes the cost of a fork independent of the heap's size.
//!
//! fork(2) copies the page tables of every mapping that a process has written to, page by page. A private mapping of a
//! file that was not written to since it was made is skipped (`vma_needs_copy` in the kernel's `mm/memory.c`): its pages
//! are found again in the file when they are touched. So, before a process waits to be forked, the pages of a large heap
//! move into a memfd, which is sealed and mapped privately at the same addresses. Clones read the file's pages and
//! copy those that they write to.
//!
//! memfd_create(2), mmap(2), proc_pid_maps(5), proc_pid_pagemap(5).

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
/// Address space of V8's compressed pointers: the heap lies within one such block, aligned to its size.
const CAGE: usize = 1 << 32;
/// Heaps below are left as they are: copying the page tables of so little costs no more than finding the pages again, one
/// fault for sixteen of them.
const MIN_HEAP: usize = 8 << 20;
/// Runs of pages below stay where they are: each that moves is a mapping of its own.
const MIN_RUN: usize = 64 << 10;
/// Holes of at most this size are filled with zeroes rather than left out of a run, for the same reason.
const MAX_HOLE: usize = 64 << 10;
/// Bits of an entry of `pagemap`: the page is in memory, or in swap.
const IN_USE: u64 = 1 << 63 | 1 << 62;
/// Entries of `pagemap` that are read at a time.
const ENTRIES: usize = 1024;

/// Moves the heap that holds `inside` into a file, if it is large; how many bytes have moved.
///
/// # Errors
/// No memory, or no `/proc`. Only an error of mmap(2) leaves the heap incomplete; its text says so.
pub(super) fn move_heap(inside: usize) -> io::Result<usize> {
    let start = inside & !(CAGE - 1);
    let runs = used_runs(start..start + CAGE)?;
    let total: usize = runs.iter().map(ExactSizeIterator::len).sum();
    if total < MIN_HEAP {
        return Ok(0);
    }
    let file = memfd()?;
    let mut offset = 0;
    let mut placed = Vec::with_capacity(runs.len());
    for run in runs.into_iter().filter(|run| run.len() >= MIN_RUN) {
        write(&file, &run, offset)?;
        placed.push((run.clone(), offset));
        offset += run.len();
    }
    seal(&file)?;
    for (run, offset) in placed {
        map(&file, &run, offset)?;
    }
    Ok(offset)
}

/// The runs of pages in use in the writable private mappings of a range, small holes included.
fn used_runs(range: Range<usize>) -> io::Result<Vec<Range<usize>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut runs = Vec::new();
    for mapping in writable_mappings(&range)? {
        let mut open: Option<Range<usize>> = None;
        let mut entries = [0_u8; ENTRIES * 8];
        for first in mapping.clone().step_by(ENTRIES * PAGE) {
            let count = ((mapping.end - first) / PAGE).min(ENTRIES);
            let entries = &mut entries[..count * 8];
            pagemap.read_exact_at(entries, (first / PAGE * 8) as u64)?;
            for (index, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
                if u64::from_ne_bytes(*entry) & IN_USE == 0 {
                    continue;
                }
                let page = first + index * PAGE;
                match &mut open {
                    Some(run) if page - run.end <= MAX_HOLE => run.end = page + PAGE,
                    _ => runs.extend(open.replace(page..page + PAGE)),
                }
            }
        }
        runs.extend(open);
    }
    Ok(runs)
}

/// The writable private mappings within a range.
fn writable_mappings(range: &Range<usize>) -> io::Result<Vec<Range<usize>>> {
    let text = fs::read_to_string("/proc/self/maps")?;
    let mapping = |line: &str| {
        let (addresses, rest) = line.split_once(' ')?;
        let (start, end) = addresses.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (rest.starts_with("rw-p") && start >= range.start && end <= range.end).then_some(start..end)
    };
    Ok(text.lines().filter_map(mapping).collect())
}

fn memfd() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"heap".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Copies a run of the process's own memory to the file.
fn write(file: &File, run: &Range<usize>, offset: usize) -> io::Result<()> {
    let mut done = 0;
    while done < run.len() {
        let from = (run.start + done) as *const libc::c_void;
        let at = (offset + done) as libc::off_t;
        // SAFETY: the run lies within readable mappings; the kernel copies it, and nobody writes to it meanwhile: the
        // process has one thread.
        let written = unsafe { libc::pwrite(file.as_raw_fd(), from, run.len() - done, at) };
        match written {
            written if written > 0 => done += written as usize,
            0 => return Err(io::ErrorKind::WriteZero.into()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Makes the file's content unchangeable, for everybody, for ever.
fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: the operation takes an integer.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts the file's copy in the place of the memory it was made from.
fn map(file: &File, run: &Range<usize>, offset: usize) -> io::Result<()> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_FIXED);
    let start = run.start as *mut libc::c_void;
    // SAFETY: the range is the heap's, and the file holds the same bytes: for whoever reads it nothing changes.
    let mapped =
        unsafe { libc::mmap(start, run.len(), access, flags, file.as_raw_fd(), offset as libc::off_t) };
    if mapped == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("mmap: {error}; the heap is incomplete")));
    }
    // A page that only a worker has mapped would count as the worker's own (smaps(5)), although it is the file's. Without
    // this the numbers are higher, and nothing else.
    // SAFETY: the pages are read.
    unsafe { libc::madvise(start, run.len(), libc::MADV_POPULATE_READ) };
    Ok(())
}
