//! A pool beside Node's cluster with as many workers: throughput of four kinds of request, memory of all processes
//! together; and how long the first connection to a pool without workers takes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::BenchArgs;
use super::load::parse_wrk;
use super::series::Report;
use crate::case::{Case, text};
use crate::tests::Pool;
use crate::{host, http, wait};

const SECTION: &str = "Pool beside Node's cluster";
const ZERO: &str = "First connection to a pool at zero";

/// As many workers as this machine has cores.
const WORKERS: &str = "2";

/// What a request does, and its path.
const ROWS: [(&str, &str); 3] =
    [("simple request", "/"), ("I/O bound: a wait of 5 ms", "/io"), ("I/O and fibonacci(30)", "/mixed")];

const FIBONACCI: &str = "const fibonacci = (n) => (n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2));\n";

const POOL: &str = "\
const later = () => new Promise((done) => setTimeout(done, 5));
addEventListener('fetch', (event) => {
  const path = new URL(event.request.url).pathname;
  if (path === '/') return event.respondWith(new Response('hello'));
  event.respondWith(later().then(() => new Response(path === '/io' ? 'done' : String(fibonacci(30)))));
});
";

const NODE: &str = "\
const cluster = require('cluster'), http = require('http');
if (cluster.isPrimary) {
  let up = 0;
  for (let i = 0; i < Number(process.argv[3]); i++) cluster.fork();
  cluster.on('listening', () => { if (++up === Number(process.argv[3])) console.log('up'); });
} else {
  http.createServer((request, response) => {
    response.setHeader('content-type', 'text/plain;charset=UTF-8');
    if (request.url === '/') return response.end('hello');
    setTimeout(() => response.end(request.url === '/io' ? 'done' : String(fibonacci(30))), 5);
  }).listen(Number(process.argv[2]), '127.0.0.1');
}
";

/// One side of the comparison.
struct Side {
    name: &'static str,
    address: SocketAddr,
    /// Its supervisor or primary.
    pid: i32,
    /// What else belongs to it: sandboxes' inits and the seed.
    others: Vec<i32>,
}

/// Throughput and memory.
pub fn beside_cluster(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let script = format!("{FIBONACCI}{POOL}");
    let mut pool = Pool::start(case, &script, &["--min", WORKERS, "--max", WORKERS, "--spare", "0"])?;
    for _ in 0..WORKERS.parse::<usize>()? {
        pool.wait_for_event("ready")?;
    }
    let status = pool.status(case)?;
    let pid_of = |value: &serde_json::Value| value.as_i64().and_then(|pid| i32::try_from(pid).ok());
    let supervisor = pid_of(&status["pid"]).context("the pool has no pid")?;
    let mut others = vec![crate::tests::seed_pid(case, "default")?];
    for worker in status["workers"].as_array().context("the pool has no workers")? {
        others.extend(pid_of(&worker["pid"]));
        others.extend(pid_of(&worker["worker_pid"]));
    }
    let mut sides = vec![Side { name: "turf pool", address: pool.address, pid: supervisor, others }];
    let node = Cluster::start(case.directory());
    match &node {
        Ok(node) => {
            let pid = node.child.id().cast_signed();
            let others = host::children_of(pid);
            sides.push(Side { name: "node cluster", address: node.address, pid, others });
        }
        Err(error) => report.note(format!("no comparison with Node's cluster: {error:#}")),
    }
    let memory = |side: &Side, when: &str, report: &mut Report| -> Result<()> {
        let mut pss = 0;
        for pid in side.others.iter().chain([&side.pid]) {
            pss += host::kilobytes(*pid, "smaps_rollup", "Pss")?;
        }
        report.add(SECTION, &format!("{}: PSS of all processes, {when}", side.name), "kB", pss as f64);
        Ok(())
    };
    for side in &sides {
        memory(side, "idle", report)?;
    }
    for round in 0..=arguments.rounds {
        for (row, path) in ROWS {
            for side in &sides {
                let rate = load(side.address, path)?;
                // The first round is for the compilers.
                if round > 0 {
                    report.add(SECTION, &format!("{}: {row}", side.name), "1/s", rate);
                }
            }
        }
    }
    for side in &sides {
        memory(side, "after the load", report)?;
    }
    drop(node);
    pool.drain(case)
}

fn load(address: SocketAddr, path: &str) -> Result<f64> {
    let url = format!("http://{address}{path}");
    let begun = Instant::now();
    let output =
        Command::new("wrk").args(["-t", "1", "-c", "32", "-d", "2s", &url]).output().context("run wrk")?;
    let elapsed = begun.elapsed().as_secs_f64();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !printed.contains("Non-2xx"), "wrk {url}: {printed}");
    ensure!(!printed.contains("Socket errors"), "wrk {url}: {printed}");
    Ok(parse_wrk(&printed).with_context(|| format!("wrk printed {printed}"))? / elapsed)
}

/// Node's cluster; it ends with this value.
struct Cluster {
    child: Child,
    address: SocketAddr,
}

impl Cluster {
    fn start(directory: &Path) -> Result<Cluster> {
        let script = directory.join("cluster.js");
        fs::write(&script, format!("{FIBONACCI}{NODE}"))?;
        let address = http::free_address()?;
        let (mut output, input) = std::io::pipe()?;
        let child = Command::new("node")
            .args([text(&script)?, &address.port().to_string(), WORKERS])
            .stdout(input)
            .stdin(Stdio::null())
            .spawn()
            .context("run node")?;
        let cluster = Cluster { child, address };
        ensure!(wait::line(&mut output, wait::STEP)? == "up", "node did not come up");
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The workers end when the primary does; it may have ended by itself.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Connects to a pool that has no worker and one sandbox ready, again and again.
pub fn from_zero(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let script = format!("{FIBONACCI}{POOL}");
    let mut pool = Pool::start(case, &script, &["--max", "1", "--idle-timeout", "20ms"])?;
    for _ in 0..arguments.starts.min(100) {
        let end = Instant::now() + wait::STEP;
        loop {
            let status = pool.status(case)?;
            let idle = status["workers"].as_array().is_some_and(Vec::is_empty);
            if idle && status["ahead"] == 1 {
                break;
            }
            ensure!(Instant::now() < end, "the pool did not go back to zero: {status}");
        }
        let (never, _writer) = std::io::pipe().context("make a pipe")?;
        wait::readable_within(&never, Duration::from_millis(50));
        let begun = Instant::now();
        let response = http::get(pool.address, "/")?;
        report.add(ZERO, "connect to answer", "ms", begun.elapsed().as_secs_f64() * 1e3);
        ensure!(response.status == 200, "{response:?}");
        pool.wait_for_event("exit")?;
    }
    pool.drain(case)
}
