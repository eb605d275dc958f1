//! What a process may do: capabilities(7), prctl(2), seccomp(2), keyctl(2), limits, scheduling.
//!
//! All of these act on the calling thread; the callers are single-threaded. The C library's
//! wrappers for users and groups synchronise threads and take locks, so users and groups are set by the
//! system calls themselves.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Sets real, effective and saved user id (setresuid(2)).
pub fn setresuid(uid: u32) -> io::Result<()> {
    // SAFETY: setresuid takes three integers and touches no memory.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets real, effective and saved group id (setresgid(2)).
pub fn setresgid(gid: u32) -> io::Result<()> {
    // SAFETY: setresgid takes three integers and touches no memory.
    done(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })
}

/// Sets the supplementary groups (setgroups(2)).
pub fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a live slice.
    done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// The capability sets of capset(2); bit N is capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Sets three of the calling thread's capability sets (capset(2)).
pub fn capset(sets: CapabilitySets) -> io::Result<()> {
    let half = |shift: u32| CapData {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data elements; both live through the call.
    done(unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_mut(&mut header), data.as_ptr()) })
}

/// The calling thread's capability sets (capget(2)).
pub fn capget() -> io::Result<CapabilitySets> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 takes a header and fills two data elements; both live through the call.
    done(unsafe { libc::syscall(libc::SYS_capget, std::ptr::from_mut(&mut header), data.as_mut_ptr()) })?;
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapabilitySets {
        effective: whole(data[0].effective, data[1].effective),
        permitted: whole(data[0].permitted, data[1].permitted),
        inheritable: whole(data[0].inheritable, data[1].inheritable),
    })
}

/// Whether the bounding set has a capability; an error if the kernel does not know it (prctl(2),
/// `PR_CAPBSET_READ`).
pub fn capability_bounding_has(capability: u32) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0).map(|value| value == 1)
}

/// Drops a capability from the bounding set (prctl(2), `PR_CAPBSET_DROP`).
pub fn capability_bounding_drop(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0).map(drop)
}

/// Empties the ambient set (prctl(2), `PR_CAP_AMBIENT_CLEAR_ALL`).
pub fn capability_ambient_clear() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Raises an ambient capability (prctl(2), `PR_CAP_AMBIENT_RAISE`).
pub fn capability_ambient_raise(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability)).map(drop)
}

/// Keeps the permitted capabilities over a change of user (prctl(2), `PR_SET_KEEPCAPS`); execve(2) clears it.
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0).map(drop)
}

/// Forbids gaining privileges by execve(2) (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Whether processes of the same user may look into this one (prctl(2), `PR_SET_DUMPABLE`).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0).map(drop)
}

/// The signal this process gets when its parent dies; 0: none (prctl(2), `PR_SET_PDEATHSIG`).
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Names the calling thread as ps(1) shows it, cut to 15 bytes (prctl(2), `PR_SET_NAME`).
pub fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a terminated string that lives through the call.
    done(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }))
}

/// Installs a seccomp filter (seccomp(2), `SECCOMP_SET_MODE_FILTER`); each instruction is a
/// `struct sock_filter` as one number.
pub fn seccomp_filter(flags: u32, program: &[u64]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the program points to `len` instructions of eight bytes that live through the call; the
    // kernel only reads them.
    done(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    })
}

/// Installs a seccomp filter that leaves calls to whoever holds the returned descriptor, which is close-on-exec
/// (seccomp_unotify(2), `SECCOMP_FILTER_FLAG_NEW_LISTENER`).
pub fn seccomp_filter_with_listener(flags: u32, program: &[u64]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    // SAFETY: the program points to `len` instructions of eight bytes that live through the call; the
    // kernel only reads them.
    let fd = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: seccomp just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the NUMA memory policy of the calling thread (set_mempolicy(2)); bit N of `nodes` is node N.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the mask is null, or has the bits that the kernel reads and lives through the call.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
}

/// Sets the CPUs of the calling thread (sched_setaffinity(2)); bit N is CPU N.
pub fn set_cpu_affinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the mask has as many bytes as are given and lives through the call.
    done(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) })
}

/// Joins a new session keyring of this name (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`); its
/// serial number.
pub fn join_session_keyring(name: &CStr) -> io::Result<i32> {
    // SAFETY: the name is a terminated string that lives through the call.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if serial < 0 { Err(io::Error::last_os_error()) } else { Ok(serial as i32) }
}

/// Sets a resource limit of the calling process (prlimit(2)).
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: the new limit lives through the call and a null old limit is allowed.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::from_ref(&limit), old) })
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: personality takes one integer and touches no memory.
    let result = unsafe { libc::personality(libc::c_ulong::from(persona)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the I/O priority of the calling process (ioprio_set(2)).
pub fn set_io_priority(priority: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_set takes three integers and touches no memory.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// `struct sched_attr`, its first version (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulerAttributes {
    /// Size of this structure.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Sets scheduling policy and attributes of the calling thread (sched_setattr(2)); `size` is filled in.
pub fn set_scheduler(mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the structure lives through the call and says its own size.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_mut(&mut attributes), 0) })
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> io::Result<libc::c_int> {
    // SAFETY: the options used here take integers and touch no memory.
    let result = unsafe { libc::prctl(option, first, second, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
