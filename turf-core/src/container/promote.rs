//! `seed promote`: the worker of a running container becomes the next seed of a name ([`crate::seed::promotion`]).
//!
//! The container stays what it is: the seed is a clone of its worker, with control groups of its own.

use super::state::{Creator, State};
use super::status::Status;
use crate::bundle::PROMOTABLE;
use crate::error::{Error, Result};
use crate::root::{ContainerId, StateRoot};
use crate::sandbox::plan::WorkloadPlan;
use crate::seed::promotion;
use crate::seed::registry::{Registry, SeedName, SeedState};

/// Makes a seed of the worker of container `id`; `name`, if it is given, must be the one that the container was created for. The
/// seed's name and state.
pub fn promote(root: &StateRoot, id: &ContainerId, name: Option<&SeedName>) -> Result<(SeedName, SeedState)> {
    let dir = root.container(id);
    let _lock = dir.lock()?;
    let (state, plan) = State::load_with_plan(&dir)?;
    let object = || format!("container {id}");
    let promotable = match &plan.workload {
        WorkloadPlan::Worker { promotable: Some(promotable), .. } => promotable.parse::<SeedName>()?,
        WorkloadPlan::Worker { promotable: None, .. } | WorkloadPlan::Exec => {
            let reason = format!("was created without the annotation {PROMOTABLE}: it cannot become a seed");
            return Err(Error::invalid(object(), reason));
        }
    };
    if let Some(name) = name
        && *name != promotable
    {
        let reason = format!(
            "was created to become seed {promotable}: it has the rights of that tenant, not of {name}"
        );
        return Err(Error::invalid(object(), reason));
    }
    let status = state.status(&dir, Creator::Gone)?;
    if status != Status::Running {
        return Err(Error::WrongStatus { id: id.to_string(), verb: "promote", status });
    }
    let worker = promotion::connect(dir.path())?;
    let seed = Registry::new(root).promote(&promotable, id.as_str(), worker)?;
    Ok((promotable, seed))
}
