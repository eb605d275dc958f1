//! A pool's directory in the state directory.
//!
//! ```text
//! <root>/pools/<name>/lock            held by the living supervisor
//!                     pool.json       what a later supervisor must know (or pool.json.new, see `Place::store`)
//!                     control.sock    HTTP: status, metrics, commands
//!                     events.jsonl    what happened
//!                     log             what workers print, if asked for
//!                     gauges/<id>     one page for each worker
//!                     bundles/<n>/    the bundle of generation n
//! ```

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::config::PoolName;
use crate::container::process::ProcessId;
use crate::error::{Error, Operation, Result};
use crate::root::{ContainerId, StateRoot, create_private_dir_all};

/// Largest pool.json: some hundred bytes for each of at most 10,000 workers.
const RECORD_BYTES: u64 = 8 << 20;

/// Where the record is, the first that is there.
const RECORD_FILES: [&str; 2] = ["pool.json", "pool.json.new"];

/// How long a killed supervisor's lock may outlive it: a child that was building a sandbox shares the open file until
/// it notices that it has to end.
const INHERITED_LOCK: Duration = Duration::from_millis(500);

/// The version of pool.json.
const VERSION: u32 = 1;

/// The directory, locked.
#[derive(Debug)]
pub struct Place {
    name: PoolName,
    path: PathBuf,
    _lock: Flock<fs::File>,
}

/// A worker as pool.json remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its number.
    pub number: u64,
    /// Its slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// Its container.
    pub id: ContainerId,
    /// Its init.
    pub init: ProcessId,
    /// The sockets it accepts on, by number.
    pub listeners: Vec<u32>,
}

/// Removes what an ended pool has left: its events and its log. Refused while it runs, or while workers of it may live.
pub fn remove_ended(root: &StateRoot, name: &PoolName) -> Result<()> {
    let path = all(root).join(name.as_str());
    if !path.exists() {
        return Err(Error::invalid(format!("pool {name}"), "does not exist"));
    }
    let place = Place::claim(root, name)?;
    if RECORD_FILES.iter().any(|name| place.file(name).exists()) {
        return Err(Error::invalid(
            format!("pool {name}"),
            "was left without its supervisor; run it again and end it with drain or stop",
        ));
    }
    fs::remove_dir_all(&path).operation(|| format!("remove {}", path.display()))
}

/// What a later supervisor must know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the file's form; set when it is stored.
    pub version: u32,
    /// The generation that new workers are of.
    pub generation: u32,
    /// The next worker's number.
    pub next_number: u64,
    /// The seed of the pool's own, if it has one.
    pub seed: Option<String>,
    /// Addresses of its sockets, by their number.
    pub sockets: Vec<(u32, String)>,
    /// The workers.
    pub workers: Vec<WorkerRecord>,
    /// Containers that were made ready and not started.
    pub spares: Vec<ContainerId>,
}

/// The directory of all pools.
pub fn all(root: &StateRoot) -> PathBuf {
    root.path().join("pools")
}

/// The control socket of a pool.
pub fn control(root: &StateRoot, name: &PoolName) -> PathBuf {
    all(root).join(name.as_str()).join("control.sock")
}

/// The names that have a directory, sorted.
pub fn names(root: &StateRoot) -> Result<Vec<PoolName>> {
    let directory = all(root);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.operation(|| format!("read directory {}", directory.display()))?,
    };
    let mut names: Vec<PoolName> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}

impl Place {
    /// Takes the pool's directory; refused while another supervisor has it.
    pub fn claim(root: &StateRoot, name: &PoolName) -> Result<Place> {
        let path = all(root).join(name.as_str());
        create_private_dir_all(&path.join("gauges"))?;
        create_private_dir_all(&path.join("bundles"))?;
        let lock_path = path.join("lock");
        let deadline = Instant::now() + INHERITED_LOCK;
        loop {
            if let Some(lock) = try_lock(&lock_path)? {
                return Ok(Place { name: name.clone(), path, _lock: lock });
            }
            if Instant::now() >= deadline {
                let reason = "runs already; another one needs another --name";
                return Err(Error::invalid(format!("pool {name}"), reason));
            }
            // flock(2) has no time limit of its own.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The pool's name.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a worker's gauges are.
    pub fn gauges(&self, id: &ContainerId) -> PathBuf {
        self.path.join("gauges").join(id.as_str())
    }

    /// Where a generation's bundle is.
    pub fn bundle(&self, generation: u32) -> PathBuf {
        self.path.join("bundles").join(generation.to_string())
    }

    /// What the last supervisor left; nothing if there was none, or if it ended in order.
    pub fn record(&self) -> Result<Option<Record>> {
        let path = RECORD_FILES.map(|name| self.file(name)).into_iter().find(|path| path.exists());
        let Some(path) = path else { return Ok(None) };
        let text = fs::read(&path).operation(|| format!("read {}", path.display()))?;
        let bad = |reason: String| Error::invalid(path.display().to_string(), reason);
        if text.len() as u64 > RECORD_BYTES {
            return Err(bad(format!("is larger than {RECORD_BYTES} bytes")));
        }
        let record: Record = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if record.version != VERSION {
            return Err(bad(format!("is of version {}, this turf knows {VERSION}", record.version)));
        }
        Ok(Some(record))
    }

    /// Writes what a later supervisor must know, whole: there is always the old file or the new one. The old one is
    /// removed before the new one takes its name, because ext4 writes a file that replaces another to the disk at once
    /// (mount option `auto_da_alloc`), which takes milliseconds.
    pub fn store(&self, record: &Record) -> Result<()> {
        let [path, temporary] = RECORD_FILES.map(|name| self.file(name));
        let record = Record { version: VERSION, ..record.clone() };
        let text =
            serde_json::to_vec(&record).map_err(|error| Error::invalid("pool.json", error.to_string()))?;
        if !path.exists() && temporary.exists() {
            // A supervisor was killed before its last step; what it left is the only record.
            fs::rename(&temporary, &path).operation(|| format!("write {}", path.display()))?;
        }
        fs::write(&temporary, text).operation(|| format!("write {}", temporary.display()))?;
        remove(&path, |path| fs::remove_file(path))?;
        fs::rename(&temporary, &path).operation(|| format!("write {}", path.display()))
    }

    /// Removes the directory. The events and the log stay, for those who ask later.
    pub fn remove(self) -> Result<()> {
        for name in RECORD_FILES.into_iter().chain(["control.sock"]) {
            remove(&self.file(name), |path| fs::remove_file(path))?;
        }
        for name in ["gauges", "bundles"] {
            remove(&self.file(name), |path| fs::remove_dir_all(path))?;
        }
        Ok(())
    }
}

fn try_lock(path: &Path) -> Result<Option<Flock<fs::File>>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.operation(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::io(format!("lock {}", path.display()), errno)),
    }
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match how(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.operation(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_one_supervisor_and_its_record_outlives_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = StateRoot::at(directory.path()).unwrap();
        let name: PoolName = "p".parse().unwrap();
        let place = Place::claim(&root, &name).unwrap();
        let error = Place::claim(&root, &name).unwrap_err().to_string();
        assert!(error.contains("runs already"), "{error}");
        assert_eq!(place.record().unwrap(), None);
        let record = Record { generation: 3, next_number: 9, ..Record::default() };
        place.store(&record).unwrap();
        drop(place);
        let place = Place::claim(&root, &name).unwrap();
        assert_eq!(place.record().unwrap().unwrap().generation, 3);
        assert_eq!(names(&root).unwrap(), std::slice::from_ref(&name));
        // Killed between its two last steps.
        fs::rename(place.file("pool.json"), place.file("pool.json.new")).unwrap();
        assert_eq!(place.record().unwrap().unwrap().generation, 3);
        place.store(&Record { generation: 4, ..record }).unwrap();
        assert!(!place.file("pool.json.new").exists());
        // Killed while it wrote.
        fs::write(place.file("pool.json.new"), "{").unwrap();
        assert_eq!(place.record().unwrap().unwrap().generation, 4);
        fs::write(place.file("pool.json"), "{\"version\": 9}").unwrap();
        assert!(place.record().is_err());
        place.remove().unwrap();
        assert_eq!(Place::claim(&root, &name).unwrap().record().unwrap(), None);
    }
}
