//! What the tests of the `turf` program share: a private state directory and bundles in a scratch
//! directory, calls whose output goes to files (a container inherits the runtime's stdio), and checks
//! that nothing is left.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A scratch directory with a state directory in it.
pub struct Scratch {
    directory: tempfile::TempDir,
    name: String,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn ok(self) -> Ended {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The call failed with status 1 and an error that contains all of `words`.
    #[track_caller]
    pub fn refused(self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.stderr.contains("turf: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word} is missing: {self:?}");
        }
    }
}

impl Drop for Scratch {
    /// A test that fails half-way leaves no container behind.
    fn drop(&mut self) {
        for id in fs::read_dir(self.root().join("containers")).into_iter().flatten().flatten() {
            let id = id.file_name().to_string_lossy().into_owned();
            drop(self.command(&["delete", "--force", &id]).stderr(Stdio::null()).status());
        }
    }
}

impl Scratch {
    /// A scratch directory for the test of this name, or nothing, with the reason, without root.
    pub fn new(name: &str) -> Option<Scratch> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: containers need root");
            return None;
        }
        let name = format!("turf-cli-{name}-{}", std::process::id());
        Some(Scratch { directory: tempfile::tempdir().unwrap(), name })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// A container id that no other test uses.
    pub fn id(&self) -> &str {
        &self.name
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turf"));
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Calls `turf` and waits for it.
    pub fn turf(&self, arguments: &[&str]) -> Ended {
        self.end(self.command(arguments))
    }

    pub fn end(&self, mut command: Command) -> Ended {
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let status = command.status().unwrap();
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Ended { code: status.code(), stdout: read(&out), stderr: read(&err) }
    }

    /// A bundle that runs `script` in a busybox shell, with `change` applied to its config.json; or
    /// nothing, with the reason, without busybox.
    pub fn bundle(&self, name: &str, script: &str, change: impl FnOnce(&mut Value)) -> Option<PathBuf> {
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        let Some(busybox) = busybox else {
            println!("skipped: busybox is not installed");
            return None;
        };
        let bundle = self.path(name);
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "cat"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("/{}-{name}", self.name),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            },
        });
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        Some(bundle)
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.turf(&["state", id]).ok().stdout).unwrap()
    }

    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// Waits until init of the container has exited.
    pub fn wait_stopped(&self, id: &str) {
        let pid = self.state(id)["pid"].as_i64().unwrap();
        if pid == 0 {
            return;
        }
        if let Ok(pidfd) = turf_core::sys::pidfd::pidfd_open(i32::try_from(pid).unwrap()) {
            let mut fds =
                [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut fds, 20_000u16).unwrap(), 1, "init of {id} does not exit");
        }
    }

    /// No container directory, no control group and no process of this test is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let containers = self.root().join("containers");
        let left: Vec<_> =
            fs::read_dir(containers).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let groups = self.groups();
        assert!(groups.is_empty(), "{groups:?}");
        // Whoever was forked by a `turf` of this test has this test's directory in its command line.
        let needle = self.directory.path().to_str().unwrap();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            assert!(!line.contains(needle), "{:?} is left: {line}", process.file_name());
        }
    }

    /// The control groups of this test's containers.
    fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let layout = turf_core::cgroup::layout::Layout::read().unwrap();
        for hierarchy in layout.v1.iter().chain(&layout.v2) {
            let entries = fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten();
            let ours = entries.filter(|entry| entry.file_name().to_string_lossy().contains(&self.name));
            found.extend(ours.map(|entry| entry.path()));
        }
        found
    }
}
