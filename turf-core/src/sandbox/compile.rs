//! From a bundle to its plan: pure, no system call.

use std::path::Path;

use super::plan::Plan;
use crate::bundle::Bundle;
use crate::error::Result;

/// What the plan depends on besides the bundle.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's own directory (absolute).
    pub container_dir: &'a Path,
    /// Whether the workload gets a session keyring of its own (`--no-new-keyring` says no).
    pub keyring: Keyring,
}

/// Which session keyring the workload gets (keyrings(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    /// A new one.
    New,
    /// The caller's.
    Inherited,
}

/// Compiles the plan of a validated bundle.
pub fn compile(bundle: &Bundle, context: Context<'_>) -> Result<Plan> {
    let _ = (bundle, context);
    Err(crate::Error::invalid("plan", "not available"))
}
