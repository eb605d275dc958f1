//! A run of the tests that is interrupted leaves nothing of what they had begun.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on the busiest machine, in milliseconds.
const LONG: u16 = 60_000;

/// A runtime that leaves a process behind, in a session of its own and in a control group, and never answers.
const RUNTIME: &str = "#!/bin/sh
state=$2
for id; do :; done
mkdir -p $state/containers/$id
if [ -d /sys/fs/cgroup/freezer ]; then mkdir /sys/fs/cgroup/freezer/$id; fi
setsid sh -c \"if [ -d /sys/fs/cgroup/freezer ]; then echo 0 > /sys/fs/cgroup/freezer/$id/tasks; fi
  echo \\$\\$ $id > $(dirname $0)/begun; exec sleep 1000\" &
sleep 1000
";

#[test]
fn a_run_that_is_interrupted_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        println!("ignored: conformance needs root");
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = scratch.path().join("runtime");
        fs::write(&runtime, RUNTIME).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
        let begun = scratch.path().join("begun");
        nix::unistd::mkfifo(&begun, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Open for both, so that nobody blocks in open(2).
        let mut said = fs::OpenOptions::new().read(true).write(true).open(&begun).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
        command.args(["run", "--only", "lifecycle::create_leaves_a_created", "--runtime"]).arg(&runtime);
        let mut run = command.env("TMPDIR", scratch.path()).stdout(Stdio::null()).spawn().unwrap();
        let line = line(&mut said);
        let (left, id) = line.split_once(' ').unwrap();
        let left = rustix::process::Pid::from_raw(left.parse().unwrap()).unwrap();
        let left = rustix::process::pidfd_open(left, rustix::process::PidfdFlags::empty()).unwrap();
        let attendant = i32::try_from(run.id()).unwrap();
        let told = match signal {
            // The run itself is killed, as by a lack of memory.
            Signal::SIGKILL => id.trim_start_matches("cft").split('x').next().unwrap().parse().unwrap(),
            _ => attendant,
        };
        kill(Pid::from_raw(told), signal).unwrap();
        assert!(!run.wait().unwrap().success());
        let ended = poll(&mut [PollFd::new(left.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap();
        assert_eq!(ended, 1, "{signal}: the process that was left behind still runs");
        let group = std::path::Path::new("/sys/fs/cgroup/freezer").join(id);
        assert!(!group.exists(), "{signal}: the control group is still there");
        let names = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let tagged: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("cft")).collect();
        assert!(tagged.is_empty(), "{signal}: {tagged:?}");
    }
}

/// The next line of a pipe.
fn line(pipe: &mut fs::File) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let ready =
            poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LONG)).unwrap();
        assert_eq!(ready, 1, "nobody has said anything");
        let mut byte = [0];
        pipe.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim().to_owned()
}
