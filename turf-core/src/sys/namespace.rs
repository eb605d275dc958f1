//! Processes in new namespaces: clone3(2); devices of a network namespace: netdevice(7).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Which side of [`clone_process`] the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The process that called; the child's pid as it sees it.
    Parent(i32),
    /// The new process.
    Child,
}

/// Makes a child with a copy of the address space, as fork(2) does, in new namespaces (clone3(2)).
/// `flags` are `CLONE_NEW*` and `CLONE_PARENT`; the exit signal is `SIGCHLD`.
///
/// The C library's fork handlers do not run and its idea of the thread's id is corrected by the
/// kernel. So the caller must be single-threaded, and the child is a whole process that may allocate.
pub fn clone_process(flags: u64) -> io::Result<Cloned> {
    const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
    let tid = tid_address();
    let mut args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if flags & libc::CLONE_PARENT as u64 != 0 {
        args.exit_signal = 0;
    }
    if let Some(tid) = tid {
        args.flags |= CLONE_CHILD_SETTID;
        args.child_tid = tid;
    }
    // SAFETY: `args` is a live clone_args of the size given. Without CLONE_VM the child has a copy
    // of this memory and runs on its own copy of this stack, so returning from here is sound; the
    // address that the kernel writes the child's tid to is the one the C library registered.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<CloneArgs>()) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent(pid as i32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where the C library keeps this thread's id (prctl(2), `PR_GET_TID_ADDRESS`); `None` on kernels
/// without checkpoint support.
fn tid_address() -> Option<u64> {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    let mut address: u64 = 0;
    // SAFETY: the kernel writes one pointer to `address`, which lives through the call.
    let result = unsafe { libc::prctl(PR_GET_TID_ADDRESS, std::ptr::from_mut(&mut address)) };
    (result == 0 && address != 0).then_some(address)
}

/// `struct clone_args`, its first version (clone3(2)).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Sets the NIS domain name of the uts namespace (setdomainname(2)).
pub fn setdomainname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live string.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Switches the loopback device of the current network namespace on (netdevice(7),
/// `SIOCSIFFLAGS`); `socket` is any socket of this namespace.
pub fn loopback_up(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: an ifreq is plain data for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_mut(&mut request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
