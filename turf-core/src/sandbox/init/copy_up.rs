//! The mount option `tmpcopyup`: a tmpfs begins with a copy of what it covers.
//!
//! Directories, files and links are copied with owner and permissions. Device nodes, pipes and sockets are left out:
//! a directory that a tmpfs is wanted for has none that anybody misses. No link is followed on either side.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

/// How deep directories may be nested: three descriptors are open for each level.
const DEPTH: usize = 128;

/// Copies what is in the directory `from` into the empty directory `to`, and its owner. The permissions of `to` are
/// the mount's business: it may have an option for them.
pub(super) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_directory(from, to, DEPTH)?;
    let stat = fstat(from)?;
    // A descriptor of a mount only names it; fchown(2) wants an open file.
    let to = open_directory(to, c".")?;
    Ok(fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other(format!("directories are nested deeper than {DEPTH} levels")));
    }
    let mut directory = Dir::openat(from, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in directory.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                let (from, to) = (open_directory(from, name)?, open_directory(to, name)?);
                copy_directory(from.as_fd(), to.as_fd(), depth - 1)?;
                own(to.as_fd(), &stat)?;
            }
            SFlag::S_IFREG => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let mut from = File::from(openat(from, name, flags, Mode::empty())?);
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut to = File::from(openat(to, name, flags, Mode::S_IRUSR)?);
                io::copy(&mut from, &mut to)?;
                own(to.as_fd(), &stat)?;
            }
            SFlag::S_IFLNK => {
                symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn open_directory(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The owner first: changing it takes away set-id bits.
fn own(file: BorrowedFd<'_>, stat: &FileStat) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(fchmod(file, Mode::from_bits_truncate(stat.st_mode))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_permissions_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/file"), "content").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/nowhere/at all", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("pipe"), Mode::S_IRWXU).unwrap();
        copy_up(File::open(&from).unwrap().as_fd(), File::open(&to).unwrap().as_fd()).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b/file")), (0o1777, 0o4751));
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "content");
        assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some("/nowhere/at all"));
        assert!(!to.join("pipe").exists());
    }

    #[test]
    fn nesting_has_a_bound() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        fs::create_dir_all((0..=DEPTH).fold(from.clone(), |path, _| path.join("d"))).unwrap();
        fs::create_dir(&to).unwrap();
        let copied = copy_up(File::open(&from).unwrap().as_fd(), File::open(&to).unwrap().as_fd());
        assert!(copied.unwrap_err().to_string().contains("nested"));
    }
}
