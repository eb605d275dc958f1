//! What processes do that does not depend on the machine's speed: instructions and page faults, counted by perf (perf-stat(1)).

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::{Case, text};
use crate::wait;

/// What is counted.
pub const EVENTS: [&str; 3] = ["instructions:u", "instructions:k", "page-faults"];

/// A counter of some processes, and of the children that they make from its birth on. It is born at rest.
pub struct Counter {
    perf: Child,
    control: File,
    acknowledged: File,
    counts: PathBuf,
}

impl Counter {
    /// Attaches to processes.
    pub fn attach(case: &Case, pids: &[i32]) -> Result<Counter> {
        let path = |name: &str| case.directory().join(name);
        let (control_path, acknowledged_path) = (path("perf.control"), path("perf.ack"));
        let (control, acknowledged) = (case.fifo(&control_path)?, case.fifo(&acknowledged_path)?);
        let counts = path("perf.counts");
        let fifos = format!("--control=fifo:{},{}", text(&control_path)?, text(&acknowledged_path)?);
        let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-D", "-1", "-e", &EVENTS.join(","), "-o", text(&counts)?])
            .args([&fifos, "-p", &pids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run perf")?;
        let mut counter = Counter { perf, control, acknowledged, counts };
        // When it answers it has attached.
        counter.tell("disable")?;
        Ok(counter)
    }

    /// Counts until [`Counter::rest`].
    pub fn count(&mut self) -> Result<()> {
        self.tell("enable")
    }

    /// Counts no further.
    pub fn rest(&mut self) -> Result<()> {
        self.tell("disable")
    }

    /// What has been counted of each event; nothing of one that this machine cannot count.
    pub fn finish(mut self) -> Result<[Option<f64>; EVENTS.len()]> {
        kill(Pid::from_raw(i32::try_from(self.perf.id())?), Signal::SIGINT).context("end perf")?;
        self.perf.wait().context("wait for perf")?;
        let printed = fs::read_to_string(&self.counts).context("read what perf has counted")?;
        Ok(EVENTS.map(|event| count_of(&printed, event)))
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        writeln!(self.control, "{word}").context("write to perf")?;
        let answer = wait::line(&mut self.acknowledged, wait::STEP).context("perf does not answer")?;
        // It writes the zero byte behind its text, too.
        ensure!(answer.trim_matches('\0') == "ack", "perf has answered {answer:?}");
        Ok(())
    }
}

fn count_of(printed: &str, event: &str) -> Option<f64> {
    let line = printed.lines().find(|line| line.split(',').nth(2) == Some(event))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_the_names_of_their_events() {
        let printed = "# started\n\n112720,,instructions:u,9753040,100.00,,\n\
                       <not supported>,,instructions:k,0,100.00,,\n5,,page-faults,1,100.00,,\n";
        assert_eq!(EVENTS.map(|event| count_of(printed, event)), [Some(112_720.0), None, Some(5.0)]);
    }
}
