//! Exceptions that no JavaScript caught: offered to the script's `error`
//! listeners, then kept as the failure that ends the worker.

use super::exceptions::{self, ScriptError};
use super::isolate::callback;
use super::request_origin::in_request;
use super::stdio;

/// The first failure that nobody has taken yet.
struct Failure(ScriptError);

/// Keeps an error that ends the worker; the first one counts.
pub fn fail(scope: &mut v8::Isolate, error: ScriptError) {
    if scope.get_slot::<Failure>().is_none() {
        scope.set_slot(Failure(error));
    }
}

/// The failure since the last call.
pub fn take_failure(scope: &mut v8::Isolate) -> Option<ScriptError> {
    // Most calls find nothing: look before removing.
    scope.get_slot::<Failure>()?;
    scope.remove_slot::<Failure>().map(|failure| failure.0)
}

/// As [`fail`], but an error where a request began costs a line on stderr, not the worker.
fn fail_unless_in_request(scope: &mut v8::PinScope<'_, '_>, error: ScriptError) {
    if in_request(scope) {
        stdio::write_all(libc::STDERR_FILENO, format!("{error}\n").as_bytes());
    } else {
        fail(scope, error);
    }
}

/// Calls a function for the event loop. An exception goes to the script's
/// `error` listeners; if none takes it, it becomes the worker's failure.
pub fn call_or_fail<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    function: v8::Local<'s, v8::Function>,
    arguments: &[v8::Local<'s, v8::Value>],
) {
    v8::tc_scope!(let scope, scope);
    let receiver = v8::undefined(scope).into();
    if function.call(scope, receiver, arguments).is_some() {
        return;
    }
    let error = exceptions::caught(scope);
    let Some(exception) = scope.exception() else {
        return fail(scope, error);
    };
    scope.reset();
    offer(scope, exception, error);
}

/// `ops.report_exception(error)`: an exception that built-ins caught on behalf of
/// a listener becomes the worker's failure.
pub(crate) fn report_exception(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let error = exceptions::uncaught(scope, arguments.get(0));
    fail_unless_in_request(scope, error);
}

/// Offers an exception to `error` listeners, else fails with its description.
fn offer<'s>(scope: &mut v8::PinScope<'s, '_>, exception: v8::Local<'s, v8::Value>, error: ScriptError) {
    if !taken_by(scope, "dispatchError", &[exception]) {
        fail_unless_in_request(scope, error);
    }
}

/// Whether the built-ins' callback answers `true`.
pub(super) fn taken_by<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &str,
    arguments: &[v8::Local<'s, v8::Value>],
) -> bool {
    let Some(function) = callback(scope, name) else {
        return false;
    };
    v8::tc_scope!(let scope, scope);
    let function = v8::Local::new(scope, function);
    let receiver = v8::undefined(scope).into();
    function.call(scope, receiver, arguments).is_some_and(|answer| answer.is_true())
}

/// V8 reports what a microtask threw here, and nothing else: every call from
/// native code catches by itself.
pub(super) unsafe extern "C" fn on_message(message: v8::Local<v8::Message>, exception: v8::Local<v8::Value>) {
    // SAFETY: V8 calls this on the isolate's thread with a live message, and no
    // other scope of ours is in use meanwhile.
    v8::callback_scope!(unsafe scope, message);
    v8::scope!(let scope, scope);
    let exception = v8::Local::new(scope, exception);
    let error = exceptions::uncaught(scope, exception);
    offer(scope, exception, error);
}
