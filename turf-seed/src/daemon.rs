//! Leaving the caller: a seed outlives the command that started it, and has nothing of it.

use std::io;

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdout, setsid};
use turf_core::limits::SEED_WARMING;
use turf_core::seed::groups::{self, Groups, Member};
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::process::exit_now;
use turf_core::sys::{fd, process};

use crate::options::Options;

/// Closes what was inherited beyond the standard streams, before anything is opened here.
pub fn close_inherited() -> Result<()> {
    fd::close_range_from(3).context("close inherited descriptors")
}

/// Returns in a new process that is the leader of its own session; the calling one ends with status 0.
pub fn detach() -> Result<()> {
    match fork().map_err(|error| error.source).context("fork the daemon")? {
        Fork::Parent { .. } => exit_now(0),
        Fork::Child => {}
    }
    setsid().context("setsid")?;
    Ok(())
}

/// Puts everything back that a caller may have set: signals, parent-death signal, directory, file mode mask.
pub fn forget_caller() -> Result<()> {
    set_pdeathsig(None).context("clear the parent-death signal")?;
    process::default_signal_actions();
    // A starter or a client that is gone must not end the seed.
    process::ignore_broken_pipes();
    SigSet::empty().thread_set_mask().context("unblock signals")?;
    std::env::set_current_dir("/").context("chdir to /")?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}

/// Moves into control groups of its own.
pub fn enter_cgroups(options: &Options) -> Groups {
    let (name, limits) = match options.tenant {
        None => (options.name.clone(), &[][..]),
        Some(tenant) => {
            (groups::name_of_tenant(&options.name, tenant, &options.directory), &SEED_WARMING[..])
        }
    };
    groups::enter(Member::Caller, &name, limits)
}

/// Sends what is written to standard output to the log from here on: the starter has read its line.
pub fn close_start_message() -> Result<()> {
    dup2_stdout(io::stderr()).context("point standard output to the log")
}
