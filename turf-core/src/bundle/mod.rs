//! Bundles: a directory with a config.json, loaded, validated, and what kind of workload it is.
//!
//! The specification is <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/bundle.md>.

pub mod default;
mod host;
#[cfg(test)]
mod mutation;
mod normalise;
mod validate;
pub(crate) mod workload;

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Operation, Result};
pub use workload::{POOL, PROMOTABLE, WorkerSettings, Workload};

/// The configuration's name in the bundle.
pub const CONFIG_NAME: &str = "config.json";

/// What errors call the file that holds one process.
const PROCESS_NAME: &str = "process.json";

/// Largest config.json that is read, in bytes. Those of clients with long seccomp profiles and hundreds
/// of mounts stay below a tenth of it.
const CONFIG_BYTES: u64 = 4 << 20;

/// A validated bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its directory: absolute, without symbolic links.
    pub directory: PathBuf,
    /// Its configuration.
    pub spec: Spec,
    /// The container's root directory: absolute, without symbolic links; `None` for a worker
    /// bundle without an image.
    pub rootfs: Option<PathBuf>,
    /// What runs in the container.
    pub workload: Workload,
    /// What is no error, but should be known to whoever wrote the configuration.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Loads and validates `config.json` in `directory`. Errors name the place:
    /// `config.json: $.process.args: must not be empty`.
    pub fn load(directory: &Path) -> Result<Bundle> {
        Bundle::load_with(directory, None)
    }

    /// The same with another configuration; errors call it `config.json` all the same.
    pub fn load_with(directory: &Path, config: Option<&Path>) -> Result<Bundle> {
        let directory =
            directory.canonicalize().operation(|| format!("open the bundle {}", directory.display()))?;
        let (spec, mut warnings) = parse(&read_config(&config_path(&directory, config))?)?;
        let workload = validate::validate(&spec)?;
        warnings.extend(validate::warnings(&spec));
        host::check(&spec)?;
        let rootfs = spec.root().as_ref().map(|root| rootfs(&directory, root.path())).transpose()?;
        Ok(Bundle { directory, spec, rootfs, workload, warnings })
    }
}

/// Where the configuration of a bundle is.
pub fn config_path(directory: &Path, config: Option<&Path>) -> PathBuf {
    directory.join(config.unwrap_or(Path::new(CONFIG_NAME)))
}

fn read_config(path: &Path) -> Result<Vec<u8>> {
    // Room for a usual file, so that it is read by one call.
    let mut text = Vec::with_capacity(16 << 10);
    let mut file = File::open(path).operation(|| format!("open {}", path.display()))?;
    let read = Read::by_ref(&mut file).take(CONFIG_BYTES + 1).read_to_end(&mut text);
    let length = read.operation(|| format!("read {}", path.display()))?;
    if length as u64 > CONFIG_BYTES {
        return Err(Error::invalid(
            path.display().to_string(),
            format!("is larger than {CONFIG_BYTES} bytes"),
        ));
    }
    Ok(text)
}

/// Whether an object may say both `"pid"` and `"path"`: what is written with escapes, or has a brace in a string, may.
///
/// By plain loops: a search that first asks which instructions the processor has (cpuid, which a virtual machine's host answers) takes
/// longer for the few kilobytes.
fn may_name_a_path_beside_pid(text: &[u8]) -> bool {
    let word = b"\"pid\"";
    let may_name_a_path = |part: &[u8]| {
        let ends_in_a_string = part.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        ends_in_a_string || part.contains(&b'\\') || places(part, b"\"path\"").next().is_some()
    };
    let is_beside_a_path = |at: usize| {
        let (before, behind) = (&text[..at], &text[at + word.len()..]);
        let start = before.iter().rposition(|byte| *byte == b'{').unwrap_or(0);
        let end = behind.iter().position(|byte| *byte == b'}').unwrap_or(behind.len());
        may_name_a_path(&before[start..]) || may_name_a_path(&behind[..end])
    };
    let has_escapes = text.contains(&b'\\') && places(text, b"\\u").next().is_some();
    has_escapes || places(text, word).any(is_beside_a_path)
}

/// Where a word stands in a text.
fn places<'a>(text: &'a [u8], word: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    // The first byte decides nearly always, and costs no call.
    let is_there = move |(_, part): &(usize, &[u8])| part[0] == word[0] && *part == word;
    text.windows(word.len()).enumerate().filter(is_there).map(|(at, _)| at)
}

/// Whether the container of a bundle joins a pid namespace that exists, whose processes can see it being built. Says
/// no where there is no configuration, and yes of one that cannot be read: loading it says why.
pub fn joins_a_pid_namespace(config: &Path) -> bool {
    #[derive(Deserialize)]
    struct Config {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    struct Linux {
        namespaces: Option<Vec<Namespace>>,
    }
    #[derive(Deserialize)]
    struct Namespace {
        r#type: String,
        path: Option<String>,
    }
    let Ok(text) = read_config(config) else { return false };
    // Most have one of their own, and need not be parsed for that.
    if !may_name_a_path_beside_pid(&text) {
        return false;
    }
    let Ok(config) = serde_json::from_slice::<Config>(&text) else { return true };
    let namespaces = config.linux.and_then(|linux| linux.namespaces).unwrap_or_default();
    namespaces.iter().any(|namespace| namespace.r#type == "pid" && namespace.path.is_some())
}

/// Parses a config.json; errors name the JSON path of what does not fit the types. Returns warnings too.
///
/// Nearly every file fits the types as it is, and a third of the work is saved by trying that first. What does not fit is
/// made to, or refused with its place.
pub(crate) fn parse(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    match serde_json::from_slice(text) {
        Ok(spec) => Ok((spec, Vec::new())),
        Err(_) => parse_with_care(text),
    }
}

#[cold]
fn parse_with_care(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    let mut value: Value =
        serde_json::from_slice(text).map_err(|error| Error::invalid(CONFIG_NAME, error.to_string()))?;
    let warnings = normalise::configuration(&mut value);
    let spec = serde_path_to_error::deserialize(value).map_err(|error| {
        let place = match error.path().to_string().as_str() {
            "." => "$".to_owned(),
            path => format!("$.{path}"),
        };
        Error::invalid(format!("{CONFIG_NAME}: {place}"), error.inner().to_string())
    })?;
    Ok((spec, warnings))
}

/// For `crate::fuzz`: the plan of a configuration in a bundle that is not there, nothing if it is not even one.
#[cfg(any(test, fuzzing))]
pub(crate) fn compile_unchecked(text: &[u8]) -> Option<Result<crate::sandbox::Plan>> {
    use crate::sandbox::compile::{Context, Keyring, RootEntry, compile};
    let (spec, warnings) = parse(text).ok()?;
    let workload = validate::validate(&spec).ok()?;
    let rootfs = spec.root().as_ref().map(|_| "/bundle/rootfs".into());
    let bundle = Bundle { directory: "/bundle".into(), spec, rootfs, workload, warnings };
    let context = Context { id: "c1", keyring: Keyring::New, root_entry: RootEntry::Pivot };
    Some(compile(&bundle, context))
}

/// Reads and validates a file that holds `process` of a config.json alone (`exec --process`). Errors name
/// the place: `process.json: $.args: must not be empty`.
pub fn load_process(path: &Path) -> Result<Process> {
    parse_process(&read_config(path)?)
}

fn parse_process(text: &[u8]) -> Result<Process> {
    let mut value: Value =
        serde_json::from_slice(text).map_err(|error| Error::invalid(PROCESS_NAME, error.to_string()))?;
    normalise::process(&mut value, "$");
    let process = serde_path_to_error::deserialize(value).map_err(|error| {
        let place = match error.path().to_string().as_str() {
            "." => "$".to_owned(),
            path => format!("$.{path}"),
        };
        Error::invalid(format!("{PROCESS_NAME}: {place}"), error.inner().to_string())
    })?;
    match validate::another_process(&process).and_then(|()| host::labels(&process)) {
        Err(Error::Invalid { object, reason }) => {
            let object = object.replacen("config.json: $.process", &format!("{PROCESS_NAME}: $"), 1);
            Err(Error::Invalid { object, reason })
        }
        result => result.map(|()| process),
    }
}

fn rootfs(directory: &Path, path: &Path) -> Result<PathBuf> {
    let place = || format!("{CONFIG_NAME}: $.root.path");
    let rootfs = directory.join(path);
    // The directory's path is canonical already: there is one name to look at.
    let is_name = path.components().eq(path.file_name().map(Component::Normal));
    if is_name && rootfs.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(rootfs);
    }
    let rootfs = rootfs.canonicalize().operation(|| format!("{}: open {}", place(), rootfs.display()))?;
    if !rootfs.is_dir() {
        return Err(Error::invalid(place(), format!("{} is not a directory", rootfs.display())));
    }
    if rootfs == Path::new("/") {
        return Err(Error::invalid(place(), "the host's root cannot be a container's root"));
    }
    Ok(rootfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(config: &str) -> Result<Bundle> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        std::fs::write(dir.path().join(CONFIG_NAME), config).unwrap();
        Bundle::load(dir.path())
    }

    #[test]
    fn a_pid_namespace_with_a_path_is_joined() {
        // A root of this name makes the quick look at the text doubt; without it the look decides alone.
        let joins = |namespaces: &str| {
            let dir = tempfile::tempdir().unwrap();
            let [doubted, plain] = ["pid", "rootfs"].map(|root| {
                let config =
                    format!(r#"{{"linux": {{"namespaces": [{namespaces}]}}, "root": {{"path": "{root}"}}}}"#);
                std::fs::write(dir.path().join(CONFIG_NAME), config).unwrap();
                joins_a_pid_namespace(&config_path(dir.path(), None))
            });
            assert_eq!(doubted, plain, "{namespaces}");
            plain
        };
        assert!(joins(r#"{"type": "ipc"}, {"type": "pid", "path": "/proc/1/ns/pid"}"#));
        assert!(joins(r#"{"path": "/run/ns", "type": "pid"}"#));
        assert!(joins(r#"{"type": "p\u0069d", "path": "/run/ns"}"#));
        assert!(joins(r#"{"p\u0061th": "/run/ns", "type": "pid"}"#));
        assert!(joins(r#"{"path": "/run/{ns", "type": "pid"}"#));
        assert!(joins(r#"{"path": "/run/{\"ns\"", "type": "pid"}"#));
        assert!(joins(r#"{"type": "pid", "x": "}", "path": "/run/ns"}"#));
        assert!(joins(r#"{"type": "ipc", "type": "pid", "path": "/run/ns"}"#));
        for own in [r#"{"type": "pid"}"#, r#"{"type": "pid"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}"#, ""]
        {
            assert!(!joins(own), "{own}");
        }
        assert!(!joins_a_pid_namespace(Path::new("/nonexistent")));
    }

    #[test]
    fn the_default_bundles_are_valid() {
        assert_eq!(load(default::PROGRAM).unwrap().workload, Workload::Exec);
        let worker = load(default::WORKER).unwrap();
        assert_eq!(
            worker.workload,
            Workload::Worker(WorkerSettings { seed: "default".into(), listen: Vec::new(), promotable: None })
        );
        assert_eq!(worker.rootfs, None);
    }

    #[test]
    fn what_does_not_fit_the_types_is_named_by_its_json_path() {
        let table = [
            ("{", "config.json: EOF"),
            (r#"{"ociVersion": 1}"#, "config.json: $.ociVersion: invalid type"),
            (
                r#"{"process": {"cwd": "/", "args": ["a", 7]}}"#,
                "config.json: $.process.args[1]: invalid type: integer `7`",
            ),
            (
                r#"{"linux": {"namespaces": [{"type": "pid"}, {"type": "foo"}]}}"#,
                "config.json: $.linux.namespaces[1].type: unknown variant `foo`",
            ),
        ];
        for (config, words) in table {
            let error = load(config).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error} does not start with {words}");
        }
    }

    #[test]
    fn what_fits_at_once_is_what_care_makes_of_it() {
        let with = |process: &str| format!(r#"{{"ociVersion": "1.2.0", "process": {process}}}"#);
        let texts = [
            default::PROGRAM.to_owned(),
            default::WORKER.to_owned(),
            with(r#"{"cwd": "/", "args": ["a"]}"#),
            with(r#"{"cwd": "/", "args": ["a"], "user": null}"#),
            with(r#"{"cwd": "/", "user": {"uid": 1, "gid": 2}, "args": ["a"], "unknown": [{}]}"#),
            with(
                r#"{"cwd": "/", "user": {}, "scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}"#,
            ),
            with(
                r#"{"cwd": "/", "user": {}, "capabilities": {"bounding": ["CAP_KILL", "CAP_NEW"], "effective": ["SYS_ADMIN"]}}"#,
            ),
            r#"{"ociVersion": "1.0.0", "ociVersion": "1.2.0"}"#.to_owned(),
        ];
        for text in texts {
            let (at_once, care) = (parse(text.as_bytes()), parse_with_care(text.as_bytes()));
            match (at_once, care) {
                (Ok(at_once), Ok(care)) => assert_eq!(at_once, care, "{text}"),
                (Err(at_once), Err(care)) => assert_eq!(at_once.to_string(), care.to_string(), "{text}"),
                (at_once, care) => panic!("{text}: {at_once:?} and {care:?}"),
            }
        }
    }

    #[test]
    fn a_process_alone_is_judged_as_one_in_a_configuration() {
        let process = parse_process(br#"{"args": ["a"], "cwd": "/tmp", "env": ["A=b"]}"#).unwrap();
        assert_eq!((process.cwd().as_path(), process.user().uid()), (Path::new("/tmp"), 0));
        for (text, words) in [
            ("[", "process.json: EOF"),
            (r#"{"cwd": "/", "args": []}"#, "process.json: $.args: must not be empty"),
            (r#"{"cwd": "tmp", "args": ["a"]}"#, "process.json: $.cwd: "),
            (r#"{"cwd": "/", "args": ["a"], "env": ["A"]}"#, "process.json: $.env[0]: "),
            (r#"{"cwd": "/", "args": ["a", 1]}"#, "process.json: $.args[1]: invalid type"),
        ] {
            let error = parse_process(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error} does not start with {words}");
        }
    }

    #[test]
    fn a_missing_bundle_config_or_root_is_named() {
        let error = Bundle::load(Path::new("/does/not/exist")).unwrap_err().to_string();
        assert_eq!(error, "open the bundle /does/not/exist: no such file or directory");
        let dir = tempfile::tempdir().unwrap();
        let error = Bundle::load(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("config.json: no such file or directory"), "{error}");
        std::fs::write(dir.path().join(CONFIG_NAME), default::PROGRAM).unwrap();
        let error = Bundle::load(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("config.json: $.root.path: open /"), "{error}");
    }

    #[test]
    fn a_mutilated_config_never_panics() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        for original in [default::PROGRAM, default::WORKER] {
            for _ in 0..3000 {
                let mut text = original.as_bytes().to_vec();
                for _ in 0..=next(4) {
                    if text.is_empty() {
                        break;
                    }
                    let at = next(text.len());
                    match next(4) {
                        0 => text[at] = next(256) as u8,
                        1 => drop(text.remove(at)),
                        2 => text.insert(at, b"0123456789-{}[]\",:/."[next(20)]),
                        _ => text.truncate(at),
                    }
                }
                if let Ok((spec, _)) = parse(&text) {
                    let _ = validate::validate(&spec);
                }
            }
        }
    }
}
