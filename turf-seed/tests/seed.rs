//! A real seed, forked into real namespaces: as root, with a pid 1 of the test's own in place of the container's init.
//!
//! The program runs itself again as that pid 1, which reaps and prints what it reaped.

mod support;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::{Sandbox, World, output_of, wait_for_end};
use turf_core::seed::client::SeedClient;
use turf_core::seed::protocol::{self, MAX_PACKET, Reaper, Reply, Report, Request};
use turf_core::seed::registry::SeedSource;
use turf_core::sys::pidfd::{pidfd_open, pidfd_send_signal};
use turf_core::sys::socket;

fn main() {
    if std::env::args().any(|argument| argument == "init") {
        return support::be_init();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make namespaces");
        return;
    }
    let only = std::env::args().nth(1);
    let tests: &[(&str, fn())] = &[
        ("javascript_runs_in_a_forked_worker", javascript_runs_in_a_forked_worker),
        ("a_worker_looks_like_a_process_of_its_own", a_worker_looks_like_a_process_of_its_own),
        ("a_missing_script_is_reported_in_the_words_engines_match", a_missing_script_is_reported),
        ("a_throw_at_load_comes_after_running", a_throw_at_load_comes_after_running),
        ("a_large_plan_travels_in_a_memfd", a_large_plan_travels_in_a_memfd),
        ("three_hundred_forks_leave_the_seed_as_it_was", many_forks_leave_the_seed_as_it_was),
        ("clones_share_no_randomness_name_key_or_time_and_leave_no_trace", clones_are_unique),
        ("a_dead_init_is_refused_and_the_seed_lives_on", a_dead_init_is_refused),
        ("packets_that_are_not_understood_are_refused_and_the_seed_lives_on", bad_packets_are_refused),
        ("thousands_of_garbage_packets_leave_the_seed_as_it_was", garbage_leaves_the_seed_as_it_was),
        ("a_silent_client_does_not_block_the_others_for_long", a_silent_client_does_not_block),
        ("a_client_that_is_gone_gets_no_worker", a_client_that_is_gone_gets_no_worker),
        ("a_relay_tells_init_how_the_worker_ended", a_relay_tells_init_how_the_worker_ended),
        ("a_relay_kills_the_worker_when_init_is_gone", a_relay_kills_the_worker_when_init_is_gone),
        ("a_userland_seed_starts_workers_at_deserialize", a_userland_seed_starts_at_deserialize),
        ("a_seed_of_a_snapshot_starts_workers_at_deserialize", a_seed_of_a_snapshot_starts_at_deserialize),
        ("a_seed_whose_script_throws_does_not_start", a_seed_whose_script_throws_does_not_start),
        ("two_racing_starts_give_one_seed", two_racing_starts_give_one_seed),
        ("a_killed_seed_is_replaced", a_killed_seed_is_replaced),
        ("a_stopped_seed_leaves_its_workers_alone", a_stopped_seed_leaves_its_workers_alone),
    ];
    for (name, test) in tests.iter().filter(|(name, _)| only.as_ref().is_none_or(|part| name.contains(part)))
    {
        test();
        println!("test {name} ... ok");
    }
}

fn javascript_runs_in_a_forked_worker() {
    let mut world = World::new();
    let script = world.script(
        "work.js",
        "let sum = 0;
         for (let i = 0; i < 2e6; i++) sum += i % 7;               // hot enough to be optimised
         const objects = [];
         for (let i = 0; i < 2e5; i++) objects.push({ i, text: 'x' + i });  // enough for collections
         console.log(JSON.stringify({ sum, last: objects[199999].text }));",
    );
    for _ in 0..5 {
        let (report, output) = world.run(&["aworker", &script], Reaper::Init);
        assert!(matches!(report, Report::Running(_)), "{report:?}");
        assert_eq!(output.trim_end(), r#"{"sum":5999995,"last":"x199999"}"#);
        assert!(world.sandbox.reaped().ends_with("exited 0"));
    }
}

fn a_worker_looks_like_a_process_of_its_own() {
    let mut world = World::new();
    let script = world.script("wait.js", "console.log('up'); setInterval(() => {}, 1000)");
    let mut worker = world.start(&["aworker", &script, "--flag"], Reaper::Init);
    assert!(matches!(worker.report, Report::Running(_)), "{:?}", worker.report);
    // User code comes after the last descriptor of the start has been closed.
    worker.output.read_exact(&mut [0; 3]).unwrap();
    let proc = format!("/proc/{}", world.sandbox.host_pid(worker.pid));
    let read = |file: &str| std::fs::read_to_string(format!("{proc}/{file}")).unwrap();
    assert_eq!(read("cmdline"), format!("aworker\0{script}\0--flag\0"));
    assert_eq!(read("environ"), "GREETING=hello\0PATH=/bin\0");
    assert_eq!(read("comm"), "aworker\n");
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let session: i32 = fields[3].parse().unwrap();
    assert_eq!(session, world.sandbox.host_pid(worker.pid), "leader of its own session");
    assert_eq!(world.sandbox.parent_of(worker.pid), world.sandbox.init_pid);
    let mut targets: Vec<String> = std::fs::read_dir(format!("{proc}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|target| target.split(':').next().unwrap().to_owned())
        .collect();
    targets.sort();
    // Standard input, output and error of the test, and what the event loop made for itself.
    let own = ["/dev/null", "pipe", "pipe"];
    let foreign: Vec<&String> = targets
        .iter()
        .filter(|target| !own.contains(&target.as_str()) && !target.starts_with("anon_inode"))
        .collect();
    assert!(foreign.is_empty(), "{targets:?}");
    world.sandbox.kill(worker.pid);
    assert!(world.sandbox.reaped().ends_with("killed 9"));
}

fn a_missing_script_is_reported() {
    let mut world = World::new();
    let (report, _) = world.run(&["aworker", "/app/worker.js"], Reaper::Init);
    let Report::Failed(refusal) = report else { panic!("{report:?}") };
    assert_eq!(refusal.text, "open /app/worker.js: no such file or directory");
    assert!(world.sandbox.reaped().ends_with("exited 1"));
}

fn a_throw_at_load_comes_after_running() {
    let mut world = World::new();
    let script = world.script("throw.js", "\nthrow new Error('on purpose');");
    let (report, output) = world.run(&["aworker", &script], Reaper::Init);
    assert!(matches!(report, Report::Running(_)), "{report:?}");
    assert!(output.contains("Error: on purpose") && output.contains("throw.js:2"), "{output}");
    assert!(world.sandbox.reaped().ends_with("exited 1"));
}

fn a_large_plan_travels_in_a_memfd() {
    let mut world = World::new();
    let script = world.script("args.js", "console.log('ran')");
    let long = "x".repeat(100_000);
    let (report, output) = world.run(&["aworker", &script, &long], Reaper::Init);
    assert!(matches!(report, Report::Running(_)), "{report:?}");
    assert_eq!(output.trim_end(), "ran");
}

fn many_forks_leave_the_seed_as_it_was() {
    let mut world = World::new();
    let script = world.script("one.js", "console.log(1)");
    let pid = world.seeds.stat().pid;
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let (fds_before, forks_before) = (fds(), world.seeds.stat().forks);
    let mut timelines = Vec::new();
    for _ in 0..300 {
        let (report, _) = world.run(&["aworker", &script], Reaper::Init);
        let Report::Running(timeline) = report else { panic!("{report:?}") };
        timelines.push(timeline);
        assert!(world.sandbox.reaped().ends_with("exited 0"));
    }
    assert_eq!((children().as_str(), world.seeds.stat().forks), ("", forks_before + 300));
    // The connection of the last question may be open still, then and before.
    assert!(fds() <= fds_before + 1, "{} descriptors, then {}", fds_before, fds());
    let median = |part: fn(&protocol::Timeline) -> u64| {
        let mut parts: Vec<u64> = timelines.iter().map(part).collect();
        parts.sort();
        (parts[0] / 1000, parts[150] / 1000)
    };
    println!("microseconds, min and p50 of 300, from the fork call:");
    println!("  check before it   {:?}", median(|t| t.fork_called_ns - t.requested_ns));
    println!("  worker's entry    {:?}", median(|t| t.worker_entered_ns - t.fork_called_ns));
    println!("  plan applied      {:?}", median(|t| t.plan_applied_ns - t.fork_called_ns));
    println!("  JavaScript has run {:?}", median(|t| t.javascript_ns - t.fork_called_ns));
}

/// Prints everything that must differ between clones, one per line; the time of its beginning first.
const UNIQUE: &str = "
const key = async (algorithm) => {
  const made = await crypto.subtle.generateKey(algorithm, true, ['sign']);
  return new Uint8Array(await crypto.subtle.exportKey('raw', made)).toHex();
};
const form = new FormData();
form.append('a', 'b');
(async () => console.log([
  performance.timeOrigin, Math.random(), Math.random(), crypto.randomUUID(),
  crypto.getRandomValues(new Uint8Array(16)).toHex(), URL.createObjectURL(new Blob(['x'])),
  new Response(form).headers.get('content-type'), await key({ name: 'HMAC', hash: 'SHA-256' }),
].join('\\n')))();
";

/// As many clones as the environment asks for (`TURF_CLONES`); 10,000 take some minutes.
fn clones_are_unique() {
    let count: usize = std::env::var("TURF_CLONES").map_or(300, |text| text.parse().unwrap());
    let mut world = World::new();
    let script = world.script("unique.js", UNIQUE);
    // What is allocated once is allocated by these.
    for _ in 0..50 {
        world.run(&["aworker", &script], Reaper::Init);
        world.sandbox.reaped();
    }
    let before = world.seeds.stat();
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", before.pid)).unwrap().count();
    let fds_before = fds();
    let (mut seen, mut last_origin) = (std::collections::HashSet::new(), 0.0);
    for clone in 0..count {
        let (report, output) = world.run(&["aworker", &script], Reaper::Init);
        assert!(matches!(report, Report::Running(_)), "{report:?}");
        let lines: Vec<&str> = output.trim_end().lines().collect();
        assert_eq!(lines.len(), 8, "clone {clone}: {output}");
        for line in &lines {
            assert!(seen.insert((*line).to_owned()), "clone {clone}: {line} came before");
        }
        let origin: f64 = lines[0].parse().unwrap();
        assert!(
            origin > last_origin,
            "clone {clone}: its time begins at {origin}, the last one's at {last_origin}"
        );
        last_origin = origin;
        assert!(world.sandbox.reaped().ends_with("exited 0"));
    }
    let after = world.seeds.stat();
    assert_eq!((after.pid, after.forks, after.refusals), (before.pid, before.forks + count as u64, 0));
    assert!(fds() <= fds_before + 1, "{} descriptors, then {}", fds_before, fds());
    let growth = after.rss_bytes.saturating_sub(before.rss_bytes);
    assert!(growth <= 1 << 20, "{} bytes, then {}", before.rss_bytes, after.rss_bytes);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", before.pid)).unwrap();
    assert_eq!(children, "", "the seed has children");
    println!("{count} clones: {} values, no two alike; the seed grew by {growth} bytes", seen.len());
}

fn a_dead_init_is_refused() {
    let mut world = World::new();
    let script = world.script("x.js", "1");
    world.sandbox.end();
    let error = world.try_fork(&["aworker", &script], Reaper::Init).unwrap_err().to_string();
    assert_eq!(error, "enter the namespaces of the container's init: no such process");
    assert_eq!(world.seeds.stat().refusals, 1);
}

fn bad_packets_are_refused() {
    let world = World::new();
    let stat = protocol::encode(&Request::Stat).unwrap();
    let mut newer = stat.clone();
    newer[4] = 9;
    let null = std::fs::File::open("/dev/null").unwrap();
    let cases: [(&[u8], usize, &str); 5] = [
        (b"GET / HTTP/1.1", 0, "not a packet of the seed protocol"),
        (&newer, 0, "the peer speaks version 9 of the seed protocol, this program version 4"),
        (&stat[..stat.len() - 1], 0, "the packet's body is not a message of version 4"),
        (&[0; MAX_PACKET + 1], 0, "the packet is longer than 65536 bytes"),
        (&stat, 3, "the packet names 0 descriptors and carries 3"),
    ];
    for (packet, fds, expected) in cases {
        let connection = world.seeds.raw_connection();
        socket::send_packet(connection.as_fd(), packet, &vec![null.as_fd(); fds]).unwrap();
        let mut buffer = vec![0; MAX_PACKET];
        let len = socket::recv_packet(connection.as_fd(), &mut buffer).unwrap().len;
        let Reply::Refused(refusal) = protocol::decode(&buffer[..len]).unwrap() else {
            panic!("not refused")
        };
        assert_eq!(refusal.text, expected);
    }
    assert_eq!(world.seeds.stat().refusals, cases.len() as u64);
}

fn garbage_leaves_the_seed_as_it_was() {
    let world = World::new();
    let before = world.seeds.stat();
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", before.pid)).unwrap().count();
    let fds_before = fds();
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let good = protocol::encode(&Request::Stat).unwrap();
    for round in 0..3000 {
        let connection = socket::seqpacket().unwrap();
        socket::connect_long(connection.as_fd(), &world.seeds.control()).unwrap();
        let mut packet = good[..random() % good.len()].to_vec();
        packet.extend((0..random() % 300).map(|_| random() as u8));
        // Surplus descriptors, up to the most that the kernel passes on.
        let count = if round % 4 == 0 { random() % 254 } else { 0 };
        // A client that goes without an answer is no end of the seed either.
        let _ = socket::send_packet(connection.as_fd(), &packet, &vec![null.as_fd(); count]);
    }
    let after = world.seeds.stat();
    assert_eq!((after.pid, after.forks), (before.pid, before.forks));
    assert!(after.refusals >= 2900, "{} packets were refused", after.refusals);
    assert!(fds() <= fds_before + 1, "{} descriptors, then {}", fds_before, fds());
    assert!(
        after.rss_bytes < before.rss_bytes + (1 << 20),
        "{} bytes, then {}",
        before.rss_bytes,
        after.rss_bytes
    );
}

fn a_silent_client_does_not_block() {
    let world = World::new();
    let silent = world.seeds.raw_connection();
    let asked = Instant::now();
    assert_eq!(world.seeds.stat().refusals, 1, "the silent client's time ran out");
    assert!(asked.elapsed() < Duration::from_secs(5));
    drop(silent);
}

fn a_client_that_is_gone_gets_no_worker() {
    let mut world = World::new();
    let script = world.script("x.js", "console.log('ran')");
    let seed = world.seeds.stat().pid;
    // Stopped, the seed finds the request when its sender has gone.
    let stop = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(seed), signal).unwrap();
    stop(nix::sys::signal::Signal::SIGSTOP);
    let output = world.send_and_go(&["aworker", &script]);
    stop(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(output_of(&mut { output }), "");
    assert_eq!((world.seeds.stat().forks, world.seeds.stat().refusals), (0, 1));
}

fn a_relay_tells_init_how_the_worker_ended() {
    let mut world = World::with_sandbox(Sandbox::without_pid_namespace());
    let script = world.script("exit.js", "console.log('in the same pid namespace'); throw 1");
    let mut worker = world.start(&["aworker", &script], Reaper::Relay);
    assert!(matches!(worker.report, Report::Running(_)), "{:?}", worker.report);
    assert!(output_of(&mut worker.output).contains("in the same pid namespace"));
    assert_eq!(worker.gate_messages(), [b"B".to_vec(), b"R".to_vec(), vec![b'E', 0, 1, 0, 0]]);
}

fn a_relay_kills_the_worker_when_init_is_gone() {
    let mut world = World::with_sandbox(Sandbox::without_pid_namespace());
    let script = world.script("forever.js", "setInterval(() => {}, 1000); console.log('up')");
    let mut worker = world.start(&["aworker", &script], Reaper::Relay);
    assert!(matches!(worker.report, Report::Running(_)), "{:?}", worker.report);
    worker.output.read_exact(&mut [0; 3]).unwrap();
    worker.close_gate();
    let mut rest = String::new();
    // The worker holds the other end of its output: the end of the file is the end of the worker.
    worker.output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

fn a_userland_seed_starts_at_deserialize() {
    let mut world = World::of_tenant();
    let script = world.script(
        "seed.js",
        "let state = 'loaded';
         addEventListener('serialize', () => { state += ', serialized' });
         addEventListener('deserialize', () => { console.log(state + ', deserialized') });",
    );
    world.seeds.start("mine", Some(Path::new(&script))).unwrap();
    for _ in 0..3 {
        let (report, output) = world.run(&["aworker", "/ignored.js"], Reaper::Init);
        assert!(matches!(report, Report::Running(_)), "{report:?}");
        assert_eq!(output.trim_end(), "loaded, serialized, deserialized");
    }
    assert_eq!(world.seeds.stat().script.as_deref(), Some(script.as_str()));
}

/// Builds a snapshot in a process of its own, as `aworker snapshot build` does.
fn build_snapshot(world: &World, source: &str) -> PathBuf {
    let script = world.script("seed.js", source);
    let snapshot = PathBuf::from(&script).with_file_name("app.snap");
    let status = aworker_rt::engine::in_child(Duration::from_secs(60), || {
        aworker_rt::initialize(&aworker_rt::V8Flags::default());
        let script = aworker_rt::Script::read(Path::new(&script)).unwrap();
        aworker_rt::build_snapshot(&script, None).unwrap().write(&snapshot).unwrap();
        0
    });
    assert!(status.unwrap().expect("it takes less than a minute").success());
    std::fs::remove_file(script).unwrap();
    snapshot
}

fn a_seed_of_a_snapshot_starts_at_deserialize() {
    let mut world = World::of_tenant();
    let snapshot = build_snapshot(
        &world,
        "let state = 'loaded';
         setTimeout(() => console.log(state + ', timer'), 30);
         addEventListener('serialize', () => { state += ', serialized' });
         addEventListener('deserialize', () => { state += ', deserialized'; console.log(state) });",
    );
    let source = SeedSource::Snapshot(snapshot.clone());
    world.seeds.start_from("mine", source).unwrap();
    for _ in 0..3 {
        let (report, output) = world.run(&["aworker", "/ignored.js"], Reaper::Init);
        assert!(matches!(report, Report::Running(_)), "{report:?}");
        let state = "loaded, serialized, deserialized";
        assert_eq!(output.trim_end(), format!("{state}\n{state}, timer"));
    }
    assert_eq!(world.seeds.stat().script, Some(snapshot.display().to_string()));

    let mut bytes = std::fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let error = world.seeds.start_from("bad", SeedSource::Snapshot(snapshot)).unwrap_err().to_string();
    assert!(error.contains("seed bad does not start: snapshot ") && error.contains("checksum"), "{error}");
}

fn a_seed_whose_script_throws_does_not_start() {
    let world = World::empty();
    let script = world.script("bad.js", "\nthrow new TypeError('no seed')");
    let error = world.seeds.start("bad", Some(Path::new(&script))).unwrap_err().to_string();
    assert!(error.contains("seed bad does not start") && error.contains("TypeError: no seed"), "{error}");
    assert!(error.contains("bad.js:2"), "{error}");
    assert!(world.seeds.registry.list().unwrap().iter().all(|seed| seed.stat.is_err()));
    let missing = world.seeds.start("bad", Some(Path::new("/nonexistent.js"))).unwrap_err().to_string();
    assert!(missing.contains("open /nonexistent.js: no such file or directory"), "{missing}");
}

fn two_racing_starts_give_one_seed() {
    let world = World::empty();
    let pids: Vec<i32> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..4).map(|_| scope.spawn(|| world.seeds.stat().pid)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

fn a_killed_seed_is_replaced() {
    let world = World::new();
    let first = world.seeds.stat().pid;
    let process = pidfd_open(first).unwrap();
    pidfd_send_signal(process.as_fd(), libc::SIGKILL).unwrap();
    wait_for_end(&process);
    let second = world.seeds.stat().pid;
    assert_ne!(first, second);
    let list = world.seeds.registry.list().unwrap();
    assert_eq!(list.iter().map(|seed| seed.state.pid).collect::<Vec<_>>(), [second]);
}

fn a_stopped_seed_leaves_its_workers_alone() {
    let mut world = World::new();
    let script = world.script("wait.js", "console.log('up'); setInterval(() => {}, 1000)");
    let worker = world.start(&["aworker", &script], Reaper::Init);
    assert!(matches!(worker.report, Report::Running(_)), "{:?}", worker.report);
    let seed = pidfd_open(world.seeds.stat().pid).unwrap();
    world.seeds.registry.stop(&world.seeds.name).unwrap();
    assert!(world.seeds.registry.list().unwrap().is_empty());
    assert!(SeedClient::connect(&world.seeds.control()).is_err());
    assert!(world.seeds.registry.stop(&world.seeds.name).is_err(), "it is not running any more");
    wait_for_end(&seed);
    world.sandbox.kill(worker.pid);
    assert!(world.sandbox.reaped().ends_with("killed 9"), "the worker lived until here");
}
