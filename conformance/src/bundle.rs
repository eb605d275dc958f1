//! Bundles made for one test: a directory with `config.json` and, for programs, a root of one static busybox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The programs that scripts in a test bundle may use; all are links to busybox.
const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "cut", "dd", "echo", "env", "grep", "head", "hostname", "id", "ionice", "ip",
    "kill", "ln", "ls", "mkdir", "mknod", "mount", "nsenter", "ps", "pwd", "readlink", "rm", "seq", "sh",
    "sleep", "sort", "stat", "stty", "taskset", "test", "touch", "tr", "true", "umount", "uname", "unshare",
    "wc",
];

/// The capabilities that container engines give by default.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A bundle directory and the configuration that will be written into it.
pub struct Bundle {
    /// The directory.
    pub path: PathBuf,
    /// The content of `config.json`.
    pub config: Value,
}

impl Bundle {
    /// A bundle that runs `script` in busybox's shell.
    pub fn shell(path: PathBuf, script: &str) -> Result<Bundle> {
        make_root(&path.join("rootfs"))?;
        Ok(Bundle { path, config: config(&["/bin/sh", "-c", script]) })
    }

    /// A worker bundle without a root: the script is bound to `/app/worker.js`.
    pub fn worker(path: PathBuf, file: &str, source: &str) -> Result<Bundle> {
        fs::create_dir_all(&path)?;
        let script = path.join(file);
        fs::write(&script, source)?;
        let inside = format!("/app/{file}");
        let mut config = config(&["aworker", &inside]);
        config.as_object_mut().context("config is no object")?.remove("root");
        config["mounts"] = json!([
            {"destination": inside, "type": "bind", "source": script, "options": ["bind", "ro"]},
        ]);
        Ok(Bundle { path, config })
    }

    /// Replaces the value at a JSON pointer, or adds it to its (existing) parent.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        set(&mut self.config, pointer, value);
        self
    }

    /// Appends to the array at a JSON pointer, which is made if it is missing.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        match self.config.pointer_mut(pointer).and_then(Value::as_array_mut) {
            Some(array) => array.push(value),
            None => set(&mut self.config, pointer, json!([value])),
        }
        self
    }

    /// Removes the namespace of this type, so that the caller's is kept.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Writes `config.json`.
    pub fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.config)?;
        fs::write(self.path.join("config.json"), text).context("write config.json")
    }

    /// A path of the bundle's root.
    pub fn inside(&self, path: &str) -> PathBuf {
        self.path.join("rootfs").join(path.trim_start_matches('/'))
    }
}

/// Replaces or adds one value; the parent must be there. Panics otherwise: the test itself is wrong then.
fn set(config: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer begins with a slash");
    config.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the configuration"))[key] = value;
}

/// Makes a root file system of busybox and the usual directories.
pub fn make_root(root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "run"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("copy /bin/busybox (package busybox-static)")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
    Ok(())
}

fn config(arguments: &[&str]) -> Value {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": DEFAULT_CAPABILITIES,
                "effective": DEFAULT_CAPABILITIES,
                "permitted": DEFAULT_CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": mounts(),
        "linux": {
            "namespaces": namespaces,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle { path: PathBuf::new(), config: config(&["/bin/true"]) }
    }

    #[test]
    fn set_replaces_and_adds() {
        let mut bundle = bundle();
        bundle.set("/process/cwd", json!("/tmp")).set("/linux/sysctl", json!({"a.b": "1"}));
        bundle.set("/process/args/0", json!("/bin/sh"));
        assert_eq!(bundle.config["process"]["args"], json!(["/bin/sh"]));
        assert_eq!(bundle.config["process"]["cwd"], "/tmp");
        assert_eq!(bundle.config["linux"]["sysctl"]["a.b"], "1");
    }

    #[test]
    fn push_makes_the_array_it_needs() {
        let mut bundle = bundle();
        bundle.push("/linux/devices", json!(1)).push("/linux/devices", json!(2));
        assert_eq!(bundle.config["linux"]["devices"], json!([1, 2]));
    }

    #[test]
    fn a_namespace_can_be_taken_out() {
        let mut bundle = bundle();
        bundle.without_namespace("network");
        let left = bundle.config["linux"]["namespaces"].as_array().unwrap().len();
        assert_eq!(left, 5);
    }
}
