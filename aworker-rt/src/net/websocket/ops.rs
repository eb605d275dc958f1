//! What the built-ins call for WebSockets, by number.

use url::Url;

use super::super::driver;
use super::super::error::NetError;
use super::super::limits::MAX_WEB_SOCKETS;
use super::super::ops::{failure, id_of, latin1};
use super::super::proxy::credentials;
use super::frame::Opcode;
use super::{Closed, Handover, Message, Plan, Socket};
use crate::engine::conversions::{string, throw_type_error};
use crate::engine::in_request;

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;

fn socket(scope: Scope<'_, '_, '_>, value: v8::Local<v8::Value>) -> Option<std::rc::Rc<Socket>> {
    let id = id_of(scope, value);
    driver::get_if_used(scope).and_then(|net| net.socket(id))
}

/// `ops.socket_connect(url, protocols)`: begins to connect; the socket's number. `protocols` is
/// joined by commas.
pub(crate) fn socket_connect(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let url = latin1(scope, arguments.get(0));
    let protocols = latin1(scope, arguments.get(1));
    let Some(plan) = plan(&url, &protocols) else {
        return throw_type_error(scope, "the URL cannot be connected to");
    };
    let net = driver::get(scope);
    if net.sockets.borrow().len() >= MAX_WEB_SOCKETS {
        return throw_type_error(scope, "too many WebSockets are open");
    }
    let id = net.take_id();
    let socket = Socket::connect(&net, id, in_request(scope), plan);
    net.sockets.borrow_mut().insert(id, socket);
    driver::wake(scope);
    #[allow(clippy::cast_precision_loss)]
    result.set_double(id as f64);
}

fn plan(url: &[u8], protocols: &[u8]) -> Option<Plan> {
    let url = Url::parse(std::str::from_utf8(url).ok()?).ok()?;
    let is_secure = url.scheme() == "wss";
    let host = url.host_str()?.to_owned();
    let port = url.port_or_known_default()?;
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    };
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let protocols = String::from_utf8_lossy(protocols);
    let protocols = protocols.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let authorization = credentials(&url);
    Some(Plan { is_secure, host, port, target, protocols, authority, authorization })
}

/// The number of a socket that waits for [`adopt`]; `None` if there are too many.
pub(crate) fn expect(scope: Scope<'_, '_, '_>) -> Option<u64> {
    let net = driver::get(scope);
    if net.sockets.borrow().len() >= MAX_WEB_SOCKETS {
        return None;
    }
    let id = net.take_id();
    let socket = Socket::expect(&net, id, in_request(scope));
    net.sockets.borrow_mut().insert(id, socket);
    Some(id)
}

/// Hands the connection of a served request to its socket.
pub(crate) fn adopt(scope: Scope<'_, '_, '_>, id: u64, handover: Handover) {
    if let Some(socket) = driver::get_if_used(scope).and_then(|net| net.socket(id)) {
        socket.adopt(handover);
        driver::wake(scope);
    }
}

/// The connection of a served request was lost before it could be handed over.
pub(crate) fn abandon(scope: Scope<'_, '_, '_>, id: u64) {
    if let Some(socket) = driver::get_if_used(scope).and_then(|net| net.socket(id)) {
        socket.abandon();
        driver::wake(scope);
    }
}

/// `ops.socket_protocol(id)`: the protocol that was agreed on.
pub(crate) fn socket_protocol(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let protocol = socket(scope, arguments.get(0)).map(|socket| socket.protocol()).unwrap_or_default();
    result.set(string(scope, &protocol).into());
}

/// `ops.socket_extensions(id)`: the extensions that were agreed on.
pub(crate) fn socket_extensions(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let extensions = socket(scope, arguments.get(0)).map_or("", |socket| socket.extensions());
    result.set(string(scope, extensions).into());
}

/// `ops.socket_send(id, data)`: queues a string or the bytes of a view.
pub(crate) fn socket_send(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Some(socket) = socket(scope, arguments.get(0)) else { return };
    let data = arguments.get(1);
    if let Ok(view) = data.try_cast::<v8::ArrayBufferView>() {
        let mut storage = [0; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
        socket.send(Opcode::Binary, view.get_contents(&mut storage));
    } else {
        socket.send(Opcode::Text, data.to_rust_string_lossy(scope).as_bytes());
    }
    driver::wake(scope);
}

/// `ops.socket_buffered(id)`: payload bytes that are not sent yet.
pub(crate) fn socket_buffered(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let buffered = socket(scope, arguments.get(0)).map_or(0, |socket| socket.buffered());
    #[allow(clippy::cast_precision_loss)]
    result.set_double(buffered as f64);
}

/// `ops.socket_next(id)`: the next message, a string or a Uint8Array; undefined if there is none.
pub(crate) fn socket_next(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let message = socket(scope, arguments.get(0)).and_then(|socket| socket.next());
    match message {
        Some(Message::Text(text)) => {
            if let Some(text) = v8::String::new(scope, &text) {
                result.set(text.into());
            }
        }
        Some(Message::Binary(bytes)) => result.set(crate::web::bytes::uint8_array(scope, bytes).into()),
        None => {}
    }
    driver::wake(scope);
}

/// `ops.socket_close(id, code, reason)`: begins the closing handshake; `code` may be undefined.
pub(crate) fn socket_close(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Some(socket) = socket(scope, arguments.get(0)) else { return };
    let reason = arguments.get(2).to_rust_string_lossy(scope);
    let code = arguments.get(1);
    let code = if code.is_undefined() { None } else { code.uint32_value(scope) };
    let close = code.and_then(|code| u16::try_from(code).ok()).map(|code| (code, reason.as_str()));
    socket.close(close);
    driver::wake(scope);
}

/// `ops.socket_abandon(id)`: gives up a connection that has not been made.
pub(crate) fn socket_abandon(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    abandon(scope, id);
}

/// `ops.socket_closed(id)`: `[code, reason, was clean, failure]` of one that has ended, and forgets
/// it; `failure` is `[code, text]` or undefined.
pub(crate) fn socket_closed(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let known = driver::get_if_used(scope).and_then(|net| net.sockets.borrow_mut().remove(&id));
    let lost = || Closed {
        code: 1006,
        reason: String::new(),
        was_clean: false,
        failure: Some(NetError::new("ECONNABORTED", "the connection did not survive a fork")),
    };
    let closed = known.and_then(|socket| socket.closed()).unwrap_or_else(lost);
    let code = v8::Integer::new(scope, i32::from(closed.code)).into();
    let reason = string(scope, &closed.reason).into();
    let clean = v8::Boolean::new(scope, closed.was_clean).into();
    let why = match &closed.failure {
        Some(error) => failure(scope, error),
        None => v8::undefined(scope).into(),
    };
    result.set(v8::Array::new_with_elements(scope, &[code, reason, clean, why]).into());
}
