//! Listeners on the event loop, and whose turn it is to accept.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::limits::{
    ACCEPT_BACKOFF_MS, ACCEPT_BATCH, CONNECTIONS_OF_THE_FIRST, MAX_CONNECTIONS, SHARED_ACCEPT_BATCH,
};
use super::serve::admit;
use super::server::{self, is_exhaustion};
use crate::engine::accept;
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready};

/// Registers every listener that rests, unless the worker takes no connections now.
pub(super) fn open_gates(scope: &mut v8::PinScope<'_, '_>) -> io::Result<()> {
    let server = server::get(scope);
    if server.draining || server.is_held || server.supervised.is_retiring || server.supervised.is_saturated {
        return Ok(());
    }
    let mut gates = std::mem::take(&mut server.gates);
    let reactor = event_loop::get(scope).reactor();
    let mut result = Ok(());
    for gate in gates.iter_mut().filter(|gate| gate.token.is_none()) {
        let fd = gate.listener.as_fd();
        let key = u64::from(gate.number);
        match reactor.register(fd, Interest::EXCLUSIVE, Life::KeepsAlive, on_listener, key) {
            Ok(token) => gate.token = Some(token),
            Err(error) => {
                let address = gate.listener.address();
                result =
                    Err(io::Error::new(error.kind(), format!("wait for connections on {address}: {error}")));
            }
        }
    }
    server::get(scope).gates = gates;
    result
}

/// The number and the address of each listener that the worker accepts on.
pub fn listeners(scope: &mut v8::PinScope<'_, '_>) -> Vec<(u32, String)> {
    let gates = server::get(scope).gates.iter();
    gates.map(|gate| (gate.number, gate.listener.address().to_string())).collect()
}

/// Stops waiting for connections; the listeners stay open.
pub(super) fn close_gates(scope: &mut v8::PinScope<'_, '_>) {
    let mut gates = std::mem::take(&mut server::get(scope).gates);
    let reactor = event_loop::get(scope).reactor();
    for gate in &mut gates {
        if let Some(token) = gate.token.take() {
            reactor.deregister(token, gate.listener.as_fd());
        }
    }
    server::get(scope).gates = gates;
}

fn on_listener(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    let server = server::get(scope);
    if !server.supervised.is_watched {
        accept_from(scope, ready.key);
        return Checkpoint::Done;
    }
    let before = server.open;
    accept_up_to(SHARED_ACCEPT_BATCH, scope, ready.key);
    if server::get(scope).open > before.max(CONNECTIONS_OF_THE_FIRST) {
        queue_up_again(scope, ready.key);
    }
    Checkpoint::Done
}

/// Takes what waits at the listener of this number, as much as one turn may.
pub(super) fn accept_from(scope: &mut v8::PinScope<'_, '_>, number: u64) {
    accept_up_to(ACCEPT_BATCH, scope, number);
}

fn accept_up_to(most: usize, scope: &mut v8::PinScope<'_, '_>, number: u64) {
    let server = server::get(scope);
    server.tick();
    let batch = match server.options.max_in_flight {
        0 => most,
        limit => limit.saturating_sub(server.supervised.in_flight).clamp(1, most),
    };
    for _ in 0..batch {
        let server = server::get(scope);
        if server.open == MAX_CONNECTIONS {
            server.is_full = true;
            close_gates(scope);
            break;
        }
        let Some(gate) = server.gates.iter().find(|gate| u64::from(gate.number) == number) else { break };
        match accept(gate.listener.as_fd()) {
            Ok(fd) => {
                if admit(scope, fd).is_err() {
                    rest(scope);
                    break;
                }
            }
            Err(error) => {
                if is_exhaustion(&error) {
                    rest(scope);
                }
                break;
            }
        }
    }
    server::get(scope).show_gauges();
}

/// Of the workers that wait for connections the kernel wakes the first that is not busy. Who has some and takes another goes to
/// the end of that queue, or one worker would have nearly all of them; the few of a quiet pool stay together, so that the other workers can
/// go. What came meanwhile is seen by the new registration.
fn queue_up_again(scope: &mut v8::PinScope<'_, '_>, number: u64) {
    let mut gates = std::mem::take(&mut server::get(scope).gates);
    let gate = gates.iter_mut().find(|gate| u64::from(gate.number) == number);
    let registered = gate.and_then(|gate| gate.token.take().map(|token| (gate, token)));
    let is_registered = registered.is_some();
    if let Some((gate, token)) = registered {
        event_loop::get(scope).reactor().deregister(token, gate.listener.as_fd());
    }
    server::get(scope).gates = gates;
    if is_registered && open_gates(scope).is_err() {
        rest(scope);
    }
}

/// Nothing can be accepted for want of descriptors or memory: try again later.
fn rest(scope: &mut v8::PinScope<'_, '_>) {
    close_gates(scope);
    let again = Action {
        run: |scope, _| {
            // A listener that cannot be registered rests until a client leaves.
            let _ = open_gates(scope);
        },
        key: 0,
    };
    event_loop::get(scope).timers().arm(Duration::from_millis(ACCEPT_BACKOFF_MS), again);
}
