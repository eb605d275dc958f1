//! Clones of a worker that has used everything random there is share nothing of it: TLS, WebSockets, DNS, keys, signatures, names.
//!
//! The worker is promoted as `turf seed promote` does it, with open connections and sessions that could be resumed. It and its clones
//! do the same; a second process says what it saw of them.
//!
//! A program of its own (no harness): a fork needs a process with one thread.

mod unique_support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;

use aworker_rt::net::NetFiles;
use aworker_rt::{
    ListenAddress, Listener, Pause, Runtime, Script, Start, V8Flags, WorkerOptions, initialize,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use turf_core::seed::promotion;
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::namespace::loopback_up;
use turf_core::sys::process::exit_now;
use unique_support::Peer;

/// What the worker and each clone do; `values` is what nobody else may have, `first` what the first connection to each server was.
const SCRIPT: &str = "
const bytes = async (promise) => new Uint8Array(await promise).toHex();
const message = new TextEncoder().encode('the same for all');
const facts = async (url) => (await fetch(url)).json();
const socket = (url) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.send('one'); socket.send('two'); };
  socket.onmessage = ({ data }) => { socket.onclose = () => resolve(JSON.parse(data)); socket.close(); };
  socket.onerror = () => reject(new Error('the WebSocket failed'));
});
globalThis.draw = async (name) => {
  const { subtle } = crypto;
  const form = new FormData();
  form.append('a', 'b');
  const pair = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign']);
  const edwards = await subtle.generateKey('Ed25519', true, ['sign']);
  const shared = await subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['encrypt']);
  const first = [await facts('https://localhost:PORT13/'), await facts('https://127.0.0.1:PORT12/')];
  const web = await socket('ws://localhost:PORTWS/');
  const { queries } = await facts(`http://${name}.test:PORTDNS/`);
  return {
    first, queries,
    values: [
      performance.timeOrigin, Math.random(), crypto.randomUUID(), crypto.getRandomValues(new Uint8Array(16)).toHex(),
      URL.createObjectURL(new Blob(['x'])), new Response(form).headers.get('content-type'),
      await bytes(subtle.exportKey('raw', pair.publicKey)), await bytes(subtle.exportKey('raw', edwards.publicKey)),
      await bytes(subtle.exportKey('raw', shared)),
      // Of keys and a message that all have: the nonce, the salt, the padding differ.
      await bytes(subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, globalThis.ecdsa.privateKey, message)),
      await bytes(subtle.sign({ name: 'RSA-PSS', saltLength: 32 }, globalThis.pss.privateKey, message)),
      await bytes(subtle.encrypt('RSA-OAEP', globalThis.oaep.publicKey, message)),
      first[0].random, first[0].session, first[0].shares, first[1].random, web.key, web.masks,
      JSON.stringify(queries),
    ],
  };
};
";

/// What the worker does before it serves.
const BEFORE: &str = "
const rsa = { modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' };
globalThis.ecdsa = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
globalThis.pss = await crypto.subtle.generateKey({ name: 'RSA-PSS', ...rsa }, false, ['sign']);
globalThis.oaep = await crypto.subtle.generateKey({ name: 'RSA-OAEP', ...rsa }, false, ['encrypt', 'decrypt']);
globalThis.drawn = await draw('seed');
// The first connection is kept; requests at once need others.
globalThis.again = [];
// Sessions are known by the server's name: two versions need two.
for (const server of ['localhost:PORT13', '127.0.0.1:PORT12']) {
  const crowd = await Promise.all([0, 1, 2].map(() => facts(`https://${server}/`)));
  globalThis.again.push(crowd.some(({ resumed }) => resumed));
}
addEventListener('fetch', (event) => event.respondWith(new Response('serves')));
";

/// Values that each of them tells.
const VALUES: usize = 19;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("peer") {
        return unique_support::be_peer(Path::new(&arguments.next().unwrap()));
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root for a network of its own");
        return;
    }
    // The resolver's port is fixed.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    loopback_up(&std::net::UdpSocket::bind("0.0.0.0:0").unwrap().into()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    unique_support::make_certificate(directory.path());
    let peer = Peer::start(directory.path());
    std::fs::write(directory.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    std::fs::write(directory.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
    let mut seed = Some(promoted(directory.path(), &peer));
    clones_of_a_worker_with_connections_share_no_randomness_and_no_session(directory.path(), &mut seed);
    println!("test clones_of_a_worker_with_connections_share_no_randomness_and_no_session ... ok");
}

fn script(peer: &Peer) -> String {
    let [tls13, tls12, web_socket, dns] = peer.ports.map(|port| port.to_string());
    format!("{SCRIPT}{BEFORE}")
        .replace("PORT13", &tls13)
        .replace("PORT12", &tls12)
        .replace("PORTWS", &web_socket)
        .replace("PORTDNS", &dns)
}

fn options(directory: &Path) -> WorkerOptions {
    let certificate = directory.join("peer.pem").display().to_string();
    WorkerOptions {
        environment: vec![("SSL_CERT_FILE".to_owned(), certificate)],
        net_files: NetFiles { resolv_conf: directory.join("resolv.conf"), hosts: directory.join("hosts") },
        ..WorkerOptions::default()
    }
}

/// A worker that has done everything, and is a seed.
fn promoted(directory: &Path, peer: &Peer) -> Runtime {
    initialize(&V8Flags::default());
    let mut runtime = Runtime::new();
    runtime.warm_up().expect("the built-ins work");
    let mut worker = runtime.become_worker(options(directory)).unwrap();
    let listener = promotion::listen(directory).unwrap();
    // Asks as soon as it listens.
    let asker = promotion::connect(directory).unwrap();
    nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    worker.be_promotable(listener);
    let serving = Listener::bind(&ListenAddress::Tcp("127.0.0.1:0".to_owned())).unwrap();
    let start = Start::Load(Script::from_text("worker.mjs", script(peer)));
    let asked = match worker.run_until_asked(&start, vec![serving]) {
        Pause::Asked(asked) => asked,
        Pause::Ended(status) => panic!("the worker has ended with {status}"),
    };
    assert_eq!(asked.obstacle, None);
    drop((asked, asker));
    let mut seed = worker.into_seed();
    seed.fire_serialize().expect("nobody objects");
    seed.await_forks(|| Ok(())).expect("rehearsal");
    assert!(seed.may_be_forked(), "no epoll instance exists");
    assert_eq!(open_sockets(), Vec::<String>::new(), "every connection is closed");
    seed
}

fn open_sockets() -> Vec<String> {
    let directory = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = directory.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let links = links.map(|link| link.display().to_string());
    links.filter(|link| link.starts_with("socket:") || link.contains("eventpoll")).collect()
}

/// As many clones as the environment asks for (`TURF_CLONES`).
fn clones_of_a_worker_with_connections_share_no_randomness_and_no_session(
    directory: &Path,
    seed: &mut Option<Runtime>,
) {
    let count: usize = std::env::var("TURF_CLONES").map_or(100, |text| text.parse().unwrap());
    let before: Value = in_a_clone(directory, seed, "[drawn, again]");
    assert_eq!(before[1], serde_json::json!([true, true]), "the worker had sessions that can be resumed");
    let mut seen = HashSet::new();
    see(&mut seen, "the worker", &before[0]);
    for clone in 0..count {
        let said = in_a_clone(directory, seed, &format!("await draw('clone{clone}')"));
        see(&mut seen, &format!("clone {clone}"), &said);
        for (version, first) in ["1.3", "1.2"].iter().zip(said["first"].as_array().unwrap()) {
            let knows = &first["remembers"];
            assert_eq!(knows, false, "clone {clone} knows a session of the worker's with TLS {version}");
            assert_eq!(first["resumed"], false, "clone {clone}, TLS {version}");
        }
        // For both kinds of addresses.
        assert_eq!(said["queries"].as_array().map(Vec::len), Some(2), "{said}");
    }
    println!("{count} clones: {} values, no two alike", seen.len());
}

fn see(seen: &mut HashSet<String>, who: &str, said: &Value) {
    let values = said["values"].as_array().unwrap();
    assert_eq!(values.len(), VALUES, "{who}: {said}");
    for (number, value) in values.iter().enumerate() {
        let text = value.to_string();
        assert!(text.len() > 8, "{who}: value {number} is {text}");
        assert!(seen.insert(format!("{number} {text}")), "{who}: value {number} came before: {text}");
    }
}

/// What an expression is in a clone.
fn in_a_clone(directory: &Path, seed: &mut Option<Runtime>, expression: &str) -> Value {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    match fork().unwrap() {
        Fork::Child => {
            let worker = seed.take().unwrap().become_worker(options(directory));
            let act = |mut worker: aworker_rt::Worker| {
                let source = format!("globalThis.said = JSON.stringify({expression});");
                worker.evaluate(&Script::from_text("clone.mjs", &source))?;
                worker.evaluate(&Script::from_text("[said]", "said"))
            };
            let (text, status) = match worker.and_then(act) {
                Ok(said) => (said.unwrap_or_default(), 0),
                Err(error) => (error.to_string(), 1),
            };
            let _ = writer.write_all(text.as_bytes());
            exit_now(status);
        }
        Fork::Parent { pid } => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let status = waitpid(Pid::from_raw(pid), None).unwrap();
            assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 0), "{text}");
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        }
    }
}
