//! The hook that a verb waits for, written down so that another verb can end it.
//!
//! A hook without a timeout may hang, and `create` or `start` with it, and both hold the container's lock. Whoever ends the
//! container by force must end the hook first, also one whose verb was killed. The file `hook` (`hook.poststop`) is there while one runs. Hooks of `createContainer` need no note: they are children of init, in its control groups.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::process::ProcessId;
use super::state::read_bounded;
use crate::cgroup::wait_for_exit;
use crate::error::{Operation, Result};
use crate::limits;
use crate::root::ContainerDir;
use crate::sys::process;

/// What a hook is for, which says how much time it is left to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It helps to build or to start what is to be ended.
    Begin,
    /// It clears up (`poststop`): what it has not done stays.
    ClearUp,
}

impl Purpose {
    fn grace(self) -> Duration {
        match self {
            Purpose::Begin => limits::HOOK_OF_AN_ENDED_CONTAINER,
            Purpose::ClearUp => limits::POSTSTOP_HOOK_OF_AN_ENDED_CONTAINER,
        }
    }
}

/// The file in which a hook is written down while it runs, for [`crate::sandbox::hooks`].
pub(super) fn record(dir: &ContainerDir, purpose: Purpose) -> PathBuf {
    dir.file(match purpose {
        Purpose::Begin => "hook",
        Purpose::ClearUp => "hook.poststop",
    })
}

/// Ends the hook that runs for a container that is being ended, if there is one: kills it with its process group
/// unless it ends by itself soon.
pub(super) fn end(dir: &ContainerDir) -> Result<()> {
    [Purpose::Begin, Purpose::ClearUp].into_iter().try_for_each(|purpose| end_one(dir, purpose))
}

fn end_one(dir: &ContainerDir, purpose: Purpose) -> Result<()> {
    let Some(text) = read_bounded(&record(dir, purpose))? else { return Ok(()) };
    // An empty one is that of a hook that has not begun.
    let Some((pid, moment)) = process::parse_record(&text) else { return Ok(()) };
    let Some(hook) = ProcessId::started_before(pid, moment)? else { return Ok(()) };
    let Some(pidfd) = hook.open()? else { return Ok(()) };
    if wait_for_exit(pidfd.as_fd(), Instant::now() + purpose.grace())? {
        return Ok(());
    }
    // It is not reaped yet: whoever waits for it is told by its end, and until then the number is its own.
    match process::kill(-hook.pid, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        killed => killed.operation(|| format!("kill hook {}", hook.pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    fn scratch() -> (tempfile::TempDir, ContainerDir) {
        let directory = tempfile::tempdir().unwrap();
        let root = crate::root::StateRoot::at(directory.path()).unwrap();
        let container = root.container(&"a".parse().unwrap());
        drop(container.create().unwrap());
        (directory, container)
    }

    #[test]
    fn a_hook_is_killed_with_its_group() {
        let (_keep, dir) = scratch();
        let mut hook = Command::new("sh").args(["-c", "sleep 1000; :"]).process_group(0).spawn().unwrap();
        let file = record(&dir, Purpose::Begin);
        std::fs::write(&file, process::record_of(hook.id() as i32)).unwrap();
        end(&dir).unwrap();
        assert_eq!(hook.wait().unwrap().signal(), Some(libc::SIGKILL));
        // Without it there is nothing to end.
        end(&dir).unwrap();
        std::fs::remove_file(&file).unwrap();
        end(&dir).unwrap();
    }

    #[test]
    fn another_process_of_the_same_number_is_let() {
        let (_keep, dir) = scratch();
        let mut other = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut text = process::record_of(other.id() as i32);
        // A moment before it started.
        text[4..].copy_from_slice(&1_u64.to_le_bytes());
        for text in [&text[..], b"", b"nonsense"] {
            std::fs::write(record(&dir, Purpose::Begin), text).unwrap();
            end(&dir).unwrap();
        }
        other.kill().unwrap();
        assert_eq!(other.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_hook_that_ends_by_itself_is_let() {
        let (_keep, dir) = scratch();
        let mut hook = Command::new("true").process_group(0).spawn().unwrap();
        std::fs::write(record(&dir, Purpose::Begin), process::record_of(hook.id() as i32)).unwrap();
        end(&dir).unwrap();
        assert!(hook.wait().unwrap().success());
    }
}
