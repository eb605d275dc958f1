//! Links `turf` statically and at a fixed address, where the machine has the libraries for it.
//!
//! Every verb is a process of its own: half of what a short one costs in user time and a third of its page faults went
//! into finding libraries and relocating. Nothing of this needs the C library's plug-ins (names of users and hosts).
//!
//! Then it lays the functions that short verbs call beside each other, by their names in `touched.txt`. The kernel maps text by
//! windows of 64 kB around what is touched: strewn over five megabytes they cost four megabytes of memory and a page fault for
//! each window. A name that is missing or wrong costs nothing but its place. `cargo xtask touched` writes the list.

use std::fs;
use std::path::PathBuf;

include!("../build/static_link.rs");

/// What the compiler names on the command line of a program of ours.
const LIBRARIES: &[&str] = &["c", "m", "dl", "pthread", "rt", "util", "seccomp"];

/// The functions, one a line: the names of the linker, with `*` for what differs from build to build.
const TOUCHED: &str = "touched.txt";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build/static_link.rs");
    println!("cargo::rerun-if-changed={TOUCHED}");
    println!("cargo::rustc-link-arg-bin=turf=-Wl,-T,{}", order().display());
    link_statically("turf", LIBRARIES, &[]);
}

/// Makes the linker script that puts those functions first. `INSERT` adds it to the linker's own.
///
/// The hash at the end of a name tells apart what one generic function becomes for each type. It stays the same while compiler,
/// settings and types do; what is not found under it is taken by the name alone, behind the others, for all types.
fn order() -> PathBuf {
    let names = fs::read_to_string(TOUCHED).expect("the list of functions can be read");
    let names: Vec<&str> = names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    // The beginning of every program, and behind all the others what the linker puts behind `.text`, are touched as well.
    let mut script = "SECTIONS {\n  .text.touched : {\n    *crt1.o(.text .text.*)\n".to_owned();
    for name in &names {
        match name.split_once(':') {
            // A member of the C library, whose functions have no sections of their own.
            Some((library, member)) => script.push_str(&format!("    *{library}:{member}(.text .text.*)\n")),
            // What the compiler adds to a name stands behind the hash.
            None if name.starts_with("_ZN") => {
                script.push_str(&format!("    *(.text.{name}* .text.unlikely.{name}*)\n"));
            }
            None => {
                let copies = format!(".text.{name}.llvm.* .text.unlikely.{name}.llvm.*");
                script.push_str(&format!("    *(.text.{name} .text.unlikely.{name} {copies})\n"));
            }
        }
    }
    for name in
        names.iter().filter_map(|name| Some(&name[..name.rfind("17h").filter(|_| name.starts_with("_ZN"))?]))
    {
        script.push_str(&format!("    *(.text.{name}17h* .text.unlikely.{name}17h*)\n"));
    }
    script.push_str("  }\n}\nINSERT AFTER .text;\n");
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("touched.ld");
    fs::write(&path, script).expect("the output directory can be written");
    path
}
