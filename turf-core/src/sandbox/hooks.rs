//! Running hooks: programs that get the container's state as JSON on their standard input.
//!
//! The specification is
//! <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#posix-platform-hooks>.

use super::plan::{HookPlan, HookState};
use super::step::StepError;

/// The state as a hook gets to see it (runtime-spec, runtime.md, "State").
pub fn state_json(state: &HookState, status: &str, pid: i32) -> Vec<u8> {
    let state = serde_json::json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status,
        "pid": pid,
        "bundle": state.bundle,
        "annotations": state.annotations,
    });
    state.to_string().into_bytes()
}

/// Runs the hooks of one list in order, and stops at the first that fails: a status other than 0,
/// or its time is over (then it is killed). `kind` names the list in errors ("poststart").
pub fn run(kind: &str, hooks: &[HookPlan], state: &[u8]) -> Result<(), StepError> {
    let _ = (hooks, state);
    Err(StepError::refused(kind, "not available"))
}
