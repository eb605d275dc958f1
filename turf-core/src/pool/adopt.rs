//! From a configuration to a supervisor, also to one that takes over what another has left.
//!
//! A supervisor that died left its workers, who serve on, and pool.json. Their channels' other ends and their
//! listening sockets are found in the workers themselves (pidfd_getfd(2)), at the numbers that their gauges tell.
//! Containers that it had made and not yet written down are found by their annotation.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::epoll::EpollFlags;
use serde_json::json;

use super::admin::Admin;
use super::channel::Channel;
use super::config::{Dispatch, PoolConfig};
use super::events::Events;
use super::gauges::{Gauges, word};
use super::place::{Place, Record, WorkerRecord};
use super::policy::Phase;
use super::sockets::{self, Listening};
use super::supervisor::{Parts, Source, Supervisor};
use super::worker::{Identity, Leaving, Worker};
use crate::bundle::POOL;
use crate::container::state::State;
use crate::container::{self, Force};
use crate::error::{Error, Operation, Result};
use crate::root::StateRoot;
use crate::sys::pidfd::{pidfd_getfd, pidfd_open};

/// A worker of a former supervisor, with what was found in it.
struct Found {
    record: WorkerRecord,
    init: OwnedFd,
    channel: Channel,
    gauges: Gauges,
    phase: Phase,
    worker: OwnedFd,
}

impl Supervisor {
    /// Makes the supervisor of a pool; `inherited` are listening sockets that were handed in. Workers of a former
    /// supervisor are taken over.
    pub fn start(root: &StateRoot, config: PoolConfig, inherited: Vec<OwnedFd>) -> Result<Supervisor> {
        let place = Place::claim(root, &config.name)?;
        let mut former = place.record()?.unwrap_or_default();
        add_unknown(root, &place, &mut former)?;
        let found = find_workers(&place, &former);
        let sockets = open_sockets(&config, inherited, &former, &found)?;
        let admin = Admin::listen(&place.file("control.sock"))?;
        let events = Events::open(&place.file("events.jsonl"))?;
        let parts = Parts {
            root: root.clone(),
            config,
            bundle: place.bundle(former.generation),
            place,
            sockets,
            admin,
            events,
            generation: former.generation,
            seed: former.seed.clone(),
            next_number: former.next_number.max(1),
        };
        let mut supervisor = Supervisor::new(parts)?;
        supervisor.clear_up_after(&former, &found);
        match supervisor.begin(found) {
            Ok(()) => Ok(supervisor),
            Err(error) => {
                supervisor.discard_spares();
                Err(error)
            }
        }
    }

    /// Removes what a former supervisor left that is of no use: sandboxes without a worker, dead workers.
    fn clear_up_after(&mut self, former: &Record, found: &[Found]) {
        let lives = |record: &&WorkerRecord| !found.iter().any(|found| found.record.number == record.number);
        let dead = former.workers.iter().filter(lives).map(|record| &record.id);
        for id in former.spares.iter().chain(dead) {
            if let Err(error) = container::delete(&self.root, id, Force::Yes) {
                self.event("delete-failed", Some(id.as_str()), json!({ "error": error.to_string() }));
            }
            let _ = std::fs::remove_file(self.place.gauges(id));
        }
    }

    fn begin(&mut self, found: Vec<Found>) -> Result<()> {
        let taken_over = found.len();
        let old_seed = self.seed.take();
        let first = self.generation + 1;
        self.prepare_generation(first)?;
        if let (true, Some(old)) = (self.config.warm, old_seed) {
            self.stop_seed(&old);
        }
        // What cannot be made at all is told at once.
        self.make_first_spare()?;
        for worker in found {
            self.take_over(worker)?;
        }
        if taken_over > 0 {
            self.event("adopted", None, json!({ "workers": taken_over }));
            // What runs is of the former configuration: replace it, one by one.
            self.replace_adopted();
        } else {
            self.event("begin", None, json!({ "pid": std::process::id() }));
        }
        self.remember();
        Ok(())
    }

    fn take_over(&mut self, found: Found) -> Result<()> {
        let Found { record, init, channel, gauges, phase, .. } = found;
        self.poller.add(&init, EpollFlags::EPOLLIN, Source::Init(record.number))?;
        self.poller.add(&channel, EpollFlags::EPOLLIN, Source::Channel(record.number))?;
        let mut worker = Worker::new(Identity {
            number: record.number,
            slot: record.slot,
            generation: record.generation,
            id: record.id,
            init_pid: record.init.pid,
            init,
            is_child: false,
            channel,
            gauges,
            listeners: record.listeners,
        });
        worker.phase = phase;
        match phase {
            Phase::Serving => worker.ready = Some(worker.started),
            Phase::Draining => {
                worker.leaving = Some(Leaving::Until(worker.started + self.config.drain_timeout));
            }
            Phase::Starting => {}
        }
        self.workers.insert(record.number, worker);
        Ok(())
    }
}

/// Adds the pool's containers that its record does not know, and workers that it takes for sandboxes still: it is
/// written after they are made.
fn add_unknown(root: &StateRoot, place: &Place, former: &mut Record) -> Result<()> {
    for id in root.container_ids()? {
        let is_known = former.workers.iter().any(|worker| worker.id == id);
        let Some((generation, number)) = place.name().worker_of(&id).filter(|_| !is_known) else { continue };
        // One that cannot be read is not known to be ours.
        let Ok(state) = State::load(&root.container(&id)) else { continue };
        if state.annotations.get(POOL).map(String::as_str) != Some(place.name().as_str()) {
            continue;
        }
        former.next_number = former.next_number.max(number + 1);
        former.generation = former.generation.max(generation);
        let has_worker = Gauges::open(&place.gauges(&id)).and_then(|gauges| gauges.read_words());
        let init = state.init.filter(|_| has_worker.is_ok_and(|reading| reading.is_known()));
        former.spares.retain(|spare| *spare != id);
        match init {
            Some(init) => {
                let slot = former.workers.iter().map(|worker| worker.slot + 1).max().unwrap_or(0);
                let listeners = Vec::new();
                former.workers.push(WorkerRecord { number, slot, generation, id, init, listeners });
            }
            None => former.spares.push(id),
        }
    }
    Ok(())
}

fn find_workers(place: &Place, record: &Record) -> Vec<Found> {
    record.workers.iter().filter_map(|worker| find(place, worker).ok().flatten()).collect()
}

/// A worker that lives and can be reached; whatever is in the way of that makes it one to be replaced.
fn find(place: &Place, record: &WorkerRecord) -> Result<Option<Found>> {
    let Some(init) = record.init.open()? else { return Ok(None) };
    let path = place.gauges(&record.id);
    let gauges = Gauges::open(&path).operation(|| format!("open {}", path.display()))?;
    let reading = gauges.read_words().operation(|| format!("read {}", path.display()))?;
    let pid = record.init.pid;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .operation(|| format!("read the children of {pid}"))?;
    let Some(worker) = children.split_ascii_whitespace().next().and_then(|child| child.parse().ok()) else {
        return Ok(None);
    };
    let worker = pidfd_open(worker).operation(|| format!("open process {worker}"))?;
    if !reading.is_known() {
        return Ok(None);
    }
    let peer = i32::try_from(reading.word(word::PEER)).unwrap_or(-1);
    let channel = pidfd_getfd(worker.as_fd(), peer)
        .map(Channel::of)
        .operation(|| format!("take the channel of worker {}", record.id))?;
    let phase = match reading.word(word::PHASE) {
        2 => Phase::Serving,
        3 => Phase::Draining,
        _ => Phase::Starting,
    };
    Ok(Some(Found { record: record.clone(), init, channel, gauges, phase, worker }))
}

/// The pool's sockets: handed in, found in a worker, or opened.
fn open_sockets(
    config: &PoolConfig,
    inherited: Vec<OwnedFd>,
    former: &Record,
    found: &[Found],
) -> Result<Vec<Listening>> {
    let mut sockets = Vec::new();
    for socket in inherited {
        sockets.push(Listening::adopt(sockets.len() as u32, None, socket)?);
    }
    let slots =
        (config.dispatch == Dispatch::Reuseport && !config.bounds.disposable).then_some(config.bounds.max);
    for address in &config.listen {
        let first = sockets.len() as u32;
        let wanted = match address {
            crate::sandbox::plan::ListenAddress::Tcp(address) => format!("tcp://{address}"),
            crate::sandbox::plan::ListenAddress::Unix(path) => format!("unix://{}", path.display()),
        };
        let theirs = recover(former, found, &wanted);
        match (slots, theirs.is_empty()) {
            // Sockets of the same port beside those that are found: the kernel spreads over all.
            (None, false) => {
                let mut socket = Listening::adopt(
                    first,
                    None,
                    theirs
                        .into_iter()
                        .next()
                        .ok_or_else(|| Error::invalid(wanted.clone(), "its socket was not found"))?,
                )?;
                socket.made_path = unix_path(address);
                sockets.push(socket);
            }
            (Some(slots), false) => {
                let mut number = first;
                for (slot, socket) in (0..slots).zip(theirs) {
                    sockets.push(Listening::adopt(number, Some(slot), socket)?);
                    number += 1;
                }
                let missing = slots.saturating_sub(number - first);
                for mut socket in sockets::open(address, Some(missing), number)? {
                    socket.slot = socket.slot.map(|slot| slot + number - first);
                    sockets.push(socket);
                }
            }
            (slots, true) => sockets.extend(sockets::open(address, slots, first)?),
        }
    }
    Ok(sockets)
}

fn unix_path(address: &crate::sandbox::plan::ListenAddress) -> Option<std::path::PathBuf> {
    match address {
        crate::sandbox::plan::ListenAddress::Unix(path) => Some(Path::new(path).to_owned()),
        crate::sandbox::plan::ListenAddress::Tcp(_) => None,
    }
}

/// The sockets of an address that workers of a former supervisor hold, each once.
fn recover(former: &Record, found: &[Found], address: &str) -> Vec<OwnedFd> {
    // A supervisor that died at once has written down nothing: then every worker's socket of that address is the pool's.
    if !former.sockets.is_empty() && !former.sockets.iter().any(|(_, other)| other == address) {
        return Vec::new();
    }
    let mut sockets: Vec<OwnedFd> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for found in found {
        let Ok(reading) = found.gauges.read_words() else { continue };
        for number in reading.listeners() {
            let Ok(socket) = pidfd_getfd(found.worker.as_fd(), number) else { continue };
            let Ok(status) = nix::sys::stat::fstat(&socket) else { continue };
            if sockets::describe(&socket) == address && seen.insert((status.st_dev, status.st_ino)) {
                sockets.push(socket);
            }
        }
    }
    sockets
}
