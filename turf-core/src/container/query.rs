//! `state`, `list` and `ps`: what is asked without changing anything.

use super::state::{Creator, OciState, State};
use crate::error::{Error, Result};
use crate::root::{ContainerId, StateRoot};

/// The state of a container.
pub fn state(root: &StateRoot, id: &ContainerId) -> Result<OciState> {
    let dir = root.container(id);
    let state = State::load(&dir)?;
    let status = state.status(&dir, Creator::MayLive)?;
    Ok(state.to_oci(status))
}

/// A container whose state cannot be told, and why.
#[derive(Debug)]
pub struct Unreadable {
    /// Its id.
    pub id: ContainerId,
    /// What is wrong with its state.
    pub error: Error,
}

/// The states of all containers, sorted by id. One that cannot be read does not hide the others.
pub fn list(root: &StateRoot) -> Result<(Vec<OciState>, Vec<Unreadable>)> {
    let (mut states, mut unreadable) = (Vec::new(), Vec::new());
    for id in root.container_ids()? {
        match state(root, &id) {
            Ok(state) => states.push(state),
            // Deleted meanwhile, or never quite begun.
            Err(Error::NoSuchContainer(_)) => {}
            Err(error) => unreadable.push(Unreadable { id, error }),
        }
    }
    Ok((states, unreadable))
}

/// The pids of a container's processes, as the caller sees them, sorted.
pub fn processes(root: &StateRoot, id: &ContainerId) -> Result<Vec<i32>> {
    let state = State::load(&root.container(id))?;
    let mut all = state.cgroup.processes()?;
    if let Some(init) = state.init
        && !all.contains(&init.pid)
        && init.is_alive()?
    {
        // A machine without control groups.
        all.insert(0, init.pid);
    }
    Ok(all)
}
