//! HTTP servers that say exactly what a test wants them to say, and scripts that talk to them.

// Each test program uses a part of it.
#![allow(dead_code)]

pub mod proxy;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// No peer may take longer than this, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
    /// Which connection of the server it came on, counted from 0.
    pub connection: usize,
}

impl Request {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What is done about a request.
pub enum Answer {
    /// These bytes, and the connection goes on.
    Keep(Vec<u8>),
    /// These bytes, and an end of stream.
    Close(Vec<u8>),
    /// These bytes, and a reset.
    Reset(Vec<u8>),
    /// These bytes, and nothing more until the client closes.
    Hang(Vec<u8>),
}

/// A plain answer with this body.
pub fn ok(body: &str) -> Answer {
    Answer::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// A server of canned answers on a port of 127.0.0.1; its threads end with the test program.
pub struct Peer {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Peer {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (answer, list) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for (connection, socket) in listener.incoming().enumerate() {
                let (socket, answer, list) = (socket.expect("accepts"), answer.clone(), list.clone());
                std::thread::spawn(move || converse(socket, connection, &*answer, &list));
            }
        });
        Peer { address, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no test thread panics").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn converse(
    mut socket: TcpStream,
    connection: usize,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
    seen: &Mutex<Vec<Request>>,
) {
    socket.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut buffer, connection) {
        seen.lock().expect("no test thread panics").push(request.clone());
        let (bytes, end) = match answer(&request) {
            Answer::Keep(bytes) => (bytes, None),
            Answer::Close(bytes) => (bytes, Some('c')),
            Answer::Reset(bytes) => (bytes, Some('r')),
            Answer::Hang(bytes) => (bytes, Some('h')),
        };
        // The client may be gone already: that is for the test to see.
        let _ = socket.write_all(&bytes);
        match end {
            None => {}
            Some('r') => {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Linger, &linger)
                    .expect("sets");
                return;
            }
            Some('h') => {
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest);
                return;
            }
            Some(_) => return,
        }
    }
}

/// The next request, with its body; none if the client closes.
fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>, connection: usize) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        fill(socket, buffer)?;
    };
    // Heads are bytes: one character each.
    let head = buffer.drain(..end).map(char::from).collect();
    let mut request = Request { head, body: Vec::new(), connection };
    if let Some(length) = request.header("content-length") {
        let length: usize = length.parse().expect("a number");
        while buffer.len() < length {
            fill(socket, buffer)?;
        }
        request.body = buffer.drain(..length).collect();
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let line = read_line(socket, buffer)?;
            let size = usize::from_str_radix(line.trim(), 16).expect("a size");
            while buffer.len() < size + 2 {
                fill(socket, buffer)?;
            }
            request.body.extend(buffer.drain(..size + 2).take(size));
            if size == 0 {
                break;
            }
        }
    }
    Some(request)
}

fn read_line(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.iter().position(|byte| *byte == b'\n') {
            return Some(String::from_utf8(buffer.drain(..=at).collect()).expect("UTF-8"));
        }
        fill(socket, buffer)?;
    }
}

fn fill(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 65536];
    let count = socket.read(&mut piece).ok().filter(|count| *count > 0)?;
    buffer.extend_from_slice(&piece[..count]);
    Some(())
}

/// A scratch directory, removed when dropped.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = crate::temporary::path(name);
        std::fs::create_dir_all(&path).expect("makes a directory");
        Scratch(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("writes");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What every script of a test may use.
const PRELUDE: &str = "
    const same = (actual, expected, what = '') => {
      if (!Object.is(actual, expected)) throw new Error(`${what}: ${String(actual)} is not ${String(expected)}`);
    };
    const fails = async (promise, pattern, type = TypeError) => {
      const error = await promise.then(() => { throw new Error(`${pattern}: nothing failed`); }, (error) => error);
      if (!(error instanceof type) || !pattern.test(`${error.message} ${error.cause?.code ?? ''}`)) {
        throw new Error(`failed otherwise than ${pattern}: ${error} ${error.cause?.code}`);
      }
      return error;
    };
    const base = Aworker.args[0];
";

/// Runs a module with `same`, `fails` and `base`; it must end well.
#[track_caller]
pub fn run(name: &str, base: &str, script: &str) {
    run_with(name, base, script, &[], &[]);
}

#[track_caller]
pub fn run_with(name: &str, base: &str, script: &str, options: &[&str], environment: &[(&str, &str)]) {
    let scratch = Scratch::new(name);
    let file = scratch.write("test.mjs", &format!("{PRELUDE}{script}\nconsole.log('done');\n"));
    let child = Command::new(env!("CARGO_BIN_EXE_aworker"))
        .arg("run")
        .args(options)
        .arg(&file)
        .arg(base)
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("aworker starts");
    let output = child.wait_with_output().expect("aworker ends");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("done\n"), "{}\n{stdout}\n{stderr}", output.status);
}
