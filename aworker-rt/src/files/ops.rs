//! What JavaScript calls: operations that give a value at once or a promise of it.

use nix::sys::stat::SFlag;

use super::job::{Failure, Goal, Job, Outcome, kind};
use super::{Begun, begin, files, list};
use crate::engine::conversions::{self, string};
use crate::engine::{Access, Look};
use crate::web::bytes;

/// Most bytes of one piece of a stream.
const MAX_PIECE_BYTES: u32 = 1 << 20;

/// `ops.file_bytes(path)`: a Uint8Array of the whole file.
pub(crate) fn file_bytes(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let path = arguments.get(0).to_rust_string_lossy(scope);
    answer(scope, Job::on_path(Goal::Bytes, &path, Access::Read), &mut result);
}

/// `ops.file_open(path)`: `[handle, size]` of a regular file.
pub(crate) fn file_open(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let path = arguments.get(0).to_rust_string_lossy(scope);
    answer(scope, Job::on_path(Goal::Handle, &path, Access::Read), &mut result);
}

/// `ops.file_read(handle, path for messages, offset, length)`: a Uint8Array, empty at the end.
pub(crate) fn file_read(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let handle = arguments.get(0).uint32_value(scope);
    let Some(file) = handle.and_then(|handle| files(scope).open.get(&handle).cloned()) else {
        return conversions::throw_type_error(scope, "file_read: the file is closed");
    };
    let path = arguments.get(1).to_rust_string_lossy(scope);
    let offset = arguments.get(2).integer_value(scope).and_then(|offset| u64::try_from(offset).ok());
    let length = arguments.get(3).uint32_value(scope).unwrap_or(0).clamp(1, MAX_PIECE_BYTES);
    answer(scope, Job::on_file(file, &path, offset.unwrap_or(0), length as usize), &mut result);
}

/// `ops.file_close(handle)`.
pub(crate) fn file_close(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    if let Some(handle) = arguments.get(0).uint32_value(scope) {
        files(scope).open.remove(&handle);
    }
}

/// `ops.file_stat(path, follow)`: `[kind, size, modified in milliseconds, mode]`.
pub(crate) fn file_stat(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let path = arguments.get(0).to_rust_string_lossy(scope);
    let access = if arguments.get(1).is_true() { Access::Look } else { Access::LookAtLink };
    answer(scope, Job::on_path(Goal::Stat, &path, access), &mut result);
}

/// `ops.file_list(path)`: names and kinds in turn, sorted by name, or a promise of them.
pub(crate) fn file_list(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let path = arguments.get(0).to_rust_string_lossy(scope);
    match list::begin(scope, &path) {
        Ok(value) => result.set(value),
        Err(failure) => {
            let error = error_value(scope, &failure);
            scope.throw_exception(error);
        }
    }
}

/// Returns or throws what a job came to, or returns a promise of it.
fn answer(scope: &mut v8::PinScope<'_, '_>, job: Job, result: &mut v8::ReturnValue) {
    match begin(scope, job) {
        Begun::Promise(promise) => result.set(promise.into()),
        Begun::Done(outcome) => match to_value(scope, outcome) {
            Ok(value) => result.set(value),
            Err(error) => {
                scope.throw_exception(error);
            }
        },
    }
}

/// A job's outcome for JavaScript: a value, or an Error with a `code`.
pub(super) fn to_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    outcome: Result<Outcome, Failure>,
) -> Result<v8::Local<'s, v8::Value>, v8::Local<'s, v8::Value>> {
    match outcome {
        Ok(Outcome::Bytes(contents)) => Ok(bytes::uint8_array(scope, contents).into()),
        Ok(Outcome::Stat(stat)) => Ok(stat_value(scope, stat)),
        Ok(Outcome::File { file, size }) => match files(scope).insert(file) {
            Some(handle) => {
                let handle = v8::Integer::new_from_unsigned(scope, handle).into();
                #[allow(clippy::cast_precision_loss)]
                let size = v8::Number::new(scope, size as f64).into();
                Ok(v8::Array::new_with_elements(scope, &[handle, size]).into())
            }
            None => Err(error_value(
                scope,
                &Failure { code: libc::EMFILE, text: "open a file: too many are open".to_owned() },
            )),
        },
        Err(failure) => Err(error_value(scope, &failure)),
    }
}

#[allow(clippy::cast_precision_loss)]
fn stat_value<'s>(scope: &mut v8::PinScope<'s, '_>, look: Look) -> v8::Local<'s, v8::Value> {
    let kind = match kind(look.mode) {
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFLNK => "symlink",
        _ => "other",
    };
    let modified_ms = look.modified.0 as f64 * 1e3 + f64::from(look.modified.1 / 1_000_000);
    let numbers = [look.size as f64, modified_ms, f64::from(look.mode & 0o7777)];
    let [size, modified, mode] = numbers.map(|number| v8::Number::new(scope, number).into());
    let kind = string(scope, kind).into();
    v8::Array::new_with_elements(scope, &[kind, size, modified, mode]).into()
}

pub(super) fn error_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    failure: &Failure,
) -> v8::Local<'s, v8::Value> {
    let text = string(scope, &failure.text);
    let error = v8::Exception::error(scope, text);
    if let Ok(object) = error.try_cast::<v8::Object>() {
        let code = string(scope, &format!("{:?}", nix::errno::Errno::from_raw(failure.code))).into();
        conversions::set(scope, object, "code", code);
    }
    error
}
