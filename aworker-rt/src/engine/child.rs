//! fork(2) for work that may end its process: V8 aborts where it cannot go on.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Does the work in a child of this process and waits for it; the work's result is the exit status.
/// V8 must not have been started.
///
/// # Errors
/// As fork(2) and waitpid(2).
pub fn in_child(work: impl FnOnce() -> i32) -> io::Result<ExitStatus> {
    // SAFETY: the process has one thread (V8 was not started), so that no lock is held in the child.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => std::process::exit(work()),
        child => wait(child),
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
