//! The host's view of processes and control groups: `/proc` and `/sys/fs/cgroup`, read only (proc(5), cgroups(7)).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One line of the process table.
pub struct Process {
    /// Its pid in this namespace.
    pub pid: i32,
    /// Its parent's pid.
    pub parent: i32,
    /// The state letter of `/proc/PID/stat`.
    pub state: char,
}

/// All processes that can be seen.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, parent) = parse_stat(&stat)?;
    Some(Process { pid, parent, state })
}

/// State letter and parent from a `stat` line; the command in parentheses may contain anything.
fn parse_stat(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// How many units of CPU time the kernel counts per second in `/proc/PID/stat`: a constant of its interface.
const USER_HZ: f64 = 100.0;

/// The CPU time of all threads of a process so far, in seconds, user and system together.
pub fn cpu_seconds(pid: i32) -> Result<f64> {
    cpu_ticks(pid, 2)
}

/// The same with that of all its children that have ended and been waited for, and of theirs.
pub fn cpu_seconds_with_children(pid: i32) -> Result<f64> {
    cpu_ticks(pid, 4)
}

fn cpu_ticks(pid: i32, fields: usize) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = parse_cpu_ticks(&stat, fields).with_context(|| format!("{path} holds {stat}"))?;
    Ok(ticks as f64 / USER_HZ)
}

/// The same of one process that lives, to the nanosecond (proc_pid_schedstat(5)): many short ones are not lost in the units
/// of `stat`.
pub fn precise_cpu_seconds(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let nanoseconds = text.split_ascii_whitespace().next().with_context(|| format!("{path} is empty"))?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// All processes below one, those included that have ended and have not been waited for.
pub fn below(pid: i32) -> Vec<i32> {
    let all = processes();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.pid));
        next += 1;
    }
    found.split_off(1)
}

/// Whether these bytes are in what a process has of writable memory (proc_pid_mem(5), proc_pid_pagemap(5)).
pub fn memory_contains(pid: i32, wanted: &[u8]) -> Result<bool> {
    const PAGE: u64 = 4096;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).context("open the memory")?;
    let pagemap = fs::File::open(format!("/proc/{pid}/pagemap")).context("open the page map")?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("read the mappings")?;
    let parse = |text| u64::from_str_radix(text, 16);
    for line in maps.lines() {
        let Some((ends, rest)) = line.split_once(' ') else { continue };
        let Some((start, end)) = ends.split_once('-').filter(|_| rest.starts_with("rw")) else { continue };
        let (start, end) = (parse(start)?, parse(end)?);
        let mut entries = vec![0; usize::try_from((end - start) / PAGE * 8)?];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8).context("read the page map")?;
        // Pages in a row that are there: to read the others would make some.
        let mut bytes = Vec::new();
        let pages = entries.chunks_exact(8).map(|entry| entry[7] & 0x80 != 0).chain([false]);
        for (address, is_present) in (start..).step_by(PAGE as usize).zip(pages) {
            if is_present {
                let at = bytes.len();
                bytes.resize(at + PAGE as usize, 0);
                memory.read_exact_at(&mut bytes[at..], address).context("read the memory")?;
            } else if !bytes.is_empty() {
                if bytes.windows(wanted.len()).any(|window| window == wanted) {
                    return Ok(true);
                }
                bytes.clear();
            }
        }
    }
    Ok(false)
}

/// So many fields of a `stat` line, from the 14th on, added: `utime`, `stime`, `cutime`, `cstime`.
fn parse_cpu_ticks(stat: &str, fields: usize) -> Option<u64> {
    let times = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    times.take(fields).map(|field| field.parse::<u64>().ok()).sum()
}

/// The direct children of a process that are not dead.
pub fn children_of(pid: i32) -> Vec<i32> {
    let alive = |process: &Process| process.parent == pid && process.state != 'Z';
    processes().into_iter().filter(alive).map(|process| process.pid).collect()
}

/// The arguments of a process, separated by blanks; its kernel name if it has none.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if bytes.is_empty() {
        return fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    }
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// The value of `field` in `/proc/PID/FILE` (`status`, `smaps_rollup`), in its own unit.
pub fn field(pid: i32, file: &str, field: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    find_field(&text, field).map(str::to_owned).with_context(|| format!("{path} has no {field}"))
}

/// The value after `field:` in a text of such lines.
pub fn find_field<'text>(text: &'text str, field: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

/// A field of kilobytes (`VmPTE`, `Pss`), as a number of kB.
pub fn kilobytes(pid: i32, file: &str, name: &str) -> Result<u64> {
    let value = field(pid, file, name)?;
    value.trim_end_matches("kB").trim().parse().with_context(|| format!("{name} of {pid} is {value}"))
}

/// How many file descriptors a process has open.
pub fn open_fds(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("list the fds of {pid}"))?.count())
}

/// Where `/proc/PID/ns/NAME` points.
pub fn namespace(pid: i32, name: &str) -> Result<String> {
    let link = PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    let target = fs::read_link(&link).with_context(|| format!("read {}", link.display()))?;
    Ok(target.to_string_lossy().into_owned())
}

/// The file of a control group that holds a limit: `v1` under its controller's mount, or `v2` in the unified tree.
pub fn cgroup_file(pid: i32, controller: &str, v1: &str, v2: &str) -> Result<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("read the process's cgroups")?;
    let base = Path::new("/sys/fs/cgroup");
    match cgroup_path(&table, controller) {
        Some((true, path)) => Ok(base.join(controller).join(path).join(v1)),
        Some((false, path)) if is_unified() => Ok(base.join(path).join(v2)),
        Some((false, path)) => Ok(base.join("unified").join(path).join(v2)),
        None => anyhow::bail!("process {pid} has no {controller} control group"),
    }
}

/// Whether all control groups are those of version 2.
pub fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether the controller is a v1 hierarchy, and the path of the group below its mount.
fn cgroup_path<'table>(table: &'table str, controller: &str) -> Option<(bool, &'table str)> {
    let lines = || table.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let v1 = lines().find(|(names, _)| names.split(',').any(|name| name == controller));
    let found = v1.or_else(|| lines().find(|(names, _)| names.is_empty()))?;
    Some((!found.0.is_empty(), found.1.trim_start_matches('/')))
}

/// What a limit file of a process's control group says.
pub fn cgroup_value(pid: i32, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let path = cgroup_file(pid, controller, v1, v2)?;
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_parentheses_in_the_name() {
        assert_eq!(parse_stat("7 (a) b) (c) S 3 7 7"), Some(('S', 3)));
        assert_eq!(parse_stat("7 nothing"), None);
        let stat = "7 (a b) S 1 7 7 0 -1 4194560 10 0 0 0 40 2 0 0 20 0 1 0";
        assert_eq!(parse_cpu_ticks(stat, 2), Some(42));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmPTE:\t  44 kB\nPss:   12 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(find_field(text, "Pss"), Some("12 kB"));
        assert_eq!(find_field(text, "Vm"), None);
    }

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let hybrid = "4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/\n";
        assert_eq!(cgroup_path(hybrid, "memory"), Some((true, "a/b")));
        assert_eq!(cgroup_path(hybrid, "cpu"), Some((true, "c")));
        assert_eq!(cgroup_path("0::/x/y\n", "memory"), Some((false, "x/y")));
    }
}
