//! A stub resolver that never blocks: hosts(5), then DNS by resolv.conf(5).
//!
//! Both files are read for each lookup: they are small, and a container's may be replaced while it
//! runs. Nothing is cached: kept connections spare most lookups, and a resolver on the machine the rest.
//! Each query has an identifier from getrandom(2) and a socket of its own, whose port the kernel
//! draws (RFC 5452). IPv4 and IPv6 addresses are asked for at the same time and handed out as they
//! come, so that the first of them can be tried before the last is known (RFC 8305).

mod config;
mod message;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, recv, send};

use super::connect::connect_tcp;
use super::error::NetError;
use super::executor::{Executor, Side, Source, TaskId, timeout};
use super::limits::MAX_ADDRESSES;
use config::{Config, hosts_addresses};
use message::{Answer, Edns, RecordType, decode, encode_name, encode_query};

/// Room for a datagram: larger ones are cut off and asked for again by TCP.
const DATAGRAM_BYTES: usize = 4096;

/// Where the resolver finds its settings.
#[derive(Clone, Debug)]
pub struct Files {
    /// See resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// See hosts(5).
    pub hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Files {
        Files { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// What is known so far.
#[derive(Default)]
struct Found {
    ipv6: VecDeque<IpAddr>,
    ipv4: VecDeque<IpAddr>,
    count: usize,
    outcome: Option<Result<(), NetError>>,
    waiter: Option<Waker>,
}

impl Found {
    fn add(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if self.count == MAX_ADDRESSES {
                break;
            }
            self.count += 1;
            if address.is_ipv6() { self.ipv6.push_back(address) } else { self.ipv4.push_back(address) }
        }
        self.waiter.take().into_iter().for_each(Waker::wake);
    }

    fn finish(&mut self, outcome: Result<(), NetError>) {
        self.outcome = Some(outcome);
        self.waiter.take().into_iter().for_each(Waker::wake);
    }
}

/// A lookup that goes on while it is looked at; dropping it ends it.
pub struct Lookup {
    executor: Rc<Executor>,
    found: Rc<RefCell<Found>>,
    task: Option<TaskId>,
    last_was_ipv6: bool,
}

/// What [`Lookup::take`] has.
pub enum Next {
    /// An address to try.
    Address(IpAddr),
    /// Nothing now; the context's task is woken.
    Later,
    /// Nothing any more, and whether the lookup was a success.
    Nothing(Result<(), NetError>),
}

/// Begins to look up a host: a name, or an address, with or without brackets.
pub fn look_up(executor: &Rc<Executor>, files: &Files, host: &str) -> Lookup {
    let found = Rc::new(RefCell::new(Found::default()));
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let known = literal
        .map(|address| vec![address])
        .or_else(|| loopback(host))
        .unwrap_or_else(|| hosts_addresses(&files.hosts, host));
    let mut task = None;
    if known.is_empty() {
        let (inner, into) = (executor.clone(), found.clone());
        let (host, path) = (host.to_owned(), files.resolv_conf.clone());
        task = Some(executor.spawn(async move {
            let outcome = resolve(&inner, &Config::read(&path), &host, &into).await;
            into.borrow_mut().finish(outcome);
        }));
    } else {
        found.borrow_mut().add(known);
        found.borrow_mut().finish(Ok(()));
    }
    Lookup { executor: executor.clone(), found, task, last_was_ipv6: false }
}

/// `localhost` and what is below it never leave the machine (RFC 6761, section 6.3).
fn loopback(host: &str) -> Option<Vec<IpAddr>> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    is_local.then(|| vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
}

impl Lookup {
    /// The next address, IPv6 first and then in turns (RFC 8305, section 4).
    pub fn take(&mut self, context: &mut Context<'_>) -> Next {
        let mut found = self.found.borrow_mut();
        let found = &mut *found;
        let address = match self.last_was_ipv6 {
            true => found.ipv4.pop_front().or_else(|| found.ipv6.pop_front()),
            false => found.ipv6.pop_front().or_else(|| found.ipv4.pop_front()),
        };
        if let Some(address) = address {
            self.last_was_ipv6 = address.is_ipv6();
            return Next::Address(address);
        }
        match &found.outcome {
            Some(outcome) => Next::Nothing(outcome.clone()),
            None => {
                found.waiter = Some(context.waker().clone());
                Next::Later
            }
        }
    }

    /// Only IPv4 addresses are known, and IPv6 addresses may still come.
    pub fn waits_for_ipv6(&self) -> bool {
        let found = self.found.borrow();
        found.outcome.is_none() && found.ipv6.is_empty() && !found.ipv4.is_empty()
    }

    /// Calls back when more is known.
    pub fn wake_on_news(&self, context: &Context<'_>) {
        self.found.borrow_mut().waiter = Some(context.waker().clone());
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.executor.cancel(task);
        }
    }
}

/// Why one name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    NoSuchName,
    ServerFailed,
    TimedOut,
}

async fn resolve(
    executor: &Rc<Executor>,
    config: &Config,
    host: &str,
    found: &RefCell<Found>,
) -> Result<(), NetError> {
    let mut worst = Failure::NoSuchName;
    for candidate in config.candidates(host) {
        let Some(name) = encode_name(&candidate) else { continue };
        let ipv4 = ask(executor, config, &name, RecordType::A, found);
        let ipv6 = async {
            if config.no_aaaa {
                return Ok(());
            }
            ask(executor, config, &name, RecordType::Aaaa, found).await
        };
        let outcomes = join(ipv4, ipv6).await;
        if found.borrow().count > 0 {
            return Ok(());
        }
        for failure in [outcomes.0, outcomes.1].into_iter().filter_map(Result::err) {
            if failure != Failure::NoSuchName {
                worst = failure;
            }
        }
    }
    Err(match worst {
        Failure::NoSuchName => NetError::new("ENOTFOUND", format!("look up {host}: no such name")),
        Failure::ServerFailed => {
            NetError::new("EAI_AGAIN", format!("look up {host}: the name servers cannot tell"))
        }
        Failure::TimedOut => NetError::new("EAI_AGAIN", format!("look up {host}: no name server answered")),
    })
}

/// Awaits two futures at the same time.
async fn join<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    std::future::poll_fn(|context| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(context)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(context)
        {
            b = Some(value);
        }
        match a.is_some() && b.is_some() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    (a.expect("ready"), b.expect("ready"))
}

/// Asks the servers in turn for one kind of address.
async fn ask(
    executor: &Rc<Executor>,
    config: &Config,
    name: &[u8],
    record: RecordType,
    found: &RefCell<Found>,
) -> Result<(), Failure> {
    let mut failure = Failure::TimedOut;
    let first = if config.rotate { usize::from(random_u16()) } else { 0 };
    for round in 0..config.attempts {
        for index in 0..config.servers.len() {
            let server = config.servers[(first + index) % config.servers.len()];
            match ask_server(executor, config, server, name, record, round).await {
                Ok(Answer::Addresses(addresses)) => {
                    found.borrow_mut().add(addresses);
                    return Ok(());
                }
                Ok(Answer::NoSuchName) => return Err(Failure::NoSuchName),
                Ok(Answer::Failed(_) | Answer::Truncated) => failure = Failure::ServerFailed,
                Err(_) => {}
            }
        }
    }
    Err(failure)
}

async fn ask_server(
    executor: &Rc<Executor>,
    config: &Config,
    server: SocketAddr,
    name: &[u8],
    record: RecordType,
    round: usize,
) -> io::Result<Answer> {
    let id = random_u16();
    // A server that chokes on EDNS is asked without it the next time.
    let edns = if config.edns && round == 0 { Edns::On } else { Edns::Off };
    let query = encode_query(id, name, record, edns);
    let limit = |future| timeout(executor, config.timeout, future);
    if !config.use_tcp {
        let answer = limit(Box::pin(by_datagram(executor, server, &query, id, name, record)) as Asking<'_>);
        match answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            Answer::Truncated => {}
            answer => return Ok(answer),
        }
    }
    let answer = limit(Box::pin(by_tcp(executor, server, &query, id, name, record)) as Asking<'_>);
    answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

type Asking<'a> = std::pin::Pin<Box<dyn Future<Output = io::Result<Answer>> + 'a>>;

async fn by_datagram(
    executor: &Rc<Executor>,
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &[u8],
    record: RecordType,
) -> io::Result<Answer> {
    let family = if server.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(family, SockType::Datagram, flags, None)?;
    // A connected socket takes datagrams of this server only, and hears of unreachable ports.
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(server))?;
    let socket = Source::new(executor, socket)?;
    socket.io(Side::Write, |fd| Ok(send(fd.as_raw_fd(), query, MsgFlags::MSG_NOSIGNAL)?)).await?;
    let mut datagram = vec![0; DATAGRAM_BYTES];
    loop {
        let received =
            socket.io(Side::Read, |fd| Ok(recv(fd.as_raw_fd(), &mut datagram, MsgFlags::empty())?));
        let count = received.await?;
        // Anything else may be forged: the true answer may still come.
        if let Ok(answer) = decode(&datagram[..count], id, name, record) {
            return Ok(answer);
        }
    }
}

/// RFC 7766: a message after its length.
async fn by_tcp(
    executor: &Rc<Executor>,
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &[u8],
    record: RecordType,
) -> io::Result<Answer> {
    let socket = connect_tcp(executor, server).await?;
    let length = u16::try_from(query.len()).expect("a query is short");
    let message = [&length.to_be_bytes(), query].concat();
    let mut sent = 0;
    while sent < message.len() {
        let rest = &message[sent..];
        sent += socket.io(Side::Write, |fd| Ok(send(fd.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL)?)).await?;
    }
    let mut length = [0; 2];
    receive_exactly(&socket, &mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    receive_exactly(&socket, &mut answer).await?;
    decode(&answer, id, name, record).map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn receive_exactly(socket: &Source, bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let room = &mut bytes[filled..];
        let count = socket.io(Side::Read, |fd| Ok(recv(fd.as_raw_fd(), room, MsgFlags::empty())?)).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
    }
    Ok(())
}

/// Two bytes that no clone shares.
fn random_u16() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("getrandom(2) works");
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests;
