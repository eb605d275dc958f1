//! The inspector's endpoint: a few HTTP answers that tell a debugger where to go, and one WebSocket. Knows no V8.
//!
//! One connection is looked after at a time beyond its head, and one debugger is served. The listener is loopback by
//! default; a `Host` that is no address and not `localhost` is refused, so that no web page reaches it by a name of its own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::websocket::{self, Decoder, Incoming};

/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long a client may take for its head, and to take what it is sent.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The endpoint.
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    /// The path of the WebSocket: who knows it may debug.
    id: String,
    title: String,
    debugger: Option<Debugger>,
}

struct Debugger {
    stream: TcpStream,
    decoder: Decoder,
}

/// What a look at the sockets has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Connected,
    Message(String),
    Disconnected,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// As bind(2).
    pub(super) fn bind(address: SocketAddr, title: &str) -> io::Result<Server> {
        let explain =
            |error: io::Error| io::Error::new(error.kind(), format!("listen on {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(explain)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let id = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Server { listener, address, id, title: title.to_owned(), debugger: None })
    }

    /// `ws://ADDRESS/ID`.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/{}", self.address, self.id)
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The debugger's socket, if there is one.
    pub(super) fn debugger(&self) -> Option<BorrowedFd<'_>> {
        self.debugger.as_ref().map(|debugger| debugger.stream.as_fd())
    }

    /// Takes one connection, if one waits: answers it, or makes it the debugger's.
    pub(super) fn accept(&mut self) -> Option<Event> {
        let (stream, _) = self.listener.accept().ok()?;
        // A client that goes away, or says nothing in time, costs itself its answer.
        self.greet(stream).ok().flatten()
    }

    fn greet(&mut self, mut stream: TcpStream) -> io::Result<Option<Event>> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let (head, rest) = read_head(&mut stream)?;
        let Some(request) = Request::parse(&head) else {
            return respond(&mut stream, "400 Bad Request", "").map(|()| None);
        };
        if !is_local_name(request.host) {
            return respond(&mut stream, "403 Forbidden", "").map(|()| None);
        }
        let Some(key) = request.key.filter(|_| request.path.trim_start_matches('/') == self.id) else {
            return self.answer(&mut stream, request.path).map(|()| None);
        };
        if self.debugger.is_some() {
            let why = "{\"error\":\"another debugger is connected: it must go first\"}";
            return respond(&mut stream, "409 Conflict", why).map(|()| None);
        }
        let accept = websocket::accept_key(key);
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        )?;
        let mut decoder = Decoder::default();
        decoder.push(&rest);
        self.debugger = Some(Debugger { stream, decoder });
        Ok(Some(Event::Connected))
    }

    fn answer(&self, stream: &mut TcpStream, path: &str) -> io::Result<()> {
        let body = match path {
            "/json/version" => serde_json::json!({
                "Browser": format!("aworker/{}", env!("CARGO_PKG_VERSION")),
                "Protocol-Version": "1.3",
                "V8-Version": crate::engine::v8_version(),
            }),
            "/json" | "/json/list" => {
                let url = self.url();
                let place = url.trim_start_matches("ws://");
                serde_json::json!([{
                    "id": self.id,
                    "type": "node",
                    "title": self.title,
                    "description": "aworker",
                    "url": format!("file://{}", self.title),
                    "webSocketDebuggerUrl": url,
                    "devtoolsFrontendUrl": format!("devtools://devtools/bundled/js_app.html?experiments=true&v8only=true&ws={place}"),
                }])
            }
            _ => return respond(stream, "404 Not Found", ""),
        };
        respond(stream, "200 OK", &body.to_string())
    }

    /// The debugger's next message, if it has come whole.
    pub(super) fn receive(&mut self) -> Option<Event> {
        loop {
            let debugger = self.debugger.as_mut()?;
            match debugger.decoder.next() {
                Ok(Some(Incoming::Text(text))) => return Some(Event::Message(text)),
                Ok(Some(Incoming::Ping(payload))) => self.send_frame(&websocket::frame(10, &payload)),
                Ok(None) => return None,
                Ok(Some(Incoming::Close)) | Err(_) => {
                    self.send_frame(&websocket::frame(8, &[]));
                    self.debugger = None;
                    return Some(Event::Disconnected);
                }
            }
        }
    }

    /// Reads what the debugger's socket has; it was found ready.
    pub(super) fn read(&mut self) -> Option<Event> {
        let debugger = self.debugger.as_mut()?;
        let mut buffer = [0; 64 << 10];
        match debugger.stream.read(&mut buffer) {
            Ok(count @ 1..) => {
                debugger.decoder.push(&buffer[..count]);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Ok(0) | Err(_) => {
                self.debugger = None;
                Some(Event::Disconnected)
            }
        }
    }

    /// Sends a message to the debugger, if there is one. One that takes nothing for a while is let go.
    pub(super) fn send(&mut self, text: &str) {
        self.send_frame(&websocket::frame(1, text.as_bytes()));
    }

    fn send_frame(&mut self, frame: &[u8]) {
        if let Some(debugger) = &mut self.debugger
            && debugger.stream.write_all(frame).is_err()
        {
            // The next read finds it closed, and tells.
            let _ = debugger.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn respond(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json; charset=UTF-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The head of a request, and what came after it.
fn read_head(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if bytes.len() > MAX_HEAD_BYTES => return Err(io::ErrorKind::InvalidData.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

struct Request<'a> {
    path: &'a str,
    host: &'a str,
    key: Option<&'a str>,
}

impl Request<'_> {
    fn parse(head: &[u8]) -> Option<Request<'_>> {
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (Some("GET"), Some(path)) = (words.next(), words.next()) else {
            return None;
        };
        let mut request = Request { path, host: "", key: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value.trim(),
                "sec-websocket-key" => request.key = Some(value.trim()),
                _ => {}
            }
        }
        Some(request)
    }
}

/// An address, or `localhost`: no name that a stranger may point here.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        for (host, expected) in [
            ("127.0.0.1:9229", true),
            ("localhost:9229", true),
            ("LOCALHOST", true),
            ("[::1]:9229", true),
            ("10.0.0.1", true),
            ("evil.example:9229", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_local_name(host), expected, "{host}");
        }
    }
}
