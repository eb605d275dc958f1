//! The files of the seeds of one name, and of one of them.
//!
//! ```text
//! <root>/seeds/<name>/lock             held by whoever starts, replaces or stops the seed
//! <root>/seeds/<name>/recipe.json      how to make it; there as long as the seed is to run
//! <root>/seeds/<name>/log              the standard error of all generations
//! <root>/seeds/<name>/current          a symbolic link to the generation that has the name
//! <root>/seeds/<name>/g<N>/alive       locked by the seed as long as it lives: the kernel lets go of it
//! <root>/seeds/<name>/g<N>/state.json  pid and source, written by the seed, or by who promotes a worker
//! <root>/seeds/<name>/g<N>/groups.json  the directories of its control groups
//! <root>/seeds/<name>/g<N>/control.sock  where it listens
//! ```
//!
//! A name changes hands by the exchange of one link: whoever connects reaches the old generation or the new one.
//! The directory of the name stays when the seed has gone, so that two commands that lock it lock the same file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Operation, Result};
#[cfg(doc)]
use crate::limits;
use crate::root::create_private_dir_all;

/// The link to the generation that has the name.
const CURRENT: &str = "current";
/// Longest recipe or state that is read, in bytes: two paths and some numbers.
const FILE_BYTES: u64 = 64 << 10;
/// A log that is longer, in bytes, begins anew with the next generation.
const LOG_BYTES: u64 = 1 << 20;

/// What a seed has loaded when it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeedSource {
    /// The built-ins only: each worker loads its own script.
    BuiltIns,
    /// A user's script, run up to its `serialize` event: each worker starts at `deserialize`.
    Script(PathBuf),
    /// A snapshot, made behind a program's `serialize` event: each worker starts at `deserialize`.
    Snapshot(PathBuf),
    /// What the worker of this container had in memory when it was asked: such a seed cannot be made again.
    Promoted(String),
}

impl SeedSource {
    /// The file of user code, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            SeedSource::BuiltIns | SeedSource::Promoted(_) => None,
            SeedSource::Script(path) | SeedSource::Snapshot(path) => Some(path),
        }
    }

    /// Whether user code has run in the seed.
    pub fn has_user_code(&self) -> bool {
        *self != SeedSource::BuiltIns
    }
}

/// How to make a seed, and when to make another in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What it loads.
    pub source: SeedSource,
    /// Workers after which it is replaced.
    pub max_forks: Option<u64>,
    /// Milliseconds after which it is replaced.
    pub max_age_ms: Option<u64>,
    /// Milliseconds that it may take until it listens; [`limits::SEED_START`] if there is none.
    pub start_timeout_ms: Option<u64>,
}

impl From<SeedSource> for Recipe {
    fn from(source: SeedSource) -> Recipe {
        Recipe { source, max_forks: None, max_age_ms: None, start_timeout_ms: None }
    }
}

/// What a seed writes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedState {
    /// Process id in the pid namespace of the registry's user.
    pub pid: i32,
    /// What it has loaded.
    pub source: SeedSource,
}

/// The files of a name.
#[derive(Clone, Debug)]
pub struct NameDir(PathBuf);

impl NameDir {
    /// The directory at `path`, which need not exist.
    pub fn at(path: &Path) -> NameDir {
        NameDir(path.to_owned())
    }

    /// Whether there ever was a seed of that name.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Locks the name, or nothing if somebody else has it locked.
    pub fn try_lock(&self) -> Result<Option<File>> {
        create_private_dir_all(&self.0)?;
        try_lock(&self.0.join("lock"))
    }

    /// The file of the log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Opens the log for the next generation, behind what the others have written.
    pub fn open_log(&self) -> Result<File> {
        let path = self.log();
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let log = options.open(&path).operation(|| format!("open {}", path.display()))?;
        let length = log.metadata().operation(|| format!("stat {}", path.display()))?.len();
        if length > LOG_BYTES {
            log.set_len(0).operation(|| format!("empty {}", path.display()))?;
        }
        Ok(log)
    }

    /// The generation that has the name, by way of the link: who connects through it reaches whoever has the name then.
    pub fn current(&self) -> SeedDir {
        SeedDir(self.0.join(CURRENT))
    }

    /// The directory of the generation that has the name.
    pub fn current_generation(&self) -> Result<Option<SeedDir>> {
        let link = self.0.join(CURRENT);
        match fs::read_link(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            target => Ok(Some(SeedDir(
                self.0.join(target.operation(|| format!("read the link {}", link.display()))?),
            ))),
        }
    }

    /// Gives the name to a generation.
    pub fn switch_to(&self, generation: &SeedDir) -> Result<()> {
        let new = self.0.join("current.new");
        remove_file(&new)?;
        let target = generation.0.strip_prefix(&self.0).unwrap_or(&generation.0);
        std::os::unix::fs::symlink(target, &new).operation(|| format!("link {}", new.display()))?;
        fs::rename(&new, self.0.join(CURRENT)).operation(|| format!("rename {}", new.display()))
    }

    /// Takes the name from whoever has it.
    pub fn release(&self) -> Result<()> {
        remove_file(&self.0.join(CURRENT))
    }

    /// All generations there are files of, the oldest first.
    pub fn generations(&self) -> Result<Vec<SeedDir>> {
        let failed = || format!("read directory {}", self.0.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).operation(failed)? {
            let name = entry.operation(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix('g')?.parse::<u64>().ok());
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|number| self.generation(number)).collect())
    }

    /// Makes the directory of the next generation.
    pub fn make_generation(&self) -> Result<SeedDir> {
        let mut number = 1;
        while self.generation(number).0.exists() {
            number += 1;
        }
        let directory = self.generation(number);
        create_private_dir_all(&directory.0)?;
        Ok(directory)
    }

    fn generation(&self, number: u64) -> SeedDir {
        SeedDir(self.0.join(format!("g{number}")))
    }

    /// How the seed is made; nothing if it is not to run.
    pub fn recipe(&self) -> Result<Option<Recipe>> {
        read_json(&self.0.join("recipe.json"))
    }

    /// Writes how the seed is made.
    pub fn write_recipe(&self, recipe: &Recipe) -> Result<()> {
        write_json(&self.0.join("recipe.json"), recipe)
    }

    /// Forgets how the seed is made.
    pub fn forget_recipe(&self) -> Result<()> {
        remove_file(&self.0.join("recipe.json"))
    }
}

/// The files of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedDir(PathBuf);

impl SeedDir {
    /// The directory at `path`.
    pub fn at(path: &Path) -> SeedDir {
        SeedDir(path.to_owned())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the seed listens.
    pub fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Locks `alive` for the calling seed, or says that another one has it.
    pub fn claim(&self) -> Result<Alive> {
        match try_lock(&self.0.join("alive"))? {
            Some(lock) => Ok(Alive { lock }),
            None => Err(Error::invalid(self.0.display().to_string(), "belongs to another living seed")),
        }
    }

    /// Whether the seed of this directory lives.
    pub fn is_alive(&self) -> Result<bool> {
        let path = self.0.join("alive");
        match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            file => Ok(lock(file.operation(|| format!("open {}", path.display()))?, &path)?.is_none()),
        }
    }

    /// Writes state.json, whole or not at all.
    pub fn write_state(&self, state: &SeedState) -> Result<()> {
        write_json(&self.0.join("state.json"), state)
    }

    /// Reads state.json; nothing if there is none.
    pub fn read_state(&self) -> Result<Option<SeedState>> {
        read_json(&self.0.join("state.json"))
    }

    /// Removes what shows the seed to others. Only for the seed itself at its end.
    pub fn clear(&self) -> Result<()> {
        remove_file(&self.control())?;
        remove_file(&self.0.join("state.json"))
    }

    /// Writes down the directories of the control groups that the seed is in.
    pub fn write_groups(&self, groups: &[PathBuf]) -> Result<()> {
        write_json(&self.0.join("groups.json"), &groups)
    }

    /// The directories of the control groups of the seed's own.
    pub fn groups(&self) -> Result<Vec<PathBuf>> {
        Ok(read_json(&self.0.join("groups.json"))?.unwrap_or_default())
    }

    /// Removes the seed's control groups; false if somebody is in one. Who has ended is, for a moment after the kernel has
    /// released its locks.
    pub fn remove_groups(&self) -> Result<bool> {
        let mut is_done = true;
        for group in self.groups()? {
            match fs::remove_dir(&group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => is_done = false,
                _ => drop(group.parent().map(fs::remove_dir)),
            }
        }
        Ok(is_done)
    }

    /// Removes the directory. Only for who knows that the seed is gone.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.operation(|| format!("remove {}", self.0.display())),
        }
    }
}

/// The lock that says that a seed lives; the kernel releases it when the process ends.
#[derive(Debug)]
pub struct Alive {
    lock: File,
}

impl Alive {
    /// The locked file's descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl From<OwnedFd> for Alive {
    fn from(locked: OwnedFd) -> Alive {
        Alive { lock: locked.into() }
    }
}

/// flock(2) through the standard library, whose file keeps the lock until the last copy of it is closed: what unlocks
/// when it is dropped would, in a forked worker, unlock the seed's.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    lock(options.open(path).operation(|| format!("open {}", path.display()))?, path)
}

fn lock(file: File, path: &Path) -> Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io(format!("lock {}", path.display()), error)),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::from);
    let text = text.operation(|| format!("encode {}", path.display()))?;
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, text).operation(|| format!("write {}", temporary.display()))?;
    fs::rename(&temporary, path).operation(|| format!("rename {}", temporary.display()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let mut text = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => {
            let file = file.operation(|| format!("open {}", path.display()))?;
            let read = io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES), &mut text);
            read.operation(|| format!("read {}", path.display()))?
        }
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Error::invalid(path.display().to_string(), error.to_string())),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.operation(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_dir() -> (tempfile::TempDir, NameDir) {
        let root = tempfile::tempdir().unwrap();
        let directory = NameDir::at(&root.path().join("seed"));
        create_private_dir_all(&directory.0).unwrap();
        (root, directory)
    }

    #[test]
    fn a_name_changes_hands_by_one_link() {
        let (_keep, directory) = name_dir();
        assert_eq!(directory.current_generation().unwrap(), None);
        let first = directory.make_generation().unwrap();
        directory.switch_to(&first).unwrap();
        let second = directory.make_generation().unwrap();
        assert_ne!(first, second);
        assert_eq!(directory.current_generation().unwrap(), Some(first.clone()));
        directory.switch_to(&second).unwrap();
        assert_eq!(directory.current_generation().unwrap(), Some(second.clone()));
        assert_eq!(directory.generations().unwrap(), [first, second]);
        directory.release().unwrap();
        assert_eq!(directory.current_generation().unwrap(), None);
    }

    #[test]
    fn a_recipe_is_there_until_it_is_forgotten() {
        let (_keep, directory) = name_dir();
        assert_eq!(directory.recipe().unwrap(), None);
        let recipe = Recipe { max_forks: Some(7), ..SeedSource::Script("/a.js".into()).into() };
        directory.write_recipe(&recipe).unwrap();
        assert_eq!(directory.recipe().unwrap(), Some(recipe));
        directory.forget_recipe().unwrap();
        assert_eq!(directory.recipe().unwrap(), None);
    }

    #[test]
    fn a_seed_is_alive_while_it_has_its_lock() {
        let (_keep, directory) = name_dir();
        let generation = directory.make_generation().unwrap();
        assert!(!generation.is_alive().unwrap());
        let alive = generation.claim().unwrap();
        assert!(generation.is_alive().unwrap());
        assert!(generation.claim().is_err());
        drop(alive);
        assert!(!generation.is_alive().unwrap());
        generation.remove().unwrap();
        assert!(!generation.is_alive().unwrap());
    }
}
