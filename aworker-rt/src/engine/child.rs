//! fork(2) for work that may end its process: V8 aborts where it cannot go on.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::watched::open_process;

/// Does the work in a child of this process and waits for it; the work's result is the exit status. A child that
/// takes longer than `limit` is killed; there is no status then. V8 must not have been started.
///
/// # Errors
/// As fork(2), pidfd_open(2) and waitpid(2).
pub fn in_child(limit: Duration, work: impl FnOnce() -> i32) -> io::Result<Option<ExitStatus>> {
    // SAFETY: the process has one thread (V8 was not started), so that no lock is held in the child.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(work()),
        child => {
            let in_time = ends_within(child, limit);
            if !matches!(in_time, Ok(true)) {
                // SAFETY: the child has not been waited for, so the number is its own.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
            let status = wait(child)?;
            Ok(in_time?.then_some(status))
        }
    }
}

/// Whether a child ends in that time.
fn ends_within(child: libc::pid_t, limit: Duration) -> io::Result<bool> {
    let process = open_process(child)?;
    let begun = Instant::now();
    loop {
        let Some(left) = limit.checked_sub(begun.elapsed()) else { return Ok(false) };
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(child: libc::pid_t) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live c_int.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(ExitStatus::from_raw(status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
