//! `turf delete`.

use anyhow::Result;
use turf_core::container::{self, Force};
use turf_core::root::StateRoot;

use crate::command::Delete;
use crate::log::Log;

/// Deletes the container; a `poststop` hook that fails is a warning (OCI: runtime.md, "Lifecycle").
pub fn run(root: &StateRoot, delete: &Delete, log: &Log) -> Result<()> {
    let force = if delete.force { Force::Yes } else { Force::No };
    for warning in container::delete(root, &delete.id.parse()?, force)? {
        log.warning(&warning.to_string());
    }
    Ok(())
}
