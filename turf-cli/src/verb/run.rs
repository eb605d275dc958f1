//! `turf run`: create and start; in the foreground also wait and delete.

use anyhow::Result;
use turf_core::container::{self, Attended, Begin, Force, Foreground};
use turf_core::root::{ContainerId, StateRoot};

use super::create::{console, create_container, dry_run, foreground_console, hide_from_neighbours};
use super::start::start_container;
use crate::command::{Globals, Run};
use crate::log::Log;

/// Runs the container and returns its exit status, or 0 for a detached one.
pub fn run(root: &StateRoot, globals: &Globals, run: Run, log: &Log) -> Result<u8> {
    if run.create.dry_run {
        dry_run(root, globals, &run.create)?;
        return Ok(0);
    }
    hide_from_neighbours(&run.create)?;
    let id: ContainerId = run.create.id.parse()?;
    let foreground = if run.detach { None } else { Some(Foreground::block_signals()?) };
    let socket = run.create.console_socket.as_deref();
    let (terminal, console) = if run.detach { (None, console(socket)?) } else { foreground_console(socket)? };
    // Listeners are for workers only, and refused for a program before it runs.
    let begin = if run.listen.is_empty() { Begin::AtOnce } else { Begin::AtStart };
    let fresh = create_container(root, globals, &run.create, console, begin, log)?;
    let (mut running, started) =
        match start_container(root, &id, &run.listen, log, |listeners| fresh.start(root, listeners)) {
            Ok(started) => started,
            Err(error) => {
                // What `run` created, it removes; the reason of the failure is the one to report.
                report(&id, container::delete(root, &id, Force::Yes), log);
                return Err(error);
            }
        };
    let Some(foreground) = foreground else {
        if let Err(error) = running.confirm() {
            report(&id, running.delete(), log);
            return Err(error.into());
        }
        started.announce(root, &id, log);
        return Ok(0);
    };
    if let Some(notify) = started.notify.as_ref().filter(|_| started.is_worker)
        && let Err(error) = notify.worker_is_ready(None)
    {
        log.warning(&error.to_string());
    }
    let status = running.wait(&foreground, Attended { terminal, notify: started.notify });
    if !run.keep {
        report(&id, running.delete(), log);
    }
    // Wait statuses have eight bits, and 128 + 64 fits too.
    Ok(u8::try_from(status?).unwrap_or(u8::MAX))
}

/// What went wrong with the clearing up is told, but does not change how the container ended.
fn report(id: &ContainerId, deleted: turf_core::Result<Vec<turf_core::Error>>, log: &Log) {
    match deleted {
        Ok(warnings) => warnings.iter().for_each(|warning| log.warning(&warning.to_string())),
        Err(error) => log.warning(&format!("delete container {id}: {error}")),
    }
}
