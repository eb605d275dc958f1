//! Learning that the kernel killed a process of the container for want of memory.
//!
//! Version 1 signals an eventfd(2) that is registered with `cgroup.event_control`; version 2 changes
//! `memory.events`, which inotify(7) tells. cgroup-v1/memory.rst, "OOM Control"; cgroup-v2.rst, "Core
//! Interface Files".

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::files::{is_gone, read_file, write_file};
use super::{Cgroup, Version, missing};
use crate::error::{Error, Operation, Result};

/// What [`OomWatch::next`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// The group ran out of memory, since the last call.
    OutOfMemory,
    /// The group was removed, or (version 2) its last process has ended: nothing more will come.
    Ended,
    /// The time is up.
    Nothing,
}

/// Watches one container's memory group.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The counter, and the open file without which the kernel would forget it.
    V1 { event: EventFd, _control: fs::File },
    /// The kills that were told already.
    V2 { inotify: Inotify, kills: u64 },
}

impl Cgroup {
    /// Watches for a lack of memory from here on. Refused for a container without a memory group.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let group = self.groups.iter().find(|group| group.version == Version::V2 || group.has("memory"));
        let group = group.ok_or_else(|| missing("memory"))?;
        let directory = group.directory.clone();
        let source = match group.version {
            Version::V1 => watch_v1(&directory)?,
            Version::V2 => watch_v2(&directory)?,
        };
        Ok(OomWatch { directory, source })
    }
}

impl Cgroup {
    /// How many processes the kernel has killed for want of memory; 0 for a container without a memory group.
    pub fn oom_kills(&self) -> Result<u64> {
        let group = self.groups.iter().find(|group| group.version == Version::V2 || group.has("memory"));
        let Some(group) = group else { return Ok(0) };
        match group.version {
            Version::V2 => Ok(kills(&group.directory)?.unwrap_or(0)),
            Version::V1 => match read_file(&group.directory.join("memory.oom_control")) {
                Err(error) if is_gone(&error) => Ok(0),
                text => Ok(field(&text?, "oom_kill").unwrap_or(0)),
            },
        }
    }
}

fn watch_v1(directory: &Path) -> Result<Source> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_value_and_flags(0, flags).operation(|| "make an eventfd")?;
    let path = directory.join("memory.oom_control");
    let control = fs::File::open(&path).operation(|| format!("open {}", path.display()))?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    write_file(&directory.join("cgroup.event_control"), &line)?;
    Ok(Source::V1 { event, _control: control })
}

fn watch_v2(directory: &Path) -> Result<Source> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .operation(|| "make an inotify instance")?;
    for file in ["memory.events", "cgroup.events"] {
        let path = directory.join(file);
        let watched = inotify.add_watch(&path, AddWatchFlags::IN_MODIFY);
        watched.operation(|| format!("watch {}", path.display()))?;
    }
    Ok(Source::V2 { inotify, kills: kills(directory)?.unwrap_or(0) })
}

/// How many processes of the group were killed for want of memory; none if the group is gone.
fn kills(directory: &Path) -> Result<Option<u64>> {
    match read_file(&directory.join("memory.events")) {
        Err(error) if is_gone(&error) => Ok(None),
        text => Ok(Some(field(&text?, "oom_kill").unwrap_or(0))),
    }
}

/// The number after `name` in a text of lines `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

impl AsFd for OomWatch {
    /// Readable when [`next`](OomWatch::next) may have something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1 { event, .. } => event.as_fd(),
            Source::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

impl OomWatch {
    /// Waits for the next event, for at most `limit`; forever without one.
    pub fn next(&mut self, limit: Option<Duration>) -> Result<OomEvent> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            if let Some(event) = self.pending()? {
                return Ok(event);
            }
            if !self.wait(deadline)? {
                return Ok(OomEvent::Nothing);
            }
        }
    }

    /// Whether the descriptor became readable before the deadline.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let timeout = match deadline {
            // Rounded up, so that no last millisecond is spent in a loop.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(deadline.is_none_or(|deadline| Instant::now() < deadline)),
            Err(errno) => Err(Error::io(format!("watch {}", self.directory.display()), errno)),
        }
    }

    /// What has happened already, without waiting.
    fn pending(&mut self) -> Result<Option<OomEvent>> {
        let directory = &self.directory;
        match &mut self.source {
            Source::V1 { event, .. } => match event.read() {
                // The kernel also counts up when it removes the group.
                Ok(_) if !directory.join("memory.oom_control").exists() => Ok(Some(OomEvent::Ended)),
                Ok(_) => Ok(Some(OomEvent::OutOfMemory)),
                Err(nix::errno::Errno::EAGAIN) => Ok(None),
                Err(errno) => Err(Error::io(format!("watch {}", directory.display()), errno)),
            },
            Source::V2 { inotify, kills: told } => {
                match inotify.read_events() {
                    Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
                    Err(errno) => return Err(Error::io(format!("watch {}", directory.display()), errno)),
                }
                let Some(all) = kills(directory)? else { return Ok(Some(OomEvent::Ended)) };
                if all > *told {
                    *told = all;
                    return Ok(Some(OomEvent::OutOfMemory));
                }
                match read_file(&directory.join("cgroup.events")) {
                    Err(error) if is_gone(&error) => Ok(Some(OomEvent::Ended)),
                    text => Ok((field(&text?, "populated") == Some(0)).then_some(OomEvent::Ended)),
                }
            }
        }
    }
}
