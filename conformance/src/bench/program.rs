//! The runtime as a program of its own, `aworker run`: what idle connections cost, whether anything grows over many requests,
//! and how soon a cold start answers, beside bun where it is installed (npm: `bun`, found in `PATH`).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::BenchArgs;
use super::load::{Server, pin, round};
use super::series::Report;
use crate::case::{Case, text};
use crate::host;
use crate::http::{self, Client};

const MODULE: &str = "export default { fetch() { return new Response('hello'); } };\n";
/// The same for bun, which listens by itself.
const BUN: &str = "Bun.serve({ port: Number(process.argv[2]), hostname: '127.0.0.1', fetch: () => new Response('hello') });\n";

/// Idle keep-alive connections beside the ones under load.
const IDLE: [usize; 4] = [1, 100, 1_000, 10_000];
/// Descriptors for other things than connections.
const OTHER_DESCRIPTORS: u64 = 200;
/// How long a cold start may take.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A server of its own process; it ends with this value.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    /// Runs `words` with the port as its last word, and waits for the first response.
    fn start(words: &[&str], with_port: impl Fn(u16) -> String) -> Result<Program> {
        let address = http::free_address()?;
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(with_port(address.port())).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program = Program { child: child.with_context(|| format!("run {}", words[0]))?, address };
        let begun = Instant::now();
        loop {
            // Until it listens, a connection is refused at once: looking again and again is what measures.
            match http::get(address, "/") {
                Ok(response) => {
                    ensure!(response.text()? == "hello", "{response:?}");
                    return Ok(program);
                }
                Err(error) if begun.elapsed() > START_LIMIT => return Err(error),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    fn aworker(case: &Case) -> Result<Program> {
        let script = case.directory().join("hello.mjs");
        fs::write(&script, MODULE)?;
        let aworker = case.runtime.program().with_file_name("aworker");
        let words = [text(&aworker)?, "run", text(&script)?];
        Program::start(&words, |port| format!("--listen=127.0.0.1:{port}"))
    }

    fn server(&self, name: &'static str) -> Server {
        Server { name, address: self.address, pid: self.child.id().cast_signed() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User instructions per request beside more and more idle connections.
pub fn connections(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setrlimit")?;
    let program = Program::aworker(case)?;
    let server = program.server("aworker");
    pin(server.pid)?;
    round(case.directory(), &server)?;
    let mut idle: Vec<Client> = Vec::new();
    for count in IDLE {
        if count as u64 + OTHER_DESCRIPTORS > most {
            report.note(format!("no {count} idle connections: the limit of descriptors is {most}"));
            continue;
        }
        while idle.len() < count {
            let mut client = Client::connect(server.address)?;
            client.get("/")?;
            idle.push(client);
        }
        for _ in 0..arguments.rounds {
            let seen = round(case.directory(), &server)?;
            let name = |what: &str| format!("{count} idle connections: {what}");
            let mut add = |what: &str, unit, value| report.add("Idle connections", &name(what), unit, value);
            add("CPU time per request, user and system", "us", seen.cpu * 1e6 / seen.requests);
            if let Some(instructions) = seen.instructions {
                add("user instructions per request", "instructions", instructions / seen.requests);
            }
        }
        let client = idle.first_mut().context("an idle connection")?;
        ensure!(client.get("/")?.text()? == "hello", "an idle connection has died");
        let private = host::kilobytes(server.pid, "smaps_rollup", "Private_Dirty")?;
        report.add(
            "Idle connections",
            &format!("{count} idle connections: private dirty memory"),
            "kB",
            private as f64,
        );
    }
    Ok(())
}

/// Memory and descriptors before and after many requests.
pub fn endurance(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let program = Program::aworker(case)?;
    let server = program.server("aworker");
    pin(server.pid)?;
    let weigh = || -> Result<(u64, usize)> {
        // Its answer comes after the server has seen that the load's connections are closed.
        http::get(server.address, "/")?;
        let private = host::kilobytes(server.pid, "smaps_rollup", "Private_Dirty")?;
        Ok((private, host::open_fds(server.pid)?))
    };
    let mut made = 0.0;
    let run = |made: &mut f64, until: f64| -> Result<()> {
        while *made < until {
            *made += round(case.directory(), &server)?.requests;
        }
        Ok(())
    };
    let all = arguments.requests as f64;
    run(&mut made, all / 10.0)?;
    let (private, descriptors) = weigh()?;
    run(&mut made, all)?;
    let (private_after, descriptors_after) = weigh()?;
    let mut add = |what: &str, unit, value: f64| report.add("Many requests", what, unit, value);
    add("requests", "requests", made);
    add("private dirty memory after a tenth", "kB", private as f64);
    add("private dirty memory at the end", "kB", private_after as f64);
    add(
        "descriptors at the end, less those after a tenth",
        "descriptors",
        descriptors_after as f64 - descriptors as f64,
    );
    Ok(())
}

/// From the start of a process to its first response.
pub fn cold(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let script = case.directory().join("bun.js");
    fs::write(&script, BUN)?;
    let bun = find("bun");
    if bun.is_none() {
        report.note("no comparison with bun: it is not in PATH".to_owned());
    }
    for _ in 0..arguments.seeds {
        let begun = Instant::now();
        let program = Program::aworker(case)?;
        let mut add = |name: &str, what: &str, unit, value| {
            report.add("Cold start", &format!("{name}: {what}"), unit, value);
        };
        add("aworker", "start to first response", "ms", begun.elapsed().as_secs_f64() * 1e3);
        let private = |program: &Program| -> Result<f64> {
            Ok(host::kilobytes(program.child.id().cast_signed(), "smaps_rollup", "Private_Dirty")? as f64)
        };
        add("aworker", "private dirty memory after it", "kB", private(&program)?);
        drop(program);
        let Some(bun) = &bun else { continue };
        let begun = Instant::now();
        let program = Program::start(&[bun, text(&script)?], |port| port.to_string())?;
        add("bun", "start to first response", "ms", begun.elapsed().as_secs_f64() * 1e3);
        add("bun", "private dirty memory after it", "kB", private(&program)?);
    }
    Ok(())
}

fn find(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| Path::is_file(file))?;
    found.to_str().map(str::to_owned)
}
