//! Churn: clients that connect again and again, each of them served by a worker of its own, and what grows meanwhile.
//!
//! At each mark the clients pause until the pool is what it was at its beginning: no worker, nothing to delete, every sandbox
//! ready with its process forked ahead. Only then is it weighed. A supervisor that is weighed while it makes sandboxes has more
//! descriptors and processes by chance, and less private memory, for a child that is just born shares all of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

use super::BenchArgs;
use super::resident::{ask, disposable, supervisor_of, wait_for};
use super::series::{Report, number};
use crate::case::Case;
use crate::host;
use crate::tests::{Pool, seed_pid};

const CHURN: &str = "Churn";

/// Clients at once.
const CLIENTS: usize = 4;
/// Sandboxes that stand ready.
const SPARES: usize = 8;
/// Between two marks, at most.
const MARK: Duration = Duration::from_secs(60);
/// Marks at least, so that there is a second half.
const MARKS: u32 = 4;

/// Measures for as long as `--churn` says.
pub fn starts(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let pool = disposable(case, SPARES, SPARES)?;
    let length = Duration::from_secs(arguments.churn.max(u64::from(MARKS)));
    let each = MARK.min(length / MARKS);
    // What is allocated once is allocated by these.
    run(pool.address, each)?;
    rest(&pool, case)?;
    let mut marks = vec![weigh(case, &pool)?];
    let (mut made, begun) = (0, Instant::now());
    while begun.elapsed() + each / 2 < length {
        made += run(pool.address, each)?;
        rest(&pool, case)?;
        marks.push(weigh(case, &pool)?);
    }
    report.add(CHURN, &format!("starts in {} s", arguments.churn), "starts", made as f64);
    tell(&marks, each, report);
    pool.drain(case)
}

/// What there is of something, and its unit.
type Weight = (&'static str, f64);

/// One row for all marks, and one for each of the two things that a reader wants to know.
fn tell(marks: &[BTreeMap<&'static str, Weight>], each: Duration, report: &mut Report) {
    let Some((first, last)) = marks.first().zip(marks.last()) else { return };
    let middle = &marks[marks.len() / 2];
    for (what, (unit, end)) in last {
        let at = |mark: &BTreeMap<&'static str, Weight>| mark.get(what).map_or(0.0, |(_, value)| *value);
        for mark in marks {
            report.add(CHURN, &format!("{what}, at the marks"), unit, at(mark));
        }
        report.add(CHURN, &format!("{what}: growth"), unit, end - at(first));
        report.add(CHURN, &format!("{what}: growth in the second half"), unit, end - at(middle));
        let values: Vec<String> = marks.iter().map(|mark| number(at(mark))).collect();
        eprintln!("churn, every {} s: {what} ({unit}): {}", each.as_secs(), values.join(" "));
    }
}

/// Connects for so long; how often it was answered.
fn run(address: SocketAddr, length: Duration) -> Result<u64> {
    let end = Instant::now() + length;
    let client = move || -> Result<u64> {
        let mut made = 0;
        while Instant::now() < end {
            ask(address)?;
            made += 1;
        }
        Ok(made)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(client)).collect();
    let made = clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Ok(0)));
    made.sum()
}

fn rest(pool: &Pool, case: &mut Case) -> Result<()> {
    wait_for(pool, case, |status| {
        status["workers"].as_array().is_some_and(Vec::is_empty)
            && status["unburied"] == 0
            && status["ahead"].as_u64() == Some(SPARES as u64)
    })
}

/// What must not grow.
fn weigh(case: &mut Case, pool: &Pool) -> Result<BTreeMap<&'static str, Weight>> {
    let (supervisor, seed) = (supervisor_of(pool, case)?, seed_pid(case, "default")?);
    let mut all = BTreeMap::new();
    let mut add = |what, unit, value: u64| {
        all.insert(what, (unit, value as f64));
    };
    let memory = |pid, name| host::kilobytes(pid, "smaps_rollup", name);
    add("supervisor: memory of its own", "kB", memory(supervisor, "Anonymous")?);
    add("supervisor: proportional memory", "kB", memory(supervisor, "Pss")?);
    add("supervisor: descriptors", "descriptors", host::open_fds(supervisor)? as u64);
    add("seed: memory of its own", "kB", memory(seed, "Anonymous")?);
    add("seed: proportional memory", "kB", memory(seed, "Pss")?);
    add("seed: descriptors", "descriptors", host::open_fds(seed)? as u64);
    add("pool's processes", "processes", 1 + host::below(supervisor).len() as u64);
    add("machine: processes", "processes", host::processes().len() as u64);
    let mounts = fs::read_to_string(format!("/proc/{supervisor}/mountinfo"))?;
    add("supervisor: mounts", "mounts", mounts.lines().count() as u64);
    add("machine: control groups", "groups", control_groups()?);
    add("state directory: files", "files", files_below(case.runtime.root())?);
    add("state directory: size", "kB", size_below(case.runtime.root())?);
    let kernel = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    for (what, field) in [
        ("machine: slab that cannot be reclaimed", "SUnreclaim"),
        ("machine: page tables", "PageTables"),
        ("machine: kernel stacks", "KernelStack"),
    ] {
        let value = host::find_field(&kernel, field).and_then(|value| value.split(' ').next()?.parse().ok());
        value.into_iter().for_each(|value| add(what, "kB", value));
    }
    let page = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096).unsigned_abs();
    if let Some(slabs) = slab("net_namespace", page) {
        add("machine: network namespaces in the slab", "kB", slabs);
    }
    Ok(all)
}

/// Groups of all hierarchies: /proc/cgroups.
fn control_groups() -> Result<u64> {
    let table = fs::read_to_string("/proc/cgroups").context("read /proc/cgroups")?;
    let counts = table.lines().filter(|line| !line.starts_with('#'));
    let counts = counts.filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// What the kernel has for objects of one kind, in kB: slabinfo(5). Nothing where it does not tell.
fn slab(name: &str, page: u64) -> Option<u64> {
    let table = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(name))?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let per_slab: u64 = words.get(5)?.parse().ok()?;
    let slabs: u64 = words.get(words.iter().position(|word| *word == "slabdata")? + 2)?.parse().ok()?;
    Some(slabs * per_slab * page / 1024)
}

/// Files and directories; what goes while it is counted is not counted.
fn files_below(directory: &Path) -> Result<u64> {
    sum_below(directory, &|_| 1)
}

fn size_below(directory: &Path) -> Result<u64> {
    Ok(sum_below(directory, &|entry| entry.metadata().map_or(0, |found| found.len()))? / 1024)
}

fn sum_below(directory: &Path, weight: &dyn Fn(&fs::DirEntry) -> u64) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?.flatten() {
        sum += weight(&entry);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sum += sum_below(&entry.path(), weight).unwrap_or(0);
        }
    }
    Ok(sum)
}
