//! System calls on files that tell "not at once" from "no": openat2(2) with RESOLVE_CACHED and preadv2(2) with
//! RWF_NOWAIT. Both answer EAGAIN where they would have to wait for a device.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Flags of every open: never wait for a FIFO's writer, never become the owner of a terminal.
const OPEN_FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// How a path is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For its metadata only; a last link is followed.
    Look,
    /// For its metadata only; a last link is looked at itself.
    LookAtLink,
}

impl Access {
    /// The flags for open(2).
    pub fn flags(self) -> libc::c_int {
        match self {
            Access::Read => OPEN_FLAGS | libc::O_RDONLY,
            // openat2(2) knows no other flags beside O_PATH.
            Access::Look => libc::O_CLOEXEC | libc::O_PATH,
            Access::LookAtLink => libc::O_CLOEXEC | libc::O_PATH | libc::O_NOFOLLOW,
        }
    }
}

/// Opens a path if that needs no device.
///
/// # Errors
/// As openat2(2); `WouldBlock` if the path is not in the kernel's caches.
pub fn open_cached(path: &CStr, access: Access) -> io::Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::try_from(access.flags()).expect("flags are positive");
    how.resolve = libc::RESOLVE_CACHED;
    // SAFETY: a NUL-terminated path and a valid open_how of that size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    owned(fd)
}

/// Opens a path, however long that takes.
///
/// # Errors
/// As openat(2).
pub fn open(path: &CStr, access: Access) -> io::Result<OwnedFd> {
    // SAFETY: a NUL-terminated path; no mode is needed without O_CREAT.
    let fd = unsafe { libc::openat(libc::AT_FDCWD, path.as_ptr(), access.flags()) };
    owned(fd.into())
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a read may wait for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Only what is in the page cache.
    None,
    /// As long as it takes.
    Any,
}

/// Reads at an offset into the buffer; the number of bytes, 0 at the end.
///
/// # Errors
/// As preadv2(2); without patience `WouldBlock` if a device is needed, and EOPNOTSUPP if the file system cannot
/// tell.
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64, patience: Patience) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let flags = match patience {
        Patience::None => libc::RWF_NOWAIT,
        Patience::Any => 0,
    };
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: one iovec that describes a live, writable slice.
    let read = unsafe { libc::preadv2(fd.as_raw_fd(), &raw const vector, 1, offset, flags) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Asks the kernel to bring a range into the page cache; does not wait for it.
pub fn read_ahead(fd: BorrowedFd<'_>, offset: u64, length: usize) {
    let (offset, length) = (libc::off_t::try_from(offset), libc::off_t::try_from(length));
    if let (Ok(offset), Ok(length)) = (offset, length) {
        // SAFETY: no pointers are passed; a refusal only makes the next read slower.
        unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, length, libc::POSIX_FADV_WILLNEED) };
    }
}
