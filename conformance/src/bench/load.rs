//! Requests over keep-alive: how many per second, and user instructions for each, beside other runtimes on the same core
//! in the same run. wrk makes the load from the other core; perf counts (perf-stat(1)).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::BenchArgs;
use super::series::Report;
use super::servers::{self, Page, Program};
use crate::bundle::Bundle;
use crate::case::{Case, Container, text};
use crate::host;
use crate::tests::worker_of;

/// The heading of the tables.
const SECTION: &str = "Requests over keep-alive";

/// The core of the servers; the load comes from the other one.
const SERVER_CORE: &str = "0";
const LOAD_CORE: &str = "1";
/// Keep-alive connections.
const CONNECTIONS: &str = "16";
/// Seconds of one round.
const ROUND: &str = "2s";

/// What the servers do with a request, and what wrk is told beside the address.
struct Row {
    name: &'static str,
    page: Page,
    /// Flags of wrk; `LUA` is the path of a file with [`UPLOAD`].
    flags: &'static [&'static str],
}

/// wrk's script for uploads of a mebibyte.
const UPLOAD: &str = "wrk.method = 'POST'\nwrk.body = string.rep('a', 1048576)\n";

const ROWS: [Row; 4] = [
    Row { name: "hello", page: servers::HELLO, flags: &[] },
    Row {
        name: "URL and headers read",
        page: Page {
            web: "(request) => {
  const url = new URL(request.url), { headers } = request;
  return new Response(`${url.pathname} ${url.searchParams.get('q')} ${headers.get('accept')} ${headers.get('user-agent')}`);
}",
            node: "(request, response) => {
  const url = new URL(request.url, 'http://localhost'), { headers } = request;
  response.setHeader('content-type', 'text/plain;charset=UTF-8');
  response.end(`${url.pathname} ${url.searchParams.get('q')} ${headers.accept} ${headers['user-agent']}`);
}",
        },
        flags: &["-H", "Accept: text/html", "-H", "User-Agent: load"],
    },
    Row {
        name: "1 MiB streamed out",
        page: Page {
            web: "((piece) => () => {
  let left = 16;
  return new Response(new ReadableStream({ pull(controller) { if (left-- > 0) controller.enqueue(piece); else controller.close(); } }));
})(new Uint8Array(65536).fill(97))",
            node: "((piece) => (request, response) => {
  let left = 16;
  new (require('stream').Readable)({ read() { this.push(left-- > 0 ? piece : null); } }).pipe(response);
})(Buffer.alloc(65536, 97))",
        },
        flags: &[],
    },
    Row {
        name: "1 MiB upload read as text",
        page: Page {
            web: "async (request) => new Response(String((await request.text()).length))",
            node: "async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  response.end(String(Buffer.concat(pieces).toString().length));
}",
        },
        flags: &["-s", "LUA"],
    },
];

/// A server under load.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) pid: i32,
}

/// Each kind of request in turn; in it, each server in turn, several rounds.
pub fn requests(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let peers = servers::peers(arguments, report);
    let lua = case.directory().join("upload.lua");
    fs::write(&lua, UPLOAD)?;
    let lua = text(&lua)?.to_owned();
    for row in &ROWS {
        let flags: Vec<&str> =
            row.flags.iter().map(|flag| if *flag == "LUA" { &lua } else { *flag }).collect();
        let mut programs = Vec::new();
        let (containers, mut servers) = workers(case, row)?;
        for (kind, program) in &peers {
            let program = Program::start(*kind, program, row.page, case.directory())?;
            servers.push(Server { name: kind.name.to_owned(), address: program.address, pid: program.pid() });
            programs.push(program);
        }
        for server in &servers {
            pin(server.pid)?;
            round(case.directory(), server, &flags)?;
        }
        for _ in 0..arguments.rounds {
            for server in &servers {
                add_round(report, row, server, &round(case.directory(), server, &flags)?);
            }
        }
        drop(programs);
        containers.iter().try_for_each(|container| case.remove(container))?;
    }
    Ok(())
}

/// The page as a module and as a service worker, each in a container.
fn workers(case: &mut Case, row: &Row) -> Result<(Vec<Container>, Vec<Server>)> {
    let page = row.page.web;
    let module = format!("const page = {page};\nexport default {{ fetch: page }};\n");
    let classic = format!(
        "const page = {page};\naddEventListener('fetch', (event) => event.respondWith(page(event.request)));\n"
    );
    let module = Bundle::worker(case.bundle_path(), "worker.mjs", &module)?;
    let classic = case.worker(&classic)?;
    let (mut containers, mut servers) = (Vec::new(), Vec::new());
    for (name, bundle) in [("turf, service worker", classic), ("turf, module", module)] {
        let (container, address) = case.serve(&bundle)?;
        servers.push(Server { name: name.to_owned(), address, pid: worker_of(&container)? });
        containers.push(container);
    }
    Ok((containers, servers))
}

fn add_round(report: &mut Report, row: &Row, server: &Server, seen: &Seen) {
    let mut add = |what: &str, unit, value| {
        report.add(SECTION, &format!("{}, {}: {what}", row.name, server.name), unit, value);
    };
    add("requests per second", "1/s", seen.requests / seen.elapsed);
    add("CPU time per request, user and system", "us", seen.cpu * 1e6 / seen.requests);
    if let Some(instructions) = seen.instructions {
        add("user instructions per request", "instructions", instructions / seen.requests);
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

/// One round of wrk, with these flags beside its own.
pub(super) fn round(directory: &Path, server: &Server, flags: &[&str]) -> Result<Seen> {
    let counted = directory.join("perf.csv");
    let _ = fs::remove_file(&counted);
    let (pid, url) = (server.pid.to_string(), format!("http://{}/", server.address));
    let load = ["taskset", "-c", LOAD_CORE, "wrk", "-t", "1", "-c", CONNECTIONS, "-d", ROUND];
    let load = [&load[..], flags, &[url.as_str()]].concat();
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
