//! Links the seed's program at a fixed address: V8's tables of addresses are then ready in its file, and a seed neither
//! relocates them at its start nor has a private copy of them.
//!
//! Then it lays the functions that workers call beside each other, by their names in `touched.txt`. The kernel maps text by
//! windows of 64 kB around what is touched: a worker needs 1.5 MB of the program's 32 MB, and would have 200 windows of them, a
//! page fault for each. A name that is missing or wrong costs nothing but its place. `cargo xtask touched` writes the list.

use std::fs;
use std::path::PathBuf;

/// The functions, one a line: the names of the linker, with `*` for what differs from build to build.
const TOUCHED: &str = "touched.txt";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={TOUCHED}");
    println!("cargo::rustc-link-arg-bin=turf-seed=-no-pie");
    let names = fs::read_to_string(TOUCHED).expect("the list of functions can be read");
    let (ours, of_v8): (Vec<&str>, Vec<&str>) = names
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .partition(|name| name.contains('*'));
    println!("cargo::rustc-link-arg-bin=turf-seed=-Wl,-T,{}", script(&ours).display());
    // lld's option: rustc links with it by itself on this architecture only.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "x86_64") {
        let order = order(&of_v8);
        println!("cargo::rustc-link-arg-bin=turf-seed=-Wl,--symbol-ordering-file={}", order.display());
        println!("cargo::rustc-link-arg-bin=turf-seed=-Wl,--no-warn-symbol-ordering");
    }
}

/// Rust's functions are in sections of their names, which a linker script can match. `INSERT` adds it to the linker's own.
fn script(names: &[&str]) -> PathBuf {
    let sections: String =
        names.iter().map(|name| format!("    *(.text.{name} .text.unlikely.{name})\n")).collect();
    write(
        "touched.ld",
        &format!("SECTIONS {{\n  .text.touched : {{\n{sections}  }}\n}}\nINSERT BEFORE .text;\n"),
    )
}

/// V8's functions are in sections that all have the same name: they are told apart by their symbols.
fn order(names: &[&str]) -> PathBuf {
    write("touched.order", &names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

fn write(file: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(file);
    fs::write(&path, text).expect("the output directory can be written");
    path
}
