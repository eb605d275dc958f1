//! The sandbox of a worker whose seed runs user code: in a user namespace that the seed's tenant owns.
//!
//! Such a seed has no rights over the host; it enters what belongs to its own user. So every namespace that it
//! has to enter must be a new one, made together with that user namespace. A bundle without a user namespace gets one,
//! and sees the files of its read-only mounts as before: their owners are mapped.

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount,
};

use crate::bundle::{Bundle, Workload};
use crate::error::{Error, Result};
use crate::root::{StateRoot, is_unprivileged};
use crate::sandbox::plan::IdMapping;
use crate::seed::registry::Registry;

const PLACE: &str = "config.json: $.linux.namespaces";

/// The namespaces that a seed with user code has of its own, and cannot leave but for new ones of its tenant.
const NEEDED: [(LinuxNamespaceType, &str); 4] = [
    (LinuxNamespaceType::Mount, "mount"),
    (LinuxNamespaceType::Network, "network"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
];

/// Changes the bundle of a worker whose seed runs user code; the user who is to own the user namespace. Nothing is done for
/// other bundles, and where the caller is not root: then the caller owns both, seed and namespace.
pub(super) fn adopt(root: &StateRoot, bundle: &mut Bundle) -> Result<Option<u32>> {
    let Workload::Worker(settings) = &bundle.workload else { return Ok(None) };
    let name = settings.seed.parse()?;
    let registry = Registry::new(root);
    if is_unprivileged() || !registry.may_run_user_code(&name)? {
        return Ok(None);
    }
    let mut linux = bundle.spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for (kind, word) in NEEDED {
        if !namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none()) {
            let reason = format!(
                "must have a new one of type \"{word}\": seed {name} runs user code and has no rights over the host's"
            );
            return Err(Error::invalid(PLACE, reason));
        }
    }
    let tenant = registry.tenant(&name)?;
    match namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        Some(namespace) => check_user_namespace(&linux, namespace, &settings.seed)?,
        None => {
            let user = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User).build();
            namespaces.push(user.map_err(|error| Error::invalid(PLACE, error.to_string()))?);
            linux.set_namespaces(Some(namespaces));
            let mapping = id_mapping(tenant.mapping())?;
            linux.set_uid_mappings(Some(vec![mapping])).set_gid_mappings(Some(vec![mapping]));
            bundle.spec.set_linux(Some(linux));
            let mounts = bundle.spec.mounts().clone();
            bundle.spec.set_mounts(mounts.map(|mounts| mounts.into_iter().map(with_owners).collect()));
        }
    }
    Ok(Some(tenant.owner()))
}

/// The seed will have all rights over the ids that are mapped into the namespace.
fn check_user_namespace(linux: &Linux, namespace: &LinuxNamespace, seed: &str) -> Result<()> {
    if namespace.path().is_some() {
        let reason = format!("must have a new one of type \"user\": seed {seed} runs user code");
        return Err(Error::invalid(PLACE, reason));
    }
    for (mappings, list) in [(linux.uid_mappings(), "uidMappings"), (linux.gid_mappings(), "gidMappings")] {
        if mappings.iter().flatten().any(|mapping| mapping.host_id() == 0) {
            let reason = format!("must not map the host's root: seed {seed} runs user code");
            return Err(Error::invalid(format!("config.json: $.linux.{list}"), reason));
        }
    }
    Ok(())
}

fn id_mapping(mapping: IdMapping) -> Result<LinuxIdMapping> {
    LinuxIdMappingBuilder::default()
        .container_id(mapping.inside)
        .host_id(mapping.outside)
        .size(mapping.count)
        .build()
        .map_err(|error| Error::invalid("config.json: $.linux.uidMappings", error.to_string()))
}

/// A read-only bind mount with the owners it would have without a user namespace. One that can be written to is
/// left: through it a process of the tenant could make files of the host's root.
fn with_owners(mut mount: Mount) -> Mount {
    let mut options = mount.options().clone().unwrap_or_default();
    let has = |word: &str| options.iter().any(|option| option == word);
    let mapped = if has("rbind") { "ridmap" } else { "idmap" };
    let is_bind = has("bind") || has("rbind") || mount.typ().as_deref() == Some("bind");
    if is_bind && has("ro") && !has("idmap") && !has("ridmap") {
        options.push(mapped.to_owned());
        mount.set_options(Some(options));
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_binds_keep_their_owners_and_others_are_left() {
        let mount = |options: &[&str]| {
            let mut mount = Mount::default();
            mount.set_typ(Some("bind".to_owned()));
            mount.set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
            with_owners(mount).options().clone().unwrap_or_default().join(",")
        };
        assert_eq!(mount(&["bind", "ro"]), "bind,ro,idmap");
        assert_eq!(mount(&["rbind", "ro"]), "rbind,ro,ridmap");
        assert_eq!(mount(&["bind", "ro", "idmap"]), "bind,ro,idmap");
        assert_eq!(mount(&["bind", "rw"]), "bind,rw");
    }
}
