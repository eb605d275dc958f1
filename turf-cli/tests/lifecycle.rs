//! The life of a container that runs a program, through the `turf` program and the kernel.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_container_lives_from_create_to_delete() {
    let Some(scratch) = Scratch::new("life") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    let (bundle, id) = (bundle.to_str().unwrap(), scratch.id());
    let pid_file = scratch.path("pid");
    scratch.turf(&["create", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), id]).ok();
    let state = scratch.state(id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    scratch.turf(&["create", "--bundle", bundle, id]).refused(&[id, "already exists"]);
    scratch.turf(&["pause", id]).refused(&[id, "created"]);

    assert_eq!(scratch.turf(&["start", id]).ok().stdout, "");
    assert_eq!(scratch.status(id), "running");
    scratch.turf(&["start", id]).refused(&[id, "running"]);
    scratch.turf(&["delete", id]).refused(&[id, "running"]);
    let pids: Vec<i64> =
        serde_json::from_str(&scratch.turf(&["ps", "--format", "json", id]).ok().stdout).unwrap();
    assert!(pids.contains(&state["pid"].as_i64().unwrap()), "{pids:?}");
    assert!(scratch.turf(&["ps", id]).ok().stdout.contains("sleep 1000"));
    assert_eq!(scratch.turf(&["list", "-q"]).ok().stdout, format!("{id}\n"));

    scratch.turf(&["pause", id]).ok();
    assert_eq!(scratch.status(id), "paused");
    scratch.turf(&["pause", id]).refused(&[id, "paused"]);
    scratch.turf(&["resume", id]).ok();
    assert_eq!(scratch.status(id), "running");

    scratch.turf(&["kill", id, "KILL"]).ok();
    scratch.wait_stopped(id);
    let state = scratch.state(id);
    assert_eq!((&state["status"], &state["pid"]), (&"stopped".into(), &0.into()));
    scratch.turf(&["kill", id]).refused(&[id, "container not running"]);
    scratch.turf(&["start", id]).refused(&[id, "stopped"]);
    scratch.turf(&["delete", id]).ok();
    scratch.turf(&["state", id]).refused(&["does not exist"]);
    scratch.assert_nothing_left();
}

#[test]
fn a_forced_delete_removes_a_container_in_any_status() {
    let Some(scratch) = Scratch::new("force") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    let (bundle, id) = (bundle.to_str().unwrap(), scratch.id());
    for verbs in [&[][..], &["start"], &["start", "pause"]] {
        scratch.turf(&["create", "--bundle", bundle, id]).ok();
        for verb in verbs {
            scratch.turf(&[verb, id]).ok();
        }
        scratch.turf(&["delete", "--force", id]).ok();
        scratch.assert_nothing_left();
    }
}

#[test]
fn run_exits_as_the_container_did_and_leaves_nothing() {
    let Some(scratch) = Scratch::new("run") else { return };
    for (name, script, status) in [
        ("ok", "echo hello; exit 0", 0),
        ("status", "exit 42", 42),
        ("signal", "kill -9 $$; sleep 1000", 137),
    ] {
        // A process that is pid 1 of its namespace cannot signal itself: a child does it.
        let script = script.replace("kill -9 $$", "sh -c 'kill -9 $$'; exit $?");
        let Some(bundle) = scratch.bundle(name, &script, |_| {}) else { return };
        let ended = scratch.turf(&["run", "--bundle", bundle.to_str().unwrap(), scratch.id()]);
        assert_eq!(ended.code, Some(status), "{ended:?}");
        assert_eq!(ended.stdout, if name == "ok" { "hello\n" } else { "" });
        scratch.assert_nothing_left();
    }
}

#[test]
fn run_passes_signals_on() {
    let Some(scratch) = Scratch::new("signals") else { return };
    let script = "trap 'exit 7' USR1; echo ready > /out/ready; while :; do sleep 1000 & wait; done";
    let out = scratch.path("out");
    fs::create_dir(&out).unwrap();
    let fifo = out.join("ready");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mount =
        serde_json::json!({"destination": "/out", "type": "bind", "source": out, "options": ["bind", "rw"]});
    let change = |config: &mut serde_json::Value| {
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["root"]["readonly"] = false.into();
    };
    let Some(bundle) = scratch.bundle("b", script, change) else { return };
    let mut command = scratch.command(&["run", "--bundle", bundle.to_str().unwrap(), scratch.id()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Opening and reading blocks until the script has set its trap.
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "ready\n");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    scratch.assert_nothing_left();
}

#[test]
fn a_detached_run_leaves_a_running_container() {
    let Some(scratch) = Scratch::new("detach") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    scratch.turf(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), scratch.id()]).ok();
    assert_eq!(scratch.status(scratch.id()), "running");
    scratch.turf(&["delete", "--force", scratch.id()]).ok();
    scratch.assert_nothing_left();
}

#[test]
fn a_program_that_does_not_exist_fails_the_start() {
    let Some(scratch) = Scratch::new("noprogram") else { return };
    let change =
        |config: &mut serde_json::Value| config["process"]["args"] = serde_json::json!(["/no/such/program"]);
    let Some(bundle) = scratch.bundle("b", "", change) else { return };
    let ended = scratch.turf(&["run", "--bundle", bundle.to_str().unwrap(), scratch.id()]);
    ended.refused(&["/no/such/program", "no such file or directory"]);
    scratch.assert_nothing_left();
}

#[test]
fn preserved_descriptors_reach_the_program_and_others_do_not() {
    let Some(scratch) = Scratch::new("fds") else { return };
    let Some(bundle) =
        scratch.bundle("b", "for fd in 3 4 9; do (: <&$fd) 2>/dev/null && echo $fd; done; cat <&3", |_| {})
    else {
        return;
    };
    let file = scratch.path("three");
    fs::write(&file, "content of three\n").unwrap();
    let script = format!(
        "exec 3<{file} 4<{file} 9<{file}; exec {turf} --root {root} run --preserve-fds 1 --bundle {bundle} {id}",
        file = file.display(),
        turf = env!("CARGO_BIN_EXE_turf"),
        root = scratch.root().display(),
        bundle = bundle.display(),
        id = scratch.id()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let ended = scratch.end(command).ok();
    assert_eq!(ended.stdout, "3\ncontent of three\n");
    scratch.assert_nothing_left();
}

#[test]
fn of_two_racing_creates_one_wins() {
    let Some(scratch) = Scratch::new("race") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    for _ in 0..5 {
        let spawn = || {
            let mut command =
                scratch.command(&["create", "--bundle", bundle.to_str().unwrap(), scratch.id()]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut racers = [spawn(), spawn(), spawn()];
        let codes: Vec<_> = racers.iter_mut().map(|racer| racer.wait().unwrap().code()).collect();
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert_eq!(scratch.status(scratch.id()), "created");
        scratch.turf(&["delete", "--force", scratch.id()]).ok();
    }
    scratch.assert_nothing_left();
}

#[test]
fn of_racing_starts_and_deletes_none_leaves_anything() {
    let Some(scratch) = Scratch::new("verbs") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    for _ in 0..5 {
        scratch.turf(&["create", "--bundle", bundle.to_str().unwrap(), scratch.id()]).ok();
        let spawn = |arguments: &[&str]| {
            let errors = fs::File::options().append(true).create(true).open(scratch.path("racers")).unwrap();
            scratch.command(arguments).stdout(Stdio::null()).stderr(errors).spawn().unwrap()
        };
        let mut racers = [
            spawn(&["start", scratch.id()]),
            spawn(&["delete", "--force", scratch.id()]),
            spawn(&["kill", scratch.id(), "TERM"]),
            spawn(&["delete", "--force", scratch.id()]),
        ];
        for (index, racer) in racers.iter_mut().enumerate() {
            let status = racer.wait().unwrap();
            let error = fs::read_to_string(scratch.path("racers")).unwrap();
            assert!(index % 2 == 0 || status.success(), "a forced delete failed: {status}: {error}");
        }
        scratch.assert_nothing_left();
    }
}

/// Kills `turf` after a while that grows from run to run, so that it dies in each of its steps.
#[test]
fn a_killed_command_leaves_what_delete_removes() {
    let Some(scratch) = Scratch::new("killed") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    let bundle = bundle.to_str().unwrap();
    // The kills are spread over the time that an undisturbed command takes here, and a little beyond.
    let undisturbed = |_| {
        let begin = Instant::now();
        scratch.turf(&["create", "--bundle", bundle, scratch.id()]).ok();
        let took = begin.elapsed();
        scratch.turf(&["delete", "--force", scratch.id()]).ok();
        took
    };
    let undisturbed = (0..5).map(undisturbed).min().unwrap();
    let mut interrupted = 0;
    for step in 0..120u32 {
        let arguments: &[&str] = if step % 3 == 2 {
            scratch.turf(&["create", "--bundle", bundle, scratch.id()]).ok();
            &["start", scratch.id()]
        } else {
            &["create", "--bundle", bundle, scratch.id()]
        };
        let mut command = scratch.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let pidfd = turf_core::sys::pidfd::pidfd_open(child.id() as i32).unwrap();
        let mut fds =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
        let pause = nix::sys::time::TimeSpec::from_duration(undisturbed * step / 100);
        interrupted += i32::from(nix::poll::ppoll(&mut fds, Some(pause), None).unwrap() == 0);
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever is left has a status, or is nothing.
        let state = scratch.turf(&["state", scratch.id()]);
        if state.code == Some(0) {
            let state: serde_json::Value = serde_json::from_str(&state.stdout).unwrap();
            let status = state["status"].as_str().unwrap();
            assert!(["creating", "created", "running", "stopped"].contains(&status), "{state}");
            let alive = state["pid"].as_i64().unwrap() != 0;
            // What a killed `create` had begun may take a moment to end: until then there may be no init to name.
            assert!(status == "creating" || alive == (status != "stopped"), "{state}");
        } else {
            assert!(state.stderr.contains("does not exist"), "{state:?}");
        }
        scratch.turf(&["delete", "--force", scratch.id()]).ok();
        scratch.assert_nothing_left();
    }
    assert!(interrupted > 10, "only {interrupted} commands were interrupted");
}

/// Nobody knows that init yet, and it may not have joined its control groups: it ends by itself, a moment later, and has the
/// container locked until then.
#[test]
fn a_delete_waits_for_the_init_of_a_killed_create() {
    let Some(scratch) = Scratch::new("unknown") else { return };
    let Some(bundle) = scratch.bundle("b", "sleep 1000", |_| {}) else { return };
    let bundle = bundle.to_str().unwrap();
    fs::create_dir_all(scratch.root()).unwrap();
    let faults = scratch.root().join(turf_core::fault::FILE);
    for _ in 0..200 {
        fs::write(&faults, "create:init-spawned kill").unwrap();
        assert_eq!(scratch.turf(&["create", "--bundle", bundle, scratch.id()]).code, None);
        fs::remove_file(&faults).unwrap();
        scratch.turf(&["delete", "--force", scratch.id()]).ok();
        scratch.assert_nothing_left();
    }
}
