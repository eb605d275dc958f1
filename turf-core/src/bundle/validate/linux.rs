//! What `linux` of config.json must be beyond its types: devices, paths, sysctl, policies, the mappings.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType};

use super::{absolute, invalid, no_zero_byte};
use crate::error::Result;
use crate::sandbox::{memory_policy, mounts, net_devices, process};

pub(super) fn namespaces(linux: &Linux) -> Result<BTreeSet<String>> {
    let mut kinds = BTreeSet::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let place = format!("linux.namespaces[{index}]");
        if !kinds.insert(namespace.typ().to_string()) {
            return Err(invalid(
                &format!("{place}.type"),
                &format!("\"{}\" is there twice", namespace.typ()),
            ));
        }
        if let Some(path) = namespace.path() {
            absolute(path, &format!("{place}.path"))?;
        }
    }
    let new = |kind| {
        let find = |ns: &&oci_spec::runtime::LinuxNamespace| ns.typ() == kind && ns.path().is_none();
        linux.namespaces().iter().flatten().find(find).is_some()
    };
    for (mappings, name) in [(linux.uid_mappings(), "uidMappings"), (linux.gid_mappings(), "gidMappings")] {
        let place = format!("linux.{name}");
        let mappings = mappings.as_deref().unwrap_or_default();
        if new(LinuxNamespaceType::User) && mappings.is_empty() {
            return Err(invalid(&place, "must not be empty: there is a new user namespace"));
        }
        if !kinds.contains("user") && !mappings.is_empty() {
            return Err(invalid(&place, "needs a user namespace in $.linux.namespaces"));
        }
        mappings.iter().enumerate().try_for_each(|(index, mapping)| id_mapping(mapping, &place, index))?;
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())
        && !new(LinuxNamespaceType::Time)
    {
        return Err(invalid("linux.timeOffsets", "needs a new time namespace in $.linux.namespaces"));
    }
    const CLOCKS: [&str; 2] = ["monotonic", "boottime"];
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let place = format!("linux.timeOffsets.{clock}");
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(invalid(&place, "is no clock of a time namespace: there are monotonic and boottime"));
        }
        if offset.nanosecs().is_some_and(|nanosecs| nanosecs >= 1_000_000_000) {
            return Err(invalid(&format!("{place}.nanosecs"), "must be less than a second"));
        }
    }
    Ok(kinds)
}

pub(super) fn id_mapping(mapping: &LinuxIdMapping, place: &str, index: usize) -> Result<()> {
    let fits = |first: u32| first.checked_add(mapping.size()).is_some();
    if mapping.size() == 0 || !fits(mapping.host_id()) || !fits(mapping.container_id()) {
        return Err(invalid(&format!("{place}[{index}]"), "must map at least one id, below 2^32"));
    }
    Ok(())
}

pub(super) fn linux(linux: &Linux, namespaces: &BTreeSet<String>) -> Result<()> {
    memory_policy::compile(linux)?;
    if let Some(personality) = linux.personality() {
        process::personality(personality)?;
    }
    net_devices::compile(linux)?;
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        self::device(device, &format!("linux.devices[{index}]"))?;
    }
    for (paths, name) in [(linux.masked_paths(), "maskedPaths"), (linux.readonly_paths(), "readonlyPaths")] {
        let paths = paths.as_deref().unwrap_or_default();
        if !paths.is_empty() && !namespaces.contains("mnt") {
            return Err(invalid(&format!("linux.{name}"), "needs a mount namespace in $.linux.namespaces"));
        }
        for (index, path) in paths.iter().enumerate() {
            absolute(Path::new(path), &format!("linux.{name}[{index}]"))?;
        }
    }
    if let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty())
        && mounts::propagation(word).is_none()
    {
        let reason = format!(
            "{word:?} must be shared, slave, private or unbindable, or one of these with an r before"
        );
        return Err(invalid("linux.rootfsPropagation", &reason));
    }
    for (key, value) in linux.sysctl().iter().flatten() {
        sysctl(key, value, namespaces)?;
    }
    Ok(())
}

fn device(device: &LinuxDevice, place: &str) -> Result<()> {
    absolute(device.path(), &format!("{place}.path"))?;
    if device.typ() == LinuxDeviceType::A {
        return Err(invalid(&format!("{place}.type"), "\"a\" is no device: must be c, u, b or p"));
    }
    let numbers = [(device.major(), "major"), (device.minor(), "minor")];
    for (number, name) in numbers {
        if u32::try_from(number).is_err() {
            return Err(invalid(&format!("{place}.{name}"), &format!("{number} must be 0 to 4294967295")));
        }
    }
    let is_node = device.typ() != LinuxDeviceType::P;
    if is_node && device.path().file_name().is_none() {
        return Err(invalid(&format!("{place}.path"), "must name a device"));
    }
    if device.file_mode().is_some_and(|mode| mode & !0o170_777 != 0) {
        return Err(invalid(&format!("{place}.fileMode"), "must be at most 511 (octal 777)"));
    }
    Ok(())
}

/// Only what belongs to a namespace of the container may be changed: everything else is the host's.
fn sysctl(key: &str, value: &str, namespaces: &BTreeSet<String>) -> Result<()> {
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/auto_msgmni",
    ];
    let place = format!("linux.sysctl[\"{key}\"]");
    let path = crate::sandbox::compile::sysctl_path(key);
    let text = path.to_str().unwrap_or_default();
    if path.components().any(|part| !matches!(part, Component::Normal(_))) || text.is_empty() {
        return Err(invalid(&place, "must be a name like net.ipv4.ip_forward"));
    }
    no_zero_byte(value, &place)?;
    let needs = match text {
        _ if text.starts_with("net/") => "net",
        _ if text.starts_with("fs/mqueue/") || IPC.contains(&text) => "ipc",
        "kernel/hostname" => return Err(invalid(&place, "set $.hostname instead")),
        "kernel/domainname" => "uts",
        _ if text.starts_with("user/") => "user",
        _ => return Err(invalid(&place, "belongs to the host, not to a namespace of the container")),
    };
    if !namespaces.contains(needs) {
        let needs = if needs == "net" { "network" } else { needs };
        return Err(invalid(&place, &format!("needs a {needs} namespace in $.linux.namespaces")));
    }
    Ok(())
}
