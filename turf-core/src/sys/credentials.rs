//! What a process may do: capabilities(7), prctl(2), seccomp(2), keyctl(2), limits, scheduling.
//!
//! All of these act on the calling thread; the callers are single-threaded. The C library's
//! wrappers for users and groups synchronise threads and take locks, so users and groups are set by the
//! system calls themselves.

use std::ffi::CStr;
use std::io;

/// Sets real, effective and saved user id (setresuid(2)).
pub fn setresuid(uid: u32) -> io::Result<()> {
    // SAFETY: setresuid takes three integers and touches no memory.
    done(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Sets the effective user id alone, and keeps the capabilities in force that the change would suspend (setresuid(2),
/// capabilities(7)).
pub fn become_effective(uid: u32) -> io::Result<()> {
    const UNCHANGED: u32 = u32::MAX;
    let own = capget()?;
    // SAFETY: setresuid takes three integers and touches no memory.
    done(unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, uid, UNCHANGED) })?;
    capset(CapabilitySets { effective: own.permitted, ..own })
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

/// Raises an ambient capability (prctl(2), `PR_CAP_AMBIENT_RAISE`).
pub fn capability_ambient_raise(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability)).map(drop)
}

/// Whether processes of the same user may look into this one (prctl(2), `PR_SET_DUMPABLE`).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0).map(drop)
}

/// Names the calling thread as ps(1) shows it, cut to 15 bytes (prctl(2), `PR_SET_NAME`).
pub fn set_name(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a terminated string that lives through the call.
    done(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }))
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> io::Result<libc::c_int> {
    // SAFETY: the options used here take integers and touch no memory.
    let result = unsafe { libc::prctl(option, first, second, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
