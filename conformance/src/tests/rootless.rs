//! A user who is not root: one id of one's own, or those of /etc/subuid; what works, and the words for what does not.
//!
//! The user exists only in this program's mount namespace: /etc/passwd, /etc/subuid and /etc/subgid are covered by
//! copies with one more line while a test runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use super::worker::HELLO;
use crate::bundle::{Bundle, make_root};
use crate::case::{Case, text};
use crate::runtime::{Finished, begin};
use crate::suite::{skip, tests};
use crate::{host, http, wait};

tests! { "rootless";
    Exec:
        a_user_with_one_id_runs_a_program,
        a_users_container_is_created_looked_into_killed_and_deleted;
    Turf:
        a_users_state_is_in_the_runtime_directory,
        a_user_with_many_ids_maps_them,
        ids_of_others_are_refused,
        what_a_user_cannot_have_is_refused_with_a_sentence,
        a_users_worker_answers,
        a_users_containers_are_nobody_elses,
        a_user_has_the_limits_of_the_controllers_that_are_delegated;
}

/// The user.
pub const UID: u32 = 54_321;
/// The first of its subordinate ids.
pub const FIRST_SUBORDINATE: u32 = 300_000;
const SUBORDINATES: u32 = 1000;

/// Runs the runtime as the user, without any capability to be had.
const AS_USER: [&str; 7] = [
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--",
];

/// The same, but programs with the set-user-id bit work.
const AS_USER_WITH_HELPERS: [&str; 5] = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"];

/// Covers of files in /etc, taken away at the end.
pub struct Account(Vec<&'static str>);

impl Account {
    /// Makes the user for the time of a test; the copies are in this directory.
    pub fn new(directory: &Path) -> Result<Account> {
        let subordinates = format!("conformance:{FIRST_SUBORDINATE}:{SUBORDINATES}");
        let mut account = Account(Vec::new());
        for (path, line) in [
            ("/etc/passwd", format!("conformance:x:{UID}:{UID}::/nonexistent:/bin/false")),
            ("/etc/subuid", subordinates.clone()),
            ("/etc/subgid", subordinates),
        ] {
            if !Path::new(path).exists() {
                return Err(skip(format!("{path} does not exist")));
            }
            let cover = directory.join(path.trim_start_matches("/etc/"));
            fs::write(&cover, format!("{}{line}\n", fs::read_to_string(path)?))?;
            mount(Some(&cover), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(path)?;
            account.0.push(path);
        }
        Ok(account)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = umount(*path) {
                eprintln!("conformance: uncover {path}: {error}");
            }
        }
    }
}

/// Gives a tree to the user.
pub fn give(path: &Path) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(UID), Some(UID))
        .with_context(|| format!("give {}", path.display()))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

impl Case {
    /// From here on it is the user who calls, also at the clean-up.
    fn become_user(&mut self, wrapper: &[&str]) -> Result<()> {
        chown(self.directory(), Some(UID), Some(UID))?;
        self.runtime.run_through(wrapper);
        Ok(())
    }

    /// What `spec --rootless` writes, with a script as its program.
    fn rootless(&mut self, script: &str) -> Result<Bundle> {
        let path = self.bundle_path();
        make_root(&path.join("rootfs"))?;
        give(&path)?;
        self.runtime.ok(&["spec", "--rootless", "--bundle", text(&path)?])?;
        let config: Value = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
        let mut bundle = Bundle { path, config };
        bundle.set("/process/terminal", json!(false)).set("/process/args", json!(["/bin/sh", "-c", script]));
        bundle.set("/process/env", json!(["PATH=/bin"])).set("/root/readonly", json!(false));
        bundle.write()?;
        Ok(bundle)
    }
}

fn a_user_with_one_id_runs_a_program(case: &mut Case) -> Result<()> {
    case.become_user(&AS_USER)?;
    let bundle =
        case.rootless("id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; touch /made; exit 7")?;
    let run = case.run(&bundle)?.exited(7)?;
    let lines = run.lines();
    ensure!(lines[0] == "0" && lines[2] == "deny", "{run}");
    ensure!(lines[1].split_whitespace().eq(["0", "54321", "1"]), "{run}");
    let made = fs::metadata(bundle.inside("/made"))?;
    ensure!((made.uid(), made.gid()) == (UID, UID), "the file is somebody else's");
    Ok(())
}

fn a_users_container_is_created_looked_into_killed_and_deleted(case: &mut Case) -> Result<()> {
    case.become_user(&AS_USER)?;
    let bundle = case.rootless("exec sleep 1000")?;
    let container = case.start(&bundle)?;
    ensure!(case.runtime.status(&container.id)? == "running");
    let seen = host::field(container.pid, "status", "Uid")?;
    ensure!(seen.split_whitespace().all(|uid| uid == "54321"), "init runs as {seen}");
    let exec = ["exec", &container.id, "/bin/sh", "-c", "id -u; ls /proc/1/comm; exit 9"];
    let finished = case.runtime.call(&exec)?.exited(9)?;
    ensure!(finished.lines() == ["0", "/proc/1/comm"], "{finished}");
    case.runtime.refused(&["delete", &container.id], &[])?;
    case.remove(&container)
}

fn a_users_state_is_in_the_runtime_directory(case: &mut Case) -> Result<()> {
    case.become_user(&AS_USER)?;
    let bundle = case.rootless("exec sleep 1000")?;
    let (directory, id) = (case.directory().join("xdg"), case.id("xdg"));
    fs::create_dir(&directory)?;
    give(&directory)?;
    let program = case.runtime.program().to_owned();
    let output = case.directory().join("own");
    let turf = |variable: Option<&Path>, arguments: &[&str]| -> Result<Finished> {
        let mut command = Command::new(AS_USER[0]);
        command.args(&AS_USER[1..]).arg(&program).args(arguments).env_remove("XDG_RUNTIME_DIR");
        command.envs(variable.map(|path| ("XDG_RUNTIME_DIR", path)));
        begin(command, arguments.join(" "), &output, None, None)?.finish()
    };
    turf(Some(&directory), &["create", "--bundle", text(&bundle.path)?, &id])?.success()?;
    let state = directory.join("turf");
    ensure!(state.join("containers").join(&id).join("state.json").exists(), "the state is elsewhere");
    let found = fs::metadata(&state)?;
    ensure!(found.uid() == UID && found.mode() & 0o777 == 0o700, "{found:?}");
    turf(Some(&directory), &["delete", "--force", &id])?.success()?;
    ensure!(wait::no_children(wait::STEP), "init lives on");
    // Without the variable, and without a session's directory, the place has to be given.
    turf(None, &["list"])?.exited(1)?.failure(&["--root"]).map(drop)
}

/// A group of the version 1 controller `pids` that belongs to the user, removed at the end.
struct Delegated(PathBuf);

impl Delegated {
    fn new(name: &str) -> Result<Delegated> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let Some(own) =
            own.lines().find_map(|line| line.split_once(":pids:/").map(|(_, own)| own.to_owned()))
        else {
            return Err(skip("there is no version 1 hierarchy of pids"));
        };
        let group = Delegated(Path::new("/sys/fs/cgroup/pids").join(own).join(name));
        fs::create_dir(&group.0).with_context(|| format!("make {}", group.0.display()))?;
        for path in [group.0.clone(), group.0.join("tasks"), group.0.join("cgroup.procs")] {
            chown(&path, Some(UID), Some(UID))?;
        }
        Ok(group)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("conformance: remove {}: {error}", self.0.display());
        }
    }
}

fn a_user_has_the_limits_of_the_controllers_that_are_delegated(case: &mut Case) -> Result<()> {
    let group = Delegated::new(&case.id("delegated"))?;
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.0.display());
    let wrapper = [&["/bin/sh", "-c", &enter][..], &AS_USER[..]].concat();
    case.become_user(&wrapper)?;
    let mut bundle = case.rootless("exec sleep 1000")?;
    bundle.set("/linux/resources", json!({"pids": {"limit": 17}}));
    let container = case.start(&bundle)?;
    let file = host::cgroup_file(container.pid, "pids", "pids.max", "pids.max")?;
    ensure!(file.starts_with(&group.0), "it is in {}", file.display());
    ensure!(fs::read_to_string(&file)?.trim() == "17", "the limit is not in force");
    // The freezer is not the user's.
    case.runtime.refused(&["pause", &container.id], &[])?;
    case.remove(&container)?;
    bundle.set("/linux/resources", json!({"pids": {"limit": 17}, "memory": {"limit": 1 << 26}}));
    bundle.write()?;
    let id = case.id("more");
    let create = ["create", "--bundle", text(&bundle.path)?, &id];
    case.runtime.refused(&create, &["memory.limit_in_bytes", "may not be written by this user"]).map(drop)
}

/// Changes the bundle to map root to the user and 1 to 1000 to the subordinate ids.
fn map_many(bundle: &mut Bundle, first: u32) -> Result<()> {
    let map = json!([
        {"containerID": 0, "hostID": UID, "size": 1},
        {"containerID": 1, "hostID": first, "size": SUBORDINATES},
    ]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.write()
}

fn a_user_with_many_ids_maps_them(case: &mut Case) -> Result<()> {
    let _account = Account::new(case.directory())?;
    case.become_user(&AS_USER_WITH_HELPERS)?;
    let mut bundle = case.rootless("id -u; id -g; id -G; cat /proc/self/setgroups; touch /tmp/made")?;
    bundle.set("/process/user", json!({"uid": 33, "gid": 34, "additionalGids": [35]}));
    map_many(&mut bundle, FIRST_SUBORDINATE)?;
    let run = case.run(&bundle)?.success()?;
    ensure!(run.lines() == ["33", "34", "34 35", "allow"], "{run}");
    let made = fs::metadata(bundle.inside("/tmp/made"))?;
    ensure!((made.uid(), made.gid()) == (FIRST_SUBORDINATE + 32, FIRST_SUBORDINATE + 33), "{made:?}");
    Ok(())
}

fn ids_of_others_are_refused(case: &mut Case) -> Result<()> {
    let _account = Account::new(case.directory())?;
    case.become_user(&AS_USER_WITH_HELPERS)?;
    let mut bundle = case.rootless("exit 0")?;
    map_many(&mut bundle, FIRST_SUBORDINATE + 1)?;
    let id = case.id("others");
    let create = ["create", "--bundle", text(&bundle.path)?, &id];
    case.runtime.refused(&create, &["$.linux.uidMappings", "refused by newuidmap"])?;
    case.runtime.refused(&["state", &id], &["does not exist"]).map(drop)
}

fn what_a_user_cannot_have_is_refused_with_a_sentence(case: &mut Case) -> Result<()> {
    case.become_user(&AS_USER)?;
    let plain = case.rootless("exit 0")?;
    let mut refused = |change: &dyn Fn(&mut Bundle), words: &[&str]| -> Result<()> {
        let mut bundle = Bundle { path: plain.path.clone(), config: plain.config.clone() };
        change(&mut bundle);
        bundle.write()?;
        let id = case.id("refused");
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], words)?;
        case.runtime.refused(&["state", &id], &["does not exist"])?;
        case.forget(&id);
        Ok(())
    };
    let limits = |bundle: &mut Bundle| {
        bundle.set("/linux/resources", json!({"pids": {"limit": 5}}));
    };
    refused(&limits, &["$.linux.resources", "asks for a limit", "may not be written"])?;
    let without_user = |bundle: &mut Bundle| {
        bundle.without_namespace("user");
        if let Some(linux) = bundle.config["linux"].as_object_mut() {
            linux.retain(|key, _| !key.ends_with("Mappings"));
        }
    };
    refused(&without_user, &["$.linux.namespaces", "\"user\"", "not root"])?;
    let user = |bundle: &mut Bundle| {
        bundle.set("/process/user/uid", json!(1000));
    };
    refused(&user, &["$.process.user.uid", "1000 is not mapped"])?;
    let groups = |bundle: &mut Bundle| {
        bundle.set("/process/user/additionalGids", json!([0]));
    };
    refused(&groups, &["additionalGids", "must be empty"])?;
    let sysfs = |bundle: &mut Bundle| {
        bundle.push("/mounts", json!({"destination": "/mnt", "type": "sysfs", "source": "sysfs"}));
    };
    refused(&sysfs, &["sysfs on /mnt", "network namespace"])?;
    let many = |bundle: &mut Bundle| {
        bundle.set("/linux/uidMappings/0/size", json!(2));
    };
    refused(&many, &["$.linux.uidMappings", "newuidmap"])?;
    let other = |bundle: &mut Bundle| {
        bundle.set("/linux/gidMappings/0/hostID", json!(0));
    };
    refused(&other, &["$.linux.gidMappings", "newgidmap"])
}

fn a_users_worker_answers(case: &mut Case) -> Result<()> {
    case.become_user(&AS_USER)?;
    let path: PathBuf = case.bundle_path();
    fs::create_dir_all(&path)?;
    give(&path)?;
    case.runtime.ok(&["spec", "--worker", "--rootless", "--bundle", text(&path)?])?;
    fs::write(path.join("worker.js"), HELLO)?;
    let config: Value = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
    let (container, address) = case.serve(&Bundle { path, config })?;
    ensure!(http::get(address, "/")?.status == 200);
    let seed = super::seed_pid(case, "default")?;
    let seen = host::field(seed, "status", "Uid")?;
    ensure!(seen.split_whitespace().all(|uid| uid == "54321"), "the seed runs as {seen}");
    let owner = fs::metadata(case.runtime.root().join("seeds/default"))?.uid();
    ensure!(owner == UID, "the seed's directory is that of {owner}");
    case.runtime.refused(&["exec", &container.id, "/bin/true"], &["no such file"])?;
    let printed = case.runtime.ok(&["ps", "--format", "json", &container.id])?;
    ensure!(printed.stdout.contains(&container.pid.to_string()), "{printed}");
    case.runtime.ok(&["kill", &container.id, "TERM"])?;
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn a_users_containers_are_nobody_elses(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exec sleep 1000")?;
    let container = case.create(&bundle)?;
    // Root's container, asked for by the user.
    case.runtime.run_through(&AS_USER);
    for verb in [&["state"][..], &["start"], &["kill"], &["delete", "--force"], &["ps"]] {
        let call = case.runtime.call(&[verb, &[container.id.as_str()]].concat())?;
        if call.status.success() {
            bail!("it was done: {call}");
        }
        call.failure(&["permission denied"])?;
    }
    case.runtime.run_through(&[]);
    case.remove(&container)
}
