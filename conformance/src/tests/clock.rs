//! The clock of the day is set forward and back by hours while seeds, workers and pools live: nothing ends, waits or is replaced
//! because of it, and whatever shows a date shows the right one.
//!
//! Only in a virtual machine of ours (`cargo xtask vm`), whose kernel is told so: other machines need their clock.

use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Pool;
use super::failure::seed_pid;
use crate::case::Case;
use crate::http::Client;
use crate::suite::{skip, tests};
use crate::wait;

tests! { "clock";
    Turf:
        a_worker_and_its_connections_live_through_a_jump,
        a_seed_and_a_pool_live_through_a_jump,
        a_jump_before_the_start_is_not_seen_by_the_worker;
}

/// The jumps, in seconds: neither is small beside any limit.
const JUMPS: [i64; 2] = [5 * 3600, -10 * 3600];

/// What counts as the same time, in seconds: an emulated machine is slow.
const SAME: f64 = 120.0;

/// Tells its times, and when its timer has ticked once more.
const TICKER: &str = "
const me = crypto.randomUUID();
let ticked = () => {};
setInterval(() => ticked(), 20);
addEventListener('fetch', (event) => event.respondWith((async () => {
  await new Promise((resolve) => { ticked = resolve; });
  return Response.json({ me, now: performance.now() / 1e3, origin: performance.timeOrigin / 1e3, date: Date.now() / 1e3 });
})()));
";

fn only_in_our_machine() -> Result<()> {
    match fs::read_to_string("/proc/cmdline")?.contains("turf.init=") {
        true => Ok(()),
        false => Err(skip("the clock of this machine is not for tests")),
    }
}

/// The default seed with a limit of its age. An emulated machine takes longer for its start than a test waits for anything else.
fn start_seed(case: &Case) -> Result<()> {
    let mut command = Command::new(case.runtime.program());
    command.arg("--root").arg(case.runtime.root());
    let started =
        command.args(["seed", "start", "--timeout", "10m", "--max-age", "1h", "default"]).status()?;
    ensure!(started.success(), "the seed does not start: {started}");
    Ok(())
}

fn wall() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

fn jump(seconds: i64) -> Result<()> {
    #[allow(clippy::cast_possible_truncation)]
    let then = wall()? as i64 + seconds;
    let set = Command::new("busybox").args(["date", "-s", &format!("@{then}")]).output()?;
    ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    ensure!((wall()? - then as f64).abs() < SAME, "the clock was not set");
    Ok(())
}

fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("no {name} in {said}"))
}

/// What the worker says on this connection, whose dates must be those of the clock; the one in the head is made anew each second.
fn ask(client: &mut Client) -> Result<Value> {
    let end = Instant::now() + wait::STEP;
    loop {
        let response = client.get("/")?;
        ensure!(response.status == 200, "{response:?}");
        let said: Value = serde_json::from_slice(&response.body)?;
        ensure!((number(&said, "date")? - wall()?).abs() < SAME, "Date.now(): {said}");
        let field = response.header("date").context("the response has no date")?.to_owned();
        let shown = Command::new("date").args(["+%s", "-d", &field]).output()?;
        let shown: f64 = String::from_utf8(shown.stdout)?.trim().parse().with_context(|| field.clone())?;
        if (shown - wall()?).abs() < SAME {
            return Ok(said);
        }
        ensure!(Instant::now() < end, "Date: {field}");
    }
}

fn a_worker_and_its_connections_live_through_a_jump(case: &mut Case) -> Result<()> {
    only_in_our_machine()?;
    start_seed(case)?;
    let bundle = case.worker(TICKER)?;
    let (container, address) = case.serve(&bundle)?;
    let mut client = Client::connect(address)?;
    let first = ask(&mut client)?;
    for seconds in JUMPS {
        jump(seconds)?;
        // The connection was idle meanwhile, and the timer goes on.
        let next = ask(&mut client).with_context(|| format!("after {seconds} s"))?;
        ensure!(next["me"] == first["me"] && next["origin"] == first["origin"], "{first} {next}");
        let passed = number(&next, "now")? - number(&first, "now")?;
        ensure!((0.0..SAME).contains(&passed), "performance.now() went on by {passed} s");
    }
    jump(-JUMPS.iter().sum::<i64>())?;
    case.remove(&container)
}

fn a_seed_and_a_pool_live_through_a_jump(case: &mut Case) -> Result<()> {
    only_in_our_machine()?;
    start_seed(case)?;
    let seed = seed_pid(case, "default")?;
    let pool = Pool::start(case, TICKER, &["--idle-timeout", "30m", "--max", "1"])?;
    let mut client = Client::connect(pool.address)?;
    let first = ask(&mut client)?;
    for seconds in JUMPS {
        jump(seconds)?;
        ensure!(ask(&mut client)?["me"] == first["me"], "after {seconds} s the worker is another");
        let bundle = case.worker(TICKER)?;
        let (container, address) = case.serve(&bundle)?;
        ask(&mut Client::connect(address)?)?;
        case.remove(&container)?;
        case.forget(&container.id);
        let listed: Vec<Value> =
            serde_json::from_str(&case.runtime.ok(&["seed", "list", "--format", "json"])?.stdout)?;
        let age = listed[0]["ageMs"].as_f64().context("the seed has no age")? / 1e3;
        ensure!(age < 3600.0 && seed_pid(case, "default")? == seed, "after {seconds} s: {listed:?}");
    }
    jump(-JUMPS.iter().sum::<i64>())?;
    ensure!(pool.status(case)?["exited"] == json!(0), "a worker has gone");
    drop(client);
    pool.drain(case)
}

fn a_jump_before_the_start_is_not_seen_by_the_worker(case: &mut Case) -> Result<()> {
    only_in_our_machine()?;
    start_seed(case)?;
    for seconds in JUMPS {
        let bundle = case.worker(TICKER)?;
        let container = case.create(&bundle)?;
        jump(seconds)?;
        let address = case.start_listening(&container)?;
        let said = ask(&mut Client::connect(address)?)?;
        ensure!((number(&said, "origin")? - wall()?).abs() < SAME, "{said}");
        case.remove(&container)?;
        case.forget(&container.id);
    }
    jump(-JUMPS.iter().sum::<i64>())
}
