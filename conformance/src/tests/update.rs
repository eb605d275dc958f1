//! `update`: other limits for a container that runs. The specification does not name it; runc's command line does.

use std::fs::{self, File};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::case::{Case, Container, text};
use crate::suite::tests;
use crate::{clean, host, wait};

tests! { "update";
    Exec:
        flags_change_the_limits_in_force,
        memory_and_swap_are_raised_and_lowered_together,
        resources_come_from_a_file_or_from_stdin,
        an_unknown_container_is_refused;
    Turf:
        a_limit_that_was_not_there_before_takes_hold_of_all_processes,
        groups_that_an_update_adds_are_removed_by_run,
        a_refused_update_changes_nothing,
        memory_and_swap_together_keep_their_limit,
        a_limit_below_what_is_used_is_refused_if_asked_for,
        a_stopped_container_is_refused,
        an_update_of_nothing_is_no_error,
        resources_that_make_no_sense_are_refused,
        a_worker_is_updated_too;
}

const MB: i64 = 1 << 20;

fn limited(case: &mut Case) -> Result<Container> {
    let mut bundle = case.shell("exec sleep 1000")?;
    let resources = json!({
        "memory": {"limit": 64 * MB, "swap": 64 * MB}, "pids": {"limit": 50},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    bundle.set("/linux/resources", resources);
    case.start(&bundle)
}

fn flags_change_the_limits_in_force(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    let (id, pid) = (container.id.as_str(), container.pid);
    case.runtime.ok(&["update", "--pids-limit", "33", "--cpu-share", "1024", "--cpu-quota", "70000", id])?;
    ensure!(host::cgroup_value(pid, "pids", "pids.max", "pids.max")? == "33");
    ensure!(host::cgroup_value(pid, "cpu", "cpu.shares", "cpu.weight")? != "512");
    let quota = host::cgroup_value(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(quota == "70000" || quota == "70000 100000", "the quota is {quota}");
    ensure!(
        host::cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max")? == (64 * MB).to_string()
    );
    case.remove(&container)
}

fn an_update_of_nothing_is_no_error(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    case.runtime.ok(&["update", &container.id])?;
    ensure!(host::cgroup_value(container.pid, "pids", "pids.max", "pids.max")? == "50");
    // Without linux.intelRdt there is no class that could change.
    let schema = ["update", "--l3-cache-schema", "L3:0=f", &container.id];
    case.runtime.refused(&schema, &["linux.intelRdt"])?;
    case.remove(&container)
}

fn memory_and_swap_are_raised_and_lowered_together(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    for limit in [128 * MB, 32 * MB, 256 * MB] {
        let limit = limit.to_string();
        case.runtime.ok(&["update", "--memory", &limit, "--memory-swap", &limit, &container.id])?;
        let value = host::cgroup_value(container.pid, "memory", "memory.limit_in_bytes", "memory.max")?;
        ensure!(value == limit, "the limit is {value}, not {limit}");
    }
    case.remove(&container)
}

fn resources_come_from_a_file_or_from_stdin(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    let file = case.directory().join("resources.json");
    for (limit, from_stdin) in [(21, false), (22, true)] {
        fs::write(&file, json!({"pids": {"limit": limit}}).to_string())?;
        let source = if from_stdin { "-" } else { text(&file)? };
        let arguments = ["update", "--resources", source, &container.id];
        case.runtime.spawn(&arguments, Some(File::open(&file)?.into()))?.finish()?.success()?;
        let value = host::cgroup_value(container.pid, "pids", "pids.max", "pids.max")?;
        ensure!(value == limit.to_string(), "the limit is {value}, not {limit}");
    }
    case.remove(&container)
}

fn an_unknown_container_is_refused(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exec sleep 1000")?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["update", "--pids-limit", "5", &container.id])?;
    let id = case.id("nobody");
    case.runtime.refused(&["update", "--pids-limit", "5", &id], &[])?;
    case.remove(&container)
}

fn a_limit_that_was_not_there_before_takes_hold_of_all_processes(case: &mut Case) -> Result<()> {
    let bundle = case.shell("sleep 1000 & exec sleep 1000")?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["update", "--memory", "64m", "--pids-limit", "20", &container.id])?;
    let pids: Vec<i32> =
        serde_json::from_str(&case.runtime.ok(&["ps", "-f", "json", &container.id])?.stdout)?;
    ensure!(pids.contains(&container.pid), "{pids:?}");
    for pid in pids {
        let limit = host::cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max")?;
        ensure!(limit == (64 * MB).to_string(), "the limit of {pid} is {limit}");
        ensure!(host::cgroup_value(pid, "pids", "pids.max", "pids.max")? == "20");
    }
    ensure!(case.runtime.status(&container.id)? == "running");
    case.remove(&container)?;
    let left = clean::cgroups(&container.id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

fn groups_that_an_update_adds_are_removed_by_run(case: &mut Case) -> Result<()> {
    let bundle = case.shell("echo up > /fifo; exec sleep 1000")?;
    let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
    bundle.write()?;
    let id = case.id("updated");
    let running = case.runtime.spawn(&["run", "--bundle", text(&bundle.path)?, &id], None)?;
    wait::line(&mut fifo, wait::STEP)?;
    case.runtime.ok(&["update", "--memory", "64m", "--pids-limit", "20", &id])?;
    case.runtime.ok(&["kill", &id, "KILL"])?;
    running.finish()?.exited(137)?;
    let left = clean::cgroups(&id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// Updates by a file with these resources.
fn update(
    case: &mut Case,
    container: &Container,
    resources: &serde_json::Value,
) -> Result<crate::runtime::Finished> {
    let file = case.directory().join("resources.json");
    fs::write(&file, resources.to_string())?;
    case.runtime.call(&["update", "--resources", text(&file)?, &container.id])
}

fn a_refused_update_changes_nothing(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    let pid = container.pid;
    let all = json!({"memory": {"limit": 80 * MB, "swap": 90 * MB}, "pids": {"limit": 41},
        "cpu": {"shares": 1024, "quota": 60_000, "cpus": "4000"}});
    update(case, &container, &all)?.failure(&["cpuset.cpus"])?;
    for (controller, v1, v2, expected) in [
        ("memory", "memory.limit_in_bytes", "memory.max", (64 * MB).to_string()),
        ("pids", "pids.max", "pids.max", "50".to_owned()),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", "50000".to_owned()),
        ("cpuset", "cpuset.cpus", "cpuset.cpus", "0".to_owned()),
    ] {
        let value = host::cgroup_value(pid, controller, v1, v2)?;
        ensure!(value.split(' ').next() == Some(expected.as_str()), "{v1} is {value}, not {expected}");
    }
    case.remove(&container)
}

fn memory_and_swap_together_keep_their_limit(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    let pid = container.pid;
    let both = json!({"memory": {"limit": 64 * MB, "swap": 96 * MB}});
    update(case, &container, &both)?.success()?;
    update(case, &container, &json!({"memory": {"limit": 80 * MB}}))?.success()?;
    let swap = host::cgroup_value(pid, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")?;
    ensure!(swap == (96 * MB).to_string() || swap == (16 * MB).to_string(), "swap is {swap}");
    // More than memory and swap together.
    update(case, &container, &json!({"memory": {"limit": 128 * MB}}))?.failure(&["memory"])?;
    update(case, &container, &json!({"memory": {"swap": 192 * MB}}))?.success()?;
    let swap = host::cgroup_value(pid, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")?;
    ensure!(swap == (192 * MB).to_string() || swap == (112 * MB).to_string(), "swap is {swap}");
    case.remove(&container)
}

fn a_limit_below_what_is_used_is_refused_if_asked_for(case: &mut Case) -> Result<()> {
    let script =
        "awk 'BEGIN { s = sprintf(\"%20000000s\", \"\"); print \"full\"; fflush(); system(\"sleep 1000\") }'";
    let mut bundle = case.shell(script)?;
    bundle.set("/linux/resources/memory", json!({"limit": 128 * MB, "swap": 128 * MB}));
    let (container, mut said) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    ensure!(crate::wait::line(&mut said, crate::wait::STEP)? == "full");
    let resources = json!({"memory": {"limit": MB, "swap": MB, "checkBeforeUpdate": true}});
    update(case, &container, &resources)?.failure(&["memory"])?;
    ensure!(case.runtime.status(&container.id)? == "running");
    let limit = host::cgroup_value(container.pid, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(limit == (128 * MB).to_string(), "the limit is {limit}");
    case.remove(&container)
}

fn a_stopped_container_is_refused(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    case.wait(&container)?;
    case.runtime.refused(&["update", "--pids-limit", "5", &container.id], &["stopped"])?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn resources_that_make_no_sense_are_refused(case: &mut Case) -> Result<()> {
    let container = limited(case)?;
    let file = case.directory().join("resources.json");
    for (resources, words) in [("{", "resources"), (r#"{"pids": {"limit": "many"}}"#, "$.pids.limit")] {
        fs::write(&file, resources)?;
        case.runtime.refused(&["update", "--resources", text(&file)?, &container.id], &[words])?;
    }
    case.runtime.refused(&["update", "--memory", "much", &container.id], &["--memory"])?;
    case.remove(&container)
}

fn a_worker_is_updated_too(case: &mut Case) -> Result<()> {
    let bundle = case.worker(super::HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    case.runtime.ok(&["update", "--memory", "128m", "--memory-swap", "128m", &container.id])?;
    let worker = super::worker_of(&container)?;
    let limit = host::cgroup_value(worker, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(limit == (128 * MB).to_string(), "the limit is {limit}");
    ensure!(crate::http::get(address, "/")?.status == 200);
    case.remove(&container)
}
