//! `turf pool status`: what a pool does, once or again and again.
//!
//! On a terminal `--watch` draws over what it drew before, as much as the terminal has room for, and again at once when
//! its size changes. Elsewhere it prints one block after the other, without any control sequence.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;
use turf_core::pool::PoolName;
use turf_core::root::StateRoot;
use turf_core::sys::terminal;

use super::pool::{addresses, ask_status, text};
use crate::command::{Format, PoolStatus};

/// The shortest time between two looks.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Of a terminal that does not tell its size.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Runs the verb.
pub fn run(root: &StateRoot, status: &PoolStatus) -> Result<()> {
    let name: PoolName = status.name.parse()?;
    let Some(interval) = status.watch else {
        return super::print(&shown(&ask_status(root, &name)?, status.format));
    };
    let interval = Duration::from_millis(interval.0).max(SHORTEST_INTERVAL);
    match status.format == Format::Table && std::io::stdout().is_terminal() {
        true => draw(root, &name, interval),
        false => loop {
            super::print(&shown(&ask_status(root, &name)?, status.format))?;
            std::thread::sleep(interval);
        },
    }
}

fn shown(pool: &Value, format: Format) -> String {
    match format {
        Format::Json => format!("{pool}\n"),
        Format::Table => show(pool),
    }
}

fn draw(root: &StateRoot, name: &PoolName, interval: Duration) -> Result<()> {
    let mut resized = SigSet::empty();
    resized.add(Signal::SIGWINCH);
    resized.thread_block().context("watch for the terminal's size")?;
    let resized = SignalFd::with_flags(&resized, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("watch for the terminal's size")?;
    // Nothing of what was on the screen is between our lines.
    super::print("\x1b[2J")?;
    loop {
        let pool = ask_status(root, name)?;
        let size = terminal::size(std::io::stdout().as_fd())
            .ok()
            .filter(|(height, width)| *height > 0 && *width > 0);
        super::print(&frame(&show(&pool), size.unwrap_or(USUAL_SIZE)))?;
        let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::MAX);
        // What ends the wait early is a new size, or a signal: look again.
        let _ = poll(&mut [PollFd::new(resized.as_fd(), PollFlags::POLLIN)], timeout);
        while let Ok(Some(_)) = resized.read_signal() {}
    }
}

/// The lines that fit, drawn from the first place of the screen on; of each what fits, for a line that wraps would push
/// the others off.
fn frame(text: &str, (height, width): (u16, u16)) -> String {
    let (height, width) = (usize::from(height), usize::from(width));
    let lines: Vec<&str> = text.lines().collect();
    // The last line is left free: a line break there would scroll.
    let room = height.saturating_sub(1).max(1);
    let cut = |line: &str| line.chars().take(width).collect::<String>();
    let mut shown: Vec<String> = lines.iter().take(room).map(|line| cut(line)).collect();
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        shown[room - 1] = cut(&format!("... and {hidden} more lines"));
    }
    let drawn: String = shown.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{drawn}\x1b[J")
}

fn show(pool: &Value) -> String {
    let workers = pool["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut shown = format!(
        "pool {}: {}, {} of {}..{} workers, generation {}, listens on {}\n",
        text(&pool["name"]),
        text(&pool["state"]),
        workers.len(),
        pool["min"],
        pool["max"],
        pool["generation"],
        addresses(pool),
    );
    shown.push_str(&format!(
        "{} requests, {} waiting, {} refused; {} workers started, {} failed\n",
        pool["requests"], pool["waiting"], pool["refused"], pool["started"], pool["failed"],
    ));
    if pool["reload"]["state"] == "running" {
        shown.push_str("a reload is under way\n");
    }
    if let Some(error) = pool["reload"]["error"].as_str() {
        // One line, whatever the error's text has.
        let error = error.lines().next().unwrap_or_default();
        shown.push_str(&format!("the last reload failed: {error}\n"));
    }
    let heads = [
        "WORKER",
        "PID",
        "STATE",
        "REQUESTS",
        "IN FLIGHT",
        "CONNECTIONS",
        "SOCKETS",
        "CPU",
        "PRIVATE",
        "SHARED",
        "AGE",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(workers.iter().map(row));
    shown + &super::table(&rows)
}

fn row(worker: &Value) -> Vec<String> {
    let number = |name: &str| worker[name].as_u64().unwrap_or(0);
    vec![
        text(&worker["id"]),
        text(&worker["pid"]),
        text(&worker["phase"]),
        text(&worker["requests"]),
        text(&worker["in_flight"]),
        text(&worker["connections"]),
        text(&worker["web_sockets"]),
        format!("{:.1} %", number("cpu_permille") as f64 / 10.0),
        format!("{} kB", number("private_kb")),
        format!("{} kB", number("shared_kb")),
        age(number("age_ms") / 1000),
    ]
}

fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal_whatever_its_size() {
        let text = "one line that is long\ntwo\nthree\nfour\n";
        assert_eq!(
            frame(text, (4, 8)),
            "\x1b[Hone line\x1b[K\ntwo\x1b[K\n... and \x1b[K\n\x1b[J",
            "cut, and the last line says that there is more"
        );
        assert_eq!(frame(text, (24, 80)).matches('\n').count(), 4);
        for height in 1..8 {
            for width in 1..30 {
                let lines = frame(text, (height, width));
                assert!(lines.matches('\n').count() <= usize::from(height).max(1));
            }
        }
    }

    #[test]
    fn ages_have_the_unit_that_fits() {
        assert_eq!([5, 119, 120, 7200, 200_000].map(age), ["5 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
