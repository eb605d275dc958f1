//! `turf start`. Prints nothing: its standard output may be a user's terminal.

use anyhow::Result;
use turf_core::container;
use turf_core::root::{ContainerId, StateRoot};
use turf_core::sandbox::plan::ListenAddress;

use crate::command::Start;

/// Starts the container.
pub fn run(root: &StateRoot, start: &Start) -> Result<()> {
    start_container(root, &start.id.parse()?, &start.listen)
}

/// Opens the listeners and starts the container; shared with `turf run`.
pub fn start_container(root: &StateRoot, id: &ContainerId, listen: &[String]) -> Result<()> {
    let addresses = listen.iter().map(|text| text.parse()).collect::<Result<Vec<ListenAddress>, _>>()?;
    let listeners = container::open_listeners(&addresses)?;
    Ok(container::start(root, id, &listeners)?)
}
