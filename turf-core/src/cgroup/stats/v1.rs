//! The numbers of version 1: one group for each controller.

use std::path::Path;

use super::{BlockIoEntry, CpuSet, HugePages, MemoryCounter, Stats};
use super::{huge_page_sizes, number, parse_list, parse_number, rdma, table, text};
use crate::cgroup::Group;
use crate::error::Result;

/// Adds what the group's controllers know.
pub(super) fn read(group: &Group, stats: &mut Stats) -> Result<()> {
    let directory = group.directory.as_path();
    for controller in &group.controllers {
        match controller.as_str() {
            "cpu" => throttling(directory, stats)?,
            "cpuacct" => cpu(directory, stats)?,
            "cpuset" => stats.cpuset = cpuset(directory)?,
            "memory" => memory(directory, stats)?,
            "pids" => {
                stats.pids.current = number(directory, "pids.current")?;
                stats.pids.limit =
                    Some(number(directory, "pids.max")?).filter(|n| *n != u64::MAX).unwrap_or(0);
            }
            "blkio" => block_io(directory, stats)?,
            "hugetlb" => huge_pages(directory, stats)?,
            "rdma" => stats.rdma = rdma(directory)?,
            _ => {}
        }
    }
    Ok(())
}

/// `cpuacct.stat` counts in these (USER_HZ, a constant of the kernel's interface).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

fn cpu(directory: &Path, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(directory, "cpuacct.usage")?;
    let percpu = text(directory, "cpuacct.usage_percpu")?.unwrap_or_default();
    usage.percpu = percpu.split_whitespace().map(parse_number).collect();
    // A head line, then "cpu user system".
    for line in text(directory, "cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let numbers: Vec<u64> = line.split_whitespace().map(parse_number).collect();
        if let [_, user, kernel] = numbers[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
    let ticks = table(directory, "cpuacct.stat")?;
    let nanoseconds = |name: &str| ticks.get(name).map_or(0, |ticks| ticks * NANOSECONDS_PER_TICK);
    (usage.kernel, usage.user) = (nanoseconds("system"), nanoseconds("user"));
    Ok(())
}

fn throttling(directory: &Path, stats: &mut Stats) -> Result<()> {
    let counts = table(directory, "cpu.stat")?;
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let throttling = &mut stats.cpu.throttling;
    throttling.periods = count("nr_periods");
    throttling.throttled_periods = count("nr_throttled");
    throttling.throttled_time = count("throttled_time");
    Ok(())
}

fn cpuset(directory: &Path) -> Result<CpuSet> {
    let list = |file| text(directory, file).map(|text| parse_list(&text.unwrap_or_default()));
    let flag = |file| number(directory, file);
    let level = text(directory, "cpuset.sched_relax_domain_level")?.unwrap_or_default();
    Ok(CpuSet {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    })
}

fn memory(directory: &Path, stats: &mut Stats) -> Result<()> {
    let counter = |infix: &str| -> Result<MemoryCounter> {
        let read = |name: &str| number(directory, &format!("memory.{infix}{name}"));
        Ok(MemoryCounter {
            limit: read("limit_in_bytes")?,
            usage: read("usage_in_bytes")?,
            max: read("max_usage_in_bytes")?,
            failcnt: read("failcnt")?,
        })
    };
    let memory = &mut stats.memory;
    memory.usage = counter("")?;
    memory.swap = counter("memsw.")?;
    memory.kernel = counter("kmem.")?;
    memory.kernel_tcp = counter("kmem.tcp.")?;
    memory.raw = table(directory, "memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    Ok(())
}

/// Which files there are depends on the scheduler of the devices: BFQ's, those of kernels before 5.0
/// (CFQ), else those of throttling, which are always there.
fn block_io(directory: &Path, stats: &mut Stats) -> Result<()> {
    let read = |prefix: &str, name: &str| -> Result<Vec<BlockIoEntry>> {
        let text = text(directory, &format!("blkio.{prefix}{name}"))?.unwrap_or_default();
        Ok(text.lines().filter_map(parse_entry).collect())
    };
    let blkio = &mut stats.blkio;
    for prefix in ["bfq.", ""] {
        blkio.io_serviced_recursive = read(prefix, "io_serviced_recursive")?;
        if !blkio.io_serviced_recursive.is_empty() {
            blkio.io_service_bytes_recursive = read(prefix, "io_service_bytes_recursive")?;
            blkio.io_queued_recursive = read(prefix, "io_queued_recursive")?;
            blkio.io_service_time_recursive = read(prefix, "io_service_time_recursive")?;
            blkio.io_wait_time_recursive = read(prefix, "io_wait_time_recursive")?;
            blkio.io_merged_recursive = read(prefix, "io_merged_recursive")?;
            blkio.io_time_recursive = read(prefix, "time_recursive")?;
            blkio.sectors_recursive = read(prefix, "sectors_recursive")?;
            return Ok(());
        }
    }
    blkio.io_service_bytes_recursive = read("throttle.", "io_service_bytes_recursive")?;
    blkio.io_serviced_recursive = read("throttle.", "io_serviced_recursive")?;
    Ok(())
}

/// `8:0 Read 512`, or `8:0 512`; the line `Total 512` of the whole file is left out.
pub(super) fn parse_entry(line: &str) -> Option<BlockIoEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (op, value) = match (words.next()?, words.next()) {
        (op, Some(value)) => (op, value),
        (value, None) => ("", value),
    };
    Some(BlockIoEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

fn huge_pages(directory: &Path, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes(directory, ".usage_in_bytes") {
        let read = |name: &str| number(directory, &format!("hugetlb.{size}.{name}"));
        let pages = HugePages {
            usage: read("usage_in_bytes")?,
            max: read("max_usage_in_bytes")?,
            failcnt: read("failcnt")?,
        };
        stats.hugetlb.insert(size, pages);
    }
    Ok(())
}
