//! What hangs without a timeout: hooks, and the mount of a server that does not answer. Who ends the container ends them, at once, and
//! nothing is left.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::runtime::Running;
use crate::suite::tests;
use crate::{host, wait};

tests! { "stuck";
    Turf:
        a_hook_that_hangs_does_not_keep_a_forced_delete,
        a_hook_whose_verb_was_killed_is_ended_by_delete,
        kill_ends_a_start_whose_hook_hangs,
        a_hook_that_clears_up_is_given_its_time,
        a_verb_that_is_killed_while_a_mount_hangs_leaves_no_init;
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

fn a_verb_that_is_killed_while_a_mount_hangs_leaves_no_init(case: &mut Case) -> Result<()> {
    for verb in ["create", "run"] {
        let mut server = Unresponsive::mount(case.directory().join(format!("dead-{verb}")))?;
        let mut bundle = case.shell("true")?;
        let source = server.at.join("file");
        let hangs = json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind"]});
        bundle.push("/mounts", hangs).write()?;
        let id = case.id(&format!("mount-{verb}"));
        let running = case.runtime.spawn(&[verb, "--bundle", text(&bundle.path)?, &id], None)?;
        server.wait_for_a_request()?;
        let children = host::children_of(running.pid());
        let [init] = children[..] else { bail!("{verb}: its children are {children:?}") };
        kill(Pid::from_raw(running.pid()), Signal::SIGKILL)?;
        running.finish()?;
        // An orphan, and so a child of this program.
        wait::child(init, wait::STEP)?;
        case.becomes(&id, &["stopped"])?;
        case.runtime.ok(&["delete", &id])?;
        case.nothing_is_left_of(&id)?;
    }
    Ok(())
}

/// A file system whose server says hello and then nothing more (fuse(4), and the structures of `linux/fuse.h`).
struct Unresponsive {
    device: File,
    at: PathBuf,
}

/// Longest request that is read, in bytes: the kernel wants room for the longest there is.
const FUSE_REQUEST_BYTES: usize = 64 << 10;
/// `FUSE_INIT`.
const FUSE_INIT: u32 = 26;

impl Unresponsive {
    fn mount(at: PathBuf) -> Result<Unresponsive> {
        fs::create_dir(&at)?;
        let device = File::options().read(true).write(true).open("/dev/fuse").context("open /dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let kind = Some("fuse");
        mount(None::<&Path>, &at, kind, MsFlags::empty(), Some(options.as_str())).context("mount fuse")?;
        Ok(Unresponsive { device, at })
    }

    /// Says hello, and returns when somebody asks for something. That is not read: the kernel lets nobody go, not even when killed, whose
    /// request the server has taken.
    fn wait_for_a_request(&mut self) -> Result<()> {
        let mut request = vec![0; FUSE_REQUEST_BYTES];
        ensure!(wait::readable_within(&self.device, wait::STEP), "the kernel does not say hello");
        let length = self.device.read(&mut request).context("read a request")?;
        // struct fuse_in_header: length, operation, number (64 bits), ...
        let word = |index: usize| -> Result<u32> {
            let bytes = request[..length].get(4 * index..4 * index + 4).context("a request is too short")?;
            Ok(u32::from_le_bytes(bytes.try_into()?))
        };
        ensure!(word(1)? == FUSE_INIT, "the first request is {}", word(1)?);
        // struct fuse_out_header: length, error, number; struct fuse_init_out: version 7.31, then sizes, of which only that of
        // writes may not be 0.
        let mut answer = [0_u32; 20];
        (answer[0], answer[2], answer[3]) = (80, word(2)?, word(3)?);
        (answer[4], answer[5], answer[9]) = (7, 31, 4096);
        let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
        ensure!(self.device.write(&bytes).context("answer")? == bytes.len(), "the answer is cut");
        ensure!(wait::readable_within(&self.device, wait::STEP), "nobody asks for anything");
        Ok(())
    }
}

impl Drop for Unresponsive {
    fn drop(&mut self) {
        // Whoever still waits is let go when the device is closed.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}
