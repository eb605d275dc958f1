//! `conformance wpt`: runs the web-platform-tests under a JavaScript runtime.
//!
//! Nothing of the tests or of their harness is kept here. `--tests` names a checkout of web-platform-tests, or a part of
//! one; Debian's source package of nodejs holds a good part in `test/fixtures/wpt`. A checkout without the harness gets
//! it from the npm package `wpt-runner`. The tests that run are those for workers of any kind: `*.any.js`, their
//! variants, and `*.worker.js`. A small server hands out the files, so that relative URLs work; what needs a handler
//! written in Python is not served, unless `--own-server` starts the server that is part of a whole checkout.

mod harness;
mod outcome;
mod own_server;
mod plan;
mod server;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};

use outcome::{Outcome, Tally};
use plan::Plan;

/// What `conformance wpt` understands.
#[derive(clap::Args)]
pub struct WptArgs {
    /// The JavaScript runtime to test: a program with the command line of `aworker`.
    #[arg(long)]
    runtime: PathBuf,
    /// The web-platform-tests, or a part of them.
    #[arg(long)]
    tests: PathBuf,
    /// Start the server that is part of the tests, which runs their handlers and speaks TLS (needs python3 and openssl).
    #[arg(long)]
    own_server: bool,
    /// Print every subtest that does not pass, and why.
    #[arg(long)]
    verbose: bool,
    /// How many test files run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The share of subtests that must pass, in percent; otherwise the exit status is 1.
    #[arg(long, default_value_t = 0.0)]
    require: f64,
    /// Directories or files below the tests, for instance `url` or `dom/abort`.
    #[arg(required = true)]
    areas: Vec<String>,
}

/// Runs the tests of the areas and prints a table.
pub fn run(arguments: &WptArgs) -> Result<ExitCode> {
    let runtime = std::path::absolute(&arguments.runtime)?;
    let tests =
        arguments.tests.canonicalize().with_context(|| format!("open {}", arguments.tests.display()))?;
    let scratch = tempfile::tempdir().context("make a scratch directory")?;
    let harness = harness::find(&tests, scratch.path())?;
    let own = if arguments.own_server { Some(own_server::start(&tests, scratch.path())?) } else { None };
    let base = match &own {
        Some(own) => own.http.clone(),
        None => server::start(&tests)?,
    };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut total = Tally::default();
    for area in &arguments.areas {
        let plans = plan::collect(&tests, area)?;
        ensure!(!plans.is_empty(), "{area}: no test for workers below {}", tests.display());
        let room = harness::Room {
            runtime: &runtime,
            tests: &tests,
            harness: &harness,
            base: &base,
            own: own.as_ref(),
            scratch: scratch.path(),
        };
        let tally = tallies.entry(area).or_default();
        run_all(&room, plans, arguments.jobs.max(1), |plan, outcome| {
            outcome.print(&plan.title(), arguments.verbose);
            tally.add(&outcome);
            total.add(&outcome);
        });
    }
    println!("\n{:<44} {:>6} {:>7} {:>7} {:>8}", "area", "files", "passed", "failed", "%");
    for (area, tally) in &tallies {
        println!("{}", tally.row(area));
    }
    println!("{}", total.row("all"));
    Ok(if total.percent() < arguments.require { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs plans on some threads and hands the outcomes over in their order.
fn run_all(room: &harness::Room<'_>, plans: Vec<Plan>, jobs: usize, mut done: impl FnMut(&Plan, Outcome)) {
    let queue: Mutex<VecDeque<(usize, Plan)>> = Mutex::new(plans.into_iter().enumerate().collect());
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || {
                while let Some((index, plan)) = queue.lock().expect("no job panics").pop_front() {
                    let outcome = harness::run(room, index, &plan);
                    if sender.send((index, plan, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (index, plan, outcome) in receiver {
            early.insert(index, (plan, outcome));
            while let Some((plan, outcome)) = early.remove(&next) {
                done(&plan, outcome);
                next += 1;
            }
        }
    });
}
