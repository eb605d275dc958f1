//! File descriptors as a table: close_range(2), and taking over inherited ones by number.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Marks every descriptor from `first` up close-on-exec (close_range(2)).
pub fn close_range_cloexec(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` up that may be closed without an owner noticing
/// (close_range(2)). Only for the very start of a program, before any descriptor has an owner,
/// and for a process that will only exec or exit.
pub fn close_range_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: close_range takes three integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Duplicates a descriptor that this process inherited under a known number (`LISTEN_FDS`,
/// `--preserve-fds`), close-on-exec (fcntl(2), `F_DUPFD_CLOEXEC`); an error if it is not open.
pub fn dup_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes integers and touches no memory; the descriptor it copies
    // stays as it is.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
