//! V8, kept in one place: the platform, the isolate, operations, modules,
//! exceptions. The only room of this crate with `unsafe`, and the only one that
//! knows how V8 is started, configured and kept fit for a fork.
#![allow(unsafe_code)]

mod accept;
mod ascii;
pub(crate) mod beside;
pub mod channel;
mod child;
mod context_handle;
pub mod conversions;
mod deep_stack;
mod dlsym;
pub mod exceptions;
pub(crate) mod file_calls;
pub mod gauges;
mod image;
mod import_map;
pub(crate) mod import_scripts;
mod inherited;
mod integrity;
mod isolate;
pub(crate) mod lazy;
mod locks;
mod madvise;
mod malloc;
mod memory;
mod module_files;
pub(crate) mod modules;
mod ops;
mod platform;
pub mod rejections;
pub(crate) mod request_origin;
mod ring;
pub mod running;
mod script;
pub mod signals;
mod snapshot;
mod source_maps;
mod specifier;
pub(crate) mod stdio;
pub mod trim;
pub(crate) mod typed;
pub(crate) mod uncaught;
pub(crate) mod wasm;
pub mod watchdog;
mod watched;

pub use accept::accept;
pub use ascii::is_ascii;
pub use child::in_child;
pub use context_handle::ContextHandle;
pub use exceptions::ScriptError;
pub(crate) use file_calls::{Access, Patience};
pub use import_map::ImportMap;
pub use inherited::listen_fds;
pub use isolate::{Engine, callback, inspect};
pub use malloc::give_back_memory;
pub use platform::{V8Flags, initialize, run_platform_task, v8_version};
pub use request_origin::{enter_request, in_request, leave_request};
pub(crate) use ring::{Completion, Look, Ring};
pub use script::{Loaded, Script, load, warm_up_compiler, warm_up_names};
pub use snapshot::{Saved, Snapshot, SnapshotError};
pub(crate) use source_maps::rewrite as with_original_places;
pub use uncaught::{call_or_fail, fail, take_failure};
pub use watched::{LOADED_FILES_FD, inheritable, open_process, prepare_child};
