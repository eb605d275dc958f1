//! The files of a control group, read and written with errors that name them, and what the kernel gives no better
//! way for: waiting until something has changed.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::resources::{Otherwise, Setting};
use crate::error::{Error, Operation, Result};
use crate::limits;

pub(super) fn open_for_writing(path: &Path) -> Result<OwnedFd> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.map(OwnedFd::from).operation(|| format!("open {}", path.display()))
}

pub(super) fn write_file(path: &Path, value: &str) -> Result<()> {
    let mut file = fs::File::from(open_for_writing(path)?);
    file.write_all(value.as_bytes()).operation(|| format!("write {value:?} to {}", path.display()))
}

/// Writes lines to files of a group in their order, each by a call of its own; a file is opened once for those that
/// follow each other.
pub(super) fn write_lines(directory: &Path, lines: &[(impl AsRef<Path>, String)]) -> Result<()> {
    for lines in lines.chunk_by(|(a, _), (b, _)| a.as_ref() == b.as_ref()) {
        let path = directory.join(&lines[0].0);
        let mut file = fs::File::from(open_for_writing(&path)?);
        for (_, line) in lines {
            let written = file.write_all(line.as_bytes());
            written.operation(|| format!("write {line:?} to {}", path.display()))?;
        }
    }
    Ok(())
}

pub(super) fn read_file(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).operation(|| format!("open {}", path.display()))?;
    let read = file.take(limits::CGROUP_FILE_BYTES).read_to_string(&mut text);
    read.operation(|| format!("read {}", path.display()))?;
    Ok(text)
}

/// The pids in a `cgroup.procs`; none if the group does not exist. Zero stands for a process of
/// another pid namespace, which has no number here and cannot be reached.
pub(super) fn read_pids(path: &Path) -> Result<Vec<i32>> {
    match read_file(path) {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        text => Ok(text?.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()),
    }
}

/// Whether a group was not there to be opened, or was removed while its file was open.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The group and all groups below it, parents first.
pub(super) fn with_children(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        let mut children = Vec::new();
        let entries = match fs::read_dir(parent) {
            // Removed meanwhile, or never made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => {
                let entries = entries.and_then(Iterator::collect::<io::Result<Vec<_>>>);
                entries.operation(|| format!("read directory {}", parent.display()))?
            }
        };
        for entry in entries {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                children.push(entry.path());
            }
        }
        all.extend(children);
        next += 1;
    }
    Ok(all)
}

/// How soon something is asked for again that the kernel gives no event for: at first, then at most.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(20));

/// The same where an event is waited for: it may stand for something else, or have come before.
const PAUSE_BETWEEN_EVENTS: Duration = Duration::from_millis(500);

/// Waits until `done`, which is asked again whenever the version 2 file `events` changes. Where there is no such
/// file (version 1) the kernel has no event, and it is asked again after growing pauses.
pub(super) fn wait_until(
    what: &str,
    limit: Duration,
    events: &Path,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut events = fs::File::open(events).ok();
    let mut pause = PAUSE.0;
    loop {
        if let Some(file) = &mut events {
            // What is read is of no interest: reading takes note of the changes so far. The group may be gone.
            let _ = file.rewind().and_then(|()| file.read(&mut [0; 256]));
        }
        if done()? {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let limit_ms = limit.as_millis() as u64;
            return Err(Error::TimedOut { operation: what.to_owned(), limit_ms });
        }
        match &events {
            Some(file) => wait_for_change(file, left.min(PAUSE_BETWEEN_EVENTS))?,
            None => {
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// Waits until the kernel changed the file after it was read last, for at most `limit`.
fn wait_for_change(file: &fs::File, limit: Duration) -> Result<()> {
    let timeout = PollTimeout::try_from(limit + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    match nix::poll::poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::io("wait for an event of a control group", errno)),
    }
}

/// Removes a group and those below it; one that is gone is no error.
pub(super) fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    // The usual case: no children, nobody in it.
    match fs::remove_dir(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let what = format!("remove control group {}", directory.display());
    let limit = deadline.saturating_duration_since(Instant::now());
    wait_until(&what, limit, &directory.join("cgroup.events"), || {
        for group in with_children(directory)?.iter().rev() {
            match fs::remove_dir(group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                Err(error) => return Err(Error::io(what.clone(), error)),
            }
        }
        Ok(true)
    })
}

/// Writes settings in their order. One that the kernel finds invalid is tried again after the others: memory may not be
/// raised above memory and swap together, nor both be lowered below memory, so which of them has to
/// be first depends on what is in force; the same holds for quota, period and burst.
pub(super) fn write_settings<'a>(
    directory: &Path,
    settings: impl Iterator<Item = &'a Setting>,
) -> Result<()> {
    let mut again = Vec::new();
    for setting in settings {
        match write_setting(directory, setting) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
            result => result?,
        }
    }
    again.into_iter().try_for_each(|setting| write_setting(directory, setting))
}

fn write_setting(directory: &Path, setting: &Setting) -> Result<()> {
    match (write_file(&directory.join(&setting.file), &setting.value), &setting.otherwise) {
        (Err(error), otherwise) if error.raw_os_error() == Some(libc::ENOENT) => match otherwise {
            Otherwise::Refuse => Err(error),
            Otherwise::Skip => Ok(()),
            Otherwise::Write { file, value } => write_file(&directory.join(file), value),
        },
        (result, _) => result,
    }
}
