//! Control groups: the configured limit is in the kernel's file, and it holds (config-linux.md, "Control groups").

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::Case;
use crate::suite::{skip, tests};
use crate::{clean, host, wait};

tests! { "resources";
    Exec:
        the_memory_limit_is_in_force,
        a_memory_hog_is_killed,
        the_pids_limit_is_in_force,
        a_fork_bomb_hits_the_pids_limit,
        memory_reservation_and_swap_are_set,
        the_out_of_memory_killer_can_be_disabled_on_version_1,
        swappiness_is_set_on_version_1,
        cpu_shares_and_quota_are_set,
        block_devices_are_throttled,
        huge_pages_are_limited,
        the_cpu_set_is_set,
        the_configured_cgroup_path_is_used,
        a_relative_cgroup_path_is_used,
        delete_removes_the_control_groups,
        forbidden_devices_cannot_be_opened,
        device_rules_apply_in_their_order;
    // crun 1.8 writes -1 as it stands, and leaves its groups when `unified` is refused; runc 1.1 does neither.
    Turf:
        a_pids_limit_of_minus_one_is_none,
        unified_is_for_version_2,
        cpu_idle_burst_and_real_time_are_set,
        without_device_rules_only_the_default_ones_can_be_opened,
        without_a_path_the_group_has_the_containers_name,
        a_controller_of_the_other_version_is_used_on_a_hybrid_machine,
        groups_that_the_container_made_are_removed,
        a_writable_cgroup_file_system_belongs_to_the_containers_user,
        a_group_in_use_is_refused,
        a_refused_resource_leaves_no_group;
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

/// A setting in force: the controller, then file and value on version 1, then on version 2.
type InForce<'a> = (&'a str, (&'a str, &'a str), (&'a str, &'a str));

/// Starts a container with these resources, and compares what the kernel says.
fn in_force(case: &mut Case, resource: &str, value: Value, expected: &[InForce<'_>]) -> Result<()> {
    let bundle = limited(case, SLEEPER, resource, value)?;
    let container = case.start(&bundle)?;
    for (controller, (v1, on_v1), (v2, on_v2)) in expected {
        let file = host::cgroup_file(container.pid, controller, v1, v2)?;
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let wanted = if file.ends_with(v2) && v1 != v2 { on_v2 } else { on_v1 };
        let said: Vec<&str> = text.split_whitespace().collect();
        ensure!(said.join(" ").starts_with(wanted), "{} says {text}, not {wanted}", file.display());
    }
    case.remove(&container)
}

fn only_on_version_1(what: &str) -> Result<()> {
    if host::is_unified() { Err(skip(format!("version 2 has no {what}"))) } else { Ok(()) }
}

fn memory_reservation_and_swap_are_set(case: &mut Case) -> Result<()> {
    let mb = 1u64 << 20;
    let memory = json!({"limit": 64 * mb, "swap": 96 * mb, "reservation": 16 * mb});
    let (limit, both, swap, low) =
        ((64 * mb).to_string(), (96 * mb).to_string(), (32 * mb).to_string(), (16 * mb).to_string());
    let expected: [InForce<'_>; 3] = [
        ("memory", ("memory.limit_in_bytes", &limit), ("memory.max", &limit)),
        ("memory", ("memory.memsw.limit_in_bytes", &both), ("memory.swap.max", &swap)),
        ("memory", ("memory.soft_limit_in_bytes", &low), ("memory.low", &low)),
    ];
    in_force(case, "memory", memory, &expected)
}

fn the_out_of_memory_killer_can_be_disabled_on_version_1(case: &mut Case) -> Result<()> {
    only_on_version_1("switch for the out-of-memory killer")?;
    let memory = json!({"limit": 64 << 20, "disableOOMKiller": true});
    in_force(case, "memory", memory, &[("memory", ("memory.oom_control", "oom_kill_disable 1"), ("", ""))])
}

fn swappiness_is_set_on_version_1(case: &mut Case) -> Result<()> {
    only_on_version_1("swappiness of a group")?;
    in_force(case, "memory", json!({"swappiness": 17}), &[("memory", ("memory.swappiness", "17"), ("", ""))])
}

fn a_pids_limit_of_minus_one_is_none(case: &mut Case) -> Result<()> {
    in_force(case, "pids", json!({"limit": -1}), &[("pids", ("pids.max", "max"), ("pids.max", "max"))])
}

/// Numbers of some block device, as `major:minor`.
fn block_device() -> Result<(u32, u32)> {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let numbers = fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
        if let Some((major, minor)) = numbers.trim().split_once(':') {
            return Ok((major.parse()?, minor.parse()?));
        }
    }
    Err(skip("no block device here"))
}

fn block_devices_are_throttled(case: &mut Case) -> Result<()> {
    let (major, minor) = block_device()?;
    let device = |rate: u32| json!([{"major": major, "minor": minor, "rate": rate}]);
    let block_io =
        json!({"throttleReadBpsDevice": device(1_048_576), "throttleWriteIOPSDevice": device(100)});
    let (reads, writes) = (format!("{major}:{minor} 1048576"), format!("{major}:{minor} 100"));
    let both = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100");
    let expected: [InForce<'_>; 2] = [
        ("blkio", ("blkio.throttle.read_bps_device", &reads), ("io.max", &both)),
        ("blkio", ("blkio.throttle.write_iops_device", &writes), ("io.max", &both)),
    ];
    in_force(case, "blockIO", block_io, &expected)
}

fn huge_pages_are_limited(case: &mut Case) -> Result<()> {
    let v1 = Path::new("/sys/fs/cgroup/hugetlb").exists();
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !v1 && !unified.split_whitespace().any(|name| name == "hugetlb") {
        return Err(skip("no hugetlb controller here"));
    }
    let limits = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    let limit = (4u64 << 20).to_string();
    let expected: InForce<'_> =
        ("hugetlb", ("hugetlb.2MB.limit_in_bytes", &limit), ("hugetlb.2MB.max", &limit));
    in_force(case, "hugepageLimits", limits, &[expected])
}

fn unified_is_for_version_2(case: &mut Case) -> Result<()> {
    let unified = json!({"memory.high": "33554432", "pids.max": "77"});
    if host::is_unified() {
        let expected: [InForce<'_>; 2] =
            [("memory", ("", ""), ("memory.high", "33554432")), ("pids", ("", ""), ("pids.max", "77"))];
        return in_force(case, "unified", unified, &expected);
    }
    let bundle = limited(case, SLEEPER, "unified", unified)?;
    bundle.write()?;
    let id = case.id("unified");
    let path = crate::case::text(&bundle.path)?;
    case.runtime.refused(&["create", "--bundle", path, &id], &["unified"]).map(drop)
}

fn cpu_idle_burst_and_real_time_are_set(case: &mut Case) -> Result<()> {
    let expected: [InForce<'_>; 2] = [
        ("cpu", ("cpu.cfs_burst_us", "1000"), ("cpu.max.burst", "1000")),
        ("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    ];
    in_force(case, "cpu", json!({"quota": 50_000, "burst": 1000}), &expected)?;
    in_force(case, "cpu", json!({"idle": 1}), &[("cpu", ("cpu.idle", "1"), ("cpu.idle", "1"))])?;
    if !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        println!("    (this kernel has no limits for real-time tasks)");
        return Ok(());
    }
    let real_time = json!({"realtimePeriod": 1_000_000, "realtimeRuntime": 1000});
    in_force(case, "cpu", real_time, &[("cpu", ("cpu.rt_runtime_us", "1000"), ("", ""))])
}

fn a_relative_cgroup_path_is_used(case: &mut Case) -> Result<()> {
    let mut bundle = limited(case, SLEEPER, "pids", json!({"limit": 9}))?;
    let path = case.id("relative");
    bundle.set("/linux/cgroupsPath", json!(path));
    let container = case.start(&bundle)?;
    let file = host::cgroup_file(container.pid, "pids", "pids.max", "pids.max")?;
    ensure!(file.parent().is_some_and(|group| group.ends_with(&path)), "the group is {}", file.display());
    case.remove(&container)
}

fn without_a_path_the_group_has_the_containers_name(case: &mut Case) -> Result<()> {
    let bundle = limited(case, SLEEPER, "pids", json!({"limit": 9}))?;
    let container = case.start(&bundle)?;
    for controller in ["pids", "memory", "cpuacct"] {
        let file = host::cgroup_file(container.pid, controller, "x", "x")?;
        let group = file.parent().context("a file has a directory")?;
        ensure!(group.file_name().is_some_and(|name| *name == *container.id), "{}", group.display());
    }
    case.remove(&container)
}

fn a_controller_of_the_other_version_is_used_on_a_hybrid_machine(case: &mut Case) -> Result<()> {
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if !controllers.split_whitespace().any(|name| name == "hugetlb") {
        return Err(skip("no cgroup2 with hugetlb beside version 1 here"));
    }
    let limit = (4u64 << 20).to_string();
    let limits = json!([{"pageSize": "2MB", "limit": 4 << 20}]);
    in_force(case, "hugepageLimits", limits, &[("hugetlb", ("", ""), ("hugetlb.2MB.max", &limit))])
}

/// Mounts the container's own control groups writable.
fn with_cgroups(bundle: &mut Bundle) {
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "rw"]});
    bundle.push("/mounts", json!({"destination": "/sys", "type": "tmpfs", "source": "tmpfs"}));
    bundle.push("/mounts", mount);
}

fn groups_that_the_container_made_are_removed(case: &mut Case) -> Result<()> {
    let place = if host::is_unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let script = format!("mkdir {place}/inner && echo made; exec sleep 1000");
    let mut bundle = limited(case, &script, "pids", json!({"limit": 9}))?;
    with_cgroups(&mut bundle);
    let (container, mut said) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    ensure!(wait::line(&mut said, wait::STEP)? == "made");
    case.remove(&container)?;
    let left = clean::cgroups(&container.id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

fn a_writable_cgroup_file_system_belongs_to_the_containers_user(case: &mut Case) -> Result<()> {
    if !host::is_unified() {
        return Err(skip("only version 2 is safe to delegate"));
    }
    let script = "mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs && \
        grep -c inner /proc/self/cgroup";
    let mut bundle = limited(case, script, "pids", json!({"limit": 9}))?;
    with_cgroups(&mut bundle);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    for mapping in ["/linux/uidMappings", "/linux/gidMappings"] {
        bundle.set(mapping, json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]));
    }
    fs::set_permissions(case.directory(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.stdout.trim() == "1", "{finished}");
    Ok(())
}

fn a_group_in_use_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = limited(case, SLEEPER, "pids", json!({"limit": 9}))?;
    let path = format!("/{}", case.id("shared"));
    bundle.set("/linux/cgroupsPath", json!(path));
    let first = case.start(&bundle)?;
    let second = case.id("second");
    let directory = crate::case::text(&bundle.path)?;
    case.runtime.refused(&["create", "--bundle", directory, &second], &["is not empty", &path])?;
    ensure!(case.runtime.status(&first.id)? == "running");
    case.remove(&first)
}

fn a_refused_resource_leaves_no_group(case: &mut Case) -> Result<()> {
    let bundle = limited(case, SLEEPER, "cpu", json!({"cpus": "4000"}))?;
    bundle.write()?;
    let id = case.id("refused");
    let path = crate::case::text(&bundle.path)?;
    case.runtime.refused(&["create", "--bundle", path, &id], &["cpuset.cpus"])?;
    let left = clean::cgroups(&id);
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// Major 1, minor 11 is the kernel's log: readable without hardware, so only the control group can refuse it.
const LOG: &str = "/dev/log-like";

/// A container that opens the device for reading and for writing and says what it may, under these rules.
fn opened_under(case: &mut Case, rules: Option<Value>) -> Result<String> {
    let script = format!("(: < {LOG}) && echo read; (: >> {LOG}) && echo written; exit 0");
    let mut bundle = case.shell(&script)?;
    bundle.push(
        "/linux/devices",
        json!({"path": LOG, "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}),
    );
    // Without it only writing to the log is allowed.
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    match rules {
        Some(rules) => bundle.set("/linux/resources/devices", rules),
        None => bundle.set("/linux/resources", json!({})),
    };
    let finished = case.run(&bundle)?.success()?;
    Ok(finished.lines().join(" "))
}

fn forbidden_devices_cannot_be_opened(case: &mut Case) -> Result<()> {
    let said = opened_under(case, Some(json!([{"allow": false, "access": "rwm"}])))?;
    ensure!(said.is_empty(), "{said}");
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]);
    let said = opened_under(case, Some(rules))?;
    ensure!(said == "read written", "{said}");
    Ok(())
}

fn device_rules_apply_in_their_order(case: &mut Case) -> Result<()> {
    for (rules, expected) in [
        (
            json!([{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
            "read",
        ),
        (
            json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
            {"allow": false, "access": "rwm"}]),
            "",
        ),
        (
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "access": "w"}]),
            "written",
        ),
        (json!([{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]), "read written"),
    ] {
        let said = opened_under(case, Some(rules.clone()))?;
        ensure!(said == expected, "{rules}: {said:?}, not {expected:?}");
    }
    Ok(())
}

fn without_device_rules_only_the_default_ones_can_be_opened(case: &mut Case) -> Result<()> {
    let said = opened_under(case, None)?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}
