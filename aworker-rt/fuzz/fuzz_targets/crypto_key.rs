//! `cargo +nightly fuzz run crypto_key`: see `aworker_rt::fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| aworker_rt::fuzz::crypto_key(data));
