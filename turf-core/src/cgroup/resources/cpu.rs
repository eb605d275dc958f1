//! `linux.resources.cpu`. scheduler/sched-bwc.rst; scheduler/sched-rt-group.rst; cgroup-v1/cpusets.rst;
//! cgroup-v2.rst, "CPU" and "Cpuset".

use oci_spec::runtime::LinuxCpu;

use super::{Setting, setting, unsupported};
use crate::error::Result;

/// What the kernel keeps of shares without changing them.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// On version 1. A quota is checked against the period in force, and a burst against the quota.
pub(super) fn settings_v1(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    let number = |value: Option<u64>| value.filter(|value| *value != 0);
    if let Some(shares) = number(cpu.shares()) {
        // The kernel would silently take the nearest that it has.
        if !SHARES.contains(&shares) {
            return Err(unsupported("cpu.shares", "must be between 2 and 262144"));
        }
        all.push(setting("cpu", "cpu.shares", shares));
    }
    all.extend(number(cpu.period()).map(|us| setting("cpu", "cpu.cfs_period_us", us)));
    all.extend(quota(cpu).map(|us| setting("cpu", "cpu.cfs_quota_us", us)));
    // Kernels before 5.14 have no burst.
    all.extend(cpu.burst().map(|us| setting("cpu", "cpu.cfs_burst_us", us).or_skip()));
    all.extend(idle(cpu)?);
    all.extend(number(cpu.realtime_period()).map(|us| setting("cpu", "cpu.rt_period_us", us)));
    let runtime = cpu.realtime_runtime().filter(|us| *us != 0);
    all.extend(runtime.map(|us| setting("cpu", "cpu.rt_runtime_us", us)));
    all.extend(sets(cpu));
    Ok(all)
}

/// On version 2, which has no limits for real-time tasks: runc ignores them there as well.
pub(super) fn settings_v2(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    all.extend(idle(cpu)?);
    // The weight of an idle group is not ours to set.
    if cpu.idle() != Some(1) {
        let shares = cpu.shares().filter(|shares| *shares != 0);
        all.extend(shares.map(|shares| setting("cpu", "cpu.weight", weight_of_shares(shares))));
    }
    let (quota, period) = (quota(cpu), cpu.period().filter(|us| *us != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|us| *us > 0).map_or("max".to_owned(), |us| us.to_string());
        all.push(setting("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD_US))));
    }
    all.extend(cpu.burst().map(|us| setting("cpu", "cpu.max.burst", us).or_skip()));
    all.extend(sets(cpu));
    Ok(all)
}

/// The period of the CPU bandwidth controller if nobody sets one (sched-bwc.rst).
pub(in crate::cgroup) const DEFAULT_PERIOD_US: u64 = 100_000;

/// Any negative number is "no limit".
fn quota(cpu: &LinuxCpu) -> Option<i64> {
    cpu.quota().filter(|us| *us != 0)
}

fn idle(cpu: &LinuxCpu) -> Result<Option<Setting>> {
    match cpu.idle() {
        None => Ok(None),
        Some(value @ (0 | 1)) => Ok(Some(setting("cpu", "cpu.idle", value))),
        Some(_) => Err(unsupported("cpu.idle", "must be 0 or 1")),
    }
}

fn sets(cpu: &LinuxCpu) -> Vec<Setting> {
    let given = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let mut all = Vec::new();
    all.extend(given(cpu.cpus()).map(|list| setting("cpuset", "cpuset.cpus", list)));
    all.extend(given(cpu.mems()).map(|list| setting("cpuset", "cpuset.mems", list)));
    all
}

/// Version 1 shares (2 to 262,144, default 1,024) as a version 2 weight (1 to 10,000, default 100).
///
/// The curve is that of runc since 1.3.2 and of crun since 1.23: quadratic in the logarithm, through both
/// ends and both defaults. Before, they drew a straight line, `1 + (shares - 2) * 9999 / 262142`, which
/// made 39 of the default.
pub fn weight_of_shares(shares: u64) -> u64 {
    let log = (shares.clamp(*SHARES.start(), *SHARES.end()) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The margin keeps the default at exactly 100 whatever the last bit of the power is.
    (10f64.powf(exponent) - 1e-9).ceil() as u64
}
