//! Replacing a seed when it is old, by whoever lives longer than a verb: a pool's supervisor.
//!
//! A verb finds out that a seed is due when it starts a worker. Who lives on knows the moment before, and need not wait for a
//! start. Nothing is asked of the seed here, which may be wedged: its age is that of its process, its limit is in the recipe. Whether
//! it really is due is found out by the process that replaces it ([`Registry::replace_if_due`]).

use std::time::{Duration, Instant};

use super::name::SeedName;
use super::registry::Registry;
use crate::container::process::ProcessId;
use crate::error::Result;
use crate::sys::process::nanoseconds_after_boot;

/// After the first attempt the seed is looked at again; the time doubles with each attempt in vain.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two attempts: each of them may run a script that does not come to its end.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Watches over the age of the seed that has a name.
#[derive(Debug)]
pub struct Upkeep {
    registry: Registry,
    name: SeedName,
    next: Option<Instant>,
    /// Attempts for the seed that is old.
    attempts: u32,
}

impl Upkeep {
    /// Begins to watch. A limit that the name's recipe gets later is not seen.
    pub fn of(registry: Registry, name: SeedName) -> Upkeep {
        let mut upkeep = Upkeep { registry, name, next: None, attempts: 0 };
        let left = upkeep.registry.time_left(&upkeep.name).unwrap_or(Some(FIRST_PAUSE));
        upkeep.next = left.map(|left| Instant::now() + left);
        upkeep
    }

    /// When to [`act`](Upkeep::act); never for a seed that may get as old as it likes.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// If it is time, has a process replace the seed that is old by then; returns at once. What goes wrong is in the seed's log.
    pub fn act(&mut self, now: Instant) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let wait = match self.registry.time_left(&self.name) {
            Ok(None) => None,
            Ok(Some(left)) if !left.is_zero() => {
                self.attempts = 0;
                Some(left)
            }
            // Files that cannot be read are written anew by a replacement.
            Ok(Some(_)) | Err(_) => {
                self.registry.begin_replacement(&self.name);
                self.attempts = self.attempts.saturating_add(1);
                Some(pause(self.attempts))
            }
        };
        self.next = wait.map(|wait| now + wait);
    }
}

/// How long after so many attempts the seed is looked at again.
fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

impl Registry {
    /// How long the seed of a name is younger than its limit: zero if it is not, nothing if it has no limit. One that does not run
    /// will be young.
    fn time_left(&self, name: &SeedName) -> Result<Option<Duration>> {
        let directory = self.directory(name);
        let Some(most) = directory.recipe()?.and_then(|recipe| recipe.max_age_ms) else {
            return Ok(None);
        };
        let most = Duration::from_millis(most);
        let Some(state) = directory.current().read_state()? else {
            return Ok(Some(most));
        };
        let age = match ProcessId::of(state.pid) {
            Ok(process) => process.age(nanoseconds_after_boot()),
            // It was killed: the next start makes another.
            Err(_) => Duration::ZERO,
        };
        Ok(Some(most.saturating_sub(age)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::{Recipe, SeedSource, SeedState};
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        assert_eq!([1, 2, 3, 9].map(|attempts| pause(attempts).as_secs()), [1, 2, 4, 256]);
        assert_eq!([11, 1000, u32::MAX].map(pause), [LONGEST_PAUSE; 3]);
    }

    #[test]
    fn the_time_left_is_that_of_the_process_and_its_recipe() {
        let root = tempfile::tempdir().unwrap();
        let registry = Registry::at(root.path());
        let name: SeedName = "old".parse().unwrap();
        let directory = registry.directory(&name);
        let left = || registry.time_left(&name).unwrap();
        drop(directory.try_lock().unwrap());
        assert_eq!(left(), None, "there is no recipe");
        let recipe = Recipe::from(SeedSource::BuiltIns);
        directory.write_recipe(&recipe).unwrap();
        assert_eq!(left(), None, "there is no limit");
        directory.write_recipe(&Recipe { max_age_ms: Some(3_600_000), ..recipe.clone() }).unwrap();
        assert_eq!(left(), Some(Duration::from_hours(1)), "nothing runs");
        let generation = directory.make_generation().unwrap();
        directory.switch_to(&generation).unwrap();
        let pid = std::process::id().cast_signed();
        generation.write_state(&SeedState { pid, source: SeedSource::BuiltIns }).unwrap();
        let age = Duration::from_hours(1) - left().unwrap();
        assert!(age < Duration::from_mins(10), "this process is {age:?} old");
        directory.write_recipe(&Recipe { max_age_ms: Some(0), ..recipe }).unwrap();
        assert_eq!(left(), Some(Duration::ZERO));
        assert!(Upkeep::of(registry, name).next().is_some_and(|at| at <= Instant::now()));
    }
}
