//! `turf state`.

use anyhow::Result;
use turf_core::container;
use turf_core::root::StateRoot;

use crate::command::One;

/// Prints the state of a container.
pub fn run(root: &StateRoot, one: &One) -> Result<()> {
    let state = container::state(root, &one.id.parse()?)?;
    super::print(&format!("{}\n", serde_json::to_string_pretty(&state)?))
}
