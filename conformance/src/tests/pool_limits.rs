//! What ends a pool's workers and its supervisor on purpose: limits, an upgrade, disposable sandboxes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::pool::{Load, Pool, SCRIPT};
use crate::case::Case;
use crate::http::{self, Client};
use crate::suite::tests;

tests! { "pool";
    Turf:
        turf_is_upgraded_under_load_and_no_request_is_lost,
        a_disposable_worker_serves_one_connection,
        a_worker_goes_after_its_requests_and_none_is_lost,
        a_worker_that_native_code_holds_is_killed,
        a_worker_that_does_not_begin_is_killed_and_holds_up_no_drain,
        a_death_costs_no_request_of_another_worker;
}

fn ready(pool: &mut Pool, count: usize) -> Result<Vec<String>> {
    (0..count)
        .map(|_| Ok(pool.wait_for_event("ready")?["worker"].as_str().context("no id")?.to_owned()))
        .collect()
}

fn turf_is_upgraded_under_load_and_no_request_is_lost(case: &mut Case) -> Result<()> {
    let flags = ["--min", "2", "--max", "2"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    let old = ready(&mut pool, 2)?;
    let load = Load::on(pool.address, 4);
    load.wait_for_answers(100)?;
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    case.runtime.ok(&["pool", "release", &name])?;
    pool.wait_for_event("released")?;
    pool.finish_follower()?;
    // Nobody supervises, and the old program is not needed any more.
    load.wait_for_answers(100)?;
    let mut second = Pool::run(case, &name, &script, address, &flags)?;
    let adopted = second.wait_for_event("adopted")?;
    ensure!(adopted["workers"] == 2, "{adopted}");
    second.wait_for_event("reloaded")?;
    load.wait_for_answers(100)?;
    load.finish()?;
    let status = second.status(case)?;
    let workers = status["workers"].as_array().context("no workers")?;
    let is_old = |worker: &Value| old.iter().any(|id| worker["id"] == **id && worker["phase"] == "serving");
    ensure!(!workers.iter().any(is_old) && status["refused"] == 0 && status["failed"] == 0, "{status:#}");
    second.drain(case)
}

fn a_disposable_worker_serves_one_connection(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--disposable", "connection", "--max", "4"])?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(pool.address)?;
        let first = client.get("/me")?.text()?.to_owned();
        for _ in 0..2 {
            let again = client.get("/me")?;
            ensure!(again.text()? == first && again.header("connection") != Some("close"), "{again:?}");
        }
        ensure!(!seen.contains(&first), "a sandbox has served two connections");
        seen.push(first);
        drop(client);
        let exit = pool.wait_for_event("exit")?;
        ensure!(exit["requests"] == 3 && exit["expected"] == true && exit["status"] == 0, "{exit}");
    }
    pool.drain(case)
}

fn a_worker_goes_after_its_requests_and_none_is_lost(case: &mut Case) -> Result<()> {
    let flags = ["--min", "2", "--max", "2", "--max-requests", "200"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    let load = Load::on(pool.address, 4);
    let mut limits = Vec::new();
    for _ in 0..6 {
        let exit = pool.wait_for_event("exit")?;
        ensure!(
            exit["reason"] == "has served as many requests as it may" && exit["expected"] == true,
            "{exit}"
        );
        limits.push(exit["requests"].as_u64().context("no requests")?);
    }
    load.finish()?;
    // Each has its own limit, so that not all of a pool go at once.
    limits.sort_unstable();
    limits.dedup();
    ensure!(limits.len() > 1 && limits.iter().all(|served| (100..400).contains(served)), "{limits:?}");
    pool.drain(case)
}

fn a_worker_that_native_code_holds_is_killed(case: &mut Case) -> Result<()> {
    // Minutes of hashing in one call, which nothing can interrupt.
    let script = "\
addEventListener('fetch', (event) => event.respondWith(hold(event.request)));
async function hold({ url }) {
  if (!url.endsWith('/hold')) return new Response('fine');
  const key = await crypto.subtle.importKey('raw', new Uint8Array(8), 'PBKDF2', false, ['deriveBits']);
  const salt = new Uint8Array(8);
  await crypto.subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-512', salt, iterations: 2 ** 31 - 1 }, key, 512);
}
";
    let mut pool = Pool::start(case, script, &["--min", "1", "--max", "1", "--timeout", "300ms"])?;
    pool.wait_for_event("ready")?;
    ensure!(http::get(pool.address, "/hold").is_err(), "an answer of a worker that was held");
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "did not yield" && exit["signal"] == 9, "{exit}");
    ensure!(exit["request"].as_str().is_some_and(|request| request.contains("/hold")), "{exit}");
    pool.wait_for_event("ready")?;
    ensure!(http::get(pool.address, "/")?.text()? == "fine");
    pool.drain(case)
}

fn a_worker_that_does_not_begin_is_killed_and_holds_up_no_drain(case: &mut Case) -> Result<()> {
    let script = "\
addEventListener('install', (event) => event.waitUntil(new Promise((done) => setTimeout(done, 3_600_000))));
addEventListener('fetch', (event) => event.respondWith(new Response('never')));
";
    // A drain may last longer than this test waits for its end.
    let flags = ["--min", "1", "--max", "1", "--init-timeout", "500ms", "--drain-timeout", "1h"];
    let mut pool = Pool::start(case, script, &flags)?;
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "did not serve within its init timeout" && exit["signal"] == 9, "{exit}");
    pool.wait_for_event("start")?;
    pool.drain(case)
}

/// How a worker comes to its end.
#[derive(Clone, Copy)]
enum Death {
    /// A request takes all memory.
    Memory,
    /// An error outside of requests.
    Error,
    /// A signal from outside.
    Signal,
}

fn a_death_costs_no_request_of_another_worker(case: &mut Case) -> Result<()> {
    let script = SCRIPT.replace("new Response(me)", "new Response(Aworker.pool.id)")
        + "Aworker.pool.onmessage = () => { throw new Error('as told'); };\n";
    let flags = ["--min", "2", "--max", "2", "--dispatch", "rr"];
    let mut pool = Pool::start(case, &script, &flags)?;
    die_beside_others(case, &mut pool, Death::Memory, "out of memory: the JavaScript heap's limit")?;
    die_beside_others(case, &mut pool, Death::Error, "uncaught error")?;
    die_beside_others(case, &mut pool, Death::Signal, "killed by a signal")?;
    pool.drain(case)?;
    let mut pool = Pool::start(case, &script, &[&flags[..], &["--memory", "96M"]].concat())?;
    die_beside_others(case, &mut pool, Death::Memory, "out of memory: the control group's limit")?;
    pool.drain(case)
}

/// One of two workers dies while clients of the other ask without a pause.
fn die_beside_others(case: &mut Case, pool: &mut Pool, death: Death, reason: &str) -> Result<()> {
    while pool.workers(case)?.iter().filter(|worker| worker["phase"] == "serving").count() < 2 {
        pool.wait_for_event("ready")?;
    }
    let mut victim = Client::connect(pool.address)?;
    let victims_worker = victim.get("/me")?.text()?.to_owned();
    let (mut others, stop) = (Vec::new(), AtomicBool::new(false));
    while others.len() < 2 {
        let mut client = Client::connect(pool.address)?;
        if client.get("/me")?.text()? != victims_worker {
            others.push(client);
        }
    }
    thread::scope(|scope| {
        let ask = |mut client: Client| {
            let mut answers = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                ensure!(client.get("/")?.status == 200);
                answers += 1;
            }
            Ok(answers)
        };
        let asking: Vec<_> = others.into_iter().map(|client| scope.spawn(move || ask(client))).collect();
        let died = (|| {
            match death {
                Death::Memory => ensure!(victim.get("/heap").is_err(), "an answer without memory"),
                Death::Error => {
                    let name = pool.name().to_owned();
                    case.runtime.ok(&["pool", "send", &name, "null", "--to", &victims_worker])?;
                }
                Death::Signal => kill(pid_of(case, pool, &victims_worker)?, Signal::SIGKILL)?,
            }
            pool.wait_for_event("exit")
        })();
        stop.store(true, Ordering::Relaxed);
        for asking in asking {
            let answers = asking.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            ensure!(answers.with_context(|| format!("beside a death: {reason}"))? > 0, "nobody was asked");
        }
        let exit = died?;
        ensure!(exit["reason"] == reason && exit["worker"] == *victims_worker, "{exit}");
        Ok(())
    })
}

fn pid_of(case: &mut Case, pool: &Pool, worker: &str) -> Result<Pid> {
    let workers = pool.workers(case)?;
    let this = workers.iter().find(|one| one["id"] == worker).context("no such worker")?;
    Ok(Pid::from_raw(i32::try_from(this["worker_pid"].as_i64().context("the worker has no pid")?)?))
}
