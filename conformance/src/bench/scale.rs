//! What more and more workers weigh together: the kernel's proportional shares (smaps(5), `Pss`) and page tables of
//! the seed, of all workers and of their inits.

use anyhow::Result;

use super::BenchArgs;
use super::series::Report;
use crate::case::Case;
use crate::host;
use crate::http;
use crate::tests::{HELLO, seed_pid, worker_of};

const SECTION: &str = "Memory over the number of workers";
/// How many workers there are when they are weighed.
const COUNTS: [usize; 7] = [1, 5, 10, 25, 50, 100, 200];
const KB_PER_MB: f64 = 1024.0;

/// Workers of one seed, each after one request.
pub fn workers(case: &mut Case, _arguments: &BenchArgs, report: &mut Report) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    case.runtime.ok(&["seed", "start", "default"])?;
    let mut pids = vec![seed_pid(case, "default")?];
    let mut containers = Vec::new();
    for count in COUNTS {
        while containers.len() < count {
            let (container, address) = case.serve(&bundle)?;
            http::get(address, "/")?;
            pids.extend([container.pid, worker_of(&container)?]);
            containers.push(container);
        }
        let (mut shares, mut private, mut tables) = (0, 0, 0);
        for pid in &pids {
            let rollup = |name: &str| host::kilobytes(*pid, "smaps_rollup", name);
            shares += rollup("Pss")?;
            private += rollup("Private_Clean")? + rollup("Private_Dirty")?;
            tables += host::kilobytes(*pid, "status", "VmPTE")?;
        }
        let mut add = |what: &str, kilobytes: u64| {
            report.add(SECTION, &format!("{count} workers: {what}"), "MB", kilobytes as f64 / KB_PER_MB);
        };
        add("everything", shares + tables);
        add("private memory", private);
        add("page tables", tables);
    }
    containers.iter().try_for_each(|container| case.remove(container))
}
