//! What the built-ins call: exchanges by number, bodies by pieces.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256, Sha384, Sha512};
use url::Url;

use super::error::NetError;
use super::exchange::{Exchange, Plan, PlannedBody, Pulled};
use super::limits::{MAX_EXCHANGES, MAX_REQUEST_HEADERS};
use super::pool::{Choice, Origin};
use super::{FileUrls, data_url, driver};
use crate::engine::conversions::{string, throw_type_error};
use crate::engine::in_request;

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;

/// A script's number of something; one that does not exist if the value is none.
pub(super) fn id_of(scope: Scope<'_, '_, '_>, value: v8::Local<v8::Value>) -> u64 {
    value.integer_value(scope).and_then(|id| u64::try_from(id).ok()).unwrap_or(0)
}

/// The characters of a string as bytes; characters beyond U+00FF have no place in what is asked for.
pub(super) fn latin1(scope: Scope<'_, '_, '_>, value: v8::Local<v8::Value>) -> Vec<u8> {
    let Ok(text) = value.try_cast::<v8::String>() else { return Vec::new() };
    let mut bytes = vec![0; text.length()];
    text.write_one_byte_v2(scope, 0, &mut bytes, v8::WriteFlags::empty());
    bytes
}

/// The bytes of a view or the UTF-8 of a string.
fn body_bytes(scope: Scope<'_, '_, '_>, value: v8::Local<v8::Value>) -> Option<Bytes> {
    if let Ok(view) = value.try_cast::<v8::ArrayBufferView>() {
        let mut bytes = vec![0; view.byte_length()];
        view.copy_contents(&mut bytes);
        return Some(bytes.into());
    }
    value.is_string().then(|| value.to_rust_string_lossy(scope).into_bytes().into())
}

/// An array of the code and the text of a failure.
pub(super) fn failure<'s>(scope: Scope<'_, 's, '_>, error: &NetError) -> v8::Local<'s, v8::Value> {
    let code = string(scope, error.code()).into();
    let text = string(scope, &error.to_string()).into();
    v8::Array::new_with_elements(scope, &[code, text]).into()
}

/// `ops.net_fetch(method, url, fields, body, alone)`: begins an exchange; its number. `fields` is name LF
/// value LF ..., `body` undefined, a string, a view, or true for a stream; `alone` asks for a connection of its own.
pub(crate) fn net_fetch(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let body = match arguments.get(3) {
        body if body.is_true() => PlannedBody::Stream,
        body => body_bytes(scope, body).map_or(PlannedBody::None, PlannedBody::Whole),
    };
    let method = latin1(scope, arguments.get(0));
    let url = latin1(scope, arguments.get(1));
    let fields = latin1(scope, arguments.get(2));
    let plan = match plan(&method, &url, &fields, body) {
        Ok(plan) if arguments.get(4).is_true() => Plan { connection: Choice::New, ..plan },
        Ok(plan) => plan,
        Err(text) => return throw_type_error(scope, text),
    };
    let net = driver::get(scope);
    if net.exchanges.borrow().len() >= MAX_EXCHANGES {
        return throw_type_error(scope, "too many fetches are in flight");
    }
    let id = net.take_id();
    let exchange = Exchange::begin(&net, id, in_request(scope), plan);
    net.exchanges.borrow_mut().insert(id, exchange);
    driver::wake(scope);
    #[allow(clippy::cast_precision_loss)]
    result.set_double(id as f64);
}

fn plan(method: &[u8], url: &[u8], fields: &[u8], body: PlannedBody) -> Result<Plan, &'static str> {
    let method = Method::from_bytes(method).map_err(|_| "the method cannot be sent")?;
    let url =
        std::str::from_utf8(url).ok().and_then(|url| Url::parse(url).ok()).ok_or("the URL is not valid")?;
    let host = url.host_str().ok_or("the URL has no host")?.to_owned();
    let port = url.port_or_known_default().ok_or("the URL has no port")?;
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut headers = HeaderMap::new();
    let mut lines = fields.split(|byte| *byte == b'\n');
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        let name = HeaderName::from_bytes(name).map_err(|_| "a header's name cannot be sent")?;
        let value = HeaderValue::from_bytes(value).map_err(|_| "a header's value cannot be sent")?;
        if headers.len() >= MAX_REQUEST_HEADERS {
            return Err("the request has too many headers");
        }
        headers.append(name, value);
    }
    let origin = Origin { is_secure: url.scheme() == "https", host, port };
    Ok(Plan { origin, connection: Choice::Any, target, method, headers, body })
}

/// `ops.net_head(id)`: `[status, reason, name, value, ...]` of a response, once.
pub(crate) fn net_head(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let head = driver::get_if_used(scope).and_then(|net| net.exchange(id)).and_then(|it| it.take_head());
    let Some(head) = head else { return };
    let mut items: Vec<v8::Local<v8::Value>> = Vec::with_capacity(2 + 2 * head.headers.len());
    items.push(v8::Integer::new(scope, i32::from(head.status)).into());
    let mut push = |bytes: &[u8], kind| {
        let text = v8::String::new_from_one_byte(scope, bytes, kind).expect("heads are short");
        items.push(text.into());
    };
    push(&head.reason, v8::NewStringType::Normal);
    for (name, value) in &head.headers {
        push(name.as_str().as_bytes(), v8::NewStringType::Internalized);
        push(value.as_bytes(), v8::NewStringType::Normal);
    }
    result.set(v8::Array::new_with_elements(scope, &items).into());
}

/// `ops.net_failure(id)`: `[code, text]` of what failed.
pub(crate) fn net_failure(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let known = driver::get_if_used(scope).and_then(|net| net.exchange(id)).and_then(|it| it.failure());
    // An exchange that is not known any more was begun in another process.
    let lost = || NetError::new("ECONNABORTED", "it was in flight when the seed was forked");
    let error = known.unwrap_or_else(lost);
    let value = failure(scope, &error);
    result.set(value);
}

/// `ops.net_pull(id)`: a Uint8Array; true at the end; `[code, text]` if the body failed; undefined
/// if a `Body` event will tell when to ask again.
pub(crate) fn net_pull(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let exchange = driver::get_if_used(scope).and_then(|net| net.exchange(id));
    let pulled = match exchange {
        Some(exchange) => exchange.pull(),
        None => Pulled::Failed(NetError::new("ECONNABORTED", "the connection did not survive a fork")),
    };
    match pulled {
        Pulled::Bytes(bytes) => {
            driver::wake(scope);
            let bytes = crate::web::bytes::uint8_array(scope, bytes);
            result.set(bytes.into());
        }
        Pulled::End => result.set_bool(true),
        Pulled::Failed(error) => {
            let value = failure(scope, &error);
            result.set(value);
        }
        // The loop must live until it comes.
        Pulled::Later => driver::wake(scope),
    }
}

/// `ops.net_await_end(id)`: somebody waits for the end of the body without reading it. A `Body` event tells once it is
/// there and all before it has been taken.
pub(crate) fn net_await_end(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    if let Some(exchange) = driver::get_if_used(scope).and_then(|net| net.exchange(id)) {
        exchange.await_end();
        driver::wake(scope);
    }
}

/// `ops.net_push(id, view)`: a piece of the request's body. 0: go on; 1: wait for a `Room` event;
/// 2: nobody wants it.
pub(crate) fn net_push(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    const GO_ON: u32 = 0;
    const WAIT: u32 = 1;
    const UNWANTED: u32 = 2;
    let id = id_of(scope, arguments.get(0));
    let bytes = body_bytes(scope, arguments.get(1)).unwrap_or_default();
    let exchange = driver::get_if_used(scope).and_then(|net| net.exchange(id));
    result.set_uint32(match exchange.filter(|exchange| exchange.wants_upload()) {
        None => UNWANTED,
        Some(exchange) if exchange.push(bytes) => GO_ON,
        Some(_) => WAIT,
    });
    driver::wake(scope);
}

/// `ops.net_end(id)`: the request's body is complete.
pub(crate) fn net_end(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    if let Some(exchange) = driver::get_if_used(scope).and_then(|net| net.exchange(id)) {
        exchange.end_upload();
        driver::wake(scope);
    }
}

/// `ops.net_discard(id)`: nobody reads the body of this exchange.
pub(crate) fn net_discard(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    if let Some(exchange) = driver::get_if_used(scope).and_then(|net| net.exchange(id)) {
        exchange.discard();
        driver::wake(scope);
    }
}

/// `ops.net_drop(id)`: nobody wants this exchange any more; one that has not ended is cut off.
pub(crate) fn net_drop(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let Some(net) = driver::get_if_used(scope) else { return };
    let exchange = net.exchanges.borrow_mut().remove(&id);
    if let Some(exchange) = exchange {
        exchange.abandon();
        driver::wake(scope);
    }
}

/// `ops.net_digest(algorithm, view)`: a digest in base64, for `integrity`.
pub(crate) fn net_digest(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    use base64::Engine as _;
    let bytes = body_bytes(scope, arguments.get(1)).unwrap_or_default();
    let digest = match latin1(scope, arguments.get(0)).as_slice() {
        b"sha256" => Sha256::digest(&bytes).to_vec(),
        b"sha384" => Sha384::digest(&bytes).to_vec(),
        _ => Sha512::digest(&bytes).to_vec(),
    };
    let text = base64::engine::general_purpose::STANDARD.encode(digest);
    result.set(string(scope, &text).into());
}

/// `ops.net_data_url(url)`: `[type, bytes]` of a `data:` URL, undefined if it is none.
pub(crate) fn net_data_url(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let url = latin1(scope, arguments.get(0));
    let Some((kind, bytes)) = std::str::from_utf8(&url).ok().and_then(data_url::parse) else { return };
    let kind = string(scope, &kind).into();
    let bytes = crate::web::bytes::uint8_array(scope, bytes).into();
    result.set(v8::Array::new_with_elements(scope, &[kind, bytes]).into());
}

/// `ops.net_file_path(url)`: the path that a `file:` URL means, or `[code, text]`. Refused unless the
/// worker may read files so.
pub(crate) fn net_file_path(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let url = latin1(scope, arguments.get(0));
    let path = std::str::from_utf8(&url).ok().and_then(|url| Url::parse(url).ok()?.to_file_path().ok());
    let allowed = driver::get(scope).options.file_urls;
    let path = match (allowed, path.as_ref().and_then(|path| path.to_str())) {
        (FileUrls::Refused, _) => Err(NetError::new(
            "EACCES",
            "file: URLs are not allowed (aworker --allow-file-fetch allows them)",
        )),
        (FileUrls::Allowed, None) => Err(NetError::new("ERR_INVALID_URL", "the URL names no file")),
        (FileUrls::Allowed, Some(path)) => Ok(path),
    };
    match path {
        Ok(path) => result.set(string(scope, path).into()),
        Err(error) => {
            let value = failure(scope, &error);
            result.set(value);
        }
    }
}
