//! The command line as types. Flags have runc's names where runc has them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::log::{Log, LogFormat};

/// Printed by `--version`: the first line as runc prints it, then the specification's version.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// An OCI runtime whose containers are already warm.
#[derive(Debug, Parser)]
#[command(name = "turf", version = VERSION, disable_help_subcommand = true)]
#[command(override_usage = "turf [OPTIONS] <COMMAND>")]
pub struct Arguments {
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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
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
    /// Stop all processes of a container where they are.
    Pause(One),
    /// Let the processes of a paused container go on.
    Resume(One),
    /// Change the limits of a container.
    Update(Update),
    /// Start, list and stop seeds: the warm processes that workers are forked from.
    #[command(subcommand)]
    Seed(Seed),
    /// Print what this runtime supports as JSON.
    Features,
}

/// A verb that takes nothing but an id.
#[derive(Debug, Args)]
pub struct One {
    /// The container.
    pub id: String,
}

/// `turf spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a worker instead of a program.
    #[arg(long)]
    pub worker: bool,
}

/// `turf create`, and the first half of `turf run`.
#[derive(Debug, Args)]
pub struct Create {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// File to write init's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that receives the master of the container's terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Let the container inherit this many descriptors from 3 up, besides those of LISTEN_FDS.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Refused: the root is always entered by pivot_root(2).
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Print the compiled plan and create nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The container's id.
    pub id: String,
}

/// What a container inherits from 3 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// How many descriptors in all.
    pub count: u32,
    /// How many of them, the first ones, are listening sockets.
    pub listen: u32,
}

/// Most descriptors a container may inherit. The number comes from the caller and costs a table entry
/// each; nobody has been seen to pass more than a handful.
const MAX_INHERITED: u32 = 1024;

impl Create {
    /// The descriptors to keep open: those of sd_listen_fds(3), if they are meant for this process,
    /// then those of `--preserve-fds`.
    pub fn inherited(&self) -> Inherited {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        inherited(number("LISTEN_PID"), number("LISTEN_FDS"), std::process::id(), self.preserve_fds)
    }
}

fn inherited(listen_pid: Option<u32>, listen_fds: Option<u32>, own_pid: u32, preserve: u32) -> Inherited {
    let listen = if listen_pid == Some(own_pid) { listen_fds.unwrap_or(0) } else { 0 };
    let count = listen.saturating_add(preserve).min(MAX_INHERITED);
    Inherited { count, listen: listen.min(count) }
}

/// `turf start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Open a listener here and hand it to the worker: tcp://ADDR:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// The container.
    pub id: String,
}

/// `turf run`.
#[derive(Debug, Args)]
pub struct Run {
    /// How it is created.
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the container's end.
    #[arg(long, short)]
    pub detach: bool,
    /// Open a listener here and hand it to the worker: tcp://ADDR:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Do not delete the container after its end.
    #[arg(long)]
    pub keep: bool,
}

/// `turf exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// File that holds `process` of a config.json; in place of the container's own process.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = CHANGES)]
    pub process: Option<PathBuf>,
    /// Working directory in the container.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable, in addition to the container's.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// User, and group, by number.
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Supplementary groups in addition to the container's.
    #[arg(long, short = 'g', value_name = "GID", value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// Capabilities in addition to the container's.
    #[arg(long, short, value_name = "CAP", value_delimiter = ',')]
    pub cap: Vec<String>,
    /// Forbid gaining privileges by executing programs.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Give the process a terminal; needs --console-socket.
    #[arg(long, short)]
    pub tty: bool,
    /// Do not wait for the process's end.
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that receives the master of the process's terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Let the process inherit this many descriptors from 3 up.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The container.
    pub id: String,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "process")]
    pub command: Vec<String>,
}

/// The flags that change the container's own process.
const CHANGES: [&str; 7] = ["cwd", "env", "user", "additional_gids", "cap", "no_new_privs", "command"];

impl Exec {
    /// How many descriptors from 3 up to keep open.
    pub fn inherited(&self) -> u32 {
        self.preserve_fds.min(MAX_INHERITED)
    }
}

/// `turf kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal every process of the container, not only its init.
    #[arg(long, short)]
    pub all: bool,
    /// The container.
    pub id: String,
    /// Name or number.
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
}

/// `turf update`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("limits").required(true).multiple(true)))]
pub struct Update {
    /// File that holds `linux.resources` of a config.json; `-` reads standard input.
    #[arg(long, short, value_name = "FILE", group = "limits", conflicts_with_all = FLAGS_OF_LIMITS)]
    pub resources: Option<PathBuf>,
    /// Memory in bytes, like 64m; -1: no limit.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory and swap together in bytes; -1: no limit.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory in bytes that is reclaimed last.
    #[arg(long, value_name = "BYTES", group = "limits", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Weight of the CPU time, relative to others.
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES", group = "limits")]
    pub cpu_share: Option<u64>,
    /// Microseconds of CPU time in each period; -1: no limit.
    #[arg(long, value_name = "MICROSECONDS", group = "limits", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    #[arg(long, value_name = "MICROSECONDS", group = "limits")]
    pub cpu_period: Option<u64>,
    /// CPUs, like 0-3,7.
    #[arg(long, value_name = "LIST", group = "limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, like 0-1.
    #[arg(long, value_name = "LIST", group = "limits")]
    pub cpuset_mems: Option<String>,
    /// Most processes; -1: no limit.
    #[arg(long, value_name = "N", group = "limits", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container.
    pub id: String,
}

/// The flags of `turf update` that say one limit each.
const FLAGS_OF_LIMITS: [&str; 9] = [
    "memory",
    "memory_swap",
    "memory_reservation",
    "cpu_share",
    "cpu_quota",
    "cpu_period",
    "cpuset_cpus",
    "cpuset_mems",
    "pids_limit",
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn engines_command_lines_are_understood() {
        for line in [
            "turf --log-format=json --log /l create --bundle /b --pid-file /p --console-socket /s ID",
            "turf --root /r --log /l --log-format json create --bundle /b --pid-file /p ID",
            "turf create --bundle /b --pid-file /p --preserve-fds 1 ID",
            "turf start ID",
            "turf delete --force ID",
            "turf kill ID 15",
            "turf kill --all ID 9",
            "turf kill ID",
            "turf ps --format json ID",
            "turf list --format json",
            "turf list -q",
            "turf start --listen tcp://127.0.0.1:0,unix:///a --listen tcp://[::1]:1 ID",
            "turf run --detach --keep --bundle /b ID",
            "turf seed start web --script /w.js",
            "turf exec --pid-file /p --process /f --detach --tty --console-socket /s ID",
            "turf exec --process /f --console-socket /s --detach --pid-file /p ID",
            "turf exec --cwd / --env A=b -e C=d --user 1:2 --cap CAP_KILL ID sh -c x",
            "turf exec ID ls -l --all",
            "turf update --resources - ID",
            "turf update --resources=- ID",
            "turf update --memory 64m --memory-swap -1 --cpu-shares 7 --pids-limit -1 ID",
            "turf features",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "turf",
            "turf create",
            "turf fly",
            "turf state",
            "turf exec ID",
            "turf update ID",
            "turf update -r - --memory 5 ID",
            "turf exec --process /f ID ls",
            "turf --log-format xml state a",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn listening_sockets_count_only_if_they_are_ours() {
        assert_eq!(inherited(None, None, 7, 0), Inherited { count: 0, listen: 0 });
        assert_eq!(inherited(Some(7), Some(2), 7, 1), Inherited { count: 3, listen: 2 });
        assert_eq!(inherited(Some(1), Some(2), 7, 1), Inherited { count: 1, listen: 0 });
        assert_eq!(inherited(None, Some(2), 7, 0), Inherited { count: 0, listen: 0 });
        let all = inherited(Some(7), Some(u32::MAX), 7, u32::MAX);
        assert_eq!(all, Inherited { count: MAX_INHERITED, listen: MAX_INHERITED });
    }

    #[test]
    fn the_log_is_found_on_a_line_that_is_not_understood() {
        let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for text in ["turf --log /l --log-format json fly", "turf --log=/l --log-format=json create"] {
            let log = log_of_unparsed(&line(text));
            assert_eq!(log, Log::new(Some("/l".into()), LogFormat::Json, false), "{text}");
        }
        assert_eq!(log_of_unparsed(&line("turf fly --log")), Log::new(None, LogFormat::Text, false));
    }
}
