//! The processes of a container: listed, stopped, signalled, killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::files::{is_gone, read_file, read_pids, wait_until, with_children, write_file};
use super::{Cgroup, Group, Version, missing};
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};

impl Cgroup {
    /// The container's processes as pids of the caller's pid namespace, sorted; those in groups that
    /// the container made below its own are included. Empty if the groups are gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(group) = self.groups.first() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for directory in with_children(&group.directory)? {
            all.extend(read_pids(&directory.join("cgroup.procs"))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Stops every process of the container where it is, and waits until all have stopped.
    pub fn freeze(&self) -> Result<()> {
        let group = self.freezer()?;
        match group.version {
            Version::V1 => write_file(&group.directory.join("freezer.state"), "FROZEN")?,
            Version::V2 => write_file(&group.directory.join("cgroup.freeze"), "1")?,
        }
        let what = format!("freeze {}", group.directory.display());
        wait_until(&what, limits::FREEZE, &group.directory.join("cgroup.events"), || group.is_frozen())
            .map_err(|error| error.and_clean_up(self.thaw()))
    }

    /// Lets the processes of a frozen container go on; there are none if the groups are gone.
    pub fn thaw(&self) -> Result<()> {
        let group = self.freezer()?;
        let thawed = match group.version {
            Version::V1 => write_file(&group.directory.join("freezer.state"), "THAWED"),
            Version::V2 => write_file(&group.directory.join("cgroup.freeze"), "0"),
        };
        match thawed {
            Err(error) if is_gone(&error) => Ok(()),
            thawed => thawed,
        }
    }

    /// Whether the container is frozen. One without a freezer, or whose groups are gone, is not.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(group) = self.freezer() else { return Ok(false) };
        match group.is_frozen() {
            Err(error) if is_gone(&error) => Ok(false),
            frozen => frozen,
        }
    }

    fn freezer(&self) -> Result<&Group> {
        let group = self.groups.first().filter(|group| group.version == Version::V2 || group.has("freezer"));
        group.ok_or_else(|| missing("freezer"))
    }

    /// Sends `signal` to every process of the container, but not to `spared` unless it is the only one. They
    /// are frozen meanwhile where that is possible, so that none forks away and no pid can come to mean
    /// another process.
    pub fn signal_all(&self, signal: i32, spared: Option<i32>) -> Result<()> {
        let was_frozen = self.is_frozen()?;
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.processes().and_then(|mut pids| {
            if pids.len() > 1 {
                pids.retain(|pid| Some(*pid) != spared);
            }
            signal_each(&pids, signal)
        });
        if frozen && !was_frozen {
            return result.and(self.thaw());
        }
        result
    }

    /// Kills every process of the container and waits until all are gone, for at most
    /// [`limits::KILLED_PROCESSES_GONE`]. A frozen container is thawed, because a frozen process
    /// does not die.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + limits::KILLED_PROCESSES_GONE;
        while !self.processes()?.is_empty() {
            // A process that exits between the listing and the opening is gone: that is the aim.
            let handles: Vec<OwnedFd> =
                self.processes()?.into_iter().filter_map(|pid| pidfd_open(pid).ok()).collect();
            self.kill_once(&handles)?;
            if !wait_for_exits(&handles, deadline)? {
                let directory = self.groups.first().map(|group| group.directory.display().to_string());
                return Err(Error::TimedOut {
                    operation: format!("kill the processes in {}", directory.unwrap_or_default()),
                    limit_ms: limits::KILLED_PROCESSES_GONE.as_millis() as u64,
                });
            }
        }
        Ok(())
    }

    fn kill_once(&self, handles: &[OwnedFd]) -> Result<()> {
        if let Some(group) = self.groups.first().filter(|group| group.version == Version::V2) {
            // Since Linux 5.14 the kernel does it all at once.
            if write_file(&group.directory.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        let frozen = self.is_frozen()? || self.freeze().is_ok();
        for handle in handles {
            match pidfd_send_signal(handle.as_fd(), libc::SIGKILL) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    let thawed = if frozen { self.thaw() } else { Ok(()) };
                    return Err(Error::io("kill a process of the container", error).and_clean_up(thawed));
                }
                Ok(()) | Err(_) => {}
            }
        }
        if frozen { self.thaw() } else { Ok(()) }
    }
}

impl Group {
    pub(super) fn is_frozen(&self) -> Result<bool> {
        match self.version {
            Version::V1 => Ok(read_file(&self.directory.join("freezer.state"))?.trim() == "FROZEN"),
            Version::V2 => {
                Ok(read_file(&self.directory.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
            }
        }
    }
}

fn signal_each(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        let sent = pidfd_open(*pid).and_then(|pidfd| pidfd_send_signal(pidfd.as_fd(), signal));
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            sent => sent.operation(|| format!("send signal {signal} to process {pid}"))?,
        }
    }
    Ok(())
}

/// Waits until every process has exited; false if the deadline came first.
fn wait_for_exits(handles: &[OwnedFd], deadline: Instant) -> Result<bool> {
    for handle in handles {
        if !wait_for_exit(handle.as_fd(), deadline)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits until the process behind a pidfd has exited; false if the deadline came first.
pub(crate) fn wait_for_exit(pidfd: BorrowedFd<'_>, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for a process to exit", errno)),
        }
    }
}
