//! What a JavaScript exception looks like to a person: the place, the source
//! line with a caret, the message and the stack.

use std::fmt;

use super::source_maps;
use crate::typescript::Refusal;

/// Frames kept of an exception's stack.
pub(super) const STACK_FRAMES: i32 = 50;

/// Longest source line that is quoted; minified bundles have lines of megabytes.
const MAX_QUOTED_COLUMNS: usize = 160;

/// An exception nobody caught, described for a person.
#[derive(Clone, Debug)]
pub struct ScriptError {
    text: String,
}

impl ScriptError {
    /// An error that has no JavaScript exception behind it.
    pub fn new(text: impl Into<String>) -> ScriptError {
        ScriptError { text: text.into() }
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for ScriptError {}

/// A try-catch scope around a handle scope.
pub type CatchScope<'a, 'b, 'c, 'd> = v8::PinnedRef<'a, v8::TryCatch<'b, 'c, v8::HandleScope<'d>>>;

/// Describes what the try-catch scope caught.
pub fn caught(scope: &mut CatchScope<'_, '_, '_, '_>) -> ScriptError {
    let Some(exception) = scope.exception() else {
        return ScriptError::new("JavaScript was terminated");
    };
    match scope.message() {
        Some(message) => describe(scope, exception, message),
        None => uncaught(scope, exception),
    }
}

/// Describes a source that is refused before V8 sees it.
pub(super) fn refused(file: &str, refusal: &Refusal) -> ScriptError {
    let Refusal { line, column, reason, text } = refusal;
    let excerpt = quoted(format!("{file}:{line}:{column}\n"), text, column - 1, 1);
    ScriptError::new(format!("{excerpt}Uncaught SyntaxError: {file}:{line}:{column}: {reason}"))
}

/// Describes an exception that was kept as a value, for instance the reason of
/// a rejected promise.
pub fn uncaught(scope: &mut v8::PinScope<'_, '_>, exception: v8::Local<v8::Value>) -> ScriptError {
    let message = v8::Exception::create_message(scope, exception);
    describe(scope, exception, message)
}

/// Describes the reason of a promise that was rejected without a handler.
pub fn rejected(scope: &mut v8::PinScope<'_, '_>, reason: v8::Local<v8::Value>) -> ScriptError {
    let ScriptError { text } = uncaught(scope, reason);
    ScriptError { text: text.replacen("Uncaught ", "Uncaught (in promise) ", 1) }
}

/// `ops.error_location(error)`: `[file, line, column]` of an exception, counted
/// from 1, as far as V8 knows them.
pub(crate) fn error_location(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let message = v8::Exception::create_message(scope, arguments.get(0));
    let file = message.get_script_resource_name(scope).filter(|name| name.is_string());
    let file = file.unwrap_or_else(|| v8::String::empty(scope).into());
    let line = u32::try_from(message.get_line_number(scope).unwrap_or(0)).unwrap_or(u32::MAX);
    let column = u32::try_from(message.get_start_column() + 1).unwrap_or(u32::MAX);
    // Of what is no error V8 knows only where it was looked at: the script that called the built-in is meant.
    let is_built_in = file.to_rust_string_lossy(scope).starts_with(BUILT_IN);
    let (file, line, column) = match is_built_in.then(|| caller(scope)) {
        None => (file, line, column),
        Some(Some((file, line, column))) => (file.into(), line, column),
        Some(None) => (v8::String::empty(scope).into(), 0, 0),
    };
    let line = v8::Integer::new_from_unsigned(scope, line).into();
    let column = v8::Integer::new_from_unsigned(scope, column).into();
    result.set(v8::Array::new_with_elements(scope, &[file, line, column]).into());
}

/// Scripts that are part of the runtime have names that begin so.
const BUILT_IN: &str = "aworker:";

/// Most calls that are looked through for the script's own.
const MAX_CALLS: usize = 16;

/// File, line and column of the innermost running call of the script's own.
fn caller<'scope>(scope: &mut v8::PinScope<'scope, '_>) -> Option<(v8::Local<'scope, v8::String>, u32, u32)> {
    let stack = v8::StackTrace::current_stack_trace(scope, MAX_CALLS)?;
    for index in 0..stack.get_frame_count() {
        let frame = stack.get_frame(scope, index)?;
        let Some(name) = frame.get_script_name_or_source_url(scope) else { continue };
        if !name.to_rust_string_lossy(scope).starts_with(BUILT_IN) {
            let position = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            return Some((name, position(frame.get_line_number()), position(frame.get_column())));
        }
    }
    None
}

/// Place and source excerpt, then what the exception says of itself.
fn describe(
    scope: &mut v8::PinScope<'_, '_>,
    exception: v8::Local<v8::Value>,
    message: v8::Local<v8::Message>,
) -> ScriptError {
    let excerpt = excerpt(scope, message).unwrap_or_default();
    ScriptError::new(format!("{excerpt}Uncaught {}", value_text(scope, exception)))
}

/// `file:line:column`, the line and a caret, each ended by a newline.
fn excerpt(scope: &mut v8::PinScope<'_, '_>, message: v8::Local<v8::Message>) -> Option<String> {
    let file =
        message.get_script_resource_name(scope).filter(|name| name.is_string())?.to_rust_string_lossy(scope);
    if file.starts_with(BUILT_IN) {
        return None;
    }
    let line = message.get_line_number(scope)?;
    let column = message.get_start_column();
    if let Some(place) = source_maps::original(scope, &file, line, column + 1) {
        let head = format!("{}:{}:{}\n", place.source, place.line, place.column);
        return Some(quoted(head, &place.text.unwrap_or_default(), place.column - 1, 1));
    }
    let source = message.get_source_line(scope)?.to_rust_string_lossy(scope);
    let width = message.get_end_column().saturating_sub(column);
    Some(quoted(format!("{file}:{line}:{}\n", column + 1), &source, column, width))
}

/// The place, the line and a caret below the column; a line that is too long is left out.
fn quoted(place: String, source: &str, column: usize, width: usize) -> String {
    if source.is_empty() || source.chars().count() > MAX_QUOTED_COLUMNS {
        return place;
    }
    let indent: String =
        source.chars().take(column).map(|character| if character == '\t' { '\t' } else { ' ' }).collect();
    format!("{place}{source}\n{indent}{}\n", "^".repeat(width.clamp(1, MAX_QUOTED_COLUMNS)))
}

/// The exception as `console` would show it: an error with its stack and cause,
/// any other object with its properties; a string as it is.
fn value_text(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> String {
    v8::tc_scope!(let scope, scope);
    if !value.is_string()
        && let Some(text) = super::isolate::inspect(scope, value)
    {
        return without_builtins(&text);
    }
    scope.reset();
    value.to_rust_string_lossy(scope)
}

/// The stack without the frames of built-ins, which say nothing to a script's
/// author.
fn without_builtins(stack: &str) -> String {
    let is_builtin = |line: &&str| line.trim_start().starts_with("at ") && line.contains("aworker:");
    stack.lines().filter(|line| !is_builtin(line)).collect::<Vec<_>>().join("\n")
}
