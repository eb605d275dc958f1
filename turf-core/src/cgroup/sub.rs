//! Groups below those of a container, which `exec --cgroup` joins; and whether groups could be made.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::unistd::{AccessFlags, eaccess};

use super::files::open_for_writing;
use super::{Cgroup, CgroupPlan, Group, Version};
use crate::error::{Error, Result};

/// A group below the container's own, `[CONTROLLER[,CONTROLLER]:]PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubGroup {
    /// On version 1: the hierarchies in which it is; empty: all of the container's.
    controllers: Vec<String>,
    path: PathBuf,
}

impl FromStr for SubGroup {
    type Err = Error;

    fn from_str(text: &str) -> Result<SubGroup> {
        let refuse = |reason: &str| Err(Error::invalid(format!("--cgroup {text:?}"), reason));
        let (controllers, path) = text.split_once(':').unwrap_or(("", text));
        let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        let named = text.contains(':');
        if named && controllers.iter().any(String::is_empty) {
            return refuse("must be [CONTROLLER[,CONTROLLER]:]PATH");
        }
        let path = Path::new(path);
        if path.components().any(|part| part == Component::ParentDir) {
            let reason = format!("{} is not a sub cgroup path", path.display());
            return Err(Error::invalid("--cgroup", reason));
        }
        let path = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        Ok(SubGroup { controllers: if named { controllers } else { Vec::new() }, path })
    }
}

impl Cgroup {
    /// The same as [`Cgroup::open_for_join`] for groups below the container's own, which must exist. Of
    /// several that name a hierarchy the last one counts.
    pub fn open_for_join_below(&self, below: &[SubGroup]) -> Result<Vec<OwnedFd>> {
        let unknown = |name: &&String| !self.groups.iter().any(|group| group.has(name));
        if let Some(name) = below.iter().flat_map(|sub| &sub.controllers).find(unknown) {
            return Err(Error::invalid(format!("--cgroup {name}:"), "is no controller of this container"));
        }
        let path = |group: &Group| {
            let here = |sub: &&SubGroup| {
                sub.controllers.is_empty() || sub.controllers.iter().any(|name| group.has(name))
            };
            below.iter().rev().find(here).map_or(Path::new(""), |sub| sub.path.as_path()).to_owned()
        };
        let open =
            |group: &Group| open_for_writing(&group.directory.join(path(group)).join(group.join_file()));
        self.groups.iter().map(open).chain(self.open_rdt_for_join()?.into_iter().map(Ok)).collect()
    }

    /// Whether the container's memory is counted.
    pub fn counts_memory(&self) -> bool {
        self.groups.iter().any(|group| group.version == Version::V2 || group.has("memory"))
    }

    /// Leaves out the groups that the caller may not make, unless a limit needs one: that is refused. What is left may be
    /// none at all. Rules of devices are no limits: who may not make groups may not make device nodes either.
    pub fn without_unwritable(mut self, plan: &CgroupPlan) -> Result<Cgroup> {
        let (writable, others): (Vec<Group>, Vec<Group>) =
            self.groups.into_iter().partition(Group::may_be_made);
        for group in others {
            let settings = match group.version {
                Version::V1 => plan.v1.as_ref()?,
                Version::V2 => plan.v2.as_ref()?,
            };
            if let Some(setting) = settings.iter().find(|setting| group.serves(setting)) {
                let reason = format!(
                    "asks for a limit ({} {}), but the control group {} may not be written by this user",
                    setting.file,
                    setting.value,
                    group.directory.display()
                );
                return Err(Error::invalid("config.json: $.linux.resources", reason));
            }
        }
        self.groups = writable;
        Ok(self)
    }
}

impl Group {
    /// Whether the caller has the right to make the directory, or to write to it.
    fn may_be_made(&self) -> bool {
        let existing = self.directory.ancestors().find(|directory| directory.exists());
        existing.is_some_and(|directory| eaccess(directory, AccessFlags::W_OK).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_below_is_a_path_with_or_without_controllers() {
        let parse = |text: &str| text.parse::<SubGroup>();
        let sub = |controllers: &[&str], path: &str| SubGroup {
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            path: path.into(),
        };
        assert_eq!(parse("a/b").unwrap(), sub(&[], "a/b"));
        assert_eq!(parse("/a//b/").unwrap(), sub(&[], "a/b"));
        assert_eq!(parse("").unwrap(), sub(&[], ""));
        assert_eq!(parse("cpu,cpuacct:a").unwrap(), sub(&["cpu", "cpuacct"], "a"));
        for refused in [":a", "cpu,:a", "..", "cpu:../b", "a/../.."] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_controller_that_the_container_has_not_is_refused() {
        let error = Cgroup::default().open_for_join_below(&["cpu:a".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("cpu:"), "{error}");
    }
}
