//! Listening sockets handed in by a service manager: `LISTEN_FDS`, see
//! sd_listen_fds(3).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// First passed descriptor.
const FIRST_FD: RawFd = 3;

/// Most descriptors taken.
const MAX_FDS: RawFd = 64;

/// Takes ownership of the descriptors passed by the environment, once.
///
/// # Errors
/// `LISTEN_FDS` is no number from 0 to 64, or names a closed descriptor.
pub fn listen_fds() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: std::sync::Once = std::sync::Once::new();
    let mut first_call = false;
    TAKEN.call_once(|| first_call = true);
    let meant_for_us = match std::env::var("LISTEN_PID") {
        Ok(pid) => pid == std::process::id().to_string(),
        Err(_) => true,
    };
    let Ok(count) = std::env::var("LISTEN_FDS") else {
        return Ok(Vec::new());
    };
    if !meant_for_us || !first_call {
        return Ok(Vec::new());
    }
    let count = count.parse().ok().filter(|count| (0..=MAX_FDS).contains(count)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("LISTEN_FDS={count} is no number from 0 to {MAX_FDS}"),
        )
    })?;
    (FIRST_FD..FIRST_FD + count).map(take).collect()
}

/// Owns an inherited descriptor and keeps it from further programs.
fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes an integer and fails on a closed descriptor.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("LISTEN_FDS names descriptor {fd}: {error}")));
    }
    // SAFETY: the descriptor is open, the environment gives it to this process,
    // and `listen_fds` hands it out once only.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
