//! The control groups of seeds: each has its own, so that the end of whoever started it does not end the seed, and its memory is not
//! counted there. One with user code also leaves the root groups, and has limits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The group of all seeds, below the root of each hierarchy of cgroups.
const CGROUP: &str = "turf-seeds";

/// Who is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The process that calls.
    Caller,
    /// The process with this number.
    Process(i32),
}

/// What became of a seed's control groups.
#[derive(Debug, Default)]
pub struct Groups {
    /// The directories of those it is in that are its own.
    pub directories: Vec<PathBuf>,
    /// What the system did not allow.
    pub left: Vec<String>,
}

/// The name of the groups of a seed with user code. Each generation has its own: the one before serves while this one's
/// user code runs.
pub fn name_of_tenant(name: &str, tenant: u32, generation: &Path) -> String {
    let generation = generation.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{tenant}-{generation}")
}

/// Moves a seed into groups of this name, with these limits; where there are none, groups that are the root's are left alone.
pub fn enter(member: Member, name: &str, limits: &[(&str, u64)]) -> Groups {
    let mut groups = Groups::default();
    let own = match member {
        Member::Caller => "/proc/self/cgroup".to_owned(),
        Member::Process(pid) => format!("/proc/{pid}/cgroup"),
    };
    let Ok(present) = fs::read_to_string(&own) else {
        groups.left.push(format!("read {own}"));
        return groups;
    };
    for line in present.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_limited =
            controllers.is_empty() || controllers.split(',').any(|name| name == "memory" || name == "pids");
        if path == "/" && (limits.is_empty() || !is_limited) {
            continue;
        }
        match enter_one(member, controllers, name, limits) {
            Ok(directory) => groups.directories.push(directory),
            Err(error) => groups.left.push(format!("leave cgroup {path} of {controllers:?}: {error}")),
        }
    }
    groups
}

fn enter_one(member: Member, controllers: &str, name: &str, limits: &[(&str, u64)]) -> io::Result<PathBuf> {
    let root = hierarchy(controllers)?;
    let group = root.join(CGROUP).join(name);
    fs::create_dir_all(&group)?;
    if controllers.is_empty() && !limits.is_empty() {
        for above in [&root, &root.join(CGROUP)] {
            for controller in ["+memory", "+pids"] {
                // Where the controller is not of this hierarchy, its limits are not either.
                let _ = fs::write(above.join("cgroup.subtree_control"), controller);
            }
        }
    }
    // cpuset of cgroup v1 takes no process before it has processors and memory nodes.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if group.join(file).exists() {
            for directory in [group.parent().unwrap_or(&group), &group] {
                let above = directory.parent().unwrap_or(Path::new("/")).join(file);
                fs::write(directory.join(file), fs::read(above)?)?;
            }
        }
    }
    for (file, value) in limits.iter().map(|(file, value)| (group.join(file), value)) {
        if file.exists() {
            fs::write(file, value.to_string())?;
        }
    }
    let process = match member {
        Member::Caller => 0,
        Member::Process(pid) => pid,
    };
    fs::write(group.join("cgroup.procs"), process.to_string())?;
    Ok(group)
}

/// The directory where a hierarchy is mounted: the usual places of systemd and of distributions without it.
fn hierarchy(controllers: &str) -> io::Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let places = match controllers {
        "" => vec![root.to_owned(), root.join("unified")],
        named => vec![root.join(named), root.join(named.trim_start_matches("name="))],
    };
    places.into_iter().find(|place| place.join("cgroup.procs").exists()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the hierarchy is not mounted in /sys/fs/cgroup")
    })
}

/// Removes the caller's groups of this name; they are empty once it and its workers have left.
pub fn remove(name: &str) {
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return };
    for line in own.lines() {
        let Some(controllers) = line.split(':').nth(1) else { continue };
        let Ok(root) = hierarchy(controllers) else { continue };
        let group = root.join(CGROUP).join(name);
        if group.is_dir() && fs::write(root.join("cgroup.procs"), "0").is_ok() {
            // A group that somebody is still in stays; the next seed of that name uses it.
            let _ = fs::remove_dir(&group);
            let _ = fs::remove_dir(root.join(CGROUP));
        }
    }
}
