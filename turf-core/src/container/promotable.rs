//! The sandbox of a worker that may become a seed ([`super::promote`]): a seed's, with a container's limits and listeners.
//!
//! A seed with user code is the tenant's user in the first user namespace, without capabilities, in the host's pid namespace and in
//! new mount, network, ipc and uts namespaces ([`crate::seed::tenant`]): from there, and from nowhere else, it can enter
//! the sandboxes that were made for it. No process can be brought there later, so the worker is there from the
//! beginning. It is forked from a seed without user code: one with user code could not enter such a sandbox.

use oci_spec::runtime::{LinuxIdMappingBuilder, LinuxNamespaceType, Mount};

use crate::bundle::{Bundle, PROMOTABLE, WorkerSettings, Workload};
use crate::error::{Error, Result};
use crate::root::{StateRoot, is_unprivileged};
use crate::sandbox::plan::{CapabilityPlan, Plan};
use crate::seed::registry::Registry;

const NAMESPACES: &str = "config.json: $.linux.namespaces";

/// What the worker must have of its own, and leaves with its container.
const NEEDED: [(LinuxNamespaceType, &str); 4] = [
    (LinuxNamespaceType::Mount, "mount"),
    (LinuxNamespaceType::Network, "network"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
];

/// What a seed must share with the host: nobody leaves one of these for another that is not below it.
const FORBIDDEN: [(LinuxNamespaceType, &str); 4] = [
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::Time, "time"),
];

/// Checks and changes the bundle of a worker that may become a seed; the user it is to run as. Nothing is done for others.
pub(super) fn adopt(root: &StateRoot, bundle: &mut Bundle) -> Result<Option<u32>> {
    let Workload::Worker(settings) = &bundle.workload else { return Ok(None) };
    let WorkerSettings { promotable: Some(name), seed, .. } = settings else { return Ok(None) };
    let place = format!("config.json: $.annotations[\"{PROMOTABLE}\"]");
    if is_unprivileged() {
        return Err(Error::invalid(place, "needs root, who alone can make the sandbox of a seed"));
    }
    let registry = Registry::new(root);
    if registry.may_run_user_code(&seed.parse()?)? {
        let reason = format!(
            "needs a seed without user code (as \"default\"), and {seed} runs some: it cannot enter the sandbox of a seed"
        );
        return Err(Error::invalid(place, reason));
    }
    let owner = registry.tenant(&name.parse()?)?.owner();
    let namespaces = bundle.spec.linux().as_ref().and_then(|linux| linux.namespaces().clone());
    let namespaces = namespaces.unwrap_or_default();
    for (kind, word) in NEEDED {
        if !namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none()) {
            let reason = format!("must have a new one of type \"{word}\": the worker may become a seed");
            return Err(Error::invalid(NAMESPACES, reason));
        }
    }
    for (kind, word) in FORBIDDEN {
        if namespaces.iter().any(|namespace| namespace.typ() == kind) {
            let reason = format!(
                "must have none of type \"{word}\": the worker may become a seed, which enters others from the host's"
            );
            return Err(Error::invalid(NAMESPACES, reason));
        }
    }
    let mounts = bundle.spec.mounts().clone().unwrap_or_default();
    let mounts = mounts.into_iter().map(|mount| owned_by(owner, mount)).collect::<Result<_>>()?;
    bundle.spec.set_mounts(Some(mounts));
    Ok(Some(owner))
}

/// Dresses the worker as a seed.
pub(super) fn dress(plan: &mut Plan, owner: u32) -> Result<()> {
    let process = &mut plan.process;
    if process.capabilities != CapabilityPlan::default() {
        let reason = "must be empty: the worker may become a seed, which has none";
        return Err(Error::invalid("config.json: $.process.capabilities", reason));
    }
    (process.uid, process.gid) = (owner, owner);
    process.additional_gids = Vec::new();
    process.no_new_privileges = true;
    Ok(())
}

/// A read-only bind mount in which what belongs to root belongs to the worker, which root would have been.
fn owned_by(owner: u32, mut mount: Mount) -> Result<Mount> {
    let mut options = mount.options().clone().unwrap_or_default();
    let has = |word: &str| options.iter().any(|option| option == word);
    let is_bind = has("bind") || has("rbind") || mount.typ().as_deref() == Some("bind");
    if !is_bind || !has("ro") || has("idmap") || has("ridmap") {
        return Ok(mount);
    }
    let mapping = LinuxIdMappingBuilder::default().container_id(0_u32).host_id(owner).size(1_u32).build();
    let mapping = mapping.map_err(|error| Error::invalid("config.json: $.mounts", error.to_string()))?;
    options.push(if has("rbind") { "ridmap" } else { "idmap" }.to_owned());
    mount.set_options(Some(options));
    mount.set_uid_mappings(Some(vec![mapping])).set_gid_mappings(Some(vec![mapping]));
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_binds_belong_to_the_worker_and_others_are_left() {
        let mapped = |options: &[&str]| {
            let mut mount = Mount::default();
            mount.set_typ(Some("bind".to_owned()));
            mount.set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
            let mount = owned_by(7, mount).unwrap();
            mount.uid_mappings().iter().flatten().map(|mapping| mapping.host_id()).collect::<Vec<_>>()
        };
        assert_eq!(mapped(&["bind", "ro"]), [7]);
        assert_eq!(mapped(&["rbind", "ro"]), [7]);
        assert!(mapped(&["bind", "rw"]).is_empty());
        assert!(mapped(&["bind", "ro", "idmap"]).is_empty());
    }
}
