//! Processes: their end, their descriptors, the program they execute, the memory they give back.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Ends the process at once, without handlers or destructors (_exit(2)).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Closes every descriptor from 3 up except those in `keep`, whoever owns them (close_range(2)).
/// Only for a process that has just been cloned: the owners live on in its parent.
pub fn close_all_except(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut first: RawFd = 3;
    for &fd in keep.iter().filter(|&&fd| fd >= 3) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: close_range takes three integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action (rt_sigaction(2)): an executed program inherits ignored ones. The
/// system call itself, because the C library keeps two signals for itself that a caller may have ignored.
pub fn default_signal_actions() {
    for signal in 1..=64 {
        // The kernel's own structure: handler, flags, restorer and mask, all of them words; SIG_DFL is 0.
        let action = [0_u64; 4];
        let old: *mut u64 = std::ptr::null_mut();
        // SAFETY: the action lives through the call, a null old action is allowed, and 8 is the size of
        // the kernel's mask; SIGKILL and SIGSTOP are refused without effect.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), old, 8) };
    }
}

/// Makes a write to a broken pipe an error instead of a signal (signal(7), `SIGPIPE`).
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid action for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// From here on this process may use so much processor time; then the kernel ends it by SIGPROF, unless it is told anew before
/// (setitimer(2), `ITIMER_PROF`). Time in which the process sleeps, is stopped, or waits for a processor does not count. A child of the process has no such limit.
pub fn limit_processor_time(limit: Duration) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: limit.subsec_micros().into(),
    };
    let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: the timer lives through the call, and a null old timer is allowed.
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How a process is written down: its number, and a moment after its start, in nanoseconds after boot.
pub const RECORD_BYTES: usize = 12;

/// The record of a process that runs.
pub fn record_of(pid: i32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&pid.to_le_bytes());
    record[4..].copy_from_slice(&nanoseconds_after_boot().to_le_bytes());
    record
}

/// What a record says: the number and the moment.
pub fn parse_record(record: &[u8]) -> Option<(i32, u64)> {
    let record: [u8; RECORD_BYTES] = record.try_into().ok()?;
    let (pid, moment) = record.split_at(4);
    Some((i32::from_le_bytes(pid.try_into().ok()?), u64::from_le_bytes(moment.try_into().ok()?)))
}

/// The time since the machine was started, in nanoseconds, with what it has slept (clock_gettime(2), `CLOCK_BOOTTIME`).
pub fn nanoseconds_after_boot() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time lives through the call; this clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Lets the program write its record to a file before it begins: whatever happens to the caller, it is known.
pub fn record_before_exec(command: &mut Command, file: OwnedFd) {
    let write_record = move || {
        // SAFETY: getpid has no arguments and cannot fail.
        let record = record_of(unsafe { libc::getpid() });
        nix::unistd::write(&file, &record).map(drop).map_err(io::Error::from)
    };
    // SAFETY: between fork(2) and execve(2) only system calls are made, no memory is allocated and no lock is taken.
    unsafe { command.pre_exec(write_record) };
}

/// Waits for one child to end (wait4(2)): its wait status.
pub fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status lives through the call.
        let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if result == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// Sends a signal to a process (kill(2)).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    let result = unsafe { libc::kill(pid, signal) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
