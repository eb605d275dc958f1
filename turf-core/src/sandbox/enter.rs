//! Dressing the calling process as its [`ProcessPlan`] says.

use super::plan::ProcessPlan;
use super::step::StepError;

/// Applies the plan to the calling, single-threaded process, in this order: OOM score, scheduling,
/// limits, keyring, labels, groups and user, working directory, capabilities,
/// `no_new_privileges`, seccomp. It allocates, but takes no lock and starts no thread.
///
/// The caller is inside the sandbox (namespaces and root) as its root user. Afterwards it may only
/// do what the workload may do.
pub fn apply_process(plan: &ProcessPlan) -> Result<(), StepError> {
    let _ = plan;
    Err(StepError::refused("apply the process plan", "not available"))
}
