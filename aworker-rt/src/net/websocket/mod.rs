//! WebSocket connections: a task each, which moves frames between the socket and two queues.
//!
//! ```text
//!   Connecting --101--> Open --our close--> Closing --the peer's close, end of stream--> Closed
//!        \                 \--the peer's close, answered--> Closing --end of stream----> Closed
//!         \--refused, failed--> Closed (1006)   any failure or violation --------------> Closed (1006)
//! ```

pub mod deflate;
pub mod frame;
pub mod handshake;
pub(crate) mod ops;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::error::NetError;
use super::executor::{Sleep, Source, TaskId, sleep, timeout};
use super::limits::{
    CLOSE_TIMEOUT, CONNECT_TIMEOUT, MAX_BUFFERED_BYTES, MAX_RESPONSE_HEAD_BYTES, MAX_UNDELIVERED_BYTES,
    MAX_UNDELIVERED_MESSAGES, MAX_UNSENT_PONGS, READ_BUFFER_BYTES,
};
use super::proxy::{Way, reach};
use super::stream::Stream;
use super::tls::Offer;
use super::{Event, Kind, Net};
use crate::engine::gauges::{self, Gauge};
use frame::{End, Incoming, Opcode, Parser, Violation, encode, encode_close, encode_deflated};
use handshake::Reply;

/// What a client asks for.
pub struct Plan {
    /// `wss:`.
    pub is_secure: bool,
    /// As in the URL.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// Subprotocols, in order of preference.
    pub protocols: Vec<String>,
    /// What the `Host` field says.
    pub authority: String,
    /// What the `Authorization` field says, if the URL has a name or a password.
    pub authorization: Option<String>,
}

/// A connection that the HTTP server hands over.
pub struct Handover {
    /// The socket.
    pub fd: OwnedFd,
    /// The head of the response, to be sent first.
    pub head: Vec<u8>,
    /// The head agrees on permessage-deflate.
    pub deflates: bool,
    /// What the client has sent after its request.
    pub leftover: Vec<u8>,
}

/// A message for the script.
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub struct Closed {
    /// 1005 if the peer gave none, 1006 if there was no closing frame.
    pub code: u16,
    /// The peer's words.
    pub reason: String,
    /// Both sides have said that it ends.
    pub was_clean: bool,
    /// What went wrong, if anything did.
    pub failure: Option<NetError>,
}

#[derive(Default)]
struct State {
    /// Frames, encoded.
    out: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are sent.
    sent: usize,
    /// Payload bytes of messages in `out`.
    buffered: usize,
    /// Payload bytes per frame of `out`.
    payloads: VecDeque<usize>,
    unsent_pongs: usize,
    messages: VecDeque<Message>,
    /// Bytes of `messages`.
    undelivered: usize,
    protocol: String,
    /// permessage-deflate has been agreed on.
    deflates: bool,
    /// Our closing frame is in `out` or sent.
    has_sent_close: bool,
    /// The peer's closing frame.
    received_close: Option<Option<(u16, String)>>,
    closed: Option<Closed>,
    /// The script wants it to end whatever comes.
    is_overfull: bool,
    waker: Option<Waker>,
}

impl State {
    fn deliver(&mut self, message: Message) {
        self.undelivered += message.len();
        self.messages.push_back(message);
    }
}

/// See the module's documentation.
pub struct Socket {
    /// The script's number for it.
    pub id: u64,
    in_request: bool,
    /// Whom a client talks to, for messages.
    pub peer: String,
    net: Rc<Net>,
    end: End,
    task: Cell<Option<TaskId>>,
    is_waited_for: Cell<bool>,
    state: RefCell<State>,
}

impl Socket {
    fn new(net: &Rc<Net>, id: u64, in_request: bool, end: End, peer: String) -> Rc<Socket> {
        let socket = Rc::new(Socket {
            id,
            in_request,
            peer,
            net: net.clone(),
            end,
            task: Cell::new(None),
            is_waited_for: Cell::new(true),
            state: RefCell::default(),
        });
        net.count_waiting(true);
        socket
    }

    /// Begins to connect.
    pub fn connect(net: &Rc<Net>, id: u64, in_request: bool, plan: Plan) -> Rc<Socket> {
        let peer = plan.authority.clone();
        let socket = Socket::new(net, id, in_request, End::Client, peer);
        let inner = socket.clone();
        socket.start(async move {
            let Opened { stream, protocol, deflates, leftover } = open(&inner.net, &plan).await?;
            {
                let mut state = inner.state.borrow_mut();
                state.protocol = protocol;
                state.deflates = deflates;
            }
            inner.emit(Kind::SocketOpen);
            inner.converse(stream, leftover).await
        });
        socket
    }

    /// Goes to wait for [`Self::adopt`].
    pub fn expect(net: &Rc<Net>, id: u64, in_request: bool) -> Rc<Socket> {
        gauges::add(Gauge::WebSockets, 1);
        Socket::new(net, id, in_request, End::Server, "a client".to_owned())
    }

    /// Takes the connection of a served request.
    pub fn adopt(self: &Rc<Self>, handover: Handover) {
        let inner = self.clone();
        self.start(async move {
            let source = Source::new(&inner.net.executor, handover.fd)
                .map_err(|error| NetError::io("take over the connection", &error))?;
            {
                let mut state = inner.state.borrow_mut();
                state.out.push_front(handover.head);
                state.payloads.push_front(0);
                state.deflates = handover.deflates;
            }
            inner.emit(Kind::SocketOpen);
            inner.converse(Stream::Plain(source), handover.leftover).await
        });
    }

    fn start(self: &Rc<Self>, task: impl Future<Output = Result<(), NetError>> + 'static) {
        let inner = self.clone();
        let task = self.net.executor.spawn(async move {
            let outcome = task.await;
            inner.finish(outcome.err());
        });
        self.task.set(Some(task));
    }

    /// The protocol that was agreed on.
    pub fn protocol(&self) -> String {
        self.state.borrow().protocol.clone()
    }

    /// The extensions that were agreed on, as the script sees them.
    pub fn extensions(&self) -> &'static str {
        if self.state.borrow().deflates { deflate::AGREED } else { "" }
    }

    /// Queues a message.
    pub fn send(&self, opcode: Opcode, payload: &[u8]) {
        let mut state = self.state.borrow_mut();
        if state.has_sent_close || state.closed.is_some() {
            return;
        }
        if state.buffered + payload.len() > MAX_BUFFERED_BYTES {
            state.is_overfull = true;
        } else {
            self.push_frame(&mut state, opcode, payload);
        }
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn push_frame(&self, state: &mut State, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        let is_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        match state.deflates && is_message {
            true => encode_deflated(&mut frame, opcode, payload, self.mask()),
            false => encode(&mut frame, opcode, payload, self.mask()),
        }
        let counted = if is_message { payload.len() } else { 0 };
        state.out.push_back(frame);
        state.payloads.push_back(counted);
        state.buffered += counted;
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.end == End::Client).then(|| {
            let mut mask = [0; 4];
            getrandom::fill(&mut mask).expect("getrandom(2) works");
            mask
        })
    }

    /// Payload bytes that are not sent yet.
    pub fn buffered(&self) -> usize {
        self.state.borrow().buffered
    }

    /// The next message for the script.
    pub fn next(&self) -> Option<Message> {
        let mut state = self.state.borrow_mut();
        let message = state.messages.pop_front();
        state.undelivered -= message.as_ref().map_or(0, Message::len);
        state.waker.take().into_iter().for_each(Waker::wake);
        message
    }

    /// Begins the closing handshake; one that has not been connected is given up.
    pub fn close(&self, close: Option<(u16, &str)>) {
        let mut state = self.state.borrow_mut();
        self.push_close(&mut state, close);
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn push_close(&self, state: &mut State, close: Option<(u16, &str)>) {
        if state.has_sent_close || state.closed.is_some() {
            return;
        }
        state.has_sent_close = true;
        let mut frame = Vec::new();
        encode_close(&mut frame, close, self.mask());
        state.out.push_back(frame);
        state.payloads.push_back(0);
    }

    /// Ends it at once without a word.
    pub fn abandon(&self) {
        if let Some(task) = self.task.take() {
            self.net.executor.cancel(task);
        }
        self.finish(Some(NetError::new("ECONNABORTED", "the connection was given up")));
    }

    /// How it ended, once it has.
    pub fn closed(&self) -> Option<Closed> {
        self.state.borrow().closed.clone()
    }

    fn emit(&self, kind: Kind) {
        self.net.emit(Event { kind, id: self.id, in_request: self.in_request });
    }

    fn finish(&self, failure: Option<NetError>) {
        self.task.set(None);
        let mut state = self.state.borrow_mut();
        if state.closed.is_some() {
            return;
        }
        let was_clean = failure.is_none() && state.has_sent_close && state.received_close.is_some();
        let (code, reason) = match state.received_close.take() {
            None => (1006, String::new()),
            Some(None) => (1005, String::new()),
            Some(Some(close)) => close,
        };
        state.closed = Some(Closed { code, reason, was_clean, failure });
        state.out.clear();
        drop(state);
        if self.end == End::Server {
            gauges::subtract(Gauge::WebSockets, 1);
        }
        if self.is_waited_for.replace(false) {
            self.net.count_waiting(false);
        }
        self.emit(Kind::SocketClosed);
    }

    /// Moves frames both ways until the connection has ended.
    async fn converse(self: &Rc<Self>, mut stream: Stream, leftover: Vec<u8>) -> Result<(), NetError> {
        let mut parser = Parser::new(self.end, self.state.borrow().deflates);
        parser.push(&leftover);
        drop(leftover);
        let mut has_ended = false;
        let mut deadline: Option<Pin<Box<Sleep>>> = None;
        std::future::poll_fn(|context| {
            self.state.borrow_mut().waker = Some(context.waker().clone());
            if self.state.borrow().is_overfull {
                return Poll::Ready(Err(NetError::new("ERR_WEBSOCKET", "too much waits to be sent")));
            }
            // What comes may have to be answered: read first.
            if !has_ended {
                match self.poll_receive(context, &mut stream, &mut parser) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => has_ended = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            let is_sent = match self.poll_send(context, &mut stream) {
                Poll::Ready(Err(error)) => {
                    // A peer that has said goodbye may be gone before our own goodbye.
                    let is_over = self.state.borrow().received_close.is_some();
                    return Poll::Ready(if is_over { Ok(()) } else { Err(error) });
                }
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let (sent, received) = {
                let state = self.state.borrow();
                (state.has_sent_close, state.received_close.is_some())
            };
            if has_ended || (sent && received && is_sent && self.end == End::Server) {
                let _ = stream.poll_shutdown(context);
                return Poll::Ready(match received {
                    true => Ok(()),
                    false => Err(NetError::new("ECONNRESET", "the peer has closed without a closing frame")),
                });
            }
            if sent || received {
                let executor = &self.net.executor;
                let waiting = deadline.get_or_insert_with(|| Box::pin(sleep(executor, CLOSE_TIMEOUT)));
                if waiting.as_mut().poll(context).is_ready() {
                    let late = NetError::new("ETIMEDOUT", "the peer has not closed in time");
                    return Poll::Ready(if received { Ok(()) } else { Err(late) });
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads until there is nothing, or too much for the script; ready at the end of the stream.
    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        parser: &mut Parser,
    ) -> Poll<Result<(), NetError>> {
        let mut room = Vec::new();
        // One round's work is bounded; what is left is read in the next.
        for _ in 0..16 {
            loop {
                if self.has_enough() {
                    return Poll::Pending;
                }
                match parser.next() {
                    Ok(None) => break,
                    Ok(Some(incoming)) => self.take(incoming)?,
                    Err(violation) => return Poll::Ready(Err(self.refuse(context, stream, violation))),
                }
            }
            if room.is_empty() {
                room = vec![0; READ_BUFFER_BYTES];
            }
            match stream.poll_read(context, &mut room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(count)) => parser.push(&room[..count]),
                Poll::Ready(Err(error)) => {
                    // After both goodbyes it does not matter how the stream ends.
                    let is_over = self.state.borrow().received_close.is_some();
                    let error = NetError::io("receive a message", &error);
                    return Poll::Ready(if is_over { Ok(()) } else { Err(error) });
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The script is behind: no more is received until it has taken something.
    fn has_enough(&self) -> bool {
        let state = self.state.borrow();
        state.messages.len() >= MAX_UNDELIVERED_MESSAGES || state.undelivered >= MAX_UNDELIVERED_BYTES
    }

    fn take(&self, incoming: Incoming) -> Result<(), NetError> {
        let mut state = self.state.borrow_mut();
        if state.received_close.is_some() {
            // Nothing counts after the peer's last frame.
            return Ok(());
        }
        match incoming {
            Incoming::Text(text) => state.deliver(Message::Text(text)),
            Incoming::Binary(bytes) => state.deliver(Message::Binary(bytes)),
            Incoming::Pong => return Ok(()),
            Incoming::Ping(payload) => {
                state.unsent_pongs += 1;
                if state.unsent_pongs > MAX_UNSENT_PONGS {
                    return Err(NetError::new("ERR_WEBSOCKET", "the peer pings and takes no answer"));
                }
                if !state.has_sent_close {
                    self.push_frame(&mut state, Opcode::Pong, &payload);
                }
                return Ok(());
            }
            Incoming::Close(close) => {
                let answer = close.as_ref().map(|(code, _)| (*code, ""));
                self.push_close(&mut state, answer);
                state.received_close = Some(close);
                drop(state);
                self.emit(Kind::SocketClosing);
                return Ok(());
            }
        }
        drop(state);
        self.emit(Kind::SocketMessage);
        Ok(())
    }

    /// Tells the peer what it did wrong, if there is room for it.
    fn refuse(&self, context: &mut Context<'_>, stream: &mut Stream, violation: Violation) -> NetError {
        let mut state = self.state.borrow_mut();
        self.push_close(&mut state, Some((violation.code, violation.reason)));
        drop(state);
        if self.poll_send(context, stream).is_ready() {
            let _ = stream.poll_shutdown(context);
        }
        NetError::new("ERR_WEBSOCKET", violation.reason)
    }

    fn poll_send(&self, context: &mut Context<'_>, stream: &mut Stream) -> Poll<Result<(), NetError>> {
        let failed = |error| NetError::io("send a message", &error);
        loop {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let Some(frame) = state.out.front() else {
                state.unsent_pongs = 0;
                return stream.poll_flush(context).map_err(failed);
            };
            match stream.poll_write(context, &frame[state.sent..]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(failed(error))),
                Poll::Ready(Ok(count)) => state.sent += count,
            }
            if state.sent == frame.len() {
                state.sent = 0;
                state.out.pop_front();
                state.buffered -= state.payloads.pop_front().unwrap_or(0);
            }
        }
    }
}

/// A connection after its handshake.
struct Opened {
    stream: Stream,
    protocol: String,
    deflates: bool,
    /// What has come after the answer.
    leftover: Vec<u8>,
}

/// Connects and shakes hands.
async fn open(net: &Rc<Net>, plan: &Plan) -> Result<Opened, NetError> {
    let opening = async {
        let socket = reach(net, Way::Tunnelled, plan.is_secure, &plan.host, plan.port).await?;
        let mut stream = match plan.is_secure {
            true => Stream::Secured(Box::new(net.tls()?.secure(socket, &plan.host, Offer::Http1).await?)),
            false => Stream::Plain(socket),
        };
        let key = handshake::new_key();
        let agent = concat!("Aworker/", env!("CARGO_PKG_VERSION"));
        let request = handshake::request(
            &plan.target,
            &plan.authority,
            &key,
            &plan.protocols,
            plan.authorization.as_deref(),
            agent,
        );
        let failed = |error| NetError::io("shake hands", &error);
        stream.write_all(&request).await.map_err(failed)?;
        let mut bytes = Vec::new();
        loop {
            let mut room = [0; 4096];
            let count = stream.read(&mut room).await.map_err(failed)?;
            if count == 0 {
                return Err(NetError::new("ECONNRESET", "the server has closed instead of an answer"));
            }
            bytes.extend_from_slice(&room[..count]);
            let reply = handshake::reply(&bytes, &key, &plan.protocols)?;
            if let Reply::Agreed { protocol, deflates, head_bytes } = reply {
                bytes.drain(..head_bytes);
                return Ok(Opened { stream, protocol, deflates, leftover: bytes });
            }
            if bytes.len() > MAX_RESPONSE_HEAD_BYTES {
                return Err(NetError::new("ERR_WEBSOCKET", "the server's answer is too long"));
            }
        }
    };
    let opened = timeout(&net.executor, CONNECT_TIMEOUT, opening).await;
    opened.map_err(|_| NetError::new("ETIMEDOUT", "the server has not answered in time"))?
}
