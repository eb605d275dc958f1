//! The HTTP server of the built `aworker` program, over real sockets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No answer may take longer than this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running worker with a script of its own; killed when dropped.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
    directory: PathBuf,
}

impl Server {
    fn start(name: &str, script: &str) -> Server {
        Server::start_with(name, script, &["--listen", "127.0.0.1:0"])
    }

    fn start_with(name: &str, script: &str, options: &[&str]) -> Server {
        let directory = std::env::temp_dir().join(format!("aworker-http-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("make a directory");
        let file = directory.join("worker.js");
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

    fn connect(&self) -> Client<TcpStream> {
        let socket = TcpStream::connect(&self.address).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
        Client { socket, buffer: Vec::new() }
    }

    /// Sends a request on a connection of its own.
    fn get(&self, target: &str) -> Response {
        let mut client = self.connect();
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.receive()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("the worker runs");
    }

    /// Waits for the end; the exit status and the rest of stderr.
    fn finish(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("wait").code(), rest)
    }

    /// Stops the worker and returns what it wrote to stderr.
    fn stop(self) -> String {
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
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

struct Client<S> {
    socket: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("send");
    }

    fn exchange(&mut self, text: &str) -> Response {
        self.send(text);
        self.receive()
    }

    fn receive(&mut self) -> Response {
        self.receive_for("GET")
    }

    /// Reads one response to a request of this method.
    fn receive_for(&mut self, method: &str) -> Response {
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

    fn fill(&mut self) -> usize {
        let mut piece = [0; 65536];
        let count = match self.socket.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            other => other.expect("receive in time"),
        };
        self.buffer.extend_from_slice(&piece[..count]);
        count
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            assert!(self.fill() > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill() > 0, "closed {} bytes early", count - self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Everything until the server closes.
    fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.buffer)
    }

    fn assert_closed(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }
}

const ECHO: &str = "
    export default {
      async fetch(request) {
        const body = await request.text();
        return new Response(`${request.method} ${request.url} ${body}`);
      }
    };";

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let server = Server::start(
        "pipeline",
        "let turn = 0;
         addEventListener('fetch', (event) => {
           const { url } = event.request;
           const late = turn++ % 2 === 0;
           event.respondWith(late ? new Promise((r) => setTimeout(() => r(new Response(url)), 20)) : new Response(url));
         });",
    );
    let mut client = server.connect();
    let mut requests = String::new();
    for i in 0..100 {
        requests += &format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    client.send(&requests);
    for i in 0..100 {
        assert_eq!(client.receive().text(), format!("http://a/{i}"));
    }
    assert_eq!(client.exchange(GET).text(), "http://a/");
    let last = client.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(last.header("connection"), Some("close"));
    client.assert_closed();
    server.stop();
}

#[test]
fn a_request_sent_byte_by_byte_is_understood() {
    let server = Server::start("bytes", ECHO);
    let mut client = server.connect();
    client.socket.set_nodelay(true).expect("no delay");
    let requests = "POST /a HTTP/1.1\r\nHost: b:81\r\nContent-Length: 5\r\n\r\nhello\
        POST /c HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n";
    for byte in requests.as_bytes() {
        client.socket.write_all(&[*byte]).expect("send");
    }
    assert_eq!(client.receive().text(), "POST http://b:81/a hello");
    assert_eq!(client.receive().text(), "POST http://d/c abc");
    server.stop();
}

#[test]
fn smuggling_attempts_are_refused_and_the_connection_is_closed() {
    let server = Server::start("smuggling", ECHO);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let table: &[(&str, u16)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nX: y\n Transfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF0\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: 1.2.3.4.5\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: more\r\n\r\n", 417),
    ];
    for (request, status) in table {
        let mut client = server.connect();
        let response = client.exchange(&format!("{request}{hidden}"));
        assert_eq!(response.status, *status, "{request:?}");
        assert_eq!(response.header("connection"), Some("close"));
        client.assert_closed();
    }
    assert_eq!(server.get("/alive").text(), "GET http://a/alive ");
    server.stop();
}

#[test]
fn bodies_beyond_the_limits_are_refused() {
    let options = ["--listen", "127.0.0.1:0", "--max-body-bytes", "1000"];
    let server = Server::start_with("limits", ECHO, &options);
    let long = "x".repeat(40_000);
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
                &long[..1001]
            ),
            413,
        ),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..20_000]), 414),
        (format!("GET /{long}"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {long}"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
    ] {
        let mut client = server.connect();
        assert_eq!(client.exchange(&request).status, status, "{}", &request[..60]);
        client.assert_closed();
    }
    let mut client = server.connect();
    let response = client
        .exchange(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", &long[..1000]));
    assert_eq!((response.status, response.body.len()), (200, 1000 + "POST http://a/ ".len()));
    server.stop();
}

#[test]
fn a_failing_handler_costs_its_request_a_500_and_a_line() {
    let server = Server::start(
        "failing",
        "addEventListener('fetch', (event) => {
           const { pathname } = new URL(event.request.url);
           if (pathname === '/throw') throw new Error('thrown here');
           if (pathname === '/reject') event.respondWith(Promise.reject(new Error('rejected here')));
           if (pathname === '/wrong') event.respondWith({});
           if (pathname === '/split') event.respondWith(new Response('', { statusText: 'fine' }));
           if (pathname === '/twice') {
             event.respondWith(new Response('first'));
             event.respondWith(new Response('second'));
           }
           if (pathname === '/late') setTimeout(() => {
             try { event.respondWith(new Response('x')); } catch (e) { console.error(`late: ${e.name}`); }
           });
           if (pathname === '/used') {
             const response = new Response('x');
             response.text();
             event.respondWith(response);
           }
           if (pathname === '/break') event.respondWith(new Response(new ReadableStream({
             start(controller) { controller.enqueue(new Uint8Array(3)); },
             pull(controller) { controller.error(new Error('stream broke')); },
           })));
         });",
    );
    for path in ["/throw", "/reject", "/wrong", "/used"] {
        assert_eq!(server.get(path).status, 500, "{path}");
    }
    assert_eq!(server.get("/twice").text(), "first");
    assert_eq!(server.get("/late").status, 404);
    assert_eq!(server.get("/split").head.lines().next(), Some("HTTP/1.1 200 fine"));
    let mut broken = server.connect();
    broken.send("GET /break HTTP/1.1\r\nHost: a\r\n\r\n");
    let all = String::from_utf8(broken.rest()).expect("ASCII");
    assert!(all.starts_with("HTTP/1.1 200 OK") && !all.ends_with("0\r\n\r\n"), "{all}");
    let stderr = server.stop();
    for text in [
        "thrown here",
        "worker.js:3:",
        "rejected here",
        "The handler gave no Response",
        "InvalidStateError",
        "has been read",
        "stream broke",
        "late: InvalidStateError",
    ] {
        assert!(stderr.contains(text), "{text} is not in {stderr}");
    }
}

#[test]
fn slow_parties_get_408_and_504() {
    let options = ["--listen", "127.0.0.1:0", "--request-timeout-ms", "300"];
    let server = Server::start_with(
        "slow",
        "addEventListener('fetch', (event) => {
           event.request.signal.addEventListener('abort', () => console.error('aborted'));
           event.respondWith(new Promise(() => {}));
         });",
        &options,
    );
    let mut client = server.connect();
    assert_eq!(client.exchange(GET).status, 504);
    client.assert_closed();
    let mut client = server.connect();
    assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n").status, 408);
    client.assert_closed();
    assert!(server.stop().contains("aborted"));
}

#[test]
fn head_and_http_1_0_are_framed_by_the_rules() {
    let server = Server::start(
        "versions",
        "export default { fetch(request) {
           if (request.url.endsWith('/stream')) return new Response(stream());
           return new Response('hello', { headers: { 'X-A': 'b' } });
         } };
         function stream() {
           return new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode('streamed')); c.close(); } });
         }",
    );
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.receive_for("HEAD");
    assert_eq!((head.header("content-length"), head.header("x-a")), (Some("5"), Some("b")));
    client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.receive_for("HEAD").status, 200);
    assert_eq!(client.exchange(GET).text(), "hello");
    assert_eq!(client.exchange("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").text(), "streamed");

    let mut old = server.connect();
    let response = old.exchange("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((response.text(), response.header("connection")), ("hello", Some("keep-alive")));
    let response = old.exchange("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(response.text(), "streamed");
    assert_eq!(response.header("transfer-encoding"), None);
    let mut old = server.connect();
    assert_eq!(old.exchange("GET / HTTP/1.0\r\n\r\n").header("connection"), Some("close"));
    old.assert_closed();
    server.stop();
}

#[test]
fn a_client_that_expects_continue_gets_it_when_the_body_is_wanted() {
    let server = Server::start(
        "continue",
        "export default { async fetch(request) {
           return new Response(request.url.endsWith('/no') ? 'no' : await request.text());
         } };",
    );
    let head = |target: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    };
    let mut client = server.connect();
    assert_eq!(client.exchange(&head("/yes")).status, 100);
    assert_eq!(client.exchange("body").text(), "body");
    let refused = client.exchange(&head("/no"));
    assert_eq!((refused.text(), refused.header("connection")), ("no", Some("close")));
    client.assert_closed();
    server.stop();
}

#[test]
fn large_bodies_stream_both_ways() {
    let server = Server::start(
        "large",
        "export default { async fetch(request) {
           const { pathname } = new URL(request.url);
           if (pathname === '/pipe') return new Response(request.body);
           if (pathname === '/bytes') return new Response(await request.arrayBuffer());
           if (pathname === '/count') {
             let count = 0;
             let chunks = 0;
             for await (const chunk of request.body) { count += chunk.length; chunks++; }
             return Response.json({ count, chunks });
           }
         } };",
    );
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for target in ["/pipe", "/bytes", "/count"] {
        let mut client = server.connect();
        let mut sender = client.socket.try_clone().expect("clone");
        let sent = body.clone();
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len());
        let thread = std::thread::spawn(move || {
            sender.write_all(head.as_bytes()).expect("send");
            sender.write_all(&sent).expect("send");
        });
        let response = client.receive();
        thread.join().expect("sent");
        if target == "/count" {
            assert!(response.text().starts_with("{\"count\":3000000,"), "{}", response.text());
        } else {
            assert!(response.body == body, "{target} gave {} other bytes", response.body.len());
        }
        assert_eq!(
            client.exchange("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").status,
            200
        );
    }
    server.stop();
}

#[test]
fn back_pressure_reaches_both_ends() {
    let server = Server::start(
        "pressure",
        "let pulls = 0;
         let release;
         export default { async fetch(request) {
           const { pathname } = new URL(request.url);
           if (pathname === '/pulls') return new Response(`${pulls}`);
           if (pathname === '/hold') return new Promise((r) => { release = () => r(request.text().then((t) => new Response(`${t.length}`))); });
           if (pathname === '/release') { release(); return new Response(''); }
           return new Response(new ReadableStream({ pull(c) { pulls++; c.enqueue(new Uint8Array(65536)); } }));
         } };",
    );
    // A client that does not read: the source is not pulled for ever.
    let mut lazy = server.connect();
    lazy.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    lazy.until(b"\r\n\r\n");
    let mut last = String::new();
    loop {
        let pulls = server.get("/pulls").text().to_owned();
        if pulls == last && pulls != "0" {
            break;
        }
        last = pulls;
    }
    assert!(last.parse::<u32>().expect("a number") < 1000, "{last} chunks for a client that reads none");
    drop(lazy);

    // A handler that does not read: the client cannot send for ever.
    let mut client = server.connect();
    let total = 64 * 1024 * 1024;
    client.send(&format!("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n"));
    client.socket.set_write_timeout(Some(Duration::from_millis(500))).expect("set the timeout");
    let piece = vec![b'x'; 65536];
    let mut sent = 0;
    while sent < total {
        match client.socket.write(&piece[..piece.len().min(total - sent)]) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < total / 2, "{sent} bytes were taken for a handler that reads none");
    assert_eq!(server.get("/release").status, 200);
    client.socket.set_write_timeout(Some(PATIENCE)).expect("set the timeout");
    client.socket.write_all(&vec![b'x'; total - sent]).expect("the rest is taken");
    assert_eq!(client.receive().text(), total.to_string());
    server.stop();
}

#[test]
fn a_request_that_is_kept_shows_no_other_requests_head() {
    let server = Server::start(
        "kept",
        "const kept = [];
         export default { fetch(request) {
           if (request.url.endsWith('/all')) {
             return new Response(kept.map((r) => `${r.method} ${r.url} ${r.headers.get('x-secret')}`).join());
           }
           kept.push(request);
           return new Response('');
         } };",
    );
    let mut client = server.connect();
    for i in 0..3 {
        client.exchange(&format!("PUT /{i} HTTP/1.1\r\nHost: a\r\nX-Secret: s{i}\r\n\r\n"));
    }
    assert_eq!(server.get("/all").text(), "PUT http://a/0 s0,PUT http://a/1 s1,PUT http://a/2 s2");
    server.stop();
}

#[test]
fn a_client_that_leaves_aborts_its_request() {
    let server = Server::start(
        "leaving",
        "export default { async fetch(request, env, context) {
           if (request.url.endsWith('/wait')) {
             console.error('waiting');
             await new Promise((r) => request.signal.addEventListener('abort', r));
             console.error(`aborted ${request.signal.reason.name}`);
             return new Response('too late');
           }
           if (request.url.endsWith('/stream')) {
             return new Response(new ReadableStream({
               start(c) { c.enqueue(new Uint8Array(1)); },
               cancel(reason) { console.error(`cancelled ${reason.name}`); },
             }));
           }
           try { await request.text(); } catch (e) { console.error(`upload ${e.name}`); }
         } };",
    );
    let mut server = server;
    let line = |server: &mut Server| {
        let mut line = String::new();
        server.stderr.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    };
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(line(&mut server), "waiting");
    drop(client);
    assert_eq!(line(&mut server), "aborted AbortError");

    let mut client = server.connect();
    client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    client.until(b"1\r\n\0\r\n");
    drop(client);
    assert_eq!(line(&mut server), "cancelled AbortError");

    let mut client = server.connect();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    drop(client);
    assert_eq!(line(&mut server), "upload AbortError");
    assert_eq!(server.get("/none").status, 500, "the handler gives no response");
    server.stop();
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let server = Server::start(
        "half",
        "export default { async fetch(request) { await new Promise((r) => setTimeout(r, 10)); return new Response('ok'); } };",
    );
    let mut client = server.connect();
    client.send(GET);
    client.socket.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(client.receive().text(), "ok");
    client.assert_closed();
    server.stop();
}

#[test]
fn a_drain_finishes_what_has_begun() {
    let server = Server::start(
        "drain",
        "let finish;
         addEventListener('fetch', (event) => {
           if (event.request.url.endsWith('/slow')) {
             event.respondWith(new Promise((r) => { finish = () => r(new Response('finished')); }));
             event.waitUntil(new Promise((r) => setTimeout(r, 300)).then(() => console.error('waited')));
             setInterval(() => {}, 1000);
             console.error('begun');
           } else {
             event.respondWith(new Response('quick'));
             event.waitUntil(new Promise((r) => setTimeout(r, 100)).then(() => finish()));
           }
         });",
    );
    let mut server = server;
    let mut idle = server.connect();
    let mut partial = server.connect();
    let mut slow = server.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut line = String::new();
    server.stderr.read_line(&mut line).expect("a line");
    assert_eq!(line, "begun\n");
    assert_eq!(idle.exchange(GET).text(), "quick");
    partial.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    idle.assert_closed();
    let refused = partial.exchange("st: a\r\n\r\n");
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
    let last = slow.receive();
    assert_eq!((last.text(), last.header("connection")), ("finished", Some("close")));
    slow.assert_closed();
    drop(partial);
    assert!(TcpStream::connect(&server.address).is_err(), "the listener is closed");
    let (status, stderr) = server.finish();
    assert_eq!((status, stderr.as_str()), (Some(0), "waited\n"));
}

#[test]
fn a_module_worker_gets_request_environment_and_context() {
    let server = Server::start(
        "module",
        "export default {
           name: 'self',
           fetch(request, env, context) {
             context.waitUntil(Promise.resolve().then(() => console.error('background')));
             return new Response(`${this.name} ${env.GREETING} ${arguments.length}`);
           },
         };",
    );
    assert_eq!(server.get("/").text(), "self hello from env 3");
    assert!(server.stop().contains("background"));
}

#[test]
fn a_handler_without_parameters_may_still_use_its_arguments() {
    let server =
        Server::start("arguments", "export default { fetch() { return new Response(arguments[0].url); } };");
    assert_eq!(server.get("/x").text(), "http://a/x");
    server.stop();
    let server = Server::start("rest", "export default { fetch: (...all) => new Response(all[0].url) };");
    assert_eq!(server.get("/y").text(), "http://a/y");
    server.stop();
}

#[test]
fn a_unix_socket_serves_as_well() {
    let server = Server::start_with("unix", ECHO, &["--listen", "unix://DIR/socket"]);
    let socket = UnixStream::connect(server.directory.join("socket")).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set the timeout");
    let mut client = Client { socket, buffer: Vec::new() };
    assert_eq!(client.exchange(GET).text(), "GET http://a/ ");
    server.stop();
}

#[test]
fn forms_are_read_however_the_body_is_cut() {
    let server = Server::start(
        "forms",
        "export default {
           async fetch(request) {
             const streamed = new URL(request.url).pathname === '/stream' && request.body;
             const form = await (streamed ? new Response(streamed, { headers: request.headers }) : request).formData();
             const shown = [];
             for (const [name, value] of form) shown.push([name, typeof value === 'string' ? value : [value.name, value.type, await value.text()]]);
             return Response.json(shown);
           }
         };",
    );
    let body = "--b\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nx\r\n--c\r\n--b\r\n\
        Content-Disposition: form-data; name=\"f\"; filename=\"g\"\r\nContent-Type: a/b\r\n\r\n\r\n\r\n--b--\r\n";
    let expected = r#"[["t","x\r\n--c"],["f",["g","a/b","\r\n"]]]"#;
    let mut client = server.connect();
    client.socket.set_nodelay(true).expect("no delay");
    for path in ["/", "/stream"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n");
        for cut in 1..body.len() {
            let (first, second) = body.split_at(cut);
            client.send(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n", first.len()));
            client.send(&format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len()));
            assert_eq!(client.receive().text(), expected, "{path} cut at {cut}");
        }
    }
    server.stop();
}
