//! What a test may not leave behind, found from outside: processes, mounts, control groups, files.
//!
//! The program is a subreaper, so every process that a runtime orphans becomes its child and cannot hide.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{host, wait};

/// How deep under a cgroup mount a runtime may put its groups.
const CGROUP_DEPTH: usize = 6;

/// The mount points that this process sees.
pub fn mounts() -> Result<BTreeSet<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect())
}

/// The control groups whose name contains `tag`, deepest first.
pub fn cgroups(tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), CGROUP_DEPTH, &mut |path| {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(tag)) && is_cgroup(path) {
            found.push(path.to_owned());
        }
    });
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// Whether a path lies in a cgroup file system.
pub fn is_cgroup(path: &Path) -> bool {
    let kind = statfs(path).map(|answer| answer.filesystem_type());
    kind.is_ok_and(|kind| [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&kind))
}

/// Everything below `root` whose name contains `tag`.
pub fn files(root: &Path, tag: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut visit = |path: &Path| {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(tag)) {
            found.push(path.to_owned());
        }
    };
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    for entry in entries.flatten() {
        visit(&entry.path());
        walk(&entry.path(), CGROUP_DEPTH, &mut visit);
    }
    found
}

fn walk(directory: &Path, depth: usize, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            if depth > 0 {
                walk(&entry.path(), depth - 1, visit);
            }
        }
    }
}

/// The children of this process that still run, as `pid command line`.
pub fn children() -> Vec<String> {
    let running = processes().into_iter().filter(|process| process.state != 'Z');
    running.map(|process| format!("{} {}", process.pid, host::command_line(process.pid))).collect()
}

/// The ids of the children of this process, those included that have ended and are not reaped.
pub fn child_ids() -> Vec<i32> {
    processes().into_iter().map(|process| process.pid).collect()
}

fn processes() -> Vec<host::Process> {
    let own = std::process::id().cast_signed();
    host::processes().into_iter().filter(|process| process.parent == own).collect()
}

/// Ends and reaps every descendant: who loses its parent becomes a child of this process, and is ended as well.
pub fn kill_children() {
    let end = Instant::now() + wait::STEP;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Err(Errno::ECHILD) => return,
            _ => continue,
        }
        let children = child_ids();
        for pid in &children {
            // It may have ended by itself in between.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || !wait::one_ends_within(&children, left).unwrap_or(true) {
            return;
        }
    }
}

/// Takes away what a failed test left: mounts that were not there before, and tagged control groups. What cannot be taken away
/// keeps nothing else; the first error is returned.
pub fn sweep(before: &BTreeSet<PathBuf>, tag: &str) -> Result<()> {
    for group in cgroups(tag) {
        // Nobody dies in a paused container; whatever is none of a freezer has no such file.
        let _ = fs::write(group.join("freezer.state"), "THAWED");
        let _ = fs::write(group.join("cgroup.freeze"), "0");
    }
    kill_children();
    let mut swept = Ok(());
    for mount in mounts()?.difference(before).collect::<Vec<_>>().into_iter().rev() {
        let gone = umount2(mount, MntFlags::MNT_DETACH);
        swept = swept.and(gone.with_context(|| format!("unmount {}", mount.display())));
    }
    for group in cgroups(tag) {
        swept = swept.and(remove_group(&group).with_context(|| format!("remove {}", group.display())));
    }
    swept
}

/// Removes a control group that its processes are about to leave: they do so after their parent has learned of their end, and
/// version 1 tells nobody.
fn remove_group(group: &Path) -> std::io::Result<()> {
    let end = Instant::now() + wait::STEP;
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            removed => return removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_finds_tagged_names_only() {
        let root = std::env::temp_dir().join(format!("conformance-clean-{}", std::process::id()));
        fs::create_dir_all(root.join("containers/tag-1")).unwrap();
        fs::create_dir_all(root.join("containers/other")).unwrap();
        assert_eq!(files(&root, "tag-"), vec![root.join("containers/tag-1")]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_root_mount_is_seen() {
        assert!(mounts().unwrap().contains(Path::new("/")));
    }
}
