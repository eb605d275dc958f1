//! These talk to the kernel: they need root and mounted control groups, and say so if they skip.

use super::*;
use std::process::{Child, Command};
use std::time::Duration;

fn plan(name: &str, resources: serde_json::Value) -> CgroupPlan {
    let linux = serde_json::json!({"cgroupsPath": format!("/turf-test-{name}-{}", std::process::id()),
        "resources": resources});
    CgroupPlan::compile_linux("box", Some(&serde_json::from_value(linux).unwrap())).unwrap()
}

/// The groups of a plan, which the test removes at its end even if it fails.
struct Groups(Cgroup, Vec<Child>);

impl Groups {
    fn create(plan: &CgroupPlan) -> Option<Groups> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: making control groups needs root");
            return None;
        }
        let cgroup = Cgroup::locate(plan).unwrap();
        if cgroup.groups.is_empty() {
            println!("skipped: no control groups are mounted");
            return None;
        }
        cgroup.create(plan).unwrap();
        Some(Groups(cgroup, Vec::new()))
    }

    /// A process in the groups that sleeps longer than any test.
    fn add_sleeper(&mut self) -> i32 {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        self.1.push(child);
        for directory in self.0.directories() {
            write_file(&directory.join("cgroup.procs"), &pid.to_string()).unwrap();
        }
        pid as i32
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for child in &mut self.1 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.0.remove().unwrap();
        assert!(self.0.directories().all(|directory| !directory.exists()));
    }
}

fn value(cgroup: &Cgroup, file: &str) -> Option<String> {
    cgroup.directories().find_map(|directory| read_file(&directory.join(file)).ok())
}

#[test]
fn settings_are_in_force_after_create() {
    let resources = serde_json::json!({"memory": {"limit": 67108864, "swap": 67108864},
        "pids": {"limit": 77}, "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}]});
    let Some(groups) = Groups::create(&plan("force", resources)) else { return };
    let read = |v1: &str, v2: &str| value(&groups.0, v1).or_else(|| value(&groups.0, v2)).unwrap();
    assert_eq!(read("memory.limit_in_bytes", "memory.max").trim(), "67108864");
    assert_eq!(read("pids.max", "pids.max").trim(), "77");
    assert_eq!(read("cpuset.cpus", "cpuset.cpus").trim(), "0");
    if let Some(devices) = value(&groups.0, "devices.list") {
        assert!(devices.contains("c 1:3 rwm") && !devices.contains("a *:* rwm"), "{devices}");
    }
}

#[test]
fn only_the_controllers_asked_for_and_those_that_count_get_a_group() {
    let resources = serde_json::json!({"pids": {"limit": 5}});
    let plan = CgroupPlan { hierarchies: Hierarchies::Needed, ..plan("few", resources) };
    let Some(groups) = Groups::create(&plan) else { return };
    assert!(groups.0.groups.len() <= 5, "{:?}", groups.0);
}

#[test]
fn a_thread_joins_by_writing_zero() {
    let Some(groups) = Groups::create(&plan("join", serde_json::json!({}))) else { return };
    if groups.0.groups[0].version == Version::V2 {
        println!("skipped: on version 2 the whole test process would move");
        return;
    }
    let files = groups.0.open_for_join().unwrap();
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let tasks = groups.0.groups[0].directory.join("tasks");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            join_self(&files).unwrap();
            let me = nix::unistd::gettid().to_string();
            assert!(read_file(&tasks).unwrap().lines().any(|line| line == me));
        });
    });
}

#[test]
fn every_process_is_killed_even_a_frozen_one() {
    let Some(mut groups) = Groups::create(&plan("kill", serde_json::json!({}))) else { return };
    let mut pids = vec![groups.add_sleeper(), groups.add_sleeper()];
    pids.sort_unstable();
    assert_eq!(groups.0.processes().unwrap(), pids);
    groups.0.freeze().unwrap();
    assert!(groups.0.is_frozen().unwrap());
    groups.0.kill_all().unwrap();
    assert!(groups.0.processes().unwrap().is_empty());
    for child in &mut groups.1 {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn a_signal_reaches_all_and_leaves_them_thawed() {
    let Some(mut groups) = Groups::create(&plan("signal", serde_json::json!({}))) else { return };
    groups.add_sleeper();
    groups.add_sleeper();
    groups.0.signal_all(libc::SIGTERM, None).unwrap();
    for child in &mut groups.1 {
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
    assert!(!groups.0.is_frozen().unwrap());
}

#[test]
fn groups_that_the_container_made_are_removed_with_its_own() {
    let Some(groups) = Groups::create(&plan("nested", serde_json::json!({}))) else { return };
    fs::create_dir_all(groups.0.groups[0].directory.join("inner/most")).unwrap();
}

#[test]
fn only_a_group_that_nobody_is_in_is_removed_as_idle() {
    let Some(mut groups) = Groups::create(&plan("idle", serde_json::json!({}))) else { return };
    groups.add_sleeper();
    assert!(!groups.0.remove_idle());
    for child in &mut groups.1 {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let below = groups.0.directories().next().unwrap().join("below");
    fs::create_dir(&below).unwrap();
    assert!(!groups.0.remove_idle());
    fs::remove_dir(&below).unwrap();
    groups.1.clear();
    // A group is left a moment after the end is known.
    let left = || Ok(groups.0.remove_idle());
    files::wait_until("remove an idle group", limits::CGROUP_REMOVAL, Path::new(""), left).unwrap();
    assert!(!groups.0.directories().next().unwrap().exists());
}

#[test]
fn an_occupied_group_is_refused() {
    let plan = plan("occupied", serde_json::json!({}));
    let Some(mut groups) = Groups::create(&plan) else { return };
    groups.add_sleeper();
    let text = Cgroup::locate(&plan).unwrap_err().to_string();
    assert!(text.contains("is not empty: 1 process(es)"), "{text}");
}

#[test]
fn a_refused_setting_leaves_no_group() {
    let plan = plan("refused", serde_json::json!({"cpu": {"cpus": "no such cpu"}}));
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: making control groups needs root");
        return;
    }
    let cgroup = match Cgroup::locate(&plan) {
        Ok(cgroup) => cgroup,
        Err(error) => return println!("skipped: {error}"),
    };
    let text = cgroup.create(&plan).unwrap_err().to_string();
    assert!(text.contains("cpuset.cpus"), "{text}");
    assert!(cgroup.directories().all(|directory| !directory.exists()));
}

#[test]
fn version_2_has_one_group_and_a_relative_path_is_beside_our_own() {
    let layout = Layout::parse("30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n", "0::/a/me\n");
    let mut plan = plan("two", serde_json::json!({"memory": {"limit": 1}, "pids": {"limit": 1}}));
    plan.path = CgroupPath::Relative("x".into());
    let cgroup = Cgroup::locate_in(&layout, &plan).unwrap();
    assert_eq!(cgroup.directories().collect::<Vec<_>>(), [Path::new("/cg/a/x")]);
    assert_eq!(cgroup.groups[0].controllers, ["memory", "pids"]);
}

#[test]
fn a_named_group_is_in_every_version_1_hierarchy_and_another_only_where_it_is_needed() {
    let line = |name: &str| format!("30 23 0:26 / /cg/{name} rw - cgroup cgroup rw,{name}\n");
    let layout = Layout::parse(&["memory", "freezer", "pids", "name=x"].map(line).concat(), "");
    let directories = |linux: serde_json::Value| {
        let plan = CgroupPlan::compile_linux("box", Some(&serde_json::from_value(linux).unwrap())).unwrap();
        let cgroup = Cgroup::locate_in(&layout, &plan).unwrap();
        cgroup.directories().map(|directory| directory.display().to_string()).collect::<Vec<_>>()
    };
    let resources = serde_json::json!({"pids": {"limit": 1}});
    let named = directories(serde_json::json!({"cgroupsPath": "/a", "resources": resources}));
    assert_eq!(named, ["/cg/freezer/a", "/cg/pids/a", "/cg/memory/a", "/cg/name=x/a"]);
    let bare = directories(serde_json::json!({"cgroupsPath": "/a"}));
    assert_eq!(bare, ["/cg/freezer/a", "/cg/memory/a", "/cg/pids/a", "/cg/name=x/a"]);
    let unnamed = directories(serde_json::json!({"resources": resources}));
    assert_eq!(unnamed, ["/cg/freezer/box", "/cg/pids/box", "/cg/memory/box"]);
}

#[test]
fn a_controller_that_is_not_mounted_is_named() {
    let layout = Layout::parse("30 23 0:26 / /cg rw - cgroup cgroup rw,freezer\n", "");
    let refused = |resources| Cgroup::locate_in(&layout, &plan("none", resources)).unwrap_err().to_string();
    assert!(refused(serde_json::json!({"pids": {"limit": 1}})).contains("cgroup controller pids"));
    assert!(refused(serde_json::json!({"unified": {"memory.max": "1"}})).contains("resources.unified"));
}

#[test]
fn device_rules_hold_in_a_version_2_group() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: making control groups needs root");
    }
    let Some(hierarchy) = Layout::read().unwrap().v2 else {
        return println!("skipped: no cgroup2 is mounted");
    };
    let resources = serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]});
    let plan = plan("devices2", resources);
    let layout = Layout { v1: Vec::new(), v2: Some(hierarchy) };
    let cgroup = Cgroup::locate_in(&layout, &plan).unwrap();
    cgroup.create(&plan).unwrap();
    let groups = Groups(cgroup, Vec::new());
    // 1:11 is the kernel's log, which no rule allows; 1:3 is null, which the defaults do.
    let node = tempfile::tempdir().unwrap().keep();
    let script = format!(
        "echo 0 > {group}/cgroup.procs; cd {node}; mknod log c 1 11; mknod null c 1 3; \
         : < null && echo null; : < log && echo log; exit 0",
        group = groups.0.groups[0].directory.display(),
        node = node.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    fs::remove_dir_all(&node).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "null\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");
}

#[test]
fn what_processes_use_is_counted() {
    let plan = plan("stats", serde_json::json!({"pids": {"limit": 9}}));
    let Some(groups) = Groups::create(&plan) else { return };
    let procs: Vec<String> =
        groups.0.directories().map(|group| group.join("cgroup.procs").display().to_string()).collect();
    let script = "for file; do echo $$ > $file; done; dd if=/dev/zero of=/dev/null bs=1M count=200 2>&1; \
        echo ready; read line";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(&procs)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = io::BufReader::new(child.stdout.take().unwrap());
    while !said.contains("ready") && io::BufRead::read_line(&mut stdout, &mut said).unwrap() > 0 {}
    let stats = groups.0.stats().unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 9));
    assert!(stats.cpu.usage.total > 0, "{stats:?}");
    assert!(stats.memory.usage.usage > 0 && stats.memory.usage.limit > 1 << 40, "{stats:?}");
    assert!(!stats.memory.raw.is_empty(), "{stats:?}");
}

/// A shell that joins the groups and then takes more memory than it may.
fn take_too_much(cgroup: &Cgroup) -> std::process::ExitStatus {
    let procs: Vec<String> =
        cgroup.directories().map(|group| group.join("cgroup.procs").display().to_string()).collect();
    let script =
        "for file; do echo $$ > $file; done; exec dd if=/dev/zero of=/dev/null bs=100M count=1 status=none";
    Command::new("sh").args(["-c", script, "sh"]).args(&procs).status().unwrap()
}

#[test]
fn a_lack_of_memory_is_seen_and_so_is_the_end() {
    let limit = 16 << 20;
    let plan = plan("oom", serde_json::json!({"memory": {"limit": limit, "swap": limit}}));
    let Some(mut groups) = Groups::create(&plan) else { return };
    // On version 2 a group without processes is at its end.
    groups.add_sleeper();
    let mut watch = groups.0.watch_oom().unwrap();
    assert_eq!(watch.next(Some(Duration::ZERO)).unwrap(), OomEvent::Nothing);
    assert!(!take_too_much(&groups.0).success());
    assert_eq!(watch.next(Some(Duration::from_secs(10))).unwrap(), OomEvent::OutOfMemory);
    drop(groups);
    loop {
        match watch.next(Some(Duration::from_secs(10))).unwrap() {
            OomEvent::OutOfMemory => {}
            event => break assert_eq!(event, OomEvent::Ended),
        }
    }
}

#[test]
fn a_container_without_a_memory_group_cannot_be_watched() {
    let text = Cgroup::default().watch_oom().unwrap_err().to_string();
    assert!(text.contains("memory"), "{text}");
}
