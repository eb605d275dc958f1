//! Forks a warm runtime many times and runs JavaScript in every child: JSON,
//! optimised code, garbage collection, timers, randomness.
//!
//! A program of its own (no harness): a fork needs a process with one thread.

use std::collections::HashSet;
use std::io::{Read, Write};

use aworker_rt::{Runtime, Script, V8Flags, WorkerOptions, initialize};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::process::exit_now;

const CHILDREN: usize = 100;

/// Private memory of a clone that has run a little: the goal for an idle worker.
const MAX_PRIVATE_KB: u64 = 2048;

/// What the seed runs: it uses what must differ in the clones, and leaves a timer.
const SEED: &str = "
    globalThis.seedRandom = Math.random();
    performance.timeOrigin;
    crypto.randomUUID();
    globalThis.sum = (n) => { let s = 0; for (let i = 0; i < n; i++) s += i % 7; return s; };
    sum(1e6);
    new Date().getHours();
    globalThis.lost = fetch('http://ADDRESS/').then(() => 'an answer', (error) => `${error.name} ${error.cause.code}`);
    // The fetch has begun when the seed settles.
    addEventListener('serialize', (event) => event.waitUntil(new Promise((resolve) => setTimeout(resolve, 50))));
    globalThis.fired = new Promise((resolve) => setTimeout(() => resolve('armed in the seed'), 20));
";

/// What every clone runs; its last line is the report.
const CLONE: &str = "
    if (JSON.parse(JSON.stringify({ a: [1, { b: 2 }] })).a[1].b !== 2) throw new Error('JSON');
    if (sum(1e6) !== 2999997) throw new Error('sum: ' + sum(1e6));
    const optimised = Function('n', 'let s = 0; for (let i = 0; i < n; i++) s += Math.sqrt(i); return s');
    if (!(optimised(1e5) > 2e7)) throw new Error('new code');
    const report = [Math.random(), Math.random(), crypto.randomUUID(), performance.timeOrigin, await fired];
    if (await lost !== 'TypeError ECONNABORTED') throw new Error('the fetch of the seed: ' + await lost);
    const hour = new Date(0).getHours();
    if (hour !== 9) throw new Error('hour in Tokyo: ' + hour);
    console.assert(report[4] === 'armed in the seed');
    globalThis.report = report.join(' ');
";

const COLLECT: &str = "for (let i = 0; i < 200; i++) new Array(10000).fill(i).map(String); globalThis.report";

fn main() {
    initialize(&V8Flags::default());
    let mut seed = Runtime::new();
    let started = std::time::Instant::now();
    seed.warm_up().expect("the built-ins work");
    println!("warm-up took {:?}", started.elapsed());
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = silent.local_addr().expect("an address").to_string();
    let script = SEED.replace("ADDRESS", &address);
    let descriptors = open_descriptors();
    seed.load(&Script::from_text("[seed]", &script)).expect("the seed's script runs");
    seed.fire_serialize().expect("nobody objects");
    seed.await_forks(turf_core::sys::program_pages::give_back).expect("rehearsal");
    assert!(seed.may_be_forked(), "no epoll instance exists");
    assert_eq!(open_descriptors(), descriptors, "what was in flight is closed");
    let mut request = String::new();
    silent.accept().expect("accepts").0.read_to_string(&mut request).expect("the request and its end");
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "the fetch had begun: {request:?}");
    let mut seed = Some(seed);
    assert_eq!(forbidden_mappings(), Vec::<String>::new(), "no mapping is kept from a fork");

    let mut seen = HashSet::new();
    for child in 0..CHILDREN {
        let report = in_a_clone(&mut seed);
        let words: Vec<&str> = report.split(' ').collect();
        let [first, second, uuid, origin, ..] = words[..] else { panic!("child {child} said {report:?}") };
        for value in [first, second, uuid, origin] {
            assert!(seen.insert(value.to_owned()), "child {child} repeats {value}");
        }
    }
    println!("{CHILDREN} clones ran, all different");

    let private: u64 = private_kb_of_a_clone(&mut seed);
    println!("private dirty memory of a clone after its first script: {private} kB");
    assert!(private <= MAX_PRIVATE_KB, "{private} kB");
}

/// What this process has open.
fn open_descriptors() -> Vec<String> {
    let directory = std::fs::read_dir("/proc/self/fd").expect("a directory");
    let links = directory.filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok());
    let mut links: Vec<String> = links.map(|link| link.display().to_string()).collect();
    links.sort();
    links
}

/// Runs the clone's script in a child and returns what it reports.
fn in_a_clone(seed: &mut Option<Runtime>) -> String {
    collect(seed, |worker| {
        worker.evaluate(&Script::from_text("clone.mjs", CLONE)).map_err(|error| error.to_string())?;
        let report =
            worker.evaluate(&Script::from_text("[collect]", COLLECT)).map_err(|error| error.to_string())?;
        report.ok_or("no report".to_owned())
    })
}

fn private_kb_of_a_clone(seed: &mut Option<Runtime>) -> u64 {
    let report = collect(seed, |worker| {
        worker
            .evaluate(&Script::from_text("[eval]", "JSON.stringify({ url: new URL('http://a/b').href })"))
            .map_err(|error| error.to_string())?;
        Ok(writable_private_kb().to_string())
    });
    report.parse().expect("a number of kB")
}

/// Private dirty memory in writable mappings. (Pages of a program file that was
/// just linked are dirty, too, but nobody's copy.)
fn writable_private_kb() -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut writable = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Private_Dirty:"), Some(kb)) if writable => {
                sum += kb.parse::<u64>().expect("a number of kB")
            }
            (Some(first), Some(permissions)) if !first.ends_with(':') => {
                writable = permissions.starts_with("rw")
            }
            _ => {}
        }
    }
    sum
}

/// Forks, lets the child become a worker and act, and returns what it wrote.
fn collect(
    seed: &mut Option<Runtime>,
    act: impl FnOnce(&mut aworker_rt::Worker) -> Result<String, String>,
) -> String {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    match fork().expect("forks") {
        Fork::Child => {
            let seed = seed.take().expect("the parent keeps its own");
            let environment = vec![("TZ".to_owned(), "Asia/Tokyo".to_owned())];
            let worker = seed
                .become_worker(WorkerOptions { environment, ..WorkerOptions::default() })
                .map_err(|error| error.to_string());
            let (text, status) = match worker.and_then(|mut worker| act(&mut worker)) {
                Ok(text) => (text, 0),
                Err(error) => (error, 1),
            };
            let _ = writer.write_all(text.as_bytes());
            exit_now(status);
        }
        Fork::Parent { pid } => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("the child writes UTF-8");
            let status = waitpid(Pid::from_raw(pid), None).expect("a child to wait for");
            assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 0), "{text}");
            text
        }
    }
}

/// Mappings marked MADV_DONTFORK (`dc` in smaps).
fn forbidden_mappings() -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let flags = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags: "));
    flags.filter(|flags| flags.split(' ').any(|flag| flag == "dc")).map(str::to_owned).collect()
}
