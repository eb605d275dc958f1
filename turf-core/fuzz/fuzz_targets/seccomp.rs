//! `cargo +nightly fuzz run seccomp`: see `turf_core::fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| turf_core::fuzz::seccomp(data));
