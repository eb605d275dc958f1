//! `events`: statistics and lack of memory, in the JSON that runc prints.

use std::io::pipe;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::worker::HELLO;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{http, wait};

tests! { "events";
    Turf:
        statistics_are_those_of_the_container,
        statistics_come_at_each_interval_until_the_end,
        a_lack_of_memory_is_told,
        a_workers_statistics_are_its_own,
        a_container_that_does_not_live_is_refused,
        an_interval_that_is_none_is_refused;
}

const SLEEPER: &str = "echo up; exec sleep 1000";

fn statistics_are_those_of_the_container(case: &mut Case) -> Result<()> {
    let mut bundle =
        case.shell("i=0; while test $i -lt 20000; do i=$((i+1)); done; echo up; exec sleep 1000")?;
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    let (container, mut output) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    wait::line(&mut output, wait::STEP)?;
    let printed = case.runtime.ok(&["events", "--stats", &container.id])?;
    // runc's order, which its own tests look for as text.
    let begin = format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", container.id);
    ensure!(printed.stdout.starts_with(&begin), "{printed}");
    let event: Value = serde_json::from_str(&printed.stdout)?;
    ensure!(event["type"] == "stats" && event["id"] == container.id.as_str(), "{event}");
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).context(pointer.to_owned());
    ensure!(number("/data/pids/current")? == 1 && number("/data/pids/limit")? == 50, "{event}");
    ensure!(number("/data/memory/usage/limit")? == 64 << 20, "{event}");
    let used = number("/data/memory/usage/usage")?;
    ensure!((1..64 << 20).contains(&used), "{event}");
    let time_ns = number("/data/cpu/usage/total")?;
    ensure!((100_000..60_000_000_000).contains(&time_ns), "{event}");
    case.remove(&container)
}

fn statistics_come_at_each_interval_until_the_end(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    let container = case.start(&bundle)?;
    let (mut reader, writer) = pipe()?;
    let events = ["events", "--interval", "20ms", &container.id];
    let running = case.runtime.spawn_with(&events, None, Some(writer.into()))?;
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&wait::line(&mut reader, wait::STEP)?)?;
        ensure!(event["type"] == "stats", "{event}");
    }
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    case.wait(&container)?;
    running.finish()?.success()?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn a_lack_of_memory_is_told(case: &mut Case) -> Result<()> {
    // The shell begins when a line comes; what it starts then takes more memory than there is.
    let mut bundle = case
        .shell("echo up; read line < /fifo; dd if=/dev/zero of=/dev/null bs=64M count=1; exec sleep 1000")?;
    bundle.set("/linux/resources/memory", json!({"limit": 16 << 20, "swap": 16 << 20}));
    let mut fifo = case.fifo(&bundle.inside("/fifo"))?;
    let container = case.start(&bundle)?;
    let (mut reader, writer) = pipe()?;
    let events = ["events", "--interval", "5ms", &container.id];
    let running = case.runtime.spawn_with(&events, None, Some(writer.into()))?;
    // The watch is there when the first statistics come.
    wait::line(&mut reader, wait::STEP)?;
    std::io::Write::write_all(&mut fifo, b"go\n")?;
    loop {
        let event: Value = serde_json::from_str(&wait::line(&mut reader, wait::STEP)?)?;
        if event["type"] == "oom" {
            ensure!(event["id"] == container.id.as_str(), "{event}");
            break;
        }
    }
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    case.wait(&container)?;
    running.finish()?.success()?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn a_workers_statistics_are_its_own(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    bundle.set("/linux/resources/memory", json!({"limit": 256 << 20}));
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let printed = case.runtime.ok(&["events", "--stats", &container.id])?;
    let event: Value = serde_json::from_str(&printed.stdout)?;
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).context(pointer.to_owned());
    // init and the worker; what the worker shares with its seed is charged to the seed.
    ensure!(number("/data/pids/current")? == 2, "{event}");
    ensure!((1..32 << 20).contains(&number("/data/memory/usage/usage")?), "{event}");
    ensure!(number("/data/cpu/usage/total")? > 0, "{event}");
    case.remove(&container)
}

fn a_container_that_does_not_live_is_refused(case: &mut Case) -> Result<()> {
    case.runtime.refused(&["events", "--stats", "nobody"], &["does not exist"])?;
    let bundle = case.shell("exit 0")?;
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    for flags in [&["events", "--stats"][..], &["events"]] {
        case.runtime.refused(&[flags, &[&container.id]].concat(), &["stopped"])?;
    }
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn an_interval_that_is_none_is_refused(case: &mut Case) -> Result<()> {
    let bundle = case.shell(SLEEPER)?;
    bundle.write()?;
    let id = case.id("interval");
    case.runtime.ok(&["create", "--bundle", text(&bundle.path)?, &id])?;
    for interval in ["0", "0s", "5", "soon", "-1s"] {
        case.runtime.refused(&["events", &format!("--interval={interval}"), &id], &["--interval"])?;
    }
    case.runtime.ok(&["delete", "--force", &id])?;
    ensure!(wait::no_children(wait::STEP));
    Ok(())
}
