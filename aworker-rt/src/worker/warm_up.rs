//! Running the built-ins in a seed until what workers need is compiled.

use crate::engine::{self, ScriptError};
use crate::event_loop;
use crate::http;

use super::{WorkerOptions, lifecycle};

/// Rounds of warm-up. V8 optimises a function after a few thousand calls; more
/// rounds change nothing but the seed's start time.
const ROUNDS: u32 = 3_000;

/// Beginnings of a worker's life: enough for baseline code.
const LIVES: u32 = 100;

/// The numbers of programs: smaller ones are compiled in the seed, this one in a clone.
const IN_CLONE: u32 = 2;

/// Runs the rounds, each with its microtasks.
pub(super) fn warm_up(scope: &mut v8::PinScope<'_, '_>, program: Program) -> Result<(), ScriptError> {
    let Some(function) = engine::callback(scope, "warmUp") else {
        return Ok(());
    };
    for round in 0..ROUNDS {
        v8::scope!(let scope, scope);
        let round = v8::Integer::new_from_unsigned(scope, round).into();
        lifecycle::call(scope, &function, &[round])?;
        event_loop::checkpoint(scope)?;
    }
    for round in 0..LIVES {
        v8::scope!(let scope, scope);
        rehearse_life(scope, program, round % IN_CLONE)?;
    }
    http::warm_up(scope, ROUNDS as usize, http::WarmUp::WithListener);
    event_loop::run_until(scope, |_| false)
}

/// Requests of each kind after the collection of garbage. The first of them allocate what the collection has given back
/// and every worker would need at once (a page of the young generation, among others); further ones compile what the
/// warm-up has only marked as hot.
const REHEARSALS: usize = 64;

/// The same in a clone, whose first steps make copies of the pages that they write to.
const REHEARSALS_IN_CLONE: usize = 2;

/// What a worker does from its start to its first answer, in a clone that is not started yet.
pub(super) fn rehearse_in_clone(
    scope: &mut v8::PinScope<'_, '_>,
    program: Program,
) -> Result<(), ScriptError> {
    rehearse_life(scope, program, IN_CLONE)?;
    rehearse_requests(scope, REHEARSALS_IN_CLONE)
}

/// Whether there is a program already, which must notice nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// It comes with the start.
    None,
    /// The seed has run it.
    Loaded,
}

/// The steps of a worker's life before its first request, from native code as there: an object that is made in another
/// way has another hidden class, and what V8 has optimised for the one would be thrown away in each worker.
fn rehearse_life(scope: &mut v8::PinScope<'_, '_>, program: Program, number: u32) -> Result<(), ScriptError> {
    let environment = vec![("AWORKER".to_owned(), "rehearsal".to_owned())];
    let rehearsed =
        WorkerOptions { arguments: vec!["rehearsal".to_owned()], environment, ..WorkerOptions::default() };
    lifecycle::tell_environment(scope, &rehearsed)?;
    lifecycle::tell_environment(scope, &WorkerOptions::default())?;
    if program == Program::Loaded {
        return Ok(());
    }
    lifecycle::set_location(scope, "about:blank")?;
    let undo = engine::warm_up_compiler(scope, number).map_err(ScriptError::new)?;
    lifecycle::fire(scope, "rehearsal")?;
    lifecycle::handles_fetch(scope)?;
    lifecycle::call(scope, &undo, &[]).map(drop)
}

/// A little of the warm-up again, in a heap without garbage. The seed may have a program by now, which notices nothing.
pub(super) fn rehearse(scope: &mut v8::PinScope<'_, '_>, program: Program) -> Result<(), ScriptError> {
    rehearse_life(scope, program, 0)?;
    rehearse_requests(scope, REHEARSALS)?;
    engine::warm_up_names(scope);
    event_loop::checkpoint(scope)
}

/// Once more, when nothing has to be compiled: what runs here is what workers run.
pub(super) fn rehearse_again(scope: &mut v8::PinScope<'_, '_>, program: Program) -> Result<(), ScriptError> {
    rehearse_life(scope, program, IN_CLONE + 1)?;
    rehearse_requests(scope, 1)
}

fn rehearse_requests(scope: &mut v8::PinScope<'_, '_>, rounds: usize) -> Result<(), ScriptError> {
    let kinds = match lifecycle::handles_fetch(scope)? {
        true => http::WarmUp::Modules,
        false => http::WarmUp::WithListener,
    };
    http::warm_up(scope, rounds, kinds);
    event_loop::checkpoint(scope)
}
