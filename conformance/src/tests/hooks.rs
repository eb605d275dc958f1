//! Hooks: when they run, what they are told, and what their failure does (config.md, "POSIX-platform Hooks").

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;

tests! { "hooks";
    Exec:
        hooks_run_in_the_order_of_the_specification,
        hooks_get_the_state_on_stdin,
        hooks_get_their_arguments_and_environment,
        a_failing_create_hook_fails_create_and_leaves_nothing,
        a_hook_that_takes_too_long_is_ended,
        container_hooks_run_in_the_containers_namespaces,
        start_hooks_without_an_environment_have_the_programs,
        start_hooks_have_the_programs_rights_and_filter,
        hooks_without_an_environment_have_the_runtimes,
        container_hooks_begin_in_the_containers_root;
    Turf:
        poststart_hooks_see_a_started_program,
        hooks_begin_in_the_bundle,
}

/// A host program that appends its name, its arguments and its input to `log`.
fn hook_program(case: &Case, log: &Path) -> Result<PathBuf> {
    let path = case.directory().join("hook");
    let log = text(log)?;
    fs::write(&path, format!("#!/bin/sh\necho \"$1 $(cat | tr -d '\\n')\" >> {log}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn add(bundle: &mut Bundle, kind: &str, hook: Value) {
    if bundle.config["hooks"].is_null() {
        bundle.set("/hooks", json!({}));
    }
    bundle.push(&format!("/hooks/{kind}"), hook);
}

/// Hooks that run on the host, in the order in which they must run.
const HOST_KINDS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// One life of a container with every kind of hook; the lines that they wrote.
fn life_with_hooks(case: &mut Case) -> Result<(String, Vec<String>)> {
    let log = case.directory().join("log");
    let program = hook_program(case, &log)?;
    let mut bundle = case.shell(&format!("echo 'program {{}}' >> {}", "/log"))?;
    for kind in HOST_KINDS {
        add(
            &mut bundle,
            kind,
            json!({"path": program, "args": ["hook", kind], "env": ["PATH=/usr/bin:/bin"]}),
        );
    }
    fs::write(&log, "")?;
    fs::write(bundle.inside("/log"), "")?;
    bundle
        .push("/mounts", json!({"destination": "/log", "type": "bind", "source": log, "options": ["bind"]}));
    let inner = "echo startContainer $(cat) >> /log";
    add(
        &mut bundle,
        "startContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", inner], "env": ["PATH=/bin"]}),
    );
    let container = case.start(&bundle)?;
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id])?;
    let lines = fs::read_to_string(&log)?.lines().map(str::to_owned).collect();
    Ok((container.id, lines))
}

fn hooks_run_in_the_order_of_the_specification(case: &mut Case) -> Result<()> {
    let (_, lines) = life_with_hooks(case)?;
    let mut names: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
    // runc and crun let poststart hooks run beside what happens inside.
    names.retain(|name| *name != "poststart");
    let expected = ["prestart", "createRuntime", "createContainer", "startContainer", "program", "poststop"];
    ensure!(names == expected, "{names:?}");
    Ok(())
}

fn poststart_hooks_see_a_started_program(case: &mut Case) -> Result<()> {
    let (_, lines) = life_with_hooks(case)?;
    let place =
        |kind: &str| lines.iter().position(|line| line.starts_with(kind)).context("a hook did not run");
    ensure!(place("startContainer")? < place("poststart")?, "{lines:?}");
    let poststart = &lines[place("poststart")?];
    ensure!(poststart.contains("\"running\"") || poststart.contains("\"stopped\""), "{poststart}");
    Ok(())
}

fn hooks_get_the_state_on_stdin(case: &mut Case) -> Result<()> {
    let (id, lines) = life_with_hooks(case)?;
    for kind in HOST_KINDS {
        let line =
            lines.iter().find_map(|line| line.strip_prefix(kind)).with_context(|| format!("no {kind}"))?;
        let state: Value = serde_json::from_str(line).with_context(|| format!("{kind} got {line}"))?;
        ensure!(state["id"] == json!(id) && state["bundle"].is_string(), "{kind} got {state}");
        ensure!(state["ociVersion"].is_string(), "{kind} got {state}");
        let allowed: &[&str] = match kind {
            "poststart" => &["created", "running", "stopped"],
            "poststop" => &["stopped"],
            _ => &["creating", "created"],
        };
        let status = state["status"].as_str().unwrap_or_default();
        ensure!(allowed.contains(&status), "{kind} was told {status}");
    }
    Ok(())
}

fn hooks_get_their_arguments_and_environment(case: &mut Case) -> Result<()> {
    let log = case.directory().join("log");
    let mut bundle = case.shell("exit 0")?;
    let script = format!("echo \"$0|$1|$A|$(env | wc -l)\" > {}", text(&log)?);
    let arguments = json!(["sh", "-c", script, "zero", "one two"]);
    add(
        &mut bundle,
        "createRuntime",
        json!({"path": "/bin/sh", "args": arguments, "env": ["A=b", "PATH=/usr/bin:/bin"]}),
    );
    let container = case.create(&bundle)?;
    case.runtime.ok(&["delete", "--force", &container.id])?;
    let written = fs::read_to_string(&log)?;
    ensure!(written.starts_with("zero|one two|b|"), "{written}");
    Ok(())
}

fn a_failing_create_hook_fails_create_and_leaves_nothing(case: &mut Case) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = case.shell("touch /ran")?;
        add(&mut bundle, kind, json!({"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]}));
        bundle.write()?;
        let id = case.id(kind);
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &["hook"])?;
        case.runtime.refused(&["state", &id], &[])?;
        ensure!(!bundle.inside("/ran").exists(), "the program ran");
        // The same hook is no obstacle when it succeeds.
        bundle.set(&format!("/hooks/{kind}/0/args/2"), json!("exit 0"));
        let container = case.create_as(&bundle, &id)?;
        case.runtime.ok(&["delete", "--force", &container.id])?;
    }
    let leaks = case.leaks()?;
    ensure!(leaks.is_empty(), "left behind: {leaks:?}");
    Ok(())
}

fn a_hook_that_takes_too_long_is_ended(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    add(&mut bundle, "createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}));
    bundle.write()?;
    let id = case.id("slow");
    let refused = case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[])?;
    ensure!(refused.elapsed.as_secs() < 10, "took {:?}", refused.elapsed);
    bundle.set("/hooks/createRuntime/0/args/1", json!("0"));
    case.create_as(&bundle, &id).map(drop)
}

fn container_hooks_run_in_the_containers_namespaces(case: &mut Case) -> Result<()> {
    let log = case.directory().join("log");
    let mut bundle = case.shell("cat /started")?;
    let script = format!("readlink /proc/self/ns/mnt > {}", text(&log)?);
    add(
        &mut bundle,
        "createContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    let inner = "readlink /proc/self/ns/mnt > /started";
    add(
        &mut bundle,
        "startContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", inner], "env": ["PATH=/bin"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    let outside = crate::host::namespace(std::process::id().cast_signed(), "mnt")?;
    let (create, start) = (fs::read_to_string(&log)?, finished.stdout.clone());
    ensure!(create.trim() != outside && start.trim() != outside, "hooks ran outside: {create} {start}");
    ensure!(create == start, "two different namespaces: {create} {start}");
    Ok(())
}

fn start_hooks_without_an_environment_have_the_programs(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /seen")?;
    bundle.push("/process/env", json!("ONE=two"));
    let script = "echo \"$ONE-$OWN\" >> /seen";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    add(&mut bundle, "startContainer", hook.clone());
    let mut own = hook;
    own["env"] = json!(["OWN=three", "PATH=/bin"]);
    add(&mut bundle, "startContainer", own);
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["two-", "-three"], "{finished}");
    Ok(())
}

fn start_hooks_have_the_programs_rights_and_filter(case: &mut Case) -> Result<()> {
    const RIGHTS: &str = "grep -E '^(Uid|Gid|Cap...|NoNewPrivs|Seccomp):' /proc/self/status";
    let mut bundle = case.shell(&format!("cat /seen; echo; {RIGHTS}"))?;
    bundle.set("/process/user", json!({"uid": 0, "gid": 7}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_CHOWN", "CAP_KILL"]));
    }
    let names = ["mkdir", "mkdirat"];
    let rule = json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
    let look = format!("{RIGHTS} > /seen");
    add(
        &mut bundle,
        "startContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", look], "env": ["PATH=/bin"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    let (hook, program) = finished.stdout.split_once("\n\n").context("no empty line")?;
    ensure!(hook.lines().count() >= 8 && hook.trim() == program.trim(), "{finished}");
    let make = json!({"path": "/bin/mkdir", "args": ["mkdir", "/made"], "env": ["PATH=/bin"]});
    bundle.set("/hooks/startContainer/0", make).write()?;
    let id = case.id("filtered");
    case.runtime.refused(&["run", "--bundle", text(&bundle.path)?, &id], &[])?;
    ensure!(!bundle.inside("/made").exists(), "the hook was not filtered");
    Ok(())
}

fn hooks_without_an_environment_have_the_runtimes(case: &mut Case) -> Result<()> {
    let log = case.directory().join("log");
    let mut bundle = case.shell("exit 0")?;
    let script = |name: &str| format!("tr '\\0' '\\n' < /proc/self/environ > {}.{name}", log.display());
    for kind in ["createRuntime", "poststop"] {
        add(&mut bundle, kind, json!({"path": "/bin/sh", "args": ["sh", "-c", script(kind)]}));
    }
    case.run(&bundle)?.success()?;
    let wanted = format!("PATH={}", std::env::var("PATH")?);
    for kind in ["createRuntime", "poststop"] {
        let seen = fs::read_to_string(format!("{}.{kind}", log.display()))?;
        ensure!(seen.lines().any(|line| line == wanted), "{kind} has {seen}");
    }
    Ok(())
}

/// What a hook of this kind finds in its working directory.
fn listing_of(case: &mut Case, kind: &str) -> Result<String> {
    let log = case.directory().join("log");
    let mut bundle = case.shell("exit 0")?;
    let script = format!("ls > {}", text(&log)?);
    add(
        &mut bundle,
        kind,
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    case.run(&bundle)?.success()?;
    Ok(fs::read_to_string(&log)?)
}

fn container_hooks_begin_in_the_containers_root(case: &mut Case) -> Result<()> {
    let listing = listing_of(case, "createContainer")?;
    ensure!(listing.lines().any(|name| name == "mnt"), "{listing}");
    Ok(())
}

fn hooks_begin_in_the_bundle(case: &mut Case) -> Result<()> {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let listing = listing_of(case, kind)?;
        ensure!(listing.lines().any(|name| name == "config.json"), "{kind}: {listing}");
    }
    Ok(())
}
