//! A container from the side of the process that makes, starts and attends it (`turf run`): what `create` knows is handed
//! on to `start` in memory.

use std::os::fd::OwnedFd;

use super::delete;
use super::run::{Attended, Foreground};
use super::start::{self, borrow, start_created};
use super::state::{Mark, State};
use crate::error::{Error, Result};
use crate::fault::{self, Point};
use crate::root::{ContainerDir, Lock, Released, StateRoot};
use crate::sandbox::init;
use crate::sandbox::plan::Plan;
use crate::seed::protocol::Timeline;

/// A container that this process has created and has locked. When it is dropped it is as if `create` had ended.
#[derive(Debug)]
pub struct Fresh {
    pub(super) dir: ContainerDir,
    pub(super) lock: Lock,
    pub(super) state: State,
    pub(super) plan: Plan,
    pub(super) init: init::Created,
    /// Of an init that executes its program by itself, which it is about to do.
    pub(super) report: Option<init::Report>,
}

impl Fresh {
    /// What was no error, but should be known to whoever wrote the configuration.
    pub fn warnings(&self) -> &[String] {
        &self.init.warnings
    }

    /// Its init's pid.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Starts it as [`start`](super::start) does; returns also what a worker has reported. After an error the
    /// container is there, unlocked.
    pub fn start(self, root: &StateRoot, listeners: &[OwnedFd]) -> Result<(Running, Option<Timeline>)> {
        let Fresh { dir, lock, state, plan, init, report } = self;
        fault::at(Point::StartLoaded)?;
        let (timeline, lock, known) = if report.is_some() {
            fault::at(Point::StartRunning)?;
            (None, lock, Mark::of(&dir).map(|mark| (mark, state)))
        } else {
            let created = start::Created { dir: dir.clone(), lock, state, plan };
            let (timeline, lock) = start_created(root, created, &borrow(listeners))?;
            (timeline, lock, None)
        };
        Ok((Running { released: lock.release()?, dir, init, report, known }, timeline))
    }
}

/// A container that this process has started. Other verbs may have it.
#[derive(Debug)]
pub struct Running {
    dir: ContainerDir,
    released: Released,
    init: init::Created,
    report: Option<init::Report>,
    /// The state, and how its file was then.
    known: Option<(Mark, State)>,
}

impl Running {
    /// Waits for the container's end, and returns its exit status. A program that could not be executed, or is not in time, is an
    /// error.
    pub fn wait(&mut self, foreground: &Foreground, attended: Attended) -> Result<i32> {
        let status = foreground.wait(&self.init, attended, self.report.as_ref())?;
        // It is there by now: its writer has ended.
        self.confirm().map(|()| status)
    }

    /// Returns when the program is executed; the error says why it could not be.
    pub fn confirm(&mut self) -> Result<()> {
        self.report.take().map_or(Ok(()), init::Report::read)
    }

    /// Removes it, whatever its status is; the errors are those of `poststop` hooks. Somebody else may have done so
    /// before, and even have made another container of the same id, which is left alone.
    pub fn delete(self) -> Result<Vec<Error>> {
        let lock = match self.dir.lock_again(&self.released) {
            Err(Error::NoSuchContainer(_)) => return Ok(Vec::new()),
            lock => lock?,
        };
        fault::at(Point::DeleteLocked)?;
        if let Some((mark, state)) = &self.known
            && mark.holds(&self.dir)
        {
            return delete::clear(&self.dir, &lock, state);
        }
        // Read again, because an `update` may have given the container more control groups.
        match State::load(&self.dir) {
            // A `delete` was killed after it had removed that.
            Err(Error::NoSuchContainer(_)) => self.dir.remove(&lock).map(|()| Vec::new()),
            state => delete::clear(&self.dir, &lock, &state?),
        }
    }
}
