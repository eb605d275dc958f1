//! A program's heap on its way through a file: made behind `serialize`, gone on with at `deserialize`.
//!
//! What natives hold lives in Rust tables, which stay behind. Most of it can be made again or is
//! empty after a drain; what is left over is refused by name, for the script would find a handle to nothing.
//! What V8 itself cannot write is watched by `src/js/96_snapshot.js`.

use crate::engine::{self, Engine, ImportMap, Script, ScriptError, Snapshot, SnapshotError};
use crate::{event_loop, files, http, net, web};

use super::warm_up::Program;
use super::{Runtime, lifecycle};

/// A room of natives that keeps state in a slot of the isolate. Every room with `v8::Global`s in its slot, or
/// with handles that JavaScript has, is one of [`ROOMS`].
struct Room {
    /// What it holds that cannot be in a snapshot, by name.
    held: fn(&mut v8::Isolate) -> Option<String>,
    /// Drops its slot: V8 writes no heap that anything outside refers to.
    forget: fn(&mut v8::Isolate),
}

const ROOMS: &[Room] = &[
    Room { held: |_| None, forget: |isolate| drop(isolate.remove_slot::<event_loop::EventLoop>()) },
    Room { held: |_| None, forget: http::detach },
    Room { held: net::held, forget: net::forget },
    Room { held: |isolate| files::held(isolate).map(str::to_owned), forget: files::forget },
    Room { held: |isolate| web::encoding::held(isolate).map(str::to_owned), forget: |_| () },
    Room { held: |isolate| web::compression::held(isolate).map(str::to_owned), forget: |_| () },
];

/// Longest list of objects in one message.
const MAX_NAMED: usize = 20;

/// Runs a program up to its `serialize` event and what its listeners wait for, and takes its heap. Needs a
/// process of its own: V8 does not free the isolate of a program that failed, and ends the process when it finds
/// an object that it cannot write and that nobody foresaw.
///
/// # Errors
/// As [`Runtime::load`] and [`Runtime::fire_serialize`]; or the program holds something that another process
/// could not go on with, which the error names.
pub fn build_snapshot(script: &Script, import_map: Option<ImportMap>) -> Result<Snapshot, ScriptError> {
    let mut runtime = Runtime::around(Engine::for_snapshot());
    if let Some(import_map) = import_map {
        runtime.set_import_map(import_map);
    }
    if let Err(error) = run(&mut runtime, script) {
        // V8's creator of snapshots insists on making one before it goes.
        std::mem::forget(runtime);
        return Err(error);
    }
    let (timers, next_exchange) = runtime.engine.with_scope(|scope| {
        let left = (event_loop::get(scope).script_timers_left(), net::next_id(scope));
        ROOMS.iter().for_each(|room| (room.forget)(scope));
        left
    });
    runtime.engine.into_snapshot(timers, next_exchange).map_err(|error| ScriptError::new(error.to_string()))
}

fn run(runtime: &mut Runtime, script: &Script) -> Result<(), ScriptError> {
    runtime.engine.with_scope(|scope| tell(scope, "beginSnapshot").map(drop))?;
    runtime.load(script)?;
    runtime.fire_serialize()?;
    collect_garbage(runtime)?;
    runtime.engine.with_scope(|scope| {
        let held = ROOMS.iter().find_map(|room| (room.held)(scope));
        match held.or_else(|| event_loop::get(scope).native_work().map(str::to_owned)) {
            Some(what) => Err(refusal(&[what])),
            None => Ok(()),
        }
    })?;
    let left = runtime.engine.with_scope(left_over)?;
    if !left.is_empty() {
        return Err(refusal(&left));
    }
    runtime.engine.with_scope(|scope| tell(scope, "endSnapshot").map(drop))
}

/// Until nothing more is found: a finaliser may run code of the program, and V8 refuses to write a heap in which
/// one is due.
fn collect_garbage(runtime: &mut Runtime) -> Result<(), ScriptError> {
    for _ in 0..2 {
        runtime.settle();
        runtime.engine.with_scope(|scope| {
            event_loop::get(scope).start_clock();
            event_loop::run_until(scope, |scope| !event_loop::get(scope).has_tasks())?;
            event_loop::run_platform_tasks(scope)
        })?;
    }
    Ok(())
}

fn refusal(left: &[String]) -> ScriptError {
    let mut lines: Vec<String> = left.iter().take(MAX_NAMED).map(|what| format!("  {what}")).collect();
    if left.len() > MAX_NAMED {
        lines.push(format!("  and {} more", left.len() - MAX_NAMED));
    }
    let hint = "Let go of it before `serialize` has ended, and make it in a listener of `deserialize`.";
    ScriptError::new(format!("cannot be in a snapshot:\n{}\n{hint}", lines.join("\n")))
}

/// What the program still holds that V8 cannot write.
fn left_over(scope: &mut v8::PinScope<'_, '_>) -> Result<Vec<String>, ScriptError> {
    let Some(left) = tell(scope, "leftForSnapshot")? else {
        return Ok(Vec::new());
    };
    let left = v8::Local::new(scope, left);
    let Ok(left) = left.try_cast::<v8::Array>() else {
        return Ok(Vec::new());
    };
    let texts = (0..left.length()).filter_map(|index| left.get_index(scope, index));
    let texts: Vec<_> = texts.collect();
    Ok(texts.into_iter().map(|text| text.to_rust_string_lossy(scope)).collect())
}

fn tell(
    scope: &mut v8::PinScope<'_, '_>,
    callback: &str,
) -> Result<Option<v8::Global<v8::Value>>, ScriptError> {
    let Some(function) = engine::callback(scope, callback) else {
        return Ok(None);
    };
    v8::scope!(let scope, scope);
    lifecycle::call(scope, &function, &[]).map(Some)
}

impl Runtime {
    /// A runtime in which the snapshot's program has run up to its `serialize` event. Its timers go on when
    /// the process becomes a worker.
    ///
    /// # Errors
    /// The heap is not what its file said.
    pub fn restored(snapshot: Snapshot) -> Result<Runtime, SnapshotError> {
        let (timers, next_exchange) = (snapshot.saved().timers.clone(), snapshot.saved().next_exchange);
        let mut runtime = Runtime::around(Engine::restored(snapshot)?);
        runtime.engine.with_scope(|scope| net::set_next_id(scope, next_exchange));
        runtime.timers = timers;
        runtime.program = Program::Loaded;
        Ok(runtime)
    }
}
