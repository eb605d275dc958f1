//! Listeners of a worker in a pool: which it accepts on, and their way to another worker.
//!
//! ```text
//!   'l'  worker -> supervisor    u32 ticket, u32 the listener's number, bytes: the id of the worker it goes to, none for any
//!   'B'  supervisor -> worker    u32 ticket, u8: an outcome
//! ```
//!
//! The supervisor has every socket open: it sends its own to the other worker ('L'), and tells this one to let go ('U').

use std::os::fd::AsFd;

use super::handover::Outcome;
use super::supervised::{self, tag};
use crate::engine::{channel, conversions};
use crate::http;

/// Why a listener cannot be handed over: what `ops.pool_hand_listener` answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// This worker is in no pool.
    NoPool = -1,
    /// It does not accept there.
    NotMine = -2,
    /// The supervisor does not read.
    NoRoom = -3,
}

/// `ops.pool_listeners()`: number, address, number, address, and so on.
pub(crate) fn pool_listeners(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut values: Vec<v8::Local<'_, v8::Value>> = Vec::new();
    if supervised::exists(scope) {
        for (number, address) in http::listeners(scope) {
            values.push(v8::Integer::new_from_unsigned(scope, number).into());
            values.push(conversions::string(scope, &address).into());
        }
    }
    result.set(v8::Array::new_with_elements(scope, &values).into());
}

/// `ops.pool_hand_listener(number, to)`: asks the supervisor. A ticket above zero, for `callbacks.poolHandedOver`; or an [`Answer`].
pub(crate) fn pool_hand_listener(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let number = arguments.get(0).uint32_value(scope).unwrap_or(u32::MAX);
    let to = arguments.get(1).to_rust_string_lossy(scope);
    match ask(scope, number, &to) {
        Ok(ticket) => result.set_double(f64::from(ticket)),
        Err(answer) => result.set_int32(answer as i32),
    }
}

fn ask(scope: &mut v8::PinScope<'_, '_>, number: u32, to: &str) -> Result<u32, Answer> {
    let socket = supervised::socket(scope).ok_or(Answer::NoPool)?;
    if !http::listeners(scope).iter().any(|(mine, _)| *mine == number) {
        return Err(Answer::NotMine);
    }
    let ticket = http::next_ticket(scope);
    let head = [&[tag::HAND_LISTENER][..], &ticket.to_le_bytes(), &number.to_le_bytes()].concat();
    let is_sent = channel::is_writable(socket.as_fd())
        && channel::send(socket.as_fd(), &[&head, to.as_bytes()], &[]).is_ok();
    is_sent.then_some(ticket).ok_or(Answer::NoRoom)
}

/// The supervisor tells what became of a listener.
pub(super) fn told(scope: &mut v8::PinScope<'_, '_>, packet: &[u8]) {
    let Some((ticket, [outcome])) = packet.split_first_chunk::<4>() else { return };
    http::settle_handover(scope, u32::from_le_bytes(*ticket), Outcome::of(*outcome));
}
