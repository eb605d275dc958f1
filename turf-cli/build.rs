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

/// Where the short verbs' constants lie: whole objects of little else, and what the linker merges from all. The others are tables
/// of regular expressions, of the C library's character sets and of system calls.
const CONSTANTS: &[&str] = &[
    "*(.rodata.cst* .rodata.str*)",
    "*/deps/turf-*.rcgu.o(.rodata .rodata.*)",
    "*/libturf_core-*(.rodata .rodata.*)",
    "*/liboci_spec-*(.rodata .rodata.*)",
    "*/libserde_json-*(.rodata .rodata.*)",
    "*/libitoa-*(.rodata .rodata.*)",
    "*/liballoc-*(.rodata .rodata.*)",
    "*/libstd-*(.rodata .rodata.*)",
];

/// Makes the linker script that puts those functions beside each other, and what they read. `INSERT` adds it to the linker's own.
///
/// The hash at the end of a name tells apart what one generic function becomes for each type. It stays the same while compiler,
/// settings and types do; what is not found under it is taken by the name alone, for all types, into a place of its own: that is
/// twice as much.
fn order() -> PathBuf {
    let names = fs::read_to_string(TOUCHED).expect("the list of functions can be read");
    let names: Vec<&str> = names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    // The beginning of every program, and behind all the others what the linker puts behind `.text`, are touched as well.
    let mut functions = "    *crt1.o(.text .text.*)\n".to_owned();
    let mut like = String::new();
    let mut constants: String = CONSTANTS.iter().map(|pattern| format!("    {pattern}\n")).collect();
    for name in &names {
        match name.split_once(':') {
            // A member of the C library, whose functions have no sections of their own.
            Some((library, member)) => {
                functions.push_str(&format!("    *{library}:{member}(.text .text.*)\n"));
                constants.push_str(&format!("    *{library}:{member}(.rodata .rodata.*)\n"));
            }
            // What the compiler adds to a name stands behind the hash.
            None if name.starts_with("_ZN") => {
                functions.push_str(&format!("    *(.text.{name}* .text.unlikely.{name}*)\n"));
                if let Some(hash) = name.rfind("17h") {
                    let name = &name[..hash];
                    like.push_str(&format!("    *(.text.{name}17h* .text.unlikely.{name}17h*)\n"));
                }
            }
            None => {
                let copies = format!(".text.{name}.llvm.* .text.unlikely.{name}.llvm.*");
                functions.push_str(&format!("    *(.text.{name} .text.unlikely.{name} {copies})\n"));
            }
        }
    }
    // A section is where it is named first.
    let script = format!(
        "SECTIONS {{\n  .text.touched : {{\n{functions}  }}\n  .text.like : {{\n{like}  }}\n}}\nINSERT AFTER .text;\n\
         SECTIONS {{\n  .rodata.touched : {{\n{constants}  }}\n}}\nINSERT BEFORE .rodata;\n"
    );
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("touched.ld");
    fs::write(&path, script).expect("the output directory can be written");
    path
}
