//! Pools: from zero to many and back, every way to share a port, every way to die, and no request lost.

use std::collections::HashMap;
use std::fs;
use std::io::PipeReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::case::{Case, text};
use crate::http::{self, Client};
use crate::runtime::Running;
use crate::suite::tests;
use crate::{host, wait};

tests! { "pool";
    Turf:
        a_pool_serves_from_zero_and_goes_back_to_zero,
        waiting_requests_grow_a_pool_to_its_maximum,
        eight_requests_reach_eight_workers_in_order,
        many_connections_to_a_shared_socket_are_spread,
        one_socket_for_each_slot_loses_nothing_when_the_pool_shrinks,
        a_disposable_worker_serves_one_request,
        what_is_above_the_queue_is_refused_quickly,
        a_reload_under_load_loses_no_request,
        a_reload_to_a_broken_script_keeps_the_old_one,
        scaling_under_load_loses_no_request,
        a_warm_pool_has_its_seeds_state_in_every_worker,
        a_warm_pools_seed_is_replaced_after_its_forks,
        a_typed_script_is_served_by_a_pool_and_by_a_warm_one,
        a_pool_over_a_userland_seed_has_its_state_in_every_worker,
        worker_limits_are_those_of_the_flags,
        a_pool_on_a_unix_socket_serves,
        a_pool_serves_sockets_that_were_handed_in,
        a_drained_pool_answers_what_has_reached_it,
        a_second_pool_of_the_same_name_and_bad_flags_are_refused;
}

/// What most pools serve.
pub const SCRIPT: &str = "\
let served = 0;
const me = crypto.randomUUID();
addEventListener('fetch', (event) => {
  const path = new URL(event.request.url).pathname;
  served += 1;
  if (path === '/me') return event.respondWith(new Response(me));
  if (path === '/spin') for (;;);
  if (path === '/late') setTimeout(() => { throw new Error('too late'); }, 0);
  if (path === '/heap') { const all = []; for (;;) all.push(new Array(100000).fill(1.5)); }
  if (path === '/hold') return event.respondWith(new Promise(() => {}));
  if (path === '/slow') return event.respondWith(new Promise((done) =>
    setTimeout(() => done(new Response(me)), 200)));
  event.respondWith(new Response(`VERSION ${served}`));
});
";

/// A pool in the background, and a follower of its events.
pub struct Pool {
    name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its script's file.
    pub script: PathBuf,
    events: PipeReader,
    follower: Running,
    seen: Vec<Value>,
}

impl Pool {
    /// Writes the script and starts a pool of it in the background.
    pub fn start(case: &mut Case, script: &str, flags: &[&str]) -> Result<Pool> {
        let name = case.id("pool");
        case.forget(&name);
        let directory = case.bundle_path();
        fs::create_dir_all(&directory)?;
        let path = directory.join("app.js");
        fs::write(&path, script.replace("VERSION", "one"))?;
        let address = http::free_address()?;
        Pool::run(case, &name, &path, address, flags)
    }

    /// Starts a pool of this name in the background.
    pub fn run(
        case: &mut Case,
        name: &str,
        script: &std::path::Path,
        address: SocketAddr,
        flags: &[&str],
    ) -> Result<Pool> {
        let listen = address.to_string();
        let arguments = ["pool", "run", text(script)?, "--name", name, "--listen", &listen, "--detach"];
        case.runtime.ok(&[&arguments[..], flags].concat())?;
        let (events, writer) = std::io::pipe().context("make a pipe")?;
        let follower =
            case.runtime.spawn_with(&["pool", "events", "--follow", name], None, Some(writer.into()))?;
        Ok(Pool {
            name: name.to_owned(),
            address,
            script: script.to_owned(),
            events,
            follower,
            seen: Vec::new(),
        })
    }

    /// Reads the events from here on and throws them away: a follower that does not read is hung up on.
    pub fn ignore_events(&self) -> Result<()> {
        let mut events = self.events.try_clone().context("duplicate a pipe")?;
        thread::spawn(move || std::io::copy(&mut events, &mut std::io::sink()));
        Ok(())
    }

    /// The next event for which `wanted` holds; those before it are kept as seen.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + wait::STEP;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = wait::line(&mut self.events, left)
                .with_context(|| format!("no event {what} after {:#?}", self.seen))?;
            let event: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            self.seen.push(event.clone());
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// The next event of this name.
    pub fn wait_for_event(&mut self, name: &str) -> Result<Value> {
        self.wait_for(name, |event| event["event"] == name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its script's path.
    pub fn script(&self) -> &std::path::Path {
        &self.script
    }

    /// The events that have been read.
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Waits for the end of the one who follows the events: the supervisor has gone, perhaps in the middle of a line.
    pub fn finish_follower(self) -> Result<()> {
        self.follower.finish().map(drop)
    }

    /// What `turf pool status` says.
    pub fn status(&self, case: &mut Case) -> Result<Value> {
        let printed = case.runtime.ok(&["pool", "status", "--format", "json", &self.name])?.stdout;
        Ok(serde_json::from_str(&printed)?)
    }

    /// Its workers, as the status has them.
    pub fn workers(&self, case: &mut Case) -> Result<Vec<Value>> {
        let status = self.status(case)?;
        status["workers"].as_array().cloned().context("the status has no workers")
    }

    /// Ends the pool, and the follower of its events with it; nothing may be left.
    pub fn drain(self, case: &mut Case) -> Result<()> {
        case.runtime.ok(&["pool", "drain", &self.name])?;
        self.follower.finish()?.success()?;
        let listed = case.runtime.ok(&["list", "--quiet"])?;
        ensure!(listed.stdout.trim().is_empty(), "containers are left: {listed}");
        case.runtime.ok(&["pool", "rm", &self.name]).map(drop)
    }
}

/// Clients that ask again and again on kept connections, until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// What the first client that failed says.
    failure: Arc<Mutex<Option<String>>>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins with so many clients.
    pub fn on(address: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let failure = Arc::new(Mutex::new(None));
        let clients = (0..clients)
            .map(|_| {
                let (stop, answered, failure) =
                    (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failure));
                thread::spawn(move || {
                    let result = Load::ask(address, &stop, &answered);
                    if let (Err(error), Ok(mut failure)) = (&result, failure.lock()) {
                        failure.get_or_insert_with(|| format!("{error:?}"));
                    }
                    result
                })
            })
            .collect();
        Load { stop, answered, failure, clients }
    }

    fn ask(address: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Result<()> {
        let mut client = Client::connect(address)?;
        let mut on_this = 0;
        while !stop.load(Ordering::Relaxed) {
            let response =
                client.get("/load").with_context(|| format!("after {on_this} answers on the connection"))?;
            ensure!(response.status == 200, "{response:?}");
            answered.fetch_add(1, Ordering::Relaxed);
            on_this += 1;
            // The server may end a connection, if it says so.
            if response.header("connection") == Some("close") {
                (client, on_this) = (Client::connect(address)?, 0);
            }
        }
        Ok(())
    }

    /// Waits until `count` further requests were answered.
    pub fn wait_for_answers(&self, count: u64) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        let end = Instant::now() + wait::STEP;
        while self.answered.load(Ordering::Relaxed) < goal {
            ensure!(Instant::now() < end, "the clients get no answers");
            if let Ok(failure) = self.failure.lock()
                && let Some(failure) = &*failure
            {
                bail!("a client has failed: {failure}");
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// Ends the clients; an error if one request was not answered with 200.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

fn a_pool_serves_from_zero_and_goes_back_to_zero(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--idle-timeout", "300ms", "--max", "2"])?;
    ensure!(pool.workers(case)?.is_empty(), "a worker before the first connection");
    for _ in 0..2 {
        ensure!(http::get(pool.address, "/")?.text()? == "one 1");
        pool.wait_for_event("ready")?;
        let exit = pool.wait_for_event("exit")?;
        ensure!(exit["reason"] == "idle" && exit["status"] == 0 && exit["requests"] == 1, "{exit}");
    }
    ensure!(pool.workers(case)?.is_empty());
    pool.drain(case)
}

fn waiting_requests_grow_a_pool_to_its_maximum(case: &mut Case) -> Result<()> {
    let pool = Pool::start(case, SCRIPT, &["--max", "4", "--concurrency", "1"])?;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = pool.address;
            thread::spawn(move || -> Result<String> {
                let response = http::get(address, "/slow")?;
                ensure!(response.status == 200, "{response:?}");
                Ok(response.text()?.to_owned())
            })
        })
        .collect();
    let mut workers = Vec::new();
    for client in clients {
        workers.push(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    workers.sort();
    workers.dedup();
    ensure!(workers.len() > 1 && workers.len() <= 4, "{} workers answered", workers.len());
    let listed = case.runtime.ok(&["list", "--quiet"])?;
    ensure!(listed.lines().iter().all(|id| id.starts_with(&pool.name)), "{listed}");
    pool.drain(case)
}

fn eight_requests_reach_eight_workers_in_order(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--dispatch", "rr", "--min", "8", "--max", "8"])?;
    for _ in 0..8 {
        pool.wait_for_event("ready")?;
    }
    let ask = || -> Result<String> { Ok(http::get(pool.address, "/me")?.text()?.to_owned()) };
    let first: Vec<String> = (0..8).map(|_| ask()).collect::<Result<_>>()?;
    let second: Vec<String> = (0..8).map(|_| ask()).collect::<Result<_>>()?;
    ensure!(first == second, "another order: {first:?} {second:?}");
    let mut all = first;
    all.sort();
    all.dedup();
    ensure!(all.len() == 8, "{} workers answered", all.len());
    pool.drain(case)
}

fn many_connections_to_a_shared_socket_are_spread(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "2", "--max", "2"])?;
    for _ in 0..2 {
        pool.wait_for_event("ready")?;
    }
    let workers = pool.workers(case)?;
    let pids: Vec<i32> =
        workers.iter().filter_map(|worker| worker["worker_pid"].as_i64()?.try_into().ok()).collect();
    ensure!(pids.len() == 2, "{workers:?}");
    let mut clients = Vec::new();
    let mut spread = HashMap::new();
    for _ in 0..64 {
        // The kernel has its choice: whoever is first in the queue is awake for no other reason than the connection.
        pids.iter().try_for_each(|pid| wait_until_asleep(*pid))?;
        let mut client = Client::connect(pool.address)?;
        *spread.entry(client.get("/me")?.text()?.to_owned()).or_insert(0) += 1;
        clients.push(client);
    }
    drop(clients);
    pool.drain(case)?;
    ensure!(spread.len() == 2 && spread.values().all(|count| *count >= 24), "{spread:?}");
    Ok(())
}

/// A worker that sleeps waits for what its loop has to do.
fn wait_until_asleep(pid: i32) -> Result<()> {
    let end = Instant::now() + wait::STEP;
    loop {
        let state = host::field(pid, "status", "State")?;
        if state.starts_with('S') {
            return Ok(());
        }
        ensure!(Instant::now() < end, "worker {pid} does not come to rest: {state}");
        thread::yield_now();
    }
}

fn one_socket_for_each_slot_loses_nothing_when_the_pool_shrinks(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--dispatch", "reuseport", "--min", "4", "--max", "4"])?;
    for _ in 0..4 {
        pool.wait_for_event("ready")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (pool.address, Arc::clone(&stop));
    // A connection for each request: every one goes through a queue.
    let client = thread::spawn(move || -> Result<u64> {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            ensure!(http::get(address, "/")?.status == 200);
            count += 1;
        }
        Ok(count)
    });
    case.runtime.ok(&["pool", "scale", &pool.name, "--min", "1", "--max", "1"])?;
    for _ in 0..3 {
        pool.wait_for_event("exit")?;
    }
    stop.store(true, Ordering::Relaxed);
    let count = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    ensure!(count > 0);
    pool.drain(case)
}

fn a_disposable_worker_serves_one_request(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--disposable", "--max", "4", "--spare", "2"])?;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let response = http::get(pool.address, "/me")?;
        ensure!(response.header("connection") == Some("close"), "{response:?}");
        seen.push(response.text()?.to_owned());
        let exit = pool.wait_for_event("exit")?;
        ensure!(exit["requests"] == 1 && exit["expected"] == true, "{exit}");
    }
    seen.sort();
    seen.dedup();
    ensure!(seen.len() == 4, "a worker served twice");
    pool.drain(case)
}

fn what_is_above_the_queue_is_refused_quickly(case: &mut Case) -> Result<()> {
    let flags = ["--max", "1", "--concurrency", "1", "--max-queue", "2", "--timeout", "20s"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    let mut held = Client::connect(pool.address)?;
    held.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")?;
    pool.wait_for_event("ready")?;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(pool.address)?;
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        clients.push(client);
    }
    let begun = Instant::now();
    let mut refused = 0;
    for client in &mut clients {
        if !client.silent_for(Duration::from_millis(1500)) {
            let response = client.receive()?;
            ensure!(response.status == 503 && response.header("retry-after") == Some("1"), "{response:?}");
            refused += 1;
        }
        if refused == 3 {
            break;
        }
    }
    ensure!(refused >= 3, "{refused} of 6 were refused after {:?}", begun.elapsed());
    let event = pool.wait_for_event("refuse")?;
    ensure!(event["connections"].as_u64() > Some(0), "{event}");
    case.runtime.ok(&["pool", "stop", &pool.name])?;
    pool.follower.finish()?.success()?;
    case.runtime.ok(&["pool", "rm", &pool.name]).map(drop)
}

fn a_reload_under_load_loses_no_request(case: &mut Case) -> Result<()> {
    let pool = Pool::start(case, SCRIPT, &["--min", "2", "--max", "2"])?;
    let load = Load::on(pool.address, 4);
    load.wait_for_answers(50)?;
    for version in ["two", "three"] {
        fs::write(&pool.script, SCRIPT.replace("VERSION", version))?;
        case.runtime.ok(&["pool", "reload", &pool.name])?;
        load.wait_for_answers(50)?;
        let text = http::get(pool.address, "/")?.text()?.to_owned();
        ensure!(text.starts_with(version), "{text} after the reload to {version}");
    }
    load.finish()?;
    pool.drain(case)
}

fn a_reload_to_a_broken_script_keeps_the_old_one(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "2"])?;
    pool.wait_for_event("ready")?;
    let load = Load::on(pool.address, 2);
    fs::write(&pool.script, "throw new Error('broken');\n")?;
    case.runtime.refused(&["pool", "reload", &pool.name], &["reload failed"])?;
    load.wait_for_answers(50)?;
    load.finish()?;
    fs::write(&pool.script, SCRIPT.replace("VERSION", "mended"))?;
    case.runtime.ok(&["pool", "reload", &pool.name])?;
    ensure!(http::get(pool.address, "/")?.text()?.starts_with("mended"));
    pool.drain(case)
}

fn scaling_under_load_loses_no_request(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "4"])?;
    pool.wait_for_event("ready")?;
    let load = Load::on(pool.address, 4);
    for _ in 0..100 {
        for count in ["4", "1"] {
            case.runtime.ok(&["pool", "scale", &pool.name, "--min", count, "--max", count])?;
            // Reads the events meanwhile, so that the one who prints them never waits.
            pool.wait_for_event("scale")?;
            load.wait_for_answers(10)?;
        }
    }
    // The cycles were real: workers came and went.
    let status = pool.status(case)?;
    ensure!(status["exited"].as_u64() >= Some(100) && status["failed"] == 0, "{status:#}");
    load.finish()?;
    pool.drain(case)
}

fn a_warm_pool_has_its_seeds_state_in_every_worker(case: &mut Case) -> Result<()> {
    let script = "\
const state = 'VERSION ' + crypto.randomUUID();
addEventListener('fetch', (event) => event.respondWith(new Response(state)));
";
    let mut pool = Pool::start(case, script, &["--warm", "--dispatch", "rr", "--min", "3", "--max", "3"])?;
    for _ in 0..3 {
        pool.wait_for_event("ready")?;
    }
    let ask = |address| -> Result<String> { Ok(http::get(address, "/")?.text()?.to_owned()) };
    let first = ask(pool.address)?;
    for _ in 0..3 {
        ensure!(ask(pool.address)? == first, "the workers have states of their own");
    }
    fs::write(&pool.script, script.replace("VERSION", "two"))?;
    case.runtime.ok(&["pool", "reload", &pool.name])?;
    let second = ask(pool.address)?;
    ensure!(second.starts_with("two"), "{second}");
    pool.drain(case)?;
    let seeds = case.runtime.ok(&["seed", "list", "--quiet"])?;
    ensure!(!seeds.stdout.contains("pool-"), "a seed of the pool's own is left: {seeds}");
    Ok(())
}

fn a_warm_pools_seed_is_replaced_after_its_forks(case: &mut Case) -> Result<()> {
    let script = "\
const state = crypto.randomUUID();
addEventListener('fetch', (event) => event.respondWith(new Response(state)));
";
    let flags = ["--warm", "--max-forks", "2", "--min", "1", "--max", "1"];
    let mut pool = Pool::start(case, script, &flags)?;
    pool.wait_for_event("ready")?;
    let first = http::get(pool.address, "/")?.text()?.to_owned();
    let end = Instant::now() + wait::STEP;
    // A worker of another seed has other state; until that is made, the old one forks on.
    while http::get(pool.address, "/")?.text()? == first {
        ensure!(Instant::now() < end, "the seed is never replaced");
        let worker = pool.workers(case)?[0]["worker_pid"].as_i64().context("no worker")?;
        kill(Pid::from_raw(i32::try_from(worker)?), Signal::SIGKILL)?;
        pool.wait_for_event("exit")?;
        pool.wait_for_event("ready")?;
    }
    pool.drain(case)?;
    let seeds = case.runtime.ok(&["seed", "list", "--quiet"])?;
    ensure!(!seeds.stdout.contains("pool-"), "a seed of the pool's own is left: {seeds}");
    Ok(())
}

fn a_typed_script_is_served_by_a_pool_and_by_a_warm_one(case: &mut Case) -> Result<()> {
    let script = "\
type Answer = { served: number };
let answer: Answer = { served: 0 } satisfies Answer;
export default { fetch(request: Request): Response { answer!.served += 1; return Response.json(answer as Answer) } };
";
    let path = case.directory().join("app.ts");
    fs::write(&path, script)?;
    for flags in [&["--max", "1"][..], &["--warm", "--max", "1"]] {
        let name = case.id("pool");
        case.forget(&name);
        let pool = Pool::run(case, &name, &path, http::free_address()?, flags)?;
        for served in 1..=2 {
            let response = http::get(pool.address, "/")?;
            ensure!(response.text()? == format!("{{\"served\":{served}}}"), "{flags:?}: {response:?}");
        }
        pool.drain(case)?;
    }
    Ok(())
}

fn a_pool_over_a_userland_seed_has_its_state_in_every_worker(case: &mut Case) -> Result<()> {
    // What is costly is made once, by the seed: a table, a compiled function, and a secret that nobody makes twice.
    let script = "\
let table = [];
const made = crypto.randomUUID();
const square = new Function('x', 'return x * x');
addEventListener('serialize', (event) => event.waitUntil((async () => {
  for (let i = 0; i < 50000; i++) table.push(square(i));
})()));
addEventListener('fetch', (event) => event.respondWith(
  new Response(`${made} ${table.length} ${table[999]} ${square(12)} ${Aworker.pool.id}`)));
";
    let path = case.directory().join("seed.js");
    fs::write(&path, script)?;
    let seed = "table";
    case.runtime.ok(&["seed", "start", seed, "--script", text(&path)?])?;
    let flags = ["--seed", seed, "--dispatch", "rr", "--min", "3", "--max", "3"];
    let mut pool = Pool::start(case, script, &flags)?;
    for _ in 0..3 {
        pool.wait_for_event("ready")?;
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(http::get(pool.address, "/")?.text()?.to_owned());
    }
    let of_seed = |answer: &String| answer.rsplit_once(' ').map(|(state, _)| state.to_owned());
    let states: Vec<_> = answers.iter().filter_map(of_seed).collect();
    ensure!(states.iter().all(|state| *state == states[0]), "{answers:?}");
    ensure!(states[0].ends_with(" 50000 998001 144"), "{answers:?}");
    answers.sort();
    answers.dedup();
    ensure!(answers.len() == 3, "fewer than three workers: {answers:?}");
    pool.drain(case)?;
    case.runtime.ok(&["seed", "stop", seed]).map(drop)
}

fn worker_limits_are_those_of_the_flags(case: &mut Case) -> Result<()> {
    let flags = ["--min", "1", "--max", "1", "--memory", "80M", "--cpu", "0.5"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    pool.wait_for_event("ready")?;
    let worker = pool.workers(case)?[0]["worker_pid"].as_i64().context("no worker")?;
    let pid = i32::try_from(worker)?;
    let memory = host::cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(memory == (80u64 << 20).to_string(), "{memory}");
    let quota = host::cgroup_value(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(quota.starts_with("50000"), "{quota}");
    pool.drain(case)
}

fn a_pool_on_a_unix_socket_serves(case: &mut Case) -> Result<()> {
    use std::io::{Read, Write};
    let socket = case.directory().join("pool.sock");
    let address = format!("unix://{}", socket.display());
    let pool = Pool::start(case, SCRIPT, &["--listen", &address])?;
    let mut client = std::os::unix::net::UnixStream::connect(&socket)?;
    client.set_read_timeout(Some(wait::STEP))?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("one 1"), "{answer}");
    pool.drain(case)?;
    ensure!(!socket.exists(), "the socket's file is left");
    Ok(())
}

fn a_pool_serves_sockets_that_were_handed_in(case: &mut Case) -> Result<()> {
    let name = case.id("pool");
    case.forget(&name);
    let script = case.directory().join("app.js");
    fs::write(&script, SCRIPT.replace("VERSION", "one"))?;
    let address = http::free_address()?;
    // Opens the socket as descriptor 3, says so, and becomes turf.
    let activate = "import os, socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[3], sys.argv[3:])";
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    case.runtime.run_through(&["python3", "-c", activate, &ip, &port]);
    let running = case.runtime.spawn(&["pool", "run", text(&script)?, "--name", &name], None)?;
    case.runtime.run_through(&[]);
    // The socket answers as soon as it is there, the pool a little later.
    let end = Instant::now() + wait::STEP;
    while Client::connect(address).is_err() {
        ensure!(Instant::now() < end, "nobody listens");
    }
    ensure!(http::get(address, "/")?.text()? == "one 1");
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM)?;
    running.finish()?.success()?;
    case.runtime.ok(&["pool", "rm", &name]).map(drop)
}

fn a_drained_pool_answers_what_has_reached_it(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "1", "--concurrency", "1"])?;
    pool.wait_for_event("ready")?;
    // One request is at work, one waits in the worker's connection, one in the socket's queue.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(pool.address)?;
        client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")?;
        clients.push(client);
    }
    let answers: Vec<JoinHandle<Result<u16>>> =
        clients.into_iter().map(|mut client| thread::spawn(move || Ok(client.receive()?.status))).collect();
    pool.drain(case)?;
    for answer in answers {
        let status = answer.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(status == 200, "a request got {status}");
    }
    Ok(())
}

fn a_second_pool_of_the_same_name_and_bad_flags_are_refused(case: &mut Case) -> Result<()> {
    let pool = Pool::start(case, SCRIPT, &[])?;
    let script = text(&pool.script)?.to_owned();
    let run = ["pool", "run", &script, "--name", &pool.name, "--listen"];
    case.runtime.refused(&[&run[..], &["127.0.0.1:0"]].concat(), &["runs already"])?;
    let taken = pool.address.to_string();
    let other = ["pool", "run", &script, "--name", "other", "--listen", &taken];
    case.runtime.refused(&other, &["address already in use"])?;
    case.runtime.refused(&["pool", "run", &script], &["--listen"])?;
    case.runtime.refused(&["pool", "run", "/nowhere.js", "--listen", "127.0.0.1:0"], &["/nowhere.js"])?;
    case.runtime
        .refused(&[&other[..6], &["127.0.0.1:0", "--min", "3", "--max", "2"]].concat(), &["--min"])?;
    case.runtime.refused(&["pool", "status", "unknown"], &["does not run"])?;
    case.runtime.refused(&["pool", "rm", &pool.name], &["runs already"])?;
    pool.drain(case)
}
