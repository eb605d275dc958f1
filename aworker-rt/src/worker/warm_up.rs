//! Running the built-ins in a seed until what workers need is compiled.

use crate::engine::{self, ScriptError};
use crate::event_loop;
use crate::http;

use super::lifecycle;

/// Rounds of warm-up. V8 optimises a function after a few thousand calls; more
/// rounds change nothing but the seed's start time.
const ROUNDS: u32 = 3_000;

/// Runs the rounds, each with its microtasks.
pub(super) fn warm_up(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "warmUp") else {
        return Ok(());
    };
    for round in 0..ROUNDS {
        v8::scope!(let scope, scope);
        let round = v8::Integer::new_from_unsigned(scope, round).into();
        lifecycle::call(scope, &function, &[round])?;
        event_loop::checkpoint(scope)?;
    }
    http::warm_up(scope, ROUNDS as usize);
    event_loop::run_until(scope, |_| false)
}
