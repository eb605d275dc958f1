//! Dressing a process as its [`ProcessPlan`] says: limits, user, capabilities, filter.
//!
//! What is done is written as orders: for init, which performs them before it executes a program, and for a
//! forked worker, which performs its own before user code. The order matters and is argued at [`dress`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use turf_init::orders::Kind;

use super::orders::{Argument, Builder, descriptor};
use super::plan::{CapabilityPlan, LabelMoment, MemoryPolicyPlan, ProcessPlan, SchedulerPlan, SeccompPlan};
use super::step::StepError;
use crate::sys::{credentials, mount};

/// Tells whoever made this process the number of the descriptor that seccomp notifications are read from, and
/// returns when the agent has it. It may use read(2) and write(2) only, and a filter must not leave write(2) open.
pub type HandOver<'a> = &'a mut dyn FnMut(RawFd) -> io::Result<()>;

/// Applies the plan to the calling, single-threaded process, as [`dress`] says.
pub fn apply_process(plan: &ProcessPlan, agent: HandOver<'_>) -> Result<(), StepError> {
    let mut builder = Builder::new();
    let _proc = dress(&mut builder, plan)?;
    builder.perform(agent)
}

/// Writes the calls that dress a process as the plan says. Whoever performs them has the privileges of the
/// caller, is inside the sandbox (namespaces and root) as its root user, and may afterwards do no
/// more than the workload may. The descriptor, if there is one, must stay open for them.
///
/// The order:
/// 1. what needs the privileges of the sandbox's root: keyring, OOM score, scheduling, limits;
/// 2. `no_new_privileges`, and the labels, which must still be writable; the working directory, which is then no
///    matter of the filter;
/// 3. without `no_new_privileges` the system call filter: loading it needs `CAP_SYS_ADMIN`;
/// 4. the bounding set, groups and user, the working directory if root could not enter it, the other capability sets;
/// 5. with `no_new_privileges` the filter last, so that it need not allow any of the above.
pub(crate) fn dress(calls: &mut Builder, plan: &ProcessPlan) -> Result<Option<OwnedFd>, StepError> {
    join_keyring(calls, plan)?;
    let proc = write_own_attributes(calls, plan)?;
    set_scheduling(calls, plan);
    for limit in &plan.rlimits {
        let step = format!("set resource limit {} to {}:{}", limit.resource, limit.soft, limit.hard);
        let place = calls.words(&[limit.soft, limit.hard]);
        calls.system(&step, libc::SYS_prlimit64, &[0.into(), limit.resource.into(), place.into()]);
    }
    // The directory may be open to root alone, or (on a network file system) to the user alone.
    enter_cwd(calls, plan, Kind::Directory)?;
    if plan.no_new_privileges {
        prctl(calls, "set no_new_privileges", libc::PR_SET_NO_NEW_PRIVS, 1, 0);
    } else {
        load_filter(calls, plan.seccomp.as_ref())?;
    }
    let own = credentials::capget().at(|| "read the capabilities")?;
    let capabilities = granted(plan.capabilities, own);
    drop_bounding(calls, capabilities);
    set_user(calls, plan);
    enter_cwd(calls, plan, Kind::DirectoryAgain)?;
    set_capabilities(calls, capabilities);
    calls.system("set the umask", libc::SYS_umask, &[plan.umask.into()]);
    if plan.no_new_privileges {
        load_filter(calls, plan.seccomp.as_ref())?;
    }
    Ok(proc)
}

fn prctl(calls: &mut Builder, step: &str, option: i32, first: u64, second: u64) {
    calls.system(step, libc::SYS_prctl, &[option.into(), first.into(), second.into()]);
}

fn join_keyring(calls: &mut Builder, plan: &ProcessPlan) -> Result<(), StepError> {
    let Some(name) = &plan.session_keyring else { return Ok(()) };
    let name = calls.string("join session keyring", name.as_bytes())?;
    let arguments = [libc::KEYCTL_JOIN_SESSION_KEYRING.into(), name.into()];
    // A kernel without keyrings has none to leave.
    calls.system("join a new session keyring", libc::SYS_keyctl, &arguments).tolerate(libc::ENOSYS);
    Ok(())
}

/// Writes the attributes that a process has only as files: OOM score and security labels.
fn write_own_attributes(calls: &mut Builder, plan: &ProcessPlan) -> Result<Option<OwnedFd>, StepError> {
    if plan.oom_score_adj.is_none() && plan.apparmor_profile.is_none() && plan.selinux_label.is_none() {
        return Ok(None);
    }
    let proc = own_proc().at(|| "open a proc file system")?;
    // Inherited by init's program; what that executes shall not have it.
    let close_on_exec = [descriptor(&proc), libc::F_SETFD.into(), libc::FD_CLOEXEC.into()];
    calls.system("mark a descriptor close-on-exec", libc::SYS_fcntl, &close_on_exec);
    let mut write = |kind: Kind, step: String, name: &str, text: &str| -> Result<(), StepError> {
        let path = calls.string(&step, format!("self/{name}").as_bytes())?;
        let data = calls.data(text.as_bytes());
        calls.call(kind, &step, 0, &[descriptor(&proc), path.into(), data.into(), text.len().into()]);
        Ok(())
    };
    if let Some(score) = plan.oom_score_adj {
        write(Kind::Write, format!("set oom_score_adj to {score}"), "oom_score_adj", &score.to_string())?;
    }
    if let Some(profile) = &plan.apparmor_profile {
        let (file, command) = match plan.labels {
            LabelMoment::Exec => ("exec", "exec"),
            LabelMoment::Now => ("current", "changeprofile"),
        };
        let (step, text) = (format!("set AppArmor profile {profile}"), format!("{command} {profile}"));
        write(Kind::WriteOrNext, step.clone(), &format!("attr/apparmor/{file}"), &text)?;
        write(Kind::Write, step, &format!("attr/{file}"), &text)?;
    }
    if let Some(label) = &plan.selinux_label {
        let file = match plan.labels {
            LabelMoment::Exec => "attr/exec",
            LabelMoment::Now => "attr/current",
        };
        write(Kind::Write, format!("set SELinux label {label}"), file, label)?;
    }
    Ok(Some(proc))
}

/// A proc file system that nothing in the sandbox can have been mounted over: made for this
/// purpose and attached nowhere. Where the kernel refuses that (user namespaces), /proc, if it is one.
fn own_proc() -> io::Result<OwnedFd> {
    let made = mount::fsopen(c"proc").and_then(|context| {
        mount::fsconfig_create(context.as_fd())?;
        mount::fsmount(context.as_fd(), 0)
    });
    if let Ok(proc) = made {
        return Ok(proc);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty())?;
    let kind = nix::sys::statfs::fstatfs(&proc)?.filesystem_type();
    if kind == nix::sys::statfs::PROC_SUPER_MAGIC {
        Ok(proc)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn set_scheduling(calls: &mut Builder, plan: &ProcessPlan) {
    /// `struct sched_attr`, its first version (sched_setattr(2)).
    const SIZE: u64 = 48;
    const IOPRIO_WHO_PROCESS: i32 = 1;
    if let Some(SchedulerPlan { policy, flags, nice, priority, runtime, deadline, period }) = plan.scheduler {
        let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let attributes =
            [SIZE | u64::from(policy) << 32, flags, halves(nice as u32, priority), runtime, deadline, period];
        let place = calls.words(&attributes);
        let step = format!("set scheduling policy {policy}");
        calls.system(&step, libc::SYS_sched_setattr, &[0.into(), place.into(), 0.into()]);
    }
    if let Some(priority) = plan.io_priority {
        let step = format!("set I/O priority {priority:#x}");
        calls.system(&step, libc::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS.into(), 0.into(), priority.into()]);
    }
    if let Some(MemoryPolicyPlan { mode, nodes }) = &plan.memory_policy {
        // The kernel reads one bit less than it is told.
        let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
        let mask = if nodes.is_empty() { 0.into() } else { calls.words(nodes).into() };
        let step = format!("set memory policy {mode:#x}");
        calls.system(&step, libc::SYS_set_mempolicy, &[(*mode).into(), mask, bits.into()]);
    }
    if let Some(persona) = plan.personality {
        let step = format!("set personality {persona:#x}");
        calls.system(&step, libc::SYS_personality, &[persona.into()]);
    }
}

/// Changes into the working directory; that it lies inside the root is checked where it is done: a descriptor that
/// leaked in must not lead out through `/proc/self/fd/N` (CVE-2024-21626).
fn enter_cwd(calls: &mut Builder, plan: &ProcessPlan, kind: Kind) -> Result<(), StepError> {
    const OUTSIDE: &str = "it lies outside of the container's root";
    let step = format!("change into the working directory {}", plan.cwd.display());
    let path = calls.string(&step, plan.cwd.as_os_str().as_bytes())?;
    let words = calls.data(OUTSIDE.as_bytes());
    calls.call(kind, &step, 0, &[path.into(), words.into(), OUTSIDE.len().into()]);
    Ok(())
}

/// What of the plan can be granted: a capability that this process lacks is left out, as the specification wants.
fn granted(plan: CapabilityPlan, own: credentials::CapabilitySets) -> CapabilityPlan {
    let permitted = plan.permitted & own.permitted;
    let inheritable = plan.inheritable & own.permitted;
    CapabilityPlan {
        bounding: plan.bounding,
        permitted,
        inheritable,
        effective: plan.effective & permitted,
        ambient: plan.ambient & permitted & inheritable,
    }
}

/// Drops what the plan does not grant from the bounding set, and clears the ambient set.
fn drop_bounding(calls: &mut Builder, plan: CapabilityPlan) {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    prctl(calls, "clear the ambient capabilities", libc::PR_CAP_AMBIENT, clear, 0);
    let step = "drop a capability from the bounding set";
    calls.call(Kind::DropBounding, step, 0, &[plan.bounding.into()]);
}

/// Sets groups and user, keeping the permitted capabilities for [`set_capabilities`] to reduce.
fn set_user(calls: &mut Builder, plan: &ProcessPlan) {
    let keep = libc::PR_SET_KEEPCAPS;
    prctl(calls, "keep capabilities over the change of user", keep, 1, 0);
    let gids: Vec<u8> = plan.additional_gids.iter().flat_map(|gid| gid.to_le_bytes()).collect();
    let place = calls.data(&gids);
    let step = format!("set supplementary groups {:?}", plan.additional_gids);
    calls.system(&step, libc::SYS_setgroups, &[plan.additional_gids.len().into(), place.into()]);
    if plan.additional_gids.is_empty() {
        // A user namespace whose creator had no right over groups forbids setgroups(2) altogether.
        calls.tolerate(libc::EPERM);
    }
    let ids = |id: u32| [Argument::from(id); 3];
    calls.system(&format!("set group id {}", plan.gid), libc::SYS_setresgid, &ids(plan.gid));
    calls.system(&format!("set user id {}", plan.uid), libc::SYS_setresuid, &ids(plan.uid));
    prctl(calls, "stop keeping capabilities", keep, 0, 0);
}

fn set_capabilities(calls: &mut Builder, plan: CapabilityPlan) {
    /// `_LINUX_CAPABILITY_VERSION_3`; the pid behind it is 0, the caller.
    const VERSION_3: u64 = 0x2008_0522;
    let CapabilityPlan { effective, permitted, inheritable, ambient, bounding: _ } = plan;
    // Two elements of three halves of words: effective, permitted, inheritable.
    let halves = [0, 32].map(|shift| [effective, permitted, inheritable].map(|set| (set >> shift) as u32));
    let data: Vec<u8> = halves.as_flattened().iter().flat_map(|half| half.to_le_bytes()).collect();
    let (header, data) = (calls.words(&[VERSION_3]), calls.data(&data));
    calls.system("set the capabilities", libc::SYS_capset, &[header.into(), data.into()]);
    for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
        let step = format!("raise ambient capability {capability}");
        let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
        prctl(calls, &step, libc::PR_CAP_AMBIENT, raise, capability);
    }
}

/// Loads the filter. If calls are left to an agent, the process goes on only when the agent has their descriptor:
/// until then nobody would answer.
fn load_filter(calls: &mut Builder, plan: Option<&SeccompPlan>) -> Result<(), StepError> {
    let Some(SeccompPlan { flags, program, agent }) = plan else { return Ok(()) };
    let step = format!("load the system call filter of {} instructions", program.len());
    let length = u16::try_from(program.len()).map_err(|_| StepError::refused(&step, "it is too long"))?;
    let program = calls.words(program);
    let place = calls.number_and_pointer(u64::from(length), program);
    let (kind, flags) = match agent {
        None => (Kind::System, *flags),
        Some(_) => (Kind::Listener, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32),
    };
    let arguments = [libc::SECCOMP_SET_MODE_FILTER.into(), flags.into(), place.into()];
    calls.call(kind, &step, libc::SYS_seccomp, &arguments);
    Ok(())
}

pub(crate) fn c_string(step: &str, text: &str) -> Result<CString, StepError> {
    CString::new(text).map_err(|_| StepError::refused(step, "holds a zero byte"))
}

/// Names the step that a failed system call belonged to.
pub(crate) trait At<T> {
    /// Turns the error into a [`StepError`]; the step's name is built only on failure.
    fn at<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, StepError> {
        self.map_err(|error| StepError::new(step().into(), error))
    }
}
