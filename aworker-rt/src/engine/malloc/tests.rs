//! What malloc(3) promises, and what `freeze` adds. These run on the heap of the whole test program.

use std::ffi::c_void;
use std::hint::black_box;
use std::slice;

use super::{aligned_alloc, calloc, malloc_usable_size, posix_memalign};

/// The compiler knows what malloc(3) does, and would leave out what these tests look at.
fn malloc(size: usize) -> *mut c_void {
    black_box(super::malloc as extern "C" fn(usize) -> *mut c_void)(size)
}

/// Sizes on both sides of every border: alignment, small and tree bins, pages, mappings of their own.
const SIZES: [usize; 16] =
    [0, 1, 8, 15, 16, 17, 24, 255, 256, 257, 4095, 4096, 65_536, 524_287, 524_288, 3_000_001];

fn fill(block: *mut c_void, len: usize, value: u8) {
    // SAFETY: the caller has just been given these bytes.
    unsafe { block.cast::<u8>().write_bytes(value, len) };
}

fn holds(block: *mut c_void, len: usize, value: u8) -> bool {
    // SAFETY: the caller's block has these bytes, and they were written.
    unsafe { slice::from_raw_parts(block.cast::<u8>(), len) }.iter().all(|byte| *byte == value)
}

fn give_back(block: *mut c_void) {
    // SAFETY: every test gives back its own blocks, once.
    unsafe { black_box(super::free as unsafe extern "C" fn(*mut c_void))(block) };
}

fn usable(block: *mut c_void) -> usize {
    // SAFETY: the block is the caller's.
    unsafe { malloc_usable_size(block) }
}

fn resize(block: *mut c_void, len: usize) -> *mut c_void {
    // SAFETY: the block is the caller's, who goes on with the result.
    unsafe {
        black_box(super::realloc as unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void)(block, len)
    }
}

#[test]
fn all_of_the_usable_size_may_be_used() {
    let blocks: Vec<_> = SIZES.iter().map(|size| (malloc(*size), *size)).collect();
    for (block, size) in &blocks {
        assert!(!block.is_null() && (*block as usize).is_multiple_of(16), "{size}");
        assert!(usable(*block) >= *size, "{size}: {}", usable(*block));
        fill(*block, usable(*block), *size as u8);
    }
    for (block, size) in blocks {
        assert!(holds(block, usable(block), size as u8), "{size}");
        give_back(block);
    }
}

#[test]
fn blocks_lie_where_they_were_asked_for() {
    for align in [16, 64, 4096, 65_536, 2 << 20] {
        for size in SIZES {
            let block = aligned_alloc(align, size);
            assert!(!block.is_null() && (block as usize).is_multiple_of(align), "{align} {size}");
            fill(block, size, 7);
            assert!(usable(block) >= size);
            give_back(block);
            let mut block = std::ptr::null_mut();
            // SAFETY: the result is written to a live pointer.
            assert_eq!(unsafe { posix_memalign(&raw mut block, align, size) }, 0);
            assert!((block as usize).is_multiple_of(align), "{align} {size}");
            give_back(block);
        }
    }
}

#[test]
fn zeroed_blocks_are_zero_where_others_were() {
    for size in SIZES {
        let dirty = malloc(size);
        fill(dirty, size, 0xff);
        give_back(dirty);
        let block = calloc(size, 1);
        assert!(holds(block, size, 0), "{size}");
        give_back(block);
    }
}

#[test]
fn a_resized_block_keeps_its_bytes() {
    for from in SIZES {
        for to in SIZES {
            let block = malloc(from);
            fill(block, from, 0x5a);
            let block = resize(block, to);
            assert!(holds(block, from.min(to), 0x5a), "{from} to {to}");
            assert!(usable(block) >= to);
            fill(block, to, 1);
            give_back(block);
        }
    }
}

#[test]
fn what_cannot_be_had_is_null() {
    let size = usize::MAX - 4096;
    assert!(malloc(size).is_null() && black_box(aligned_alloc(64, size)).is_null());
    assert!(black_box(calloc(usize::MAX / 2, 3)).is_null());
    assert!(resize(std::ptr::null_mut(), size).is_null());
    let block = malloc(100);
    fill(block, 100, 3);
    assert!(resize(block, size).is_null());
    assert!(holds(block, 100, 3));
    give_back(block);
    let mut block = std::ptr::null_mut();
    // SAFETY: the result is written to a live pointer.
    assert_eq!(unsafe { posix_memalign(&raw mut block, 3, 8) }, libc::EINVAL);
    give_back(std::ptr::null_mut());
}

/// Neither `free` nor `realloc` writes to what lies below the line, and nothing new lies there.
#[test]
fn a_frozen_block_is_left_alone() {
    let blocks: Vec<_> = (0..200).map(|index| malloc(index * 24)).collect();
    for (index, block) in blocks.iter().enumerate() {
        fill(*block, usable(*block), index as u8);
    }
    let highest = blocks.iter().map(|block| *block as usize).max();
    super::freeze();
    for block in &blocks[..100] {
        give_back(*block);
    }
    let moved: Vec<_> = blocks[100..].iter().map(|block| resize(*block, 10_000)).collect();
    let young: Vec<_> = (0..200).map(|index| malloc(index * 24)).collect();
    for (index, block) in blocks.iter().enumerate() {
        assert!(holds(*block, usable(*block), index as u8), "block {index}");
    }
    for (index, block) in moved.iter().enumerate() {
        assert!(holds(*block, (index + 100) * 24, (index + 100) as u8), "moved block {index}");
    }
    for block in moved.into_iter().chain(young) {
        assert!(Some(block as usize) > highest);
        give_back(block);
    }
}

#[test]
fn pages_of_zeroes_go_back_to_the_system_and_are_zeroes_still() {
    holds_in_a_process_of_one_thread(zeroes_go_back);
}

#[test]
fn pages_of_free_blocks_go_back_to_the_system_and_others_stay() {
    holds_in_a_process_of_one_thread(free_blocks_go_back);
}

fn holds_in_a_process_of_one_thread(fact: fn() -> bool) {
    // It makes fork(2) wait for the heap, the only lock that the child needs.
    crate::engine::initialize(&crate::engine::V8Flags::default());
    // SAFETY: the child uses nothing but the heap, and ends without running anybody's handlers.
    match unsafe { libc::fork() } {
        0 => {
            let status = i32::from(!fact());
            // SAFETY: as above.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = -1;
            // SAFETY: `status` is a live c_int.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert!(waited == child && status == 0, "the child ended with {status}");
        }
    }
}

fn zeroes_go_back() -> bool {
    const LEN: usize = 256 << 10;
    let (empty, full) = (malloc(LEN), malloc(LEN));
    fill(empty, LEN, 0);
    fill(full, LEN, 7);
    let before = (resident(empty, LEN), resident(full, LEN));
    super::give_back_memory();
    let after = (resident(empty, LEN), resident(full, LEN));
    // The first and the last page are shared with other blocks.
    let given_back = before.0 >= 63 && after.0 <= 2 && before.1 == after.1;
    given_back && holds(empty, LEN, 0) && holds(full, LEN, 7)
}

fn free_blocks_go_back() -> bool {
    const LEN: usize = 256 << 10;
    // Blocks of every size between large ones, so that free ones of all kinds lie among those in use.
    let kept: Vec<_> = SIZES.iter().map(|size| (malloc(*size), *size)).collect();
    let (freed, full) = (malloc(LEN), malloc(LEN));
    let between: Vec<_> = (0..100).map(|index| malloc(index * 50)).collect();
    for (block, size) in kept.iter().chain([&(freed, LEN), &(full, LEN)]) {
        fill(*block, *size, 7);
    }
    between.iter().step_by(2).for_each(|block| give_back(*block));
    let before = resident(freed, LEN);
    give_back(freed);
    super::release_free();
    let after = resident(freed, LEN);
    let stay = kept.iter().chain([&(full, LEN)]).all(|(block, size)| holds(*block, *size, 7));
    // The heap goes on as if nothing had happened, and what it promises to be zeroes is.
    let again = calloc(LEN, 1);
    let many: Vec<_> = (0..200).map(|index| malloc(index * 100)).collect();
    many.iter().enumerate().for_each(|(index, block)| fill(*block, index * 100, 9));
    let all_there = many.iter().enumerate().all(|(index, block)| holds(*block, index * 100, 9));
    before >= 63 && after <= 2 && stay && holds(again, LEN, 0) && all_there
}

/// How many pages of a block are in memory: mincore(2).
fn resident(block: *mut c_void, len: usize) -> usize {
    let begin = (block as usize) & !4095;
    let pages = (block as usize + len - begin).div_ceil(4096);
    let mut found = vec![0_u8; pages];
    // SAFETY: the block lies within these pages, and there is a byte for each of them.
    let asked = unsafe { libc::mincore(begin as *mut c_void, pages * 4096, found.as_mut_ptr()) };
    assert_eq!(asked, 0, "mincore");
    found.iter().filter(|page| **page & 1 == 1).count()
}

/// Twenty thousand random steps against a record of what every block must hold.
#[test]
fn random_steps_keep_every_block() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut blocks: Vec<(*mut c_void, usize, u8)> = Vec::new();
    for step in 0..20_000_usize {
        if step % 500 == 0 {
            super::release_free();
        }
        let len = [64, 1_000, 9_000, 700_000][[0, 0, 0, 1, 1, 2, 2, 3][random(8)]];
        let len = random(len);
        match random(3) {
            0 if !blocks.is_empty() => {
                let (block, len, value) = blocks.swap_remove(random(blocks.len()));
                assert!(holds(block, len, value), "step {step}");
                give_back(block);
            }
            1 if !blocks.is_empty() => {
                let index = random(blocks.len());
                let (block, old, value) = blocks[index];
                let block = resize(block, len);
                assert!(holds(block, old.min(len), value), "step {step}");
                fill(block, len, value);
                blocks[index] = (block, len, value);
            }
            _ if blocks.len() < 300 => {
                let block = malloc(len);
                fill(block, len, step as u8);
                blocks.push((block, len, step as u8));
            }
            _ => {}
        }
    }
    for (block, len, value) in blocks {
        assert!(holds(block, len, value));
        give_back(block);
    }
}
