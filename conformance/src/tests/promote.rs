//! A worker that serves becomes the next seed of a name: what is handed on, what is not, what is refused, and that nothing is lost
//! whoever dies meanwhile.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::confined::ensure_confined;
use super::failure::seed_pid;
use super::faults::resume;
use super::worker::HELLO;
use crate::bundle::Bundle;
use crate::case::{Case, Container, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "promote";
    Turf:
        what_traffic_has_built_is_in_the_next_workers,
        a_worker_can_be_promoted_again_and_again,
        workers_that_run_and_their_clients_are_untouched,
        a_promoted_seed_is_confined_as_one_with_a_script,
        clones_of_a_promoted_worker_differ,
        what_is_open_is_a_refusal_that_names_it,
        a_worker_that_is_not_for_it_is_refused,
        a_bundle_that_cannot_become_a_seed_is_refused,
        a_program_that_objects_is_a_refusal,
        a_promotion_that_is_killed_at_any_step_loses_nothing,
        a_worker_that_dies_meanwhile_leaves_the_old_seed,
        a_promoted_seed_that_ends_is_followed_by_one_of_its_name;
}

/// Counts requests to `/count`, remembers what happened, and can be made to hold on to something.
const COUNTER: &str = "
let count = 0;
const events = ['load'];
for (const type of ['serialize', 'deserialize', 'install', 'activate']) addEventListener(type, () => events.push(type));
const held = [], sockets = [];
addEventListener('fetch', (event) => {
  const { pathname } = new URL(event.request.url);
  if (pathname === '/count') count += 1;
  if (pathname === '/never') return event.respondWith(new Promise((resolve) => held.push(resolve)));
  if (pathname === '/release') held.splice(0).forEach((resolve) => resolve(new Response('released')));
  if (pathname === '/socket') {
    const { 0: client, 1: server } = new WebSocketPair();
    server.accept();
    sockets.push(server);
    return event.respondWith(new Response(null, { status: 101, webSocket: client }));
  }
  event.respondWith(Response.json({
    count, events, random: Math.random(), uuid: crypto.randomUUID(), origin: performance.timeOrigin,
    bytes: Array.from(crypto.getRandomValues(new Uint8Array(16))).join(), env: Aworker.env,
  }));
});
";

const HANDSHAKE: &[u8] = b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How the answer to it begins.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n";

/// The seed that is promoted to.
const NAME: &str = "next";

impl Case {
    /// A bundle whose worker may become seed [`NAME`].
    fn promotable(&mut self, source: &str) -> Result<Bundle> {
        let mut bundle = self.worker(source)?;
        bundle.set("/annotations", json!({"io.turf.promotable": NAME}));
        bundle.set("/process/capabilities", json!({}));
        bundle.without_namespace("pid").without_namespace("cgroup");
        Ok(bundle)
    }

    /// A bundle whose workers are forked from seed [`NAME`].
    fn follower(&mut self) -> Result<Bundle> {
        let mut bundle = self.worker("throw new Error('the seed has run it');")?;
        bundle.set("/annotations", json!({"io.turf.seed": NAME}));
        Ok(bundle)
    }

    /// What one new worker of seed [`NAME`] says.
    fn ask_follower(&mut self) -> Result<Value> {
        let bundle = self.follower()?;
        let (container, address) = self.serve(&bundle)?;
        let said = ask(address)?;
        self.remove(&container)?;
        self.forget(&container.id);
        Ok(said)
    }

    fn promote(&mut self, container: &Container) -> Result<()> {
        self.runtime.ok(&["seed", "promote", &container.id]).map(drop)
    }

    /// The processes that state.json of any generation of the seed names.
    fn seed_states(&self) -> Result<HashSet<i32>> {
        let directory = self.runtime.root().join("seeds").join(NAME);
        let states = fs::read_dir(&directory)?.flatten().map(|entry| entry.path().join("state.json"));
        let pid = |path| {
            let state: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            i32::try_from(state["pid"].as_i64()?).ok()
        };
        Ok(states.filter_map(|path: std::path::PathBuf| pid(path)).collect())
    }

    /// A seed of the name from a script whose workers answer as [`COUNTER`] does, with a count of -1.
    fn old_seed(&mut self, flags: &[&str]) -> Result<()> {
        let script = self.directory().join("old.js");
        fs::write(&script, COUNTER.replace("let count = 0", "let count = -1"))?;
        let arguments = [&["seed", "start", "--script", text(&script)?], flags, &[NAME]].concat();
        self.runtime.ok(&arguments).map(drop)
    }
}

fn ask(address: SocketAddr) -> Result<Value> {
    serde_json::from_slice(&http::get(address, "/")?.body).context("parse a worker's answer")
}

fn count(address: SocketAddr, times: usize) -> Result<()> {
    let mut client = http::Client::connect(address)?;
    for _ in 0..times {
        ensure!(client.get("/count")?.status == 200);
    }
    Ok(())
}

fn what_traffic_has_built_is_in_the_next_workers(case: &mut Case) -> Result<()> {
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    count(address, 3)?;
    case.promote(&worker)?;
    let listed: Vec<Value> =
        serde_json::from_str(&case.runtime.ok(&["seed", "list", "--format", "json"])?.stdout)?;
    let seed = listed.iter().find(|seed| seed["name"] == NAME).context("the seed is not listed")?;
    ensure!(seed["promotedFrom"] == worker.id.as_str() && seed["status"] == "ready", "{seed}");
    // The worker is what it was, and goes on by itself.
    count(address, 4)?;
    ensure!(case.runtime.status(&worker.id)? == "running");
    let (own, next) = (ask(address)?, case.ask_follower()?);
    ensure!(own["count"] == 7 && own["events"] == json!(["load", "install", "activate"]), "{own}");
    let events = json!(["load", "install", "activate", "serialize", "deserialize"]);
    ensure!(next["count"] == 3 && next["events"] == events, "{next}");
    // The seed does not need the container any more.
    case.remove(&worker)?;
    case.forget(&worker.id);
    ensure!(case.ask_follower()?["count"] == 3);
    Ok(())
}

fn a_worker_can_be_promoted_again_and_again(case: &mut Case) -> Result<()> {
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    let mut seeds = HashSet::new();
    for round in 1..=3 {
        count(address, 1)?;
        case.runtime.ok(&["seed", "promote", "--name", NAME, &worker.id])?;
        ensure!(case.ask_follower()?["count"] == round, "round {round}");
        seeds.insert(seed_pid(case, NAME)?);
    }
    ensure!(seeds.len() == 3, "{seeds:?}");
    let left = fs::read_dir(case.runtime.root().join("seeds").join(NAME))?.flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with('g')).count();
    ensure!(left == 1, "{left} generations are left");
    Ok(())
}

/// Asks on one connection until told to stop; how often it was answered.
fn busy_client(address: SocketAddr) -> (Arc<AtomicBool>, JoinHandle<Result<usize>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let client = thread::spawn(move || {
        let mut client = http::Client::connect(address)?;
        let mut answers = 0;
        while !told.load(Ordering::Relaxed) {
            ensure!(client.get("/")?.status == 200);
            answers += 1;
        }
        Ok(answers)
    });
    (stop, client)
}

fn workers_that_run_and_their_clients_are_untouched(case: &mut Case) -> Result<()> {
    case.old_seed(&[])?;
    let (_, old) = {
        let bundle = case.follower()?;
        case.serve(&bundle)?
    };
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    let mut idle = http::Client::connect(address)?;
    ensure!(idle.get("/count")?.status == 200);
    let clients: Vec<_> = (0..3).map(|_| busy_client(address)).collect();
    let mut half = http::Client::connect(address)?;
    for round in 0..3 {
        if round == 2 {
            // Not earlier: a head has ten seconds.
            half.send(b"GET /count HTTP/1.1\r\nHo")?;
        }
        case.promote(&worker)?;
        // A connection that comes in between waits in the listener's queue, and no longer.
        ensure!(http::get(address, "/")?.status == 200);
    }
    for (stop, client) in clients {
        stop.store(true, Ordering::Relaxed);
        let answers = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(answers > 0, "a client was not answered at all");
    }
    ensure!(idle.get("/count")?.status == 200, "a kept connection has ended");
    half.send(b"st: a\r\n\r\n")?;
    ensure!(half.receive()?.status == 200, "half a request was lost");
    ensure!(ask(address)?["count"] == 3);
    // A worker of the old seed, which has ended.
    ensure!(ask(old)?["count"] == -1);
    ensure!(case.ask_follower()?["count"] == 1);
    Ok(())
}

fn a_promoted_seed_is_confined_as_one_with_a_script(case: &mut Case) -> Result<()> {
    let mut bundle = case.promotable(COUNTER)?;
    bundle.push("/process/env", json!("SECRET=of-the-first-worker"));
    let (worker, _) = case.serve(&bundle)?;
    case.promote(&worker)?;
    let seed = seed_pid(case, NAME)?;
    ensure_confined(seed)?;
    // It has given back what of the program only its start needed.
    let mapped = |pid| -> Result<u64> {
        let kilobytes = |name| host::kilobytes(pid, "smaps_rollup", name);
        Ok(kilobytes("Rss")? - kilobytes("Anonymous")?)
    };
    let (own, others) = (mapped(seed)?, mapped(seed_pid(case, "default")?)?);
    ensure!(own <= others + 1024, "{own} kB of files are mapped, in the default seed {others} kB");
    // It closes the connection on which `promote` asked how it is after it has answered.
    let end = Instant::now() + wait::STEP;
    while host::open_fds(seed)? > 6 {
        ensure!(Instant::now() < end, "it has {} descriptors", host::open_fds(seed)?);
        thread::yield_now();
    }
    for file in ["environ", "cmdline"] {
        let shown = fs::read_to_string(format!("/proc/{seed}/{file}"))?;
        ensure!(!shown.contains("of-the-first-worker") && !shown.contains("/app"), "{file}: {shown}");
    }
    let said = case.ask_follower()?;
    ensure!(said["env"] == json!({"PATH": "/bin"}), "{said}");
    Ok(())
}

fn clones_of_a_promoted_worker_differ(case: &mut Case) -> Result<()> {
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    // Half of whatever is drawn ahead is used up.
    let mut all = vec![ask(address)?];
    case.promote(&worker)?;
    all.push(ask(address)?);
    for _ in 0..100 {
        all.push(case.ask_follower()?);
    }
    let mut seen = HashSet::new();
    for (number, said) in all.iter().enumerate() {
        for name in ["random", "uuid", "bytes", "origin"] {
            // The worker itself was asked twice.
            let repeats = number == 1 && name == "origin";
            ensure!(seen.insert(format!("{name} {}", said[name])) != repeats, "{number}: {name} of {said}");
        }
    }
    Ok(())
}

fn what_is_open_is_a_refusal_that_names_it(case: &mut Case) -> Result<()> {
    case.old_seed(&[])?;
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    let mut socket = http::Client::connect(address)?;
    socket.send(HANDSHAKE)?;
    ensure!(socket.bytes(SWITCHING.len())? == SWITCHING);
    let begun = Instant::now();
    let words = ["cannot become a seed", "a WebSocket"];
    case.runtime.refused(&["seed", "promote", &worker.id], &words)?;
    ensure!(begun.elapsed() < wait::STEP, "a WebSocket never ends, and was waited for");
    drop(socket);
    let mut waiting = http::Client::connect(address)?;
    waiting.send(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")?;
    // Both come to the worker in this order.
    count(address, 1)?;
    let words = ["cannot become a seed", "a request under way", "still after"];
    case.runtime.refused(&["seed", "promote", &worker.id], &words)?;
    // It serves as before, those it held and others.
    count(address, 1)?;
    ensure!(http::get(address, "/release")?.status == 200 && waiting.receive()?.text()? == "released");
    ensure!(case.ask_follower()?["count"] == -1, "the old seed has gone");
    case.promote(&worker)?;
    ensure!(case.ask_follower()?["count"] == 2);
    Ok(())
}

fn a_worker_that_is_not_for_it_is_refused(case: &mut Case) -> Result<()> {
    let ordinary = case.worker(HELLO)?;
    let (ordinary, _) = case.serve(&ordinary)?;
    case.runtime.refused(&["seed", "promote", &ordinary.id], &["io.turf.promotable"])?;
    let bundle = case.promotable(COUNTER)?;
    let worker = case.create(&bundle)?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["created"])?;
    let address = case.start_listening(&worker)?;
    case.runtime.refused(&["seed", "promote", "--name", "other", &worker.id], &["seed next", "other"])?;
    case.runtime.ok(&["pause", &worker.id])?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["paused"])?;
    case.runtime.ok(&["resume", &worker.id])?;
    ensure!(ask(address)?["count"] == 0);
    // A seed without user code has the name: what was created for it belongs to no tenant.
    case.runtime.ok(&["seed", "start", NAME])?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["without user code"])?;
    case.runtime.ok(&["seed", "stop", NAME])?;
    case.promote(&worker)?;
    case.runtime.ok(&["kill", &worker.id, "KILL"])?;
    case.wait(&worker)?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["stopped"])?;
    case.runtime.refused(&["seed", "promote", "nobody"], &["does not exist"])?;
    ensure!(case.ask_follower()?["count"] == 0);
    Ok(())
}

fn a_bundle_that_cannot_become_a_seed_is_refused(case: &mut Case) -> Result<()> {
    let mut refused = |change: &dyn Fn(&mut Bundle), words: &[&str]| -> Result<()> {
        let mut bundle = case.promotable(COUNTER)?;
        change(&mut bundle);
        bundle.write()?;
        let path = text(&bundle.path)?.to_owned();
        let id = case.id("refused");
        case.runtime.refused(&["create", "--bundle", &path, &id], words).map(drop)
    };
    let set = |bundle: &mut Bundle, pointer: &str, value: &Value| {
        bundle.set(pointer, value.clone());
    };
    let place = "$.linux.namespaces";
    for kind in ["pid", "user", "cgroup"] {
        let change = |bundle: &mut Bundle| {
            bundle.push("/linux/namespaces", json!({"type": kind}));
            let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 1}]);
            if kind == "user" {
                bundle.set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids);
            }
        };
        refused(&change, &[place, kind])?;
    }
    for kind in ["network", "ipc", "uts"] {
        let change = |bundle: &mut Bundle| {
            bundle.without_namespace(kind);
        };
        refused(&change, &[place, kind])?;
    }
    let some = json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    refused(&|bundle| set(bundle, "/process/capabilities", &some), &["$.process.capabilities"])?;
    for name in ["default", "a/b"] {
        let named = json!({"io.turf.promotable": name});
        refused(&|bundle| set(bundle, "/annotations", &named), &["io.turf.promotable"])?;
    }
    // The worker of a promoted seed, or of any with user code, is confined in another way.
    let of_tenant = json!({"io.turf.promotable": NAME, "io.turf.seed": NAME});
    refused(&|bundle| set(bundle, "/annotations", &of_tenant), &["io.turf.promotable", "user code"])
}

fn a_program_that_objects_is_a_refusal(case: &mut Case) -> Result<()> {
    case.old_seed(&[])?;
    let throws = "() => { throw new Error('not me'); }";
    let rejects = "(event) => event.waitUntil(Promise.reject(new Error('not me')))";
    for listener in [throws, rejects] {
        let bundle = case.promotable(&format!("addEventListener('serialize', {listener});{COUNTER}"))?;
        let (worker, address) = case.serve(&bundle)?;
        case.runtime.refused(&["seed", "promote", &worker.id], &["serialize", "not me"])?;
        ensure!(ask(address)?["count"] == 0 && case.ask_follower()?["count"] == -1);
    }
    // So is a filter under which no sandbox can be entered.
    let mut bundle = case.promotable(COUNTER)?;
    let rule = json!([{"names": ["setns"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
    let (worker, address) = case.serve(&bundle)?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["linux.seccomp", "operation not permitted"])?;
    ensure!(ask(address)?["count"] == 0);
    // And a group without room for another process.
    let mut bundle = case.promotable(COUNTER)?;
    bundle.set("/linux/resources/pids", json!({"limit": 4}));
    let (worker, address) = case.serve(&bundle)?;
    let limit = host::cgroup_file(worker.pid, "pids", "pids.max", "pids.max")?;
    fs::write(&limit, "1")?;
    case.runtime.refused(&["seed", "promote", &worker.id], &["pids.limit"])?;
    ensure!(ask(address)?["count"] == 0);
    fs::write(&limit, "100")?;
    case.promote(&worker)
}

/// The steps of `turf seed promote`, and whether the worker's clone has the name afterwards.
const STEPS: [(&str, bool); 5] = [
    ("promote:quiet", false),
    ("promote:born", false),
    ("promote:ready", false),
    ("promote:serving", false),
    ("promote:named", true),
];

fn a_promotion_that_is_killed_at_any_step_loses_nothing(case: &mut Case) -> Result<()> {
    for (step, is_named) in STEPS {
        case.old_seed(&[])?;
        let bundle = case.promotable(COUNTER)?;
        let (worker, address) = case.serve(&bundle)?;
        count(address, 1)?;
        case.killed(step, &["seed", "promote", &worker.id])?;
        // The worker serves, and the seed that has the name is whole.
        count(address, 1).context(step)?;
        let said = case.ask_follower().context(step)?;
        ensure!(said["count"] == if is_named { 1 } else { -1 }, "{step}: {said}");
        // What was left behind stands in nobody's way, and is cleared away.
        case.promote(&worker).context(step)?;
        ensure!(case.ask_follower()?["count"] == 2, "{step}");
        case.remove(&worker)?;
        case.forget(&worker.id);
        case.runtime.ok(&["seed", "stop", NAME])?;
        let left = fs::read_dir(case.runtime.root().join("seeds").join(NAME))?.flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
        ensure!(left == ["log"], "{step}: {left:?}");
        case.runtime.ok(&["seed", "stop", "default"])?;
        ensure!(wait::no_children(wait::STEP), "{step}: somebody runs on");
    }
    Ok(())
}

/// Waits until a process that is to end has ended.
fn ended(pid: i32, is_to_end: bool) -> Result<()> {
    let end = Instant::now() + wait::STEP;
    while is_to_end && host::processes().iter().any(|process| process.pid == pid && process.state != 'Z') {
        ensure!(Instant::now() < end, "process {pid} lives on");
        thread::yield_now();
    }
    Ok(())
}

fn a_worker_that_dies_meanwhile_leaves_the_old_seed(case: &mut Case) -> Result<()> {
    case.old_seed(&[])?;
    for step in ["promote:quiet", "promote:born"] {
        let bundle = case.promotable(COUNTER)?;
        let (worker, address) = case.serve(&bundle)?;
        count(address, 1)?;
        let promotion = case.stopped_at(step, &["seed", "promote", &worker.id])?;
        let group = host::cgroup_file(worker.pid, "devices", "cgroup.procs", "cgroup.procs")?;
        let members = fs::read_to_string(group)?;
        let clones = case.seed_states()?;
        kill(Pid::from_raw(worker.pid), Signal::SIGKILL)?;
        case.wait(&worker)?;
        for pid in members.lines().filter_map(|line| line.parse::<i32>().ok()) {
            // The worker ends with its init; its clone does not.
            ended(pid, !clones.contains(&pid))?;
        }
        resume(&promotion)?;
        let finished = promotion.finish()?;
        if step == "promote:quiet" {
            finished.failure(&["terms of its promotion", "broken pipe"]).context(step)?;
            ensure!(case.ask_follower()?["count"] == -1, "{step}");
        } else {
            // The clone is a process of its own by then.
            finished.success().context(step)?;
            ensure!(case.ask_follower()?["count"] == 1, "{step}");
        }
        case.runtime.ok(&["delete", "--force", &worker.id])?;
        case.forget(&worker.id);
    }
    // The clone itself.
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    count(address, 3)?;
    let promotion = case.stopped_at("promote:born", &["seed", "promote", &worker.id])?;
    let pids = case.seed_states()?;
    let named = seed_pid(case, NAME)?;
    let clone = pids.into_iter().find(|pid| *pid != named).context("there is no clone")?;
    kill(Pid::from_raw(clone), Signal::SIGKILL)?;
    resume(&promotion)?;
    promotion.finish()?.exited(1)?;
    ensure!(seed_pid(case, NAME)? == named && case.ask_follower()?["count"] == 1);
    count(address, 1)?;
    case.promote(&worker)?;
    ensure!(case.ask_follower()?["count"] == 4);
    Ok(())
}

fn a_promoted_seed_that_ends_is_followed_by_one_of_its_name(case: &mut Case) -> Result<()> {
    case.old_seed(&["--max-forks", "2"])?;
    let bundle = case.promotable(COUNTER)?;
    let (worker, address) = case.serve(&bundle)?;
    count(address, 5)?;
    case.promote(&worker)?;
    let promoted = seed_pid(case, NAME)?;
    for _ in 0..2 {
        ensure!(case.ask_follower()?["count"] == 5);
    }
    // It was due with the second one: the next is made as the name's seeds were before.
    let end = Instant::now() + wait::STEP;
    while seed_pid(case, NAME)? == promoted {
        ensure!(Instant::now() < end, "it is not replaced");
        thread::yield_now();
    }
    ensure!(case.ask_follower()?["count"] == -1);
    // One that is killed is, too, and one that is stopped.
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        case.promote(&worker)?;
        kill(Pid::from_raw(seed_pid(case, NAME)?), signal)?;
        ensure!(case.ask_follower()?["count"] == -1, "{signal}");
    }
    // A name that had no seed before has none afterwards, and says so.
    case.runtime.ok(&["seed", "stop", NAME])?;
    case.promote(&worker)?;
    kill(Pid::from_raw(seed_pid(case, NAME)?), Signal::SIGKILL)?;
    let bundle = case.follower()?;
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["seed next", "is not running"])?;
    case.promote(&worker)?;
    case.runtime.ok(&["start", &container.id]).map(drop)
}
