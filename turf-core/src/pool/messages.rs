//! Messages between workers: the supervisor takes them from one channel and puts them into others.
//!
//! ```text
//!   worker --channel--> relay --> [outbox of a worker] --channel--> worker
//!                         |  \--> event `message`      (to the supervisor)
//!   turf pool send -------+
//! ```
//!
//! Nothing here waits and nothing grows without a bound. A sender above its [budget](Budget) is not read for a while:
//! its own queue fills, and its script is told. A receiver that does not read fills its [`Outbox`]; what finds no room
//! there is lost for this receiver, counted, and told by the event `messages-lost`.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use serde_json::{Value, json};

use super::channel::{Channel, tag};
use super::message::{INLINE_BYTES, Kind, Message, is_sealed};
use super::supervisor::{Source, Supervisor};
use super::worker::Worker;

/// Messages taken from one channel before others have their turn.
pub(super) const MESSAGES_PER_TURN: usize = 64;

/// Messages that wait for one worker.
const OUTBOX_MESSAGES: usize = 1024;

/// Bytes that wait for one worker.
const OUTBOX_BYTES: usize = 1 << 20;

/// Long messages, each a descriptor of this process, that wait for one worker.
const OUTBOX_FILES: usize = 16;

/// What one worker may cause in a second: deliveries of up to 4 KiB.
const DELIVERIES_PER_SECOND: u64 = 20_000;

/// What it may save up: a burst goes through without delay.
const SAVED_DELIVERIES: u64 = 10_000;

/// Bytes of a message that count as one delivery.
const DELIVERY_BYTES: usize = 4096;

/// What an event costs: it is kept and sent to everybody who follows.
const EVENT_DELIVERIES: u64 = 20;

/// Between two events that tell of lost messages.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A message on its way to workers; the same bytes for all of them.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    packet: Rc<[u8]>,
    file: Option<Rc<OwnedFd>>,
}

/// What waits until a worker reads.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
    files: usize,
}

impl Outgoing {
    /// A packet that comes with nothing.
    pub fn of(packet: &[u8]) -> Outgoing {
        Outgoing { packet: packet.into(), file: None }
    }
}

impl Outbox {
    fn has_room_for(&self, message: &Outgoing) -> bool {
        self.waiting.len() < OUTBOX_MESSAGES
            && self.bytes + message.packet.len() <= OUTBOX_BYTES
            && self.files + usize::from(message.file.is_some()) <= OUTBOX_FILES
    }

    fn push(&mut self, message: Outgoing) {
        self.bytes += message.packet.len();
        self.files += usize::from(message.file.is_some());
        self.waiting.push_back(message);
    }

    fn pop(&mut self) -> Option<Outgoing> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.packet.len();
        self.files -= usize::from(message.file.is_some());
        Some(message)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// How much a sender may still cause: a bucket that fills with time.
#[derive(Debug)]
pub(super) struct Budget {
    saved: i64,
    at: Instant,
}

impl Budget {
    pub fn new(now: Instant) -> Budget {
        Budget { saved: SAVED_DELIVERIES.cast_signed(), at: now }
    }

    /// Takes what a message costs; when the sender may go on if that is not at once.
    fn spend(&mut self, cost: u64, now: Instant) -> Option<Instant> {
        let earned = now.saturating_duration_since(self.at).as_micros() * u128::from(DELIVERIES_PER_SECOND)
            / 1_000_000;
        if earned > 0 {
            // The rest of a delivery that the time since then has not earned is given away.
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.saved = self.saved.saturating_add(earned).min(SAVED_DELIVERIES.cast_signed());
            self.at = now;
        }
        self.saved = self.saved.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        let debt = if self.saved < 0 { self.saved.unsigned_abs() } else { return None };
        Some(now + Duration::from_micros(debt.saturating_mul(1_000_000) / DELIVERIES_PER_SECOND + 1000))
    }
}

/// Why a message did not reach somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The receiver's outbox was full.
    Full,
    /// There is no such worker, or it has gone before it read.
    Gone,
    /// It was no message.
    Invalid,
}

/// Counts since the supervisor's start.
#[derive(Debug, Default)]
pub(super) struct MessageTotals {
    /// Taken from workers or from outside.
    pub taken: u64,
    /// Put into channels or outboxes.
    pub delivered: u64,
    pub lost_full: u64,
    pub lost_gone: u64,
    pub lost_invalid: u64,
    /// Times that a sender had to wait.
    pub throttled: u64,
    /// When an event is to tell of losses that none has told of.
    report_at: Option<Instant>,
    /// When the last one did.
    reported: Option<Instant>,
}

impl MessageTotals {
    pub fn lost(&mut self, why: Lost, count: u64) {
        match why {
            Lost::Full => self.lost_full += count,
            Lost::Gone => self.lost_gone += count,
            Lost::Invalid => self.lost_invalid += count,
        }
        if count > 0 && self.report_at.is_none() {
            let now = Instant::now();
            self.report_at = Some(self.reported.map_or(now, |reported| now.max(reported + REPORT_EVERY)));
        }
    }

    /// When the next event must tell of losses.
    pub fn next_report(&self) -> Option<Instant> {
        self.report_at
    }

    pub fn to_json(&self) -> Value {
        json!({
            "taken": self.taken,
            "delivered": self.delivered,
            "lost_full": self.lost_full,
            "lost_gone": self.lost_gone,
            "lost_invalid": self.lost_invalid,
            "throttled": self.throttled,
        })
    }
}

/// How many workers a message from outside was given to, and how many had no room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub workers: u64,
    pub lost: u64,
}

impl Supervisor {
    /// Takes a message from a worker.
    pub(super) fn relay(&mut self, from: u64, packet: &[u8], file: Option<OwnedFd>) {
        self.messages.taken += 1;
        let cost = match self.relay_decoded(from, packet, file) {
            Some(cost) => cost,
            None => {
                self.messages.lost(Lost::Invalid, 1);
                EVENT_DELIVERIES
            }
        };
        self.charge(from, cost);
    }

    /// What it cost; none for what is no message.
    fn relay_decoded(&mut self, from: u64, packet: &[u8], file: Option<OwnedFd>) -> Option<u64> {
        let message = Message::decode(packet)?;
        if file.as_ref().is_some_and(|file| !message.body.is_empty() || !is_sealed(file.as_fd())) {
            return None;
        }
        let sender = self.workers.get(&from)?.id.as_str().to_owned();
        if message.kind == Kind::Supervisor {
            let data: Value = serde_json::from_slice(message.body).ok().filter(|_| file.is_none())?;
            self.message_event(&sender, data);
            return Some(EVENT_DELIVERIES);
        }
        let packet = Message { who: sender.as_bytes(), ..message }.encode(tag::MESSAGE)?;
        let each = 1 + (packet.len() / DELIVERY_BYTES) as u64;
        let outgoing = Outgoing { packet: packet.into(), file: file.map(Rc::new) };
        let receivers = match message.kind {
            Kind::Worker => self.number_of(message.who).into_iter().collect::<Vec<_>>(),
            Kind::Broadcast | Kind::Supervisor => {
                self.workers.keys().copied().filter(|number| *number != from).collect()
            }
        };
        if receivers.is_empty() && message.kind == Kind::Worker {
            self.messages.lost(Lost::Gone, 1);
        }
        let cost = each * (receivers.len() as u64).max(1);
        for number in receivers {
            self.deliver(number, outgoing.clone());
        }
        Some(cost)
    }

    /// Gives JSON from outside to one worker or to all; none if there is no such worker.
    pub(super) fn send_from_outside(&mut self, to: Option<&str>, json: &[u8]) -> Option<Sent> {
        let receivers: Vec<u64> = match to {
            Some(id) => vec![self.number_of(id.as_bytes())?],
            None => self.workers.keys().copied().collect(),
        };
        let message = Message { kind: Kind::Supervisor, form: 0, who: b"", name: b"", body: json };
        let packet: Rc<[u8]> = message.encode(tag::MESSAGE)?.into();
        self.messages.taken += 1;
        let mut sent = Sent::default();
        for number in receivers {
            match self.deliver(number, Outgoing { packet: Rc::clone(&packet), file: None }) {
                true => sent.workers += 1,
                false => sent.lost += 1,
            }
        }
        Some(sent)
    }

    /// Longest JSON for [`Supervisor::send_from_outside`].
    pub(super) const OUTSIDE_BYTES: usize = INLINE_BYTES;

    pub(super) fn number_of(&self, id: &[u8]) -> Option<u64> {
        let id = std::str::from_utf8(id).ok()?;
        let number = id.rsplit('.').next()?.parse().ok()?;
        self.workers.get(&number).filter(|worker| worker.id.as_str() == id).map(|worker| worker.number)
    }

    /// Gives a worker a message, now or when it reads; whether there was room for it.
    pub(super) fn deliver(&mut self, number: u64, message: Outgoing) -> bool {
        let Some(worker) = self.workers.get_mut(&number) else { return false };
        let message = match worker.outbox.waiting.is_empty() {
            true => match put(&worker.channel, message) {
                Ok(()) => {
                    self.messages.delivered += 1;
                    return true;
                }
                Err(message) => message,
            },
            false => message,
        };
        if !worker.outbox.has_room_for(&message) {
            self.messages.lost(Lost::Full, 1);
            return false;
        }
        worker.outbox.push(message);
        self.messages.delivered += 1;
        self.watch_channel(number);
        true
    }

    /// A worker has read: what waits for it goes on its way.
    pub(super) fn empty_outbox(&mut self, number: u64) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        while let Some(message) = worker.outbox.pop() {
            if let Err(message) = put(&worker.channel, message) {
                worker.outbox.bytes += message.packet.len();
                worker.outbox.files += usize::from(message.file.is_some());
                worker.outbox.waiting.push_front(message);
                break;
            }
        }
        self.watch_channel(number);
    }

    /// A sender pays; above its budget it is not read until it has earned what it owes.
    pub(super) fn charge(&mut self, number: u64, cost: u64) {
        let now = Instant::now();
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if let Some(until) = worker.budget.spend(cost, now) {
            worker.silenced_until = Some(until);
            self.messages.throttled += 1;
            self.watch_channel(number);
        }
    }

    /// Reads again from those whose time of silence is over.
    pub(super) fn end_silences(&mut self, now: Instant) {
        let over = |worker: &&mut Worker| worker.silenced_until.is_some_and(|until| until <= now);
        let numbers: Vec<u64> = self
            .workers
            .values_mut()
            .filter(over)
            .map(|worker| {
                worker.silenced_until = None;
                worker.number
            })
            .collect();
        for number in numbers {
            self.watch_channel(number);
        }
    }

    /// Waits for what is of interest at a channel now.
    fn watch_channel(&mut self, number: u64) {
        let Some(worker) = self.workers.get(&number) else { return };
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, worker.silenced_until.is_none());
        flags.set(EpollFlags::EPOLLOUT, worker.outbox.len() > 0);
        // One that cannot be watched is heard at its end.
        let _ = self.poller.modify(&worker.channel, flags, Source::Channel(number));
    }

    /// Tells of lost messages, at most once in a while.
    pub(super) fn report_losses(&mut self, now: Instant) {
        if self.messages.report_at.is_none_or(|at| at > now) {
            return;
        }
        (self.messages.report_at, self.messages.reported) = (None, Some(now));
        let totals = self.messages.to_json();
        self.event("messages-lost", None, totals);
    }
}

/// Sends if there is room; what could not be sent comes back.
fn put(channel: &Channel, message: Outgoing) -> Result<(), Outgoing> {
    let file = message.file.as_ref().map(|file| file.as_fd());
    match channel.has_room_for_messages() && channel.send(&message.packet, file).is_ok() {
        true => Ok(()),
        false => Err(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_above_its_budget_waits_as_long_as_it_owes() {
        let mut now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!(budget.spend(SAVED_DELIVERIES, now), None, "a burst goes through");
        let until = budget.spend(DELIVERIES_PER_SECOND, now).unwrap();
        assert!(until - now >= Duration::from_secs(1) && until - now < Duration::from_millis(1100));
        now = until;
        assert_eq!(budget.spend(1, now), None, "the debt is paid");
        now += Duration::from_secs(3600);
        assert_eq!(budget.spend(SAVED_DELIVERIES, now), None);
        assert!(budget.spend(2, now).is_some(), "nobody saves more than a burst");
        assert!(budget.spend(u64::MAX, now).is_some(), "no overflow");
    }

    #[test]
    fn an_outbox_is_bounded_by_messages_bytes_and_descriptors() {
        let message = |bytes: usize, has_file: bool| Outgoing {
            packet: vec![0; bytes].into(),
            file: has_file.then(|| Rc::new(tempfile::tempfile().unwrap().into())),
        };
        let fill = |message: Outgoing| {
            let mut outbox = Outbox::default();
            while outbox.has_room_for(&message) {
                outbox.push(message.clone());
            }
            let count = outbox.len();
            while outbox.pop().is_some() {}
            assert_eq!((outbox.bytes, outbox.files), (0, 0));
            count
        };
        assert_eq!(fill(message(10, false)), OUTBOX_MESSAGES);
        assert_eq!(fill(message(16 * 1024, false)), OUTBOX_BYTES / (16 * 1024));
        assert_eq!(fill(message(10, true)), OUTBOX_FILES);
    }
}
