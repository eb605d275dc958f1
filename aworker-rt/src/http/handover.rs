//! A request that goes to another worker of the pool, and its connection with it: `Aworker.pool.handOver`.
//!
//! ```text
//!   asked for --end of the client's turn--> away --answer: taken------> forgotten here; the other worker answers
//!        \                                    |  \--no answer in time-> closed here
//!         \--no room in the channel           |
//!          \------------------------------>  refused: the request goes on here
//! ```
//!
//! What has been read of the connection goes along: the request's head, and what came behind it. Between asking and the answer
//! nobody here writes to the connection or reads from it, because the other worker may have it already.

use std::os::fd::{AsFd, OwnedFd};

use super::limits::MAX_LEFTOVER_BYTES;
use super::ops;
use super::serve::{admit, arm_sweep, checkpoint, release};
use super::server::{self, Demand, RequestId};
use super::supervised::balance;
use crate::engine::gauges::{self, Gauge};
use crate::engine::{self, stdio};
use crate::event_loop::{self, Interest};
use crate::worker::handover::{Answer, Outcome, give};
use crate::worker::supervised;

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;

/// What is printed of a request that nobody answers.
const UNANSWERED: &[u8] = b"a request that no other worker took is not answered here either: 503\n";

/// How often one request may be handed over: workers that each mean another one would pass it on for ever.
const MAX_HOPS: u8 = 8;

/// A request on its way to another worker.
#[derive(Debug)]
pub(super) struct Handing {
    ticket: u32,
    head: Vec<u8>,
    to: String,
    is_away: bool,
    /// The handler has answered, or failed, meanwhile.
    pub is_answered: bool,
}

/// `ops.pool_hand_over(id, head, to)`: begins. A ticket above zero, for `callbacks.poolHandedOver`; or an [`Answer`].
pub(crate) fn pool_hand_over(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = RequestId::from_number(arguments.get(0).number_value(scope).unwrap_or(-1.0));
    let head = super::ops::latin1_of(scope, arguments.get(1));
    let to = arguments.get(2).to_rust_string_lossy(scope);
    match begin(scope, id, head, to) {
        Ok(ticket) => result.set_double(f64::from(ticket)),
        Err(answer) => result.set_int32(answer as i32),
    }
}

fn begin(scope: Scope<'_, '_, '_>, id: RequestId, head: Vec<u8>, to: String) -> Result<u32, Answer> {
    if !supervised::exists(scope) {
        return Err(Answer::NoPool);
    }
    let server = server::get(scope);
    let ticket = server.next_ticket();
    let client = server.exchange(id).ok_or(Answer::Over)?;
    if !client.machine.may_respond() || client.transport.is_none() || client.broken || head.is_empty() {
        return Err(Answer::Over);
    }
    if client.body_asked_for || client.demand != Demand::None {
        return Err(Answer::BodyRead);
    }
    if client.hops >= MAX_HOPS {
        return Err(Answer::TooOften);
    }
    client.handing = Some(Box::new(Handing { ticket, head, to, is_away: false, is_answered: false }));
    server.kick(id.place);
    Ok(ticket)
}

/// Whether the connection may be another worker's already.
pub(super) fn is_away(scope: Scope<'_, '_, '_>, place: usize) -> bool {
    let client = server::get(scope).client(place);
    client.is_some_and(|client| client.handing.as_ref().is_some_and(|handing| handing.is_away))
}

/// Sends a request that is to be handed over on its way. Whether the client's turn ends with that.
pub(super) fn proceed(scope: Scope<'_, '_, '_>, place: usize) -> bool {
    let Some(client) = server::get(scope).client(place) else { return false };
    // Answers to requests before this one go first.
    if client.unsent() > 0 || client.broken {
        return false;
    }
    let Some(handing) = client.handing.as_mut() else { return false };
    if handing.is_away {
        return true;
    }
    let mut bytes = std::mem::take(&mut handing.head);
    bytes.extend_from_slice(&client.leftover);
    let (ticket, to, hops) = (handing.ticket, handing.to.clone(), client.hops + 1);
    let Some(connection) = client.transport.as_ref().and_then(|transport| transport.fd.try_clone().ok())
    else {
        refuse(scope, place, Outcome::NoRoom);
        return false;
    };
    if !give(scope, ticket, hops, &to, &bytes, connection.as_fd()) {
        refuse(scope, place, Outcome::NoRoom);
        return false;
    }
    let server = server::get(scope);
    let deadline = server.now_ms.saturating_add(server.options.request_timeout_ms);
    let Some(client) = server.client(place) else { return true };
    client.deadline_ms = deadline;
    if let Some(handing) = client.handing.as_mut() {
        handing.is_away = true;
    }
    watch(scope, place, Interest::NONE.and(Interest::EDGE));
    arm_sweep(scope, deadline);
    true
}

/// Changes what is waited for at a client's socket. A failure leaves what was: nobody acts on it while the client is away.
fn watch(scope: Scope<'_, '_, '_>, place: usize, interest: Interest) {
    let Some(client) = server::get(scope).client(place) else { return };
    // Out of the table for a moment: the reactor is in the isolate, too.
    let Some(transport) = client.transport.take() else { return };
    let _ = event_loop::get(scope).reactor().modify(transport.token, transport.fd.as_fd(), interest);
    if let Some(client) = server::get(scope).client(place) {
        client.transport = Some(transport);
    }
}

/// The pool's answer.
pub fn handed_over(scope: Scope<'_, '_, '_>, ticket: u32, outcome: Outcome) {
    let server = server::get(scope);
    server.tick();
    let is_it =
        |client: &server::Client| client.handing.as_ref().is_some_and(|handing| handing.ticket == ticket);
    let Some(place) = server.places.iter().position(|place| place.client.as_ref().is_some_and(is_it)) else {
        return;
    };
    if outcome != Outcome::Taken {
        return refuse(scope, place, outcome);
    }
    let Some(client) = release(scope, place) else { return };
    if let Some(transport) = &client.transport {
        event_loop::get(scope).reactor().deregister(transport.token, transport.fd.as_fd());
    }
    drop(client);
    server::get(scope).show_gauges();
    balance(scope);
    tell(scope, ticket, outcome);
}

/// The request stays here, and its handler has its time again. A handler that has answered already, and one that leaves the promise alone,
/// will not answer: the client is told so at once.
fn refuse(scope: Scope<'_, '_, '_>, place: usize, outcome: Outcome) {
    let server = server::get(scope);
    let deadline = server.now_ms.saturating_add(server.options.request_timeout_ms);
    let Some(client) = server.client(place) else { return };
    let Some(handing) = client.handing.take() else { return };
    client.deadline_ms = deadline;
    if handing.is_away {
        // What came meanwhile was announced to nobody.
        client.readable = true;
        watch(scope, place, Interest::READ.and(Interest::WRITE).and(Interest::EDGE));
    }
    arm_sweep(scope, deadline);
    let id = server::get(scope).request_at(place);
    let is_left_alone = tell(scope, handing.ticket, outcome);
    let may_respond = |client: &mut server::Client| client.machine.may_respond();
    if (is_left_alone || handing.is_answered) && server::get(scope).exchange(id).is_some_and(may_respond) {
        stdio::write_all(libc::STDERR_FILENO, UNANSWERED);
        gauges::add(Gauge::Failures, 1);
        ops::fail_request(scope, id, 503);
    }
}

/// Nobody has answered in time, or the worker lets the client go: the copy of the connection here is closed.
pub(super) fn give_up(scope: Scope<'_, '_, '_>, handing: &Handing) {
    tell(scope, handing.ticket, Outcome::NoAnswer);
}

/// The number of the next thing to be handed over.
pub fn next_ticket(scope: Scope<'_, '_, '_>) -> u32 {
    server::get(scope).next_ticket()
}

/// Settles the promise of something that is no request.
pub fn settle(scope: Scope<'_, '_, '_>, ticket: u32, outcome: Outcome) {
    tell(scope, ticket, outcome);
}

/// Settles the script's promise. Whether something was rejected for it that nobody handles, which is printed.
fn tell(scope: Scope<'_, '_, '_>, ticket: u32, outcome: Outcome) -> bool {
    let Some(function) = engine::callback(scope, "poolHandedOver") else { return false };
    v8::scope!(let scope, scope);
    let function = v8::Local::new(scope, function);
    let ticket = v8::Number::new(scope, f64::from(ticket)).into();
    let outcome = v8::Integer::new(scope, outcome as i32).into();
    engine::call_or_fail(scope, function, &[ticket, outcome]);
    checkpoint(scope)
}

/// Serves a request that another worker has handed over, and whatever comes behind it. Whether this worker takes it.
pub fn take_over(scope: Scope<'_, '_, '_>, connection: OwnedFd, bytes: Vec<u8>, hops: u8) -> bool {
    let server = server::get(scope);
    server.tick();
    let goes = server.draining || server.supervised.is_retiring;
    if goes || bytes.is_empty() || bytes.len() > MAX_LEFTOVER_BYTES {
        return false;
    }
    let Ok(place) = admit(scope, connection) else { return false };
    let server = server::get(scope);
    if let Some(client) = server.client(place) {
        client.leftover = bytes;
        client.next_hops = hops;
    }
    server.kick(place);
    server.show_gauges();
    true
}
