//! A seed that serves, and what its forks become: workers, one of which may become a seed in turn.

use std::process::ExitCode;

use aworker_rt::Runtime;
use turf_core::seed::groups;
use turf_core::seed::registry::SeedDir;
use turf_core::sys::process::exit_now;

use crate::options::Options;
use crate::server::{Outcome, Server};
use crate::worker::{self, Life, Prepared};

/// A seed that can be forked.
pub struct Seed {
    /// Where it is asked.
    pub server: Server,
    /// What is forked.
    pub runtime: Runtime,
    /// What its workers need not find out.
    pub prepared: Prepared,
    /// What it was told to be.
    pub options: Options,
}

impl Seed {
    /// Serves until told to stop; lives the workers' lives in each process that it forks. Returns only after a failure.
    pub fn live(mut self) -> ExitCode {
        loop {
            match self.server.serve() {
                Ok(Outcome::Forked(forked)) => {
                    let Seed { server, runtime, prepared, .. } = self;
                    // Closes what is the seed's.
                    drop(server);
                    match worker::live(*forked, runtime, &prepared) {
                        Life::Ended(status) => exit_now(status),
                        Life::Seed(seed) => self = *seed,
                    }
                }
                Ok(Outcome::Stopped) => {
                    eprintln!("turf-seed: stopped");
                    if let Err(error) = SeedDir::at(&self.options.directory).clear() {
                        eprintln!("turf-seed: {error}");
                    }
                    groups::remove(&self.options.name);
                    // V8 has nothing to tell anybody at its end.
                    exit_now(0)
                }
                Err(error) => {
                    eprintln!("turf-seed: {error:#}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
}
