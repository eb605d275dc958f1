//! A process that stays the same one: its pid and the moment it started.
//!
//! A pid alone may come to mean another process after the first has gone; with the start time it
//! cannot. proc_pid_stat(5).

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Operation, Result};
use crate::sys::pidfd::pidfd_open;

/// A process as state.json remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid in the pid namespace of the runtime.
    pub pid: i32,
    /// When it started, in clock ticks after boot.
    pub start_time: u64,
}

/// USER_HZ, the unit of the file, is a part of the kernel's interface.
const TICK_NS: u64 = 10_000_000;

impl ProcessId {
    /// The process that has this pid at the moment; the caller knows that it lives or is its parent.
    pub fn of(pid: i32) -> Result<ProcessId> {
        let stat = read_stat(pid).and_then(|stat| stat.ok_or(io::ErrorKind::NotFound.into()));
        let stat = stat.operation(|| format!("read /proc/{pid}/stat"))?;
        Ok(ProcessId { pid, start_time: stat.start_time })
    }

    /// The process that has this pid, if it started before a moment in nanoseconds after boot.
    pub fn started_before(pid: i32, moment: u64) -> Result<Option<ProcessId>> {
        let stat = read_stat(pid).operation(|| format!("read /proc/{pid}/stat"))?;
        let stat = stat.filter(|stat| stat.start_time.saturating_mul(TICK_NS) <= moment);
        Ok(stat.map(|stat| ProcessId { pid, start_time: stat.start_time }))
    }

    /// How long after its start a moment is, in nanoseconds after boot: a hundredth of a second too much at most.
    pub fn age(&self, moment: u64) -> Duration {
        Duration::from_nanos(moment.saturating_sub(self.start_time.saturating_mul(TICK_NS)))
    }

    /// Whether the process lives; one that has exited and waits for its parent does not.
    pub fn is_alive(&self) -> Result<bool> {
        let stat = read_stat(self.pid).operation(|| format!("read /proc/{}/stat", self.pid))?;
        Ok(stat.is_some_and(|stat| stat.start_time == self.start_time && !stat.has_exited))
    }

    /// Its pid in its own pid namespace (proc_pid_status(5), `NSpid`).
    pub fn pid_inside(&self) -> Result<i32> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).operation(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let pid = line.and_then(|line| line.split_ascii_whitespace().next_back()?.parse().ok());
        pid.ok_or_else(|| Error::invalid(path, "has no NSpid"))
    }

    /// A descriptor of the process, or nothing if it does not live any more.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = match pidfd_open(self.pid) {
            // EINVAL: the number belongs to a thread that is not a process.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::io(format!("open process {}", self.pid), error)),
            Ok(pidfd) => pidfd,
        };
        // Asked after the opening: if it is our process now, the descriptor is of our process.
        Ok(if self.is_alive()? { Some(pidfd) } else { None })
    }
}

struct Stat {
    has_exited: bool,
    start_time: u64,
}

fn read_stat(pid: i32) -> io::Result<Option<Stat>> {
    // Longer than the file ever is, so that it is read by one call.
    let mut text = String::with_capacity(1024);
    let read =
        fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_string(&mut text));
    match read {
        Ok(_) => match parse_stat(&text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::other("is not understood")),
        },
        // Gone before the open, or between the open and the read.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of the program stands in parentheses and may itself contain any.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?; // field 3
    let start_time = fields.nth(18)?.parse().ok()?; // field 22
    Some(Stat { has_exited: matches!(state, "Z" | "X" | "x"), start_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_stat_line_with_a_nasty_name() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let line = |state: &str| format!("17 (a) Z (b) {state} {}\n", fields.join(" "));
        let stat = parse_stat(&line("S")).unwrap();
        assert!(!stat.has_exited);
        assert_eq!(stat.start_time, 22);
        assert!(parse_stat(&line("Z")).unwrap().has_exited);
        assert!(parse_stat("17 (a").is_none());
        assert!(parse_stat("17 (a) S 1 2").is_none());
    }

    #[test]
    fn a_process_lives_until_it_has_exited() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessId::of(child.id() as i32).unwrap();
        assert!(process.is_alive().unwrap());
        assert!(process.open().unwrap().is_some());
        let other = ProcessId { start_time: process.start_time + 1, ..process };
        assert!(!other.is_alive().unwrap());
        assert!(other.open().unwrap().is_none());
        let pidfd = process.open().unwrap().unwrap();
        child.kill().unwrap();
        // Exited, but not yet waited for.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        use std::os::fd::AsFd;
        assert!(crate::cgroup::wait_for_exit(pidfd.as_fd(), deadline).unwrap());
        assert!(!process.is_alive().unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive().unwrap());
        assert!(process.open().unwrap().is_none());
    }
}
