//! Id-mapped mounts (mount_setattr(2), `MOUNT_ATTR_IDMAP`), made by the creator of init.
//!
//! Only who has rights over a file system may map its owners, and init in a user namespace has none. So the
//! creator makes detached mounts before init is cloned; init attaches them when it comes to their steps.
//! The mapping is that of a user namespace, which exists only as long as it takes to take it over.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::idmap;
use crate::error::{Error, Operation, Result};
use crate::sandbox::plan::{IdMapping, InitPlan};
use crate::sandbox::step::{MountIdMapping, MountSource, Step};
use crate::sys::mount::{Depth, MOUNT_ATTR_IDMAP, MountAttr, mount_setattr, open_tree_clone};
use crate::sys::namespace::{Cloned, clone_process};
use crate::sys::process;

/// The detached mounts of all id-mapped binds of the plan, in its order.
pub(super) fn prepare(plan: &InitPlan) -> Result<VecDeque<OwnedFd>> {
    let mut namespaces: Vec<(&MountIdMapping, File)> = Vec::new();
    let mut mounts = VecDeque::new();
    for step in &plan.steps {
        let Step::Mount(mount) = step else { continue };
        let (MountSource::Bind { path, recursive }, Some(mapping)) = (&mount.source, &mount.id_mapping)
        else {
            continue;
        };
        let same = |known: &MountIdMapping| known.uids == mapping.uids && known.gids == mapping.gids;
        let at = match namespaces.iter().position(|(known, _)| same(known)) {
            Some(at) => at,
            None => {
                namespaces.push((mapping, user_namespace(&mapping.uids, &mapping.gids)?));
                namespaces.len() - 1
            }
        };
        let source = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::invalid(path.display().to_string(), "holds a zero byte"))?;
        let depth = if *recursive { Depth::All } else { Depth::One };
        let tree = open_tree_clone(nix::fcntl::AT_FDCWD, &source, depth)
            .operation(|| format!("bind {} on {}", path.display(), mount.target.display()))?;
        let userns_fd = u64::try_from(namespaces[at].1.as_raw_fd()).unwrap_or_default();
        let attr = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
        let depth = if mapping.recursive { Depth::All } else { Depth::One };
        mount_setattr(tree.as_fd(), depth, &attr)
            .operation(|| format!("map the owners of {} on {}", path.display(), mount.target.display()))?;
        mounts.push_back(tree);
    }
    Ok(mounts)
}

/// A user namespace with these mappings, kept alive by its descriptor alone. The caller must be single-threaded.
pub fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<File> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).operation(|| "make a pipe")?;
    let flags = libc::CLONE_NEWUSER as u64;
    let pid = match clone_process(flags).operation(|| "clone a process into a user namespace")? {
        Cloned::Parent(pid) => pid,
        Cloned::Child => {
            // Lives until the other end is closed, however that happens.
            drop(writer);
            let _ = nix::unistd::read(&reader, &mut [0]);
            process::exit_now(0)
        }
    };
    drop(reader);
    let write = |name: &str, mappings: &[IdMapping]| {
        let (path, text) = (format!("/proc/{pid}/{name}"), idmap::lines(mappings));
        std::fs::write(&path, &text)
            .operation(|| format!("map the owners of a mount: write {text:?} to {path}"))
    };
    let path = format!("/proc/{pid}/ns/user");
    let made = write("uid_map", uids)
        .and_then(|()| write("gid_map", gids))
        .and_then(|()| File::open(&path).operation(|| format!("open {path}")));
    drop(writer);
    let ended = process::wait_for(pid).operation(|| "wait for the process in the user namespace");
    let file = made?;
    ended.map(|_| file)
}
