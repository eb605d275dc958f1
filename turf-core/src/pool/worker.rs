//! One worker of a pool: its container, its channel, its gauges, and what was last seen of it.

use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::channel::Channel;
use super::gauges::{Gauges, Reading, word};
use super::messages::{Budget, Outbox};
use super::policy::{Phase, WorkerView};
use crate::container::Starting;
use crate::error::Result;
use crate::root::ContainerId;

/// Between two readings of a worker's processor time; shorter ones would be noise.
const CPU_WINDOW: Duration = Duration::from_millis(100);

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status of its init: the worker's own, or 128 and a signal's number.
    With(i32),
    /// Nobody could tell: init was not this process's child.
    Unknown,
}

/// A worker that is expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It may finish what it has begun until then; afterwards it gets SIGTERM, then SIGKILL.
    Until(Instant),
    /// It got SIGTERM, and gets SIGKILL then.
    TermedUntil(Instant),
    /// It got SIGKILL.
    Killed,
}

/// What belongs to a worker from its start on.
#[derive(Debug)]
pub struct Identity {
    /// Its number in the pool, never used again.
    pub number: u64,
    /// Its place, used again after it has gone.
    pub slot: u32,
    /// The configuration it runs.
    pub generation: u32,
    /// Its container.
    pub id: ContainerId,
    /// Its init's pid.
    pub init_pid: i32,
    /// A descriptor of its init.
    pub init: OwnedFd,
    /// Whether init is this process's child.
    pub is_child: bool,
    /// Where the worker is told things.
    pub channel: Channel,
    /// Its numbers.
    pub gauges: Gauges,
    /// Listeners it was told to accept on, by number.
    pub listeners: Vec<u32>,
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    identity: Identity,
    /// What it does.
    pub phase: Phase,
    /// When it was forked.
    pub started: Instant,
    /// When it began to serve.
    pub ready: Option<Instant>,
    /// Set when it is expected to end.
    pub leaving: Option<Leaving>,
    /// Why it was told to end, or killed.
    pub cause: Option<&'static str>,
    /// The last look at its gauges.
    pub seen: Option<Reading>,
    /// What it uses of a processor.
    cpu: CpuShare,
    /// The worker's own pid on the host.
    worker_pid: Option<i32>,
    /// Connections passed to it and not seen in its gauges yet.
    pub passed: u32,
    /// Its start, until it runs.
    pub starting: Option<Starting>,
    /// Whether it was told to begin: one that is forked ahead is told when its first connection is in its channel.
    pub is_begun: bool,
    /// A copy of the connection that it was given before it was born, until it serves.
    pub promised: Option<OwnedFd>,
    /// Listeners that it has handed to others, by number.
    pub given_away: Vec<u32>,
    /// Messages that it has not read.
    pub outbox: Outbox,
    /// What its messages may cost.
    pub budget: Budget,
    /// It has sent too much and is not read until then.
    pub silenced_until: Option<Instant>,
}

impl Deref for Worker {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.identity
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Identity {
        &mut self.identity
    }
}

#[derive(Debug, Default)]
struct CpuShare {
    at: Option<(Instant, u64)>,
    permille: u32,
}

impl Worker {
    /// A worker that has just been forked.
    pub fn new(identity: Identity) -> Worker {
        let now = Instant::now();
        Worker {
            identity,
            phase: Phase::Starting,
            started: now,
            ready: None,
            leaving: None,
            cause: None,
            seen: None,
            cpu: CpuShare::default(),
            worker_pid: None,
            passed: 0,
            given_away: Vec::new(),
            outbox: Outbox::default(),
            budget: Budget::new(now),
            silenced_until: None,
            starting: None,
            is_begun: true,
            promised: None,
        }
    }

    /// A number of its gauges, as last seen.
    pub fn gauge(&self, index: usize) -> u64 {
        self.seen.as_ref().map_or(0, |seen| seen.word(index))
    }

    /// Looks at the gauges; whether requests have come since the last look.
    pub fn look(&mut self, now: Instant) -> bool {
        let before = self.gauge(word::REQUESTS);
        let connections_before = self.gauge(word::CONNECTIONS);
        if let Ok(reading) = self.gauges.read_words() {
            self.seen = Some(reading);
        }
        if self.gauge(word::CONNECTIONS) != connections_before || self.gauge(word::REQUESTS) != before {
            self.passed = 0;
        }
        if self.phase == Phase::Serving {
            self.measure_cpu(now);
        }
        self.gauge(word::REQUESTS) != before
    }

    /// Milliseconds since its last request, or since it began to serve.
    pub fn idle_ms(&self, now: Instant, monotonic_ms: u64) -> u64 {
        let since_ready =
            self.ready.map_or(0, |ready| now.saturating_duration_since(ready).as_millis() as u64);
        match self.gauge(word::ACTIVE_MS) {
            0 => since_ready,
            active => monotonic_ms.saturating_sub(active).min(since_ready),
        }
    }

    /// What the policy is told of it.
    pub fn view(&self, now: Instant, monotonic_ms: u64) -> WorkerView {
        let connections = u32::try_from(self.gauge(word::CONNECTIONS)).unwrap_or(u32::MAX);
        WorkerView {
            slot: self.number,
            phase: self.phase,
            in_flight: u32::try_from(self.gauge(word::IN_FLIGHT))
                .unwrap_or(u32::MAX)
                .saturating_add(self.passed),
            connections: connections.saturating_add(self.passed),
            web_sockets: u32::try_from(self.gauge(word::WEB_SOCKETS)).unwrap_or(u32::MAX),
            idle_ms: self.idle_ms(now, monotonic_ms),
            is_full: self.gauge(word::FULL) != 0,
            cpu_permille: self.cpu.permille,
        }
    }

    /// The share of a processor it used lately, in thousandths.
    pub fn cpu_permille(&self) -> u32 {
        self.cpu.permille
    }

    /// The worker's own process on the host: the only child of its init, or the pid that init has if there is none.
    pub fn worker_pid(&mut self) -> Option<i32> {
        if self.worker_pid.is_none() {
            let path = format!("/proc/{0}/task/{0}/children", self.init_pid);
            let children = std::fs::read_to_string(path).ok()?;
            self.worker_pid = children.split_ascii_whitespace().next()?.parse().ok();
        }
        self.worker_pid
    }

    fn measure_cpu(&mut self, now: Instant) {
        // Not of one that has just begun, either: to read it costs a tenth of what the supervisor does for a start.
        let since = self.cpu.at.map(|(at, _)| at).or(self.ready);
        if since.is_some_and(|since| now.saturating_duration_since(since) < CPU_WINDOW) {
            return;
        }
        let Some(used) = self.worker_pid().and_then(cpu_ns) else { return };
        if let Some((at, before)) = self.cpu.at {
            let passed = now.saturating_duration_since(at).as_nanos().max(1) as u64;
            self.cpu.permille =
                u32::try_from(used.saturating_sub(before).saturating_mul(1000) / passed).unwrap_or(u32::MAX);
        }
        self.cpu.at = Some((now, used));
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Result<Option<Ended>> {
        use std::os::fd::AsFd;
        if !self.is_child {
            let gone = crate::cgroup::wait_for_exit(self.init.as_fd(), Instant::now())?;
            return Ok(gone.then_some(Ended::Unknown));
        }
        loop {
            return Ok(match waitpid(Pid::from_raw(self.init_pid), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => Some(Ended::With(status)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::With(128 + signal as i32)),
                Ok(_) => None,
                Err(Errno::EINTR) => continue,
                Err(_) => Some(Ended::Unknown),
            });
        }
    }
}

/// Time that a process has spent on processors, in nanoseconds: the first number of `/proc/PID/schedstat`.
fn cpu_ns(pid: i32) -> Option<u64> {
    let mut text = String::with_capacity(64);
    std::fs::File::open(format!("/proc/{pid}/schedstat")).ok()?.read_to_string(&mut text).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Why a worker that nobody told to end has ended, from its status and its last words.
pub fn reason(ended: Ended, last_words: &str, cgroup_kills: u64, was_ready: bool) -> &'static str {
    let status = match ended {
        Ended::With(status) => status,
        Ended::Unknown => -1,
    };
    const ABORTED: i32 = 128 + libc::SIGABRT;
    const KILLED: i32 = 128 + libc::SIGKILL;
    match status {
        _ if cgroup_kills > 0 => "out of memory: the control group's limit",
        ABORTED if last_words.contains("heap reached its limit") => {
            "out of memory: the JavaScript heap's limit"
        }
        KILLED if last_words.starts_with("did not yield") => "did not yield",
        0 if was_ready => "exited",
        0 => "exited before it served",
        -1 => "ended while no supervisor watched",
        1 if !was_ready => "failed to start",
        1 => "uncaught error",
        status if status > 128 => "killed by a signal",
        _ => "exited with an error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_for_each_kind_of_death() {
        let of = |status, words, kills| reason(Ended::With(status), words, kills, true);
        assert_eq!(of(137, "", 1), "out of memory: the control group's limit");
        let words = "fatal: the JavaScript heap reached its limit of 64 MB";
        assert_eq!(of(134, words, 0), "out of memory: the JavaScript heap's limit");
        assert_eq!(of(134, "", 0), "killed by a signal");
        assert_eq!(of(137, "did not yield and could not be interrupted: GET /", 0), "did not yield");
        assert_eq!(of(137, "", 0), "killed by a signal");
        assert_eq!(of(1, "", 0), "uncaught error");
        assert_eq!(reason(Ended::With(1), "", 0, false), "failed to start");
        assert_eq!(of(7, "", 0), "exited with an error");
        assert_eq!(of(0, "", 0), "exited");
        assert_eq!(reason(Ended::Unknown, "", 0, true), "ended while no supervisor watched");
    }
}
