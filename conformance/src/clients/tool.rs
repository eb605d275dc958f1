//! A program with fixed leading arguments, called with a bound on its time.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::runtime::{Finished, Running, begin};

/// A client's command line program.
pub struct Tool {
    program: &'static str,
    leading: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    output: PathBuf,
    calls: u32,
}

impl Tool {
    /// A program whose output files go to `output`.
    pub fn new(
        program: &'static str,
        leading: Vec<String>,
        environment: Vec<(&'static str, PathBuf)>,
        output: PathBuf,
    ) -> Tool {
        Tool { program, leading, environment, output, calls: 0 }
    }

    /// One call, and its end; stdin is `/dev/null`.
    pub fn call(&mut self, arguments: &[&str]) -> Result<Finished> {
        self.call_with(arguments, None)
    }

    /// One call with a given stdin.
    pub fn call_with(&mut self, arguments: &[&str], stdin: Option<Stdio>) -> Result<Finished> {
        self.begin(arguments, stdin)?.finish()
    }

    /// Begins one call.
    pub fn begin(&mut self, arguments: &[&str], stdin: Option<Stdio>) -> Result<Running> {
        self.calls += 1;
        let mut command = Command::new(self.program);
        command.args(&self.leading).args(arguments).envs(self.environment.iter().map(|(k, v)| (k, v)));
        let files = self.output.join(format!("{}{}", self.program, self.calls));
        let call = format!("{} {}", self.program, arguments.join(" "));
        begin(command, call, &files, stdin, None)
    }

    /// One call that must exit 0; what it printed, trimmed.
    pub fn ok(&mut self, arguments: &[&str]) -> Result<String> {
        Ok(self.call(arguments)?.success()?.stdout.trim().to_owned())
    }
}
