//! Debian packages: installs those that are missing, and says so.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{command, execute, step};

/// What building and the demo need.
pub const BUILD: &[&str] = &["gcc", "pkg-config", "libseccomp-dev", "ca-certificates", "curl", "gzip"];

/// What the tests need besides: peers, clients, a static shell, a load generator, name-space tools.
pub const TEST: &[&str] = &[
    "busybox-static",
    "podman",
    "conmon",
    "containerd",
    "crun",
    "runc",
    "iproute2",
    "util-linux",
    "procps",
    "uidmap",
    "wrk",
    "git",
    "linux-perf",
    "openssl",
];

/// What the build of V8 from source needs besides.
pub const V8_SOURCE: &[&str] =
    &["clang-22", "lld-22", "llvm-22", "libclang-rt-22-dev", "python3-venv", "git"];

/// Installs those of the packages that are not there.
///
/// Fails where a package is missing and this is not root on a Debian machine.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("install Debian packages: {}", missing.join(" ")));
    if !crate::shell::has_program("apt-get") {
        bail!("apt-get is not here; install by hand what corresponds to: {}", missing.join(" "));
    }
    execute(apt().args(["update", "-q"])).context("apt-get needs root")?;
    execute(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(&missing))
}

fn apt() -> Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    apt
}

fn is_installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}
