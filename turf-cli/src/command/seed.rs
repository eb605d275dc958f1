//! The command lines of `turf seed`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

/// `turf seed`.
#[derive(Debug, Subcommand)]
pub enum Seed {
    /// Start a seed and wait until it can be forked.
    Start(SeedStart),
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
    /// The seed.
    pub name: String,
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
