//! containerd as a plain process, and ctr. containerd-shim-runc-v2 is told to use the runtime by ctr's own options.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::image::{ANSWER, BUSYBOX, WORKER};
use super::tool::Tool;
use super::{World, need, remove_groups, tests};
use crate::runtime::Finished;
use crate::{http, suite, wait};

tests! { Containerd, "containerd":
    images_are_imported,
    run_prints_and_exits_as_its_program_does,
    a_program_that_is_not_there_is_named,
    a_detached_task_is_listed_paused_killed_and_removed,
    a_running_task_is_removed_by_force,
    metrics_are_of_the_container_alone,
    events_tell_of_a_life_and_of_a_lack_of_memory,
    a_worker_image_answers,
    a_throw_at_load_is_exit_code_1,
    a_missing_script_fails_with_the_path,
    exec_runs_beside_a_program,
}

/// A containerd of the test's own.
pub struct Containerd {
    ctr: Tool,
    daemon: Child,
    stopped: bool,
    directory: PathBuf,
    runtime: PathBuf,
    tag: String,
    tasks: u32,
}

impl Containerd {
    /// Starts the daemon and waits until it answers.
    pub fn start(world: &World) -> Result<Containerd> {
        need(&["containerd", "ctr", "containerd-shim-runc-v2"], "containerd")?;
        let directory = world.directory.clone();
        let socket = directory.join("containerd.sock");
        fs::write(directory.join("config.toml"), configuration(&directory.display().to_string()))?;
        let log = File::create(directory.join("output/containerd.log"))?;
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(directory.join("config.toml"))
            .env("TMPDIR", directory.join("tmp"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run containerd")?;
        let leading =
            ["--address", &socket.display().to_string(), "--namespace", &world.tag].map(str::to_owned);
        let ctr = Tool::new("ctr", leading.to_vec(), Vec::new(), directory.join("output"));
        let (runtime, tag) = (world.runtime.clone(), world.tag.clone());
        let mut client = Containerd { ctr, daemon, stopped: false, directory, runtime, tag, tasks: 0 };
        let version = client.answer()?;
        println!("client: containerd {version}");
        Ok(client)
    }

    /// Waits for the daemon's first answer, and returns its version.
    fn answer(&mut self) -> Result<String> {
        let end = Instant::now() + wait::STEP;
        loop {
            let answer = self.ctr.call(&["version"])?;
            if answer.status.success() {
                let version =
                    answer.stdout.lines().rev().find_map(|line| line.trim().strip_prefix("Version:"));
                return Ok(version.unwrap_or_default().trim().to_owned());
            }
            let log = fs::read_to_string(self.directory.join("output/containerd.log")).unwrap_or_default();
            ensure!(self.daemon.try_wait()?.is_none(), "containerd has ended:\n{log}");
            ensure!(Instant::now() < end, "containerd does not answer:\n{log}");
        }
    }

    /// Removes what a failed test left, and stops the seed and the daemon.
    pub fn finish(&mut self) -> Result<()> {
        for task in self.ctr.ok(&["task", "ls", "--quiet"])?.lines() {
            self.ctr.ok(&["task", "rm", "--force", task])?;
        }
        for container in self.ctr.ok(&["container", "ls", "--quiet"])?.lines() {
            self.ctr.ok(&["container", "rm", container])?;
        }
        // The shim gives each namespace of containerd a state directory of its own.
        super::stop_seed(&self.runtime, &self.directory.join("turf").join(&self.tag))?;
        self.stop()?;
        remove_groups(&self.tag);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        if !self.stopped {
            self.stopped = true;
            let pid = self.daemon.id().cast_signed();
            kill(Pid::from_raw(pid), Signal::SIGTERM).context("end containerd")?;
            wait::child(pid, wait::STEP)?;
        }
        Ok(())
    }

    fn id(&mut self) -> String {
        self.tasks += 1;
        format!("t{}", self.tasks)
    }

    /// `ctr run` with options, an id, and a command.
    fn run(&mut self, options: &[&str], image: &str, id: &str, command: &[&str]) -> Result<Finished> {
        let program = self.runtime.display().to_string();
        let root = self.directory.join("turf").display().to_string();
        let runtime = ["run", "--runc-binary", &program, "--runc-root", &root];
        self.ctr.call(&[&runtime[..], options, &[image, id], command].concat())
    }

    /// `ctr run --detach`; the id of the container, and the file that its output goes to.
    fn detach(&mut self, options: &[&str], image: &str, command: &[&str]) -> Result<(String, PathBuf)> {
        let id = self.id();
        let log = self.directory.join(format!("output/{id}.log"));
        let uri = format!("file://{}", log.display());
        self.run(&[&["--detach", "--log-uri", &uri], options].concat(), image, &id, command)?.success()?;
        Ok((id, log))
    }

    /// A worker on the host's network, and where it listens.
    fn serve(&mut self) -> Result<(String, std::net::SocketAddr)> {
        let address = http::free_address()?;
        let port = format!("PORT={}", address.port());
        Ok((self.detach(&["--net-host", "--env", &port], WORKER, &[])?.0, address))
    }

    /// The pid and the status of a task.
    fn task(&mut self, id: &str) -> Result<(i32, String)> {
        let printed = self.ctr.ok(&["task", "ls"])?;
        for line in printed.lines() {
            if let [task, pid, status] = line.split_whitespace().collect::<Vec<_>>()[..]
                && task == id
            {
                return Ok((pid.parse()?, status.to_owned()));
            }
        }
        anyhow::bail!("no task {id} in: {printed}")
    }

    /// Waits until containerd has heard of a task's end.
    fn stopped(&mut self, id: &str) -> Result<()> {
        let end = Instant::now() + wait::STEP;
        while self.task(id)?.1 != "STOPPED" {
            ensure!(Instant::now() < end, "task {id} has not stopped");
        }
        Ok(())
    }

    /// Removes a stopped task and its container; what ctr said of it.
    fn remove(&mut self, id: &str) -> Result<Finished> {
        let removed = self.ctr.call(&["task", "rm", id])?.success()?;
        self.ctr.ok(&["container", "rm", id])?;
        Ok(removed)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("conformance: {error:#}");
        }
    }
}

/// Without the parts that serve Kubernetes, and without touching anything outside of `directory`.
fn configuration(directory: &str) -> String {
    format!(
        "version = 2\n\
         root = \"{directory}/containerd-root\"\n\
         state = \"{directory}/containerd-state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\n\
         address = \"{directory}/containerd.sock\"\n\
         [ttrpc]\n\
         address = \"{directory}/containerd.ttrpc.sock\"\n"
    )
}

fn images_are_imported(containerd: &mut Containerd) -> Result<()> {
    for archive in ["busybox.tar", "worker.tar"] {
        let archive = containerd.directory.join(archive).display().to_string();
        containerd.ctr.ok(&["image", "import", &archive])?;
    }
    let listed = containerd.ctr.ok(&["image", "ls", "--quiet"])?;
    ensure!(listed.lines().eq([BUSYBOX, WORKER]), "{listed}");
    Ok(())
}

fn run_prints_and_exits_as_its_program_does(containerd: &mut Containerd) -> Result<()> {
    let id = containerd.id();
    let hello = containerd.run(&["--rm"], BUSYBOX, &id, &["echo", "hello"])?.success()?;
    ensure!(hello.stdout == "hello\n", "{hello}");
    let id = containerd.id();
    let seven = containerd.run(&["--rm"], BUSYBOX, &id, &["sh", "-c", "echo no >&2; exit 7"])?.exited(7)?;
    ensure!(seven.stderr.contains("no\n"), "{seven}");
    ensure!(containerd.ctr.ok(&["task", "ls", "--quiet"])?.is_empty());
    Ok(())
}

fn a_program_that_is_not_there_is_named(containerd: &mut Containerd) -> Result<()> {
    let id = containerd.id();
    let failed = containerd.run(&["--rm"], BUSYBOX, &id, &["/nowhere"])?;
    failed.failure(&["/nowhere", "no such file or directory"]).map(drop)
}

/// Runs until it is asked to end, and exits with 3.
const POLITE: [&str; 3] = ["sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"];

fn a_detached_task_is_listed_paused_killed_and_removed(containerd: &mut Containerd) -> Result<()> {
    let (id, log) = containerd.detach(&[], BUSYBOX, &POLITE)?;
    let (pid, status) = containerd.task(&id)?;
    ensure!(status == "RUNNING", "{status}");
    let processes = containerd.ctr.ok(&["task", "ps", &id])?;
    ensure!(processes.contains(&pid.to_string()), "{processes}");
    let end = Instant::now() + wait::STEP;
    while fs::read_to_string(&log).unwrap_or_default() != "up\n" {
        ensure!(Instant::now() < end, "nothing in {}", log.display());
        // A call takes some milliseconds: that is the pace of this loop.
        containerd.task(&id)?;
    }
    containerd.ctr.ok(&["task", "pause", &id])?;
    ensure!(containerd.task(&id)?.1 == "PAUSED");
    containerd.ctr.ok(&["task", "resume", &id])?;
    ensure!(containerd.task(&id)?.1 == "RUNNING");
    containerd.ctr.ok(&["task", "kill", &id])?;
    containerd.stopped(&id)?;
    let removed = containerd.remove(&id)?;
    ensure!(removed.stderr.contains("non-zero exit code 3"), "{removed}");
    Ok(())
}

fn a_running_task_is_removed_by_force(containerd: &mut Containerd) -> Result<()> {
    let (id, _) = containerd.detach(&[], BUSYBOX, &["sleep", "1000"])?;
    let (pid, _) = containerd.task(&id)?;
    containerd.ctr.ok(&["task", "rm", "--force", &id])?;
    containerd.ctr.ok(&["container", "rm", &id])?;
    ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} still exists");
    Ok(())
}

fn metrics_are_of_the_container_alone(containerd: &mut Containerd) -> Result<()> {
    let (id, _) = containerd.detach(&[], BUSYBOX, &POLITE)?;
    small_memory(containerd, &id)?;
    containerd.ctr.ok(&["task", "rm", "--force", &id])?;
    containerd.ctr.ok(&["container", "rm", &id]).map(drop)
}

/// Takes memory until it is killed.
const HOG: [&str; 3] = ["sh", "-c", "x=x; while :; do x=$x$x; done"];

fn events_tell_of_a_life_and_of_a_lack_of_memory(containerd: &mut Containerd) -> Result<()> {
    let events = containerd.ctr.begin(&["events"], None)?;
    let (file, _) = events.output_files();
    let told = |id: &str, topic: &str| -> Result<bool> {
        let name = format!("\"{id}\"");
        Ok(fs::read_to_string(&file)?.lines().any(|line| line.contains(topic) && line.contains(&name)))
    };
    let end = Instant::now() + wait::STEP;
    // It does not say when it has begun to listen.
    let id = loop {
        let id = containerd.id();
        drop(containerd.run(&["--rm", "--memory-limit", "16777216"], BUSYBOX, &id, &HOG)?);
        if told(&id, "/tasks/create")? {
            break id;
        }
        ensure!(Instant::now() < end, "no event in time: {}", fs::read_to_string(&file)?);
    };
    for topic in ["/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"] {
        while !told(&id, topic)? {
            ensure!(Instant::now() < end, "no {topic}: {}", fs::read_to_string(&file)?);
            std::thread::yield_now();
        }
    }
    kill(Pid::from_raw(events.pid()), Signal::SIGTERM).context("end ctr events")?;
    events.finish().map(drop)
}

/// Whether the shim finds a container's memory, and it is not that of the whole machine.
fn small_memory(containerd: &mut Containerd, id: &str) -> Result<()> {
    let printed = containerd.ctr.ok(&["task", "metrics", id])?;
    let named = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name));
    let memory = named("memory.usage_in_bytes").or_else(|| named("memory.usage "));
    let memory: u64 = memory.with_context(|| printed.clone())?.trim().parse()?;
    ensure!((1..64 << 20).contains(&memory), "{id} uses {memory} bytes");
    Ok(())
}

fn a_worker_image_answers(containerd: &mut Containerd) -> Result<()> {
    let (id, address) = containerd.serve()?;
    let response = http::get(address, "/")?;
    ensure!(response.status == 200 && response.text()? == ANSWER, "{response:?}");
    small_memory(containerd, &id)?;
    containerd.ctr.ok(&["task", "pause", &id])?;
    containerd.ctr.ok(&["task", "resume", &id])?;
    ensure!(http::get(address, "/")?.text()? == ANSWER);
    containerd.ctr.ok(&["task", "kill", &id])?;
    containerd.stopped(&id)?;
    let removed = containerd.remove(&id)?;
    ensure!(!removed.stderr.contains("non-zero"), "a drained worker exits 0: {removed}");
    Ok(())
}

fn a_throw_at_load_is_exit_code_1(containerd: &mut Containerd) -> Result<()> {
    let script = containerd.directory.join("bad.js");
    fs::write(&script, "throw new Error('at load');\n")?;
    let mount = format!("type=bind,src={},dst=/app/worker.js,options=rbind:ro", script.display());
    let id = containerd.id();
    let thrown = containerd.run(&["--rm", "--mount", &mount], WORKER, &id, &[])?.exited(1)?;
    ensure!(thrown.stderr.contains("Error: at load"), "{thrown}");
    Ok(())
}

fn a_missing_script_fails_with_the_path(containerd: &mut Containerd) -> Result<()> {
    let id = containerd.id();
    let failed = containerd.run(&["--rm"], WORKER, &id, &["aworker", "/app/none.js"])?;
    failed.failure(&["open /app/none.js: no such file or directory"]).map(drop)
}

fn exec_runs_beside_a_program(containerd: &mut Containerd) -> Result<()> {
    let help = Command::new(&containerd.runtime).args(["exec", "--help"]).output()?;
    if !help.status.success() {
        return Err(suite::skip("the runtime has no exec"));
    }
    let (id, _) = containerd.detach(&[], BUSYBOX, &["sleep", "1000"])?;
    let exec = ["task", "exec", "--exec-id", "e", &id, "sh", "-c", "echo from exec; exit 4"];
    let exec = containerd.ctr.call(&exec)?.exited(4)?;
    ensure!(exec.stdout == "from exec\n", "{exec}");
    containerd.ctr.ok(&["task", "rm", "--force", &id])?;
    containerd.ctr.ok(&["container", "rm", &id]).map(drop)
}
