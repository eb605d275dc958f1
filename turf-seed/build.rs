//! Links the seed's program statically and at a fixed address: V8's tables of addresses are then ready in its file, and a seed
//! neither relocates them at its start nor has a private copy of them; workers have fewer mappings and pages to copy.
//!
//! Then it lays the functions that workers call beside each other: a worker needs 1.5 MB of the program's 32 MB.

include!("../build/static_link.rs");
include!("../build/touched.rs");

/// What the compiler names on the command line of a program of ours.
const LIBRARIES: &[&str] = &["c", "m", "dl", "pthread", "rt", "util", "seccomp"];

/// Functions of the libraries in whose place the program has its own (`aworker-rt/src/engine/dlsym.rs` and `locks.rs`): a seed
/// and its workers have one thread.
const REPLACED: &[&str] = &["dlsym", "_ZN4absl5Mutex4lockEv", "_ZN4absl5Mutex6unlockEv"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build/touched.rs");
    println!("cargo::rerun-if-changed=../build/static_link.rs");
    println!("cargo::rustc-link-arg-bin=turf-seed=-no-pie");
    link_statically("turf-seed", LIBRARIES, REPLACED);
    lay_touched("turf-seed", "touched.txt");
}
