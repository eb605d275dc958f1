//! What `console` must know of a value and JavaScript cannot find out without
//! running user code: kinds, proxies, promises, entries of iterators.

use super::bytes;

/// A kind of object, numbered as in `30_inspect.js`.
#[repr(i32)]
#[derive(Clone, Copy)]
enum Kind {
    Object = 0,
    Proxy = 1,
    Map = 2,
    Set = 3,
    Weak = 4,
    Promise = 5,
    Date = 6,
    RegExp = 7,
    Error = 8,
    ArrayBuffer = 9,
    DataView = 10,
    Boxed = 11,
    Arguments = 12,
    Iterator = 13,
    Namespace = 14,
    Generator = 15,
}

fn kind(value: v8::Local<v8::Value>) -> Kind {
    match () {
        () if value.is_proxy() => Kind::Proxy,
        () if value.is_map() => Kind::Map,
        () if value.is_set() => Kind::Set,
        () if value.is_weak_map() || value.is_weak_set() => Kind::Weak,
        () if value.is_promise() => Kind::Promise,
        () if value.is_date() => Kind::Date,
        () if value.is_reg_exp() => Kind::RegExp,
        () if value.is_native_error() => Kind::Error,
        () if value.is_array_buffer() || value.is_shared_array_buffer() => Kind::ArrayBuffer,
        () if value.is_data_view() => Kind::DataView,
        () if is_boxed(value) => Kind::Boxed,
        () if value.is_arguments_object() => Kind::Arguments,
        () if value.is_map_iterator() || value.is_set_iterator() => Kind::Iterator,
        () if value.is_module_namespace_object() => Kind::Namespace,
        () if value.is_generator_object() => Kind::Generator,
        () => Kind::Object,
    }
}

fn is_boxed(value: v8::Local<v8::Value>) -> bool {
    value.is_string_object()
        || value.is_number_object()
        || value.is_boolean_object()
        || value.is_symbol_object()
        || value.is_big_int_object()
}

/// `ops.value_kind(value)`: the number of its [`Kind`].
pub(crate) fn value_kind(
    _: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    result.set_int32(kind(arguments.get(0)) as i32);
}

/// `ops.is_proxy(value)`.
pub(crate) fn is_proxy(
    _: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    result.set_bool(arguments.get(0).is_proxy());
}

/// `ops.is_shared_array_buffer(value)`.
pub(crate) fn is_shared_array_buffer(
    _: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    result.set_bool(arguments.get(0).is_shared_array_buffer());
}

/// `ops.proxy_target(proxy)`: null once it is revoked.
pub(crate) fn proxy_target(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    if let Ok(proxy) = arguments.get(0).try_cast::<v8::Proxy>() {
        result.set(proxy.get_target(scope));
    }
}

/// `ops.prototype_of(object)`: its prototype, null for a proxy: no trap runs.
pub(crate) fn prototype_of(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let value = arguments.get(0);
    let object = value.try_cast::<v8::Object>().ok().filter(|_| !value.is_proxy());
    match object.and_then(|object| object.get_prototype(scope)) {
        Some(prototype) => result.set(prototype),
        None => result.set_null(),
    }
}

/// `ops.promise_details(promise)`: `[state, result]`; 0 pending, 1 fulfilled, 2 rejected.
pub(crate) fn promise_details(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Ok(promise) = arguments.get(0).try_cast::<v8::Promise>() else {
        return;
    };
    let (state, value) = match promise.state() {
        v8::PromiseState::Pending => (0, v8::undefined(scope).into()),
        v8::PromiseState::Fulfilled => (1, promise.result(scope)),
        v8::PromiseState::Rejected => (2, promise.result(scope)),
    };
    let state = v8::Integer::new(scope, state).into();
    result.set(v8::Array::new_with_elements(scope, &[state, value]).into());
}

/// `ops.preview_entries(value)`: `[entries, are_pairs]` of a Map, Set or one of
/// their iterators, without moving it; undefined for other values.
pub(crate) fn preview_entries(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let value = arguments.get(0);
    if !matches!(kind(value), Kind::Map | Kind::Set | Kind::Iterator) {
        return;
    }
    let (Some(entries), are_pairs) = value.cast::<v8::Object>().preview_entries(scope) else {
        return;
    };
    let are_pairs = v8::Boolean::new(scope, are_pairs).into();
    result.set(v8::Array::new_with_elements(scope, &[entries.into(), are_pairs]).into());
}

/// `ops.error_stack(error)`: its stack with the places of the sources, undefined if reading it throws.
pub(crate) fn error_stack(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Ok(error) = arguments.get(0).try_cast::<v8::Object>() else {
        return;
    };
    v8::tc_scope!(let scope, scope);
    let key = crate::engine::conversions::string(scope, "stack");
    let Some(stack) = error.get(scope, key.into()) else {
        return;
    };
    let text = stack.is_string().then(|| stack.to_rust_string_lossy(scope));
    match text.and_then(|text| crate::engine::with_original_places(scope, &text)) {
        Some(rewritten) => result.set(crate::engine::conversions::string(scope, &rewritten).into()),
        None => result.set(stack),
    }
}

/// `ops.buffer_preview(buffer, limit)`: the first bytes in hexadecimal, undefined if it is detached.
pub(crate) fn buffer_preview(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let limit = arguments.get(1).uint32_value(scope).unwrap_or(0);
    let Some(bytes) = first_bytes(arguments.get(0), usize::try_from(limit).unwrap_or(0)) else {
        return;
    };
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(text) = v8::String::new(scope, &text.join(" ")) {
        result.set(text.into());
    }
}

fn first_bytes(value: v8::Local<v8::Value>, limit: usize) -> Option<Vec<u8>> {
    if let Ok(buffer) = value.try_cast::<v8::ArrayBuffer>() {
        if buffer.was_detached() {
            return None;
        }
        return Some(buffer.get_backing_store().iter().take(limit).map(|cell| cell.get()).collect());
    }
    if let Ok(buffer) = value.try_cast::<v8::SharedArrayBuffer>() {
        return Some(buffer.get_backing_store().iter().take(limit).map(|cell| cell.get()).collect());
    }
    bytes::read(value, |bytes| bytes.iter().take(limit).copied().collect())
}

/// `ops.buffer_length(buffer)`: bytes of an ArrayBuffer or SharedArrayBuffer.
pub(crate) fn buffer_length(
    _: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let value = arguments.get(0);
    let length = if let Ok(buffer) = value.try_cast::<v8::ArrayBuffer>() {
        buffer.byte_length()
    } else if let Ok(buffer) = value.try_cast::<v8::SharedArrayBuffer>() {
        buffer.byte_length()
    } else {
        0
    };
    result.set_double(length as f64);
}

/// `ops.version()`: the version of Aworker.
pub(crate) fn version(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    result.set(crate::engine::conversions::string(scope, env!("CARGO_PKG_VERSION")).into());
}

/// `ops.default_locale()`: the locale of `Intl`, as a language tag.
pub(crate) fn default_locale(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let tag = v8::icu::get_language_tag();
    // The locale of C and POSIX is English, as in V8.
    let tag = if tag.is_empty() || tag.ends_with("posix") { "en-US" } else { &tag };
    result.set(crate::engine::conversions::string(scope, tag).into());
}

/// `ops.named_keys(object)`: its own keys but indices, which a long list has too many of.
pub(crate) fn named_keys(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Ok(object) = arguments.get(0).try_cast::<v8::Object>() else {
        return;
    };
    let which = v8::GetPropertyNamesArgsBuilder::new()
        .mode(v8::KeyCollectionMode::OwnOnly)
        .property_filter(v8::PropertyFilter::ALL_PROPERTIES)
        .index_filter(v8::IndexFilter::SkipIndices)
        .key_conversion(v8::KeyConversionMode::ConvertToString)
        .build();
    if let Some(keys) = object.get_property_names(scope, which) {
        result.set(keys.into());
    }
}
