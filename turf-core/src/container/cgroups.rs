//! Which control groups a container gets: who makes them, and what is done about those that may not be
//! made.

use crate::cgroup::{Cgroup, CgroupPlan};
use crate::error::{Error, Result};

/// Who makes the control groups of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// Turf, as directories of the control group file systems.
    #[default]
    Cgroupfs,
    /// systemd, over D-Bus.
    Systemd,
    /// Nobody: the container stays in its creator's groups.
    Disabled,
}

/// What becomes of control groups that the caller may not make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unwritable {
    /// They are left out, unless limits are asked for.
    Skipped,
    /// They are an error.
    #[default]
    Refused,
}

/// How a container gets its control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupOptions {
    /// Who makes them.
    pub manager: CgroupManager,
    /// What becomes of those that may not be made.
    pub unwritable: Unwritable,
}

/// Finds out which groups the container gets; changes nothing.
pub(super) fn locate(plan: &CgroupPlan, id: &str, options: CgroupOptions) -> Result<Cgroup> {
    let cgroup = match (options.manager, options.unwritable) {
        (CgroupManager::Disabled, _) => without_limits(plan, "the control groups are disabled")?,
        (CgroupManager::Systemd, _) => Cgroup::locate_unit(plan, id)?,
        (CgroupManager::Cgroupfs, Unwritable::Refused) => Cgroup::locate(plan)?,
        (CgroupManager::Cgroupfs, Unwritable::Skipped) => Cgroup::locate(plan)?.without_unwritable(plan)?,
    };
    cgroup.with_rdt(plan)
}

/// No groups, which is refused to who asks for limits. Rules of devices are no limits: who may not make
/// groups may not make device nodes either.
fn without_limits(plan: &CgroupPlan, why: &str) -> Result<Cgroup> {
    let limit = plan.v1.iter().chain(&plan.v2).flatten().next();
    match limit {
        None => Ok(Cgroup::default()),
        Some(setting) => Err(Error::invalid(
            "config.json: $.linux.resources",
            format!("asks for a limit ({} {}), but {why}", setting.file, setting.value),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::resources::setting;

    #[test]
    fn without_groups_there_are_no_limits() {
        let disabled = CgroupOptions { manager: CgroupManager::Disabled, ..CgroupOptions::default() };
        let mut plan = CgroupPlan::compile_linux("box", None).unwrap();
        assert_eq!(locate(&plan, "box", disabled).unwrap(), Cgroup::default());
        plan.v1 = Ok(vec![setting("pids", "pids.max", "7")]);
        let error = locate(&plan, "box", disabled).unwrap_err().to_string();
        assert!(error.contains("asks for a limit (pids.max 7)"), "{error}");
    }
}
