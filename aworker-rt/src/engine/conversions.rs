//! Between Rust and JavaScript values: the few conversions every room needs.

/// A JavaScript string. Panics if it is longer than V8 allows (about 500 MB).
pub fn string<'s>(scope: &v8::PinScope<'s, '_, ()>, text: &str) -> v8::Local<'s, v8::String> {
    v8::String::new(scope, text).expect("the text fits into a JavaScript string")
}

/// Throws a `TypeError` in JavaScript; the operation must return at once.
pub fn throw_type_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    let message = string(scope, message);
    let error = v8::Exception::type_error(scope, message);
    scope.throw_exception(error);
}

/// Throws a `SyntaxError` in JavaScript; the operation must return at once.
pub fn throw_syntax_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    let message = string(scope, message);
    let error = v8::Exception::syntax_error(scope, message);
    scope.throw_exception(error);
}

/// Throws a `RangeError` in JavaScript; the operation must return at once.
pub fn throw_range_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    let message = string(scope, message);
    let error = v8::Exception::range_error(scope, message);
    scope.throw_exception(error);
}

/// Throws an `Error` in JavaScript; the operation must return at once.
pub fn throw_error(scope: &mut v8::PinScope<'_, '_>, message: &str) {
    let message = string(scope, message);
    let error = v8::Exception::error(scope, message);
    scope.throw_exception(error);
}

/// The named property of an object, if it is there and reading it does not throw.
pub fn get<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    name: &str,
) -> Option<v8::Local<'s, v8::Value>> {
    let key = string(scope, name);
    object.get(scope, key.into())
}

/// Sets the named property of an object that has no setter for it.
pub fn set(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<v8::Object>,
    name: &str,
    value: v8::Local<v8::Value>,
) {
    let key = string(scope, name);
    object.create_data_property(scope, key.into(), value);
}
