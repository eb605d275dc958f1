//! `cargo +nightly fuzz run structured_clone`: see `aworker_rt::fuzz`.

#![no_main]

use std::cell::RefCell;

use aworker_rt::fuzz::CloneReader;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static READER: RefCell<CloneReader> = RefCell::default();
}

fuzz_target!(|data: &[u8]| READER.with_borrow_mut(|reader| reader.check(data)));
