//! `linux.resources.blockIO`. cgroup-v1/blkio-controller.rst; block/bfq-iosched.rst; cgroup-v2.rst, "IO".
//!
//! The files for weights depend on the scheduler: kernels before 5.0 had CFQ's, later ones have BFQ's if they have
//! BFQ, and on version 2 those of the cost model besides.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::{Setting, setting, unsupported};
use crate::error::Result;

/// What BFQ and CFQ take.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// On version 1.
pub(super) fn settings_v1(block_io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(weight) = weight("weight", block_io.weight())? {
        all.push(setting("blkio", "blkio.weight", weight).or_write("blkio.bfq.weight", weight));
    }
    if let Some(weight) = weight("leafWeight", block_io.leaf_weight())? {
        all.push(setting("blkio", "blkio.leaf_weight", weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = weight("weightDevice", device.weight())? {
            let line = line_of(device, weight);
            all.push(
                setting("blkio", "blkio.weight_device", &line).or_write("blkio.bfq.weight_device", &line),
            );
        }
        if let Some(weight) = weight("weightDevice", device.leaf_weight())? {
            all.push(setting("blkio", "blkio.leaf_weight_device", line_of(device, weight)));
        }
    }
    for (list, file) in [
        (block_io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
        (block_io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
        (block_io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
        (block_io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
    ] {
        all.extend(list.iter().flatten().map(|limit| setting("blkio", file, throttle(limit, ""))));
    }
    Ok(all)
}

/// On version 2, which has no weights of leaves: runc ignores them there as well.
pub(super) fn settings_v2(block_io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(weight) = weight("weight", block_io.weight())? {
        let io_weight = format!("default {}", io_weight(weight));
        all.push(setting("io", "io.bfq.weight", weight).or_write("io.weight", io_weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = weight("weightDevice", device.weight())? {
            let other = line_of(device, io_weight(weight));
            all.push(setting("io", "io.bfq.weight", line_of(device, weight)).or_write("io.weight", other));
        }
    }
    for (list, key) in [
        (block_io.throttle_read_bps_device(), "rbps="),
        (block_io.throttle_write_bps_device(), "wbps="),
        (block_io.throttle_read_iops_device(), "riops="),
        (block_io.throttle_write_iops_device(), "wiops="),
    ] {
        all.extend(list.iter().flatten().map(|limit| setting("io", "io.max", throttle(limit, key))));
    }
    Ok(all)
}

/// Zero means "not given".
fn weight(member: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight.filter(|weight| *weight != 0) {
        Some(weight) if !WEIGHTS.contains(&weight) => {
            Err(unsupported(&format!("blockIO.{member}"), "must be between 10 and 1000"))
        }
        weight => Ok(weight),
    }
}

/// 10 to 1,000 of BFQ as 1 to 10,000 of `io.weight`, in a straight line as in runc.
pub(in crate::cgroup) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.max(*WEIGHTS.start())) - 10) * 9999 / 990
}

fn line_of(device: &LinuxWeightDevice, weight: impl std::fmt::Display) -> String {
    format!("{}:{} {weight}", device.major(), device.minor())
}

fn throttle(limit: &LinuxThrottleDevice, key: &str) -> String {
    format!("{}:{} {key}{}", limit.major(), limit.minor(), limit.rate())
}
