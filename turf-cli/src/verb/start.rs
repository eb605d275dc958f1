//! `turf start`. Prints nothing: its standard output may be a user's terminal.

use anyhow::Result;
use turf_core::container;
use turf_core::root::{ContainerId, StateRoot};
use turf_core::sandbox::plan::ListenAddress;

use crate::command::Start;
use crate::log::Log;

/// Starts the container.
pub fn run(root: &StateRoot, start: &Start, log: &Log) -> Result<()> {
    start_container(root, &start.id.parse()?, &start.listen, log)
}

/// Opens the listeners and starts the container; shared with `turf run`.
pub fn start_container(root: &StateRoot, id: &ContainerId, listen: &[String], log: &Log) -> Result<()> {
    let addresses = listen.iter().map(|text| text.parse()).collect::<Result<Vec<ListenAddress>, _>>()?;
    let listeners = container::open_listeners(&addresses)?;
    if let Some(timeline) = container::start(root, id, &listeners)? {
        log.debug(&format!("worker runs: {}", serde_json::to_string(&timeline)?));
    }
    Ok(())
}
