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
    engine::warm_up_compiler(scope).map_err(ScriptError::new)?;
    http::warm_up(scope, ROUNDS as usize, http::WarmUp::WithListener);
    event_loop::run_until(scope, |_| false)
}

/// Requests of each kind after the collection of garbage. The first of them allocate what the collection has given back
/// and every worker would need at once (a page of the young generation, among others); further ones compile what the
/// warm-up has only marked as hot.
const REHEARSALS: usize = 64;

/// A little of the warm-up again, in a heap without garbage. The seed may have a program by now, which notices nothing.
pub(super) fn rehearse(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let kinds = match lifecycle::handles_fetch(scope)? {
        true => http::WarmUp::Modules,
        false => http::WarmUp::WithListener,
    };
    http::warm_up(scope, REHEARSALS, kinds);
    engine::warm_up_names(scope);
    event_loop::checkpoint(scope)
}
