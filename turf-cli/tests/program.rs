//! How the program `turf` is laid out.

use std::fs;

/// Peak memory and page faults of a verb depend on it. The list is old, or the linker has not understood its script, when
/// little of the text is in the sections (their headers: name, type, flags, address, offset, size; elf(5)).
#[test]
fn functions_of_short_verbs_lie_beside_each_other() {
    let file = fs::read(env!("CARGO_BIN_EXE_turf")).unwrap();
    let number = |at: usize, bytes: usize| {
        file[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (headers, each, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let names = number(headers + names * each + 24, 8);
    let size_of = |wanted: &[u8]| {
        let is_it = |index: &usize| file[names + number(headers + index * each, 4)..].starts_with(wanted);
        let index = (0..count).find(is_it).expect("the section is there");
        number(headers + index * each + 32, 8)
    };
    // Names that this build's settings have given other hashes are in the second.
    let size = size_of(b".text.touched\0") + size_of(b".text.like\0");
    assert!(size > 400_000, "only {size} bytes are in them");
    let constants = size_of(b".rodata.touched\0");
    assert!((50_000..500_000).contains(&constants), "{constants} bytes of constants are beside each other");
}
