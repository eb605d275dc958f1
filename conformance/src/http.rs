//! A small HTTP/1.1 client, on purpose independent of the server that it tests (RFC 9112).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait;

/// The longest head of a response that is accepted.
const MAX_HEAD: usize = 64 * 1024;

/// One keep-alive connection.
pub struct Client {
    stream: TcpStream,
    /// Received, not yet used.
    buffer: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and their values.
    pub headers: Vec<(String, String)>,
    /// The whole body, decoded.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).context("the body is no UTF-8")
    }
}

/// An address on this machine that nobody listens on. Its port is not among those that the system gives to
/// connections (`ip_local_port_range`, from 32768): one of these may be taken before the listener is there.
pub fn free_address() -> Result<SocketAddr> {
    const PORTS: Range<u32> = 10_000..32_000;
    static TRIES: AtomicU32 = AtomicU32::new(0);
    let mine = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let number = mine.wrapping_add(TRIES.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(PORTS.start + number)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free")
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Result<Response> {
    Client::connect(address)?.get(path)
}

impl Client {
    /// Connects; every later read and write is bounded.
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&address, wait::STEP)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(wait::STEP))?;
        stream.set_write_timeout(Some(wait::STEP))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: Vec::new() })
    }

    /// Sends a GET and reads its response.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: conformance\r\n\r\n").as_bytes())?;
        self.receive()
    }

    /// Sends a POST with a body of known length and reads its response.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Result<Response> {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: conformance\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat())?;
        self.receive()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("send a request")
    }

    /// Whether nothing comes for this long.
    pub fn silent_for(&self, limit: Duration) -> bool {
        self.buffer.is_empty() && !wait::readable_within(&self.stream, limit)
    }

    /// Reads so many bytes as they are.
    pub fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.take(count))
    }

    /// Reads one response.
    pub fn receive(&mut self) -> Result<Response> {
        let head_len = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.buffer.len() < MAX_HEAD, "the response's head is longer than {MAX_HEAD} bytes");
            self.fill()?;
        };
        let head = String::from_utf8(self.take(head_len)).context("the response's head is no UTF-8")?;
        let (status, headers) = parse_head(&head)?;
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = self.body(&response)?;
        Ok(response)
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunks();
        }
        match response.header("content-length") {
            Some(length) => {
                let length = length.parse().with_context(|| format!("content-length is {length:?}"))?;
                self.exactly(length)
            }
            None if matches!(response.status, 204 | 304) => Ok(Vec::new()),
            None => bail!("the response has no length: {response:?}"),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            ensure!(self.line()?.is_empty(), "a chunk does not end where its size says");
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return String::from_utf8(line).context("a line of the response is no UTF-8");
            }
            self.fill()?;
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.take(length))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut chunk) {
                // A read with a time limit is not begun again after a signal, such as that of a child's end (signal(7)).
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                count => break count.context("receive a response")?,
            }
        };
        ensure!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

type Head = (u16, Vec<(String, String)>);

fn parse_head(head: &str) -> Result<Head> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.with_context(|| format!("status line {first:?}"))?;
    let split = |line: &str| {
        let (name, value) = line.split_once(':').with_context(|| format!("header line {line:?}"))?;
        Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.filter(|line| !line.is_empty()).map(split).collect::<Result<_>>()?;
    Ok((status, headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Serves fixed bytes to one client, whatever it asks.
    fn serve(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        let length = serve(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 404 no\r\ncontent-length:0\r\n\r\n",
        );
        let mut client = Client::connect(length).unwrap();
        assert_eq!(client.get("/").unwrap().text().unwrap(), "hello");
        assert_eq!(client.receive().unwrap().status, 404);
    }

    #[test]
    fn chunked_bodies_are_decoded() {
        let chunked = serve(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
        );
        assert_eq!(get(chunked, "/").unwrap().text().unwrap(), "hello!");
    }

    #[test]
    fn a_truncated_response_is_an_error() {
        let truncated = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
        assert!(get(truncated, "/").is_err());
        let headless = serve(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n");
        assert!(get(headless, "/").is_err());
    }
}
