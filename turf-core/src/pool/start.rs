//! Workers' beginnings and ends.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use serde_json::json;

use super::channel::tag;
use super::config::Dispatch;
use super::gauges::word;
use super::keeper::{Sandbox, Spare, descriptor_limit_of};
use super::messages::Lost;
use super::place::{Record, WorkerRecord};
use super::policy::Phase;
use super::source;
use super::supervisor::{DEGRADED_AFTER, Ending, Reload, Source, Supervisor, TERM_GRACE};
use super::worker::{Ended, Identity, Leaving, Worker, reason};
use crate::container::Heard;
use crate::container::process::ProcessId;
use crate::container::state::State;
use crate::error::{Operation, Result};
use crate::fault::{self, Point};
use crate::root::ContainerId;
use crate::seed::directory::Recipe;
use crate::seed::plan::WorkerLimits;
use crate::seed::registry::{DEFAULT_SEED, Registry, SeedSource};
use crate::seed::upkeep::Upkeep;
use crate::sys::pidfd::pidfd_send_signal;

/// Why a worker with a connection of its own goes.
pub(super) const SERVED: &str = "served its connection";

/// Most files and connections that a worker of a script may have open; each connection costs some kilobytes.
const MAX_OPEN_FILES: u64 = 65_536;

/// How long a pool that drains goes on taking what comes to its sockets: a client that has connected has sent its
/// request by then, and a worker has read it.
const EMPTYING: Duration = Duration::from_millis(50);

/// Messages that a worker may not have sent yet when it ends: its own limit. The number comes from its page.
const MESSAGES_OF_A_WORKER: u64 = 1024;

impl Supervisor {
    /// Asks for a worker; whether that went well so far. With [`disposable`](super::config::Disposable) it is given its
    /// connection before it is born.
    pub(super) fn start_worker(&mut self) -> bool {
        let spare = match self.take_spare() {
            Ok(spare) => spare,
            Err(error) => {
                self.event("create-failed", None, json!({ "error": error.to_string() }));
                self.fail();
                return false;
            }
        };
        let (number, id, init) = (spare.number, spare.id.clone(), spare.init_pid);
        self.hold_chores(false);
        match self.fork_into(spare) {
            Ok(worker) => {
                self.workers.insert(number, worker);
                self.promise_connection(number);
                self.remember();
                self.tell_to_begin(number)
            }
            Err(error) => {
                self.start_failed(&id, Some(init), &error.to_string());
                false
            }
        }
    }

    fn fork_into(&mut self, spare: Spare) -> Result<Worker> {
        // One that was forked ahead is told in `tell_to_begin`, when its first connection is in its channel.
        let is_begun = matches!(spare.sandbox, Sandbox::Empty(..));
        if is_begun {
            spare.introduce()?;
        }
        let Spare { number, generation, id, init_pid, init, sandbox, channel, gauges } = spare;
        let slot = self.free_slot();
        let initial: Vec<u32> = match self.config.dispatch {
            Dispatch::Shared if !self.config.passes_connections() => {
                self.sockets.iter().map(|socket| socket.number).collect()
            }
            _ => Vec::new(),
        };
        let starting =
            sandbox.starting(&channel, &gauges, self.worker_limits(number), |ready, supervised| {
                ready.start(&self.listeners(&initial), supervised)
            })?;
        self.poller.add(&channel, EpollFlags::EPOLLIN, Source::Channel(number))?;
        if is_begun || starting.waits() {
            self.poller.add(starting.next(), EpollFlags::EPOLLIN, Source::Start(number))?;
        }
        let mut worker = Worker::new(Identity {
            number,
            slot,
            generation,
            id,
            init_pid,
            init,
            is_child: true,
            channel,
            gauges,
            listeners: initial,
        });
        worker.starting = Some(starting);
        worker.is_begun = is_begun;
        Ok(worker)
    }

    fn listeners(&self, numbers: &[u32]) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().filter(|socket| numbers.contains(&socket.number)).map(AsFd::as_fd).collect()
    }

    /// What one worker is limited to.
    pub(super) fn worker_limits(&self, number: u64) -> WorkerLimits {
        self.config.worker_limits(chance(number))
    }

    /// Tells a worker that was forked ahead to begin; whether that went well so far.
    fn tell_to_begin(&mut self, number: u64) -> bool {
        let Some(worker) = self.workers.get_mut(&number) else { return false };
        if std::mem::replace(&mut worker.is_begun, true) {
            return true;
        }
        let Some(mut starting) = worker.starting.take() else { return true };
        let numbers = worker.listeners.clone();
        let begun = starting.begin(&self.listeners(&numbers));
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.starting = Some(starting);
        }
        begun.map_err(|error| self.forget_failed(number, &error.to_string())).is_ok()
    }

    fn forget_failed(&mut self, number: u64, words: &str) {
        if let Some(worker) = self.forget_worker(number) {
            self.start_failed(&worker.id, Some(worker.init_pid), words);
            self.remember();
        }
    }

    /// The seed, a worker or its init has said something of a start.
    pub(super) fn on_start(&mut self, number: u64) {
        let Some(worker) = self.workers.get_mut(&number) else { return self.on_forked_ahead(number) };
        let Some(starting) = &mut worker.starting else { return };
        self.poller.remove(starting.next());
        let heard = match starting.hear() {
            // One that begins as soon as it can does not wait.
            Ok(Heard::Nothing | Heard::Waits) => {
                self.poller.add(starting.next(), EpollFlags::EPOLLIN, Source::Start(number))
            }
            Ok(Heard::Runs(_)) => {
                worker.starting = None;
                self.totals.started += 1;
                let details = json!({ "pid": worker.init_pid, "generation": worker.generation });
                let id = worker.id.clone();
                self.event("start", Some(id.as_str()), details);
                fault::at(Point::PoolWorkerForked)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            self.forget_failed(number, &error.to_string());
        }
    }

    /// What is left of a start that failed goes at once: its worker may yet be born.
    pub(super) fn start_failed(&mut self, id: &ContainerId, init: Option<i32>, words: &str) {
        self.delete(id, init);
        self.event("start-failed", Some(id.as_str()), json!({ "error": words }));
        self.fail();
        if self.reload.is_some() {
            self.abandon_reload(words);
        }
    }

    /// Takes a worker out of the table. The connection that it was promised, and did not live to serve, waits again.
    fn forget_worker(&mut self, number: u64) -> Option<Worker> {
        let mut worker = self.workers.remove(&number)?;
        self.poller.remove(&worker.init);
        self.poller.remove(&worker.channel);
        if let Some(starting) = worker.starting.take() {
            self.poller.remove(starting.next());
        }
        if let Some(connection) = worker.promised.take() {
            self.connections.put_back(connection);
        }
        Some(worker)
    }

    fn free_slot(&self) -> u32 {
        let taken: std::collections::BTreeSet<u32> =
            self.workers.values().map(|worker| worker.slot).collect();
        (0..).find(|slot| !taken.contains(slot)).unwrap_or(0)
    }

    /// A worker says that it serves.
    pub(super) fn on_ready(&mut self, number: u64) {
        self.on_start(number);
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if worker.phase != Phase::Starting {
            return;
        }
        let now = Instant::now();
        (worker.phase, worker.ready) = (Phase::Serving, Some(now));
        worker.look(now);
        let took_us = now.saturating_duration_since(worker.started).as_micros() as u64;
        let id = worker.id.clone();
        let has_promised = worker.promised.take().is_some();
        self.event("ready", Some(id.as_str()), json!({ "start_us": took_us }));
        self.hold_chores(true);
        self.be_patient_again();
        if has_promised {
            self.begin_leaving(number, SERVED);
        }
        self.spread_listeners();
        self.pass_queued();
        self.go_on_with_reload();
        self.wake();
    }

    /// Lets a worker finish what it has begun and end.
    pub(super) fn retire(&mut self, number: u64, cause: &'static str) {
        self.begin_leaving(number, cause);
        // What it is asked for it cannot be told when its queue is full: then the deadline ends it.
        if let Some(worker) = self.workers.get(&number) {
            let somebody_takes = self.ending == Ending::No;
            let _ = worker.channel.send(&[if somebody_takes { tag::DRAIN } else { tag::FINISH }], None);
        }
        self.spread_listeners();
    }

    /// A worker is about to end: one that does not serve yet has no longer than it had to begin.
    pub(super) fn begin_leaving(&mut self, number: u64, cause: &'static str) {
        let mut until = Instant::now() + self.config.drain_timeout;
        let init_timeout = self.config.init_timeout;
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if worker.leaving.is_some() {
            return;
        }
        if worker.phase == Phase::Starting {
            until = until.min(worker.started + init_timeout);
        }
        (worker.phase, worker.leaving) = (Phase::Draining, Some(Leaving::Until(until)));
        worker.cause = Some(cause);
        let id = worker.id.clone();
        self.event("retire", Some(id.as_str()), json!({ "cause": cause }));
        self.spread_listeners();
    }

    /// Ends workers whose time is up.
    pub(super) fn enforce_deadlines(&mut self, now: Instant) {
        let init_timeout = self.config.init_timeout;
        let mut late = Vec::new();
        for worker in self.workers.values_mut() {
            let signal = match worker.leaving {
                Some(Leaving::Until(at)) if at <= now => {
                    worker.leaving = Some(Leaving::TermedUntil(now + TERM_GRACE));
                    libc::SIGTERM
                }
                Some(Leaving::TermedUntil(at)) if at <= now => {
                    worker.leaving = Some(Leaving::Killed);
                    libc::SIGKILL
                }
                None if worker.phase == Phase::Starting && worker.started + init_timeout <= now => {
                    worker.leaving = Some(Leaving::Killed);
                    worker.cause = Some("did not serve within its init timeout");
                    libc::SIGKILL
                }
                _ => continue,
            };
            // It may have gone already, which its descriptor tells.
            let _ = pidfd_send_signal(worker.init.as_fd(), signal);
            late.push((worker.id.clone(), signal));
        }
        for (id, signal) in late {
            self.event("timeout", Some(id.as_str()), json!({ "signal": signal }));
        }
    }

    /// A worker's init has gone.
    pub(super) fn on_exit(&mut self, number: u64) {
        if self.on_spare_exit(number) {
            return;
        }
        // Why it could not start is known better by whoever started it.
        self.on_start(number);
        let Some(worker) = self.workers.get(&number) else { return };
        let ended = match worker.ended() {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(_) => Ended::Unknown,
        };
        self.take_last_messages(number);
        let Some(worker) = self.forget_worker(number) else { return };
        self.offer_again_what_had(number);
        let last = worker.gauges.read().ok();
        let last_words = last.as_ref().map(super::gauges::Reading::last_words).unwrap_or_default();
        let number_of = |index| last.as_ref().map_or(0, |last| last.word(index));
        let unheard =
            worker.outbox.len() as u64 + number_of(word::MESSAGES_WAITING).min(MESSAGES_OF_A_WORKER);
        self.messages.lost(Lost::Gone, unheard);
        // One that went when it was asked to was killed by nobody.
        let has_obeyed = worker.leaving.is_some() && matches!(ended, Ended::With(0));
        let kills = match has_obeyed {
            true => 0,
            false => State::load(&self.root.container(&worker.id))
                .and_then(|state| state.cgroup.oom_kills())
                .unwrap_or(0),
        };
        let was_ready = worker.ready.is_some();
        let is_expected = worker.leaving.is_some() && worker.phase == Phase::Draining && kills == 0;
        let why = match worker.cause {
            Some(cause) if is_expected || !was_ready => cause,
            _ => reason(ended, &last_words, kills, was_ready),
        };
        self.totals.exited += 1;
        self.totals.requests += number_of(word::REQUESTS);
        self.totals.failures += number_of(word::FAILURES);
        let status = match ended {
            Ended::With(status) => Some(status),
            Ended::Unknown => None,
        };
        let mut details = json!({
            "reason": why,
            "status": status,
            "signal": status.filter(|status| *status > 128).map(|status| status - 128),
            "requests": number_of(word::REQUESTS),
            "in_flight": number_of(word::IN_FLIGHT),
            "expected": is_expected,
        });
        if !last_words.is_empty() {
            details["last_words"] = json!(last_words);
        }
        if !is_expected && number_of(word::IN_FLIGHT) > 0 {
            details["request"] =
                json!(last.as_ref().map(super::gauges::Reading::request).unwrap_or_default());
        }
        self.bury(worker.id.clone());
        self.event("exit", Some(worker.id.as_str()), details);
        if !is_expected {
            self.totals.failed += 1;
            self.fail();
        }
        if self.reload.is_some() && worker.generation == self.generation && !was_ready {
            self.abandon_reload(why);
        }
        self.spread_listeners();
        self.wake();
    }

    /// Connections that a worker gave back before it ended.
    fn take_last_messages(&mut self, number: u64) {
        while let Some(worker) = self.workers.get(&number) {
            match worker.channel.receive(&mut self.packet) {
                Ok(Some(super::channel::Said::GivenBack(connection))) => self.place_connection(connection),
                Ok(Some(super::channel::Said::Message { packet, file })) => self.relay(number, &packet, file),
                Ok(Some(super::channel::Said::HandOver { packet, fds })) => {
                    self.hand_over(number, &packet, fds)
                }
                Ok(Some(super::channel::Said::Taken(packet))) => self.on_taken(number, &packet),
                Ok(Some(super::channel::Said::Closed) | None) | Err(_) => return,
                Ok(Some(_)) => {}
            }
        }
    }

    /// A worker failed.
    pub(super) fn fail(&mut self) {
        self.failures.add(Instant::now());
        if self.failures.in_a_row >= DEGRADED_AFTER && !std::mem::replace(&mut self.is_degraded, true) {
            self.event("degraded", None, json!({ "failures": self.failures.in_a_row }));
        }
        self.wake();
    }

    /// Writes down what a later supervisor must know. A full disk must not end a pool that serves.
    pub(super) fn write_record(&mut self) {
        let worker_record = |worker: &Worker| {
            Some(WorkerRecord {
                number: worker.number,
                slot: worker.slot,
                generation: worker.generation,
                id: worker.id.clone(),
                init: ProcessId::of(worker.init_pid).ok()?,
                listeners: worker.listeners.clone(),
            })
        };
        let record = Record {
            generation: self.generation,
            next_number: self.next_number,
            seed: self.seed.clone().filter(|_| self.config.warm),
            sockets: self.sockets.iter().map(|socket| (socket.number, socket.address.clone())).collect(),
            workers: self.workers.values().filter_map(worker_record).collect(),
            spares: self.keeper.useless().cloned().collect(),
            ..Record::default()
        };
        if let Err(error) = self.place.store(&record) {
            self.event("warning", None, json!({ "error": error.to_string() }));
        }
    }

    /// Prepares a generation: its bundle, and its seed if the pool makes its own.
    pub(super) fn prepare_generation(&mut self, generation: u32) -> Result<()> {
        let seed = match self.config.warm {
            false => self.config.seed.clone(),
            true => Some(self.start_own_seed(generation)?),
        };
        // The first start should not have to make the seed.
        let name = match (&seed, self.config.source.is_dir()) {
            (Some(name), _) => name.parse()?,
            (None, true) => source::seed_of(&self.config.source)?,
            (None, false) => DEFAULT_SEED.parse()?,
        };
        let pid = Registry::new(&self.root).connect(&name)?.pid()?;
        // A worker has no more than its seed may have.
        let open_files = descriptor_limit_of(pid).unwrap_or(MAX_OPEN_FILES);
        let open_files = open_files.min(self.most_descriptors).min(MAX_OPEN_FILES);
        let bundle =
            source::write(&self.config, &self.place.bundle(generation), seed.as_deref(), open_files)?;
        (self.generation, self.bundle, self.seed) = (generation, bundle, seed);
        self.watch_seed();
        Ok(())
    }

    /// Has the generation's seed replaced when it is old, whether anything is started then or not.
    fn watch_seed(&mut self) {
        let name = source::seed_of(&self.bundle);
        self.upkeep = name.ok().map(|name| Upkeep::of(Registry::new(&self.root), name));
    }

    fn start_own_seed(&self, generation: u32) -> Result<String> {
        let script = source::script(&self.config).ok_or_else(|| {
            crate::Error::invalid(
                "--warm",
                "is for a script; a bundle names its seed by the annotation io.turf.seed",
            )
        })?;
        let name = format!("pool-{}-{generation}", self.place.name());
        let recipe = Recipe {
            max_forks: self.config.seed_max_forks,
            max_age_ms: self.config.seed_max_age_ms,
            ..SeedSource::Script(script).into()
        };
        Registry::new(&self.root).start(&name.parse()?, &recipe)?;
        Ok(name)
    }

    /// Replaces workers that were taken over, whose configuration may be another.
    pub(super) fn replace_adopted(&mut self) {
        let is_old = |worker: &Worker| worker.generation != self.generation;
        if !self.workers.values().any(is_old) {
            return;
        }
        self.event("reload", None, json!({ "generation": self.generation }));
        self.reload = Some(Reload {
            from: self.generation,
            from_bundle: self.bundle.clone(),
            from_seed: self.seed.clone(),
        });
        self.wake();
    }

    /// Stops a seed of the pool's own, whose directory nobody will look for.
    pub(super) fn stop_seed(&mut self, name: &str) {
        let stopped = name.parse().and_then(|name| Registry::new(&self.root).stop(&name));
        let directory = self.root.seeds().join(name);
        let removed =
            std::fs::remove_dir_all(&directory).operation(|| format!("remove {}", directory.display()));
        for error in [stopped.err(), removed.err()].into_iter().flatten() {
            self.event("warning", None, json!({ "error": error.to_string() }));
        }
    }

    pub(super) fn stop_own_seed(&mut self) {
        if let (true, Some(seed)) = (self.config.warm, self.seed.take()) {
            self.stop_seed(&seed);
        }
    }

    /// Begins to replace every worker by one of the configuration as it is now.
    pub(super) fn reload(&mut self) {
        if self.reload.is_some() || self.ending != Ending::No {
            return;
        }
        let from =
            Reload { from: self.generation, from_bundle: self.bundle.clone(), from_seed: self.seed.clone() };
        self.event("reload", None, json!({ "generation": self.generation + 1 }));
        let next = self.generation + 1;
        self.reload = Some(from);
        self.last_reload = None;
        self.discard_spares();
        if let Err(error) = self.prepare_generation(next) {
            return self.abandon_reload(&error.to_string());
        }
        // A configuration that makes no sandbox is found out before any worker goes.
        if let Err(error) = self.make_first_spare() {
            return self.abandon_reload(&error.to_string());
        }
        self.wake();
    }

    /// One by one: a new worker serves, then an old one goes.
    pub(super) fn go_on_with_reload(&mut self) {
        let Some(reload) = &self.reload else { return };
        let current = self.generation;
        let is_live = |worker: &&Worker| worker.phase != Phase::Draining;
        let old: Vec<u64> = self
            .workers
            .values()
            .filter(is_live)
            .filter(|worker| worker.generation != current)
            .map(|worker| worker.number)
            .collect();
        let Some(first) = old.first().copied() else {
            let from = reload.clone();
            self.reload = None;
            self.last_reload = Some(Ok(current));
            self.event("reloaded", None, json!({ "generation": current }));
            if let (true, Some(seed)) = (self.config.warm, from.from_seed) {
                self.stop_seed(&seed);
            }
            let _ = std::fs::remove_dir_all(self.place.bundle(from.from));
            return self.remember();
        };
        let new = |phase| {
            self.workers
                .values()
                .filter(|worker| worker.generation == current && worker.phase == phase)
                .count()
        };
        let live = self.workers.values().filter(is_live).count() as u32;
        if new(Phase::Starting) > 0 {
            return;
        }
        if live > self.config.bounds.max || (new(Phase::Serving) > 0 && live > self.config.bounds.min.max(1))
        {
            self.retire(first, "replaced by a new generation");
        } else if self.failures.held_back_ms(Instant::now()) == 0 {
            self.start_worker();
        }
    }

    /// The old generation stays.
    pub(super) fn abandon_reload(&mut self, why: &str) {
        let Some(reload) = self.reload.take() else { return };
        self.event("reload-failed", None, json!({ "generation": self.generation, "error": why }));
        self.last_reload = Some(Err(why.to_owned()));
        self.discard_spares();
        let failed = self.generation;
        let failed_seed = self.seed.take();
        (self.generation, self.bundle, self.seed) = (reload.from, reload.from_bundle, reload.from_seed);
        self.watch_seed();
        let of_failed: Vec<u64> = self
            .workers
            .values()
            .filter(|worker| worker.generation == failed)
            .map(|worker| worker.number)
            .collect();
        for number in of_failed {
            self.retire(number, "of a generation that failed");
        }
        if let (true, Some(seed)) = (self.config.warm, failed_seed)
            && Some(&seed) != self.seed.as_ref()
        {
            self.stop_seed(&seed);
        }
        self.remember();
        self.wake();
    }

    /// No further connections; the pool ends when its workers have finished.
    pub(super) fn drain(&mut self) {
        if self.ending != Ending::No {
            return;
        }
        self.event("drain", None, json!({ "workers": self.workers.len() }));
        self.ending = Ending::Draining;
        self.empty_since = Some(Instant::now());
        // From here on nobody but the supervisor accepts.
        for socket in &self.sockets {
            for worker in self.workers.values() {
                let _ = worker.channel.send_number(tag::UNLISTEN, socket.number, None);
            }
        }
        self.wake();
    }

    /// What waits in the sockets is given to the workers; when a moment has passed and nothing waits any more the sockets
    /// are closed and the workers retire.
    pub(super) fn go_on_with_drain(&mut self, now: Instant) {
        let Some(since) = self.empty_since else { return };
        let numbers: Vec<u64> = self.sockets.iter().map(|socket| u64::from(socket.number)).collect();
        numbers.into_iter().for_each(|number| self.accept_from(number));
        let passed = now.saturating_duration_since(since);
        let goes_on =
            passed < EMPTYING || (self.connections.waiting() > 0 && passed < self.config.drain_timeout);
        if goes_on && !self.workers.is_empty() {
            return;
        }
        self.empty_since = None;
        // Nobody is left who could take them.
        let left = self.connections.waiting();
        self.refuse(left);
        self.close_sockets();
        for number in self.workers.keys().copied().collect::<Vec<_>>() {
            self.retire(number, "the pool drains");
        }
    }

    pub(super) fn close_sockets(&mut self) {
        for socket in std::mem::take(&mut self.sockets) {
            self.poller.remove(&socket);
            if let Some(path) = &socket.made_path {
                // A file that somebody else has removed is no loss.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// The pool ends now: workers get SIGTERM.
    pub(super) fn stop(&mut self) {
        if self.ending == Ending::Stopping {
            return;
        }
        self.event("stop", None, json!({ "workers": self.workers.len() }));
        (self.ending, self.empty_since) = (Ending::Stopping, None);
        let until = Instant::now() + TERM_GRACE;
        for worker in self.workers.values_mut() {
            (worker.phase, worker.leaving) = (Phase::Draining, Some(Leaving::TermedUntil(until)));
            worker.cause = Some("the pool stops");
            // It may have gone already, which its descriptor tells.
            let _ = pidfd_send_signal(worker.init.as_fd(), libc::SIGTERM);
        }
        self.wake();
    }
}

/// A number in 0..1 that differs from worker to worker: the fractional part of multiples of the golden ratio, which is
/// as even as can be.
fn chance(number: u64) -> f64 {
    (number as f64 * 0.618_033_988_749_895).fract()
}
