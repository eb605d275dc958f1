//! `$NOTIFY_SOCKET`: what a service in a container says of itself reaches the service manager outside.
//!
//! ```text
//!  service in the container --> /run/notify/notify.sock = <container>/notify/notify.sock --> turf --> $NOTIFY_SOCKET
//! ```
//!
//! The service knows no pid of the host, so its `MAINPID=` is left out; `start` tells init's instead, with the readiness.
//! sd_notify(3); the same directory inside as in runc.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::state::State;
use crate::error::{Error, Operation, Result};
use crate::root::{ContainerDir, ContainerId, StateRoot};
use crate::sandbox::plan::{NamespaceKind, Plan};
use crate::sandbox::step::{MountAttributes, MountSource, MountStep, Step};

/// The directory in the container's own.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// The directory inside.
const INSIDE: &str = "/run/notify";

/// Longest notification in bytes: systemd reads no more.
const NOTIFICATION: usize = 4096;

/// Adds the directory of the socket to the plan, as the last mount. Left out where there is no mount to add one to, and
/// where the root of a user namespace is somebody else than the caller, who could not reach the directory.
pub(super) fn pass_in(plan: &mut Plan, dir: &ContainerDir) {
    let Some(last) = plan.init.steps.iter().rposition(|step| matches!(step, Step::Mount(_))) else { return };
    let new_user = plan.init.namespace(NamespaceKind::User).is_some();
    let is_root =
        |uid: u32| plan.init.uid_mappings.iter().any(|mapping| mapping.inside == 0 && mapping.outside == uid);
    if new_user && !is_root(nix::unistd::geteuid().as_raw()) {
        return;
    }
    let mount = MountStep {
        target: INSIDE.into(),
        source: MountSource::Bind { path: dir.file(DIRECTORY), recursive: false },
        attributes: MountAttributes::default(),
        recursive_attributes: MountAttributes::default(),
        propagation: Vec::new(),
        copy_up: false,
        id_mapping: None,
    };
    plan.init.steps.insert(last + 1, Step::Mount(mount));
    plan.process.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    plan.process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
}

/// Makes the directory, if the plan mounts it.
pub(super) fn make_directory(plan: &Plan, dir: &ContainerDir) -> Result<()> {
    let path = dir.file(DIRECTORY);
    let is_ours = |step: &Step| matches!(step, Step::Mount(MountStep { source: MountSource::Bind { path: source, .. }, .. }) if *source == path);
    if !plan.init.steps.iter().any(is_ours) {
        return Ok(());
    }
    let made =
        fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    made.operation(|| format!("create directory {}", path.display()))
}

/// The socket that a container's service speaks to.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notify {
    /// Listens for a container that was created with a `$NOTIFY_SOCKET`; nothing for another. `manager` is the value
    /// of that variable: a path, or a name after `@`.
    pub fn listen(root: &StateRoot, id: &ContainerId, manager: &OsStr) -> Result<Option<Notify>> {
        let directory = root.container(id).file(DIRECTORY);
        if !directory.is_dir() {
            return Ok(None);
        }
        let manager = address(manager)?;
        let step = || format!("listen on {}", directory.join(SOCKET).display());
        // By a descriptor of the directory, because the name of a socket has 107 bytes at most.
        let opened = fs::File::open(&directory).operation(step)?;
        let path = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(SOCKET);
        // Left by a `start` that failed.
        drop(fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).operation(step)?;
        // Whoever the service runs as may speak.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).operation(step)?;
        socket.set_nonblocking(true).operation(step)?;
        Ok(Some(Notify { socket, manager }))
    }

    /// Says that a worker is ready, which its start means: a worker says nothing itself. `main_pid` is the process that the
    /// service manager shall watch from now on, if it is another than it knows.
    pub fn worker_is_ready(&self, main_pid: Option<i32>) -> Result<()> {
        self.send(&ready(b"READY=1", main_pid))
    }

    /// Waits until the service says that it is ready, and says so outside, with init's pid; or until it has ended.
    pub fn wait_ready(&self, root: &StateRoot, id: &ContainerId) -> Result<()> {
        let Some(init) = State::load(&root.container(id))?.init else { return Ok(()) };
        let Some(pidfd) = init.open()? else { return Ok(()) };
        loop {
            while let Some(said) = self.receive()? {
                if said.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return self.send(&ready(&said, Some(init.pid)));
                }
                self.send(&said)?;
            }
            let mut fds = [self.socket.as_fd(), pidfd.as_fd()]
                .map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("wait for the service to be ready", errno)),
            }
            let [spoken, ended] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            if ended && !spoken {
                return Ok(());
            }
        }
    }

    /// Passes on what has been said, without waiting for more.
    pub(super) fn pass_on(&self) -> Result<()> {
        while let Some(said) = self.receive()? {
            self.send(&said)?;
        }
        Ok(())
    }

    /// The next notification, without the lines that mean nothing outside.
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut text = [0; NOTIFICATION];
        match self.socket.recv(&mut text) {
            Ok(length) => Ok(Some(outside(&text[..length]))),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Error::io("receive a notification", error)),
        }
    }

    fn send(&self, text: &[u8]) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let sent = self.socket.send_to_addr(text, &self.manager);
        sent.operation(|| format!("notify {:?} of $NOTIFY_SOCKET", self.manager)).map(drop)
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(name: &OsStr) -> Result<SocketAddr> {
    let refused = || Error::invalid("$NOTIFY_SOCKET", "must be an absolute path, or a name after @");
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).map_err(|_| refused()),
        [b'/', ..] => SocketAddr::from_pathname(name).map_err(|_| refused()),
        _ => Err(refused()),
    }
}

/// What of a notification is true outside: no pid of the container, no barrier, whose descriptor is not passed on.
fn outside(said: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = said
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && !line.starts_with(b"MAINPID=") && !line.starts_with(b"BARRIER="))
        .collect();
    lines.join(&b'\n')
}

fn ready(said: &[u8], main_pid: Option<i32>) -> Vec<u8> {
    let main_pid = main_pid.map(|pid| format!("\nMAINPID={pid}")).unwrap_or_default();
    [said, main_pid.as_bytes()].concat()
}

/// The variable's value, if it says anything.
pub fn service_manager() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_loses_what_is_not_true_outside() {
        assert_eq!(outside(b"READY=1\nMAINPID=1\n\nSTATUS=a b\n"), b"READY=1\nSTATUS=a b");
        assert_eq!(outside(b"BARRIER=1"), b"");
        assert_eq!(ready(b"READY=1", Some(7)), b"READY=1\nMAINPID=7");
        assert_eq!(ready(b"READY=1", None), b"READY=1");
    }

    #[test]
    fn a_service_manager_is_a_path_or_a_name() {
        for good in ["/run/notify", "@/org/freedesktop/systemd1/notify/1"] {
            assert!(address(OsStr::new(good)).is_ok(), "{good}");
        }
        for bad in ["", "relative", "vsock:2:1", &format!("/{}", "x".repeat(200))] {
            assert!(address(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
