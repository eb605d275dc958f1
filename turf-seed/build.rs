//! Links the seed's program at a fixed address: V8's tables of addresses are then ready in its file, and a seed neither
//! relocates them at its start nor has a private copy of them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=turf-seed=-no-pie");
}
