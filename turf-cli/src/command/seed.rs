//! The command lines of `turf seed`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use turf_core::pool::config::Milliseconds;

use super::Format;

/// `turf seed`.
#[derive(Debug, Subcommand)]
pub enum Seed {
    /// Start a seed and wait until it can be forked.
    Start(SeedStart),
    /// Put a fresh seed in the place of one, without losing a start; its workers live on.
    Replace(SeedReplace),
    /// Make a clone of a running worker the next seed of a name: with what it has loaded, compiled and remembered. The worker
    /// serves on; other workers are not touched.
    Promote(SeedPromote),
    /// List seeds.
    List(SeedList),
    /// Stop a seed; its workers live on.
    Stop(SeedStop),
}

/// `turf seed start`.
#[derive(Debug, Args)]
pub struct SeedStart {
    /// Run this script up to its `serialize` event; workers start at `deserialize`.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Run the script of this worker bundle in the same way; nothing else of the bundle counts.
    #[arg(long, short, value_name = "DIR", conflicts_with = "script")]
    pub bundle: Option<PathBuf>,
    /// Start from a snapshot that `aworker snapshot build` made; workers start at `deserialize`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["script", "bundle"])]
    pub snapshot: Option<PathBuf>,
    /// Replace the seed by a fresh one after it has forked this many workers.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_forks: Option<u64>,
    /// Replace the seed by a fresh one at the first start after this time (`90s`, `10m`, `24h`).
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<Milliseconds>,
    /// How long the script may take until the seed can be forked; a minute if nothing is said.
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Milliseconds>,
    /// The seed.
    pub name: String,
}

/// `turf seed replace`.
#[derive(Debug, Args)]
pub struct SeedReplace {
    /// The seed.
    pub name: String,
}

/// `turf seed promote`.
#[derive(Debug, Args)]
pub struct SeedPromote {
    /// The seed's name, which must be the one of the container's annotation `io.turf.promotable`; that one if nothing is said.
    #[arg(long)]
    pub name: Option<String>,
    /// The container.
    pub id: String,
}

/// `turf seed list`.
#[derive(Debug, Args)]
pub struct SeedList {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print only the names.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `turf seed stop`.
#[derive(Debug, Args)]
pub struct SeedStop {
    /// The seed.
    pub name: String,
}
