//! A pool beside Node's cluster with as many workers: gopool's four rows (idle, a simple request, I/O, I/O and `fibonacci(30)`;
//! its npm package has no scripts for them, and a wait stands for its database), memory of all processes together; and how
//! long the first connection to a pool without workers takes.
//!
//! Servers and generator share the machine, so that it is the processors that are used up: rates then follow what a request
//! costs, the generator's part of it included, which is the same for both.

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

/// As many workers as this machine has cores: the number whose throughput is compared.
const WORKERS: usize = 2;

/// Numbers of workers whose memory is compared.
const MEMORY_WORKERS: [usize; 3] = [WORKERS, 4, 8];

/// One kind of request.
struct Row {
    name: &'static str,
    path: &'static str,
    /// Connections at a time: so many that the processors are used up, not the time that requests wait.
    connections: &'static str,
}

const ROWS: [Row; 3] = [
    Row { name: "simple request", path: "/", connections: "64" },
    Row { name: "I/O bound: a wait of 5 ms", path: "/io", connections: "1024" },
    Row { name: "I/O and fibonacci(30)", path: "/mixed", connections: "64" },
];

/// How long after the end of a load its memory is looked at a second time.
const QUIET: Duration = Duration::from_secs(1);

/// Threads of the generator: as many as there are cores, so that it can use what servers leave.
const GENERATORS: &str = "2";

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
    workers: Vec<i32>,
    /// What else belongs to it: sandboxes' inits and the seed.
    others: Vec<i32>,
}

impl Side {
    fn processes(&self) -> impl Iterator<Item = i32> + '_ {
        [self.pid].into_iter().chain(self.workers.iter().copied()).chain(self.others.iter().copied())
    }

    /// Memory of all processes, pages that several have divided among them.
    fn pss_kb(&self) -> Result<u64> {
        self.processes().map(|pid| host::kilobytes(pid, "smaps_rollup", "Pss")).sum()
    }

    fn cpu_seconds(&self) -> Result<Vec<f64>> {
        self.processes().map(host::cpu_seconds).collect()
    }
}

/// Throughput and memory.
pub fn beside_cluster(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    for workers in MEMORY_WORKERS {
        compare(case, arguments, report, workers)?;
    }
    Ok(())
}

fn compare(case: &mut Case, arguments: &BenchArgs, report: &mut Report, workers: usize) -> Result<()> {
    let script = format!("{FIBONACCI}{POOL}");
    let count = workers.to_string();
    let mut pool = Pool::start(case, &script, &["--min", &count, "--max", &count, "--spare", "0"])?;
    for _ in 0..workers {
        pool.wait_for_event("ready")?;
    }
    let mut sides = vec![side_of(case, &pool)?];
    let node = Cluster::start(case.directory(), workers);
    match &node {
        Ok(node) => {
            let pid = node.child.id().cast_signed();
            let workers = host::children_of(pid);
            sides.push(Side {
                name: "node cluster",
                address: node.address,
                pid,
                workers,
                others: Vec::new(),
            });
        }
        Err(error) => report.note(format!("no comparison with Node's cluster: {error:#}")),
    }
    let of = if workers == WORKERS { String::new() } else { format!(" of {workers}") };
    for side in &sides {
        let name = format!("{}{of}: PSS of all processes, idle", side.name);
        report.add(SECTION, &name, "kB", side.pss_kb()? as f64);
    }
    // The first round is for the compilers; of larger numbers, only the memory after it is of interest.
    let rounds = if workers == WORKERS { arguments.rounds } else { 0 };
    for round in 0..=rounds {
        for row in &ROWS {
            for side in &sides {
                let seen = load(side, row)?;
                if round > 0 {
                    seen.add_to(report, &format!("{}: {}", side.name, row.name));
                }
            }
        }
    }
    // Each side is looked at as long after its own load: what it takes under load, and what it keeps.
    for side in &sides {
        load(side, &ROWS[1])?;
        let name = format!("{}{of}: PSS of all processes, in the moment that a load ends", side.name);
        report.add(SECTION, &name, "kB", side.pss_kb()? as f64);
        let (never, _writer) = std::io::pipe().context("make a pipe")?;
        wait::readable_within(&never, QUIET);
        let name = format!("{}{of}: PSS of all processes, after the load", side.name);
        report.add(SECTION, &name, "kB", side.pss_kb()? as f64);
    }
    drop(node);
    pool.drain(case)
}

fn side_of(case: &mut Case, pool: &Pool) -> Result<Side> {
    let status = pool.status(case)?;
    let pid_of = |value: &serde_json::Value| value.as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid_of(&status["pid"]).context("the pool has no pid")?;
    let listed = status["workers"].as_array().context("the pool has no workers")?;
    let mut others: Vec<i32> = listed.iter().filter_map(|worker| pid_of(&worker["pid"])).collect();
    others.push(crate::tests::seed_pid(case, "default")?);
    let workers = listed.iter().filter_map(|worker| pid_of(&worker["worker_pid"])).collect();
    Ok(Side { name: "turf pool", address: pool.address, pid, workers, others })
}

/// What a load has seen.
struct Seen {
    per_second: f64,
    /// Processor time of all of the side's processes, user and system, for each request.
    cpu_us: f64,
    /// The part of it that the busiest worker had.
    busiest_percent: f64,
}

impl Seen {
    fn add_to(&self, report: &mut Report, name: &str) {
        report.add(SECTION, name, "1/s", self.per_second);
        report.add(SECTION, &format!("{name}: CPU time per request, all processes"), "us", self.cpu_us);
        report.add(SECTION, &format!("{name}: part of the busiest worker"), "%", self.busiest_percent);
    }
}

fn load(side: &Side, row: &Row) -> Result<Seen> {
    let url = format!("http://{}{}", side.address, row.path);
    let (begun, before) = (Instant::now(), side.cpu_seconds()?);
    let flags = ["-t", GENERATORS, "-c", row.connections, "-d", "2s", &url];
    let output = Command::new("wrk").args(flags).output().context("run wrk")?;
    let elapsed = begun.elapsed().as_secs_f64();
    let spent: Vec<f64> =
        side.cpu_seconds()?.iter().zip(&before).map(|(after, before)| after - before).collect();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !printed.contains("Non-2xx"), "wrk {url}: {printed}");
    ensure!(!printed.contains("Socket errors"), "wrk {url}: {printed}");
    let requests = parse_wrk(&printed).with_context(|| format!("wrk printed {printed}"))?;
    let all: f64 = spent.iter().sum();
    let of_workers = &spent[1..=side.workers.len()];
    Ok(Seen {
        per_second: requests / elapsed,
        cpu_us: all * 1e6 / requests,
        busiest_percent: of_workers.iter().copied().fold(0.0, f64::max) * 100.0
            / of_workers.iter().sum::<f64>().max(f64::MIN_POSITIVE),
    })
}

/// Node's cluster; it ends with this value.
struct Cluster {
    child: Child,
    address: SocketAddr,
}

impl Cluster {
    fn start(directory: &Path, workers: usize) -> Result<Cluster> {
        let script = directory.join("cluster.js");
        fs::write(&script, format!("{FIBONACCI}{NODE}"))?;
        let address = http::free_address()?;
        let (mut output, input) = std::io::pipe()?;
        let child = Command::new("node")
            .args([text(&script)?, &address.port().to_string(), &workers.to_string()])
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
