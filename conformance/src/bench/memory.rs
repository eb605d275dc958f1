//! What an idle worker weighs: `smaps_rollup` and page tables (proc(5)), of workers and of their inits.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::BenchArgs;
use super::series::Report;
use crate::case::Case;
use crate::host;
use crate::http::Client;
use crate::tests::{HELLO, seed_pid, worker_of};

/// Requests that each worker answers before it is measured again.
const REQUESTS: usize = 100;

/// Several workers of one seed, idle, then after some requests.
pub fn workers(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    weigh(report, "seed", seed_pid(case, "default")?)?;
    let mut workers = Vec::new();
    for _ in 0..arguments.workers {
        let container = case.create(&bundle)?;
        weigh(report, "init of a created container", container.pid)?;
        let address = case.start_listening(&container)?;
        workers.push((container, address));
    }
    for (container, _) in &workers {
        weigh(report, "init of a running worker", container.pid)?;
        weigh(report, "worker, idle, no request yet", worker_of(container)?)?;
    }
    for (container, address) in &workers {
        let mut client = Client::connect(*address)?;
        (0..REQUESTS).try_for_each(|_| client.get("/").map(drop))?;
        weigh(report, "worker, after 100 requests", worker_of(container)?)?;
    }
    workers.iter().try_for_each(|(container, _)| case.remove(container))
}

fn weigh(report: &mut Report, who: &str, pid: i32) -> Result<()> {
    let rollup = |name: &str| host::kilobytes(pid, "smaps_rollup", name);
    let private = rollup("Private_Clean")? + rollup("Private_Dirty")?;
    let tables = host::kilobytes(pid, "status", "VmPTE")?;
    let mut add =
        |what: &str, value: u64| report.add("Memory", &format!("{who}: {what}"), "kB", value as f64);
    add("PSS", rollup("Pss")?);
    add("private", private);
    add("page tables", tables);
    // init runs from memory of its own; whatever of it is not mapped stands here too.
    let program = fs::metadata(format!("/proc/{pid}/exe"))?;
    if fs::read_link(format!("/proc/{pid}/exe"))?.to_string_lossy().starts_with("/memfd:") {
        add("its program's file in memory", program.blocks() / 2);
    }
    Ok(())
}
