//! Executing the steps of a plan, in init.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, fchdir, fchownat, pivot_root, symlinkat};

use super::mounting::{new_filesystem, own_cgroups};
use super::root::Root;
use super::{HOOKS_DUE, inside};
use crate::sandbox::enter::At;
use crate::sandbox::exec::check_multiplexer;
use crate::sandbox::plan::{HookPlan, Plan, TerminalPlan};
use crate::sandbox::step::{
    DeviceKind, DeviceStep, MountSource, Parameter, Propagation, PropagationKind, Step, StepError,
};
use crate::sandbox::{hooks, program};
use crate::sys::mount::{
    Depth, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
    mount_setattr, move_mount, open_tree_clone,
};
use crate::sys::{namespace, terminal};

/// The bits of a mode that chmod(2) sets.
const PERMISSIONS: u32 = 0o7777;

/// Init while it builds its sandbox.
pub(super) struct Sandbox<'a> {
    plan: &'a Plan,
    setup: BorrowedFd<'a>,
    console: Option<&'a OwnedFd>,
    /// The root, until it is entered; then init's `/`.
    pub(super) root: Root,
    /// The host's /dev/null, to mask files with: the container's may be anything (CVE-2025-31133).
    null: OwnedFd,
    /// Where this process's control groups are mounted, with their names in the container.
    pub(super) cgroups: Vec<(String, PathBuf)>,
    /// The id-mapped mounts that the creator has made, in the order of their steps.
    pub(super) id_mapped: VecDeque<OwnedFd>,
    /// The directory in which the last step made something, if nothing was mounted since.
    place: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Paths of the host, opened before init became the root of its user namespace.
    pub(super) early: BTreeMap<PathBuf, OwnedFd>,
    /// Whether the root was only chosen, not mounted.
    plain: bool,
    /// Whether no mount of this namespace is shared with another.
    nothing_shared: bool,
}

impl<'a> Sandbox<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        setup: BorrowedFd<'a>,
        console: Option<&'a OwnedFd>,
        id_mapped: VecDeque<OwnedFd>,
    ) -> Result<Sandbox<'a>, StepError> {
        umask(Mode::empty());
        let asks_for_cgroups =
            |step: &Step| matches!(step, Step::Mount(mount) if mount.source == MountSource::Cgroups);
        let cgroups = if plan.init.steps.iter().any(asks_for_cgroups) { own_cgroups()? } else { Vec::new() };
        let root = Root::new(path_fd(Path::new("/")).at(|| "open /")?);
        Ok(Sandbox {
            plan,
            setup,
            console,
            root,
            null: host_null()?,
            cgroups,
            id_mapped,
            place: None,
            early: BTreeMap::new(),
            plain: false,
            nothing_shared: false,
        })
    }

    pub(super) fn execute(&mut self, step: &Step) -> Result<(), StepError> {
        if !matches!(step, Step::Device(_) | Step::Symlink { .. }) {
            self.place = None;
        }
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
            Step::Propagation(propagation) => {
                set_propagation_of_all(*propagation)?;
                self.nothing_shared = propagation.recursive && propagation.kind != PropagationKind::Shared;
                Ok(())
            }
            Step::BindRoot { path } => self.bind_root(path),
            Step::TmpfsRoot { size } => self.tmpfs_root(*size),
            Step::PlainRoot { path } | Step::HostRoot { path } => {
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
            Step::ReadonlyMount(path) => self.readonly_mount(path),
            Step::ReadonlyRoot => {
                let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
                mount_setattr(self.root.as_fd(), Depth::One, &attr).at(|| "make the root read-only")
            }
            Step::EnterRoot => self.enter_root().at(|| "enter the root"),
            Step::MoveRoot => self.move_root(),
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
        self.keep_from_the_host(path).at(step)?;
        let target = match path_fd(path) {
            Err(error) => self.early(path, error),
            opened => opened,
        };
        let target = target.at(step)?;
        let tree = open_tree_clone(target.as_fd(), c"", Depth::All).at(step)?;
        self.attach_root(tree, target).at(step)
    }

    /// What was found at the path before, if it is only this user who may not get there.
    pub(super) fn early(&self, path: &Path, error: io::Error) -> io::Result<OwnedFd> {
        match self.early.get(path) {
            Some(opened) if error.raw_os_error() == Some(libc::EACCES) => opened.try_clone(),
            Some(_) | None => Err(error),
        }
    }

    /// Mounted on top of `/`, which hides nothing: lookups begin at the mount below until the root is entered. Every
    /// other place could be out of reach for the root user of a user namespace, or be the source of a mount.
    fn tmpfs_root(&mut self, size: u64) -> Result<(), StepError> {
        let step = || "mount a tmpfs as the root".to_owned();
        let top = Path::new("/");
        self.keep_from_the_host(top).at(step)?;
        let parameters = [("mode", "755".to_owned()), ("size", size.to_string())];
        let parameters = parameters.map(|(key, value)| Parameter { key: key.to_owned(), value: Some(value) });
        let tree = new_filesystem(&step(), "tmpfs", "tmpfs", &parameters, MOUNT_ATTR_NOSUID)?;
        self.attach_root(tree, path_fd(top).at(step)?).at(step)
    }

    /// Where every mount has just been made a slave there is no need to look for the one that `path` lies on.
    fn keep_from_the_host(&self, path: &Path) -> io::Result<()> {
        if self.nothing_shared { Ok(()) } else { make_parent_private(path) }
    }

    /// A root must be private for pivot_root(2); what is asked for is set once it is entered.
    fn attach_root(&mut self, tree: OwnedFd, target: OwnedFd) -> io::Result<()> {
        move_mount(tree.as_fd(), target.as_fd())?;
        let attr = MountAttr { propagation: MsFlags::MS_PRIVATE.bits(), ..MountAttr::default() };
        mount_setattr(tree.as_fd(), Depth::One, &attr)?;
        self.root = Root::new(tree);
        Ok(())
    }

    /// The directory that holds `path`, made if it is missing, and the name in it. The default devices and links are neighbours.
    fn place_of<'p>(&mut self, path: &'p Path) -> io::Result<(Rc<OwnedFd>, &'p OsStr)> {
        if let (Some((known, place)), Some(name)) = (&self.place, path.file_name())
            && path.parent() == Some(known)
        {
            return Ok((Rc::clone(place), name));
        }
        let (place, name) = self.root.parent(path)?;
        let place = Rc::new(place);
        self.place = path.parent().map(|parent| (parent.to_owned(), Rc::clone(&place)));
        Ok((place, name))
    }

    fn device(&mut self, device: &DeviceStep) -> io::Result<()> {
        if device.bind {
            let source = path_fd(&device.path)?;
            let tree = open_tree_clone(source.as_fd(), c"", Depth::One)?;
            return move_mount(tree.as_fd(), self.root.file(&device.path)?.as_fd());
        }
        let (parent, name) = self.place_of(&device.path)?;
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
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let found_kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        if found_kind != kind || found.st_rdev != number {
            return Err(Errno::EEXIST.into());
        }
        // A new node is right already unless its directory has something to say on groups or permissions.
        let is_owned = (found.st_uid, found.st_gid) == (device.uid, device.gid);
        if is_owned && found.st_mode & PERMISSIONS == mode.bits() {
            return Ok(());
        }
        if !is_owned {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            fchownat(&parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        match fchmodat(&parent, name, mode, FchmodatFlags::NoFollowSymlink) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a link, if there is nothing of that name.
    fn symlink(&mut self, content: &Path, target: &Path) -> Result<(), StepError> {
        let step = || format!("link {} to {}", target.display(), content.display());
        let (parent, name) = self.place_of(target).at(step)?;
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
        check_multiplexer(master.as_fd())?;
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
        terminal::control(peer.as_fd())
            .and_then(|()| terminal::become_stdio([peer.as_fd(); 3]))
            .at(|| "make the terminal the standard input and output")
    }

    fn container_hooks(&self, list: &[HookPlan]) -> Result<(), StepError> {
        let state = hooks::state_json(&self.plan.init.state, "creating", nix::unistd::getpid().as_raw());
        // Where runc has them, too: in the container's root, which nobody has entered yet.
        let root = self.root.resolve(Path::new("/")).at(|| "open the container's root")?;
        let directory = format!("/proc/self/fd/{}", root.as_raw_fd());
        hooks::run("createContainer", list, Path::new(&directory), &state, None)
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

    /// The mount on the path itself; nothing happens if something else was put over it meanwhile, which then decides.
    fn readonly_mount(&self, path: &Path) -> Result<(), StepError> {
        let step = || format!("make the mount on {} read-only", path.display());
        let mounted = self.root.resolve(path).at(step)?;
        let attr = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount_setattr(mounted.as_fd(), Depth::One, &attr).at(step)
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

pub(super) fn propagation_bits(kind: PropagationKind) -> MsFlags {
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
pub(super) fn unescape(text: &str) -> PathBuf {
    if !text.contains('\\') {
        return text.into();
    }
    let decode = |text: String, (code, plain): (&str, &str)| text.replace(code, plain);
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.into_iter().fold(text.to_owned(), decode).into()
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

pub(super) fn path_fd(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

pub(super) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
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
