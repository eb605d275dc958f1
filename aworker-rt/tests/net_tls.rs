//! Outbound fetch over TLS and HTTP/2: servers are Node's, certificates OpenSSL's.

mod net_support;
mod temporary;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use net_support::proxy::proxy;
use net_support::{Scratch, run_with};

/// A certificate authority and certificates by it: `good` for localhost and 127.0.0.1, `expired`, and
/// `other` for another name.
fn certificates(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&scratch.0)
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=Test-CA"));
    for (name, names, days) in [
        ("good", "DNS:localhost,IP:127.0.0.1", "30"),
        ("expired", "DNS:localhost,IP:127.0.0.1", "-1"),
        ("other", "DNS:other.example", "30"),
    ] {
        scratch.write("extensions", &format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n"));
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {name}.pem"
        ));
    }
    scratch
}

/// A server of Node; ends when dropped.
struct Node {
    child: Child,
    port: String,
}

impl Node {
    fn start(directory: &Path, name: &str, kind: &str) -> Node {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net_support/tls_peer.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(directory)
            .args([name, kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("a line");
        Node { child, port: port.trim().to_owned() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(scratch: &Scratch, name: &str) -> String {
    scratch.0.join(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn http2_is_agreed_on_and_shares_one_connection() {
    let scratch = certificates("h2");
    let node = Node::start(&scratch.0, "good", "h2");
    run_with(
        "h2-script",
        &format!("https://localhost:{}", node.port),
        "const first = await (await fetch(base + '/a?b', { headers: { 'X-Own': '1' } })).json();
         same([first.httpVersion, first.method, first.url, first.headers['x-own'], first.headers[':authority']].join(), `2.0,GET,/a?b,1,${new URL(base).host}`);
         const many = await Promise.all(Array.from({ length: 100 }, async () => (await fetch(base)).json()));
         same(many.every((one) => one.connections === 1), true, 'one connection');
         const big = await fetch(base + '/big'); same([big.headers.get('x-version'), big.statusText].join(), '2.0,');
         let count = 0; let wrong = 0; for await (const chunk of big.body) for (const byte of chunk) if (byte !== (count++ >> 16)) wrong++;
         same(count, 64 * 65536); same(wrong, 0);
         let pieces = 0;
         const body = new ReadableStream({ pull(c) { if (pieces++ === 64) c.close(); else c.enqueue(new Uint8Array(65536)); } });
         same((await (await fetch(base, { method: 'POST', body, duplex: 'half' })).json()).length, 64 * 65536);
         await fails((await fetch(base + '/reset')).text(), /body/); await fails(fetch(base + '/refuse'), /fetch/);
         const c = new AbortController(); const hanging = fetch(base + '/hang', { signal: c.signal }); setTimeout(() => c.abort(new RangeError('mine')), 20);
         await fails(hanging, /mine/, RangeError);
         same((await (await fetch(base)).json()).connections, 1, 'the connection has survived all that');
         same(await (await fetch(base + '/goaway')).text(), 'last'); same((await (await fetch(base)).json()).connections, 2, 'a new one');",
        &[],
        &[("SSL_CERT_FILE", &path(&scratch, "ca.pem"))],
    );
}

#[test]
fn http1_is_spoken_where_the_server_has_no_more() {
    let scratch = certificates("h1");
    for (kind, version) in [("h1", "1.1"), ("tls12", "2.0")] {
        let node = Node::start(&scratch.0, "good", kind);
        run_with(
            &format!("{kind}-script"),
            &format!("https://127.0.0.1:{}", node.port),
            &format!(
                "for (let i = 0; i < 3; i++) same((await (await fetch(base)).json()).httpVersion, '{version}');
                 let count = 0; for await (const chunk of (await fetch(base + '/big')).body) count += chunk.length; same(count, 64 * 65536);
                 const many = await Promise.all(Array.from({{ length: 20 }}, async () => (await fetch(base, {{ method: 'PUT', body: 'x'.repeat(100000) }})).json()));
                 same(many.every((one) => one.length === 100000), true); await fails((await fetch(base + '/reset')).text(), /body/);"
            ),
            &[],
            // A directory of certificates, as c_rehash makes them.
            &[("SSL_CERT_DIR", scratch.0.to_str().expect("UTF-8"))],
        );
    }
}

#[test]
fn certificates_that_prove_nothing_are_refused() {
    let scratch = certificates("bad");
    let ca = path(&scratch, "ca.pem");
    for (name, host, pattern) in [
        ("expired", "localhost", "/expired.*ERR_TLS_CERT/i"),
        ("other", "localhost", "/not valid for name.*ERR_TLS_CERT/"),
        ("good", "127.0.0.2", "/ECONNREFUSED|not valid for name/"),
    ] {
        let node = Node::start(&scratch.0, name, "h2");
        let script = format!("await fails(fetch(base), {pattern});");
        run_with(
            &format!("bad-{name}"),
            &format!("https://{host}:{}", node.port),
            &script,
            &[],
            &[("SSL_CERT_FILE", &ca)],
        );
    }
    // By an authority that nobody has told of: the system's bundle, or Mozilla's.
    let node = Node::start(&scratch.0, "good", "h2");
    let base = format!("https://localhost:{}", node.port);
    run_with("bad-unknown", &base, "await fails(fetch(base), /UnknownIssuer.*ERR_TLS_CERT/);", &[], &[]);
    // Settings that cannot be used are told.
    let missing = path(&scratch, "missing.pem");
    run_with(
        "bad-missing",
        &base,
        "await fails(fetch(base), /SSL_CERT_FILE=.*missing.pem/);",
        &[],
        &[("SSL_CERT_FILE", &missing)],
    );
    let key = path(&scratch, "ca.key");
    run_with("bad-key", &base, "await fails(fetch(base), /no usable/);", &[], &[("SSL_CERT_FILE", &key)]);
}

/// The proxy sees a host's name and bytes; the certificate is the host's, and must prove the name that was asked for.
#[test]
fn a_proxys_tunnel_is_secured_from_end_to_end() {
    let scratch = certificates("tunnel");
    let node = Node::start(&scratch.0, "good", "h2");
    let (address, heads) = proxy(([127, 0, 0, 1], node.port.parse().expect("a port")).into());
    run_with(
        "tunnel-script",
        "https://localhost:4433",
        "const first = await (await fetch(base + '/a?b')).json(); same([first.httpVersion, first.url].join(), '2.0,/a?b');
         same((await (await fetch(base, { method: 'POST', body: 'x'.repeat(300000) })).json()).length, 300000);
         let count = 0; for await (const chunk of (await fetch(base + '/big')).body) count += chunk.length; same(count, 64 * 65536);
         await fails(fetch('https://elsewhere.test/'), /not valid for name.*ERR_TLS_CERT/);",
        &[],
        &[("SSL_CERT_FILE", &path(&scratch, "ca.pem")), ("https_proxy", &address)],
    );
    let heads = heads.lock().expect("no test thread panics");
    let lines: Vec<&str> = heads.iter().map(|head| head.lines().next().expect("a line")).collect();
    assert_eq!(lines, ["CONNECT localhost:4433 HTTP/1.1", "CONNECT elsewhere.test:443 HTTP/1.1"]);
}

#[test]
fn plain_http_at_a_secured_port_and_the_reverse_fail() {
    let scratch = certificates("mixed");
    let node = Node::start(&scratch.0, "good", "h2");
    // A server that greets in plain text.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = plain.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut socket, _) = plain.accept().expect("accepts");
        socket.write_all(b"220 plain text\r\n").expect("writes");
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let script = format!(
        "await fails(fetch(base), /fetch http:/); await fails(fetch('https://{address}'), /secure the connection.*ERR_TLS/);"
    );
    let ca = path(&scratch, "ca.pem");
    run_with(
        "mixed-script",
        &format!("http://localhost:{}", node.port),
        &script,
        &[],
        &[("SSL_CERT_FILE", &ca)],
    );
}
