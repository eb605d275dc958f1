//! `turf pause` and `turf resume`.

use anyhow::Result;
use turf_core::container;
use turf_core::root::StateRoot;

use crate::command::One;

/// Stops all processes of the container where they are.
pub fn pause(root: &StateRoot, one: &One) -> Result<()> {
    Ok(container::pause(root, &one.id.parse()?)?)
}

/// Lets them go on.
pub fn resume(root: &StateRoot, one: &One) -> Result<()> {
    Ok(container::resume(root, &one.id.parse()?)?)
}
