//! The steps init executes between clone and gate, and the error of a step that failed.
//!
//! Targets are absolute paths inside the root and are resolved inside it (openat2(2),
//! `RESOLVE_IN_ROOT`); sources are absolute paths outside. Until [`Step::EnterRoot`] the root is a
//! directory descriptor of init, not yet its `/`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::{HookPlan, IdMapping, TerminalPlan};

/// One thing init does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Becomes the leader of a new session (setsid(2)).
    NewSession,
    /// Switches the loopback device of the network namespace on.
    LoopbackUp,
    /// sethostname(2).
    Hostname(String),
    /// setdomainname(2).
    Domainname(String),
    /// Writes a sysctl; the path is below /proc/sys.
    Sysctl {
        /// Path below /proc/sys, with slashes.
        path: PathBuf,
        /// What is written.
        value: String,
    },
    /// Sets the propagation of every mount of the new mount namespace (mount_namespaces(7)).
    Propagation(Propagation),
    /// Makes the directory the root: bound onto itself.
    BindRoot {
        /// The directory, absolute, free of symbolic links.
        path: PathBuf,
    },
    /// Makes an empty tmpfs the root.
    TmpfsRoot {
        /// Its size in bytes.
        size: u64,
    },
    /// The directory becomes the root by chroot(2) alone: the bundle has no mount namespace.
    PlainRoot {
        /// The directory.
        path: PathBuf,
    },
    /// The directory, on which `create` has bound it in the host's mount namespace, becomes the root by chroot(2): the
    /// bundle has mounts, but no mount namespace.
    HostRoot {
        /// The directory, absolute, free of symbolic links.
        path: PathBuf,
    },
    /// Mounts a file system.
    Mount(MountStep),
    /// Makes a device node.
    Device(DeviceStep),
    /// Makes a directory, with those above it, unless it exists.
    Directory(PathBuf),
    /// Makes a symbolic link, unless the target exists.
    Symlink {
        /// What the link says.
        content: PathBuf,
        /// Where it stands.
        target: PathBuf,
    },
    /// Makes a terminal, sends its master to the console socket and makes it init's stdio.
    Terminal(TerminalPlan),
    /// Lets the parent run the `prestart` and `createRuntime` hooks, and waits for it.
    RuntimeHooks,
    /// Runs the `createContainer` hooks.
    ContainerHooks(Vec<HookPlan>),
    /// Hides a file or directory; nothing happens if it does not exist.
    Mask(PathBuf),
    /// Makes a file or directory read-only; nothing happens if it does not exist.
    Readonly(PathBuf),
    /// Makes a mount of the bundle read-only that had to stay writable until everything in it was made.
    ReadonlyMount(PathBuf),
    /// Makes the root's own mount read-only.
    ReadonlyRoot,
    /// Makes the root init's `/` (pivot_root(2)) and detaches everything else.
    EnterRoot,
    /// Moves the root over `/` and makes it init's `/` (mount(2), `MS_MOVE`; chroot(2)): for a host whose own
    /// root is a ramfs, which pivot_root(2) cannot leave.
    MoveRoot,
    /// Sets the propagation of the root's mount.
    RootPropagation(Propagation),
    /// Refuses a program that cannot be found, so that `create` fails and not `start`.
    FindProgram {
        /// `args[0]`.
        program: String,
        /// The container's `PATH`.
        path: Option<String>,
        /// The container's working directory.
        cwd: PathBuf,
    },
}

/// Propagation of mount events (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// The kind.
    pub kind: PropagationKind,
    /// Whether mounts below are changed too.
    pub recursive: bool,
}

/// Kinds of propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropagationKind {
    /// Events go both ways.
    Shared,
    /// Events come in.
    Slave,
    /// No events.
    Private,
    /// No events, and cannot be bound elsewhere.
    Unbindable,
}

/// A mount to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStep {
    /// Where, inside the root.
    pub target: PathBuf,
    /// What.
    pub source: MountSource,
    /// `MOUNT_ATTR_*` to set (mount_setattr(2)).
    pub attributes: MountAttributes,
    /// The same for this mount and all below it (`rro`, `rnosuid` ...).
    pub recursive_attributes: MountAttributes,
    /// Changes of propagation, in this order.
    pub propagation: Vec<Propagation>,
    /// Whether a tmpfs begins with a copy of what it covers.
    pub copy_up: bool,
    /// Owners as the mount shows them; made by the creator, who has rights over the file system.
    pub id_mapping: Option<MountIdMapping>,
}

/// The owners that an id-mapped mount shows (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdMapping {
    /// User ids: `inside` is what the file system stores, `outside` what the host sees through the mount.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
    /// Whether the mounts below are mapped too.
    pub recursive: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// The file or directory, absolute.
        path: PathBuf,
        /// Whether the mounts below come along.
        recursive: bool,
    },
    /// A file system made for this mount.
    Filesystem {
        /// Its type.
        kind: String,
        /// Its source as /proc/mounts shows it.
        source: String,
        /// Its parameters in the order given.
        parameters: Vec<Parameter>,
    },
    /// The control groups of the container: the v2 hierarchy, or a tmpfs with one mount for each
    /// v1 hierarchy.
    Cgroups,
    /// The mount that is on the target already: only its attributes and propagation change.
    Remount,
}

/// A parameter of a file system (fsconfig(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub key: String,
    /// Its value; `None` for a flag.
    pub value: Option<String>,
}

/// Attributes of a mount to set and to clear: `MOUNT_ATTR_*` bits (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStep {
    /// Where, inside the root.
    pub path: PathBuf,
    /// Its kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// Binds the host's node of the same path: a user namespace may not make any.
    pub bind: bool,
}

/// Kinds of device nodes (mknod(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A step that failed, in init or in a forked worker: it travels to the caller over a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {text}")]
pub struct StepError {
    /// The operation and its object ("mount tmpfs on /dev").
    pub step: String,
    /// The error number; 0 if no system call failed.
    pub errno: i32,
    /// Why, in words.
    pub text: String,
}

impl StepError {
    /// The error of a failed system call.
    pub fn new(step: impl fmt::Display, error: impl Into<std::io::Error>) -> StepError {
        let error = error.into();
        match error.raw_os_error() {
            Some(errno) => StepError { step: step.to_string(), errno, text: crate::error::errno_text(errno) },
            None => StepError { step: step.to_string(), errno: 0, text: error.to_string() },
        }
    }

    /// An error that no system call reported.
    pub fn refused(step: impl fmt::Display, text: impl Into<String>) -> StepError {
        StepError { step: step.to_string(), errno: 0, text: text.into() }
    }
}

impl From<StepError> for crate::Error {
    fn from(error: StepError) -> crate::Error {
        crate::Error::Remote { text: error.to_string() }
    }
}
