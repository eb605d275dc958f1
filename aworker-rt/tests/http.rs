//! The HTTP server of the built `aworker` program, over real sockets.

mod http_support;
mod temporary;

use std::io::{BufRead, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use http_support::{Client, ECHO, GET, PATIENCE, Server};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;

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

/// Timers of the server: a connection that says nothing, a body that stops coming, a response that nobody takes, a
/// close that nobody answers.
#[test]
fn idle_stalled_and_lingering_connections_end_in_time() {
    let options = [
        "--listen",
        "127.0.0.1:0",
        "--idle-timeout-ms",
        "300",
        "--stall-timeout-ms",
        "400",
        "--max-body-bytes",
        "1000",
    ];
    let server = Server::start_with(
        "timers",
        "addEventListener('fetch', (event) => {
           event.request.signal.addEventListener('abort', () => console.error('aborted'));
           if (event.request.url.endsWith('/big')) {
             const body = new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(65536)); }, cancel() { console.error('cancelled'); } });
             return event.respondWith(new Response(body));
           }
           event.respondWith(event.request.text().then((text) => new Response(text), (error) => { console.error(error.name); throw error; }));
         });",
        &options,
    );
    let millis = |since: std::time::Instant| since.elapsed().as_millis();
    // One that never says anything, and one that is silent after its request.
    let (mut silent, begun) = (server.connect(), std::time::Instant::now());
    silent.assert_closed();
    assert!(millis(begun) >= 290, "{}", millis(begun));
    let mut kept = server.connect();
    assert_eq!(kept.exchange(GET).status, 200);
    let begun = std::time::Instant::now();
    kept.assert_closed();
    assert!(millis(begun) >= 290, "{}", millis(begun));
    // Half a body.
    let (mut half, begun) = (server.connect(), std::time::Instant::now());
    let reply = half.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(reply.status, 408);
    half.assert_closed();
    assert!(millis(begun) >= 390, "{}", millis(begun));
    // A response that nobody takes: its source is cancelled, the connection reset.
    let mut deaf = server.connect();
    deaf.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = server;
    let mut lines = String::new();
    while !lines.contains("cancelled") {
        assert!(std::io::BufRead::read_line(&mut server.stderr, &mut lines).expect("a line") > 0, "{lines}");
    }
    // An answer before the request's end: the server says its part is over, waits for the client, and then leaves.
    let mut rude = server.connect();
    let reply = rude.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    assert_eq!(reply.status, 413);
    let begun = std::time::Instant::now();
    rude.assert_closed();
    loop {
        let sent = rude.socket.write(b"m");
        let mut fds = [PollFd::new(rude.socket.as_fd(), PollFlags::empty())];
        // A reset ends the wait.
        poll(&mut fds, 20_u16).expect("waits");
        if sent.is_err() {
            break;
        }
        assert!(millis(begun) < 20_000, "the server lingers for ever");
    }
    assert!(millis(begun) >= 390, "it has waited: {}", millis(begun));
    server.stop();
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
    let server = Server::start(
        "escaped",
        "export default { fetch() { return new Response(\\u0061rguments[0].url); } };",
    );
    assert_eq!(server.get("/z").text(), "http://a/z");
    server.stop();
    let server = Server::start(
        "computed",
        "export default { ['fetch'](request = {}) { return new Response(request.url); } };",
    );
    assert_eq!(server.get("/w").text(), "http://a/w");
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
