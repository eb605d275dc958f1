//! What a pool tells of itself: JSON for programs and `turf pool status`, and the text format of Prometheus.

use std::fmt::Write;
use std::time::Instant;

use serde_json::{Value, json};

use super::gauges::word;
use super::policy::Phase;
use super::sockets::Listening;
use super::supervisor::{Ending, Supervisor, monotonic_ms};
use super::worker::Worker;

impl Supervisor {
    /// `GET /status`.
    pub(super) fn status(&mut self) -> Value {
        let now = Instant::now();
        for worker in self.workers.values_mut() {
            worker.look(now);
        }
        let workers: Vec<Value> =
            self.workers.values_mut().map(|worker| worker_status(worker, &self.sockets, now)).collect();
        let reload = match (&self.reload, &self.last_reload) {
            (Some(_), _) => json!({ "state": "running" }),
            (None, Some(Ok(generation))) => json!({ "state": "done", "generation": generation }),
            (None, Some(Err(error))) => json!({ "state": "failed", "error": error }),
            (None, None) => Value::Null,
        };
        json!({
            "name": self.place.name().as_str(),
            "pid": std::process::id(),
            "state": self.state(),
            "source": self.config.source,
            "generation": self.generation,
            "uptime_ms": now.saturating_duration_since(self.since).as_millis() as u64,
            "listen": self.addresses(),
            "dispatch": self.config.dispatch,
            "min": self.config.bounds.min,
            "max": self.config.bounds.max,
            "waiting": self.sockets.iter().map(Listening::waiting).sum::<u32>()
                + self.connections.waiting(),
            "parked": self.connections.parked(),
            "spares": self.keeper.spares.len(),
            "ahead": self.keeper.ahead(),
            "unburied": self.keeper.unburied(),
            "requests": self.requests(),
            "started": self.totals.started,
            "exited": self.totals.exited,
            "failed": self.totals.failed,
            "refused": self.totals.refused,
            "messages": self.messages.to_json(),
            "handovers": self.handovers.to_json(),
            "failures_in_a_row": self.failures.in_a_row,
            "reload": reload,
            "workers": workers,
        })
    }

    /// One word.
    fn state(&self) -> &'static str {
        match self.ending {
            Ending::Draining => "draining",
            Ending::Stopping => "stopping",
            Ending::Releasing => "releasing",
            Ending::No if self.is_degraded => "degraded",
            Ending::No => "running",
        }
    }

    fn addresses(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.sockets.iter().map(|socket| socket.address.as_str()).collect();
        all.dedup();
        all
    }

    /// `GET /ready`: whether a connection that comes now would be served.
    pub(super) fn is_ready(&self) -> bool {
        let serves = self.workers.values().any(|worker| worker.phase == Phase::Serving);
        self.ending == Ending::No && (serves || (self.config.bounds.min == 0 && !self.is_degraded))
    }

    /// `GET /metrics`.
    pub(super) fn metrics(&mut self) -> String {
        let now = Instant::now();
        for worker in self.workers.values_mut() {
            worker.look(now);
        }
        let mut text = String::new();
        let count = |phase| self.workers.values().filter(|worker| worker.phase == phase).count();
        let sum = |index| self.workers.values().map(|worker| worker.gauge(index)).sum::<u64>();
        let waiting = self.sockets.iter().map(Listening::waiting).sum::<u32>() + self.connections.waiting();
        let plain: [(&str, &str, &str, u64); 15] = [
            ("turf_pool_requests_total", "counter", "Requests dispatched.", self.requests()),
            (
                "turf_pool_request_failures_total",
                "counter",
                "Requests answered by an error of the server.",
                self.totals.failures + sum(word::FAILURES),
            ),
            ("turf_pool_requests_in_flight", "gauge", "Requests not answered yet.", sum(word::IN_FLIGHT)),
            ("turf_pool_connections", "gauge", "Open connections of workers.", sum(word::CONNECTIONS)),
            ("turf_pool_web_sockets", "gauge", "Open WebSockets of served requests.", sum(word::WEB_SOCKETS)),
            (
                "turf_pool_waiting_connections",
                "gauge",
                "Connections that wait for a worker.",
                u64::from(waiting),
            ),
            (
                "turf_pool_refused_connections_total",
                "counter",
                "Connections answered with 503.",
                self.totals.refused,
            ),
            ("turf_pool_worker_starts_total", "counter", "Workers started.", self.totals.started),
            ("turf_pool_worker_failures_total", "counter", "Workers that ended unasked.", self.totals.failed),
            (
                "turf_pool_handovers_total",
                "counter",
                "Requests that went to another worker.",
                self.handovers.taken,
            ),
            (
                "turf_pool_listener_handovers_total",
                "counter",
                "Listeners that went to another worker.",
                self.handovers.listeners,
            ),
            ("turf_pool_messages_total", "counter", "Messages taken.", self.messages.taken),
            (
                "turf_pool_message_deliveries_total",
                "counter",
                "Messages given to workers.",
                self.messages.delivered,
            ),
            (
                "turf_pool_message_throttles_total",
                "counter",
                "Senders made to wait.",
                self.messages.throttled,
            ),
            ("turf_pool_degraded", "gauge", "1 after a row of failures.", u64::from(self.is_degraded)),
        ];
        for (name, kind, help, value) in plain {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let _ = writeln!(
            text,
            "# HELP turf_pool_messages_lost_total Messages that did not reach a worker.\n# TYPE turf_pool_messages_lost_total counter"
        );
        for (why, count) in [
            ("full", self.messages.lost_full),
            ("gone", self.messages.lost_gone),
            ("invalid", self.messages.lost_invalid),
        ] {
            let _ = writeln!(text, "turf_pool_messages_lost_total{{why=\"{why}\"}} {count}");
        }
        let _ = writeln!(text, "# HELP turf_pool_workers Workers by phase.\n# TYPE turf_pool_workers gauge");
        for (phase, name) in
            [(Phase::Starting, "starting"), (Phase::Serving, "serving"), (Phase::Draining, "draining")]
        {
            let _ = writeln!(text, "turf_pool_workers{{phase=\"{name}\"}} {}", count(phase));
        }
        text
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
    }
}

fn worker_status(worker: &mut Worker, sockets: &[Listening], now: Instant) -> Value {
    let accepts_on = sockets.iter().filter(|socket| worker.listeners.contains(&socket.number));
    let listeners: Vec<&str> = accepts_on.map(|socket| socket.address.as_str()).collect();
    let memory = worker.worker_pid().and_then(Memory::of).unwrap_or_default();
    json!({
        "id": worker.id.as_str(),
        "pid": worker.init_pid,
        "worker_pid": worker.worker_pid(),
        "generation": worker.generation,
        "phase": phase_name(worker.phase),
        "listeners": listeners,
        "requests": worker.gauge(word::REQUESTS),
        "in_flight": worker.gauge(word::IN_FLIGHT),
        "connections": worker.gauge(word::CONNECTIONS),
        "web_sockets": worker.gauge(word::WEB_SOCKETS),
        "failures": worker.gauge(word::FAILURES),
        "interrupted": worker.gauge(word::INTERRUPTED),
        "idle_ms": worker.idle_ms(now, monotonic_ms()),
        "cpu_permille": worker.cpu_permille(),
        "messages_waiting": worker.outbox.len(),
        "age_ms": now.saturating_duration_since(worker.started).as_millis() as u64,
        "private_kb": memory.private_kb,
        "shared_kb": memory.shared_kb,
        "pss_kb": memory.pss_kb,
    })
}

/// A process's memory, from `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    private_kb: u64,
    shared_kb: u64,
    pss_kb: u64,
}

impl Memory {
    fn of(pid: i32) -> Option<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let kb = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        Some(Memory {
            private_kb: kb("Private_Clean") + kb("Private_Dirty"),
            shared_kb: kb("Shared_Clean") + kb("Shared_Dirty"),
            pss_kb: kb("Pss"),
        })
    }
}
