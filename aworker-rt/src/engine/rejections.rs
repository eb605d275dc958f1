//! Promises that were rejected while nobody listened.
//!
//! https://html.spec.whatwg.org/#the-hostpromiserejectiontracker-implementation

use std::collections::VecDeque;

use super::exceptions::{self, ScriptError};
use super::isolate::callback;
use super::request_origin::in_request;
use super::{stdio, uncaught};

/// Reported promises remembered for `rejectionhandled`, the newest; the standard
/// keeps them weakly, too.
const MAX_REPORTED: usize = 64;

/// A promise that was rejected without a handler.
struct Rejection {
    promise: v8::Global<v8::Promise>,
    reason: v8::Global<v8::Value>,
    in_request: bool,
}

/// Rejections since the last report, and promises reported before.
#[derive(Default)]
struct Rejections {
    pending: Vec<Rejection>,
    reported: VecDeque<v8::Weak<v8::Promise>>,
}

/// HostPromiseRejectionTracker.
pub(super) unsafe extern "C" fn on_promise_reject(message: v8::PromiseRejectMessage) {
    // SAFETY: V8 calls this on the isolate's thread with a live message, and no
    // other scope of ours is in use meanwhile.
    v8::callback_scope!(unsafe scope, &message);
    v8::scope!(let scope, scope);
    let promise = v8::Global::new(scope, message.get_promise());
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let reason = message.get_value().unwrap_or_else(|| v8::undefined(scope).into());
            let reason = v8::Global::new(scope, reason);
            let in_request = in_request(scope);
            rejections(scope).pending.push(Rejection { promise, reason, in_request });
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => handled(scope, &promise),
        v8::PromiseRejectEvent::PromiseRejectAfterResolved
        | v8::PromiseRejectEvent::PromiseResolveAfterResolved => {}
    }
}

fn rejections<'a>(scope: &'a mut v8::PinScope<'_, '_, ()>) -> &'a mut Rejections {
    if scope.get_slot::<Rejections>().is_none() {
        scope.set_slot(Rejections::default());
    }
    scope.get_slot_mut::<Rejections>().expect("set above")
}

/// Drops every handle: the heap is about to be written.
pub(super) fn forget(isolate: &mut v8::Isolate) {
    drop(isolate.remove_slot::<Rejections>());
}

/// A handler came late: before the report it undoes the rejection, after it the
/// script is told.
fn handled(scope: &mut v8::PinScope<'_, '_>, promise: &v8::Global<v8::Promise>) {
    let rejections = rejections(scope);
    if let Some(index) = rejections.pending.iter().position(|pending| pending.promise == *promise) {
        rejections.pending.remove(index);
        return;
    }
    let Some(index) = rejections.reported.iter().position(|reported| reported == promise) else {
        return;
    };
    rejections.reported.remove(index);
    let Some(function) = callback(scope, "dispatchRejectionHandled") else {
        return;
    };
    // The callback dispatches an event, which must not happen inside `then`.
    let promise = v8::Local::new(scope, promise);
    let reason = promise.result(scope);
    let function = v8::Local::new(scope, function);
    uncaught::call_or_fail(scope, function, &[promise.into(), reason]);
}

/// Reports every promise that is still without a handler. What was rejected
/// where a request began costs a line on stderr.
///
/// # Errors
/// The first other one that no `unhandledrejection` listener took.
pub fn report(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let mut first = Ok(());
    loop {
        let pending = match scope.get_slot_mut::<Rejections>() {
            Some(rejections) if !rejections.pending.is_empty() => std::mem::take(&mut rejections.pending),
            _ => return first,
        };
        for Rejection { promise, reason, in_request } in pending {
            v8::scope!(let scope, scope);
            let promise = v8::Local::new(scope, promise);
            let reason = v8::Local::new(scope, reason);
            if promise.has_handler() {
                continue;
            }
            if uncaught::taken_by(scope, "dispatchUnhandledRejection", &[promise.into(), reason]) {
                remember(scope, promise);
                continue;
            }
            let error = exceptions::rejected(scope, reason);
            if in_request {
                stdio::write_all(libc::STDERR_FILENO, format!("{error}\n").as_bytes());
            } else if first.is_ok() {
                first = Err(error);
            }
        }
        // Listeners may have queued microtasks, and those may reject in turn.
        scope.perform_microtask_checkpoint();
    }
}

fn remember(scope: &mut v8::PinScope<'_, '_>, promise: v8::Local<v8::Promise>) {
    let promise = v8::Weak::new(scope, promise);
    let reported = &mut rejections(scope).reported;
    if reported.len() == MAX_REPORTED {
        reported.pop_front();
    }
    reported.push_back(promise);
}
