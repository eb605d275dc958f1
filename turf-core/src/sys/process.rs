//! Processes: their end, their descriptors, the program they execute, the memory they give back.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Ends the process at once, without handlers or destructors (_exit(2)).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Executes a program in place of this one (execve(2)); returns only the error.
pub fn execve(program: &CStr, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: the program is a terminated string and both lists are terminated by null; all of them
    // live through the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
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

/// Blocks every signal and makes a non-blocking descriptor to read them from (sigprocmask(2),
/// signalfd(2)); close-on-exec.
pub fn signalfd_all() -> io::Result<OwnedFd> {
    let all = signal_set(true);
    change_mask(&all)?;
    // SAFETY: the set is a live, initialised sigset_t.
    let fd = unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Unblocks every signal (sigprocmask(2)).
pub fn unblock_signals() -> io::Result<()> {
    change_mask(&signal_set(false))
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

/// The signal and sender of the next record of a signalfd; `None` when there is none.
pub fn read_signal(signalfd: BorrowedFd<'_>) -> Option<(i32, u32)> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut record = [0; SIZE];
    let length = nix::unistd::read(signalfd, &mut record).ok()?;
    if length != SIZE {
        return None;
    }
    // SAFETY: the kernel filled the record with one whole signalfd_siginfo, which is plain data; the
    // read is unaligned on purpose.
    let info = unsafe { std::ptr::read_unaligned(record.as_ptr().cast::<libc::signalfd_siginfo>()) };
    Some((i32::try_from(info.ssi_signo).ok()?, info.ssi_pid))
}

/// Reaps one child that has ended, any of them, without waiting (wait4(2)): its pid and wait
/// status; `None` if none has ended.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status lives through the call; __WALL also waits for children without SIGCHLD.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    (pid > 0).then_some((pid, status))
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

/// Ends the process by a signal's default action, without a core file, if that is possible: the
/// first process of a pid namespace cannot (sigaction(2), kill(2)).
pub fn die_by(signal: i32) {
    // SAFETY: PR_SET_DUMPABLE takes integers and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SAFETY: SIG_DFL is a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    if unblock_signals().is_ok() {
        let _ = kill(std::process::id() as i32, signal);
    }
}

/// Closes standard input, output and error: whoever reads at their other end sees the end when the
/// last writer has ended, not when this process has.
pub fn close_stdio() {
    // SAFETY: the descriptors belong to nobody in this process, which prints nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 0, 2, 0) };
}

/// Receives one packet without waiting, and the pid of its sender, translated to this pid namespace (recvmsg(2),
/// `SCM_CREDENTIALS`); the socket has `SO_PASSCRED`. Descriptors that came along are closed.
pub fn receive_with_pid(socket: BorrowedFd<'_>, packet: &mut [u8]) -> io::Result<(usize, i32)> {
    let mut vector = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
    let mut control = ControlBuffer { bytes: [0; 256] };
    // SAFETY: an msghdr is plain data for which all zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<ControlBuffer>() as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the message points to a live packet buffer and a live, aligned control buffer.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((length as usize, take_control(&message)))
}

/// Room for credentials and the few descriptors somebody may have added; aligned as cmsghdr is.
#[repr(C, align(8))]
struct ControlBuffer {
    bytes: [u8; 256],
}

/// Reads the sender's pid from the control messages and closes any descriptors in them.
fn take_control(message: &libc::msghdr) -> i32 {
    let mut pid = 0;
    // SAFETY: the message was filled by recvmsg and its buffers live.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header in the aligned buffer.
        let libc::cmsghdr { cmsg_len: length, cmsg_level: level, cmsg_type: kind } = unsafe { *header };
        // SAFETY: the header is whole, so its data starts right after it.
        let data = unsafe { libc::CMSG_DATA(header) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_CREDENTIALS {
            // SAFETY: an SCM_CREDENTIALS message holds one ucred.
            pid = unsafe { std::ptr::read_unaligned(data.cast::<libc::ucred>()) }.pid;
        } else if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..length.saturating_sub(head) / size_of::<RawFd>() {
                // SAFETY: the index is below the number of descriptors in the message.
                let place = unsafe { data.cast::<RawFd>().add(index) };
                // SAFETY: a whole descriptor stands there.
                let fd = unsafe { std::ptr::read_unaligned(place) };
                // SAFETY: recvmsg just made this descriptor, so nothing else owns it.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; the header is one of this message.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    pid
}

/// Whether the working directory lies below the process's root (getcwd(2)): a directory that was
/// opened outside shows a path that does not start with a slash.
pub fn cwd_is_reachable() -> io::Result<bool> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the pointer and the length are those of a live buffer.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    if length < 0 { Err(io::Error::last_os_error()) } else { Ok(path[0] == b'/') }
}

fn signal_set(full: bool) -> libc::sigset_t {
    // SAFETY: a sigset_t is plain data for which all zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    if full {
        // SAFETY: the set lives through the call.
        unsafe { libc::sigfillset(&raw mut set) };
    }
    set
}

fn change_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialised; a null old set is allowed.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
