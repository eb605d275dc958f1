//! One request and its response: what the script sees of it, and the task that carries it out.
//!
//! ```text
//!   begin -> [send: lease, request] -> head -> body pieces (as they are pulled) -> end
//!      \________________ abandon, at any point: the task is dropped ______________/
//! ```
//!
//! A response's body is read ahead up to [`BODY_BUFFER_BYTES`]: a small one that nobody reads frees
//! its connection by itself, a large one waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::decode::Decoders;
use super::error::{NetError, of_hyper};
use super::executor::{TaskId, timeout};
use super::limits::{BODY_BUFFER_BYTES, UPLOAD_BUFFER_BYTES};
use super::pool::{Choice, Lease, Origin};
use super::upload::Upload;
use super::{Event, Kind, Net};

/// What a script asks for.
#[derive(Clone)]
pub struct Plan {
    /// Where.
    pub origin: Origin,
    /// On which connection.
    pub connection: Choice,
    /// Path and query.
    pub target: String,
    /// The method as the script spells it.
    pub method: Method,
    /// Its fields, without those that say how the message is framed or where it goes.
    pub headers: HeaderMap,
    /// What is sent along.
    pub body: PlannedBody,
}

/// What is sent along.
#[derive(Clone)]
pub enum PlannedBody {
    /// Nothing.
    None,
    /// These bytes.
    Whole(Bytes),
    /// What the script gives piece by piece.
    Stream,
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its reason phrase, empty for HTTP/2.
    pub reason: Vec<u8>,
    /// Its fields. A body that is decoded has no `content-encoding` and no `content-length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a script gets when it asks for more of a body.
pub enum Pulled {
    /// These bytes.
    Bytes(Vec<u8>),
    /// There is no more.
    End,
    /// It failed.
    Failed(NetError),
    /// Later: an event tells when to ask again.
    Later,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    has_head: bool,
    /// How it ended, once it has.
    outcome: Option<Result<(), NetError>>,
    body: Vec<u8>,
    /// The script waits for bytes.
    is_body_awaited: bool,
    /// The script waits for the end, whether it reads or not.
    is_end_awaited: bool,
    /// The task waits for room.
    room_waiter: Option<Waker>,
    upload: VecDeque<Bytes>,
    upload_bytes: usize,
    has_upload_ended: bool,
    /// The rest of the request's body will never come: the connection must not carry a shorter one.
    is_upload_lost: bool,
    /// Nobody reads the body: what comes is dropped.
    is_discarded: bool,
    /// The script waits for room.
    is_room_awaited: bool,
    upload_waiter: Option<Waker>,
}

/// See the module's documentation.
pub struct Exchange {
    /// The script's number for it.
    pub id: u64,
    /// A served request has begun it.
    pub in_request: bool,
    /// Where it goes.
    pub origin: Origin,
    net: Rc<Net>,
    task: Cell<Option<TaskId>>,
    /// The loop must not end before something happens here.
    is_waited_for: Cell<bool>,
    state: RefCell<State>,
}

impl Exchange {
    /// Begins; the events tell how it goes on.
    pub fn begin(net: &Rc<Net>, id: u64, in_request: bool, plan: Plan) -> Rc<Exchange> {
        let exchange = Rc::new(Exchange {
            id,
            in_request,
            origin: plan.origin.clone(),
            net: net.clone(),
            task: Cell::new(None),
            is_waited_for: Cell::new(false),
            state: RefCell::default(),
        });
        exchange.state.borrow_mut().is_room_awaited = matches!(plan.body, PlannedBody::Stream);
        exchange.state.borrow_mut().has_upload_ended = !matches!(plan.body, PlannedBody::Stream);
        let inner = exchange.clone();
        let task = net.executor.spawn(async move {
            let outcome = perform(&inner, plan).await;
            inner.finish(outcome);
        });
        exchange.task.set(Some(task));
        exchange.note_waiting();
        exchange
    }

    /// Ends it at once, whatever it is doing.
    pub fn abandon(&self) {
        if let Some(task) = self.task.take() {
            self.net.executor.cancel(task);
        }
        let mut state = self.state.borrow_mut();
        state.outcome.get_or_insert(Ok(()));
        state.is_upload_lost = !state.has_upload_ended;
        state.upload_waiter.take().into_iter().for_each(Waker::wake);
        state.is_body_awaited = false;
        state.body = Vec::new();
        state.upload.clear();
        drop(state);
        self.note_waiting();
    }

    /// Nobody reads the body. A short one is received, so that its connection can be used again.
    pub fn discard(&self) {
        let mut state = self.state.borrow_mut();
        state.is_discarded = true;
        state.is_body_awaited = false;
        state.room_waiter.take().into_iter().for_each(Waker::wake);
        let is_over = state.outcome.is_some();
        drop(state);
        self.note_waiting();
        if is_over {
            self.net.exchanges.borrow_mut().remove(&self.id);
        }
    }

    /// The response's head, once.
    pub fn take_head(&self) -> Option<Head> {
        self.state.borrow_mut().head.take()
    }

    /// Why there will be no head.
    pub fn failure(&self) -> Option<NetError> {
        self.state.borrow().outcome.clone().and_then(Result::err)
    }

    /// What has come of the body.
    pub fn pull(&self) -> Pulled {
        let mut state = self.state.borrow_mut();
        if !state.body.is_empty() {
            let bytes = std::mem::take(&mut state.body);
            self.tell_of_end(&state);
            state.room_waiter.take().into_iter().for_each(Waker::wake);
            return Pulled::Bytes(bytes);
        }
        match &state.outcome {
            Some(Ok(())) => Pulled::End,
            Some(Err(error)) => Pulled::Failed(error.clone()),
            None => {
                state.is_body_awaited = true;
                drop(state);
                self.note_waiting();
                Pulled::Later
            }
        }
    }

    /// Somebody waits for the end without reading.
    pub fn await_end(&self) {
        let mut state = self.state.borrow_mut();
        state.is_end_awaited = true;
        self.tell_of_end(&state);
        drop(state);
        self.note_waiting();
    }

    /// Tells who waits for it that the end has come, and nothing is before it any more.
    fn tell_of_end(&self, state: &State) {
        if state.is_end_awaited && state.outcome.is_some() && state.body.is_empty() {
            self.emit(Kind::Body);
        }
    }

    /// Takes a piece of the request's body; `false` if the next must wait for an event.
    pub fn push(&self, bytes: Bytes) -> bool {
        let mut state = self.state.borrow_mut();
        state.upload_bytes += bytes.len();
        if !bytes.is_empty() {
            state.upload.push_back(bytes);
        }
        state.upload_waiter.take().into_iter().for_each(Waker::wake);
        state.is_room_awaited = state.upload_bytes >= UPLOAD_BUFFER_BYTES && state.outcome.is_none();
        !state.is_room_awaited
    }

    /// The request's body is complete.
    pub fn end_upload(&self) {
        let mut state = self.state.borrow_mut();
        state.has_upload_ended = true;
        state.upload_waiter.take().into_iter().for_each(Waker::wake);
        drop(state);
        self.note_waiting();
    }

    /// The next piece for the connection.
    pub fn poll_upload(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, NetError>>> {
        let mut state = self.state.borrow_mut();
        if state.is_upload_lost {
            return Poll::Ready(Some(Err(NetError::new("ECONNABORTED", "the request was given up"))));
        }
        if let Some(bytes) = state.upload.pop_front() {
            state.upload_bytes -= bytes.len();
            if state.upload_bytes < UPLOAD_BUFFER_BYTES && std::mem::take(&mut state.is_room_awaited) {
                self.emit(Kind::Room);
            }
            return Poll::Ready(Some(Ok(bytes)));
        }
        if state.has_upload_ended {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut state.is_room_awaited) {
            self.emit(Kind::Room);
        }
        state.upload_waiter = Some(context.waker().clone());
        Poll::Pending
    }

    fn emit(&self, kind: Kind) {
        self.net.emit(Event { kind, id: self.id, in_request: self.in_request });
    }

    /// Tells the loop whether it must live for this exchange.
    fn note_waiting(&self) {
        let state = self.state.borrow();
        let awaits =
            !state.has_head || state.is_body_awaited || state.is_end_awaited || !state.has_upload_ended;
        let is_waited_for = state.outcome.is_none() && awaits;
        if self.is_waited_for.replace(is_waited_for) != is_waited_for {
            self.net.count_waiting(is_waited_for);
        }
    }

    fn give_head(&self, head: Head) {
        let mut state = self.state.borrow_mut();
        state.head = Some(head);
        state.has_head = true;
        drop(state);
        self.emit(Kind::Head);
        self.note_waiting();
    }

    fn give_bytes(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.body.extend_from_slice(bytes);
        self.tell_reader(&mut state);
        drop(state);
        self.note_waiting();
    }

    fn tell_reader(&self, state: &mut State) {
        if std::mem::take(&mut state.is_body_awaited) {
            self.emit(Kind::Body);
        }
    }

    fn finish(&self, outcome: Result<(), NetError>) {
        let mut state = self.state.borrow_mut();
        let failed_early = outcome.is_err() && !state.has_head;
        state.outcome.get_or_insert(outcome);
        state.is_upload_lost = !state.has_upload_ended;
        state.upload_waiter.take().into_iter().for_each(Waker::wake);
        state.upload.clear();
        state.upload_bytes = 0;
        let upload_waits = std::mem::take(&mut state.is_room_awaited);
        if state.is_body_awaited {
            self.tell_reader(&mut state);
        } else {
            self.tell_of_end(&state);
        }
        drop(state);
        self.task.set(None);
        let is_discarded = self.state.borrow().is_discarded;
        if is_discarded {
            self.net.exchanges.borrow_mut().remove(&self.id);
        } else if failed_early {
            self.emit(Kind::Failed);
        } else if upload_waits {
            // Its next piece hears that nobody wants it.
            self.emit(Kind::Room);
        }
        self.note_waiting();
    }

    /// Whether pieces of the request's body are of any use.
    pub fn wants_upload(&self) -> bool {
        self.state.borrow().outcome.is_none()
    }

    /// Waits until the script has taken enough.
    async fn room(&self) -> Result<(), NetError> {
        std::future::poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.body.len() < BODY_BUFFER_BYTES {
                return Poll::Ready(Ok(()));
            }
            if state.is_discarded {
                return Poll::Ready(Err(NetError::new("ECONNABORTED", "nobody reads the response's body")));
            }
            state.room_waiter = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A response, and the connection if it is free again after the body.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
}

async fn perform(exchange: &Rc<Exchange>, plan: Plan) -> Result<(), NetError> {
    let net = exchange.net.clone();
    let is_head = plan.method == Method::HEAD;
    let origin = plan.origin.clone();
    let Answer { response, lease } = send(exchange, plan).await?;
    let (parts, body) = response.into_parts();
    let is_null = is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let decoders = if is_null { None } else { decoders(&parts.headers) };
    exchange.give_head(head(&parts, decoders.is_some()));
    receive_body(exchange, body, decoders).await?;
    match lease {
        Lease::Http1 { sender, .. } => net.pool.give_back(&net, origin, sender),
        Lease::Http2 { user, .. } => drop(user),
    }
    Ok(())
}

fn decoders(headers: &HeaderMap) -> Option<Decoders> {
    let fields: Vec<&str> =
        headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok()).collect();
    Decoders::for_field(&fields.join(","))
}

fn head(parts: &http::response::Parts, is_decoded: bool) -> Head {
    let reason = match parts.extensions.get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None if parts.version == Version::HTTP_2 => b"",
        None => parts.status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    let is_void = |name: &HeaderName| is_decoded && (name == CONTENT_ENCODING || name == CONTENT_LENGTH);
    Head {
        status: parts.status.as_u16(),
        reason: reason.to_vec(),
        headers: parts
            .headers
            .iter()
            .filter(|(name, _)| !is_void(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

async fn receive_body(
    exchange: &Rc<Exchange>,
    mut body: Incoming,
    mut decoders: Option<Decoders>,
) -> Result<(), NetError> {
    loop {
        exchange.room().await?;
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let frame = timeout(&exchange.net.executor, exchange.net.options.timeouts.body, frame).await;
        let stalled = |_| NetError::new("ETIMEDOUT", "no byte of the response's body came in time");
        let Some(frame) = frame.map_err(stalled)? else { break };
        let frame = frame.map_err(|error| of_hyper(&error).during("receive the response's body"))?;
        // Trailers are of no interest to the Fetch standard.
        let Ok(bytes) = frame.into_data() else { continue };
        match &mut decoders {
            None => exchange.give_bytes(&bytes),
            Some(decoders) => {
                decoders.write(&bytes);
                while let Some(piece) = decoders.read()? {
                    exchange.give_bytes(&piece);
                    exchange.room().await?;
                }
            }
        }
    }
    decoders.map_or(Ok(()), |decoders| decoders.end())
}

/// Connections that a request is sent on: kept ones may all be closing.
const MAX_ATTEMPTS: u32 = 4;

/// Sends the request; once more if a kept connection was closed by the server at that moment.
async fn send(exchange: &Rc<Exchange>, plan: Plan) -> Result<Answer, NetError> {
    let net = &exchange.net;
    let where_to = format!("fetch {}{}:{}", scheme(&plan.origin), plan.origin.host, plan.origin.port);
    let limit = net.options.timeouts.head;
    let mut upload = Some(match &plan.body {
        PlannedBody::None => Upload::None,
        PlannedBody::Whole(bytes) => Upload::Whole(bytes.clone()),
        PlannedBody::Stream => Upload::Stream(exchange.clone()),
    });
    for attempt in 1.. {
        let lease = timeout(&net.executor, limit, net.pool.acquire(net, &plan.origin, plan.connection)).await;
        let lease = lease.map_err(|_| too_late()).flatten().map_err(|error| error.during(&where_to))?;
        let body = upload.take().expect("a request is sent again only with its body");
        let (is_reused, error, unsent) = match lease {
            Lease::Http1 { mut sender, is_reused } => {
                let request = request(net, &plan, body, Version::HTTP_11)?;
                match timeout(&net.executor, limit, sender.try_send_request(request)).await {
                    Err(_) => return Err(too_late().during(&where_to)),
                    Ok(Ok(response)) => {
                        return Ok(Answer { response, lease: Lease::Http1 { sender, is_reused } });
                    }
                    Ok(Err(mut error)) => {
                        let unsent = error.take_message();
                        (is_reused, error.into_error(), unsent)
                    }
                }
            }
            Lease::Http2 { mut sender, user } => {
                let request = request(net, &plan, body, Version::HTTP_2)?;
                match timeout(&net.executor, limit, sender.try_send_request(request)).await {
                    Err(_) => return Err(too_late().during(&where_to)),
                    Ok(Ok(response)) => return Ok(Answer { response, lease: Lease::Http2 { sender, user } }),
                    Ok(Err(mut error)) => {
                        let unsent = error.take_message();
                        (true, error.into_error(), unsent)
                    }
                }
            }
        };
        let may_repeat = is_reused && attempt < MAX_ATTEMPTS;
        upload = match (unsent, &plan.body) {
            // Nothing of it was sent.
            (Some(request), _) if may_repeat => Some(request.into_body()),
            // RFC 9110, section 9.2.2: an idempotent request may be sent again.
            (_, PlannedBody::None | PlannedBody::Whole(_))
                if may_repeat && plan.method.is_idempotent() && was_closed(&error) =>
            {
                Some(match &plan.body {
                    PlannedBody::Whole(bytes) => Upload::Whole(bytes.clone()),
                    PlannedBody::None | PlannedBody::Stream => Upload::None,
                })
            }
            _ => return Err(of_hyper(&error).during(&where_to)),
        };
    }
    unreachable!("the last attempt returns")
}

fn was_closed(error: &hyper::Error) -> bool {
    let reset = || {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                return io.kind() == std::io::ErrorKind::ConnectionReset
                    || io.kind() == std::io::ErrorKind::BrokenPipe;
            }
            source = inner.source();
        }
        false
    };
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || reset()
}

fn too_late() -> NetError {
    NetError::new("ETIMEDOUT", "no response came in time")
}

/// `https://HOST:PORT`, for messages.
pub fn place(origin: &Origin) -> String {
    format!("{}{}", scheme(origin), authority(origin))
}

fn scheme(origin: &Origin) -> &'static str {
    if origin.is_secure { "https://" } else { "http://" }
}

/// The host as a `Host` field or `:authority` has it.
fn authority(origin: &Origin) -> String {
    match (origin.is_secure, origin.port) {
        (true, 443) | (false, 80) => origin.host.clone(),
        _ => format!("{}:{}", origin.host, origin.port),
    }
}

fn request(net: &Net, plan: &Plan, body: Upload, version: Version) -> Result<Request<Upload>, NetError> {
    let unsendable = |_| NetError::new("ERR_INVALID_URL", "the URL cannot be sent");
    let mut headers = plan.headers.clone();
    let authority = authority(&plan.origin);
    let uri = if version == Version::HTTP_2 {
        format!("{}{authority}{}", scheme(&plan.origin), plan.target)
    } else {
        let host = HeaderValue::try_from(&authority)
            .map_err(|_| NetError::new("ERR_INVALID_URL", "the host cannot be sent"))?;
        headers.insert(HOST, host);
        let Origin { is_secure, host, port } = &plan.origin;
        match net.options.proxies.of(*is_secure, host, *port)? {
            // What is secured goes through a tunnel.
            Some(proxy) if !is_secure => {
                let credentials = proxy.authorization.as_deref().map(HeaderValue::try_from);
                if let Some(Ok(credentials)) = credentials {
                    headers.insert(PROXY_AUTHORIZATION, credentials);
                }
                format!("{}{authority}{}", scheme(&plan.origin), plan.target)
            }
            Some(_) | None => plan.target.clone(),
        }
    };
    // A method that defines a meaning for content says so when there is none (RFC 9110, section 8.6).
    let expects_body = plan.method == Method::POST || plan.method == Method::PUT;
    if expects_body && body.is_end_stream() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = plan.method.clone();
    *request.uri_mut() = Uri::try_from(uri).map_err(unsendable)?;
    *request.headers_mut() = headers;
    Ok(request)
}
