//! The tests can fail: runtimes that do nothing, and say anything, do not pass them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Areas whose tests need no second process to wait for, so that failing takes no time.
const AREAS: [&str; 4] = ["process::", "isolation::", "hooks::", "refuse"];

/// The only claim that a runtime keeps by doing nothing at all.
const VACUOUS: &str = "delete_force_of_an_unknown_container_succeeds";

/// The names of the tests that a runtime passes.
fn passed(runtime: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.args(["run", "--exec-only", "--runtime"]).arg(runtime);
    command.args(AREAS.iter().flat_map(|area| ["--only", area]));
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("test result: FAILED."), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{printed}");
    let ok = printed.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    ok.map(str::to_owned).collect()
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("ignored: conformance needs root");
    }
    root
}

#[test]
fn a_runtime_that_always_succeeds_passes_nothing() {
    if is_root() {
        let passed = passed(Path::new("/bin/true"));
        assert!(passed.iter().all(|name| name.ends_with(VACUOUS)), "{passed:?}");
    }
}

#[test]
fn a_runtime_that_always_fails_with_a_plausible_message_passes_nothing() {
    if is_root() {
        let program = std::env::temp_dir().join(format!("conformance-refuser-{}", std::process::id()));
        let message =
            "config.json hook exist nothing-of-that-name no such file or directory does not exist running";
        fs::write(&program, format!("#!/bin/sh\necho '{message}' >&2\nexit 1\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let passed = passed(&program);
        fs::remove_file(&program).unwrap();
        assert!(passed.is_empty(), "{passed:?}");
    }
}
