//! `pause` and `resume`: the freezer.

use super::state::{Creator, State};
use super::status::Event;
use crate::error::{Error, Result};
use crate::root::{ContainerId, StateRoot};

/// Stops every process of a running container where it is.
pub fn pause(root: &StateRoot, id: &ContainerId) -> Result<()> {
    change(root, id, "pause", Event::Froze)?.cgroup.freeze()
}

/// Lets the processes of a paused container go on.
pub fn resume(root: &StateRoot, id: &ContainerId) -> Result<()> {
    change(root, id, "resume", Event::Thawed)?.cgroup.thaw()
}

fn change(root: &StateRoot, id: &ContainerId, verb: &'static str, event: Event) -> Result<State> {
    let dir = root.container(id);
    let _lock = dir.lock()?;
    let state = State::load(&dir)?;
    let status = state.status(&dir, Creator::Gone)?;
    if status.allows(event) {
        return Ok(state);
    }
    Err(Error::WrongStatus { id: id.to_string(), verb, status })
}
