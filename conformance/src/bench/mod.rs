//! `conformance bench`: measures a Turf build from outside and prints tables of minimum, median and 99th percentile.
//!
//! The numbers belong to the machine and the moment: compare within one run, believe minima and instruction counts
//! before milliseconds.

mod churn;
mod counted;
mod crowd;
mod document;
mod goals;
mod load;
mod memory;
mod peers;
mod plots;
mod pool;
mod program;
mod resident;
mod scale;
mod seed_size;
mod series;
mod servers;
mod start;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::suite;
use series::Report;

/// What `conformance bench` understands.
#[derive(clap::Args)]
pub struct BenchArgs {
    /// The `turf` program to measure.
    #[arg(long)]
    runtime: PathBuf,
    /// How many containers are created and started one after the other.
    #[arg(long, default_value_t = 200)]
    starts: usize,
    /// How many seeds are started.
    #[arg(long, default_value_t = 20)]
    seeds: usize,
    /// How many idle workers share the machine when memory is measured.
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// How many rounds of load each server gets.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many requests the section `endurance` makes.
    #[arg(long, default_value_t = 3_000_000)]
    requests: u64,
    /// How many clients connect at once in the section `burst`.
    #[arg(long, default_value_t = 1000)]
    burst: usize,
    /// For how many seconds the section `churn` starts workers.
    #[arg(long, default_value_t = 10)]
    churn: u64,
    /// How many workers the pool of the section `crowd` has.
    #[arg(long, default_value_t = 1000)]
    crowd: usize,
    /// How many connections the section `pool-many` keeps.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Only sections whose name contains this text: seed, start, memory, scale, load, peers, pool, resident, burst,
    /// churn, crowd, connections, endurance, cold (may be given several times).
    #[arg(long)]
    only: Vec<String>,
    /// The directory where npm has installed bun, deno and workerd (see the section `load` in docs/performance.md).
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Write all samples to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Put goals, tables and pictures into this document, between its marks, and `plots/` beside it.
    #[arg(long)]
    document: Option<PathBuf>,
}

/// One section of the report.
struct Section {
    name: &'static str,
    measure: fn(&mut Case, &BenchArgs, &mut Report) -> Result<()>,
}

const SECTIONS: &[Section] = &[
    Section { name: "seed", measure: start::seeds },
    Section { name: "start", measure: start::containers },
    Section { name: "seed-size", measure: seed_size::starts },
    Section { name: "memory", measure: memory::workers },
    Section { name: "scale", measure: scale::workers },
    Section { name: "load", measure: load::requests },
    Section { name: "peers", measure: peers::programs },
    Section { name: "pool", measure: pool::beside_cluster },
    Section { name: "pool-zero", measure: pool::from_zero },
    Section { name: "resident", measure: resident::starts },
    Section { name: "burst", measure: resident::burst },
    Section { name: "churn", measure: churn::starts },
    Section { name: "crowd", measure: crowd::workers },
    Section { name: "pool-many", measure: crowd::connections },
    Section { name: "connections", measure: program::connections },
    Section { name: "endurance", measure: program::endurance },
    Section { name: "cold", measure: program::cold },
];

/// Measures, prints, and writes the samples.
pub fn run(arguments: &BenchArgs) -> Result<()> {
    suite::enter_private_world()?;
    let runtime = suite::admit(&arguments.runtime)?;
    let mut report = Report::new(machine());
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word.as_str()))
    };
    let mut failed = Vec::new();
    for (number, section) in SECTIONS.iter().filter(|section| wanted(section.name)).enumerate() {
        eprintln!("measuring: {}", section.name);
        let mut case = Case::new(&runtime, number)?;
        let measured = (section.measure)(&mut case, arguments, &mut report).and_then(|()| case.finish());
        if let Err(error) = measured {
            report.note(format!("the section {} is not complete: {error:#}", section.name));
            failed.push(section.name);
        }
    }
    println!("{report}");
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &arguments.document {
        document::write(&report, path)?;
    }
    ensure!(failed.is_empty(), "not complete: {}", failed.join(", "));
    Ok(())
}

/// What the machine is, in one line.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let model = information
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores of {}, Linux {}, load average {} at the beginning",
        model.unwrap_or("an unknown processor").trim(),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
