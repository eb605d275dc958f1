//! The fields of config.json that have no file of their own: each works, is refused, or is passed over as the
//! specification says (config.md, config-linux.md).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use super::process::receive_descriptor;
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, wait};

tests! { "config";
    Exec:
        unknown_properties_and_annotations_are_passed_over,
        annotations_are_in_the_state,
        an_unknown_capability_is_no_error,
        soft_and_hard_limits_differ,
        a_terminal_has_the_size_of_the_configuration,
        the_domain_name_is_set,
        personality_changes_the_machine,
        scheduling_policies_are_set,
        the_io_priority_is_set,
        clocks_have_their_offsets,
        the_root_has_the_configured_propagation,
        devices_of_every_type_are_made,
        a_device_that_is_something_else_is_refused,
        a_user_namespace_can_have_several_mappings,
        a_user_namespace_gets_its_devices,
        every_kind_of_namespace_can_be_joined,
        a_namespace_of_another_kind_is_refused,
        a_namespace_that_is_not_there_is_refused,
        masked_and_read_only_paths_that_are_missing_are_passed_over,
        a_masked_directory_is_empty_and_read_only,
        sysctls_of_the_host_are_refused,
        sysctls_of_a_joined_host_namespace_are_refused,
        the_working_directory_is_made,
        the_umask_of_exec_is_the_containers,
        a_missing_root_is_refused,
        a_selinux_label_without_selinux_is_refused,
        an_apparmor_profile_without_apparmor_is_refused;
    Turf:
        a_configuration_without_process_can_be_created_but_not_started,
        flags_of_the_personality_are_set,
        scheduling_reaches_exec,
        a_memory_policy_is_in_force,
        exec_runs_on_its_cpus,
        a_network_device_moves_into_the_container,
        what_the_machine_does_not_have_is_refused_with_its_place,
        hooks_fail_where_the_specification_says;
}

/// Refused by `create`; the message has all of the words.
fn refused(case: &mut Case, bundle: &Bundle, words: &[&str]) -> Result<()> {
    bundle.write()?;
    let id = case.id("refused");
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], words)?;
    Ok(())
}

fn unknown_properties_and_annotations_are_passed_over(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("echo ran")?;
    bundle
        .set("/unknown", json!({"a": 1}))
        .set("/process/unknown", json!([1]))
        .set("/linux/unknown", json!(true));
    bundle.set("/annotations", json!({"org.example.unknown": "", "io.turf.unknown": "x"}));
    bundle.set("/solaris", json!({})).set("/windows", json!({"layerFolders": ["x"]}));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["ran"], "{finished}");
    Ok(())
}

fn annotations_are_in_the_state(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/annotations", json!({"org.example": "a value", "empty": ""}));
    let container = case.create(&bundle)?;
    let state = case.runtime.state(&container.id)?;
    ensure!(
        state["annotations"]["org.example"] == "a value" && state["annotations"]["empty"] == "",
        "{state}"
    );
    Ok(())
}

fn an_unknown_capability_is_no_error(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("grep CapBnd /proc/self/status")?;
    for set in ["bounding", "effective", "permitted"] {
        bundle
            .set(&format!("/process/capabilities/{set}"), json!(["CAP_CHOWN", "CAP_OF_TOMORROW", "NO_CAP"]));
    }
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.stdout.trim().ends_with("0000000000000001"), "{finished}");
    Ok(())
}

fn soft_and_hard_limits_differ(case: &mut Case) -> Result<()> {
    let script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc";
    let mut bundle = case.shell(script)?;
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}]),
    );
    let own = case.run(&bundle)?.success()?;
    ensure!(own.lines() == ["100", "200", "0", "8"], "{own}");
    bundle.set("/process/args/2", json!("exec sleep 1000"));
    let container = case.start(&bundle)?;
    let finished = case.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", script])?;
    ensure!(finished.lines() == ["100", "200", "0", "8"], "exec: {finished}");
    case.remove(&container)
}

fn a_terminal_has_the_size_of_the_configuration(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("stty size; read word")?;
    bundle.set("/process/terminal", json!(true));
    bundle.set("/process/consoleSize", json!({"height": 33, "width": 111})).write()?;
    let (path, id) = (case.directory().join("console"), case.id("terminal"));
    let listener = UnixListener::bind(&path)?;
    let create = ["create", "--bundle", text(&bundle.path)?, "--console-socket", text(&path)?, &id];
    let creating = case.runtime.spawn(&create, None)?;
    let mut master = receive_descriptor(&listener)?;
    creating.finish()?.success()?;
    case.runtime.ok(&["start", &id])?;
    let line = wait::line(&mut master, wait::STEP)?;
    ensure!(line.trim() == "33 111", "{line:?}");
    // Without a terminal the size says nothing.
    bundle.set("/process/terminal", json!(false)).set("/process/args/2", json!("exit 0"));
    case.run(&bundle)?.success().map(drop)
}

fn the_domain_name_is_set(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /proc/sys/kernel/domainname /proc/sys/kernel/hostname")?;
    bundle.set("/domainname", json!("example.org"));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["example.org", "conformance"], "{finished}");
    Ok(())
}

fn personality_changes_the_machine(case: &mut Case) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(crate::suite::skip("only x86_64 has another name for its 32 bit side"));
    }
    let mut bundle = case.shell("uname -m")?;
    for (domain, name) in [("LINUX32", "i686"), ("LINUX", "x86_64")] {
        bundle.set("/linux/personality", json!({"domain": domain}));
        let finished = case.run(&bundle)?.success()?;
        ensure!(finished.lines() == [name], "{domain}: {finished}");
    }
    Ok(())
}

fn flags_of_the_personality_are_set(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /proc/self/personality; uname -r | head -c 4")?;
    bundle.set("/linux/personality", json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE", "UNAME26"]}));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["00060000", "2.6."], "{finished}");
    Ok(())
}

/// Fields of /proc/PID/stat: nice, real-time priority, policy.
const SCHEDULING_OF_SHELL: &str =
    "read line < /proc/$$/stat; set -- ${line##*) }; shift 16; nice=$1; shift 21; echo $nice $1 $2";

fn scheduling_policies_are_set(case: &mut Case) -> Result<()> {
    // Policies for which an ordinary root needs no more than CAP_SYS_NICE.
    let table = [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), "7 0 0"),
        (json!({"policy": "SCHED_BATCH", "nice": 3}), "3 0 3"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5"),
        (json!({"policy": "SCHED_FIFO", "priority": 11}), "0 11 1"),
        (json!({"policy": "SCHED_RR", "priority": 12, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), "0 12 2"),
    ];
    for (scheduler, wanted) in table {
        let mut bundle = case.shell(SCHEDULING_OF_SHELL)?;
        bundle.set("/process/scheduler", scheduler.clone());
        let finished = case.run(&bundle)?.success()?;
        ensure!(finished.lines() == [wanted], "{scheduler}: {finished}");
    }
    Ok(())
}

fn scheduling_reaches_exec(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exec sleep 1000")?;
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 4}));
    let container = case.start(&bundle)?;
    let finished = case.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", SCHEDULING_OF_SHELL])?;
    ensure!(finished.lines() == ["4 0 3"], "{finished}");
    case.remove(&container)
}

fn the_io_priority_is_set(case: &mut Case) -> Result<()> {
    for (class, priority, wanted) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
    ] {
        let mut bundle = case.shell("ionice -p $$")?;
        bundle.set("/process/ioPriority", json!({"class": class, "priority": priority}));
        let finished = case.run(&bundle)?.success()?;
        ensure!(finished.lines() == [wanted], "{class}: {finished}");
    }
    Ok(())
}

fn a_memory_policy_is_in_force(case: &mut Case) -> Result<()> {
    let count = "grep -c 'bind.*:0' /proc/self/numa_maps";
    let mut bundle = case.shell(count)?;
    bundle.set(
        "/linux/memoryPolicy",
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    );
    let own = case.run(&bundle)?.success()?;
    ensure!(own.stdout.trim().parse::<u32>().is_ok_and(|lines| lines > 0), "{own}");
    bundle.set("/process/args/2", json!("exec sleep 1000"));
    let container = case.start(&bundle)?;
    let finished = case.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", count])?;
    ensure!(finished.stdout.trim().parse::<u32>().is_ok_and(|lines| lines > 0), "exec: {finished}");
    case.remove(&container)?;
    bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1023"}));
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["memory policy"])?;
    Ok(())
}

fn exec_runs_on_its_cpus(case: &mut Case) -> Result<()> {
    const MASK: &str = "grep Cpus_allowed_list /proc/self/status";
    let mut bundle = case.shell("exec sleep 1000")?;
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    let container = case.start(&bundle)?;
    let mask = |case: &mut Case, id: &str| -> Result<String> {
        let finished = case.runtime.ok(&["exec", id, "/bin/sh", "-c", MASK])?;
        Ok(finished.stdout.split_whitespace().last().unwrap_or_default().to_owned())
    };
    ensure!(mask(case, &container.id)? == "0");
    let own = host::field(container.pid, "status", "Cpus_allowed_list")?;
    let all = host::field(std::process::id().cast_signed(), "status", "Cpus_allowed_list")?;
    ensure!(own == all, "the container's own process runs on {own}");
    case.remove(&container)?;
    bundle.set("/process/execCPUAffinity", json!({"initial": "0"}));
    let container = case.start(&bundle)?;
    ensure!(mask(case, &container.id)? == all, "afterwards the control group decides");
    // When it is over nothing else shows it.
    let told = case.runtime.ok(&["--debug", "exec", &container.id, "/bin/true"])?;
    ensure!(told.stderr.contains("affinity: 0x1"), "{told}");
    case.remove(&container)
}

/// A network namespace of the test's own, whose devices nobody misses; this process is in it until it is dropped.
struct OwnNetwork {
    before: fs::File,
}

impl OwnNetwork {
    fn enter() -> Result<OwnNetwork> {
        let before = fs::File::open("/proc/self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        Ok(OwnNetwork { before })
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        // Nothing that follows could be relied on.
        setns(&self.before, CloneFlags::CLONE_NEWNET).expect("return to the network namespace");
    }
}

fn ip(arguments: &str) -> Result<String> {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().context("run ip (package iproute2)")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn a_network_device_moves_into_the_container(case: &mut Case) -> Result<()> {
    let own = OwnNetwork::enter()?;
    ip("link add mine0 type veth peer name mine1")?;
    ip("addr add 10.99.0.1/24 dev mine0")?;
    ip("addr add fd99::1/64 dev mine0")?;
    let mut bundle =
        case.shell("ip -o addr show dev inside0; ip link show inside0; ip link show mine0 || echo gone")?;
    bundle.set("/linux/netDevices", json!({"mine0": {"name": "inside0"}}));
    let finished = case.run(&bundle)?.success()?;
    for words in ["10.99.0.1/24", "fd99::1/64", "gone"] {
        ensure!(finished.stdout.contains(words), "no {words}: {finished}");
    }
    ensure!(finished.stdout.contains(",UP"), "not switched on: {finished}");
    // A name that is taken, a device that is not there, the host's own namespace: refused, and the device stays.
    ip("link add mine0 type veth peer name mine2")?;
    let message = |case: &mut Case, bundle: &Bundle, words: &[&str]| refused(case, bundle, words);
    bundle.set("/linux/netDevices", json!({"mine0": {"name": "lo"}}));
    message(case, &bundle, &["mine0", "lo", "file exists"])?;
    bundle.set("/linux/netDevices", json!({"none0": {}}));
    message(case, &bundle, &["none0", "no such device"])?;
    bundle.set("/linux/netDevices", json!({"mine0": {}})).without_namespace("network");
    bundle.config["mounts"].as_array_mut().context("mounts")?.retain(|mount| mount["destination"] != "/sys");
    message(case, &bundle, &["$.linux.netDevices"])?;
    ip("link show mine0")?;
    drop(own);
    Ok(())
}

fn clocks_have_their_offsets(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cut -d . -f 1 /proc/uptime")?;
    bundle.push("/linux/namespaces", json!({"type": "time"}));
    bundle.set(
        "/linux/timeOffsets",
        json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}}),
    );
    let finished = case.run(&bundle)?.success()?;
    let uptime: u64 = finished.stdout.trim().parse()?;
    ensure!(uptime >= 1_000_000_000, "{finished}");
    Ok(())
}

fn the_root_has_the_configured_propagation(case: &mut Case) -> Result<()> {
    // The root itself is private for pivot_root(2) before it gets its own propagation, so a slave has no master.
    let outer = case.directory().join("outer");
    fs::create_dir(&outer)?;
    mount(Some("outer"), &outer, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mount")?;
    let outcome = mount(None::<&str>, &outer, None::<&str>, MsFlags::MS_SHARED, None::<&str>)
        .context("share")
        .and_then(|()| check_root_propagation(case, &outer));
    umount2(&outer, MntFlags::MNT_DETACH)?;
    outcome
}

fn check_root_propagation(case: &mut Case, outer: &std::path::Path) -> Result<()> {
    for (word, wanted) in
        [("private", ""), ("slave", ""), ("shared", "shared:"), ("unbindable", "unbindable")]
    {
        let path = outer.join(word);
        let mut bundle = Bundle::shell(path, "grep -m 1 ' / / \\| /[^ ]* / ' /proc/self/mountinfo; true")?;
        bundle.set("/linux/rootfsPropagation", json!(word));
        let finished = case.run(&bundle)?.success()?;
        let line = finished.stdout.lines().find(|line| line.split(' ').nth(4) == Some("/"));
        let line = line.with_context(|| format!("no root: {finished}"))?;
        let optional =
            line.split(" - ").next().unwrap_or_default().split(' ').skip(6).collect::<Vec<_>>().join(" ");
        let right = if wanted.is_empty() { optional.is_empty() } else { optional.contains(wanted) };
        ensure!(right, "{word}: {optional:?}");
    }
    Ok(())
}

fn devices_of_every_type_are_made(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("stat -c '%n %F %a %t %T %u %g' /dev/c /dev/u /dev/b /dev/p /deep/device")?;
    let device = |path: &str, kind: &str, major: u32, minor: u32| json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o620, "uid": 1, "gid": 2});
    bundle.set(
        "/linux/devices",
        json!([
            device("/dev/c", "c", 1, 5),
            device("/dev/u", "u", 10, 229),
            device("/dev/b", "b", 7, 0),
            {"path": "/dev/p", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2},
            device("/deep/device", "c", 1, 3),
        ]),
    );
    let finished = case.run(&bundle)?.success()?;
    let wanted = [
        "/dev/c character special file 620 1 5 1 2",
        "/dev/u character special file 620 a e5 1 2",
        "/dev/b block special file 620 7 0 1 2",
        "/dev/p fifo 600 0 0 1 2",
        "/deep/device character special file 620 1 3 1 2",
    ];
    ensure!(finished.lines() == wanted, "{finished}");
    Ok(())
}

fn a_device_that_is_something_else_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    fs::write(bundle.inside("/mine"), "a file")?;
    bundle.push("/linux/devices", json!({"path": "/mine", "type": "c", "major": 1, "minor": 5}));
    refused(case, &bundle, &["mine"])?;
    fs::remove_file(bundle.inside("/mine"))?;
    case.run(&bundle)?.success().map(drop)
}

fn a_user_namespace_can_have_several_mappings(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map")?;
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 10, "hostID": 200_000, "size": 20}]),
    );
    bundle.set(
        "/linux/gidMappings",
        json!([{"containerID": 0, "hostID": 100_000, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 30}]),
    );
    fs::set_permissions(case.directory(), fs::Permissions::from_mode(0o755))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["0 100000 10", "10 200000 20", "0 100000 1", "1 300000 30"], "{finished}");
    Ok(())
}

fn a_user_namespace_gets_its_devices(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(
        "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done; echo x > /dev/null",
    )?;
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    fs::set_permissions(case.directory(), fs::Permissions::from_mode(0o755))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["null", "zero", "full", "random", "urandom", "tty"], "{finished}");
    Ok(())
}

/// The namespaces of the specification, with their names in /proc/PID/ns.
const NAMESPACES: [(&str, &str); 5] =
    [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup"), ("pid", "pid")];

fn every_kind_of_namespace_can_be_joined(case: &mut Case) -> Result<()> {
    let holder = case.shell("exec sleep 1000")?;
    let holder = case.start(&holder)?;
    for (kind, name) in NAMESPACES {
        let mut bundle = case.shell(&format!("readlink /proc/self/ns/{name}"))?;
        bundle.without_namespace(kind);
        bundle.push(
            "/linux/namespaces",
            json!({"type": kind, "path": format!("/proc/{}/ns/{name}", holder.pid)}),
        );
        if kind == "uts" {
            bundle.config.as_object_mut().context("config")?.remove("hostname");
        }
        let finished = case.run(&bundle)?.success()?;
        ensure!(finished.stdout.trim() == host::namespace(holder.pid, name)?, "{kind}: {finished}");
    }
    case.remove(&holder)
}

fn a_namespace_of_another_kind_is_refused(case: &mut Case) -> Result<()> {
    // One of its own kind is not.
    let mut bundle = case.shell("exit 7")?;
    bundle.without_namespace("ipc");
    bundle.push("/linux/namespaces", json!({"type": "ipc", "path": "/proc/self/ns/ipc"}));
    case.run(&bundle)?.exited(7)?;
    for (kind, name) in NAMESPACES {
        let other = if name == "net" { "ipc" } else { "net" };
        let mut bundle = case.shell("exit 0")?;
        bundle.without_namespace(kind);
        bundle.push("/linux/namespaces", json!({"type": kind, "path": format!("/proc/self/ns/{other}")}));
        bundle.config.as_object_mut().context("config")?.remove("hostname");
        refused(case, &bundle, &[]).with_context(|| kind.to_owned())?;
    }
    Ok(())
}

fn a_namespace_that_is_not_there_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.without_namespace("network");
    let path = case.directory().join("no-namespace");
    bundle.push("/linux/namespaces", json!({"type": "network", "path": path}));
    refused(case, &bundle, &["no-namespace"])?;
    fs::write(&path, "a file, but no namespace")?;
    refused(case, &bundle, &[])
}

fn masked_and_read_only_paths_that_are_missing_are_passed_over(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("echo ran")?;
    bundle.set("/linux/maskedPaths", json!(["/not/there", "/proc/not-there"]));
    bundle.set("/linux/readonlyPaths", json!(["/not/there/either", "/proc/not-there"]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["ran"], "{finished}");
    Ok(())
}

fn a_masked_directory_is_empty_and_read_only(case: &mut Case) -> Result<()> {
    let mut bundle =
        case.shell("ls /etc | wc -l; touch /etc/new || echo refused; touch /file; cat /file | wc -c")?;
    fs::write(bundle.inside("/file"), "secret")?;
    bundle.set("/linux/maskedPaths", json!(["/etc", "/file"]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["0", "refused", "0"], "{finished}");
    Ok(())
}

fn sysctls_of_the_host_are_refused(case: &mut Case) -> Result<()> {
    for (key, value) in [
        ("vm.swappiness", "61"),
        ("kernel.sysrq", "0"),
        ("kernel.panic", "0"),
        ("fs.file-max", "10000000"),
        ("kernel.hostname", "x"),
        ("kernel/sysrq", "0"),
    ] {
        let mut bundle = case.shell("exit 0")?;
        bundle.set("/linux/sysctl", json!({key: value}));
        refused(case, &bundle, &["sysctl"]).with_context(|| key.to_owned())?;
    }
    for (kind, key) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.shmmax")] {
        let mut bundle = case.shell("exit 0")?;
        bundle.without_namespace(kind).set("/linux/sysctl", json!({key: "1"}));
        refused(case, &bundle, &["sysctl"]).with_context(|| key.to_owned())?;
    }
    Ok(())
}

fn sysctls_of_a_joined_host_namespace_are_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle
        .without_namespace("network")
        .set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "9"}));
    bundle.push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/net"}));
    refused(case, &bundle, &["sysctl"])
}

fn the_working_directory_is_made(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("pwd")?;
    bundle.set("/process/cwd", json!("/not/there/yet"));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["/not/there/yet"], "{finished}");
    Ok(())
}

fn the_umask_of_exec_is_the_containers(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("umask")?;
    bundle.set("/process/user/umask", json!(0o027));
    let own = case.run(&bundle)?.success()?;
    ensure!(own.lines() == ["0027"], "{own}");
    bundle.set("/process/args/2", json!("exec sleep 1000"));
    let container = case.start(&bundle)?;
    let finished = case.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", "umask"])?;
    ensure!(finished.lines() == ["0027"], "exec: {finished}");
    case.remove(&container)
}

fn a_missing_root_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/root/path", json!("not-there"));
    refused(case, &bundle, &["not-there"])?;
    bundle.set("/root/path", json!("rootfs"));
    case.run(&bundle)?.success().map(drop)
}

fn a_selinux_label_without_selinux_is_refused(case: &mut Case) -> Result<()> {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(crate::suite::skip("this machine has SELinux"));
    }
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
    refused(case, &bundle, &[])?;
    bundle.config["process"].as_object_mut().context("process")?.remove("selinuxLabel");
    case.run(&bundle)?.success().map(drop)
}

fn an_apparmor_profile_without_apparmor_is_refused(case: &mut Case) -> Result<()> {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        return Err(crate::suite::skip("this machine has AppArmor"));
    }
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/process/apparmorProfile", json!("container-default"));
    bundle.write()?;
    let id = case.id("refused");
    // Some notice it only when the process is dressed.
    let finished = case.runtime.call(&["run", "--bundle", text(&bundle.path)?, &id])?;
    finished.failure(&["apparmor"]).map(drop)
}

fn a_configuration_without_process_can_be_created_but_not_started(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.config.as_object_mut().context("config")?.remove("process");
    let container = case.create(&bundle)?;
    ensure!(case.runtime.status(&container.id)? == "created");
    case.runtime.refused(&["start", &container.id], &["$.process"])?;
    ensure!(case.runtime.status(&container.id)? == "created", "the failed start changed the status");
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn what_the_machine_does_not_have_is_refused_with_its_place(case: &mut Case) -> Result<()> {
    let mut table: Vec<(&str, Value)> = Vec::new();
    if !std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        table.push(("linux.intelRdt", json!({"closID": "x", "l3CacheSchema": "L3:0=f"})));
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        table.push(("linux.mountLabel", json!("system_u:object_r:container_file_t:s0")));
        table.push(("process.selinuxLabel", json!("system_u:system_r:container_t:s0")));
    }
    for (place, value) in table {
        let mut bundle = case.shell("exit 0")?;
        bundle.set(&format!("/{}", place.replace('.', "/")), value);
        refused(case, &bundle, &[&format!("$.{place}")])?;
    }
    Ok(())
}

fn hooks_fail_where_the_specification_says(case: &mut Case) -> Result<()> {
    let failing = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]);
    // Before the program: it never runs, and the start fails.
    let mut bundle = case.shell("touch /ran")?;
    bundle.set("/hooks", json!({"startContainer": failing}));
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["startContainer hook", "status 3"])?;
    case.wait(&container)?;
    ensure!(case.runtime.status(&container.id)? == "stopped" && !bundle.inside("/ran").exists());
    // After the program has started: the start fails, and the container is stopped.
    let mut bundle = case.shell("exec sleep 1000")?;
    bundle.set("/hooks", json!({"poststart": failing}));
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["poststart hook", "status 3"])?;
    case.wait(&container)?;
    ensure!(case.runtime.status(&container.id)? == "stopped");
    // After the container: a warning, and the hooks behind it run.
    let log = case.directory().join("log");
    let mut bundle = case.shell("exit 0")?;
    let writing = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo ran > {}", text(&log)?)]});
    bundle.set("/hooks", json!({"poststop": [failing[0], writing]}));
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    let deleted = case.runtime.ok(&["delete", &container.id])?;
    ensure!(deleted.stderr.contains("poststop hook"), "no warning: {deleted}");
    ensure!(fs::read_to_string(&log)? == "ran\n");
    // A relative path is refused before anything is made.
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/hooks", json!({"createRuntime": [{"path": "bin/sh"}]}));
    refused(case, &bundle, &["$.hooks.createRuntime[0].path"])
}
