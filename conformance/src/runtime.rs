//! One runtime program: its command lines, what a call printed, and how it ended.
//!
//! Output goes to files, never to pipes: a container inherits the runtime's stdio, and a pipe would stay open
//! for as long as the container lives.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait;

/// A runtime with its private state directory.
pub struct Runtime {
    program: PathBuf,
    root: PathBuf,
    output: PathBuf,
    calls: u32,
    /// A command that is given the runtime's command line, if there is one.
    wrapper: Vec<String>,
}

/// A call that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The arguments, for messages.
    pub call: String,
    /// How the program ended.
    pub status: ExitStatus,
    /// What it (and the container, for `run`) wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// From before spawn to the collected status.
    pub elapsed: Duration,
}

/// A call that still runs.
pub struct Running {
    call: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    begun: Instant,
}

impl Runtime {
    /// A runtime whose state goes to `root` and whose output files go to `output`.
    pub fn new(program: &Path, root: PathBuf, output: PathBuf) -> Runtime {
        Runtime { program: program.to_owned(), root, output, calls: 0, wrapper: Vec::new() }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// From now on another program is run, with the same state.
    pub fn replace_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// From now on the runtime is run by this command, which gets the runtime's command line as its last arguments;
    /// an empty one takes that back.
    pub fn run_through(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    fn command(&self) -> Command {
        let Some((first, rest)) = self.wrapper.split_first() else { return Command::new(&self.program) };
        let mut command = Command::new(first);
        command.args(rest).arg(&self.program);
        command
    }

    /// Begins a call; stdin is `/dev/null` unless `stdin` is given.
    pub fn spawn(&mut self, arguments: &[&str], stdin: Option<Stdio>) -> Result<Running> {
        self.spawn_with(arguments, stdin, None)
    }

    /// Begins a call whose stdout may be somebody's pipe instead of a file.
    pub fn spawn_with(
        &mut self,
        arguments: &[&str],
        stdin: Option<Stdio>,
        stdout: Option<Stdio>,
    ) -> Result<Running> {
        self.calls += 1;
        let mut command = self.command();
        command.arg("--root").arg(&self.root).args(arguments).current_dir(&self.output);
        let files = self.output.join(self.calls.to_string());
        begin(command, arguments.join(" "), &files, stdin, stdout)
    }

    /// Makes one call and waits for its end.
    pub fn call(&mut self, arguments: &[&str]) -> Result<Finished> {
        self.spawn(arguments, None)?.finish()
    }

    /// Makes one call that must succeed.
    pub fn ok(&mut self, arguments: &[&str]) -> Result<Finished> {
        self.call(arguments)?.success()
    }

    /// Makes one call that must fail and whose error must contain every one of `words`.
    pub fn refused(&mut self, arguments: &[&str], words: &[&str]) -> Result<Finished> {
        self.call(arguments)?.failure(words)
    }

    /// The parsed `state` of a container.
    pub fn state(&mut self, id: &str) -> Result<Value> {
        let printed = self.ok(&["state", id])?.stdout;
        serde_json::from_str(&printed).with_context(|| format!("parse the state of {id}: {printed}"))
    }

    /// The `status` word of a container.
    pub fn status(&mut self, id: &str) -> Result<String> {
        let state = self.state(id)?;
        Ok(state["status"].as_str().context("state has no status")?.to_owned())
    }

    /// The pid of a container's init.
    pub fn pid(&mut self, id: &str) -> Result<i32> {
        let state = self.state(id)?;
        let pid = state["pid"].as_i64().context("state has no pid")?;
        Ok(i32::try_from(pid)?)
    }
}

/// Begins a call of any program. Its output goes to `files` with the endings `out` and `err`, if `stdout` is not given.
pub fn begin(
    mut command: Command,
    call: String,
    files: &Path,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
) -> Result<Running> {
    let (stdout_path, stderr_path) = (files.with_extension("out"), files.with_extension("err"));
    let stdout_file = File::create(&stdout_path).context("create the output file")?;
    let stderr_file = File::create(&stderr_path).context("create the error file")?;
    command.stdin(stdin.unwrap_or_else(Stdio::null));
    command.stdout(stdout.unwrap_or_else(|| stdout_file.into())).stderr(stderr_file);
    let begun = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().with_context(|| format!("run {program}"))?;
    Ok(Running { call, child, stdout: stdout_path, stderr: stderr_path, begun })
}

impl Running {
    /// The pid of the runtime process itself.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The files that stdout and stderr go to; a container keeps writing there after the call has ended.
    pub fn output_files(&self) -> (PathBuf, PathBuf) {
        (self.stdout.clone(), self.stderr.clone())
    }

    /// Waits for the end; a call that takes longer than [`wait::STEP`] is killed and is an error.
    pub fn finish(self) -> Result<Finished> {
        let pid = self.pid();
        let ended = wait::child(pid, wait::STEP);
        let elapsed = self.begun.elapsed();
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (stdout, stderr) = (read(&self.stdout)?, read(&self.stderr)?);
        let status = match ended {
            Ok(WaitStatus::Exited(_, code)) => ExitStatus::from_raw(code << 8),
            Ok(WaitStatus::Signaled(_, signal, _)) => ExitStatus::from_raw(signal as i32),
            Ok(other) => bail!("{}: unexpected {other:?}", self.call),
            Err(error) => {
                // Best effort: the error that matters is that the call hung.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                return Err(error.context(format!("{}\nstdout: {stdout}\nstderr: {stderr}", self.call)));
            }
        };
        Ok(Finished { call: self.call, status, stdout, stderr, elapsed })
    }
}

impl Finished {
    /// Itself if the call exited 0.
    pub fn success(self) -> Result<Finished> {
        ensure!(self.status.success(), "{self}");
        Ok(self)
    }

    /// Itself if the call exited with a code that is not 0, said something, and said all of `words` (any case).
    pub fn failure(self, words: &[&str]) -> Result<Finished> {
        ensure!(self.status.code().is_some_and(|code| code != 0), "should have failed: {self}");
        let said = self.stderr.to_lowercase();
        ensure!(!said.trim().is_empty(), "failed without a message: {self}");
        for word in words {
            ensure!(said.contains(&word.to_lowercase()), "the message lacks {word:?}: {self}");
        }
        Ok(self)
    }

    /// Itself if the call exited with exactly this code.
    pub fn exited(self, code: i32) -> Result<Finished> {
        ensure!(self.status.code() == Some(code), "expected exit code {code}: {self}");
        Ok(self)
    }

    /// The lines of stdout, trimmed.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().map(str::trim).collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}\nstdout: {}\nstderr: {}", self.call, self.status, self.stdout, self.stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(code: i32, stderr: &str) -> Finished {
        Finished {
            call: "verb".into(),
            status: ExitStatus::from_raw(code << 8),
            stdout: String::new(),
            stderr: stderr.into(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn success_needs_exit_code_zero() {
        assert!(finished(0, "").success().is_ok());
        assert!(finished(1, "").success().is_err());
    }

    #[test]
    fn failure_needs_a_code_a_message_and_every_word() {
        assert!(finished(1, "container X does not exist").failure(&["Does Not Exist"]).is_ok());
        assert!(finished(1, "container X is running").failure(&["does not exist"]).is_err());
        assert!(finished(1, " ").failure(&[]).is_err());
        assert!(finished(0, "does not exist").failure(&[]).is_err());
    }
}
