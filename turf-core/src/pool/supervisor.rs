//! The supervisor: one process, one thread, one loop over epoll(7).
//!
//! ```text
//!            a connection waits, a worker ends, a request after a quiet time, a command, a timer
//!   quiet  ----------------------------------------------------------------------------------------> active
//!     ^                                                                                                 |
//!     |   nothing has changed for QUIET_AFTER: workers and sockets are asked to wake the supervisor     | looks at
//!     +-------------------------------------------------------------------------------------------------+ the gauges
//! ```
//!
//! While requests come it looks at the workers' gauges and at the queues every few milliseconds and asks the
//! [policy](super::policy); a quiet pool has no timer but those of idle workers that may go. It is not in the way of
//! any request (unless it was asked to pass connections), so its death costs nothing but supervision.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::admin::Admin;
use super::channel::{PACKET_BYTES, Said};
use super::config::PoolConfig;
use super::connections::Connections;
use super::events::Events;
use super::gauges::word;
use super::handover::Handovers;
use super::keeper::{self, Keeper};
use super::messages::{MESSAGES_PER_TURN, MessageTotals};
use super::place::Place;
use super::policy::{self, Phase, View};
pub(super) use super::poller::{Poller, Source};
use super::slow::SlowEvents;
use super::sockets::Listening;
use super::worker::{Leaving, Worker};
use crate::error::{Operation, Result};
use crate::root::StateRoot;
use crate::seed::upkeep::Upkeep;
use crate::sys::program_pages;

/// Between two looks while requests come.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The same while something waits.
const LOOK_EVERY_WAITING: Duration = Duration::from_millis(2);

/// Without any change for so long the pool is quiet.
const QUIET_AFTER: Duration = Duration::from_millis(250);

/// Between two reminders of idle workers that something waits.
const POKE_EVERY: Duration = Duration::from_millis(20);

/// Most events handled in one turn.
const MAX_EVENTS: usize = 256;

/// A worker that has served so long is no failure.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Failures in a row after which the pool counts as degraded.
pub const DEGRADED_AFTER: u32 = 5;

/// The first time that starts are held back; it doubles with each failure.
const FIRST_HOLD: Duration = Duration::from_millis(100);

/// The longest time that starts are held back.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// After SIGTERM a worker has this time, a little more than its own limit for a drain.
pub const TERM_GRACE: Duration = Duration::from_secs(10);

/// Workers that failed in a row.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub in_a_row: u32,
    pub hold_until: Option<Instant>,
}

impl Failures {
    /// The first failure is replaced at once; further ones wait longer and longer.
    pub fn add(&mut self, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row > 1 {
            let doubled = FIRST_HOLD.saturating_mul(1 << (self.in_a_row - 2).min(16));
            self.hold_until = Some(now + doubled.min(LONGEST_HOLD));
        }
    }

    pub fn held_back_ms(&self, now: Instant) -> u64 {
        let left = self.hold_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        left.as_millis().div_ceil(1) as u64
    }
}

/// Numbers since the supervisor's start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub started: u64,
    pub exited: u64,
    pub failed: u64,
    pub refused: u64,
    /// Requests of workers that have gone.
    pub requests: u64,
    /// Errors of workers that have gone.
    pub failures: u64,
}

/// Whether and how the pool is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not.
    No,
    /// When every worker has finished what it has begun.
    Draining,
    /// When every worker has gone.
    Stopping,
    /// At once, without its workers.
    Releasing,
}

/// A change to another generation.
#[derive(Clone, Debug)]
pub(super) struct Reload {
    /// The configuration before, to go back to.
    pub from: u32,
    pub from_bundle: std::path::PathBuf,
    pub from_seed: Option<String>,
}

/// The supervisor of one pool.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) root: StateRoot,
    pub(super) config: PoolConfig,
    pub(super) place: Place,
    pub(super) poller: Poller,
    pub(super) sockets: Vec<Listening>,
    pub(super) workers: BTreeMap<u64, Worker>,
    pub(super) keeper: Keeper,
    /// The limit of open files.
    pub(super) most_descriptors: u64,
    pub(super) connections: Connections,
    pub(super) messages: MessageTotals,
    pub(super) handovers: Handovers,
    pub(super) slow: SlowEvents,
    pub(super) admin: Admin,
    pub(super) events: Events,
    pub(super) failures: Failures,
    pub(super) totals: Totals,
    pub(super) generation: u32,
    pub(super) bundle: std::path::PathBuf,
    pub(super) seed: Option<String>,
    /// Has the seed replaced when it is old.
    pub(super) upkeep: Option<Upkeep>,
    pub(super) next_number: u64,
    pub(super) reload: Option<Reload>,
    pub(super) last_reload: Option<std::result::Result<u32, String>>,
    pub(super) ending: Ending,
    /// Draining, since when the sockets are emptied.
    pub(super) empty_since: Option<Instant>,
    pub(super) is_degraded: bool,
    pub(super) since: Instant,
    signals: SignalFd,
    /// Where packets are received.
    pub(super) packet: Vec<u8>,
    /// When it looks next; never, if nothing is to be expected.
    look_at: Option<Instant>,
    /// Since when nothing has changed; none while quiet.
    calm_since: Option<Instant>,
    /// It has been quiet, and sandboxes were ready.
    is_set_up: bool,
    waiting_since: Option<Instant>,
    /// When idle workers were last told that something waits.
    poked: Option<Instant>,
    pub(super) waiting: u32,
}

/// What a supervisor is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub root: StateRoot,
    pub config: PoolConfig,
    pub place: Place,
    pub sockets: Vec<Listening>,
    pub admin: Admin,
    pub events: Events,
    pub generation: u32,
    pub bundle: std::path::PathBuf,
    pub seed: Option<String>,
    pub next_number: u64,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Result<Supervisor> {
        let poller = Poller::new()?;
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            signals.add(signal);
        }
        signals.thread_block().operation(|| "block signals")?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .operation(|| "watch for signals")?;
        poller.add(&signals, EpollFlags::EPOLLIN, Source::Signals)?;
        poller.add(parts.admin.listener(), EpollFlags::EPOLLIN, Source::AdminListener)?;
        let supervisor = Supervisor {
            root: parts.root,
            config: parts.config,
            place: parts.place,
            poller,
            sockets: parts.sockets,
            workers: BTreeMap::new(),
            keeper: Keeper::default(),
            most_descriptors: keeper::raise_descriptor_limit()?,
            connections: Connections::default(),
            messages: MessageTotals::default(),
            handovers: Handovers::default(),
            slow: SlowEvents::default(),
            packet: vec![0; PACKET_BYTES],
            admin: parts.admin,
            events: parts.events,
            failures: Failures::default(),
            totals: Totals::default(),
            generation: parts.generation,
            bundle: parts.bundle,
            seed: parts.seed,
            upkeep: None,
            next_number: parts.next_number,
            reload: None,
            last_reload: None,
            ending: Ending::No,
            empty_since: None,
            is_degraded: false,
            since: Instant::now(),
            signals,
            look_at: Some(Instant::now()),
            calm_since: Some(Instant::now()),
            is_set_up: false,
            waiting_since: None,
            poked: None,
            waiting: 0,
        };
        for socket in &supervisor.sockets {
            let source = Source::Listener(u64::from(socket.number));
            supervisor.poller.add(socket, supervisor.listener_flags(), source)?;
        }
        Ok(supervisor)
    }

    /// One who passes connections accepts them as they come; otherwise only the first one is of interest.
    fn listener_flags(&self) -> EpollFlags {
        match self.config.passes_connections() {
            true => EpollFlags::EPOLLIN,
            false => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
        }
    }

    /// Lives until the pool's end.
    pub fn run(mut self) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); MAX_EVENTS];
        while !self.has_ended() {
            let deadline = self.next_deadline();
            let chore = self.next_chore(Instant::now());
            if !self.is_set_up && self.calm_since.is_none() && !self.has_chores() {
                self.is_set_up = true;
                // Most of the program was needed for that only. Should it fail, memory is what it was.
                let _ = program_pages::give_back();
            }
            let wake_at = deadline.into_iter().chain(chore).min();
            let count = match self.poller.0.wait(&mut events, timeout_until(wake_at)) {
                Err(nix::errno::Errno::EINTR) => 0,
                count => count.operation(|| "wait for events")?,
            };
            for event in &events[..count] {
                self.handle(Source::of(event.data()), event.events());
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                self.expire(Instant::now());
            }
            if self.look_at.is_some_and(|at| at <= Instant::now()) {
                self.look();
            }
            self.do_chores(count == 0);
        }
        self.finish()
    }

    fn has_ended(&self) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::Draining | Ending::Stopping => self.workers.is_empty() && self.empty_since.is_none(),
            // A start on its way would end with this process.
            Ending::Releasing => self.workers.values().all(|worker| worker.starting.is_none()),
        }
    }

    /// The next look, or the next moment at which a worker, a connection or a client runs out of time.
    fn next_deadline(&self) -> Option<Instant> {
        self.workers
            .values()
            .filter_map(|worker| self.deadline_of(worker))
            .chain(self.workers.values().filter_map(|worker| worker.silenced_until))
            .chain(self.messages.next_report())
            .chain(self.connections.next_deadline())
            .chain(self.admin.next_deadline())
            .chain(self.upkeep.as_ref().and_then(Upkeep::next))
            .chain(self.look_at)
            .min()
    }

    fn expire(&mut self, now: Instant) {
        self.enforce_deadlines(now);
        self.end_silences(now);
        self.report_losses(now);
        self.connections.expire(now);
        self.admin.expire(now);
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.act(now);
        }
    }

    fn deadline_of(&self, worker: &Worker) -> Option<Instant> {
        match worker.leaving {
            Some(Leaving::Until(at) | Leaving::TermedUntil(at)) => Some(at),
            Some(Leaving::Killed) => None,
            None if worker.phase == Phase::Starting => Some(worker.started + self.config.init_timeout),
            None => None,
        }
    }

    fn handle(&mut self, source: Source, flags: EpollFlags) {
        match source {
            Source::Signals => self.take_signals(),
            Source::AdminListener => self.accept_admin(),
            Source::AdminClient(number) => self.serve_admin(number, flags),
            Source::Listener(number) => self.on_listener(number),
            Source::Init(number) => self.on_exit(number),
            Source::Channel(number) => self.on_channel(number, flags),
            Source::Parked(number) => self.on_parked(number, flags),
            Source::Lingering(number) => self.connections.linger_on(number),
            Source::Start(number) => self.on_start(number),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGTERM | Signal::SIGINT) if self.ending == Ending::No => self.drain(),
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.stop(),
                Ok(Signal::SIGHUP) => self.reload(),
                // Children are waited for by their descriptors.
                _ => {}
            }
        }
    }

    /// A connection waits. The socket is looked at again and again from here on, until it is quiet.
    fn on_listener(&mut self, number: u64) {
        if self.config.passes_connections() {
            self.accept_from(number);
        }
        self.wake();
        self.look();
    }

    /// A worker has begun to serve: it gets time to take what waits before others are started for it.
    pub(super) fn be_patient_again(&mut self) {
        self.waiting_since = self.waiting_since.map(|_| Instant::now());
    }

    /// Something happens: look soon.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        self.calm_since = Some(now);
        self.look_at = Some(self.look_at.map_or(now, |at| at.min(now)));
    }

    fn on_channel(&mut self, number: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.empty_outbox(number);
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Some(worker) = self.workers.get(&number).filter(|worker| worker.silenced_until.is_none())
            else {
                return;
            };
            match worker.channel.receive(&mut self.packet) {
                Ok(Some(Said::Ready)) => self.on_ready(number),
                Ok(Some(Said::Active)) => self.wake(),
                Ok(Some(Said::GivenBack(connection))) => {
                    self.place_connection(connection);
                    self.wake();
                }
                Ok(Some(Said::Drains)) => {
                    let was_interrupted =
                        worker.gauges.read_words().is_ok_and(|reading| reading.word(word::INTERRUPTED) > 0);
                    let cause = match was_interrupted {
                        true => "its script did not yield and was interrupted",
                        false => "has served as many requests as it may",
                    };
                    self.begin_leaving(number, cause);
                    self.wake();
                }
                Ok(Some(Said::Message { packet, file })) => self.relay(number, &packet, file),
                Ok(Some(Said::HandOver { packet, fds })) => self.hand_over(number, &packet, fds),
                Ok(Some(Said::Taken(packet))) => self.on_taken(number, &packet),
                Ok(Some(Said::HandListener(packet))) => self.hand_listener(number, &packet),
                Ok(Some(Said::Slow(packet))) => self.on_slow(number, &packet),
                Ok(Some(Said::Unknown)) => {}
                Ok(Some(Said::Closed)) | Err(_) => {
                    // Its end is told by the descriptor of its init, which may take milliseconds more to go; a channel
                    // without another end is ready all the time.
                    self.poller.remove(&worker.channel);
                    return;
                }
                Ok(None) => return,
            }
        }
    }

    /// Looks at everything and acts on it.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let mut changed = false;
        for worker in self.workers.values_mut() {
            changed |= worker.look(now);
            if let Some(starting) = &mut worker.starting {
                starting.look_at_seed();
            }
        }
        self.waiting = self.count_waiting();
        self.waiting_since = match self.waiting {
            0 => None,
            _ => self.waiting_since.or(Some(now)),
        };
        changed |= self.waiting > 0 || self.workers.values().any(|worker| worker.phase == Phase::Starting);
        if changed {
            self.calm_since = Some(now);
        }
        self.prove(now);
        let decision = match self.ending {
            Ending::No => policy::decide(&self.config.bounds, &self.view(now)),
            Ending::Draining | Ending::Stopping | Ending::Releasing => policy::Decision::default(),
        };
        self.poke(now);
        let idle_wait = decision.look_again_ms;
        self.act(decision, now);
        self.go_on_with_reload();
        self.go_on_with_drain(now);
        self.pass_queued();
        self.plan_next_look(idle_wait);
    }

    fn view(&self, now: Instant) -> View {
        let monotonic_ms = monotonic_ms();
        let waiting_ms =
            self.waiting_since.map_or(0, |since| now.saturating_duration_since(since).as_millis());
        View {
            workers: self.workers.values().map(|worker| worker.view(now, monotonic_ms)).collect(),
            waiting: self.waiting,
            waiting_ms: waiting_ms as u64,
            held_back_ms: self.failures.held_back_ms(now),
            surge: u32::from(self.reload.is_some()),
        }
    }

    /// Connections in the queues of the sockets, in ours, and parked ones whose clients have said something.
    fn count_waiting(&self) -> u32 {
        let in_sockets: u32 = self.sockets.iter().map(Listening::waiting).sum();
        in_sockets.saturating_add(self.connections.waiting())
    }

    /// Something waits although a worker has nothing to do: the one that the kernel woke for it has just stopped
    /// accepting, and nobody else was woken.
    fn poke(&mut self, now: Instant) {
        let waits_long = self.waiting_since.is_some_and(|since| {
            now.saturating_duration_since(since).as_millis() as u64 >= policy::PATIENCE_MS
        });
        let is_time = self.poked.is_none_or(|poked| now.saturating_duration_since(poked) >= POKE_EVERY);
        if !waits_long || !is_time || self.config.passes_connections() {
            return;
        }
        self.poked = Some(now);
        for worker in self.workers.values().filter(|worker| worker.phase == Phase::Serving) {
            if worker.gauge(word::IN_FLIGHT) == 0 {
                // One that does not read is not idle.
                let _ = worker.channel.send(&[super::channel::tag::POKE], None);
            }
        }
    }

    fn act(&mut self, decision: policy::Decision, now: Instant) {
        for _ in 0..decision.start {
            if !self.start_worker() {
                break;
            }
        }
        for number in decision.retire {
            self.retire(number, "idle");
        }
        if let Some((number, count)) = decision.shed
            && let Some(worker) = self.workers.get(&number)
        {
            // A full queue means that it has not read the last one yet.
            let _ = worker.channel.send_number(super::channel::tag::SHED, count, None);
        }
        let refuse = match self.is_hopeless(now) {
            true => self.waiting,
            false => decision.refuse,
        };
        if refuse > 0 {
            self.refuse(refuse);
        }
    }

    /// Nobody serves and nobody will soon: those who wait are better told so.
    fn is_hopeless(&self, now: Instant) -> bool {
        let serves = self.workers.values().any(|worker| worker.phase != Phase::Draining);
        self.is_degraded && !serves && self.failures.held_back_ms(now) > FIRST_HOLD.as_millis() as u64
    }

    /// A worker that serves for a while ends a row of failures.
    fn prove(&mut self, now: Instant) {
        if self.failures.in_a_row == 0 {
            return;
        }
        let is_proof = |worker: &Worker| {
            worker.leaving.is_none()
                && worker.ready.is_some_and(|ready| now.saturating_duration_since(ready) >= PROVEN_AFTER)
        };
        if self.workers.values().any(is_proof) {
            self.failures = Failures::default();
            if std::mem::replace(&mut self.is_degraded, false) {
                self.event("recovered", None, json!({}));
            }
        }
    }

    fn plan_next_look(&mut self, idle_wait_ms: Option<u64>) {
        let now = Instant::now();
        let is_calm = self.calm_since.is_none_or(|since| now.saturating_duration_since(since) >= QUIET_AFTER);
        let is_at_work = self.reload.is_some() || self.empty_since.is_some() || !self.connections.is_quiet();
        if !is_calm || is_at_work {
            let interval = if self.waiting > 0 { LOOK_EVERY_WAITING } else { LOOK_EVERY };
            self.look_at = Some(now + interval);
            let serves = self.workers.values().any(|worker| worker.phase != Phase::Draining);
            if !serves && self.waiting == 0 {
                // The next connection has nobody else to notice it.
                self.watch_sockets();
            }
            return;
        }
        if self.calm_since.take().is_some() && !self.go_quiet() {
            self.calm_since = Some(now);
            self.look_at = Some(now + LOOK_EVERY);
            return;
        }
        let unproven = (self.failures.in_a_row > 0 && !self.workers.is_empty()).then_some(PROVEN_AFTER);
        let idle = idle_wait_ms.map(|ms| Duration::from_millis(ms.max(1)));
        self.look_at = unproven.into_iter().chain(idle).min().map(|wait| now + wait);
    }

    /// Asks workers and sockets to tell of the next thing that happens. False if it has happened meanwhile.
    fn go_quiet(&mut self) -> bool {
        for worker in self.workers.values().filter(|worker| worker.phase == Phase::Serving) {
            // A page that cannot be written is a worker that cannot be asked: it is looked at when others wake us.
            let _ = worker.gauges.ask_for_wake_up();
        }
        let now = Instant::now();
        let mut changed = false;
        for worker in self.workers.values_mut() {
            changed |= worker.look(now);
        }
        self.watch_sockets();
        !changed
    }

    /// Asks to be told of the next connection.
    fn watch_sockets(&self) {
        if self.config.passes_connections() {
            return;
        }
        for socket in &self.sockets {
            let source = Source::Listener(u64::from(socket.number));
            // One that cannot be watched is looked at when others wake us.
            let _ = self.poller.modify(socket, self.listener_flags(), source);
        }
    }

    pub(super) fn event(&mut self, event: &'static str, worker: Option<&str>, details: serde_json::Value) {
        let line = self.events.add(event, worker, details).line();
        self.admin.follow(&self.poller, &line);
    }

    /// A message of a worker for whoever follows the events.
    pub(super) fn message_event(&mut self, worker: &str, data: serde_json::Value) {
        let line = self.events.add_message(worker, data).line();
        self.admin.follow(&self.poller, &line);
    }

    /// The end: nothing of the pool is left, except after a release.
    fn finish(mut self) -> Result<()> {
        self.bury_all();
        if self.ending == Ending::Releasing {
            self.write_record();
            self.event("released", None, json!({ "workers": self.workers.len() }));
            return Ok(());
        }
        self.discard_spares();
        self.stop_own_seed();
        self.event("ended", None, json!({ "requests": self.totals.requests }));
        self.close_sockets();
        self.place.remove()
    }

    /// Requests served by the pool since this supervisor came.
    pub(super) fn requests(&self) -> u64 {
        self.totals.requests + self.workers.values().map(|worker| worker.gauge(word::REQUESTS)).sum::<u64>()
    }
}

fn timeout_until(deadline: Option<Instant>) -> EpollTimeout {
    let Some(at) = deadline else { return EpollTimeout::NONE };
    let left = at.saturating_duration_since(Instant::now());
    // Rounded up, so that no last millisecond is spent in a loop.
    EpollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
}

/// `CLOCK_MONOTONIC` in milliseconds, as workers write it into their gauges.
pub(super) fn monotonic_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000
}

/// Duplicates what a worker must keep for a later supervisor.
pub(super) fn duplicate(fd: impl AsFd, what: &str) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().operation(|| format!("duplicate {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_held_back_longer_and_longer_but_never_beyond_the_limit() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let mut held = Vec::new();
        for _ in 0..20 {
            failures.add(now);
            held.push(failures.held_back_ms(now));
        }
        assert_eq!(held[..5], [0, 100, 200, 400, 800]);
        assert_eq!(held[19], LONGEST_HOLD.as_millis() as u64);
    }
}
