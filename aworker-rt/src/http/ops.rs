//! What the built-ins call: the parts of a request, its body, its response.
//!
//! A request is named by its number ([`RequestId`]). Its head can be read by
//! number only until the dispatch returns, because it lies in a buffer shared by
//! all connections; a request that lives longer keeps the head as a string
//! (`http_head`), and the same operations take that string.

use super::connection::Fate;
use super::head::{self, BodyFraming, Head, HeaderSpans, Parsed, Span};
use super::limits::WRITE_HIGH_WATER_BYTES;
use super::response::{BodySize, DefaultType, FieldBlock, Framing, ResponseHead};
use super::server::{self, BodyKind, Demand, RequestId};
use super::target::{self, OriginCache};
use crate::engine::conversions::throw_type_error;
use crate::engine::{is_ascii, stdio};

type Scope<'a, 's, 'i> = &'a mut v8::PinScope<'s, 'i>;

/// A new Uint8Array that owns the bytes.
pub(super) fn uint8_array<'s>(scope: Scope<'_, 's, '_>, bytes: Vec<u8>) -> v8::Local<'s, v8::Uint8Array> {
    let length = bytes.len();
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    v8::Uint8Array::new(scope, buffer, 0, length).expect("the view covers its buffer")
}

/// "UTF-8 decode" of the Encoding standard; undefined if no string is that long.
pub(super) fn decode_utf8<'s>(scope: Scope<'_, 's, '_>, bytes: &[u8]) -> v8::Local<'s, v8::Value> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // V8 decodes byte by byte; plain ASCII, the usual case, is copied.
    let kind = v8::NewStringType::Normal;
    let text = match is_ascii(bytes) {
        true => v8::String::new_from_one_byte(scope, bytes, kind),
        false => v8::String::new_from_utf8(scope, bytes, kind),
    };
    match text {
        Some(text) => text.into(),
        None => v8::undefined(scope).into(),
    }
}

fn latin1<'s>(scope: Scope<'_, 's, '_>, bytes: &[u8]) -> v8::Local<'s, v8::String> {
    v8::String::new_from_one_byte(scope, bytes, v8::NewStringType::Normal).expect("heads are short")
}

/// The bytes of a value that is such a string; none of others.
pub(super) fn latin1_of(isolate: &v8::Isolate, value: v8::Local<v8::Value>) -> Vec<u8> {
    value.try_cast::<v8::String>().map_or(Vec::new(), |text| latin1_bytes(isolate, text))
}

/// The characters of a string whose characters are bytes.
fn latin1_bytes(scope: &v8::Isolate, text: v8::Local<v8::String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_latin1(scope, &mut bytes, text);
    bytes
}

fn append_latin1(scope: &v8::Isolate, out: &mut Vec<u8>, text: v8::Local<v8::String>) {
    let start = out.len();
    out.resize(start + text.length(), 0);
    text.write_one_byte_v2(scope, 0, &mut out[start..], v8::WriteFlags::empty());
}

fn append_utf8(scope: &v8::Isolate, out: &mut Vec<u8>, text: v8::Local<v8::String>, length: usize) {
    if length == text.length() {
        return append_latin1(scope, out, text);
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = text.write_utf8_v2(scope, &mut out[start..], v8::WriteFlags::kReplaceInvalidUtf8, None);
    out.truncate(start + written);
}

fn id_of(scope: Scope<'_, '_, '_>, value: v8::Local<v8::Value>) -> RequestId {
    RequestId::from_number(value.number_value(scope).unwrap_or(-1.0))
}

/// Calls `read` with the head that `source`, a number or a string, stands for,
/// and with an empty buffer that is kept for the next call.
fn with_head<R>(
    scope: Scope<'_, '_, '_>,
    source: v8::Local<v8::Value>,
    read: impl FnOnce(&Head, &[u8], &HeaderSpans, &mut OriginCache, &mut Vec<u8>) -> R,
) -> Option<R> {
    if source.is_string() {
        let bytes = latin1_bytes(scope, source.cast());
        let mut headers = Vec::new();
        let Parsed::Complete(head) = head::parse(&bytes, &mut headers) else { return None };
        let server = server::get(scope);
        server.scratch.clear();
        return Some(read(&head, &bytes, &headers, &mut server.origins, &mut server.scratch));
    }
    let id = id_of(scope, source);
    let server = server::get(scope);
    let current = server.current.as_ref().filter(|current| current.id == id)?;
    let bytes = &server.read_buffer[current.start..current.start + current.head.len];
    server.scratch.clear();
    Some(read(&current.head, bytes, &server.headers, &mut server.origins, &mut server.scratch))
}

/// Makes a string of what [`with_head`] left in the shared buffer.
fn take_scratch<'s>(scope: Scope<'_, 's, '_>) -> v8::Local<'s, v8::String> {
    let scratch = std::mem::take(&mut server::get(scope).scratch);
    let text = latin1(scope, &scratch);
    server::get(scope).scratch = scratch;
    text
}

/// `ops.http_head(id)`: the head as a string, for a request that outlives its dispatch.
pub(crate) fn http_head(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let found = with_head(scope, arguments.get(0), |_, bytes, _, _, out| out.extend_from_slice(bytes));
    if found.is_some() {
        result.set(take_scratch(scope).into());
    }
}

/// `ops.http_method(source)`: the method as sent.
pub(crate) fn http_method(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let method = with_head(scope, arguments.get(0), |head, bytes, _, _, out| {
        out.extend_from_slice(head.method.get(bytes));
    });
    if method.is_none() {
        return;
    }
    let scratch = std::mem::take(&mut server::get(scope).scratch);
    let text = v8::String::new_from_one_byte(scope, &scratch, v8::NewStringType::Internalized);
    server::get(scope).scratch = scratch;
    if let Some(text) = text {
        result.set(text.into());
    }
}

/// `ops.http_url(source)`: the serialised URL.
pub(crate) fn http_url(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let found = with_head(scope, arguments.get(0), |head, bytes, _, origins, out| {
        let (host, path) = target::host_and_path(head, bytes);
        // The host was valid when the request was dispatched.
        let origin = origins.get(host).unwrap_or("http://localhost");
        target::write_url(out, origin, path);
    });
    if found.is_some() {
        result.set(take_scratch(scope).into());
    }
}

/// Fields of a request that need no allocation.
const INLINE_FIELDS: usize = 32;

/// `ops.http_headers(source)`: an array of names, in lower case, and values in turn.
pub(crate) fn http_headers(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut inline = [(Span::default(), Span::default()); INLINE_FIELDS];
    let fields = with_head(scope, arguments.get(0), |_, bytes, headers, _, out| {
        out.extend_from_slice(bytes);
        for (name, _) in headers {
            name.get_mut(out).make_ascii_lowercase();
        }
        match inline.get_mut(..headers.len()) {
            Some(room) => {
                room.copy_from_slice(headers);
                None
            }
            None => Some(headers.clone()),
        }
        .ok_or(headers.len())
    });
    let Some(fields) = fields else { return };
    let spans = match &fields {
        Ok(many) => &many[..],
        Err(few) => &inline[..*few],
    };
    let text = std::mem::take(&mut server::get(scope).scratch);
    let undefined: v8::Local<v8::Value> = v8::undefined(scope).into();
    let mut few = [undefined; 2 * INLINE_FIELDS];
    let mut many = Vec::new();
    let list = match few.get_mut(..2 * spans.len()) {
        Some(room) => room,
        None => {
            many.resize(2 * spans.len(), undefined);
            &mut many[..]
        }
    };
    for ((name, value), pair) in spans.iter().zip(list.chunks_exact_mut(2)) {
        let kind = v8::NewStringType::Internalized;
        pair[0] =
            v8::String::new_from_one_byte(scope, name.get(&text), kind).expect("heads are short").into();
        pair[1] = latin1(scope, value.get(&text)).into();
    }
    server::get(scope).scratch = text;
    result.set(v8::Array::new_with_elements(scope, list).into());
}

/// `ops.http_has_body(source)`: whether the request's framing announces a body.
pub(crate) fn http_has_body(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let has = with_head(scope, arguments.get(0), |head, bytes, _, _, _| {
        // A request whose method is GET or HEAD has no body in the Fetch standard.
        head.framing != BodyFraming::None && !matches!(head.method.get(bytes), b"GET" | b"HEAD")
    });
    result.set_bool(has.unwrap_or(false));
}

/// A response's body that is there at once.
enum Body<'s> {
    Null,
    Text(v8::Local<'s, v8::String>),
    Bytes(v8::Local<'s, v8::ArrayBufferView>),
}

impl<'s> Body<'s> {
    fn of(value: v8::Local<'s, v8::Value>) -> Body<'s> {
        if let Ok(text) = value.try_cast::<v8::String>() {
            return Body::Text(text);
        }
        value.try_cast::<v8::ArrayBufferView>().map_or(Body::Null, Body::Bytes)
    }

    fn length(&self, isolate: &v8::Isolate) -> usize {
        match self {
            Body::Null => 0,
            Body::Text(text) => text.utf8_length(isolate),
            Body::Bytes(view) => view.byte_length(),
        }
    }

    fn append(&self, isolate: &v8::Isolate, out: &mut Vec<u8>, length: usize) {
        match self {
            Body::Null => {}
            Body::Text(text) => append_utf8(isolate, out, *text, length),
            Body::Bytes(view) => {
                let start = out.len();
                out.resize(start + length, 0);
                view.copy_contents(&mut out[start..]);
            }
        }
    }
}

/// Writes a whole response. `false` if the head is refused.
fn respond(scope: Scope<'_, '_, '_>, id: RequestId, head: &ResponseHead<'_>, body: &Body<'_>) -> bool {
    let length = body.length(scope);
    let head = ResponseHead { body: BodySize::Known(length as u64), ..*head };
    let server = server::get(scope);
    let now = server.now();
    server.out(id.place);
    let date = *server.date.get(now);
    let Some(client) = server.answering(id).filter(|client| client.machine.may_respond()) else {
        return true;
    };
    let mut out = std::mem::take(&mut client.out);
    let framing = client.machine.respond(&mut out, &head, &date);
    if matches!(framing, Ok(Framing::Length(_))) {
        body.append(scope, &mut out, length);
    }
    let server = server::get(scope);
    let Some(client) = server.client(id.place) else { return true };
    client.out = out;
    if framing.is_err() {
        return false;
    }
    client.machine.body_was_written();
    // All of the promised body is written: the response can be ended.
    client.fate = client.machine.end_response(&mut client.out).unwrap_or(Fate::Close);
    server.kick(id.place);
    true
}

/// 200, `text/plain`, a string.
pub(super) fn respond_with_text(scope: Scope<'_, '_, '_>, id: RequestId, text: v8::Local<v8::String>) {
    let head = ResponseHead {
        status: 200,
        reason: b"",
        fields: FieldBlock::EMPTY,
        default_type: DefaultType::Text,
        body: BodySize::Known(0),
    };
    respond(scope, id, &head, &Body::Text(text));
}

/// Answers with an error if nothing has been sent, else cuts the connection.
pub(super) fn fail_request(scope: Scope<'_, '_, '_>, id: RequestId, status: u16) {
    let server = server::get(scope);
    let now = server.now();
    let date = *server.date.get(now);
    server.out(id.place);
    let Some(client) = server.answering(id) else { return };
    if !client.machine.may_respond() {
        client.fate = client.machine.cut();
        return server.kick(id.place);
    }
    let text = super::response::reason_phrase(status).as_bytes();
    let head = ResponseHead {
        status,
        reason: b"",
        fields: FieldBlock::EMPTY,
        default_type: DefaultType::Text,
        body: BodySize::Known(text.len() as u64),
    };
    let written = client
        .machine
        .respond(&mut client.out, &head, &date)
        .is_ok_and(|_| client.machine.write_body(&mut client.out, text).is_ok());
    match client.machine.end_response(&mut client.out) {
        Ok(fate) if written => client.fate = fate,
        _ => client.broken = true,
    }
    server.kick(id.place);
}

/// The head of a response as the built-ins describe it.
struct HeadArguments {
    status: u16,
    reason: Vec<u8>,
    fields: Vec<u8>,
    count: usize,
    default_type: DefaultType,
}

impl HeadArguments {
    /// From arguments 1 to 5 of an operation; none if they cannot be sent.
    fn read(scope: Scope<'_, '_, '_>, arguments: &v8::FunctionCallbackArguments) -> Option<HeadArguments> {
        let status = u16::try_from(arguments.get(1).uint32_value(scope)?).ok()?;
        let reason = match arguments.get(2).try_cast::<v8::String>() {
            Ok(text) if text.length() > 0 => {
                text.contains_only_onebyte().then(|| latin1_bytes(scope, text))?
            }
            _ => Vec::new(),
        };
        let fields = match arguments.get(3).try_cast::<v8::String>() {
            Ok(text) => {
                let mut fields = std::mem::take(&mut server::get(scope).scratch);
                fields.clear();
                text.contains_only_onebyte().then(|| append_latin1(scope, &mut fields, text))?;
                fields
            }
            Err(_) => Vec::new(),
        };
        let count = arguments.get(4).uint32_value(scope)? as usize;
        let default_type = match arguments.get(5).uint32_value(scope)? {
            1 => DefaultType::Text,
            2 => DefaultType::Json,
            _ => DefaultType::None,
        };
        Some(HeadArguments { status, reason, fields, count, default_type })
    }

    fn head(&self, body: BodySize) -> ResponseHead<'_> {
        ResponseHead {
            status: self.status,
            reason: &self.reason,
            fields: FieldBlock { bytes: &self.fields, count: self.count },
            default_type: self.default_type,
            body,
        }
    }

    /// Gives the buffer of the fields back.
    fn recycle(self, scope: Scope<'_, '_, '_>) {
        if self.fields.capacity() > 0 {
            server::get(scope).scratch = self.fields;
        }
    }
}

/// The handler's response cannot be sent as it is.
fn refuse_head(scope: Scope<'_, '_, '_>, id: RequestId) {
    stdio::write_all(
        2,
        b"Uncaught (in response) TypeError: the response's status or a header cannot be sent\n",
    );
    fail_request(scope, id, 500);
}

/// `ops.http_respond(id, status, reason, fields, count, type, body)`: a whole
/// response; `body` is a string, a view or undefined.
pub(crate) fn http_respond(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let Some(given) = HeadArguments::read(scope, &arguments) else {
        return refuse_head(scope, id);
    };
    if !respond(scope, id, &given.head(BodySize::Known(0)), &Body::of(arguments.get(6))) {
        refuse_head(scope, id);
    }
    given.recycle(scope);
}

/// `ops.http_start(id, status, reason, fields, count, type)`: the head of a
/// response whose body is a stream. False if no body is wanted (any more).
pub(crate) fn http_start(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    result.set_bool(false);
    let Some(given) = HeadArguments::read(scope, &arguments) else {
        return refuse_head(scope, id);
    };
    let head = given.head(BodySize::Stream);
    let server = server::get(scope);
    let now = server.now();
    let date = *server.date.get(now);
    server.out(id.place);
    let Some(client) = server.answering(id).filter(|client| client.machine.may_respond()) else { return };
    match client.machine.respond(&mut client.out, &head, &date) {
        Ok(Framing::NoBody) => {
            client.fate = client.machine.end_response(&mut client.out).unwrap_or(Fate::Close);
            server.kick(id.place);
        }
        Ok(_) => {
            result.set_bool(true);
            server.kick(id.place);
        }
        Err(_) => refuse_head(scope, id),
    }
}

/// `ops.http_write(id, view)`: a piece of the body. 0: go on; 1: wait for
/// `callbacks.httpDrained`; 2: nobody reads any more.
pub(crate) fn http_write(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    const GO_ON: u32 = 0;
    const WAIT: u32 = 1;
    const GONE: u32 = 2;
    let id = id_of(scope, arguments.get(0));
    let Ok(view) = arguments.get(1).try_cast::<v8::ArrayBufferView>() else {
        return throw_type_error(scope, "http_write: the chunk must be a view");
    };
    result.set_uint32(GONE);
    let server = server::get(scope);
    server.out(id.place);
    let Some(client) = server.exchange(id).filter(|client| client.machine.is_responding()) else { return };
    let mut storage = [0; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
    let bytes = view.get_contents(&mut storage);
    if client.machine.write_body(&mut client.out, bytes).is_err() {
        stdio::write_all(
            2,
            b"Uncaught (in response) TypeError: the body is longer than its content-length\n",
        );
        client.broken = true;
        return server.kick(id.place);
    }
    if client.unsent() >= WRITE_HIGH_WATER_BYTES {
        server.flush(id.place);
    }
    let stalled = server.now().saturating_add(server.options.stall_timeout_ms);
    let Some(client) = server.client(id.place) else { return };
    if client.broken {
        server.kick(id.place);
    } else if client.unsent() >= WRITE_HIGH_WATER_BYTES {
        client.source_waits = true;
        client.deadline_ms = client.deadline_ms.min(stalled);
        result.set_uint32(WAIT);
        server.kick(id.place);
    } else {
        result.set_uint32(GO_ON);
        server.kick(id.place);
    }
}

/// `ops.http_end(id)`: the body is complete.
pub(crate) fn http_end(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let server = server::get(scope);
    server.out(id.place);
    let Some(client) = server.exchange(id).filter(|client| client.machine.is_responding()) else { return };
    match client.machine.end_response(&mut client.out) {
        Ok(fate) => client.fate = fate,
        Err(_) => {
            stdio::write_all(
                2,
                b"Uncaught (in response) TypeError: the body is shorter than its content-length\n",
            );
            client.fate = client.machine.cut();
        }
    }
    server.kick(id.place);
}

/// `ops.http_fail(id, status)`: the handler failed. An error response if
/// nothing was sent, else the connection is cut, so that the client notices.
pub(crate) fn http_fail(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let status = arguments.get(1).uint32_value(scope).and_then(|status| u16::try_from(status).ok());
    fail_request(scope, id, status.unwrap_or(500));
}

/// The body is complete.
const BODY_COMPLETE: u32 = 0;

/// What was asked for will come by a callback.
const BODY_COMES: u32 = 1;

/// The request is over: its body will never come.
const BODY_GONE: u32 = 2;

/// Asks for the request's body.
fn want(scope: Scope<'_, '_, '_>, id: RequestId, demand: Demand) -> u32 {
    let server = server::get(scope);
    let stalled = server.now().saturating_add(server.options.stall_timeout_ms);
    server.out(id.place);
    let Some(client) = server.exchange(id) else { return BODY_GONE };
    if !client.machine.want_body(&mut client.out) {
        return BODY_COMPLETE;
    }
    client.body_asked_for = true;
    client.demand = demand;
    client.progress = 0;
    client.deadline_ms = stalled;
    server.kick(id.place);
    BODY_COMES
}

/// `ops.http_body_pull(id)`: asks for a piece of the body, which comes by
/// `callbacks.httpBodyChunk`. 0: the body is complete; 1: wait; 2: it is gone.
pub(crate) fn http_body_pull(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    result.set_uint32(want(scope, id, Demand::Chunk));
}

/// `ops.http_body_whole(id, asText)`: asks for all of the body, which comes by
/// `callbacks.httpBodyWhole`. Answers as `http_body_pull`.
pub(crate) fn http_body_whole(
    scope: Scope<'_, '_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let id = id_of(scope, arguments.get(0));
    let kind = if arguments.get(1).is_true() { BodyKind::Text } else { BodyKind::Bytes };
    result.set_uint32(want(scope, id, Demand::Whole(kind)));
}
