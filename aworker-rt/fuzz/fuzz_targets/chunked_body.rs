//! `cargo +nightly fuzz run chunked_body`: see `aworker_rt::fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| aworker_rt::fuzz::chunked_body(data));
