//! V8, kept in one place: the platform, the isolate, operations, modules,
//! exceptions. The only room of this crate with `unsafe`, and the only one that
//! knows how V8 is started, configured and kept fit for a fork.
#![allow(unsafe_code)]

pub mod conversions;
pub mod exceptions;
mod isolate;
mod madvise;
mod ops;
mod platform;
pub mod rejections;
mod snapshot;
pub(crate) mod stdio;
mod uncaught;

pub use exceptions::ScriptError;
pub use isolate::{Engine, callback};
pub use platform::{V8Flags, initialize, run_platform_task};
pub use uncaught::{call_or_fail, fail, take_failure};
