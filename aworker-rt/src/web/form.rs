//! application/x-www-form-urlencoded, for URLSearchParams and FormData.
//! <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>

use url::form_urlencoded;

use super::bytes;
use super::multipart::MAX_PARTS;

/// `ops.form_parse(text)`: an array of names and values in turn.
pub(crate) fn form_parse(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let text = arguments.get(0).to_rust_string_lossy(scope);
    let mut list = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let (Some(name), Some(value)) = (v8::String::new(scope, &name), v8::String::new(scope, &value))
        else {
            return;
        };
        list.push(name.into());
        list.push(value.into());
    }
    result.set(v8::Array::new_with_elements(scope, &list).into());
}

/// `ops.form_parse_bytes(view)`: as `form_parse`, for a request's body; undefined
/// if it has more than [`MAX_PARTS`] pairs.
pub(crate) fn form_parse_bytes(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let list = bytes::read(arguments.get(0), |bytes| {
        let mut list = Vec::new();
        for (name, value) in form_urlencoded::parse(bytes) {
            if list.len() == 2 * MAX_PARTS {
                return None;
            }
            list.push(v8::String::new(scope, &name)?.into());
            list.push(v8::String::new(scope, &value)?.into());
        }
        Some(list)
    });
    if let Some(Some(list)) = list {
        result.set(v8::Array::new_with_elements(scope, &list).into());
    }
}

/// `ops.form_serialize(list)`: the text of an array of names and values in turn.
pub(crate) fn form_serialize(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Ok(list) = arguments.get(0).try_cast::<v8::Array>() else {
        return;
    };
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    for index in (0..list.length()).step_by(2) {
        let (Some(name), Some(value)) = (list.get_index(scope, index), list.get_index(scope, index + 1))
        else {
            return;
        };
        serializer.append_pair(&name.to_rust_string_lossy(scope), &value.to_rust_string_lossy(scope));
    }
    if let Some(text) = v8::String::new(scope, &serializer.finish()) {
        result.set(text.into());
    }
}
