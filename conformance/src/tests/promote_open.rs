//! What a worker has open when it is to become a seed: what is refused by its name, and what goes on in both.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::Pool;
use crate::bundle::Bundle;
use crate::case::{Case, Container};
use crate::suite::tests;
use crate::{http, wait};

tests! { "promote-open";
    Turf:
        each_kind_of_what_is_open_is_named_and_no_obstacle_when_it_has_ended,
        timers_wasm_and_channels_go_on_in_the_worker_and_in_the_next_ones,
        a_pools_worker_cannot_be_promoted;
}

/// `/hold/KIND?PORT` begins something that does not end by itself, `/release` ends it.
const HOLDER: &str = "
let release = () => {};
const hold = {
  fetch(port) {
    const controller = new AbortController();
    const answer = fetch(`http://127.0.0.1:${port}/`, { signal: controller.signal });
    answer.catch(() => {});
    release = () => controller.abort();
  },
  events(port) {
    const source = new EventSource(`http://127.0.0.1:${port}/`);
    release = () => source.close();
    return new Promise((open) => { source.onopen = open; });
  },
  async file() {
    const reader = (await Aworker.files.stream('/app/worker.js')).getReader({ mode: 'byob' });
    await reader.read(new Uint8Array(1));
    release = () => reader.cancel();
  },
  wait(port, event) {
    event.waitUntil(new Promise((resolve) => { release = resolve; }));
  },
};
addEventListener('fetch', (event) => {
  const { pathname, search } = new URL(event.request.url);
  event.respondWith((async () => {
    if (pathname === '/release') await release();
    else if (pathname.startsWith('/hold/')) await hold[pathname.slice(6)](search.slice(1), event);
    return new Response('done');
  })());
});
";

/// What begins a promotion's obstacle, and the words of the refusal.
const KINDS: [(&str, &str); 4] = [
    ("fetch", "a fetch of"),
    ("events", "a fetch of"),
    ("file", "an open file"),
    ("wait", "a promise given to waitUntil"),
];

impl Case {
    /// A bundle whose worker may become a seed of this name.
    fn promotable_to(&mut self, name: &str, source: &str) -> Result<Bundle> {
        let mut bundle = self.worker(source)?;
        bundle.set("/annotations", json!({"io.turf.promotable": name}));
        bundle.set("/process/capabilities", json!({}));
        bundle.without_namespace("pid").without_namespace("cgroup");
        Ok(bundle)
    }
}

/// Listens in the container's network.
fn listener_within(container: &Container) -> Result<TcpListener> {
    let network = File::open(format!("/proc/{}/ns/net", container.pid))?;
    // A thread can be in another network than the others.
    let bound = thread::spawn(move || -> Result<TcpListener> {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        Ok(TcpListener::bind("127.0.0.1:0")?)
    });
    bound.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

/// Takes the worker's request; the connection, which is answered with the head of a stream of events if that was asked for.
fn take_request(listener: &TcpListener, kind: &str) -> Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(wait::STEP))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).context("read the worker's request")?;
        head.push(byte[0]);
    }
    if kind == "events" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")?;
    }
    Ok(stream)
}

fn each_kind_of_what_is_open_is_named_and_no_obstacle_when_it_has_ended(case: &mut Case) -> Result<()> {
    let mut held = Vec::new();
    for (kind, words) in KINDS {
        let bundle = case.promotable_to(&format!("next-{kind}"), HOLDER)?;
        let (worker, address) = case.serve(&bundle)?;
        let listener = listener_within(&worker)?;
        let path = format!("/hold/{kind}?{}", listener.local_addr()?.port());
        let mut client = http::Client::connect(address)?;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        let peer = match kind {
            "fetch" | "events" => Some(take_request(&listener, kind)?),
            _ => None,
        };
        ensure!(client.receive()?.status == 200, "{kind}");
        held.push((kind, words, worker, address, peer));
    }
    // All at once: each waits for some seconds.
    let mut asked = Vec::new();
    for (.., worker, _, _) in &held {
        asked.push(case.runtime.spawn(&["seed", "promote", &worker.id], None)?);
    }
    for (promotion, (kind, words, ..)) in asked.into_iter().zip(&held) {
        let words = ["cannot become a seed, and serves on", words, "still after"];
        promotion.finish()?.failure(&words).with_context(|| (*kind).to_owned())?;
    }
    for (kind, _, worker, address, _peer) in held {
        ensure!(http::get(address, "/release")?.status == 200, "{kind}: it does not serve");
        case.runtime.ok(&["seed", "promote", &worker.id]).with_context(|| kind.to_owned())?;
        ensure!(http::get(address, "/")?.status == 200, "{kind}");
    }
    Ok(())
}

/// Has a timer that never ends, a Wasm instance with a number in its memory, a pair of ports and two broadcast channels.
const KEEPER: &str = "
let ticks = 0;
let ticked = () => {};
setInterval(() => { ticks += 1; ticked(); }, 10);
// (module (memory (export \"m\") 1))
const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 109, 2, 0]);
const memory = new Uint8Array(new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports.m.buffer);
const { port1, port2 } = new MessageChannel();
port2.onmessage = ({ data }) => port2.postMessage(data + 1);
const [one, two] = [new BroadcastChannel('a'), new BroadcastChannel('a')];
two.onmessage = ({ data }) => two.postMessage(data + 1);
const echo = (port, number) => new Promise((resolve) => {
  port.onmessage = ({ data }) => resolve(data);
  port.postMessage(number);
});
addEventListener('fetch', (event) => event.respondWith((async () => {
  if (event.request.url.endsWith('/set')) memory[0] = 7;
  await new Promise((resolve) => { ticked = resolve; });
  return Response.json({ ticks, memory: memory[0], port: await echo(port1, 1), channel: await echo(one, 2) });
})()));
";

fn timers_wasm_and_channels_go_on_in_the_worker_and_in_the_next_ones(case: &mut Case) -> Result<()> {
    let bundle = case.promotable_to("next", KEEPER)?;
    let (worker, address) = case.serve(&bundle)?;
    let ask =
        |address, path| -> Result<Value> { Ok(serde_json::from_slice(&http::get(address, path)?.body)?) };
    let before = ask(address, "/set")?;
    case.runtime.ok(&["seed", "promote", &worker.id])?;
    let own = ask(address, "/")?;
    let mut follower = case.worker("throw new Error('the seed has run it');")?;
    follower.set("/annotations", json!({"io.turf.seed": "next"}));
    let (container, follower) = case.serve(&follower)?;
    let next = ask(follower, "/")?;
    for said in [&own, &next] {
        let kept = [&said["memory"], &said["port"], &said["channel"]];
        ensure!(kept == [&json!(7), &json!(2), &json!(3)], "{said}");
        ensure!(said["ticks"].as_u64() > before["ticks"].as_u64(), "{before} {said}");
    }
    case.remove(&container)
}

fn a_pools_worker_cannot_be_promoted(case: &mut Case) -> Result<()> {
    let bundle = case.promotable_to("next", HOLDER)?;
    bundle.write()?;
    let path = bundle.path.clone();
    let name = case.id("pool");
    case.forget(&name);
    let mut pool =
        Pool::run(case, &name, &path, http::free_address()?, &["--min", "1", "--max", "1", "--spare", "0"])?;
    let worker = pool.wait_for_event("ready")?["worker"].as_str().context("no worker")?.to_owned();
    let words = ["cannot become a seed, and serves on", "the channel to the supervisor of its pool"];
    case.runtime.refused(&["seed", "promote", &worker], &words)?;
    ensure!(http::get(pool.address, "/")?.status == 200);
    pool.drain(case)
}
