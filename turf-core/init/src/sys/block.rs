//! The block of memory that holds orders, and reading it.
#![allow(unsafe_code)]

use core::marker::PhantomData;

use super::raw::{Errno, number, syscall};
use super::{close, word};
use crate::orders::{Call, MARK, Orders};

/// Relocated orders.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    base: *mut u8,
    /// In bytes.
    length: u64,
    life: PhantomData<&'a [u64]>,
}

/// Where the program maps its orders: just above its own text, so that they share its page tables.
const PLACE: u64 = 0x21_0000;

impl<'a> Block<'a> {
    /// Relocates orders in place. `None` if they are of another form, or a pointer in them leads out of them.
    pub fn relocate(words: &'a mut [u64]) -> Option<Block<'a>> {
        let length = size_of_val(words) as u64;
        let block = Block { base: words.as_mut_ptr().cast(), length, life: PhantomData };
        if length < size_of::<Orders>() as u64 || block.orders().mark != MARK {
            return None;
        }
        let Orders { relocations, relocation_count, .. } = *block.orders();
        let list =
            block.inside((block.base as u64).wrapping_add(relocations), relocation_count.checked_mul(4)?)?;
        for index in 0..relocation_count as usize {
            // SAFETY: the whole list lies inside the words.
            let offset = unsafe { list.cast::<u32>().wrapping_add(index).read_unaligned() };
            let target = block.inside(block.base as u64 + u64::from(offset), 8)?.cast_mut().cast::<u64>();
            // SAFETY: the word lies inside the words.
            let place = unsafe { target.read_unaligned() };
            let pointer = block.inside((block.base as u64).wrapping_add(place), 0)?;
            // SAFETY: as above; the words are borrowed for writing.
            unsafe { target.write_unaligned(pointer as u64) };
        }
        Some(block)
    }

    /// The address, if so many bytes behind it lie inside the block.
    fn inside(&self, address: u64, bytes: u64) -> Option<*const u8> {
        let offset = address.checked_sub(self.base as u64)?;
        let fits = offset.checked_add(bytes)? <= self.length;
        fits.then(|| self.base.wrapping_add(offset as usize).cast_const())
    }

    /// Reads orders from a file into memory of their own, and closes it.
    pub fn read_from(fd: i32) -> Result<Block<'static>, Errno> {
        const SEEK_END: u64 = 2;
        const READ_WRITE: u64 = 3;
        const PRIVATE_ANONYMOUS: u64 = 0x22;
        const FIXED_NOREPLACE: u64 = 0x10_0000;
        // SAFETY: lseek takes integers.
        let length = unsafe { syscall(number::LSEEK, [word(fd), 0, SEEK_END, 0, 0, 0]) }? as u64;
        let map = |place: u64, flags: u64| {
            // SAFETY: a mapping that replaces none.
            unsafe { syscall(number::MMAP, [place, length, READ_WRITE, flags, u64::MAX, 0]) }
        };
        let base = map(PLACE, PRIVATE_ANONYMOUS | FIXED_NOREPLACE).or_else(|_| map(0, PRIVATE_ANONYMOUS))?;
        let mut done = 0;
        while done < length {
            let place = base as u64 + done;
            // SAFETY: the mapping has room from `done` to `length`.
            match unsafe { syscall(number::PREAD64, [word(fd), place, length - done, done, 0, 0]) }? {
                0 => break,
                read => done += read as u64,
            }
        }
        close(fd);
        // SAFETY: the mapping is `length` bytes of memory that nobody else knows, aligned to a page, never unmapped.
        let words = unsafe { core::slice::from_raw_parts_mut(base as *mut u64, length as usize / 8) };
        Block::relocate(words).ok_or(Errno(22))
    }

    /// The beginning of the orders.
    pub fn orders(&self) -> &'a Orders {
        // SAFETY: `relocate` has checked the size; the memory is aligned, initialised, and lives as long as 'a.
        unsafe { &*self.base.cast::<Orders>() }
    }

    /// The calls.
    pub fn calls(&self) -> &'a [Call] {
        let Orders { calls, call_count, .. } = *self.orders();
        let bytes = call_count.saturating_mul(size_of::<Call>() as u64);
        match self.inside(calls, bytes) {
            Some(first) if first.addr().is_multiple_of(align_of::<Call>()) => {
                // SAFETY: so many calls lie inside the block, aligned; any bytes are a call.
                unsafe { core::slice::from_raw_parts(first.cast::<Call>(), call_count as usize) }
            }
            _ => &[],
        }
    }

    /// The name of a call's step.
    pub fn step(&self, call: &Call) -> &'a [u8] {
        self.words(call.step, u64::from(call.step_length))
    }

    /// Text of the orders by pointer and length; empty where there is none.
    pub fn words(&self, pointer: u64, length: u64) -> &'a [u8] {
        let Some(first) = self.inside(pointer, length) else { return &[] };
        // SAFETY: so many bytes lie inside the block.
        unsafe { core::slice::from_raw_parts(first, length as usize) }
    }

    /// The pointers to the programs to try: a list that ends with a null pointer.
    pub fn programs(&self) -> impl Iterator<Item = u64> + use<'a> {
        let block = *self;
        let first = self.orders().programs;
        let at = move |index: u64| {
            let bytes = block.words(first.wrapping_add(8 * index), 8);
            bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        (0..).map(at).take_while(|pointer| *pointer != 0)
    }

    /// The bytes of a terminated string of the orders.
    pub fn string(&self, pointer: u64) -> &'a [u8] {
        let room = (self.base as u64 + self.length).saturating_sub(pointer);
        let bytes = self.words(pointer, room);
        bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
    }
}
