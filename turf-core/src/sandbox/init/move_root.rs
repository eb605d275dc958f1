//! Entering the root without pivot_root(2): it is moved over `/`, and chroot(2) makes it init's.
//!
//! The host's other mounts stay in the mount namespace, out of reach below the root. So that nobody can make a
//! /proc or /sys of his own out of them in a user namespace, whatever is a proc or sysfs outside of the root is
//! taken away or covered first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, chroot, fchdir};

use super::root::Root;
use super::steps::{Sandbox, path_fd, unescape};
use crate::sandbox::enter::At;
use crate::sandbox::step::StepError;

impl Sandbox<'_> {
    pub(super) fn move_root(&mut self) -> Result<(), StepError> {
        let step = || "enter the root by moving it to /";
        fchdir(&self.root).at(step)?;
        let own = std::env::current_dir().at(step)?;
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").at(step)?;
        for point in host_views(&mountinfo, &own) {
            take_away(&point).at(|| format!("take away the host's {}", point.display()))?;
        }
        match mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>) {
            // A root without an image lies on / already.
            Err(Errno::EINVAL) if own == Path::new("/") => {}
            moved => moved.at(step)?,
        }
        chroot(".").at(step)?;
        chdir("/").at(step)?;
        self.root = Root::new(path_fd(Path::new("/")).at(step)?);
        Ok(())
    }
}

/// Where a whole proc or sysfs is mounted outside of the root, the last one first.
fn host_views(mountinfo: &str, own: &Path) -> Vec<PathBuf> {
    let mut points = Vec::new();
    for line in mountinfo.lines() {
        let Some((fields, rest)) = line.split_once(" - ") else { continue };
        let Some(point) = fields.split(' ').nth(4).map(unescape) else { continue };
        let kind = rest.split(' ').next();
        let is_inside = own != Path::new("/") && point.starts_with(own);
        if matches!(kind, Some("proc" | "sysfs")) && !is_inside {
            points.push(point);
        }
    }
    points.reverse();
    points
}

/// Unmounts it; what is locked in place (a mount namespace of another user namespace) is covered instead.
fn take_away(point: &Path) -> io::Result<()> {
    match mount(None::<&str>, point, None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>) {
        // Gone with the one that it was mounted on.
        Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
        slave => slave?,
    }
    match umount2(point, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL | Errno::EPERM) => {
            Ok(mount(Some("tmpfs"), point, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_proc_and_sysfs_are_found_and_the_containers_are_not() {
        let mountinfo = "\
20 1 0:20 / / rw - ext4 /dev/a rw
21 20 0:21 / /proc rw - proc proc rw
22 20 0:22 / /sys rw - sysfs sysfs rw
23 22 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw
24 20 0:24 / /bundle/root rw - ext4 /dev/a rw
25 24 0:25 / /bundle/root/proc rw - proc proc rw
26 20 0:25 / /other\\040proc rw - proc proc rw
";
        let views = host_views(mountinfo, Path::new("/bundle/root"));
        assert_eq!(views, [Path::new("/other proc"), Path::new("/sys"), Path::new("/proc")]);
        let views = host_views(mountinfo, Path::new("/"));
        assert_eq!(views.len(), 4);
    }
}
