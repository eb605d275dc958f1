//! A program for the inside of a container that makes one system call and prints its error number. No program of a
//! distribution makes any call that it is told, so it is compiled when a test asks for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// `probe NUMBER`: all arguments of the call are zero; prints 0 for success.
const SOURCE: &str = "\
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **arguments) {
    long result = syscall(count > 1 ? atol(arguments[1]) : -1, 0, 0, 0, 0, 0, 0);
    printf(\"%d\\n\", result < 0 ? errno : 0);
    return 0;
}
";

/// Compiles the program into `directory`, without libraries, and returns its path.
pub fn build(directory: &Path) -> Result<PathBuf> {
    let (source, program) = (directory.join("probe.c"), directory.join("probe"));
    std::fs::write(&source, SOURCE)?;
    let mut gcc = Command::new("gcc");
    let output = gcc.args(["-O1", "-static", "-o"]).arg(&program).arg(&source).output().context("run gcc")?;
    ensure!(output.status.success(), "gcc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}
