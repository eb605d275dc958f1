//! The functions of `aworker` that a cold start calls, from execve(2) to the second answer, in the order of their first call.
//!
//! As for workers ([`super::worker`]): each function of the program gets a breakpoint.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{collections::BTreeMap, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Symbols;
use super::worker::{clear_breakpoint, listed, set_breakpoints};
use crate::shell::{step, workspace};

/// The list, from the workspace on.
const LIST: &str = "aworker-rt/touched.txt";

const HEADER: &str = "\
# The functions that a cold start of aworker calls, in the order of their first call, for build.rs.
# Written by `cargo xtask touched`; `*` stands for what differs from build to build.
";

/// Programs as people begin with: each kind of script, and each way to be asked for one.
const SCRIPTS: [(&str, &str); 2] = [
    ("hello.mjs", "export default { fetch: () => new Response('hello') };\n"),
    (
        "hello.js",
        "addEventListener('fetch', (event) => event.respondWith(new Response(new URL(event.request.url).pathname)));\n",
    ),
];

/// The program answers within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Functions with the number of their first call.
type Touched = BTreeMap<String, usize>;

/// Starts the programs, each function with a breakpoint, and writes the list.
pub fn write(aworker: &Path, directory: &Path) -> Result<()> {
    let symbols = Symbols::read(aworker, |name| (!name.starts_with("Builtins_")).then(|| listed(name)))?;
    let mut touched = Touched::new();
    for (file, text) in SCRIPTS {
        step(&format!("aworker run {file}, with a breakpoint at each of its functions"));
        let script = directory.join(file);
        fs::write(&script, text)?;
        run(aworker, &script, &symbols, &mut touched)?;
    }
    let mut lines: Vec<(usize, &str)> =
        touched.iter().map(|(name, number)| (*number, name.as_str())).collect();
    lines.sort_unstable();
    let text: String = lines.iter().map(|(_, name)| format!("{name}\n")).collect();
    fs::write(workspace().join(LIST), format!("{HEADER}{text}")).with_context(|| format!("write {LIST}"))?;
    println!("{} functions in {LIST}", lines.len());
    Ok(())
}

fn run(aworker: &Path, script: &Path, symbols: &Symbols, touched: &mut Touched) -> Result<()> {
    // Free a moment later, as whoever asks for a port in advance has to hope.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // The shell waits until it is traced; the program begins with execve(2).
    let mut shell = Command::new("sh")
        .args(["-c", "read begin; exec \"$0\" run \"$1\" \"--listen=$2\""])
        .args([aworker, script])
        .arg(address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("run sh")?;
    let pid = Pid::from_raw(shell.id().cast_signed());
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXEC).context("trace the command")?;
    shell.stdin.take().context("the shell has no input")?.write_all(b"begin\n")?;
    let client = thread::spawn(move || {
        let asked = ask(address);
        // Its end ends the walk.
        kill(pid, Signal::SIGTERM).context("end the program")?;
        asked
    });
    follow(pid, aworker, symbols, touched)?;
    match client.join() {
        Ok(asked) => asked,
        Err(_) => bail!("the requests panicked"),
    }
}

/// Two requests over one connection.
fn ask(address: std::net::SocketAddr) -> Result<()> {
    let begun = Instant::now();
    let mut client = loop {
        match TcpStream::connect(address) {
            Ok(client) => break client,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("connect to the program"),
            Err(_) => thread::yield_now(),
        }
    };
    client.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n")?;
        let mut answer = [0; 4096];
        let count = client.read(&mut answer).context("read an answer")?;
        let answer = String::from_utf8_lossy(&answer[..count]);
        ensure!(answer.starts_with("HTTP/1.1 200"), "the program answered {answer}");
    }
    Ok(())
}

/// Lets the program run until it ends; notes each function when it is first called.
fn follow(pid: Pid, aworker: &Path, symbols: &Symbols, touched: &mut Touched) -> Result<()> {
    let mut originals = BTreeMap::new();
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)).context("wait for the program")? {
            WaitStatus::PtraceEvent(..) => {
                // Before it is the program it is the shell.
                if fs::read_link(format!("/proc/{pid}/exe"))? == aworker {
                    originals = set_breakpoints(pid, symbols)?;
                }
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let address = clear_breakpoint(pid, &originals)?;
                let name = symbols.name_at(address).context("a breakpoint has a function")?;
                let number = touched.len();
                touched.entry(name).or_insert(number);
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            WaitStatus::Exited(..) => return Ok(()),
            WaitStatus::Signaled(_, signal, _) => bail!("the program was killed by {signal}"),
            _ => {}
        }
    }
}
