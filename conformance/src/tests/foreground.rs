//! What is passed on between a container and its caller while the caller waits: a terminal, and what a service says of
//! itself (sd_notify(3)).

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::worker::HELLO;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, wait};

tests! { "foreground";
    Turf:
        a_terminal_without_a_console_socket_is_the_callers,
        exec_has_the_callers_terminal_if_asked,
        the_terminal_has_the_callers_size_and_the_caller_gets_its_mode_back,
        start_returns_when_the_service_is_ready,
        start_returns_when_the_service_ends_without_a_word,
        run_passes_on_what_the_service_says,
        a_worker_is_ready_when_it_runs,
        without_a_service_manager_there_is_no_socket;
}

fn a_terminal_without_a_console_socket_is_the_callers(case: &mut Case) -> Result<()> {
    let mut bundle =
        case.shell("test -t 0 && test -t 1 && echo terminal; read word; echo got $word; exit 5")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let input = case.directory().join("input");
    fs::write(&input, "word\n")?;
    let id = case.id("terminal");
    let run = ["run", "--bundle", text(&bundle.path)?, &id];
    let finished = case.runtime.spawn(&run, Some(File::open(&input)?.into()))?.finish()?.exited(5)?;
    let lines = finished.lines();
    ensure!(lines.contains(&"terminal") && lines.contains(&"got word"), "{finished}");
    Ok(())
}

fn exec_has_the_callers_terminal_if_asked(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exec sleep 1000")?;
    let container = case.start(&bundle)?;
    let script = "test -t 0 && test -t 1 && echo terminal; seq 3000; exit 6";
    let exec = ["exec", "--tty", &container.id, "/bin/sh", "-c", script];
    let finished = case.runtime.call(&exec)?.exited(6)?;
    // Nothing is lost at the end.
    let lines = finished.lines();
    ensure!(lines.len() == 3001 && lines[0] == "terminal" && lines[3000] == "3000", "{} lines", lines.len());
    case.remove(&container)
}

fn the_terminal_has_the_callers_size_and_the_caller_gets_its_mode_back(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("busybox stty size")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let id = case.id("size");
    let (before, after) = (case.directory().join("before"), case.directory().join("after"));
    let script = format!(
        "stty rows 33 cols 44; stty -a > {}; {} --root {} run --bundle {} {id}; stty -a > {}",
        before.display(),
        text(case.runtime.program())?,
        text(case.runtime.root())?,
        text(&bundle.path)?,
        after.display()
    );
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &script, "/dev/null"]);
    let files = case.directory().join("script");
    // At the end of its input script(1) writes to the terminal what ends it, as if it had been typed.
    let (input, _open) = std::io::pipe()?;
    let script = crate::runtime::begin(command, "script".to_owned(), &files, Some(input.into()), None)?;
    let finished = script.finish()?.success()?;
    ensure!(finished.lines().contains(&"33 44"), "{finished}");
    ensure!(fs::read(&before)? == fs::read(&after)?, "the terminal's mode has changed");
    Ok(())
}

/// The service manager's end, which the runtime gets to know by its environment.
fn manager(case: &mut Case) -> Result<UnixDatagram> {
    let path = case.directory().join("manager");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(wait::STEP))?;
    let variable = format!("NOTIFY_SOCKET={}", text(&path)?);
    case.runtime.run_through(&["env", &variable]);
    Ok(socket)
}

fn heard(manager: &UnixDatagram) -> Result<String> {
    let mut said = [0; 4096];
    let length = manager.recv(&mut said).context("hear from the runtime")?;
    Ok(String::from_utf8_lossy(&said[..length]).into_owned())
}

/// Says something as the service does, at the socket that the container sees; once somebody listens there.
fn say(pid: i32, words: &str) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/root/run/notify/notify.sock"));
    let socket = UnixDatagram::unbound()?;
    let end = Instant::now() + wait::STEP;
    while let Err(error) = socket.send_to(words.as_bytes(), &path) {
        ensure!(Instant::now() < end, "{}: {error}", path.display());
    }
    Ok(())
}

fn start_returns_when_the_service_is_ready(case: &mut Case) -> Result<()> {
    let manager = manager(case)?;
    let bundle = case.shell("echo $NOTIFY_SOCKET; exec sleep 1000")?;
    let (container, mut output) = case.create_piped(&bundle)?;
    let start = case.runtime.spawn(&["start", &container.id], None)?;
    say(container.pid, "STATUS=warm\nMAINPID=1")?;
    ensure!(heard(&manager)? == "STATUS=warm");
    let ended = host::field(start.pid(), "status", "State").is_ok_and(|state| state.starts_with('Z'));
    ensure!(!ended, "start did not wait");
    say(container.pid, "READY=1\nMAINPID=1\n")?;
    start.finish()?.success()?;
    ensure!(heard(&manager)? == format!("READY=1\nMAINPID={}", container.pid));
    // The service has spoken through this test, so its program may have come less far.
    let printed = wait::line(&mut output, wait::STEP)?;
    ensure!(printed == "/run/notify/notify.sock", "{printed}");
    case.remove(&container)
}

fn start_returns_when_the_service_ends_without_a_word(case: &mut Case) -> Result<()> {
    let _manager = manager(case)?;
    let bundle = case.shell("exit 3")?;
    let container = case.create(&bundle)?;
    let start = case.runtime.spawn(&["start", &container.id], None)?;
    start.finish()?.success()?;
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn run_passes_on_what_the_service_says(case: &mut Case) -> Result<()> {
    let manager = manager(case)?;
    let bundle = case.shell("trap 'exit 143' TERM; echo up; sleep 1000 & wait")?;
    bundle.write()?;
    let (id, pid_file) = (case.id("run"), case.directory().join("pid"));
    let (mut output, writer) = std::io::pipe()?;
    let run = ["run", "--pid-file", text(&pid_file)?, "--bundle", text(&bundle.path)?, &id];
    let running = case.runtime.spawn_with(&run, None, Some(writer.into()))?;
    wait::line(&mut output, wait::STEP)?;
    let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
    for words in ["READY=1", "WATCHDOG=1", "STATUS=a\nSTATUS=b"] {
        say(pid, words)?;
        ensure!(heard(&manager)? == words);
    }
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM)?;
    running.finish()?.exited(143).map(drop)
}

fn a_worker_is_ready_when_it_runs(case: &mut Case) -> Result<()> {
    let manager = manager(case)?;
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    case.start_listening(&container)?;
    ensure!(heard(&manager)? == format!("READY=1\nMAINPID={}", container.pid));
    case.remove(&container)
}

fn without_a_service_manager_there_is_no_socket(case: &mut Case) -> Result<()> {
    let finished = case.run_shell("echo \"<$NOTIFY_SOCKET>\"; ls /run")?;
    ensure!(finished.lines() == ["<>"], "{finished}");
    Ok(())
}
