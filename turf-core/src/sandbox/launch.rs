//! Becoming `turf-init`: the small program that stands for Turf inside a sandbox.
//!
//! It is executed from a sealed memfd. What a container can reach through `/proc/PID/exe`, by executing
//! `/proc/self/exe`, or as the interpreter of a script, is that file: nobody can ever write it, and it is
//! no file of the host (CVE-2019-5736). Its path and arguments say nothing of the host either.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::enter::At;
use super::step::StepError;
use crate::error::{Operation, Result};
use crate::sys::credentials;
use crate::sys::mount::{
    Depth, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr, fsconfig_create,
    fsconfig_string, fsmount, fsopen, mount_setattr, open_tree_clone,
};

/// The program, built by this crate's build script.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/turf-init"));

/// What `ps` shows of it.
const NAME: &std::ffi::CStr = c"turf-init";

/// A sealed copy of the program, ready to be executed.
#[derive(Debug)]
pub(crate) struct InitProgram {
    file: OwnedFd,
}

impl InitProgram {
    /// Makes a copy. In the process that makes the sandbox: it needs the host's `/proc`.
    pub(crate) fn seal() -> Result<InitProgram> {
        let step = || "make a sealed copy of init's program";
        let mut file = match executable_memfd() {
            // vm.memfd_noexec is 2.
            Err(Errno::EACCES) => {
                let file =
                    read_only_copy().operation(|| "put a copy of init's program on a read-only mount")?;
                return Ok(InitProgram { file });
            }
            made => File::from(made.operation(step)?),
        };
        file.write_all(PROGRAM).operation(step)?;
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).operation(step)?;
        // A file that anybody has open for writing cannot be executed, sealed or not.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).operation(step)?;
        Ok(InitProgram { file })
    }

    /// The descriptor, which must not be closed before the execution.
    pub(crate) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Becomes the program, which finds its orders, stdio and the descriptors named here open; everything else must
    /// be close-on-exec. Returns only the error.
    pub(crate) fn execute(
        &self,
        orders: &[u64],
        keep: &[BorrowedFd<'_>],
    ) -> std::result::Result<Infallible, StepError> {
        let step = || "execute init's program";
        let bytes: Vec<u8> = orders.iter().flat_map(|word| word.to_le_bytes()).collect();
        let orders = crate::sys::memory::memfd_with(c"turf-orders", &bytes).at(|| "write init's orders")?;
        for fd in keep.iter().copied().chain([orders.as_fd()]) {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).at(step)?;
        }
        keep_capabilities().at(|| "keep the capabilities for init's program")?;
        let number = CString::new(orders.as_raw_fd().to_string()).unwrap_or_default();
        let environment: [&std::ffi::CStr; 0] = [];
        let arguments = [NAME, number.as_c_str()];
        let error = nix::unistd::execveat(&self.file, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH);
        error.at(|| "execute init's program")
    }
}

/// A descriptor to execute a large program of the host by, when what it becomes will be seen in sandboxes: the file on a mount
/// of its own that is read-only and attached nowhere. What is reached through `/proc/PID/exe` is the file on
/// that mount, and when the descriptor is closed nobody can change the mount any more.
pub(crate) fn read_only_program(program: &Path) -> std::io::Result<OwnedFd> {
    let file = open(program, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let mount = open_tree_clone(file.as_fd(), c"", Depth::One)?;
    let attributes = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), Depth::One, &attributes)?;
    Ok(mount)
}

/// Executes the program of the caller again, with the same arguments, from such a mount, if it is not on one: for a
/// process of which forks will be seen in a sandbox before they are the sealed program. Returns if there is nothing to
/// do, also for who may not mount: that is not root, and can hardly write the file that root installed. Everything
/// that is close-on-exec is lost, so this comes first of all.
pub fn execute_from_read_only_mount() -> Result<()> {
    let own = Path::new("/proc/self/exe");
    let program = statvfs(own).operation(|| "look at /proc/self/exe")?;
    if program.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let name = std::env::current_exe().operation(|| "read /proc/self/exe")?;
    let mount = match read_only_program(own) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(()),
        mount => mount.operation(|| format!("mount {} read-only", name.display()))?,
    };
    let text = |text: OsString| CString::new(text.into_vec()).ok();
    // Its name tells where its companions are, which its mount does not.
    let arguments: Vec<CString> =
        std::iter::once(name.into_os_string()).chain(std::env::args_os().skip(1)).filter_map(text).collect();
    let entry = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    let environment: Vec<CString> = std::env::vars_os().map(entry).filter_map(text).collect();
    let error = nix::unistd::execveat(&mount, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH);
    error.operation(|| "execute the runtime from a read-only mount").map(drop)
}

/// A memfd that may be executed, also where that must be asked for (Linux 6.3, `vm.memfd_noexec`).
fn executable_memfd() -> nix::Result<OwnedFd> {
    const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(NAME, flags | MFD_EXEC) {
        Err(Errno::EINVAL) => memfd_create(NAME, flags),
        made => made,
    }
}

/// The program where no memfd may be executed: in a file system of its own, whose only mount is attached nowhere and is
/// read-only before anybody else can see the file.
fn read_only_copy() -> std::io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs")?;
    fsconfig_string(context.as_fd(), c"size", c"64k")?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    // Whoever init is in its user namespace executes it as one of the others.
    let mode = Mode::from_bits_truncate(0o755);
    File::from(openat(&mount, NAME, flags, mode)?).write_all(PROGRAM)?;
    let attributes = MountAttr { attr_set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount.as_fd(), Depth::One, &attributes)?;
    Ok(openat(&mount, NAME, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// execve(2) takes the capabilities of whoever is not root, as the creator of a user namespace without a root user
/// is; ambient ones stay (capabilities(7)). The orders clear them again.
fn keep_capabilities() -> std::io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let own = credentials::capget()?;
    credentials::capset(credentials::CapabilitySets { inheritable: own.permitted, ..own })?;
    for capability in (0..64).filter(|capability| own.permitted & (1 << capability) != 0) {
        credentials::capability_ambient_raise(capability)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_small_and_static() {
        assert!(PROGRAM.len() < 16 << 10, "{} bytes", PROGRAM.len());
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        // e_type: ET_EXEC, no relocation. The dynamic loader's path would be text in it.
        assert_eq!(&PROGRAM[16..18], [2, 0]);
        assert!(!PROGRAM.windows(9).any(|bytes| bytes == b"ld-linux-"));
    }

    #[test]
    fn a_copy_can_never_be_written() {
        cannot_be_written(InitProgram::seal().unwrap());
        match read_only_copy() {
            Ok(file) => cannot_be_written(InitProgram { file }),
            Err(error) => eprintln!("skipped: no mount can be made: {error}"),
        }
    }

    fn cannot_be_written(program: InitProgram) {
        let path = format!("/proc/self/fd/{}", program.number());
        // Even for root, who may open anything.
        let writable = std::fs::OpenOptions::new().write(true).open(&path);
        let written = writable.and_then(|mut file| file.write_all(b"#!/bin/sh\n"));
        assert!(written.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    }
}
