//! Seeds: what their clones share and what they must not, and that a thousand forks leave no trace.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::failure::seed_pid;
use super::worker::{HELLO, worker_of};
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "seed";
    Turf:
        the_default_seed_starts_once_on_first_use,
        seeds_are_started_listed_and_stopped_by_name,
        a_userland_seed_keeps_its_state_for_every_worker,
        a_seed_starts_from_a_bundle,
        a_seed_starts_from_a_snapshot,
        clones_of_a_seed_that_drew_random_numbers_draw_others,
        an_unknown_seed_fails_the_start,
        a_seed_holds_nothing_of_a_containers_environment,
        clones_that_leave_their_port_to_the_kernel_have_each_their_own,
        a_thousand_forks_are_unique_and_leak_nothing;
}

/// How many clones the long test makes.
const FORKS: usize = 1000;
/// How many clones come before the measurement begins, so that one-time allocations are over.
const SETTLING_FORKS: usize = 50;
/// How many clones listen at the same time.
const LISTENERS: usize = 40;
/// How much the seed's resident memory may grow over all forks, in kB: far less than one page per fork.
const MAX_GROWTH_KB: u64 = 1024;

/// Answers with everything that must differ between clones.
const UNIQUE: &str = "\
const random = Math.random();
const uuid = crypto.randomUUID();
const bytes = Array.from(crypto.getRandomValues(new Uint8Array(16))).join();
addEventListener('fetch', (event) => event.respondWith(new Response(JSON.stringify({
  random, uuid, bytes, later: Math.random(), origin: performance.timeOrigin, now: performance.now(), date: Date.now(),
}))));
";

fn the_default_seed_starts_once_on_first_use(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (first, _) = case.serve(&bundle)?;
    let seed = seed_pid(case, "default")?;
    let (second, _) = case.serve(&bundle)?;
    ensure!(seed_pid(case, "default")? == seed, "a second seed was started");
    ensure!(host::children_of(seed).is_empty(), "the seed has children");
    case.remove(&first)?;
    case.remove(&second)
}

fn seeds_are_started_listed_and_stopped_by_name(case: &mut Case) -> Result<()> {
    case.runtime.ok(&["seed", "start", "one"])?;
    case.runtime.ok(&["seed", "start", "two"])?;
    case.runtime.refused(&["seed", "start", "one"], &["one"])?;
    let pid = seed_pid(case, "one")?.to_string();
    let listed = case.runtime.ok(&["seed", "list"])?;
    let line = listed.lines().into_iter().find(|line| line.contains("one")).unwrap_or_default();
    ensure!(line.contains(&pid) && listed.stdout.contains("two"), "{listed}");
    case.runtime.ok(&["seed", "stop", "one"])?;
    case.runtime.refused(&["seed", "stop", "one"], &["one"])?;
    let listed = case.runtime.ok(&["seed", "list"])?;
    ensure!(!listed.stdout.contains("one") && listed.stdout.contains("two"), "{listed}");
    Ok(())
}

/// Starts a seed with a script; a bundle whose workers are forked from it.
fn userland_seed(case: &mut Case, source: &str) -> Result<Bundle> {
    let script = case.directory().join("seed.js");
    fs::write(&script, source)?;
    case.runtime.ok(&["seed", "start", "mine", "--script", text(&script)?])?;
    let mut bundle = case.worker(source)?;
    bundle.set("/annotations", json!({"io.turf.seed": "mine"}));
    Ok(bundle)
}

fn a_userland_seed_keeps_its_state_for_every_worker(case: &mut Case) -> Result<()> {
    let bundle = userland_seed(
        case,
        "const events = ['load'];
         const drawn = Math.random();
         let later = 'not yet';
         addEventListener('serialize', (event) => {
           events.push('serialize');
           event.waitUntil(new Promise((done) => setTimeout(() => { later = 'waited'; done(); }, 5)));
         });
         addEventListener('deserialize', () => events.push('deserialize'));
         addEventListener('fetch', (event) => event.respondWith(new Response(JSON.stringify({ events, drawn, later }))));\n",
    )?;
    let mut drawn = HashSet::new();
    for _ in 0..2 {
        let (container, address) = case.serve(&bundle)?;
        let answer: Value = serde_json::from_slice(&http::get(address, "/")?.body)?;
        ensure!(answer["events"] == json!(["load", "serialize", "deserialize"]), "{answer}");
        ensure!(answer["later"] == "waited", "waitUntil was not waited for: {answer}");
        drawn.insert(answer["drawn"].to_string());
        case.remove(&container)?;
    }
    ensure!(drawn.len() == 1, "the script ran again in a worker: {drawn:?}");
    Ok(())
}

fn a_seed_starts_from_a_bundle(case: &mut Case) -> Result<()> {
    let source = "const drawn = Math.random();
         addEventListener('fetch', (event) => event.respondWith(new Response(String(drawn))));\n";
    let mut bundle = case.worker(source)?;
    bundle.set("/annotations", json!({"io.turf.seed": "bundled"})).write()?;
    case.runtime.ok(&["seed", "start", "--bundle", text(&bundle.path)?, "bundled"])?;
    let mut answers = HashSet::new();
    for _ in 0..2 {
        let (container, address) = case.serve(&bundle)?;
        answers.insert(http::get(address, "/")?.text()?.to_owned());
        case.remove(&container)?;
    }
    ensure!(answers.len() == 1, "the script ran again in a worker: {answers:?}");
    let program = case.shell("exit 0")?;
    program.write()?;
    let words = ["$.process.args", "worker"];
    case.runtime.refused(&["seed", "start", "--bundle", text(&program.path)?, "other"], &words).map(drop)
}

fn a_seed_starts_from_a_snapshot(case: &mut Case) -> Result<()> {
    let source = "const drawn = Math.random();
         const events = ['load'];
         for (const type of ['serialize', 'deserialize', 'install']) addEventListener(type, () => events.push(type));
         export default { fetch: () => Response.json({ drawn, events, later: Math.random() }) };\n";
    let script = case.directory().join("seed.mjs");
    let snapshot = case.directory().join("seed.snap");
    fs::write(&script, source)?;
    let aworker = case.runtime.program().with_file_name("aworker");
    let built =
        Command::new(&aworker).args(["snapshot", "build"]).arg(&script).arg("-o").arg(&snapshot).status();
    ensure!(built.with_context(|| format!("run {}", aworker.display()))?.success(), "no snapshot was built");
    fs::remove_file(&script)?;
    case.runtime.ok(&["seed", "start", "mine", "--snapshot", text(&snapshot)?])?;
    let mut bundle = case.worker(source)?;
    bundle.set("/annotations", json!({"io.turf.seed": "mine"}));
    let (mut drawn, mut later) = (HashSet::new(), HashSet::new());
    for _ in 0..2 {
        let (container, address) = case.serve(&bundle)?;
        let answer: Value = serde_json::from_slice(&http::get(address, "/")?.body)?;
        ensure!(answer["events"] == json!(["load", "serialize", "deserialize", "install"]), "{answer}");
        drawn.insert(answer["drawn"].to_string());
        later.insert(answer["later"].to_string());
        case.remove(&container)?;
    }
    ensure!(drawn.len() == 1, "the program ran again: {drawn:?}");
    ensure!(later.len() == 2, "two workers drew the same random number");
    let arguments = ["seed", "start", "other", "--snapshot", text(&aworker)?];
    case.runtime.refused(&arguments, &["no snapshot of Aworker"]).map(drop)
}

fn clones_of_a_seed_that_drew_random_numbers_draw_others(case: &mut Case) -> Result<()> {
    let bundle = userland_seed(
        case,
        "for (let i = 0; i < 100; i++) { Math.random(); crypto.randomUUID(); }
         addEventListener('fetch', (event) => event.respondWith(new Response(
           JSON.stringify([Math.random(), crypto.randomUUID(), performance.timeOrigin]))));\n",
    )?;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let (container, address) = case.serve(&bundle)?;
        let answer: Vec<Value> = serde_json::from_slice(&http::get(address, "/")?.body)?;
        ensure!(answer.len() == 3, "{answer:?}");
        for value in answer {
            ensure!(seen.insert(value.to_string()), "{value} came twice");
        }
        case.remove(&container)?;
    }
    Ok(())
}

fn an_unknown_seed_fails_the_start(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/annotations", json!({"io.turf.seed": "nobody"}));
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["nobody"])?;
    ensure!(
        case.runtime.status(&container.id)? == "created",
        "the container can be started once the seed is there"
    );
    case.runtime.ok(&["seed", "start", "nobody"])?;
    case.runtime.ok(&["start", &container.id])?;
    case.remove(&container)
}

/// What one clone says about itself, and the pid of its init.
fn one_clone(case: &mut Case, bundle: &Bundle, number: usize, address: SocketAddr) -> Result<(Value, i32)> {
    let id = case.id(&format!("clone{number}"));
    let pid_file = case.directory().join("pid");
    let (listen, path) = (format!("tcp://{address}"), text(&bundle.path)?);
    let arguments =
        ["run", "--detach", "--listen", &listen, "--bundle", path, "--pid-file", text(&pid_file)?, &id];
    case.runtime.ok(&arguments)?;
    let answer = serde_json::from_slice(&http::get(address, "/")?.body).context("parse a clone's answer")?;
    let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
    case.runtime.ok(&["delete", "--force", &id])?;
    case.forget(&id);
    Ok((answer, pid))
}

fn a_seed_holds_nothing_of_a_containers_environment(case: &mut Case) -> Result<()> {
    // Not in one piece in this program's text, and too long to be elsewhere by chance.
    let secret = format!("{}-{}", "password of one container", std::process::id());
    let mut bundle = case.worker(UNIQUE)?;
    bundle.set("/process/env", json!(["PATH=/bin", format!("SECRET={secret}")]));
    bundle.write()?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let (container, address) = case.serve(&bundle)?;
    // It has read its plan.
    http::get(address, "/")?;
    let state: Value = serde_json::from_str(&case.runtime.ok(&["state", &container.id])?.stdout)?;
    let init = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("no pid")?;
    let worker = *host::children_of(init).first().context("init has no worker")?;
    ensure!(host::memory_contains(worker, secret.as_bytes())?, "the search finds nothing");
    ensure!(
        !host::memory_contains(seed, secret.as_bytes())?,
        "the next container's worker would have it, too"
    );
    case.remove(&container)
}

/// The address at which a process listens on TCP, once it does (proc_pid_net(5): inodes of its sockets, in state LISTEN).
fn listening_address(pid: i32) -> Result<SocketAddr> {
    const LISTEN: &str = "0A";
    let end = Instant::now() + wait::STEP;
    loop {
        let mut inodes = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
            inodes.extend(inode.map(str::to_owned));
        }
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let ports: Vec<&str> = rows
            .filter(|row| {
                row.get(3) == Some(&LISTEN) && row.get(9).is_some_and(|inode| inodes.contains(*inode))
            })
            .filter_map(|row| row.get(1)?.split_once(':').map(|(_, port)| port))
            .collect();
        if let [port] = ports[..] {
            return Ok(SocketAddr::from(([127, 0, 0, 1], u16::from_str_radix(port, 16)?)));
        }
        ensure!(ports.is_empty() && Instant::now() < end, "process {pid} listens at {ports:?}");
        std::thread::yield_now();
    }
}

fn clones_that_leave_their_port_to_the_kernel_have_each_their_own(case: &mut Case) -> Result<()> {
    let mut by_annotation = case.worker(UNIQUE)?;
    by_annotation.set("/annotations", json!({"io.turf.listen": "tcp://127.0.0.1:0"}));
    let mut by_environment = case.worker(UNIQUE)?;
    by_environment.set("/process/env", json!(["PORT=0"]));
    let (mut clones, mut seen) = (Vec::new(), HashSet::new());
    for bundle in [&mut by_annotation, &mut by_environment] {
        // Their ports are the host's, where they are compared.
        bundle.without_namespace("network").write()?;
        for _ in 0..LISTENERS / 2 {
            let container = case.start(bundle)?;
            let address = listening_address(worker_of(&container)?)?;
            ensure!(seen.insert(address.to_string()), "a second clone listens at {address}");
            clones.push((container, address));
        }
    }
    for (container, address) in &clones {
        let ask = || -> Result<String> {
            let answer: Value = serde_json::from_str(http::get(*address, "/")?.text()?)?;
            Ok(answer["uuid"].to_string())
        };
        let uuid = ask()?;
        ensure!(ask()? == uuid, "more than one clone accepts at {address}");
        ensure!(seen.insert(uuid), "the clone at {address} is another's, too");
        case.remove(container)?;
    }
    Ok(())
}

fn a_thousand_forks_are_unique_and_leak_nothing(case: &mut Case) -> Result<()> {
    let bundle = case.worker(UNIQUE)?;
    bundle.write()?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let (mut seen, mut origins, mut before) = (HashSet::new(), HashSet::new(), None);
    for number in 0..FORKS {
        if number == SETTLING_FORKS {
            before = Some((host::open_fds(seed)?, host::kilobytes(seed, "status", "VmRSS")?));
        }
        let address = http::free_address()?;
        let (answer, pid) = one_clone(case, &bundle, number, address)?;
        for name in ["random", "later", "uuid", "bytes"] {
            ensure!(
                seen.insert(format!("{name} {}", answer[name])),
                "clone {number}: {name} repeats: {answer}"
            );
        }
        ensure!(seen.insert(format!("pid {pid}")), "clone {number}: pid {pid} repeats");
        origins.insert(answer["origin"].to_string());
        wait::child(pid, wait::STEP).with_context(|| format!("init of clone {number}"))?;
        let age = answer["date"].as_f64().unwrap_or_default() - answer["origin"].as_f64().unwrap_or_default();
        // Date.now() counts whole milliseconds, the origin has fractions.
        ensure!((-1.0..10_000.0).contains(&age), "clone {number} believes to be {age} ms old: {answer}");
    }
    ensure!(origins.len() == FORKS, "only {} different time origins", origins.len());
    ensure!(seed_pid(case, "default")? == seed, "the seed was replaced on the way");
    let (fds, memory) = before.context("no measurement")?;
    let (fds_after, memory_after) = (host::open_fds(seed)?, host::kilobytes(seed, "status", "VmRSS")?);
    ensure!(fds_after == fds, "the seed had {fds} descriptors and has {fds_after}");
    ensure!(memory_after <= memory + MAX_GROWTH_KB, "the seed grew from {memory} kB to {memory_after} kB");
    ensure!(host::children_of(seed).is_empty(), "the seed has children");
    Ok(())
}
