//! Dressing the calling process as its [`ProcessPlan`] says: limits, user, capabilities, filter.
//!
//! Called by init before it executes a program, and by a forked worker before user code. Nothing is
//! decided here. The order matters and is argued at [`apply_process`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, umask};

use super::plan::{CapabilityPlan, LabelMoment, MemoryPolicyPlan, ProcessPlan, SchedulerPlan, SeccompPlan};
use super::step::StepError;
use crate::sys::{credentials, mount, process};

/// Tells whoever made this process the number of the descriptor that seccomp notifications are read from, and
/// returns when the agent has it. It may use read(2) and write(2) only, and a filter must not leave write(2) open.
pub type HandOver<'a> = &'a mut dyn FnMut(RawFd) -> io::Result<()>;

/// Applies the plan to the calling, single-threaded process. It may allocate, but takes no lock and
/// starts no thread. The caller is inside the sandbox (namespaces and root) as its root user; afterwards
/// it may do no more than the workload may.
///
/// The order:
/// 1. what needs the privileges of the sandbox's root: keyring, OOM score, scheduling, limits;
/// 2. `no_new_privileges`, and the labels, which must still be writable;
/// 3. without `no_new_privileges` the system call filter: loading it needs `CAP_SYS_ADMIN`;
/// 4. the working directory, the bounding set, groups and user, the other capability sets;
/// 5. with `no_new_privileges` the filter last, so that it need not allow any of the above.
pub fn apply_process(plan: &ProcessPlan, agent: HandOver<'_>) -> Result<(), StepError> {
    join_keyring(plan)?;
    write_own_attributes(plan)?;
    set_scheduling(plan)?;
    for limit in &plan.rlimits {
        credentials::set_rlimit(limit.resource, limit.soft, limit.hard)
            .at(|| format!("set resource limit {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    if plan.no_new_privileges {
        credentials::set_no_new_privileges().at(|| "set no_new_privileges")?;
    } else {
        load_filter(plan.seccomp.as_ref(), agent)?;
    }
    // The directory may be open to root alone, or (on a network file system) to the user alone.
    let cwd_entered = match enter_cwd(plan) {
        Err(error) if !matches!(error.errno, libc::EACCES | libc::EPERM) => return Err(error),
        result => result.is_ok(),
    };
    let capabilities = drop_bounding(plan.capabilities)?;
    set_user(plan)?;
    if !cwd_entered {
        enter_cwd(plan)?;
    }
    set_capabilities(capabilities)?;
    umask(Mode::from_bits_truncate(plan.umask));
    if plan.no_new_privileges {
        load_filter(plan.seccomp.as_ref(), agent)?;
    }
    Ok(())
}

fn join_keyring(plan: &ProcessPlan) -> Result<(), StepError> {
    let Some(name) = &plan.session_keyring else { return Ok(()) };
    let name = c_string("join session keyring", name)?;
    match credentials::join_session_keyring(&name) {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => {
            Err(StepError::new("join a new session keyring", error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes the attributes that a process has only as files: OOM score and security labels.
fn write_own_attributes(plan: &ProcessPlan) -> Result<(), StepError> {
    if plan.oom_score_adj.is_none() && plan.apparmor_profile.is_none() && plan.selinux_label.is_none() {
        return Ok(());
    }
    let proc = own_proc().at(|| "open a proc file system")?;
    let write = |name: &str, text: &str| -> io::Result<()> {
        let path = format!("self/{name}");
        let file = openat(&proc, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        nix::unistd::write(&file, text.as_bytes())?;
        Ok(())
    };
    if let Some(score) = plan.oom_score_adj {
        write("oom_score_adj", &score.to_string()).at(|| format!("set oom_score_adj to {score}"))?;
    }
    if let Some(profile) = &plan.apparmor_profile {
        let (file, command) = match plan.labels {
            LabelMoment::Exec => ("exec", "exec"),
            LabelMoment::Now => ("current", "changeprofile"),
        };
        let text = format!("{command} {profile}");
        write(&format!("attr/apparmor/{file}"), &text)
            .or_else(|_| write(&format!("attr/{file}"), &text))
            .at(|| format!("set AppArmor profile {profile}"))?;
    }
    if let Some(label) = &plan.selinux_label {
        let file = match plan.labels {
            LabelMoment::Exec => "attr/exec",
            LabelMoment::Now => "attr/current",
        };
        write(file, label).at(|| format!("set SELinux label {label}"))?;
    }
    Ok(())
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

fn set_scheduling(plan: &ProcessPlan) -> Result<(), StepError> {
    if let Some(SchedulerPlan { policy, flags, nice, priority, runtime, deadline, period }) = plan.scheduler {
        let size = 0;
        let attributes = credentials::SchedulerAttributes {
            size,
            policy,
            flags,
            nice,
            priority,
            runtime,
            deadline,
            period,
        };
        credentials::set_scheduler(attributes).at(|| format!("set scheduling policy {policy}"))?;
    }
    if let Some(priority) = plan.io_priority {
        credentials::set_io_priority(priority).at(|| format!("set I/O priority {priority:#x}"))?;
    }
    if let Some(MemoryPolicyPlan { mode, nodes }) = &plan.memory_policy {
        credentials::set_memory_policy(*mode, nodes).at(|| format!("set memory policy {mode:#x}"))?;
    }
    if let Some(persona) = plan.personality {
        credentials::set_personality(persona).at(|| format!("set personality {persona:#x}"))?;
    }
    Ok(())
}

/// Changes into the working directory and checks that it lies inside the root: a descriptor that
/// leaked in must not lead out through `/proc/self/fd/N` (CVE-2024-21626).
fn enter_cwd(plan: &ProcessPlan) -> Result<(), StepError> {
    let step = || format!("change into the working directory {}", plan.cwd.display());
    nix::unistd::chdir(&plan.cwd).at(step)?;
    if process::cwd_is_reachable().at(step)? {
        return Ok(());
    }
    nix::unistd::chdir("/").at(|| "change into /")?;
    Err(StepError::refused(step(), "it lies outside of the container's root"))
}

/// Drops what the plan does not grant from the bounding set, clears the ambient set, and returns what
/// of the plan can be granted: a capability that this process lacks is left out, as the specification wants.
fn drop_bounding(plan: CapabilityPlan) -> Result<CapabilityPlan, StepError> {
    let own = credentials::capget().at(|| "read the capabilities")?;
    credentials::capability_ambient_clear().at(|| "clear the ambient capabilities")?;
    for capability in 0..64 {
        if plan.bounding & (1 << capability) != 0 {
            continue;
        }
        match credentials::capability_bounding_drop(capability) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor any above.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => {
                return Err(StepError::new(
                    format!("drop capability {capability} from the bounding set"),
                    error,
                ));
            }
        }
    }
    let permitted = plan.permitted & own.permitted;
    let inheritable = plan.inheritable & own.permitted;
    Ok(CapabilityPlan {
        bounding: plan.bounding,
        permitted,
        inheritable,
        effective: plan.effective & permitted,
        ambient: plan.ambient & permitted & inheritable,
    })
}

/// Sets groups and user, keeping the permitted capabilities for [`set_capabilities`] to reduce.
fn set_user(plan: &ProcessPlan) -> Result<(), StepError> {
    credentials::set_keep_capabilities(true).at(|| "keep capabilities over the change of user")?;
    match credentials::setgroups(&plan.additional_gids) {
        // A user namespace whose creator had no right over groups forbids setgroups(2) altogether.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && plan.additional_gids.is_empty() => {}
        result => result.at(|| format!("set supplementary groups {:?}", plan.additional_gids))?,
    }
    credentials::setresgid(plan.gid).at(|| format!("set group id {}", plan.gid))?;
    credentials::setresuid(plan.uid).at(|| format!("set user id {}", plan.uid))?;
    credentials::set_keep_capabilities(false).at(|| "stop keeping capabilities")
}

fn set_capabilities(plan: CapabilityPlan) -> Result<(), StepError> {
    let CapabilityPlan { effective, permitted, inheritable, ambient, bounding: _ } = plan;
    credentials::capset(credentials::CapabilitySets { effective, permitted, inheritable })
        .at(|| "set the capabilities")?;
    for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
        credentials::capability_ambient_raise(capability)
            .at(|| format!("raise ambient capability {capability}"))?;
    }
    Ok(())
}

/// Loads the filter. If calls are left to an agent, the process goes on only when the agent has their descriptor:
/// until then nobody would answer.
fn load_filter(plan: Option<&SeccompPlan>, hand_over: HandOver<'_>) -> Result<(), StepError> {
    let Some(SeccompPlan { flags, program, agent }) = plan else { return Ok(()) };
    let step = || format!("load the system call filter of {} instructions", program.len());
    if agent.is_none() {
        return credentials::seccomp_filter(*flags, program).at(step);
    }
    let notifications = credentials::seccomp_filter_with_listener(*flags, program).at(step)?;
    hand_over(notifications.as_raw_fd()).at(|| "wait for the seccomp agent")
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
