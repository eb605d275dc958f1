//! The asking side of a pool's control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::config::PoolName;
use super::place;
use crate::error::{Error, Operation, Result};
use crate::root::StateRoot;

/// How long a supervisor may take to answer; it may be making a sandbox just now.
const ANSWER: Duration = Duration::from_secs(20);

/// Longest answer: the status of 10,000 workers.
const ANSWER_BYTES: u64 = 16 << 20;

/// What a supervisor answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for one thing: `GET /status`.
pub fn ask(root: &StateRoot, name: &PoolName, request: &str) -> Result<Answer> {
    ask_with(root, name, request, "")
}

/// As [`ask`], with a body: `POST /send`.
pub fn ask_with(root: &StateRoot, name: &PoolName, request: &str, body: &str) -> Result<Answer> {
    let mut answer = send(root, name, request, body, Some(ANSWER))?;
    let status = read_head(&mut answer, name)?;
    let mut body = String::new();
    answer
        .take(ANSWER_BYTES)
        .read_to_string(&mut body)
        .operation(|| format!("read the answer of pool {name}"))?;
    Ok(Answer { status, body })
}

/// Asks for lines without an end: `GET /events?follow`; `each` is called with every line until the pool ends.
pub fn follow(
    root: &StateRoot,
    name: &PoolName,
    request: &str,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut answer = send(root, name, request, "", None)?;
    read_head(&mut answer, name)?;
    for line in answer.lines() {
        each(&line.operation(|| format!("read the events of pool {name}"))?)?;
    }
    Ok(())
}

fn send(
    root: &StateRoot,
    name: &PoolName,
    request: &str,
    body: &str,
    timeout: Option<Duration>,
) -> Result<BufReader<UnixStream>> {
    let path = place::control(root, name);
    let connected = match path.as_os_str().len() <= crate::limits::SOCKET_PATH_BYTES {
        true => UnixStream::connect(&path),
        false => connect_long(&path),
    };
    let mut stream = connected.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            Error::invalid(format!("pool {name}"), "does not run")
        }
        _ => Error::io(format!("connect to {}", path.display()), error),
    })?;
    stream.set_read_timeout(timeout).operation(|| "set a timeout")?;
    let length = body.len();
    let text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).operation(|| format!("ask pool {name}"))?;
    Ok(BufReader::new(stream))
}

fn connect_long(path: &std::path::Path) -> std::io::Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    };
    let directory = std::fs::File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name.display()))
}

fn read_head(answer: &mut BufReader<UnixStream>, name: &PoolName) -> Result<u16> {
    let failed = || format!("read the answer of pool {name}");
    let mut line = String::new();
    answer.read_line(&mut line).operation(failed)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::invalid(format!("pool {name}"), "gave no answer"))?;
    loop {
        line.clear();
        if answer.read_line(&mut line).operation(failed)? == 0 || line == "\r\n" {
            return Ok(status);
        }
    }
}
