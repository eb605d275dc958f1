//! Looking up and making files inside the root: never through a link that leads out of it.
//!
//! Every path is resolved by openat2(2) with `RESOLVE_IN_ROOT`, so an absolute link or `..` stays
//! inside, and without magic links, so a descriptor in `/proc/self/fd` is no way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Permission bits of directories and files that mounts are made on.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// A directory as the root of lookups.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
}

impl Root {
    pub(super) fn new(directory: OwnedFd) -> Root {
        Root { directory }
    }

    /// Resolves a path to a descriptor that only names it (`O_PATH`).
    pub(super) fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH, ResolveFlag::empty())
    }

    /// The same, refusing every symbolic link on the way.
    pub(super) fn resolve_plain(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.open(path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    pub(super) fn open(&self, path: &Path, flags: OFlag, more: ResolveFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        loop {
            match openat2(&self.directory, path, how) {
                // The kernel gives up when something is renamed meanwhile: asking again is what it wants.
                Err(Errno::EAGAIN) => {}
                result => return result,
            }
        }
    }

    /// Resolves a directory, making what is missing of it.
    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty()) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENOENT.into());
        };
        let parent = self.directory(parent)?;
        match mkdirat(&parent, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())?)
    }

    /// Resolves a file that is no directory, making an empty one if it is missing.
    pub(super) fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        let parent = self.directory(parent)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        drop(openat(&parent, name, flags, FILE_MODE)?);
        Ok(self.resolve(path)?)
    }

    /// The directory that holds `path`, made if it is missing, and the name in it.
    pub(super) fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p std::ffi::OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::EISDIR.into());
        };
        Ok((self.directory(parent)?, name))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
