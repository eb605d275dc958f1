//! What a bundle's container runs, and the annotations `io.turf.*` that say so.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::sandbox::plan::ListenAddress;

/// `worker` or `exec`.
pub const WORKLOAD: &str = "io.turf.workload";
/// The seed's name.
pub const SEED: &str = "io.turf.seed";
/// Where a worker listens.
pub const LISTEN: &str = "io.turf.listen";
/// The seed that the worker may become: `turf seed promote`.
pub const PROMOTABLE: &str = "io.turf.promotable";
/// The pool that a worker belongs to; for those who look at it.
pub const POOL: &str = "io.turf.pool";

/// The program whose name makes a worker bundle.
const AWORKER: &str = "aworker";

/// The seed that is forked when none is named.
const DEFAULT_SEED: &str = "default";

/// Longest name of a seed: it is a directory's name, with room for suffixes.
const SEED_NAME_BYTES: usize = 64;

/// What runs in a bundle's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A worker, forked from a seed.
    Worker(WorkerSettings),
    /// A program, executed.
    Exec,
}

/// What the annotations say of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Name of the seed to fork.
    pub seed: String,
    /// Where it listens inside its own network namespace; empty: the default.
    pub listen: Vec<ListenAddress>,
    /// Name of the seed that it may become.
    pub promotable: Option<String>,
}

/// Decides what the bundle runs. `args` is `process.args`. Unknown annotations are no error (config.md,
/// "Annotations"), whatever their prefix.
pub(super) fn decide(spec: &Spec, args: &[String]) -> Result<Workload> {
    let annotations = spec.annotations().clone().unwrap_or_default();
    let named = args.first().and_then(|program| Path::new(program).file_name());
    let named = named.is_some_and(|name| name == AWORKER);
    let is_worker = match annotations.get(WORKLOAD).map(String::as_str) {
        None => named,
        Some("worker") => true,
        Some("exec") => false,
        Some(other) => return Err(invalid(WORKLOAD, &format!("{other:?} must be \"worker\" or \"exec\""))),
    };
    if !is_worker {
        let surplus = [SEED, LISTEN, PROMOTABLE].into_iter().find(|&key| annotations.contains_key(key));
        return match surplus {
            Some(key) => Err(invalid(key, "is only for worker bundles, and this one executes a program")),
            None => Ok(Workload::Exec),
        };
    }
    let seed = annotations.get(SEED).map_or(DEFAULT_SEED, String::as_str);
    check_seed_name(SEED, seed)?;
    let promotable = annotations.get(PROMOTABLE).cloned();
    if let Some(name) = &promotable {
        check_seed_name(PROMOTABLE, name)?;
        if name == DEFAULT_SEED {
            return Err(invalid(
                PROMOTABLE,
                "must name a seed that runs user code, which \"default\" does not",
            ));
        }
    }
    let listen = annotations.get(LISTEN).map_or(Ok(Vec::new()), |text| parse_listen(text))?;
    Ok(Workload::Worker(WorkerSettings { seed: seed.to_owned(), listen, promotable }))
}

fn check_seed_name(key: &str, name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    if name.is_empty() || name.len() > SEED_NAME_BYTES || name.starts_with('.') || !name.chars().all(fits) {
        let reason = format!(
            "{name:?} must be 1 to {SEED_NAME_BYTES} letters, digits or one of _ - . +, and not start with a dot"
        );
        return Err(invalid(key, &reason));
    }
    Ok(())
}

fn parse_listen(text: &str) -> Result<Vec<ListenAddress>> {
    let parse = |text: &str| text.trim().parse().map_err(|error: Error| invalid(LISTEN, &error.to_string()));
    let addresses = text.split(',').map(parse).collect::<Result<Vec<ListenAddress>>>()?;
    if addresses.len() > crate::limits::LISTENERS {
        return Err(invalid(LISTEN, &format!("names more than {} addresses", crate::limits::LISTENERS)));
    }
    Ok(addresses)
}

fn invalid(key: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.annotations[\"{key}\"]"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_with(arg0: &str, annotations: &[(&str, &str)]) -> Result<Workload> {
        let mut spec = Spec::default();
        let map = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        spec.set_annotations(Some(map));
        decide(&spec, &[arg0.to_owned(), "/app/worker.js".to_owned()])
    }

    #[test]
    fn the_program_or_the_annotation_makes_a_worker() {
        type Annotations = &'static [(&'static str, &'static str)];
        let table: [(&str, Annotations, bool); 7] = [
            ("aworker", &[], true),
            ("/usr/bin/aworker", &[], true),
            ("sh", &[], false),
            ("/aworker/sh", &[], false),
            ("sh", &[(WORKLOAD, "worker")], true),
            ("aworker", &[(WORKLOAD, "exec")], false),
            ("sh", &[("org.example", "x")], false),
        ];
        for (arg0, annotations, worker) in table {
            let workload = decide_with(arg0, annotations).unwrap();
            assert_eq!(matches!(workload, Workload::Worker(_)), worker, "{arg0} {annotations:?}");
        }
    }

    #[test]
    fn addresses_are_parsed() {
        let listen = "tcp://127.0.0.1:80, tcp://[::1]:8080,unix:///run/a.sock";
        let Workload::Worker(settings) =
            decide_with("aworker", &[(LISTEN, listen), (SEED, "my-seed.2")]).unwrap()
        else {
            panic!("not a worker");
        };
        assert_eq!(settings.seed, "my-seed.2");
        assert_eq!(
            settings.listen,
            [
                ListenAddress::Tcp("127.0.0.1:80".parse().unwrap()),
                ListenAddress::Tcp("[::1]:8080".parse().unwrap()),
                ListenAddress::Unix("/run/a.sock".into())
            ]
        );
    }

    #[test]
    fn annotations_that_cannot_be_understood_are_refused() {
        let table = [
            ("aworker", WORKLOAD, "wrker"),
            ("aworker", SEED, ""),
            ("aworker", SEED, "../x"),
            ("aworker", SEED, ".x"),
            ("aworker", LISTEN, ""),
            ("aworker", LISTEN, "tcp://localhost:80"),
            ("aworker", LISTEN, "tcp://127.0.0.1"),
            ("aworker", LISTEN, "unix://relative"),
            ("aworker", LISTEN, "udp://127.0.0.1:1"),
            ("sh", SEED, "x"),
            ("aworker", PROMOTABLE, "a/b"),
            ("aworker", PROMOTABLE, "default"),
            ("sh", PROMOTABLE, "x"),
        ];
        for (arg0, key, value) in table {
            let error = decide_with(arg0, &[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("$.annotations[\"{key}\"]")), "{error}");
        }
    }
}
