//! From `linux.resources` to what is written into which file of a control group: pure, for both
//! versions of the interface.
//!
//! A setting whose value the specification leaves out, or whose value means "leave it alone", is
//! not written. Values are checked only as far as the kernel would misunderstand them; what it
//! would refuse, it refuses when the file is written, and the error names the file.
//! config-linux.md, "Control groups"; cgroups(7); Documentation/admin-guide/cgroup-v2.rst.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxPids, LinuxResources,
    LinuxThrottleDevice,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One write: `value` into `file` of the group of `controller`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The controller's name, as in /proc/cgroups ("memory"); on version 2 it must be enabled.
    pub controller: String,
    /// The file's name in the group's directory.
    pub file: String,
    /// What is written, in one write(2).
    pub value: String,
}

/// In place of a controller: a setting that only version 2 understands.
pub const UNIFIED: &str = "unified";

pub(crate) fn setting(controller: &str, file: &str, value: impl ToString) -> Setting {
    Setting { controller: controller.to_owned(), file: file.to_owned(), value: value.to_string() }
}

/// The settings on version 1, in the order in which they must be written.
pub fn settings_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_v1(memory));
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_v1(cpu));
    }
    all.extend(resources.pids().as_ref().and_then(pids));
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io_v1(block_io));
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.push(huge_pages(limit, "limit_in_bytes")?);
    }
    if let Some(network) = resources.network() {
        all.extend(network_v1(network));
    }
    // There is no such controller, so a machine with version 1 refuses these.
    let unified = resources.unified().iter().flatten();
    all.extend(unified.map(|(file, value)| setting(UNIFIED, file, value)));
    if resources.rdma().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(unsupported("rdma", "is not supported by Turf"));
    }
    Ok(all)
}

/// The settings on version 2, in the order in which they must be written. `unified` comes last,
/// so that what it says wins.
pub fn settings_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_v2(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_v2(cpu));
    }
    all.extend(resources.pids().as_ref().and_then(pids));
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io_v2(block_io));
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.push(huge_pages(limit, "max")?);
    }
    let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let controller = file.split('.').next().unwrap_or_default();
        if file.contains('/') || controller.is_empty() || controller.len() == file.len() {
            return Err(unsupported(&format!("unified: {file}"), "must be a file name like memory.high"));
        }
        all.push(setting(controller, file, value));
    }
    Ok(all)
}

pub(super) fn unsupported(member: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.linux.resources.{member}"), reason)
}

/// Zero means "not given"; the swap limit counts memory and swap together.
fn memory_v1(memory: &LinuxMemory) -> Vec<Setting> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut all = Vec::new();
    // A new group has no limit, and memory+swap may never be below memory: memory comes first.
    all.extend(given(memory.limit()).map(|limit| setting("memory", "memory.limit_in_bytes", limit)));
    let swap = match (given(memory.limit()), given(memory.swap())) {
        (Some(-1), None) => Some(-1),
        (_, swap) => swap,
    };
    all.extend(swap.map(|swap| setting("memory", "memory.memsw.limit_in_bytes", swap)));
    all.extend(
        given(memory.reservation()).map(|limit| setting("memory", "memory.soft_limit_in_bytes", limit)),
    );
    all.extend(
        given(memory.kernel_tcp()).map(|limit| setting("memory", "memory.kmem.tcp.limit_in_bytes", limit)),
    );
    if memory.disable_oom_killer() == Some(true) {
        all.push(setting("memory", "memory.oom_control", 1));
    }
    all.extend(memory.swappiness().map(|value| setting("memory", "memory.swappiness", value)));
    all
}

fn memory_v2(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limit = memory.limit().unwrap_or(0);
    let swap = match (limit, memory.swap().unwrap_or(0)) {
        (-1, 0) => -1,
        (_, swap) => swap,
    };
    let mut all = Vec::new();
    // Swap first: lowering memory.max may have to swap out.
    match swap {
        0 => {}
        -1 => all.push(setting("memory", "memory.swap.max", "max")),
        _ if limit <= 0 => {
            return Err(unsupported(
                "memory.swap",
                "needs memory.limit, because version 2 counts swap alone",
            ));
        }
        _ if swap < limit => {
            return Err(unsupported("memory.swap", "must not be below memory.limit: it includes it"));
        }
        _ => all.push(setting("memory", "memory.swap.max", swap - limit)),
    }
    match limit {
        0 => {}
        -1 => all.push(setting("memory", "memory.max", "max")),
        _ => all.push(setting("memory", "memory.max", limit)),
    }
    match memory.reservation().unwrap_or(0) {
        0 => {}
        -1 => all.push(setting("memory", "memory.low", "max")),
        reservation => all.push(setting("memory", "memory.low", reservation)),
    }
    Ok(all)
}

fn cpu_v1(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend(cpu.shares().filter(|shares| *shares != 0).map(|value| setting("cpu", "cpu.shares", value)));
    // A quota is checked against the period in force, and a burst against the quota.
    all.extend(cpu.period().filter(|us| *us != 0).map(|value| setting("cpu", "cpu.cfs_period_us", value)));
    all.extend(cpu.quota().filter(|us| *us != 0).map(|value| setting("cpu", "cpu.cfs_quota_us", value)));
    all.extend(cpu.burst().map(|value| setting("cpu", "cpu.cfs_burst_us", value)));
    all.extend(cpu.idle().map(|value| setting("cpu", "cpu.idle", value)));
    let period = cpu.realtime_period().filter(|us| *us != 0);
    all.extend(period.map(|value| setting("cpu", "cpu.rt_period_us", value)));
    let runtime = cpu.realtime_runtime().filter(|us| *us != 0);
    all.extend(runtime.map(|value| setting("cpu", "cpu.rt_runtime_us", value)));
    all.extend(cpu_sets(cpu));
    all
}

fn cpu_v2(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend(cpu.idle().map(|value| setting("cpu", "cpu.idle", value)));
    // The weight of an idle group is not ours to set.
    if cpu.idle() != Some(1) {
        let shares = cpu.shares().filter(|shares| *shares != 0);
        all.extend(shares.map(|shares| setting("cpu", "cpu.weight", weight_of_shares(shares))));
    }
    let quota = cpu.quota().filter(|us| *us != 0);
    let period = cpu.period().filter(|us| *us != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|us| *us > 0).map_or("max".to_owned(), |us| us.to_string());
        all.push(setting("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD_US))));
    }
    all.extend(cpu.burst().map(|value| setting("cpu", "cpu.max.burst", value)));
    all.extend(cpu_sets(cpu));
    all
}

/// The period of the CPU bandwidth controller if nobody sets one (sched-bwc.rst).
const DEFAULT_PERIOD_US: u64 = 100_000;

fn cpu_sets(cpu: &LinuxCpu) -> Vec<Setting> {
    let given = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let mut all = Vec::new();
    all.extend(given(cpu.cpus()).map(|list| setting("cpuset", "cpuset.cpus", list)));
    all.extend(given(cpu.mems()).map(|list| setting("cpuset", "cpuset.mems", list)));
    all
}

/// Version 1 shares (2 to 262,144, default 1,024) as a version 2 weight (1 to 10,000, default 100).
///
/// The curve is runc's and crun's: quadratic in the logarithm, through both ends and both defaults.
pub fn weight_of_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The margin keeps the default at exactly 100 whatever the last bit of the power is.
    (10f64.powf(exponent) - 1e-9).ceil() as u64
}

fn pids(pids: &LinuxPids) -> Option<Setting> {
    match pids.limit() {
        0 => None,
        limit if limit < 0 => Some(setting("pids", "pids.max", "max")),
        limit => Some(setting("pids", "pids.max", limit)),
    }
}

fn block_io_v1(block_io: &LinuxBlockIo) -> Vec<Setting> {
    let mut all = Vec::new();
    let weight = block_io.weight().filter(|weight| *weight != 0);
    all.extend(weight.map(|weight| setting("blkio", "blkio.weight", weight)));
    for (list, file) in [
        (block_io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
        (block_io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
        (block_io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
        (block_io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
    ] {
        all.extend(list.iter().flatten().map(|limit| setting("blkio", file, throttle(limit, ""))));
    }
    all
}

fn block_io_v2(block_io: &LinuxBlockIo) -> Vec<Setting> {
    let mut all = Vec::new();
    // 10 to 1,000 on version 1, 1 to 10,000 here.
    let weight = block_io.weight().filter(|weight| *weight >= 10);
    all.extend(weight.map(|weight| {
        setting("io", "io.weight", format!("default {}", 1 + (u64::from(weight) - 10) * 9999 / 990))
    }));
    for (list, key) in [
        (block_io.throttle_read_bps_device(), "rbps="),
        (block_io.throttle_write_bps_device(), "wbps="),
        (block_io.throttle_read_iops_device(), "riops="),
        (block_io.throttle_write_iops_device(), "wiops="),
    ] {
        all.extend(list.iter().flatten().map(|limit| setting("io", "io.max", throttle(limit, key))));
    }
    all
}

fn throttle(limit: &LinuxThrottleDevice, key: &str) -> String {
    format!("{}:{} {key}{}", limit.major(), limit.minor(), limit.rate())
}

fn huge_pages(limit: &LinuxHugepageLimit, file: &str) -> Result<Setting> {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|letter| letter.is_ascii_alphanumeric()) {
        return Err(unsupported("hugepageLimits", "pageSize must look like 2MB"));
    }
    Ok(setting("hugetlb", &format!("hugetlb.{size}.{file}"), limit.limit()))
}

fn network_v1(network: &LinuxNetwork) -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend(network.class_id().map(|class| setting("net_cls", "net_cls.classid", class)));
    all.extend(network.priorities().iter().flatten().map(|interface| {
        setting("net_prio", "net_prio.ifpriomap", format!("{} {}", interface.name(), interface.priority()))
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: serde_json::Value) -> LinuxResources {
        serde_json::from_value(json).unwrap()
    }

    fn lines(settings: Vec<Setting>) -> Vec<String> {
        settings.into_iter().map(|s| format!("{} {}={}", s.controller, s.file, s.value)).collect()
    }

    #[track_caller]
    fn check(json: serde_json::Value, v1: &[&str], v2: &[&str]) {
        let resources = resources(json);
        assert_eq!(lines(settings_v1(&resources).unwrap()), v1, "version 1");
        assert_eq!(lines(settings_v2(&resources).unwrap()), v2, "version 2");
    }

    #[test]
    fn nothing_asked_for_is_nothing_written() {
        check(serde_json::json!({}), &[], &[]);
        check(
            serde_json::json!({"memory": {}, "cpu": {}, "pids": {"limit": 0}, "devices": [],
                "blockIO": {}, "network": {}, "hugepageLimits": [], "rdma": {}, "unified": {}}),
            &[],
            &[],
        );
    }

    #[test]
    fn memory() {
        check(
            serde_json::json!({"memory": {"limit": 67108864, "swap": 100663296, "reservation": 1048576,
                "swappiness": 60, "disableOOMKiller": true, "kernelTCP": 4096}}),
            &[
                "memory memory.limit_in_bytes=67108864",
                "memory memory.memsw.limit_in_bytes=100663296",
                "memory memory.soft_limit_in_bytes=1048576",
                "memory memory.kmem.tcp.limit_in_bytes=4096",
                "memory memory.oom_control=1",
                "memory memory.swappiness=60",
            ],
            &["memory memory.swap.max=33554432", "memory memory.max=67108864", "memory memory.low=1048576"],
        );
        check(
            serde_json::json!({"memory": {"limit": -1}}),
            &["memory memory.limit_in_bytes=-1", "memory memory.memsw.limit_in_bytes=-1"],
            &["memory memory.swap.max=max", "memory memory.max=max"],
        );
        // What Kubernetes gives: no swap at all.
        check(
            serde_json::json!({"memory": {"limit": 4096, "swap": 4096}}),
            &["memory memory.limit_in_bytes=4096", "memory memory.memsw.limit_in_bytes=4096"],
            &["memory memory.swap.max=0", "memory memory.max=4096"],
        );
        for refused in [
            serde_json::json!({"memory": {"swap": 4096}}),
            serde_json::json!({"memory": {"limit": 8192, "swap": 4096}}),
        ] {
            assert!(settings_v2(&resources(refused)).is_err());
        }
    }

    #[test]
    fn cpu() {
        check(
            serde_json::json!({"cpu": {"shares": 1024, "quota": 50000, "period": 200000, "burst": 1000,
                "cpus": "0-1", "mems": "0"}}),
            &[
                "cpu cpu.shares=1024",
                "cpu cpu.cfs_period_us=200000",
                "cpu cpu.cfs_quota_us=50000",
                "cpu cpu.cfs_burst_us=1000",
                "cpuset cpuset.cpus=0-1",
                "cpuset cpuset.mems=0",
            ],
            &[
                "cpu cpu.weight=100",
                "cpu cpu.max=50000 200000",
                "cpu cpu.max.burst=1000",
                "cpuset cpuset.cpus=0-1",
                "cpuset cpuset.mems=0",
            ],
        );
        check(
            serde_json::json!({"cpu": {"quota": -1, "shares": 0, "cpus": "", "mems": ""}}),
            &["cpu cpu.cfs_quota_us=-1"],
            &["cpu cpu.max=max 100000"],
        );
        check(
            serde_json::json!({"cpu": {"idle": 1, "shares": 2}}),
            &["cpu cpu.shares=2", "cpu cpu.idle=1"],
            &["cpu cpu.idle=1"],
        );
        check(
            serde_json::json!({"cpu": {"realtimeRuntime": 900, "realtimePeriod": 1000}}),
            &["cpu cpu.rt_period_us=1000", "cpu cpu.rt_runtime_us=900"],
            &[],
        );
    }

    #[test]
    fn pids() {
        let limit = |limit: i64| serde_json::json!({"pids": {"limit": limit}});
        check(limit(2048), &["pids pids.max=2048"], &["pids pids.max=2048"]);
        check(limit(-1), &["pids pids.max=max"], &["pids pids.max=max"]);
    }

    #[test]
    fn shares_meet_weights_at_both_ends_and_at_the_default() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        for pair in (2..=262_144u64).collect::<Vec<_>>().windows(2) {
            assert!(weight_of_shares(pair[0]) <= weight_of_shares(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn block_io_huge_pages_network_and_unified() {
        check(
            serde_json::json!({
                "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372}],
                "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
                "unified": {"memory.high": "1000"},
            }),
            &[
                "blkio blkio.weight=500",
                "blkio blkio.throttle.read_bps_device=8:0 600",
                "blkio blkio.throttle.write_iops_device=8:16 300",
                "hugetlb hugetlb.2MB.limit_in_bytes=9223372",
                "net_cls net_cls.classid=1048577",
                "net_prio net_prio.ifpriomap=eth0 500",
                "unified memory.high=1000",
            ],
            &[
                "io io.weight=default 4950",
                "io io.max=8:0 rbps=600",
                "io io.max=8:16 wiops=300",
                "hugetlb hugetlb.2MB.max=9223372",
                "memory memory.high=1000",
            ],
        );
        for refused in ["../memory.max", "memory", "", "a/b.c"] {
            let unified = resources(serde_json::json!({"unified": {refused: "1"}}));
            assert!(settings_v2(&unified).is_err(), "{refused}");
        }
    }
}
