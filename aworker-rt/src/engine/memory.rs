//! Memory of a process that is about to be cloned, and the end of a heap that is full.

use std::ffi::c_void;

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

/// Ends the process with a message when the heap reaches its limit. V8 would do
/// the same a little later, with a trace that says less.
pub(super) fn install_limit(isolate: &mut v8::Isolate) {
    isolate.add_near_heap_limit_callback(on_near_heap_limit, std::ptr::null_mut());
}

unsafe extern "C" fn on_near_heap_limit(_: *mut c_void, current: usize, _: usize) -> usize {
    let text = format!("fatal: the JavaScript heap reached its limit of {} MB\n", current >> 20);
    super::gauges::last_words(&[text.trim_end().as_bytes(), b"; at work: ", super::gauges::request()]);
    super::stdio::write_all(libc::STDERR_FILENO, text.as_bytes());
    std::process::abort();
}
