//! The keeper: sandboxes that stand ready, so that a start is one message to the seed; and what can wait until nobody
//! does.
//!
//! ```text
//!   create, open what a start needs --> spare --> a worker's start --> worker --> its end --> dead --> deleted
//!       (a chore)                         |                                                    (a chore)
//!                                         +-- its init ends: deleted, another one is made
//! ```
//!
//! Chores are done one at a time when the loop has no events, and not while a worker is starting. A supervisor that is
//! killed before it did them leaves what its successor clears up: spares, dead workers and unrecorded ones are
//! ordinary containers, which `turf list` shows and `turf delete --force` removes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use super::channel::Channel;
use super::gauges::Gauges;
use super::policy::Phase;
use super::supervisor::{Ending, Source, Supervisor};
use crate::container::{self, CgroupOptions, CreateOptions, Force, Fresh, Ready};
use crate::error::{Operation, Result};
use crate::fault::{self, Point};
use crate::root::ContainerId;
use crate::sandbox::compile::{Keyring, RootEntry};

/// For so long after a start nothing else is begun: it would compete with the worker for the processor.
const STARTING: Duration = Duration::from_millis(20);

/// The same after a worker has begun to serve: its first request waits for it already.
const FIRST_REQUEST: Duration = Duration::from_millis(2);

/// A chore that has waited so long is done although events come all the time.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Dead workers' containers that may wait for their deletion; above it they go first, whoever waits.
const MAX_DEAD: usize = 1024;

/// Descriptors that a spare holds: those of its init and its gate, stdio, channel, gauges, and the control groups'
/// (one for each hierarchy).
const DESCRIPTORS_OF_SPARE: u64 = 16;

/// A sandbox that waits for a worker, with everything that its start needs.
#[derive(Debug)]
pub(super) struct Spare {
    pub number: u64,
    pub generation: u32,
    pub id: ContainerId,
    pub init_pid: i32,
    pub init: OwnedFd,
    pub ready: Ready,
    /// The supervisor's end of the channel, and the worker's.
    pub channel: Channel,
    pub theirs: OwnedFd,
    pub gauges: Gauges,
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
        let room = self.most_descriptors / 8 * 7 / DESCRIPTORS_OF_SPARE;
        (u64::from(wanted).min(room) as usize).saturating_sub(self.keeper.spares.len())
    }

    /// The first spare, which is the proof that sandboxes can be made of the configuration.
    pub(super) fn make_first_spare(&mut self) -> Result<()> {
        let spare = self.make_spare()?;
        self.keep(spare)
    }

    fn keep(&mut self, spare: Spare) -> Result<()> {
        self.poller.add(&spare.init, EpollFlags::EPOLLIN, Source::Init(spare.number))?;
        self.keeper.spares.push_back(spare);
        self.remember();
        Ok(())
    }

    /// A spare, made now if none is there.
    pub(super) fn take_spare(&mut self) -> Result<Spare> {
        let Some(spare) = self.keeper.spares.pop_front() else { return self.make_spare() };
        self.poller.remove(&spare.init);
        Ok(spare)
    }

    fn make_spare(&mut self) -> Result<Spare> {
        let number = self.next_number;
        self.next_number += 1;
        let id = self.place.name().worker(self.generation, number)?;
        let options = CreateOptions {
            bundle: &self.bundle,
            pid_file: None,
            console: crate::container::Console::None,
            notify: crate::container::Notifications::Off,
            pidfd_socket: None,
            preserve_fds: 0,
            listen_fds: 0,
            keyring: Keyring::New,
            root_entry: RootEntry::Pivot,
            cgroups: CgroupOptions::default(),
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
            ready,
            channel,
            theirs,
            gauges,
        })
    }

    /// The init of a spare has ended: somebody has killed it. Whether there was such a spare.
    pub(super) fn on_spare_exit(&mut self, number: u64) -> bool {
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
        let Spare { id, init_pid, ready, .. } = spare;
        // It holds init's gate.
        drop(ready);
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

    /// When there is something to do: now, or when no worker is starting any more.
    pub(super) fn next_chore(&mut self, now: Instant) -> Option<Instant> {
        let is_due = self.keeper.is_record_old || !self.keeper.dead.is_empty() || self.missing_spares() > 0;
        if !is_due {
            self.keeper.due_since = None;
            return None;
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
        if std::mem::take(&mut self.keeper.is_record_old) {
            self.write_record();
        } else if !self.keeper.dead.is_empty() {
            self.bury_one();
        } else if self.missing_spares() > 0
            && let Err(error) = self.make_first_spare()
        {
            self.event("create-failed", None, json!({ "error": error.to_string() }));
            self.fail();
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
