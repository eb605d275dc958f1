//! `cargo xtask demo`: the main job on a real bundle. Sets the machine up, builds, then creates, starts, asks, kills and
//! deletes a worker container as a person would, and prints each command with the time it took.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, shown, step};
use crate::test::{build, program};
use crate::{packages, v8};

/// The worker of the demonstration.
const WORKER: &str = "\
let served = 0;
addEventListener('fetch', (event) => {
  const { pathname } = new URL(event.request.url);
  served += 1;
  event.respondWith(new Response(`Hello from a warm fork: ${event.request.method} ${pathname}, request ${served}\\n`));
});
";

/// How many workers are started for the table of timings.
const STARTS: usize = 20;

/// How long a worker may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// `cargo xtask demo`.
pub fn run() -> Result<()> {
    packages::install(packages::BUILD)?;
    let library = v8::find()?;
    step("build the release programs");
    build(&library)?;

    let scene = Scene::new()?;
    step("make a worker bundle: a config.json and a script, no image");
    scene.turf(&["spec", "--worker", "--bundle", &scene.bundle])?;
    let script = scene.directory.join("bundle/worker.js");
    fs::write(&script, WORKER).with_context(|| format!("write {}", script.display()))?;
    println!("{WORKER}");

    step("start the seed: V8 is initialised once");
    scene.turf(&["seed", "start", "default"])?;
    step("create a container, fork a worker into it, ask it");
    let address = free_address()?;
    let url = format!("http://{address}/greeting");
    println!("$ turf create --bundle {} demo", scene.bundle);
    println!("    [{:.1?}]", scene.create("demo")?);
    scene.turf(&["start", "--listen", &format!("tcp://{address}"), "demo"])?;
    for _ in 0..2 {
        timed(command("curl").args(["--silent", "--show-error", "--max-time", "10", &url]))?;
    }
    scene.turf(&["state", "demo"])?;
    scene.turf(&["list"])?;
    scene.turf(&["ps", "demo"])?;
    step("stop it");
    scene.turf(&["kill", "demo", "TERM"])?;
    scene.wait_until_stopped("demo")?;
    scene.turf(&["delete", "demo"])?;

    step(&format!("{STARTS} more, one after another"));
    scene.table()
}

/// The demonstration's directory and containers; whatever is left of them goes with it.
struct Scene {
    directory: PathBuf,
    bundle: String,
    turf: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let directory = PathBuf::from(output(command("mktemp").args(["-d", "-t", "turf-demo.XXXXXX"]))?);
        let bundle = directory.join("bundle");
        fs::create_dir(&bundle).context("make the bundle's directory")?;
        let bundle = bundle.to_str().context("the temporary directory's name is UTF-8")?.to_owned();
        Ok(Scene { directory, bundle, turf: program("turf") })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut turf = command(&self.turf);
        turf.arg("--root").arg(self.directory.join("root")).args(arguments);
        turf
    }

    fn turf(&self, arguments: &[&str]) -> Result<()> {
        timed(&mut self.command(arguments)).map(drop)
    }

    /// Creates a container. Its standard output is this program's own: init keeps it, so a pipe would not end.
    fn create(&self, id: &str) -> Result<Duration> {
        let mut turf = self.command(&["create", "--bundle", &self.bundle, id]);
        let begin = Instant::now();
        let status = turf.status().context("run turf create")?;
        if !status.success() {
            bail!("{} ended with {status}", shown(&turf));
        }
        Ok(begin.elapsed())
    }

    fn status(&self, id: &str) -> Result<String> {
        let state = output(&mut self.command(&["state", id]))?;
        let status = state.split("\"status\"").nth(1).and_then(|rest| rest.split('"').nth(1));
        Ok(status.with_context(|| format!("no status in {state}"))?.to_owned())
    }

    fn wait_until_stopped(&self, id: &str) -> Result<()> {
        let begin = Instant::now();
        while self.status(id)? != "stopped" {
            if begin.elapsed() > STOP_LIMIT {
                bail!("{id} did not stop within {STOP_LIMIT:?}");
            }
            thread::yield_now();
        }
        Ok(())
    }

    /// Times whole commands over several containers.
    fn table(&self) -> Result<()> {
        let mut rows: [(&str, Vec<Duration>); 4] = [
            ("turf create", Vec::new()),
            ("turf start", Vec::new()),
            ("start to first answer (turf start + curl)", Vec::new()),
            ("turf delete --force", Vec::new()),
        ];
        for number in 0..STARTS {
            let id = format!("demo-{number}");
            let address = free_address()?;
            let listen = format!("tcp://{address}");
            let url = format!("http://{address}/");
            rows[0].1.push(self.create(&id)?);
            let begin = Instant::now();
            rows[1].1.push(quiet(&mut self.command(&["start", "--listen", &listen, &id]))?);
            quiet(command("curl").args(["--silent", "--show-error", "--fail", "--max-time", "10", &url]))?;
            rows[2].1.push(begin.elapsed());
            rows[3].1.push(quiet(&mut self.command(&["delete", "--force", &id]))?);
        }
        println!("\n| whole commands, {STARTS} containers | min | median | max |\n|---|---|---|---|");
        for (name, times) in &mut rows {
            times.sort();
            println!(
                "| {name} | {:.1?} | {:.1?} | {:.1?} |",
                times[0],
                times[times.len() / 2],
                times[times.len() - 1]
            );
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let ids = output(&mut self.command(&["list", "-q"])).unwrap_or_default();
        for id in ids.lines() {
            report(quiet(&mut self.command(&["delete", "--force", id])).map(drop));
        }
        report(quiet(&mut self.command(&["seed", "stop", "default"])).map(drop));
        report(fs::remove_dir_all(&self.directory).context("remove the demonstration's directory"));
    }
}

/// A failed clean-up must be seen, and must not hide the first error.
fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("clean-up: {error:#}");
    }
}

/// A loopback address whose port is free now.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.to_string())
}

/// Shows a command, its output and how long it took.
fn timed(command: &mut Command) -> Result<Duration> {
    println!("$ {}", short(command));
    let begin = Instant::now();
    let text = output(command)?;
    let took = begin.elapsed();
    if !text.is_empty() {
        println!("{text}");
    }
    println!("    [{took:.1?}]");
    Ok(took)
}

/// Runs a command and says how long it took.
fn quiet(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    output(command)?;
    Ok(begin.elapsed())
}

/// The command with its program's name instead of its path.
fn short(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let line = shown(command);
    line.replacen(&*command.get_program().to_string_lossy(), &program, 1)
}
