//! systemd as the maker of control groups: `--systemd-cgroup` with `slice:prefix:name`, where systemd runs
//! (`cargo xtask vm systemd`); elsewhere the refusal. The specification does not name it; runc's documentation does.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, Container, text};
use crate::suite::{skip, tests};
use crate::{clean, host, wait};

tests! { "systemd";
    Exec:
        a_stopped_container_leaves_no_unit,
        a_life_in_a_scope;
    // crun 1.8 writes the files only; runc 1.1 passes the first two.
    Turf:
        a_scope_has_the_limits_as_properties,
        an_update_reaches_the_properties,
        annotations_are_properties_of_the_unit,
        annotations_that_are_no_properties_are_refused,
        without_a_path_the_scope_has_the_containers_name,
        a_unit_needs_the_flag,
        other_paths_than_units_are_refused,
        without_systemd_the_flag_is_refused,
        a_scope_survives_a_reload_of_systemd,
        a_create_that_fails_leaves_no_unit,
        an_ordinary_user_has_scopes_of_its_own_systemd;
}

fn needs_systemd() -> Result<()> {
    if Path::new("/run/systemd/system").is_dir() { Ok(()) } else { Err(skip("systemd does not run here")) }
}

const MB: i64 = 1 << 20;

/// A sleeper with limits in the scope `cft-<name>.scope` of system.slice, and the scope's name.
fn sleeper(case: &mut Case, name: &str) -> Result<(Bundle, String)> {
    needs_systemd()?;
    let name = case.id(name);
    let mut bundle = case.shell("exec sleep 1000")?;
    bundle.set("/linux/cgroupsPath", json!(format!("system.slice:cft:{name}")));
    let resources = json!({
        "memory": {"limit": 64 * MB, "reservation": 16 * MB}, "pids": {"limit": 50},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    bundle.set("/linux/resources", resources);
    Ok((bundle, format!("cft-{name}.scope")))
}

/// Creates and starts with `--systemd-cgroup`.
fn start(case: &mut Case, bundle: &Bundle, name: &str) -> Result<Container> {
    bundle.write()?;
    let id = case.id(name);
    let pid_file = case.directory().join(format!("{id}.pid"));
    let arguments =
        ["--systemd-cgroup", "create", "--bundle", text(&bundle.path)?, "--pid-file", text(&pid_file)?, &id];
    let running = case.runtime.spawn(&arguments, None)?;
    let (stdout, stderr) = running.output_files();
    running.finish()?.success()?;
    let pid = fs::read_to_string(&pid_file)?.trim().parse().context("the pid file")?;
    case.runtime.ok(&["--systemd-cgroup", "start", &id])?;
    Ok(Container { id, pid, stdout, stderr })
}

fn remove(case: &mut Case, container: &Container) -> Result<()> {
    case.runtime.ok(&["--systemd-cgroup", "kill", &container.id, "KILL"])?;
    case.wait(container)?;
    case.runtime.ok(&["--systemd-cgroup", "delete", &container.id])?;
    case.forget(&container.id);
    Ok(())
}

/// A property of a unit as systemctl shows it.
fn property(unit: &str, name: &str) -> Result<String> {
    let output = Command::new("systemctl").args(["show", "--value", "-p", name, unit]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[track_caller]
fn expect(unit: &str, expected: &[(&str, String)]) -> Result<()> {
    for (name, value) in expected {
        let said = property(unit, name)?;
        ensure!(said == *value, "{name} of {unit} is {said:?}, not {value:?}");
    }
    Ok(())
}

fn a_scope_has_the_limits_as_properties(case: &mut Case) -> Result<()> {
    let (bundle, unit) = sleeper(case, "limits")?;
    let container = start(case, &bundle, "c")?;
    expect(
        &unit,
        &[
            ("ActiveState", "active".into()),
            ("Slice", "system.slice".into()),
            ("Delegate", "yes".into()),
            ("MemoryMax", (64 * MB).to_string()),
            ("MemoryLow", (16 * MB).to_string()),
            ("TasksMax", "50".into()),
            ("CPUQuotaPerSecUSec", "500ms".into()),
            ("AllowedCPUs", "0".into()),
            ("DevicePolicy", "strict".into()),
        ],
    )?;
    let group = host::cgroup_file(container.pid, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(group.parent().is_some_and(|group| group.ends_with(format!("system.slice/{unit}"))), "{group:?}");
    ensure!(fs::read_to_string(&group)?.trim() == (64 * MB).to_string());
    remove(case, &container)
}

fn an_update_reaches_the_properties(case: &mut Case) -> Result<()> {
    let (bundle, unit) = sleeper(case, "update")?;
    let container = start(case, &bundle, "c")?;
    let arguments =
        ["--systemd-cgroup", "update", "--pids-limit", "33", "--memory", "100663296", &container.id];
    case.runtime.ok(&arguments)?;
    expect(&unit, &[("TasksMax", "33".into()), ("MemoryMax", "100663296".into())])?;
    ensure!(host::cgroup_value(container.pid, "pids", "pids.max", "pids.max")? == "33");
    remove(case, &container)
}

fn annotations_are_properties_of_the_unit(case: &mut Case) -> Result<()> {
    let (mut bundle, unit) = sleeper(case, "annotated")?;
    let annotations = json!({
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.TimeoutStopSec": "uint64 123",
        "org.systemd.property.TasksMax": "uint64 44",
    });
    bundle.set("/annotations", annotations);
    let container = start(case, &bundle, "c")?;
    expect(
        &unit,
        &[
            ("CollectMode", "inactive-or-failed".into()),
            ("TimeoutStopUSec", "2min 3s".into()),
            // Instead of the bundle's limit of 50.
            ("TasksMax", "44".into()),
        ],
    )?;
    remove(case, &container)
}

fn annotations_that_are_no_properties_are_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    for (name, value) in [("CollectMode", "inactive"), ("No-Name", "1"), ("TimeoutStopSec", "'soon'")] {
        let name = format!("org.systemd.property.{name}");
        bundle.set("/annotations", json!({&name: value}));
        refused(case, &bundle, &[], &["$.annotations", &name])?;
    }
    Ok(())
}

fn a_stopped_container_leaves_no_unit(case: &mut Case) -> Result<()> {
    let (bundle, unit) = sleeper(case, "gone")?;
    let container = start(case, &bundle, "c")?;
    remove(case, &container)?;
    expect(&unit, &[("LoadState", "not-found".into())])?;
    let left = clean::cgroups(&unit);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

fn a_life_in_a_scope(case: &mut Case) -> Result<()> {
    let (bundle, _) = sleeper(case, "life")?;
    let container = start(case, &bundle, "c")?;
    let id = container.id.as_str();
    case.runtime.ok(&["--systemd-cgroup", "exec", id, "/bin/true"])?;
    case.runtime.ok(&["--systemd-cgroup", "pause", id])?;
    ensure!(case.runtime.status(id)? == "paused");
    case.runtime.ok(&["--systemd-cgroup", "resume", id])?;
    ensure!(case.runtime.status(id)? == "running");
    remove(case, &container)
}

fn without_a_path_the_scope_has_the_containers_name(case: &mut Case) -> Result<()> {
    let (mut bundle, _) = sleeper(case, "unused")?;
    bundle.set("/linux/cgroupsPath", json!(""));
    let container = start(case, &bundle, "named")?;
    let unit = format!("turf-{}.scope", container.id);
    expect(&unit, &[("ActiveState", "active".into()), ("Slice", "system.slice".into())])?;
    remove(case, &container)
}

/// `create` with these flags before the verb must fail and say these words.
fn refused(case: &mut Case, bundle: &Bundle, flags: &[&str], words: &[&str]) -> Result<()> {
    bundle.write()?;
    let id = case.id("refused");
    let mut arguments = flags.to_vec();
    arguments.extend(["create", "--bundle", text(&bundle.path)?, &id]);
    case.runtime.refused(&arguments, words)?;
    let left = clean::cgroups(&id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

fn a_unit_needs_the_flag(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("true")?;
    bundle.set("/linux/cgroupsPath", json!("system.slice:cft:box"));
    refused(case, &bundle, &[], &["$.linux.cgroupsPath", "--systemd-cgroup"])
}

fn other_paths_than_units_are_refused(case: &mut Case) -> Result<()> {
    for path in ["/a/b", "a", "a:b:c:d"] {
        let mut bundle = case.shell("true")?;
        bundle.set("/linux/cgroupsPath", json!(path));
        refused(case, &bundle, &["--systemd-cgroup"], &["$.linux.cgroupsPath", "slice:prefix:name"])?;
    }
    Ok(())
}

fn without_systemd_the_flag_is_refused(case: &mut Case) -> Result<()> {
    if needs_systemd().is_ok() {
        return Err(skip("systemd runs here"));
    }
    let bundle = case.shell("true")?;
    refused(case, &bundle, &["--systemd-cgroup"], &["--systemd-cgroup", "needs systemd"])
}

fn a_scope_survives_a_reload_of_systemd(case: &mut Case) -> Result<()> {
    let (bundle, unit) = sleeper(case, "reload")?;
    let container = start(case, &bundle, "c")?;
    ensure!(Command::new("systemctl").arg("daemon-reload").status()?.success());
    expect(&unit, &[("ActiveState", "active".into()), ("TasksMax", "50".into())])?;
    ensure!(host::cgroup_value(container.pid, "pids", "pids.max", "pids.max")? == "50");
    ensure!(case.runtime.status(&container.id)? == "running");
    remove(case, &container)
}

fn a_create_that_fails_leaves_no_unit(case: &mut Case) -> Result<()> {
    let (mut bundle, unit) = sleeper(case, "fails")?;
    bundle.set("/process/args", json!(["/bin/no-such-program"]));
    refused(case, &bundle, &["--systemd-cgroup"], &["no-such-program"])?;
    expect(&unit, &[("LoadState", "not-found".into())])
}

/// The user of the machine that this test makes, with a systemd of its own.
const USER: &str = "turf-test";

fn an_ordinary_user_has_scopes_of_its_own_systemd(case: &mut Case) -> Result<()> {
    needs_systemd()?;
    if !Command::new("id").arg(USER).output()?.status.success() {
        return Err(skip(format!("no user {USER} here")));
    }
    let uid = String::from_utf8(Command::new("id").args(["-u", USER]).output()?.stdout)?.trim().to_owned();
    let script =
        "group=$(awk -F: '{ print $3 }' /proc/self/cgroup); echo $group; cat /sys/fs/cgroup$group/pids.max";
    let mut bundle = case.shell(script)?;
    rootless(&mut bundle, uid.parse()?);
    bundle.set("/linux/cgroupsPath", json!("user.slice:cft:rootless"));
    bundle.set("/linux/resources", json!({"pids": {"limit": 44}}));
    bundle.write()?;
    let everything = case.directory().to_owned();
    let owned = Command::new("chown").args(["-R", USER]).arg(&everything).status()?;
    ensure!(owned.success(), "chown {}", everything.display());
    let runtime_directory = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
    case.runtime.run_through(&[
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--init-groups",
        "env",
        &runtime_directory,
    ]);
    let id = case.id("user");
    let finished = case.runtime.call(&["--systemd-cgroup", "run", "--bundle", text(&bundle.path)?, &id])?;
    case.runtime.run_through(&[]);
    let finished = finished.success()?;
    ensure!(finished.stdout.contains("44"), "{finished}");
    ensure!(finished.stdout.contains("cft-rootless.scope"), "{finished}");
    case.forget(&id);
    ensure!(wait::no_children(wait::STEP), "the user's container left processes");
    Ok(())
}

/// One id of the user is the container's root, and what only root may do is left out.
fn rootless(bundle: &mut Bundle, uid: u32) {
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.without_namespace("network");
    bundle.without_namespace("cgroup");
    for mapping in ["/linux/uidMappings", "/linux/gidMappings"] {
        bundle.set(mapping, json!([{"containerID": 0, "hostID": uid, "size": 1}]));
    }
    let bind = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
    if let Some(mounts) = bundle.config["mounts"].as_array_mut() {
        mounts.retain(|mount| {
            !["/sys", "/dev/pts", "/dev/mqueue"].contains(&mount["destination"].as_str().unwrap_or(""))
        });
        mounts.push(bind);
    }
    bundle.set("/process/terminal", Value::Bool(false));
}
