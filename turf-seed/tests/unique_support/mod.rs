//! The peer of a worker's connections, in a process of its own: TLS servers, a WebSocket server, a resolver and a server that tells
//! what the resolver was asked. Each answers with what it has seen of the client's randomness, as JSON.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// The peer, and where it listens. It ends when it is dropped.
pub struct Peer {
    child: Child,
    /// TLS 1.3, TLS 1.2, WebSockets, plain HTTP.
    pub ports: [u16; 4],
}

impl Peer {
    /// Runs this program as the peer, with the certificate in `directory`.
    pub fn start(directory: &Path) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("peer")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().unwrap()).collect();
        Peer { child, ports: ports.try_into().unwrap() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate of localhost and 127.0.0.1, which is its own authority: `peer.pem` and `peer.key`.
pub fn make_certificate(directory: &Path) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=peer \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout peer.key -out peer.pem";
    let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(directory).output();
    let made = made.expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Who has asked for a name: the query's id and the source port.
type Asked = Arc<Mutex<HashMap<String, Vec<(u16, u16)>>>>;

/// Serves until standard input ends.
pub fn be_peer(directory: &Path) {
    let asked = Asked::default();
    let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
    let known = Arc::clone(&asked);
    std::thread::spawn(move || resolve(&resolver, &known));
    let tls = |version| {
        let config = Arc::new(configuration(directory, version));
        serve(move |stream| answer_tls(stream, &config))
    };
    let ports = [
        tls(&rustls::version::TLS13),
        tls(&rustls::version::TLS12),
        serve(answer_web_socket),
        serve(move |stream| answer_plain(stream, &asked)),
    ];
    println!("{}", ports.map(|port| port.to_string()).join(" "));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Serves each connection on a thread of its own; the port.
fn serve(answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // A client that goes ends its own thread only.
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn configuration(directory: &Path, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(directory.join("peer.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("peer.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

fn respond(stream: &mut impl Write, facts: &Value) -> std::io::Result<()> {
    let body = facts.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// Answers requests of a connection, which stays open as long as the client likes.
fn answer_tls(mut stream: TcpStream, config: &Arc<ServerConfig>) -> std::io::Result<()> {
    let mut session = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let (mut hello, mut room) = (Vec::new(), [0; 16 << 10]);
    let mut request = Vec::new();
    loop {
        while session.wants_write() {
            session.write_tls(&mut stream)?;
        }
        let count = stream.read(&mut room)?;
        if count == 0 {
            return Ok(());
        }
        if hello.len() < room.len() {
            hello.extend_from_slice(&room[..count]);
        }
        let mut bytes = &room[..count];
        while !bytes.is_empty() {
            session.read_tls(&mut bytes)?;
            session.process_new_packets().map_err(std::io::Error::other)?;
        }
        let mut plain = [0; 4096];
        while let Ok(count @ 1..) = session.reader().read(&mut plain) {
            request.extend_from_slice(&plain[..count]);
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let mut facts = client_hello(&hello);
            facts["resumed"] = json!(session.handshake_kind() == Some(HandshakeKind::Resumed));
            respond(&mut session.writer(), &facts)?;
        }
    }
}

/// Fields of a ClientHello in its record (RFC 8446, section 4.1.2): random, session id, key shares, and whether there is a session
/// ticket or a key of an earlier session.
fn client_hello(record: &[u8]) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let number = |at: usize| usize::from(record[at]) << 8 | usize::from(record[at + 1]);
    // Record, type and length of the handshake message, version.
    let mut at = 5 + 4 + 2;
    let random = hex(&record[at..at + 32]);
    at += 32;
    let session = hex(&record[at + 1..at + 1 + usize::from(record[at])]);
    at += 1 + usize::from(record[at]);
    at += 2 + number(at);
    at += 1 + usize::from(record[at]);
    let end = at + 2 + number(at);
    at += 2;
    let (mut shares, mut remembers) = (String::new(), false);
    while at < end {
        let (kind, length) = (number(at), number(at + 2));
        let body = &record[at + 4..at + 4 + length];
        match kind {
            51 => shares = hex(body),
            41 => remembers = true,
            35 => remembers |= !body.is_empty(),
            _ => {}
        }
        at += 4 + length;
    }
    json!({ "random": random, "session": session, "shares": shares, "remembers": remembers })
}

/// Answers the first two messages with their masks and the handshake's key.
fn answer_web_socket(mut stream: TcpStream) -> std::io::Result<()> {
    let head = read_head(&mut stream)?;
    let key = field(&head, "sec-websocket-key");
    let accept = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = BASE64_STANDARD.encode(accept);
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )?;
    let mut masks = String::new();
    for _ in 0..2 {
        // Short messages: flags, length with the bit of the mask, mask, text (RFC 6455, section 5.2).
        let mut head = [0; 6];
        stream.read_exact(&mut head)?;
        let mut text = vec![0; usize::from(head[1] & 0x7f)];
        stream.read_exact(&mut text)?;
        masks.extend(head[2..].iter().map(|byte| format!("{byte:02x}")));
    }
    let facts = json!({ "key": key, "masks": masks }).to_string();
    let length = u8::try_from(facts.len()).map_err(std::io::Error::other)?;
    assert!(length < 126, "one byte is the length");
    stream.write_all(&[&[0x81, length], facts.as_bytes()].concat())?;
    // The client's closing frame and ours.
    stream.read_exact(&mut [0; 6])?;
    stream.write_all(&[0x88, 0])
}

fn answer_plain(mut stream: TcpStream, asked: &Asked) -> std::io::Result<()> {
    loop {
        let head = read_head(&mut stream)?;
        if head.is_empty() {
            return Ok(());
        }
        let host = field(&head, "host");
        let name = host.split(':').next().unwrap_or_default();
        let queries = asked.lock().unwrap().get(name).cloned().unwrap_or_default();
        respond(&mut stream, &json!({ "queries": queries }))?;
    }
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(String::new());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn field(head: &str, name: &str) -> String {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    found.next_back().unwrap_or_default().to_owned()
}

/// Every name has the address 127.0.0.1 and no other (RFC 1035, section 4).
fn resolve(socket: &UdpSocket, asked: &Asked) {
    let mut room = [0; 1500];
    while let Ok((count, from)) = socket.recv_from(&mut room) {
        let query = &room[..count];
        let mut at = 12;
        let mut labels = Vec::new();
        while query[at] != 0 {
            let length = usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).into_owned());
            at += 1 + length;
        }
        let question = &query[12..at + 5];
        let is_v4 = query[at + 2] == 1;
        let id = u16::from_be_bytes([query[0], query[1]]);
        asked.lock().unwrap().entry(labels.join(".")).or_default().push((id, from.port()));
        let mut answer = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0];
        answer.extend_from_slice(question);
        if is_v4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        let _ = socket.send_to(&answer, from);
    }
}
