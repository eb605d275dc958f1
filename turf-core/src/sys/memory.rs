//! Memory that is a file: memfd_create(2).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};

/// memfd_create(2), close-on-exec, filled with `content`. Readers use pread(2): the offset is shared.
pub fn memfd_with(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string that lives through the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(content)?;
    Ok(file.into())
}

/// madvise(2) with `MADV_DONTFORK`, by the system call itself: a program that replaces libc's `madvise` to keep V8's memory
/// over a fork proves with this what its check would find without.
pub fn mark_dontfork(address: usize, len: usize) -> io::Result<()> {
    // SAFETY: this advice changes no byte of the range and nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_madvise, address, len, libc::MADV_DONTFORK) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
