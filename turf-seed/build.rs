//! Links the seed's program at a fixed address: V8's tables of addresses are then ready in its file, and a seed neither
//! relocates them at its start nor has a private copy of them.
//!
//! Then it lays the functions that workers call beside each other: a worker needs 1.5 MB of the program's 32 MB.

include!("../build/touched.rs");

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build/touched.rs");
    println!("cargo::rustc-link-arg-bin=turf-seed=-no-pie");
    lay_touched("turf-seed", "touched.txt");
}
