//! `delete`: removes what is left of a stopped container; with force, of any.
//!
//! The processes go first, then the control groups, then the directory, state.json first of all in
//! it: a `delete` that is killed can be called again.

use std::os::fd::AsFd;
use std::time::Instant;

use super::create::run_poststop;
use super::process::ProcessId;
use super::state::{Creator, State, load_plan};
use super::status::{After, Event};
use super::{hook, host_root};
use crate::cgroup::wait_for_exit;
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::root::{ContainerDir, ContainerId, Lock, StateRoot};
use crate::sys::pidfd::pidfd_send_signal;

/// What `delete` may do to a container that is not stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing: it is refused.
    No,
    /// Kill it. An unknown id is no error.
    Yes,
}

/// Deletes a container. Returns the errors of its `poststop` hooks, which do not stop the deletion
/// (OCI: runtime.md, "Lifecycle").
pub fn delete(root: &StateRoot, id: &ContainerId, force: Force) -> Result<Vec<Error>> {
    let dir = root.container(id);
    match delete_known(&dir, force) {
        Err(error @ Error::NoSuchContainer(_)) => {
            let was_there = dir.remove_if_empty()?;
            if was_there || force == Force::Yes { Ok(Vec::new()) } else { Err(error) }
        }
        result => result,
    }
}

fn delete_known(dir: &ContainerDir, force: Force) -> Result<Vec<Error>> {
    // Without the lock: a `start` that waits for a hook or for a worker ends when init does.
    if force == Force::Yes
        && let Ok(state) = State::load(dir)
    {
        kill_processes(&state)?;
    }
    // The same for a hook that does not notice.
    let lock = match force {
        Force::No => dir.lock()?,
        Force::Yes => dir.lock_meanwhile(|| hook::end(dir))?,
    };
    fault::at(Point::DeleteLocked)?;
    let state = match State::load(dir) {
        // The files of a `create` or `delete` that was killed: this verb has them locked itself.
        Err(Error::NoSuchContainer(_)) => {
            dir.remove(&lock)?;
            return Ok(Vec::new());
        }
        // state.json of another version or damaged: `--force` removes at least the files.
        Err(error) if force == Force::Yes && matches!(error, Error::Invalid { .. }) => {
            dir.remove(&lock)?;
            return Ok(vec![error]);
        }
        state => state?,
    };
    let status = state.status(dir, Creator::Gone)?;
    if force == Force::No && status.after(Event::Deleted) != After::Gone {
        return Err(Error::WrongStatus { id: state.id.to_string(), verb: "delete", status });
    }
    clear(dir, &lock, &state)
}

/// Ends and removes whatever there is of a container; returns what its `poststop` hooks failed with.
pub(super) fn clear(dir: &ContainerDir, lock: &Lock, state: &State) -> Result<Vec<Error>> {
    // Also of a stopped container: without a pid namespace others may live on.
    if let Some(init) = &state.init {
        kill_init(init, state)?;
    }
    if !state.cgroup.remove_idle() {
        state.cgroup.kill_all()?;
    }
    // One whose `create` or `start` was killed.
    hook::end(dir)?;
    fault::at(Point::DeleteKilled)?;
    remove(dir, lock, state)
}

/// Kills init, and with it every process of its pid namespace, and then whoever else is in the
/// control groups; returns when all are gone.
fn kill_processes(state: &State) -> Result<()> {
    if let Some(init) = &state.init {
        kill_init(init, state)?;
    }
    state.cgroup.kill_all()
}

fn kill_init(init: &ProcessId, state: &State) -> Result<()> {
    let Some(pidfd) = init.open()? else { return Ok(()) };
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        sent => sent.operation(|| format!("kill process {}", init.pid))?,
    }
    if state.cgroup.is_frozen()? {
        state.cgroup.thaw()?;
    }
    let deadline = Instant::now() + limits::KILLED_PROCESSES_GONE;
    if !wait_for_exit(pidfd.as_fd(), deadline)? {
        return Err(Error::TimedOut {
            operation: format!("kill process {}", init.pid),
            limit_ms: limits::KILLED_PROCESSES_GONE.as_millis() as u64,
        });
    }
    Ok(())
}

fn remove(dir: &ContainerDir, lock: &Lock, state: &State) -> Result<Vec<Error>> {
    let plan = if state.has_poststop { Some(load_plan(dir)?) } else { None };
    state.cgroup.remove()?;
    host_root::detach(state)?;
    fault::at(Point::DeleteGroupsRemoved)?;
    dir.remove(lock)?;
    fault::at(Point::DeleteRemoved)?;
    Ok(plan.map(|plan| run_poststop(&plan.hooks.poststop, &plan, None)).unwrap_or_default())
}
