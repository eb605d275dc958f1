//! Leaving the caller: a seed outlives the command that started it, and has nothing of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdout, setsid};
use turf_core::limits::SEED_WARMING;
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::process::exit_now;
use turf_core::sys::{fd, process};

use crate::options::Options;

/// The group of all seeds, below the root of each hierarchy of cgroups.
const CGROUP: &str = "turf-seeds";

/// Closes what was inherited beyond the standard streams, before anything is opened here.
pub fn close_inherited() -> Result<()> {
    fd::close_range_from(3).context("close inherited descriptors")
}

/// Returns in a new process that is the leader of its own session; the calling one ends with status 0.
pub fn detach() -> Result<()> {
    match fork().map_err(|error| error.source).context("fork the daemon")? {
        Fork::Parent { .. } => exit_now(0),
        Fork::Child => {}
    }
    setsid().context("setsid")?;
    Ok(())
}

/// Puts everything back that a caller may have set: signals, parent-death signal, directory, file mode mask.
pub fn forget_caller() -> Result<()> {
    set_pdeathsig(None).context("clear the parent-death signal")?;
    process::default_signal_actions();
    // A starter or a client that is gone must not end the seed.
    process::ignore_broken_pipes();
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    std::env::set_current_dir("/").context("chdir to /")?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}

/// What became of the seed's control groups.
#[derive(Debug, Default)]
pub struct Groups {
    /// The directories of those it is in that are its own.
    pub directories: Vec<PathBuf>,
    /// What the system did not allow, for the log.
    pub left: Vec<String>,
}

/// Moves into control groups of its own, so that the end of the caller's does not end the seed and its memory is not
/// counted there. One with user code also leaves the root groups, and has limits while that runs.
pub fn enter_cgroups(options: &Options) -> Groups {
    let mut groups = Groups::default();
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else {
        groups.left.push("read /proc/self/cgroup".to_owned());
        return groups;
    };
    let (name, limits) = match options.tenant {
        None => (options.name.clone(), &[][..]),
        // Each generation has its own: the one before serves while this one's user code runs.
        Some(tenant) => {
            let generation = options.directory.file_name().unwrap_or_default().to_string_lossy();
            (format!("{}-{tenant}-{generation}", options.name), &SEED_WARMING[..])
        }
    };
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_limited =
            controllers.is_empty() || controllers.split(',').any(|name| name == "memory" || name == "pids");
        if path == "/" && (limits.is_empty() || !is_limited) {
            continue;
        }
        match enter_own_cgroup(controllers, &name, limits) {
            Ok(directory) => groups.directories.push(directory),
            Err(error) => groups.left.push(format!("leave cgroup {path} of {controllers:?}: {error}")),
        }
    }
    groups
}

fn enter_own_cgroup(controllers: &str, name: &str, limits: &[(&str, u64)]) -> io::Result<PathBuf> {
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
    fs::write(group.join("cgroup.procs"), "0")?;
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

/// Removes the seed's cgroups; they are empty once it and its workers have left.
pub fn remove_cgroups(name: &str) {
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

/// Sends what is written to standard output to the log from here on: the starter has read its line.
pub fn close_start_message() -> Result<()> {
    dup2_stdout(io::stderr()).context("point standard output to the log")
}
