//! A call on a stack of its own, as deep as its recursion may become, for parsers that recurse as deep as their input nests and
//! do not look at how much stack is left. Memory is only used as far as the stack is.
//!
//! makecontext(3), swapcontext(3), mmap(2).

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

/// What a call needs beside what it says: the frames around it, and a page that ends what goes past the stack.
const MARGIN_BYTES: usize = 256 << 10;
/// A page.
const PAGE_BYTES: usize = 4096;

/// A call without its types.
type Task<'a> = &'a mut dyn FnMut();

thread_local! {
    /// The call that [`enter`] makes: makecontext(3) hands over integers only.
    static TASK: Cell<Option<*mut Task<'static>>> = const { Cell::new(None) };
}

/// Calls `action` on a stack of at least so many bytes. What it panics with goes on here.
///
/// # Errors
/// As mmap(2): the process may not have so much address space (ENOMEM).
pub(super) fn call<R>(bytes: usize, action: impl FnOnce() -> R) -> io::Result<R> {
    let stack = Stack::map(bytes.saturating_add(MARGIN_BYTES).next_multiple_of(PAGE_BYTES))?;
    let mut action = Some(action);
    let mut outcome = None;
    let mut task = || {
        let action = action.take().expect("it is called once");
        outcome = Some(catch_unwind(AssertUnwindSafe(action)));
    };
    switch(&stack, &mut task)?;
    drop(stack);
    match outcome.expect("it has been called") {
        Ok(value) => Ok(value),
        Err(panic) => resume_unwind(panic),
    }
}

/// Runs the task on the stack, and comes back.
fn switch(stack: &Stack, mut task: Task<'_>) -> io::Result<()> {
    let mut here = MaybeUninit::<libc::ucontext_t>::zeroed();
    let mut there = MaybeUninit::<libc::ucontext_t>::zeroed();
    // SAFETY: it fills in the context that it is given.
    if unsafe { libc::getcontext(there.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are a valid context, and getcontext has made it a complete one.
    let context = unsafe { there.assume_init_mut() };
    context.uc_stack.ss_sp = stack.memory;
    context.uc_stack.ss_size = stack.bytes;
    context.uc_link = here.as_mut_ptr();
    let task: *mut Task<'_> = &raw mut task;
    TASK.set(Some(task.cast()));
    // SAFETY: the context is complete, its stack is mapped and nobody else's, and `enter` takes no arguments.
    unsafe { libc::makecontext(there.as_mut_ptr(), enter, 0) };
    // SAFETY: both contexts live until this returns, which it does when `enter` has returned (uc_link).
    if unsafe { libc::swapcontext(here.as_mut_ptr(), there.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Where the other stack begins.
extern "C" fn enter() {
    let task = TASK.take().expect("`switch` has set it");
    // SAFETY: `switch` waits for this function with the task on its own stack, and uses it no more; its lifetime is longer than
    // this call's.
    let task = unsafe { &mut *task };
    task();
}

/// Memory for a stack, with a page at its end that may not be touched.
struct Stack {
    memory: *mut c_void,
    bytes: usize,
}

impl Stack {
    fn map(bytes: usize) -> io::Result<Stack> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a new mapping, which nothing else knows of.
        let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack { memory, bytes };
        // SAFETY: the lowest page of the mapping above.
        match unsafe { libc::mprotect(memory, PAGE_BYTES, libc::PROT_NONE) } {
            0 => Ok(stack),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing runs on it any more.
        unsafe { libc::munmap(self.memory, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a call of `deep` puts on the stack.
    const FRAME_BYTES: usize = 1024;

    fn deep(levels: usize) -> usize {
        let frame = std::hint::black_box([1_u8; FRAME_BYTES]);
        match levels {
            0 => 0,
            _ => deep(levels - 1) + usize::from(frame[levels % FRAME_BYTES]),
        }
    }

    #[test]
    fn a_call_may_recurse_deeper_than_the_threads_stack() {
        let levels = 100_000;
        assert_eq!(call(levels * 2 * FRAME_BYTES, || deep(levels)).expect("room"), levels);
    }

    #[test]
    fn calls_nest_and_give_what_they_borrow() {
        let text = String::from("outer");
        let inner = call(0, || call(0, || text.len()).expect("room")).expect("room");
        assert_eq!(inner, 5);
    }

    #[test]
    fn a_panic_goes_on_where_the_call_was_made() {
        let panic = catch_unwind(|| call(0, || panic!("from the other stack")));
        let panic = panic.expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"from the other stack"));
    }

    #[test]
    fn more_than_there_can_be_is_an_error() {
        let error = call(usize::MAX / 2, || ()).expect_err("no such room");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    }
}
