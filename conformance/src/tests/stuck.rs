//! Hooks that hang without a timeout: who ends the container ends them, at once, and nothing is left.

use std::fs::File;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::runtime::Running;
use crate::suite::tests;
use crate::wait;

tests! { "stuck";
    Turf:
        a_hook_that_hangs_does_not_keep_a_forced_delete,
        a_hook_whose_verb_was_killed_is_ended_by_delete,
        kill_ends_a_start_whose_hook_hangs,
        a_hook_that_clears_up_is_given_its_time;
}

/// Far above what ending a hook takes, far below the time for which a lock is waited for.
const SOON: Duration = Duration::from_secs(15);

/// A bundle whose hook of this kind says that it runs, and then runs this command.
fn with_hook(case: &mut Case, kind: &str, then: &str) -> Result<(Bundle, File)> {
    let mut bundle = case.shell("exec sleep 1000")?;
    let begun = bundle.inside("/begun");
    let fifo = case.fifo(&begun)?;
    let path = if kind == "startContainer" { "/begun" } else { text(&begun)? };
    let script = format!("echo begun > {path}; {then}");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    bundle.set("/hooks", json!({kind: [hook]}));
    Ok((bundle, fifo))
}

/// Begins the verb that waits for the hook for ever.
fn hanging(case: &mut Case, kind: &str, id: &str) -> Result<Running> {
    let (bundle, mut begun) = with_hook(case, kind, "sleep 1000; exit 0")?;
    bundle.write()?;
    let create = ["create", "--bundle", text(&bundle.path)?, id];
    let running = if kind.starts_with("start") || kind == "poststart" {
        case.runtime.ok(&create)?;
        case.runtime.spawn(&["start", id], None)?
    } else {
        case.runtime.spawn(&create, None)?
    };
    ensure!(wait::line(&mut begun, wait::STEP)? == "begun", "the hook of {kind} says something else");
    Ok(running)
}

fn a_hook_that_hangs_does_not_keep_a_forced_delete(case: &mut Case) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let id = case.id(&format!("hang-{kind}"));
        let verb = hanging(case, kind, &id)?;
        let deleted = case.runtime.ok(&["delete", "--force", &id])?;
        ensure!(deleted.elapsed < SOON, "{kind}: it took {:?}", deleted.elapsed);
        verb.finish()?.failure(&[])?;
        case.nothing_is_left_of(&id)?;
    }
    Ok(())
}

fn a_hook_whose_verb_was_killed_is_ended_by_delete(case: &mut Case) -> Result<()> {
    for (kind, force) in [("createRuntime", false), ("poststart", true)] {
        let id = case.id(&format!("orphan-{kind}"));
        let verb = hanging(case, kind, &id)?;
        kill(Pid::from_raw(verb.pid()), Signal::SIGKILL)?;
        verb.finish()?;
        if !force {
            case.becomes(&id, &["stopped"])?;
        }
        let delete: &[&str] = if force { &["delete", "--force", &id] } else { &["delete", &id] };
        let deleted = case.runtime.ok(delete)?;
        ensure!(deleted.elapsed < SOON, "{kind}: it took {:?}", deleted.elapsed);
        case.nothing_is_left_of(&id)?;
    }
    Ok(())
}

fn kill_ends_a_start_whose_hook_hangs(case: &mut Case) -> Result<()> {
    for kind in ["startContainer", "poststart"] {
        let id = case.id(&format!("kill-{kind}"));
        let start = hanging(case, kind, &id)?;
        case.runtime.ok(&["kill", &id, "KILL"])?;
        let ended = start.finish()?.failure(&["hook"])?;
        ensure!(ended.elapsed < SOON, "{kind}: it took {:?}", ended.elapsed);
        ensure!(case.runtime.status(&id)? == "stopped", "{kind}: it is not stopped");
        case.runtime.ok(&["delete", &id])?;
        case.nothing_is_left_of(&id)?;
    }
    Ok(())
}

fn a_hook_that_clears_up_is_given_its_time(case: &mut Case) -> Result<()> {
    let cleared = case.directory().join("cleared");
    let then = format!("sleep 2; echo > {}", text(&cleared)?);
    let (mut bundle, mut begun) = with_hook(case, "poststop", &then)?;
    bundle.set("/hooks/createRuntime", json!([{"path": "/bin/false"}]));
    bundle.write()?;
    let id = case.id("clears");
    let create = case.runtime.spawn(&["create", "--bundle", text(&bundle.path)?, &id], None)?;
    wait::line(&mut begun, wait::STEP)?;
    case.runtime.ok(&["delete", "--force", &id])?;
    create.finish()?.failure(&["/bin/false"])?;
    ensure!(cleared.exists(), "the hook was ended before it was done");
    case.nothing_is_left_of(&id)
}
