//! A bundle with its container's directory, and what tests do with it.

use serde_json::{Value, json};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;
use turf_core::Result;
use turf_core::bundle::{Bundle, default};
use turf_core::sandbox::compile::{Context, Keyring, RootEntry, compile};
use turf_core::sandbox::gate::{self, Gate};
use turf_core::sandbox::init::{Created, SpawnOptions, spawn};
use turf_core::sandbox::plan::Plan;
use turf_core::sys::namespace::{Cloned, clone_process};
use turf_core::sys::process::{exit_now, wait_for};

/// Longest wait for something that is about to happen.
pub const SOON: Duration = Duration::from_secs(20);

/// A bundle with busybox as its image, and the directory of its container.
pub struct Case {
    pub dir: tempfile::TempDir,
    pub config: Value,
    pub preserve_fds: u32,
    pub console: Option<OwnedFd>,
    /// How long init may be at work.
    pub limit: Duration,
}

impl Case {
    pub fn program(script: &str) -> Case {
        let mut config: Value = serde_json::from_str(default::PROGRAM).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["root"]["readonly"] = false.into();
        Case::new(config)
    }

    pub fn worker() -> Case {
        let mut config: Value = serde_json::from_str(default::WORKER).unwrap();
        // There is no script here, and of a seed that is not the default one nobody knows whether it needs any.
        config["annotations"]["io.turf.seed"] = "stand-in".into();
        Case::new(config)
    }

    pub fn new(config: Value) -> Case {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = dir.path().join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(dir.path().join("container")).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in [
            "sh", "cat", "ls", "echo", "grep", "id", "mount", "touch", "true", "sleep", "test", "stat",
            "hostname", "chmod", "mkdir", "head", "ulimit", "umask", "pwd", "ps", "kill", "readlink", "tty",
            "stty",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        Case { dir, config, preserve_fds: 0, console: None, limit: SOON }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    pub fn container(&self) -> PathBuf {
        self.dir.path().join("container")
    }

    pub fn plan(&self) -> Plan {
        let bundle = self.dir.path().join("bundle");
        fs::write(bundle.join("config.json"), self.config.to_string()).unwrap();
        let bundle = Bundle::load(&bundle).unwrap();
        compile(&bundle, Context { id: "box", keyring: Keyring::New, root_entry: RootEntry::Pivot }).unwrap()
    }

    pub fn create(&self) -> Result<Created> {
        self.create_with(|| Ok(()))
    }

    pub fn create_with(&self, runtime_hooks: impl FnOnce() -> Result<()>) -> Result<Created> {
        let plan = self.plan();
        // A container's directory is made anew for each container.
        let _ = fs::remove_file(self.container().join(gate::SOCKET_NAME));
        let options = SpawnOptions {
            plan: &plan,
            container_dir: &self.container(),
            cgroup: &[],
            unit: None,
            preserve_fds: self.preserve_fds,
            console_socket: self.console.as_ref().map(|console| console.try_clone().unwrap()),
            lock: None,
            limit: self.limit,
        };
        spawn(options)?.wait_created(runtime_hooks, |_| Ok(()))
    }

    /// Creates, starts and waits: the program's wait status.
    pub fn run(&self) -> i32 {
        let created = self.create().unwrap();
        assert!(gate::is_waiting(&self.container()).unwrap());
        Gate::connect(&self.container()).unwrap().start_program().unwrap();
        assert!(!gate::is_waiting(&self.container()).unwrap());
        wait_for(created.pid).unwrap()
    }

    /// Runs a program that succeeds, and returns what it wrote to /out.
    pub fn output(&self) -> String {
        let status = self.run();
        assert_eq!(status, 0, "the program failed: {:?}", fs::read_to_string(self.rootfs().join("out")));
        fs::read_to_string(self.rootfs().join("out")).unwrap()
    }

    pub fn namespaces(&mut self, kinds: &[&str]) {
        self.config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    }
}

pub fn error_of(result: Result<Created>) -> String {
    result.map(|created| kill(&created)).unwrap_err().to_string()
}

pub fn kill(created: &Created) {
    turf_core::sys::process::kill(created.pid, libc::SIGKILL).unwrap();
    wait_for(created.pid).unwrap();
}

pub fn exited(status: i32) -> Option<i32> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// Runs something in a child with a memory of its own, which may then be killed.
pub fn in_child(act: impl FnOnce()) -> i32 {
    match clone_process(0).unwrap() {
        Cloned::Parent(pid) => pid,
        Cloned::Child => {
            act();
            exit_now(0)
        }
    }
}
