//! The heap behind `malloc`: Doug Lea's algorithm over one growing region, with a line drawn at the fork.
//!
//! ```text
//!   region:  | of the seed: read only by agreement | of this process: Dlmalloc carves and reuses | reserved ... |
//!            base                              frozen                                          next        end
//! ```
//!
//! [`Heap::freeze`] draws the line where the region ends at that moment. From then on nothing below it is handed out
//! again, and giving back a block below it does nothing: its free list would be a write to a page that all clones of
//! the seed share. What is lost is bounded by what lay below the line.
//!
//! Large blocks are mappings of their own, which go back to the system at once.

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dlmalloc::{Allocator, Dlmalloc};

/// Address space that is reserved for the region; only what is used becomes memory. No process of ours comes near: V8
/// keeps the heap of JavaScript elsewhere.
const RESERVED: usize = 64 << 30;
/// How much of the region is made accessible at a time: one system call each.
const COMMIT: usize = 1 << 20;
/// Blocks from here on are mappings of their own (mmap(2)).
const LARGE: usize = 512 << 10;
/// The alignment of every block (`alignof(max_align_t)`).
pub(super) const ALIGN: usize = 16;
/// Before a large block: where its mapping begins and how long it is. A multiple of [`ALIGN`].
const HEADER: usize = 2 * size_of::<usize>();
/// What Dlmalloc keeps in front of a block: its size, with flags in the lowest bits.
const CHUNK_OVERHEAD: usize = size_of::<usize>();
const CHUNK_FLAGS: usize = 0b111;
/// The flag of a block that is not free.
const CHUNK_IN_USE: usize = 0b010;
/// What Dlmalloc keeps at the beginning of a free block, at most: two words of sizes, links of a list and of a tree, a number.
const FREE_HEADER: usize = size_of::<[usize; 8]>();
const PAGE: usize = 4096;

/// Where the region begins (0: not reserved yet), how far it is handed to Dlmalloc, and how far it is accessible.
static BASE: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static COMMITTED: AtomicUsize = AtomicUsize::new(0);
/// Blocks below are never reused.
static FROZEN: AtomicUsize = AtomicUsize::new(0);
/// Bytes of large blocks' mappings.
static LARGE_BYTES: AtomicUsize = AtomicUsize::new(0);
/// The heap has asked the system for memory since somebody last asked.
static GREW: AtomicBool = AtomicBool::new(false);

/// The end of the region towards Dlmalloc. Only used under the heap's lock.
struct Region;

// SAFETY: `alloc` hands out addresses that nobody else has: the region only grows, but for what `free_part` took back.
unsafe impl Allocator for Region {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let nothing = (ptr::null_mut(), 0, 0);
        if !reserve() {
            return nothing;
        }
        let start = NEXT.load(Ordering::Relaxed);
        let size = size.next_multiple_of(PAGE);
        let Some(end) = start.checked_add(size).filter(|end| *end <= BASE.load(Ordering::Relaxed) + RESERVED)
        else {
            return nothing;
        };
        if !commit(end) {
            return nothing;
        }
        NEXT.store(end, Ordering::Relaxed);
        GREW.store(true, Ordering::Relaxed);
        (start as *mut u8, size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        let end = start as usize + old;
        if end != NEXT.load(Ordering::Relaxed) {
            return false;
        }
        let kept = start.wrapping_add(new);
        // SAFETY: the range is the end of the region, which Dlmalloc has just given up; it becomes zeroes.
        if unsafe { libc::madvise(kept.cast(), old - new, libc::MADV_DONTNEED) } != 0 {
            return false;
        }
        NEXT.store(kept as usize, Ordering::Relaxed);
        true
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}

/// Reserves the region, once; whether there is one.
fn reserve() -> bool {
    if BASE.load(Ordering::Relaxed) != 0 {
        return true;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping replaces nothing.
    let base = unsafe { libc::mmap(ptr::null_mut(), RESERVED, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return false;
    }
    BASE.store(base as usize, Ordering::Relaxed);
    NEXT.store(base as usize, Ordering::Relaxed);
    COMMITTED.store(base as usize, Ordering::Relaxed);
    true
}

/// Makes the region accessible up to `end`; whether it is.
fn commit(end: usize) -> bool {
    let committed = COMMITTED.load(Ordering::Relaxed);
    if end <= committed {
        return true;
    }
    let wanted = (end - committed).next_multiple_of(COMMIT);
    let wanted = wanted.min(BASE.load(Ordering::Relaxed) + RESERVED - committed);
    // SAFETY: the range is a part of our own reservation.
    let done =
        unsafe { libc::mprotect(committed as *mut libc::c_void, wanted, libc::PROT_READ | libc::PROT_WRITE) };
    if done == 0 {
        COMMITTED.store(committed + wanted, Ordering::Relaxed);
    }
    done == 0
}

/// The process's heap.
pub(super) struct Heap {
    locked: AtomicBool,
    small: UnsafeCell<Dlmalloc<Region>>,
}

// SAFETY: `small` is touched only between `lock` and `unlock`.
unsafe impl Sync for Heap {}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap { locked: AtomicBool::new(false), small: UnsafeCell::new(fresh()) }
    }

    /// Waits for the lock. The programs have one thread; tests have more.
    pub(super) fn lock(&self) {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // SAFETY: sched_yield(2) has no precondition.
            unsafe { libc::sched_yield() };
        }
    }

    /// Ends [`Heap::lock`].
    pub(super) fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    fn with_small<R>(&self, action: impl FnOnce(&mut Dlmalloc<Region>) -> R) -> R {
        self.lock();
        // SAFETY: the lock is held, and no action calls back into the heap.
        let result = action(unsafe { &mut *self.small.get() });
        self.unlock();
        result
    }

    /// A block of `size` bytes; null if there is no memory.
    pub(super) fn allocate(&self, size: usize) -> *mut u8 {
        if size >= LARGE {
            return map_large(size, ALIGN);
        }
        // SAFETY: any size is accepted.
        self.with_small(|small| unsafe { small.c_malloc(size) })
    }

    /// As [`Heap::allocate`], of zeroes.
    pub(super) fn allocate_zeroed(&self, size: usize) -> *mut u8 {
        if size >= LARGE {
            return map_large(size, ALIGN);
        }
        // SAFETY: any size is accepted.
        self.with_small(|small| unsafe { small.calloc(size, ALIGN) })
    }

    /// As [`Heap::allocate`], at a multiple of the layout's alignment.
    pub(super) fn allocate_aligned(&self, layout: Layout) -> *mut u8 {
        if layout.size().saturating_add(layout.align()) >= LARGE {
            return map_large(layout.size(), layout.align().max(ALIGN));
        }
        // SAFETY: a layout's alignment is a power of two.
        self.with_small(|small| unsafe { small.c_memalign(layout.align(), layout.size()) })
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// The block is null, or this heap's and nobody's any more.
    pub(super) unsafe fn free(&self, block: *mut u8) {
        match place_of(block) {
            Place::Nowhere | Place::Frozen => {}
            Place::Small => self.with_small(|small| {
                // The line may have been drawn meanwhile, by another thread.
                if place_of(block) == Place::Small {
                    // SAFETY: by the contract of this function.
                    unsafe { small.c_free(block) }
                }
            }),
            Place::Large => {
                // SAFETY: a block outside of the region is a large one.
                let (base, length) = unsafe { header(block) };
                LARGE_BYTES.fetch_sub(length, Ordering::Relaxed);
                // SAFETY: the mapping was made for this block alone.
                unsafe { libc::munmap(base as *mut libc::c_void, length) };
            }
        }
    }

    /// Changes a block's size, moving it if need be; null, with the block unchanged, if there is no memory.
    ///
    /// # Safety
    /// As [`Heap::free`].
    pub(super) unsafe fn resize(&self, block: *mut u8, size: usize) -> *mut u8 {
        let place = place_of(block);
        if place == Place::Nowhere {
            return self.allocate(size);
        }
        if place == Place::Small && size < LARGE {
            let resized = self.with_small(|small| {
                // SAFETY: by the contract of this function.
                (place_of(block) == Place::Small).then(|| unsafe { small.c_realloc(block, size) })
            });
            if let Some(resized) = resized {
                return resized;
            }
        }
        // SAFETY: by the contract of this function.
        let present = unsafe { self.usable_size(block) };
        if size <= present && size >= present / 2 {
            return block;
        }
        let moved = self.allocate(size);
        if moved.is_null() {
            return moved;
        }
        // SAFETY: two different blocks, each of at least as many bytes.
        unsafe { ptr::copy_nonoverlapping(block, moved, present.min(size)) };
        // SAFETY: by the contract of this function.
        unsafe { self.free(block) };
        moved
    }

    /// How many bytes of a block may be used.
    ///
    /// # Safety
    /// The block is null, or this heap's.
    pub(super) unsafe fn usable_size(&self, block: *mut u8) -> usize {
        match place_of(block) {
            Place::Nowhere => 0,
            Place::Small | Place::Frozen => {
                let head = block.wrapping_sub(CHUNK_OVERHEAD).cast::<usize>();
                // SAFETY: Dlmalloc keeps the size of a chunk before the block.
                (unsafe { head.read() } & !CHUNK_FLAGS) - CHUNK_OVERHEAD
            }
            Place::Large => {
                // SAFETY: a block outside of the region is a large one.
                let (base, length) = unsafe { header(block) };
                base + length - block as usize
            }
        }
    }

    /// Draws the line: what was handed out until here, and what is free between it, is written to no more by this heap.
    pub(super) fn freeze(&self) {
        self.with_small(|small| {
            // SAFETY: trimming has no precondition.
            unsafe { small.trim(0) };
            *small = fresh();
            FROZEN.store(NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
        });
    }

    /// Bytes that this process has taken from the system since [`Heap::freeze`], and all large blocks. What is free
    /// between blocks counts.
    pub(super) fn held(&self) -> usize {
        let begin = BASE.load(Ordering::Relaxed).max(FROZEN.load(Ordering::Relaxed));
        NEXT.load(Ordering::Relaxed) - begin + LARGE_BYTES.load(Ordering::Relaxed)
    }

    /// Whether memory was taken from the system since the last call.
    pub(super) fn take_grew(&self) -> bool {
        GREW.load(Ordering::Relaxed) && GREW.swap(false, Ordering::Relaxed)
    }

    /// Gives back to the system the free end of the region, and the pages of free blocks.
    pub(super) fn release_free(&self) {
        self.with_small(|small| {
            // SAFETY: trimming has no precondition.
            unsafe { small.trim(0) };
            let begin = BASE.load(Ordering::Relaxed).max(FROZEN.load(Ordering::Relaxed));
            let end = NEXT.load(Ordering::Relaxed);
            chunks(begin, end).filter(|chunk| !chunk.in_use).for_each(|chunk| {
                let first = (chunk.start + FREE_HEADER).next_multiple_of(PAGE);
                // What follows is the next chunk's record of this one's size.
                let last = (chunk.start + chunk.size) / PAGE * PAGE;
                if first < last {
                    discard(first, last - first);
                }
            });
        });
    }

    /// Gives back to the system what holds nothing: the free end of the region, and pages of nothing but zeroes, which
    /// read the same when they are touched again.
    pub(super) fn give_back(&self) {
        self.with_small(|small| {
            // SAFETY: trimming has no precondition.
            unsafe { small.trim(0) };
            let begin = BASE.load(Ordering::Relaxed).max(FROZEN.load(Ordering::Relaxed));
            let end = NEXT.load(Ordering::Relaxed);
            let mut run = begin..begin;
            for page in (begin..end).step_by(PAGE) {
                if is_zero(page) {
                    run.end = page + PAGE;
                    continue;
                }
                drop_pages(&run);
                run = page + PAGE..page + PAGE;
            }
            drop_pages(&run);
        });
    }
}

/// Whether a page of the region, between its beginning and `NEXT`, is nothing but zeroes.
fn is_zero(page: usize) -> bool {
    (page..page + PAGE).step_by(size_of::<u64>()).all(|word| {
        // SAFETY: that part of the region is readable, and the address is aligned; whatever stands there is a number.
        unsafe { ptr::with_exposed_provenance::<u64>(word).read_volatile() == 0 }
    })
}

/// Makes pages that hold zeroes ones without memory.
fn drop_pages(run: &std::ops::Range<usize>) {
    if !run.is_empty() {
        discard(run.start, run.len());
    }
}

/// Makes these pages of the region zeroes without memory. A failure costs the memory and nothing else.
fn discard(start: usize, length: usize) {
    let start = ptr::with_exposed_provenance_mut::<libc::c_void>(start);
    // SAFETY: the pages are private, anonymous and the region's, and nobody needs what they hold: zeroes, or what a block that is free
    // once held; the heap's lock is held, so nobody writes to them meanwhile.
    unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
}

/// A block as Dlmalloc sees it, or its free end of the region.
struct Chunk {
    start: usize,
    size: usize,
    in_use: bool,
}

/// The blocks between the beginning of Dlmalloc's segment and its end, in their order: each begins with a word of its
/// neighbour and one of its own size, which leads to the next.
fn chunks(begin: usize, end: usize) -> impl Iterator<Item = Chunk> {
    let mut start = begin;
    std::iter::from_fn(move || {
        // Behind the last one Dlmalloc keeps a few words of its own.
        if start + FREE_HEADER > end {
            return None;
        }
        let head = ptr::with_exposed_provenance::<usize>(start + CHUNK_OVERHEAD);
        // SAFETY: a chunk lies here, within the accessible part of the region, and its second word is its size; the
        // caller holds the heap's lock.
        let head = unsafe { head.read() };
        let chunk = Chunk { start, size: head & !CHUNK_FLAGS, in_use: head & CHUNK_IN_USE != 0 };
        start += chunk.size;
        (chunk.size > 0 && start <= end).then_some(chunk)
    })
}

/// A heap without memory.
const fn fresh() -> Dlmalloc<Region> {
    let mut small = Dlmalloc::new_with_allocator(Region);
    // There is one segment, which cannot be released.
    small.set_max_release_check_rate(0);
    small
}

/// What an address is to the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Null.
    Nowhere,
    Frozen,
    Small,
    Large,
}

fn place_of(block: *mut u8) -> Place {
    let (address, base) = (block as usize, BASE.load(Ordering::Relaxed));
    match () {
        () if address == 0 => Place::Nowhere,
        () if address < base || address >= base + RESERVED => Place::Large,
        () if address < FROZEN.load(Ordering::Relaxed) => Place::Frozen,
        () => Place::Small,
    }
}

/// A mapping that holds one block; it consists of zeroes.
fn map_large(size: usize, align: usize) -> *mut u8 {
    let lead = if align > PAGE { align } else { 0 } + HEADER.next_multiple_of(align);
    let Some(length) = size.checked_add(lead).and_then(|length| length.checked_next_multiple_of(PAGE)) else {
        return ptr::null_mut();
    };
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping replaces nothing.
    let base = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    LARGE_BYTES.fetch_add(length, Ordering::Relaxed);
    GREW.store(true, Ordering::Relaxed);
    let block = ((base as usize) + HEADER).next_multiple_of(align) as *mut u8;
    let header = block.wrapping_sub(HEADER).cast::<[usize; 2]>();
    // SAFETY: the mapping begins at least a header before the block.
    unsafe { header.write([base as usize, length]) };
    block
}

/// Beginning and length of a large block's mapping.
///
/// # Safety
/// The block is a large one.
unsafe fn header(block: *mut u8) -> (usize, usize) {
    // SAFETY: `map_large` has written it.
    let [base, length] = unsafe { block.wrapping_sub(HEADER).cast::<[usize; 2]>().read() };
    (base, length)
}
