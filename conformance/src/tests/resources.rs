//! Control groups: the configured limit is in the kernel's file, and it holds (config-linux.md, "Control groups").

use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::wait::WaitStatus;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::suite::{skip, tests};
use crate::{clean, host};

tests! { "resources";
    Exec:
        the_memory_limit_is_in_force,
        a_memory_hog_is_killed,
        the_pids_limit_is_in_force,
        a_fork_bomb_hits_the_pids_limit,
        cpu_shares_and_quota_are_set,
        the_cpu_set_is_set,
        the_configured_cgroup_path_is_used,
        delete_removes_the_control_groups,
        forbidden_devices_cannot_be_opened;
}

const SLEEPER: &str = "exec sleep 1000";

fn limited(case: &mut Case, script: &str, resource: &str, value: Value) -> Result<Bundle> {
    let mut bundle = case.shell(script)?;
    bundle.set(&format!("/linux/resources/{resource}"), value);
    Ok(bundle)
}

fn the_memory_limit_is_in_force(case: &mut Case) -> Result<()> {
    let limit = 48 * 1024 * 1024;
    let bundle = limited(case, SLEEPER, "memory", json!({"limit": limit}))?;
    let container = case.start(&bundle)?;
    let value = host::cgroup_value(container.pid, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(value == limit.to_string(), "the limit is {value}");
    case.remove(&container)
}

fn a_memory_hog_is_killed(case: &mut Case) -> Result<()> {
    let script = "dd if=/dev/zero of=/dev/null bs=100M count=1; echo $?";
    let bundle =
        limited(case, script, "memory", json!({"limit": 32 * 1024 * 1024, "swap": 32 * 1024 * 1024}))?;
    let finished = case.run(&bundle)?;
    ensure!(finished.stdout.trim() == "137" || finished.status.code() == Some(137), "{finished}");
    Ok(())
}

fn the_pids_limit_is_in_force(case: &mut Case) -> Result<()> {
    let bundle = limited(case, SLEEPER, "pids", json!({"limit": 23}))?;
    let container = case.start(&bundle)?;
    let value = host::cgroup_value(container.pid, "pids", "pids.max", "pids.max")?;
    ensure!(value == "23", "the limit is {value}");
    case.remove(&container)
}

fn a_fork_bomb_hits_the_pids_limit(case: &mut Case) -> Result<()> {
    let script = "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let bundle = limited(case, script, "pids", json!({"limit": 20}))?;
    let finished = case.run(&bundle)?;
    ensure!(finished.stderr.contains("fork") && !finished.stdout.contains("all"), "{finished}");
    Ok(())
}

fn cpu_shares_and_quota_are_set(case: &mut Case) -> Result<()> {
    let bundle = limited(case, SLEEPER, "cpu", json!({"shares": 512, "quota": 50_000, "period": 100_000}))?;
    let container = case.start(&bundle)?;
    let quota = host::cgroup_value(container.pid, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(quota == "50000" || quota == "50000 100000", "the quota is {quota}");
    let shares = host::cgroup_value(container.pid, "cpu", "cpu.shares", "cpu.weight")?;
    // The weight that runtimes compute from 512 shares on cgroup v2 depends on their formula.
    ensure!(shares == "512" || ["20", "59"].contains(&shares.as_str()), "the shares are {shares}");
    case.remove(&container)
}

fn the_cpu_set_is_set(case: &mut Case) -> Result<()> {
    let bundle = limited(case, "grep ^Cpus_allowed_list: /proc/self/status", "cpu", json!({"cpus": "0"}))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(host::find_field(&finished.stdout, "Cpus_allowed_list") == Some("0"), "{finished}");
    Ok(())
}

fn the_configured_cgroup_path_is_used(case: &mut Case) -> Result<()> {
    let mut bundle = limited(case, SLEEPER, "pids", json!({"limit": 9}))?;
    let path = format!("/{}", case.id("group"));
    bundle.set("/linux/cgroupsPath", json!(path));
    let container = case.start(&bundle)?;
    let file = host::cgroup_file(container.pid, "pids", "pids.max", "pids.max")?;
    ensure!(
        file.parent().is_some_and(|group| group.ends_with(&path[1..])),
        "the group is {}",
        file.display()
    );
    case.remove(&container)
}

fn delete_removes_the_control_groups(case: &mut Case) -> Result<()> {
    let bundle = limited(case, SLEEPER, "pids", json!({"limit": 9}))?;
    let container = case.start(&bundle)?;
    ensure!(!clean::cgroups(&container.id).is_empty(), "the container has no control group of its own name");
    case.remove(&container)?;
    let left = clean::cgroups(&container.id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

fn forbidden_devices_cannot_be_opened(case: &mut Case) -> Result<()> {
    if !Path::new("/sys/fs/cgroup/devices").exists() {
        return Err(skip("no v1 devices controller here; v2 needs BPF"));
    }
    let mut bundle = case.shell("head -c 1 /dev/mem-like || exit 9")?;
    // Major 1, minor 11 is /dev/kmsg: readable without hardware, so only the control group can refuse it.
    let device = json!({"path": "/dev/mem-like", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666});
    bundle.push("/linux/devices", device);
    bundle.set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}]));
    let container = case.start(&bundle)?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 9)), "ended with {status:?}");
    let said = std::fs::read_to_string(&container.stderr)?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    Ok(())
}
