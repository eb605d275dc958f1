//! The command line as types. Flags have runc's names where runc has them.
//!
//! This file has the globals and the small verbs; `process`, `update` and `seed` have the large ones.

mod pool;
mod process;
mod quick;
mod seed;
#[cfg(test)]
mod tests;
mod update;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use turf_core::container::CgroupManager;

use crate::log::{Log, LogFormat};

pub use pool::parse_config as parse_pool_config;
pub use pool::{Pool, PoolEvents, PoolList, PoolLogs, PoolRun, PoolScale, PoolSend, PoolStatus};
pub use process::{Create, Exec, Run, Start};
pub use seed::{Seed, SeedList, SeedPromote, SeedStart};
pub use update::Update;

/// Printed by `--version`: the first line as runc prints it, then the specification's version.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// An OCI runtime whose containers are already warm.
#[derive(Debug, Parser)]
#[command(name = "turf", version = VERSION, disable_version_flag = true)]
#[command(override_usage = "turf [OPTIONS] <COMMAND>")]
pub struct Arguments {
    /// What is asked for before the verb.
    #[command(flatten)]
    pub globals: Globals,
    /// Print the version.
    #[arg(long, short = 'v', short_alias = 'V', action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags that stand before the verb.
#[derive(Debug, Args)]
pub struct Globals {
    /// State directory [default: /run/turf for root, else $XDG_RUNTIME_DIR/turf].
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File to append log lines to; errors also go to stderr.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Log more than warnings and errors.
    #[arg(long)]
    pub debug: bool,
    /// Let systemd make the control groups; the same as --cgroup-manager systemd.
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes the control groups.
    #[arg(long, value_enum, value_name = "MANAGER")]
    pub cgroup_manager: Option<Manager>,
    /// Whether a container may go without control groups that may not be written.
    #[arg(long, value_enum, default_value_t = Rootless::Auto)]
    pub rootless: Rootless,
    /// Ignored: checkpoint and restore are not supported.
    #[arg(long, hide = true, value_name = "PROGRAM")]
    criu: Option<PathBuf>,
}

impl Globals {
    /// Who makes the control groups: what is said last, as flags go, is not known, so the clearer flag wins.
    pub fn cgroup_manager(&self) -> CgroupManager {
        match (self.cgroup_manager, self.systemd_cgroup) {
            (Some(Manager::Systemd), _) | (None, true) => CgroupManager::Systemd,
            (Some(Manager::Disabled), _) => CgroupManager::Disabled,
            (Some(Manager::Cgroupfs), _) | (None, false) => CgroupManager::Cgroupfs,
        }
    }
}

/// Who makes the control groups, with crun's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manager {
    /// Turf itself.
    Cgroupfs,
    /// systemd.
    Systemd,
    /// Nobody: there are none.
    Disabled,
}

/// The values of `--rootless`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Control groups that may not be written are left out.
    True,
    /// They are an error.
    False,
    /// As `true` for everybody but root.
    Auto,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a config.json to start from.
    Spec(Spec),
    /// Create a container: its sandbox stands, its program does not run yet.
    Create(Create),
    /// Start a created container.
    Start(Start),
    /// Create and start a container, and wait for its end.
    Run(Run),
    /// Run another program in a container.
    Exec(Exec),
    /// Print the state of a container as JSON.
    State(One),
    /// Send a signal to a container.
    Kill(Kill),
    /// Delete a stopped container.
    Delete(Delete),
    /// List containers.
    List(List),
    /// List the processes of a container.
    Ps(Ps),
    /// Print what a container uses, and when it runs out of memory, as JSON.
    Events(Events),
    /// Stop all processes of a container where they are.
    Pause(One),
    /// Let the processes of a paused container go on.
    Resume(One),
    /// Change the limits of a container.
    Update(Update),
    /// Start, list and stop seeds: the warm processes that workers are forked from.
    #[command(subcommand)]
    Seed(Seed),
    /// Run a script or a bundle with as many workers as are needed, on one port.
    #[command(subcommand)]
    Pool(Box<Pool>),
    /// Print what this runtime supports as JSON.
    Features,
    /// Refused: the processes of a container cannot be saved.
    Checkpoint(Unsupported),
    /// Refused: the processes of a container cannot be brought back.
    Restore(Unsupported),
}

impl Command {
    /// Whether it reads a file that is named by a descriptor of the caller.
    pub fn reads_inherited(&self) -> bool {
        let file = match self {
            Command::Create(create) => create.config.as_deref(),
            Command::Run(run) => run.create.config.as_deref(),
            Command::Exec(exec) => exec.process.as_deref(),
            Command::Update(update) => update.resources.as_deref(),
            _ => None,
        };
        file.is_some_and(|file| file.starts_with("/dev/fd") || file.starts_with("/proc/self/fd"))
    }
}

/// A verb that takes nothing but an id.
#[derive(Debug, Args)]
pub struct One {
    /// The container.
    pub id: String,
}

/// A verb that is refused whatever it is given, so that the reason is not an unknown flag.
#[derive(Debug, Args)]
pub struct Unsupported {
    /// Whatever runc takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

/// `turf spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Where to write it, if not to config.json in the bundle's directory.
    #[arg(long, short, value_name = "FILE", conflicts_with = "bundle")]
    pub file: Option<PathBuf>,
    /// For an unprivileged user, whose id is the only one that is mapped.
    #[arg(long)]
    pub rootless: bool,
    /// For a worker instead of a program.
    #[arg(long)]
    pub worker: bool,
}

/// `turf kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal every process of the container, not only its init.
    #[arg(long, short)]
    pub all: bool,
    /// The container.
    pub id: String,
    /// Name or number; 0 only asks whether it could be sent.
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// `turf delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill the container first if it runs; an unknown id is no error.
    #[arg(long, short)]
    pub force: bool,
    /// The container.
    pub id: String,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// `turf list`.
#[derive(Debug, Args)]
pub struct List {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print only the ids.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `turf ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The container.
    pub id: String,
    /// Options of ps(1), which is then asked for the columns.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTIONS")]
    pub options: Vec<OsString>,
}

/// `turf events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Time between two statistics, like 5s or 200ms.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub interval: String,
    /// Print the statistics once.
    #[arg(long)]
    pub stats: bool,
    /// The container.
    pub id: String,
}

/// The log that a command line asks for which was not understood as a whole.
pub fn log_of_unparsed(given: &[OsString]) -> Log {
    let value = |name: &str| {
        let mut rest = given.iter();
        while let Some(argument) = rest.next() {
            let Some(text) = argument.to_str() else { continue };
            if text == name {
                return rest.next().cloned();
            }
            if let Some(value) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(OsString::from(value));
            }
        }
        None
    };
    let json = value("--log-format").is_some_and(|format| format == "json");
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    Log::new(value("--log").map(PathBuf::from), format, false)
}
