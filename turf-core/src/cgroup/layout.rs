//! Where the control group hierarchies of this machine are: version 1 (each controller alone or
//! several together), version 2, or both ("hybrid").
//!
//! Read from /proc/self/cgroup and, where not everything is in its usual place, from /proc/self/mountinfo; the parsing
//! is pure. cgroups(7).

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::systemd::Unit;
use crate::error::{Error, Operation, Result};
use crate::sys::mount::{MountFacts, mount_at};

/// The path of a container's group, from `linux.cgroupsPath`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupPath {
    /// Below the mount point of each hierarchy; without the leading slash.
    Absolute(PathBuf),
    /// Below the group in which `turf` itself runs (on version 2, beside it: a group with
    /// processes may have no controllers for its children).
    Relative(PathBuf),
    /// Where systemd makes it: `slice:prefix:name`.
    Unit(Unit),
}

impl CgroupPath {
    /// Parses `linux.cgroupsPath`; without one the group is the relative `<id>`, as in runc.
    pub fn parse(path: Option<&Path>, id: &str) -> Result<CgroupPath> {
        let refuse = |reason: &str| Err(Error::invalid("config.json: $.linux.cgroupsPath", reason));
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(CgroupPath::Relative(PathBuf::from(id)));
        };
        if path.to_string_lossy().matches(':').count() == 2 && !path.is_absolute() {
            return Unit::parse(Some(path), id).map(CgroupPath::Unit);
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return refuse("must not contain \"..\"");
        }
        let clean: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if clean.as_os_str().is_empty() {
            return refuse("must name a group of the container's own, not the root group");
        }
        Ok(if path.is_absolute() { CgroupPath::Absolute(clean) } else { CgroupPath::Relative(clean) })
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The version 1 controllers (or `name=...`); empty for version 2.
    pub controllers: Vec<String>,
    /// The mount point.
    pub mount: PathBuf,
    /// The group of this process, below the mount point.
    pub own: PathBuf,
}

/// All hierarchies of this machine that a container could be put into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Version 1.
    pub v1: Vec<Hierarchy>,
    /// Version 2.
    pub v2: Option<Hierarchy>,
}

impl Layout {
    /// The layout that this process sees, by the table of all mounts.
    pub fn read() -> Result<Layout> {
        Ok(Layout::parse(&read("/proc/self/mountinfo")?, &read(OWN_GROUPS)?))
    }

    /// The layout where all is mounted below /sys/fs/cgroup as everybody does it; `None` elsewhere, and on kernels that do not say what is
    /// mounted at a place. The table of mounts takes the longer the more there are, and every container adds some.
    ///
    /// Version 2 beside version 1 is left out if it is not in its place.
    pub fn usual() -> Result<Option<Layout>> {
        Layout::usual_of(None)
    }

    /// The same of the version 1 controllers in the list alone, and of version 2 beside them only if one of the list is not of version 1.
    pub fn usual_of(wanted: Option<&[&str]>) -> Result<Option<Layout>> {
        let mount_at = |place: &str| mount_at(&CString::new(place).ok()?).ok().flatten();
        Ok(Layout::at_usual_places(&read(OWN_GROUPS)?, wanted, mount_at))
    }

    fn at_usual_places(
        own_groups: &str,
        wanted: Option<&[&str]>,
        mount_at: impl Fn(&str) -> Option<MountFacts>,
    ) -> Option<Layout> {
        let mut layout = Layout::default();
        let mut missing = wanted.map(<[&str]>::to_vec);
        let mut hybrid = false;
        // The last line is the hierarchy that was mounted first.
        for line in own_groups.lines().rev() {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            if names.is_empty() {
                continue;
            }
            hybrid = true;
            if let Some(missing) = &mut missing {
                let before = missing.len();
                missing.retain(|wanted| names.split(',').all(|name| name != *wanted));
                if missing.len() == before {
                    continue;
                }
            }
            let place = format!("{PLACE}/{}", names.strip_prefix("name=").unwrap_or(names));
            let facts = mount_at(&place).filter(|facts| facts.file_system == "cgroup")?;
            let controllers = controllers(&facts.options);
            let same = |name: &str| controllers.iter().any(|known| known == name);
            if names.split(',').count() != controllers.len() || !names.split(',').all(same) {
                return None;
            }
            let own = below_root(path, &facts.root);
            layout.v1.push(Hierarchy { controllers, mount: place.into(), own });
        }
        if hybrid && missing.is_some_and(|missing| missing.is_empty()) {
            return Some(layout);
        }
        let place = if hybrid { format!("{PLACE}/unified") } else { PLACE.to_owned() };
        match mount_at(&place).filter(|facts| facts.file_system == "cgroup2") {
            Some(facts) => {
                let own = own_group(own_groups, &[], &facts.root);
                layout.v2 = Some(Hierarchy { controllers: Vec::new(), mount: place.into(), own });
            }
            None if !hybrid => return None,
            None => {}
        }
        Some(layout)
    }

    /// Parses the two files; lines that are not about control groups, or not understood, are skipped.
    /// A hierarchy that is mounted more than once counts where it is mounted first.
    pub fn parse(mountinfo: &str, own_groups: &str) -> Layout {
        let mut layout = Layout::default();
        for line in mountinfo.lines() {
            let Some((fields, file_system)) = line.split_once(" - ") else { continue };
            let mut fields = fields.split(' ').skip(3);
            let (Some(root), Some(mount)) = (fields.next(), fields.next()) else { continue };
            let mut file_system = file_system.split(' ');
            let (kind, options) = (file_system.next(), file_system.nth(1).unwrap_or(""));
            let mount = PathBuf::from(unescape(mount));
            match kind {
                Some("cgroup2") if layout.v2.is_none() => {
                    let own = own_group(own_groups, &[], root);
                    layout.v2 = Some(Hierarchy { controllers: Vec::new(), mount, own });
                }
                Some("cgroup") => {
                    let controllers = controllers(options);
                    if layout.v1.iter().all(|known| known.controllers != controllers) {
                        let own = own_group(own_groups, &controllers, root);
                        layout.v1.push(Hierarchy { controllers, mount, own });
                    }
                }
                Some(_) | None => {}
            }
        }
        layout
    }

    /// Whether controllers are used through version 2: nothing of version 1 is mounted.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// The version 1 hierarchy of a controller.
    pub fn v1_of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }
}

/// Where file systems of a type are mounted.
pub(super) fn mounts_of(mountinfo: &str, wanted: &str) -> Vec<PathBuf> {
    let lines = mountinfo.lines().filter_map(|line| line.split_once(" - "));
    let of_type = lines.filter(|(_, file_system)| file_system.split(' ').next() == Some(wanted));
    of_type.filter_map(|(fields, _)| fields.split(' ').nth(4)).map(|path| unescape(path).into()).collect()
}

/// This process's groups.
const OWN_GROUPS: &str = "/proc/self/cgroup";

/// Where control groups are mounted on all but odd machines.
const PLACE: &str = "/sys/fs/cgroup";

fn read(path: &str) -> Result<String> {
    // Room for a usual table of mounts, so that it is read by few calls.
    let mut text = String::with_capacity(8192);
    let read = fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    read.operation(|| format!("read {path}")).map(|_| text)
}

/// The controllers among the options of a version 1 mount.
fn controllers(options: &str) -> Vec<String> {
    options.split(',').filter(|option| is_controller(option)).map(str::to_owned).collect()
}

/// Tells a controller (or a named hierarchy) from the other options of a version 1 mount.
fn is_controller(option: &str) -> bool {
    let other = ["rw", "ro", "none", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods"];
    !option.is_empty() && !other.contains(&option) && !option.starts_with("release_agent=")
}

/// This process's group in the hierarchy with these controllers, as a path below the mount point
/// that shows the hierarchy from `root` on.
fn own_group(own_groups: &str, controllers: &[String], root: &str) -> PathBuf {
    let path = own_groups.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        let same =
            names.len() == controllers.len() && controllers.iter().all(|name| names.contains(&&**name));
        same.then_some(path)
    });
    below_root(path.unwrap_or("/"), root)
}

/// A group's path below a mount point that shows its hierarchy from `root` on.
fn below_root(path: &str, root: &str) -> PathBuf {
    let path = Path::new(path);
    let below = path.strip_prefix(unescape(root)).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
    below.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// Undoes the octal escapes of /proc/self/mountinfo (space, tab, newline, backslash).
fn unescape(field: &str) -> String {
    if !field.contains('\\') {
        return field.to_owned();
    }
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
99 31 0:32 / /mnt/memory rw,relatime - cgroup cgroup rw,memory
";
    const OWN: &str = "4:memory:/a/b\n1:cpuacct,cpu:/c\n9:name=systemd:/\n0::/user.slice/x\n";

    #[test]
    fn a_hybrid_machine_has_both_versions() {
        let layout = Layout::parse(HYBRID, OWN);
        assert!(!layout.is_unified());
        assert_eq!(layout.v1.len(), 3);
        let cpu = layout.v1_of("cpuacct").unwrap();
        assert_eq!((cpu.mount.to_str(), cpu.own.to_str()), (Some("/sys/fs/cgroup/cpu,cpuacct"), Some("c")));
        assert_eq!(layout.v1_of("memory").unwrap().own, Path::new("a/b"));
        assert_eq!(layout.v1_of("name=systemd").unwrap().own, Path::new(""));
        assert_eq!(layout.v1_of("pids"), None);
        assert_eq!(layout.v2.unwrap().own, Path::new("user.slice/x"));
    }

    #[test]
    fn usual_places_tell_what_the_table_of_mounts_tells() {
        let mount_at = |place: &str| {
            let line = HYBRID.lines().find(|line| line.split(' ').nth(4) == Some(place))?;
            let (_, file_system) = line.split_once(" - ")?;
            let fields: Vec<&str> = file_system.split(' ').collect();
            let options = fields[2].trim_start_matches("rw").trim_start_matches(',').to_owned();
            Some(MountFacts { file_system: fields[0].into(), root: line.split(' ').nth(3)?.into(), options })
        };
        let own = "4:memory:/a/b\n2:cpu,cpuacct:/c\n1:name=systemd:/\n0::/user.slice/x\n";
        let mut usual = Layout::at_usual_places(own, None, mount_at).unwrap();
        usual.v1.sort_by(|a, b| a.mount.cmp(&b.mount));
        assert_eq!(usual, Layout::parse(HYBRID, own));
        // Of some, the others are not even looked at.
        let asked = std::cell::RefCell::new(Vec::new());
        let some = |wanted: &[&str]| {
            asked.borrow_mut().clear();
            Layout::at_usual_places(own, Some(wanted), |place| {
                asked.borrow_mut().push(place.to_owned());
                mount_at(place)
            })
        };
        let layout = some(&["memory"]).unwrap();
        assert_eq!((layout.v1.len(), layout.v2.is_some()), (1, false));
        assert_eq!(*asked.borrow(), ["/sys/fs/cgroup/memory"]);
        let layout = some(&["cpuacct", "hugetlb"]).unwrap();
        assert_eq!((layout.v1.len(), layout.v2.is_some(), layout.is_unified()), (1, true, false));
        assert_eq!(*asked.borrow(), ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"]);
        // One that is mounted elsewhere, or not as its name says.
        assert_eq!(Layout::at_usual_places("5:pids:/\n0::/\n", None, mount_at), None);
        let wrong = |place: &str| mount_at(place).map(|facts| MountFacts { options: "cpu".into(), ..facts });
        assert_eq!(Layout::at_usual_places(own, None, wrong), None);
        let unified = |place: &str| {
            let facts =
                MountFacts { file_system: "cgroup2".into(), root: "/".into(), options: String::new() };
            (place == "/sys/fs/cgroup").then_some(facts)
        };
        let layout = Layout::at_usual_places("0::/me\n", None, unified).unwrap();
        assert!(layout.is_unified());
        assert_eq!(layout.v2.unwrap().own, Path::new("me"));
        assert_eq!(Layout::at_usual_places("0::/me\n", None, |_| None), None);
    }

    #[test]
    fn this_machine_is_the_same_both_ways() {
        let Some(mut usual) = Layout::usual().unwrap() else {
            eprintln!("skipped: this machine's control groups are not in their usual places");
            return;
        };
        let mut read = Layout::read().unwrap();
        // Version 2 may be mounted elsewhere, which only the table tells.
        if usual.v2.is_none() {
            read.v2 = None;
        }
        for layout in [&mut usual, &mut read] {
            layout.v1.sort_by(|a, b| a.mount.cmp(&b.mount));
        }
        assert_eq!(usual, read);
    }

    #[test]
    fn a_unified_machine_has_one_hierarchy() {
        let layout =
            Layout::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/me\n");
        assert!(layout.is_unified());
        assert_eq!(layout.v2.unwrap().mount, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_mount_that_shows_a_part_of_the_hierarchy_shifts_our_own_group() {
        let mountinfo = "30 23 0:26 /docker/abc /sys/fs/cgroup/my\\040pids rw - cgroup cgroup rw,pids\n";
        let layout = Layout::parse(mountinfo, "1:pids:/docker/abc/inner\n");
        assert_eq!(layout.v1[0].own, Path::new("inner"));
        assert_eq!(layout.v1[0].mount, Path::new("/sys/fs/cgroup/my pids"));
    }

    #[test]
    fn nonsense_is_skipped() {
        assert_eq!(Layout::parse("", ""), Layout::default());
        assert_eq!(Layout::parse("a b - cgroup\n - \n1 2 3\n", ":::\n\n"), Layout::default());
    }

    #[test]
    fn paths_of_every_form() {
        let id = "box";
        let parse = |path: &str| CgroupPath::parse(Some(Path::new(path)), id);
        assert_eq!(CgroupPath::parse(None, id).unwrap(), CgroupPath::Relative("box".into()));
        assert_eq!(parse("").unwrap(), CgroupPath::Relative("box".into()));
        assert_eq!(parse("/a//b/./c/").unwrap(), CgroupPath::Absolute("a/b/c".into()));
        assert_eq!(parse("a/b").unwrap(), CgroupPath::Relative("a/b".into()));
        assert!(matches!(parse("system.slice:turf:box").unwrap(), CgroupPath::Unit(_)));
        for refused in ["/", ".", "//", "/a/../b", "..", "system:turf:box"] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }
}
