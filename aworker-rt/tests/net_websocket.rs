//! WebSockets: Aworker as client, as server, and both; peers made of bytes.

mod http_support;
mod net_support;
mod temporary;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use http_support::{Client, PATIENCE, Server};
use net_support::run;

/// The key and its answer in RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const ECHO: &str = "
    addEventListener('fetch', (event) => {
      const { pathname } = new URL(event.request.url);
      const [client, server] = Object.values(new WebSocketPair());
      if (pathname === '/late') {
        event.respondWith((async () => {
          server.send('said before the response');
          await new Promise((done) => setTimeout(done, 10));
          setTimeout(() => listen(server), 30);
          return new Response(null, { status: 101, webSocket: client });
        })());
        return;
      }
      if (pathname === '/plain') return event.respondWith(new Response('plain'));
      if (pathname === '/no-pair') return event.respondWith(new Response(null, { status: 101, webSocket: new WebSocket('ws://127.0.0.1:1') }));
      listen(server);
      event.respondWith(new Response(null, { status: 101, webSocket: client, headers: { 'Sec-WebSocket-Protocol': 'chat', 'X-Own': '1', 'Connection': 'close' } }));
    });
    function listen(server) {
      server.accept();
      server.addEventListener('message', ({ data }) => {
        if (data === 'close') server.close(4001, 'as asked');
        else if (data === 'throw') throw new Error('from a message');
        else server.send(data);
      });
      server.addEventListener('close', ({ code, reason, wasClean }) => console.error(`closed ${code} ${reason} ${wasClean}`));
    }";

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A masked frame with any first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 0, 255, 1];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | u8::try_from(length).expect("short")),
        Ok(length) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => panic!("the tests send no longer frames"),
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Opens a WebSocket to a server by hand.
fn open(server: &Server, path: &str) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send(&handshake(path));
    let head = String::from_utf8(client.until(b"\r\n\r\n")).expect("UTF-8");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
    client
}

/// The next frame of a server: its first byte and its payload.
fn frame(client: &mut Client<TcpStream>) -> (u8, Vec<u8>) {
    let head = client.take(2);
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => {
            let bytes = client.take(2);
            usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
        }
        length => usize::from(length),
    };
    (head[0], client.take(length))
}

#[test]
fn a_request_becomes_a_websocket() {
    let mut server = Server::start("ws-echo", ECHO);
    let mut client = server.connect();
    client.send(&handshake("/"));
    let head = String::from_utf8(client.until(b"\r\n\r\n")).expect("UTF-8").to_lowercase();
    assert!(head.contains("sec-websocket-protocol: chat\r\n") && head.contains("x-own: 1\r\n"), "{head}");
    assert_eq!(head.matches("connection:").count(), 1, "{head}");
    client.socket.write_all(&masked(0x81, "hä".as_bytes())).expect("writes");
    assert_eq!(frame(&mut client), (0x81, "hä".as_bytes().to_vec()));
    client.socket.write_all(&masked(0x82, &[0; 300])).expect("writes");
    assert_eq!(frame(&mut client), (0x82, vec![0; 300]));
    // A message in fragments, byte by byte, with a ping between them.
    let pieces = [masked(0x01, b"a"), masked(0x89, b"ping"), masked(0x00, b"b"), masked(0x80, b"c")].concat();
    for byte in pieces {
        client.socket.write_all(&[byte]).expect("writes");
    }
    assert_eq!(frame(&mut client), (0x8a, b"ping".to_vec()));
    assert_eq!(frame(&mut client), (0x81, b"abc".to_vec()));
    // The client closes; the server answers with the same code and then ends the connection.
    client.socket.write_all(&masked(0x88, b"\x03\xe8bye")).expect("writes");
    assert_eq!(frame(&mut client), (0x88, b"\x03\xe8".to_vec()));
    client.assert_closed();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut server.stderr, &mut line).expect("a line");
    assert_eq!(line, "closed 1000 bye true\n");
    assert_eq!(server.stop(), "");
}

#[test]
fn the_server_closes_and_says_why() {
    let server = Server::start("ws-close", ECHO);
    let mut client = open(&server, "/");
    client.socket.write_all(&masked(0x81, b"close")).expect("writes");
    assert_eq!(frame(&mut client), (0x88, b"\x0f\xa1as asked".to_vec()));
    client.socket.write_all(&masked(0x88, b"\x0f\xa1")).expect("writes");
    client.assert_closed();
    assert_eq!(server.stop(), "closed 4001  true\n");
}

#[test]
fn a_response_may_come_late_and_messages_wait_until_they_are_accepted() {
    let server = Server::start("ws-late", ECHO);
    let mut client = open(&server, "/late");
    assert_eq!(frame(&mut client), (0x81, b"said before the response".to_vec()));
    client.socket.write_all(&masked(0x81, b"early")).expect("writes");
    assert_eq!(frame(&mut client), (0x81, b"early".to_vec()));
}

#[test]
fn violations_end_the_connection_with_their_code() {
    let server = Server::start("ws-violations", ECHO);
    for (bytes, code) in [
        (vec![0x81, 1, b'x'], 1002_u16),
        (masked(0xc1, b"x"), 1002),
        (masked(0x80, b"x"), 1002),
        (masked(0x09, b"x"), 1002),
        (masked(0x81, &[0xff]), 1007),
        (masked(0x88, &[0x03]), 1002),
        ([&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat(), 1009),
    ] {
        let mut client = open(&server, "/");
        client.socket.write_all(&bytes).expect("writes");
        let (first, payload) = frame(&mut client);
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, code), "{bytes:02x?}");
        assert_eq!(client.rest(), b"");
    }
    // One that vanishes, and a listener that throws, cost the worker nothing.
    drop(open(&server, "/"));
    let mut client = open(&server, "/");
    client.socket.write_all(&masked(0x81, b"throw")).expect("writes");
    client.socket.write_all(&masked(0x81, b"still there")).expect("writes");
    assert_eq!(frame(&mut client), (0x81, b"still there".to_vec()));
    drop(client);
    let stderr = server.stop();
    assert!(stderr.contains("from a message"), "{stderr}");
    assert_eq!(stderr.matches("closed 1006  false\n").count(), 9, "{stderr}");
}

#[test]
fn what_does_not_ask_for_a_websocket_gets_none() {
    let server = Server::start("ws-refused", ECHO);
    for (from, to) in [
        ("GET /", "POST /"),
        ("Upgrade: WebSocket", "Upgrade: h2c"),
        ("keep-alive, Upgrade", "keep-alive"),
        ("Version: 13", "Version: 12"),
        (KEY, "dGhl"),
        ("Sec-WebSocket-Key", "X-Key"),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = server.connect();
        client.send(&handshake("/").replace(from, to));
        let response = client.receive();
        assert_eq!((response.status, response.header("sec-websocket-version")), (426, Some("13")), "{to}");
    }
    let mut client = server.connect();
    assert_eq!(client.exchange(&handshake("/plain")).text(), "plain");
    assert_eq!(client.exchange(&handshake("/no-pair")).status, 500);
    assert!(server.stop().contains("not an unused end of a WebSocketPair"));
}

#[test]
fn a_drain_closes_websockets() {
    let server = Server::start("ws-drain", ECHO);
    let mut client = open(&server, "/");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let (first, payload) = frame(&mut client);
    assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, 1001));
    client.socket.write_all(&masked(0x88, &payload)).expect("writes");
    client.assert_closed();
    assert_eq!(server.finish().0, Some(0));
}

#[test]
fn a_client_talks_to_a_server_of_the_same_kind() {
    let server = Server::start("ws-both", ECHO);
    run(
        "ws-client",
        &format!("ws://{}", server.address),
        "const opened = async (path, protocols) => {
           const ws = new WebSocket(base + path, protocols); ws.binaryType = 'arraybuffer';
           same(ws.readyState, WebSocket.CONNECTING); same(ws.url, base + path);
           await new Promise((resolve, reject) => { ws.onopen = resolve; ws.onerror = (e) => reject(e.error); });
           return ws;
         };
         const next = (ws, type = 'message') => new Promise((resolve) => ws.addEventListener(type, resolve, { once: true }));
         const ws = await opened('/', ['chat', 'other']);
         same([ws.readyState, ws.protocol, /^permessage-deflate; /.test(ws.extensions), ws.bufferedAmount].join(), '1,chat,true,0');
         for (const text of ['', 'ä', 'x'.repeat(200), 'y'.repeat(100000), 'z'.repeat(3000000)]) {
           ws.send(text); const event = await next(ws); same(event.data, text); same(event.origin, base);
         }
         for (const data of [new Uint8Array([1, 2]), new Uint8Array([0, 1, 2, 3]).subarray(1, 3), new Uint8Array([1, 2]).buffer, new Blob([new Uint8Array([1, 2])])]) {
           ws.send(data); const event = await next(ws);
           same(event.data instanceof ArrayBuffer, true); same(event.data.byteLength, 2);
         }
         ws.binaryType = 'blob'; ws.send(new Uint8Array(3)); same((await next(ws)).data instanceof Blob, true);
         ws.send('x'.repeat(1 << 20)); same(ws.bufferedAmount, 1 << 20); await next(ws); same(ws.bufferedAmount, 0);
         ws.send('close'); const closed = await next(ws, 'close');
         same([closed.code, closed.reason, closed.wasClean, ws.readyState].join(), '4001,as asked,true,3');
         ws.send('four'); same(ws.bufferedAmount, 4); ws.close();
         const mine = await opened('/', 'chat'); mine.close(3000, 'mine'); same(mine.readyState, WebSocket.CLOSING);
         const end = await next(mine, 'close'); same([end.code, end.reason, end.wasClean].join(), '3000,,true');
         const many = await Promise.all(Array.from({ length: 50 }, () => opened('/', 'chat')));
         await Promise.all(many.map(async (one, index) => { one.send(`${index}`); same((await next(one)).data, `${index}`); one.close(); await next(one, 'close'); }));
         const failed = new WebSocket(base + '/plain'); const failedToo = next(failed, 'close'); const error = await next(failed, 'error'); same(/status 200/.test(error.message), true, error.message);
         same((await failedToo).code, 1006);
         const wrong = new WebSocket(base + '/'); await next(wrong, 'error'); same(wrong.readyState, 3, 'a protocol nobody offered');
         const given = new WebSocket(base + '/', 'chat'); given.close(); same((await next(given, 'close')).code, 1006);
         const refused = new WebSocket('ws://127.0.0.1:2'); same(/ECONNREFUSED/.test((await next(refused, 'error')).error.code), true);
         const bad = new WebSocket('ws://127.0.0.1:6667'); const badToo = next(bad, 'close'); same(/port 6667/.test((await next(bad, 'error')).message), true); same([(await badToo).code, bad.readyState].join(), '1006,3');",
    );
}

/// RFC 7692: a server compresses for clients that offer it, and understands both kinds of messages.
#[test]
fn messages_are_compressed_where_the_client_offers_it() {
    let server = Server::start("ws-deflate", ECHO);
    let mut client = server.connect();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9, permessage-deflate; client_max_window_bits\r\n";
    client.send(&handshake("/").replace("Upgrade: WebSocket\r\n", &format!("Upgrade: WebSocket\r\n{offer}")));
    let head = String::from_utf8(client.until(b"\r\n\r\n")).expect("UTF-8");
    let agreed = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n";
    assert!(head.contains(agreed), "{head}");
    // "Hello" of section 7.2.3.1, and the same without compression.
    client.socket.write_all(&masked(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).expect("writes");
    assert_eq!(frame(&mut client), (0x81, b"Hello".to_vec()), "too short to be compressed");
    client.socket.write_all(&masked(0x81, &[b'a'; 1000])).expect("writes");
    let (first, payload) = frame(&mut client);
    assert!(first == 0xc1 && payload.len() < 100, "{first:x} {}", payload.len());
    // A compressed control frame is no control frame.
    client.socket.write_all(&masked(0xc9, b"")).expect("writes");
    assert_eq!(frame(&mut client).1[..2], 1002_u16.to_be_bytes());
    client.assert_closed();
    assert!(server.stop().contains("closed 1006"));
    let server = Server::start("ws-no-deflate", ECHO);
    let mut client = open(&server, "/");
    client.socket.write_all(&masked(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).expect("writes");
    assert_eq!(frame(&mut client).1[..2], 1002_u16.to_be_bytes(), "nobody has offered it");
    server.stop();
}

#[test]
fn the_interfaces_follow_the_standard() {
    run(
        "ws-interface",
        "ws://127.0.0.1:1",
        "const throws = (name, f) => { let e; try { f(); } catch (error) { e = error; } same(e?.name, name, String(f)); };
         for (const url of ['ftp://a/', 'ws://a/#', 'ws://a/#b', 'nonsense://', 'file:///a']) throws('SyntaxError', () => new WebSocket(url));
         for (const protocols of [['a', 'a'], ['a', 'A'], ['a b'], '', 'a,b']) throws('SyntaxError', () => new WebSocket(base, protocols));
         throws('TypeError', () => new WebSocket()); throws('TypeError', () => WebSocket(base));
         const ws = new WebSocket('HTTP://a.invalid/x'); ws.onerror = null; same(ws.url, 'ws://a.invalid/x');
         throws('InvalidStateError', () => ws.send('x')); throws('TypeError', () => ws.send());
         throws('InvalidAccessError', () => ws.close(1001)); throws('InvalidAccessError', () => ws.close(2999)); throws('SyntaxError', () => ws.close(1000, 'x'.repeat(124)));
         ws.binaryType = 'nonsense'; same(ws.binaryType, 'blob'); ws.close(); same(ws.readyState, 2);
         same([WebSocket.CONNECTING, WebSocket.OPEN, WebSocket.CLOSING, WebSocket.CLOSED, ws.OPEN].join(), '0,1,2,3,1');
         const e = new CloseEvent('close', { code: 65537, reason: 'r', wasClean: 1 }); same([e.code, e.reason, e.wasClean, e instanceof Event].join(), '1,r,true,true');
         same([new CloseEvent('x').code, new CloseEvent('x').reason].join(), '0,');
         throws('RangeError', () => new Response(null, { status: 101 }));
         const [a, b] = Object.values(new WebSocketPair()); const seen = [];
         a.send('early'); b.addEventListener('message', (m) => seen.push(typeof m.data === 'string' ? m.data : m.data.byteLength)); b.addEventListener('close', (c) => seen.push(c.code, c.reason));
         b.accept(); a.accept(); a.addEventListener('close', (c) => seen.push('a', c.code)); a.send(new Uint8Array(2)); a.close(4000, 'x');
         await new Promise((done) => setTimeout(done, 10)); same(seen.join(), 'early,2,4000,x,a,4000'); same([a.readyState, b.readyState].join(), '3,3');
         throws('TypeError', () => ws.accept());",
    );
}

/// A server that shakes hands by hand and then does as it is told.
fn raw_server(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("sets");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).expect("reads");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("UTF-8");
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        let accept = {
            use sha1::Digest;
            let mut hash = sha1::Sha1::new();
            hash.update(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(hash.finalize())
        };
        let reply = format!(
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        socket.write_all(reply.as_bytes()).expect("writes");
        act(&mut socket);
    });
    format!("ws://{address}")
}

/// Receives until the client closes.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

#[test]
fn a_client_survives_what_servers_do() {
    for (name, bytes, expected) in [
        ("clean", &b"\x81\x02hi\x88\x05\x03\xe8bye"[..], "hi 1000 bye true false"),
        ("no-code", b"\x88\x00", "1005  true false"),
        ("cut", b"\x81\x02hi", "hi 1006  false true"),
        ("masked", b"\x81\x82abcdhi", "1006  false true"),
        ("half", b"\x81\x05h", "1006  false true"),
        ("unknown", b"\x83\x00", "1006  false true"),
        ("not-utf8", b"\x81\x01\xff", "1006  false true"),
        ("after", b"\x88\x02\x03\xe8\x81\x02no", "1000  true false"),
    ] {
        let url = raw_server(move |socket| {
            socket.write_all(bytes).expect("writes");
            let _ = socket.shutdown(std::net::Shutdown::Write);
            rest(socket);
        });
        run(
            &format!("ws-peer-{name}"),
            &url,
            &format!(
                "const seen = []; let failed = false; const ws = new WebSocket(base); ws.onmessage = (e) => seen.push(e.data); ws.onerror = () => {{ failed = true; }};
                 const e = await new Promise((resolve) => {{ ws.onclose = resolve; }}); same([...seen, e.code, e.reason, e.wasClean, failed].join(' '), '{expected}');"
            ),
        );
    }
}

#[test]
fn a_client_masks_answers_pings_and_holds_a_fast_server_back() {
    let url = raw_server(|socket| {
        socket.write_all(b"\x89\x02hi").expect("writes");
        let mut pong = [0; 8];
        socket.read_exact(&mut pong).expect("reads");
        assert_eq!(pong[..2], [0x8a, 0x82]);
        let payload: Vec<u8> = pong[6..].iter().zip(&pong[2..6]).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(payload, b"hi");
        // Messages without end: the client takes them at its own pace.
        socket.set_write_timeout(Some(std::time::Duration::from_millis(300))).expect("sets");
        let message = [&[0x82, 126, 0xff, 0xff][..], &vec![0; 65535]].concat();
        let mut sent = 0_usize;
        while let Ok(count) = socket.write(&message[sent % message.len()..]) {
            sent += count;
            assert!(sent < 1 << 30, "the client takes everything");
        }
        // Held back: now the client goes on, and reads what there is.
        socket.set_write_timeout(None).expect("sets");
        socket.write_all(&message[sent % message.len()..]).expect("the client reads on");
        socket.write_all(b"\x88\x02\x03\xe8").expect("writes");
        // The client says goodbye, too; then the server ends the connection.
        let mut goodbye = [0; 8];
        socket.read_exact(&mut goodbye).expect("reads");
        assert_eq!(goodbye[..2], [0x88, 0x82]);
    });
    run(
        "ws-slow",
        &url,
        "const ws = new WebSocket(base); let count = 0;
         ws.onmessage = () => {
           // The first message takes its time.
           if (count++ === 0) { const end = Date.now() + 1500; while (Date.now() < end); }
         };
         const e = await new Promise((resolve) => { ws.onclose = resolve; }); same(e.code, 1000); same(count > 10, true);",
    );
}
