//! The system calls of init, typed: the only room of this crate with `unsafe`.
//!
//! Without the C library: the program has none, and a forked worker's must not be in the way. A descriptor is
//! a number here, because the process that uses it owns all of them and has no destructors to run.
#![allow(unsafe_code)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("written for x86-64, the only architecture of the V8 archive");

mod block;
mod messages;
mod raw;

use core::ffi::CStr;

pub use block::Block;
pub use messages::receive;
pub use raw::Errno;
use raw::{number, syscall};

use crate::orders::Call;

/// A signed number as the kernel takes it.
const fn word(value: i32) -> u64 {
    value as i64 as u64
}

/// Performs a call of the orders as it stands there.
pub fn perform(call: &Call) -> Result<usize, Errno> {
    // SAFETY: the pointers among the arguments were relocated into the block, which outlives the call; the builder of
    // the orders gave each system call what it takes.
    unsafe { syscall(u64::from(call.number), call.arguments) }
}

/// Opens the file that the call names, below its directory, and writes its data at once.
pub fn write_file(call: &Call) -> Result<usize, Errno> {
    const O_WRONLY_CLOEXEC: u64 = 0o2_000_001;
    let [directory, path, data, length, _, _] = call.arguments;
    // SAFETY: the path is a terminated string in the block.
    let file = unsafe { syscall(number::OPENAT, [directory, path, O_WRONLY_CLOEXEC, 0, 0, 0]) }?;
    // SAFETY: pointer and length are those of data in the block.
    let written = unsafe { syscall(number::WRITE, [file as u64, data, length, 0, 0, 0]) };
    close(file as i32);
    written
}

/// chdir(2) to the path of the call.
pub fn change_directory(call: &Call) -> Result<usize, Errno> {
    // SAFETY: the path is a terminated string in the block.
    unsafe { syscall(number::CHDIR, [call.arguments[0], 0, 0, 0, 0, 0]) }
}

/// chdir(2) to `/`.
pub fn change_to_root() -> Result<usize, Errno> {
    // SAFETY: the path is a terminated string.
    unsafe { syscall(number::CHDIR, [c"/".as_ptr() as u64, 0, 0, 0, 0, 0]) }
}

/// Whether the working directory lies below the root (getcwd(2)): one that was opened outside shows a path that
/// does not begin with a slash.
pub fn directory_is_reachable() -> Result<bool, Errno> {
    let mut path = [0_u8; 4096];
    // SAFETY: pointer and length are those of a live buffer.
    match unsafe { syscall(number::GETCWD, [path.as_mut_ptr() as u64, path.len() as u64, 0, 0, 0, 0]) } {
        // ERANGE: longer than the buffer, and begins where it begins.
        Err(Errno(34)) => Ok(true),
        result => result.map(|_| path[0] == b'/'),
    }
}

/// prctl(2).
fn prctl(option: u64, argument: u64) -> Result<usize, Errno> {
    // SAFETY: the options used here take integers, or a pointer to a live string.
    unsafe { syscall(number::PRCTL, [option, argument, 0, 0, 0, 0]) }
}

/// Drops a capability from the bounding set (`PR_CAPBSET_DROP`).
pub fn bounding_drop(capability: u32) -> Result<usize, Errno> {
    prctl(24, u64::from(capability))
}

/// Keeps processes of the same user from looking into this one (`PR_SET_DUMPABLE`).
pub fn hide() -> Result<usize, Errno> {
    prctl(4, 0)
}

/// Names the process as ps(1) shows it (`PR_SET_NAME`).
pub fn set_name(name: &CStr) -> Result<usize, Errno> {
    prctl(15, name.as_ptr() as u64)
}

/// close(2).
pub fn close(fd: i32) {
    // SAFETY: closing a number touches no memory, and nothing here owns descriptors.
    let _ = unsafe { syscall(number::CLOSE, [word(fd), 0, 0, 0, 0, 0]) };
}

/// Closes standard input, output and error (close_range(2)).
pub fn close_stdio() {
    // SAFETY: as for close.
    let _ = unsafe { syscall(number::CLOSE_RANGE, [0, 2, 0, 0, 0, 0]) };
}

/// Marks a descriptor to be closed by execve(2) (fcntl(2)).
pub fn close_on_exec(fd: i32) -> Result<usize, Errno> {
    // SAFETY: F_SETFD takes integers.
    unsafe { syscall(number::FCNTL, [word(fd), 2, 1, 0, 0, 0]) }
}

/// getpid(2).
pub fn getpid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { syscall(number::GETPID, [0; 6]) }.unwrap_or(0) as i32
}

/// Sends a signal (kill(2)).
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: takes two integers. A process that is gone needs no signal.
    let _ = unsafe { syscall(number::KILL, [word(pid), word(signal), 0, 0, 0, 0]) };
}

/// Ends the process (exit_group(2)).
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes an integer and does not return.
        let _ = unsafe { syscall(number::EXIT_GROUP, [word(status), 0, 0, 0, 0, 0]) };
    }
}

/// What poll(2) waits for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PollFd {
    fd: i32,
    events: i16,
    returned: i16,
}

impl PollFd {
    /// Waits until there is something to read from `fd`; a negative number is not waited for.
    pub fn readable(fd: i32) -> PollFd {
        const POLLIN: i16 = 1;
        PollFd { fd, events: POLLIN, returned: 0 }
    }

    /// Whether anything has happened.
    pub fn happened(&self) -> bool {
        self.returned != 0
    }
}

/// Waits without a time limit (poll(2)).
pub fn poll(fds: &mut [PollFd]) -> Result<usize, Errno> {
    const FOREVER: u64 = u64::MAX;
    // SAFETY: pointer and length are those of a live slice of struct pollfd.
    unsafe { syscall(number::POLL, [fds.as_mut_ptr() as u64, fds.len() as u64, FOREVER, 0, 0, 0]) }
}

/// Accepts a connection; close-on-exec (accept4(2)).
pub fn accept(listener: i32) -> Result<i32, Errno> {
    const SOCK_CLOEXEC: u64 = 0o2_000_000;
    // SAFETY: null for the address is allowed.
    unsafe { syscall(number::ACCEPT4, [word(listener), 0, 0, SOCK_CLOEXEC, 0, 0]) }.map(|fd| fd as i32)
}

const SOL_SOCKET: u64 = 1;

/// The user of the process at the other end of a Unix socket (unix(7), `SO_PEERCRED`).
pub fn peer_user(socket: i32) -> Result<u32, Errno> {
    const SO_PEERCRED: u64 = 17;
    let mut credentials = [0_u32; 3];
    let mut length = 12_u32;
    let (place, size) = (credentials.as_mut_ptr() as u64, &raw mut length as u64);
    // SAFETY: a struct ucred has three words; its length lives through the call.
    unsafe { syscall(number::GETSOCKOPT, [word(socket), SOL_SOCKET, SO_PEERCRED, place, size, 0]) }?;
    Ok(credentials[1])
}

/// Asks for the sender's pid with every message (unix(7), `SO_PASSCRED`).
pub fn pass_credentials(socket: i32) -> Result<usize, Errno> {
    const SO_PASSCRED: u64 = 16;
    let on = 1_u32;
    // SAFETY: the option is an int, which lives through the call.
    unsafe {
        syscall(number::SETSOCKOPT, [word(socket), SOL_SOCKET, SO_PASSCRED, &raw const on as u64, 4, 0])
    }
}

/// Sends a packet (send(2)), without SIGPIPE.
pub fn send(socket: i32, packet: &[u8]) -> Result<usize, Errno> {
    const MSG_NOSIGNAL: u64 = 0x4000;
    let (data, length) = (packet.as_ptr() as u64, packet.len() as u64);
    // SAFETY: pointer and length are those of a live slice; no address is given.
    unsafe { syscall(number::SENDTO, [word(socket), data, length, MSG_NOSIGNAL, 0, 0]) }
}

/// write(2), which every filter of system calls allows.
pub fn write(fd: i32, data: &[u8]) -> Result<usize, Errno> {
    // SAFETY: pointer and length are those of a live slice.
    unsafe { syscall(number::WRITE, [word(fd), data.as_ptr() as u64, data.len() as u64, 0, 0, 0]) }
}

/// read(2).
pub fn read(fd: i32, data: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: pointer and length are those of a live slice.
    unsafe { syscall(number::READ, [word(fd), data.as_mut_ptr() as u64, data.len() as u64, 0, 0, 0]) }
}

/// The signal and sender of the next record of a signalfd; `None` when there is none.
pub fn read_signal(fd: i32) -> Option<(i32, u32)> {
    // struct signalfd_siginfo: 128 bytes; ssi_signo, ssi_errno, ssi_code, ssi_pid come first.
    let mut record = [0_u32; 32];
    // SAFETY: pointer and length are those of a live array.
    let length = unsafe { syscall(number::READ, [word(fd), record.as_mut_ptr() as u64, 128, 0, 0, 0]) };
    (length == Ok(128)).then_some((record[0] as i32, record[3]))
}

/// Reaps one child that has ended, any of them, without waiting (wait4(2)): its pid and wait status.
pub fn reap() -> Option<(i32, i32)> {
    const WNOHANG_WALL: u64 = 0x4000_0001;
    let mut status = 0_i32;
    // SAFETY: the status lives through the call; null for the usage is allowed.
    let pid = unsafe { syscall(number::WAIT4, [u64::MAX, &raw mut status as u64, WNOHANG_WALL, 0, 0, 0]) };
    pid.ok().filter(|pid| *pid > 0).map(|pid| (pid as i32, status))
}

/// Gives every signal its default action (rt_sigaction(2)): an executed program inherits ignored ones.
pub fn default_signal_actions() {
    // The kernel's structure: handler, flags, restorer and mask, all of them words; SIG_DFL is 0.
    let action = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the action lives through the call, and 8 is the size of the mask; SIGKILL and SIGSTOP are
        // refused without effect.
        let _ = unsafe { syscall(number::RT_SIGACTION, [signal, action.as_ptr() as u64, 0, 8, 0, 0]) };
    }
}

/// Unblocks every signal.
pub fn unblock_signals() -> Result<usize, Errno> {
    set_signal_mask(0)
}

/// Replaces the mask of blocked signals (rt_sigprocmask(2)); bit N - 1 is signal N.
fn set_signal_mask(mask: u64) -> Result<usize, Errno> {
    const SIG_SETMASK: u64 = 2;
    // SAFETY: the mask lives through the call.
    unsafe { syscall(number::RT_SIGPROCMASK, [SIG_SETMASK, &raw const mask as u64, 0, 8, 0, 0]) }
}

/// Blocks every signal and makes a non-blocking descriptor to read them from (signalfd(2)); close-on-exec. Every one:
/// the two that a C library keeps for itself are signals of the workload like the others.
pub fn watch_signals() -> Result<i32, Errno> {
    const CLOEXEC_NONBLOCK: u64 = 0o2_004_000;
    let all = u64::MAX;
    set_signal_mask(all)?;
    // SAFETY: the mask lives through the call.
    unsafe { syscall(number::SIGNALFD4, [u64::MAX, &raw const all as u64, 8, CLOEXEC_NONBLOCK, 0, 0]) }
        .map(|fd| fd as i32)
}

/// Ends the process by a signal's default action, if that is possible: the first process of a pid
/// namespace cannot. It is hidden, so that it leaves no core file.
pub fn die_by(signal: i32) {
    if unblock_signals().is_ok() {
        kill(getpid(), signal);
    }
}

/// Makes a sibling with a copy of this memory (clone(2), `CLONE_PARENT`): its pid, or 0 in the sibling.
pub fn clone_sibling() -> Result<i32, Errno> {
    const CLONE_PARENT: u64 = 0x8000;
    // SAFETY: without CLONE_VM the child has a copy of this memory and runs on its own copy of this stack.
    unsafe { syscall(number::CLONE, [CLONE_PARENT, 0, 0, 0, 0, 0]) }.map(|pid| pid as i32)
}

/// Executes a program (execve(2)); returns only the error. All three are pointers of the orders.
pub fn execve(program: u64, arguments: u64, environment: u64) -> Errno {
    // SAFETY: the builder wrote a terminated string and two lists that end with a null pointer.
    let result = unsafe { syscall(number::EXECVE, [program, arguments, environment, 0, 0, 0]) };
    result.err().unwrap_or(Errno(0))
}
