//! The network's place in the event loop: its epoll descriptor is one more descriptor there, its
//! earliest deadline one native timer. What happened is told to `internals.callbacks.netEvent`.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

use nix::sys::epoll::Epoll;

use super::exchange::place;
use super::limits::CROWDED_COLLECTION_INTERVAL;
use super::{Event, Kind, Net, NetOptions};
use crate::engine;
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready, TimerId, Token};

/// The isolate's network, and how the loop knows it.
#[derive(Default)]
struct Driver {
    options: NetOptions,
    net: Option<Rc<Net>>,
    registered: Option<(Rc<Epoll>, Token, Life)>,
    armed: Option<(TimerId, Instant)>,
    is_turn_due: bool,
    callback: Option<v8::Global<v8::Function>>,
    /// What a seed had in flight: each worker hears that it failed.
    lost: Vec<Event>,
    /// The same for messages.
    lost_names: Vec<String>,
    next_id: u64,
    /// When garbage was looked for because requests waited.
    collected_at: Option<Instant>,
}

fn driver(isolate: &mut v8::Isolate) -> &mut Driver {
    if isolate.get_slot::<Driver>().is_none() {
        isolate.set_slot(Driver { next_id: 1, ..Driver::default() });
    }
    isolate.get_slot_mut::<Driver>().expect("set above")
}

/// The network; made at the first call.
pub(super) fn get(scope: &mut v8::PinScope<'_, '_>) -> Rc<Net> {
    let driver = driver(scope);
    driver.net.get_or_insert_with(|| Net::new(driver.options.clone(), driver.next_id)).clone()
}

/// The network, if it was used.
pub(super) fn get_if_used(scope: &mut v8::PinScope<'_, '_>) -> Option<Rc<Net>> {
    scope.get_slot::<Driver>()?.net.clone()
}

/// Asks for a turn after the running callback.
pub(super) fn wake(scope: &mut v8::PinScope<'_, '_>) {
    if !std::mem::replace(&mut driver(scope).is_turn_due, true) {
        let action = Action { run: |scope, _| turn_if_due(scope), key: 0 };
        event_loop::get(scope).tasks().push(action);
    }
}

fn turn_if_due(scope: &mut v8::PinScope<'_, '_>) {
    if std::mem::take(&mut driver(scope).is_turn_due) {
        turn(scope);
    }
}

fn on_ready(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    turn(scope);
    Checkpoint::Done
}

fn on_deadline(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    driver(scope).armed = None;
    turn(scope);
}

/// Runs what is ready and tells what has happened.
fn turn(scope: &mut v8::PinScope<'_, '_>) {
    let Some(net) = get_if_used(scope) else { return };
    let has_more = net.executor.run();
    // What the script does about an event is done in the next turn.
    let events = net.events.take();
    for event in events {
        tell(scope, event);
    }
    if has_more || !net.events.borrow().is_empty() {
        wake(scope);
    }
    settle(scope, &net);
    if net.pool.take_crowded() {
        collect_unread(scope);
    }
}

/// Requests wait for a connection: those whose responses nobody can read any more are cut off when
/// the garbage collector finds them.
fn collect_unread(scope: &mut v8::PinScope<'_, '_>) {
    let now = Instant::now();
    let last = driver(scope).collected_at;
    if last.is_none_or(|at| now.duration_since(at) >= CROWDED_COLLECTION_INTERVAL) {
        driver(scope).collected_at = Some(now);
        scope.low_memory_notification();
    }
}

/// Calls `internals.callbacks.netEvent(kind, id)`, and the microtasks after it.
fn tell(scope: &mut v8::PinScope<'_, '_>, event: Event) {
    if driver(scope).callback.is_none() {
        driver(scope).callback = engine::callback(scope, "netEvent");
    }
    let Some(callback) = driver(scope).callback.clone() else { return };
    {
        v8::scope!(let scope, scope);
        let function = v8::Local::new(scope, callback);
        let kind = v8::Integer::new(scope, event.kind as i32).into();
        #[allow(clippy::cast_precision_loss)]
        let id = v8::Number::new(scope, event.id as f64).into();
        if event.in_request {
            engine::enter_request(scope);
        }
        engine::call_or_fail(scope, function, &[kind, id]);
        engine::leave_request(scope);
    }
    if let Err(error) = event_loop::checkpoint(scope) {
        engine::fail(scope, error);
    }
}

/// Brings the loop's view up to date: descriptor, its life, deadline.
fn settle(scope: &mut v8::PinScope<'_, '_>, net: &Rc<Net>) {
    let life = if net.waited_for.get() > 0 { Life::KeepsAlive } else { Life::Background };
    let registered = driver(scope).registered.take();
    let registered = match (registered, net.executor.epoll()) {
        (None, None) => None,
        (Some((epoll, token, old)), _) => {
            if old != life {
                event_loop::get(scope).reactor().set_life(token, life);
            }
            Some((epoll, token, life))
        }
        (None, Some(epoll)) => {
            let reactor = event_loop::get(scope).reactor();
            match reactor.register(epoll.0.as_fd(), Interest::READ, life, on_ready, 0) {
                Ok(token) => Some((epoll, token, life)),
                Err(error) => {
                    let text = format!("wait for the network: {error}");
                    engine::fail(scope, engine::ScriptError::new(text));
                    None
                }
            }
        }
    };
    driver(scope).registered = registered;
    arm(scope, net.executor.next_deadline());
}

/// Arms the loop's timer for the earliest deadline; one that is armed for an earlier time stays.
fn arm(scope: &mut v8::PinScope<'_, '_>, deadline: Option<Instant>) {
    let armed = driver(scope).armed;
    let Some(deadline) = deadline else {
        if let Some((timer, _)) = driver(scope).armed.take() {
            event_loop::get(scope).timers().cancel(timer);
        }
        return;
    };
    if armed.is_some_and(|(_, at)| at <= deadline) {
        return;
    }
    let timers = event_loop::get(scope).timers();
    if let Some((timer, _)) = armed {
        timers.cancel(timer);
    }
    let delay = deadline.saturating_duration_since(Instant::now());
    let timer = timers.arm(delay, Action { run: on_deadline, key: 0 });
    driver(scope).armed = Some((timer, deadline));
}

/// Before a fork: closes everything and remembers what was in flight.
pub(crate) fn freeze(scope: &mut v8::PinScope<'_, '_>) {
    let Some(net) = get_if_used(scope) else { return };
    let undelivered = net.events.take();
    let mut lost = std::mem::take(&mut driver(scope).lost);
    lost.extend(net.exchanges.borrow().values().map(|exchange| Event {
        kind: Kind::Failed,
        id: exchange.id,
        in_request: exchange.in_request,
    }));
    let mut lost_names = std::mem::take(&mut driver(scope).lost_names);
    let exchanges = net.exchanges.borrow();
    lost_names.extend(
        exchanges.values().map(|exchange| format!("a fetch of {} under way", place(&exchange.origin))),
    );
    drop(exchanges);
    let sockets = net.sockets.borrow();
    lost_names.extend(sockets.values().map(|socket| format!("a WebSocket to {}", socket.peer)));
    drop(sockets);
    lost.extend(net.sockets.borrow().keys().map(|id| Event {
        kind: Kind::SocketClosed,
        id: *id,
        in_request: false,
    }));
    drop(undelivered);
    lost.sort_by_key(|event| event.id);
    arm(scope, None);
    let driver = driver(scope);
    driver.lost = lost;
    driver.lost_names = lost_names;
    driver.next_id = net.next_id.get();
    driver.net = None;
    let registered = driver.registered.take();
    if let Some((epoll, token, _)) = registered {
        event_loop::get(scope).reactor().deregister(token, epoll.0.as_fd());
    }
    net.close();
    event_loop::get(scope).reactor().close_if_empty();
}

/// A WebSocket that is open, of whichever side.
pub(crate) fn open_socket(scope: &mut v8::PinScope<'_, '_>) -> Option<String> {
    let net = get_if_used(scope)?;
    let sockets = net.sockets.borrow();
    sockets.values().next().map(|socket| format!("a WebSocket to {}", socket.peer))
}

/// A request of the script that has no whole answer yet.
pub(crate) fn under_way(scope: &mut v8::PinScope<'_, '_>) -> Option<String> {
    let net = get_if_used(scope)?;
    let exchanges = net.exchanges.borrow();
    exchanges.values().next().map(|exchange| format!("a fetch of {} under way", place(&exchange.origin)))
}

/// What a snapshot could not keep, after [`freeze`].
pub(crate) fn held(isolate: &mut v8::Isolate) -> Option<String> {
    isolate.get_slot::<Driver>()?.lost_names.first().cloned()
}

/// Drops everything, for a snapshot.
pub(crate) fn forget(isolate: &mut v8::Isolate) {
    drop(isolate.remove_slot::<Driver>());
}

/// The number of the next exchange: what a snapshot's program remembers of earlier ones must mean no later one.
pub(crate) fn next_id(isolate: &mut v8::Isolate) -> u64 {
    driver(isolate).next_id
}

/// Goes on with the numbers of a snapshot.
pub(crate) fn set_next_id(isolate: &mut v8::Isolate, next_id: u64) {
    driver(isolate).next_id = next_id;
}

/// In a worker: what it may do from here on. What its seed had in flight fails.
pub(crate) fn thaw(scope: &mut v8::PinScope<'_, '_>, options: NetOptions) {
    driver_options(scope, options);
    let Some(true) = scope.get_slot::<Driver>().map(|driver| !driver.lost.is_empty()) else { return };
    let lost = std::mem::take(&mut driver(scope).lost);
    driver(scope).lost_names = Vec::new();
    let net = get(scope);
    lost.into_iter().for_each(|event| net.emit(event));
    wake(scope);
}

fn driver_options(scope: &mut v8::PinScope<'_, '_>, options: NetOptions) {
    driver(scope).options = options;
}

/// The worker drains: WebSockets and streams of events, which would go on for ever, are closed.
pub(crate) fn drain(scope: &mut v8::PinScope<'_, '_>) {
    let Some(net) = get_if_used(scope) else { return };
    for socket in net.sockets.borrow().values() {
        socket.close(Some((1001, "the worker ends")));
    }
    net.emit(Event { kind: Kind::Drain, id: 0, in_request: false });
    wake(scope);
}
