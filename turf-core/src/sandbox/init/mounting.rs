//! Executing [`Step::Mount`](crate::sandbox::step::Step::Mount): detached mounts are made, dressed, and attached to
//! a target that was resolved inside the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::symlinkat;

use super::copy_up::copy_up;
use super::steps::{Sandbox, is_directory, propagation_bits};
use crate::sandbox::enter::{At, c_string};
use crate::sandbox::mounts::is_common_flag;
use crate::sandbox::step::{MountAttributes, MountSource, MountStep, Parameter, StepError};
use crate::sys::mount::{
    Depth, MOUNT_ATTR_ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY, MountAttr, fs_context_message, fsconfig_create, fsconfig_flag, fsconfig_string,
    fsmount, fsopen, mount_setattr, move_mount, open_tree_clone,
};

/// What fsmount(2) takes since Linux 5.2.
const FSMOUNT_ATTRIBUTES: u64 = MOUNT_ATTR_RDONLY
    | MOUNT_ATTR_NOSUID
    | MOUNT_ATTR_NODEV
    | MOUNT_ATTR_NOEXEC
    | MOUNT_ATTR_ATIME
    | MOUNT_ATTR_NODIRATIME;

/// Longest value that fsconfig(2) takes, in bytes.
const PARAMETER_BYTES: usize = 255;

impl Sandbox<'_> {
    pub(super) fn mount(&mut self, step: &MountStep) -> Result<(), StepError> {
        let target = step.target.display();
        let tree = match &step.source {
            MountSource::Bind { path, .. } if step.id_mapping.is_some() => {
                let name = format!("bind {} on {target}", path.display());
                let prepared = self.id_mapped.pop_front();
                let tree = prepared
                    .ok_or_else(|| StepError::refused(name.as_str(), "the id-mapped mount did not come"))?;
                self.dress_and_attach(tree, step, &name)?
            }
            MountSource::Remount => Some(self.remount(step)?),
            MountSource::Bind { path, recursive } => {
                let name = format!("bind {} on {target}", path.display());
                let depth = if *recursive { Depth::All } else { Depth::One };
                let source = c_string(&name, &path.to_string_lossy())?;
                let tree = match open_tree_clone(nix::fcntl::AT_FDCWD, &source, depth) {
                    Err(error) => {
                        self.early(path, error).and_then(|opened| open_tree_clone(opened.as_fd(), c"", depth))
                    }
                    cloned => cloned,
                };
                let tree = tree.at(|| name.clone())?;
                self.dress_and_attach(tree, step, &name)?
            }
            MountSource::Filesystem { kind, source, parameters } => {
                let name = format!("mount {kind} on {target}");
                self.mount_filesystem(step, kind, source, parameters, &name)?
            }
            MountSource::Cgroups => {
                let name = format!("mount the control groups on {target}");
                return self.mount_cgroups(step, &name);
            }
        };
        let Some(tree) = tree else { return Ok(()) };
        for propagation in &step.propagation {
            let depth = if propagation.recursive { Depth::All } else { Depth::One };
            let propagation = propagation_bits(propagation.kind).bits();
            mount_setattr(tree.as_fd(), depth, &MountAttr { propagation, ..MountAttr::default() })
                .at(|| format!("set the propagation of {target}"))?;
        }
        Ok(())
    }

    /// Changes the mount that is on the target already.
    fn remount(&self, step: &MountStep) -> Result<OwnedFd, StepError> {
        let name = format!("remount {}", step.target.display());
        let mounted = self.root.resolve(&step.target).at(|| name.as_str())?;
        self.refuse_proc(mounted.as_fd(), step, &name)?;
        dress(mounted.as_fd(), step, &name)?;
        Ok(mounted)
    }

    /// Sets the attributes of a detached mount and attaches it to its target, which is made if it is
    /// missing.
    fn dress_and_attach(
        &self,
        tree: OwnedFd,
        step: &MountStep,
        name: &str,
    ) -> Result<Option<OwnedFd>, StepError> {
        dress(tree.as_fd(), step, name)?;
        let is_directory = is_directory(tree.as_fd()).at(|| name)?;
        let target = match is_directory {
            true => self.root.directory(&step.target),
            false => self.root.file(&step.target),
        };
        self.attach(tree, target.at(|| name)?.as_fd(), step, name).map(Some)
    }

    fn attach(
        &self,
        tree: OwnedFd,
        target: BorrowedFd<'_>,
        step: &MountStep,
        name: &str,
    ) -> Result<OwnedFd, StepError> {
        self.refuse_proc(target, step, name)?;
        move_mount(tree.as_fd(), target).at(|| name)?;
        Ok(tree)
    }

    fn mount_filesystem(
        &self,
        step: &MountStep,
        kind: &str,
        source: &str,
        parameters: &[Parameter],
        name: &str,
    ) -> Result<Option<OwnedFd>, StepError> {
        let is_tmpfs = kind == "tmpfs" && !parameters.iter().any(|parameter| parameter.key == "mode");
        let existing = if is_tmpfs || step.copy_up { self.root.resolve(&step.target).ok() } else { None };
        let mut target = self.root.directory(&step.target);
        if matches!(kind, "proc" | "sysfs") {
            // A link on the way could make the runtime write into another file system (CVE-2019-19921).
            target = match self.root.resolve_plain(&step.target) {
                Err(Errno::ELOOP) => {
                    let reason =
                        format!("{kind} must be mounted on ordinary directory, and there is a symbolic link");
                    return Err(StepError::refused(name, reason));
                }
                resolved => target.and(resolved.map_err(Into::into)),
            };
        }
        let target = target.at(|| name)?;
        if parameters
            .iter()
            .any(|parameter| parameter.value.as_ref().is_some_and(|v| v.len() > PARAMETER_BYTES))
        {
            if step.copy_up {
                return Err(StepError::refused(name, "tmpcopyup goes with short options only"));
            }
            return self.mount_with_long_parameters(step, kind, source, parameters, name);
        }
        let mut parameters = parameters.to_vec();
        if is_tmpfs && let Some(existing) = &existing {
            // A tmpfs keeps the permissions of the directory it covers, as runc does.
            let mode = fstat(existing).at(|| name)?.st_mode & 0o7777;
            parameters.push(Parameter { key: "mode".to_owned(), value: Some(format!("{mode:o}")) });
        }
        // A new mount has no attributes to clear; one that is filled first gets them afterwards.
        let at_once = if step.copy_up { 0 } else { step.attributes.set & FSMOUNT_ATTRIBUTES };
        let tree = new_filesystem(name, kind, source, &parameters, at_once)?;
        if step.copy_up
            && let Some(existing) = &existing
        {
            copy_up(existing.as_fd(), tree.as_fd()).at(|| format!("{name}: copy what it covers"))?;
        }
        if step.attributes.set != at_once || step.recursive_attributes != MountAttributes::default() {
            dress(tree.as_fd(), step, name)?;
        }
        self.attach(tree, target.as_fd(), step, name).map(Some)
    }

    /// mount(2) takes a page of parameters, fsconfig(2) 255 bytes for each: layers of an overlay need more.
    fn mount_with_long_parameters(
        &self,
        step: &MountStep,
        kind: &str,
        source: &str,
        parameters: &[Parameter],
        name: &str,
    ) -> Result<Option<OwnedFd>, StepError> {
        use std::os::fd::AsRawFd;
        let text = |parameter: &Parameter| match &parameter.value {
            Some(value) => format!("{}={value}", parameter.key),
            None => parameter.key.clone(),
        };
        let (common, own): (Vec<_>, Vec<_>) = parameters.iter().partition(|one| is_common_flag(one));
        let flags = common.iter().fold(MsFlags::empty(), |flags, one| flags | common_flag(&one.key));
        let data = own.into_iter().map(text).collect::<Vec<_>>().join(",");
        let target = self.root.directory(&step.target).at(|| name)?;
        self.refuse_proc(target.as_fd(), step, name)?;
        let path = format!("/proc/self/fd/{}", target.as_raw_fd());
        mount(Some(source), path.as_str(), Some(kind), flags, Some(data.as_str())).at(|| name)?;
        let mounted = self.root.resolve(&step.target).at(|| name)?;
        dress(mounted.as_fd(), step, name)?;
        Ok(Some(mounted))
    }

    /// Refuses to mount on a file of a proc file system that the target's name does not show: some link
    /// leads there, and the runtime writes to files below /proc.
    fn refuse_proc(&self, target: BorrowedFd<'_>, step: &MountStep, name: &str) -> Result<(), StepError> {
        let kind = nix::sys::statfs::fstatfs(target).at(|| name)?.filesystem_type();
        if kind == nix::sys::statfs::PROC_SUPER_MAGIC && !step.target.starts_with("/proc") {
            return Err(StepError::refused(name, "the target leads into a proc file system"));
        }
        Ok(())
    }

    /// Binds each of this process's control groups into a small tmpfs, or the one of version 2 at once.
    fn mount_cgroups(&self, step: &MountStep, name: &str) -> Result<(), StepError> {
        let clone = |path: &Path| -> Result<OwnedFd, StepError> {
            let source = c_string(name, &path.to_string_lossy())?;
            let tree = open_tree_clone(nix::fcntl::AT_FDCWD, &source, Depth::One)
                .at(|| format!("{name}: open {}", path.display()))?;
            dress(tree.as_fd(), step, name).map(|()| tree)
        };
        let target = self.root.directory(&step.target).at(|| name)?;
        if let [(group, path)] = self.cgroups.as_slice()
            && group.is_empty()
        {
            return self.attach(clone(path)?, target.as_fd(), step, name).map(drop);
        }
        let mode = Parameter { key: "mode".to_owned(), value: Some("755".to_owned()) };
        let top =
            self.attach(new_filesystem(name, "tmpfs", "tmpfs", &[mode], 0)?, target.as_fd(), step, name)?;
        for (group, path) in self.cgroups.iter().filter(|(group, _)| !group.is_empty()) {
            // The tmpfs is new and nobody else's: there is no link in it to follow.
            mkdirat(&top, group.as_str(), Mode::from_bits_truncate(0o755)).at(|| name)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let place = openat(&top, group.as_str(), flags, Mode::empty()).at(|| name)?;
            move_mount(clone(path)?.as_fd(), place.as_fd()).at(|| name)?;
            // Controllers that are mounted together are found by each of their names.
            for alias in group.split(',').filter(|alias| group.contains(',') && !alias.is_empty()) {
                symlinkat(group.as_str(), &top, alias).at(|| name)?;
            }
        }
        let attributes = step.attributes;
        let attr = MountAttr { attr_set: attributes.set, attr_clr: attributes.clear, ..MountAttr::default() };
        mount_setattr(top.as_fd(), Depth::One, &attr).at(|| format!("set the attributes: {name}"))
    }
}

/// Sets the attributes of a mount, and of those below it.
fn dress(mount: BorrowedFd<'_>, step: &MountStep, name: &str) -> Result<(), StepError> {
    let set = |depth, attributes: MountAttributes| {
        if attributes == MountAttributes::default() {
            return Ok(());
        }
        let attr = MountAttr { attr_set: attributes.set, attr_clr: attributes.clear, ..MountAttr::default() };
        mount_setattr(mount, depth, &attr)
    };
    set(Depth::One, step.attributes).at(|| format!("set the attributes: {name}"))?;
    set(Depth::All, step.recursive_attributes).at(|| format!("set the recursive attributes: {name}"))
}

/// A flag of every file system as mount(2) takes it.
fn common_flag(name: &str) -> MsFlags {
    match name {
        "sync" => MsFlags::MS_SYNCHRONOUS,
        "dirsync" => MsFlags::MS_DIRSYNC,
        "lazytime" => MsFlags::MS_LAZYTIME,
        "mand" => MsFlags::MS_MANDLOCK,
        _ => MsFlags::empty(),
    }
}

/// Makes a detached mount of a new file system.
pub(super) fn new_filesystem(
    name: &str,
    kind: &str,
    source: &str,
    parameters: &[Parameter],
    attributes: u64,
) -> Result<OwnedFd, StepError> {
    let context = fsopen(&c_string(name, kind)?).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => StepError::refused(name, format!("the kernel has no file system {kind:?}")),
        _ => StepError::new(name, error),
    })?;
    let configure = || -> Result<OwnedFd, StepError> {
        fsconfig_string(context.as_fd(), c"source", &c_string(name, source)?).at(|| name)?;
        for Parameter { key, value } in parameters {
            let key_text = c_string(name, key)?;
            let result = match value {
                Some(value) => fsconfig_string(context.as_fd(), &key_text, &c_string(name, value)?),
                None => fsconfig_flag(context.as_fd(), &key_text),
            };
            result.at(|| format!("{name}: option {key}"))?;
        }
        fsconfig_create(context.as_fd()).at(|| name)?;
        fsmount(context.as_fd(), attributes).at(|| name)
    };
    configure().map_err(|mut error| {
        // The kernel says what it did not like, if the file system is of the talkative kind.
        if let Some(reason) = fs_context_message(context.as_fd()) {
            error.text = format!("{} ({reason})", error.text);
        }
        error
    })
}

/// The directories of this process's control groups, each with the name it gets in the container; an
/// empty name for the only hierarchy of version 2.
pub(super) fn own_cgroups() -> Result<Vec<(String, PathBuf)>, StepError> {
    use crate::cgroup::layout::Layout;
    let layout = Layout::usual()
        .and_then(|usual| usual.map_or_else(Layout::read, Ok))
        .map_err(|error| StepError::refused("find the control groups", error.to_string()))?;
    if layout.is_unified() {
        return Ok(layout.v2.iter().map(|group| (String::new(), group.mount.join(&group.own))).collect());
    }
    let named = |group: &crate::cgroup::layout::Hierarchy| {
        let name = group.controllers.join(",");
        let name = name.strip_prefix("name=").map(str::to_owned).unwrap_or(name);
        (name, group.mount.join(&group.own))
    };
    Ok(layout.v1.iter().map(named).collect())
}
