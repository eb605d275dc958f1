//! `turf list`.

use anyhow::Result;
use turf_core::container::{self, OciState};
use turf_core::root::StateRoot;

use crate::command::{Format, List};
use crate::log::Log;

/// Prints all containers; one whose state cannot be read is a warning.
pub fn run(root: &StateRoot, list: &List, log: &Log) -> Result<()> {
    let (states, unreadable) = container::list(root)?;
    for container in unreadable {
        log.warning(&format!("container {}: {}", container.id, container.error));
    }
    match (list.quiet, list.format) {
        (true, _) => super::print(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>()),
        (false, Format::Json) => super::print(&format!("{}\n", serde_json::to_string(&states)?)),
        (false, Format::Table) => super::print(&super::table(&rows(&states))),
    }
}

fn rows(states: &[OciState]) -> Vec<Vec<String>> {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec()];
    rows.extend(states.iter().map(|state| {
        vec![
            state.id.clone(),
            state.pid.to_string(),
            state.status.to_string(),
            state.bundle.display().to_string(),
            state.created.clone(),
            state.owner.clone(),
        ]
    }));
    rows
}
