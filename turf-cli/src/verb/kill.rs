//! `turf kill`.

use anyhow::Result;
use turf_core::container::{self, Target};
use turf_core::root::StateRoot;

use crate::command::Kill;

/// Sends the signal.
pub fn run(root: &StateRoot, kill: &Kill) -> Result<()> {
    let target = if kill.all { Target::All } else { Target::Init };
    Ok(container::kill(root, &kill.id.parse()?, kill.signal.parse()?, target)?)
}
