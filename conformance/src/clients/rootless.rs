//! podman of a user who is not root: its own user namespace with the ids of /etc/subuid, the vfs storage driver, no control
//! groups. The runtime is called as root of that namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::image::{ANSWER, BUSYBOX, WORKER};
use super::podman::configuration;
use super::tool::Tool;
use super::{World, need, tests};
use crate::tests::rootless::{Account, FIRST_SUBORDINATE, UID, give};
use crate::{http, wait};

tests! { Rootless, "rootless":
    run_prints_and_exits_as_its_program_does,
    the_container_has_the_users_ids,
    a_detached_container_is_entered_stopped_and_removed,
    a_worker_image_answers,
}

/// podman as a user calls it.
pub struct Rootless {
    podman: Tool,
    directory: PathBuf,
    /// The user exists for as long as this does.
    _account: Account,
}

impl Rootless {
    /// Makes the user, writes the configuration and loads the images.
    pub fn start(world: &World) -> Result<Rootless> {
        need(&["podman"], "podman")?;
        need(&["conmon"], "conmon")?;
        need(&["newuidmap", "newgidmap"], "uidmap")?;
        let account = Account::new(&world.directory)?;
        let directory = world.directory.join("user");
        for name in ["", "bin", "tmp", "turf"] {
            fs::create_dir(directory.join(name)).with_context(|| format!("make {name} of the user"))?;
        }
        // The user may not be able to reach where the programs were built.
        for program in ["turf", "turf-seed"] {
            let from = match program {
                "turf" => world.runtime.clone(),
                other => world.runtime.with_file_name(other),
            };
            fs::copy(&from, directory.join("bin").join(program))
                .with_context(|| format!("copy {}", from.display()))?;
        }
        let path = |name: &str| directory.join(name);
        let wrapper = format!(
            "#!/bin/sh\nexec {}/turf --root {} \"$@\"\n",
            path("bin").display(),
            path("turf").display()
        );
        fs::write(path("bin/runtime"), wrapper)?;
        fs::set_permissions(path("bin/runtime"), fs::Permissions::from_mode(0o755))?;
        fs::write(
            path("containers.conf"),
            configuration(&path("bin/runtime").display().to_string(), &directory),
        )?;
        fs::write(path("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        give(&directory)?;
        let user = UID.to_string();
        let mut leading: Vec<String> =
            ["--reuid", &user, "--regid", &user, "--clear-groups", "--", "podman", "--storage-driver", "vfs"]
                .map(str::to_owned)
                .to_vec();
        for option in ["root", "runroot", "tmpdir"] {
            leading.extend([format!("--{option}"), path(&format!("podman-{option}")).display().to_string()]);
        }
        let environment = vec![
            ("CONTAINERS_CONF", path("containers.conf")),
            ("HOME", directory.clone()),
            ("TMPDIR", path("tmp")),
            ("XDG_RUNTIME_DIR", path("tmp")),
        ];
        let podman = Tool::new("setpriv", leading, environment, world.directory.join("output"));
        let mut client = Rootless { podman, directory, _account: account };
        for archive in ["busybox.tar", "worker.tar"] {
            let policy = client.directory.join("policy.json").display().to_string();
            let archive = world.directory.join(archive).display().to_string();
            client.podman.ok(&["load", "--signature-policy", &policy, "-i", &archive])?;
        }
        Ok(client)
    }

    /// Removes every container, and ends the seed and the process that holds the user's namespaces.
    pub fn finish(&mut self) -> Result<()> {
        self.podman.ok(&["rm", "--all", "--force", "--time", "0"])?;
        let (turf, root) = (self.directory.join("bin/turf"), self.directory.join("turf"));
        if root.join("seeds/default").exists() {
            let (turf, root) = (turf.display().to_string(), root.display().to_string());
            self.podman.ok(&["unshare", &turf, "--root", &root, "seed", "stop", "default"])?;
        }
        self.podman.ok(&["system", "migrate"]).map(drop)
    }
}

/// The options of a short container: gone after its end, without a network.
const BRIEF: [&str; 4] = ["run", "--rm", "--network", "none"];

fn run_prints_and_exits_as_its_program_does(client: &mut Rootless) -> Result<()> {
    let script = "echo hello; echo no >&2; exit 7";
    let run = client.podman.call(&[&BRIEF[..], &[BUSYBOX, "sh", "-c", script]].concat())?.exited(7)?;
    ensure!(run.stdout == "hello\n" && run.stderr == "no\n", "{run}");
    let missing = client.podman.call(&[&BRIEF[..], &[BUSYBOX, "no-such-program"]].concat())?;
    missing.exited(127).map(drop)
}

fn the_container_has_the_users_ids(client: &mut Rootless) -> Result<()> {
    let script = "id -u; cat /proc/self/uid_map; echo > /dev/null && echo written";
    let run = client.podman.call(&[&BRIEF[..], &[BUSYBOX, "sh", "-c", script]].concat())?.success()?;
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    let (user, first) = (UID.to_string(), FIRST_SUBORDINATE.to_string());
    ensure!(
        words.starts_with(&["0", "0", &user, "1", "1", &first]) && words.ends_with(&["written"]),
        "{run}"
    );
    Ok(())
}

fn a_detached_container_is_entered_stopped_and_removed(client: &mut Rootless) -> Result<()> {
    let sleeper = ["run", "--detach", "--name", "s", "--network", "none", BUSYBOX, "sleep", "1000"];
    client.podman.ok(&sleeper)?;
    ensure!(client.podman.ok(&["exec", "s", "echo", "inside"])? == "inside");
    ensure!(client.podman.ok(&["ps", "--format", "{{.Names}}"])? == "s");
    client.podman.ok(&["stop", "--time", "0", "s"])?;
    ensure!(client.podman.ok(&["inspect", "--format", "{{.State.ExitCode}}", "s"])? == "137");
    client.podman.ok(&["rm", "s"]).map(drop)
}

fn a_worker_image_answers(client: &mut Rootless) -> Result<()> {
    let address = http::free_address()?;
    let port = format!("PORT={}", address.port());
    client.podman.ok(&["run", "--detach", "--name", "w", "--network", "host", "--env", &port, WORKER])?;
    let response = http::get(address, "/")?;
    ensure!(response.status == 200 && response.text()? == ANSWER, "{response:?}");
    client.podman.ok(&["stop", "w"])?;
    ensure!(client.podman.ok(&["inspect", "--format", "{{.State.ExitCode}}", "w"])? == "0");
    ensure!(client.podman.call(&["rm", "w"])?.elapsed < wait::STEP);
    Ok(())
}
