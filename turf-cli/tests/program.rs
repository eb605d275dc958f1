//! How the program `turf` is laid out.

use std::fs;

/// Peak memory and page faults of a verb depend on it. The list is old, or the linker has not understood its script, when
/// little of the text is in the section (its header: name, type, flags, address, offset, size; elf(5)).
#[test]
fn functions_of_short_verbs_lie_beside_each_other() {
    let file = fs::read(env!("CARGO_BIN_EXE_turf")).unwrap();
    let number = |at: usize, bytes: usize| {
        file[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (headers, each, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let names = number(headers + names * each + 24, 8);
    let section =
        |index: &usize| file[names + number(headers + index * each, 4)..].starts_with(b".text.touched\0");
    let touched = (0..count).find(section).expect("there is a section .text.touched");
    let size = number(headers + touched * each + 32, 8);
    assert!(size > 400_000, "only {size} bytes are in it");
}
