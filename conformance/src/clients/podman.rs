//! podman with conmon: its storage, state, locks and configuration are in the world's directory.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::image::{ANSWER, BUSYBOX, WORKER};
use super::tool::Tool;
use super::{World, need, remove_groups, tests};
use crate::runtime::Finished;
use crate::{http, suite, wait};

tests! { Podman, "podman":
    run_prints_and_exits_as_its_program_does,
    stdin_reaches_the_program,
    a_terminal_is_a_terminal,
    a_program_that_is_not_there_exits_127_and_a_directory_126,
    options_of_run_reach_the_program,
    a_read_only_root_has_writable_tmpfs_mounts,
    a_detached_container_is_listed_logged_stopped_and_removed,
    a_container_is_paused_and_killed,
    a_program_without_a_pid_namespace_has_its_code_collected,
    stats_are_of_the_container_alone,
    without_control_groups_a_container_runs,
    a_worker_image_answers,
    a_worker_without_a_pid_namespace_answers,
    a_worker_runs_under_mapped_ids,
    a_throw_at_load_is_exit_code_1_with_the_stack_in_the_log,
    a_missing_script_fails_with_the_path,
    a_worker_is_paused_restarted_and_killed,
    a_worker_answers_inside_its_pod,
    exec_runs_beside_a_program,
}

/// podman, as the tests call it.
pub struct Podman {
    podman: Tool,
    directory: PathBuf,
    runtime: PathBuf,
    tag: String,
    containers: u32,
}

impl Podman {
    /// Writes the configuration and loads the images.
    pub fn start(world: &World) -> Result<Podman> {
        need(&["podman"], "podman")?;
        need(&["conmon"], "conmon")?;
        let directory = world.directory.clone();
        let path = |name: &str| directory.join(name);
        // podman gives the runtime no state directory, and the world's is to be private.
        let wrapper =
            format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", world.runtime.display(), path("turf").display());
        fs::write(path("runtime"), wrapper)?;
        fs::set_permissions(path("runtime"), fs::Permissions::from_mode(0o755))?;
        fs::write(
            path("containers.conf"),
            configuration(&path("runtime").display().to_string(), &directory),
        )?;
        fs::write(path("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let mut leading = vec!["--storage-driver".to_owned(), "overlay".to_owned()];
        for option in ["root", "runroot", "tmpdir"] {
            leading.extend([format!("--{option}"), path(&format!("podman-{option}")).display().to_string()]);
        }
        let environment = vec![
            ("CONTAINERS_CONF", path("containers.conf")),
            ("HOME", path("home")),
            ("TMPDIR", path("tmp")),
            ("XDG_RUNTIME_DIR", path("tmp")),
        ];
        let podman = Tool::new("podman", leading, environment, path("output"));
        let (runtime, tag) = (world.runtime.clone(), world.tag.clone());
        let mut client = Podman { podman, directory, runtime, tag, containers: 0 };
        println!("client: {}", client.podman.ok(&["--version"])?);
        for archive in ["busybox.tar", "worker.tar"] {
            let policy = client.path("policy.json");
            let archive = client.path(archive);
            client.podman.ok(&["load", "--signature-policy", &policy, "-i", &archive])?;
        }
        Ok(client)
    }

    /// Removes every container and stops the seed.
    pub fn finish(&mut self) -> Result<()> {
        self.podman.ok(&["pod", "rm", "--all", "--force", "--time", "0"])?;
        self.podman.ok(&["rm", "--all", "--force", "--time", "0"])?;
        super::stop_seed(&self.runtime, &self.directory.join("turf"))?;
        // conmon's own group, which podman never removes.
        remove_groups(&self.tag);
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// `podman run` with options before the image.
    fn run(&mut self, options: &[&str], image: &str, command: &[&str]) -> Result<Finished> {
        let parent = format!("--cgroup-parent=/{}", self.tag);
        self.podman.call(&[&["run", &parent], options, &[image], command].concat())
    }

    /// `podman run --detach`; the container's name.
    fn detach(&mut self, options: &[&str], image: &str, command: &[&str]) -> Result<String> {
        self.containers += 1;
        let name = format!("c{}", self.containers);
        self.run(&[&["--detach", "--name", &name], options].concat(), image, command)?.success()?;
        Ok(name)
    }

    /// Kills and removes a container. podman's own clean-up, which conmon begins at the same time, may be in the way
    /// (podman 4.3 with mapped ids: "userdata/shm: device or resource busy"); after it has ended there is nothing.
    fn discard(&mut self, name: &str) -> Result<()> {
        let end = Instant::now() + wait::STEP;
        while !self.podman.call(&["rm", "--force", "--time", "0", name])?.status.success() {
            ensure!(Instant::now() < end, "podman cannot remove {name}");
        }
        Ok(())
    }

    /// A field of `podman inspect`, as a template of Go.
    fn inspect(&mut self, name: &str, field: &str) -> Result<String> {
        self.podman.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name])
    }

    /// Waits until the log holds a text: conmon writes it when it gets to it.
    fn logged(&mut self, name: &str, text: &str) -> Result<()> {
        let end = Instant::now() + wait::STEP;
        loop {
            let logs = self.podman.call(&["logs", name])?.success()?;
            if logs.stdout.contains(text) || logs.stderr.contains(text) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the log of {name} lacks {text:?}: {logs}");
        }
    }

    /// A worker on the host's network, and where it listens.
    fn serve(&mut self, options: &[&str]) -> Result<(String, std::net::SocketAddr)> {
        let address = http::free_address()?;
        let port = format!("PORT={}", address.port());
        let all = [&["--network", "host", "--env", &port], options].concat();
        Ok((self.detach(&all, WORKER, &[])?, address))
    }

    fn script(&self, source: &str) -> Result<String> {
        let path = self.path("script.js");
        fs::write(&path, source)?;
        Ok(format!("{path}:/app/worker.js:ro"))
    }
}

/// Limits are set because the defaults are more than a root without CAP_SYS_RESOURCE may ask for.
pub(super) fn configuration(runtime: &str, directory: &std::path::Path) -> String {
    format!(
        "[containers]\n\
         default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
         log_driver = \"k8s-file\"\n\
         [engine]\n\
         cgroup_manager = \"cgroupfs\"\n\
         events_logger = \"none\"\n\
         lock_type = \"file\"\n\
         runtime = \"turf\"\n\
         runtime_supports_json = [\"turf\"]\n\
         runtime_supports_nocgroup = [\"turf\"]\n\
         [engine.runtimes]\n\
         turf = [\"{runtime}\"]\n\
         [network]\n\
         network_config_dir = \"{}/network\"\n",
        directory.display()
    )
}

/// The options of a short container: gone after its end, without a network.
const BRIEF: [&str; 3] = ["--rm", "--network", "none"];

fn run_prints_and_exits_as_its_program_does(podman: &mut Podman) -> Result<()> {
    let hello = podman.run(&BRIEF, BUSYBOX, &["echo", "hello"])?.success()?;
    ensure!(hello.stdout == "hello\n" && hello.stderr.is_empty(), "{hello}");
    let seven = podman.run(&BRIEF, BUSYBOX, &["sh", "-c", "echo no >&2; exit 7"])?.exited(7)?;
    ensure!(seven.stderr == "no\n", "{seven}");
    podman.run(&BRIEF, BUSYBOX, &["sh", "-c", "kill -KILL $$; exit 1"])?.exited(1)?;
    Ok(())
}

fn stdin_reaches_the_program(podman: &mut Podman) -> Result<()> {
    let file = podman.path("stdin");
    fs::write(&file, "a line of input\n")?;
    let parent = format!("--cgroup-parent=/{}", podman.tag);
    let arguments = ["run", &parent, "--rm", "--interactive", "--network", "none", BUSYBOX, "cat"];
    let cat = podman.podman.call_with(&arguments, Some(File::open(file)?.into()))?.success()?;
    ensure!(cat.stdout == "a line of input\n", "{cat}");
    Ok(())
}

fn a_terminal_is_a_terminal(podman: &mut Podman) -> Result<()> {
    let test = "test -t 0 && test -t 1 && test -t 2 && echo a terminal";
    let options = [&BRIEF[..], &["--tty"]].concat();
    let terminal = podman.run(&options, BUSYBOX, &["sh", "-c", test])?.success()?;
    ensure!(terminal.stdout == "a terminal\r\n", "{terminal}");
    Ok(())
}

fn a_program_that_is_not_there_exits_127_and_a_directory_126(podman: &mut Podman) -> Result<()> {
    for (program, code) in [("/nowhere", 127), ("nowhere", 127), ("/etc", 126)] {
        podman.run(&BRIEF, BUSYBOX, &[program])?.exited(code)?.failure(&[program])?;
    }
    Ok(())
}

fn options_of_run_reach_the_program(podman: &mut Podman) -> Result<()> {
    let options = [
        "--user",
        "1000:1001",
        "--hostname",
        "some-host",
        "--env",
        "A=b c",
        "--workdir",
        "/tmp",
        "--memory",
        "64m",
    ];
    let script = "id -u; id -g; hostname; echo $A; pwd; echo ${PATH}";
    let told = podman.run(&[&BRIEF[..], &options].concat(), BUSYBOX, &["sh", "-c", script])?.success()?;
    ensure!(told.lines() == ["1000", "1001", "some-host", "b c", "/tmp", "/bin"], "{told}");
    podman.run(&[&BRIEF[..], &["--privileged"]].concat(), BUSYBOX, &["true"])?.success()?;
    Ok(())
}

fn a_read_only_root_has_writable_tmpfs_mounts(podman: &mut Podman) -> Result<()> {
    let options = [&BRIEF[..], &["--read-only"]].concat();
    let script = "touch /tmp/x /run/x && ! touch /x 2>/dev/null && echo as it should be";
    let told = podman.run(&options, BUSYBOX, &["sh", "-c", script])?.success()?;
    ensure!(told.stdout == "as it should be\n", "{told}");
    // A tmpfs that begins with what the image has there.
    let options = [&BRIEF[..], &["--mount", "type=tmpfs,destination=/app,tmpcopyup"]].concat();
    let script = ["-c", "cat /app/worker.js >/dev/null && touch /app/x && echo copied"];
    let options = [&options[..], &["--entrypoint", "sh"]].concat();
    let told = podman.run(&options, WORKER, &script)?.success()?;
    ensure!(told.stdout == "copied\n", "{told}");
    Ok(())
}

/// Says that it runs, and exits with 3 when it is asked to end.
const POLITE: [&str; 3] = ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"];

fn a_detached_container_is_listed_logged_stopped_and_removed(podman: &mut Podman) -> Result<()> {
    let name = podman.detach(&["--network", "none"], BUSYBOX, &POLITE)?;
    podman.logged(&name, "up")?;
    let listed = podman.podman.ok(&["ps", "--format", "{{.Names}} {{.Status}}"])?;
    ensure!(listed.starts_with(&format!("{name} Up ")), "{listed}");
    let top = podman.podman.ok(&["top", &name, "args"])?;
    ensure!(top.contains("trap"), "{top}");
    podman.podman.ok(&["stop", &name])?;
    ensure!(podman.inspect(&name, ".State.Status")? == "exited");
    ensure!(podman.inspect(&name, ".State.ExitCode")? == "3");
    podman.logged(&name, "bye")?;
    podman.podman.ok(&["rm", &name])?;
    ensure!(podman.podman.ok(&["ps", "--all", "--quiet"])?.is_empty());
    Ok(())
}

fn a_container_is_paused_and_killed(podman: &mut Podman) -> Result<()> {
    let name = podman.detach(&["--network", "none"], BUSYBOX, &POLITE)?;
    podman.podman.ok(&["pause", &name])?;
    ensure!(podman.inspect(&name, ".State.Status")? == "paused");
    podman.podman.ok(&["unpause", &name])?;
    ensure!(podman.inspect(&name, ".State.Status")? == "running");
    podman.podman.ok(&["kill", "--signal", "KILL", &name])?;
    ensure!(podman.podman.ok(&["wait", &name])? == "137");
    podman.podman.ok(&["rm", &name]).map(drop)
}

fn a_program_without_a_pid_namespace_has_its_code_collected(podman: &mut Podman) -> Result<()> {
    let options = [&BRIEF[..], &["--pid", "host"]].concat();
    podman.run(&options, BUSYBOX, &["sh", "-c", "exit 5"])?.exited(5).map(drop)
}

fn stats_are_of_the_container_alone(podman: &mut Podman) -> Result<()> {
    let name = podman.detach(&["--network", "none"], BUSYBOX, &POLITE)?;
    small_memory(podman, &name)?;
    podman.discard(&name)
}

/// Whether podman finds a container's memory, and it is not that of the whole machine.
fn small_memory(podman: &mut Podman, name: &str) -> Result<()> {
    let printed = podman.podman.ok(&["stats", "--no-stream", "--format", "json", name])?;
    let stats: serde_json::Value = serde_json::from_str(&printed).context(printed.clone())?;
    let used = stats[0]["mem_usage"].as_str().and_then(|text| text.split(" / ").next()).unwrap_or_default();
    let megabytes = used.strip_suffix("MB").and_then(|number| number.parse::<f64>().ok());
    ensure!(used.ends_with("kB") || megabytes.is_some_and(|n| n < 64.0), "{name} uses {used:?}: {printed}");
    Ok(())
}

fn without_control_groups_a_container_runs(podman: &mut Podman) -> Result<()> {
    let help = Command::new(&podman.runtime).arg("--help").output()?;
    if !String::from_utf8_lossy(&help.stdout).contains("--cgroup-manager") {
        return Err(suite::skip("the runtime has no --cgroup-manager"));
    }
    let run = ["run", "--rm", "--network", "none", "--cgroups=disabled", "--cgroupns=host", BUSYBOX];
    let seen = podman.podman.call(&[&run[..], &["cat", "/proc/self/cgroup"]].concat())?.success()?;
    ensure!(!seen.stdout.contains("libpod"), "it has control groups: {seen}");
    Ok(())
}

fn a_worker_image_answers(podman: &mut Podman) -> Result<()> {
    let (name, address) = podman.serve(&[])?;
    let response = http::get(address, "/")?;
    ensure!(response.status == 200 && response.text()? == ANSWER, "{response:?}");
    podman.podman.ok(&["stop", &name])?;
    ensure!(podman.inspect(&name, ".State.ExitCode")? == "0", "a drained worker exits 0");
    podman.podman.ok(&["rm", &name]).map(drop)
}

fn a_worker_without_a_pid_namespace_answers(podman: &mut Podman) -> Result<()> {
    let (name, address) = podman.serve(&["--pid", "host"])?;
    ensure!(http::get(address, "/")?.text()? == ANSWER);
    podman.podman.ok(&["stop", &name])?;
    let code = podman.inspect(&name, ".State.ExitCode")?;
    // Without a pid namespace podman stops by `kill --all`.
    ensure!(code == "0", "a drained worker exits 0, not {code}");
    podman.podman.ok(&["rm", &name]).map(drop)
}

fn a_worker_runs_under_mapped_ids(podman: &mut Podman) -> Result<()> {
    let name = podman.detach(&["--uidmap", "0:100000:65000", "--network", "none"], WORKER, &[])?;
    let owner = podman.inspect(&name, ".State.Pid")?;
    let owner = crate::host::field(owner.parse()?, "status", "Uid")?;
    ensure!(owner.starts_with("100000"), "the container's init is of {owner}");
    podman.discard(&name)
}

fn a_throw_at_load_is_exit_code_1_with_the_stack_in_the_log(podman: &mut Podman) -> Result<()> {
    let volume = podman.script("function f() { throw new Error('at load'); }\nf();\n")?;
    let name = podman.detach(&["--network", "none", "--volume", &volume], WORKER, &[])?;
    ensure!(podman.podman.ok(&["wait", &name])? == "1");
    ensure!(podman.inspect(&name, ".State.ExitCode")? == "1");
    podman.logged(&name, "Error: at load")?;
    podman.logged(&name, "at f (/app/worker.js:1:")?;
    podman.podman.ok(&["rm", &name]).map(drop)
}

fn a_missing_script_fails_with_the_path(podman: &mut Podman) -> Result<()> {
    let options = [&BRIEF[..], &["--entrypoint", "[\"aworker\",\"/app/none.js\"]"]].concat();
    let failed = podman.run(&options, WORKER, &[])?;
    failed.exited(127)?.failure(&["open /app/none.js: no such file or directory"]).map(drop)
}

fn a_worker_is_paused_restarted_and_killed(podman: &mut Podman) -> Result<()> {
    let (name, address) = podman.serve(&[])?;
    podman.podman.ok(&["pause", &name])?;
    podman.podman.ok(&["unpause", &name])?;
    ensure!(http::get(address, "/")?.text()? == ANSWER);
    small_memory(podman, &name)?;
    podman.podman.ok(&["restart", &name])?;
    ensure!(http::get(address, "/")?.text()? == ANSWER);
    podman.podman.ok(&["kill", &name])?;
    ensure!(podman.podman.ok(&["wait", &name])? == "137");
    podman.podman.ok(&["rm", &name]).map(drop)
}

fn a_worker_answers_inside_its_pod(podman: &mut Podman) -> Result<()> {
    let parent = format!("/{}", podman.tag);
    let create = ["pod", "create", "--name", "p", "--network", "none", "--cgroup-parent", &parent];
    let infra = ["--infra-image", BUSYBOX, "--infra-command", "sleep 1000"];
    podman.podman.ok(&[&create[..], &infra].concat())?;
    podman.podman.ok(&["run", "--detach", "--pod", "p", "--name", "in-pod", WORKER])?;
    let wget = ["run", "--rm", "--pod", "p", BUSYBOX, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
    let answer = podman.podman.ok(&wget)?;
    ensure!(answer == ANSWER, "{answer}");
    podman.podman.ok(&["pod", "rm", "--force", "--time", "0", "p"]).map(drop)
}

fn exec_runs_beside_a_program(podman: &mut Podman) -> Result<()> {
    let help = Command::new(&podman.runtime).args(["exec", "--help"]).output()?;
    if !help.status.success() {
        return Err(suite::skip("the runtime has no exec"));
    }
    let name = podman.detach(&["--network", "none"], BUSYBOX, &POLITE)?;
    let exec =
        podman.podman.call(&["exec", "--env", "A=b", &name, "sh", "-c", "echo $A $$; exit 4"])?.exited(4)?;
    ensure!(exec.stdout.starts_with("b ") && exec.stdout != "b 1\n", "{exec}");
    podman.discard(&name)
}
