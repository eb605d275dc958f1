//! Starts without a process of their own: a pool whose workers serve one connection each (`--disposable connection`), in
//! sandboxes that were made before. What is measured is a client's time from its connect(2) to the first byte of the answer:
//! the fork into all namespaces and control groups, the script, and the request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::BenchArgs;
use super::counted::{Counter, EVENTS};
use super::series::Report;
use crate::case::Case;
use crate::tests::{Pool, seed_pid};
use crate::{host, wait};

const RESIDENT: &str = "Starts without a process";
const BURST: &str = "Starts at once";

const SCRIPT: &str = "addEventListener('fetch', (event) => event.respondWith(new Response('hello')));\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// Between two starts of the slow row.
const PAUSE: Duration = Duration::from_millis(200);

/// How often as many are started back to back as are prepared: the kernel counts processor time in hundredths of a second.
const ROUNDS: usize = 10;

/// Rounds of which the mean of instructions and page faults is taken.
const COUNTED: usize = 3;

/// One start every 200 ms, and one after the other.
pub fn starts(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let prepared = arguments.starts;
    let pool = disposable(case, 2 * prepared, prepared)?;
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    for _ in 0..arguments.starts.min(50) {
        wait_for_spares(&pool, case, prepared)?;
        wait::readable_within(&never, PAUSE);
        report.add(RESIDENT, "one every 200 ms: connect to first byte", "ms", ask(pool.address)?);
    }
    let (mut starts, mut wholes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        wait_for_spares(&pool, case, prepared)?;
        let before = processor_seconds(case, &pool)?;
        for _ in 0..prepared {
            report.add(RESIDENT, "back to back: connect to first byte", "ms", ask(pool.address)?);
        }
        let answered = processor_seconds(case, &pool)?;
        wait_for_none(&pool, case)?;
        wait_for_spares(&pool, case, prepared)?;
        let refilled = processor_seconds(case, &pool)?;
        starts.push((answered - before) * 1e3 / prepared as f64);
        wholes.push((refilled - before) * 1e3 / prepared as f64);
        report.add(
            RESIDENT,
            "the machine between the rounds: processor time of a fixed piece of work",
            "ms",
            fixed_work()?,
        );
    }
    count(case, &pool, prepared, report)?;
    pool.drain(case)?;
    let creation = creation(case, prepared)? * 1e3;
    for (start, whole) in starts.into_iter().zip(wholes) {
        add_processor_time(report, whole, creation, start);
    }
    beyond_what_is_prepared(case, arguments, report)
}

fn add_processor_time(report: &mut Report, whole: f64, creation: f64, start: f64) {
    for (what, time) in [
        ("from its creation to its deletion", whole),
        ("its creation, worker forked ahead", creation),
        ("its start, until the last of all is answered", start),
        ("the rest: its end and deletion", whole - creation - start),
    ] {
        report.add(RESIDENT, &format!("processor time of a sandbox: {what}"), "ms", time);
    }
}

/// Counts instructions and page faults of starts, in rounds of their own: to be counted costs time.
fn count(case: &mut Case, pool: &Pool, prepared: usize, report: &mut Report) -> Result<()> {
    let processes = [seed_pid(case, "default")?, supervisor_of(pool, case)?];
    let mut counter = match Counter::attach(case, &processes) {
        Ok(counter) => counter,
        Err(error) => {
            report.note(format!("instructions of a start are not counted: {error:#}"));
            return Ok(());
        }
    };
    // What was forked before is not counted.
    for _ in 0..prepared {
        ask(pool.address)?;
    }
    for _ in 0..COUNTED {
        wait_for_none(pool, case)?;
        wait_for_spares(pool, case, prepared)?;
        counter.count()?;
        for _ in 0..prepared {
            ask(pool.address)?;
        }
        counter.rest()?;
    }
    for (event, count) in EVENTS.iter().zip(counter.finish()?) {
        if let Some(count) = count {
            report.add(
                RESIDENT,
                &format!("of a start, the mean of {COUNTED} rounds: {event}"),
                "",
                count / (COUNTED * prepared) as f64,
            );
        }
    }
    Ok(())
}

/// Milliseconds of processor time for a piece of work that is always the same: half of it calculates, half writes to memory for the first
/// time.
fn fixed_work() -> Result<f64> {
    const PAGES: usize = 1024;
    let begun = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let mut state = 1_u64;
    for _ in 0..1_000_000 {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    let mut memory = vec![0_u8; PAGES * 4096];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = state as u8);
    std::hint::black_box(memory);
    let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)? - begun;
    Ok(Duration::from(used).as_secs_f64() * 1e3)
}

/// Seconds of processor time for one sandbox until it stands ready with its worker forked ahead: what a pool of many has
/// used since its birth, less what one of one has.
fn creation(case: &mut Case, many: usize) -> Result<f64> {
    let mut used = [0.0; 2];
    for (count, used) in [1, many].into_iter().zip(&mut used) {
        let seed = host::cpu_seconds_with_children(seed_pid(case, "default")?)?;
        let pool = disposable(case, count, count)?;
        wait_for_spares(&pool, case, count)?;
        *used = processor_seconds(case, &pool)? - seed;
        pool.drain(case)?;
    }
    Ok((used[1] - used[0]) / (many - 1).max(1) as f64)
}

/// The same where most starts come before a sandbox is ready for them: they wait for its creation.
fn beyond_what_is_prepared(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let pool = disposable(case, 32, 16)?;
    wait_for_spares(&pool, case, 16)?;
    for _ in 0..arguments.starts.max(100) {
        let what = "back to back, 16 prepared: connect to first byte";
        report.add(RESIDENT, what, "ms", ask(pool.address)?);
    }
    wait_for_none(&pool, case)?;
    pool.drain(case)
}

/// Many clients connect at the same moment; each gets a worker of its own.
pub fn burst(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let count = arguments.burst;
    let pool = disposable(case, count, count)?;
    for _ in 0..arguments.rounds.min(3) {
        wait_for_spares(&pool, case, count)?;
        let before = processor_seconds(case, &pool)?;
        let begun = Instant::now();
        let times = ask_at_once(pool.address, count)?;
        let all = begun.elapsed().as_secs_f64() * 1e3;
        let used = processor_seconds(case, &pool)? - before;
        report.add(BURST, &format!("{count} connections, all answered after"), "ms", all);
        report.add(BURST, "processor time per start until then", "ms", used * 1e3 / count as f64);
        times.into_iter().for_each(|time| report.add(BURST, "connect to first byte", "ms", time));
        wait_for_none(&pool, case)?;
    }
    pool.drain(case)?;
    burst_of_empty(case, arguments, report)
}

/// The same where nothing is forked ahead. Sandboxes without a process take so many descriptors that four fifths of a thousand
/// are what the usual hard limit of open files has room for; the others are made while their clients wait.
fn burst_of_empty(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let (count, prepared) = (arguments.burst, arguments.burst / 5 * 4);
    let pool = disposable_ahead(case, count, prepared, 0)?;
    for _ in 0..arguments.rounds.min(3) {
        wait_for(&pool, case, |status| status["spares"].as_u64() >= Some(prepared as u64))?;
        let begun = Instant::now();
        ask_at_once(pool.address, count)?;
        let all = begun.elapsed().as_secs_f64() * 1e3;
        let row = format!("{count} connections, {prepared} sandboxes without a process: all answered after");
        report.add(BURST, &row, "ms", all);
        wait_for_none(&pool, case)?;
    }
    pool.drain(case)
}

/// A pool of workers for one connection each.
pub(super) fn disposable(case: &mut Case, max: usize, spare: usize) -> Result<Pool> {
    disposable_ahead(case, max, spare, spare)
}

/// The same with fewer processes forked ahead than sandboxes held ready.
fn disposable_ahead(case: &mut Case, max: usize, spare: usize, ahead: usize) -> Result<Pool> {
    let (max, spare, ahead) = (max.to_string(), spare.to_string(), ahead.to_string());
    let flags = [
        "--disposable=connection",
        "--max",
        &max,
        "--spare",
        &spare,
        "--ahead",
        &ahead,
        "--max-queue=100000",
    ];
    let pool = Pool::start(case, SCRIPT, &flags)?;
    pool.ignore_events()?;
    Ok(pool)
}

/// Milliseconds from connecting to the first byte of the answer.
pub(super) fn ask(address: SocketAddr) -> Result<f64> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(wait::STEP))?;
    stream.write_all(REQUEST)?;
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).context("read the answer")?;
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..length]));
    Ok(elapsed)
}

/// The same of many at once.
fn ask_at_once(address: SocketAddr, count: usize) -> Result<Vec<f64>> {
    let poller = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).context("connect")?;
        stream.write_all(REQUEST)?;
        stream.set_nonblocking(true)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        poller.add(stream.as_fd(), EpollEvent::new(flags, number as u64))?;
        streams.push((stream, begun));
    }
    let mut times = Vec::with_capacity(count);
    let mut events = vec![EpollEvent::empty(); count];
    while times.len() < count {
        let ready = poller.wait(&mut events, EpollTimeout::try_from(wait::STEP)?)?;
        ensure!(ready > 0, "{} of {count} were answered", times.len());
        for event in &events[..ready] {
            let (stream, begun) = &mut streams[event.data() as usize];
            let mut answer = [0; 1024];
            let length = stream.read(&mut answer).context("read an answer")?;
            ensure!(answer[..length].starts_with(b"HTTP/1.1 200 "), "an answer is not 200");
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

/// Waits for so many sandboxes to be ready, with workers forked ahead.
fn wait_for_spares(pool: &Pool, case: &mut Case, count: usize) -> Result<()> {
    wait_for(pool, case, |status| status["ahead"].as_u64() >= Some(count as u64))
}

fn wait_for_none(pool: &Pool, case: &mut Case) -> Result<()> {
    wait_for(pool, case, |status| {
        status["workers"].as_array().is_some_and(Vec::is_empty) && status["unburied"] == 0
    })
}

pub(super) fn wait_for(pool: &Pool, case: &mut Case, holds: impl Fn(&Value) -> bool) -> Result<()> {
    let (never, _writer) = std::io::pipe().context("make a pipe")?;
    let end = Instant::now() + 4 * wait::STEP;
    loop {
        let status = pool.status(case)?;
        if holds(&status) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the pool does not come to rest: {status}");
        // The question itself takes processor time from the pool.
        wait::readable_within(&never, Duration::from_millis(20));
    }
}

pub(super) fn supervisor_of(pool: &Pool, case: &mut Case) -> Result<i32> {
    let pid = pool.status(case)?["pid"].as_i64().context("the pool has no pid")?;
    Ok(i32::try_from(pid)?)
}

/// Processor time so far of the supervisor and the seed, of all their children that have ended and been waited for (those
/// are the inits with their workers), and of the inits and workers that live. What the kernel does later on threads of
/// its own, such as the end of network namespaces, nobody is charged for.
fn processor_seconds(case: &mut Case, pool: &Pool) -> Result<f64> {
    let supervisor = supervisor_of(pool, case)?;
    let mut seconds = seconds_with_children(supervisor)? + seconds_with_children(seed_pid(case, "default")?)?;
    for process in host::below(supervisor) {
        // One that has ended since counts with the next reading.
        seconds += host::precise_cpu_seconds(process).unwrap_or(0.0);
    }
    Ok(seconds)
}

/// Its own to the nanosecond, and its children's in the kernel's hundredths of a second.
fn seconds_with_children(pid: i32) -> Result<f64> {
    let children = host::cpu_seconds_with_children(pid)? - host::cpu_seconds(pid)?;
    Ok(host::precise_cpu_seconds(pid)? + children)
}
