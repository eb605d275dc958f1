//! Hello over keep-alive: requests per second and user instructions per request, beside Node's `http` on the same core
//! in the same run. wrk makes the load from the other core; perf counts (perf-stat(1)).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::BenchArgs;
use super::series::Report;
use crate::case::{Case, text};
use crate::host;
use crate::http;
use crate::tests::worker_of;
use crate::wait;

/// The core of the servers; the load comes from the other one.
const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// Keep-alive connections.
const CONNECTIONS: &str = "16";
/// Seconds of one round.
const ROUND: &str = "2s";

/// Every server must answer the same: a short body, its length, a text type.
const WORKER: &str = "addEventListener('fetch', (event) => event.respondWith(new Response('hello')));\n";
const MODULE: &str = "export default { fetch() { return new Response('hello'); } };\n";
const NODE: &str = "const http = require('http');
http.createServer((request, response) => {
  response.setHeader('content-type', 'text/plain;charset=UTF-8');
  response.end('hello');
}).listen(Number(process.argv[2]), '127.0.0.1', () => console.log('up'));\n";

/// A server under load.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) pid: i32,
}

/// Loads each server in turn, several rounds.
pub fn hello(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut servers = Vec::new();
    let module = crate::bundle::Bundle::worker(case.bundle_path(), "worker.mjs", MODULE)?;
    let classic = case.worker(WORKER)?;
    for (name, bundle) in [("turf, service worker", classic), ("turf, module", module)] {
        let (container, address) = case.serve(&bundle)?;
        servers.push(Server { name, address, pid: worker_of(&container)? });
    }
    let node = Node::start(case.directory());
    match &node {
        Ok(node) => servers.push(Server {
            name: "node, http",
            address: node.address,
            pid: node.child.id().cast_signed(),
        }),
        Err(error) => report.note(format!("no comparison with Node: {error:#}")),
    }
    for server in &servers {
        pin(server.pid)?;
        round(case.directory(), server)?;
    }
    for _ in 0..arguments.rounds {
        for server in &servers {
            let seen = round(case.directory(), server)?;
            let mut add = |what: &str, unit, value| {
                report.add("Hello over keep-alive", &format!("{}: {what}", server.name), unit, value);
            };
            add("requests per second", "1/s", seen.requests / seen.elapsed);
            add("CPU time per request, user and system", "us", seen.cpu * 1e6 / seen.requests);
            let Some(instructions) = seen.instructions else { continue };
            add("user instructions per request", "instructions", instructions / seen.requests);
        }
    }
    Ok(())
}

/// Node's server; it ends with this value.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    fn start(directory: &Path) -> Result<Node> {
        let script = directory.join("server.js");
        fs::write(&script, NODE)?;
        let address = http::free_address()?;
        let (mut output, input) = std::io::pipe()?;
        let arguments = [text(&script)?.to_owned(), address.port().to_string()];
        let child = Command::new("node")
            .args(arguments)
            .stdout(input)
            .stdin(Stdio::null())
            .spawn()
            .context("run node")?;
        let node = Node { child, address };
        ensure!(wait::line(&mut output, wait::STEP)? == "up", "node did not come up");
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

pub(super) fn pin(pid: i32) -> Result<()> {
    let output = Command::new("taskset").args(["-a", "-p", "-c", SERVER_CORE, &pid.to_string()]).output();
    let output = output.context("run taskset")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What one round has seen.
pub(super) struct Seen {
    pub(super) requests: f64,
    /// Seconds of this program's monotonic clock: wrk's own rate follows the wall clock, which may be set meanwhile.
    elapsed: f64,
    /// Seconds of CPU time of the server.
    pub(super) cpu: f64,
    /// None if perf is not there or may not count.
    pub(super) instructions: Option<f64>,
}

pub(super) fn round(directory: &Path, server: &Server) -> Result<Seen> {
    let counted = directory.join("perf.csv");
    let _ = fs::remove_file(&counted);
    let (pid, url) = (server.pid.to_string(), format!("http://{}/", server.address));
    let load = ["taskset", "-c", LOAD_CORE, "wrk", "-t", "1", "-c", CONNECTIONS, "-d", ROUND, &url];
    let perf = ["perf", "stat", "-x", ",", "-e", "instructions:u", "-o", text(&counted)?, "-p", &pid, "--"];
    let with_perf = [&perf[..], &load[..]].concat();
    let words = if has_perf() { &with_perf[..] } else { &load[..] };
    let (begun, cpu) = (Instant::now(), host::cpu_seconds(server.pid)?);
    let output = Command::new(words[0]).args(&words[1..]).output().context("run wrk")?;
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), host::cpu_seconds(server.pid)? - cpu);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{words:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    for sign in ["Non-2xx", "Socket errors"] {
        ensure!(!printed.contains(sign), "{} failed under load: {printed}", server.name);
    }
    let requests = parse_wrk(&printed).with_context(|| format!("wrk printed {printed}"))?;
    let instructions = fs::read_to_string(&counted).ok().and_then(|text| parse_perf(&text));
    Ok(Seen { requests, elapsed, cpu, instructions })
}

fn has_perf() -> bool {
    let probe = Command::new("perf").args(["stat", "-x", ",", "-e", "instructions:u", "true"]).output();
    probe.is_ok_and(|output| parse_perf(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// How many requests wrk has made.
pub(super) fn parse_wrk(printed: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.contains(" requests in "))?;
    line.split_whitespace().next()?.parse().ok()
}

fn parse_perf(printed: &str) -> Option<f64> {
    printed.lines().find(|line| line.contains("instructions"))?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let printed = "Running 2s test\n  12345 requests in 2.00s, 1MB read\n";
        assert_eq!(parse_wrk(printed), Some(12345.0));
        assert_eq!(parse_wrk("connection refused"), None);
    }

    #[test]
    fn perf_is_understood() {
        assert_eq!(parse_perf("# started\n112720,,instructions:u,9753040,100.00,,\n"), Some(112_720.0));
        assert_eq!(parse_perf("<not supported>,,instructions:u,0,100.00,,\n"), None);
    }
}
