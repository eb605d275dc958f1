//! `--watch`: the program tells its supervisor which files it loads, and the few calls that the supervisor needs.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

/// The variable that names the socket for paths of loaded files: a line each, and a byte in answer.
pub const LOADED_FILES_FD: &str = "AWORKER_LOADED_FILES_FD";

/// Where the supervisor is told, if there is one. It is looked for once; in a seed before the fork, so that no worker does.
pub(super) fn supervisor() -> Option<&'static std::fs::File> {
    static SUPERVISOR: OnceLock<Option<std::fs::File>> = OnceLock::new();
    let supervisor = SUPERVISOR.get_or_init(|| {
        let fd: RawFd = std::env::var(LOADED_FILES_FD).ok()?.parse().ok().filter(|fd| *fd > 2)?;
        // SAFETY: fcntl with F_SETFD takes an integer and fails on a closed descriptor.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return None;
        }
        // SAFETY: the descriptor is open, the environment gives it to this process, and it is taken once only.
        Some(unsafe { std::fs::File::from_raw_fd(fd) })
    });
    supervisor.as_ref()
}

/// Tells the supervisor, if there is one, that the program depends on a file, which need not exist. Returns when the supervisor
/// watches it, with a byte: what changes it after it was read is seen.
pub(super) fn tell(path: &str) {
    if let Some(mut supervisor) = supervisor() {
        // Without a supervisor the program goes on all the same.
        let told = supervisor.write_all(format!("{path}\n").as_bytes());
        let _ = told.and_then(|()| supervisor.read_exact(&mut [0]));
    }
}

/// A copy of a descriptor that a child inherits; it is open in this process until it ends or the copy is dropped.
///
/// # Errors
/// As fcntl(2).
pub fn inheritable(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD takes integers.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fcntl returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The child starts with no signal blocked, and ends with this process.
pub fn prepare_child(command: &mut Command) {
    let prepare = || {
        // SAFETY: all-zero bytes are a valid signal set: the empty one.
        let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: a valid set, and no old one is asked for; async-signal-safe.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut()) };
        // SAFETY: prctl with integers; async-signal-safe.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe { command.pre_exec(prepare) };
}

/// A descriptor of a child that becomes readable when it ends: pidfd_open(2).
///
/// # Errors
/// As pidfd_open(2).
pub fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
