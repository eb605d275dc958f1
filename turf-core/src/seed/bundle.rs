//! The script of a worker bundle as a seed finds it: on the host, where the bundle's root and mounts take it from.
//!
//! Nothing else of the bundle counts for a seed: not its environment, which is each worker's own.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::bundle::Bundle;
use crate::error::{Error, Operation, Result};
use crate::sandbox::compile::{Context, Keyring, RootEntry, clean, compile};
use crate::sandbox::plan::{Plan, WorkloadPlan};
use crate::sandbox::step::{MountSource, Step};

/// The script of the worker bundle in `directory`, as a path of the host without symbolic links.
pub fn script(directory: &Path) -> Result<PathBuf> {
    let bundle = Bundle::load(directory)?;
    // The seed is no container: only where files are is asked of the plan.
    let context = Context { id: "seed", keyring: Keyring::Inherited, root_entry: RootEntry::Pivot };
    let plan = compile(&bundle, context)?;
    let script = match (&plan.workload, plan.process.args.get(1)) {
        (WorkloadPlan::Worker { .. }, Some(script)) => clean(&plan.process.cwd.join(script)),
        (WorkloadPlan::Worker { .. } | WorkloadPlan::Exec, _) => {
            return Err(Error::invalid(
                "config.json: $.process.args",
                "must be those of a worker: a seed runs its script",
            ));
        }
    };
    let Some((base, rest)) = place(&plan, &script) else {
        let reason = format!("{} is a file of the container alone, and not of the host", script.display());
        return Err(Error::invalid("config.json: $.process.args[1]", reason));
    };
    let found = resolve(&base, &rest).operation(|| {
        format!("config.json: $.process.args[1]: open {} in {}", script.display(), base.display())
    })?;
    if !found.is_file() {
        let reason = format!("{} is not a file", found.display());
        return Err(Error::invalid("config.json: $.process.args[1]", reason));
    }
    Ok(found)
}

/// The directory or file of the host that the last mount over the script shows there, and the path below it.
fn place(plan: &Plan, script: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut place = None;
    for step in &plan.init.steps {
        match step {
            Step::BindRoot { path } | Step::PlainRoot { path } | Step::HostRoot { path } => {
                place = Some((path.clone(), script.strip_prefix("/").unwrap_or(script).to_owned()));
            }
            Step::Mount(mount) => {
                let Ok(rest) = script.strip_prefix(&mount.target) else { continue };
                place = match &mount.source {
                    MountSource::Bind { path, .. } => Some((path.clone(), rest.to_owned())),
                    MountSource::Remount => continue,
                    MountSource::Filesystem { .. } | MountSource::Cgroups => None,
                };
            }
            _ => {}
        }
    }
    place
}

/// Follows the links below `base` as in the container, where none leads out of it.
fn resolve(base: &Path, rest: &Path) -> std::io::Result<PathBuf> {
    if rest.as_os_str().is_empty() {
        return base.canonicalize();
    }
    let base = open(base, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(&base, rest, how)?;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::default;
    use serde_json::{Value, json};
    use std::os::unix::fs::symlink;

    fn bundle(change: impl FnOnce(&mut Value, &Path)) -> (tempfile::TempDir, Result<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("rootfs/app")).unwrap();
        fs::write(root.join("worker.js"), "1").unwrap();
        fs::write(root.join("rootfs/app/inside.js"), "2").unwrap();
        let mut json: Value = serde_json::from_str(default::WORKER).unwrap();
        change(&mut json, &root);
        fs::write(root.join("config.json"), json.to_string()).unwrap();
        let found = script(&root).map(|path| path.strip_prefix(&root).unwrap().to_owned());
        (dir, found)
    }

    #[test]
    fn a_script_is_found_where_the_container_takes_it_from() {
        let (_keep, found) = bundle(|_, _| {});
        assert_eq!(found.unwrap(), Path::new("worker.js"));
        let (_keep, found) = bundle(|json, _| json["process"]["args"] = json!(["aworker", "worker.js"]));
        assert_eq!(found.unwrap(), Path::new("worker.js"));
        let image = |json: &mut Value| {
            json["root"] = json!({"path": "rootfs"});
            json["mounts"] = json!([]);
        };
        let (_keep, found) = bundle(|json, root| {
            image(json);
            // A link in the image leads nowhere outside of it.
            symlink("/app/inside.js", root.join("rootfs/link.js")).unwrap();
            json["process"]["args"] = json!(["aworker", "/link.js"]);
        });
        assert_eq!(found.unwrap(), Path::new("rootfs/app/inside.js"));
        let (_keep, found) = bundle(|json, root| {
            image(json);
            let file = json!({"destination": "/x.js", "type": "bind", "source": root.join("worker.js"), "options": ["bind"]});
            json["mounts"] = json!([file]);
            json["process"]["args"] = json!(["aworker", "/x.js"]);
        });
        assert_eq!(found.unwrap(), Path::new("worker.js"));
    }

    #[test]
    fn what_is_no_script_of_the_host_is_refused() {
        let words = |found: Result<PathBuf>| found.unwrap_err().to_string();
        let (_keep, found) = bundle(|json, _| json["process"]["args"] = json!(["aworker", "/app/none.js"]));
        assert!(words(found).contains("no such file or directory"));
        let (_keep, found) = bundle(|json, _| json["process"]["args"] = json!(["aworker", "/tmp/a.js"]));
        assert!(words(found).contains("a file of the container alone"));
        let (_keep, found) = bundle(|json, _| json["process"]["args"] = json!(["aworker", "/app"]));
        assert!(words(found).contains("is not a file"));
        let (_keep, found) = bundle(|json, _| {
            json["root"] = json!({"path": "rootfs"});
            json["process"]["args"] = json!(["sh"]);
        });
        assert!(words(found).contains("must be those of a worker"));
    }
}
