//! `turf start`. Prints nothing: its standard output may be a user's terminal.

use std::os::fd::OwnedFd;

use anyhow::Result;
use turf_core::container::{self, Notify, service_manager};
use turf_core::root::{ContainerId, StateRoot};
use turf_core::sandbox::plan::ListenAddress;
use turf_core::seed::protocol::Timeline;

use crate::command::Start;
use crate::log::Log;

/// Starts the container, and waits for its readiness if somebody wants to be notified of it.
pub fn run(root: &StateRoot, start: &Start, log: &Log) -> Result<()> {
    let id = start.id.parse()?;
    let start_it = |listeners: &[OwnedFd]| Ok(((), container::start(root, &id, listeners)?));
    let ((), started) = start_container(root, &id, &start.listen, log, start_it)?;
    started.announce(root, &id, log);
    Ok(())
}

/// A container that has been started.
pub struct Started {
    /// Where it says that it is ready, if it was handed a `$NOTIFY_SOCKET`.
    pub notify: Option<Notify>,
    /// Whether it is a worker, which says nothing.
    pub is_worker: bool,
}

impl Started {
    /// Tells the service manager of the container's readiness and of its pid. Nobody may have to wait for an end that never
    /// comes, so what goes wrong is a warning: the container runs.
    pub fn announce(self, root: &StateRoot, id: &ContainerId, log: &Log) {
        let Some(notify) = self.notify else { return };
        let told = if self.is_worker {
            container::state(root, id).and_then(|state| notify.worker_is_ready(Some(state.pid)))
        } else {
            notify.wait_ready(root, id)
        };
        if let Err(error) = told {
            log.warning(&error.to_string());
        }
    }
}

/// Opens the listeners and starts the container by `start`, of which it passes on what that knows; shared with `turf run`.
pub fn start_container<T>(
    root: &StateRoot,
    id: &ContainerId,
    listen: &[String],
    log: &Log,
    start: impl FnOnce(&[OwnedFd]) -> turf_core::Result<(T, Option<Timeline>)>,
) -> Result<(T, Started)> {
    let addresses = listen.iter().map(|text| text.parse()).collect::<Result<Vec<ListenAddress>, _>>()?;
    let listeners = container::open_listeners(&addresses)?;
    let notify = match service_manager() {
        Some(manager) => Notify::listen(root, id, &manager)?,
        None => None,
    };
    let (known, timeline) = start(&listeners)?;
    if let Some(timeline) = &timeline {
        let shown = || serde_json::to_string(timeline).unwrap_or_else(|error| error.to_string());
        log.debug(|| format!("worker runs: {}", shown()));
    }
    Ok((known, Started { notify, is_worker: timeline.is_some() }))
}
