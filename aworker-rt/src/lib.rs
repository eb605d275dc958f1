//! Aworker: a Web-interoperable JavaScript runtime on V8 after the Service
//! Worker model, in one process with one thread.
//!
//! Life: [`initialize`] V8, make a [`Runtime`] from the built-in snapshot, load
//! a script, become a worker (after a fork, or cold), run until told to stop.
//! The library prints nothing but what scripts print, and never exits.
//!
//! How built-ins and native operations are written: `src/js/README.md`.

pub mod engine;
pub mod event_loop;
pub(crate) mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod inspector;
pub mod net;
pub(crate) mod typescript;
pub mod web;
pub mod worker;

pub use engine::{ImportMap, Script, ScriptError, Snapshot, SnapshotError, V8Flags, initialize};
pub use inspector::{Begin, InspectOptions};
pub use web::is_url;
pub use worker::{
    Asked, HeapSnapshots, IMPORT_MAP, ListenAddress, Listener, Pause, Runtime, Start, Supervision, Worker,
    WorkerOptions, build_snapshot,
};
