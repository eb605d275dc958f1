//! What becomes of a process inside a sandbox: the orders it follows, and the small program that follows them.
//!
//! ```text
//!  turf, forked into the sandbox          turf-init, executed from a sealed memfd
//!    mounts, devices, the root             closes what it does not need, says that it is ready
//!    writes the orders            ------>  waits at the gate; for a program: performs the calls, executes it
//!    execve(turf-init)                     for a worker: reaps it, passes signals on, ends as it ended
//! ```
//!
//! The library is what both sides share: the form of the [`orders`], their [`calls`], the [`message`]s. A forked
//! worker performs its calls through it as well, so that there is one way to be dressed. The
//! program (`main.rs`) is compiled by turf-core's build script, without the C library and the standard
//! library, so that it needs a few pages of memory: it is paid once per container.
//!
//! Nothing here allocates, and nothing decides: the orders say it all.

#![cfg_attr(not(test), no_std)]

pub mod calls;
pub mod message;
pub mod orders;
pub mod sys;
mod waiting;

pub use waiting::follow;
