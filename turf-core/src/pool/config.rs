//! What a pool is asked to be: from flags and a file of the same names to checked values.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::policy::Bounds;
use crate::error::{Error, Result};
use crate::limits;
use crate::root::ContainerId;
use crate::sandbox::plan::ListenAddress;
use crate::seed::plan::WorkerLimits;

/// Most workers of one pool.
pub const MAX_WORKERS: u32 = 10_000;

/// Longest time that can be asked for: a day.
const MAX_MS: u64 = 24 * 3600 * 1000;

/// How connections reach the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dispatch {
    /// All workers accept from one socket; an idle one is woken. Idle workers stay idle: good for an elastic pool.
    #[default]
    Shared,
    /// One socket for each slot (`SO_REUSEPORT`): the kernel spreads connections evenly. Unix sockets are shared.
    Reuseport,
    /// The supervisor accepts and passes each connection to the next worker.
    Rr,
    /// The supervisor accepts and passes each connection to the worker with the fewest.
    Least,
}

/// What one sandbox is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disposable {
    /// Many connections.
    #[default]
    No,
    /// One connection, with all its requests.
    Connection,
    /// One request.
    Request,
}

/// A time, written `250ms`, `30s`, `5m` or as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milliseconds(pub u64);

impl FromStr for Milliseconds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Milliseconds> {
        let (number, unit_ms) = match text {
            _ if text.ends_with("ms") => (&text[..text.len() - 2], 1.0),
            _ if text.ends_with('s') => (&text[..text.len() - 1], 1e3),
            _ if text.ends_with('m') => (&text[..text.len() - 1], 6e4),
            _ if text.ends_with('h') => (&text[..text.len() - 1], 3.6e6),
            _ => (text, 1e3),
        };
        let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match number.parse::<f64>() {
            Ok(value) if is_plain && value * unit_ms <= MAX_MS as f64 => {
                Ok(Milliseconds((value * unit_ms).round() as u64))
            }
            _ => Err(Error::invalid(
                format!("time {text:?}"),
                "must be a number with ms, s, m or h behind it, a day at most",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(seconds) => seconds.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A number of bytes, written `64M`, `1G` or plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Bytes> {
        let refuse = || {
            Error::invalid(format!("size {text:?}"), "must be a number with K, M or G behind it, or of bytes")
        };
        let (number, shift) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let value: u64 = number.parse().map_err(|_| refuse())?;
        value.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Bytes).ok_or_else(refuse)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Bytes(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// What was asked for; what is left out has a default. A configuration file has these names with hyphens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs, reason = "each is described at the flag of the same name")]
pub struct PoolOptions {
    pub source: Option<PathBuf>,
    pub name: Option<String>,
    #[serde(default)]
    pub listen: Vec<String>,
    pub min: Option<u32>,
    pub max: Option<u32>,
    pub max_queue: Option<u32>,
    pub timeout: Option<Milliseconds>,
    pub idle_timeout: Option<Milliseconds>,
    pub init_timeout: Option<Milliseconds>,
    pub drain_timeout: Option<Milliseconds>,
    pub concurrency: Option<u32>,
    pub max_requests: Option<u64>,
    pub slow: Option<Milliseconds>,
    pub disposable: Option<Disposable>,
    pub memory: Option<Bytes>,
    pub cpu: Option<f64>,
    pub seed: Option<String>,
    pub warm: Option<bool>,
    pub max_forks: Option<u64>,
    pub max_age: Option<Milliseconds>,
    pub dispatch: Option<Dispatch>,
    pub spare: Option<u32>,
    /// How many of those have a process that was forked ahead.
    pub ahead: Option<u32>,
    pub log_file: Option<PathBuf>,
}

impl PoolOptions {
    /// These options, and `other`'s where these have none.
    #[must_use]
    pub fn or(self, other: PoolOptions) -> PoolOptions {
        PoolOptions {
            source: self.source.or(other.source),
            name: self.name.or(other.name),
            listen: if self.listen.is_empty() { other.listen } else { self.listen },
            min: self.min.or(other.min),
            max: self.max.or(other.max),
            max_queue: self.max_queue.or(other.max_queue),
            timeout: self.timeout.or(other.timeout),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            init_timeout: self.init_timeout.or(other.init_timeout),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            concurrency: self.concurrency.or(other.concurrency),
            max_requests: self.max_requests.or(other.max_requests),
            slow: self.slow.or(other.slow),
            disposable: self.disposable.or(other.disposable),
            memory: self.memory.or(other.memory),
            cpu: self.cpu.or(other.cpu),
            seed: self.seed.or(other.seed),
            warm: self.warm.or(other.warm),
            max_forks: self.max_forks.or(other.max_forks),
            max_age: self.max_age.or(other.max_age),
            dispatch: self.dispatch.or(other.dispatch),
            spare: self.spare.or(other.spare),
            ahead: self.ahead.or(other.ahead),
            log_file: self.log_file.or(other.log_file),
        }
    }
}

/// A pool's checked configuration.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name: the first part of its workers' container ids.
    pub name: PoolName,
    /// A bundle's directory, or a script.
    pub source: PathBuf,
    /// Where it listens, besides sockets that were handed in.
    pub listen: Vec<ListenAddress>,
    /// The policy's numbers.
    pub bounds: Bounds,
    /// Time for the head of a response, in milliseconds.
    pub timeout_ms: u64,
    /// Time from a worker's fork until it serves.
    pub init_timeout: Duration,
    /// Time that a worker has to finish when it is retired.
    pub drain_timeout: Duration,
    /// Requests after which a worker is replaced, 0 for never; a tenth of it is chance.
    pub max_requests: u64,
    /// Time after which a request without an answer is an event, in milliseconds; 0 for never.
    pub slow_ms: u64,
    /// What one sandbox is used for.
    pub disposable: Disposable,
    /// Memory limit of one worker, in bytes.
    pub memory: Option<u64>,
    /// Processor limit of one worker, in processors.
    pub cpu: Option<f64>,
    /// The seed that workers are forked from; the bundle's own choice if absent.
    pub seed: Option<String>,
    /// The pool makes a seed of its own that has run the script.
    pub warm: bool,
    /// Workers after which that seed is replaced.
    pub seed_max_forks: Option<u64>,
    /// Milliseconds after which it is replaced.
    pub seed_max_age_ms: Option<u64>,
    /// How connections reach the workers.
    pub dispatch: Dispatch,
    /// Sandboxes held ready.
    pub spare: u32,
    /// How many of those have a process that was forked ahead.
    pub ahead: u32,
}

impl PoolConfig {
    /// Checks what was asked for. `inherited` says that listening sockets were handed in.
    pub fn resolve(options: &PoolOptions, inherited: bool) -> Result<PoolConfig> {
        let source = options.source.clone().ok_or_else(|| {
            Error::invalid(
                "the pool",
                "needs a bundle or a script: turf pool run BUNDLE|SCRIPT --listen ADDR",
            )
        })?;
        let source =
            source.canonicalize().map_err(|error| Error::io(format!("open {}", source.display()), error))?;
        let name = match &options.name {
            Some(name) => name.parse()?,
            None => default_name(&source)?,
        };
        let listen = options.listen.iter().map(|address| address.parse()).collect::<Result<Vec<_>>>()?;
        if listen.is_empty() && !inherited {
            return Err(Error::invalid("--listen", "is required unless sockets are handed in by LISTEN_FDS"));
        }
        if listen.len() > limits::LISTENERS {
            return Err(Error::invalid(
                "--listen",
                format!("at most {} addresses are allowed", limits::LISTENERS),
            ));
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let (min, max) = match (options.min, options.max) {
            (min, Some(max)) => (min.unwrap_or(0), max),
            (Some(min), None) => (min, cores.max(min)),
            (None, None) => (0, cores),
        };
        if max == 0 || max > MAX_WORKERS {
            return Err(Error::invalid("--max", format!("must be from 1 to {MAX_WORKERS}")));
        }
        if min > max {
            return Err(Error::invalid("--min", format!("{min} is more than --max {max}")));
        }
        if options.cpu.is_some_and(|cpu| !(0.01..=1024.0).contains(&cpu)) {
            return Err(Error::invalid("--cpu", "must be a number of processors from 0.01 to 1024"));
        }
        if options.warm == Some(true) && options.seed.is_some() {
            return Err(Error::invalid("--warm", "makes a seed of the pool's own; it cannot go with --seed"));
        }
        if options.warm != Some(true) && (options.max_forks.is_some() || options.max_age.is_some()) {
            return Err(Error::invalid(
                "--max-forks and --max-age",
                "are for the seed that --warm makes; other seeds have their own (turf seed start)",
            ));
        }
        if options.max_forks == Some(0) {
            return Err(Error::invalid("--max-forks", "must be at least 1"));
        }
        let ms = |value: Option<Milliseconds>, default: u64| value.map_or(default, |value| value.0.max(1));
        let disposable = options.disposable.unwrap_or_default();
        let spare = options.spare.unwrap_or(1).min(max);
        Ok(PoolConfig {
            name,
            source,
            listen,
            bounds: Bounds {
                min,
                max,
                max_queue: options.max_queue.unwrap_or(1024),
                idle_timeout_ms: ms(options.idle_timeout, 60_000),
                concurrency: options.concurrency.unwrap_or(0),
                disposable: disposable != Disposable::No,
            },
            timeout_ms: ms(options.timeout, 60_000),
            init_timeout: Duration::from_millis(ms(options.init_timeout, 10_000)),
            drain_timeout: Duration::from_millis(ms(options.drain_timeout, 30_000)),
            max_requests: options.max_requests.unwrap_or(0),
            slow_ms: options.slow.map_or(0, |slow| slow.0.max(1)),
            disposable,
            memory: options.memory.map(|bytes| bytes.0),
            cpu: options.cpu,
            seed: options.seed.clone(),
            warm: options.warm.unwrap_or(false),
            seed_max_forks: options.max_forks,
            seed_max_age_ms: options.max_age.map(|age| age.0),
            dispatch: options.dispatch.unwrap_or_default(),
            spare,
            ahead: options.ahead.unwrap_or(1).min(spare),
        })
    }

    /// The limits of one worker. `chance` in 0..1 spreads the end of workers that began together.
    pub fn worker_limits(&self, chance: f64) -> WorkerLimits {
        let spread = (self.max_requests as f64 / 10.0 * chance) as u64;
        WorkerLimits {
            request_timeout_ms: self.timeout_ms,
            concurrency: self.bounds.concurrency,
            max_requests: self.max_requests.saturating_sub(spread),
            slow_ms: self.slow_ms,
        }
    }

    /// Whether the supervisor accepts and passes connections.
    pub fn passes_connections(&self) -> bool {
        self.bounds.disposable || matches!(self.dispatch, Dispatch::Rr | Dispatch::Least)
    }
}

/// A pool's name: letters, digits, `-`, `_`, `.`; the first is a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolName(String);

impl PoolName {
    /// Longest name in bytes: with the generation and the number behind it, it is a container's id.
    const BYTES: usize = 100;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a worker's container.
    pub fn worker(&self, generation: u32, number: u64) -> Result<ContainerId> {
        format!("{}.{generation}.{number}", self.0).parse()
    }

    /// Generation and number of a worker of this pool, from its container's id.
    pub fn worker_of(&self, id: &ContainerId) -> Option<(u32, u64)> {
        let (generation, number) = id.as_str().strip_prefix(&self.0)?.strip_prefix('.')?.split_once('.')?;
        let (generation, number) = (generation.parse().ok()?, number.parse().ok()?);
        // Only what `worker` makes: no signs, no zeroes in front.
        self.worker(generation, number).is_ok_and(|same| same == *id).then_some((generation, number))
    }
}

impl FromStr for PoolName {
    type Err = Error;

    fn from_str(text: &str) -> Result<PoolName> {
        let is_good = text.len() <= PoolName::BYTES
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        match is_good {
            true => Ok(PoolName(text.to_owned())),
            false => Err(Error::invalid(
                format!("pool name {text:?}"),
                "must be letters, digits, '-', '_' and '.', a letter or digit first, 100 bytes at most",
            )),
        }
    }
}

impl std::fmt::Display for PoolName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of the bundle's directory, or of the script without its ending.
fn default_name(source: &Path) -> Result<PoolName> {
    let stem = if source.is_dir() { source.file_name() } else { source.file_stem() };
    let name = stem.and_then(|stem| stem.to_str()).unwrap_or_default();
    name.parse().map_err(|_| {
        Error::invalid(
            "--name",
            format!("is required: {:?} is no name for a pool", source.display().to_string()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_with_their_units() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("1.5", 1500), ("2m", 120_000), ("24h", MAX_MS)] {
            assert_eq!(text.parse::<Milliseconds>().unwrap().0, ms, "{text}");
        }
        for text in ["", "s", "-1s", "1e9", "25h", "x", "1 s", "inf", "nan"] {
            assert!(text.parse::<Milliseconds>().is_err(), "{text}");
        }
        for (text, bytes) in [("64M", 64 << 20), ("1g", 1 << 30), ("17", 17), ("2K", 2048)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "M", "0", "-1", "99999999999G", "1T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_become_ids_or_are_refused() {
        let name: PoolName = "api-v1.2".parse().unwrap();
        assert_eq!(name.worker(3, 14).unwrap().as_str(), "api-v1.2.3.14");
        for (id, expected) in
            [("api-v1.2.3.14", Some((3, 14))), ("api-v1.2.3", None), ("api-v1.2.03.1", None), ("b.1.1", None)]
        {
            assert_eq!(name.worker_of(&id.parse().unwrap()), expected, "{id}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", &"x".repeat(101)] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn defaults_and_contradictions() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("app.js");
        std::fs::write(&script, "").unwrap();
        let options = PoolOptions {
            source: Some(script.clone()),
            listen: vec!["127.0.0.1:0".to_owned()],
            ..PoolOptions::default()
        };
        let config = PoolConfig::resolve(&options, false).unwrap();
        assert_eq!((config.name.as_str(), config.bounds.min), ("app", 0));
        assert!(config.bounds.max >= 1);
        let with = |change: fn(&mut PoolOptions)| {
            let mut changed = options.clone();
            change(&mut changed);
            PoolConfig::resolve(&changed, false)
        };
        assert!(with(|options| options.listen.clear()).is_err());
        assert!(with(|options| (options.min, options.max) = (Some(3), Some(2))).is_err());
        assert!(with(|options| options.max = Some(0)).is_err());
        assert!(with(|options| options.source = Some("/nowhere".into())).is_err());
        assert!(with(|options| (options.warm, options.seed) = (Some(true), Some("s".into()))).is_err());
        assert!(with(|options| options.max_forks = Some(3)).is_err(), "no seed of its own");
        assert!(with(|options| (options.warm, options.max_forks) = (Some(true), Some(0))).is_err());
        let of_its_own =
            with(|options| (options.warm, options.max_age) = (Some(true), Some(Milliseconds(7))));
        assert_eq!(of_its_own.unwrap().seed_max_age_ms, Some(7));
        assert_eq!(with(|options| options.min = Some(100)).unwrap().bounds.max, 100);
    }

    #[test]
    fn chance_takes_at_most_a_tenth_of_a_workers_requests() {
        let directory = tempfile::tempdir().unwrap();
        let options = PoolOptions {
            source: Some(directory.path().to_owned()),
            name: Some("a".to_owned()),
            listen: vec!["127.0.0.1:0".to_owned()],
            max_requests: Some(1000),
            ..PoolOptions::default()
        };
        let config = PoolConfig::resolve(&options, false).unwrap();
        assert_eq!(config.worker_limits(0.0).max_requests, 1000);
        assert_eq!(config.worker_limits(0.999).max_requests, 901);
    }
}
