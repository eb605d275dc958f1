//! Memory of a process that is about to be cloned, and the end of a heap that is full.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{gauges, running, stdio};

/// The share of its limit that a heap must hold to be called full, in percent. V8 also asks for more when it cannot get
/// what is no part of the heap, the address space of a resizable ArrayBuffer for instance: that is an exception for the
/// script. A heap whose collections give back too little, V8 calls full from 80 percent on.
const FULL_PERCENT: usize = 75;

/// What the heap may grow by beyond its limit, once: its JavaScript has to come to a place where its stack can be read,
/// which takes a turn of a loop or a call. An array that takes more in one go ends the process without its stack.
const LAST_ROOM_BYTES: usize = 16 << 20;

/// The limit of the heap, as V8 said when it last asked for more.
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(0);

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

/// What the callback of the limit is given.
struct Limited {
    isolate: v8::UnsafeRawIsolatePtr,
    handle: v8::IsolateHandle,
}

/// Ends the process with a message and the stack of JavaScript when the heap reaches its limit. V8 would do the same a little later,
/// with a trace that says less.
pub(super) fn install_limit(isolate: &mut v8::Isolate, context: v8::Global<v8::Context>) {
    isolate.set_slot(Context(context));
    // SAFETY: the pointer is used in the isolate's own callback only.
    let pointer = unsafe { isolate.as_raw_isolate_ptr() };
    // It lives as long as the isolate, which lives as long as the process.
    let limited = Box::leak(Box::new(Limited { isolate: pointer, handle: isolate.thread_safe_handle() }));
    isolate.add_near_heap_limit_callback(on_near_heap_limit, std::ptr::from_mut(limited).cast());
    isolate.set_oom_error_handler(on_out_of_memory);
}

unsafe extern "C" fn on_near_heap_limit(limited: *mut c_void, current: usize, initial: usize) -> usize {
    LIMIT_BYTES.store(initial, Ordering::Relaxed);
    // SAFETY: it is what `install_limit` gave, which is never freed; nobody else has a reference.
    let limited = unsafe { &mut *limited.cast::<Limited>() };
    // SAFETY: V8 calls on the isolate's thread; its counters are all that is read.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut limited.isolate) };
    if isolate.get_heap_statistics().total_heap_size() < current / 100 * FULL_PERCENT {
        return current;
    }
    if IS_FULL.swap(true, Ordering::Relaxed) {
        end(initial, "");
    }
    limited.handle.request_interrupt(on_full, std::ptr::without_provenance_mut(initial));
    current + LAST_ROOM_BYTES
}

/// V8 cannot go on: an object in one piece does not fit beside what is in the heap. When it is the system that has no memory,
/// V8 says so itself.
unsafe extern "C" fn on_out_of_memory(_: *const c_char, details: &v8::OomDetails) {
    if details.is_heap_oom {
        end(LIMIT_BYTES.load(Ordering::Relaxed), "");
    }
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
