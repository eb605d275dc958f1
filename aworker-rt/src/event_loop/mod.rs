//! The event loop of one worker: one thread, no locks, no work without a cause.
//!
//! One turn has numbered phases:
//!
//! 1. timers that are due (only those armed before the turn began);
//! 2. descriptors that are ready (at most 128), after waiting for them if there
//!    is nothing else to do;
//! 3. tasks that were queued before the phase began;
//! 4. V8's own tasks (garbage collection, WebAssembly), at most 64.
//!
//! After every callback of every phase follows a checkpoint: microtasks run
//! until none is left, then promises rejected without a handler are reported.
//! Every phase is bounded, so that none starves another. A loop with nothing to
//! do sleeps in epoll_wait(2) without a timeout.
//!
//! The loop lives in a slot of the isolate ([`get`]); it is borrowed only between
//! callbacks, never while one runs.

pub mod reactor;
mod tasks;
mod timers;

use std::time::Duration;

pub use reactor::{Checkpoint, Interest, Life, Ready, Token};
pub use tasks::Tasks;
pub use timers::{TimerId, Timers};

use crate::engine::{self, ScriptError, conversions, rejections, trim, watchdog};
use reactor::{Events, Reactor};
use timers::Due;

/// Most of V8's tasks run in one turn.
const MAX_PLATFORM_TASKS: usize = 64;

/// Something to do later: a function and the number it is called with.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// The function. Its state lives in its room's own table.
    pub run: for<'s, 'i> fn(&mut v8::PinScope<'s, 'i>, u64),
    /// Handed to the function.
    pub key: u64,
}

/// The loop's state.
#[derive(Debug)]
pub struct EventLoop {
    timers: Timers,
    reactor: Reactor,
    tasks: Tasks,
    on_timer: Option<v8::Global<v8::Function>>,
    on_task: Option<v8::Global<v8::Function>>,
    before_sleep: Vec<Action>,
    when_idle: Option<fn()>,
    holds: usize,
    operations: usize,
}

/// Gives the isolate its event loop, before any JavaScript runs.
pub(crate) fn attach(scope: &mut v8::PinScope<'_, '_>) {
    scope.set_slot(EventLoop::new());
}

/// The isolate's event loop.
pub fn get<'a>(scope: &'a mut v8::PinScope<'_, '_>) -> &'a mut EventLoop {
    scope.get_slot_mut::<EventLoop>().expect("the runtime attached a loop")
}

impl EventLoop {
    fn new() -> EventLoop {
        EventLoop {
            timers: Timers::new(),
            reactor: Reactor::default(),
            tasks: Tasks::default(),
            on_timer: None,
            on_task: None,
            before_sleep: Vec::new(),
            when_idle: None,
            holds: 0,
            operations: 0,
        }
    }

    /// Timers of native code.
    pub fn timers(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// Descriptors to wait for.
    pub fn reactor(&mut self) -> &mut Reactor {
        &mut self.reactor
    }

    /// Work for the next turn.
    pub fn tasks(&mut self) -> &mut Tasks {
        &mut self.tasks
    }

    /// Runs an action at the end of every turn, before the loop sleeps.
    pub fn before_sleep(&mut self, action: Action) {
        self.before_sleep.push(action);
    }

    /// Calls a function once, when there is nothing to do for the first time from here on.
    pub fn when_idle(&mut self, function: fn()) {
        self.when_idle = Some(function);
    }

    /// Stops the clock of timers: the process waits as a seed.
    pub fn stop_clock(&mut self) {
        self.timers.stop_clock();
    }

    /// Lets time go on in a worker.
    pub fn start_clock(&mut self) {
        self.timers.start_clock();
    }

    /// The script's timers in the order they fire in: number and nanoseconds left.
    pub fn script_timers_left(&self) -> Vec<(u64, i64)> {
        self.timers.script_timers_left()
    }

    /// Arms the timers of a script that was elsewhere, in their order.
    pub fn arm_script_timers(&mut self, timers: &[(u64, i64)]) {
        for &(id, left) in timers {
            self.timers.arm_script(id, Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
        }
    }

    /// What native code has under way, which another process could not go on with.
    pub fn native_work(&self) -> Option<&'static str> {
        match self {
            EventLoop { reactor, .. } if !reactor.is_empty() => {
                Some("an open socket or file that is waited for")
            }
            EventLoop { timers, .. } if timers.has_native() => Some("an operation with a time limit"),
            EventLoop { tasks, .. } if tasks.len() > 0 => Some("an operation that is about to complete"),
            EventLoop { operations: 1.., .. } => Some("an operation under way"),
            EventLoop { holds: 1.., .. } => Some("a promise given to waitUntil that is not settled"),
            EventLoop { .. } => None,
        }
    }

    /// What a script waits for besides descriptors and timers, and a clone of the process could not go on with.
    pub fn unfinished(&self) -> Option<&'static str> {
        match self {
            EventLoop { tasks, .. } if tasks.len() > 0 => Some("an operation that is about to complete"),
            EventLoop { operations: 1.., .. } => Some("an operation under way"),
            EventLoop { holds: 1.., .. } => Some("a promise given to waitUntil that is not settled"),
            EventLoop { .. } => None,
        }
    }

    /// In a clone of a worker: forgets every descriptor and every timer of native code, without a word to the epoll instance,
    /// which both share.
    pub fn forget(&mut self) {
        self.reactor.forget();
        self.timers.forget_native();
    }

    /// Whether the next turn has something to do at once.
    pub fn has_tasks(&self) -> bool {
        self.tasks.len() > 0
    }

    /// Whether an epoll instance exists, which forbids a fork.
    pub fn has_epoll(&self) -> bool {
        self.reactor.exists()
    }

    /// Native code works on something that a script waits for: the loop goes on until [`Self::end_operation`].
    pub fn begin_operation(&mut self) {
        self.operations += 1;
    }

    /// The counterpart of [`Self::begin_operation`].
    pub fn end_operation(&mut self) {
        self.operations -= 1;
    }

    /// Whether anything can still happen that the script waits for.
    pub fn is_alive(&self) -> bool {
        self.operations > 0 || self.timers.keep_alive() || self.reactor.keep_alive() || self.tasks.len() > 0
    }

    /// Whether a drain must go on: connections, listeners, promises given to
    /// `waitUntil`. Timers of the script do not count.
    pub fn is_busy(&self) -> bool {
        self.reactor.keep_alive() || self.holds > 0
    }

    /// How long phase 2 may wait; `None` is for ever, and also "not at all" when
    /// there is nothing to wait for.
    fn patience(&mut self) -> Patience {
        if self.tasks.len() > 0 || !self.is_alive() {
            return Patience::Look;
        }
        match self.timers.next_delay() {
            Some(delay) => Patience::Wait(Some(delay)),
            None => Patience::Wait(None),
        }
    }
}

/// What phase 2 does about descriptors that are not ready yet.
enum Patience {
    Look,
    Wait(Option<Duration>),
}

/// Runs turns until `done` says so, or nothing is left that could happen.
///
/// # Errors
/// The first uncaught exception or unhandled rejection of a callback.
pub fn run_until(
    scope: &mut v8::PinScope<'_, '_>,
    mut done: impl FnMut(&mut v8::PinScope<'_, '_>) -> bool,
) -> Result<(), ScriptError> {
    finish_callback(scope)?;
    while !done(scope) {
        if !get(scope).is_alive() {
            run_platform_tasks(scope)?;
            if !get(scope).is_alive() && !scope.has_pending_background_tasks() {
                return Ok(());
            }
        }
        turn(scope)?;
    }
    Ok(())
}

/// One turn of the loop.
fn turn(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    run_timers(scope)?;
    run_before_sleep(scope)?;
    run_ready(scope)?;
    run_tasks(scope)?;
    run_platform_tasks(scope)
}

/// Phase 1.
fn run_timers(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let timers = get(scope).timers();
    if timers.is_empty() {
        return Ok(());
    }
    let (now, limit) = (timers.now(), timers.sequence());
    while let Some(due) = get(scope).timers.take_due(now, limit) {
        v8::scope!(let scope, scope);
        match due {
            Due::Script(id) => fire_script_timer(scope, id),
            Due::Native(action) => (action.run)(scope, action.key),
        }
        finish_callback(scope)?;
    }
    Ok(())
}

fn run_before_sleep(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    for index in 0..get(scope).before_sleep.len() {
        v8::scope!(let scope, scope);
        let action = get(scope).before_sleep[index];
        (action.run)(scope, action.key);
    }
    take_failure(scope)
}

/// Phase 2.
fn run_ready(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let event_loop = get(scope);
    let timeout = match event_loop.patience() {
        Patience::Look if event_loop.reactor.is_empty() => return Ok(()),
        Patience::Look => Some(Duration::ZERO),
        Patience::Wait(timeout) => timeout,
    };
    trim::relieve();
    let quiet = trim::quiet_needed().filter(|quiet| timeout.is_none_or(|timeout| timeout > *quiet));
    let mut events = Events::new();
    watchdog::leave();
    let count = wait(event_loop, &mut events, quiet.or(timeout))
        .map_err(|error| ScriptError::new(format!("wait for descriptors: {error}")))?;
    watchdog::enter();
    if quiet.is_some() && count == 0 && trim::is_due(scope) {
        crate::http::shrink(scope);
        trim::trim(scope);
    }
    for index in 0..count {
        let Some((on_ready, ready)) = get(scope).reactor.handler(&events.get(index)) else {
            continue;
        };
        watchdog::progress();
        v8::scope!(let scope, scope);
        match on_ready(scope, ready) {
            Checkpoint::Due => finish_callback(scope)?,
            Checkpoint::Done => take_failure(scope)?,
        }
    }
    Ok(())
}

/// Waits for descriptors; what is to be done at the first rest is done before it.
fn wait(
    event_loop: &mut EventLoop,
    events: &mut Events,
    timeout: Option<Duration>,
) -> std::io::Result<usize> {
    if timeout != Some(Duration::ZERO)
        && let Some(function) = event_loop.when_idle
    {
        let count = event_loop.reactor.wait(events, Some(Duration::ZERO))?;
        if count > 0 {
            return Ok(count);
        }
        event_loop.when_idle = None;
        function();
    }
    event_loop.reactor.wait(events, timeout)
}

/// Phase 3.
fn run_tasks(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    for _ in 0..get(scope).tasks.len() {
        let Some(action) = get(scope).tasks.take() else {
            break;
        };
        v8::scope!(let scope, scope);
        (action.run)(scope, action.key);
        finish_callback(scope)?;
    }
    Ok(())
}

/// Phase 4.
pub(crate) fn run_platform_tasks(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    for _ in 0..MAX_PLATFORM_TASKS {
        if !engine::run_platform_task(scope) {
            break;
        }
        finish_callback(scope)?;
    }
    Ok(())
}

/// The checkpoint after a callback, and the error it ended with.
fn finish_callback(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    take_failure(scope)?;
    checkpoint(scope)?;
    if watchdog::take_interruption() {
        crate::http::interrupted(scope);
    }
    take_failure(scope)
}

fn take_failure(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    match engine::take_failure(scope) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs microtasks until none is left, then reports promises that were rejected
/// without a handler.
///
/// # Errors
/// The first rejection that no `unhandledrejection` listener took.
pub fn checkpoint(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    scope.perform_microtask_checkpoint();
    rejections::report(scope)
}

/// Calls `internals.callbacks.timer(id)`.
fn fire_script_timer(scope: &mut v8::PinScope<'_, '_>, id: u64) {
    if get(scope).on_timer.is_none() {
        get(scope).on_timer = engine::callback(scope, "timer");
    }
    let Some(function) = get(scope).on_timer.clone() else {
        return;
    };
    let function = v8::Local::new(scope, function);
    #[allow(clippy::cast_precision_loss)]
    let id = v8::Number::new(scope, id as f64).into();
    engine::call_or_fail(scope, function, &[id]);
    // The callback may have said that a request started the timer.
    engine::leave_request(scope);
}

/// `ops.hold()`: something must be finished before a drain ends.
pub(crate) fn hold(scope: &mut v8::PinScope<'_, '_>, _: v8::FunctionCallbackArguments, _: v8::ReturnValue) {
    get(scope).holds += 1;
}

/// `ops.release()`: the counterpart of `ops.hold()`.
pub(crate) fn release(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let event_loop = get(scope);
    event_loop.holds = event_loop.holds.saturating_sub(1);
}

/// `ops.timer_start(id, milliseconds)`: arms or re-arms the script's timer `id`;
/// whether a request began what does so.
pub(crate) fn timer_start(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(id) = timer_id(scope, arguments.get(0)) else {
        return;
    };
    let milliseconds = arguments.get(1).number_value(scope).unwrap_or(0.0);
    let delay = Duration::try_from_secs_f64(milliseconds.max(0.0) / 1e3).unwrap_or(Duration::MAX);
    get(scope).timers.arm_script(id, delay);
    result.set_bool(engine::in_request(scope));
}

/// `ops.timer_cancel(id)`: disarms the script's timer `id`.
pub(crate) fn timer_cancel(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    if let Some(id) = timer_id(scope, arguments.get(0)) {
        get(scope).timers.cancel_script(id);
    }
}

/// `ops.task_queue()`: the event loop will call `internals.callbacks.task()` once
/// for this call; whether a request began what does so.
pub(crate) fn task_queue(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    get(scope).tasks.push(Action { run: run_script_task, key: 0 });
    result.set_bool(engine::in_request(scope));
}

/// Calls `internals.callbacks.task()`.
fn run_script_task(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    if get(scope).on_task.is_none() {
        get(scope).on_task = engine::callback(scope, "task");
    }
    let Some(function) = get(scope).on_task.clone() else {
        return;
    };
    let function = v8::Local::new(scope, function);
    engine::call_or_fail(scope, function, &[]);
    // The callback may have said that a request queued the task.
    engine::leave_request(scope);
}

/// `ops.queue_microtask(function)`. What the function throws goes to the
/// isolate's message listener, as for every microtask.
pub(crate) fn queue_microtask(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    match arguments.get(0).try_cast::<v8::Function>() {
        Ok(function) => scope.enqueue_microtask(function),
        Err(_) => conversions::throw_type_error(scope, "queue_microtask: the argument must be a function"),
    }
}

/// A timer's number: a positive integer that a double holds exactly.
fn timer_id(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<u64> {
    let id = value.integer_value(scope).and_then(|id| u64::try_from(id).ok());
    if id.is_none() {
        conversions::throw_range_error(scope, "a timer's id must be a positive integer");
    }
    id
}
