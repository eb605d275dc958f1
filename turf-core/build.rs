//! Builds `turf-init`, the small program that this crate embeds, by the compiler itself: without the C library,
//! the standard library and unwinding, which cargo would bring along for a member of the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Position-dependent, static, of one segment for code and constants: as few pages as possible, and none to relocate.
const COMPILER: &[&str] = &[
    "--edition=2024",
    "--crate-name=turf_init",
    "--crate-type=bin",
    "-Copt-level=s",
    "-Clto=fat",
    "-Ccodegen-units=1",
    "-Cpanic=abort",
    "-Cforce-unwind-tables=no",
    "-Cstrip=symbols",
    "-Crelocation-model=static",
    "-Ctarget-feature=+crt-static",
    // The library half of the sources is not used by the program, and the other way round.
    "-Adead_code",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,-z,norelro,-z,noseparate-code,-z,noexecstack,-z,max-page-size=4096",
    "-Clink-arg=-Wl,--build-id=none,--no-eh-frame-hdr,--gc-sections",
];

fn main() {
    let sources = Path::new("init/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("turf-init");
    let status = Command::new(variable("RUSTC"))
        .args(COMPILER)
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&program)
        .arg(sources.join("main.rs"))
        .status()
        .expect("the compiler runs");
    assert!(status.success(), "turf-init does not compile: {status}");
}
