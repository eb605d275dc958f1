//! The seed's loop: one connection at a time, one request on each.
//!
//! A client that says nothing costs the others at most [`RECEIVE_TIMEOUT`]; a message that is not understood costs its
//! sender a refusal. Nothing a client does ends the seed but `Stop`. What the seed itself does wrong may: one that does not come back to its
//! clients and uses the processor meanwhile is ended by the kernel ([`limits::SEED_REQUEST_CPU`]), and whoever waits for it asks another.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};
use turf_core::fault::{self, Point};
use turf_core::limits;
use turf_core::seed::SEED_BACKLOG;
use turf_core::seed::protocol::{
    self, ForkRequest, MAX_PACKET, Namespaces, ProtocolError, ReceivedFds, Refusal, Reply, Request, SeedStat,
    Timeline,
};
use turf_core::seed::registry::{Alive, Recipe};
use turf_core::sys::fork::Fork;
use turf_core::sys::process::{limit_processor_time, nanoseconds_after_boot};
use turf_core::sys::socket;

use crate::forkable::{Forkable, memory_pages};
use crate::helper;
use crate::options::Options;

/// How long a connected client may take to send its request, which a local one does at once.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a seed that is due waits before it asks another client to replace it: the first one may have been killed.
const TELL_DUE_AGAIN: Duration = Duration::from_secs(5);
/// Refusals that are written to the log; more are counted only, so that a log does not grow without bound.
const MAX_LOGGED_REFUSALS: u64 = 10_000;

/// Why the loop ended.
#[derive(Debug)]
pub enum Outcome {
    /// This is the seed, and it was told to end.
    Stopped,
    /// This is a new process that is to become a worker.
    Forked(Box<ForkedWorker>),
}

/// What a forked process knows of what it is to become.
#[derive(Debug)]
pub struct ForkedWorker {
    /// The request.
    pub request: ForkRequest,
    /// Its descriptors.
    pub fds: ReceivedFds,
    /// When what happened so far.
    pub timeline: Timeline,
}

/// A seed that listens.
#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    signals: SignalFd,
    forkable: Forkable,
    /// The namespaces that are the seed's own: no worker stays in them.
    own: Namespaces,
    name: String,
    recipe: Recipe,
    /// In nanoseconds after boot: a machine that sleeps grows old, too.
    since_ns: u64,
    forks: u64,
    refusals: u64,
    /// When a client was last told that this seed is to be replaced.
    told_due: Option<Instant>,
    state: State,
    /// Where requests are received: made once, because a clone of the seed keeps what the seed overwrites after the fork.
    packet: Vec<u8>,
    /// Held for as long as the seed lives.
    _alive: Alive,
}

impl Server {
    /// Serves at `listener`, receiving in `packet`, and proves that this process may be forked once `passing` is closed.
    pub fn start(
        options: &Options,
        listener: OwnedFd,
        own: Namespaces,
        alive: Alive,
        passing: Option<&OwnedFd>,
        packet: Vec<u8>,
    ) -> Result<Server> {
        let signals = termination_signals().context("watch for SIGTERM")?;
        limit_processor_time(limits::SEED_REQUEST_CPU).context("limit the processor time of a request")?;
        let expected =
            [0, 1, 2, listener.as_raw_fd(), signals.as_fd().as_raw_fd(), alive.as_fd().as_raw_fd()];
        let passing: Vec<RawFd> = passing.into_iter().map(AsRawFd::as_raw_fd).collect();
        let forkable =
            Forkable::check(expected, &passing).map_err(|refusal| anyhow::anyhow!(refusal.text))?;
        Ok(Server {
            listener,
            signals,
            forkable,
            own,
            name: options.name.clone(),
            recipe: options.recipe.clone(),
            since_ns: nanoseconds_after_boot(),
            forks: 0,
            refusals: 0,
            told_due: None,
            state: State::Serving,
            packet,
            _alive: alive,
        })
    }

    /// Serves until told to stop; returns a second time in each process that it forks.
    pub fn serve(&mut self) -> Result<Outcome> {
        loop {
            match self.wait_for_client()? {
                Event::Terminated | Event::Nobody => return Ok(Outcome::Stopped),
                Event::Client => {}
            }
            let connection = match socket::accept(self.listener.as_fd()) {
                Ok(connection) => connection,
                // The client went away, or descriptors are short for a moment: not the seed's end.
                Err(error) => {
                    self.log_refusal(&Refusal::from_io("accept", "accept a connection", &error));
                    continue;
                }
            };
            // Here alone: a seed that cannot accept, and tries again and again, is to end, too.
            limit_processor_time(limits::SEED_REQUEST_CPU)
                .context("limit the processor time of a request")?;
            match self.converse(&connection) {
                Next::Listen => {}
                Next::Stop => self.state = State::Ending,
                Next::Become(worker) => return Ok(Outcome::Forked(worker)),
            }
        }
    }

    fn wait_for_client(&self) -> Result<Event> {
        loop {
            let mut polled = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            // Who has connected before the end is served: a seed that is replaced loses no start.
            let patience = match self.state {
                State::Serving => PollTimeout::NONE,
                State::Ending => PollTimeout::ZERO,
            };
            match poll(&mut polled, patience) {
                Ok(0) => return Ok(Event::Nobody),
                Err(Errno::EINTR) => continue,
                result => result.context("wait for a client")?,
            };
            return Ok(match polled[1].any() {
                Some(true) => Event::Terminated,
                Some(false) | None => Event::Client,
            });
        }
    }

    fn converse(&mut self, connection: &OwnedFd) -> Next {
        let (reply, next) = match self.receive(connection) {
            Ok((Request::Stat, _)) => (self.stat().map(Reply::Stat), Next::Listen),
            Ok((Request::Stop, _)) => (Ok(Reply::Stopping), Next::Stop),
            Ok((Request::Fork(request), fds)) => match self.fork(connection, request, fds) {
                Ok(Forked::Worker(worker)) => return Next::Become(worker),
                Ok(Forked::Seed { pid }) => match fault::at(Point::SeedForked) {
                    Ok(()) => (Ok(Reply::Forked { pid, due: self.tell_due() }), Next::Listen),
                    Err(_) => return Next::Listen,
                },
                Err(refusal) => (Err(refusal), Next::Listen),
            },
            Err(refusal) => (Err(refusal), Next::Listen),
        };
        let reply = reply.unwrap_or_else(|refusal| {
            self.log_refusal(&refusal);
            Reply::Refused(refusal)
        });
        let refused = matches!(reply, Reply::Refused(_));
        if let Err(error) = send(connection, &reply)
            && !refused
        {
            self.log_refusal(&Refusal::from_io("reply", "send a reply", &error));
        }
        next
    }

    fn receive(&mut self, connection: &OwnedFd) -> Result<(Request, Vec<OwnedFd>), Refusal> {
        let failed = |operation: &str| {
            let operation = operation.to_owned();
            move |error: io::Error| Refusal::from_io("receive", &operation, &error)
        };
        socket::set_timeout(connection.as_fd(), RECEIVE_TIMEOUT).map_err(failed("set a timeout"))?;
        let peer = socket::peer_credentials(connection.as_fd()).map_err(failed("identify the client"))?;
        if peer.uid != 0 && peer.uid != nix::unistd::geteuid().as_raw() {
            let text = format!("user {} may not use this seed", peer.uid);
            return Err(Refusal::new("check peer", text));
        }
        let packet =
            socket::recv_packet(connection.as_fd(), &mut self.packet).map_err(failed("receive a request"))?;
        if packet.truncated {
            return Err(protocol_refusal(&ProtocolError::TooLong));
        }
        if packet.fds_truncated {
            return Err(protocol_refusal(&ProtocolError::FdsLost));
        }
        let request =
            protocol::decode(&self.packet[..packet.len]).map_err(|error| protocol_refusal(&error))?;
        match request {
            Request::Stat | Request::Stop if !packet.fds.is_empty() => {
                let error = ProtocolError::FdCount { named: 0, carried: packet.fds.len() };
                Err(protocol_refusal(&error))
            }
            request @ (Request::Stat | Request::Stop | Request::Fork(_)) => Ok((request, packet.fds)),
        }
    }

    fn fork(
        &mut self,
        connection: &OwnedFd,
        mut request: ForkRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<Forked, Refusal> {
        let requested_ns = nanoseconds(ClockId::CLOCK_MONOTONIC);
        let numbers: Vec<RawFd> = fds.iter().chain([connection]).map(AsRawFd::as_raw_fd).collect();
        let fds = request.claim(fds).map_err(|error| protocol_refusal(&error))?;
        self.forkable.check_again(&numbers)?;
        request.namespaces = request.namespaces.with(self.own);
        refuse_if_gone(connection)?;
        fault::at(Point::SeedAsked).map_err(|error| Refusal::new("fault", error.to_string()))?;
        let mut timeline = Timeline {
            requested_ns,
            fork_called_ns: nanoseconds(ClockId::CLOCK_MONOTONIC),
            worker_entered_ns: 0,
            plan_applied_ns: 0,
            javascript_ns: 0,
            fork_called_unix_us: nanoseconds(ClockId::CLOCK_REALTIME) / 1000,
        };
        match helper::fork_towards(&request, &fds)? {
            Fork::Parent { pid } => {
                self.forks += 1;
                Ok(Forked::Seed { pid })
            }
            Fork::Child => {
                timeline.worker_entered_ns = nanoseconds(ClockId::CLOCK_MONOTONIC);
                Ok(Forked::Worker(Box::new(ForkedWorker { request, fds, timeline })))
            }
        }
    }

    fn stat(&self) -> Result<SeedStat, Refusal> {
        let (_, resident) = memory_pages()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Ok(SeedStat {
            pid: std::process::id() as i32,
            name: self.name.clone(),
            script: self.recipe.source.file().map(|path| path.display().to_string()),
            age_ms: self.age_ms(),
            max_age_ms: self.recipe.max_age_ms,
            forks: self.forks,
            max_forks: self.recipe.max_forks,
            due: self.is_due(),
            refusals: self.refusals,
            rss_bytes: resident * page as u64,
        })
    }

    fn age_ms(&self) -> u64 {
        nanoseconds_after_boot().saturating_sub(self.since_ns) / 1_000_000
    }

    fn is_due(&self) -> bool {
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        reached(self.recipe.max_forks, self.forks) || reached(self.recipe.max_age_ms, self.age_ms())
    }

    /// Whether this client is told that the seed is due: not all of a burst need to begin a replacement.
    fn tell_due(&mut self) -> bool {
        let is_told = self.told_due.is_some_and(|told| told.elapsed() < TELL_DUE_AGAIN);
        if is_told || self.state == State::Ending || !self.is_due() {
            return false;
        }
        self.told_due = Some(Instant::now());
        true
    }

    fn log_refusal(&mut self, refusal: &Refusal) {
        self.refusals += 1;
        match self.refusals {
            MAX_LOGGED_REFUSALS => eprintln!("further refusals are counted, not logged"),
            count if count < MAX_LOGGED_REFUSALS => eprintln!("{}: {}", refusal.step, refusal.text),
            _ => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// Told to stop, and still serving those who had connected.
    Ending,
}

enum Event {
    Client,
    Terminated,
    Nobody,
}

enum Next {
    Listen,
    Stop,
    Become(Box<ForkedWorker>),
}

enum Forked {
    Seed { pid: i32 },
    Worker(Box<ForkedWorker>),
}

/// A start that was killed while its request waited is as if it had not been: nobody would report its worker.
fn refuse_if_gone(connection: &OwnedFd) -> Result<(), Refusal> {
    let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        Ok(_) | Err(_) => {
            Err(Refusal::new("check client", "the client has gone before its worker was forked"))
        }
    }
}

/// Memory to receive requests in.
pub fn packet() -> Vec<u8> {
    vec![0; MAX_PACKET]
}

/// Listens at a path, which is another's in the seed's own root.
pub fn listen(control: &Path) -> Result<OwnedFd> {
    let context = || format!("listen on {}", control.display());
    match std::fs::remove_file(control) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.with_context(|| format!("remove {}", control.display()))?,
    }
    let listener = socket::seqpacket().with_context(context)?;
    // The file mode mask keeps everybody else out from the first moment.
    socket::bind_long(listener.as_fd(), control).with_context(context)?;
    socket::listen(listener.as_fd(), SEED_BACKLOG).with_context(context)?;
    Ok(listener)
}

fn termination_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}

fn send(connection: &OwnedFd, reply: &Reply) -> io::Result<()> {
    let packet = protocol::encode(reply).map_err(io::Error::other)?;
    socket::send_packet(connection.as_fd(), &packet, &[])
}

fn protocol_refusal(error: &ProtocolError) -> Refusal {
    Refusal::new("decode request", error.to_string())
}

/// A clock's reading in nanoseconds.
pub fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
    (time.tv_sec() as u64) * 1_000_000_000 + time.tv_nsec() as u64
}
