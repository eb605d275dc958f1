//! What goes wrong around a container: killed commands, killed seeds, state directories that cannot be written to.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::worker::{HELLO, worker_of};
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{http, wait};

tests! { "failure";
    Turf:
        a_killed_seed_is_replaced_and_its_workers_live_on,
        a_stopped_seed_leaves_its_workers_alone,
        start_that_is_killed_leaves_a_true_state,
        create_that_is_killed_leaves_nothing_that_delete_cannot_remove,
        a_full_state_directory_fails_create_and_leaves_nothing,
        a_read_only_state_directory_fails_create_and_leaves_nothing,
        an_init_that_is_killed_is_a_stopped_container,
        two_racing_starts_have_one_winner,
        two_racing_creates_have_one_winner;
}

/// At how many different moments a command is killed.
const MOMENTS: u64 = 24;

/// The pid that a seed wrote about itself.
pub fn seed_pid(case: &Case, name: &str) -> Result<i32> {
    let path = case.runtime.root().join("seeds").join(name).join("current/state.json");
    let state: Value = serde_json::from_slice(&fs::read(&path).context("read the seed's state")?)?;
    Ok(i32::try_from(state["pid"].as_i64().context("the seed's state has no pid")?)?)
}

fn a_killed_seed_is_replaced_and_its_workers_live_on(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (first, first_address) = case.serve(&bundle)?;
    let seed = seed_pid(case, "default")?;
    kill(Pid::from_raw(seed), Signal::SIGKILL).context("kill the seed")?;
    wait::child(seed, wait::STEP)?;
    ensure!(http::get(first_address, "/")?.status == 200, "the worker died with its seed");
    let (second, second_address) = case.serve(&bundle)?;
    ensure!(http::get(second_address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? != seed, "the dead seed was not replaced");
    case.remove(&first)?;
    case.remove(&second)
}

fn a_stopped_seed_leaves_its_workers_alone(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    case.runtime.ok(&["seed", "stop", "default"])?;
    ensure!(http::get(address, "/")?.status == 200, "the worker died with its seed");
    case.remove(&container)
}

/// Runs a verb and kills it `moment` steps after it began; whether it had ended before.
fn kill_within(case: &mut Case, arguments: &[&str], moment: u64) -> Result<bool> {
    let running = case.runtime.spawn(arguments, None)?;
    // The moment is the subject here: nothing is waited for.
    thread::sleep(Duration::from_micros(250 * moment));
    kill(Pid::from_raw(running.pid()), Signal::SIGKILL).context("kill the command")?;
    Ok(running.finish()?.status.code().is_some())
}

fn start_that_is_killed_leaves_a_true_state(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    for moment in 0..MOMENTS {
        let container = case.create(&bundle)?;
        let address = http::free_address()?;
        let listen = format!("tcp://{address}");
        kill_within(case, &["start", "--listen", &listen, &container.id], moment)?;
        match case.runtime.status(&container.id)?.as_str() {
            "created" => {
                // Either it can be started as if nothing had been tried, or the worker was being born just then.
                let second = http::free_address()?;
                let start =
                    case.runtime.call(&["start", "--listen", &format!("tcp://{second}"), &container.id])?;
                let answers = if start.status.success() { second } else { address };
                ensure!(case.runtime.status(&container.id)? == "running", "moment {moment}: {start}");
                ensure!(http::get(answers, "/")?.status == 200);
                worker_of(&container)?;
            }
            "running" => {
                ensure!(http::get(address, "/")?.status == 200, "it is said to run and does not answer")
            }
            "stopped" => drop(case.wait(&container)?),
            other => anyhow::bail!("status {other} after start was killed at moment {moment}"),
        }
        case.runtime.ok(&["delete", "--force", &container.id])?;
    }
    Ok(())
}

fn create_that_is_killed_leaves_nothing_that_delete_cannot_remove(case: &mut Case) -> Result<()> {
    for moment in 0..MOMENTS {
        let bundle = if moment % 2 == 0 { case.worker(HELLO)? } else { case.shell("exit 0")? };
        bundle.write()?;
        let id = case.id(&format!("cut{moment}"));
        kill_within(case, &["create", "--bundle", text(&bundle.path)?, &id], moment)?;
        case.runtime.ok(&["delete", "--force", &id])?;
        case.runtime.refused(&["state", &id], &["does not exist"])?;
        // The id is free again.
        let container = case.create_as(&bundle, &id)?;
        case.runtime.ok(&["delete", "--force", &container.id])?;
    }
    Ok(())
}

/// Puts a small tmpfs on the state directory for the time of one refused `create`.
fn create_on(case: &mut Case, options: &str, flags: MsFlags, fill: bool, words: &[&str]) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    bundle.write()?;
    let (id, root) = (case.id("nospace"), case.runtime.root().to_owned());
    fs::create_dir_all(&root)?;
    mount(Some("tmpfs"), &root, Some("tmpfs"), flags, Some(options)).context("mount a small tmpfs")?;
    if fill {
        // Fails when the file system is full, which is the point.
        let _ = fs::write(root.join("ballast"), vec![1; 1 << 20]);
    }
    let refused = case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], words);
    let left = case.leaks();
    umount(&root).context("unmount the small tmpfs")?;
    refused?;
    let left: Vec<String> = left?.into_iter().filter(|leak| !leak.starts_with("mount")).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn a_full_state_directory_fails_create_and_leaves_nothing(case: &mut Case) -> Result<()> {
    create_on(case, "size=64k", MsFlags::empty(), true, &["no space left on device"])?;
    create_on(case, "size=64k,nr_inodes=3", MsFlags::empty(), false, &["no space left on device"])
}

fn a_read_only_state_directory_fails_create_and_leaves_nothing(case: &mut Case) -> Result<()> {
    create_on(case, "size=64k", MsFlags::MS_RDONLY, false, &["read-only file system"])
}

fn an_init_that_is_killed_is_a_stopped_container(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let created = case.create(&bundle)?;
    let (running, _) = case.serve(&bundle)?;
    for container in [&created, &running] {
        kill(Pid::from_raw(container.pid), Signal::SIGKILL).context("kill init")?;
        case.wait(container)?;
        ensure!(case.runtime.status(&container.id)? == "stopped");
        case.runtime.refused(&["start", &container.id], &["stopped"])?;
        case.runtime.ok(&["delete", &container.id])?;
    }
    Ok(())
}

fn two_racing_starts_have_one_winner(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    for _ in 0..8 {
        let container = case.create(&bundle)?;
        let verbs = [
            case.runtime.spawn(&["start", &container.id], None)?,
            case.runtime.spawn(&["start", &container.id], None)?,
        ];
        let ended = verbs.into_iter().map(crate::runtime::Running::finish).collect::<Result<Vec<_>>>()?;
        let winners = ended.iter().filter(|finished| finished.status.success()).count();
        ensure!(winners == 1, "{winners} starts won: {} / {}", ended[0], ended[1]);
        ensure!(case.runtime.status(&container.id)? == "running");
        case.remove(&container)?;
    }
    Ok(())
}

fn two_racing_creates_have_one_winner(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exec sleep 1000")?;
    bundle.write()?;
    for round in 0..8 {
        let id = case.id(&format!("race{round}"));
        let arguments = ["create", "--bundle", text(&bundle.path)?, &id];
        let verbs = [case.runtime.spawn(&arguments, None)?, case.runtime.spawn(&arguments, None)?];
        let ended = verbs.into_iter().map(crate::runtime::Running::finish).collect::<Result<Vec<_>>>()?;
        let winners = ended.iter().filter(|finished| finished.status.success()).count();
        ensure!(winners == 1, "{winners} creates won: {} / {}", ended[0], ended[1]);
        ensure!(case.runtime.status(&id)? == "created");
        case.runtime.ok(&["delete", "--force", &id])?;
    }
    Ok(())
}
