//! Faults at each step of a verb: the state directory's file `faults` says where the runtime is killed, stopped, or
//! refused something. Whatever happens, `state` and `list` tell the truth, and `delete --force` leaves nothing.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::failure::seed_pid;
use super::worker::HELLO;
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::runtime::Running;
use crate::suite::tests;
use crate::{clean, host, http, wait};

tests! { "faults";
    Turf:
        a_create_that_is_killed_anywhere_tells_the_truth_and_can_be_deleted,
        a_create_that_fails_anywhere_leaves_nothing,
        a_start_that_is_killed_anywhere_tells_the_truth_and_can_be_deleted,
        a_start_that_fails_anywhere_leaves_a_container_that_is_created_or_stopped,
        an_exec_that_is_killed_or_fails_leaves_its_container_alone,
        a_delete_that_is_killed_or_fails_anywhere_can_be_repeated,
        a_delete_beside_a_create_waits_and_leaves_nothing,
        a_delete_beside_a_start_ends_it,
        too_few_descriptors_fail_cleanly,
        missing_privileges_fail_cleanly,
        a_fault_that_does_not_exist_is_refused;
}

const CREATE: [&str; 10] = [
    "create:locked",
    "create:state-stored",
    "create:groups-made",
    "create:init-spawned",
    "create:init-stored",
    "create:hooks-run",
    "create:at-gate",
    "create:created-stored",
    "create:told-pid",
    "create:released",
];
const START: [&str; 6] = [
    "start:loaded",
    "start:seed-connected",
    "start:prepared",
    "start:forked",
    "start:reported",
    "start:running",
];
/// Those that the start of a program comes to.
const START_PROGRAM: [&str; 2] = ["start:loaded", "start:running"];
const EXEC: [&str; 2] = ["exec:loaded", "exec:spawned"];
const DELETE: [&str; 5] =
    ["delete:locked", "delete:killed", "delete:groups-removed", "delete:state-removed", "delete:removed"];

/// No space, not permitted, too many open files.
const ERRORS: [(i32, &str); 3] =
    [(28, "no space left on device"), (1, "operation not permitted"), (24, "too many open files")];

/// A bundle with limits, and with a hook before the container is created.
fn program(case: &mut Case) -> Result<Bundle> {
    let mut bundle = case.shell("exec sleep 1000")?;
    bundle.set("/linux/resources/pids", json!({"limit": 20}));
    bundle.set("/hooks", json!({"createRuntime": [{"path": "/bin/true"}]}));
    bundle.write()?;
    Ok(bundle)
}

fn worker(case: &mut Case) -> Result<Bundle> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/linux/resources/pids", json!({"limit": 20}));
    bundle.write()?;
    Ok(bundle)
}

impl Case {
    /// Asks for a fault in every command from here on.
    pub(super) fn arm(&self, point: &str, action: &str) -> Result<()> {
        let root = self.runtime.root();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        fs::write(root.join("faults"), format!("{point} {action}\n")).context("write the faults")
    }

    pub(super) fn disarm(&self) -> Result<()> {
        fs::remove_file(self.runtime.root().join("faults")).context("remove the faults")
    }

    /// Makes a call that is killed at a point.
    pub(super) fn killed(&mut self, point: &str, arguments: &[&str]) -> Result<()> {
        self.arm(point, "kill")?;
        let finished = self.runtime.call(arguments)?;
        self.disarm()?;
        ensure!(finished.status.code().is_none(), "it was not killed at {point}: {finished}");
        Ok(())
    }

    /// Makes a call that fails at a point.
    fn fails(&mut self, point: &str, (number, words): (i32, &str), arguments: &[&str]) -> Result<()> {
        self.arm(point, &format!("errno {number}"))?;
        let finished = self.runtime.call(arguments);
        self.disarm()?;
        let code = if arguments[0] == "exec" { 255 } else { 1 };
        finished?.exited(code)?.failure(&[point, words]).map(drop)
    }

    /// Begins a call and waits until it has stopped itself at a point.
    pub fn stopped_at(&mut self, point: &str, arguments: &[&str]) -> Result<Running> {
        self.arm(point, "stop")?;
        let running = self.runtime.spawn(arguments, None)?;
        let status = waitpid(Pid::from_raw(running.pid()), Some(WaitPidFlag::WUNTRACED))?;
        self.disarm()?;
        ensure!(matches!(status, WaitStatus::Stopped(..)), "it did not stop at {point}: {status:?}");
        Ok(running)
    }

    /// Waits until `state` says one of these, and checks that `list` and the process agree.
    pub(super) fn becomes(&mut self, id: &str, wanted: &[&str]) -> Result<String> {
        let end = Instant::now() + wait::STEP;
        let state = loop {
            let state = self.runtime.state(id)?;
            if wanted.iter().any(|word| state["status"] == *word) {
                break state;
            }
            ensure!(Instant::now() < end, "{state} never became {wanted:?}");
        };
        let pid = state["pid"].as_i64().context("no pid")?;
        let status = state["status"].as_str().context("no status")?.to_owned();
        let lives = pid > 0
            && host::field(i32::try_from(pid)?, "status", "State").is_ok_and(|text| !text.starts_with('Z'));
        ensure!(lives == (status != "stopped"), "it is said to be {state}");
        let listed: Vec<Value> =
            serde_json::from_str(&self.runtime.ok(&["list", "--format", "json"])?.stdout)?;
        let entry = listed.iter().find(|entry| entry["id"] == id).context("list does not show it")?;
        ensure!(entry["status"] == status.as_str(), "list says {entry}");
        Ok(status)
    }

    /// Deletes by force and checks that nothing is there any more.
    fn gone(&mut self, id: &str) -> Result<()> {
        self.runtime.ok(&["delete", "--force", id])?;
        self.nothing_is_left_of(id)
    }

    /// Checks that nothing is there any more of a container: processes, files, groups, mounts.
    pub(super) fn nothing_is_left_of(&mut self, id: &str) -> Result<()> {
        self.runtime.refused(&["state", id], &["does not exist"])?;
        let listed = self.runtime.ok(&["list", "--quiet"])?;
        ensure!(!listed.lines().contains(&id), "it is still listed: {listed}");
        let seeds: Vec<i32> = self.seeds().iter().filter_map(|name| seed_pid(self, name).ok()).collect();
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            // Whoever was orphaned is a child of this program.
            let ours = |line: &String| !seeds.iter().any(|pid| line.starts_with(&format!("{pid} ")));
            let processes: Vec<String> = clean::children().into_iter().filter(ours).collect();
            if processes.is_empty() {
                break;
            }
            ensure!(Instant::now() < end, "processes are left: {processes:?}");
            std::thread::yield_now();
        }
        let files = clean::files(self.runtime.root(), id);
        ensure!(files.is_empty(), "files are left: {files:?}");
        let groups = clean::cgroups(id);
        ensure!(groups.is_empty(), "control groups are left: {groups:?}");
        let mounts: Vec<_> =
            clean::mounts()?.into_iter().filter(|path| path.to_string_lossy().contains(id)).collect();
        ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
        self.forget(id);
        Ok(())
    }

    fn bundles(&mut self) -> Result<[Bundle; 2]> {
        Ok([program(self)?, worker(self)?])
    }
}

fn a_create_that_is_killed_anywhere_tells_the_truth_and_can_be_deleted(case: &mut Case) -> Result<()> {
    for (kind, bundle) in case.bundles()?.iter().enumerate() {
        let path = text(&bundle.path)?.to_owned();
        for point in CREATE {
            // A worker's bundle has no hooks here.
            if kind == 1 && point == "create:hooks-run" {
                continue;
            }
            let id = case.id(&format!("k{kind}{}", point.replace(':', "-")));
            case.killed(point, &["create", "--bundle", &path, &id])?;
            let wanted = if point == "create:released" { "created" } else { "stopped" };
            case.becomes(&id, &[wanted]).context(point)?;
            if wanted == "stopped" {
                case.runtime.refused(&["kill", &id, "TERM"], &["not running"]).context(point)?;
                // Without force too: it is stopped.
                case.runtime.ok(&["delete", &id]).context(point)?;
                case.nothing_is_left_of(&id).context(point)?;
            }
            // The id is free, or the container whole.
            if wanted == "stopped" {
                case.runtime.ok(&["create", "--bundle", &path, &id]).context(point)?;
            }
            case.runtime.ok(&["start", &id]).context(point)?;
            case.gone(&id).context(point)?;
        }
    }
    Ok(())
}

fn a_create_that_fails_anywhere_leaves_nothing(case: &mut Case) -> Result<()> {
    for (kind, bundle) in case.bundles()?.iter().enumerate() {
        let path = text(&bundle.path)?.to_owned();
        for (index, point) in CREATE.into_iter().enumerate() {
            if kind == 1 && point == "create:hooks-run" {
                continue;
            }
            let id = case.id(&format!("e{kind}{}", point.replace(':', "-")));
            case.fails(point, ERRORS[index % 3], &["create", "--bundle", &path, &id])?;
            case.nothing_is_left_of(&id).context(point)?;
        }
    }
    Ok(())
}

fn a_start_that_is_killed_anywhere_tells_the_truth_and_can_be_deleted(case: &mut Case) -> Result<()> {
    let [program, worker] = case.bundles()?;
    for point in START_PROGRAM {
        let container = case.create(&program)?;
        case.killed(point, &["start", &container.id])?;
        let wanted = if point == "start:running" { "running" } else { "created" };
        case.becomes(&container.id, &[wanted]).context(point)?;
        if wanted == "created" {
            case.runtime.ok(&["start", &container.id]).context(point)?;
        }
        case.gone(&container.id).context(point)?;
    }
    for point in START {
        let container = case.create(&worker)?;
        let address = http::free_address()?;
        case.killed(point, &["start", "--listen", &format!("tcp://{address}"), &container.id])?;
        let born = ["start:forked", "start:reported", "start:running"].contains(&point);
        if born {
            // Whatever became of `start`, the worker belongs to its init.
            case.becomes(&container.id, &["running"]).context(point)?;
            ensure!(http::get(address, "/")?.status == 200, "{point}");
        } else {
            case.becomes(&container.id, &["created"]).context(point)?;
            let address = case.start_listening(&container).context(point)?;
            ensure!(http::get(address, "/")?.status == 200, "{point}");
        }
        case.gone(&container.id).context(point)?;
    }
    Ok(())
}

fn a_start_that_fails_anywhere_leaves_a_container_that_is_created_or_stopped(case: &mut Case) -> Result<()> {
    let [program, worker] = case.bundles()?;
    let container = case.create(&program)?;
    case.fails("start:loaded", ERRORS[0], &["start", &container.id])?;
    case.becomes(&container.id, &["created"])?;
    case.gone(&container.id)?;
    for (index, point) in START.into_iter().enumerate() {
        let container = case.create(&worker)?;
        case.fails(point, ERRORS[index % 3], &["start", &container.id])?;
        let born = ["start:forked", "start:reported"].contains(&point);
        match point {
            // It ran when it failed, which only a failing hook could bring about.
            "start:running" => drop(case.becomes(&container.id, &["running"]).context(point)?),
            _ if born => drop(case.becomes(&container.id, &["stopped"]).context(point)?),
            _ => {
                case.becomes(&container.id, &["created"]).context(point)?;
                case.runtime.ok(&["start", &container.id]).context(point)?;
            }
        }
        case.gone(&container.id).context(point)?;
    }
    Ok(())
}

fn an_exec_that_is_killed_or_fails_leaves_its_container_alone(case: &mut Case) -> Result<()> {
    let bundle = program(case)?;
    let container = case.start(&bundle)?;
    let exec = ["exec", "--detach", &container.id, "/bin/sleep", "1000"];
    for (point, error) in EXEC.into_iter().zip(ERRORS) {
        case.fails(point, error, &exec)?;
        case.becomes(&container.id, &["running"]).context(point)?;
        case.killed(point, &exec)?;
        case.becomes(&container.id, &["running"]).context(point)?;
    }
    // Init, and the process whose `exec` was killed after it ran.
    let printed = case.runtime.ok(&["ps", "--format", "json", &container.id])?;
    ensure!(serde_json::from_str::<Vec<i32>>(&printed.stdout)?.len() == 2, "{printed}");
    // A pid namespace ends when the last of its processes is reaped, and that one is a child of this program.
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    ensure!(wait::no_children(wait::STEP), "some processes of the container live on");
    case.gone(&container.id)
}

fn a_delete_that_is_killed_or_fails_anywhere_can_be_repeated(case: &mut Case) -> Result<()> {
    for bundle in case.bundles()? {
        for (index, point) in DELETE.into_iter().enumerate() {
            let container = case.create(&bundle)?;
            case.fails(point, ERRORS[index % 3], &["delete", "--force", &container.id])?;
            if point == "delete:removed" {
                case.nothing_is_left_of(&container.id)?;
            } else {
                case.becomes(&container.id, &["stopped"]).context(point)?;
                case.runtime.ok(&["delete", &container.id]).context(point)?;
                case.nothing_is_left_of(&container.id)?;
            }
            let container = case.start(&bundle)?;
            case.killed(point, &["delete", "--force", &container.id])?;
            if point != "delete:removed" {
                case.becomes(&container.id, &["stopped"]).context(point)?;
            }
            case.gone(&container.id).context(point)?;
        }
    }
    Ok(())
}

/// Lets a stopped call go on.
pub fn resume(running: &Running) -> Result<()> {
    kill(Pid::from_raw(running.pid()), Signal::SIGCONT).context("let the call go on")
}

fn a_delete_beside_a_create_waits_and_leaves_nothing(case: &mut Case) -> Result<()> {
    let bundle = program(case)?;
    let path = text(&bundle.path)?.to_owned();
    for point in CREATE {
        let id = case.id(&format!("race-{}", point.replace(':', "-")));
        let create = case.stopped_at(point, &["create", "--bundle", &path, &id])?;
        let state = case.runtime.call(&["state", &id])?;
        match serde_json::from_str::<Value>(&state.stdout) {
            // From the moment that init waits at the gate it can be called created.
            Ok(state) => {
                ensure!(state["status"] == "creating" || state["status"] == "created", "{point}: {state}")
            }
            Err(_) => drop(state.failure(&["does not exist"]).context(point)?),
        }
        let delete = case.runtime.spawn(&["delete", "--force", &id], None)?;
        resume(&create)?;
        // Either it was done before the `delete` came, or it noticed.
        create.finish()?;
        delete.finish()?.success().context(point)?;
        case.nothing_is_left_of(&id).context(point)?;
    }
    Ok(())
}

fn a_delete_beside_a_start_ends_it(case: &mut Case) -> Result<()> {
    let bundle = worker(case)?;
    for point in START {
        let container = case.create(&bundle)?;
        let start = case.stopped_at(point, &["start", &container.id])?;
        let delete = case.runtime.spawn(&["delete", "--force", &container.id], None)?;
        // It kills the container before it waits for `start` to let go of it.
        wait::child(container.pid, wait::STEP).context(point)?;
        resume(&start)?;
        start.finish()?;
        delete.finish()?.success().context(point)?;
        case.nothing_is_left_of(&container.id).context(point)?;
    }
    Ok(())
}

fn too_few_descriptors_fail_cleanly(case: &mut Case) -> Result<()> {
    let [program, worker] = case.bundles()?;
    // The default seed must not start with so few.
    case.runtime.ok(&["seed", "start", "default"])?;
    for bundle in [program, worker] {
        let path = text(&bundle.path)?.to_owned();
        let mut enough = false;
        for limit in 3..40 {
            let id = case.id(&format!("few{limit}"));
            let nofile = format!("--nofile={limit}:1024");
            case.runtime.run_through(&["prlimit", &nofile]);
            let create = case.runtime.call(&["create", "--bundle", &path, &id])?;
            let start = case.runtime.call(&["start", &id])?;
            case.runtime.run_through(&[]);
            match (create.status.success(), start.status.success()) {
                (false, true) => bail!("{limit}: {create}{start}"),
                (false, false) => {
                    // Not even the loader of the program may have had enough.
                    if create.stderr.contains("clearing up after that failed as well") {
                        case.becomes(&id, &["stopped"])?;
                        case.gone(&id)?;
                    } else {
                        case.nothing_is_left_of(&id)?;
                    }
                    continue;
                }
                (true, false) => {
                    start.failure(&["too many open files"])?;
                    case.becomes(&id, &["created", "stopped"])?;
                }
                (true, true) => {
                    case.becomes(&id, &["running"])?;
                    enough = true;
                }
            }
            case.gone(&id)?;
            if enough {
                break;
            }
        }
        ensure!(enough, "40 descriptors are too few");
    }
    Ok(())
}

fn missing_privileges_fail_cleanly(case: &mut Case) -> Result<()> {
    let bundle = program(case)?;
    let path = text(&bundle.path)?.to_owned();
    // Whoever lacks the right to search directories cannot even open the bundle, and needs no test.
    for capability in ["sys_admin", "setuid", "setgid", "setpcap", "mknod", "chown", "kill", "sys_chroot"] {
        let id = case.id(&format!("without-{capability}"));
        let drop_it = format!("-{capability}");
        case.runtime.run_through(&["setpriv", "--bounding-set", &drop_it, "--inh-caps", &drop_it]);
        let create = case.runtime.call(&["create", "--bundle", &path, &id])?;
        let start = create.status.success().then(|| case.runtime.call(&["start", &id])).transpose()?;
        case.runtime.run_through(&[]);
        match start {
            None => {
                create.failure(&["operation not permitted"])?;
                case.nothing_is_left_of(&id)?;
            }
            Some(start) => {
                let wanted = if start.status.success() { &["running"][..] } else { &["created", "stopped"] };
                case.becomes(&id, wanted).context(capability)?;
                case.gone(&id)?;
            }
        }
    }
    Ok(())
}

fn a_fault_that_does_not_exist_is_refused(case: &mut Case) -> Result<()> {
    case.arm("create:nowhere", "kill")?;
    case.runtime.refused(&["list"], &["faults", "create:nowhere"])?;
    case.disarm()
}
