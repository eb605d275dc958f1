//! `cargo +nightly fuzz run http_request`: see `aworker_rt::fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| aworker_rt::fuzz::http_request(data));
