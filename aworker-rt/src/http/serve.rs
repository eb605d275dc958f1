//! The server on the event loop: moving bytes between sockets and
//! connections, calling the built-ins, deadlines, drain.
//!
//! Connections are registered once, edge-triggered in both directions: a small
//! request on a kept connection costs one wait, one receive and one send. What a
//! client is not asked for stays in its socket, and TCP makes it wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::{Advance, Event};
use super::gates::{close_gates, open_gates};
use super::head::Head;
use super::limits::{HEAD_TIMEOUT_MS, MAX_PIPELINED_PER_TURN};
use super::server::{
    self, BodyKind, Callbacks, Client, Current, Demand, Gate, RequestId, ServerOptions, Transport,
    set_no_delay,
};
use super::upgrade::{self, Upgrade};
use super::{handover, ops, slow, supervised, target};
use crate::engine::{self, exceptions, stdio, watchdog};
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready};
use crate::net::websocket;
use crate::worker::Listener;

/// Serves on these listeners until [`drain`].
///
/// # Errors
/// A listener cannot be registered with the event loop.
pub fn serve(
    scope: &mut v8::PinScope<'_, '_>,
    listeners: Vec<Listener>,
    options: ServerOptions,
) -> io::Result<()> {
    set_up(scope);
    let server = server::get(scope);
    server.options = options;
    // A seed's warm-up may have used another clock.
    server.epoch = Instant::now();
    server.tick();
    server.date.reset();
    for (number, listener) in (0..).zip(listeners) {
        set_no_delay(&listener);
        server.gates.push(Gate { number, listener, token: None });
    }
    supervised::watch(scope);
    slow::start(scope);
    open_gates(scope)
}

/// Finds the built-ins' entry points and joins the loop, once.
fn set_up(scope: &mut v8::PinScope<'_, '_>) {
    if server::get(scope).callbacks.is_none() {
        let mut find = |name: &str| {
            engine::callback(scope, name).unwrap_or_else(|| panic!("the built-ins define callbacks.{name}"))
        };
        let callbacks = Callbacks {
            dispatch: find("httpDispatch"),
            body_chunk: find("httpBodyChunk"),
            body_whole: find("httpBodyWhole"),
            body_failed: find("httpBodyFailed"),
            drained: find("httpDrained"),
            gone: find("httpGone"),
        };
        server::get(scope).callbacks = Some(Rc::new(callbacks));
    }
    if !std::mem::replace(&mut server::get(scope).is_set_up, true) {
        event_loop::get(scope).before_sleep(Action { run: run_kicked, key: 0 });
    }
}

/// Begins to serve a connection; its place.
///
/// # Errors
/// The server is full, or the connection cannot be watched; it is closed then.
pub(super) fn admit(scope: &mut v8::PinScope<'_, '_>, fd: OwnedFd) -> io::Result<usize> {
    let Some(place) = server::get(scope).take_place() else {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    };
    let interest = Interest::READ.and(Interest::WRITE).and(Interest::EDGE);
    let reactor = event_loop::get(scope).reactor();
    let registered = reactor.register(fd.as_fd(), interest, Life::KeepsAlive, on_client, place as u64);
    let server = server::get(scope);
    let token = match registered {
        Ok(token) => token,
        Err(error) => {
            server.leave_place(place);
            return Err(error);
        }
    };
    let deadline = server.now_ms.saturating_add(server.options.idle_timeout_ms);
    server.places[place].client = Some(Client::new(Some(Transport { fd, token }), deadline));
    arm_sweep(scope, deadline);
    Ok(place)
}

fn on_client(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    #[allow(clippy::cast_possible_truncation)]
    let place = ready.key as usize;
    if handover::is_away(scope, place) {
        return Checkpoint::Done;
    }
    let server = server::get(scope);
    server.tick();
    let Some(client) = server.client(place) else { return Checkpoint::Done };
    client.readable |= ready.readable();
    client.peer_closed |= ready.peer_closed();
    client.broken |= ready.broken();
    let has_output = !client.out.is_empty();
    if has_output && ready.writable() {
        flush(scope, place);
    }
    pump(scope, place);
    Checkpoint::Done
}

/// Gives every kicked client a turn; an action of the loop before it sleeps.
fn run_kicked(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    if server::get(scope).kicked.is_empty() {
        return;
    }
    server::get(scope).tick();
    // What is kicked by these turns has its turn after the next look at the sockets.
    for place in std::mem::take(&mut server::get(scope).kicked) {
        server::get(scope).places[place].is_kicked = false;
        flush(scope, place);
        pump(scope, place);
    }
    if !server::get(scope).kicked.is_empty() {
        event_loop::get(scope).tasks().push(Action { run: |_, _| {}, key: 0 });
    }
}

/// Reads and processes what a client has sent, then sends what was answered.
pub(super) fn pump(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    if handover::is_away(scope, place) {
        return;
    }
    server::get(scope).pumping = Some(place);
    let mut requests = 0;
    while requests < MAX_PIPELINED_PER_TURN {
        if server::get(scope).must_wait(place) {
            server::get(scope).supervised.waiting.push_back(place);
            break;
        }
        let Some(len) = server::get(scope).fill(place) else { break };
        requests += process(scope, place, len, MAX_PIPELINED_PER_TURN - requests);
    }
    server::get(scope).pumping = None;
    flush(scope, place);
    if upgrade::hand_over(scope, place) || supervised::settle(scope, place) || handover::proceed(scope, place)
    {
        return;
    }
    let server = server::get(scope);
    server.choose_deadline(place);
    let is_held = server.is_held;
    let Some(client) = server.client(place) else { return };
    let deadline = client.deadline_ms;
    let has_input = client.readable || (!client.leftover.is_empty() && !client.leftover_is_partial);
    // What is held has its turn when the worker goes on.
    let again = has_input && client.machine.is_hungry() && !client.lingering && !is_held;
    let gone = client.broken || client.peer_closed;
    // A client that has shut down its side may still read an answer that comes
    // whole; but a stream to nobody would never end, and its body never comes.
    let hopeless = client.broken || client.machine.is_responding() || client.machine.is_hungry();
    if gone && client.machine.in_exchange() {
        tell_gone(scope, place);
        if hopeless {
            return close(scope, place);
        }
    }
    let server = server::get(scope);
    let Some(client) = server.client(place) else { return };
    if client.is_over() {
        return close(scope, place);
    }
    if again {
        server.kick(place);
    }
    if deadline != u64::MAX {
        arm_sweep(scope, deadline);
    }
}

/// Processes the first `len` bytes of the read buffer; the number of requests
/// among them.
fn process(scope: &mut v8::PinScope<'_, '_>, place: usize, len: usize, most: usize) -> usize {
    let mut at = 0;
    let mut requests = 0;
    let mut is_partial = false;
    loop {
        let server = server::get(scope);
        let max_body = server.options.max_body_bytes;
        let Some(client) = server.places[place].client.as_mut() else { return requests };
        let start = at;
        let Advance { consumed, event } =
            client.machine.advance(&server.read_buffer[start..len], &mut server.headers, max_body);
        at += consumed;
        match event {
            Event::NeedInput => {
                is_partial = true;
                break;
            }
            Event::Hold => break,
            Event::Ignore => {
                at = len;
                break;
            }
            Event::Request(head) => {
                requests += 1;
                dispatch(scope, place, start, head);
                if requests == most {
                    break;
                }
            }
            Event::Data(range) => {
                let (from, to) = (start + range.start, start + range.end);
                client.progress += (to - from) as u64;
                client.body.extend_from_slice(&server.read_buffer[from..to]);
            }
            Event::BodyEnd => deliver_end(scope, place),
            Event::BodyFailed(status) => fail_body(scope, place, status),
            Event::Refuse(status) => refuse(scope, place, status),
        }
    }
    let server = server::get(scope);
    let Some(client) = server.places[place].client.as_mut() else { return requests };
    client.leftover_is_partial = is_partial && at < len;
    if at < len {
        client.leftover = server.read_buffer[at..len].to_vec();
        if is_partial && client.machine.is_idle() {
            // The first bytes of a head start its time; later ones do not renew it.
            let patience = HEAD_TIMEOUT_MS.min(server.options.request_timeout_ms);
            client.deadline_ms = client.deadline_ms.min(server.now_ms + patience);
        }
    }
    if client.demand == Demand::Chunk && !client.body.is_empty() {
        deliver_chunk(scope, place);
    }
    requests
}

/// Hands a request to the built-ins.
fn dispatch(scope: &mut v8::PinScope<'_, '_>, place: usize, start: usize, head: Head) {
    let server = server::get(scope);
    if server.draining {
        return refuse(scope, place, 503);
    }
    let bytes = &server.read_buffer[start..start + head.len];
    let (host, _) = target::host_and_path(&head, bytes);
    if server.origins.get(host).is_none() {
        return refuse(scope, place, 400);
    }
    let deadline = server.now_ms.saturating_add(server.options.request_timeout_ms);
    server.places[place].sequence += 1;
    let id = server.request_at(place);
    let bytes = &server.read_buffer[start..start + head.len];
    let upgrade = upgrade::possible(&head, bytes, &server.headers);
    let Some(client) = server.client(place) else { return };
    client.upgrade = upgrade;
    client.deadline_ms = deadline;
    client.demand = Demand::None;
    client.told_gone = false;
    client.progress = 0;
    client.body_asked_for = false;
    client.hops = std::mem::take(&mut client.next_hops);
    server.current = Some(Current { id, start, head });
    supervised::begin(scope, place);
    engine::enter_request(scope);
    call_dispatch(scope, id);
    engine::leave_request(scope);
    server::get(scope).current = None;
    checkpoint(scope);
    if watchdog::take_interruption() {
        supervised::interrupted_at(scope, Some(id));
    }
    slow::after_dispatch(scope, id);
}

fn call_dispatch(scope: &mut v8::PinScope<'_, '_>, id: RequestId) {
    let Some(callbacks) = server::get(scope).callbacks.clone() else { return };
    v8::scope!(let scope, scope);
    v8::tc_scope!(let scope, scope);
    let function = v8::Local::new(scope, &callbacks.dispatch);
    let receiver = v8::undefined(scope).into();
    let number = v8::Number::new(scope, id.to_number()).into();
    match function.call(scope, receiver, &[number]) {
        // The common answer: 200, a string, no header fields of the handler.
        Some(value) if value.is_string() => ops::respond_with_text(scope, id, value.cast()),
        Some(_) => {}
        // The watchdog's: answered by the caller.
        None if scope.has_terminated() => {}
        None => {
            let error = exceptions::caught(scope);
            stdio::write_all(2, format!("{error}\n").as_bytes());
            scope.reset();
            ops::fail_request(scope, id, 500);
        }
    }
}

/// Runs microtasks. What is rejected meanwhile without a handler belongs to
/// requests: it is logged, and the worker lives. Whether there was something.
pub(super) fn checkpoint(scope: &mut v8::PinScope<'_, '_>) -> bool {
    let failed = event_loop::checkpoint(scope);
    if let Err(error) = &failed {
        stdio::write_all(2, format!("{error}\n").as_bytes());
    }
    failed.is_err()
}

/// Calls a function of the built-ins for a request, and the microtasks after it.
fn notify(
    scope: &mut v8::PinScope<'_, '_>,
    select: fn(&Callbacks) -> &v8::Global<v8::Function>,
    id: RequestId,
    arguments: impl for<'s> FnOnce(&mut v8::PinScope<'s, '_>) -> [v8::Local<'s, v8::Value>; 2],
) {
    let Some(callbacks) = server::get(scope).callbacks.clone() else { return };
    {
        v8::scope!(let scope, scope);
        let function = v8::Local::new(scope, select(&callbacks));
        let number = v8::Number::new(scope, id.to_number()).into();
        let [first, second] = arguments(scope);
        engine::enter_request(scope);
        engine::call_or_fail(scope, function, &[number, first, second]);
        engine::leave_request(scope);
    }
    checkpoint(scope);
}

/// Gives a stream of the body what has come, and holds further input.
fn deliver_chunk(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let server = server::get(scope);
    let id = server.request_at(place);
    let Some(client) = server.client(place) else { return };
    client.machine.hold_body();
    client.demand = Demand::None;
    let bytes = std::mem::take(&mut client.body);
    notify(
        scope,
        |c| &c.body_chunk,
        id,
        |scope| [ops::uint8_array(scope, bytes).into(), v8::Boolean::new(scope, false).into()],
    );
}

/// The body is complete.
fn deliver_end(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let server = server::get(scope);
    let id = server.request_at(place);
    let deadline = server.now_ms.saturating_add(server.options.request_timeout_ms);
    let Some(client) = server.client(place) else { return };
    if client.machine.may_respond() {
        client.deadline_ms = deadline;
    }
    let demand = std::mem::replace(&mut client.demand, Demand::None);
    let bytes = std::mem::take(&mut client.body);
    match demand {
        Demand::None => {}
        Demand::Chunk => notify(
            scope,
            |c| &c.body_chunk,
            id,
            |scope| {
                let chunk = match bytes.is_empty() {
                    true => v8::undefined(scope).into(),
                    false => ops::uint8_array(scope, bytes).into(),
                };
                [chunk, v8::Boolean::new(scope, true).into()]
            },
        ),
        Demand::Whole(kind) => notify(
            scope,
            |c| &c.body_whole,
            id,
            |scope| {
                let value = match kind {
                    BodyKind::Text => ops::decode_utf8(scope, &bytes),
                    BodyKind::Bytes => ops::uint8_array(scope, bytes).into(),
                };
                [value, v8::undefined(scope).into()]
            },
        ),
    }
}

/// The body is broken or too long: the reader gets an error, the client the
/// status unless a response has begun.
fn fail_body(scope: &mut v8::PinScope<'_, '_>, place: usize, status: u16) {
    let server = server::get(scope);
    let id = server.request_at(place);
    let Some(client) = server.client(place) else { return };
    client.demand = Demand::None;
    client.body = Vec::new();
    let may_respond = client.machine.may_respond();
    if may_respond {
        refuse(scope, place, status);
    }
    let text =
        if status == 413 { "the request's body is too large" } else { "the request's body is malformed" };
    notify(
        scope,
        |c| &c.body_failed,
        id,
        |scope| [engine::conversions::string(scope, text).into(), v8::undefined(scope).into()],
    );
}

/// Answers with an error of the server's own.
fn refuse(scope: &mut v8::PinScope<'_, '_>, place: usize, status: u16) {
    let server = server::get(scope);
    let now = server.now_ms;
    let date = *server.date.get(now);
    server.out(place);
    let Some(client) = server.client(place) else { return };
    client.fate = client.machine.refuse(&mut client.out, status, &date);
}

/// Sends output; a stream's source that waited for it goes on.
fn flush(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let server = server::get(scope);
    if !server.flush(place) {
        return;
    }
    let id = server.request_at(place);
    let Some(client) = server.client(place) else { return };
    if std::mem::replace(&mut client.source_waits, false) {
        notify(scope, |c| &c.drained, id, |scope| [v8::undefined(scope).into(), v8::undefined(scope).into()]);
    }
}

/// Tells the built-ins that nobody waits for this response any more.
fn tell_gone(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let server = server::get(scope);
    let id = server.request_at(place);
    let Some(client) = server.client(place) else { return };
    if std::mem::replace(&mut client.told_gone, true) {
        return;
    }
    call_gone(scope, id);
}

fn call_gone(scope: &mut v8::PinScope<'_, '_>, id: RequestId) {
    notify(scope, |c| &c.gone, id, |scope| [v8::undefined(scope).into(), v8::undefined(scope).into()]);
}

/// Forgets a client.
pub(super) fn close(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    let id = server::get(scope).request_at(place);
    let Some(mut client) = release(scope, place) else { return };
    if let Some(transport) = &client.transport {
        event_loop::get(scope).reactor().deregister(transport.token, transport.fd.as_fd());
    }
    server::get(scope).show_gauges();
    if let Some(Upgrade::Begun { socket, .. }) = client.upgrade.as_deref() {
        websocket::ops::abandon(scope, *socket);
    }
    let unanswered = client.machine.in_exchange() && !client.told_gone;
    let handing = client.handing.take();
    drop(client);
    if let Some(handing) = handing {
        handover::give_up(scope, &handing);
    }
    if unanswered {
        call_gone(scope, id);
    }
}

/// Takes a client out of the server; its place can be taken by another.
pub(super) fn release(scope: &mut v8::PinScope<'_, '_>, place: usize) -> Option<Client> {
    let server = server::get(scope);
    let was_full = std::mem::replace(&mut server.is_full, false);
    let client = server.leave_place(place)?;
    if was_full {
        // A listener that cannot be registered rests until the next client leaves.
        let _ = open_gates(scope);
    }
    Some(client)
}

/// Makes sure that the loop looks at the deadlines at `deadline_ms`.
pub(super) fn arm_sweep(scope: &mut v8::PinScope<'_, '_>, deadline_ms: u64) {
    let server = server::get(scope);
    let armed = server.sweep;
    if armed.is_some_and(|(_, at)| at <= deadline_ms) {
        return;
    }
    let delay = Duration::from_millis(deadline_ms.saturating_sub(server.now_ms).max(1));
    let timers = event_loop::get(scope).timers();
    if let Some((timer, _)) = armed {
        timers.cancel(timer);
    }
    let timer = timers.arm(delay, Action { run: sweep, key: 0 });
    server::get(scope).sweep = Some((timer, deadline_ms));
}

/// Ends what has taken too long. One timer serves all clients: it is armed for
/// the earliest deadline there was when it was armed.
fn sweep(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    let server = server::get(scope);
    server.sweep = None;
    server.tick();
    let now = server.now_ms;
    for place in 0..server::get(scope).places.len() {
        if server::get(scope).client(place).is_some_and(|client| client.deadline_ms <= now) {
            expire(scope, place);
        }
    }
    if let Some(deadline) = server::get(scope).next_deadline() {
        arm_sweep(scope, deadline);
    }
}

/// The time of what a client is waited for is over.
fn expire(scope: &mut v8::PinScope<'_, '_>, place: usize) {
    if handover::is_away(scope, place) {
        return close(scope, place);
    }
    let Some(client) = server::get(scope).client(place) else { return };
    let machine = &client.machine;
    let status = match () {
        () if client.lingering || client.unsent() > 0 || machine.is_responding() => None,
        () if machine.may_respond() && machine.is_hungry() => Some(408),
        () if machine.may_respond() => Some(504),
        () if machine.is_idle() && !client.leftover.is_empty() => Some(408),
        () => None,
    };
    let Some(status) = status else { return close(scope, place) };
    let answered = client.machine.in_exchange();
    refuse(scope, place, status);
    if answered {
        let id = server::get(scope).request_at(place);
        call_gone(scope, id);
    }
    flush(scope, place);
    if server::get(scope).client(place).is_some_and(|client| client.is_over()) {
        close(scope, place);
    }
}

/// Gives up room that is not needed now; between two turns of clients.
pub fn shrink(scope: &mut v8::PinScope<'_, '_>) {
    server::get(scope).shrink();
}

/// Stops accepting, closes idle connections, and lets the others finish what
/// they have begun: every further response closes its connection, a further
/// request is answered with 503.
pub fn drain(scope: &mut v8::PinScope<'_, '_>) {
    let server = server::get(scope);
    if std::mem::replace(&mut server.draining, true) {
        return;
    }
    server.tick();
    close_gates(scope);
    server::get(scope).gates.clear();
    for place in 0..server::get(scope).places.len() {
        let Some(client) = server::get(scope).client(place) else { continue };
        client.machine.forbid_keep_alive();
        if !client.machine.is_idle() {
            continue;
        }
        // A request that is on its way already gets its 503.
        client.readable = client.transport.is_some();
        pump(scope, place);
        let idle = |client: &mut Client| client.machine.is_idle() && client.leftover.is_empty();
        if server::get(scope).client(place).is_some_and(idle) {
            close(scope, place);
        }
    }
}

/// Which handlers of the built-ins' own answer during a warm-up (`httpWarmUp` in `74_fetch_event.js`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// Three modules. A program's listeners are not called.
    Modules,
    /// The same, and a listener of `fetch` beside those of the program, of which there must be none.
    WithListener,
}

/// Sends requests without a socket through parser, built-ins and serialiser,
/// so that clones of a seed share what V8 compiles for them.
pub fn warm_up(scope: &mut v8::PinScope<'_, '_>, rounds: usize, kinds: WarmUp) {
    const REQUEST: &[u8] = b"GET /warm/up?a=b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n\
        User-Agent: warm-up\r\n\r\n";
    let Some(toggle) = engine::callback(scope, "httpWarmUp") else { return };
    set_up(scope);
    let kinds = match kinds {
        WarmUp::Modules => 0..3,
        WarmUp::WithListener => 0..4,
    };
    for kind in kinds {
        call_toggle(scope, &toggle, kind);
        for _ in 0..rounds {
            v8::scope!(let scope, scope);
            send_synthetic(scope, REQUEST);
        }
    }
    call_toggle(scope, &toggle, -1);
    // Empties the list of clients that were kicked after their end.
    run_kicked(scope, 0);
}

fn call_toggle(scope: &mut v8::PinScope<'_, '_>, toggle: &v8::Global<v8::Function>, kind: i32) {
    v8::scope!(let scope, scope);
    let function = v8::Local::new(scope, toggle);
    let kind = v8::Integer::new(scope, kind).into();
    engine::call_or_fail(scope, function, &[kind]);
}

fn send_synthetic(scope: &mut v8::PinScope<'_, '_>, request: &[u8]) {
    let server = server::get(scope);
    let Some(place) = server.take_place() else { return };
    server.places[place].client = Some(Client::new(None, u64::MAX));
    server.make_read_buffer();
    server.read_buffer[..request.len()].copy_from_slice(request);
    server.pumping = Some(place);
    process(scope, place, request.len(), 1);
    server::get(scope).pumping = None;
    flush(scope, place);
    close(scope, place);
}
