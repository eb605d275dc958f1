//! `malloc` and its family, and C++'s `new` and `delete`, for the whole program: V8, libc and Rust.
//!
//! The `v8` crate's archive brings Chromium's PartitionAlloc as `malloc`. It spreads blocks by size over many pages
//! and keeps reusing those that a seed has left half empty, so that a worker's first hundred allocations copy a hundred
//! pages. This one packs them, and knows of the fork ([`freeze`]). The program's own definitions take precedence over the
//! archive's, as for [`madvise`](super::madvise): all names of that archive member that anybody uses stand here.
//!
//! malloc(3), posix_memalign(3), malloc_usable_size(3).

mod heap;
#[cfg(test)]
mod tests;

use std::alloc::Layout;
use std::ffi::{c_int, c_void};

use heap::Heap;

static HEAP: Heap = Heap::new();

/// Never again writes to a page that holds a block of now: for a process that is about to be cloned.
pub(super) fn freeze() {
    HEAP.freeze();
}

/// Gives memory that starting up has left empty back to the system. For a process of one thread.
pub fn give_back_memory() {
    HEAP.give_back();
}

/// Bytes that were taken from the system since the process was last frozen; what is free between blocks counts.
pub(super) fn held() -> usize {
    HEAP.held()
}

/// Whether memory was taken from the system since the last call.
pub(super) fn take_grew() -> bool {
    HEAP.take_grew()
}

/// Gives the pages of free blocks back to the system.
pub(super) fn release_free() {
    HEAP.release_free();
}

/// Makes fork(2) wait until no thread is inside the heap. Programs have one thread; tests that fork have more.
pub(super) fn make_forkable() {
    extern "C" fn lock() {
        HEAP.lock();
    }
    extern "C" fn unlock() {
        HEAP.unlock();
    }
    // SAFETY: the handlers call nothing but the lock. A failure (no memory) leaves programs of one thread as they are.
    unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(unlock)) };
}

/// The block, or null with `errno` as malloc(3) leaves it.
fn or_no_memory(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        // SAFETY: libc gives the address of this thread's `errno`.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the address is valid for the life of the thread.
        unsafe { errno.write(libc::ENOMEM) };
    }
    block.cast()
}

fn aligned(align: usize, size: usize) -> *mut c_void {
    match Layout::from_size_align(size, align) {
        Ok(layout) => or_no_memory(HEAP.allocate_aligned(layout)),
        Err(_) => or_no_memory(std::ptr::null_mut()),
    }
}

#[unsafe(no_mangle)]
extern "C" fn malloc(size: usize) -> *mut c_void {
    or_no_memory(HEAP.allocate(size))
}

#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    or_no_memory(count.checked_mul(size).map_or(std::ptr::null_mut(), |size| HEAP.allocate_zeroed(size)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller gives null or a block of `malloc`.
    or_no_memory(unsafe { HEAP.resize(block.cast(), size) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller gives null or a block of `malloc`.
    unsafe { HEAP.free(block.cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller gives null or a block of `malloc`.
    unsafe { HEAP.usable_size(block.cast()) }
}

#[unsafe(no_mangle)]
extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

#[unsafe(no_mangle)]
extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(4096, size)
}

#[unsafe(no_mangle)]
extern "C" fn pvalloc(size: usize) -> *mut c_void {
    aligned(4096, size.checked_next_multiple_of(4096).unwrap_or(usize::MAX))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(result: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<usize>()) {
        return libc::EINVAL;
    }
    let Ok(layout) = Layout::from_size_align(size, align) else { return libc::ENOMEM };
    let block = HEAP.allocate_aligned(layout);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller gives a place for the result.
    unsafe { result.write(block.cast()) };
    0
}

/// C++'s `new`, which does not return without memory. V8 is compiled without exceptions.
fn or_abort(block: *mut c_void) -> *mut c_void {
    if block.is_null() {
        super::stdio::write_all(libc::STDERR_FILENO, b"fatal: out of memory\n");
        std::process::abort();
    }
    block
}

/// The forms of `new` and `delete`, by their mangled names (Itanium C++ ABI): `m` is size_t, `St11align_val_t` the
/// alignment, `RKSt9nothrow_t` a tag that is not looked at.
macro_rules! operators {
    ($(new $new:ident $new_nothrow:ident $new_aligned:ident $new_aligned_nothrow:ident;)*
     $(delete $($delete:ident)*;)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $new(size: usize) -> *mut c_void {
                or_abort(malloc(size))
            }
            #[unsafe(no_mangle)]
            extern "C" fn $new_nothrow(size: usize, _: *const c_void) -> *mut c_void {
                malloc(size)
            }
            #[unsafe(no_mangle)]
            extern "C" fn $new_aligned(size: usize, align: usize) -> *mut c_void {
                or_abort(aligned(align, size))
            }
            #[unsafe(no_mangle)]
            extern "C" fn $new_aligned_nothrow(size: usize, align: usize, _: *const c_void) -> *mut c_void {
                aligned(align, size)
            }
        )*
        $($(
            // What follows the block in the registers (size, alignment, tag) is not needed.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $delete(block: *mut c_void) {
                // SAFETY: the caller gives null or what `new` gave.
                unsafe { free(block) }
            }
        )*)*
    };
}

mod operators {
    #![allow(non_snake_case)]
    use super::{aligned, c_void, free, malloc, or_abort};

    operators! {
        new _Znwm _ZnwmRKSt9nothrow_t _ZnwmSt11align_val_t _ZnwmSt11align_val_tRKSt9nothrow_t;
        new _Znam _ZnamRKSt9nothrow_t _ZnamSt11align_val_t _ZnamSt11align_val_tRKSt9nothrow_t;
        delete _ZdlPv _ZdlPvm _ZdlPvRKSt9nothrow_t _ZdlPvSt11align_val_t _ZdlPvmSt11align_val_t
            _ZdlPvSt11align_val_tRKSt9nothrow_t;
        delete _ZdaPv _ZdaPvm _ZdaPvRKSt9nothrow_t _ZdaPvSt11align_val_t _ZdaPvmSt11align_val_t
            _ZdaPvSt11align_val_tRKSt9nothrow_t;
    }
}
