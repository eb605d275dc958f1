//! Outbound connections through an HTTP proxy that the environment names.

mod net_support;
mod temporary;

use net_support::proxy::proxy;
use net_support::{Peer, ok, run_with};

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
