//! The functions of `turf-seed` that a worker calls from its fork to its end, and under load.
//!
//! Each function of the program gets a breakpoint (`int3`), which tells of the first call and goes. What the seed calls before it
//! is asked to fork is not seen. V8's objects have one section for each function, but all of one name: the list has their
//! symbols, and the linker orders the sections by these. V8's built-ins are one piece of assembly, which cannot be reordered.
//!
//! ptrace(2), proc_pid_mem(5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Symbols, pattern};
use crate::shell::{command, execute, step, workspace};

/// The list, from the workspace on.
const LIST: &str = "turf-seed/touched.txt";

const HEADER: &str = "\
# The functions that workers call, for build.rs.
# Written by `cargo xtask touched`; `*` stands for what differs from build to build.
";

/// What workers run: each a way to write one, with what requests commonly do.
const SCRIPTS: [&str; 2] = [
    "addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  if (url.pathname === '/') return event.respondWith(new Response('hello'));
  event.respondWith(new Promise((done) => setTimeout(done, 0)).then(async () => Response.json({
    at: url.pathname, agent: event.request.headers.get('user-agent'), body: await event.request.text(),
  })));
});\n",
    "const later = () => new Promise((done) => setTimeout(done, 0));
export default {
  async fetch(request) {
    if (new URL(request.url).pathname === '/') return new Response('hello', { headers: { 'x-a': 'b' } });
    await later();
    return new Response(JSON.stringify({ method: request.method, body: await request.text() }));
  },
};\n",
];

/// Requests to each worker: the first of them, and what is different in later ones.
const REQUESTS: [&str; 2] = [
    "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n",
    "POST /x?y=z HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nContent-Length: 3\r\n\r\nabc",
];

/// How often each request is sent, before and under load: until V8 has compiled what is called and collected garbage.
const ROUNDS: [usize; 2] = [3, 20_000];

/// An answer comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The instruction `int3`.
const BREAKPOINT: u8 = 0xcc;

/// Functions with the part of a worker's life in which they were first called: 0, its start and first requests, or 1, load.
type Touched = BTreeMap<String, usize>;

/// Runs pools over one seed whose functions have breakpoints.
pub fn walk(turf: &Path, directory: &Path) -> Result<Touched> {
    let symbols = Symbols::read(&turf.with_file_name("turf-seed"), |name| {
        (!name.starts_with("Builtins_")).then(|| listed(name))
    })?;
    let root = directory.join("seed-root");
    let turf = |arguments: &[&str]| {
        let mut turf = command(turf);
        turf.arg("--root").arg(&root).args(arguments);
        turf
    };
    execute(&mut turf(&["seed", "start", "default"]))?;
    let state = root.join("seeds/default/current/state.json");
    let state = fs::read_to_string(state).context("read the seed's state")?;
    let pid = state.split("\"pid\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
    let pid = pid.and_then(|pid| pid.trim().parse().ok()).context("the seed's state has no pid")?;
    step("turf pool run, with a breakpoint at each function of its workers");
    let part = AtomicUsize::new(0);
    let traced = Barrier::new(2);
    thread::scope(|scope| {
        let driver = scope.spawn(|| {
            traced.wait();
            let driven = ROUNDS.iter().enumerate().try_for_each(|(number, rounds)| {
                part.store(number, Ordering::Relaxed);
                SCRIPTS.iter().try_for_each(|script| drive(&turf, directory, script, *rounds))
            });
            // The end of the seed ends the walk.
            driven.and(execute(&mut turf(&["seed", "stop", "default"])))
        });
        let touched = touched(Pid::from_raw(pid), &symbols, &part, &traced)?;
        match driver.join() {
            Ok(driven) => driven.map(|()| touched),
            Err(_) => bail!("the requests panicked"),
        }
    })
}

/// A name for the list: of our functions without the hash, of others as it is.
pub(super) fn listed(name: &str) -> String {
    match pattern(name) {
        Some(ours) if ours.starts_with("_ZN") => {
            ours[..ours.len() - "0123456789abcdefE".len()].to_owned() + "*"
        }
        Some(ours) => ours,
        None => name.to_owned(),
    }
}

/// One pool with one worker, from its start to its end.
fn drive(turf: &impl Fn(&[&str]) -> Command, directory: &Path, script: &str, rounds: usize) -> Result<()> {
    let path = directory.join("worker.js");
    fs::write(&path, script)?;
    let socket = directory.join("worker.sock");
    let listen = format!("unix://{}", socket.display());
    let path = path.to_string_lossy();
    execute(&mut turf(&[
        "pool", "run", &path, "--name", "p", "--listen", &listen, "--detach", "--max", "1",
    ]))?;
    let mut client = UnixStream::connect(&socket).with_context(|| format!("connect to {listen}"))?;
    client.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..rounds {
        for request in REQUESTS {
            client.write_all(request.as_bytes())?;
            let mut answer = [0; 4096];
            let count = client.read(&mut answer).context("read an answer")?;
            let answer = String::from_utf8_lossy(&answer[..count]);
            ensure!(answer.starts_with("HTTP/1.1 200"), "the worker answered {answer}");
        }
    }
    drop(client);
    execute(&mut turf(&["pool", "drain", "p"]))
}

/// Lets a process and its descendants run until it ends; the functions that they call.
fn touched(seed: Pid, symbols: &Symbols, part: &AtomicUsize, traced: &Barrier) -> Result<Touched> {
    use ptrace::Options;
    let options = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(seed, options).context("trace the seed")?;
    ptrace::interrupt(seed).context("stop the seed")?;
    waitpid(seed, Some(WaitPidFlag::__WALL)).context("wait for the seed")?;
    let originals = set_breakpoints(seed, symbols)?;
    ptrace::cont(seed, None).context("let the seed go on")?;
    traced.wait();
    // The programs that the other thread runs are its children.
    let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let mut touched = Touched::new();
    loop {
        match waitpid(None, Some(ours)).context("wait for the seed")? {
            WaitStatus::Stopped(process, Signal::SIGTRAP) => {
                // A process that was killed meanwhile has no registers.
                if ptrace::getregs(process).is_ok() {
                    let address = clear_breakpoint(process, &originals)?;
                    let name = symbols.name_at(address).context("a breakpoint has a function")?;
                    touched.entry(name).or_insert(part.load(Ordering::Relaxed));
                }
                let _ = ptrace::cont(process, None);
            }
            WaitStatus::PtraceEvent(process, ..) => drop(ptrace::cont(process, None)),
            WaitStatus::Stopped(process, signal) => drop(ptrace::cont(process, signal)),
            WaitStatus::Exited(process, _) | WaitStatus::Signaled(process, ..) if process == seed => {
                return Ok(touched);
            }
            _ => {}
        }
    }
}

/// Takes away the breakpoint that a process has come to, and lets it go on there; the address.
pub(super) fn clear_breakpoint(process: Pid, originals: &BTreeMap<u64, u8>) -> Result<u64> {
    let mut registers = ptrace::getregs(process)?;
    let address = registers.rip - 1;
    let original = originals.get(&address).context("a breakpoint that nobody set")?;
    memory(process)?.write_all_at(&[*original], address)?;
    registers.rip = address;
    ptrace::setregs(process, registers)?;
    Ok(address)
}

/// Puts a breakpoint at the beginning of each function; what was there.
pub(super) fn set_breakpoints(process: Pid, symbols: &Symbols) -> Result<BTreeMap<u64, u8>> {
    let memory = memory(process)?;
    let mut originals = BTreeMap::new();
    let begins: BTreeSet<u64> =
        symbols.functions.iter().filter(|(begin, end, _)| begin < end).map(|(begin, ..)| *begin).collect();
    for begin in begins {
        let mut original = [0];
        memory
            .read_exact_at(&mut original, begin)
            .with_context(|| format!("read the program at {begin:#x}"))?;
        memory.write_all_at(&[BREAKPOINT], begin)?;
        originals.insert(begin, original[0]);
    }
    Ok(originals)
}

fn memory(process: Pid) -> Result<File> {
    let path = format!("/proc/{process}/mem");
    File::options().read(true).write(true).open(&path).with_context(|| format!("open {path}"))
}

/// Writes the list: what a start calls before what only load does.
pub fn write(touched: &Touched) -> Result<()> {
    let mut lines: Vec<(usize, &str)> = touched.iter().map(|(name, part)| (*part, name.as_str())).collect();
    lines.sort_unstable();
    let text: String = lines.iter().map(|(_, name)| format!("{name}\n")).collect();
    fs::write(workspace().join(LIST), format!("{HEADER}{text}")).with_context(|| format!("write {LIST}"))?;
    println!("{} functions in {LIST}", lines.len());
    Ok(())
}
