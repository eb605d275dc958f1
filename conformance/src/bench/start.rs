//! What a start costs: whole commands as a caller sees them, and the seed's own clock for the fork alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::BenchArgs;
use super::series::Report;
use crate::case::{Case, text};
use crate::http;
use crate::tests::HELLO;

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Seeds started one after the other.
pub fn seeds(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    for _ in 0..arguments.seeds {
        let started = case.runtime.ok(&["seed", "start", "bench"])?;
        report.add("Seed", "`turf seed start`", "ms", ms(started.elapsed));
        case.runtime.ok(&["seed", "stop", "bench"])?;
    }
    Ok(())
}

/// Containers created, started, asked once, killed and deleted, one after the other.
pub fn containers(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    bundle.write()?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let log = case.directory().join("start.log");
    let mut timelines = 0;
    for number in 0..arguments.starts {
        let id = case.id(&format!("b{number}"));
        let created = case.runtime.ok(&["create", "--bundle", text(&bundle.path)?, &id])?;
        let address = http::free_address()?;
        let listen = format!("tcp://{address}");
        let log_flags = ["--debug", "--log", text(&log)?, "--log-format", "json"];
        let begun = Instant::now();
        let started = case.runtime.ok(&[&log_flags[..], &["start", "--listen", &listen, &id]].concat())?;
        http::get(address, "/")?;
        let first_byte = begun.elapsed();
        let second = Instant::now();
        http::get(address, "/")?;
        let second = second.elapsed();
        let deleted = case.runtime.ok(&["delete", "--force", &id])?;
        case.forget(&id);
        report.add("Commands", "`turf create`", "ms", ms(created.elapsed));
        report.add("Commands", "`turf start`", "ms", ms(started.elapsed));
        report.add("Commands", "`turf start` and the first answer", "ms", ms(first_byte));
        report.add("Commands", "the second answer (connect, request, response)", "ms", ms(second));
        report.add("Commands", "`turf delete --force`", "ms", ms(deleted.elapsed));
        timelines += usize::from(add_timeline(&log, report, &INSIDE)?);
    }
    if timelines < arguments.starts {
        report.note(format!("{timelines} of {} starts logged a timeline", arguments.starts));
    }
    Ok(())
}

/// The steps between the milestones of a timeline: name, from, to.
const STEPS: [(&str, &str, &str); 5] = [
    ("request to fork (join namespaces and cgroups)", "requested_ns", "fork_called_ns"),
    ("fork call alone", "fork_called_ns", "worker_entered_ns"),
    ("apply the plan in the worker", "worker_entered_ns", "plan_applied_ns"),
    ("first JavaScript after the plan", "plan_applied_ns", "javascript_ns"),
    ("fork call to first JavaScript result", "fork_called_ns", "javascript_ns"),
];

/// Where the steps of timelines go.
pub struct Timelines<'a> {
    /// The report's section.
    pub section: &'static str,
    /// What stands before a step's name.
    pub prefix: &'a str,
    /// The names of the steps that are wanted.
    pub steps: &'a [&'a str],
}

/// All steps of the starts of this file.
const INSIDE: Timelines<'_> = Timelines {
    section: "Inside a start",
    prefix: "",
    steps: &[STEPS[0].0, STEPS[1].0, STEPS[2].0, STEPS[3].0, STEPS[4].0],
};

/// Adds the steps of the timeline that `turf --debug start` has logged; whether there was one.
pub fn add_timeline(log: &Path, report: &mut Report, rows: &Timelines<'_>) -> Result<bool> {
    let lines = fs::read_to_string(log).unwrap_or_default();
    // The next start begins a log of its own.
    let _ = fs::remove_file(log);
    let message = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["msg"].as_str()?.to_owned());
    let timeline = lines
        .lines()
        .filter_map(message)
        .find_map(|text| Some(text.strip_prefix("worker runs: ")?.to_owned()));
    let Some(timeline) = timeline else { return Ok(false) };
    let timeline: Value = serde_json::from_str(&timeline).with_context(|| format!("timeline {timeline}"))?;
    let at = |name: &str| timeline[name].as_f64().with_context(|| format!("no {name} in {timeline}"));
    for (name, from, to) in STEPS.iter().filter(|(name, ..)| rows.steps.contains(name)) {
        report.add(rows.section, &format!("{}{name}", rows.prefix), "us", (at(to)? - at(from)?) / 1e3);
    }
    Ok(true)
}
