//! `cargo +nightly fuzz run configuration`: see `turf_core::fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| turf_core::fuzz::configuration(data));
