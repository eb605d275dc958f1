//! The config.json files that `turf spec` writes.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A bundle that executes a shell in `rootfs`, like the one runc writes.
pub const PROGRAM: &str = include_str!("default/program.json");

/// A worker bundle without an image: the bundle's own directory is mounted on /app, and
/// `worker.js` in it is the script.
pub const WORKER: &str = include_str!("default/worker.json");

/// One of them for an unprivileged user: a user namespace in which the caller's ids are those of root, no network
/// namespace (nobody could give it a device), the host's /sys instead of one of its own, no groups of others.
pub fn rootless(config: &str) -> Result<String> {
    let mut spec: Value =
        serde_json::from_str(config).map_err(|error| Error::invalid("config.json", error.to_string()))?;
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    spec["linux"]["uidMappings"] = map(geteuid().as_raw());
    spec["linux"]["gidMappings"] = map(getegid().as_raw());
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| {
                !option.as_str().is_some_and(|text| text.starts_with("gid=") || text.starts_with("uid="))
            });
        }
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        // It comes with /sys.
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    }
    serde_json::to_string_pretty(&spec).map_err(|error| Error::invalid("config.json", error.to_string()))
}

/// [`PROGRAM`], without its control group namespace where version 1 is mounted, as with runc: who adds one to what `spec`
/// wrote does so on both kinds of machine.
pub fn program() -> String {
    let found = statfs("/sys/fs/cgroup").map(|found| found.filesystem_type());
    if found == Ok(CGROUP2_SUPER_MAGIC) { PROGRAM.to_owned() } else { PROGRAM.replace(CGROUP_NAMESPACE, "") }
}

/// Its text in [`PROGRAM`].
const CGROUP_NAMESPACE: &str = ",\n            { \"type\": \"cgroup\" }";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_a_control_group_namespace_only_on_version_2() {
        let kinds = |config: &str| {
            let spec: Value = serde_json::from_str(config).unwrap();
            spec["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["type"].clone())
                .collect::<Vec<_>>()
        };
        assert!(kinds(PROGRAM).contains(&json!("cgroup")));
        assert_eq!(kinds(&PROGRAM.replace(CGROUP_NAMESPACE, "")), kinds(PROGRAM)[..kinds(PROGRAM).len() - 1]);
        let is_unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        assert_eq!(kinds(&program()).contains(&json!("cgroup")), is_unified);
    }

    #[test]
    fn the_rootless_configuration_needs_no_right_over_the_host() {
        for config in [PROGRAM, WORKER] {
            let spec: Value = serde_json::from_str(&rootless(config).unwrap()).unwrap();
            assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], geteuid().as_raw());
            let kinds: Vec<&str> = spec["linux"]["namespaces"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|ns| ns["type"].as_str())
                .collect();
            assert!(kinds.contains(&"user") && !kinds.contains(&"network"), "{kinds:?}");
            let text = spec.to_string();
            assert!(
                !text.contains("gid=") && !text.contains("sysfs") && !text.contains("resources"),
                "{text}"
            );
        }
    }
}
