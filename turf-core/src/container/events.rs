//! `events`: what a container uses, again and again, and when it runs out of memory.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::state::{Creator, State};
use super::status::Status;
use crate::cgroup::{OomEvent, OomWatch, Stats};
use crate::error::{Error, Result};
use crate::root::{ContainerId, StateRoot};

/// What a container has used until now.
pub fn stats(root: &StateRoot, id: &ContainerId) -> Result<Stats> {
    living(root, id)?.cgroup.stats()
}

/// One thing that [`Events::wait_next`] tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What the container has used, once for each interval.
    Stats(Box<Stats>),
    /// It ran out of memory.
    OutOfMemory,
}

/// The events of one container, until it ends.
#[derive(Debug)]
pub struct Events {
    state: State,
    init: OwnedFd,
    /// None for a container whose memory is not counted.
    oom: Option<OomWatch>,
    interval: Duration,
    due: Instant,
    ended: bool,
}

impl Events {
    /// Watches a container from here on.
    pub fn watch(root: &StateRoot, id: &ContainerId, interval: Duration) -> Result<Events> {
        let state = living(root, id)?;
        let init = match &state.init {
            Some(init) => init.open()?,
            None => None,
        };
        let init = init.ok_or_else(|| refused(&state, Status::Stopped))?;
        let oom = if state.cgroup.counts_memory() { Some(state.cgroup.watch_oom()?) } else { None };
        Ok(Events { state, init, oom, interval, due: Instant::now() + interval, ended: false })
    }

    /// Waits for the next event; nothing once the container has ended.
    pub fn wait_next(&mut self) -> Result<Option<Event>> {
        loop {
            // Asked before the end is: the kill of init for want of memory is told before its end.
            if let Some(oom) = &mut self.oom {
                match oom.next(Some(Duration::ZERO))? {
                    OomEvent::OutOfMemory => return Ok(Some(Event::OutOfMemory)),
                    OomEvent::Ended => self.oom = None,
                    OomEvent::Nothing => {}
                }
            }
            if self.ended {
                return Ok(None);
            }
            if Instant::now() >= self.due {
                self.due += self.interval;
                return Ok(Some(Event::Stats(Box::new(self.state.cgroup.stats()?))));
            }
            self.sleep()?;
        }
    }

    fn sleep(&mut self) -> Result<()> {
        // Rounded up, so that no last millisecond is spent in a loop.
        let left = self.due.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.init.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.oom.iter().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for events", errno)),
        }
        self.ended = fds[0].revents().is_some_and(|events| !events.is_empty());
        Ok(())
    }
}

fn living(root: &StateRoot, id: &ContainerId) -> Result<State> {
    let dir = root.container(id);
    let state = State::load(&dir)?;
    match state.status(&dir, Creator::MayLive)? {
        Status::Created | Status::Running | Status::Paused => Ok(state),
        status @ (Status::Creating | Status::Stopped) => Err(refused(&state, status)),
    }
}

fn refused(state: &State, status: Status) -> Error {
    Error::WrongStatus { id: state.id.to_string(), verb: "watch", status }
}
