//! `turf pool`: runs a supervisor, or asks one.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use serde_json::Value;
use turf_core::pool::{PoolConfig, PoolName, Supervisor, client, place};
use turf_core::root::{ContainerId, StateRoot, create_private_dir_all};
use turf_core::sys::fd;

use crate::command::{
    Format, Pool, PoolEvents, PoolList, PoolLogs, PoolRun, PoolScale, PoolSend, parse_pool_config,
};

/// How long a pool in the background may take until it serves: it may have to make a seed.
const SERVES_WITHIN: Duration = Duration::from_secs(90);

/// Between two looks at a pool that is being started or reloaded, or at a log that is followed.
const POLL: Duration = Duration::from_millis(50);

/// Runs a verb on pools.
pub fn run(root: &StateRoot, pool: Pool) -> Result<u8> {
    let inherited = pool.inherited();
    match pool {
        Pool::Run(run) => supervise(root, &run, inherited)?,
        Pool::Ls(list) => self::list(root, &list)?,
        Pool::Status(status) => super::pool_status::run(root, &status)?,
        Pool::Scale(scale) => self::scale(root, &scale)?,
        Pool::Reload(one) => reload(root, &one.name.parse()?)?,
        Pool::Drain(one) => end(root, &one.name.parse()?, "POST /drain")?,
        Pool::Stop(one) => end(root, &one.name.parse()?, "POST /stop")?,
        Pool::Release(one) => end(root, &one.name.parse()?, "POST /release")?,
        Pool::Rm(one) => place::remove_ended(root, &one.name.parse()?)?,
        Pool::Send(send) => self::send(root, &send)?,
        Pool::Events(events) => self::events(root, &events)?,
        Pool::Logs(logs) => self::logs(root, &logs)?,
    }
    Ok(0)
}

fn supervise(root: &StateRoot, run: &PoolRun, inherited: u32) -> Result<()> {
    let mut options = run.options();
    if let Some(path) = &run.config {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut file = parse_pool_config(&text).with_context(|| path.display().to_string())?;
        // A path in the file is relative to the file.
        if let (Some(source), Some(directory)) = (&mut file.source, path.parent()) {
            *source = directory.join(&*source);
        }
        options = options.or(file);
    }
    let sockets: Vec<OwnedFd> = (3..3 + i32::try_from(inherited)?)
        .map(|number| fd::take_inherited(number).with_context(|| format!("take descriptor {number}")))
        .collect::<Result<_>>()?;
    let config = PoolConfig::resolve(&options, !sockets.is_empty())?;
    if run.detach {
        ensure!(
            sockets.is_empty(),
            "--detach: cannot go with LISTEN_FDS; the service manager is in the background"
        );
        return detach(root, &config.name);
    }
    let log = match (&options.log_file, run.daemon) {
        (Some(path), _) => Some(path.clone()),
        (None, true) => Some(log_file(root, &config.name)),
        (None, false) => None,
    };
    if run.daemon {
        setsid().context("begin a session")?;
    }
    let null = File::open("/dev/null").context("open /dev/null")?;
    dup2_stdin(&null).context("replace standard input")?;
    let supervisor = Supervisor::start(root, config, sockets)?;
    // Errors until here are for the caller.
    if let Some(path) = log {
        let log = File::options().append(true).create(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        dup2_stdout(log.as_fd()).context("replace standard output")?;
        dup2_stderr(log.as_fd()).context("replace standard error")?;
    }
    Ok(supervisor.run()?)
}

fn log_file(root: &StateRoot, name: &PoolName) -> PathBuf {
    place::all(root).join(name.as_str()).join("log")
}

/// Starts this program again in the background, and waits until its pool serves.
fn detach(root: &StateRoot, name: &PoolName) -> Result<()> {
    let directory = place::all(root).join(name.as_str());
    create_private_dir_all(&directory)?;
    let errors_path = directory.join("start.err");
    let errors = File::create(&errors_path).with_context(|| format!("create {}", errors_path.display()))?;
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.retain(|argument| argument != "--detach" && argument != "-d");
    let mut child = Command::new("/proc/self/exe")
        .args(&arguments)
        .arg("--daemon")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("start the supervisor")?;
    let deadline = Instant::now() + SERVES_WITHIN;
    loop {
        if client::ask(root, name, "GET /live").is_ok_and(|answer| answer.status == 200) {
            break;
        }
        if let Some(status) = child.try_wait().context("wait for the supervisor")? {
            let words = std::fs::read_to_string(&errors_path).unwrap_or_default();
            bail!(
                "{}",
                words.lines().last().map_or_else(|| format!("the supervisor ended: {status}"), last_words)
            );
        }
        if Instant::now() > deadline {
            child.kill().context("end the supervisor")?;
            child.wait().context("wait for the supervisor")?;
            bail!("the pool did not begin to serve within {} s", SERVES_WITHIN.as_secs());
        }
        std::thread::sleep(POLL);
    }
    let _ = std::fs::remove_file(&errors_path);
    super::print(&format!("{name}\n"))
}

/// The words of an error line of this program.
fn last_words(line: &str) -> String {
    line.split_once("level=error msg=").map_or(line, |(_, words)| words).trim_matches('"').to_owned()
}

fn ask(root: &StateRoot, name: &PoolName, request: &str) -> Result<String> {
    let answer = client::ask(root, name, request)?;
    ensure!(answer.status < 400, "pool {name}: {}", answer.body.trim());
    Ok(answer.body)
}

pub(super) fn ask_status(root: &StateRoot, name: &PoolName) -> Result<Value> {
    Ok(serde_json::from_str(&ask(root, name, "GET /status")?)?)
}

fn list(root: &StateRoot, list: &PoolList) -> Result<()> {
    let running: Vec<Value> =
        place::names(root)?.iter().filter_map(|name| ask_status(root, name).ok()).collect();
    match (list.quiet, list.format) {
        (true, _) => {
            super::print(&running.iter().map(|pool| format!("{}\n", text(&pool["name"]))).collect::<String>())
        }
        (false, Format::Json) => super::print(&format!("{}\n", serde_json::to_string(&running)?)),
        (false, Format::Table) => {
            let mut rows =
                vec![["NAME", "PID", "STATE", "WORKERS", "REQUESTS", "LISTEN"].map(str::to_owned).to_vec()];
            rows.extend(running.iter().map(|pool| {
                vec![
                    text(&pool["name"]),
                    text(&pool["pid"]),
                    text(&pool["state"]),
                    format!("{}/{}", pool["workers"].as_array().map_or(0, Vec::len), pool["max"]),
                    text(&pool["requests"]),
                    addresses(pool),
                ]
            }));
            super::print(&super::table(&rows))
        }
    }
}

/// A JSON value without quotes.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn addresses(pool: &Value) -> String {
    let all = pool["listen"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(text).collect::<Vec<_>>().join(",")
}

fn scale(root: &StateRoot, scale: &PoolScale) -> Result<()> {
    let name = scale.name.parse()?;
    let mut query = Vec::new();
    query.extend(scale.min.map(|min| format!("min={min}")));
    query.extend(scale.max.map(|max| format!("max={max}")));
    ensure!(!query.is_empty(), "--min or --max is required");
    super::print(&ask(root, &name, &format!("POST /scale?{}", query.join("&")))?)
}

fn send(root: &StateRoot, send: &PoolSend) -> Result<()> {
    let name: PoolName = send.name.parse()?;
    let request = match &send.to {
        // An id has no character that a query could not carry.
        Some(to) => format!("POST /send?to={}", to.parse::<ContainerId>()?),
        None => "POST /send".to_owned(),
    };
    let answer = client::ask_with(root, &name, &request, &send.message)?;
    ensure!(answer.status < 400, "pool {name}: {}", answer.body.trim());
    let sent: Value = serde_json::from_str(&answer.body)?;
    ensure!(sent["lost"] == 0, "pool {name}: {} workers had no room for the message", sent["lost"]);
    super::print(&format!("{}\n", sent["workers"]))
}

/// Asks for a reload and waits for its result.
fn reload(root: &StateRoot, name: &PoolName) -> Result<()> {
    ask(root, name, "POST /reload")?;
    loop {
        let seen = ask_status(root, name)?;
        match seen["reload"]["state"].as_str() {
            Some("done") => return super::print(&format!("generation {}\n", seen["reload"]["generation"])),
            Some("failed") => bail!("pool {name}: reload failed: {}", text(&seen["reload"]["error"])),
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Asks for the end and waits until the supervisor has gone.
fn end(root: &StateRoot, name: &PoolName, request: &str) -> Result<()> {
    ask(root, name, request)?;
    while client::ask(root, name, "GET /live").is_ok() {
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn events(root: &StateRoot, events: &PoolEvents) -> Result<()> {
    let name: PoolName = events.name.parse()?;
    if events.follow {
        let request = format!("GET /events?after={}&follow", events.after);
        let print = |line: &str| {
            super::print(&format!("{line}\n"))
                .map_err(|error| turf_core::Error::invalid("standard output", error.to_string()))
        };
        return Ok(client::follow(root, &name, &request, print)?);
    }
    match client::ask(root, &name, &format!("GET /events?after={}", events.after)) {
        Ok(answer) => super::print(&answer.body),
        // A pool that has ended tells what happened by its file.
        Err(error) => {
            let path = place::all(root).join(name.as_str()).join("events.jsonl");
            let kept = std::fs::read_to_string(path).map_err(|_| error)?;
            super::print(&kept)
        }
    }
}

fn logs(root: &StateRoot, logs: &PoolLogs) -> Result<()> {
    let name: PoolName = logs.name.parse()?;
    let path = log_file(root, &name);
    let mut file = open_log(&path, &name)?;
    let mut output = std::io::stdout().lock();
    loop {
        std::io::copy(&mut file, &mut output).context("print the log")?;
        output.flush().context("print the log")?;
        if !logs.follow {
            return Ok(());
        }
        std::thread::sleep(POLL);
        // A log that was cut begins anew.
        let length = file.metadata().context("read the log")?.len();
        if length < file.stream_position().context("read the log")? {
            file.seek(SeekFrom::Start(0)).context("read the log")?;
        }
    }
}

fn open_log(path: &Path, name: &PoolName) -> Result<File> {
    File::open(path).with_context(|| {
        format!("pool {name}: no log; only a detached pool has one, others print to where they were started")
    })
}
