//! What config.json must be beyond its types: each refusal names the JSON path and says what would be
//! right.
//!
//! What can be judged from the text alone is judged here, so that it fails before anything is made.

mod linux;
mod mounts;

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::runtime::{Hook, Linux, Process, Spec};

use super::workload::{self, Workload};
use crate::error::{Error, Result};

/// Longest host name (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES: usize = 64;

/// Validates the configuration and says what it runs.
pub(super) fn validate(spec: &Spec) -> Result<Workload> {
    version(spec.version())?;
    let workload = match spec.process() {
        // Allowed until `start` (config.md, "Process").
        None => workload::decide(spec, &[])?,
        Some(process) => {
            let workload = workload::decide(spec, args(process)?)?;
            self::process(process, &workload)?;
            workload
        }
    };
    let linux = spec.linux().clone().unwrap_or_default_empty();
    let namespaces = linux::namespaces(&linux)?;
    root(spec, &workload, &namespaces)?;
    names(spec, &namespaces)?;
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        mounts::mount(mount, &linux, &format!("mounts[{index}]"))?;
    }
    linux::linux(&linux, &namespaces)?;
    hooks(spec)?;
    if spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        return Err(invalid("annotations", "a key must not be empty"));
    }
    Ok(workload)
}

/// What is no error, but should be known to whoever wrote the configuration.
pub(super) fn warnings(spec: &Spec) -> Vec<String> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts.filter_map(|(index, mount)| mounts::warnings(mount, &format!("mounts[{index}]"))).collect()
}

/// An absent `linux` is an empty one; the type's own default is a whole configuration.
trait OrEmpty {
    fn unwrap_or_default_empty(self) -> Linux;
}

impl OrEmpty for Option<Linux> {
    fn unwrap_or_default_empty(self) -> Linux {
        self.unwrap_or_else(crate::sandbox::compile::empty_linux)
    }
}

fn version(version: &str) -> Result<()> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = numbers.split('.').map(str::parse::<u32>).collect();
    match parts.as_slice() {
        [Ok(0 | 1), Ok(_), Ok(_)] => Ok(()),
        [Ok(_), Ok(_), Ok(_)] => {
            Err(invalid("ociVersion", &format!("{version:?}: versions up to 1 are supported")))
        }
        _ => Err(invalid("ociVersion", &format!("{version:?} must be a version like \"1.2.0\""))),
    }
}

fn args(process: &Process) -> Result<&[String]> {
    let args = process.args().as_deref().unwrap_or_default();
    match args.first() {
        None => return Err(invalid("process.args", "must not be empty")),
        Some(program) if program.is_empty() => {
            return Err(invalid("process.args[0]", "must name a program, and is empty"));
        }
        Some(_) => {}
    }
    for (index, arg) in args.iter().enumerate() {
        no_zero_byte(arg, &format!("process.args[{index}]"))?;
    }
    Ok(args)
}

/// Validates a process that joins a container (`exec --process`): errors say where in `process`.
pub(super) fn another_process(process: &Process) -> Result<()> {
    args(process)?;
    self::process(process, &Workload::Exec)
}

fn process(process: &Process, workload: &Workload) -> Result<()> {
    absolute(process.cwd(), "process.cwd")?;
    for (index, entry) in process.env().iter().flatten().enumerate() {
        let place = format!("process.env[{index}]");
        no_zero_byte(entry, &place)?;
        if entry.find('=').is_none_or(|at| at == 0) {
            return Err(invalid(&place, &format!("{entry:?} must be NAME=VALUE")));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let place = format!("process.rlimits[{index}]");
        if !seen.insert(limit.typ().to_string()) {
            return Err(invalid(&format!("{place}.type"), &format!("{} is there twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let reason = format!("{} must not be above the hard limit {}", limit.soft(), limit.hard());
            return Err(invalid(&format!("{place}.soft"), &reason));
        }
    }
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        return Err(invalid("process.oomScoreAdj", &format!("{score} must be -1000 to 1000")));
    }
    crate::sandbox::process::check(process)?;
    for (label, place) in [
        (process.selinux_label(), "process.selinuxLabel"),
        (process.apparmor_profile(), "process.apparmorProfile"),
    ] {
        no_zero_byte(label.as_deref().unwrap_or_default(), place)?;
    }
    if process.user().umask().is_some_and(|umask| umask > 0o777) {
        return Err(invalid("process.user.umask", "must be at most 511 (octal 777)"));
    }
    if let Workload::Worker(_) = workload {
        if process.args().as_ref().is_none_or(|args| args.len() < 2) {
            return Err(invalid("process.args", "a worker bundle names its script in args[1]"));
        }
        if process.terminal() == Some(true) {
            return Err(invalid("process.terminal", "a worker has no terminal: must be false"));
        }
    }
    Ok(())
}

fn root(spec: &Spec, workload: &Workload, namespaces: &BTreeSet<String>) -> Result<()> {
    let has_mounts = spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty());
    let own_mounts = namespaces.contains("mnt");
    match (spec.root(), workload) {
        (None, Workload::Exec) => {
            Err(invalid("root", "must be there: only a worker bundle may leave it out"))
        }
        (None, Workload::Worker(_)) if !own_mounts => {
            Err(invalid("linux.namespaces", "a bundle without root needs a mount namespace"))
        }
        (Some(root), _) if root.path().as_os_str().is_empty() => {
            Err(invalid("root.path", "must not be empty"))
        }
        (Some(_), Workload::Worker(_)) if has_mounts && !own_mounts => {
            Err(invalid("mounts", "of a worker need a mount namespace in $.linux.namespaces"))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn names(spec: &Spec, namespaces: &BTreeSet<String>) -> Result<()> {
    for (name, place) in [(spec.hostname(), "hostname"), (spec.domainname(), "domainname")] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if !namespaces.contains("uts") {
            return Err(invalid(place, "needs a uts namespace in $.linux.namespaces"));
        }
        no_zero_byte(name, place)?;
        if name.len() > HOSTNAME_BYTES {
            return Err(invalid(place, &format!("must be at most {HOSTNAME_BYTES} bytes")));
        }
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    for (list, name) in crate::sandbox::compile::hook_lists(hooks) {
        for (index, hook) in list.iter().flatten().enumerate() {
            self::hook(hook, &format!("hooks.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook, place: &str) -> Result<()> {
    absolute(hook.path(), &format!("{place}.path"))?;
    if let Some(seconds) = hook.timeout()
        && u32::try_from(seconds).map_or(true, |seconds| seconds == 0)
    {
        return Err(invalid(&format!("{place}.timeout"), &format!("{seconds} must be greater than zero")));
    }
    let strings = [(hook.args(), "args"), (hook.env(), "env")];
    for (list, name) in strings {
        for (index, text) in list.iter().flatten().enumerate() {
            no_zero_byte(text, &format!("{place}.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn absolute(path: &Path, place: &str) -> Result<()> {
    no_zero_byte(&path.to_string_lossy(), place)?;
    if path.is_absolute() {
        return Ok(());
    }
    Err(invalid(place, &format!("{:?} must be an absolute path", path.display().to_string())))
}

fn no_zero_byte(text: &str, place: &str) -> Result<()> {
    if text.contains('\0') { Err(invalid(place, "must not contain a zero byte")) } else { Ok(()) }
}

pub(super) fn invalid(place: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.{place}"), reason)
}
