//! What a supervisor changes: connections that come and go between requests, limits of concurrency and of
//! requests, the gauges.
//!
//! A connection is **between two requests** when its machine is idle, nothing of it is read and nothing is left to
//! send. Only such a connection moves to another worker; what its client sends meanwhile waits in the socket.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use super::gates::{accept_from, close_gates, open_gates};
use super::ops;
use super::serve::{admit, close, drain, pump};
use super::server::{self, Client, Gate, RequestId, Server, set_no_delay};
use crate::engine::gauges::{self, Gauge};
use crate::engine::stdio;
use crate::event_loop::{self, Action};
use crate::worker::{Listener, supervised};

/// The supervisor's queue was full: try again after this time.
const GIVE_BACK_RETRY_MS: u64 = 2;

/// A supervisor that takes nothing for so long is dead or stuck: idle connections are closed instead.
const GIVE_BACK_TIMEOUT_MS: u64 = 2_000;

/// Counts and wishes beside the connections.
#[derive(Debug, Default)]
pub(super) struct Supervised {
    /// Somebody looks at the gauges.
    pub is_watched: bool,
    /// Requests dispatched.
    pub requests: u64,
    /// Requests that are not answered yet.
    pub in_flight: usize,
    /// The listeners rest, because as many requests as allowed are in flight.
    pub is_saturated: bool,
    /// Connections whose next request waits for one in flight to end.
    pub waiting: std::collections::VecDeque<usize>,
    /// Connections to give back as soon as they are between two requests.
    pub to_shed: u32,
    /// The worker ends when its last connection has gone.
    pub is_retiring: bool,
    /// The worker is to retire after what it does now.
    pub retire_next: bool,
    /// Retiring, it gives its connections back.
    pub gives_back: bool,
    /// Until when it tries to.
    pub gives_back_until_ms: u64,
    /// The difference between the server's clock and `CLOCK_MONOTONIC`, in milliseconds.
    pub clock_offset_ms: u64,
    /// Every connection ends with its next answer.
    pub is_disposable: bool,
}

impl Server {
    /// Whether a client's next request has to wait.
    pub fn must_wait(&self, place: usize) -> bool {
        let limit = self.options.max_in_flight;
        (self.is_held || (limit != 0 && self.supervised.in_flight >= limit))
            && self.places[place].client.as_ref().is_some_and(|client| client.machine.is_idle())
    }

    /// A request is dispatched.
    pub fn count_begin(&mut self, place: usize) {
        let supervised = &mut self.supervised;
        supervised.requests += 1;
        let limit = self.options.max_requests;
        if limit != 0 && supervised.requests >= limit {
            supervised.retire_next = true;
        }
        let ends = supervised.is_disposable;
        let Some(client) = self.places[place].client.as_mut() else { return };
        if ends {
            client.machine.forbid_keep_alive();
        }
        if !std::mem::replace(&mut client.is_counted, true) {
            self.supervised.in_flight += 1;
        }
    }

    /// If the request of this place is over, it no longer counts.
    pub fn count_end(&mut self, place: usize) {
        let Some(client) = self.places[place].client.as_mut() else { return };
        if client.is_counted && !client.machine.in_exchange() {
            client.is_counted = false;
            self.supervised.in_flight -= 1;
        }
    }

    /// Shows the counts to whoever looks at the gauges.
    pub fn show_gauges(&self) {
        if !self.supervised.is_watched {
            return;
        }
        gauges::set(Gauge::Requests, self.supervised.requests);
        gauges::set(Gauge::InFlight, self.supervised.in_flight as u64);
        gauges::set(Gauge::Connections, self.open as u64);
        gauges::set(Gauge::ActiveMs, self.now_ms + self.supervised.clock_offset_ms);
    }
}

/// Begins to count for the gauges; the server's clock has just been set.
pub(super) fn watch(scope: &mut v8::PinScope<'_, '_>) {
    let is_watched = gauges::is_mapped();
    let server = server::get(scope);
    server.supervised.is_watched = is_watched;
    // A seed's warm-up is no traffic.
    server.supervised.requests = 0;
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now_ms =
        now.map_or(0, |now| now.tv_sec().unsigned_abs() * 1000 + now.tv_nsec().unsigned_abs() / 1_000_000);
    server.supervised.clock_offset_ms = now_ms.saturating_sub(server.now_ms);
    server.show_gauges();
    show_listeners(server);
}

fn show_listeners(server: &Server) {
    gauges::set_listeners(server.gates.iter().map(|gate| gate.listener.as_fd().as_raw_fd()));
}

/// What a dispatched request means for the supervisor.
pub(super) fn begin(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let server = server::get(scope);
    server.count_begin(place);
    if !server.supervised.is_watched {
        return;
    }
    if let Some(current) = &server.current {
        let bytes = &server.read_buffer[current.start..current.start + current.head.len];
        gauges::set_request(current.head.method.get(bytes), current.head.target.get(bytes));
    }
    server.show_gauges();
    if gauges::take_quiet() {
        supervised::tell(scope, supervised::tag::ACTIVE);
    }
}

/// After a client's turn: counts, limits, and whether the connection goes elsewhere. Whether it is gone.
pub(super) fn settle(scope: &mut v8::PinScope<'_, '_>, place: usize) -> bool {
    let server = server::get(scope);
    server.count_end(place);
    server.show_gauges();
    balance(scope);
    let wants = |server: &Server| server.supervised.to_shed > 0 || server.supervised.gives_back;
    if wants(server::get(scope)) {
        return give_back(scope, place);
    }
    false
}

/// Rests the listeners at the limit of concurrency, and opens them again below it.
pub(super) fn balance(scope: &mut v8::PinScope<'_, '_>) {
    let server = server::get(scope);
    let limit = server.options.max_in_flight;
    if std::mem::replace(&mut server.supervised.retire_next, false) {
        supervised::tell(scope, supervised::tag::DRAINS);
        event_loop::get(scope).tasks().push(Action { run: |scope, _| crate::worker::retire(scope), key: 0 });
    }
    if limit == 0 {
        return;
    }
    let server = server::get(scope);
    let is_full = server.supervised.in_flight >= limit;
    if !is_full
        && !server.is_held
        && let Some(place) = server.supervised.waiting.pop_front()
    {
        // Its turn ends here, too, and wakes the next.
        server.kick(place);
    }
    if is_full == server.supervised.is_saturated {
        return;
    }
    server.supervised.is_saturated = is_full;
    gauges::set(Gauge::Full, u64::from(is_full));
    if is_full {
        close_gates(scope);
        supervised::tell(scope, supervised::tag::FULL);
    } else {
        // A listener that cannot be registered rests until a client leaves.
        let _ = open_gates(scope);
        supervised::tell(scope, supervised::tag::VACANT);
    }
}

/// Gives this connection to the supervisor if it is between two requests. Whether it is gone.
fn give_back(scope: &mut v8::PinScope<'_, '_>, place: usize) -> bool {
    let server = server::get(scope);
    let Some(client) = server.client(place) else { return true };
    let is_between = client.machine.is_idle()
        && client.leftover.is_empty()
        && client.out.is_empty()
        && !client.peer_closed
        && !client.broken
        && !client.lingering
        && !client.machine.is_closing();
    let Some(transport) = client.transport.as_ref().filter(|_| is_between) else { return false };
    let Ok(connection) = transport.fd.try_clone() else { return false };
    if !supervised::give_back(scope, connection.as_fd()) {
        return false;
    }
    let supervised = &mut server::get(scope).supervised;
    supervised.to_shed = supervised.to_shed.saturating_sub(1);
    close(scope, place);
    true
}

/// Serves a connection that somebody else has accepted.
pub fn adopt(scope: &mut v8::PinScope<'_, '_>, connection: OwnedFd) {
    server::get(scope).tick();
    // One that cannot be taken is closed: its client sees the end, as of any server that is full.
    let _ = admit(scope, connection);
    server::get(scope).show_gauges();
}

/// Serves this last connection, perhaps for one request only.
pub fn adopt_last(scope: &mut v8::PinScope<'_, '_>, connection: OwnedFd, one_request: bool) {
    let server = server::get(scope);
    server.supervised.is_disposable = one_request;
    server.supervised.is_retiring = true;
    adopt(scope, connection);
}

/// Accepts on one listener more.
pub fn listen(scope: &mut v8::PinScope<'_, '_>, number: u32, listener: Listener) {
    let server = server::get(scope);
    if server.draining
        || server.supervised.is_retiring
        || server.gates.iter().any(|gate| gate.number == number)
    {
        return;
    }
    set_no_delay(&listener);
    server.gates.push(Gate { number, listener, token: None });
    show_listeners(server);
    // A listener that cannot be registered rests until a client leaves.
    let _ = open_gates(scope);
}

/// Accepts no longer on a listener.
pub fn unlisten(scope: &mut v8::PinScope<'_, '_>, number: u32) {
    let server = server::get(scope);
    let Some(index) = server.gates.iter().position(|gate| gate.number == number) else { return };
    if let Some(token) = server.gates[index].token.take() {
        let gate = server.gates.swap_remove(index);
        event_loop::get(scope).reactor().deregister(token, gate.listener.as_fd());
        server::get(scope).gates.push(gate);
        accept_from(scope, u64::from(number));
    }
    let server = server::get(scope);
    server.gates.retain(|gate| gate.number != number);
    show_listeners(server);
}

/// Looks at every listener. The kernel wakes one of those who wait for a connection; if that one has just stopped
/// accepting, nobody else hears of it.
pub fn poke(scope: &mut v8::PinScope<'_, '_>) {
    server::get(scope).tick();
    let open = server::get(scope).gates.iter().filter(|gate| gate.token.is_some());
    let numbers: Vec<u64> = open.map(|gate| u64::from(gate.number)).collect();
    numbers.into_iter().for_each(|number| accept_from(scope, number));
}

/// Gives connections back: those between two requests now, others as soon as they are.
pub fn shed(scope: &mut v8::PinScope<'_, '_>, count: u32) {
    let server = server::get(scope);
    server.supervised.to_shed = count.min(u32::try_from(server.open).unwrap_or(u32::MAX));
    for place in 0..server::get(scope).places.len() {
        if server::get(scope).supervised.to_shed == 0 {
            return;
        }
        if server::get(scope).client(place).is_some() {
            give_back(scope, place);
        }
    }
}

/// Accepts no longer and gives every connection back as soon as it is between two requests.
pub fn retire(scope: &mut v8::PinScope<'_, '_>) {
    let server = server::get(scope);
    server.tick();
    let was_told = std::mem::replace(&mut server.supervised.is_retiring, true);
    let accepted: Vec<u64> =
        server.gates.iter().filter(|gate| gate.token.is_some()).map(|gate| u64::from(gate.number)).collect();
    close_gates(scope);
    // A connection that this worker was woken for wakes nobody else: it is taken, and given back like the others.
    accepted.into_iter().for_each(|number| accept_from(scope, number));
    server::get(scope).gates.clear();
    if was_told {
        return;
    }
    if !supervised::exists(scope) {
        return drain(scope);
    }
    let server = server::get(scope);
    server.supervised.gives_back = true;
    server.supervised.gives_back_until_ms = server.now_ms + GIVE_BACK_TIMEOUT_MS;
    give_all_back(scope, 0);
}

/// Before [`retire`]: nobody takes connections. What clients have sent is answered, and each answer is the last of its
/// connection.
pub fn finish(scope: &mut v8::PinScope<'_, '_>) {
    let server = server::get(scope);
    server.tick();
    server.supervised.is_retiring = true;
    server.supervised.is_disposable = true;
    close_gates(scope);
    for place in 0..server::get(scope).places.len() {
        let server = server::get(scope);
        let must_wait = server.must_wait(place);
        let Some(client) = server.client(place) else { continue };
        client.machine.forbid_keep_alive();
        if !client.machine.is_idle() || (must_wait && has_input(client)) {
            continue;
        }
        // A request that is on its way already is answered.
        client.readable = client.transport.is_some();
        pump(scope, place);
        let is_silent = |client: &mut Client| client.machine.is_idle() && client.leftover.is_empty();
        if server::get(scope).client(place).is_some_and(is_silent) {
            close(scope, place);
        }
    }
}

/// Whether the client has sent something that nobody has read yet.
fn has_input(client: &Client) -> bool {
    let Some(transport) = &client.transport else { return false };
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !client.leftover.is_empty() || matches!(recv(transport.fd.as_raw_fd(), &mut [0], flags), Ok(1))
}

fn give_all_back(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    let mut left = 0;
    for place in 0..server::get(scope).places.len() {
        let is_idle = server::get(scope).client(place).is_some_and(|client| client.machine.is_idle());
        if is_idle && !give_back(scope, place) {
            left += 1;
        }
    }
    if left == 0 {
        return;
    }
    let server = server::get(scope);
    server.tick();
    if server.now_ms > server.supervised.gives_back_until_ms {
        // Nobody takes them.
        server.supervised.gives_back = false;
        return drain(scope);
    }
    let retry = Action { run: give_all_back, key: 0 };
    event_loop::get(scope).timers().arm(Duration::from_millis(GIVE_BACK_RETRY_MS), retry);
}

/// The watchdog has interrupted the script: the request at work, or all in flight if none is, gets a 504, and the
/// worker, whose state nobody knows any more, retires.
pub fn interrupted(scope: &mut v8::PinScope<'_, '_>) {
    let at_work = server::get(scope).current.as_ref().map(|current| current.id);
    interrupted_at(scope, at_work);
}

/// As [`interrupted`], when the request is known.
pub(super) fn interrupted_at(scope: &mut v8::PinScope<'_, '_>, at_work: Option<RequestId>) {
    let server = server::get(scope);
    let limit = server.options.request_timeout_ms;
    let request = String::from_utf8_lossy(gauges::request()).into_owned();
    let text = format!("interrupted: the script did not yield for {limit} ms, at work on {request}\n");
    gauges::last_words(&[text.trim_end().as_bytes()]);
    gauges::add(Gauge::Interrupted, 1);
    stdio::write_all(libc::STDERR_FILENO, text.as_bytes());
    let hit: Vec<RequestId> = match at_work {
        Some(id) => vec![id],
        None => {
            let in_flight = |place: &usize| {
                server.places[*place].client.as_ref().is_some_and(|client| client.machine.may_respond())
            };
            (0..server.places.len()).filter(in_flight).map(|place| server.request_at(place)).collect()
        }
    };
    for id in hit {
        gauges::add(Gauge::Failures, 1);
        ops::fail_request(scope, id, 504);
    }
    server::get(scope).supervised.retire_next = true;
    balance(scope);
}
