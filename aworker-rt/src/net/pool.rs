//! Connections to HTTP servers: made when needed, kept for a while, shared by HTTP/2.
//!
//! A connection is a task that moves its bytes; a [`Lease`] is the right to send one request on it.
//! Idle connections cost a descriptor and no timer of their own: one task looks after all of them
//! and ends with the last.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};

use super::Net;
use super::error::{NetError, of_hyper};
use super::executor::{Executor, sleep, timeout, yield_now};
use super::limits::{
    CONNECT_TIMEOUT, CROWDED_COLLECTION_INTERVAL, H2_CONNECTION_WINDOW, H2_STREAM_WINDOW,
    MAX_CONNECTIONS_PER_ORIGIN, MAX_IDLE_CONNECTIONS, MAX_RESPONSE_HEAD_BYTES, MAX_RESPONSE_HEADERS,
    REUSE_TIMEOUT,
};
use super::proxy::{Way, reach};
use super::stream::Stream;
use super::tls::Offer;
use super::upload::Upload;

/// Whom a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https`.
    pub is_secure: bool,
    /// As in the URL: an IPv6 address has brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Which connection a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One that is there, or a new one.
    Any,
    /// One that has carried no request.
    New,
}

/// The right to send one request.
pub enum Lease {
    /// A connection of one's own until the response has ended.
    Http1 {
        /// Sends the request.
        sender: http1::SendRequest<Upload>,
        /// It has carried a request before: the server may be about to close it.
        is_reused: bool,
    },
    /// One stream of a shared connection.
    Http2 {
        /// Sends the request.
        sender: http2::SendRequest<Upload>,
        /// Tells the pool when nobody uses the connection.
        user: User,
    },
}

/// Counts the users of a shared connection.
pub struct User(Rc<Cell<usize>>);

impl User {
    fn of(users: &Rc<Cell<usize>>) -> User {
        users.set(users.get() + 1);
        User(users.clone())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Shared {
    sender: http2::SendRequest<Upload>,
    users: Rc<Cell<usize>>,
    /// When the last look found no users.
    idle_since: Option<Instant>,
}

#[derive(Default)]
struct Connections {
    idle: Vec<(http1::SendRequest<Upload>, Instant)>,
    shared: Option<Shared>,
    open: usize,
    /// The first connection to a secure origin is being made: it may turn out to be shared.
    is_probing: bool,
    waiters: Vec<Waker>,
}

impl Connections {
    /// One that is there.
    fn take(&mut self) -> Option<Lease> {
        if let Some(shared) = self.shared.as_mut().filter(|shared| !shared.sender.is_closed()) {
            shared.idle_since = None;
            let (sender, user) = (shared.sender.clone(), User::of(&shared.users));
            return Some(Lease::Http2 { sender, user });
        }
        self.shared = None;
        // The one used last is the least likely to be closed.
        while let Some((sender, _)) = self.idle.pop() {
            if sender.is_ready() && !sender.is_closed() {
                return Some(Lease::Http1 { sender, is_reused: true });
            }
        }
        None
    }

    fn wake_waiters(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }
}

/// All connections.
#[derive(Default)]
pub struct Pool {
    origins: RefCell<HashMap<Origin, Connections>>,
    has_caretaker: Cell<bool>,
    is_crowded: Cell<bool>,
}

/// Counts an open connection as long as it lives.
struct Permit {
    pool: Rc<Pool>,
    origin: Origin,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut origins = self.pool.origins.borrow_mut();
        if let Some(connections) = origins.get_mut(&self.origin) {
            connections.open -= 1;
            connections.wake_waiters();
            if connections.open == 0 {
                let dead = origins.remove(&self.origin);
                drop(origins);
                drop(dead);
            }
        }
    }
}

/// Ends the time in which others wait for the first connection to an origin.
struct Probe<'a>(&'a Permit);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Some(connections) = self.0.pool.origins.borrow_mut().get_mut(&self.0.origin) {
            connections.is_probing = false;
            connections.wake_waiters();
        }
    }
}

/// What an origin has for a request.
enum Chance {
    Lease(Lease),
    Connect(Permit),
    Wait,
}

impl Pool {
    /// A connection to the origin, an idle one if there is one and the choice lets it.
    ///
    /// # Errors
    /// No connection can be made.
    pub async fn acquire(
        self: &Rc<Self>,
        net: &Rc<Net>,
        origin: &Origin,
        choice: Choice,
    ) -> Result<Lease, NetError> {
        // Idle connections that the server has closed meanwhile hear of it first.
        yield_now().await;
        let chance = || {
            std::future::poll_fn(|context| match self.look(origin, choice) {
                Chance::Lease(lease) => Poll::Ready(Ok(lease)),
                Chance::Connect(permit) => Poll::Ready(Err(permit)),
                Chance::Wait => {
                    let mut origins = self.origins.borrow_mut();
                    let waiters = &mut origins.entry(origin.clone()).or_default().waiters;
                    if !waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                        waiters.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            })
        };
        loop {
            // Who waits for long asks again whether anything is garbage.
            match timeout(&net.executor, CROWDED_COLLECTION_INTERVAL, chance()).await {
                Ok(Ok(lease)) => return Ok(lease),
                Ok(Err(permit)) => return self.connect(net, permit).await,
                Err(_) => {}
            }
        }
    }

    fn look(self: &Rc<Self>, origin: &Origin, choice: Choice) -> Chance {
        let mut origins = self.origins.borrow_mut();
        let connections = origins.entry(origin.clone()).or_default();
        if choice == Choice::Any
            && let Some(lease) = connections.take()
        {
            return Chance::Lease(lease);
        }
        if connections.open >= MAX_CONNECTIONS_PER_ORIGIN || connections.is_probing {
            self.is_crowded.set(self.is_crowded.get() || !connections.is_probing);
            // An idle one makes room for one that must be new.
            let idle = connections.idle.pop();
            drop(origins);
            drop(idle);
            return Chance::Wait;
        }
        connections.is_probing = origin.is_secure && connections.open == 0;
        connections.open += 1;
        Chance::Connect(Permit { pool: self.clone(), origin: origin.clone() })
    }

    async fn connect(self: &Rc<Self>, net: &Rc<Net>, permit: Permit) -> Result<Lease, NetError> {
        let probe = Probe(&permit);
        let Origin { is_secure, host, port } = &permit.origin;
        let stream = async {
            let way = if *is_secure { Way::Tunnelled } else { Way::Forwarded };
            let socket = reach(net, way, *is_secure, host, *port).await?;
            match is_secure {
                true => Ok(Stream::Secured(Box::new(net.tls()?.secure(socket, host, Offer::Http).await?))),
                false => Ok(Stream::Plain(socket)),
            }
        };
        let stream = timeout(&net.executor, CONNECT_TIMEOUT, stream).await;
        let stream = stream.map_err(|_| {
            NetError::new("ETIMEDOUT", format!("connect to {host}:{port}: no connection in time"))
        })??;
        let lease = match stream.is_http2() {
            true => self.share(net, stream, &permit.origin).await?,
            false => open_http1(stream).await?,
        };
        drop(probe);
        let (lease, connection) = lease;
        net.executor.spawn(async move {
            connection.await;
            drop(permit);
        });
        Ok(lease)
    }

    async fn share(
        self: &Rc<Self>,
        net: &Rc<Net>,
        stream: Stream,
        origin: &Origin,
    ) -> Result<(Lease, Connection), NetError> {
        let mut builder = http2::Builder::new(Spawner(net.executor.clone()));
        builder
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_RESPONSE_HEAD_BYTES).expect("a small limit"));
        let (sender, connection) = builder.handshake(stream).await.map_err(|error| of_hyper(&error))?;
        let users = Rc::new(Cell::new(0));
        let lease = Lease::Http2 { sender: sender.clone(), user: User::of(&users) };
        if let Some(connections) = self.origins.borrow_mut().get_mut(origin) {
            connections.shared = Some(Shared { sender, users, idle_since: None });
        }
        self.take_care(net);
        // The requests on it tell how it failed.
        Ok((lease, Box::pin(async move { drop(connection.await) })))
    }

    /// Keeps a connection whose response has ended for the next request, once its request has ended, too.
    pub fn give_back(self: &Rc<Self>, net: &Rc<Net>, origin: Origin, mut sender: http1::SendRequest<Upload>) {
        let (pool, inner) = (self.clone(), net.clone());
        net.executor.spawn(async move {
            // Else it was the last request of this connection, or the upload goes on.
            if let Ok(Ok(())) = timeout(&inner.executor, REUSE_TIMEOUT, sender.ready()).await {
                pool.keep(&inner, &origin, sender);
            }
        });
    }

    fn keep(self: &Rc<Self>, net: &Rc<Net>, origin: &Origin, sender: http1::SendRequest<Upload>) {
        let mut origins = self.origins.borrow_mut();
        let count: usize = origins.values().map(|connections| connections.idle.len()).sum();
        let Some(connections) = origins.get_mut(origin) else { return };
        connections.idle.push((sender, Instant::now()));
        connections.wake_waiters();
        let surplus = (count >= MAX_IDLE_CONNECTIONS).then(|| {
            let oldest = origins.values_mut().filter(|connections| !connections.idle.is_empty());
            oldest
                .min_by_key(|connections| connections.idle[0].1)
                .map(|connections| connections.idle.remove(0))
        });
        drop(origins);
        drop(surplus);
        self.take_care(net);
    }

    /// Starts the task that closes what nobody uses, unless it runs.
    fn take_care(self: &Rc<Self>, net: &Rc<Net>) {
        if self.has_caretaker.replace(true) {
            return;
        }
        let (pool, executor) = (self.clone(), net.executor.clone());
        let limit = net.options.timeouts.idle_connection;
        net.executor.spawn(async move {
            while pool.close_idle(limit) {
                sleep(&executor, limit / 4).await;
            }
            pool.has_caretaker.set(false);
        });
    }

    /// Closes what was idle for longer than the limit; whether anything is left to look after.
    fn close_idle(&self, limit: Duration) -> bool {
        let now = Instant::now();
        let mut closed_idle = Vec::new();
        let mut closed_shared = Vec::new();
        let mut is_needed = false;
        for connections in self.origins.borrow_mut().values_mut() {
            let is_old = |since: Instant| now.duration_since(since) >= limit;
            let (old, young): (Vec<_>, Vec<_>) = std::mem::take(&mut connections.idle)
                .into_iter()
                .partition(|(sender, since)| is_old(*since) || sender.is_closed());
            closed_idle.extend(old);
            connections.idle = young;
            if let Some(shared) = &mut connections.shared {
                let since = match shared.users.get() {
                    0 => *shared.idle_since.get_or_insert(now),
                    _ => now,
                };
                if shared.sender.is_closed() || is_old(since) {
                    closed_shared.extend(connections.shared.take());
                }
            }
            is_needed |= !connections.idle.is_empty() || connections.shared.is_some();
        }
        is_needed
    }

    /// Whether a request has come to wait for others to end since the last call. Their bodies may be
    /// garbage that nobody has collected.
    pub fn take_crowded(&self) -> bool {
        self.is_crowded.replace(false)
    }

    /// Forgets all connections.
    pub fn clear(&self) {
        self.origins.take();
        self.has_caretaker.set(false);
    }
}

type Connection = std::pin::Pin<Box<dyn Future<Output = ()>>>;

async fn open_http1(stream: Stream) -> Result<(Lease, Connection), NetError> {
    let handshake = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
        .max_headers(MAX_RESPONSE_HEADERS)
        .handshake(stream);
    let (sender, connection) = handshake.await.map_err(|error| of_hyper(&error))?;
    // The request on it tells how it failed.
    let connection = Box::pin(async move { drop(connection.await) });
    Ok((Lease::Http1 { sender, is_reused: false }, connection))
}

/// Lets hyper run its own tasks.
#[derive(Clone)]
struct Spawner(Rc<Executor>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            future.await;
        });
    }
}
