//! Whether the JavaScript that runs was begun by a request: what goes wrong in it
//! costs a line on stderr and not the worker, however much later it happens.
//!
//! The mark is V8's continuation-preserved embedder data: V8 hands it from a
//! promise reaction's making to its run, `20_timers.js` from a timer's start to
//! its callback, and the server sets it around its calls. AsyncContext is built
//! on the same. <https://github.com/tc39/proposal-async-context>

/// Marks what runs from here on as begun by a request.
pub fn enter_request(scope: &mut v8::PinScope<'_, '_>) {
    let mark = v8::Boolean::new(scope, true);
    scope.set_continuation_preserved_embedder_data(mark.into());
}

/// Ends [`enter_request`].
pub fn leave_request(scope: &mut v8::PinScope<'_, '_>) {
    let none = v8::undefined(scope);
    scope.set_continuation_preserved_embedder_data(none.into());
}

/// Whether a request began what runs.
pub fn in_request(scope: &v8::PinScope<'_, '_>) -> bool {
    scope.get_continuation_preserved_embedder_data().is_true()
}

/// `ops.enter_request()`: a timer that a request started fires. The event loop ends it.
pub(crate) fn enter_request_op(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    enter_request(scope);
}
