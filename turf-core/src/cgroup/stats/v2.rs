//! The numbers of version 2: one group for all controllers.

use std::path::Path;

use super::{BlockIoEntry, HugePages, MemoryCounter, Pressure, PressureLine, Stats};
use super::{huge_page_sizes, number, parse_list, parse_number, rdma, table, text};
use crate::error::Result;

/// Adds what the group knows.
pub(super) fn read(directory: &Path, stats: &mut Stats) -> Result<()> {
    cpu(directory, stats)?;
    let list = |file| text(directory, file).map(|text| parse_list(&text.unwrap_or_default()));
    stats.cpuset.cpus = list("cpuset.cpus.effective")?;
    stats.cpuset.mems = list("cpuset.mems.effective")?;
    memory(directory, stats)?;
    stats.pids.current = number(directory, "pids.current")?;
    stats.pids.limit = Some(number(directory, "pids.max")?).filter(|n| *n != u64::MAX).unwrap_or(0);
    let io = text(directory, "io.stat")?.unwrap_or_default();
    (stats.blkio.io_service_bytes_recursive, stats.blkio.io_serviced_recursive) = parse_io(&io);
    stats.blkio.psi = pressure(directory, "io.pressure")?;
    for size in huge_page_sizes(directory, ".current") {
        let failcnt = table(directory, &format!("hugetlb.{size}.events"))?.get("max").copied().unwrap_or(0);
        let usage = number(directory, &format!("hugetlb.{size}.current"))?;
        stats.hugetlb.insert(size, HugePages { usage, max: 0, failcnt });
    }
    stats.rdma = rdma(directory)?;
    Ok(())
}

fn cpu(directory: &Path, stats: &mut Stats) -> Result<()> {
    let microseconds = table(directory, "cpu.stat")?;
    let count = |name: &str| microseconds.get(name).copied().unwrap_or(0);
    let cpu = &mut stats.cpu;
    cpu.usage.total = count("usage_usec").saturating_mul(1000);
    cpu.usage.user = count("user_usec").saturating_mul(1000);
    cpu.usage.kernel = count("system_usec").saturating_mul(1000);
    cpu.throttling.periods = count("nr_periods");
    cpu.throttling.throttled_periods = count("nr_throttled");
    cpu.throttling.throttled_time = count("throttled_usec").saturating_mul(1000);
    cpu.psi = pressure(directory, "cpu.pressure")?;
    Ok(())
}

/// Swap is told together with memory, as version 1 does, because that is what readers of one
/// structure for both versions take it for.
fn memory(directory: &Path, stats: &mut Stats) -> Result<()> {
    let counter = |prefix: &str| -> Result<MemoryCounter> {
        let read = |name: &str| number(directory, &format!("memory.{prefix}{name}"));
        let failcnt = table(directory, &format!("memory.{prefix}events"))?.get("max").copied().unwrap_or(0);
        Ok(MemoryCounter { limit: read("max")?, usage: read("current")?, max: read("peak")?, failcnt })
    };
    let memory = &mut stats.memory;
    memory.usage = counter("")?;
    let swap = counter("swap.")?;
    memory.swap = MemoryCounter {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage + memory.usage.usage,
        max: swap.max + memory.usage.max,
        failcnt: swap.failcnt,
    };
    memory.raw = table(directory, "memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.psi = pressure(directory, "memory.pressure")?;
    Ok(())
}

/// Lines like `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`: bytes, then requests.
pub(super) fn parse_io(text: &str) -> (Vec<BlockIoEntry>, Vec<BlockIoEntry>) {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((major, minor)) = device else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut requests, "Read"),
                "wios" => (&mut requests, "Write"),
                "dios" => (&mut requests, "Discard"),
                _ => continue,
            };
            list.push(BlockIoEntry { major, minor, op: op.to_owned(), value: parse_number(value) });
        }
    }
    (bytes, requests)
}

fn pressure(directory: &Path, file: &str) -> Result<Option<Pressure>> {
    Ok(text(directory, file)?.map(|text| parse_pressure(&text)))
}

/// Lines like `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
pub(super) fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let to = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            Some(_) | None => continue,
        };
        *to = PressureLine::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => to.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => to.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => to.avg300 = value.parse().unwrap_or(0.0),
                "total" => to.total = parse_number(value),
                _ => {}
            }
        }
    }
    pressure
}
