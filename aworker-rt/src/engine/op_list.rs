// The native operations, in one list: `name => path of the Rust function`.
//
// JavaScript built-ins call them as `ops.name(...)`. The library takes the paths,
// the build script only the names (see `ops.rs` and `build.rs`), so this file is
// included by both and holds nothing else. Sort by file, then by name.

/// Calls `$with!` with every operation.
macro_rules! for_each_op {
    ($with:ident) => {
        $with! {
            error_location => crate::engine::exceptions::error_location,
            print => crate::engine::stdio::print,
            queue_microtask => crate::event_loop::queue_microtask,
            timer_cancel => crate::event_loop::timer_cancel,
            timer_start => crate::event_loop::timer_start,
        }
    };
}
