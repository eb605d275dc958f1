//! The tests, one file per area.

mod attacks;
mod clock;
mod config;
mod confined;
mod disguise;
mod events;
mod exec;
mod failure;
mod faults;
mod foreground;
mod hooks;
mod init;
mod isolation;
mod keeper;
mod lifecycle;
mod mounts;
mod pool;
mod pool_handover;
mod pool_life;
mod pool_limits;
mod pool_listeners;
mod pool_messages;
mod process;
mod promote;
mod promote_open;
mod replace;
mod resources;
pub mod rootless;
mod schema;
mod seccomp;
mod seed;
mod stuck;
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
        clock::TESTS,
        config::TESTS,
        attacks::TESTS,
        schema::TESTS,
        mounts::TESTS,
        seccomp::TESTS,
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
        stuck::TESTS,
        rootless::TESTS,
        seed::TESTS,
        replace::TESTS,
        promote::TESTS,
        promote_open::TESTS,
        confined::TESTS,
        pool::TESTS,
        pool_life::TESTS,
        pool_limits::TESTS,
        pool_messages::TESTS,
        pool_handover::TESTS,
        pool_listeners::TESTS,
        keeper::TESTS,
    ]
    .concat()
}
