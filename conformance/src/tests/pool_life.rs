//! Pools over time: what goes wrong in a script, a worker or the supervisor; what keeps a worker, and what is seen of it.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::failure::seed_pid;
use super::pool::{Load, Pool, SCRIPT};
use crate::case::{Case, text};
use crate::http::{self, Client};
use crate::suite::{Skip, tests};
use crate::{host, wait};

tests! { "pool";
    Turf:
        a_script_that_does_not_yield_is_interrupted_and_answered_with_504,
        a_slow_request_is_told_of_with_its_stack_or_as_waiting,
        a_slow_requests_stack_has_the_places_of_its_sources,
        each_kind_of_death_is_named_and_the_worker_replaced,
        a_script_that_cannot_start_ends_in_a_degraded_pool,
        a_supervisor_that_is_killed_is_replaced_and_no_request_is_lost,
        a_supervisor_that_is_killed_before_it_has_written_down_what_it_made_leaves_nothing_unknown,
        a_quiet_pool_is_not_woken,
        a_quiet_pool_gives_back_what_only_its_start_needed,
        a_worker_gives_back_what_a_burst_has_left_and_sleeps,
        a_watched_status_fits_its_terminal_and_is_plain_elsewhere,
        a_watched_status_follows_the_size_of_its_terminal,
        metrics_and_probes_are_on_the_control_socket,
        a_web_socket_keeps_its_worker_and_is_closed_after_a_grace,
        the_guides_systemd_units_are_valid;
}

fn a_script_that_does_not_yield_is_interrupted_and_answered_with_504(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--timeout", "300ms", "--max", "1"])?;
    let response = http::get(pool.address, "/spin")?;
    ensure!(response.status == 504, "{response:?}");
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "its script did not yield and was interrupted", "{exit}");
    ensure!(exit["last_words"].as_str().is_some_and(|words| words.contains("/spin")), "{exit}");
    ensure!(http::get(pool.address, "/")?.status == 200);
    // One that yields and never answers costs its worker nothing.
    let worker = http::get(pool.address, "/me")?.text()?.to_owned();
    ensure!(http::get(pool.address, "/hold")?.status == 504);
    ensure!(http::get(pool.address, "/me")?.text()? == worker, "the worker was replaced");
    pool.drain(case)
}

fn a_slow_request_is_told_of_with_its_stack_or_as_waiting(case: &mut Case) -> Result<()> {
    let script = "\
function busy(ms) {
  const end = Date.now() + ms;
  let count = 0;
  while (Date.now() < end) for (let i = 0; i < 10000; i++) count += inner(i);
  return count;
}
function inner(i) { return i % 7; }
addEventListener('fetch', (event) => {
  const path = new URL(event.request.url).pathname;
  if (path === '/busy') busy(1500);
  if (path === '/wait') return event.respondWith(new Promise((done) => setTimeout(() => done(new Response('late')), 500)));
  if (path === '/later') return event.respondWith(new Promise((done) => setTimeout(() => { busy(1500); done(new Response('later')); }, 1)));
  event.respondWith(new Response('quick'));
});
";
    let mut pool = Pool::start(case, script, &["--slow", "200ms", "--max", "1"])?;
    ensure!(http::get(pool.address, "/quick")?.text()? == "quick");
    let long = format!("/busy?{}", "x".repeat(2000));
    ensure!(http::get(pool.address, &long)?.text()? == "quick");
    let slow = pool.wait_for_event("slow")?;
    ensure!(slow["state"] == "running" && slow["ms"].as_u64() >= Some(200), "{slow}");
    let request = slow["request"].as_str().unwrap_or_default();
    ensure!(request.starts_with("GET /busy?xxx") && request.len() <= 510, "{slow}");
    let stack = slow["stack"].as_str().unwrap_or_default();
    ensure!(stack.contains("at busy (/app/app.js:") && !stack.contains("aworker:"), "{slow}");
    // One that waits for something.
    ensure!(http::get(pool.address, "/wait")?.text()? == "late");
    let slow = pool.wait_for_event("slow")?;
    ensure!(
        slow["state"] == "waiting" && slow["request"] == "GET /wait" && slow["stack"].is_null(),
        "{slow}"
    );
    // What runs later is shown, too, and the request that waits for it is told of by itself.
    ensure!(http::get(pool.address, "/later")?.text()? == "later");
    let slow = pool.wait_for_event("slow")?;
    ensure!(slow["state"] == "running" && slow["last_request"] == "GET /later", "{slow}");
    ensure!(slow["stack"].as_str().is_some_and(|stack| stack.contains("at busy")), "{slow}");
    // Each was told of once, and a quick one not at all.
    ensure!(http::get(pool.address, "/quick")?.status == 200);
    pool.drain(case)
}

fn a_slow_requests_stack_has_the_places_of_its_sources(case: &mut Case) -> Result<()> {
    // The map says that each line of the script stands 100 lines further down in its source.
    let script = "\
function busy(end) { while (Date.now() < end); }
addEventListener('fetch', (event) => {
  busy(Date.now() + 1500);
  event.respondWith(new Response('done'));
});
//# sourceMappingURL=data:application/json,{\"version\":3,\"sources\":[\"app.ts\"],\"names\":[],\"mappings\":\"AAoGA;AACA;AACA;AACA;AACA\"}
";
    let mut pool = Pool::start(case, script, &["--slow", "200ms", "--max", "1"])?;
    ensure!(http::get(pool.address, "/")?.text()? == "done");
    let slow = pool.wait_for_event("slow")?;
    let stack = slow["stack"].as_str().unwrap_or_default();
    ensure!(stack.contains("app.ts:101:") && stack.contains("app.ts:103:"), "{slow}");
    ensure!(!stack.contains("app.js"), "{slow}");
    pool.drain(case)
}

fn each_kind_of_death_is_named_and_the_worker_replaced(case: &mut Case) -> Result<()> {
    let script = format!(
        "setTimeout(() => {{}}, 0);\n{SCRIPT}\nlet outside;\naddEventListener('message', () => {{}});\n"
    );
    let mut pool = Pool::start(case, &script, &["--min", "1", "--max", "1", "--memory", "96M"])?;
    pool.wait_for_event("ready")?;
    // Killed by the kernel at the control group's limit, in the middle of a request.
    ensure!(http::get(pool.address, "/heap").is_err(), "an answer of a worker without memory");
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "out of memory: the control group's limit" && exit["signal"] == 9, "{exit}");
    ensure!(exit["request"].as_str().is_some_and(|request| request.contains("/heap")), "{exit}");
    pool.wait_for_event("ready")?;
    ensure!(http::get(pool.address, "/")?.status == 200);
    // Killed from outside.
    let worker = pool.workers(case)?;
    let pid = worker[0]["worker_pid"].as_i64().context("the worker has no pid")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "killed by a signal" && exit["signal"] == 9, "{exit}");
    pool.wait_for_event("ready")?;
    ensure!(http::get(pool.address, "/")?.status == 200);
    pool.drain(case)?;

    // V8 gives up by itself when nobody else limits the worker.
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "1"])?;
    pool.wait_for_event("ready")?;
    ensure!(http::get(pool.address, "/heap").is_err(), "an answer of a worker without memory");
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "out of memory: the JavaScript heap's limit" && exit["signal"] == 6, "{exit}");
    let words = exit["last_words"].as_str().unwrap_or_default();
    ensure!(words.contains("heap reached its limit") && words.contains("app.js:9:"), "no stack: {exit}");
    ensure!(exit["request"].as_str().is_some_and(|request| request.contains("/heap")), "{exit}");
    pool.wait_for_event("ready")?;
    pool.drain(case)?;

    // An error of the script's own, outside of any request.
    let script = "setTimeout(() => { throw new Error('as planned'); }, 100);\n".to_owned() + SCRIPT;
    let mut pool = Pool::start(case, &script, &["--min", "1", "--max", "1"])?;
    let exit = pool.wait_for_event("exit")?;
    ensure!(exit["reason"] == "uncaught error" && exit["status"] == 1, "{exit}");
    let words = exit["last_words"].as_str().unwrap_or_default();
    ensure!(words.contains("as planned") && words.contains("app.js:1"), "{exit}");
    pool.drain(case)
}

fn a_script_that_cannot_start_ends_in_a_degraded_pool(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, "throw new Error('never');\n", &["--max", "2"])?;
    let mut client = Client::connect(pool.address)?;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    pool.wait_for_event("degraded")?;
    let response = client.receive()?;
    ensure!(response.status == 503 && response.header("retry-after").is_some(), "{response:?}");
    let exit = pool.seen().iter().find(|event| event["event"] == "exit").context("no worker has ended")?;
    ensure!(exit["reason"] == "failed to start", "{exit}");
    ensure!(exit["last_words"].as_str().is_some_and(|words| words.contains("never")), "{exit}");
    let status = pool.status(case)?;
    ensure!(status["state"] == "degraded", "{status}");
    ensure!(status["started"].as_u64() < Some(20), "a busy loop: {status}");
    pool.drain(case)
}

fn a_supervisor_that_is_killed_is_replaced_and_no_request_is_lost(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "2", "--max", "2"])?;
    for _ in 0..2 {
        pool.wait_for_event("ready")?;
    }
    let load = Load::on(pool.address, 4);
    load.wait_for_answers(50)?;
    let supervisor = pool.status(case)?["pid"].as_i64().context("no pid")?;
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGKILL)?;
    // Its end closes the connection of the one who follows the events.
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    pool.finish_follower()?;
    load.wait_for_answers(50)?;
    fs::write(&script, SCRIPT.replace("VERSION", "two"))?;
    let flags = ["--min", "2", "--max", "2"];
    let mut second = Pool::run(case, &name, &script, address, &flags)?;
    let adopted = second.wait_for_event("adopted")?;
    ensure!(adopted["workers"] == 2, "{adopted}");
    second.wait_for_event("reloaded")?;
    load.wait_for_answers(50)?;
    load.finish()?;
    ensure!(http::get(second.address, "/")?.text()?.starts_with("two"));
    second.drain(case)
}

fn a_supervisor_that_is_killed_before_it_has_written_down_what_it_made_leaves_nothing_unknown(
    case: &mut Case,
) -> Result<()> {
    let faults = case.runtime.root().join("faults");
    let ids = |case: &mut Case| -> Result<Vec<String>> {
        let listed = case.runtime.ok(&["list", "--quiet"])?;
        Ok(listed.lines().iter().map(|id| (*id).to_owned()).collect())
    };
    let mut pool = Pool::start(case, SCRIPT, &["--max", "1"])?;
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    // Whoever follows the events has connected.
    pool.wait_for_event("begin")?;
    pool.drain(case)?;

    // Before the first sandbox is written down.
    fs::write(&faults, "pool:sandbox-made kill\n")?;
    let listen = address.to_string();
    let run = ["pool", "run", text(&script)?, "--name", &name, "--listen", &listen, "--detach"];
    case.runtime.refused(&run, &["the supervisor ended"])?;
    fs::remove_file(&faults)?;
    let left = ids(case)?;
    ensure!(left.len() == 1, "no sandbox was left: {left:?}");
    let mut pool = Pool::run(case, &name, &script, address, &["--max", "1"])?;
    pool.wait_for_event("begin")?;
    let now = ids(case)?;
    ensure!(!now.contains(&left[0]) && now.len() == 1, "{left:?}, then {now:?}");
    pool.drain(case)?;

    // Behind the fork: the worker serves the connection that it was started for, and is taken over with its socket.
    fs::write(&faults, "pool:worker-forked kill\n")?;
    let pool = Pool::run(case, &name, &script, address, &["--max", "1"])?;
    let mut client = Client::connect(address)?;
    let first = client.get("/me")?.text()?.to_owned();
    pool.finish_follower()?;
    fs::remove_file(&faults)?;
    ensure!(client.get("/me")?.text()? == first, "another worker");
    let mut pool = Pool::run(case, &name, &script, address, &["--max", "1"])?;
    ensure!(pool.wait_for_event("adopted")?["workers"] == 1);
    pool.wait_for_event("reloaded")?;
    // The kept connection has moved to the new worker.
    ensure!(client.get("/me")?.text()? != first, "the worker was not replaced");
    drop(client);
    pool.drain(case)
}

fn a_quiet_pool_is_not_woken(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "2"])?;
    pool.wait_for_event("ready")?;
    http::get(pool.address, "/")?;
    let status = pool.status(case)?;
    let supervisor = i32::try_from(status["pid"].as_i64().context("no pid")?)?;
    let worker = i32::try_from(status["workers"][0]["worker_pid"].as_i64().context("no worker")?)?;
    let switches =
        |pid| -> Result<u64> { Ok(host::field(pid, "status", "voluntary_ctxt_switches")?.trim().parse()?) };
    // It becomes quiet after a while; then a second must pass without a wake-up.
    let mut before = (switches(supervisor)?, switches(worker)?);
    for _ in 0..10 {
        let (never, _writer) = std::io::pipe().context("make a pipe")?;
        wait::readable_within(&never, Duration::from_secs(1));
        let now = (switches(supervisor)?, switches(worker)?);
        if now == before {
            // And a request wakes the supervisor through the worker: its count is right at once.
            let mut client = Client::connect(pool.address)?;
            client.get("/")?;
            ensure!(pool.status(case)?["requests"] == 2);
            drop(client);
            return pool.drain(case);
        }
        before = now;
    }
    bail!("the supervisor or the worker of a quiet pool wakes every second")
}

fn a_quiet_pool_gives_back_what_only_its_start_needed(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "1"])?;
    pool.wait_for_event("ready")?;
    let supervisor = pool.status(case)?["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let supervisor = supervisor.context("the pool has no pid")?;
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    for (who, pid) in [("seed", seed_pid(case, "default")?), ("supervisor", supervisor)] {
        let end = Instant::now() + wait::STEP;
        loop {
            let most = host::kilobytes(pid, "status", "VmHWM")?;
            let resident = host::kilobytes(pid, "status", "VmRSS")?;
            // How much the start needed depends on what of the programs was in the page cache.
            if resident + 1024 <= most {
                break;
            }
            ensure!(Instant::now() < end, "the {who} still has {resident} of {most} kB");
            wait::readable_within(&never, Duration::from_millis(20));
        }
    }
    ensure!(http::get(pool.address, "/")?.status == 200);
    pool.drain(case)
}

/// Garbage of every kind: old and young objects, numbers, buffers outside of the heap, many connections.
const BURST: &str = "\
addEventListener('fetch', (event) => {
  if (new URL(event.request.url).pathname !== '/burst') return event.respondWith(new Response('done'));
  const all = [];
  for (let i = 0; i < 32; i++) {
    all.push(new Array(100000).fill(1.5), new Uint8Array(500000).fill(i), new Uint8Array(600000).fill(i));
    for (let j = 0; j < 1000; j++) all.push({ i, j, text: `${i} and ${j}` });
  }
  event.respondWith(new Response(`${all.length}`));
});
";

fn a_worker_gives_back_what_a_burst_has_left_and_sleeps(case: &mut Case) -> Result<()> {
    const BURST_KB: u64 = 50_000;
    const LEFT_KB: u64 = 5_000;
    let mut pool = Pool::start(case, BURST, &["--min", "1", "--max", "1"])?;
    pool.wait_for_event("ready")?;
    let worker = pool.workers(case)?[0]["worker_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let worker = worker.context("no worker")?;
    http::get(pool.address, "/")?;
    let own = || host::kilobytes(worker, "smaps_rollup", "Pss_Anon");
    let before = own()?;
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    for _ in 0..3 {
        let mut clients: Vec<Client> =
            (0..200).map(|_| Client::connect(pool.address)).collect::<Result<_>>()?;
        for client in &mut clients {
            ensure!(client.get("/")?.status == 200);
        }
        ensure!(clients[0].get("/burst")?.text()? == "32096");
        drop(clients);
        let most = host::kilobytes(worker, "status", "VmHWM")?;
        ensure!(most > before + BURST_KB, "the burst took {most} kB only");
        let end = Instant::now() + wait::STEP;
        while own()? > before + LEFT_KB {
            ensure!(Instant::now() < end, "{} kB after the burst, {before} kB before", own()?);
            wait::readable_within(&never, Duration::from_millis(20));
        }
    }
    // It sleeps: sooner or later a second passes without a wake-up.
    let switches = || host::field(worker, "status", "voluntary_ctxt_switches");
    let end = Instant::now() + wait::STEP;
    loop {
        let seen = switches()?;
        wait::readable_within(&never, Duration::from_secs(1));
        if switches()? == seen {
            break;
        }
        ensure!(Instant::now() < end, "the worker of a quiet pool wakes every second");
    }
    ensure!(http::get(pool.address, "/burst")?.status == 200, "it serves as before");
    pool.drain(case)
}

fn a_watched_status_fits_its_terminal_and_is_plain_elsewhere(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "3", "--max", "3"])?;
    for _ in 0..3 {
        pool.wait_for_event("ready")?;
    }
    // Without a terminal: blocks of plain lines. It ends with an error when its pool does.
    let plain = case.runtime.spawn(&["pool", "status", "--watch", "50ms", pool.name()], None)?;
    // Four lines are less than the five that there are, so the last one says so; 40 columns cut the table.
    let files = case.directory().join("script");
    fs::create_dir_all(&files)?;
    let command = |size: &str| -> Result<std::process::Command> {
        let mut command = std::process::Command::new("script");
        let inner = format!(
            "stty {size}; exec {} --root {} pool status --watch 50ms {}",
            text(case.runtime.program())?,
            text(case.runtime.root())?,
            pool.name()
        );
        command.args(["-qec", &inner, "/dev/null"]);
        Ok(command)
    };
    let small = crate::runtime::begin(
        command("rows 5 cols 40")?,
        "small".to_owned(),
        &files.join("small"),
        None,
        None,
    )?;
    let large = crate::runtime::begin(
        command("rows 24 cols 200")?,
        "large".to_owned(),
        &files.join("large"),
        None,
        None,
    )?;
    // Until each has drawn more than once.
    let end = Instant::now() + wait::STEP;
    for running in [&plain, &small, &large] {
        while fs::read_to_string(running.output_files().0)?.matches("WORKER").count() < 3 {
            ensure!(Instant::now() < end, "{:?} shows nothing", running.output_files());
            thread::yield_now();
        }
    }
    pool.drain(case)?;
    let plain = plain.finish()?;
    let small = small.finish()?;
    let large = large.finish()?;
    ensure!(!plain.stdout.contains('\x1b') && plain.stdout.matches("WORKER").count() > 1, "{plain}");
    ensure!(
        small.stdout.contains("... and ") && large.stdout.matches("serving").count() >= 6,
        "{small}{large}"
    );
    // What is seen of the lines that were drawn.
    let widest = |text: &str| {
        let drawn = text.split('\n').filter(|line| line.contains("\x1b[K"));
        let seen = drawn.map(|line| {
            let words = ["\x1b[2J", "\x1b[J", "\x1b[H", "\x1b[K", "\r"];
            words.iter().fold(line.to_owned(), |line, word| line.replace(word, "")).chars().count()
        });
        seen.max()
    };
    ensure!(widest(&small.stdout) == Some(40), "{small}");
    ensure!(widest(&large.stdout) > Some(100), "{large}");
    Ok(())
}

fn a_watched_status_follows_the_size_of_its_terminal(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--min", "3", "--max", "3"])?;
    for _ in 0..3 {
        pool.wait_for_event("ready")?;
    }
    let files = case.directory().join("script");
    let watch = format!(
        "tty; stty rows 5 cols 40; exec {} --root {} pool status --watch 50ms {}",
        text(case.runtime.program())?,
        text(case.runtime.root())?,
        pool.name()
    );
    fs::create_dir_all(&files)?;
    let mut command = Command::new("script");
    command.args(["-qec", &watch, "/dev/null"]);
    let watching = crate::runtime::begin(command, "watching".to_owned(), &files, None, None)?;
    let end = Instant::now() + wait::STEP;
    let shown_until = |enough: &dyn Fn(&str) -> bool| -> Result<String> {
        loop {
            let shown = fs::read_to_string(watching.output_files().0)?;
            if enough(&shown) {
                return Ok(shown);
            }
            ensure!(Instant::now() < end, "{shown}");
            thread::yield_now();
        }
    };
    let small = shown_until(&|shown| shown.contains("... and "))?;
    let terminal = small.lines().next().context("no name of a terminal")?.trim();
    let resized = Command::new("stty").args(["-F", terminal, "rows", "24", "cols", "200"]).status()?;
    ensure!(resized.success(), "stty -F {terminal}: {resized}");
    // There is room for all three workers now.
    let holds_all = |frame: &str| frame.matches("serving").count() == 3;
    shown_until(&|shown| shown[small.len()..].split("WORKER").any(holds_all))?;
    pool.drain(case)?;
    watching.finish().map(drop)
}

fn metrics_and_probes_are_on_the_control_socket(case: &mut Case) -> Result<()> {
    // Status and body of what the control socket of a pool answers.
    fn ask(case: &Case, pool: &Pool, path: &str) -> Result<(String, String)> {
        let socket = case.runtime.root().join("pools").join(pool.name()).join("control.sock");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--unix-socket"])
            .arg(&socket)
            .arg(format!("http://pool/{path}"))
            .output()?;
        let said = String::from_utf8(output.stdout)?;
        let (body, status) = said.rsplit_once('\n').with_context(|| format!("{path}: {said}"))?;
        Ok((status.to_owned(), body.to_owned()))
    }
    let mut pool = Pool::start(case, SCRIPT, &["--min", "2", "--max", "2"])?;
    for _ in 0..2 {
        pool.wait_for_event("ready")?;
    }
    for _ in 0..5 {
        ensure!(http::get(pool.address, "/")?.status == 200);
    }
    ensure!(ask(case, &pool, "live")?.0 == "200");
    ensure!(ask(case, &pool, "ready")?.0 == "200");
    let (status, metrics) = ask(case, &pool, "metrics")?;
    ensure!(status == "200", "{metrics}");
    for line in
        ["turf_pool_requests_total 5", "turf_pool_workers{phase=\"serving\"} 2", "turf_pool_degraded 0"]
    {
        ensure!(metrics.lines().any(|one| one == line), "{line} is not in {metrics}");
    }
    // Each family is described, and each line is a number.
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let family = name.split('{').next().unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "{line}");
        ensure!(metrics.contains(&format!("# TYPE {family} ")), "{family} has no type");
    }
    pool.drain(case)?;

    let mut broken = Pool::start(case, "throw new Error('never');\n", &["--min", "1", "--max", "1"])?;
    broken.wait_for_event("degraded")?;
    ensure!(ask(case, &broken, "live")?.0 == "200");
    ensure!(ask(case, &broken, "ready")?.0 == "503");
    ensure!(ask(case, &broken, "metrics")?.1.contains("turf_pool_degraded 1\n"));
    broken.drain(case)
}

fn a_web_socket_keeps_its_worker_and_is_closed_after_a_grace(case: &mut Case) -> Result<()> {
    let script = "\
addEventListener('fetch', (event) => {
  const { 0: client, 1: server } = new WebSocketPair();
  server.accept();
  server.addEventListener('message', ({ data }) => server.send(data));
  event.respondWith(new Response(null, { status: 101, webSocket: client }));
});
";
    let mut pool = Pool::start(case, script, &["--max", "2", "--idle-timeout", "200ms"])?;
    let mut client = Client::connect(pool.address)?;
    client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let head = client.bytes(129)?;
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    pool.wait_for_event("ready")?;
    ensure!(pool.workers(case)?[0]["web_sockets"] == 1);
    // Five times the idle timeout later it is still there, and answers.
    ensure!(client.silent_for(Duration::from_secs(1)));
    // A masked "hi".
    client.send(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2])?;
    ensure!(client.bytes(4)? == [0x81, 2, b'h', b'i']);
    ensure!(pool.status(case)?["exited"] == 0);
    let begun = Instant::now();
    let address = pool.address;
    let frame = thread::spawn(move || client.bytes(4));
    case.runtime.ok(&["pool", "drain", pool.name()])?;
    let frame = frame.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    ensure!(frame[0] == 0x88 && frame[2..] == 1001_u16.to_be_bytes(), "{frame:?}");
    ensure!(begun.elapsed() >= Duration::from_secs(4), "closed without a grace");
    ensure!(Client::connect(address).is_err());
    let name = pool.name().to_owned();
    pool.finish_follower()?;
    case.runtime.ok(&["pool", "rm", &name]).map(drop)
}

fn the_guides_systemd_units_are_valid(case: &mut Case) -> Result<()> {
    let guide = include_str!("../../../docs/pools.md");
    let directory = case.directory().join("units");
    fs::create_dir_all(&directory)?;
    let mut paths = Vec::new();
    for name in ["app.socket", "app.service"] {
        let unit = guide.split("```ini\n").find_map(|block| block.strip_prefix(&format!("# {name}\n")));
        let unit = unit.and_then(|block| block.split_once("```")).context("the guide has no such unit")?.0;
        // The program need not be installed here.
        let unit = unit.replace("/usr/local/bin/turf", text(case.runtime.program())?);
        paths.push(directory.join(name));
        fs::write(&paths[paths.len() - 1], unit)?;
    }
    let verify = Command::new("systemd-analyze").arg("verify").args(&paths).output();
    let output = match verify {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Skip("systemd-analyze is not installed".to_owned()).into());
        }
        output => output.context("run systemd-analyze")?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}
