//! Seeds that reach a limit, are replaced, killed, stopped, or refused a fork: each start ends in a worker that
//! answers or in a clear error, and the next one finds a seed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Pool;
use super::failure::seed_pid;
use super::worker::HELLO;
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "replace";
    Turf:
        a_seed_is_replaced_after_its_forks_and_no_start_is_lost,
        a_seed_is_replaced_at_the_first_start_after_its_age,
        a_pools_old_seed_is_replaced_without_a_start,
        a_seed_is_replaced_on_request_and_has_another_layout,
        a_replacement_that_does_not_start_leaves_the_old_seed,
        a_killed_userland_seed_is_started_again_with_its_script,
        a_stopped_userland_seed_is_not_started_again,
        a_seed_that_is_stopped_by_a_signal_is_replaced_and_the_start_succeeds,
        a_seed_that_dies_at_any_point_of_a_start_costs_no_start,
        a_seed_that_spins_is_ended_and_the_start_succeeds,
        a_seed_that_cannot_accept_is_ended_and_the_start_succeeds,
        a_pool_whose_seed_spins_serves,
        a_seed_that_sleeps_over_a_request_is_ended_and_the_start_succeeds,
        a_seed_that_is_slow_is_left_alone,
        an_init_that_dies_at_any_point_of_a_start_is_a_clear_error_and_the_seed_lives,
        a_start_that_its_containers_limit_of_processes_refuses_names_it_and_can_be_repeated,
        a_container_without_memory_for_a_worker_is_a_clear_error_and_the_seed_lives,
        a_worker_ends_when_its_init_and_its_relay_are_killed_at_once,
        a_seed_without_room_for_a_process_refuses_and_lives,
        a_seed_without_memory_refuses_or_is_replaced;
}

/// A script whose seed and whose worker can be told apart by what they answer.
const COUNTED: &str = "const drawn = Math.random();
addEventListener('fetch', (event) => event.respondWith(new Response(String(drawn))));\n";

fn patiently(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + wait::STEP;
    while !done()? {
        ensure!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
    Ok(())
}

impl Case {
    fn start_seed(&mut self, name: &str, source: &str, flags: &[&str]) -> Result<(Bundle, PathBuf)> {
        let script = self.directory().join(format!("{name}.js"));
        fs::write(&script, source)?;
        let arguments = [&["seed", "start", "--script", text(&script)?], flags, &[name]].concat();
        self.runtime.ok(&arguments)?;
        let mut bundle = self.worker(source)?;
        bundle.set("/annotations", json!({"io.turf.seed": name})).write()?;
        Ok((bundle, script))
    }

    /// One worker's answer.
    fn ask_one(&mut self, bundle: &Bundle) -> Result<String> {
        let (container, address) = self.serve(bundle)?;
        let answer = http::get(address, "/")?.text()?.to_owned();
        self.remove(&container)?;
        self.forget(&container.id);
        Ok(answer)
    }

    fn seed_log(&self, name: &str) -> String {
        let path = self.runtime.root().join("seeds").join(name).join("log");
        fs::read_to_string(path).unwrap_or_default()
    }
}

fn a_seed_is_replaced_after_its_forks_and_no_start_is_lost(case: &mut Case) -> Result<()> {
    let (bundle, _) = case.start_seed("few", COUNTED, &["--max-forks", "4"])?;
    let path = text(&bundle.path)?.to_owned();
    let (mut answers, mut seeds) = (HashSet::new(), HashSet::new());
    let end = Instant::now() + wait::STEP;
    let mut round = 0;
    while seeds.len() < 4 {
        ensure!(Instant::now() < end, "only {} generations in {round} rounds", seeds.len());
        round += 1;
        let addresses = (0..4).map(|_| http::free_address()).collect::<Result<Vec<_>>>()?;
        let mut starting = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let id = case.id(&format!("r{round}n{number}"));
            let listen = format!("tcp://{address}");
            let arguments = ["run", "--detach", "--listen", &listen, "--bundle", &path, &id];
            starting.push((case.runtime.spawn(&arguments, None)?, id));
        }
        for ((running, id), address) in starting.into_iter().zip(addresses) {
            running.finish()?.success().context("a start was lost")?;
            answers.insert(http::get(address, "/")?.text()?.to_owned());
            case.runtime.ok(&["delete", "--force", &id])?;
            case.forget(&id);
        }
        seeds.insert(seed_pid(case, "few")?);
    }
    ensure!(answers.len() >= 3, "the script ran {} times in {} seeds", answers.len(), seeds.len());
    patiently("the end of the former generations", || {
        let directory = case.runtime.root().join("seeds/few");
        let left = fs::read_dir(directory)?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('g'));
        Ok(left.count() <= 2)
    })
}

fn a_seed_is_replaced_at_the_first_start_after_its_age(case: &mut Case) -> Result<()> {
    let (bundle, _) = case.start_seed("old", COUNTED, &["--max-age", "1ms"])?;
    let first = seed_pid(case, "old")?;
    let answer = case.ask_one(&bundle)?;
    patiently("the replacement", || Ok(seed_pid(case, "old")? != first))?;
    ensure!(case.ask_one(&bundle)? != answer, "the script did not run again");
    let listed: Vec<Value> =
        serde_json::from_str(&case.runtime.ok(&["seed", "list", "--format", "json"])?.stdout)?;
    ensure!(listed[0]["maxAgeMs"] == 1, "{listed:?}");
    case.runtime.refused(&["seed", "start", "--max-age", "soon", "other"], &["soon"])?;
    case.runtime.refused(&["seed", "start", "--max-forks", "0", "other"], &["0"]).map(drop)
}

fn a_pools_old_seed_is_replaced_without_a_start(case: &mut Case) -> Result<()> {
    let (_, script) = case.start_seed("old", COUNTED, &["--max-age", "1s"])?;
    let flags = ["--seed", "old", "--min", "0", "--max", "1", "--ahead", "0"];
    let name = case.id("pool");
    case.forget(&name);
    let pool = Pool::run(case, &name, &script, http::free_address()?, &flags)?;
    // The second time shows that the new seed is watched, too.
    for _ in 0..2 {
        let old = seed_pid(case, "old")?;
        patiently("the replacement", || Ok(seed_pid(case, "old")? != old))?;
    }
    ensure!(pool.status(case)?["started"] == 0, "a worker was started");
    ensure!(http::get(pool.address, "/")?.status == 200);
    pool.drain(case)
}

fn a_seed_is_replaced_on_request_and_has_another_layout(case: &mut Case) -> Result<()> {
    let stacks = |pid: i32| -> Result<String> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let line = maps.lines().find(|line| line.ends_with("[stack]")).context("no stack")?;
        Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
    };
    case.runtime.refused(&["seed", "replace", "nobody"], &["nobody", "not running"])?;
    let (bundle, _) = case.start_seed("mine", COUNTED, &[])?;
    let (container, address) = case.serve(&bundle)?;
    let first = seed_pid(case, "mine")?;
    let layout = stacks(first)?;
    case.runtime.ok(&["seed", "replace", "mine"])?;
    let second = seed_pid(case, "mine")?;
    ensure!(second != first && stacks(second)? != layout, "the address layout is the old one");
    ensure!(http::get(address, "/")?.status == 200, "a worker of the old seed died");
    case.remove(&container)?;
    case.ask_one(&bundle).map(drop)
}

fn a_replacement_that_does_not_start_leaves_the_old_seed(case: &mut Case) -> Result<()> {
    let (bundle, script) = case.start_seed("mine", COUNTED, &["--max-forks", "1"])?;
    let seed = seed_pid(case, "mine")?;
    fs::write(&script, "this is no script")?;
    case.runtime.refused(&["seed", "replace", "mine"], &["SyntaxError"])?;
    let first = case.ask_one(&bundle)?;
    patiently("the attempt to replace it", || Ok(case.seed_log("mine").contains("replace seed mine")))?;
    ensure!(case.ask_one(&bundle)? == first, "another seed answers");
    ensure!(seed_pid(case, "mine")? == seed);
    Ok(())
}

fn a_killed_userland_seed_is_started_again_with_its_script(case: &mut Case) -> Result<()> {
    let (bundle, _) = case.start_seed("mine", COUNTED, &[])?;
    let first = case.ask_one(&bundle)?;
    let seed = seed_pid(case, "mine")?;
    kill(Pid::from_raw(seed), Signal::SIGKILL)?;
    wait::child(seed, wait::STEP)?;
    ensure!(case.ask_one(&bundle)? != first, "nothing ran again");
    ensure!(seed_pid(case, "mine")? != seed);
    Ok(())
}

fn a_stopped_userland_seed_is_not_started_again(case: &mut Case) -> Result<()> {
    let (bundle, _) = case.start_seed("mine", COUNTED, &[])?;
    case.runtime.ok(&["seed", "stop", "mine"])?;
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["seed mine", "not running"])?;
    ensure!(case.runtime.status(&container.id)? == "created");
    Ok(())
}

fn a_seed_that_is_stopped_by_a_signal_is_replaced_and_the_start_succeeds(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    kill(Pid::from_raw(seed), Signal::SIGSTOP)?;
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? != seed, "the stopped seed has forked");
    case.remove(&container)
}

fn a_seed_that_dies_at_any_point_of_a_start_costs_no_start(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        for point in ["start:seed-connected", "start:prepared", "start:forked", "start:reported"] {
            case.runtime.call(&["seed", "start", "default"])?;
            let container = case.create(&bundle)?;
            let address = http::free_address()?;
            let listen = format!("tcp://{address}");
            let start = case.stopped_at(point, &["start", "--listen", &listen, &container.id])?;
            let seed = seed_pid(case, "default")?;
            kill(Pid::from_raw(seed), signal)?;
            super::faults::resume(&start)?;
            start.finish()?.success().with_context(|| format!("{point} {signal}"))?;
            ensure!(http::get(address, "/")?.status == 200, "{point} {signal}");
            case.remove(&container)?;
            // One that has not been asked since is stopped still.
            let _ = kill(Pid::from_raw(seed), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Starts the seed of a name, or another in its place, that comes to a fault which its successors do not have; its pid.
fn faulty_seed(case: &mut Case, verb: &str, name: &str, fault: (&str, &str)) -> Result<i32> {
    case.arm(fault.0, fault.1)?;
    let started = case.runtime.ok(&["seed", verb, name]);
    case.disarm()?;
    started?;
    seed_pid(case, name)
}

fn a_seed_that_spins_is_ended_and_the_start_succeeds(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (older, older_address) = case.serve(&bundle)?;
    for point in ["seed:asked", "seed:forked"] {
        let seed = faulty_seed(case, "replace", "default", (point, "spin"))?;
        let (container, address) = case.serve(&bundle).context(point)?;
        ensure!(http::get(address, "/")?.status == 200, "{point}");
        // Its connection closes some steps before its end.
        patiently("the end of the seed that spins", || {
            Ok(!host::processes().iter().any(|process| process.pid == seed && process.state != 'Z'))
        })?;
        let (next, next_address) = case.serve(&bundle).context(point)?;
        ensure!(seed_pid(case, "default")? != seed && http::get(next_address, "/")?.status == 200, "{point}");
        ensure!(http::get(older_address, "/")?.status == 200, "{point}: another worker has ended");
        case.remove(&container)?;
        case.remove(&next)?;
    }
    case.remove(&older)
}

fn a_seed_that_cannot_accept_is_ended_and_the_start_succeeds(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let open = host::open_fds(seed)?;
    let limited = Command::new("prlimit")
        .args([format!("--pid={seed}"), format!("--nofile={open}:{open}")])
        .status()
        .context("run prlimit")?;
    ensure!(limited.success(), "prlimit: {limited}");
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? != seed, "the seed had a descriptor left");
    case.remove(&container)
}

fn a_pool_whose_seed_spins_serves(case: &mut Case) -> Result<()> {
    let script = case.directory().join("hello.js");
    fs::write(&script, HELLO)?;
    let seed = faulty_seed(case, "start", "wild", ("seed:asked", "spin"))?;
    let flags = ["--seed", "wild", "--min", "1", "--max", "2", "--ahead", "1"];
    let name = case.id("pool");
    case.forget(&name);
    let pool = Pool::run(case, &name, &script, http::free_address()?, &flags)?;
    ensure!(http::get(pool.address, "/")?.status == 200);
    ensure!(seed_pid(case, "wild")? != seed);
    pool.drain(case)
}

fn a_seed_that_sleeps_over_a_request_is_ended_and_the_start_succeeds(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let seed = faulty_seed(case, "start", "default", ("seed:asked", "sleep 3600000"))?;
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? != seed);
    case.remove(&container)
}

fn a_seed_that_is_slow_is_left_alone(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    // Longer than a seed may use the processor.
    let seed = faulty_seed(case, "start", "default", ("seed:asked", "sleep 1500"))?;
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? == seed, "the seed was replaced");
    case.remove(&container)
}

fn an_init_that_dies_at_any_point_of_a_start_is_a_clear_error_and_the_seed_lives(
    case: &mut Case,
) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    for point in ["start:loaded", "start:seed-connected", "start:prepared", "start:forked"] {
        let container = case.create(&bundle)?;
        let start = case.stopped_at(point, &["start", &container.id])?;
        kill(Pid::from_raw(container.pid), Signal::SIGKILL)?;
        wait::child(container.pid, wait::STEP)?;
        super::faults::resume(&start)?;
        let finished = start.finish()?;
        // The worker may have said that it runs before it died with its sandbox.
        ensure!(!finished.status.success() || point == "start:forked", "{point}: {finished}");
        if !finished.status.success() {
            finished.failure(&[]).context(point)?;
        }
        ensure!(case.runtime.status(&container.id)? == "stopped", "{point}");
        case.runtime.ok(&["delete", &container.id])?;
        ensure!(seed_pid(case, "default")? == seed && host::children_of(seed).is_empty(), "{point}");
    }
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? == seed, "the seed was replaced");
    case.remove(&container)
}

fn a_worker_ends_when_its_init_and_its_relay_are_killed_at_once(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.without_namespace("pid");
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let group = host::cgroup_file(container.pid, "devices", "cgroup.procs", "cgroup.procs")?;
    let members = fs::read_to_string(&group)?;
    let members: Vec<i32> = members.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(members.len() == 2, "the container's group has {members:?}");
    let worker = members.into_iter().find(|pid| *pid != container.pid).context("no worker")?;
    let all = host::processes();
    let relay = all.iter().find(|process| process.pid == worker).context("the worker has gone")?.parent;
    ensure!(host::command_line(relay).contains("turf-seed"), "{}", host::command_line(relay));
    // Stopped, it cannot do what it is for.
    kill(Pid::from_raw(relay), Signal::SIGSTOP)?;
    kill(Pid::from_raw(container.pid), Signal::SIGKILL)?;
    kill(Pid::from_raw(relay), Signal::SIGKILL)?;
    wait::child(container.pid, wait::STEP)?;
    patiently("the end of the worker", || {
        Ok(!host::processes().iter().any(|process| process.pid == worker && process.state != 'Z'))
    })?;
    ensure!(case.runtime.status(&container.id)? == "stopped");
    case.runtime.ok(&["delete", &container.id])?;
    case.forget(&container.id);
    ensure!(!group.exists(), "{} is left", group.display());
    Ok(())
}

/// A control group of the test's own that a seed is put into.
struct Group {
    path: PathBuf,
    parent: PathBuf,
}

impl Group {
    fn new(controller: &str) -> Result<Group> {
        let parent = [format!("/sys/fs/cgroup/{controller}"), "/sys/fs/cgroup".to_owned()];
        let parent = parent.into_iter().map(PathBuf::from).find(|path| path.join("cgroup.procs").exists());
        let parent = parent.with_context(|| format!("no hierarchy with {controller}"))?;
        let path = parent.join(format!("seedtest{}", std::process::id()));
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Group { path, parent })
    }

    fn take(&self, pid: i32) -> Result<()> {
        write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    fn set(&self, files: [&str; 2], value: &str) -> Result<()> {
        let file = files.into_iter().map(|name| self.path.join(name)).find(|path| path.exists());
        write(&file.context("no such limit")?, value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let processes = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.path);
    }
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {value} to {}", path.display()))
}

fn a_seed_without_room_for_a_process_refuses_and_lives(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let group = Group::new("pids")?;
    group.set(["pids.max"; 2], "1")?;
    group.take(seed)?;
    let container = case.create(&bundle)?;
    let words = ["the helper of the fork", "room for 3 processes", "try again"];
    case.runtime.refused(&["start", &container.id], &words)?;
    ensure!(case.runtime.status(&container.id)? == "created");
    group.set(["pids.max"; 2], "2")?;
    case.runtime.refused(&["start", &container.id], &["try again"])?;
    group.set(["pids.max"; 2], "max")?;
    case.runtime.ok(&["start", &container.id])?;
    ensure!(seed_pid(case, "default")? == seed, "the seed was replaced");
    ensure!(host::children_of(seed).is_empty(), "the seed has children");
    case.remove(&container)
}

fn a_start_that_its_containers_limit_of_processes_refuses_names_it_and_can_be_repeated(
    case: &mut Case,
) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/linux/resources", json!({"pids": {"limit": 2}}));
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["linux.resources.pids.limit", "try again"])?;
    ensure!(case.runtime.status(&container.id)? == "created");
    case.runtime.ok(&["update", "--pids-limit", "16", &container.id])?;
    let address = case.start_listening(&container)?;
    ensure!(http::get(address, "/")?.status == 200);
    case.remove(&container)
}

fn a_container_without_memory_for_a_worker_is_a_clear_error_and_the_seed_lives(
    case: &mut Case,
) -> Result<()> {
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/linux/resources", json!({"memory": {"limit": 64 << 20}}));
    for round in 0..6 {
        let container = case.create(&bundle)?;
        // What init has, and a page: the kernel kills the worker or init, and whoever is about to fork in there with it.
        let file = |v1, v2| host::cgroup_file(container.pid, "memory", v1, v2);
        let used = fs::read_to_string(file("memory.usage_in_bytes", "memory.current")?)?;
        let limit = used.trim().parse::<u64>()? + 4096;
        write(&file("memory.limit_in_bytes", "memory.max")?, &limit.to_string())?;
        let start = case.runtime.call(&["start", &container.id])?;
        // The kernel may have counted more for init than it has: then there is room.
        if !start.status.success() {
            ensure!(start.stderr.contains("error: "), "round {round}: {start}");
            // An init that is killed has gone a moment later.
            patiently("an end of the start", || {
                Ok(matches!(case.runtime.status(&container.id)?.as_str(), "created" | "stopped"))
            })?;
        }
        case.runtime.ok(&["delete", "--force", &container.id])?;
        case.forget(&container.id);
        let listed: Vec<Value> =
            serde_json::from_str(&case.runtime.ok(&["seed", "list", "--format", "json"])?.stdout)?;
        ensure!(listed[0]["status"] == "ready", "round {round}: {start} {listed:?}");
    }
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(seed_pid(case, "default")? == seed, "the seed was replaced");
    case.remove(&container)
}

fn a_seed_without_memory_refuses_or_is_replaced(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let group = Group::new("memory")?;
    group.set(["memory.limit_in_bytes", "memory.max"], "262144")?;
    let begun = Instant::now();
    let mut failures = 0;
    for _ in 0..4 {
        group.take(seed_pid(case, "default")?)?;
        let container = case.create(&bundle)?;
        let start = case.runtime.call(&["start", &container.id])?;
        if !start.status.success() {
            failures += 1;
            start.failure(&[])?;
            ensure!(matches!(case.runtime.status(&container.id)?.as_str(), "created" | "stopped"));
        }
        case.runtime.ok(&["delete", "--force", &container.id])?;
    }
    ensure!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    group.set(["memory.limit_in_bytes", "memory.max"], "1073741824")?;
    let (container, address) = case.serve(&bundle).with_context(|| format!("after {failures} failures"))?;
    ensure!(http::get(address, "/")?.status == 200);
    case.remove(&container)
}
