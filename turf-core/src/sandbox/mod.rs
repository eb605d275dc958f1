//! The isolation of a container: from the plan to a process that runs inside.
//!
//! ```text
//!  config.json --compile--> Plan --spawn--> init: InitPlan's steps --> turf-init: waits at the gate
//!  (bundle)     (pure)                            orders (ProcessPlan)      |            |
//!                                         exec bundle: orders, execve <-+            +-> worker bundle: reaps the worker
//! ```
//!
//! [`plan`] and [`step`] are data, [`compile`] and [`mounts`] are pure; [`init`], [`exec`], [`enter`] and
//! [`hooks`] act. What acts decides nothing: every decision is in the plan.

pub mod compile;
pub mod enter;
pub mod exec;
pub mod gate;
pub mod hooks;
pub mod init;
pub(crate) mod launch;
pub(crate) mod memory_policy;
pub mod mounts;
pub(crate) mod net_devices;
pub(crate) mod number_list;
mod orders;
pub mod plan;
pub(crate) mod process;
pub(crate) mod program;
pub mod seccomp;
pub mod seccomp_agent;
pub mod step;

pub use launch::execute_from_read_only_mount;
pub use plan::{CgroupPlan, InitPlan, Plan, ProcessPlan};
pub use process::capability_names;
pub use step::{Step, StepError};
