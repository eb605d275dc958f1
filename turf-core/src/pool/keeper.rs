//! The keeper: sandboxes that stand ready, so that a start is one message to the seed; and what can wait until nobody
//! does.
//!
//! ```text
//!   create, open what a start needs --> spare --> a worker's start --> worker --> its end --> dead --> deleted
//!       (a chore)                       |   |                                                  (a chore)
//!                                       |   +-- forked ahead (a chore): its process waits to be told to begin
//!                                       +-- its init ends: deleted, another one is made
//! ```
//!
//! Chores are done one at a time when the loop has no events, and not while a worker is starting. A supervisor that is
//! killed before it did them leaves what its successor clears up: spares, dead workers and unrecorded ones are
//! ordinary containers, which `turf list` shows and `turf delete --force` removes.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use super::channel::{Channel, tag};
use super::gauges::Gauges;
use super::policy::Phase;
use super::supervisor::{Ending, Source, Supervisor, duplicate};
use crate::container::{
    self, CgroupOptions, CreateOptions, Force, Fresh, Heard, Ready, Starting, Supervised,
};
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::root::ContainerId;
use crate::sandbox::compile::{Keyring, RootEntry};
use crate::seed::plan::WorkerLimits;
use crate::seed::protocol::SupervisionFds;

/// For so long after a start nothing else is begun: it would compete with the worker for the processor.
const STARTING: Duration = Duration::from_millis(20);

/// The same after a worker has begun to serve: its first request waits for it already.
const FIRST_REQUEST: Duration = Duration::from_millis(2);

/// A chore that has waited so long is done although events come all the time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Dead workers' containers that may wait for their deletion; above it they go first, whoever waits.
const MAX_DEAD: usize = 1024;

/// Descriptors that a spare holds until its worker is there: those of its init and its gate, stdio, both ends of the channel,
/// gauges, lock, the control groups' (one for each hierarchy), and those of a request to the seed.
const DESCRIPTORS_OF_SPARE: u64 = 20;

/// The same with a worker that waits: init, gate, report, channel, gauges and lock.
const DESCRIPTORS_OF_WAITING: u64 = 8;

/// A process that was forked ahead is made anew after this time, so that a pool without work does not begin some day with
/// a copy of a seed that was replaced long before.
const LONGEST_AHEAD: Duration = Duration::from_mins(10);

/// A sandbox that waits for a worker, with everything that its start needs.
#[derive(Debug)]
pub(super) struct Spare {
    pub number: u64,
    pub generation: u32,
    pub id: ContainerId,
    pub init_pid: i32,
    pub init: OwnedFd,
    pub sandbox: Sandbox,
    /// The supervisor's end of the channel.
    pub channel: Channel,
    pub gauges: Gauges,
}

/// What is in a spare.
#[derive(Debug)]
pub(super) enum Sandbox {
    /// No process but its init, and the worker's end of the channel.
    Empty(Ready, OwnedFd),
    /// A worker's process, since then, that waits to be told to begin, or will soon.
    Forked(Starting, Instant),
}

impl Sandbox {
    /// The start of its worker. `fork` begins it if nobody has yet.
    pub fn starting(
        self,
        channel: &Channel,
        gauges: &Gauges,
        limits: WorkerLimits,
        fork: impl FnOnce(Ready, Supervised<'_>) -> Result<Starting>,
    ) -> Result<Starting> {
        let (ready, theirs) = match self {
            Sandbox::Empty(ready, theirs) => (ready, theirs),
            Sandbox::Forked(starting, _) => return Ok(starting),
        };
        let peer = duplicate(channel, "a worker's channel")?;
        let fds = SupervisionFds { channel: theirs.as_fd(), peer: peer.as_fd(), gauges: gauges.as_fd() };
        fork(ready, Supervised { fds, limits })
    }
}

impl Spare {
    /// Says to the worker who it will be. It reads that when it begins.
    pub fn introduce(&self) -> Result<()> {
        let identity = [&[tag::IDENTITY], self.id.as_str().as_bytes()].concat();
        self.channel.send(&identity, None).operation(|| "write to a worker's channel")
    }

    fn waits(&self) -> bool {
        matches!(&self.sandbox, Sandbox::Forked(starting, _) if starting.waits())
    }

    fn forked_at(&self) -> Option<Instant> {
        match &self.sandbox {
            Sandbox::Empty(..) => None,
            Sandbox::Forked(_, at) => Some(*at),
        }
    }
}

/// What the keeper has and has to do.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    pub spares: VecDeque<Spare>,
    /// Containers of workers that have ended, to be deleted.
    dead: VecDeque<ContainerId>,
    /// pool.json does not say what is true.
    is_record_old: bool,
    /// Chores wait until then.
    wait_until: Option<Instant>,
    /// Since when there has been something to do.
    due_since: Option<Instant>,
}

impl Keeper {
    /// How many containers of ended workers are still to be deleted.
    pub fn unburied(&self) -> usize {
        self.dead.len()
    }

    /// How many processes wait to be told to begin.
    pub fn ahead(&self) -> usize {
        self.spares.iter().filter(|spare| spare.waits()).count()
    }

    /// About how many descriptors the spares hold.
    fn descriptors(&self) -> u64 {
        let waiting = self.ahead() as u64;
        let others = self.spares.len() as u64 - waiting;
        waiting * DESCRIPTORS_OF_WAITING + others * DESCRIPTORS_OF_SPARE
    }

    /// When the oldest process that was forked ahead is to be made anew.
    fn next_renewal(&self) -> Option<Instant> {
        self.spares.iter().filter_map(Spare::forked_at).min().map(|at| at + LONGEST_AHEAD)
    }

    /// Containers that are of no use to a later supervisor.
    pub fn useless(&self) -> impl Iterator<Item = &ContainerId> {
        self.spares.iter().map(|spare| &spare.id).chain(&self.dead)
    }
}

impl Supervisor {
    /// As many as are asked for beside the workers, and as the limit of open files has room for.
    fn missing_spares(&self) -> usize {
        let is_held_back = self.failures.held_back_ms(Instant::now()) > 0;
        if self.ending != Ending::No || is_held_back || self.config.spare == 0 {
            return 0;
        }
        let live = self.workers.values().filter(|worker| worker.phase != Phase::Draining).count() as u32;
        let wanted = self.config.spare.min(self.config.bounds.max.saturating_sub(live));
        // An eighth is left for connections and workers.
        let left = (self.most_descriptors / 8 * 7).saturating_sub(self.keeper.descriptors());
        let missing = u64::from(wanted).saturating_sub(self.keeper.spares.len() as u64);
        missing.min(left / DESCRIPTORS_OF_SPARE) as usize
    }

    /// How many of the spares are to be forked ahead, and are not.
    fn missing_ahead(&self) -> usize {
        let is_held_back = self.failures.held_back_ms(Instant::now()) > 0;
        if self.ending != Ending::No || is_held_back {
            return 0;
        }
        let forked = self.keeper.spares.iter().filter(|spare| spare.forked_at().is_some()).count();
        (self.config.ahead as usize).min(self.keeper.spares.len()).saturating_sub(forked)
    }

    /// The first spare, which is the proof that sandboxes can be made of the configuration.
    pub(super) fn make_first_spare(&mut self) -> Result<()> {
        let spare = self.make_spare()?;
        self.keep(spare)
    }

    fn keep(&mut self, spare: Spare) -> Result<()> {
        self.watch(&spare)?;
        self.keeper.spares.push_back(spare);
        self.remember();
        Ok(())
    }

    /// The end of its init is told from now on, also when it is a worker's.
    fn watch(&self, spare: &Spare) -> Result<()> {
        self.poller.add(&spare.init, EpollFlags::EPOLLIN, Source::Init(spare.number))
    }

    /// A spare, made now if none is there; the one whose worker can begin at once, if there is one.
    pub(super) fn take_spare(&mut self) -> Result<Spare> {
        let spares = &mut self.keeper.spares;
        let first = spares
            .iter()
            .position(Spare::waits)
            .or_else(|| spares.iter().position(|spare| spare.forked_at().is_some()));
        if let Some(spare) = spares.remove(first.unwrap_or(0)) {
            return Ok(spare);
        }
        let spare = self.make_spare()?;
        match self.watch(&spare) {
            Ok(()) => Ok(spare),
            Err(error) => {
                self.discard(spare);
                Err(error)
            }
        }
    }

    /// Forks the worker of a spare ahead of its start.
    fn fork_ahead(&mut self) {
        let spares = &mut self.keeper.spares;
        let Some(index) = spares.iter().position(|spare| spare.forked_at().is_none()) else { return };
        let Some(spare) = spares.remove(index) else { return };
        let (id, init) = (spare.id.clone(), spare.init_pid);
        match self.forked_ahead(spare) {
            Ok(spare) => self.keeper.spares.push_back(spare),
            Err(error) => self.start_failed(&id, Some(init), &error.to_string()),
        }
    }

    fn forked_ahead(&self, spare: Spare) -> Result<Spare> {
        spare.introduce()?;
        let Spare { number, generation, id, init_pid, init, sandbox, channel, gauges } = spare;
        let starting = sandbox.starting(&channel, &gauges, self.worker_limits(number), Ready::fork_ahead)?;
        self.poller.add(starting.next(), EpollFlags::EPOLLIN, Source::Start(number))?;
        let sandbox = Sandbox::Forked(starting, Instant::now());
        Ok(Spare { number, generation, id, init_pid, init, sandbox, channel, gauges })
    }

    /// The seed or the process itself has said something of a fork ahead.
    pub(super) fn on_forked_ahead(&mut self, number: u64) {
        let Some(index) = self.keeper.spares.iter().position(|spare| spare.number == number) else { return };
        let Sandbox::Forked(starting, _) = &mut self.keeper.spares[index].sandbox else { return };
        if starting.waits() {
            return;
        }
        self.poller.remove(starting.next());
        let heard = match starting.hear() {
            Ok(Heard::Nothing) => {
                self.poller.add(starting.next(), EpollFlags::EPOLLIN, Source::Start(number))
            }
            Ok(Heard::Waits) => Ok(()),
            Ok(Heard::Runs(_)) => Err(Error::invalid("a worker forked ahead", "has begun by itself")),
            Err(error) => Err(error),
        };
        if let Err(error) = heard
            && let Some(spare) = self.keeper.spares.remove(index)
        {
            self.poller.remove(&spare.init);
            self.start_failed(&spare.id, Some(spare.init_pid), &error.to_string());
            self.remember();
        }
    }

    /// Makes room for another of the spares whose processes are too old.
    fn renew(&mut self) {
        let is_old = |spare: &Spare| spare.forked_at().is_some_and(|at| at.elapsed() >= LONGEST_AHEAD);
        if let Some(spare) =
            self.keeper.spares.iter().position(is_old).and_then(|index| self.keeper.spares.remove(index))
        {
            self.discard(spare);
            self.remember();
        }
    }

    fn make_spare(&mut self) -> Result<Spare> {
        let number = self.next_number;
        self.next_number += 1;
        let id = self.place.name().worker(self.generation, number)?;
        let options = CreateOptions {
            bundle: &self.bundle,
            config: None,
            pid_file: None,
            console: crate::container::Console::None,
            notify: crate::container::Notifications::Off,
            pidfd_socket: None,
            preserve_fds: 0,
            listen_fds: 0,
            keyring: Keyring::New,
            root_entry: RootEntry::Pivot,
            cgroups: CgroupOptions::default(),
            begin: container::Begin::AtStart,
        };
        let fresh = container::create_fresh(&self.root, &id, options)?;
        let pid = fresh.pid();
        fault::at(Point::PoolSandboxMade)?;
        self.open_spare(number, id.clone(), fresh).inspect_err(|_| self.delete(&id, Some(pid)))
    }

    fn open_spare(&self, number: u64, id: ContainerId, fresh: Fresh) -> Result<Spare> {
        let (ready, created) = Ready::of(&self.root, fresh)?;
        let path = self.place.gauges(&id);
        let gauges = Gauges::create(&path).operation(|| format!("make {}", path.display()))?;
        let (channel, theirs) = Channel::pair().operation(|| "make a channel for a worker")?;
        Ok(Spare {
            number,
            generation: self.generation,
            id,
            init_pid: created.pid,
            init: created.pidfd,
            sandbox: Sandbox::Empty(ready, theirs),
            channel,
            gauges,
        })
    }

    /// The init of a spare has ended: somebody has killed it. Whether there was such a spare.
    pub(super) fn on_spare_exit(&mut self, number: u64) -> bool {
        // Why its worker could not be forked is known better by whoever asked for it.
        self.on_forked_ahead(number);
        let Some(index) = self.keeper.spares.iter().position(|spare| spare.number == number) else {
            return false;
        };
        if let Some(spare) = self.keeper.spares.remove(index) {
            self.event("spare-lost", Some(spare.id.as_str()), json!({}));
            self.discard(spare);
        }
        self.remember();
        true
    }

    pub(super) fn discard_spares(&mut self) {
        for spare in std::mem::take(&mut self.keeper.spares) {
            self.discard(spare);
        }
        self.remember();
    }

    fn discard(&mut self, spare: Spare) {
        self.poller.remove(&spare.init);
        let Spare { id, init_pid, sandbox, .. } = spare;
        if let Sandbox::Forked(starting, _) = &sandbox {
            self.poller.remove(starting.next());
        }
        // It holds init's gate.
        drop(sandbox);
        self.delete(&id, Some(init_pid));
    }

    /// Deletes a container and the gauges that were its worker's; what goes wrong is an event. `init` is the pid of an
    /// init that nobody has waited for.
    pub(super) fn delete(&mut self, id: &ContainerId, init: Option<i32>) {
        match container::delete(&self.root, id, Force::Yes) {
            Ok(warnings) => {
                for warning in warnings {
                    self.event("warning", Some(id.as_str()), json!({ "error": warning.to_string() }));
                }
            }
            Err(error) => {
                self.event("delete-failed", Some(id.as_str()), json!({ "error": error.to_string() }));
            }
        }
        if let Some(init) = init {
            // Another supervisor's child is nobody to wait for.
            let _ = waitpid(Pid::from_raw(init), Some(WaitPidFlag::WNOHANG));
        }
        let _ = std::fs::remove_file(self.place.gauges(id));
    }

    /// Has the container of a worker that has ended deleted when there is time.
    pub(super) fn bury(&mut self, id: ContainerId) {
        self.keeper.dead.push_back(id);
        self.remember();
    }

    /// Has pool.json written when there is time.
    pub(super) fn remember(&mut self) {
        self.keeper.is_record_old = true;
    }

    /// A worker starts, or has just begun to serve.
    pub(super) fn hold_chores(&mut self, serves: bool) {
        let hold = if serves { FIRST_REQUEST } else { STARTING };
        self.keeper.wait_until = Some(Instant::now() + hold);
    }

    /// Whether there is something to do, apart from what is renewed when it is old.
    pub(super) fn has_chores(&self) -> bool {
        self.keeper.is_record_old
            || !self.keeper.dead.is_empty()
            || self.missing_ahead() > 0
            || self.missing_spares() > 0
    }

    /// When there is something to do: now, or when no worker is starting any more.
    pub(super) fn next_chore(&mut self, now: Instant) -> Option<Instant> {
        if !self.has_chores() {
            self.keeper.due_since = None;
            return self.keeper.next_renewal();
        }
        let latest = *self.keeper.due_since.get_or_insert(now) + LONGEST_WAIT;
        Some(self.keeper.wait_until.map_or(now, |until| until.min(latest)))
    }

    /// Does a chore if one is due and nothing else is to be done, or it has waited for too long.
    pub(super) fn do_chores(&mut self, is_idle: bool) {
        let now = Instant::now();
        let is_overdue = self.keeper.due_since.is_some_and(|since| since + LONGEST_WAIT <= now);
        if (is_idle || is_overdue) && self.next_chore(now).is_some_and(|at| at <= now) {
            self.keeper.due_since = None;
            self.do_chore();
        }
        while self.keeper.dead.len() > MAX_DEAD {
            self.bury_one();
        }
    }

    /// Does one thing, the one whose delay costs most first.
    fn do_chore(&mut self) {
        if self.missing_ahead() > 0 {
            self.fork_ahead();
        } else if std::mem::take(&mut self.keeper.is_record_old) {
            self.write_record();
        } else if !self.keeper.dead.is_empty() {
            self.bury_one();
        } else if self.missing_spares() > 0
            && let Err(error) = self.make_first_spare()
        {
            self.event("create-failed", None, json!({ "error": error.to_string() }));
            self.fail();
        } else {
            self.renew();
        }
    }

    /// The last chores of a supervisor that ends.
    pub(super) fn bury_all(&mut self) {
        while !self.keeper.dead.is_empty() {
            self.bury_one();
        }
    }

    fn bury_one(&mut self) {
        if let Some(id) = self.keeper.dead.pop_front() {
            self.delete(&id, None);
            self.remember();
        }
    }
}

/// Raises this process's limit of open files as far as it may: each worker, each spare and each connection in the
/// supervisor's hands needs some. Returns the limit.
pub(super) fn raise_descriptor_limit() -> Result<u64> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).operation(|| "read the limit of open files")?;
    if now == most {
        return Ok(now);
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).operation(|| "raise the limit of open files")?;
    Ok(most)
}

/// The hard limit of open files of a process (proc_pid_limits(5)); nothing if it cannot be read.
pub(super) fn descriptor_limit_of(pid: i32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_found_and_raised() {
        let limit = raise_descriptor_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
        assert_eq!(descriptor_limit_of(std::process::id().cast_signed()), Some(limit));
    }
}
