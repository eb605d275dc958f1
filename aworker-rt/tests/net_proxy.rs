//! Outbound connections through an HTTP proxy that the environment names.

mod net_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use net_support::{PATIENCE, Peer, ok, run_with};

/// A proxy of plain bytes: it opens every tunnel that it is asked for, whatever the host's name, to one address. Other
/// requests it answers itself. What it was asked is in the list.
fn proxy(target: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address").to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = heads.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, list) = (socket.expect("accepts"), list.clone());
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut socket) {
                    list.lock().expect("no test thread panics").push(head.clone());
                    if head.starts_with("CONNECT refused.test:") {
                        let _ = socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                    } else if head.starts_with("CONNECT ") {
                        socket.write_all(b"HTTP/1.1 200 Here you are\r\nVia: test\r\n\r\n").expect("writes");
                        return carry(&socket, &TcpStream::connect(target).expect("connects"));
                    } else {
                        let line = head.lines().next().expect("a line");
                        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
                        let _ = socket.write_all(text.as_bytes());
                    }
                }
            });
        }
    });
    (address, heads)
}

fn read_head(socket: &mut TcpStream) -> Option<String> {
    socket.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).expect("UTF-8"))
}

/// Copies both ways until both sides have ended.
fn carry(first: &TcpStream, second: &TcpStream) {
    let (from, mut to) = (first.try_clone().expect("clones"), second.try_clone().expect("clones"));
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut &from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut &*second, &mut &*first);
    let _ = first.shutdown(std::net::Shutdown::Both);
    back.join().expect("copies");
}

#[test]
fn plain_requests_are_handed_to_the_proxy_in_absolute_form() {
    let direct = Peer::start(|_| ok("direct"));
    let (address, heads) = proxy(direct.address);
    run_with(
        "proxy-plain",
        &direct.url(""),
        "same(await (await fetch('http://far.test/a?b#c')).text(), 'GET http://far.test/a?b HTTP/1.1');
         same(await (await fetch('http://far.test:81/', { method: 'POST', body: 'x'.repeat(0) })).text(), 'POST http://far.test:81/ HTTP/1.1');
         same(await (await fetch(base)).text(), 'direct');",
        &[],
        &[("HTTP_PROXY", &format!("http://us%20er:pass@{address}")), ("no_proxy", "127.0.0.1")],
    );
    let heads = heads.lock().expect("no test thread panics");
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(heads[0].contains("\r\nhost: far.test\r\n"), "{}", heads[0]);
    assert!(
        heads.iter().all(|head| head.contains("proxy-authorization: Basic dXMgZXI6cGFzcw==\r\n")),
        "{heads:?}"
    );
    assert_eq!(direct.seen().len(), 1);
    assert_eq!(
        direct.seen()[0].header("proxy-authorization"),
        None,
        "the host does not see what the proxy is told"
    );
}

#[test]
fn what_is_secured_and_websockets_go_through_a_tunnel() {
    let peer = Peer::start(|_| ok("not a WebSocket"));
    let (address, heads) = proxy(peer.address);
    let value = format!("http://{address}");
    run_with(
        "proxy-tunnel",
        "",
        "await fails(fetch('https://refused.test/'), /403.*CONNECT refused\\.test:443/);
         const ws = new WebSocket('ws://far.test:8080/chat');
         const error = await new Promise((done) => { ws.onerror = done; }); same(/status 200/.test(error.message), true, error.message);",
        &[],
        &[("http_proxy", &value), ("https_proxy", &value)],
    );
    let heads = heads.lock().expect("no test thread panics");
    let lines: Vec<&str> = heads.iter().map(|head| head.lines().next().expect("a line")).collect();
    assert_eq!(lines, ["CONNECT refused.test:443 HTTP/1.1", "CONNECT far.test:8080 HTTP/1.1"]);
    let through = peer.seen();
    assert_eq!(through.last().map(net_support::Request::path), Some("/chat"), "{through:?}");
}

#[test]
fn nothing_is_sent_around_a_proxy_that_cannot_be_used() {
    let direct = Peer::start(|_| ok("direct"));
    for value in ["socks5://127.0.0.1:1", "https://127.0.0.1:1"] {
        run_with(
            "proxy-kind",
            &direct.url(""),
            "await fails(fetch(base), /http_proxy must be/);",
            &[],
            &[("http_proxy", value)],
        );
    }
    run_with(
        "proxy-down",
        &direct.url(""),
        "await fails(fetch(base), /by the proxy 127.0.0.1:2.*ECONNREFUSED/);",
        &[],
        &[("http_proxy", "127.0.0.1:2")],
    );
    assert!(direct.seen().is_empty());
}
