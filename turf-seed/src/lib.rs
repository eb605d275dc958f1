//! The seam between the sandbox and V8: warm once, fork on request.
//!
//! ```text
//!  options -> daemon -> confine -> warmup -> forkable? -> server ----------------------------> end
//!                                               | fork request: helper
//!                                               v
//!                                             worker: dress, report, run user code
//!                                               | asked to be a seed: promote
//!                                               v
//!                                             server
//! ```
//!
//! One thread, always. The library is what the `turf-seed` program is made of, so that its parts can be tested.

pub mod confine;
pub mod daemon;
pub mod forkable;
pub mod helper;
pub mod options;
pub mod promote;
pub mod seed;
pub mod server;
pub mod warmup;
pub mod worker;
