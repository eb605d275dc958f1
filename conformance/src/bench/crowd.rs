//! Very many: a pool of a thousand workers, and ten thousand connections to a pool of two.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::BenchArgs;
use super::series::Report;
use crate::case::Case;
use crate::http::{self, Client};
use crate::tests::Pool;
use crate::{host, wait};

const WORKERS: &str = "Many workers in one pool";
const CONNECTIONS: &str = "Many connections to one pool";

const SCRIPT: &str = "addEventListener('fetch', (event) => event.respondWith(new Response('hello')));\n";

/// Requests to many workers.
const REQUESTS: usize = 1000;
/// For how long an idle pool is watched.
const IDLE: Duration = Duration::from_secs(1);
/// Descriptors for other things than connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// As many workers as were asked for, all alive at the same time.
pub fn workers(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let count = arguments.crowd;
    let begun_with = available_memory()?;
    let begun = Instant::now();
    let workers = count.to_string();
    let pool = Pool::start(case, SCRIPT, &["--min", &workers, "--max", &workers, "--spare", "0"])?;
    pool.ignore_events()?;
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    let end = Instant::now() + 8 * wait::STEP;
    let status = loop {
        let status = pool.status(case)?;
        let all = status["workers"].as_array().context("the status has no workers")?;
        if all.iter().filter(|worker| worker["phase"] == "serving").count() == count {
            break status;
        }
        ensure!(Instant::now() < end, "{} of {count} workers", all.len());
        wait::readable_within(&never, Duration::from_millis(200));
    };
    let mut add =
        |what: &str, unit, value: f64| report.add(WORKERS, &format!("{count} workers: {what}"), unit, value);
    add("made and started within", "s", begun.elapsed().as_secs_f64());
    let used = begun_with - available_memory()?;
    add("memory of the machine, each", "kB", used / count as f64);
    let supervisor = i32::try_from(status["pid"].as_i64().context("no pid")?)?;
    add(
        "private memory of the supervisor",
        "kB",
        host::kilobytes(supervisor, "smaps_rollup", "Private_Dirty")? as f64,
    );
    add("descriptors of the supervisor", "descriptors", host::open_fds(supervisor)? as f64);
    // The first second belongs to the looks that follow a start.
    wait::readable_within(&never, IDLE);
    let before = host::cpu_seconds(supervisor)?;
    wait::readable_within(&never, IDLE);
    add(
        "processor time of the supervisor in an idle second",
        "ms",
        (host::cpu_seconds(supervisor)? - before) * 1e3,
    );
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        ensure!(http::get(pool.address, "/")?.status == 200);
        add("connect to answer", "ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    let begun = Instant::now();
    pool.drain(case)?;
    report.add(WORKERS, &format!("{count} workers: drained within"), "s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Kept connections, each with two requests.
pub fn connections(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setrlimit")?;
    let wanted = arguments.connections;
    let count = wanted.min(usize::try_from(most.saturating_sub(OTHER_DESCRIPTORS))?);
    if count < wanted {
        report.note(format!("{count} connections, not {wanted}: the limit of open files is {most}"));
    }
    let pool = Pool::start(case, SCRIPT, &["--min", "2", "--max", "2", "--spare", "0"])?;
    let status = pool.status(case)?;
    let supervisor = i32::try_from(status["pid"].as_i64().context("no pid")?)?;
    let mut add = |what: &str, unit, value: f64| {
        report.add(CONNECTIONS, &format!("{count} connections: {what}"), unit, value);
    };
    http::get(pool.address, "/")?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let mut client = Client::connect(pool.address)?;
        ensure!(client.get("/")?.status == 200);
        add("connect to first answer", "ms", begun.elapsed().as_secs_f64() * 1e3);
        clients.push(client);
    }
    for client in &mut clients {
        let begun = Instant::now();
        ensure!(client.get("/")?.text()? == "hello");
        add("a further request", "ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    let workers = pool.status(case)?["workers"].as_array().cloned().context("the status has no workers")?;
    for worker in workers {
        let pid = i32::try_from(worker["worker_pid"].as_i64().context("a worker has no pid")?)?;
        add(
            "private memory of a worker",
            "kB",
            host::kilobytes(pid, "smaps_rollup", "Private_Dirty")? as f64,
        );
        add("connections of a worker", "connections", worker["connections"].as_f64().unwrap_or(0.0));
    }
    add(
        "private memory of the supervisor",
        "kB",
        host::kilobytes(supervisor, "smaps_rollup", "Private_Dirty")? as f64,
    );
    drop(clients);
    pool.drain(case)
}

/// What the kernel counts as available, in kB.
fn available_memory() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let value = host::find_field(&text, "MemAvailable").context("no MemAvailable")?;
    Ok(value.split_whitespace().next().context("no number")?.parse()?)
}
