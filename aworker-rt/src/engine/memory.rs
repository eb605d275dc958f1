//! Memory of a process that is about to be cloned, and the end of a heap that is full.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{gauges, running, stdio};

/// What the heap may grow by beyond its limit, once: its JavaScript has to come to a place where its stack can be read,
/// which takes a turn of a loop or a call. An array that takes more in one go ends the process without its stack.
const LAST_ROOM_BYTES: usize = 16 << 20;

/// The heap is full, and the stack was asked for.
static IS_FULL: AtomicBool = AtomicBool::new(false);

/// Collects all garbage, so that a fork copies as few page tables as possible and clones share the rest.
pub(super) fn settle(isolate: &mut v8::Isolate) {
    isolate.clear_kept_objects();
    // The first collection may leave objects that only finalisers of it free.
    isolate.low_memory_notification();
    isolate.low_memory_notification();
    // Counting needs a heap that is swept: without this every clone would sweep, and so copy, the
    // same pages for itself.
    isolate.get_heap_code_and_metadata_statistics();
}

/// Whose JavaScript it is.
struct Context(v8::Global<v8::Context>);

/// Lets go of the heap, which is about to be written.
pub(super) fn forget_context(isolate: &mut v8::Isolate) {
    isolate.remove_slot::<Context>();
}

/// Ends the process with a message and the stack of JavaScript when the heap reaches its limit. V8 would do the same a little later,
/// with a trace that says less.
pub(super) fn install_limit(isolate: &mut v8::Isolate, context: v8::Global<v8::Context>) {
    isolate.set_slot(Context(context));
    // It lives as long as the isolate, which lives as long as the process.
    let handle = Box::leak(Box::new(isolate.thread_safe_handle()));
    isolate.add_near_heap_limit_callback(on_near_heap_limit, std::ptr::from_mut(handle).cast());
}

unsafe extern "C" fn on_near_heap_limit(handle: *mut c_void, current: usize, _: usize) -> usize {
    if IS_FULL.swap(true, Ordering::Relaxed) {
        end(current - LAST_ROOM_BYTES, "");
    }
    // SAFETY: it is what `install_limit` gave, which is never freed.
    let isolate = unsafe { &*handle.cast::<v8::IsolateHandle>() };
    isolate.request_interrupt(on_full, std::ptr::without_provenance_mut(current));
    current + LAST_ROOM_BYTES
}

/// V8 has come to a place where the stack can be read.
unsafe extern "C" fn on_full(mut pointer: v8::UnsafeRawIsolatePtr, limit: *mut c_void) {
    // SAFETY: V8 calls with the isolate that runs, on its thread.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut pointer) };
    let Some(Context(context)) = isolate.get_slot::<Context>() else { end(limit.addr(), "") };
    let context = context.clone();
    // SAFETY: V8 calls this on the isolate's thread, and no other scope of ours is in use meanwhile.
    v8::callback_scope!(unsafe scope, isolate);
    let context = v8::Local::new(scope, context);
    let scope = &mut v8::ContextScope::new(scope, context);
    let stack = running::stack(scope);
    end(limit.addr(), &stack);
}

fn end(limit: usize, stack: &str) -> ! {
    let text = format!("fatal: the JavaScript heap reached its limit of {} MB", limit >> 20);
    gauges::last_words(&[
        text.as_bytes(),
        b"; at work: ",
        gauges::request(),
        if stack.is_empty() { b"" } else { b"\n" },
        stack.as_bytes(),
    ]);
    stdio::write_all(libc::STDERR_FILENO, format!("{text}\n{stack}").as_bytes());
    std::process::abort();
}
