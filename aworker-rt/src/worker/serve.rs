//! Serving and its end.
//!
//! ```text
//!   serving --SIGTERM or SIGINT--> draining --nothing in flight--> exit 0
//!                                     |  \--DRAIN_TIMEOUT--------> exit 128 + signal
//!                                     \--second signal-----------> _exit(128 + signal)
//!   serving --retire-------------> draining, a signal drains as above --nothing in flight--> exit 0
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::engine::{ScriptError, gauges, signals, watchdog};
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready, Token};
use crate::{http, net};

use super::promotion::{self, Asked};
use super::{Listener, WorkerOptions, supervised};

/// Longest time between a termination signal and the end: shorter than the
/// grace that container engines give (docker 10 s, Kubernetes 30 s).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// The process ends this much after [`DRAIN_TIMEOUT`] even if JavaScript never
/// gives the loop a chance to notice.
const HARD_END_SECONDS: u16 = 9;

/// How long WebSockets of a worker that retires may go on before they are closed with 1001: their conversation may
/// come to an end by itself, and their clients do not all come back in one moment.
const WEB_SOCKET_GRACE: Duration = Duration::from_secs(5);

/// What the loop knows of the end.
struct Termination {
    /// Readable once a signal has come.
    signal_fd: OwnedFd,
    /// Its registration.
    token: Token,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    TimedOut,
}

/// How serving was left.
pub(super) enum Left {
    /// For good, with this exit status.
    Ended(i32),
    /// For somebody who asks for a clone.
    Asked(Asked),
}

/// Begins to serve on the listeners (or the default one).
pub(super) fn begin(
    scope: &mut v8::PinScope<'_, '_>,
    mut listeners: Vec<Listener>,
    options: &WorkerOptions,
) -> Result<(), ScriptError> {
    // A supervisor hands in what is to be served, now or later.
    if !supervised::exists(scope)
        && let (true, Some(address)) = (listeners.is_empty(), &options.default_listen)
    {
        listeners.push(Listener::bind(address).map_err(explain)?);
    }
    watch_signals(scope).map_err(explain)?;
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address().clone()).collect();
    http::serve(scope, listeners, options.server).map_err(explain)?;
    if supervised::exists(scope) {
        let limit = Duration::from_millis(options.server.request_timeout_ms);
        let slow = Some(Duration::from_millis(options.server.slow_ms)).filter(|slow| !slow.is_zero());
        watchdog::start(scope, limit, slow).map_err(explain)?;
        supervised::serve(scope).map_err(explain)?;
    }
    promotion::listen(scope).map_err(explain)?;
    if let Some(tell) = options.on_listening {
        addresses.iter().for_each(tell);
    }
    if let Some(function) = options.when_idle {
        event_loop::get(scope).when_idle(function);
    }
    Ok(())
}

/// After an asker was answered: serves on.
pub(super) fn go_on(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    promotion::go_on(scope).map_err(explain)
}

/// Serves until told to stop, or until somebody who asks for a clone can be answered.
pub(super) fn run(scope: &mut v8::PinScope<'_, '_>) -> Result<Left, ScriptError> {
    event_loop::run_until(scope, |scope| match phase(scope) {
        Phase::Serving => promotion::is_decided(scope),
        Phase::Draining => !event_loop::get(scope).is_busy(),
        Phase::TimedOut => true,
    })?;
    if phase(scope) == Phase::Serving
        && let Some(asked) = promotion::take(scope)
    {
        return Ok(Left::Asked(asked));
    }
    match (phase(scope), signals::termination_signal()) {
        (Phase::TimedOut, Some(signal)) => Ok(Left::Ended(128 + signal)),
        _ => Ok(Left::Ended(0)),
    }
}

/// In a clone that becomes a seed: the worker's end is not its own.
pub(super) fn forget(isolate: &mut v8::Isolate) {
    isolate.remove_slot::<Termination>();
    signals::forget();
}

#[allow(clippy::needless_pass_by_value)]
fn explain(error: std::io::Error) -> ScriptError {
    ScriptError::new(error.to_string())
}

fn phase(scope: &mut v8::PinScope<'_, '_>) -> Phase {
    scope.get_slot::<Termination>().map_or(Phase::Serving, |termination| termination.phase)
}

fn set_phase(scope: &mut v8::PinScope<'_, '_>, phase: Phase) {
    if let Some(termination) = scope.get_slot_mut::<Termination>() {
        termination.phase = phase;
    }
}

fn watch_signals(scope: &mut v8::PinScope<'_, '_>) -> std::io::Result<()> {
    let fd = signals::catch_termination(HARD_END_SECONDS)?;
    // Keeps the loop alive also while the listeners rest for want of descriptors.
    let reactor = event_loop::get(scope).reactor();
    let token = reactor.register(fd.as_fd(), Interest::READ, Life::KeepsAlive, on_signal, 0)?;
    scope.set_slot(Termination { signal_fd: fd, token, phase: Phase::Serving });
    Ok(())
}

/// Ends the worker when what it has begun is finished, without a hurry: connections between two requests go
/// back to the supervisor.
pub(crate) fn retire(scope: &mut v8::PinScope<'_, '_>) {
    if phase(scope) != Phase::Serving {
        return;
    }
    let Some(Termination { signal_fd, token, .. }) = scope.remove_slot::<Termination>() else { return };
    let reactor = event_loop::get(scope).reactor();
    reactor.deregister(token, signal_fd.as_fd());
    // A signal is still heard, but no longer what the loop lives for. It was registered before, so it can be again.
    let token =
        reactor.register(signal_fd.as_fd(), Interest::READ, Life::Background, on_signal, 0).unwrap_or(token);
    scope.set_slot(Termination { signal_fd, token, phase: Phase::Draining });
    gauges::set(gauges::Gauge::Phase, gauges::Phase::Draining as u64);
    http::retire(scope);
    let close = Action { run: |scope, _| net::drain(scope), key: 0 };
    event_loop::get(scope).timers().arm(WEB_SOCKET_GRACE, close);
}

/// The first termination signal: no further connections, finish what runs.
/// (The second one never comes here.)
fn on_signal(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    if let Some(Termination { signal_fd, token, .. }) = scope.remove_slot::<Termination>() {
        event_loop::get(scope).reactor().deregister(ready.token, signal_fd.as_fd());
        // The descriptor stays open: the handler of a second signal may write to it.
        scope.set_slot(Termination { signal_fd, token, phase: Phase::Draining });
    }
    gauges::set(gauges::Gauge::Phase, gauges::Phase::Draining as u64);
    event_loop::get(scope).timers().arm(DRAIN_TIMEOUT, Action { run: on_timeout, key: 0 });
    http::drain(scope);
    net::drain(scope);
    Checkpoint::Due
}

fn on_timeout(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    set_phase(scope, Phase::TimedOut);
}
