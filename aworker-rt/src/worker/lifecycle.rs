//! The steps of a worker's life, in a JavaScript scope.

use crate::engine::{self, Loaded, Script, ScriptError, conversions, exceptions, gauges, stdio};
use crate::event_loop;

use super::promotion::Pause;
use super::serve::Left;
use super::{HeapSnapshots, Listener, WorkerOptions, heap_snapshot, serve};
use crate::inspector::{self, Profile};

/// Where a worker's life begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// Run this program.
    Load(Script),
    /// The program ran in the seed: fire `deserialize`.
    Deserialize,
    /// The seed was a worker that has served: it is installed and active, and only `deserialize` is fired.
    Resume,
}

/// Exit status of a worker whose script failed.
const FAILED: i32 = 1;

/// A worker's life after the fork; its exit status.
pub(super) fn run(
    scope: &mut v8::PinScope<'_, '_>,
    start: &Start,
    listeners: Vec<Listener>,
    options: &WorkerOptions,
) -> i32 {
    match live(scope, start, listeners, options) {
        Ok(Left::Ended(status)) => status,
        // Only who listens for it is asked.
        Ok(Left::Asked(_)) => FAILED,
        Err(error) => fail(&error),
    }
}

/// As [`run`], for a worker that may be asked for a clone.
pub(super) fn run_until_asked(
    scope: &mut v8::PinScope<'_, '_>,
    start: &Start,
    listeners: Vec<Listener>,
    options: &WorkerOptions,
) -> Pause {
    pause(live(scope, start, listeners, options))
}

/// Goes on with serving after [`Pause::Asked`].
pub(super) fn go_on(scope: &mut v8::PinScope<'_, '_>) -> Pause {
    pause(serve::go_on(scope).and_then(|()| serve::run(scope)))
}

fn pause(left: Result<Left, ScriptError>) -> Pause {
    match left {
        Ok(Left::Ended(status)) => Pause::Ended(status),
        Ok(Left::Asked(asked)) => Pause::Asked(asked),
        Err(error) => Pause::Ended(fail(&error)),
    }
}

fn fail(error: &ScriptError) -> i32 {
    let text = format!("{error}\n");
    gauges::last_words(&[text.trim_end().as_bytes()]);
    stdio::write_all(2, text.as_bytes());
    FAILED
}

/// As [`run`], with the tools that the options ask for.
pub(super) fn run_observed(
    scope: &mut v8::PinScope<'_, '_>,
    start: &Start,
    listeners: Vec<Listener>,
    options: &WorkerOptions,
) -> i32 {
    let title = match start {
        Start::Load(script) => script.name(),
        Start::Deserialize | Start::Resume => "snapshot",
    };
    let prepared = match (options.inspect, options.heap_snapshots) {
        (None, HeapSnapshots::Never) => Ok(()),
        (None, HeapSnapshots::OnSignal) => heap_snapshot::write_on_signal(scope),
        (Some(inspect), HeapSnapshots::Never) => inspector::start(scope, inspect, title),
        (Some(inspect), HeapSnapshots::OnSignal) => {
            heap_snapshot::write_on_signal(scope).and_then(|()| inspector::start(scope, inspect, title))
        }
    };
    if let Err(error) = prepared {
        stdio::write_all(2, format!("{error}\n").as_bytes());
        return FAILED;
    }
    let profile = options.cpu_profile.as_ref().map(|path| Profile::start(scope, path));
    let status = run(scope, start, listeners, options);
    match profile.map(Profile::write) {
        Some(Err(error)) => {
            stdio::write_all(2, format!("CPU profile: {error}\n").as_bytes());
            FAILED.max(status)
        }
        Some(Ok(())) | None => status,
    }
}

fn live(
    scope: &mut v8::PinScope<'_, '_>,
    start: &Start,
    listeners: Vec<Listener>,
    options: &WorkerOptions,
) -> Result<Left, ScriptError> {
    match start {
        Start::Load(script) => drop(load(scope, script)?),
        Start::Deserialize | Start::Resume => fire(scope, "deserialize")?,
    }
    match start {
        Start::Load(_) | Start::Deserialize => {
            fire(scope, "install")?;
            fire(scope, "activate")?;
        }
        Start::Resume => {}
    }
    if handles_fetch(scope)? {
        serve::begin(scope, listeners, options)?;
        return serve::run(scope);
    }
    event_loop::run_until(scope, |_| false)?;
    Ok(Left::Ended(0))
}

/// Whether the script would answer a request.
pub(super) fn handles_fetch(scope: &mut v8::PinScope<'_, '_>) -> Result<bool, ScriptError> {
    let Some(function) = engine::callback(scope, "handlesFetch") else {
        return Ok(false);
    };
    v8::scope!(let scope, scope);
    let answer = call(scope, &function, &[])?;
    Ok(v8::Local::new(scope, answer).is_true())
}

/// Runs a program's top level, and the loop as long as the top level awaits.
pub(super) fn load(scope: &mut v8::PinScope<'_, '_>, script: &Script) -> Result<Loaded, ScriptError> {
    set_location(scope, &script.url())?;
    inspector::at_start(scope);
    let loaded = engine::load(scope, script)?;
    match &loaded {
        Loaded::Classic(_) => event_loop::run_until(scope, |_| true)?,
        Loaded::Module { evaluated, namespace } => {
            settle(scope, evaluated, &format!("the top level of {}", script.name()))?;
            register_default_export(scope, namespace)?;
        }
    }
    Ok(loaded)
}

/// Tells the built-ins where the program comes from.
pub(super) fn set_location(scope: &mut v8::PinScope<'_, '_>, url: &str) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "setLocation") else {
        return Ok(());
    };
    v8::scope!(let scope, scope);
    let url = conversions::string(scope, url).into();
    call(scope, &function, &[url]).map(drop)
}

/// Hands `export default` to the built-ins.
fn register_default_export(
    scope: &mut v8::PinScope<'_, '_>,
    namespace: &v8::Global<v8::Object>,
) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "setDefaultExport") else {
        return Ok(());
    };
    v8::scope!(let scope, scope);
    let namespace = v8::Local::new(scope, namespace);
    let Some(value) = conversions::get(scope, namespace, "default").filter(|value| !value.is_undefined())
    else {
        return Ok(());
    };
    call(scope, &function, &[value]).map(drop)
}

/// Fires a lifecycle event and waits for what its listeners wait for.
pub(super) fn fire(scope: &mut v8::PinScope<'_, '_>, event: &str) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "dispatchLifecycleEvent") else {
        return Ok(());
    };
    let done = {
        v8::scope!(let scope, scope);
        let event = conversions::string(scope, event).into();
        let done = call(scope, &function, &[event])?;
        let done = v8::Local::new(scope, done);
        match done.try_cast::<v8::Promise>() {
            Ok(promise) => {
                promise.mark_as_handled();
                Some(v8::Global::new(scope, promise))
            }
            Err(_) => None,
        }
    };
    match done {
        Some(promise) => settle(scope, &promise, &format!("a promise given to waitUntil of {event}")),
        None => event_loop::run_until(scope, |_| true),
    }
}

/// Runs the loop until the promise is settled.
///
/// # Errors
/// Its rejection, any failure meanwhile, or that nothing is left to settle it.
fn settle(
    scope: &mut v8::PinScope<'_, '_>,
    promise: &v8::Global<v8::Promise>,
    what: &str,
) -> Result<(), ScriptError> {
    let state = |scope: &mut v8::PinScope<'_, '_>| {
        v8::scope!(let scope, scope);
        v8::Local::new(scope, promise).state()
    };
    event_loop::run_until(scope, |scope| state(scope) != v8::PromiseState::Pending)?;
    match state(scope) {
        v8::PromiseState::Fulfilled => Ok(()),
        v8::PromiseState::Pending => {
            Err(ScriptError::new(format!("{what} waits for something that cannot happen")))
        }
        v8::PromiseState::Rejected => {
            v8::scope!(let scope, scope);
            let promise = v8::Local::new(scope, promise);
            let reason = promise.result(scope);
            Err(exceptions::uncaught(scope, reason))
        }
    }
}

/// Calls a function of the built-ins.
pub(super) fn call(
    scope: &mut v8::PinScope<'_, '_>,
    function: &v8::Global<v8::Function>,
    arguments: &[v8::Local<v8::Value>],
) -> Result<v8::Global<v8::Value>, ScriptError> {
    v8::tc_scope!(let scope, scope);
    let function = v8::Local::new(scope, function);
    let receiver = v8::undefined(scope).into();
    match function.call(scope, receiver, arguments) {
        Some(value) => Ok(v8::Global::new(scope, value)),
        None => Err(exceptions::caught(scope)),
    }
}

/// Tells the built-ins that this is a worker of its own: what it was started
/// with, and that inherited randomness and times are void.
pub(super) fn tell_environment(
    scope: &mut v8::PinScope<'_, '_>,
    options: &WorkerOptions,
) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "becomeWorker") else {
        return Ok(());
    };
    v8::scope!(let scope, scope);
    let arguments: Vec<_> =
        options.arguments.iter().map(|argument| conversions::string(scope, argument).into()).collect();
    let arguments = v8::Array::new_with_elements(scope, &arguments).into();
    // A dictionary: properties that are added one by one make hidden classes, and no other worker has the same names.
    let prototype = v8::Object::new(scope).get_prototype(scope).unwrap_or_else(|| v8::null(scope).into());
    let mut names: Vec<v8::Local<v8::Name>> = Vec::with_capacity(options.environment.len());
    let mut values: Vec<v8::Local<v8::Value>> = Vec::with_capacity(options.environment.len());
    for (name, value) in &options.environment {
        names.push(conversions::string(scope, name).into());
        values.push(conversions::string(scope, value).into());
    }
    let environment = v8::Object::with_prototype_and_properties(scope, prototype, &names, &values);
    let location = match &options.location {
        Some(location) => conversions::string(scope, location).into(),
        None => v8::undefined(scope).into(),
    };
    call(scope, &function, &[arguments, environment.into(), location]).map(drop)
}

/// Runs a program and its loop; the completion value of a classic script as
/// `console` would show it.
pub(super) fn evaluate(
    scope: &mut v8::PinScope<'_, '_>,
    script: &Script,
) -> Result<Option<String>, ScriptError> {
    let loaded = load(scope, script)?;
    event_loop::run_until(scope, |_| false)?;
    let Loaded::Classic(value) = loaded else {
        return Ok(None);
    };
    v8::tc_scope!(let scope, scope);
    let value = v8::Local::new(scope, value);
    if value.is_undefined() {
        return Ok(None);
    }
    if value.is_string() {
        return Ok(Some(value.to_rust_string_lossy(scope)));
    }
    engine::inspect(scope, value).map(Some).ok_or_else(|| exceptions::caught(scope))
}
