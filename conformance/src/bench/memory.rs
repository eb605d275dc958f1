//! What a worker weighs: `smaps_rollup` and page tables (proc(5)) of workers and of their inits, and what the kernel has
//! counted for the container's control group.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use serde_json::json;

use super::BenchArgs;
use super::series::Report;
use crate::case::{Case, Container};
use crate::host;
use crate::http::Client;
use crate::tests::{HELLO, seed_pid, worker_of};

/// After how many requests a worker is weighed.
const REQUESTS: [usize; 3] = [1, 100, 10_000];

/// A script that makes garbage for each request: 64 MB of arrays, of which at most two live at a time.
const GARBAGE: &str = "addEventListener('fetch', (event) => {
    for (let i = 0; i < 2048; i++) globalThis.kept = new Array(8192).fill(i);
    event.respondWith(new Response('made'));
});\n";

/// Workers that make garbage.
const GARBAGE_WORKERS: usize = 2;

/// Several workers of one seed, idle, then after some requests.
pub fn workers(case: &mut Case, arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    // A limit, and with it a control group that counts.
    bundle.set("/linux/resources/memory", json!({"limit": 256 << 20}));
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
    let mut clients =
        workers.iter().map(|(_, address)| Client::connect(*address)).collect::<Result<Vec<_>>>()?;
    let mut answered = 0;
    for requests in REQUESTS {
        for client in &mut clients {
            (answered..requests).try_for_each(|_| client.get("/").map(drop))?;
        }
        answered = requests;
        let after =
            if requests == 1 { "after 1 request".to_owned() } else { format!("after {requests} requests") };
        for (container, _) in &workers {
            weigh(report, &format!("worker, {after}"), worker_of(container)?)?;
            weigh_container(report, &after, container)?;
        }
    }
    workers.iter().try_for_each(|(container, _)| case.remove(container))?;
    let bundle = case.worker(GARBAGE)?;
    let mut makers = Vec::new();
    for _ in 0..GARBAGE_WORKERS {
        let (container, address) = case.serve(&bundle)?;
        Client::connect(address)?.get("/")?;
        makers.push(container);
    }
    for container in &makers {
        weigh(report, "worker, after 64 MB of garbage", worker_of(container)?)?;
    }
    makers.iter().try_for_each(|container| case.remove(container))
}

/// All that exists for one container: what worker and init have for themselves, and what the kernel has counted: page tables,
/// stacks, sockets, descriptors (`memory.kmem.usage_in_bytes`, `kernel` of `memory.stat`). What belongs to no group
/// (namespaces) is not in it.
fn weigh_container(report: &mut Report, after: &str, container: &Container) -> Result<()> {
    let worker = worker_of(container)?;
    let private = |pid| -> Result<u64> {
        let rollup = |name: &str| host::kilobytes(pid, "smaps_rollup", name);
        Ok(rollup("Private_Clean")? + rollup("Private_Dirty")?)
    };
    let counted = host::cgroup_value(worker, "memory", "memory.kmem.usage_in_bytes", "memory.stat")?;
    let kernel_bytes = match counted.lines().find_map(|line| line.strip_prefix("kernel ")) {
        Some(bytes) => bytes.parse::<u64>()?,
        None => counted.parse()?,
    };
    let program = fs::metadata(format!("/proc/{}/exe", container.pid))?.blocks() / 2;
    let kernel = kernel_bytes >> 10;
    let all = private(worker)? + private(container.pid)? + program + kernel;
    report.add("Memory", &format!("container, {after}: kernel"), "kB", kernel as f64);
    report.add("Memory", &format!("container, {after}: all"), "kB", all as f64);
    Ok(())
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
