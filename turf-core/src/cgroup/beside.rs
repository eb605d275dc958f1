//! Moving a process into the control groups of another one: proc_pid_cgroup(5), cgroups(7).

use std::fs;

use super::layout::{Hierarchy, Layout};
use crate::error::{Operation, Result};

/// Moves a process with one thread into every group that the process `model` is in, as the caller.
pub fn move_beside(pid: i32, model: i32) -> Result<()> {
    let read = |path: String| fs::read_to_string(&path).operation(|| format!("read {path}"));
    let mounts = read("/proc/self/mountinfo".to_owned())?;
    let wanted = Layout::parse(&mounts, &read(format!("/proc/{model}/cgroup"))?);
    let present = Layout::parse(&mounts, &read(format!("/proc/{pid}/cgroup"))?);
    for (wanted, present) in hierarchies(&wanted).zip(hierarchies(&present)) {
        if wanted.own != present.own {
            let join = if wanted.controllers.is_empty() { "cgroup.procs" } else { "tasks" };
            let file = wanted.mount.join(&wanted.own).join(join);
            let moved = fs::write(&file, pid.to_string());
            moved.operation(|| format!("move process {pid}: write to {}", file.display()))?;
        }
    }
    Ok(())
}

/// In the order of the table of mounts, which is the same for both.
fn hierarchies(layout: &Layout) -> impl Iterator<Item = &Hierarchy> {
    layout.v1.iter().chain(&layout.v2)
}
