//! A worker under a supervisor: the channel between the two.
//!
//! A `SOCK_SEQPACKET` pair; one message is one packet: a tag byte, then what the table says. The supervisor is never
//! in the way of a request; if it dies the worker serves on, and a later supervisor finds the worker's
//! descriptors through the [gauges](crate::engine::gauges).
//!
//! ```text
//!  tag  from -> to              meaning
//!  'C'  supervisor -> worker    serve this connection (descriptor)
//!  'X'  supervisor -> worker    serve this connection and nothing else (descriptor; u8: 1 for one request only), exit with 0
//!  'L'  supervisor -> worker    accept on this listener, too (descriptor; u32: its number)
//!  'U'  supervisor -> worker    no longer accept on the listener of this number (u32)
//!  'D'  supervisor -> worker    drain: give the connections back, finish what has begun, exit with 0
//!  'F'  supervisor -> worker    the same where nobody takes connections: answer what has come, close the others
//!  'P'  supervisor -> worker    something waits: look at the listeners
//!  'S'  supervisor -> worker    give back this many connections (u32)
//!  'I'  supervisor -> worker    the id of its container: the first packet of all
//!  'm'  either                  a message (`messages.rs`)
//!  'h', 'H', 't', 'A'           requests that go to another worker (`handover.rs`)
//!  'l', 'B'                     listeners that do (`listeners.rs`)
//!  'r'  worker -> supervisor    it serves
//!  'a'  worker -> supervisor    a request came after a quiet time
//!  'f'  worker -> supervisor    it takes no connection: as many requests as allowed are in flight
//!  'v'  worker -> supervisor    it takes connections again
//!  'c'  worker -> supervisor    a connection between two requests (descriptor): somebody else's from here on
//!  'd'  worker -> supervisor    it drains by itself: it has served as many requests as it may
//!  's'  worker -> supervisor    a request is slow (u8: state, u32: milliseconds, u32: how many were not told of, u16 and bytes: its
//!                               method and target, then the JavaScript stack)
//! ```
//!
//! A connection is given back only between two requests, with nothing of it read: bytes that come meanwhile wait in
//! the socket, so its client notices nothing.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::{handover, listeners, messages, serve};
use crate::engine::{channel, gauges};
use crate::event_loop::{self, Checkpoint, Interest, Life, Ready};
use crate::http;

/// Packets handled before the loop serves connections again.
const PACKETS_PER_TURN: usize = 64;

/// With [`tag::LAST`]: the connection ends with its first answer.
pub const ONE_REQUEST: u8 = 1;

/// The tags of the table above.
pub mod tag {
    /// Serve this connection.
    pub const CONNECTION: u8 = b'C';
    /// Serve this connection and nothing else.
    pub const LAST: u8 = b'X';
    /// Accept on this listener, too.
    pub const LISTEN: u8 = b'L';
    /// No longer accept on a listener.
    pub const UNLISTEN: u8 = b'U';
    /// Drain.
    pub const DRAIN: u8 = b'D';
    /// Drain where nobody takes connections.
    pub const FINISH: u8 = b'F';
    /// Look at the listeners.
    pub const POKE: u8 = b'P';
    /// Give connections back.
    pub const SHED: u8 = b'S';
    /// Which worker this is.
    pub const IDENTITY: u8 = b'I';
    /// A message, in either direction.
    pub const MESSAGE: u8 = b'm';
    /// The worker serves.
    pub const READY: u8 = b'r';
    /// A request came after a quiet time.
    pub const ACTIVE: u8 = b'a';
    /// No further connections.
    pub const FULL: u8 = b'f';
    /// Connections again.
    pub const VACANT: u8 = b'v';
    /// A connection is given back.
    pub const GIVEN_BACK: u8 = b'c';
    /// The worker drains by itself.
    pub const DRAINS: u8 = b'd';
    /// A request is slow.
    pub const SLOW: u8 = b's';
    /// A request is to go to another worker.
    pub const HAND_OVER: u8 = b'h';
    /// A request comes from another worker.
    pub const TAKE_OVER: u8 = b'H';
    /// Whether it is taken.
    pub const TAKEN: u8 = b't';
    /// What became of a request that was to be handed over.
    pub const HANDED_OVER: u8 = b'A';
    /// A listener is to go to another worker.
    pub const HAND_LISTENER: u8 = b'l';
    /// What became of it.
    pub const LISTENER_HANDED: u8 = b'B';
}

/// What a worker gets from its supervisor.
#[derive(Debug)]
pub struct Supervision {
    /// The worker's end of the channel.
    pub channel: OwnedFd,
    /// The supervisor's end, kept for a later supervisor.
    pub peer: OwnedFd,
    /// The page of the [gauges].
    pub gauges: OwnedFd,
}

struct Channel {
    socket: Rc<OwnedFd>,
    _peer: OwnedFd,
    id: String,
}

/// Shows the gauges to the supervisor, keeps the channel, and reads there who it is. Called before user code runs.
///
/// # Errors
/// As mmap(2); the supervisor has not said who this is.
pub(super) fn attach(scope: &mut v8::PinScope<'_, '_>, supervision: Supervision) -> std::io::Result<()> {
    gauges::map(supervision.gauges.as_fd())?;
    gauges::set(gauges::Gauge::Channel, u64::from(supervision.channel.as_raw_fd().unsigned_abs()));
    gauges::set(gauges::Gauge::Peer, u64::from(supervision.peer.as_raw_fd().unsigned_abs()));
    let hello = channel::receive(supervision.channel.as_fd())?;
    let id = match &hello.bytes[..] {
        [tag::IDENTITY, id @ ..] => String::from_utf8_lossy(id).into_owned(),
        _ => return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the worker has got no id")),
    };
    scope.set_slot(Channel { socket: Rc::new(supervision.channel), _peer: supervision.peer, id });
    Ok(())
}

/// Begins to listen to the supervisor, and says that the worker serves.
///
/// # Errors
/// As epoll_ctl(2).
pub(super) fn serve(scope: &mut v8::PinScope<'_, '_>) -> std::io::Result<()> {
    let Some(socket) = socket(scope) else { return Ok(()) };
    event_loop::get(scope).reactor().register(
        socket.as_fd(),
        Interest::READ,
        Life::Background,
        on_packet,
        0,
    )?;
    gauges::set(gauges::Gauge::Phase, gauges::Phase::Serving as u64);
    tell(scope, tag::READY);
    Ok(())
}

pub(super) fn socket(scope: &v8::PinScope<'_, '_>) -> Option<Rc<OwnedFd>> {
    scope.get_slot::<Channel>().map(|channel| Rc::clone(&channel.socket))
}

/// The id of this worker's container.
pub(super) fn id(scope: &v8::PinScope<'_, '_>) -> Option<String> {
    scope.get_slot::<Channel>().map(|channel| channel.id.clone())
}

/// Whether there is a supervisor.
pub(crate) fn exists(scope: &v8::PinScope<'_, '_>) -> bool {
    scope.get_slot::<Channel>().is_some()
}

/// Tells the supervisor. A full queue loses the message: the gauges tell the same.
pub(crate) fn tell(scope: &v8::PinScope<'_, '_>, tag: u8) {
    if let Some(socket) = socket(scope) {
        let _ = channel::send(socket.as_fd(), &[&[tag]], &[]);
    }
}

/// Tells of a slow request; whether there was room for it.
pub(crate) fn tell_slow(
    scope: &v8::PinScope<'_, '_>,
    state: u8,
    elapsed_ms: u64,
    suppressed: u32,
    request: &[u8],
    stack: &str,
) -> bool {
    let Some(socket) = socket(scope) else { return false };
    let elapsed_ms = u32::try_from(elapsed_ms).unwrap_or(u32::MAX).to_le_bytes();
    let Ok(length) = u16::try_from(request.len()) else { return false };
    let parts = [
        &[tag::SLOW, state],
        &elapsed_ms[..],
        &suppressed.to_le_bytes(),
        &length.to_le_bytes(),
        request,
        stack.as_bytes(),
    ];
    channel::is_writable(socket.as_fd()) && channel::send(socket.as_fd(), &parts, &[]).is_ok()
}

/// Gives a connection to the supervisor; whether it took it.
pub(crate) fn give_back(scope: &v8::PinScope<'_, '_>, connection: BorrowedFd<'_>) -> bool {
    let Some(socket) = socket(scope) else { return false };
    channel::send(socket.as_fd(), &[&[tag::GIVEN_BACK]], &[connection]).is_ok()
}

fn on_packet(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    let mut checkpoint = Checkpoint::Done;
    for _ in 0..PACKETS_PER_TURN {
        let Some(socket) = socket(scope) else { break };
        let packet = match channel::receive(socket.as_fd()) {
            Ok(packet) => packet,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => continue,
            Err(_) => break,
        };
        let mut fds = packet.fds.into_iter();
        match (&packet.bytes[..], fds.next()) {
            ([], None) => {
                // Both ends are this process's own, so this is the end of nothing; be safe against a busy loop.
                event_loop::get(scope).reactor().deregister(ready.token, socket.as_fd());
                scope.remove_slot::<Channel>();
                break;
            }
            ([tag::CONNECTION], Some(connection)) => http::adopt(scope, connection),
            ([tag::LAST, requests], Some(connection)) => {
                http::adopt_last(scope, connection, *requests == ONE_REQUEST);
                serve::retire(scope);
            }
            ([tag::LISTEN, number @ ..], Some(listener)) => {
                if let (Some(number), Ok(listener)) = (u32_of(number), super::Listener::from_fd(listener)) {
                    http::listen(scope, number, listener);
                }
            }
            ([tag::UNLISTEN, number @ ..], None) => {
                if let Some(number) = u32_of(number) {
                    http::unlisten(scope, number);
                }
            }
            ([tag::SHED, count @ ..], None) => {
                if let Some(count) = u32_of(count) {
                    http::shed(scope, count);
                }
            }
            ([tag::POKE], None) => http::poke(scope),
            ([tag::DRAIN], None) => serve::retire(scope),
            ([tag::FINISH], None) => {
                http::finish(scope);
                serve::retire(scope);
            }
            ([tag::MESSAGE, message @ ..], body) => {
                messages::receive(scope, message, body);
                checkpoint = Checkpoint::Due;
            }
            ([tag::TAKE_OVER, request @ ..], Some(connection)) => {
                handover::receive(scope, request, connection, fds.next());
            }
            ([tag::HANDED_OVER, answer @ ..], None) => {
                handover::told(scope, answer);
                checkpoint = Checkpoint::Due;
            }
            ([tag::LISTENER_HANDED, answer @ ..], None) => {
                listeners::told(scope, answer);
                checkpoint = Checkpoint::Due;
            }
            // Of a later version, or nonsense: neither is a reason to stop serving.
            _ => {}
        }
    }
    checkpoint
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
