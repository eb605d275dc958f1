//! The root of a container without a mount namespace that has mounts all the same: its mounts are the host's.
//!
//! The directory is bound on itself first, so that everything lies in one mount, which `delete` detaches: nothing of the
//! host's own mounts is changed, their propagation included. What is detached is that very mount, known by its id
//! (proc_pid_fdinfo(5), `mnt_id`): the directory may have been a mount of somebody else before, and may be one again.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;

use super::state::State;
use crate::error::{Error, Operation, Result};
use crate::sandbox::plan::Plan;
use crate::sandbox::step::Step;
use crate::sys::mount::{Depth, MountAttr, mount_setattr, move_mount, open_tree_clone};

/// The mount, made and attached nowhere yet.
#[derive(Debug)]
pub(super) struct HostRoot {
    tree: OwnedFd,
    place: OwnedFd,
}

impl HostRoot {
    /// For a plan that asks for it. Its id is in the state, which is stored before it is attached.
    pub(super) fn prepare(plan: &Plan, state: &mut State) -> Result<Option<HostRoot>> {
        let path = plan.init.steps.iter().find_map(|step| match step {
            Step::HostRoot { path } => Some(path),
            _ => None,
        });
        let Some(path) = path else { return Ok(None) };
        let make = || -> std::io::Result<HostRoot> {
            let place = open_place(path)?;
            Ok(HostRoot { tree: open_tree_clone(place.as_fd(), c"", Depth::All)?, place })
        };
        let root = make().operation(|| format!("bind the root {} on itself", path.display()))?;
        state.host_root = Some(mount_id(&root.tree)?);
        Ok(Some(root))
    }

    /// Attaches it: from here on it is [`detach`]'s to remove.
    pub(super) fn attach(self) -> Result<()> {
        let private = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
        move_mount(self.tree.as_fd(), self.place.as_fd())
            .and_then(|()| mount_setattr(self.tree.as_fd(), Depth::One, &private))
            .operation(|| "bind the root on itself in the host's mount namespace")
    }
}

/// Takes the container's mounts off the host, if they are there: the caller of `create` may have been in another mount
/// namespace, and somebody may have unmounted them.
pub(super) fn detach(state: &State) -> Result<()> {
    let (Some(id), Some(path)) = (state.host_root, &state.rootfs) else { return Ok(()) };
    let Ok(place) = open_place(path) else { return Ok(()) };
    if mount_id(&place)? != id {
        return Ok(());
    }
    drop(place);
    umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .operation(|| format!("unmount {}", path.display()))
}

fn open_place(path: &Path) -> std::io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The id of the mount that the descriptor lies in.
fn mount_id(file: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = fs::read_to_string(&path).operation(|| format!("read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Error::invalid(path, "names no mount"))
}
