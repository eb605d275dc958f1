//! Requests that workers hand to each other: the supervisor carries them, with their connections, and knows of each until the
//! receiver has taken it.
//!
//! ```text
//!   sender --'h'--> [under way] --'H'--> receiver --'t' taken--> answer to the sender: taken
//!                      |   ^                |
//!                      |   +--any may take--+ refuses, or dies before it has said anything
//!                      +--nobody does-----------------> answer to the sender: no worker; the request goes on there
//! ```
//!
//! A request whose receiver is named is offered to nobody else. The sender keeps its copy of the connection until the answer, so that a
//! request is lost only with the sender *and* the receiver. `aworker-rt/src/worker/handover.rs` has the packets.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::channel::tag;
use super::message::{INLINE_BYTES, is_sealed};
use super::messages::Outgoing;
use super::policy::Phase;
use super::supervisor::Supervisor;

/// Most requests that are under way; each is a descriptor or two of this process.
const MAX_UNDER_WAY: usize = 1024;

/// What a request costs its sender, in deliveries of messages.
const DELIVERIES: u64 = 4;

/// As `Outcome` in `aworker-rt/src/worker/handover.rs`.
const TAKEN: u8 = 0;
const NO_WORKER: u8 = 1;
const NO_ROOM: u8 = 2;

/// Who asked, and by which number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ticket {
    sender: u64,
    number: u32,
}

impl Ticket {
    /// Of an answer: u64, u32, and what follows.
    fn of(packet: &[u8]) -> Option<(Ticket, &[u8])> {
        let (sender, rest) = packet.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        Some((Ticket { sender: u64::from_le_bytes(*sender), number: u32::from_le_bytes(*number) }, rest))
    }
}

/// A request that nobody has taken yet.
#[derive(Debug)]
struct UnderWay {
    /// Its descriptors: the connection, and memory if the bytes are long.
    fds: Vec<OwnedFd>,
    hops: u8,
    bytes: Vec<u8>,
    /// The only one who may take it.
    to: Option<u64>,
    /// Who it was offered to.
    offered: Vec<u64>,
}

/// What is under way, and counts since the supervisor's start.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    under_way: BTreeMap<Ticket, UnderWay>,
    pub taken: u64,
    pub refused: u64,
    /// Listeners that went to another worker.
    pub listeners: u64,
}

impl Handovers {
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "taken": self.taken,
            "refused": self.refused,
            "under_way": self.under_way.len(),
            "listeners": self.listeners,
        })
    }
}

/// A request as its sender describes it.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    number: u32,
    hops: u8,
    to: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Asked<'a> {
    fn decode(packet: &'a [u8]) -> Option<Asked<'a>> {
        let (number, rest) = packet.split_first_chunk::<4>()?;
        let [hops, length, rest @ ..] = rest else { return None };
        let (to, bytes) = rest.split_at_checked(usize::from(*length))?;
        let fits = bytes.len() <= INLINE_BYTES;
        fits.then_some(Asked { number: u32::from_le_bytes(*number), hops: *hops, to, bytes })
    }
}

impl Supervisor {
    /// A worker asks for a request to be given to another.
    pub(super) fn hand_over(&mut self, from: u64, packet: &[u8], fds: Vec<OwnedFd>) {
        self.charge(from, DELIVERIES);
        let Some(asked) = Asked::decode(packet) else { return };
        let ticket = Ticket { sender: from, number: asked.number };
        let to = match asked.to {
            b"" => None,
            id => match self.number_of(id) {
                Some(number) => Some(number),
                None => return self.tell_sender(ticket, NO_WORKER),
            },
        };
        if self.handovers.under_way.len() >= MAX_UNDER_WAY || !are_a_request(&fds, asked.bytes) {
            return self.tell_sender(ticket, NO_ROOM);
        }
        let under_way =
            UnderWay { fds, hops: asked.hops, bytes: asked.bytes.to_vec(), to, offered: vec![from] };
        self.offer(ticket, under_way);
    }

    /// Offers a request to the next one who may take it; with nobody left it goes on where it was.
    fn offer(&mut self, ticket: Ticket, mut request: UnderWay) {
        let name = [&ticket.sender.to_le_bytes()[..], &ticket.number.to_le_bytes()].concat();
        let packet = [&[tag::TAKE_OVER][..], &name, &[request.hops], &request.bytes].concat();
        let candidates = match request.to {
            Some(number) => vec![number],
            None => self.order(),
        };
        for number in candidates {
            let Some(worker) = self.workers.get(&number).filter(|worker| worker.phase == Phase::Serving)
            else {
                continue;
            };
            if request.offered.contains(&number) {
                continue;
            }
            request.offered.push(number);
            let fds: Vec<BorrowedFd<'_>> = request.fds.iter().map(AsFd::as_fd).collect();
            // One that does not read is passed over.
            if worker.channel.send_all(&packet, &fds).is_ok() {
                self.handovers.under_way.insert(ticket, request);
                return self.wake();
            }
        }
        self.tell_sender(ticket, NO_WORKER);
    }

    /// A worker says whether it takes a request. The request may have been given to it by an earlier supervisor.
    pub(super) fn on_taken(&mut self, by: u64, packet: &[u8]) {
        let Some((ticket, [refused])) = Ticket::of(packet) else { return };
        let request = self.handovers.under_way.remove(&ticket);
        let was_offered = request.as_ref().is_none_or(|request| request.offered.last() == Some(&by));
        match (request, refused) {
            (Some(request), _) if !was_offered => {
                self.handovers.under_way.insert(ticket, request);
            }
            (_, 0) => self.tell_sender(ticket, TAKEN),
            (Some(request), _) => self.offer(ticket, request),
            (None, _) => self.tell_sender(ticket, NO_WORKER),
        }
    }

    /// A worker has gone: what it had not taken is offered to others.
    pub(super) fn offer_again_what_had(&mut self, gone: u64) {
        let is_its = |request: &UnderWay| request.offered.last() == Some(&gone);
        let tickets: Vec<Ticket> = self
            .handovers
            .under_way
            .iter()
            .filter(|(_, request)| is_its(request))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in tickets {
            if let Some(request) = self.handovers.under_way.remove(&ticket) {
                self.offer(ticket, request);
            }
        }
    }

    /// Tells the sender, if it still lives.
    fn tell_sender(&mut self, ticket: Ticket, outcome: u8) {
        match outcome {
            TAKEN => self.handovers.taken += 1,
            _ => self.handovers.refused += 1,
        }
        let [a, b, c, d] = ticket.number.to_le_bytes();
        let packet = [tag::HANDED_OVER, a, b, c, d, outcome];
        let Some(worker) = self.workers.get(&ticket.sender) else { return };
        if worker.channel.send(&packet, None).is_err() {
            // It hears it when it reads, or gives up by itself.
            self.deliver(ticket.sender, Outgoing::of(&packet));
        }
    }
}

/// Whether these descriptors are a connection, and memory if no bytes stand in the packet. What the connection's other end is
/// its client's matter.
fn are_a_request(fds: &[OwnedFd], bytes: &[u8]) -> bool {
    let is_connection = |fd: &OwnedFd| matches!(getsockopt(fd, sockopt::SockType), Ok(SockType::Stream));
    match fds {
        [connection] => !bytes.is_empty() && is_connection(connection),
        [connection, memory] => bytes.is_empty() && is_connection(connection) && is_sealed(memory.as_fd()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_read_beyond_its_end() {
        let packet = [&[7, 0, 0, 0, 2, 5][..], b"p.1.2", b"GET / HTTP/1.1\r\n\r\n"].concat();
        let asked = Asked::decode(&packet).unwrap();
        assert_eq!((asked.number, asked.hops, asked.to), (7, 2, &b"p.1.2"[..]));
        assert_eq!(asked.bytes, b"GET / HTTP/1.1\r\n\r\n");
        for end in 0..11 {
            assert_eq!(Asked::decode(&packet[..end]), None, "{end}");
        }
        let long = [&packet[..], &vec![0; INLINE_BYTES]].concat();
        assert_eq!(Asked::decode(&long), None);
        assert_eq!(Ticket::of(&[1; 11]), None);
        assert_eq!(Ticket::of(&[0; 13]).unwrap().1, [0]);
    }

    #[test]
    fn only_a_connection_with_its_bytes_is_a_request() {
        let (stream, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (pipe, _writer) = std::io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        let bytes = b"GET";
        assert!(are_a_request(&[stream.into()], bytes));
        assert!(!are_a_request(&[], bytes) && !are_a_request(&[pipe.into()], bytes));
        let copy = || OwnedFd::from(other.try_clone().unwrap());
        assert!(!are_a_request(&[copy()], b""), "no byte of a request");
        assert!(!are_a_request(&[copy(), file.into()], b""), "a file that can change");
        assert!(!are_a_request(&[copy(), copy(), copy()], b""));
    }
}
