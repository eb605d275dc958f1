//! What a container has used: the numbers of its control groups, in the JSON that `runc events --stats`
//! prints under `data`.
//!
//! Two readers fill one structure, because engines read one. Times are nanoseconds and amounts bytes
//! on both versions; "no limit" is what the kernel says on version 1 and the largest number on
//! version 2. A file that is not there (another kernel, a controller that the container has no group of)
//! leaves its numbers at zero. Documentation/admin-guide/cgroup-v1; cgroup-v2.rst; accounting/psi.rst.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{is_gone, read_file, with_children};
use super::rdt::RdtStats;
use super::{Cgroup, Version};
use crate::error::Result;

/// The numbers of a container at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Time on the CPUs.
    pub cpu: Cpu,
    /// The CPUs and memory nodes of the group.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlockIo,
    /// Huge pages by their size ("2MB").
    pub hugetlb: BTreeMap<String, HugePages>,
    /// RDMA devices by their name; left out if the container has no such group.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, Rdma>,
    /// Intel RDT: empty for a container without `linux.intelRdt`.
    pub intel_rdt: RdtStats,
    /// The interfaces that the runtime made: always none, because engines make them.
    pub network_interfaces: Option<Vec<()>>,
}

/// Time on the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Time used, in nanoseconds.
    pub usage: CpuUsage,
    /// What the quota withheld.
    pub throttling: Throttling,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Time used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// Kernel and user together.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In user space, by CPU (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
}

/// What the quota withheld.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Throttling {
    /// Periods with a quota in force.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// How long tasks waited for the next one, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// The CPUs and memory nodes of the group, and (version 1) its flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each is the file cpuset.NAME of version 1")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u32>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Page cache, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// All memory.
    pub usage: MemoryCounter,
    /// Memory and swap together, on version 2 too.
    pub swap: MemoryCounter,
    /// The kernel's part (version 1).
    pub kernel: MemoryCounter,
    /// Buffers of TCP (version 1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryCounter,
    /// Every line of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One counter of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryCounter {
    /// The limit.
    pub limit: u64,
    /// In use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Most that was in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was reached.
    pub failcnt: u64,
}

/// Tasks: processes and their threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// How many there may be; zero: any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices: what the group and those below it did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "each is the file blkio.NAME_recursive of version 1")]
pub struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIoEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// "Read", "Write", "Sync", "Async", "Discard" or "Total".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugePages {
    /// In use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// Most that was in use (version 1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was reached.
    pub failcnt: u64,
}

/// One RDMA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rdma {
    /// Handles in use.
    pub hca_handles: u64,
    /// Objects in use.
    pub hca_objects: u64,
}

/// How long tasks stood still for want of something (accounting/psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some of the tasks.
    pub some: PressureLine,
    /// All of them.
    pub full: PressureLine,
}

/// Shares of the last 10, 60 and 300 seconds, in percent, and the whole time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct PressureLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Cgroup {
    /// What the container's groups say at this moment.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for group in &self.groups {
            match group.version {
                Version::V1 => v1::read(group, &mut stats)?,
                Version::V2 => v2::read(&group.directory, &mut stats)?,
            }
        }
        if !self.groups.iter().any(|group| group.version == Version::V2 || group.has("pids")) {
            stats.pids.current = self.count_tasks()?;
        }
        if let Some(rdt) = &self.rdt {
            stats.intel_rdt = rdt.stats();
        }
        Ok(stats)
    }

    /// For a container without a group of the pids controller.
    fn count_tasks(&self) -> Result<u64> {
        let Some(group) = self.groups.first() else { return Ok(0) };
        let mut count = 0;
        for directory in with_children(&group.directory)? {
            count += text(&directory, "tasks")?.map_or(0, |text| text.lines().count() as u64);
        }
        Ok(count)
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The text of a file; none if there is no such file, or the kernel was told not to keep its numbers.
fn text(directory: &Path, file: &str) -> Result<Option<String>> {
    match read_file(&directory.join(file)) {
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        text => text.map(Some),
    }
}

/// The only number of a file. "max" is the largest one; what is not there is zero.
fn number(directory: &Path, file: &str) -> Result<u64> {
    Ok(text(directory, file)?.map_or(0, |text| parse_number(text.trim())))
}

fn parse_number(text: &str) -> u64 {
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

/// The lines `name number` of a file.
fn table(directory: &Path, file: &str) -> Result<BTreeMap<String, u64>> {
    Ok(parse_table(&text(directory, file)?.unwrap_or_default()))
}

fn parse_table(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, value)| (name.to_owned(), parse_number(value.trim()))).collect()
}

/// A list of numbers as the kernel writes it: `0-3,7`. What is not understood is left out.
fn parse_list(text: &str) -> Vec<u32> {
    /// More CPUs or nodes than any kernel supports: no list may make us fill the memory.
    const MOST: u32 = 1 << 16;
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend(first..=last.min(MOST));
        }
    }
    all
}

/// The lines `device hca_handle=N hca_object=N` of `rdma.current`, which both versions have.
fn rdma(directory: &Path) -> Result<BTreeMap<String, Rdma>> {
    let mut all = BTreeMap::new();
    for line in text(directory, "rdma.current")?.unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        let entry: &mut Rdma = all.entry(device.to_owned()).or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "hca_handle" => entry.hca_handles = parse_number(value),
                "hca_object" => entry.hca_objects = parse_number(value),
                _ => {}
            }
        }
    }
    Ok(all)
}

/// The sizes of huge pages for which the group has files that end in `ending`.
fn huge_page_sizes(directory: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let size = |name: &str| Some(name.strip_prefix("hugetlb.")?.strip_suffix(ending)?.to_owned());
    let sizes = entries.flatten().filter_map(|entry| size(entry.file_name().to_str()?));
    sizes.filter(|size| !size.contains('.')).collect()
}

#[cfg(test)]
mod tests;
