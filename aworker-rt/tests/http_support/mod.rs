//! A running `aworker` that serves, and a client that reads its answers strictly.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No answer may take longer than this, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running worker with a script of its own; killed when dropped.
pub struct Server {
    pub child: Child,
    pub stderr: BufReader<ChildStderr>,
    pub address: String,
    pub directory: PathBuf,
}

impl Server {
    pub fn start(name: &str, script: &str) -> Server {
        Server::start_with(name, script, &["--listen", "127.0.0.1:0"])
    }

    pub fn start_with(name: &str, script: &str, options: &[&str]) -> Server {
        Server::start_file(name, "worker.js", script, options)
    }

    pub fn start_file(name: &str, file: &str, script: &str, options: &[&str]) -> Server {
        let directory = crate::temporary::path(name);
        std::fs::create_dir_all(&directory).expect("make a directory");
        let file = directory.join(file);
        std::fs::write(&file, script).expect("write the script");
        let options = options.iter().map(|option| option.replace("DIR", directory.to_str().expect("UTF-8")));
        let mut child = Command::new(env!("CARGO_BIN_EXE_aworker"))
            .env_remove("LISTEN_FDS")
            .env("GREETING", "hello from env")
            .arg("run")
            .args(options)
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .expect("aworker starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let address = line
            .strip_prefix("aworker: listening on ")
            .unwrap_or_else(|| panic!("unexpected first line {line:?}"))
            .trim()
            .trim_start_matches("tcp://")
            .to_owned();
        Server { child, stderr, address, directory }
    }

    pub fn connect(&self) -> Client<TcpStream> {
        let socket = TcpStream::connect(&self.address).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
        Client { socket, buffer: Vec::new() }
    }

    /// Sends a request on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        let mut client = self.connect();
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.receive()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("the worker runs");
    }

    /// Waits for the end; the exit status and the rest of stderr.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("wait").code(), rest)
    }

    /// Stops the worker and returns what it wrote to stderr.
    pub fn stop(self) -> String {
        self.signal(Signal::SIGTERM);
        let (status, stderr) = self.finish();
        assert_eq!(status, Some(0), "{stderr}");
        stderr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One response as it came.
#[derive(Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub struct Client<S> {
    pub socket: S,
    pub buffer: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("send");
    }

    pub fn exchange(&mut self, text: &str) -> Response {
        self.send(text);
        self.receive()
    }

    pub fn receive(&mut self) -> Response {
        self.receive_for("GET")
    }

    /// Reads one response to a request of this method.
    pub fn receive_for(&mut self, method: &str) -> Response {
        let head = self.until(b"\r\n\r\n");
        let head = String::from_utf8(head).expect("UTF-8");
        let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let mut response = Response { status, head, body: Vec::new() };
        if method == "HEAD" || matches!(status, 100 | 204 | 304) {
            return response;
        }
        if response.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = String::from_utf8(self.until(b"\r\n")).expect("UTF-8");
                let size = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
                let chunk = self.take(size);
                response.body.extend(chunk);
                assert_eq!(self.take(2), b"\r\n");
                if size == 0 {
                    return response;
                }
            }
        }
        response.body = match response.header("content-length") {
            Some(length) => self.take(length.parse().expect("a length")),
            None => self.rest(),
        };
        response
    }

    pub fn fill(&mut self) -> usize {
        let mut piece = [0; 65536];
        let count = match self.socket.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            other => other.expect("receive in time"),
        };
        self.buffer.extend_from_slice(&piece[..count]);
        count
    }

    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            assert!(self.fill() > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill() > 0, "closed {} bytes early", count - self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    pub fn assert_closed(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }
}

/// Answers with what it was asked.
pub const ECHO: &str = "
    export default {
      async fetch(request) {
        const body = await request.text();
        return new Response(`${request.method} ${request.url} ${body}`);
      }
    };";

/// The plainest request.
pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
