//! Groups of Resource Director Technology (`linux.intelRdt`): a share of the L3 cache and of the memory bandwidth,
//! and a count of what is used of them.
//!
//! ```text
//! <mount>/                    the default group
//! <mount>/<closID or id>/     schemata: the share; tasks: who is in it
//!   mon_groups/<id>/          mon_data: what the container uses; tasks
//! ```
//!
//! As with a version 1 control group a task that writes `0` to `tasks` enters a group, and its children are born in it.
//! config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst.

mod schemata;
mod stats;

pub use stats::RdtStats;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use super::files::{open_for_writing, read_file, write_file};
use super::layout::mounts_of;
use crate::error::{Error, Operation, Result};

/// What a bundle asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtPlan {
    /// The class of service; none: one of the container's own.
    clos: Option<String>,
    /// The container's id, which names what is its own.
    id: String,
    /// The lines for `schemata`.
    lines: Vec<String>,
    /// Whether the container's use is counted apart.
    monitored: bool,
}

/// The groups of one container, located on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Located {
    mount: PathBuf,
    /// The class of service.
    directory: PathBuf,
    /// Whether the class is the container's own, and ends with it.
    own: bool,
    /// The monitoring group.
    monitor: Option<PathBuf>,
}

const CLOS: &str = "config.json: $.linux.intelRdt.closID";

impl RdtPlan {
    /// Compiles `linux.intelRdt`.
    pub fn compile(id: &str, linux: Option<&Linux>) -> Result<Option<RdtPlan>> {
        let Some(rdt) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
        let clos = rdt.clos_id().clone().filter(|name| !name.is_empty());
        if let Some(name) = clos.as_deref().filter(|name| *name != "/") {
            check_name(name)?;
        }
        let lines = schemata::lines(
            rdt.l3_cache_schema().as_deref(),
            rdt.mem_bw_schema().as_deref(),
            rdt.schemata().as_deref().unwrap_or_default(),
        )?;
        let monitored = rdt.enable_monitoring() == &Some(true);
        Ok(Some(RdtPlan { clos, id: id.to_owned(), lines, monitored }))
    }
}

/// A class is a directory below the mount point, and not one of those that the kernel makes there.
fn check_name(name: &str) -> Result<()> {
    let reserved = [".", "..", "info", "mon_groups", "mon_data"].contains(&name);
    if reserved || name.contains(['/', '\n', '\0']) {
        return Err(Error::invalid(CLOS, format!("{name:?} cannot be the name of a class of service")));
    }
    Ok(())
}

/// Where the file system is mounted, if it is.
pub fn mount_point() -> Result<Option<PathBuf>> {
    let table = read_file(Path::new("/proc/self/mountinfo"))?;
    Ok(mounts_of(&table, "resctrl").into_iter().next())
}

impl Located {
    /// Finds out which groups the plan needs; changes nothing.
    pub(super) fn locate(plan: &RdtPlan) -> Result<Located> {
        let Some(mount) = mount_point()? else {
            return Err(Error::invalid(
                "config.json: $.linux.intelRdt",
                "needs a mounted resctrl file system: this machine has no Intel RDT, or it is switched off",
            ));
        };
        Ok(Located::below(&mount, plan))
    }

    fn below(mount: &Path, plan: &RdtPlan) -> Located {
        let directory = match plan.clos.as_deref() {
            Some("/") => mount.to_owned(),
            Some(name) => mount.join(name),
            None => mount.join(&plan.id),
        };
        let monitor = plan.monitored.then(|| directory.join("mon_groups").join(&plan.id));
        Located { mount: mount.to_owned(), directory, own: plan.clos.is_none(), monitor }
    }

    /// Makes the groups. A class that has a name may be there already: then it must say what the bundle says, and must be
    /// there if the bundle says nothing.
    pub(super) fn create(&self, plan: &RdtPlan) -> Result<()> {
        let schemata = self.directory.join("schemata");
        if !self.own && plan.lines.is_empty() && !self.directory.is_dir() {
            let reason =
                format!("{} does not exist, and there is no schema for it", self.directory.display());
            return Err(Error::invalid(CLOS, reason));
        }
        let made = make(&self.directory)?;
        if self.own || made == Made::New {
            schemata::write(&schemata, &plan.lines)?;
        } else {
            schemata::compare(&schemata, &plan.lines)?;
        }
        self.monitor.iter().try_for_each(|monitor| make(monitor).map(drop))
    }

    /// Other schemas for the container's class.
    pub(super) fn update(&self, lines: &[String]) -> Result<()> {
        schemata::write(&self.directory.join("schemata"), lines)
    }

    /// Opens the files through which a task enters the groups, the class first: whoever enters another class leaves the
    /// monitoring group.
    pub(super) fn open_for_join(&self) -> Result<Vec<OwnedFd>> {
        let open = |directory: &PathBuf| open_for_writing(&directory.join("tasks"));
        std::iter::once(&self.directory).chain(&self.monitor).map(open).collect()
    }

    /// Removes what is the container's own. A class that has a name stays, as with runc: others may use it.
    pub(super) fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.directory);
        self.monitor.iter().chain(own).try_for_each(|directory| match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.operation(|| format!("remove {}", directory.display())),
        })
    }
}

/// The lines that `update` writes for its two flags.
pub(super) fn update_lines(l3_cache: Option<&str>, memory_bandwidth: Option<&str>) -> Result<Vec<String>> {
    schemata::lines(l3_cache, memory_bandwidth, &[])
}

#[derive(PartialEq, Eq)]
enum Made {
    New,
    Before,
}

fn make(directory: &Path) -> Result<Made> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Before),
        // The kernel's sentence stands in a file of its own; ENOSPC: the processor has no more classes.
        made => made.operation(|| format!("create {}", directory.display())).map(|()| Made::New),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;
    use serde_json::{Value, json};

    fn compile(rdt: Value) -> Result<Option<RdtPlan>> {
        let spec = json!({"ociVersion": "1.3.0", "linux": {"intelRdt": rdt}});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        RdtPlan::compile("box", spec.linux().as_ref())
    }

    fn plan(rdt: Value) -> RdtPlan {
        compile(rdt).unwrap().unwrap()
    }

    /// A directory in place of the mount. Only the kernel makes files in new groups, so tests bring them.
    fn mount(groups: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        for (group, schemata) in groups {
            fs::create_dir_all(mount.path().join(group).join("mon_groups")).unwrap();
            fs::write(mount.path().join(group).join("schemata"), schemata).unwrap();
            fs::write(mount.path().join(group).join("tasks"), "").unwrap();
        }
        mount
    }

    #[test]
    fn without_the_member_there_is_nothing() {
        assert_eq!(RdtPlan::compile("box", None).unwrap(), None);
        assert_eq!(compile(Value::Null).unwrap(), None);
    }

    #[test]
    fn a_container_has_a_class_of_its_own_unless_it_names_one() {
        let place = |rdt: Value| {
            let located = Located::below(Path::new("/r"), &plan(rdt));
            (located.directory.to_str().unwrap().to_owned(), located.own, located.monitor)
        };
        assert_eq!(place(json!({})), ("/r/box".to_owned(), true, None));
        assert_eq!(place(json!({"closID": ""})), ("/r/box".to_owned(), true, None));
        assert_eq!(place(json!({"closID": "gold"})), ("/r/gold".to_owned(), false, None));
        let monitor = Some(PathBuf::from("/r/mon_groups/box"));
        assert_eq!(
            place(json!({"closID": "/", "enableMonitoring": true})),
            ("/r".to_owned(), false, monitor)
        );
    }

    #[test]
    fn names_that_are_no_class_are_refused() {
        for name in [".", "..", "a/b", "/a", "info", "mon_groups", "mon_data", "a\nb"] {
            let error = compile(json!({"closID": name})).unwrap_err().to_string();
            assert!(error.contains("$.linux.intelRdt.closID"), "{name:?}: {error}");
        }
    }

    #[test]
    fn an_own_class_gets_the_schemas_and_is_joined_and_removed() {
        let mount = mount(&[("box", "")]);
        let plan = plan(json!({"l3CacheSchema": "L3:0=f", "enableMonitoring": true}));
        let located = Located::below(mount.path(), &plan);
        located.create(&plan).unwrap();
        let group = mount.path().join("box");
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=f\n");
        fs::write(group.join("mon_groups/box/tasks"), "").unwrap();
        let files = located.open_for_join().unwrap();
        use std::os::fd::AsFd;
        super::super::join_self(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        for tasks in ["tasks", "mon_groups/box/tasks"] {
            assert_eq!(fs::read_to_string(group.join(tasks)).unwrap(), "0", "{tasks}");
        }
        // The kernel removes a group with its files; a directory here must be empty.
        fs::remove_file(group.join("mon_groups/box/tasks")).unwrap();
        assert!(located.remove().is_err(), "the class is not empty");
        assert!(!group.join("mon_groups/box").exists());
        fs::remove_dir_all(&group).unwrap();
        located.remove().unwrap();
    }

    #[test]
    fn a_class_that_is_there_must_say_what_the_bundle_says_and_stays() {
        let mount = mount(&[("gold", "    L3:0=00f;1=ff0\n    MB:0= 50;1=100\n")]);
        let same = plan(json!({"closID": "gold", "l3CacheSchema": "L3:0=f;1=ff0", "memBwSchema": "MB:0=50"}));
        let located = Located::below(mount.path(), &same);
        located.create(&same).unwrap();
        located.remove().unwrap();
        let other = plan(json!({"closID": "gold", "schemata": ["L3:0=f;1=fff"]}));
        let error = located.create(&other).unwrap_err().to_string();
        assert!(error.contains("L3:0=f;1=fff") && error.contains("gold"), "{error}");
        // Nobody changed it.
        let left = fs::read_to_string(mount.path().join("gold/schemata")).unwrap();
        assert_eq!(left, "    L3:0=00f;1=ff0\n    MB:0= 50;1=100\n");
    }

    #[test]
    fn a_class_without_schemas_must_be_there() {
        let mount = mount(&[("gold", "L3:0=f\n")]);
        let there = plan(json!({"closID": "gold"}));
        Located::below(mount.path(), &there).create(&there).unwrap();
        let missing = plan(json!({"closID": "silver"}));
        let error = Located::below(mount.path(), &missing).create(&missing).unwrap_err().to_string();
        assert!(error.contains("silver does not exist"), "{error}");
        assert!(!mount.path().join("silver").exists());
    }

    #[test]
    fn an_update_writes_other_schemas() {
        let mount = mount(&[("box", "L3:0=f\n")]);
        let located = Located::below(mount.path(), &plan(json!({})));
        located.update(&update_lines(Some("L3:0=ff"), Some("MB:0=20")).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(mount.path().join("box/schemata")).unwrap(), "L3:0=ff\nMB:0=20\n");
    }
}
