//! One test's world: a private directory and state root, names that nobody else uses, and the promise that
//! everything made in it is gone afterwards - also when the test failed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::unistd::mkfifo;

use crate::bundle::Bundle;
use crate::runtime::{Finished, Runtime};
use crate::{clean, wait};

/// How long processes may take to disappear after the last `delete`.
const SETTLE: Duration = Duration::from_secs(5);

/// A test's private world.
pub struct Case {
    /// The runtime under test, with a state directory of its own.
    pub runtime: Runtime,
    directory: PathBuf,
    tag: String,
    ids: Vec<String>,
    bundles: u32,
    mounts_before: BTreeSet<PathBuf>,
    clean: bool,
}

/// A container that `create` has made, and where its output goes.
pub struct Container {
    /// Its id.
    pub id: String,
    /// The pid from the pid file.
    pub pid: i32,
    /// The file that is its stdout.
    pub stdout: PathBuf,
    /// The file that is its stderr.
    pub stderr: PathBuf,
}

/// With what the names begin of all that a run of this id makes: of its tests, and of the benchmark's containers.
pub fn tags(run: u32) -> [String; 2] {
    [format!("cft{run}x"), format!("peer{run}-")]
}

impl Case {
    /// Makes the directory; `number` makes the name unique within this program.
    pub fn new(program: &Path, number: usize) -> Result<Case> {
        let [tag, _] = tags(std::process::id());
        let tag = format!("{tag}{number}");
        let directory = std::env::temp_dir().join(&tag);
        let output = directory.join("output");
        fs::create_dir_all(&output).with_context(|| format!("create {}", directory.display()))?;
        let runtime = Runtime::new(program, directory.join("root"), output);
        let mounts_before = clean::mounts()?;
        Ok(Case { runtime, directory, tag, ids: Vec::new(), bundles: 0, mounts_before, clean: false })
    }

    /// The private directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A container id of this test; whatever has it is removed at the end.
    pub fn id(&mut self, name: &str) -> String {
        let id = format!("{}-{name}", self.tag);
        self.ids.push(id.clone());
        id
    }

    /// Forgets an id whose container the test has deleted, so that the end need not ask for it.
    pub fn forget(&mut self, id: &str) {
        self.ids.retain(|known| known != id);
    }

    /// A path for one more bundle.
    pub fn bundle_path(&mut self) -> PathBuf {
        self.bundles += 1;
        self.directory.join(format!("bundle{}", self.bundles))
    }

    /// A bundle that runs a shell script.
    pub fn shell(&mut self, script: &str) -> Result<Bundle> {
        Bundle::shell(self.bundle_path(), script)
    }

    /// Makes a FIFO that anybody may write to, and opens it so that neither side ever blocks in open(2).
    pub fn fifo(&self, path: &Path) -> Result<File> {
        mkfifo(path, Mode::from_bits_truncate(0o666))
            .with_context(|| format!("mkfifo {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        OpenOptions::new().read(true).write(true).open(path).context("open the FIFO")
    }

    /// Writes the bundle and creates a container from it.
    pub fn create(&mut self, bundle: &Bundle) -> Result<Container> {
        let id = self.id(&format!("c{}", self.ids.len()));
        self.create_as(bundle, &id)
    }

    /// The same, under a given id.
    pub fn create_as(&mut self, bundle: &Bundle, id: &str) -> Result<Container> {
        self.create_with(bundle, id, None)
    }

    /// The same with a pipe as the container's stdout; its `stdout` file stays empty.
    pub fn create_piped(&mut self, bundle: &Bundle) -> Result<(Container, PipeReader)> {
        let (reader, writer) = io::pipe().context("make a pipe")?;
        let id = self.id(&format!("p{}", self.ids.len()));
        Ok((self.create_with(bundle, &id, Some(writer.into()))?, reader))
    }

    fn create_with(&mut self, bundle: &Bundle, id: &str, stdout: Option<Stdio>) -> Result<Container> {
        bundle.write()?;
        let pid_file = self.directory.join(format!("{id}.pid"));
        let arguments = ["create", "--bundle", text(&bundle.path)?, "--pid-file", text(&pid_file)?, id];
        let running = self.runtime.spawn_with(&arguments, None, stdout)?;
        let (stdout, stderr) = running.output_files();
        running.finish()?.success()?;
        let pid = fs::read_to_string(&pid_file).context("read the pid file")?;
        let pid = pid.trim().parse().with_context(|| format!("the pid file holds {pid:?}"))?;
        Ok(Container { id: id.to_owned(), pid, stdout, stderr })
    }

    /// Creates and starts a container.
    pub fn start(&mut self, bundle: &Bundle) -> Result<Container> {
        let container = self.create(bundle)?;
        self.runtime.ok(&["start", &container.id])?;
        Ok(container)
    }

    /// `run` in the foreground: what the container printed and how it ended.
    pub fn run(&mut self, bundle: &Bundle) -> Result<Finished> {
        bundle.write()?;
        let id = self.id(&format!("r{}", self.ids.len()));
        self.runtime.call(&["run", "--bundle", text(&bundle.path)?, &id])
    }

    /// `run` of a shell script that must exit 0.
    pub fn run_shell(&mut self, script: &str) -> Result<Finished> {
        let bundle = self.shell(script)?;
        self.run(&bundle)?.success()
    }

    /// Waits for a container's end and returns how its init ended (it is this process's child or adopted).
    pub fn wait(&self, container: &Container) -> Result<WaitStatus> {
        wait::child(container.pid, wait::STEP)
    }

    /// Kills, waits for and deletes a container.
    pub fn remove(&mut self, container: &Container) -> Result<()> {
        self.runtime.ok(&["kill", &container.id, "KILL"])?;
        self.wait(container)?;
        self.runtime.ok(&["delete", &container.id]).map(drop)
    }

    /// Removes what the test left on purpose, by the runtime's own means, then looks for leaks.
    pub fn finish(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.ids) {
            if self.runtime.call(&["state", &id])?.status.success() {
                self.runtime.ok(&["delete", "--force", &id])?;
            }
        }
        self.stop_seeds()?;
        let leaks = self.leaks()?;
        ensure!(leaks.is_empty(), "left behind:\n  {}", leaks.join("\n  "));
        self.clean = true;
        Ok(())
    }

    /// The names of the seeds of this root.
    pub fn seeds(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.runtime.root().join("seeds")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn stop_seeds(&mut self) -> Result<()> {
        for seed in self.seeds() {
            if self.runtime.root().join("seeds").join(&seed).join("current/state.json").exists() {
                self.runtime.ok(&["seed", "stop", &seed])?;
            }
        }
        Ok(())
    }

    /// What is still there of this test.
    pub fn leaks(&self) -> Result<Vec<String>> {
        let mut leaks = Vec::new();
        if !wait::no_children(SETTLE) {
            leaks.extend(clean::children().into_iter().map(|process| format!("process {process}")));
        }
        let mounts = clean::mounts()?;
        leaks.extend(mounts.difference(&self.mounts_before).map(|path| format!("mount {}", path.display())));
        leaks.extend(clean::cgroups(&self.tag).iter().map(|path| format!("cgroup {}", path.display())));
        let files = clean::files(self.runtime.root(), &self.tag);
        leaks.extend(files.iter().map(|path| format!("file {}", path.display())));
        Ok(leaks)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if !self.clean
            && let Err(error) = clean::sweep(&self.mounts_before, &self.tag)
        {
            eprintln!("conformance: clean-up of {}: {error:#}", self.tag);
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("conformance: remove {}: {error}", self.directory.display());
        }
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}
