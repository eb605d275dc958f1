//! A request that becomes a WebSocket: RFC 6455, section 4.2. The connection leaves the server with
//! the response's head still to be sent.

use std::os::fd::AsFd;

use http::header::{HeaderName, HeaderValue};

use super::head::{BodyFraming, Head, HeaderSpans};
use super::server::{self, Client, RequestId};
use super::supervised;
use crate::event_loop;
use crate::net::websocket::{self, Handover, deflate, handshake};

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;

/// How far a request is on its way to a WebSocket.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// It may become one; the value of `Sec-WebSocket-Accept`, and whether messages will be compressed.
    Possible { accept: String, deflates: bool },
    /// It becomes this socket as soon as the server lets go of it, with this head.
    Begun { socket: u64, head: Vec<u8>, deflates: bool },
}

/// Fields that the handshake itself writes, or that have no place in it.
const OWN_FIELDS: &[&str] = &[
    "connection",
    "content-length",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "transfer-encoding",
    "upgrade",
];

/// Whether a request asks for a WebSocket, and does so correctly.
pub(super) fn possible(head: &Head, bytes: &[u8], headers: &HeaderSpans) -> Option<Box<Upgrade>> {
    let key = head.websocket_key?.get(bytes);
    let values = |name: &'static [u8]| {
        headers
            .iter()
            .filter(move |(field, _)| field.get(bytes).eq_ignore_ascii_case(name))
            .map(|(_, value)| value.get(bytes))
    };
    let has_token = |name, token: &[u8]| {
        values(name).any(|value| {
            value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
        })
    };
    let is_asked_for = head.method.get(bytes) == b"GET"
        && head.minor == 1
        && head.framing == BodyFraming::None
        && has_token(b"upgrade", b"websocket")
        && has_token(b"connection", b"upgrade")
        && values(b"sec-websocket-version").eq([b"13".as_slice()])
        && values(b"sec-websocket-key").count() == 1
        && handshake::is_key(key);
    is_asked_for.then(|| {
        let offers: Vec<_> = values(b"sec-websocket-extensions").map(String::from_utf8_lossy).collect();
        let deflates = deflate::accepts(&offers.join(","));
        Box::new(Upgrade::Possible { accept: handshake::accept_value(key), deflates })
    })
}

/// `ops.http_upgrade(id, fields)`: the number of the socket that the request becomes; undefined if
/// it cannot. `fields` is name LF value LF ...
pub(crate) fn http_upgrade(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = RequestId::from_number(arguments.get(0).number_value(scope).unwrap_or(-1.0));
    let fields = arguments.get(1).to_rust_string_lossy(scope);
    let may_respond = |client: &&mut Client| client.machine.may_respond() && client.transport.is_some();
    let Some(client) = server::get(scope).answering(id).filter(may_respond) else { return };
    let Some(Upgrade::Possible { accept, deflates }) = client.upgrade.as_deref() else { return };
    let deflates = *deflates;
    let Some(head) = response_head(accept, deflates, &fields) else { return };
    let Some(socket) = websocket::ops::expect(scope) else { return };
    let server = server::get(scope);
    if let Some(client) = server.exchange(id) {
        client.upgrade = Some(Box::new(Upgrade::Begun { socket, head, deflates }));
        client.told_gone = true;
        server.kick(id.place);
    }
    #[allow(clippy::cast_precision_loss)]
    result.set_double(socket as f64);
}

/// The head of the response; none if a field cannot be sent.
fn response_head(accept: &str, deflates: bool, fields: &str) -> Option<Vec<u8>> {
    let mut head =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_vec();
    head.extend_from_slice(format!("Sec-WebSocket-Accept: {accept}\r\n").as_bytes());
    if deflates {
        head.extend_from_slice(format!("Sec-WebSocket-Extensions: {}\r\n", deflate::AGREED).as_bytes());
    }
    let mut lines = fields.split('\n');
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        let name = HeaderName::try_from(name).ok()?;
        let value = HeaderValue::try_from(value).ok()?;
        if !OWN_FIELDS.contains(&name.as_str()) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// Gives the connection of a place to its socket, if its request has become one.
pub(super) fn hand_over(scope: Scope<'_, '_, '_>, place: usize) -> bool {
    let Some(client) = server::get(scope).client(place) else { return false };
    if !matches!(client.upgrade.as_deref(), Some(Upgrade::Begun { .. })) {
        return false;
    }
    let Some(mut client) = super::serve::release(scope, place) else { return false };
    let (upgrade, transport) = (client.upgrade.take(), client.transport.take());
    let (Some(Upgrade::Begun { socket, head, deflates }), Some(transport)) =
        (upgrade.map(|upgrade| *upgrade), transport)
    else {
        return false;
    };
    // It is a request in flight no longer.
    server::get(scope).show_gauges();
    supervised::balance(scope);
    if client.broken {
        websocket::ops::abandon(scope, socket);
        return true;
    }
    event_loop::get(scope).reactor().deregister(transport.token, transport.fd.as_fd());
    let leftover = std::mem::take(&mut client.leftover);
    websocket::ops::adopt(scope, socket, Handover { fd: transport.fd, head, deflates, leftover });
    true
}
