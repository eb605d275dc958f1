//! Executing the steps of a plan, in init.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, fchdir, fchownat, pivot_root, symlinkat};

use super::root::Root;
use super::{HOOKS_DUE, inside, program};
use crate::sandbox::enter::{At, c_string};
use crate::sandbox::hooks;
use crate::sandbox::plan::{HookPlan, Plan, TerminalPlan};
use crate::sandbox::step::{
    DeviceKind, DeviceStep, MountSource, MountStep, Parameter, Propagation, PropagationKind, Step, StepError,
};
use crate::sys::mount::{
    Depth, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
    fs_context_message, fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen, mount_setattr,
    move_mount, open_tree_clone,
};
use crate::sys::{namespace, terminal};

/// Longest value that fsconfig(2) takes, in bytes.
const PARAMETER_BYTES: usize = 255;

/// Init while it builds its sandbox.
pub(super) struct Sandbox<'a> {
    plan: &'a Plan,
    setup: BorrowedFd<'a>,
    console: Option<&'a OwnedFd>,
    /// The root, until it is entered; then init's `/`.
    root: Root,
    /// The host's /dev/null, to mask files with: the container's may be anything (CVE-2025-31133).
    null: OwnedFd,
    /// Where this process's control groups are mounted, with their names in the container.
    cgroups: Vec<(String, PathBuf)>,
    /// Whether the root was only chosen, not mounted.
    plain: bool,
}

impl<'a> Sandbox<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        setup: BorrowedFd<'a>,
        console: Option<&'a OwnedFd>,
    ) -> Result<Sandbox<'a>, StepError> {
        umask(Mode::empty());
        let asks_for_cgroups =
            |step: &Step| matches!(step, Step::Mount(mount) if mount.source == MountSource::Cgroups);
        let cgroups = if plan.init.steps.iter().any(asks_for_cgroups) { own_cgroups()? } else { Vec::new() };
        let root = Root::new(path_fd(Path::new("/")).at(|| "open /")?);
        Ok(Sandbox { plan, setup, console, root, null: host_null()?, cgroups, plain: false })
    }

    pub(super) fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::NewSession => nix::unistd::setsid().map(drop).at(|| "start a session"),
            Step::LoopbackUp => loopback_up().at(|| "switch the loopback device on"),
            Step::Hostname(name) => nix::unistd::sethostname(name).at(|| format!("set the host name {name}")),
            Step::Domainname(name) => {
                namespace::setdomainname(name).at(|| format!("set the domain name {name}"))
            }
            Step::Sysctl { path, value } => {
                let file = Path::new("/proc/sys").join(path);
                write_existing(&file, value).at(|| format!("write {value:?} to {}", file.display()))
            }
            Step::Propagation(propagation) => set_propagation_of_all(*propagation),
            Step::BindRoot { path } => self.bind_root(path),
            Step::TmpfsRoot { size } => self.tmpfs_root(*size),
            Step::PlainRoot { path } => {
                self.plain = true;
                self.root = Root::new(path_fd(path).at(|| format!("open the root {}", path.display()))?);
                Ok(())
            }
            Step::Mount(mount) => self.mount(mount),
            Step::Device(device) => {
                self.device(device).at(|| format!("make the device {}", device.path.display()))
            }
            Step::Directory(path) => {
                self.root.directory(path).map(drop).at(|| format!("make the directory {}", path.display()))
            }
            Step::Symlink { content, target } => self.symlink(content, target),
            Step::Terminal(size) => self.terminal(*size),
            Step::RuntimeHooks => {
                send(std::os::fd::AsRawFd::as_raw_fd(&self.setup), &[HOOKS_DUE], MsgFlags::MSG_NOSIGNAL)
                    .at(|| "report to create")?;
                inside::wait_for_word(self.setup)
            }
            Step::ContainerHooks(list) => self.container_hooks(list),
            Step::Mask(path) => self.mask(path),
            Step::Readonly(path) => self.readonly(path).at(|| format!("make {} read-only", path.display())),
            Step::ReadonlyRoot => {
                let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
                mount_setattr(self.root.as_fd(), Depth::One, &attr).at(|| "make the root read-only")
            }
            Step::EnterRoot => self.enter_root().at(|| "enter the root"),
            Step::RootPropagation(propagation) => {
                let flags = propagation_flags(*propagation);
                mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
                    .at(|| "set the root's propagation")
            }
            Step::FindProgram { program, path, cwd } => {
                program::find(program, path.as_deref(), cwd).map(drop)
            }
        }
    }

    fn bind_root(&mut self, path: &Path) -> Result<(), StepError> {
        let step = || format!("mount the root {}", path.display());
        make_parent_private(path).at(step)?;
        let target = path_fd(path).at(step)?;
        let tree = open_tree_clone(target.as_fd(), c"", Depth::All).at(step)?;
        self.attach_root(tree, target).at(step)
    }

    /// Mounted on top of `/`, which hides nothing: lookups begin at the mount below until the root is entered. Every
    /// other place could be out of reach for the root user of a user namespace, or be the source of a mount.
    fn tmpfs_root(&mut self, size: u64) -> Result<(), StepError> {
        let step = || "mount a tmpfs as the root".to_owned();
        let top = Path::new("/");
        make_parent_private(top).at(step)?;
        let parameters = [("mode", "755".to_owned()), ("size", size.to_string())];
        let parameters = parameters.map(|(key, value)| Parameter { key: key.to_owned(), value: Some(value) });
        let tree = new_filesystem(&step(), "tmpfs", "tmpfs", &parameters, MOUNT_ATTR_NOSUID)?;
        self.attach_root(tree, path_fd(top).at(step)?).at(step)
    }

    /// A root must be private for pivot_root(2); what is asked for is set once it is entered.
    fn attach_root(&mut self, tree: OwnedFd, target: OwnedFd) -> io::Result<()> {
        move_mount(tree.as_fd(), target.as_fd())?;
        let attr = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
        mount_setattr(tree.as_fd(), Depth::One, &attr)?;
        self.root = Root::new(tree);
        Ok(())
    }

    fn mount(&self, step: &MountStep) -> Result<(), StepError> {
        let target = step.target.display();
        let tree = match &step.source {
            MountSource::Bind { path, recursive } => {
                let name = format!("bind {} on {target}", path.display());
                let depth = if *recursive { Depth::All } else { Depth::One };
                let source = c_string(&name, &path.to_string_lossy())?;
                let tree = open_tree_clone(nix::fcntl::AT_FDCWD, &source, depth).at(|| name.clone())?;
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

    /// Sets the attributes of a detached mount and attaches it to its target, which is made if it is
    /// missing.
    fn dress_and_attach(
        &self,
        tree: OwnedFd,
        step: &MountStep,
        name: &str,
    ) -> Result<Option<OwnedFd>, StepError> {
        let dress = |depth, attributes: crate::sandbox::step::MountAttributes| {
            if attributes == crate::sandbox::step::MountAttributes::default() {
                return Ok(());
            }
            let attr =
                MountAttr { attr_set: attributes.set, attr_clr: attributes.clear, ..MountAttr::default() };
            mount_setattr(tree.as_fd(), depth, &attr)
        };
        dress(Depth::One, step.attributes).at(|| format!("set the attributes: {name}"))?;
        dress(Depth::All, step.recursive_attributes)
            .at(|| format!("set the recursive attributes: {name}"))?;
        let is_directory = is_directory(tree.as_fd()).at(|| name)?;
        let target = match is_directory {
            true => self.root.directory(&step.target),
            false => self.root.file(&step.target),
        };
        let target = target.at(|| name)?;
        self.refuse_proc(target.as_fd(), step, name)?;
        move_mount(tree.as_fd(), target.as_fd()).at(|| name)?;
        Ok(Some(tree))
    }

    fn mount_filesystem(
        &self,
        step: &MountStep,
        kind: &str,
        source: &str,
        parameters: &[Parameter],
        name: &str,
    ) -> Result<Option<OwnedFd>, StepError> {
        let existing = self.root.resolve(&step.target).ok();
        let target = self.root.directory(&step.target).at(|| name)?;
        if matches!(kind, "proc" | "sysfs") {
            // A link on the way could make the runtime write into another file system (CVE-2019-19921).
            self.root.resolve_plain(&step.target).at(|| format!("{name}: resolve without links"))?;
        }
        if parameters
            .iter()
            .any(|parameter| parameter.value.as_ref().is_some_and(|v| v.len() > PARAMETER_BYTES))
        {
            return self.mount_with_long_parameters(step, kind, source, parameters, name);
        }
        let mut parameters = parameters.to_vec();
        if kind == "tmpfs"
            && !parameters.iter().any(|parameter| parameter.key == "mode")
            && let Some(existing) = existing
        {
            // A tmpfs keeps the permissions of the directory it covers, as runc does.
            let mode = fstat(&existing).at(|| name)?.st_mode & 0o7777;
            parameters.push(Parameter { key: "mode".to_owned(), value: Some(format!("{mode:o}")) });
        }
        drop(target);
        let tree = new_filesystem(name, kind, source, &parameters, 0)?;
        self.dress_and_attach(tree, step, name)
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
        let data = parameters.iter().map(text).collect::<Vec<_>>().join(",");
        let target = self.root.directory(&step.target).at(|| name)?;
        self.refuse_proc(target.as_fd(), step, name)?;
        let path = format!("/proc/self/fd/{}", target.as_raw_fd());
        mount(Some(source), path.as_str(), Some(kind), MsFlags::empty(), Some(data.as_str())).at(|| name)?;
        let mounted = self.root.resolve(&step.target).at(|| name)?;
        let attributes = step.attributes;
        let attr = MountAttr { attr_set: attributes.set, attr_clr: attributes.clear, ..MountAttr::default() };
        mount_setattr(mounted.as_fd(), Depth::One, &attr).at(|| format!("set the attributes: {name}"))?;
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
        let bind = |path: &Path, target: &Path| -> Result<(), StepError> {
            let source = path_fd(path).at(|| format!("{name}: open {}", path.display()))?;
            let tree = open_tree_clone(source.as_fd(), c"", Depth::One).at(|| name)?;
            let step = MountStep { target: target.to_owned(), ..step.clone() };
            self.dress_and_attach(tree, &step, name).map(drop)
        };
        if let [(group, path)] = self.cgroups.as_slice()
            && group.is_empty()
        {
            return bind(path, &step.target);
        }
        let mode = Parameter { key: "mode".to_owned(), value: Some("755".to_owned()) };
        let top = new_filesystem(name, "tmpfs", "tmpfs", &[mode], 0)?;
        let target = self.root.directory(&step.target).at(|| name)?;
        self.refuse_proc(target.as_fd(), step, name)?;
        move_mount(top.as_fd(), target.as_fd()).at(|| name)?;
        for (group, path) in self.cgroups.iter().filter(|(group, _)| !group.is_empty()) {
            bind(path, &step.target.join(group))?;
            // Controllers that are mounted together are found by each of their names.
            for alias in group.split(',').filter(|alias| group.contains(',') && !alias.is_empty()) {
                self.symlink(Path::new(group), &step.target.join(alias))?;
            }
        }
        let attributes = step.attributes;
        let attr = MountAttr { attr_set: attributes.set, attr_clr: attributes.clear, ..MountAttr::default() };
        mount_setattr(top.as_fd(), Depth::One, &attr).at(|| format!("set the attributes: {name}"))
    }

    fn device(&self, device: &DeviceStep) -> io::Result<()> {
        if device.bind {
            let source = path_fd(&device.path)?;
            let tree = open_tree_clone(source.as_fd(), c"", Depth::One)?;
            return move_mount(tree.as_fd(), self.root.file(&device.path)?.as_fd());
        }
        let (parent, name) = self.root.parent(&device.path)?;
        let kind = match device.kind {
            DeviceKind::Character => SFlag::S_IFCHR,
            DeviceKind::Block => SFlag::S_IFBLK,
            DeviceKind::Fifo => SFlag::S_IFIFO,
        };
        let number = match device.kind {
            DeviceKind::Character | DeviceKind::Block => makedev(device.major.into(), device.minor.into()),
            DeviceKind::Fifo => 0,
        };
        let mode = Mode::from_bits_truncate(device.mode);
        match mknodat(&parent, name, kind, mode, number) {
            Err(Errno::EEXIST) => {
                let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let found_kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
                if found_kind != kind || found.st_rdev != number {
                    return Err(Errno::EEXIST.into());
                }
            }
            result => result?,
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fchownat(&parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // mknod was given the mode without a mask; only a node that was there before may differ.
        match fchmodat(&parent, name, mode, FchmodatFlags::NoFollowSymlink) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn symlink(&self, content: &Path, target: &Path) -> Result<(), StepError> {
        let step = || format!("link {} to {}", target.display(), content.display());
        let (parent, name) = self.root.parent(target).at(step)?;
        match symlinkat(content, &parent, name) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(StepError::new(step(), errno)),
        }
    }

    /// Makes a terminal in the container's devpts, gives its master away and makes it init's stdio.
    fn terminal(&self, size: TerminalPlan) -> Result<(), StepError> {
        let step = || "make a terminal";
        let Some(console) = self.console else {
            return Err(StepError::refused(step(), "there is no console socket"));
        };
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
        let master = self.root.open(Path::new("/dev/pts/ptmx"), flags, nix::fcntl::ResolveFlag::empty());
        let master = master.at(|| "open /dev/pts/ptmx")?;
        let peer = terminal::unlock_and_open_peer(master.as_fd()).at(step)?;
        terminal::set_size(master.as_fd(), size.height, size.width).at(|| "set the terminal's size")?;
        let (uid, gid) = (Uid::from_raw(self.plan.process.uid), Gid::from_raw(self.plan.process.gid));
        nix::unistd::fchown(&peer, Some(uid), None).at(|| format!("give the terminal to {uid}:{gid}"))?;
        let tree =
            open_tree_clone(peer.as_fd(), c"", Depth::One).at(|| "bind the terminal on /dev/console")?;
        let target = self.root.file(Path::new("/dev/console")).at(|| "make /dev/console")?;
        move_mount(tree.as_fd(), target.as_fd()).at(|| "bind the terminal on /dev/console")?;
        crate::sys::socket::send_packet(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])
            .at(|| "send the terminal's master to the console socket")?;
        terminal::become_stdio(peer).at(|| "make the terminal the standard input and output")
    }

    fn container_hooks(&self, list: &[HookPlan]) -> Result<(), StepError> {
        let state = hooks::state_json(&self.plan.init.state, "creating", nix::unistd::getpid().as_raw());
        hooks::run("createContainer", list, &state)
    }

    fn mask(&self, path: &Path) -> Result<(), StepError> {
        let step = || format!("mask {}", path.display());
        let Some(target) = self.resolve_if_there(path).at(step)? else { return Ok(()) };
        let tree = if is_directory(target.as_fd()).at(step)? {
            let size = Parameter { key: "size".to_owned(), value: Some("4k".to_owned()) };
            let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
            new_filesystem(&step(), "tmpfs", "tmpfs", &[size], attributes)?
        } else {
            open_tree_clone(self.null.as_fd(), c"", Depth::One).at(step)?
        };
        move_mount(tree.as_fd(), target.as_fd()).at(step)
    }

    fn readonly(&self, path: &Path) -> io::Result<()> {
        let Some(target) = self.resolve_if_there(path)? else { return Ok(()) };
        let tree = open_tree_clone(target.as_fd(), c"", Depth::All)?;
        let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), Depth::All, &attr)?;
        move_mount(tree.as_fd(), target.as_fd())
    }

    fn resolve_if_there(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match self.root.resolve(path) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// pivot_root(2) with both arguments `.` stacks the old root on the new one; then it is taken off.
    fn enter_root(&mut self) -> io::Result<()> {
        fchdir(&self.root)?;
        if self.plain {
            nix::unistd::chroot(".")?;
            return Ok(nix::unistd::chdir("/")?);
        }
        let old = open("/", OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        pivot_root(".", ".")?;
        fchdir(&old)?;
        // What is unmounted here must stay mounted on the host.
        mount(None::<&str>, ".", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")?;
        self.root = Root::new(path_fd(Path::new("/"))?);
        Ok(())
    }
}

/// Makes a detached mount of a new file system.
fn new_filesystem(
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

fn propagation_bits(kind: PropagationKind) -> MsFlags {
    match kind {
        PropagationKind::Shared => MsFlags::MS_SHARED,
        PropagationKind::Slave => MsFlags::MS_SLAVE,
        PropagationKind::Private => MsFlags::MS_PRIVATE,
        PropagationKind::Unbindable => MsFlags::MS_UNBINDABLE,
    }
}

fn propagation_flags(propagation: Propagation) -> MsFlags {
    let recursive = if propagation.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    propagation_bits(propagation.kind) | recursive
}

fn set_propagation_of_all(propagation: Propagation) -> Result<(), StepError> {
    let flags = propagation_flags(propagation);
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).at(|| "set the propagation of all mounts")
}

/// Makes the mount that `path` lies on private, if it is shared: what is mounted on it would appear on the
/// host, and pivot_root(2) refuses it.
fn make_parent_private(path: &Path) -> io::Result<()> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut parent: Option<(PathBuf, bool)> = None;
    for line in mountinfo.lines() {
        let Some((fields, _)) = line.split_once(" - ") else { continue };
        let mut fields = fields.split(' ').skip(4);
        let Some(point) = fields.next().map(unescape) else { continue };
        let is_shared = fields.any(|field| field.starts_with("shared:"));
        // Of several mounts on one point the last one listed is the one on top.
        let deeper =
            parent.as_ref().is_none_or(|(known, _)| known.as_os_str().len() <= point.as_os_str().len());
        if path.starts_with(&point) && deeper {
            parent = Some((point, is_shared));
        }
    }
    match parent {
        Some((point, true)) => {
            Ok(mount(None::<&str>, &point, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?)
        }
        Some((_, false)) | None => Ok(()),
    }
}

/// A path of /proc/self/mountinfo: blanks and backslashes are written in octal.
fn unescape(text: &str) -> PathBuf {
    let decode = |text: String, (code, plain): (&str, &str)| text.replace(code, plain);
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.into_iter().fold(text.to_owned(), decode).into()
}

/// The directories of this process's control groups, each with the name it gets in the container; an
/// empty name for the only hierarchy of version 2.
fn own_cgroups() -> Result<Vec<(String, PathBuf)>, StepError> {
    let layout = crate::cgroup::layout::Layout::read()
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

fn host_null() -> Result<OwnedFd, StepError> {
    let step = || "open /dev/null";
    let null = path_fd(Path::new("/dev/null")).at(step)?;
    let found = fstat(&null).at(step)?;
    if found.st_rdev != makedev(1, 3) || found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() {
        return Err(StepError::refused(step(), "it is not the null device"));
    }
    Ok(null)
}

fn path_fd(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstat(fd)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    namespace::loopback_up(&socket)
}

fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
