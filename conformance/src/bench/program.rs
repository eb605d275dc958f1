//! The runtime as a program of its own, `aworker run`: what idle connections cost, whether anything grows over many requests,
//! and how soon a cold start answers, beside the runtimes that are installed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::BenchArgs;
use super::load::{self, Server, pin};
use super::series::Report;
use super::servers::{self, Program};
use crate::case::Case;
use crate::host;
use crate::http::{self, Client};

/// Idle keep-alive connections beside the ones under load.
const IDLE: [usize; 4] = [1, 100, 1_000, 10_000];
/// Descriptors for other things than connections.
const OTHER_DESCRIPTORS: u64 = 200;
/// The `aworker` beside the `turf` that is measured, with a short page.
fn aworker(case: &Case) -> Result<(Program, Server)> {
    let program = case.runtime.program().with_file_name("aworker");
    let program = Program::start(servers::AWORKER, &program, servers::HELLO, case.directory())?;
    let server = Server { name: "aworker".to_owned(), address: program.address, pid: program.pid() };
    Ok((program, server))
}

/// User instructions per request beside more and more idle connections.
pub fn connections(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("setrlimit")?;
    let (_program, server) = aworker(case)?;
    pin(server.pid)?;
    load::round(case.directory(), &server, &[])?;
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
            let seen = load::round(case.directory(), &server, &[])?;
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
    let (_program, server) = aworker(case)?;
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
            *made += load::round(case.directory(), &server, &[])?.requests;
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

/// From the start of a process to its first response, each runtime in turn.
pub fn cold(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut kinds = vec![(servers::AWORKER, case.runtime.program().with_file_name("aworker"))];
    kinds.extend(servers::peers(arguments, report));
    for _ in 0..arguments.seeds {
        for (kind, program) in &kinds {
            let begun = Instant::now();
            let program = Program::start(*kind, program, servers::HELLO, case.directory())?;
            let elapsed = begun.elapsed();
            let private = host::kilobytes(program.pid(), "smaps_rollup", "Private_Dirty")?;
            let mut add = |what: &str, unit, value| {
                report.add("Cold start", &format!("{}: {what}", kind.name), unit, value);
            };
            add("start to first response", "ms", elapsed.as_secs_f64() * 1e3);
            add("private dirty memory after it", "kB", private as f64);
        }
    }
    Ok(())
}
