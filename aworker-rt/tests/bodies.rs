//! Bodies of requests and responses over real sockets: limits, framing, streams, forms.

mod http_support;
mod temporary;

use std::io::Write;
use std::time::Duration;

use http_support::{ECHO, PATIENCE, Server};

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
fn trailers_are_checked_and_become_no_fields() {
    let server = Server::start(
        "trailers",
        "export default { async fetch(request) {
           const body = await request.text();
           return new Response(`${request.url} ${body} ${[...request.headers.keys()]}`);
         } };",
    );
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n4\r\nbody\r\n0\r\n";
    let next = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = server.connect();
    let trailers = "X-Late: y\r\nHost: evil\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(&format!("{head}{trailers}{next}"));
    assert_eq!(client.receive().text(), "http://a/a body host,trailer,transfer-encoding");
    assert_eq!(client.receive().text(), "http://a/b  host");
    // Malformed ones: the body has failed, and nothing behind it is a request.
    let mut client = server.connect();
    let refused = client.exchange(&format!("{head} folded: y\r\n\r\n{next}"));
    assert_eq!((refused.status, refused.header("connection")), (400, Some("close")));
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

#[test]
fn a_body_handed_on_by_its_untouched_stream_is_sent_whole() {
    let server = Server::start(
        "handed-on",
        "export default { async fetch(request) {
           const { pathname } = new URL(request.url);
           const first = new Response(pathname === '/empty' ? '' : 'some text', { headers: { 'x-a': 'b' } });
           const { body } = first;
           if (pathname === '/read') {
             const reader = body.getReader();
             const { value } = await reader.read();
             reader.releaseLock();
             return new Response(value);
           }
           const second = new Response(body, first);
           if (pathname === '/text') return new Response(`${await second.text()} ${first.bodyUsed} ${second.bodyUsed}`);
           if (pathname === '/peek') return new Response(new ReadableStream({
             async start(controller) {
               for await (const chunk of second.body) controller.enqueue(chunk);
               controller.close();
             },
           }));
           if (pathname === '/same') return new Response(`${second.body === body} ${body.locked} ${second.bodyUsed}`);
           return new Response(second.body, second);
         } };",
    );
    for (target, text, length) in [
        ("/", "some text", Some("9")),
        ("/empty", "", Some("0")),
        ("/read", "some text", Some("9")),
        ("/text", "some text true true", Some("19")),
        ("/same", "true false false", Some("16")),
        ("/peek", "some text", None),
    ] {
        let response = server.get(target);
        assert_eq!((response.text(), response.header("content-length")), (text, length), "{target}");
    }
    assert_eq!(server.get("/").header("x-a"), Some("b"));
    server.stop();
}
