//! Outbound fetch over HTTP/1.1, against servers that answer exactly what a test says.

mod net_support;
mod temporary;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use net_support::{Answer, Peer, Request, Scratch, ok, run, run_with};

/// Answers with what it was asked, one field a line.
fn echo(request: &Request) -> Answer {
    ok(&format!("{}{}", request.head, String::from_utf8_lossy(&request.body)))
}

#[test]
fn a_request_has_the_fields_of_the_script_and_none_that_are_ours() {
    let peer = Peer::start(echo);
    run(
        "fields",
        &peer.url("/a"),
        "const host = new URL(base).host;
         const get = await (await fetch(base + '?q=1#f', { headers: { 'X-Own': 'ä', host: 'evil', connection: 'x-own', te: 'x' } })).text();
         same(get.split('\\r\\n')[0], 'GET /a?q=1 HTTP/1.1');
         same(/^host: (.*)$/mi.exec(get)[1].trim(), host);
         same(/^x-own: ä\\r\\n/mi.test(get), true, 'one byte a character');
         same(/evil|connection|^te:/mi.test(get), false, 'ours');
         for (const field of ['accept: */*', 'accept-language: *', 'accept-encoding: gzip, deflate, br, zstd', `user-agent: ${navigator.userAgent}`]) {
           same(get.toLowerCase().includes(field.toLowerCase() + '\\r\\n'), true, field);
         }
         const post = await (await fetch(base, { method: 'post', body: new URLSearchParams({ a: 'b c' }), headers: { 'content-length': '99', 'accept-encoding': 'identity' } })).text();
         same(/content-length: 5\\r\\n/i.test(post), true, 'length'); same(post.endsWith('\\r\\n\\r\\na=b+c'), true, 'body');
         same(/accept-encoding: identity\\r\\n/i.test(post), true, 'own encoding');
         for (const method of ['POST', 'PUT']) {
           same(/content-length: 0\\r\\n/i.test(await (await fetch(base, { method })).text()), true, method);
         }
         same(/range: bytes=0-\\r\\n/i.test(await (await fetch(base, { headers: { range: 'bytes=0-' } })).text()), true, 'range');
         const fresh = await (await fetch(base, { cache: 'no-store' })).text();
         same(/pragma: no-cache/.test(fresh) && /cache-control: no-cache/.test(fresh), true, 'no-store');
         for (const init of [{ headers: { a: 'b\\r\\nc: d' } }, { headers: { 'a\\n': 'b' } }, { method: 'GET\\r\\n' }]) await fails(fetch(base, init), /./);",
    );
}

#[test]
fn a_response_has_its_status_fields_and_url() {
    let peer = Peer::start(|request| {
        Answer::Keep(match request.path() {
            "/reason" => b"HTTP/1.1 299 Own Reason\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX: \xe4\r\nContent-Length: 1\r\n\r\nx".to_vec(),
            "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/hint" => b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        })
    });
    run(
        "response",
        &peer.url(""),
        "const r = await fetch(base + '/reason#frag');
         same([r.status, r.ok, r.statusText, r.type, r.redirected, r.url].join(), `299,true,Own Reason,basic,false,${base}/reason`);
         same(r.headers.getSetCookie().join(), 'a=1,b=2'); same(r.headers.get('x'), 'ä');
         let thrown; try { r.headers.set('a', 'b'); } catch (error) { thrown = error; } same(thrown?.name, 'TypeError', 'immutable');
         const copy = new Response(r.body, r); copy.headers.set('a', 'b'); same(await copy.text(), 'x');
         const none = await fetch(base + '/none'); same(none.body, null); same(await none.text(), '');
         same((await fetch(base + '/hint')).status, 404);
         const head = await fetch(base + '/head', { method: 'HEAD' }); same(head.body, null); same(head.headers.get('content-length'), '5');",
    );
    let connections: Vec<usize> = peer.seen().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 0], "one connection carried all of it");
}

#[test]
fn bodies_stream_both_ways() {
    let peer = Peer::start(|request| match request.path() {
        "/up" => ok(&format!("{} {:?}", request.body.len(), request.header("content-length"))),
        _ => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for index in 0..64_u8 {
                bytes.extend(b"10000;ext=1\r\n");
                bytes.extend(std::iter::repeat_n(index, 65536));
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\nTrailer: x\r\n\r\n");
            Answer::Keep(bytes)
        }
    });
    run(
        "streams",
        &peer.url(""),
        "let pulled = 0;
         const body = new ReadableStream({ type: 'bytes', pull(c) {
           if (pulled === 64) return c.close();
           c.enqueue(new Uint8Array(65536).fill(pulled++));
         } });
         same(await (await fetch(base + '/up', { method: 'POST', body, duplex: 'half' })).text(), `${64 * 65536} None`);
         const r = await fetch(base + '/down'); let count = 0; let wrong = 0;
         for await (const chunk of r.body) for (const byte of chunk) if (byte !== (count++ >> 16)) wrong++;
         same(count, 64 * 65536); same(wrong, 0);
         const strings = new ReadableStream({ start(c) { c.enqueue('text'); } });
         await fails(fetch(base + '/up', { method: 'POST', body: strings, duplex: 'half' }), /Uint8Array/);
         const broken = new ReadableStream({ pull() { throw new RangeError('source'); } });
         await fails(fetch(base + '/up', { method: 'POST', body: broken, duplex: 'half' }), /source/, RangeError);
         await fails(fetch(base + '/up', { method: 'POST', body: new ReadableStream() }), /duplex/);",
    );
}

#[test]
fn a_response_is_read_while_its_request_is_sent() {
    // What comes behind the head goes back as it is, so nothing is taken from a client that does not read.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepts");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("reads the head");
            head.push(byte[0]);
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("writes");
        let mut copy = socket.try_clone().expect("is cloned");
        std::io::copy(&mut socket, &mut copy)
    });
    run(
        "echo",
        &format!("http://{address}"),
        "let sent = 0;
         const body = new ReadableStream({ type: 'bytes', async pull(c) {
           await new Promise((resolve) => setTimeout(resolve, sent % 8 === 0 ? 2 : 0));
           if (sent === 256) return c.close();
           c.enqueue(new Uint8Array(65536).fill(sent++));
         } });
         const r = await fetch(base, { method: 'POST', body, duplex: 'half' });
         let count = 0; let wrong = 0;
         for await (const chunk of r.body) for (const byte of chunk) if (byte !== (count++ >> 16)) wrong++;
         same(count, 256 * 65536); same(wrong, 0);",
    );
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let peer = Peer::start(|request| match request.path() {
        "/sent" => ok(&SENT.load(Ordering::SeqCst).to_string()),
        path => panic!("nobody asks for {path}"),
    });
    // A listener of its own that counts what the kernel and the worker take.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepts");
        let request = socket.read(&mut [0; 4096]).expect("reads");
        assert!(request > 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").expect("writes");
        let piece = [b'x'; 65536];
        while let Ok(count) = socket.write(&piece) {
            SENT.fetch_add(count, Ordering::SeqCst);
        }
    });
    run(
        "slow",
        &peer.url(""),
        &format!(
            "const reader = (await fetch('http://{address}/big')).body.getReader();
             await reader.read();
             const sent = async () => Number(await (await fetch(base + '/sent')).text());
             // What is in flight settles: buffers of both kernels, 64 KiB here.
             let before = -1; let now = await sent();
             while (now !== before) {{ await new Promise((done) => setTimeout(done, 200)); before = now; now = await sent(); }}
             same(now < 32 * 1024 * 1024, true, `${{now}} bytes were taken`);
             await reader.cancel();"
        ),
    );
}

#[test]
fn codings_are_undone_and_their_fields_are_gone() {
    fn compressed(kind: &str) -> Vec<u8> {
        // brotli and zstd of 'hello hello hello hello', by their reference programs.
        match kind {
            "br" => {
                vec![27, 22, 0, 248, 141, 148, 110, 222, 68, 85, 134, 150, 108, 32, 111, 33, 79, 28, 224, 56]
            }
            _ => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(b"hello hello hello hello").expect("a vector");
                encoder.finish().expect("a vector")
            }
        }
    }
    let peer = Peer::start(|request| {
        let kind = request.path().trim_start_matches('/');
        let (field, bytes) = match kind {
            "bomb" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&vec![0; 64 * 1024 * 1024]).expect("a vector");
                ("gzip", encoder.finish().expect("a vector"))
            }
            "cut" => ("gzip", compressed("gzip")[..20].to_vec()),
            "bad" => ("br", b"no brotli at all, no brotli at all".to_vec()),
            "unknown" => ("x-unknown", b"as it is".to_vec()),
            kind => (kind, compressed(kind)),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {field}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        Answer::Keep([head.as_bytes(), &bytes].concat())
    });
    run(
        "codings",
        &peer.url(""),
        "for (const coding of ['gzip', 'br', 'x-gzip']) {
           const r = await fetch(`${base}/${coding}`);
           same(await r.text(), 'hello hello hello hello', coding);
           same(r.headers.has('content-encoding') || r.headers.has('content-length'), false, 'fields');
         }
         same(await (await fetch(base + '/unknown')).text(), 'as it is');
         same((await fetch(base + '/gzip', { method: 'HEAD' })).headers.get('content-encoding'), 'gzip');
         await fails((await fetch(base + '/cut')).text(), /gzip.*cut off/); await fails((await fetch(base + '/bad')).text(), /br data/);
         // A bomb comes by pieces and can be left.
         const reader = (await fetch(base + '/bomb')).body.getReader();
         same((await reader.read()).value.length < 300000, true, 'piece'); await reader.cancel();",
    );
}

#[test]
fn redirects_are_followed_as_the_standard_says() {
    let other = Peer::start(echo);
    let far = other.url("/far");
    let peer = Peer::start(move |request| {
        let redirect = |status: u16, location: &str| {
            Answer::Keep(
                format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody")
                    .into_bytes(),
            )
        };
        let path = request.path().to_owned();
        let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        match (first, rest) {
            ("loop", n) => redirect(302, &format!("/loop/{}", n.parse::<u32>().unwrap_or(0) + 1)),
            ("countdown", "0") => ok("landed"),
            ("countdown", n) => {
                redirect(302, &format!("/countdown/{}", n.parse::<u32>().expect("a number") - 1))
            }
            ("far", status) => redirect(status.parse().expect("a status"), &far),
            ("raw", target) => Answer::Keep(
                [
                    b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /".as_slice(),
                    target.as_bytes(),
                    b"?\xe2\x98\x83\xff\r\n\r\n",
                ]
                .concat(),
            ),
            ("to", target) => redirect(302, &format!("{target}:x")),
            ("none", _) => Answer::Keep(b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nok".to_vec()),
            (status, _) if status.parse::<u16>().is_ok() => {
                redirect(status.parse().expect("a number"), "/echo?q#own")
            }
            _ => echo(request),
        }
    });
    run(
        "redirects",
        &peer.url(""),
        "for (const [status, method, expected] of [[301, 'POST', 'GET'], [302, 'POST', 'GET'], [303, 'POST', 'GET'], [303, 'PUT', 'GET'],
             [301, 'PUT', 'PUT'], [307, 'POST', 'POST'], [308, 'POST', 'POST'], [303, 'HEAD', 'HEAD'], [302, 'DELETE', 'DELETE']]) {
           const body = method === 'HEAD' ? undefined : 'sent';
           const r = await fetch(`${base}/${status}#f`, { method, body });
           same(r.url, `${base}/echo?q`); same(r.redirected, true); same(r.status, 200);
           if (method === 'HEAD') continue;
           const text = await r.text();
           same(text.startsWith(`${expected} /echo?q `), true, `${status} ${method}: ${text}`);
           same(text.endsWith('sent'), expected !== 'GET', 'body'); same(/content-type/i.test(text), expected !== 'GET', 'type');
         }
         same(await (await fetch(base + '/countdown/20')).text(), 'landed'); await fails(fetch(base + '/countdown/21'), /too many redirects/);
         await fails(fetch(base + '/loop/0'), /too many redirects/);
         await fails(fetch(base + '/302', { redirect: 'error' }), /must not/);
         same((await fetch(base + '/raw/echo')).url, base + '/echo?%E2%98%83%FF'); same((await fetch(base + '/none#')).url, base + '/none');
         const manual = await fetch(base + '/302', { redirect: 'manual' });
         same([manual.status, manual.headers.get('location'), await manual.text()].join(), '302,/echo?q#own,body');
         same(await (await fetch(base + '/none')).text(), 'ok');
         for (const scheme of ['data', 'file', 'blob', 'javascript']) await fails(fetch(`${base}/to/${scheme}`), /not followed/);
         const headers = { authorization: 'secret', cookie: 'c=1', 'x-kept': 'yes' };
         const far = await (await fetch(base + '/far/307', { headers })).text();
         same(/secret|c=1/.test(far), false, 'secrets'); same(/x-kept: yes/i.test(far), true, 'others');
         same(/authorization: secret/i.test(await (await fetch(base + '/307', { headers })).text()), true, 'same origin');
         const stream = () => new Blob(['streamed']).stream();
         await fails(fetch(base + '/307', { method: 'POST', body: stream(), duplex: 'half' }), /cannot be sent again/);
         same((await (await fetch(base + '/303', { method: 'POST', body: stream(), duplex: 'half' })).text()).startsWith('GET '), true, '303');",
    );
}

#[test]
fn what_is_no_http_is_refused() {
    let peer = Peer::start(|request| {
        let text: &[u8] = match request.path() {
            "/garbage" => b"this is not http\r\n\r\n",
            "/cut-head" => b"HTTP/1.1 200 OK\r\nContent-Le",
            "/cut-body" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            "/cut-chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "/bad-chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
            "/big-chunk" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab",
            "/two-lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "/bad-field" => b"HTTP/1.1 200 OK\r\nA\x01: b\r\n\r\n",
            "/switch" => b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "/empty" => b"",
            "/until-close" => b"HTTP/1.0 200 OK\r\n\r\nall of it",
            "/huge" => {
                let line = format!("X: {}\r\n", "y".repeat(1000)).repeat(400);
                return Answer::Close(format!("HTTP/1.1 200 OK\r\n{line}\r\n").into_bytes());
            }
            "/many" => {
                let lines: String = (0..2000).map(|index| format!("x{index}: y\r\n")).collect();
                return Answer::Close(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes());
            }
            "/reset" => return Answer::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec()),
            _ => return Answer::Reset(Vec::new()),
        };
        Answer::Close(text.to_vec())
    });
    run(
        "broken",
        &peer.url(""),
        "for (const path of ['garbage', 'cut-head', 'two-lengths', 'bad-field', 'switch', 'empty', 'huge', 'many', 'reset-early']) {
           const error = await fails(fetch(`${base}/${path}`), /fetch/); same(error.cause instanceof Error, true, path);
         }
         for (const path of ['cut-body', 'cut-chunk', 'bad-chunk', 'big-chunk']) {
           const r = await fetch(`${base}/${path}`); same(r.status, 200); await fails(r.text(), /body/);
           const again = await fetch(`${base}/${path}`); const reader = again.body.getReader();
           let error; try { while (!(await reader.read()).done); } catch (e) { error = e; } same(error instanceof TypeError, true, path);
         }
         // A reset may overtake the head.
         await fails(fetch(base + '/reset').then((r) => r.text()), /fetch|body/);
         same(await (await fetch(base + '/until-close')).text(), 'all of it');
         const { port } = new URL(base);
         await fails(fetch('http://127.0.0.1:2/'), /ECONNREFUSED/); await fails(fetch('http://[::1]:2/'), /ECONN|EADDR|ENET/);
         await fails(fetch('ftp://a/'), /ftp/); await fails(fetch('about:blank'), /about/);
         await fails(fetch('http://nothing.invalid:' + port), /ENOTFOUND|EAI_AGAIN/); await fails(fetch('nonsense'), /URL/);",
    );
}

#[test]
fn a_fetch_can_be_aborted_at_every_stage() {
    let peer = Peer::start(|request| match request.path() {
        "/head" => Answer::Hang(Vec::new()),
        "/body" => Answer::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()),
        _ => ok("fine"),
    });
    run(
        "abort",
        &peer.url(""),
        "const reason = new RangeError('mine');
         await fails(fetch(base + '/head', { signal: AbortSignal.abort(reason) }), /mine/, RangeError);
         const timedOut = await fetch(base + '/head', { signal: AbortSignal.timeout(50) }).catch((e) => e);
         same(timedOut.name, 'TimeoutError');
         for (const path of ['head', 'fine']) {
           const c = new AbortController(); const p = fetch(`${base}/${path}`, { signal: c.signal }); c.abort(reason);
           await fails(p, /mine/, RangeError);
         }
         const c = new AbortController(); const r = await fetch(base + '/body', { signal: c.signal });
         const reader = r.body.getReader(); same((await reader.read()).value.length, 3);
         const next = reader.read(); c.abort(reason); await fails(next, /mine/, RangeError);
         const d = new AbortController(); const s = await fetch(base + '/body', { signal: d.signal });
         const text = s.text(); d.abort(); same((await text.catch((e) => e)).name, 'AbortError');
         const u = new AbortController(); let cancelled;
         const body = new ReadableStream({ pull(k) { k.enqueue(new Uint8Array(9)); return new Promise((done) => setTimeout(done, 1)); }, cancel(e) { cancelled = e; } });
         const upload = fetch(base + '/fine', { method: 'POST', body, duplex: 'half', signal: u.signal });
         setTimeout(() => u.abort(reason), 30); await fails(upload, /mine/, RangeError);
         while (cancelled === undefined) await new Promise((done) => setTimeout(done, 5)); same(cancelled, reason);
         const e = new AbortController(); const whole = await fetch(base + '/fine', { signal: e.signal });
         same(await whole.text(), 'fine'); e.abort();",
    );
}

#[test]
fn kept_connections_are_used_again_and_replaced_when_the_server_has_closed_them() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let peer = Peer::start(|request| match request.path() {
        // Closed at once after an answer that promised to keep the connection.
        "/close" => Answer::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec()),
        // Closed instead of an answer, the first time.
        "/lost" if COUNT.fetch_add(1, Ordering::SeqCst) == 0 => Answer::Close(Vec::new()),
        _ => ok(&request.connection.to_string()),
    });
    run(
        "kept",
        &peer.url(""),
        "const get = async (path, init) => (await fetch(base + path, init)).text();
         same(await get('/'), '0'); same(await get('/'), '0', 'kept');
         same(await get('/lost'), '1', 'sent again on another connection');
         await get('/close'); same(await get('/', { method: 'PUT', body: 'x' }), '2', 'noticed, or sent again');
         const many = await Promise.all(Array.from({ length: 200 }, () => get('/')));
         same(new Set(many).size <= 64, true, 'at most 64 connections');
         // A small body that nobody reads does not keep its connection.
         for (let i = 0; i < 100; i++) await fetch(base + '/');",
    );
    let connections = peer.seen().iter().map(|request| request.connection).max().unwrap_or(0);
    assert!(connections < 70, "{connections} connections were made");
}

#[test]
fn local_schemes_need_no_network() {
    let scratch = Scratch::new("files");
    let file = scratch.write("text.txt", "from a file");
    let url = format!("file://{}", file.display());
    run(
        "local",
        &url,
        "same(await (await fetch('data:text/html;charset=utf-8,%3Cp%3E')).text(), '<p>');
         same((await fetch('data:;base64,AAEC')).headers.get('content-type'), 'text/plain;charset=US-ASCII');
         same((await (await fetch('data:;base64,AAEC')).bytes()).join(), '0,1,2'); await fails(fetch('data:;base64,A'), /data/);
         const blob = new Blob(['0123456789'], { type: 'text/x' }); const url = URL.createObjectURL(blob);
         same(/^blob:null\\/[0-9a-f-]{36}$/.test(url), true, url);
         const r = await fetch(url + '#x'); same([r.headers.get('content-type'), r.headers.get('content-length'), r.url].join(), `text/x,10,${url}`);
         same(await r.text(), '0123456789');
         for (const [range, part, content] of [['bytes=2-4', '234', '2-4'], ['bytes=7-', '789', '7-9'], ['bytes=-2', '89', '8-9'], ['bytes=5-99', '56789', '5-9']]) {
           const p = await fetch(url, { headers: { range } }); same(p.status, 206); same(p.headers.get('content-range'), `bytes ${content}/10`); same(await p.text(), part);
         }
         await fails(fetch(url, { headers: { range: 'bytes=10-' } }), /range/); await fails(fetch(url, { method: 'POST', body: 'x' }), /only be read/);
         URL.revokeObjectURL(url + '#x'); same(await (await fetch(url)).text(), '0123456789', 'only the very URL is revoked');
         const early = new Request(url); URL.revokeObjectURL(url); await fails(fetch(url), /no blob/);
         same(await (await fetch(early.clone())).text() + await (await fetch(early)).text(), '01234567890123456789', 'a request made before');
         let thrown; try { URL.createObjectURL({}); } catch (error) { thrown = error; } same(thrown?.name, 'TypeError');
         await fails(fetch(base), /--allow-file-fetch.*EACCES/);",
    );
    run_with(
        "local-allowed",
        &url,
        "same(await (await fetch(base)).text(), 'from a file'); await fails(fetch(base + '.missing'), /no such file/);
         await fails(fetch(new URL('.', base)), /regular/);",
        &["--allow-file-fetch"],
        &[],
    );
}

/// With a location of HTTP a worker has an origin, and tells it as the standard says.
#[test]
fn a_worker_with_a_location_tells_its_origin_and_referrer() {
    let other = Peer::start(echo);
    let far = other.url("/far");
    let to = far.clone();
    let peer = Peer::start(move |request| {
        let policy = |name: &str, target: &str| {
            Answer::Keep(
                format!("HTTP/1.1 307 x\r\nReferrer-Policy: x, {name}\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")
                    .into_bytes(),
            )
        };
        match request.path() {
            "/leave" => policy("no-referrer, unknown", &to),
            "/shorten" => policy("origin", "/here"),
            _ => echo(request),
        }
    });
    let home = peer.url("/dir/app.js?q#f");
    run_with(
        "origin",
        &far,
        "const home = new URL(location.href), own = home.origin;
         const told = async (input, init) => {
           const text = await (await fetch(input, init)).text();
           const field = (name) => new RegExp(`^${name}: (.*)\\r$`, 'mi').exec(text)?.[1];
           return `${field('referer') ?? '-'} ${field('origin') ?? '-'}`.replaceAll(own, 'own');
         };
         const whole = 'own/dir/app.js?q';
         same(await told('/here'), `${whole} -`); same(await told('/here', { method: 'POST' }), `${whole} own`);
         same(await told(base), 'own/ own', 'elsewhere'); same(await told(base, { mode: 'no-cors' }), 'own/ -');
         for (const [referrerPolicy, near, away] of [['no-referrer', '-', '-'], ['origin', 'own/', 'own/'], ['same-origin', whole, '-'],
             ['strict-origin', 'own/', 'own/'], ['origin-when-cross-origin', whole, 'own/'], [\"unsafe-url\", whole, whole],
             ['no-referrer-when-downgrade', whole, whole]]) {
           same(await told('/here', { referrerPolicy }), `${near} -`, referrerPolicy); same(await told(base, { referrerPolicy }), `${away} own`, referrerPolicy);
         }
         same(await told('/here', { referrer: '/other#x' }), 'own/other -'); same(await told('/here', { referrer: '' }), '- -');
         same(await told('/here', { referrer: 'https://elsewhere.example/' }), `${whole} -`, 'not of this origin');
         same(await told('/here', { referrer: '/' + 'x'.repeat(5000) }), 'own/ -', 'a long one');
         same(await told('/here', { headers: { referer: 'mine', origin: 'mine' } }), 'mine mine', 'what the script sets stays');
         same(await told('/leave'), '- own', 'a redirect has a policy'); same(await told('/shorten'), 'own/ -');
         same(await told('/here', { method: 'POST', mode: 'same-origin', referrerPolicy: 'no-referrer' }), '- null');
         same(await told('/here', { mode: 'same-origin' }), `${whole} -`);
         await fails(fetch(base, { mode: 'same-origin' }), /another origin/); await fails(fetch('/leave', { mode: 'same-origin' }), /another origin/);",
        &["--location", &home],
        &[],
    );
    run(
        "no-origin",
        &far,
        "for (const init of [{}, { method: 'POST' }, { mode: 'same-origin' }, { referrerPolicy: 'unsafe-url' }]) {
           same(/^(?:referer|origin):/mi.test(await (await fetch(base, init)).text()), false, JSON.stringify(init));
         }",
    );
}

/// RFC 9110, section 15.5.20.
#[test]
fn a_misdirected_request_is_sent_once_more_on_a_connection_of_its_own() {
    let peer = Peer::start(|request| {
        let misdirected =
            || Answer::Keep(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 2\r\n\r\nno".to_vec());
        match (request.path(), request.connection) {
            ("/never", _) | ("/", 0) => misdirected(),
            _ => ok(&String::from_utf8_lossy(&request.body)),
        }
    });
    run(
        "misdirected",
        &peer.url(""),
        "same(await (await fetch(base + '/', { method: 'POST', body: 'again' })).text(), 'again');
         const never = await fetch(base + '/never'); same(`${never.status} ${await never.text()}`, '421 no');
         const stream = await fetch(base + '/never', { method: 'POST', body: new Blob(['x']).stream(), duplex: 'half' });
         same(stream.status, 421, 'a stream cannot be sent again');",
    );
    let paths: Vec<(String, usize)> =
        peer.seen().iter().map(|seen| (seen.path().to_owned(), seen.connection)).collect();
    assert_eq!(paths.iter().filter(|(path, _)| path == "/").count(), 2, "{paths:?}");
    assert_eq!(paths.iter().filter(|(path, _)| path == "/never").count(), 3, "{paths:?}");
    assert_ne!(paths[0].1, paths[1].1, "{paths:?}");
    assert_ne!(paths[2].1, paths[3].1, "{paths:?}");
}

/// What comes after it has been taken; and the loop lives for who waits.
#[test]
fn the_end_of_a_body_is_told_to_who_waits_for_it_without_reading() {
    let peer = Peer::start(|request| {
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        match request.path() {
            "/broken" => Answer::Close(format!("{chunk}rubbish\r\n").into_bytes()),
            "/empty" => Answer::Keep(format!("{chunk}0\r\n\r\n").replace("5\r\nhello\r\n", "").into_bytes()),
            _ => Answer::Keep(format!("{chunk}0\r\n\r\n").into_bytes()),
        }
    });
    run(
        "ends",
        &peer.url(""),
        "const text = (value) => new TextDecoder().decode(value);
         for (const options of [{}, { mode: 'byob' }]) {
           const read = async (reader) => text((await (options.mode ? reader.read(new Uint8Array(9)) : reader.read())).value);
           const broken = (await fetch(base + '/broken')).body.getReader(options);
           same(await read(broken), 'hello'); await fails(broken.closed, /receive the response/);
           const late = (await fetch(base + '/broken')).body.getReader(options), closed = late.closed;
           same(await read(late), 'hello', 'what came before the failure'); await fails(closed, /receive the response/);
           const whole = (await fetch(base + '/whole')).body.getReader(options);
           same(await read(whole), 'hello'); same(await whole.closed, undefined);
           same(await (await fetch(base + '/empty')).body.getReader(options).closed, undefined, 'nothing to read');
         }
         const twice = (await fetch(base + '/whole')).body.getReader(); same(twice.closed, twice.closed);
         twice.releaseLock(); await fails(twice.closed, /./);",
    );
}

#[test]
fn integrity_is_checked() {
    let peer = Peer::start(|_| ok("hello"));
    run(
        "integrity",
        &peer.url(""),
        "const good = 'sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=';
         const other = 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=';
         same(await (await fetch(base, { integrity: good })).text(), 'hello');
         same(await (await fetch(base, { integrity: `${other} ${good}` })).text(), 'hello'); same(await (await fetch(base, { integrity: 'md5-x' })).text(), 'hello');
         same(await (await fetch(base, { integrity: good.replace('=', '') })).text(), 'hello');
         await fails(fetch(base, { integrity: other }), /integrity/);
         await fails(fetch('data:,x', { integrity: good }), /integrity/); same(await (await fetch('data:,hello', { integrity: good })).text(), 'hello');",
    );
}

#[test]
fn a_worker_ends_when_only_idle_connections_and_unread_bodies_are_left() {
    let peer = Peer::start(|request| match request.path() {
        "/big" => Answer::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc".to_vec()),
        _ => ok("fine"),
    });
    run(
        "ends",
        &peer.url(""),
        "await (await fetch(base)).text(); globalThis.kept = await fetch(base + '/big');",
    );
}

#[test]
fn responses_that_nobody_can_read_free_their_connections() {
    let peer = Peer::start(|request| match request.path() {
        "/big" => Answer::Hang(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(200_000)).into_bytes(),
        ),
        _ => ok("fine"),
    });
    run(
        "unread",
        &peer.url(""),
        "// More than there may be connections, each full of what nobody reads.
         for (let i = 0; i < 150; i++) same((await fetch(base + '/big')).status, 200);
         same(await (await fetch(base)).text(), 'fine');
         same(performance.getEntriesByType('resource').some((entry) => entry.name === base + '/big'), true, 'on the timeline');",
    );
}

/// Answers every question for `my.example` with ::1 or 127.0.0.1, and others with "no such name".
fn name_server() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = socket.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((count, client)) = socket.recv_from(&mut query) {
            let mut answer = query[..count].to_vec();
            answer[2] = 0x81;
            let is_known = answer[12..].starts_with(b"\x02my\x07example\0");
            answer[3] = if is_known { 0x80 } else { 0x83 };
            if is_known {
                answer[7] = 1;
                let wants_ipv6 = answer[count - 3] == 28;
                let address: &[u8] = if wants_ipv6 {
                    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
                } else {
                    &[127, 0, 0, 1]
                };
                answer.extend([0xc0, 12, 0, if wants_ipv6 { 28 } else { 1 }, 0, 1, 0, 0, 0, 9, 0]);
                answer.push(u8::try_from(address.len()).expect("short"));
                answer.extend(address);
            }
            socket.send_to(&answer, client).expect("sends");
        }
    });
    port
}

#[test]
fn a_host_is_found_by_the_resolver_and_reached_at_the_address_that_answers() {
    let peer = Peer::start(echo);
    let scratch = Scratch::new("resolver");
    let conf =
        scratch.write("resolv.conf", &format!("nameserver [127.0.0.1]:{}\nsearch example\n", name_server()));
    run_with(
        "resolved",
        &format!("{}", peer.address.port()),
        "// Nobody listens on ::1 there.
         for (const host of ['my.example', 'my.example.', 'my', 'MY']) {
           same((await fetch(`http://${host}:${base}/`)).status, 200, host);
         }
         await fails(fetch(`http://other.example:${base}/`), /ENOTFOUND/);",
        &["--resolv-conf", conf.to_str().expect("UTF-8")],
        &[],
    );
}
