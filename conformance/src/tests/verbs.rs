//! The rest of runc's command line: flags and verbs that the tests of a container's life do not need.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::process::receive_descriptor;
use crate::bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, wait};

tests! { "verbs";
    Exec:
        a_root_that_is_moved_shows_nothing_else,
        flags_of_runc_are_understood;
    Turf:
        checkpoint_and_restore_are_refused_with_their_reason,
        a_refused_flag_is_named_in_the_log,
        the_options_of_ps_are_passed_on,
        ps_prints_the_columns_of_runc,
        a_configuration_can_have_another_name,
        signal_zero_only_asks,
        a_closed_descriptor_stays_closed_for_the_program,
        a_container_without_control_groups_has_none,
        limits_without_control_groups_are_refused,
        a_descriptor_of_init_is_sent,
        exec_joins_a_group_below_the_containers,
        exec_waits_for_a_paused_container_if_asked,
        spec_writes_where_it_is_told,
        features_are_those_of_the_specification;
}

const SLEEPER: &str = "exec sleep 1000";

fn a_root_that_is_moved_shows_nothing_else(case: &mut Case) -> Result<()> {
    // Of the host's directories only those that the bundle's root has too may be there.
    let script = "test -x /bin/busybox && test ! -e /usr && cat /proc/1/comm && grep -c ' - proc ' /proc/self/mountinfo";
    let bundle = case.shell(script)?;
    bundle.write()?;
    let id = case.id("moved");
    let run = case.runtime.call(&["run", "--no-pivot", "--bundle", text(&bundle.path)?, &id])?.success()?;
    ensure!(run.lines().len() == 2, "{run}");
    Ok(())
}

fn flags_of_runc_are_understood(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 3")?;
    bundle.write()?;
    let (id, log) = (case.id("flags"), case.directory().join("log"));
    let flags = ["--debug", "--log", text(&log)?, "--log-format", "json", "--rootless", "false"];
    let run = [
        "run",
        "--no-subreaper",
        "--no-new-keyring",
        "--preserve-fds",
        "0",
        "--bundle",
        text(&bundle.path)?,
        &id,
    ];
    case.runtime.call(&[&flags[..], &run].concat())?.exited(3).map(drop)
}

fn checkpoint_and_restore_are_refused_with_their_reason(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    let id = container.id.as_str();
    for line in [
        &["checkpoint", id][..],
        &["checkpoint", "--image-path", "/tmp", "--leave-running", "--tcp-established", id],
        &["restore", "--image-path", "/tmp", "--bundle", "/", "--detach", id],
    ] {
        case.runtime.call(line)?.exited(1)?.failure(&["is not supported", line[0]])?;
    }
    // podman asks this way whether it may try.
    case.runtime.ok(&["checkpoint", "--help"])?;
    ensure!(case.runtime.status(id)? == "running");
    case.remove(&container)
}

fn a_closed_descriptor_stays_closed_for_the_program(case: &mut Case) -> Result<()> {
    let script = "for fd in 3 4 5; do [ -e /proc/self/fd/$fd ] && echo $fd; done; exit 0";
    let bundle = case.shell(script)?;
    bundle.write()?;
    let id = case.id("closed");
    case.runtime.run_through(&["/bin/sh", "-c", "exec 3<&- 4</dev/null 5<&-; exec \"$0\" \"$@\""]);
    let run = case.runtime.call(&["run", "--preserve-fds", "3", "--bundle", text(&bundle.path)?, &id])?;
    case.runtime.run_through(&[]);
    ensure!(run.success()?.lines() == ["4"], "other descriptors are open");
    Ok(())
}

fn a_refused_flag_is_named_in_the_log(case: &mut Case) -> Result<()> {
    let log = case.directory().join("log.json");
    let flags = ["--log", text(&log)?, "--log-format", "json"];
    case.runtime.call(&[&flags[..], &["create", "--fly", "box"]].concat())?.exited(1)?;
    let line: Value = serde_json::from_str(fs::read_to_string(&log)?.trim_end())?;
    ensure!(
        line["level"] == "error" && line["msg"].as_str().is_some_and(|msg| msg.contains("--fly")),
        "{line}"
    );
    Ok(())
}

fn the_options_of_ps_are_passed_on(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    // Executed by init: a shell might not have come to it yet.
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    let container = case.start(&bundle)?;
    let printed = case.runtime.ok(&["ps", &container.id, "-e", "-o", "pid,args"])?;
    let lines = printed.lines();
    ensure!(lines.len() == 2 && lines[0].starts_with("PID"), "{printed}");
    ensure!(lines[1] == format!("{} /bin/sleep 1000", container.pid), "{printed}");
    case.runtime.refused(&["ps", &container.id, "-e", "-o", "args"], &["column PID"])?;
    case.remove(&container)
}

fn ps_prints_the_columns_of_runc(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    // Executed by init: a shell might not have come to it yet.
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    let container = case.start(&bundle)?;
    let printed = case.runtime.ok(&["ps", &container.id])?;
    let rows: Vec<Vec<&str>> = printed.lines().iter().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows.len() == 2, "{printed}");
    ensure!(rows[0] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "{printed}");
    ensure!(rows[1][0] == "root" && rows[1][1] == container.pid.to_string(), "{printed}");
    ensure!(rows[1][7..] == ["/bin/sleep", "1000"], "{printed}");
    case.remove(&container)
}

fn a_configuration_can_have_another_name(case: &mut Case) -> Result<()> {
    let bundle = case.shell("echo another")?;
    bundle.write()?;
    fs::create_dir(bundle.path.join("below"))?;
    fs::rename(bundle.path.join("config.json"), bundle.path.join("below/other.json"))?;
    let path = text(&bundle.path)?;
    let id = case.id("none");
    case.runtime.refused(&["run", "--bundle", path, &id], &["config.json", "no such file"])?;
    let finished = case.runtime.ok(&["run", "--config", "below/other.json", "--bundle", path, &id])?;
    ensure!(finished.lines() == ["another"], "{finished}");
    Ok(())
}

fn signal_zero_only_asks(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["kill", &container.id, "0"])?;
    kill(Pid::from_raw(container.pid), Signal::SIGKILL)?;
    case.wait(&container)?;
    case.runtime.refused(&["kill", &container.id, "0"], &["not running"])?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn a_container_without_control_groups_has_none(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    bundle.write()?;
    let id = case.id("bare");
    let flags = ["--cgroup-manager", "disabled"];
    let run = ["run", "--detach", "--bundle", text(&bundle.path)?, &id];
    case.runtime.ok(&[&flags[..], &run].concat())?;
    let pid = case.runtime.pid(&id)?;
    let groups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).context("read the groups");
    ensure!(groups(&pid.to_string())? == groups("self")?, "it has groups of its own");
    let listed = case.runtime.ok(&["ps", "--format", "json", &id])?;
    ensure!(serde_json::from_str::<Vec<i32>>(&listed.stdout)? == [pid], "{listed}");
    case.runtime.refused(&["pause", &id], &["freezer"])?;
    case.runtime.ok(&["delete", "--force", &id])?;
    wait::child(pid, wait::STEP).map(drop)
}

fn limits_without_control_groups_are_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    bundle.set("/linux/resources/pids", json!({"limit": 50})).write()?;
    let id = case.id("bare");
    let flags = ["--cgroup-manager", "disabled"];
    let create = ["create", "--bundle", text(&bundle.path)?, &id];
    case.runtime
        .refused(&[&flags[..], &create].concat(), &["$.linux.resources", "pids.max 50", "disabled"])?;
    case.runtime.refused(&["state", &id], &["does not exist"]).map(drop)
}

fn a_descriptor_of_init_is_sent(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    bundle.write()?;
    let (id, path) = (case.id("pidfd"), case.directory().join("pidfd"));
    let listener = UnixListener::bind(&path)?;
    let create = ["create", "--bundle", text(&bundle.path)?, "--pidfd-socket", text(&path)?, &id];
    case.runtime.ok(&create)?;
    let descriptor = receive_descriptor(&listener)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
    let mut info = String::new();
    fs::File::open(format!("/proc/self/fdinfo/{number}"))?.read_to_string(&mut info)?;
    let pid = case.runtime.pid(&id)?;
    ensure!(host::find_field(&info, "Pid") == Some(pid.to_string().as_str()), "{info}");
    case.runtime.ok(&["delete", "--force", &id])?;
    wait::child(pid, wait::STEP).map(drop)
}

fn exec_joins_a_group_below_the_containers(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    let container = case.start(&bundle)?;
    let procs = host::cgroup_file(container.pid, "pids", "cgroup.procs", "cgroup.procs")?;
    let own = procs.parent().context("no parent")?;
    fs::create_dir(own.join("below"))?;
    let group = format!("{}/below", own.file_name().context("no name")?.to_string_lossy());
    let exec = |flag: &'static str, id: &str| {
        ["exec", "--cgroup", flag, id, "/bin/cat", "/proc/self/cgroup"].map(str::to_owned)
    };
    // The container's cgroup namespace begins at its own group.
    for flag in ["pids:below", "pids:/below/"] {
        let line = exec(flag, &container.id);
        let printed = case.runtime.ok(&line.each_ref().map(String::as_str))?;
        ensure!(
            printed.lines().iter().any(|line| line.contains("pids") && line.ends_with("/below")),
            "{group}: {printed}"
        );
    }
    for (flag, words) in [("pids:none", "no such file"), ("rdma:below", "rdma"), ("../x", "..")] {
        let line = exec(flag, &container.id);
        case.runtime.refused(&line.each_ref().map(String::as_str), &[words])?;
    }
    case.remove(&container)
}

fn exec_waits_for_a_paused_container_if_asked(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["pause", &container.id])?;
    let exec = ["exec", "--ignore-paused", &container.id, "/bin/sh", "-c", "echo through"];
    let running = case.runtime.spawn(&exec, None)?;
    // It has joined when the container has a second process.
    let end = Instant::now() + wait::STEP;
    loop {
        let printed = case.runtime.ok(&["ps", "--format", "json", &container.id])?;
        if serde_json::from_str::<Vec<i32>>(&printed.stdout)?.len() > 1 {
            break;
        }
        ensure!(Instant::now() < end, "the process has not joined: {printed}");
    }
    case.runtime.ok(&["resume", &container.id])?;
    let finished = running.finish()?.success()?;
    ensure!(finished.lines() == ["through"], "{finished}");
    case.remove(&container)
}

fn spec_writes_where_it_is_told(case: &mut Case) -> Result<()> {
    let path = case.directory().join("other.json");
    case.runtime.ok(&["spec", "--file", text(&path)?])?;
    let spec: Value = serde_json::from_slice(&fs::read(&path)?)?;
    ensure!(spec["process"]["args"] == json!(["sh"]), "{spec}");
    case.runtime.refused(&["spec", "--file", text(&path)?], &["exists"])?;
    // What `--rootless` writes runs for root as well.
    let directory = case.bundle_path();
    bundle::make_root(&directory.join("rootfs"))?;
    case.runtime.ok(&["spec", "--rootless", "--bundle", text(&directory)?])?;
    let config = directory.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map"]);
    fs::write(&config, spec.to_string())?;
    let id = case.id("rootless");
    let run = case.runtime.ok(&["run", "--bundle", text(&directory)?, &id])?;
    ensure!(run.lines()[0] == "0" && run.lines()[1].split_whitespace().eq(["0", "0", "1"]), "{run}");
    Ok(())
}

fn features_are_those_of_the_specification(case: &mut Case) -> Result<()> {
    let features: Value = serde_json::from_str(&case.runtime.ok(&["features"])?.stdout)?;
    let list = |pointer: &str| -> Result<Vec<&str>> {
        let all =
            features.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no {pointer}"))?;
        Ok(all.iter().filter_map(Value::as_str).collect())
    };
    for (pointer, words) in [
        (
            "/hooks",
            &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"][..],
        ),
        ("/mountOptions", &["ro", "rbind", "rprivate", "rro", "tmpcopyup", "nosuid"]),
        ("/linux/namespaces", &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]),
        ("/linux/capabilities", &["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]),
        ("/linux/seccomp/actions", &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"]),
        ("/linux/seccomp/operators", &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]),
        ("/linux/seccomp/archs", &["SCMP_ARCH_X86_64"]),
    ] {
        let found = list(pointer)?;
        for word in words {
            ensure!(found.contains(word), "{pointer} lacks {word}: {found:?}");
        }
    }
    ensure!(
        features["linux"]["cgroup"]["v1"] == true && features["linux"]["cgroup"]["v2"] == true,
        "{features}"
    );
    Ok(())
}
