//! The plan: what `create` made of config.json. Data only, serialisable (it is kept in state.json and
//! sent to the seed), printable (`turf create --dry-run`).
//!
//! Everything in it is decided: paths are absolute, users are numbers, the seccomp profile is a
//! program. The specification is
//! <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md>.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::Step;
pub use crate::cgroup::CgroupPlan;

/// Everything `create`, `start` and `delete` do for one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What runs inside.
    pub workload: WorkloadPlan,
    /// How init builds the sandbox.
    pub init: InitPlan,
    /// How the workload's process is dressed before it runs.
    pub process: ProcessPlan,
    /// The control group.
    pub cgroup: CgroupPlan,
    /// The bundle's hooks.
    pub hooks: HooksPlan,
    /// Devices that are moved into the network namespace.
    pub net_devices: Vec<NetDevicePlan>,
    /// What should be known to whoever wrote the configuration.
    pub warnings: Vec<String>,
}

/// A network device of the host that moves into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevicePlan {
    /// Its name on the host.
    pub host_name: String,
    /// Its name in the container.
    pub name: String,
}

/// What runs inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadPlan {
    /// `process.args` is executed.
    Exec,
    /// A seed is forked; `process.args[1]` is the script.
    Worker {
        /// Name of the seed to fork.
        seed: String,
        /// Where the worker listens inside its own network namespace; empty: the default.
        listen: Vec<ListenAddress>,
        /// Name of the seed that it may become.
        promotable: Option<String>,
    },
}

/// An address to listen on, inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAddress {
    /// `tcp://ADDR:PORT`.
    Tcp(std::net::SocketAddr),
    /// `unix:///PATH`.
    Unix(PathBuf),
}

/// What init does between clone and gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitPlan {
    /// The namespaces init is in that its creator is not, each kind at most once.
    pub namespaces: Vec<NamespacePlan>,
    /// User ids inside and outside of the new user namespace (user_namespaces(7)).
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids inside and outside of the new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// The user who owns the new user namespace, and with it all others that are new, if it is not the creator: the
    /// tenant of a seed that runs user code.
    pub owner: Option<u32>,
    /// Offsets of the clocks of the new time namespace (time_namespaces(7)).
    pub time_offsets: Vec<TimeOffset>,
    /// What init executes, in this order.
    pub steps: Vec<Step>,
    /// The state that hooks get to see on their standard input.
    pub state: HookState,
}

impl InitPlan {
    /// Whether init is the first process of a new pid namespace: then it inherits every orphan,
    /// and the forked worker becomes its child.
    pub fn has_new_pid_namespace(&self) -> bool {
        self.namespaces.iter().any(|ns| ns.kind == NamespaceKind::Pid && ns.path.is_none())
    }

    /// The namespace of a kind, if init is in another than its creator.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&NamespacePlan> {
        self.namespaces.iter().find(|ns| ns.kind == kind)
    }
}

/// A namespace to make or to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Its kind.
    pub kind: NamespaceKind,
    /// The namespace to join; `None` makes a new one.
    pub path: Option<PathBuf>,
}

/// The kinds of namespaces (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NamespaceKind {
    /// User and group ids.
    User,
    /// Process ids.
    Pid,
    /// Network devices, stacks, ports.
    Network,
    /// System V IPC, POSIX message queues.
    Ipc,
    /// Host name and NIS domain name.
    Uts,
    /// The root of the visible control groups.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
    /// Mount points.
    Mount,
}

/// One range of a user or group id mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// Number of ids.
    pub count: u32,
}

/// Offset of one clock in a time namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// How the workload's process is dressed: executed by [`super::enter::apply_process`], in init
/// before it executes a program, or in a forked worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The program or script with its arguments; never empty.
    pub args: Vec<String>,
    /// The environment, `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory inside the sandbox; absolute.
    pub cwd: PathBuf,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: CapabilityPlan,
    /// Resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Option<SeccompPlan>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// When the labels below take effect.
    pub labels: LabelMoment,
    /// AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// SELinux label.
    pub selinux_label: Option<String>,
    /// Execution domain (personality(2)).
    pub personality: Option<u32>,
    /// I/O priority in the encoding of ioprio_set(2).
    pub io_priority: Option<u32>,
    /// Scheduling policy and attributes (sched_setattr(2)).
    pub scheduler: Option<SchedulerPlan>,
    /// Where memory comes from (set_mempolicy(2)).
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// The CPUs of a process that joins the container; the container's own process has none.
    pub exec_cpu_affinity: Option<CpuAffinityPlan>,
    /// Name of a new session keyring (keyrings(7)); `None` keeps the inherited one.
    pub session_keyring: Option<String>,
    /// Whether the process gets a terminal as its standard input, output and error.
    pub terminal: Option<TerminalPlan>,
}

/// A NUMA memory policy (set_mempolicy(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicyPlan {
    /// `MPOL_*`, with its flags.
    pub mode: u32,
    /// The nodes as a bit mask; empty: none.
    pub nodes: Vec<u64>,
}

/// The CPUs of a process that joins a container, as bit masks (sched_setaffinity(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAffinityPlan {
    /// Before it enters the control groups; empty: unchanged.
    pub initial: Vec<u64>,
    /// Afterwards; empty: all that the control groups allow.
    pub lasting: Vec<u64>,
}

/// When a security label takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelMoment {
    /// With the next execve(2).
    #[default]
    Exec,
    /// At once: a worker executes nothing.
    Now,
}

/// The size of a new terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalPlan {
    /// Rows; 0 leaves the kernel's default.
    pub height: u16,
    /// Columns; 0 leaves the kernel's default.
    pub width: u16,
}

/// The capability sets as bit masks: bit N is capability number N (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityPlan {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// One resource limit (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// `RLIMIT_*` as a number.
    pub resource: u32,
    /// The soft limit.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// A compiled system call filter (seccomp(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompPlan {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// The program: each `struct sock_filter` as one number in the machine's byte order.
    pub program: Vec<u64>,
    /// Who decides on the calls that the filter leaves open.
    pub agent: Option<SeccompAgentPlan>,
}

/// The seccomp agent that gets the descriptor of notifications (config-linux.md, "Seccomp").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompAgentPlan {
    /// Its Unix socket on the host.
    pub socket: PathBuf,
    /// What it is told besides the container's state.
    pub metadata: String,
}

/// Scheduling attributes (sched_setattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerPlan {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value of the normal policies.
    pub nice: i32,
    /// Static priority of the real-time policies.
    pub priority: u32,
    /// Nanoseconds of the deadline policy.
    pub runtime: u64,
    /// Nanoseconds of the deadline policy.
    pub deadline: u64,
    /// Nanoseconds of the deadline policy.
    pub period: u64,
}

/// One hook (runtime-spec, config.md, "POSIX-platform Hooks").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments from `args[0]`; empty: the path alone.
    pub args: Vec<String>,
    /// Its whole environment; `None`: that of whoever runs it.
    pub env: Option<Vec<String>>,
    /// Seconds after which it is killed; `None` waits for ever, as the specification wants.
    pub timeout_s: Option<u32>,
}

/// The six lists of hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksPlan {
    /// In the runtime's namespaces, after the sandbox's were made (deprecated, before `create_runtime`).
    pub prestart: Vec<HookPlan>,
    /// In the runtime's namespaces, before pivot_root.
    pub create_runtime: Vec<HookPlan>,
    /// In the container's namespaces, before pivot_root.
    pub create_container: Vec<HookPlan>,
    /// In the container's namespaces, just before the workload runs.
    pub start_container: Vec<HookPlan>,
    /// In the runtime's namespaces, after the workload runs.
    pub poststart: Vec<HookPlan>,
    /// In the runtime's namespaces, after the container is deleted.
    pub poststop: Vec<HookPlan>,
}

/// What of the state is known before the container exists; the rest is filled in when a hook runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookState {
    /// The version of the specification the state follows.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The bundle's annotations.
    pub annotations: BTreeMap<String, String>,
}
