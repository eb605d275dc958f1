//! Everything Turf knows about Linux and OCI: see docs/architecture.md.
//!
//! This library returns errors and prints nothing; it has no global state. Its only room with
//! `unsafe` is [`sys`].

pub mod bundle;
pub mod cgroup;
pub mod container;
pub mod error;
pub mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod limits;
pub mod pool;
pub mod root;
pub mod sandbox;
pub mod seed;
pub mod sys;
pub mod time;

pub use error::{Error, Operation, Result};
