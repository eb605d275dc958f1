//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.
//!
//! One profile serves all that links V8: it takes long to link, and the tests shall see what users run.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{command, execute, step, workspace};
use crate::{packages, tidy, v8};

/// `cargo xtask test`: sets the machine up, builds, checks and tests.
pub fn run() -> Result<()> {
    packages::install(packages::BUILD)?;
    packages::install(packages::TEST)?;
    let library = v8::find()?;
    let cargo = |arguments: &[&str]| -> Result<()> {
        let mut cargo = command("cargo");
        execute(library.apply(cargo.args(arguments)))
    };
    timed("format", || cargo(&["fmt", "--all", "--check"]))?;
    timed("tidy", tidy::run)?;
    timed("build", || build(&library))?;
    timed("lints", || {
        cargo(&["clippy", "--release", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    timed("unit and integration tests", || cargo(&["test", "--release", "--workspace", "--quiet"]))?;
    let turf = program("turf");
    timed("conformance: turf", || execute(conformance().args(["run", "--runtime"]).arg(&turf)))?;
    timed("clients: podman and containerd", || {
        execute(conformance().args(["clients", "--runtime"]).arg(&turf))
    })?;
    // The tests of plain OCI behaviour are themselves tested on runtimes that this project did not write.
    for peer in ["/usr/bin/crun", "/usr/sbin/runc"] {
        timed(&format!("conformance: {peer}"), || {
            execute(conformance().args(["run", "--exec-only", "--runtime", peer]))
        })?;
    }
    Ok(())
}

/// Builds the release programs.
pub fn build(library: &v8::Library) -> Result<()> {
    let mut cargo = command("cargo");
    execute(library.apply(cargo.args(["build", "--release", "--workspace", "--bins"])))
}

/// Where cargo puts a release program.
pub fn program(name: &str) -> std::path::PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), Into::into);
    target.join("release").join(name)
}

fn conformance() -> Command {
    command(program("conformance"))
}

fn timed(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    step(name);
    let begin = Instant::now();
    let outcome = work();
    println!("    {name}: {:.1} s", begin.elapsed().as_secs_f64());
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => bail!("{name}: {error:#}"),
    }
}
