//! File descriptors as a table: close_range(2), and whether a number is open.

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

/// Whether a descriptor of this number is open (fcntl(2), `F_GETFD`).
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of the descriptor and touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes ownership of a descriptor that the caller of this program left open, and marks it close-on-exec. Only at the
/// very start of a program, once for each number: then nothing else owns it.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD sets a flag of the descriptor and touches no memory.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing in this program knows of it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
