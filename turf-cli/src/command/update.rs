//! The command line of `turf update`.

use std::path::PathBuf;

use clap::Args;

/// `turf update`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("limits").multiple(true)))]
pub struct Update {
    /// File that holds `linux.resources` of a config.json; `-` reads standard input.
    #[arg(long, short, value_name = "FILE", group = "limits", conflicts_with_all = FLAGS_OF_LIMITS)]
    pub resources: Option<PathBuf>,
    /// Memory in bytes, like 64m; -1: no limit.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory and swap together in bytes; -1: no limit.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory in bytes that is reclaimed last.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Weight of the CPU time, relative to others.
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES", group = "limits")]
    pub cpu_share: Option<u64>,
    /// Microseconds of CPU time in each period; -1: no limit.
    #[arg(long, value_name = "MICROSECONDS", group = "limits", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    #[arg(long, value_name = "MICROSECONDS", group = "limits")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time that may be saved up for a burst.
    #[arg(long, value_name = "MICROSECONDS", group = "limits")]
    pub cpu_burst: Option<u64>,
    /// 1: run only when nobody else wants the CPU; 0: as usual.
    #[arg(long, value_name = "0|1", group = "limits")]
    pub cpu_idle: Option<i64>,
    /// Length of the period of real-time scheduling in microseconds.
    #[arg(long, value_name = "MICROSECONDS", group = "limits")]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of real-time scheduling in each such period.
    #[arg(long, value_name = "MICROSECONDS", group = "limits", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, like 0-3,7.
    #[arg(long, value_name = "LIST", group = "limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, like 0-1.
    #[arg(long, value_name = "LIST", group = "limits")]
    pub cpuset_mems: Option<String>,
    /// Weight of block I/O, 10 to 1000.
    #[arg(long, value_name = "WEIGHT", group = "limits")]
    pub blkio_weight: Option<u16>,
    /// Ignored, as runc ignores it: the kernel has no such limit any more.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// Ignored, as runc ignores it.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Schema of the L3 cache (Intel RDT).
    #[arg(long, value_name = "SCHEMA", group = "limits")]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT).
    #[arg(long, value_name = "SCHEMA", group = "limits")]
    pub mem_bw_schema: Option<String>,
    /// Most processes; -1: no limit.
    #[arg(long, value_name = "N", group = "limits", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container.
    pub id: String,
}

/// The flags of `turf update` that say one limit each.
const FLAGS_OF_LIMITS: [&str; 18] = [
    "memory",
    "memory_swap",
    "memory_reservation",
    "cpu_share",
    "cpu_quota",
    "cpu_period",
    "cpu_burst",
    "cpu_idle",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpuset_cpus",
    "cpuset_mems",
    "blkio_weight",
    "kernel_memory",
    "kernel_memory_tcp",
    "l3_cache_schema",
    "mem_bw_schema",
    "pids_limit",
];
