//! Links `turf` statically and at a fixed address, where the machine has the libraries for it.
//!
//! Every verb is a process of its own: half of what a short one costs in user time and a third of its page faults went
//! into finding libraries and relocating. Nothing of this needs the C library's plug-ins (names of users and hosts).
//!
//! The flag for it (`target-feature=+crt-static`) exists per build, not per program, and V8's programs must stay
//! dynamic. So the linker is led to the static libraries: it takes the first of `libX.so` and `libX.a` that it finds on
//! its path, and the path begins with a directory that has only the latter, as linker scripts.
//!
//! Then it lays the functions that short verbs call beside each other, by their names in `touched.txt`. The kernel maps text by
//! windows of 64 kB around what is touched: strewn over five megabytes they cost four megabytes of memory and a page fault for
//! each window. A name that is missing or wrong costs nothing but its place. `cargo xtask touched` writes the list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the compiler names on the command line of a program of ours.
const LIBRARIES: &[&str] = &["c", "m", "dl", "pthread", "rt", "util", "seccomp"];

/// The functions, one a line: the names of the linker, with `*` for what differs from build to build.
const TOUCHED: &str = "touched.txt";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={TOUCHED}");
    println!("cargo::rustc-link-arg-bin=turf=-Wl,-T,{}", order().display());
    match prepare() {
        Ok(directory) => {
            println!("cargo::rustc-link-arg-bin=turf=-L{}", directory.display());
            println!("cargo::rustc-link-arg-bin=turf=-static");
            println!("cargo::rustc-link-arg-bin=turf=-no-pie");
        }
        Err(missing) => println!("cargo::warning=turf is linked dynamically: there is no {missing}"),
    }
}

/// Makes the directory; the error is the library that is missing.
fn prepare() -> Result<PathBuf, String> {
    let directory = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("static");
    fs::create_dir_all(&directory).expect("the output directory can be written");
    for name in LIBRARIES {
        let file = format!("lib{name}.a");
        write(&directory, &file, &format!("INPUT({})\n", find(&file)?));
    }
    // The unwinder, which exists as a shared library under one name and as a static one under another.
    let unwinder = find("libgcc_eh.a")?;
    write(&directory, "libgcc_s.a", &format!("GROUP({unwinder} -lgcc -lc)\n"));
    Ok(directory)
}

/// Makes the linker script that puts those functions first. `INSERT` adds it to the linker's own.
///
/// The hash at the end of a name tells apart what one generic function becomes for each type. It stays the same while compiler,
/// settings and types do; what is not found under it is taken by the name alone, behind the others, for all types.
fn order() -> PathBuf {
    let names = fs::read_to_string(TOUCHED).expect("the list of functions can be read");
    let names: Vec<&str> = names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut script = "SECTIONS {\n  .text.touched : {\n".to_owned();
    for name in &names {
        match name.split_once(':') {
            // A member of the C library, whose functions have no sections of their own.
            Some((library, member)) => script.push_str(&format!("    *{library}:{member}(.text .text.*)\n")),
            // What the compiler adds to a name stands behind the hash.
            None if name.starts_with("_ZN") => {
                script.push_str(&format!("    *(.text.{name}* .text.unlikely.{name}*)\n"));
            }
            None => script.push_str(&format!("    *(.text.{name} .text.unlikely.{name})\n")),
        }
    }
    for name in
        names.iter().filter_map(|name| Some(&name[..name.rfind("17h").filter(|_| name.starts_with("_ZN"))?]))
    {
        script.push_str(&format!("    *(.text.{name}17h* .text.unlikely.{name}17h*)\n"));
    }
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("touched.ld");
    fs::write(&path, script).expect("the output directory can be written");
    path
}

fn write(directory: &Path, file: &str, script: &str) {
    fs::write(directory.join(file), script).expect("the output directory can be written");
}

/// The absolute path at which the C compiler finds a library; it answers with the bare name if there is none.
fn find(file: &str) -> Result<String, String> {
    let asked = Command::new("cc").arg(format!("-print-file-name={file}")).output();
    let answer = asked.map_err(|error| format!("{file} (cc: {error})"))?;
    let path = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if Path::new(&path).is_absolute() && Path::new(&path).exists() { Ok(path) } else { Err(file.to_owned()) }
}
