//! EventSource against servers that say exactly what a test wants them to say.

mod net_support;
mod temporary;

use std::sync::atomic::{AtomicUsize, Ordering};

use net_support::{Answer, Peer, run};

fn stream(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream;charset=utf-8\r\nCache-Control: no-store\r\n\r\n{text}").into_bytes()
}

/// Collects what happens until an event of the type `end`.
const WATCH: &str = "
    const watch = (path, types = ['message']) => new Promise((resolve) => {
      const source = new EventSource(base + path); const seen = [];
      same(source.readyState, EventSource.CONNECTING);
      source.onopen = () => seen.push('open');
      source.onerror = () => { seen.push(`error ${source.readyState}`); if (source.readyState === 2) resolve(seen); };
      for (const type of types) source.addEventListener(type, (e) => seen.push(`${type}:${e.data}:${e.lastEventId}:${e.origin === base}`));
      source.addEventListener('end', () => { source.close(); resolve(seen); });
    });
    const alike = (a, b) => same(JSON.stringify(a), JSON.stringify(b));";

#[test]
fn streams_are_parsed_as_the_standard_says() {
    let peer = Peer::start(|request| {
        Answer::Hang(stream(match request.path() {
            "/lines" => {
                "\u{feff}data: one\n\ndata:two\ndata:  three\r\n\r\ndata\rdata\r\rdata:ä\r\n\r\n: comment\n\nevent: other\ndata: x\n\nevent: unused\n\nevent: end\ndata\n\n"
            }
            "/ids" => {
                "id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: x\0y\ndata: d\n\nid: 5\n\ndata: e\n\nunknown: 1\ndata : no\ndata: f\nretry: x\n\nevent: end\ndata:\n\n"
            }
            _ => "data: unfinished",
        }))
    });
    run(
        "es-parse",
        &peer.url(""),
        &format!(
            "{WATCH}
             alike(await watch('/lines', ['message', 'other']), ['open', 'message:one::true', 'message:two\\n three::true', 'message:\\n::true', 'message:ä::true', 'other:x::true']);
             alike(await watch('/ids'), ['open', 'message:a:1:true', 'message:b:1:true', 'message:c::true', 'message:d::true', 'message:e:5:true', 'message:f:5:true']);"
        ),
    );
    let request = &peer.seen()[0];
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.header("cache-control"), Some("no-cache"));
    assert_eq!(request.header("last-event-id"), None);
}

#[test]
fn a_connection_that_ends_is_made_again_with_the_last_id() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let peer = Peer::start(|_| match COUNT.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Close(stream("retry: 10\nid: ä1\ndata: first\n\nid: lost\ndata: unfinished\n")),
        1 => Answer::Reset(Vec::new()),
        2 => Answer::Close(stream("data: second\n\n")),
        _ => Answer::Hang(stream("event: end\ndata: x\n\n")),
    });
    run(
        "es-again",
        &peer.url(""),
        &format!(
            "{WATCH}
             const seen = await watch('/');
             alike(seen, ['open', 'message:first:ä1:true', 'error 0', 'error 0', 'open', 'message:second:ä1:true', 'error 0', 'open']);"
        ),
    );
    let ids: Vec<Option<String>> =
        peer.seen().iter().map(|request| request.header("last-event-id").map(str::to_owned)).collect();
    // The bytes of UTF-8, each as a character.
    let again = Some("\u{c3}\u{a4}1".to_owned());
    assert_eq!(ids, [None, again.clone(), again.clone(), again]);
}

#[test]
fn what_is_no_stream_of_events_is_not_asked_for_again() {
    let peer = Peer::start(|request| {
        Answer::Keep(match request.path() {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/404" => {
                b"HTTP/1.1 404 Not Found\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n"
                    .to_vec()
            }
            "/type" => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-streams\r\nContent-Length: 9\r\n\r\ndata: x\n\n"
                    .to_vec()
            }
            _ => b"HTTP/1.1 302 Found\r\nLocation: /404\r\nContent-Length: 0\r\n\r\n".to_vec(),
        })
    });
    run(
        "es-refused",
        &peer.url(""),
        &format!(
            "{WATCH}
             for (const path of ['/204', '/404', '/type', '/redirect']) alike(await watch(path), ['error 2']);
             let e; try {{ new EventSource('http://'); }} catch (error) {{ e = error; }} same(e?.name, 'SyntaxError');
             const source = new EventSource(base + '/404', {{ withCredentials: true }}); same(source.withCredentials, true); same(source.url, base + '/404');
             source.onerror = () => {{ throw new Error('closed by hand: nothing is told'); }}; source.close(); same(source.readyState, 2);
             same([EventSource.CONNECTING, EventSource.OPEN, EventSource.CLOSED, source.OPEN].join(), '0,1,2,1');
             await new Promise((done) => setTimeout(done, 20));"
        ),
    );
}
