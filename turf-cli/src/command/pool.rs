//! The command lines of `turf pool`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use turf_core::pool::PoolOptions;
use turf_core::pool::config::{Bytes, Dispatch, Disposable, Milliseconds};

use super::Format;

/// `turf pool`.
#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Run a pool: serve a script or a worker bundle on one port.
    Run(Box<PoolRun>),
    /// List pools.
    #[command(visible_alias = "list")]
    Ls(PoolList),
    /// Print what a pool does.
    Status(PoolStatus),
    /// Change how many workers a pool may have.
    Scale(PoolScale),
    /// Replace every worker by one of the script and configuration as they are now, and lose no request.
    Reload(PoolOne),
    /// End a pool when its workers have finished what they have begun.
    Drain(PoolOne),
    /// End a pool now: workers get SIGTERM.
    Stop(PoolOne),
    /// End the supervisor alone; the next `turf pool run` of that name takes its workers over.
    Release(PoolOne),
    /// Remove what an ended pool has left: its events and its log.
    Rm(PoolOne),
    /// Send JSON to one worker or to all, as a `message` event of Aworker.pool.
    Send(PoolSend),
    /// Print what happened in a pool.
    Events(PoolEvents),
    /// Print what a detached pool's workers have printed.
    Logs(PoolLogs),
}

impl Pool {
    /// How many listening sockets were handed in from descriptor 3 up (sd_listen_fds(3)).
    pub fn inherited(&self) -> u32 {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        match self {
            Pool::Run(_) if number("LISTEN_PID") == Some(std::process::id()) => {
                number("LISTEN_FDS").unwrap_or(0)
            }
            // The daemon of `--detach` has another pid than it had when it was told.
            Pool::Run(run) if run.daemon => number("LISTEN_FDS").unwrap_or(0),
            _ => 0,
        }
    }
}

/// `turf pool run`. What is left out is taken from `--config`, then from the defaults.
#[derive(Debug, Args)]
pub struct PoolRun {
    /// A script, or the directory of a worker bundle.
    pub source: Option<PathBuf>,
    /// File with these flags' names and values, as TOML: `max = 4`, `idle-timeout = "30s"`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The pool's name [default: that of the script or bundle].
    #[arg(long)]
    pub name: Option<String>,
    /// Where to listen: ADDR:PORT or unix:///PATH; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Fewest workers [default: 0].
    #[arg(long, value_name = "N")]
    pub min: Option<u32>,
    /// Most workers [default: the number of processors].
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
    /// Most connections that wait for a worker while all are at work; more are answered with 503 [default: 1024].
    #[arg(long, value_name = "N")]
    pub max_queue: Option<u32>,
    /// Time for a response's head; then the script is interrupted if it does not yield, and 504 is sent [default: 60s].
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Milliseconds>,
    /// A worker without requests for so long ends, if more than --min are there [default: 60s].
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<Milliseconds>,
    /// Time from a worker's fork until it serves [default: 10s].
    #[arg(long, value_name = "TIME")]
    pub init_timeout: Option<Milliseconds>,
    /// Time a worker has to finish when it is to end; then SIGTERM, then SIGKILL [default: 30s].
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<Milliseconds>,
    /// Most requests in flight per worker; 0 for no limit [default: 0].
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u32>,
    /// Requests after which a worker is replaced, up to a tenth fewer by chance; 0 for never [default: 0].
    #[arg(long, value_name = "N")]
    pub max_requests: Option<u64>,
    /// A request without an answer after this time becomes an event, with the JavaScript stack if the script runs [default: never].
    #[arg(long, value_name = "TIME")]
    pub slow: Option<Milliseconds>,
    /// Use each sandbox for one connection or one request only.
    #[arg(long, value_enum, value_name = "FOR", num_args = 0..=1, default_missing_value = "request")]
    pub disposable: Option<DisposableFor>,
    /// Memory limit of one worker: 64M, 1G.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Processor limit of one worker, in processors: 0.5.
    #[arg(long, value_name = "N")]
    pub cpu: Option<f64>,
    /// The seed that workers are forked from [default: the bundle's, else `default`].
    #[arg(long, value_name = "NAME")]
    pub seed: Option<String>,
    /// Make a seed that has run the script: workers start at `deserialize`, with its state.
    #[arg(long)]
    pub warm: bool,
    /// With --warm: replace that seed by a fresh one after it has forked this many workers.
    #[arg(long, value_name = "N")]
    pub max_forks: Option<u64>,
    /// With --warm: replace that seed by a fresh one after this time (`90s`, `10m`, `24h`).
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<Milliseconds>,
    /// How connections reach the workers [default: shared].
    #[arg(long, value_enum)]
    pub dispatch: Option<DispatchBy>,
    /// Sandboxes held ready beside the workers [default: 1].
    #[arg(long, value_name = "N")]
    pub spare: Option<u32>,
    /// How many of those have their process already, forked ahead of its start: some 0.5 MB each [default: 1].
    #[arg(long, value_name = "N")]
    pub ahead: Option<u32>,
    /// File for what the workers print [default: inherited; for a detached pool its own].
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Go to the background when the pool serves.
    #[arg(long, short)]
    pub detach: bool,
    /// This is the process in the background.
    #[arg(long, hide = true)]
    pub daemon: bool,
}

/// `--disposable`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DisposableFor {
    /// One connection with all its requests.
    Connection,
    /// One request.
    Request,
}

/// `--dispatch`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DispatchBy {
    /// All workers accept from one socket.
    Shared,
    /// The kernel spreads connections over one socket per slot.
    Reuseport,
    /// The supervisor passes connections in turn.
    Rr,
    /// The supervisor passes a connection to the worker with the fewest.
    Least,
}

impl PoolRun {
    /// The flags as a configuration file would say them.
    pub fn options(&self) -> PoolOptions {
        PoolOptions {
            source: self.source.clone(),
            name: self.name.clone(),
            listen: self.listen.clone(),
            min: self.min,
            max: self.max,
            max_queue: self.max_queue,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            init_timeout: self.init_timeout,
            drain_timeout: self.drain_timeout,
            concurrency: self.concurrency,
            max_requests: self.max_requests,
            slow: self.slow,
            disposable: self.disposable.map(|disposable| match disposable {
                DisposableFor::Connection => Disposable::Connection,
                DisposableFor::Request => Disposable::Request,
            }),
            memory: self.memory,
            cpu: self.cpu,
            seed: self.seed.clone(),
            warm: self.warm.then_some(true),
            max_forks: self.max_forks,
            max_age: self.max_age,
            dispatch: self.dispatch.map(|dispatch| match dispatch {
                DispatchBy::Shared => Dispatch::Shared,
                DispatchBy::Reuseport => Dispatch::Reuseport,
                DispatchBy::Rr => Dispatch::Rr,
                DispatchBy::Least => Dispatch::Least,
            }),
            spare: self.spare,
            ahead: self.ahead,
            log_file: self.log_file.clone(),
        }
    }
}

/// A verb that takes nothing but a pool's name.
#[derive(Debug, Args)]
pub struct PoolOne {
    /// The pool.
    pub name: String,
}

/// `turf pool ls`.
#[derive(Debug, Args)]
pub struct PoolList {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print only the names.
    #[arg(long, short)]
    pub quiet: bool,
}

/// `turf pool status`.
#[derive(Debug, Args)]
pub struct PoolStatus {
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print again every time that this has passed.
    #[arg(long, short, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s")]
    pub watch: Option<Milliseconds>,
    /// The pool.
    pub name: String,
}

/// `turf pool scale`.
#[derive(Debug, Args)]
pub struct PoolScale {
    /// The pool.
    pub name: String,
    /// Fewest workers.
    #[arg(long, value_name = "N")]
    pub min: Option<u32>,
    /// Most workers.
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
}

/// `turf pool send`.
#[derive(Debug, Args)]
pub struct PoolSend {
    /// The pool.
    pub name: String,
    /// The message: JSON of at most 16 KiB.
    pub message: String,
    /// The id of the worker that gets it [default: all].
    #[arg(long, value_name = "WORKER")]
    pub to: Option<String>,
}

/// `turf pool events`.
#[derive(Debug, Args)]
pub struct PoolEvents {
    /// Go on with what happens from now on.
    #[arg(long, short)]
    pub follow: bool,
    /// Only events after this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// The pool.
    pub name: String,
}

/// `turf pool logs`.
#[derive(Debug, Args)]
pub struct PoolLogs {
    /// Go on with what is printed from now on.
    #[arg(long, short)]
    pub follow: bool,
    /// The pool.
    pub name: String,
}

/// Reads a file of `--config`.
pub fn parse_config(text: &str) -> Result<PoolOptions, toml::de::Error> {
    toml::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_file_has_the_names_of_the_flags() {
        let options = parse_config(
            "source = \"app.js\"\nlisten = [\"127.0.0.1:80\"]\nmax = 4\nidle-timeout = \"30s\"\ntimeout = 2.5\n\
             slow = \"1s\"\nwarm = true\nmax-forks = 500\nmax-age = \"12h\"\nmemory = \"64M\"\ndispatch = \"least\"\ndisposable = \"connection\"\n",
        )
        .unwrap();
        assert_eq!((options.max, options.idle_timeout), (Some(4), Some(Milliseconds(30_000))));
        assert_eq!((options.timeout, options.memory), (Some(Milliseconds(2500)), Some(Bytes(64 << 20))));
        assert_eq!(options.slow, Some(Milliseconds(1000)));
        assert_eq!((options.max_forks, options.max_age), (Some(500), Some(Milliseconds(12 * 3_600_000))));
        assert_eq!(options.dispatch, Some(Dispatch::Least));
        for bad in ["maximum = 4", "max = -1", "idle-timeout = \"soon\"", "dispatch = \"x\"", "max"] {
            assert!(parse_config(bad).is_err(), "{bad}");
        }
    }
}
