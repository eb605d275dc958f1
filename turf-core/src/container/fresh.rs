//! A container from the side of the process that makes, starts and attends it (`turf run`): what `create` knows is handed
//! on to `start` in memory.

use std::os::fd::OwnedFd;

use super::create::Begun;
use super::delete;
use super::run::{Attended, Foreground};
use super::start::{self, borrow, start_created};
use super::state::State;
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
    pub(super) begun: Begun,
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
        let Fresh { dir, lock, state, plan, init, begun } = self;
        fault::at(Point::StartLoaded)?;
        if begun == Begun::Yes {
            fault::at(Point::StartRunning)?;
            return Ok((Running { released: lock.release()?, dir, init }, None));
        }
        let created = start::Created { dir: dir.clone(), lock, state, plan };
        let (timeline, lock) = start_created(root, created, &borrow(listeners))?;
        Ok((Running { released: lock.release()?, dir, init }, timeline))
    }
}

/// A container that this process has started. Other verbs may have it.
#[derive(Debug)]
pub struct Running {
    dir: ContainerDir,
    released: Released,
    init: init::Created,
}

impl Running {
    /// Waits for the container's end, and returns its exit status.
    pub fn wait(&self, foreground: &Foreground, attended: Attended) -> Result<i32> {
        foreground.wait(&self.init, attended)
    }

    /// Removes it, whatever its status is; the errors are those of `poststop` hooks. Somebody else may have done so
    /// before, and even have made another container of the same id, which is left alone.
    pub fn delete(self) -> Result<Vec<Error>> {
        let lock = match self.dir.lock_again(&self.released) {
            Err(Error::NoSuchContainer(_)) => return Ok(Vec::new()),
            lock => lock?,
        };
        fault::at(Point::DeleteLocked)?;
        // Read again, because an `update` may have given the container more control groups.
        match State::load(&self.dir) {
            // A `delete` was killed after it had removed that.
            Err(Error::NoSuchContainer(_)) => self.dir.remove(&lock).map(|()| Vec::new()),
            state => delete::clear(&self.dir, &lock, &state?),
        }
    }
}
