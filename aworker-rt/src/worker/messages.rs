//! Messages to other workers of the pool and to the supervisor, which carries them.
//!
//! ```text
//!   js/81_pool.js --pool_send--> [outbox] --channel--> supervisor --channel of another--> receive --> js/81_pool.js
//! ```
//!
//! A packet is a tag, then: kind (u8), form (u8), length (u8) and bytes of a worker's id, length (u16) and bytes of a
//! channel's name, the body. A long body is in sealed memory beside the packet. The supervisor does not look at
//! bodies, except at JSON for itself; what they say only the receiving worker's deserialiser finds out.
//!
//! Messages use a quarter of the socket's buffer: what worker and supervisor must tell each other has the rest.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use super::supervised::{self, tag};
use crate::engine::{self, channel, conversions, gauges};
use crate::event_loop::{self, Checkpoint, Interest, Life, Ready, Token};
use crate::web::bytes;

/// Longest body in a packet.
pub(super) const INLINE_BYTES: usize = 16 * 1024;

/// Longest body.
const MESSAGE_BYTES: usize = 16 << 20;

/// Longest name of a channel.
const NAME_BYTES: usize = 4096;

/// Messages that wait until the supervisor reads.
const OUTBOX_MESSAGES: usize = 1024;

/// Bytes of packets that wait.
const OUTBOX_BYTES: usize = 1 << 20;

/// Long bodies, each a descriptor, that wait.
const OUTBOX_FILES: usize = 16;

/// The number of a packet's kind whose body is text.
const TO_SUPERVISOR: u8 = 3;

/// What `ops.pool_send` answers.
#[derive(Clone, Copy)]
enum Answer {
    Sent = 0,
    NoRoom = 1,
    TooLong = 2,
    NoPool = 3,
}

struct Waiting {
    packet: Vec<u8>,
    body: Option<OwnedFd>,
}

/// What the channel has had no room for.
#[derive(Default)]
struct Outbox {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    files: usize,
    /// The descriptor that is waited for; it keeps a worker alive that is about to end.
    writer: Option<(OwnedFd, Token)>,
}

impl Outbox {
    fn has_room_for(&self, message: &Waiting) -> bool {
        self.waiting.len() < OUTBOX_MESSAGES
            && self.bytes + message.packet.len() <= OUTBOX_BYTES
            && self.files + usize::from(message.body.is_some()) <= OUTBOX_FILES
    }
}

/// `ops.pool_id()`: the id of this worker in its pool; undefined if it is in none.
pub(crate) fn pool_id(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    if let Some(id) = supervised::id(scope) {
        result.set(conversions::string(scope, &id).into());
    }
}

/// `ops.pool_send(kind, form, to, name, body)`: sends; an [`Answer`]. The body is a Uint8Array or a string.
pub(crate) fn pool_send(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let number = |scope: &mut v8::PinScope<'_, '_>, index| {
        arguments.get(index).uint32_value(scope).and_then(|number| u8::try_from(number).ok()).unwrap_or(0)
    };
    let (kind, form) = (number(scope, 0), number(scope, 1));
    let to = arguments.get(2).to_rust_string_lossy(scope);
    let name = arguments.get(3).to_rust_string_lossy(scope);
    let body = match bytes::read(arguments.get(4), <[u8]>::to_vec) {
        Some(bytes) => bytes,
        None => arguments.get(4).to_rust_string_lossy(scope).into_bytes(),
    };
    let answer = match packet(kind, form, &to, &name, body) {
        Ok(message) => send(scope, message),
        Err(answer) => answer,
    };
    result.set_uint32(answer as u32);
}

fn packet(kind: u8, form: u8, to: &str, name: &str, body: Vec<u8>) -> Result<Waiting, Answer> {
    let is_short = body.len() <= INLINE_BYTES;
    let may_be_long = kind != TO_SUPERVISOR && body.len() <= MESSAGE_BYTES;
    let (Ok(to_length), Ok(name_length)) = (u8::try_from(to.len()), u16::try_from(name.len())) else {
        return Err(Answer::TooLong);
    };
    if name.len() > NAME_BYTES || !(is_short || may_be_long) {
        return Err(Answer::TooLong);
    }
    let mut packet = vec![tag::MESSAGE, kind, form, to_length];
    packet.extend_from_slice(to.as_bytes());
    packet.extend_from_slice(&name_length.to_le_bytes());
    packet.extend_from_slice(name.as_bytes());
    if is_short {
        packet.extend_from_slice(&body);
        return Ok(Waiting { packet, body: None });
    }
    // No descriptor or memory to be had now.
    let memory = channel::sealed_memory(&body).map_err(|_| Answer::NoRoom)?;
    Ok(Waiting { packet, body: Some(memory) })
}

fn send(scope: &mut v8::PinScope<'_, '_>, message: Waiting) -> Answer {
    if supervised::socket(scope).is_none() {
        return Answer::NoPool;
    }
    let outbox = outbox(scope);
    if !outbox.has_room_for(&message) {
        return Answer::NoRoom;
    }
    outbox.bytes += message.packet.len();
    outbox.files += usize::from(message.body.is_some());
    outbox.waiting.push_back(message);
    flush(scope);
    Answer::Sent
}

/// Tells the supervisor what it must know, now or when it reads.
pub(super) fn say(scope: &mut v8::PinScope<'_, '_>, packet: Vec<u8>) {
    let Some(socket) = supervised::socket(scope) else { return };
    if channel::send(socket.as_fd(), &[&packet], &[]).is_ok() {
        return;
    }
    let outbox = outbox(scope);
    outbox.bytes += packet.len();
    outbox.waiting.push_back(Waiting { packet, body: None });
    flush(scope);
}

fn outbox<'a>(scope: &'a mut v8::PinScope<'_, '_>) -> &'a mut Outbox {
    if scope.get_slot::<Outbox>().is_none() {
        scope.set_slot(Outbox::default());
    }
    scope.get_slot_mut::<Outbox>().expect("it has just been made")
}

/// Sends what there is room for, and waits for room for the rest.
fn flush(scope: &mut v8::PinScope<'_, '_>) {
    let Some(socket) = supervised::socket(scope) else { return };
    let outbox = outbox(scope);
    while let Some(first) = outbox.waiting.front() {
        let body = first.body.as_ref().map(AsFd::as_fd);
        if !channel::is_writable(socket.as_fd())
            || channel::send(socket.as_fd(), &[&first.packet], body.as_slice()).is_err()
        {
            break;
        }
        outbox.bytes -= first.packet.len();
        outbox.files -= usize::from(first.body.is_some());
        outbox.waiting.pop_front();
    }
    let (left, writer) = (outbox.waiting.len(), outbox.writer.take());
    gauges::set(gauges::Gauge::MessagesWaiting, left as u64);
    let reactor = event_loop::get(scope).reactor();
    match (left > 0, writer) {
        (false, Some((fd, token))) => reactor.deregister(token, fd.as_fd()),
        (true, None) => {
            // Without a descriptor to wait with, the next message tries again.
            let Ok(fd) = socket.try_clone() else { return };
            let token = reactor.register(fd.as_fd(), Interest::WRITE, Life::KeepsAlive, on_writable, 0);
            self::outbox(scope).writer = token.ok().map(|token| (fd, token));
        }
        (_, writer) => self::outbox(scope).writer = writer,
    }
}

fn on_writable(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    flush(scope);
    Checkpoint::Done
}

/// A message has come; `packet` is what follows the tag. What cannot be read is nobody's.
pub(super) fn receive(scope: &mut v8::PinScope<'_, '_>, packet: &[u8], body: Option<OwnedFd>) {
    let Some(Message { kind, form, from, name, body: inline }) = parts(packet) else { return };
    let bytes = match body {
        None => inline.to_vec(),
        Some(memory) => match channel::read_memory(memory, MESSAGE_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(_) => return,
        },
    };
    let Some(function) = engine::callback(scope, "poolMessage") else { return };
    v8::scope!(let scope, scope);
    let function = v8::Local::new(scope, function);
    let kind_number = v8::Integer::new(scope, i32::from(kind)).into();
    let form = v8::Integer::new(scope, i32::from(form)).into();
    let from = conversions::string(scope, &String::from_utf8_lossy(from)).into();
    let name = conversions::string(scope, &String::from_utf8_lossy(name)).into();
    let body = match kind {
        TO_SUPERVISOR => conversions::string(scope, &String::from_utf8_lossy(&bytes)).into(),
        _ => bytes::uint8_array(scope, bytes).into(),
    };
    engine::call_or_fail(scope, function, &[kind_number, form, from, name, body]);
}

/// A message in its parts.
struct Message<'a> {
    kind: u8,
    form: u8,
    from: &'a [u8],
    name: &'a [u8],
    body: &'a [u8],
}

fn parts(packet: &[u8]) -> Option<Message<'_>> {
    let [kind, form, length, rest @ ..] = packet else { return None };
    let (from, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (name, body) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some(Message { kind: *kind, form: *form, from, name, body })
}
