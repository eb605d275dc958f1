//! What a seed may do: the exact lists. Pure; the seed applies the plan to itself before V8 starts.
//!
//! | | a seed that loads the built-ins only | a seed with user code |
//! |---|---|---|
//! | user | root | its tenant's |
//! | capabilities | [`KEPT`]: what it enters sandboxes with, and what its workers may be granted | none, also not in the bounding set |
//! | `no_new_privs` | as started: it cannot execute anything | yes |
//! | system calls | all but [`NEVER`] | all but those and [`NEVER_FOR_USER_CODE`] |
//!
//! A worker inherits the filter: what is refused here is refused in every sandbox, too.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use crate::error::{Error, Result};
use crate::sandbox::plan::{CapabilityPlan, ProcessPlan};
use crate::sandbox::process::capability_bit;
use crate::sandbox::seccomp;

/// The capabilities of a seed that enters any sandbox: those for entering (`SYS_ADMIN`, `SYS_CHROOT`, `SYS_PTRACE` over
/// an init that is not dumpable), those for dressing a worker as its bundle says, and those that engines grant to
/// containers.
pub const KEPT: [&str; 20] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
];
/// Needed to raise a worker's limits; not every root has it.
const KEPT_IF_THERE: [&str; 1] = ["SYS_RESOURCE"];

/// System calls that no seed and no worker has a use for.
pub const NEVER: [&str; 44] = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "execve",
    "execveat",
    "fanotify_init",
    "finit_module",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// What user code might attack the kernel with, and what only root has a use for.
pub const NEVER_FOR_USER_CODE: [&str; 5] =
    ["io_uring_enter", "io_uring_register", "io_uring_setup", "setdomainname", "sethostname"];

/// The flags of clone(2) that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// How a seed is dressed; `tenant` is the id of one with user code.
pub fn of_seed(tenant: Option<u32>) -> Result<ProcessPlan> {
    let kept = match tenant {
        Some(_) => 0,
        None => KEPT
            .iter()
            .chain(&KEPT_IF_THERE)
            .filter_map(|name| capability_bit(name))
            .fold(0, |all, bit| all | bit),
    };
    let id = tenant.unwrap_or(0);
    Ok(ProcessPlan {
        cwd: "/".into(),
        uid: id,
        gid: id,
        umask: 0o077,
        capabilities: CapabilityPlan {
            bounding: kept,
            permitted: kept,
            effective: kept,
            inheritable: 0,
            ambient: 0,
        },
        no_new_privileges: tenant.is_some(),
        seccomp: Some(seccomp::compile(&filter(tenant.is_some())?, "the seed's filter")?),
        ..ProcessPlan::default()
    })
}

fn filter(has_user_code: bool) -> Result<LinuxSeccomp> {
    let mut names: Vec<&str> = NEVER.to_vec();
    if has_user_code {
        names.extend(NEVER_FOR_USER_CODE);
    }
    let mut rules = vec![refuse(&names, libc::EPERM, None)?];
    // Its flags are in memory, where no filter can look: C libraries fall back to clone(2).
    rules.push(refuse(&["clone3"], libc::ENOSYS, None)?);
    for flag in NAMESPACES {
        let mask = u64::from(flag.unsigned_abs());
        let argument = LinuxSeccompArgBuilder::default()
            .index(0_usize)
            .value(mask)
            .value_two(mask)
            .op(LinuxSeccompOperator::ScmpCmpMaskedEq);
        rules.push(refuse(&["clone"], libc::EPERM, Some(argument.build().map_err(broken)?))?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .syscalls(rules)
        .build()
        .map_err(broken)
}

fn refuse(names: &[&str], errno: i32, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let rule = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno.unsigned_abs());
    match argument {
        Some(argument) => rule.args(vec![argument]).build(),
        None => rule.build(),
    }
    .map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::invalid("the seed's filter", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_said_once() {
        for name in KEPT.iter().chain(&KEPT_IF_THERE) {
            assert!(capability_bit(name).is_some(), "{name}");
        }
        let mut all: Vec<&str> = NEVER.iter().chain(&NEVER_FOR_USER_CODE).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn user_code_has_no_privilege() {
        let plan = of_seed(Some(7)).unwrap();
        assert_eq!((plan.uid, plan.gid, plan.no_new_privileges), (7, 7, true));
        assert_eq!(plan.capabilities, CapabilityPlan::default());
        assert!(plan.seccomp.is_some());
    }

    #[test]
    fn the_default_seed_keeps_what_it_needs() {
        let plan = of_seed(None).unwrap();
        let bit = |name| capability_bit(name).unwrap();
        assert_ne!(plan.capabilities.effective & bit("SYS_ADMIN"), 0);
        for dropped in
            ["SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "SYS_TIME", "BPF", "PERFMON", "MAC_ADMIN", "SYSLOG"]
        {
            assert_eq!(plan.capabilities.bounding & bit(dropped), 0, "{dropped}");
        }
    }
}
