//! `turf features` (OCI: features.md).

use anyhow::Result;
use serde_json::json;

/// Prints what this runtime supports, whatever the machine is.
pub fn run() -> Result<()> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
        },
        "annotations": { "io.turf.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": ["io.turf."],
    });
    super::print(&format!("{}\n", serde_json::to_string_pretty(&features)?))
}
