//! `linux.resources.memory`. Zero means "not given"; -1 no limit; swap counts memory and swap together.
//! cgroup-v1/memory.rst; cgroup-v2.rst, "Memory".

use oci_spec::runtime::LinuxMemory;

use super::{Setting, setting, unsupported};
use crate::error::Result;

fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

/// On version 1. A new group has no limit, and memory and swap together may never be below memory: memory
/// comes first. Where limits are in force already, the one that the kernel finds invalid is
/// written again after the other.
pub(super) fn settings_v1(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    let limit = given(memory.limit());
    all.extend(limit.map(|limit| setting("memory", "memory.limit_in_bytes", limit)));
    let swap = |limit| setting("memory", "memory.memsw.limit_in_bytes", limit);
    match (limit, given(memory.swap())) {
        // No limit for memory is none for swap, unless that is said; a kernel without swap accounting has none.
        (Some(-1), None) => all.push(swap(-1).or_skip()),
        (_, given) => all.extend(given.map(swap)),
    }
    all.extend(
        given(memory.reservation()).map(|limit| setting("memory", "memory.soft_limit_in_bytes", limit)),
    );
    if memory.disable_oom_killer() == Some(true) {
        all.push(setting("memory", "memory.oom_control", 1));
    }
    match memory.swappiness() {
        // Engines in Go write -1 for "leave it".
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => all.push(setting("memory", "memory.swappiness", value)),
        Some(_) => return Err(unsupported("memory.swappiness", "must be between 0 and 100")),
    }
    Ok(all)
}

/// On version 2, which has neither swappiness nor a switch for the killer: runc ignores them there as well.
pub(super) fn settings_v2(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limit = memory.limit().unwrap_or(0);
    let swap = match (limit, memory.swap().unwrap_or(0)) {
        (-1, 0) => -1,
        (_, swap) => swap,
    };
    let mut all = Vec::new();
    // Swap first: lowering memory.max may have to swap out. A kernel without swap already does what "no
    // limit" and "no swap" ask for.
    match swap {
        0 => {}
        -1 => all.push(setting("memory", "memory.swap.max", "max").or_skip()),
        _ if limit <= 0 => {
            return Err(unsupported(
                "memory.swap",
                "needs memory.limit, because version 2 counts swap alone",
            ));
        }
        _ if swap < limit => {
            return Err(unsupported("memory.swap", "must not be below memory.limit: it includes it"));
        }
        _ if swap == limit => all.push(setting("memory", "memory.swap.max", 0).or_skip()),
        _ => all.push(setting("memory", "memory.swap.max", swap - limit)),
    }
    all.extend(limit_of("memory.max", limit));
    all.extend(limit_of("memory.low", memory.reservation().unwrap_or(0)));
    Ok(all)
}

fn limit_of(file: &str, limit: i64) -> Option<Setting> {
    match limit {
        0 => None,
        -1 => Some(setting("memory", file, "max")),
        _ => Some(setting("memory", file, limit)),
    }
}
