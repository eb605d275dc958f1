//! Container life: verbs, states, exit codes, and what is refused (runtime.md of the OCI runtime specification).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::wait;

tests! { "lifecycle";
    Exec:
        create_leaves_a_created_container_that_has_not_run,
        the_pid_file_names_the_pid_of_the_state,
        a_started_program_runs_and_its_status_reaches_the_caller,
        start_refuses_a_running_container,
        start_refuses_a_stopped_container,
        kill_delivers_the_named_signal,
        kill_ends_a_program_that_handles_nothing,
        kill_refuses_a_stopped_container,
        delete_refuses_a_running_container,
        delete_force_ends_and_removes_a_running_container,
        delete_removes_a_created_container,
        delete_removes_a_created_container_by_force,
        delete_force_of_an_unknown_container_succeeds,
        a_deleted_container_is_unknown,
        a_second_container_of_the_same_id_is_refused,
        verbs_refuse_an_unknown_container,
        ids_that_are_paths_are_refused,
        a_bundle_without_configuration_is_refused,
        a_configuration_that_is_no_json_is_refused,
        run_returns_the_exit_code,
        run_returns_128_plus_the_signal,
        run_passes_signals_on_to_the_program,
        run_of_a_missing_program_fails,
        run_removes_the_container_afterwards,
        run_detached_returns_while_the_program_runs,
        spec_writes_a_configuration_that_runs,
        a_paused_container_stands_still_until_it_is_resumed,
        the_json_log_ends_with_the_error,
        list_names_the_containers;
    Turf:
        run_of_what_is_no_program_fails,
        kill_refuses_a_signal_that_does_not_exist,
        odd_ids_are_refused,
        a_bad_value_is_refused_with_its_path,
        a_dry_run_prints_the_plan_and_creates_nothing,
        list_prints_json,
        ps_prints_the_pids,
        the_version_is_printed,
}

/// A script that says so and then sleeps until it is killed.
const SLEEPER: &str = "echo up; exec sleep 1000";

fn create_leaves_a_created_container_that_has_not_run(case: &mut Case) -> Result<()> {
    let bundle = case.shell("touch /ran")?;
    let container = case.create(&bundle)?;
    let state = case.runtime.state(&container.id)?;
    ensure!(state["status"] == "created", "status is {}", state["status"]);
    ensure!(state["id"] == json!(container.id), "id is {}", state["id"]);
    ensure!(state["ociVersion"].is_string(), "no ociVersion in {state}");
    ensure!(state["bundle"].as_str().map(Path::new) == Some(&bundle.path), "bundle is {}", state["bundle"]);
    ensure!(!bundle.inside("/ran").exists(), "the program ran before start");
    Ok(())
}

fn the_pid_file_names_the_pid_of_the_state(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.create(&bundle)?;
    ensure!(case.runtime.pid(&container.id)? == container.pid, "state and pid file differ");
    ensure!(Path::new(&format!("/proc/{}", container.pid)).exists(), "no such process");
    Ok(())
}

fn a_started_program_runs_and_its_status_reaches_the_caller(case: &mut Case) -> Result<()> {
    let bundle = case.shell("touch /ran; exit 7")?;
    let container = case.create(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    let status = case.wait(&container)?;
    ensure!(status == WaitStatus::Exited(Pid::from_raw(container.pid), 7), "ended with {status:?}");
    ensure!(bundle.inside("/ran").exists(), "the program did not run");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    case.runtime.ok(&["delete", &container.id])?;
    Ok(())
}

fn start_refuses_a_running_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.refused(&["start", &container.id], &[])?;
    ensure!(case.runtime.status(&container.id)? == "running");
    Ok(())
}

fn start_refuses_a_stopped_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    case.runtime.refused(&["start", &container.id], &[])?;
    Ok(())
}

fn kill_delivers_the_named_signal(case: &mut Case) -> Result<()> {
    for signal in ["TERM", "SIGTERM", "15"] {
        let mut bundle = case.shell("trap 'exit 3' TERM; echo up > /fifo; while :; do sleep 0.05; done")?;
        bundle.set("/process/terminal", json!(false));
        let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
        let container = case.start(&bundle)?;
        wait::line(&mut fifo, wait::STEP)?;
        case.runtime.ok(&["kill", &container.id, signal])?;
        let status = case.wait(&container)?;
        ensure!(matches!(status, WaitStatus::Exited(_, 3)), "{signal}: ended with {status:?}");
        case.runtime.ok(&["delete", &container.id])?;
    }
    Ok(())
}

fn kill_ends_a_program_that_handles_nothing(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "ended with {status:?}");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    Ok(())
}

fn kill_refuses_a_stopped_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    case.runtime.refused(&["kill", &container.id, "TERM"], &[])?;
    Ok(())
}

fn kill_refuses_a_signal_that_does_not_exist(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    for signal in ["SIGNOTHING", "999"] {
        case.runtime.refused(&["kill", &container.id, signal], &[])?;
    }
    ensure!(case.runtime.status(&container.id)? == "running");
    Ok(())
}

fn delete_refuses_a_running_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.refused(&["delete", &container.id], &[])?;
    ensure!(case.runtime.status(&container.id)? == "running");
    Ok(())
}

fn delete_force_ends_and_removes_a_running_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.ok(&["delete", "--force", &container.id])?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "ended with {status:?}");
    case.runtime.refused(&["state", &container.id], &[])?;
    Ok(())
}

/// Against the letter of the specification, and as runc, crun and youki do.
fn delete_removes_a_created_container(case: &mut Case) -> Result<()> {
    let bundle = case.shell("touch /ran")?;
    let container = case.create(&bundle)?;
    case.runtime.ok(&["delete", &container.id])?;
    case.wait(&container)?;
    ensure!(!bundle.inside("/ran").exists(), "the program ran");
    case.runtime.refused(&["state", &container.id], &[]).map(drop)
}

fn delete_removes_a_created_container_by_force(case: &mut Case) -> Result<()> {
    let bundle = case.shell("touch /ran")?;
    let container = case.create(&bundle)?;
    case.runtime.ok(&["delete", "--force", &container.id])?;
    case.wait(&container)?;
    ensure!(!bundle.inside("/ran").exists(), "the program ran");
    case.runtime.refused(&["state", &container.id], &[])?;
    Ok(())
}

fn delete_force_of_an_unknown_container_succeeds(case: &mut Case) -> Result<()> {
    let id = case.id("nobody");
    case.runtime.ok(&["delete", "--force", &id]).map(drop)
}

fn a_deleted_container_is_unknown(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id])?;
    case.runtime.refused(&["state", &container.id], &[])?;
    case.runtime.refused(&["delete", &container.id], &[])?;
    Ok(())
}

fn a_second_container_of_the_same_id_is_refused(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &container.id], &["exist"])?;
    ensure!(case.runtime.status(&container.id)? == "running", "the first container was disturbed");
    Ok(())
}

fn verbs_refuse_an_unknown_container(case: &mut Case) -> Result<()> {
    let id = case.id("nobody");
    for verb in ["state", "start", "delete"] {
        case.runtime.refused(&[verb, &id], &[])?;
    }
    case.runtime.refused(&["kill", &id, "TERM"], &[])?;
    // The same verb succeeds where it should: what was refused is the name.
    let bundle = case.shell("exit 0")?;
    let known = case.create(&bundle)?;
    case.runtime.ok(&["state", &known.id]).map(drop)
}

fn ids_that_are_paths_are_refused(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    bundle.write()?;
    for id in ["a/b", "../up"] {
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, id], &[])?;
    }
    case.create(&bundle).map(drop)
}

fn a_bundle_without_configuration_is_refused(case: &mut Case) -> Result<()> {
    let (bundle, id) = (case.shell("exit 0")?, case.id("bare"));
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &["config.json"])?;
    case.create_as(&bundle, &id).map(drop)
}

fn a_configuration_that_is_no_json_is_refused(case: &mut Case) -> Result<()> {
    let (bundle, id) = (case.shell("exit 0")?, case.id("broken"));
    fs::write(bundle.path.join("config.json"), "{\"ociVersion\": \"1.0.2\",,}")?;
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[])?;
    case.create_as(&bundle, &id).map(drop)
}

fn run_returns_the_exit_code(case: &mut Case) -> Result<()> {
    for code in [0, 1, 42, 255] {
        let bundle = case.shell(&format!("exit {code}"))?;
        case.run(&bundle)?.exited(code)?;
    }
    Ok(())
}

fn run_returns_128_plus_the_signal(case: &mut Case) -> Result<()> {
    let bundle = case.shell("echo up > /fifo; exec sleep 1000")?;
    let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
    bundle.write()?;
    let id = case.id("killed");
    let running = case.runtime.spawn(&["run", "--bundle", text(&bundle.path)?, &id], None)?;
    wait::line(&mut fifo, wait::STEP)?;
    case.runtime.ok(&["kill", &id, "KILL"])?;
    running.finish()?.exited(137)?;
    Ok(())
}

fn run_passes_signals_on_to_the_program(case: &mut Case) -> Result<()> {
    let bundle = case.shell("trap 'exit 3' TERM; echo up > /fifo; while :; do sleep 0.05; done")?;
    let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
    bundle.write()?;
    let id = case.id("signalled");
    let running = case.runtime.spawn(&["run", "--bundle", text(&bundle.path)?, &id], None)?;
    wait::line(&mut fifo, wait::STEP)?;
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM)?;
    running.finish()?.exited(3)?;
    Ok(())
}

fn run_of_a_missing_program_fails(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    bundle.set("/process/args", json!(["/bin/nothing-of-that-name"]));
    let finished = case.run(&bundle)?.failure(&["/bin/nothing-of-that-name"])?;
    let said = finished.stderr.to_lowercase();
    ensure!(said.contains("no such file or directory") || said.contains("not found"), "{finished}");
    Ok(())
}

/// Found out by execve(2), when the sandbox stands already.
fn run_of_what_is_no_program_fails(case: &mut Case) -> Result<()> {
    for mode in [&["run"][..], &["run", "--detach"]] {
        let mut bundle = case.shell("")?;
        let file = bundle.inside("/bin/text");
        fs::write(&file, "no program\n")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        bundle.set("/process/args", json!(["/bin/text"])).write()?;
        let id = case.id(if mode.len() == 1 { "text" } else { "text-detached" });
        let arguments = [mode, &["--bundle", text(&bundle.path)?, &id]].concat();
        case.runtime.refused(&arguments, &["/bin/text", "exec format error"])?;
        case.runtime.call(&["delete", "--force", &id])?;
        case.nothing_is_left_of(&id)?;
    }
    Ok(())
}

fn run_removes_the_container_afterwards(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    bundle.write()?;
    let id = case.id("once");
    case.runtime.ok(&["run", "--bundle", text(&bundle.path)?, &id])?;
    case.runtime.refused(&["state", &id], &[])?;
    Ok(())
}

fn run_detached_returns_while_the_program_runs(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    bundle.write()?;
    let id = case.id("detached");
    let pid_file = case.directory().join("pid");
    case.runtime.ok(&[
        "run",
        "--detach",
        "--pid-file",
        text(&pid_file)?,
        "--bundle",
        text(&bundle.path)?,
        &id,
    ])?;
    ensure!(case.runtime.status(&id)? == "running");
    ensure!(fs::read_to_string(&pid_file)?.trim() == case.runtime.pid(&id)?.to_string());
    Ok(())
}

fn spec_writes_a_configuration_that_runs(case: &mut Case) -> Result<()> {
    let path = case.bundle_path();
    bundle::make_root(&path.join("rootfs"))?;
    case.runtime.ok(&["spec", "--bundle", text(&path)?]).or_else(|_| {
        // crun has no --bundle here: it writes into the working directory.
        let written = case.directory().join("output/config.json");
        case.runtime.ok(&["spec"])?;
        fs::rename(written, path.join("config.json"))?;
        anyhow::Ok(case.runtime.call(&["--version"])?)
    })?;
    let mut config: Value = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
    config["process"]["args"] = json!(["/bin/echo", "hello from spec"]);
    config["process"]["terminal"] = json!(false);
    // Drop /dev/mqueue: not every kernel has it.
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "mqueue");
    }
    let finished = case.run(&bundle::Bundle { path, config })?.success()?;
    ensure!(finished.lines() == ["hello from spec"], "{finished}");
    Ok(())
}

fn a_paused_container_stands_still_until_it_is_resumed(case: &mut Case) -> Result<()> {
    let bundle = case.shell("trap 'echo got > /fifo' USR1; echo up > /fifo; while :; do sleep 0.05; done")?;
    let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
    let container = case.start(&bundle)?;
    wait::line(&mut fifo, wait::STEP)?;
    case.runtime.ok(&["pause", &container.id])?;
    ensure!(case.runtime.status(&container.id)? == "paused");
    case.runtime.ok(&["kill", &container.id, "USR1"])?;
    ensure!(wait::line(&mut fifo, Duration::from_millis(300)).is_err(), "a paused program answered");
    case.runtime.ok(&["resume", &container.id])?;
    ensure!(case.runtime.status(&container.id)? == "running");
    ensure!(wait::line(&mut fifo, wait::STEP)? == "got");
    Ok(())
}

fn a_dry_run_prints_the_plan_and_creates_nothing(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/hostname", json!("planned-name")).write()?;
    let id = case.id("dry");
    let printed = case.runtime.ok(&["create", "--dry-run", "--bundle", text(&bundle.path)?, &id])?;
    ensure!(printed.stdout.contains("planned-name") && printed.stdout.contains("/dev/pts"), "{printed}");
    case.runtime.refused(&["state", &id], &["does not exist"]).map(drop)
}

fn the_json_log_ends_with_the_error(case: &mut Case) -> Result<()> {
    let (log, id) = (case.directory().join("log.json"), case.id("nobody"));
    case.runtime.call(&["--log", text(&log)?, "--log-format", "json", "start", &id])?;
    let written = fs::read_to_string(&log)?;
    let lines: Vec<Value> = written.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines.last().cloned().unwrap_or_default();
    ensure!(
        last["level"] == "error" && last["msg"].is_string() && last["time"].is_string(),
        "log: {written}"
    );
    Ok(())
}

fn list_names_the_containers(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    let printed = case.runtime.ok(&["list"])?;
    let line = printed.lines().into_iter().find(|line| line.contains(&container.id)).unwrap_or_default();
    let pid = container.pid.to_string();
    ensure!(line.split_whitespace().any(|word| word == pid) && line.contains("running"), "{printed}");
    Ok(())
}

fn odd_ids_are_refused(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 0")?;
    bundle.write()?;
    let long = "x".repeat(2000);
    for id in ["", ".", "..", "a b", "a\nb", "é", &long] {
        let refused = case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, "--", id], &[]);
        refused.map_err(|error| error.context(format!("id {id:?}")))?;
    }
    case.create(&bundle).map(drop)
}

fn a_bad_value_is_refused_with_its_path(case: &mut Case) -> Result<()> {
    let bad = [
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!([]), "process.args"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_TYPO", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type",
        ),
        ("/linux/namespaces", json!([{"type": "typo"}]), "linux.namespaces[0].type"),
        ("/mounts/0/destination", json!(7), "mounts[0].destination"),
        ("/ociVersion", json!("9.0.0"), "ociVersion"),
    ];
    for (pointer, value, path) in bad {
        let mut bundle = case.shell("exit 0")?;
        bundle.set(pointer, value).write()?;
        let id = case.id("bad");
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[path])?;
        case.runtime.refused(&["state", &id], &["does not exist"])?;
    }
    Ok(())
}

fn list_prints_json(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    let printed = case.runtime.ok(&["list", "--format", "json"])?.stdout;
    let list: Value = serde_json::from_str(&printed)?;
    let found = list.as_array().and_then(|list| list.iter().find(|one| one["id"] == json!(container.id)));
    ensure!(found.is_some_and(|one| one["status"] == "running" && one["pid"] == container.pid), "{printed}");
    Ok(())
}

fn ps_prints_the_pids(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    let printed = case.runtime.ok(&["ps", "--format", "json", &container.id])?.stdout;
    let pids: Vec<i32> = serde_json::from_str(&printed)?;
    ensure!(pids.contains(&container.pid), "{printed} lacks {}", container.pid);
    Ok(())
}

fn the_version_is_printed(case: &mut Case) -> Result<()> {
    let printed = case.runtime.ok(&["--version"])?.stdout;
    ensure!(printed.starts_with("turf ") && printed.contains("spec"), "{printed}");
    Ok(())
}
