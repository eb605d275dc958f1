//! The tests, one file per area.

mod disguise;
mod events;
mod exec;
mod failure;
mod faults;
mod foreground;
mod hooks;
mod init;
mod isolation;
mod lifecycle;
mod pool;
mod process;
mod resources;
mod rootless;
mod seed;
mod systemd;
mod update;
mod verbs;
mod worker;

pub use failure::seed_pid;
pub use pool::Pool;
pub use worker::{HELLO, worker_of};

use crate::suite::Test;

/// All tests, in the order in which they run.
pub fn all() -> Vec<Test> {
    [
        lifecycle::TESTS,
        process::TESTS,
        isolation::TESTS,
        resources::TESTS,
        exec::TESTS,
        events::TESTS,
        update::TESTS,
        systemd::TESTS,
        verbs::TESTS,
        foreground::TESTS,
        hooks::TESTS,
        worker::TESTS,
        init::TESTS,
        disguise::TESTS,
        failure::TESTS,
        faults::TESTS,
        rootless::TESTS,
        seed::TESTS,
        pool::TESTS,
    ]
    .concat()
}
