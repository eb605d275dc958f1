//! Sandboxes that a pool holds ready: what becomes of them, and of connections that were promised to their workers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::pool::Pool;
use crate::case::Case;
use crate::http;
use crate::suite::tests;
use crate::{host, wait};

tests! { "keeper";
    Turf:
        a_sandbox_held_ready_is_a_created_container_and_is_replaced_when_it_is_deleted,
        what_was_forked_ahead_of_its_start_has_run_nothing_and_has_a_time_and_randomness_of_its_own,
        a_process_forked_ahead_that_is_killed_is_replaced,
        processes_forked_ahead_end_with_the_supervisor,
        a_connection_promised_to_a_worker_that_fails_is_served_by_another,
        disposable_workers_are_never_more_than_the_maximum,
        a_worker_whose_init_is_slow_to_go_costs_no_processor_time,
        a_pool_takes_as_many_connections_as_its_limit_of_open_files_allows,
        a_process_that_waits_to_begin_holds_few_descriptors;
}

const SCRIPT: &str = "\
addEventListener('fetch', (event) => {
  const path = new URL(event.request.url).pathname;
  if (path === '/slow') return event.respondWith(new Promise((done) =>
    setTimeout(() => done(new Response('slow')), 100)));
  event.respondWith(new Response('VERSION'));
});
";

/// The only container that is held ready, once there is one that is not `former`.
fn spare(case: &mut Case, former: &str) -> Result<String> {
    let end = Instant::now() + wait::STEP;
    loop {
        let listed = case.runtime.ok(&["list", "--quiet"])?.stdout;
        if let Some(id) = listed.lines().find(|id| *id != former) {
            return Ok(id.to_owned());
        }
        ensure!(Instant::now() < end, "no sandbox is made ready");
    }
}

fn a_sandbox_held_ready_is_a_created_container_and_is_replaced_when_it_is_deleted(
    case: &mut Case,
) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--max", "1"])?;
    let first = spare(case, "")?;
    // More often than init has room for who waits at its gate.
    for _ in 0..20 {
        let status = case.runtime.status(&first)?;
        ensure!(status == "created" || status == "creating", "{status}");
    }
    ensure!(case.runtime.status(&first)? == "created");
    case.runtime.ok(&["delete", "--force", &first])?;
    let lost = pool.wait_for_event("spare-lost")?;
    ensure!(lost["worker"] == first, "{lost}");
    let second = spare(case, &first)?;
    ensure!(http::get(pool.address, "/")?.text()? == "one");
    let ready = pool.wait_for_event("ready")?;
    ensure!(ready["worker"] == second, "{ready}");
    pool.drain(case)
}

/// The status once so many processes wait to be told to begin.
fn wait_for_ahead(pool: &Pool, case: &mut Case, count: u64) -> Result<serde_json::Value> {
    let end = Instant::now() + wait::STEP;
    loop {
        let status = pool.status(case)?;
        if status["ahead"] == count && status["spares"] == count {
            return Ok(status);
        }
        ensure!(Instant::now() < end, "there are not {count} processes forked ahead: {status}");
    }
}

/// The processes in the only sandbox that is held ready: its init, and its worker's if it has one.
fn inside_spare(case: &mut Case) -> Result<(i32, Option<i32>)> {
    let id = spare(case, "")?;
    let state: serde_json::Value = serde_json::from_str(&case.runtime.ok(&["state", &id])?.stdout)?;
    ensure!(state["status"] == "created", "{state}");
    let init = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("no pid")?;
    Ok((init, host::children_of(init).first().copied()))
}

fn what_was_forked_ahead_of_its_start_has_run_nothing_and_has_a_time_and_randomness_of_its_own(
    case: &mut Case,
) -> Result<()> {
    const REPORT: &str = "\
const loaded = Date.now();
addEventListener('fetch', (event) => event.respondWith(Response.json({
  loaded, origin: performance.timeOrigin, random: [Math.random(), crypto.randomUUID()].join(),
})));
";
    let flags = ["--disposable", "--max", "4", "--spare", "4", "--ahead", "4"];
    let pool = Pool::start(case, REPORT, &flags)?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        wait_for_ahead(&pool, case, 4)?;
        let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64() * 1e3;
        for _ in 0..4 {
            let said: serde_json::Value = serde_json::from_str(http::get(pool.address, "/")?.text()?)?;
            for time in ["loaded", "origin"] {
                // Clocks of a script are coarse.
                let at = said[time].as_f64().with_context(|| said.to_string())?;
                ensure!(at + 2.0 >= begun, "{time} is {} ms before the start", begun - at);
            }
            ensure!(seen.insert(said["random"].to_string()), "two have the same numbers: {said}");
        }
    }
    pool.drain(case)
}

fn a_process_forked_ahead_that_is_killed_is_replaced(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--max", "1"])?;
    wait_for_ahead(&pool, case, 1)?;
    let (_, forked) = inside_spare(case)?;
    kill(Pid::from_raw(forked.context("nothing is forked ahead")?), Signal::SIGKILL)?;
    pool.wait_for_event("spare-lost")?;
    wait_for_ahead(&pool, case, 1)?;
    ensure!(http::get(pool.address, "/")?.text()? == "one");
    pool.drain(case)
}

fn processes_forked_ahead_end_with_the_supervisor(case: &mut Case) -> Result<()> {
    let pool = Pool::start(case, SCRIPT, &["--max", "1"])?;
    let status = wait_for_ahead(&pool, case, 1)?;
    let id = spare(case, "")?;
    let supervisor = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("no pid")?;
    kill(Pid::from_raw(supervisor), Signal::SIGKILL)?;
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    pool.finish_follower()?;
    let end = Instant::now() + wait::STEP;
    while case.runtime.status(&id)? != "stopped" {
        ensure!(Instant::now() < end, "the worker that nobody can start any more lives on");
    }
    let second = Pool::run(case, &name, &script, address, &["--max", "1"])?;
    wait_for_ahead(&second, case, 1)?;
    ensure!(http::get(second.address, "/")?.text()? == "one");
    second.drain(case)
}

fn a_connection_promised_to_a_worker_that_fails_is_served_by_another(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, "throw new Error('not yet');", &["--disposable", "--max", "2"])?;
    let address = pool.address;
    let client = thread::spawn(move || http::get(address, "/"));
    pool.wait_for_event("exit")?;
    fs::write(&pool.script, SCRIPT)?;
    let response = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    ensure!(response.status == 200, "{response:?}");
    pool.drain(case)
}

fn disposable_workers_are_never_more_than_the_maximum(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--disposable", "--max", "2", "--spare", "2"])?;
    let address = pool.address;
    let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || http::get(address, "/slow"))).collect();
    for client in clients {
        let response = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(response.status == 200 && response.text()? == "slow", "{response:?}");
    }
    let (mut alive, mut most) = (0, 0);
    for _ in 0..16 {
        let event =
            pool.wait_for("start or exit", |event| event["event"] == "start" || event["event"] == "exit")?;
        alive += if event["event"] == "start" { 1 } else { -1 };
        most = most.max(alive);
    }
    ensure!(most == 2, "{most} workers at a time");
    pool.drain(case)
}

fn a_worker_whose_init_is_slow_to_go_costs_no_processor_time(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "1", "--spare", "0"])?;
    pool.wait_for_event("ready")?;
    let status = pool.status(case)?;
    let pid = |value: &serde_json::Value| -> Result<i32> {
        value.as_i64().and_then(|pid| i32::try_from(pid).ok()).with_context(|| format!("a pid in {status}"))
    };
    let worker = &status["workers"][0];
    let (supervisor, init, worker) =
        (pid(&status["pid"])?, pid(&worker["pid"])?, pid(&worker["worker_pid"])?);
    kill(Pid::from_raw(init), Signal::SIGSTOP)?;
    kill(Pid::from_raw(worker), Signal::SIGKILL)?;
    // Long enough for its own timers to have passed.
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    wait::readable_within(&never, Duration::from_millis(500));
    let before = host::cpu_seconds(supervisor)?;
    wait::readable_within(&never, Duration::from_millis(500));
    let used = host::cpu_seconds(supervisor)? - before;
    kill(Pid::from_raw(init), Signal::SIGCONT)?;
    ensure!(used < 0.1, "{used} s of 0.5 s");
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["signal"] == 9, "{exit}");
    pool.drain(case)
}

fn a_pool_takes_as_many_connections_as_its_limit_of_open_files_allows(case: &mut Case) -> Result<()> {
    const CONNECTIONS: usize = 1500;
    // The first of the two is less than are needed.
    case.runtime.run_through(&["prlimit", "--nofile=1024:4096", "--"]);
    let pool = Pool::start(case, SCRIPT, &["--max", "1", "--dispatch", "least"])?;
    case.runtime.run_through(&[]);
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = http::Client::connect(pool.address)?;
        ensure!(client.get("/")?.status == 200);
        clients.push(client);
    }
    for client in &mut clients {
        ensure!(client.get("/")?.text()? == "one");
    }
    drop(clients);
    pool.drain(case)
}

/// A sandbox without a process holds about twenty descriptors, one whose process waits less than half of them.
fn a_process_that_waits_to_begin_holds_few_descriptors(case: &mut Case) -> Result<()> {
    const AHEAD: u64 = 64;
    let count = AHEAD.to_string();
    case.runtime.run_through(&["prlimit", "--nofile=1024:1024", "--"]);
    let pool =
        Pool::start(case, SCRIPT, &["--disposable", "--max", &count, "--spare", &count, "--ahead", &count])?;
    case.runtime.run_through(&[]);
    let end = Instant::now() + wait::STEP;
    loop {
        let status = pool.status(case)?;
        if status["ahead"].as_u64() == Some(AHEAD) {
            break;
        }
        ensure!(Instant::now() < end, "not all are forked ahead: {status}");
    }
    ensure!(http::get(pool.address, "/")?.text()? == "one");
    pool.drain(case)
}
