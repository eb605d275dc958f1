//! A static program that ends at once, as a whole container, beside the distribution's runtimes: the same bundle
//! through each in turn. Wall time, CPU time of everything the command did, and its peak memory.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::BenchArgs;
use super::series::Report;
use crate::case::{self, Case, text};
use crate::host;
use crate::runtime::Runtime;
use crate::suite;

/// Where Debian puts the other runtimes.
const PEERS: [&str; 2] = ["/usr/bin/crun", "/usr/sbin/runc"];
/// A number that no container of the other sections has.
const FIRST_NUMBER: usize = 1000;
/// How many of the rounds also weigh the commands, which takes longer.
const WEIGHED_ROUNDS: usize = 5;
/// The heading of the tables.
const SECTION: &str = "Plain programs";

/// The same bundle through each runtime in turn.
pub fn programs(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut bundle = case.shell("")?;
    bundle.set("/process/args", serde_json::json!(["/bin/true"]));
    bundle.write()?;
    let path = text(&bundle.path)?.to_owned();
    let mut others = Vec::new();
    for (number, program) in PEERS.into_iter().enumerate() {
        match suite::admit(Path::new(program)) {
            Ok(found) => others.push((program, Case::new(&found, FIRST_NUMBER + number)?)),
            Err(error) => report.note(format!("no comparison with {program}: {error:#}")),
        }
    }
    for number in 0..arguments.starts {
        let weighing = number < WEIGHED_ROUNDS;
        measure("turf", &mut case.runtime, &path, number, weighing, report)?;
        for (program, other) in &mut others {
            let name = program.rsplit('/').next().unwrap_or(program);
            measure(name, &mut other.runtime, &path, number, weighing, report)?;
        }
    }
    others.iter_mut().try_for_each(|(_, other)| other.finish())
}

/// One container by `run`, one step by step.
fn measure(
    name: &str,
    runtime: &mut Runtime,
    bundle: &str,
    number: usize,
    weighing: bool,
    report: &mut Report,
) -> Result<()> {
    let [_, tag] = case::tags(std::process::id());
    let id = format!("{tag}{number}");
    let create = ["create", "--bundle", bundle, &id];
    let run = ["run", "--bundle", bundle, &id];
    let mut time = |runtime: &mut Runtime, arguments: &[&str]| -> Result<()> {
        let before = cpu()?;
        let ran = runtime.ok(arguments)?;
        let used = cpu()?.saturating_sub(before);
        for (what, time) in [("wall", ran.elapsed), ("CPU", used)] {
            let row = format!("`{name} {}`: {what}", arguments[0]);
            report.add(SECTION, &row, "ms", time.as_secs_f64() * 1e3);
        }
        Ok(())
    };
    time(runtime, &run)?;
    time(runtime, &create)?;
    time(runtime, &["start", &id])?;
    ended(runtime, &id)?;
    time(runtime, &["delete", &id])?;
    if !weighing {
        return Ok(());
    }
    let mut weigh = |runtime: &Runtime, arguments: &[&str]| -> Result<()> {
        let row = format!("`{name} {}`: peak memory", arguments[0]);
        report.add(SECTION, &row, "kB", peak_kb(runtime, arguments)? as f64);
        Ok(())
    };
    weigh(runtime, &run)?;
    weigh(runtime, &create)?;
    weigh(runtime, &["state", &id])?;
    weigh(runtime, &["start", &id])?;
    ended(runtime, &id)?;
    weigh(runtime, &["delete", &id])
}

/// The CPU time of all descendants that were waited for, user and system.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.unsigned_abs()))
}

/// Waits for the end of a container's program, a child that was adopted.
fn ended(runtime: &mut Runtime, id: &str) -> Result<()> {
    let pid = runtime.pid(id)?;
    if pid > 0 {
        // Whoever has been reaped already has ended as well.
        let _ = waitpid(Pid::from_raw(pid), None);
    }
    while runtime.status(id)? != "stopped" {}
    Ok(())
}

/// The most memory that a command's own process ever had at once (proc_pid_status(5), `VmHWM`), read when
/// it ends. What waits for a child of it inherits the measuring program's own size, so rusage will not do.
fn peak_kb(runtime: &Runtime, arguments: &[&str]) -> Result<u64> {
    // The shell becomes the command when it is told to: a command may be over sooner than it can be attached to.
    let mut command = Command::new("sh");
    command.args(["-c", "read go; exec \"$@\"", "sh"]);
    command.arg(runtime.program()).arg("--root").arg(runtime.root()).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().context("run the command")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).context("watch the command's end")?;
    child
        .stdin
        .take()
        .context("the shell has no input")?
        .write_all(b"go\n")
        .context("let the command begin")?;
    let mut peak = None;
    loop {
        match waitpid(pid, None).context("wait for the command")? {
            WaitStatus::PtraceEvent(..) => {
                peak = Some(host::kilobytes(pid.as_raw(), "status", "VmHWM")?);
                ptrace::cont(pid, None).context("let the command end")?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).context("pass a signal on")?,
            WaitStatus::Exited(_, code) => {
                ensure!(code == 0, "{arguments:?} ended with {code} after {:?}", begun.elapsed());
                return peak.context("the command's end was not seen");
            }
            WaitStatus::Signaled(_, signal, _) => bail!("{arguments:?} was killed by {signal}"),
            _ => {}
        }
    }
}
