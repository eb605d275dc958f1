//! `turf events`: one JSON object a line, as runc prints them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use turf_core::cgroup::Stats;
use turf_core::container::{self, Event};
use turf_core::root::{ContainerId, StateRoot};

use crate::command::Events;

/// Prints what the container uses: once, or at each interval until it ends, and when it runs out of memory.
pub fn run(root: &StateRoot, events: &Events) -> Result<()> {
    let id: ContainerId = events.id.parse()?;
    if events.stats {
        let stats = container::stats(root, &id)?;
        return print(&Line { kind: "stats", id: id.as_str(), data: Some(&stats) });
    }
    let interval = duration(&events.interval)?;
    let mut watched = container::Events::watch(root, &id, interval)?;
    while let Some(event) = watched.wait_next()? {
        print(&match event {
            Event::Stats(ref stats) => Line { kind: "stats", id: id.as_str(), data: Some(stats) },
            Event::OutOfMemory => Line { kind: "oom", id: id.as_str(), data: None },
        })?;
    }
    Ok(())
}

/// One line, its fields in runc's order: whoever looks for the text `{"type":"oom"` finds it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

fn print(line: &Line<'_>) -> Result<()> {
    super::print(&format!("{}\n", serde_json::to_string(line)?))
}

/// Longest interval in nanoseconds, about 292 years: that of Go's durations.
const LONGEST: f64 = i64::MAX as f64;

/// A duration in Go's words: numbers with units, like `5s`, `1m30s`, `1.5h`, `200ms`.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || format!("--interval {text:?}: must be a duration above zero like 5s, 1m30s or 200ms");
    let mut rest = text;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits =
            rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').with_context(wrong)?;
        let number: f64 = rest[..digits].parse().ok().with_context(wrong)?;
        let behind = &rest[digits..];
        let end =
            behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        nanoseconds += number
            * match &behind[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(anyhow::anyhow!(wrong())),
            };
        rest = &behind[end..];
    }
    ensure!((1.0..LONGEST).contains(&nanoseconds), wrong());
    // Below 2^63, and the part of a nanosecond is nothing.
    Ok(Duration::from_nanos(nanoseconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_duration_of_go() {
        for (text, ms) in
            [("5s", 5000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("200ms", 200), ("2000us", 2)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "0", "0s", "5", "s", "5x", "-1s", "1s2", "..s", "1e3s", "9999999999h", "5 s", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
