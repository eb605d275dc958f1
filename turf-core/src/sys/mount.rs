//! Mounts by descriptor: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2),
//! mount_setattr(2); and what is mounted somewhere: statmount(2).
//!
//! No path of a target is ever looked up twice: what was resolved inside the root is a
//! descriptor, and mounts are attached to that.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `MOUNT_ATTR_RDONLY`.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: the field that the three values of access time stand in.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME`: the field's value 0.
pub const MOUNT_ATTR_RELATIME: u64 = 0;
/// `MOUNT_ATTR_NOATIME`.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// Whether a call acts on one mount or on all below it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The mount alone.
    One,
    /// The mount and all below.
    All,
}

impl Depth {
    fn at_flag(self) -> libc::c_uint {
        match self {
            Depth::One => 0,
            Depth::All => libc::AT_RECURSIVE as libc::c_uint,
        }
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr {
    /// Attributes to set.
    pub attr_set: u64,
    /// Attributes to clear.
    pub attr_clr: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// User namespace of an id-mapped mount.
    pub userns_fd: u64,
}

/// Opens a context to configure a new file system in (fsopen(2)).
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: `kind` is a terminated string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// Sets a flag of a file system (fsconfig(2), `FSCONFIG_SET_FLAG`).
pub fn fsconfig_flag(context: BorrowedFd<'_>, key: &CStr) -> io::Result<()> {
    fsconfig(context, FSCONFIG_SET_FLAG, Some(key), None)
}

/// Sets a parameter of a file system (fsconfig(2), `FSCONFIG_SET_STRING`); the kernel takes at
/// most 255 bytes.
pub fn fsconfig_string(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> io::Result<()> {
    fsconfig(context, FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// Makes the configured file system (fsconfig(2), `FSCONFIG_CMD_CREATE`).
pub fn fsconfig_create(context: BorrowedFd<'_>) -> io::Result<()> {
    fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
}

fn fsconfig(
    context: BorrowedFd<'_>,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> io::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both strings are terminated and live through the call, or null where the command
    // takes none.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    done(result)
}

/// Makes a detached mount of a configured file system (fsmount(2)); `attributes` are `MOUNT_ATTR_*`.
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    // SAFETY: fsmount takes three integers and touches no memory.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// Reads the next message of a context that failed, the reason in the kernel's words ("e
/// tmpfs: Bad value for 'size'"); `None` if there is none.
pub fn fs_context_message(context: BorrowedFd<'_>) -> Option<String> {
    let mut text = [0; 512];
    let length = nix::unistd::read(context, &mut text).ok()?;
    let text = String::from_utf8_lossy(&text[..length]);
    // The first word is the kind of message: e, w or i.
    let (_, text) = text.trim().split_once(' ')?;
    Some(text.to_owned())
}

/// Makes a detached copy of the mount at `path` below `directory`; an empty path names the
/// descriptor itself (open_tree(2), `OPEN_TREE_CLONE`).
pub fn open_tree_clone(directory: BorrowedFd<'_>, path: &CStr, depth: Depth) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | libc::AT_EMPTY_PATH as libc::c_uint
        | depth.at_flag();
    // SAFETY: `path` is a terminated string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches a detached mount at the file or directory that `target` stands for (move_mount(2)).
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the two paths are terminated and empty.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    done(result)
}

/// Changes a mount that `mount` is the root of (mount_setattr(2)).
pub fn mount_setattr(mount: BorrowedFd<'_>, depth: Depth, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | depth.at_flag();
    // SAFETY: the path is terminated and empty; `attr` is a live mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    done(result)
}

/// What the kernel says of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFacts {
    /// The type of its file system.
    pub file_system: String,
    /// The directory of the file system that it shows.
    pub root: String,
    /// The file system's own options, separated by commas.
    pub options: String,
}

/// The mount whose root `path` is; `None` if that is no root of a mount. `ENOSYS` before Linux 6.11
/// (statx(2), `STATX_MNT_ID_UNIQUE`; statmount(2)).
pub fn mount_at(path: &CStr) -> io::Result<Option<MountFacts>> {
    const STATX_MNT_ID_UNIQUE: libc::c_uint = 0x4000;
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let mask = STATX_MNT_ID_UNIQUE;
    // SAFETY: the path is a terminated string, and the buffer has the size that the call fills.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, mask, found.as_mut_ptr()) };
    done(result.into())?;
    // SAFETY: all bytes were zero before the call, which is a valid statx of integers.
    let found = unsafe { found.assume_init() };
    if found.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    if found.stx_attributes & STATX_ATTR_MOUNT_ROOT == 0 {
        return Ok(None);
    }
    statmount(found.stx_mnt_id).map(Some)
}

/// statmount(2): the offsets are those of `struct statmount` in include/uapi/linux/mount.h.
fn statmount(id: u64) -> io::Result<MountFacts> {
    const SYS_STATMOUNT: libc::c_long = 457;
    const MNT_ROOT: u64 = 0x8;
    const FS_TYPE: u64 = 0x20;
    const MNT_OPTS: u64 = 0x80;
    const STRINGS: usize = 512;
    // size and a spare word, the mount's id, what is asked for.
    let request: [u64; 3] = [24, id, MNT_ROOT | FS_TYPE | MNT_OPTS];
    // Room for usual strings; longer ones are an error, EOVERFLOW.
    let mut answer = [0_u8; 1024];
    // SAFETY: the request has the size that stands in it, and the answer the length that is passed.
    let result =
        unsafe { libc::syscall(SYS_STATMOUNT, request.as_ptr(), answer.as_mut_ptr(), answer.len(), 0) };
    done(result)?;
    let number = |at: usize, bytes: usize| {
        answer[at..at + bytes].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let given = number(8, 8);
    let string = |bit: u64, at: usize| -> io::Result<String> {
        if given & bit == 0 {
            return Ok(String::new());
        }
        let text = usize::try_from(number(at, 4)).ok().and_then(|start| answer.get(STRINGS + start..));
        let text = text.and_then(|text| CStr::from_bytes_until_nul(text).ok());
        text.map(|text| text.to_string_lossy().into_owned()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    if given & (FS_TYPE | MNT_ROOT) != FS_TYPE | MNT_ROOT {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    Ok(MountFacts {
        file_system: string(FS_TYPE, 36)?,
        root: string(MNT_ROOT, 104)?,
        options: string(MNT_OPTS, 4)?,
    })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the system call just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
