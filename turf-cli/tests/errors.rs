//! What `turf` says when something cannot be done: its words, its exit status and its log.

mod common;

use std::fs;
use std::process::Command;

use common::Scratch;
use serde_json::Value;

#[test]
fn an_unknown_id_is_an_error_except_for_a_forced_delete() {
    let Some(scratch) = Scratch::new("unknown") else { return };
    for verb in ["state", "start", "kill", "delete", "ps", "pause", "resume"] {
        scratch.turf(&[verb, "nobody"]).refused(&["nobody", "does not exist"]);
    }
    scratch.turf(&["delete", "--force", "nobody"]).ok();
    assert!(!scratch.root().exists(), "asking creates nothing");
}

#[test]
fn an_empty_environment_is_enough() {
    let Some(scratch) = Scratch::new("environment") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_turf"));
    command.env_clear().args(["state", "turf-no-such-container"]);
    scratch.end(command).refused(&["does not exist"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_turf"));
    command.env_clear().env("XDG_RUNTIME_DIR", "").args(["delete", "--force", "turf-no-such-container"]);
    scratch.end(command).ok();
}

#[test]
fn the_last_line_of_the_json_log_is_the_error() {
    let Some(scratch) = Scratch::new("log") else { return };
    let log = scratch.path("log.json");
    let path = log.to_str().unwrap();
    scratch.turf(&["--log", path, "--log-format", "json", "state", "nobody"]).refused(&["nobody"]);
    scratch.turf(&["--log", path, "--log-format", "json", "fly"]).refused(&["fly"]);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, word) in lines.iter().zip(["nobody", "fly"]) {
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains(word), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}

#[test]
fn bad_ids_and_signals_are_named() {
    let Some(scratch) = Scratch::new("names") else { return };
    scratch.turf(&["state", "a/b"]).refused(&["container id \"a/b\"", "letters"]);
    scratch.turf(&["create", "--bundle", "/", ".."]).refused(&["container id \"..\""]);
    scratch.turf(&["kill", "a", "NOSUCH"]).refused(&["signal \"NOSUCH\"", "SIGTERM"]);
    scratch.turf(&["start", "--listen", "8080", "a"]).refused(&["listen address \"8080\"", "tcp://"]);
}

#[test]
fn a_bad_bundle_is_refused_and_leaves_nothing() {
    let Some(scratch) = Scratch::new("bundle") else { return };
    let bundle = scratch.path("b");
    scratch
        .turf(&["create", "--bundle", bundle.to_str().unwrap(), "a"])
        .refused(&["no such file or directory"]);
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("config.json"), "{\"ociVersion\": 7}").unwrap();
    scratch
        .turf(&["create", "--bundle", bundle.to_str().unwrap(), "a"])
        .refused(&["config.json", "ociVersion"]);
    assert!(!scratch.root().exists());
}

#[test]
fn spec_writes_a_config_once() {
    let Some(scratch) = Scratch::new("spec") else { return };
    for (directory, flags) in [("program", &[][..]), ("worker", &["--worker"][..])] {
        let bundle = scratch.path(directory);
        fs::create_dir(&bundle).unwrap();
        let mut arguments = vec!["spec", "--bundle", bundle.to_str().unwrap()];
        arguments.extend(flags);
        scratch.turf(&arguments).ok();
        let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        assert!(config["process"]["args"].is_array(), "{config}");
        scratch.turf(&arguments).refused(&["config.json", "file exists"]);
    }
}

#[test]
fn version_features_and_help_succeed() {
    let Some(scratch) = Scratch::new("version") else { return };
    let version = scratch.turf(&["--version"]).ok().stdout;
    assert!(version.starts_with("turf version ") && version.contains("\nspec: "), "{version}");
    let features: Value = serde_json::from_str(&scratch.turf(&["features"]).ok().stdout).unwrap();
    assert!(features["linux"]["namespaces"].is_array());
    assert!(scratch.turf(&["--help"]).ok().stdout.contains("create"));
}

#[test]
fn list_of_nothing_is_empty() {
    let Some(scratch) = Scratch::new("list") else { return };
    assert_eq!(scratch.turf(&["list", "--format", "json"]).ok().stdout, "[]\n");
    assert_eq!(scratch.turf(&["list", "-q"]).ok().stdout, "");
    assert_eq!(scratch.turf(&["list"]).ok().stdout.lines().count(), 1);
}

/// Runs a shell script in a mount namespace of its own, where it mounts a tmpfs with `options` on the
/// state directory.
fn on_a_bad_state_directory(scratch: &Scratch, options: &str, arguments: &str) -> common::Ended {
    fs::create_dir_all(scratch.root()).unwrap();
    let root = scratch.root();
    let (root, turf) = (root.display(), env!("CARGO_BIN_EXE_turf"));
    let script = format!(
        "mount -t tmpfs -o {options} none {root} && {turf} --root {root} {arguments}; status=$?; \
        find {root} -mindepth 2 1>&2; exit $status"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    scratch.end(command)
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_clear_error_and_leaves_nothing() {
    let Some(scratch) = Scratch::new("badroot") else { return };
    let Some(bundle) = scratch.bundle("b", "exit 0", |_| {}) else { return };
    let create = format!("create --bundle {} {}", bundle.display(), scratch.id());
    // Read-only; no inode left for a container; no room for a state file.
    for (options, words) in [
        ("ro", "read-only file system"),
        ("nr_inodes=2", "no space left on device"),
        ("size=4k,nr_inodes=5", "no space left on device"),
    ] {
        let ended = on_a_bad_state_directory(&scratch, options, &create);
        assert!(!ended.stderr.contains(&format!("containers/{}\n", scratch.id())), "{ended:?}");
        ended.refused(&[words]);
    }
    scratch.assert_nothing_left();
}
