//! Connections in the supervisor's hands: those it passes on, those between two workers, those it refuses.
//!
//! ```text
//!   accepted (rr, least, disposable) --> queued ----> a worker
//!   given back by a worker ------------> a worker, or parked if none serves
//!   parked: the client says something -> queued;  the client leaves, or PARKED_FOR is over -> closed
//!   refused: 503 is written, then the client's bytes are thrown away until it leaves or LINGER is over
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use serde_json::json;

use super::channel::tag;
use super::config::{Dispatch, Disposable};
use super::policy::Phase;
use super::start::SERVED;
use super::supervisor::{Source, Supervisor};
use super::worker::Worker;

/// Most connections that are parked; the process's limit of open files must allow as many.
const MAX_PARKED: usize = 16 * 1024;

/// A parked connection is closed after this time: what a worker grants an idle one.
const PARKED_FOR: Duration = Duration::from_secs(75);

/// How long a refused client may take to read its answer.
const LINGER: Duration = Duration::from_secs(1);

/// Most refused connections that linger; further ones are closed at once.
const MAX_LINGERING: usize = 256;

/// Most connections accepted in one go.
const ACCEPT_BATCH: usize = 256;

/// The answer above the queue's limit (RFC 9110, section 15.6.4).
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
    Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 20\r\n\r\nService Unavailable\n";

#[derive(Debug)]
struct Held {
    connection: OwnedFd,
    until: Instant,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Connections {
    queued: VecDeque<OwnedFd>,
    parked: BTreeMap<u64, Held>,
    lingering: BTreeMap<u64, Held>,
    next: u64,
    /// The worker that was given the last connection.
    last_worker: u64,
}

impl Connections {
    /// Those that wait for a worker.
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.queued.len()).unwrap_or(u32::MAX)
    }

    /// Parked ones, for the status.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Nothing waits to be passed on.
    pub fn is_quiet(&self) -> bool {
        self.queued.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        // Each table is in the order of its deadlines, because the times are the same for all.
        let first = |table: &BTreeMap<u64, Held>| table.values().next().map(|held| held.until);
        first(&self.parked).into_iter().chain(first(&self.lingering)).min()
    }

    /// Lets a connection wait again, as the first.
    pub fn put_back(&mut self, connection: OwnedFd) {
        self.queued.push_front(connection);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Throws away what a refused client says; forgets it when it leaves.
    pub fn linger_on(&mut self, number: u64) {
        let Some(held) = self.lingering.get(&number) else { return };
        let Ok(copy) = held.connection.try_clone() else { return };
        let mut stream = UnixStream::from(copy);
        let mut buffer = [0; 16 * 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.lingering.remove(&number);
    }

    /// Closes what has been held long enough.
    pub fn expire(&mut self, now: Instant) {
        self.parked.retain(|_, held| held.until > now);
        self.lingering.retain(|_, held| held.until > now);
    }
}

impl Disposable {
    /// What goes to a worker with its only connection.
    fn last_packet(self) -> &'static [u8] {
        match self {
            Disposable::Request => &[tag::LAST, 1],
            Disposable::Connection | Disposable::No => &[tag::LAST, 0],
        }
    }
}

impl Supervisor {
    /// Takes what waits at a socket.
    pub(super) fn accept_from(&mut self, number: u64) {
        let Some(socket) = self.sockets.iter().find(|socket| u64::from(socket.number) == number) else {
            return;
        };
        let mut accepted = Vec::new();
        for _ in 0..ACCEPT_BATCH {
            match socket.accept() {
                Ok(connection) => accepted.push(connection),
                Err(_) => break,
            }
        }
        self.connections.queued.extend(accepted);
        self.pass_queued();
    }

    /// Passes queued connections to workers that take them.
    pub(super) fn pass_queued(&mut self) {
        while let Some(connection) = self.connections.queued.pop_front() {
            if let Some(connection) = self.pass(connection) {
                self.connections.queued.push_front(connection);
                return;
            }
        }
    }

    /// Puts the connection that waits longest into the channel of a worker that is not born yet, which reads it when it
    /// serves. A copy is kept until then.
    pub(super) fn promise_connection(&mut self, number: u64) {
        if !self.config.bounds.disposable {
            return;
        }
        let Some(connection) = self.connections.queued.pop_front() else { return };
        let Some(worker) = self.workers.get_mut(&number) else { return };
        match worker.channel.send(self.config.disposable.last_packet(), Some(connection.as_fd())) {
            Ok(()) => {
                worker.passed += 1;
                worker.promised = Some(connection);
            }
            Err(_) => self.connections.put_back(connection),
        }
    }

    /// Passes a connection to a worker; gives it back if none takes it.
    fn pass(&mut self, connection: OwnedFd) -> Option<OwnedFd> {
        let packet = match self.config.disposable {
            Disposable::No => &[tag::CONNECTION][..],
            disposable @ (Disposable::Connection | Disposable::Request) => disposable.last_packet(),
        };
        for number in self.order() {
            let Some(worker) = self.workers.get_mut(&number) else { continue };
            // One that does not read is passed over.
            if worker.channel.send(packet, Some(connection.as_fd())).is_err() {
                continue;
            }
            worker.passed += 1;
            self.connections.last_worker = number;
            if self.config.bounds.disposable {
                self.begin_leaving(number, SERVED);
            }
            return None;
        }
        Some(connection)
    }

    /// The workers that may take a connection, the one that should first.
    pub(super) fn order(&self) -> Vec<u64> {
        let limit = u64::from(self.config.bounds.concurrency);
        let takes = |worker: &&Worker| {
            let load = worker.gauge(super::gauges::word::IN_FLIGHT) + u64::from(worker.passed);
            worker.phase == Phase::Serving && (limit == 0 || load < limit)
        };
        let mut all: Vec<&Worker> = self.workers.values().filter(takes).collect();
        match self.config.dispatch {
            Dispatch::Rr => {
                let after = |worker: &&Worker| worker.number <= self.connections.last_worker;
                all.sort_by_key(|worker| (after(worker), worker.number));
            }
            Dispatch::Least | Dispatch::Shared | Dispatch::Reuseport => {
                let load = |worker: &&Worker| {
                    worker.gauge(super::gauges::word::CONNECTIONS) + u64::from(worker.passed)
                };
                all.sort_by_key(|worker| (load(worker), worker.number));
            }
        }
        all.into_iter().map(|worker| worker.number).collect()
    }

    /// A connection between two requests that its worker has given back.
    pub(super) fn place_connection(&mut self, connection: OwnedFd) {
        let Some(connection) = self.pass(connection) else { return };
        let lives_on = matches!(self.ending, super::supervisor::Ending::No);
        if !lives_on || self.connections.parked.len() >= MAX_PARKED {
            return;
        }
        let number = self.connections.number();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLONESHOT;
        // One that cannot be waited for is closed.
        if self.poller.add(&connection, flags, Source::Parked(number)).is_ok() {
            let until = Instant::now() + PARKED_FOR;
            self.connections.parked.insert(number, Held { connection, until });
        }
    }

    /// The client of a parked connection says something, or leaves.
    pub(super) fn on_parked(&mut self, number: u64, flags: EpollFlags) {
        let Some(held) = self.connections.parked.remove(&number) else { return };
        self.poller.remove(&held.connection);
        if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP) {
            return;
        }
        self.connections.queued.push_back(held.connection);
        self.pass_queued();
        self.wake();
        self.look();
    }

    /// Answers the oldest of those who wait with 503.
    pub(super) fn refuse(&mut self, count: u32) {
        let mut refused = 0_u32;
        for _ in 0..count {
            let connection = self
                .connections
                .queued
                .pop_front()
                .or_else(|| self.sockets.iter().find_map(|socket| socket.accept().ok()));
            let Some(connection) = connection else { break };
            self.answer_with_refusal(connection);
            refused += 1;
        }
        if refused > 0 {
            self.totals.refused += u64::from(refused);
            self.event("refuse", None, json!({ "connections": refused }));
        }
    }

    fn answer_with_refusal(&mut self, connection: OwnedFd) {
        // The calls are those of any stream socket.
        let mut stream = UnixStream::from(connection);
        if stream.write(REFUSAL).is_err() {
            return;
        }
        // A close with unread bytes would reset the connection, and the answer with it (RFC 9112, section 9.6).
        let _ = stream.shutdown(std::net::Shutdown::Write);
        if self.connections.lingering.len() >= MAX_LINGERING {
            return;
        }
        let number = self.connections.number();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let connection = OwnedFd::from(stream);
        if self.poller.add(&connection, flags, Source::Lingering(number)).is_ok() {
            let until = Instant::now() + LINGER;
            self.connections.lingering.insert(number, Held { connection, until });
        }
    }
}
