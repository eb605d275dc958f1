//! The clock of `performance`: monotonic, relative to the worker's time origin.
//! <https://w3c.github.io/hr-time/>

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// When this worker began, on both clocks.
struct TimeOrigin {
    monotonic: Instant,
    /// Milliseconds since the Unix epoch.
    wall_ms: f64,
}

impl TimeOrigin {
    fn at_present() -> TimeOrigin {
        // A clock before 1970 is answered with 0: there is nobody to report it to.
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        TimeOrigin { monotonic: Instant::now(), wall_ms }
    }
}

/// Sets the time origin to the present: called when a fork becomes a worker.
pub fn reset_time_origin(isolate: &mut v8::Isolate) {
    isolate.set_slot(TimeOrigin::at_present());
}

/// The isolate's time origin, set on first use.
fn time_origin(isolate: &mut v8::Isolate) -> &TimeOrigin {
    if isolate.get_slot::<TimeOrigin>().is_none() {
        reset_time_origin(isolate);
    }
    isolate.get_slot::<TimeOrigin>().expect("set above")
}

/// The clock's resolution in nanoseconds: what the standard allows an isolated
/// worker. <https://w3c.github.io/hr-time/#dfn-coarsen-time>
const RESOLUTION_NS: u128 = 5_000;

/// `ops.performance_now()`: milliseconds since the time origin.
pub(crate) fn performance_now(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let steps = time_origin(scope).monotonic.elapsed().as_nanos() / RESOLUTION_NS;
    #[allow(clippy::cast_precision_loss)]
    result.set_double((steps * RESOLUTION_NS) as f64 / 1e6);
}

/// `ops.performance_time_origin()`: milliseconds since the Unix epoch.
pub(crate) fn performance_time_origin(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    result.set_double(time_origin(scope).wall_ms);
}
