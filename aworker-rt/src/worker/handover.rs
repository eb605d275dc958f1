//! Requests between the workers of a pool, as packets of the channel: what `http/handover.rs` sends and gets.
//!
//! ```text
//!   'h'  worker -> supervisor    u32 ticket, u8 hops, u8 and bytes: the id of the worker it goes to, none for any; the bytes
//!   'H'  supervisor -> worker    u64 sender, u32 ticket, u8 hops; the bytes
//!   't'  worker -> supervisor    u64 sender, u32 ticket, u8: 0 it is taken, 1 this worker takes none
//!   'A'  supervisor -> worker    u32 ticket, u8: an outcome
//! ```
//!
//! 'h' and 'H' carry the connection, and a second descriptor, of sealed memory, if there are more than [`INLINE_BYTES`] bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::messages::{INLINE_BYTES, say};
use super::supervised::{self, tag};
use crate::engine::channel;
use crate::http;

/// Most bytes of a connection that anybody has read ahead; a little more than the server does.
const MOST_BYTES: u64 = 128 * 1024;

/// What became of a request that was to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another worker has it.
    Taken = 0,
    /// There is no such worker, or no other one, that serves.
    NoWorker = 1,
    /// Too many are on their way.
    NoRoom = 2,
    /// Nobody said anything.
    NoAnswer = 3,
    /// The listener is not this worker's.
    NotMine = 4,
}

impl Outcome {
    /// Of its number in a packet.
    pub fn of(number: u8) -> Outcome {
        match number {
            0 => Outcome::Taken,
            1 => Outcome::NoWorker,
            2 => Outcome::NoRoom,
            4 => Outcome::NotMine,
            _ => Outcome::NoAnswer,
        }
    }
}

/// Why a request cannot be handed over: what `ops.pool_hand_over` answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// This worker is in no pool.
    NoPool = -1,
    /// It is answered already, or its client has left.
    Over = -2,
    /// Its body was asked for.
    BodyRead = -3,
    /// It has been handed over too often.
    TooOften = -4,
}

/// Gives a request to the supervisor; whether there was room for it.
pub(crate) fn give(
    scope: &mut v8::PinScope<'_, '_>,
    ticket: u32,
    hops: u8,
    to: &str,
    bytes: &[u8],
    connection: BorrowedFd<'_>,
) -> bool {
    let Some(socket) = supervised::socket(scope) else { return false };
    let Ok(to_length) = u8::try_from(to.len()) else { return false };
    let head = [&[tag::HAND_OVER][..], &ticket.to_le_bytes(), &[hops, to_length], to.as_bytes()].concat();
    if !channel::is_writable(socket.as_fd()) {
        return false;
    }
    if bytes.len() <= INLINE_BYTES {
        return channel::send(socket.as_fd(), &[&head, bytes], &[connection]).is_ok();
    }
    let Ok(memory) = channel::sealed_memory(bytes) else { return false };
    channel::send(socket.as_fd(), &[&head], &[connection, memory.as_fd()]).is_ok()
}

/// Another worker hands a request over; `packet` is what follows the tag.
pub(super) fn receive(
    scope: &mut v8::PinScope<'_, '_>,
    packet: &[u8],
    connection: OwnedFd,
    memory: Option<OwnedFd>,
) {
    let Some((name, rest)) = packet.split_first_chunk::<12>() else { return };
    let Some((hops, inline)) = rest.split_first() else { return };
    let bytes = match memory {
        None => Ok(inline.to_vec()),
        Some(memory) => channel::read_memory(memory, MOST_BYTES),
    };
    // It must be known to be taken before it is: otherwise it is given to another one when this worker dies.
    let can_say = supervised::socket(scope).is_some_and(|socket| channel::is_writable(socket.as_fd()));
    let takes = can_say && bytes.is_ok_and(|bytes| http::take_over(scope, connection, bytes, *hops));
    let answer = [&[tag::TAKEN][..], name, &[u8::from(!takes)]].concat();
    say(scope, answer);
}

/// The supervisor tells what became of a request.
pub(super) fn told(scope: &mut v8::PinScope<'_, '_>, packet: &[u8]) {
    let Some((ticket, [outcome])) = packet.split_first_chunk::<4>() else { return };
    http::handed_over(scope, u32::from_le_bytes(*ticket), Outcome::of(*outcome));
}
