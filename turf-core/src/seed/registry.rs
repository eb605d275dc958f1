//! The seeds of a state directory: start one, find one by name, have it fork, replace it, list them, stop one.
//!
//! ```text
//!   start -----> g1 warms up --ready--> name -> g1
//!                                        | a fork, after --max-forks or --max-age: "due"
//!   replace ---> g2 warms up --ready--> name -> g2, g1 answers what has reached it, and ends
//!   promote ---> g2 is a clone of a worker --ready--> as above ([`super::promotion`])
//!   a seed that was killed: the next one who asks for it starts another from recipe.json
//! ```
//!
//! The files are those of [`super::directory`]. Nobody watches over seeds: whoever needs one finds out.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{ClientError, SeedClient};
use super::directory::NameDir;
pub use super::directory::{Alive, Recipe, SeedDir, SeedSource, SeedState};
pub use super::name::{DEFAULT_SEED, SeedName};
use super::protocol::SeedStat;
pub use super::spawn::READY;
use super::spawn::{Spawner, not_running};
use super::tenant::Tenant;
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::root::{StateRoot, create_private_dir_all, is_unprivileged};
use crate::sys::pidfd;

/// One entry of [`Registry::list`].
#[derive(Debug)]
pub struct SeedEntry {
    /// The seed's name.
    pub name: SeedName,
    /// What it wrote about itself.
    pub state: SeedState,
    /// How it is, or why it does not say.
    pub stat: std::result::Result<SeedStat, ClientError>,
}

/// All seeds of one state directory.
#[derive(Clone, Debug)]
pub struct Registry {
    seeds: PathBuf,
    spawner: Spawner,
}

impl Registry {
    /// The seeds of this state directory.
    pub fn new(root: &StateRoot) -> Registry {
        Registry::at(&root.seeds())
    }

    /// The seeds in this directory.
    pub fn at(seeds: &Path) -> Registry {
        Registry { seeds: seeds.to_owned(), spawner: Spawner::default() }
    }

    /// Starts seeds with this program instead of the installed one.
    pub fn with_program(self, program: &Path) -> Registry {
        Registry { spawner: Spawner { program: Some(program.to_owned()) }, ..self }
    }

    /// Whether the seed of that name runs user code, or might once it is started.
    pub fn may_run_user_code(&self, name: &SeedName) -> Result<bool> {
        Ok(self.recipe(name)?.is_none_or(|recipe| recipe.source.has_user_code()))
    }

    /// Whose ids the seed of that name has if it runs user code.
    pub fn tenant(&self, name: &SeedName) -> Result<Tenant> {
        let directory = self.seeds.join(name.as_str());
        create_private_dir_all(&directory)?;
        Tenant::of(&directory)
    }

    /// Connects to a seed. The default seed is started if it does not run, and any seed that was started and was not
    /// stopped.
    pub fn connect(&self, name: &SeedName) -> Result<SeedClient> {
        let directory = self.directory(name);
        let error = match SeedClient::connect(&directory.current().control()) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if self.recipe(name)?.is_none() {
            return Err(Error::invalid(
                format!("seed {name}"),
                format!("is not running ({error}); start it with `turf seed start {name}`"),
            ));
        }
        let _lock = self.lock(name)?;
        // Another command may have started it, or stopped it, while this one waited for the lock.
        if let Some(client) = self.look(name)? {
            return Ok(client);
        }
        let recipe = self.recipe(name)?.ok_or_else(|| not_running(name))?;
        self.begin_generation(name, &recipe)?;
        Ok(SeedClient::connect(&directory.current().control())?)
    }

    /// Begins to replace a seed that has said that it is due; whoever starts the next worker finds out again if that
    /// fails.
    pub fn begin_replacement(&self, name: &SeedName) {
        let _ = self.spawner.spawn_replacer(name, &self.directory(name), &self.seeds);
    }

    /// Starts a seed and waits until it listens. An error if one of that name runs.
    pub fn start(&self, name: &SeedName, recipe: &Recipe) -> Result<SeedState> {
        let _lock = self.lock(name)?;
        if self.look(name)?.is_some() {
            return Err(Error::invalid(format!("seed {name}"), "is already running"));
        }
        let state = self.begin_generation(name, recipe)?;
        self.directory(name).write_recipe(recipe)?;
        Ok(state)
    }

    /// Puts a fresh seed of the same recipe in the place of the one that has the name. No start is lost: until the
    /// fresh one listens the old one serves, and if it never does, the old one stays.
    pub fn replace(&self, name: &SeedName) -> Result<SeedState> {
        let _lock = self.lock(name)?;
        let recipe = self.recipe(name)?.ok_or_else(|| not_running(name))?;
        self.begin_generation(name, &recipe)
    }

    /// As [`Registry::replace`], unless the seed is not due (any more) or somebody else is about to start, replace or
    /// stop it.
    pub fn replace_if_due(&self, name: &SeedName) -> Result<()> {
        let directory = self.directory(name);
        let (Some(_lock), Some(recipe)) = (directory.try_lock()?, self.recipe(name)?) else {
            return Ok(());
        };
        let client = SeedClient::connect_within(&directory.current().control(), limits::SEED_STAT);
        match client.and_then(SeedClient::stat) {
            Ok(stat) if !stat.due => Ok(()),
            Ok(_) | Err(_) => self.begin_generation(name, &recipe).map(drop),
        }
    }

    /// All seeds that run, and those that were killed and not yet replaced, sorted by name.
    pub fn list(&self) -> Result<Vec<SeedEntry>> {
        let entries = match fs::read_dir(&self.seeds) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.operation(|| format!("read directory {}", self.seeds.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.operation(|| format!("read directory {}", self.seeds.display()))?;
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<SeedName>().ok()) else {
                continue;
            };
            let current = self.directory(&name).current();
            if let Some(state) = current.read_state()? {
                let client = SeedClient::connect_within(&current.control(), limits::SEED_STAT);
                found.push(SeedEntry { name, state, stat: client.and_then(SeedClient::stat) });
            }
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Stops a seed: asks it, then kills it if it does not go. Its workers live on.
    pub fn stop(&self, name: &SeedName) -> Result<()> {
        let directory = self.directory(name);
        if !directory.exists() {
            return Err(not_running(name));
        }
        let _lock = self.lock(name)?;
        let had_recipe = directory.recipe()?.is_some();
        directory.forget_recipe()?;
        let current = directory.current_generation()?;
        directory.release()?;
        self.end_all_but(name, None)?;
        if had_recipe || current.is_some() { Ok(()) } else { Err(not_running(name)) }
    }

    pub(super) fn directory(&self, name: &SeedName) -> NameDir {
        NameDir::at(&self.seeds.join(name.as_str()))
    }

    /// How the seed is made, if it is to run: the default seed always is.
    fn recipe(&self, name: &SeedName) -> Result<Option<Recipe>> {
        let written = self.directory(name).recipe()?;
        let is_default = name.as_str() == DEFAULT_SEED;
        Ok(written.or_else(|| is_default.then(|| Recipe::from(SeedSource::BuiltIns))))
    }

    pub(super) fn lock(&self, name: &SeedName) -> Result<File> {
        let directory = self.directory(name);
        let mut lock = None;
        let locked = wait_until(limits::SEED_LOCK, || {
            lock = directory.try_lock()?;
            Ok(lock.is_some())
        })?;
        match lock.filter(|_| locked) {
            Some(lock) => Ok(lock),
            None => Err(timed_out(format!("lock seed {name}"), limits::SEED_LOCK)),
        }
    }

    /// A connection to the seed that has the name, if it lives. The caller holds the lock.
    fn look(&self, name: &SeedName) -> Result<Option<SeedClient>> {
        let directory = self.directory(name);
        let Some(current) = directory.current_generation()? else {
            return Ok(None);
        };
        let client = SeedClient::connect(&current.control()).ok();
        if client.is_none() {
            // It had listened before it got the name.
            self.end(name, &current)?;
        }
        Ok(client)
    }

    /// Starts a seed, gives it the name, and ends all others of the name. The caller holds the lock.
    fn begin_generation(&self, name: &SeedName, recipe: &Recipe) -> Result<SeedState> {
        let directory = self.directory(name);
        // What a killed command has left behind.
        self.end_all_but(name, directory.current_generation()?.as_ref())?;
        let generation = directory.make_generation()?;
        let tenant = match recipe.source.has_user_code() && !is_unprivileged() {
            true => Some(self.tenant(name)?),
            false => None,
        };
        let state = match self.spawner.spawn(name, &directory, &generation, recipe, tenant) {
            Ok(state) => state,
            Err(error) => return Err(error.and_clean_up(self.end(name, &generation))),
        };
        directory.switch_to(&generation)?;
        self.end_all_but(name, Some(&generation))?;
        Ok(state)
    }

    pub(super) fn end_all_but(&self, name: &SeedName, kept: Option<&SeedDir>) -> Result<()> {
        for generation in self.directory(name).generations()? {
            if Some(&generation) != kept {
                self.end(name, &generation)?;
            }
        }
        Ok(())
    }

    /// Ends a generation: asks it, then kills it. It answers before what has reached it.
    pub(super) fn end(&self, name: &SeedName, generation: &SeedDir) -> Result<()> {
        if generation.is_alive()? {
            let asked = SeedClient::connect_within(&generation.control(), limits::SEED_STAT);
            let asked = asked.and_then(SeedClient::stop);
            if asked.is_err() || !wait_until(limits::SEED_STOP, || Ok(!generation.is_alive()?))? {
                kill(name, generation)?;
            }
        }
        // A group that somebody lives in stays.
        wait_until(limits::SEED_GROUPS, || generation.remove_groups())?;
        generation.remove()
    }
}

fn kill(name: &SeedName, generation: &SeedDir) -> Result<()> {
    let Some(state) = generation.read_state()? else {
        return Err(Error::invalid(format!("seed {name}"), "lives, but has not written its state.json"));
    };
    match pidfd::pidfd_open(state.pid) {
        // It went by itself.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        opened => {
            let process = opened.operation(|| format!("open process {} of seed {name}", state.pid))?;
            // The number is the seed's only while the seed holds its lock.
            if generation.is_alive()? {
                pidfd::pidfd_send_signal(process.as_fd(), libc::SIGKILL)
                    .operation(|| format!("kill seed {name}"))?;
            }
        }
    }
    match wait_until(limits::SEED_STOP, || Ok(!generation.is_alive()?))? {
        true => Ok(()),
        false => Err(timed_out(format!("wait for the end of seed {name}"), limits::SEED_STOP)),
    }
}

/// Asks again and again, for locks and sockets that nobody can be waited on for; false when the time is over.
fn wait_until(limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while !done()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(true)
}

fn timed_out(operation: String, limit: Duration) -> Error {
    Error::TimedOut { operation, limit_ms: limit.as_millis() as u64 }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        match &error {
            ClientError::Timeout { who, seconds } => {
                Error::TimedOut { operation: format!("wait for {who}"), limit_ms: seconds * 1000 }
            }
            _ => Error::Remote { text: error.to_string() },
        }
    }
}
