//! Who accepts on which socket.
//!
//! | the socket | its workers |
//! |---|---|
//! | all share it | all that serve, but for those who have handed it over |
//! | is of a slot (`reuseport`) | one: who was handed it, else the slot's own, else the one with the fewest |
//!
//! A worker hands a listener to another with a packet of `aworker-rt/src/worker/listeners.rs`. The socket itself stays open in the supervisor
//! all the time, so that what waits in its queue waits for whoever accepts next. When the receiver goes, the table above has another.

use std::os::fd::AsFd;

use serde_json::json;

use super::channel::tag;
use super::messages::Outgoing;
use super::policy::Phase;
use super::supervisor::{Ending, Supervisor};
use super::worker::Worker;

/// What a listener costs its sender, in deliveries of messages: two packets to others and the answer.
const DELIVERIES: u64 = 4;

/// What became of a listener: as `Outcome` in `aworker-rt/src/worker/handover.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The other worker accepts there, the sender does not.
    Taken = 0,
    /// There is no such worker, or no other one, that serves.
    NoWorker = 1,
    /// The other worker does not read what it is told.
    NoRoom = 2,
    /// The sender does not accept there.
    NotYours = 4,
}

/// A listener as its sender describes it.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    ticket: [u8; 4],
    listener: u32,
    /// The id of the worker it goes to; empty for any.
    to: &'a [u8],
}

impl<'a> Asked<'a> {
    fn decode(packet: &'a [u8]) -> Option<Asked<'a>> {
        let (ticket, rest) = packet.split_first_chunk::<4>()?;
        let (listener, to) = rest.split_first_chunk::<4>()?;
        Some(Asked { ticket: *ticket, listener: u32::from_le_bytes(*listener), to })
    }
}

impl Supervisor {
    /// A worker asks for a listener of its own to be given to another.
    pub(super) fn hand_listener(&mut self, from: u64, packet: &[u8]) {
        self.charge(from, DELIVERIES);
        let Some(asked) = Asked::decode(packet) else { return };
        let outcome = self.move_listener(from, asked.listener, asked.to);
        let [a, b, c, d] = asked.ticket;
        let answer = [tag::LISTENER_HANDED, a, b, c, d, outcome as u8];
        let Some(worker) = self.workers.get(&from) else { return };
        if worker.channel.send(&answer, None).is_err() {
            // It hears it when it reads.
            self.deliver(from, Outgoing::of(&answer));
        }
    }

    fn move_listener(&mut self, from: u64, listener: u32, to: &[u8]) -> Outcome {
        // What a former supervisor called a number, this one may call another socket.
        let is_known = |worker: &Worker| worker.phase == Phase::Serving && worker.is_child;
        let accepts = |worker: &Worker| is_known(worker) && worker.listeners.contains(&listener);
        let address = self.sockets.iter().find(|socket| socket.number == listener);
        let Some(address) = address.map(|socket| socket.address.clone()) else { return Outcome::NotYours };
        if self.ending != Ending::No || !self.workers.get(&from).is_some_and(accepts) {
            return Outcome::NotYours;
        }
        let others = |number: &u64| *number != from && self.workers.get(number).is_some_and(is_known);
        let receiver = match to {
            b"" => {
                let all: Vec<u64> = self.order().into_iter().filter(others).collect();
                let accepting = all.iter().find(|number| self.workers.get(number).is_some_and(accepts));
                accepting.or(all.first()).copied()
            }
            id => self.number_of(id).filter(others),
        };
        let Some(receiver) = receiver else { return Outcome::NoWorker };
        self.give(listener, from, receiver);
        self.spread_listeners();
        if !self.workers.get(&receiver).is_some_and(|worker| worker.listeners.contains(&listener)) {
            self.give(listener, receiver, from);
            self.spread_listeners();
            return Outcome::NoRoom;
        }
        self.handovers.listeners += 1;
        let id = |number| self.workers.get(&number).map(|worker: &Worker| worker.id.as_str().to_owned());
        let (sender, receiver) = (id(from), id(receiver));
        self.event("listener", sender.as_deref(), json!({ "address": address, "to": receiver }));
        self.wake();
        Outcome::Taken
    }

    /// Notes whose listener it is.
    fn give(&mut self, listener: u32, from: u64, to: u64) {
        if let Some(worker) = self.workers.get_mut(&from) {
            worker.given_away.retain(|number| *number != listener);
            worker.given_away.push(listener);
        }
        if let Some(worker) = self.workers.get_mut(&to) {
            worker.given_away.retain(|number| *number != listener);
        }
        if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.number == listener) {
            socket.given_to = Some(to);
        }
    }

    /// Tells workers to accept, or no longer to, as the table above says. Where nobody was handed anything and all sockets are shared,
    /// each worker has had them from its start.
    pub(super) fn spread_listeners(&mut self) {
        let is_shared = self.sockets.iter().all(|socket| socket.slot.is_none());
        let is_untouched = self.workers.values().all(|worker| worker.given_away.is_empty());
        if self.ending != Ending::No || self.config.passes_connections() || (is_shared && is_untouched) {
            return;
        }
        // How many sockets of slots each has been given, the fewest first.
        let mut owned: Vec<(u64, u32, usize)> = self
            .workers
            .values()
            .filter(|worker| worker.phase == Phase::Serving)
            .map(|worker| (worker.number, worker.slot, 0))
            .collect();
        for socket in &self.sockets {
            let number = socket.number;
            let owner = socket.slot.and_then(|slot| {
                let given = owned.iter().position(|(worker, _, _)| Some(*worker) == socket.given_to);
                let own = || owned.iter().position(|(_, own, _)| *own == slot);
                let fewest = || (0..owned.len()).min_by_key(|index| owned[*index].2);
                let index = given.or_else(own).or_else(fewest)?;
                owned[index].2 += 1;
                Some(owned[index].0)
            });
            let serving = || self.workers.values().filter(|worker| worker.phase == Phase::Serving);
            let nobody_kept_it = serving().all(|worker| worker.given_away.contains(&number));
            for worker in self.workers.values_mut().filter(|worker| worker.phase == Phase::Serving) {
                let should = match socket.slot {
                    None => nobody_kept_it || !worker.given_away.contains(&number),
                    Some(_) => owner == Some(worker.number),
                };
                let has = worker.listeners.contains(&number);
                if should && !has {
                    if worker.channel.send_number(tag::LISTEN, number, Some(socket.as_fd())).is_ok() {
                        worker.listeners.push(number);
                    }
                } else if !should && has && worker.channel.send_number(tag::UNLISTEN, number, None).is_ok() {
                    worker.listeners.retain(|other| *other != number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_listener_is_read_beyond_its_end() {
        let packet = [&[1, 0, 0, 0, 2, 0, 0, 0][..], b"p.1.2"].concat();
        assert_eq!(Asked::decode(&packet), Some(Asked { ticket: [1, 0, 0, 0], listener: 2, to: b"p.1.2" }));
        assert_eq!(Asked::decode(&packet[..8]).map(|asked| asked.to), Some(&b""[..]));
        for end in 0..8 {
            assert_eq!(Asked::decode(&packet[..end]), None, "{end}");
        }
    }
}
