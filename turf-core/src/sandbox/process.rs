//! From `process` of config.json to the [`ProcessPlan`]: names become numbers. Pure.

use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxCapabilities, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType, Process, Scheduler, Spec,
};

use super::compile::{Context, Keyring, clean};
use super::plan::{
    CapabilityPlan, CpuAffinityPlan, LabelMoment, ProcessPlan, RlimitPlan, SchedulerPlan, TerminalPlan,
};
use super::{memory_policy, number_list};
use crate::bundle::Workload;
use crate::error::{Error, Result};

/// The file mode creation mask when config.json names none, as runc has it.
const DEFAULT_UMASK: u32 = 0o022;

/// Compiles `process`; the seccomp program is left to the caller.
pub(crate) fn compile(spec: &Spec, workload: &Workload, context: Context<'_>) -> Result<ProcessPlan> {
    // Nothing can be started then, but everything else can be made (config.md, "Process").
    let Some(process) = spec.process() else { return Ok(ProcessPlan::default()) };
    let personality = spec.linux().as_ref().and_then(|linux| linux.personality().clone());
    Ok(ProcessPlan {
        labels: match workload {
            Workload::Exec => LabelMoment::Exec,
            Workload::Worker(_) => LabelMoment::Now,
        },
        personality: personality.as_ref().map(self::personality).transpose()?,
        memory_policy: match spec.linux() {
            Some(linux) => memory_policy::compile(linux)?,
            None => None,
        },
        session_keyring: (context.keyring == Keyring::New).then(|| format!("_ses.{}", context.id)),
        ..of_process(process)?
    })
}

/// Compiles what `process` itself says.
fn of_process(process: &Process) -> Result<ProcessPlan> {
    let user = process.user();
    Ok(ProcessPlan {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: clean(process.cwd()),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(DEFAULT_UMASK),
        capabilities: process.capabilities().as_ref().map(capabilities).unwrap_or_default(),
        rlimits: rlimits(process),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: process.apparmor_profile().clone().filter(|profile| !profile.is_empty()),
        selinux_label: process.selinux_label().clone().filter(|label| !label.is_empty()),
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        exec_cpu_affinity: cpu_affinity(process)?,
        terminal: terminal(process),
        ..ProcessPlan::default()
    })
}

/// Compiles another process of a container: what `process` leaves out is as in the container's own, as with
/// runc; the system call filter, the personality and the keyring are always the container's.
pub(crate) fn compile_another(process: &Process, own: &ProcessPlan) -> Result<ProcessPlan> {
    let mut plan = of_process(process)?;
    if process.capabilities().is_none() {
        plan.capabilities = own.capabilities;
    }
    if plan.rlimits.is_empty() {
        plan.rlimits.clone_from(&own.rlimits);
    }
    if process.no_new_privileges().is_none() {
        plan.no_new_privileges = own.no_new_privileges;
    }
    if process.user().umask().is_none() {
        plan.umask = own.umask;
    }
    plan.oom_score_adj = plan.oom_score_adj.or(own.oom_score_adj);
    plan.apparmor_profile = plan.apparmor_profile.or_else(|| own.apparmor_profile.clone());
    plan.selinux_label = plan.selinux_label.or_else(|| own.selinux_label.clone());
    plan.io_priority = plan.io_priority.or(own.io_priority);
    plan.scheduler = plan.scheduler.or(own.scheduler);
    plan.exec_cpu_affinity = plan.exec_cpu_affinity.or_else(|| own.exec_cpu_affinity.clone());
    plan.memory_policy.clone_from(&own.memory_policy);
    plan.personality = own.personality;
    plan.session_keyring.clone_from(&own.session_keyring);
    plan.seccomp.clone_from(&own.seccomp);
    Ok(plan)
}

/// The bit of a capability in a [`CapabilityPlan`], by its name with or without `CAP_`, in any case.
pub(crate) fn capability_bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    CAPABILITIES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The names of all capabilities, in the order of their numbers.
pub fn capability_names() -> impl Iterator<Item = String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}"))
}

/// The terminal the process asks for.
pub(crate) fn terminal(process: &Process) -> Option<TerminalPlan> {
    if process.terminal() != Some(true) {
        return None;
    }
    let size = process.console_size();
    let cells = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
    let plan = |size: oci_spec::runtime::Box| TerminalPlan {
        height: cells(size.height()),
        width: cells(size.width()),
    };
    Some(size.map_or(TerminalPlan::default(), plan))
}

/// Capabilities by number (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capabilities(sets: &LinuxCapabilities) -> CapabilityPlan {
    CapabilityPlan {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        inheritable: mask(sets.inheritable()),
        permitted: mask(sets.permitted()),
        ambient: mask(sets.ambient()),
    }
}

fn mask(set: &Option<Capabilities>) -> u64 {
    let number = |name: &str| CAPABILITIES.iter().position(|known| *known == name);
    set.iter()
        .flatten()
        .filter_map(|capability| number(&capability.to_string()))
        .fold(0, |mask, number| mask | 1 << number)
}

fn rlimits(process: &Process) -> Vec<RlimitPlan> {
    let plan = |limit: &oci_spec::runtime::PosixRlimit| RlimitPlan {
        resource: resource(limit.typ()),
        soft: limit.soft(),
        hard: limit.hard(),
    };
    process.rlimits().iter().flatten().map(plan).collect()
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

/// The encoding of ioprio_set(2): the class above bit 13, the level below.
fn io_priority(priority: &oci_spec::runtime::LinuxIOPriority) -> Result<u32> {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u32::try_from(priority.priority()).ok().filter(|level| *level <= 7).ok_or_else(|| {
        Error::invalid("config.json: $.process.ioPriority.priority", "must be 0 (highest) to 7")
    })?;
    Ok(class << 13 | level)
}

/// The execution domain with its flags, by their names in personality(2).
pub(crate) fn personality(personality: &LinuxPersonality) -> Result<u32> {
    const FLAGS: [(&str, u32); 11] = [
        ("UNAME26", 0x002_0000),
        ("ADDR_NO_RANDOMIZE", 0x004_0000),
        ("FDPIC_FUNCPTRS", 0x008_0000),
        ("MMAP_PAGE_ZERO", 0x010_0000),
        ("ADDR_COMPAT_LAYOUT", 0x020_0000),
        ("READ_IMPLIES_EXEC", 0x040_0000),
        ("ADDR_LIMIT_32BIT", 0x080_0000),
        ("SHORT_INODE", 0x100_0000),
        ("WHOLE_SECONDS", 0x200_0000),
        ("STICKY_TIMEOUTS", 0x400_0000),
        ("ADDR_LIMIT_3GB", 0x800_0000),
    ];
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    personality.flags().iter().flatten().enumerate().try_fold(domain, |persona, (index, name)| {
        let flag = FLAGS.iter().find(|(known, _)| known == name).map(|(_, flag)| flag);
        let unknown = || {
            let place = format!("config.json: $.linux.personality.flags[{index}]");
            Error::invalid(place, format!("{name:?} is no flag of personality(2)"))
        };
        flag.map(|flag| persona | flag).ok_or_else(unknown)
    })
}

/// Refuses what could not be compiled.
pub(crate) fn check(process: &Process) -> Result<()> {
    of_process(process).map(drop)
}

/// The CPUs of processes that join the container.
fn cpu_affinity(process: &Process) -> Result<Option<CpuAffinityPlan>> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(None) };
    let mask = |list: &Option<String>, field: &str| {
        number_list::mask(list.as_deref().unwrap_or_default()).map_err(|reason| {
            Error::invalid(format!("config.json: $.process.execCPUAffinity.{field}"), reason)
        })
    };
    let plan = CpuAffinityPlan {
        initial: mask(affinity.initial(), "initial")?,
        lasting: mask(affinity.cpu_affinity_final(), "final")?,
    };
    Ok(Some(plan).filter(|plan| *plan != CpuAffinityPlan::default()))
}

fn scheduler(scheduler: &Scheduler) -> Result<SchedulerPlan> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x1,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x2,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x4,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x8,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let priority = u32::try_from(scheduler.priority().unwrap_or(0))
        .map_err(|_| Error::invalid("config.json: $.process.scheduler.priority", "must not be negative"))?;
    Ok(SchedulerPlan {
        policy,
        flags: scheduler.flags().iter().flatten().fold(0, |flags, name| flags | flag(name)),
        nice: scheduler.nice().unwrap_or(0),
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_specification_has_its_number() {
        let all: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
        let set: Capabilities = serde_json::from_value(serde_json::json!(all)).unwrap();
        assert_eq!(mask(&Some(set)), (1 << 41) - 1);
        let some: Capabilities =
            serde_json::from_value(serde_json::json!(["CAP_CHOWN", "CAP_SYS_ADMIN"])).unwrap();
        assert_eq!(mask(&Some(some)), 1 | 1 << 21);
        assert_eq!(mask(&None), 0);
    }
}
