//! The network client: `fetch` and WebSockets, on the worker's one thread.
//!
//! ```text
//!   built-ins --ops--> Exchange, Socket --tasks--> Pool, TLS, resolver --Source--> Executor
//!       ^                                                                             |
//!       +------- events (a kind and a number) <-- driver <-- event loop <-- its epoll descriptor
//! ```
//!
//! - `executor`: futures, descriptors and timers; `driver`: its place in the event loop.
//! - `dns`, `connect`, `proxy`, `tls`, `stream`: from a host's name to a stream of bytes.
//! - `pool`, `exchange`, `upload`, `decode`: HTTP/1.1 and HTTP/2, by hyper.
//! - `websocket`: RFC 6455, for clients and for served requests.
//!
//! Nothing of it exists before the first use. A seed that has used it forgets everything before it
//! is forked ([`freeze`]): no descriptor, no TLS session and no timer crosses the fork, and what was
//! in flight fails in each worker ([`thaw`]).

mod connect;
mod data_url;
mod decode;
mod dns;
mod driver;
mod error;
mod exchange;
mod executor;
mod files;
mod limits;
pub(crate) mod ops;
mod pool;
mod proxy;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod upload;
pub(crate) mod websocket;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

pub use dns::Files as NetFiles;
pub(crate) use driver::{drain, forget, freeze, held, next_id, open_socket, set_next_id, thaw, under_way};

use error::NetError;
use exchange::Exchange;
use executor::Executor;
use limits::{BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_CONNECTION_TIMEOUT};
use proxy::Proxies;
use websocket::Socket;

use crate::worker::WorkerOptions;

/// What the client may do, and where it finds its settings.
#[derive(Clone, Debug, Default)]
pub struct NetOptions {
    files: NetFiles,
    file_urls: FileUrls,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    certificates: Vec<(String, String)>,
    /// Who stands between.
    proxies: Proxies,
    timeouts: Timeouts,
}

/// How long is waited; the limits' values but in tests.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    idle_connection: Duration,
    head: Duration,
    body: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { idle_connection: IDLE_CONNECTION_TIMEOUT, head: HEAD_TIMEOUT, body: BODY_TIMEOUT }
    }
}

impl NetOptions {
    /// Takes what concerns the network.
    pub fn new(options: &WorkerOptions) -> NetOptions {
        let is_ours = |(name, value): &&(String, String)| {
            matches!(name.as_str(), "SSL_CERT_FILE" | "SSL_CERT_DIR") && !value.is_empty()
        };
        NetOptions {
            files: options.net_files.clone(),
            file_urls: options.file_urls,
            certificates: options.environment.iter().filter(is_ours).cloned().collect(),
            proxies: Proxies::new(|wanted| {
                let found = options.environment.iter().rev().find(|(name, _)| name == wanted);
                found.map(|(_, value)| value.clone())
            }),
            timeouts: Timeouts::default(),
        }
    }
}

/// Whether `fetch` reads `file:` URLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileUrls {
    /// They are refused: a script that fetches what a client names must not read the sandbox.
    #[default]
    Refused,
    /// They are read.
    Allowed,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A response's head is there.
    Head = 0,
    /// More of a body is there, or its end.
    Body = 1,
    /// There is room for more of a request's body, or nobody wants it.
    Room = 2,
    /// There will be no response.
    Failed = 3,
    /// A WebSocket can be used.
    SocketOpen = 4,
    /// One more message has come.
    SocketMessage = 5,
    /// The peer has sent its closing frame.
    SocketClosing = 6,
    /// The connection has ended.
    SocketClosed = 7,
    /// The worker ends: streams of events that never end are closed.
    Drain = 8,
}

/// Something to tell the built-ins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    kind: Kind,
    /// The script's number of an exchange or a socket.
    id: u64,
    /// A served request has begun what this is about.
    in_request: bool,
}

/// All of a worker's network.
pub(crate) struct Net {
    executor: Rc<Executor>,
    options: NetOptions,
    tls: RefCell<Option<Rc<tls::Tls>>>,
    pool: Rc<pool::Pool>,
    exchanges: RefCell<HashMap<u64, Rc<Exchange>>>,
    sockets: RefCell<HashMap<u64, Rc<Socket>>>,
    next_id: Cell<u64>,
    events: RefCell<VecDeque<Event>>,
    waited_for: Cell<usize>,
}

impl Net {
    fn new(options: NetOptions, first_id: u64) -> Rc<Net> {
        Rc::new(Net {
            executor: Rc::default(),
            options,
            tls: RefCell::default(),
            pool: Rc::default(),
            exchanges: RefCell::default(),
            sockets: RefCell::default(),
            next_id: Cell::new(first_id),
            events: RefCell::default(),
            waited_for: Cell::new(0),
        })
    }

    /// How connections are secured; the certificates are read at the first call.
    fn tls(&self) -> Result<Rc<tls::Tls>, NetError> {
        if let Some(tls) = &*self.tls.borrow() {
            return Ok(tls.clone());
        }
        let variable = |name: &str| {
            let found = self.options.certificates.iter().rev().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let tls = Rc::new(tls::Tls::new(variable)?);
        *self.tls.borrow_mut() = Some(tls.clone());
        Ok(tls)
    }

    fn take_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    fn emit(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
    }

    /// One more thing, or one less, that the loop must not end before.
    fn count_waiting(&self, more: bool) {
        let count = self.waited_for.get();
        self.waited_for.set(if more { count + 1 } else { count - 1 });
    }

    fn exchange(&self, id: u64) -> Option<Rc<Exchange>> {
        self.exchanges.borrow().get(&id).cloned()
    }

    fn socket(&self, id: u64) -> Option<Rc<Socket>> {
        self.sockets.borrow().get(&id).cloned()
    }

    /// Drops everything: tasks first, for they hold the rest.
    fn close(&self) {
        for (_, exchange) in self.exchanges.take() {
            exchange.abandon();
        }
        for (_, socket) in self.sockets.take() {
            socket.abandon();
        }
        self.executor.close();
        self.pool.clear();
        self.tls.take();
        self.events.take();
    }
}
