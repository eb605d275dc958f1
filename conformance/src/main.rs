//! `conformance`: tests and benchmarks that drive runtime programs from outside.
//!
//! It links none of the other crates, so nothing here can pass because both sides share a mistake, and its OCI
//! tests run against any runtime with runc's command line: `conformance run --runtime /usr/bin/crun --exec-only`.

mod attend;
mod bench;
mod bundle;
mod case;
mod clean;
mod clients;
mod host;
mod http;
mod known;
mod probe;
mod runtime;
mod suite;
mod tests;
mod wait;
mod wpt;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tests and benchmarks of OCI runtimes, from outside.
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the tests against a runtime program.
    Run(RunArgs),
    /// Runs podman and containerd with a runtime program below them.
    Clients(clients::ClientsArgs),
    /// Measures a Turf build and prints tables.
    Bench(bench::BenchArgs),
    /// Runs the web-platform-tests under a JavaScript runtime.
    Wpt(wpt::WptArgs),
}

/// What `conformance run` understands.
#[derive(clap::Args)]
struct RunArgs {
    /// The runtime program to test.
    #[arg(long)]
    runtime: PathBuf,
    /// Only tests whose name contains this text (may be given several times).
    #[arg(long)]
    only: Vec<String>,
    /// Only the tests that every OCI runtime must pass.
    #[arg(long)]
    exec_only: bool,
    /// Skip tests whose name contains this text (may be given several times).
    #[arg(long)]
    skip: Vec<String>,
    /// Print the names of the tests and stop.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Run(arguments) if arguments.list => suite::run(&arguments),
        Verb::Run(arguments) => attend::attended(|| suite::run(&arguments)),
        Verb::Clients(arguments) => clients::run(&arguments),
        Verb::Bench(arguments) => attend::attended(|| bench::run(&arguments).map(|()| ExitCode::SUCCESS)),
        Verb::Wpt(arguments) => wpt::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("conformance: {error:#}");
        ExitCode::FAILURE
    })
}
