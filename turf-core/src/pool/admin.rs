//! The control socket: HTTP/1.1 on a Unix socket of mode 0600, one request on each connection.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | everything as JSON |
//! | `GET /metrics` | the text format of Prometheus |
//! | `GET /live` | 200 |
//! | `GET /ready` | 200, or 503 if a connection that came now would not be served |
//! | `GET /events?after=N[&follow]` | events as lines of JSON; with `follow` the connection stays open |
//! | `POST /scale?min=N&max=N` | 200 |
//! | `POST /send[?to=WORKER]` | 200: the JSON in its body, of at most 16 KiB, was given to so many workers; 404 |
//! | `POST /reload` | 202: the result is in `/status` |
//! | `POST /drain`, `/stop`, `/release` | 202 |
//!
//! Clients are served without waiting for any of them: a slow one costs a descriptor for [`PATIENCE`], no more.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use serde_json::json;

use super::config::MAX_WORKERS;
use super::supervisor::{Ending, Poller, Source, Supervisor};
use crate::error::{Operation, Result};

/// Longest request head.
const HEAD_BYTES: usize = 4096;

/// Longest request: its head and a message.
const REQUEST_BYTES: usize = HEAD_BYTES + Supervisor::OUTSIDE_BYTES;

/// Most clients at one time.
const MAX_CLIENTS: usize = 64;

/// Time that a client has for its request, and again for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that wait for one who follows the events; one who does not read is dropped.
const FOLLOW_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    follows: bool,
    until: Instant,
}

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct Admin {
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

/// A request, parsed.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

/// What has come of a request.
#[derive(Debug, PartialEq, Eq)]
enum Received<'a> {
    Whole(Request<'a>),
    Partly,
    Nonsense,
}

impl Admin {
    /// Listens at `path`, in the place of whoever did before.
    pub fn listen(path: &Path) -> Result<Admin> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.operation(|| format!("remove {}", path.display()))?,
        }
        let failed = || format!("listen on {}", path.display());
        let listener = bind(path).operation(failed)?;
        listener.set_nonblocking(true).operation(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).operation(failed)?;
        Ok(Admin { listener, clients: BTreeMap::new(), next: 0 })
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.clients.values().filter(|client| !client.follows).map(|client| client.until).min()
    }

    /// Drops those whose time is up.
    pub fn expire(&mut self, now: Instant) {
        self.clients.retain(|_, client| client.follows || client.until > now);
    }

    /// Sends a line to those who follow.
    pub fn follow(&mut self, poller: &Poller, line: &str) {
        let mut gone = Vec::new();
        for (number, client) in self.clients.iter_mut().filter(|(_, client)| client.follows) {
            client.answer.extend_from_slice(line.as_bytes());
            if client.answer.len() - client.sent > FOLLOW_BYTES || !client.send(poller, *number) {
                gone.push(*number);
            }
        }
        for number in gone {
            self.clients.remove(&number);
        }
    }
}

/// The directory is private; the path may be longer than a socket's address.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.as_os_str().len() <= crate::limits::SOCKET_PATH_BYTES {
        return UnixListener::bind(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    };
    let directory = std::fs::File::open(directory)?;
    use std::os::fd::AsRawFd;
    UnixListener::bind(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

impl Client {
    /// Sends what it takes. False if there is no more to do for it.
    fn send(&mut self, poller: &Poller, number: u64) -> bool {
        while self.sent < self.answer.len() {
            match self.stream.write(&self.answer[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
                    return poller.modify(&self.stream, flags, Source::AdminClient(number)).is_ok();
                }
                Err(_) => return false,
            }
        }
        self.answer.clear();
        self.sent = 0;
        self.follows && poller.modify(&self.stream, EpollFlags::EPOLLIN, Source::AdminClient(number)).is_ok()
    }

    /// Reads; whether the client is still there.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; HEAD_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                // After its request a client has nothing more to say.
                Ok(_) if self.request.len() > REQUEST_BYTES => {}
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

impl Supervisor {
    pub(super) fn accept_admin(&mut self) {
        while let Ok((stream, _)) = self.admin.listener.accept() {
            if self.admin.clients.len() >= MAX_CLIENTS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.admin.next += 1;
            let number = self.admin.next;
            if self.poller.add(&stream, EpollFlags::EPOLLIN, Source::AdminClient(number)).is_ok() {
                let until = Instant::now() + PATIENCE;
                let client = Client {
                    stream,
                    request: Vec::new(),
                    answer: Vec::new(),
                    sent: 0,
                    follows: false,
                    until,
                };
                self.admin.clients.insert(number, client);
            }
        }
    }

    pub(super) fn serve_admin(&mut self, number: u64, flags: EpollFlags) {
        let Some(mut client) = self.admin.clients.remove(&number) else { return };
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP) {
            let has_answer = client.follows || !client.answer.is_empty();
            if !client.receive() {
                return;
            }
            if !has_answer {
                let bytes = std::mem::take(&mut client.request);
                client.answer = match parse(&bytes) {
                    Received::Whole(request) => self.answer(&request, &mut client.follows),
                    Received::Nonsense => response(400, "text/plain", "not a request\n"),
                    Received::Partly => {
                        client.request = bytes;
                        self.admin.clients.insert(number, client);
                        return;
                    }
                };
                client.until = Instant::now() + PATIENCE;
            }
        }
        if client.send(&self.poller, number) {
            self.admin.clients.insert(number, client);
        }
    }

    fn answer(&mut self, request: &Request<'_>, follows: &mut bool) -> Vec<u8> {
        match (request.method, request.path) {
            ("GET", "/status") => {
                let status = self.status();
                response(200, "application/json", &format!("{status}\n"))
            }
            ("GET", "/metrics") => response(200, "text/plain; version=0.0.4", &self.metrics()),
            ("GET", "/live") => response(200, "text/plain", "live\n"),
            ("GET", "/ready") if self.is_ready() => response(200, "text/plain", "ready\n"),
            ("GET", "/ready") => response(503, "text/plain", "not ready\n"),
            ("GET", "/events") => {
                let after = request.value("after").and_then(|after| after.parse().ok()).unwrap_or(0);
                let lines: String =
                    self.events.after(after).into_iter().map(super::events::Event::line).collect();
                *follows = request.value("follow").is_some();
                // Without a length the end of the connection is the end of the answer.
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nConnection: close\r\n\r\n";
                format!("{head}{lines}").into_bytes()
            }
            ("POST", "/scale") => self.scale(request),
            ("POST", "/send") => self.send(request),
            ("POST", "/reload") => {
                self.reload();
                response(202, "text/plain", "reloading\n")
            }
            ("POST", "/drain") => {
                self.drain();
                response(202, "text/plain", "draining\n")
            }
            ("POST", "/stop") => {
                self.stop();
                response(202, "text/plain", "stopping\n")
            }
            ("POST", "/release") => {
                self.release();
                response(202, "text/plain", "releasing\n")
            }
            (_, "/status" | "/metrics" | "/live" | "/ready" | "/events") => {
                response(405, "text/plain", "only GET\n")
            }
            (_, "/scale" | "/send" | "/reload" | "/drain" | "/stop" | "/release") => {
                response(405, "text/plain", "only POST\n")
            }
            _ => response(404, "text/plain", "nothing is there\n"),
        }
    }

    fn scale(&mut self, request: &Request<'_>) -> Vec<u8> {
        let bounds = &mut self.config.bounds;
        let number = |name, now: u32| request.value(name).map_or(Ok(now), str::parse::<u32>);
        let (Ok(min), Ok(max)) = (number("min", bounds.min), number("max", bounds.max)) else {
            return response(400, "text/plain", "min and max must be numbers\n");
        };
        if max == 0 || max > MAX_WORKERS || min > max {
            let text = format!("max must be from 1 to {MAX_WORKERS}, and min not more than max\n");
            return response(400, "text/plain", &text);
        }
        (bounds.min, bounds.max) = (min, max);
        self.event("scale", None, json!({ "min": min, "max": max }));
        self.wake();
        response(200, "text/plain", &format!("min {min}, max {max}\n"))
    }

    /// A message from outside.
    fn send(&mut self, request: &Request<'_>) -> Vec<u8> {
        if serde_json::from_slice::<serde::de::IgnoredAny>(request.body).is_err() {
            return response(400, "text/plain", "the message is no JSON\n");
        }
        let to = request.value("to");
        match self.send_from_outside(to, request.body) {
            Some(sent) => {
                let answer = json!({ "workers": sent.workers, "lost": sent.lost });
                response(200, "application/json", &format!("{answer}\n"))
            }
            None => response(404, "text/plain", &format!("there is no worker {}\n", to.unwrap_or_default())),
        }
    }

    /// Ends without the workers: another supervisor takes them over.
    fn release(&mut self) {
        self.remember();
        self.ending = Ending::Releasing;
    }
}

impl<'a> Request<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        self.query.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

/// The request line and the length of the body; other header fields mean nothing here.
fn parse(bytes: &[u8]) -> Received<'_> {
    let head_end = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|end| end + 4);
    let Some((head, body)) = head_end.map(|end| bytes.split_at(end)) else {
        return if bytes.len() < HEAD_BYTES { Received::Partly } else { Received::Nonsense };
    };
    let Some((mut request, length)) = parse_head(head) else { return Received::Nonsense };
    match body.split_at_checked(length) {
        Some((body, _)) => {
            request.body = body;
            Received::Whole(request)
        }
        None => Received::Partly,
    }
}

fn parse_head(head: &[u8]) -> Option<(Request<'_>, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") || words.next().is_some() {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let lengths: Vec<&str> = fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.trim())
        .collect();
    let length = match lengths[..] {
        [] => 0,
        [length] => length.parse().ok().filter(|length| *length <= Supervisor::OUTSIDE_BYTES)?,
        _ => return None,
    };
    Some((Request { method, path, query, body: &[] }, length))
}

fn response(status: u16, kind: &str, body: &str) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Request<'_> {
        match parse(bytes) {
            Received::Whole(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_parsed_and_nonsense_is_not() {
        let request = whole(b"POST /scale?min=1&max=4 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((request.method, request.path), ("POST", "/scale"));
        assert_eq!((request.value("max"), request.value("follow")), (Some("4"), None));
        let request = whole(b"GET /events?follow HTTP/1.0\r\n\r\n");
        assert_eq!(request.value("follow"), Some(""));
        let request = whole(b"POST /send HTTP/1.1\r\nContent-length: 2\r\n\r\n{}more");
        assert_eq!(request.body, b"{}");
        for partly in [&b""[..], b"GET /", b"POST /send HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}"] {
            assert_eq!(parse(partly), Received::Partly);
        }
        for bad in [
            &b"GET / FTP/1.0\r\n\r\n"[..],
            b"\xff\xff\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
            b"POST /send HTTP/1.1\r\nContent-Length: 99999\r\n\r\n",
            b"POST /send HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /send HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12",
            &[b'x'; HEAD_BYTES],
        ] {
            assert_eq!(parse(bad), Received::Nonsense);
        }
    }

    #[test]
    fn a_response_has_its_length() {
        let text = String::from_utf8(response(404, "text/plain", "abc")).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 404 Not Found\r\n")
                && text.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\nabc")
        );
    }
}
