//! The log of slow requests: one that is not answered after a while is told to the supervisor once, with the JavaScript
//! stack if the script runs, else as waiting.
//!
//! ```text
//!   dispatch --runs too long------> the watchdog asks for the stack --> told: running
//!        \---returns, no answer --> queue --timer, still no answer --> told: waiting
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::server::{self, RequestId};
use crate::engine::watchdog::{self, Slow};
use crate::engine::{gauges, running};
use crate::event_loop::{self, Action};
use crate::worker::supervised;

/// Most requests that are waited for; those beyond it are not told of.
const MAX_WATCHED: usize = 16 * 1024;

/// Most requests told of in a second; the others are counted.
const TOLD_PER_SECOND: u32 = 10;

/// What a slow request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Its handler runs.
    Running = 1,
    /// A callback runs that no handler has begun just now; the request is the one that was dispatched last.
    RunningLater = 2,
    /// Its handler ran, in native code or too short a time in its own for its stack to be read.
    Native = 3,
    /// Its handler has returned, and there is no response.
    Waiting = 4,
}

/// A request that has returned without an answer.
#[derive(Debug)]
struct Watched {
    due_ms: u64,
    id: RequestId,
    request: Box<[u8]>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    /// In the order in which they are due: the time is the same for all.
    queue: VecDeque<Watched>,
    is_armed: bool,
    second: u64,
    told: u32,
    suppressed: u32,
}

/// Begins to log, if the server's options say so.
pub(super) fn start(scope: &mut v8::PinScope<'_, '_>) {
    if server::get(scope).options.slow_ms > 0 {
        running::observe(scope, on_stack);
    }
}

/// A dispatched request's handler has returned.
pub(super) fn after_dispatch(scope: &mut v8::PinScope<'_, '_>, id: RequestId) {
    let server = server::get(scope);
    let limit = server.options.slow_ms;
    if limit == 0 {
        return;
    }
    match watchdog::take_slow() {
        Slow::No => {}
        Slow::Seen => return,
        Slow::Unseen => return tell(scope, State::Native, limit, gauges::request(), ""),
    }
    let server = server::get(scope);
    let has_answer = !server.exchange(id).is_some_and(|client| client.machine.may_respond());
    if has_answer || server.slow.queue.len() == MAX_WATCHED {
        return;
    }
    let request = Box::from(gauges::request());
    server.slow.queue.push_back(Watched { due_ms: server.now_ms + limit, id, request });
    arm(scope);
}

fn arm(scope: &mut v8::PinScope<'_, '_>) {
    let server = server::get(scope);
    let Some(first) = server.slow.queue.front() else { return };
    if std::mem::replace(&mut server.slow.is_armed, true) {
        return;
    }
    let delay = Duration::from_millis(first.due_ms.saturating_sub(server.now_ms).max(1));
    event_loop::get(scope).timers().arm(delay, Action { run: look, key: 0 });
}

/// Tells of those that are due and have no answer.
fn look(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    let server = server::get(scope);
    server.tick();
    server.slow.is_armed = false;
    let (now, limit) = (server.now_ms, server.options.slow_ms);
    loop {
        let server = server::get(scope);
        // Answered requests are forgotten as soon as they are the first.
        let is_due = |server: &mut server::Server| {
            let (due_ms, id) = server.slow.queue.front().map(|first| (first.due_ms, first.id))?;
            let is_open = server.exchange(id).is_some_and(|client| client.machine.may_respond());
            (due_ms <= now || !is_open).then_some(is_open)
        };
        let Some(is_open) = is_due(server) else { break };
        let Some(first) = server.slow.queue.pop_front() else { break };
        if is_open {
            let elapsed = limit + now.saturating_sub(first.due_ms);
            tell(scope, State::Waiting, elapsed, &first.request, "");
        }
    }
    arm(scope);
}

/// V8 has stopped to show the stack.
fn on_stack(scope: &mut v8::PinScope<'_, '_>, stack: &str) {
    if !watchdog::stack_is_of_this_callback() {
        return;
    }
    let server = server::get(scope);
    let limit = server.options.slow_ms;
    let state = if server.current.is_some() { State::Running } else { State::RunningLater };
    tell(scope, state, limit, gauges::request(), stack);
}

fn tell(scope: &mut v8::PinScope<'_, '_>, state: State, elapsed_ms: u64, request: &[u8], stack: &str) {
    let server = server::get(scope);
    server.tick();
    let second = server.now_ms / 1000;
    let slow = &mut server.slow;
    if slow.second != second {
        (slow.second, slow.told) = (second, 0);
    }
    slow.told = slow.told.saturating_add(1);
    let suppressed = slow.suppressed;
    let may_tell = slow.told <= TOLD_PER_SECOND;
    if may_tell && supervised::tell_slow(scope, state as u8, elapsed_ms, suppressed, request, stack) {
        server::get(scope).slow.suppressed = 0;
    } else {
        server::get(scope).slow.suppressed += 1;
    }
}
