//! The state directory: its layout, its permissions, container ids and the lock of a container.
//!
//! ```text
//! <root>/containers/<id>/{state.json, gate.sock, ...}     the directory itself is what a verb locks
//! <root>/seeds/<name>/{lock, recipe.json, log, current, g<N>/...}: `crate::seed::directory`
//! ```
//!
//! Every directory is 0700. A container exists if and only if its state.json exists: a directory
//! without one was left by a `create` or `delete` that was killed in its first or last step: it is shown as
//! stopped, and the next `create` or `delete` of that id takes it over.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;

/// Where Turf keeps what must outlive one command.
#[derive(Clone, Debug)]
pub struct StateRoot {
    path: PathBuf,
}

impl StateRoot {
    /// The state directory at `path`, made absolute; nothing is created yet.
    pub fn at(path: &Path) -> Result<StateRoot> {
        let path = std::path::absolute(path).operation(|| format!("find directory {}", path.display()))?;
        Ok(StateRoot { path })
    }

    /// The default: `/run/turf` for the host's root, whatever the environment says (podman runs `delete` with
    /// an empty one), and `$XDG_RUNTIME_DIR/turf` for anybody else, who without that variable has
    /// `/run/user/UID/turf`.
    pub fn default_for_user() -> Result<StateRoot> {
        if !is_unprivileged() {
            return Ok(StateRoot { path: PathBuf::from("/run/turf") });
        }
        if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
            return StateRoot::at(&Path::new(&dir).join("turf"));
        }
        let uid = nix::unistd::geteuid();
        let session = PathBuf::from(format!("/run/user/{uid}"));
        if fs::metadata(&session).is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw()) {
            return Ok(StateRoot { path: session.join("turf") });
        }
        Err(Error::invalid("--root", "is required where there is neither $XDG_RUNTIME_DIR nor /run/user/UID"))
    }

    /// The state directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of all containers.
    pub fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    /// The directory of all seeds.
    pub fn seeds(&self) -> PathBuf {
        self.path.join("seeds")
    }

    /// The directory of one container, which need not exist.
    pub fn container(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir { id: id.clone(), path: self.containers().join(id.as_str()) }
    }

    /// The ids that have a directory, sorted. A name that is not an id is not ours and is skipped.
    pub fn container_ids(&self) -> Result<Vec<ContainerId>> {
        let directory = self.containers();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.operation(|| format!("read directory {}", directory.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.operation(|| format!("read directory {}", directory.display()))?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<ContainerId>().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

/// Whether the caller is not the host's root: another user, or the root of a user namespace, who may do less.
pub fn is_unprivileged() -> bool {
    // A verb does not leave its user namespace, and asks more than once.
    static IN_A_USER_NAMESPACE: OnceLock<bool> = OnceLock::new();
    let look = || fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps_all_ids(&map));
    !nix::unistd::geteuid().is_root() || *IN_A_USER_NAMESPACE.get_or_init(look)
}

/// Whether this is the table of the first user namespace, in which every id is itself (user_namespaces(7)).
fn maps_all_ids(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Creates `path` and its parents with mode 0700; an existing directory is left as it is.
pub fn create_private_dir_all(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .operation(|| format!("create directory {}", path.display()))
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub struct ContainerDir {
    id: ContainerId,
    path: PathBuf,
}

impl ContainerDir {
    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// When the directory was made or changed last.
    pub fn made(&self) -> Result<std::time::SystemTime> {
        let found = fs::metadata(&self.path).and_then(|found| found.modified());
        found.operation(|| format!("read {}", self.path.display()))
    }

    /// Whether state.json exists, which is what it means for the container to exist.
    pub fn exists(&self) -> bool {
        self.file(STATE_FILE).exists()
    }

    /// Creates the directory for a container that does not exist, and locks it. Of two racing
    /// `create`s one wins; the other is told that the container exists.
    pub fn create(&self) -> Result<Lock> {
        if self.exists() {
            return Err(self.taken());
        }
        loop {
            create_private_dir_all(&self.path)?;
            let lock = match self.lock() {
                // A `delete` removed the directory in between.
                Err(Error::NoSuchContainer(_)) => continue,
                Err(error) => return Err(error.and_clean_up(self.remove_if_empty().map(drop))),
                Ok(lock) => lock,
            };
            return if self.exists() { Err(self.taken()) } else { Ok(lock) };
        }
    }

    fn taken(&self) -> Error {
        Error::ContainerExists(self.id.to_string())
    }

    /// Locks the container against other verbs; waits for at most [`limits::CONTAINER_LOCK`].
    pub fn lock(&self) -> Result<Lock> {
        self.lock_meanwhile(|| Ok(()))
    }

    /// The same; `meanwhile` is called each time that another verb is found to have it locked.
    pub fn lock_meanwhile(&self, meanwhile: impl FnMut() -> Result<()>) -> Result<Lock> {
        self.wait_for_lock(|| self.try_lock(), meanwhile)
    }

    /// Locks the container if no other verb has it locked.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.unknown()),
            opened => self.lock_directory(opened.operation(|| format!("open {}", self.path.display()))?),
        }
    }

    /// Locks the container that was locked before, and no other one that has come to have its id since.
    pub fn lock_again(&self, released: &Released) -> Result<Lock> {
        self.wait_for_lock(|| self.try_lock_again(released), || Ok(()))
    }

    /// The same if no other verb has it locked.
    pub fn try_lock_again(&self, released: &Released) -> Result<Option<Lock>> {
        let file = released.file.try_clone().operation(|| format!("lock container {}", self.id))?;
        self.lock_directory(file)
    }

    fn wait_for_lock(
        &self,
        mut attempt: impl FnMut() -> Result<Option<Lock>>,
        mut meanwhile: impl FnMut() -> Result<()>,
    ) -> Result<Lock> {
        let deadline = Instant::now() + limits::CONTAINER_LOCK;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = attempt()? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                let limit_ms = limits::CONTAINER_LOCK.as_millis() as u64;
                return Err(Error::TimedOut { operation: format!("lock container {}", self.id), limit_ms });
            }
            meanwhile()?;
            // flock(2) has no time limit of its own, so the wait is made of short ones.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn lock_directory(&self, directory: File) -> Result<Option<Lock>> {
        let locked = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(Error::io(format!("lock {}", self.path.display()), errno)),
        };
        // A `delete` may have removed the directory between our open and our lock.
        if is_same_file(&locked, &self.path) { Ok(Some(Lock { file: locked })) } else { Err(self.unknown()) }
    }

    /// The error for an id that nobody knows.
    pub fn unknown(&self) -> Error {
        Error::NoSuchContainer(self.id.to_string())
    }

    /// Removes the directory with everything in it. state.json goes first, so that a removal that is
    /// interrupted leaves no container that looks alive; who waits for the lock of the directory finds it gone.
    pub fn remove(&self, _lock: &Lock) -> Result<()> {
        let describe = |path: &Path| format!("remove {}", path.display());
        let state = self.file(STATE_FILE);
        ignore_missing(fs::remove_file(&state)).operation(|| describe(&state))?;
        fault::at(Point::DeleteStateRemoved)?;
        // Nothing else is left of a program that `run` has begun.
        if self.remove_if_empty()? {
            return Ok(());
        }
        for entry in
            fs::read_dir(&self.path).operation(|| format!("read directory {}", self.path.display()))?
        {
            let entry = entry.operation(|| format!("read directory {}", self.path.display()))?;
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            ignore_missing(removed).operation(|| describe(&path))?;
        }
        self.remove_if_empty().map(drop)
    }

    /// Removes an empty directory, which is what a `create` that was killed in its very first step leaves; whether
    /// there was one.
    pub fn remove_if_empty(&self) -> Result<bool> {
        match fs::remove_dir(&self.path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) =>
            {
                Ok(false)
            }
            removed => {
                removed.operation(|| format!("remove directory {}", self.path.display())).map(|()| true)
            }
        }
    }
}

/// The name of the state file in a container's directory.
pub const STATE_FILE: &str = "state.json";

/// The right to change a container, until it is dropped or the process dies.
///
/// flock(2) belongs to the open file, which a forked child shares: dropping the lock unlocks it for both, but if the
/// process is killed the child still has it. Init makes use of that while it builds, and then closes its copy.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    /// Lets other verbs have the container, and remembers which one it was.
    pub fn release(self) -> Result<Released> {
        let unlocked = self.file.unlock().map_err(|(_, errno)| Error::io("unlock a container", errno))?;
        Ok(Released { file: unlocked })
    }
}

/// A container that was locked, for [`ContainerDir::lock_again`].
#[derive(Debug)]
pub struct Released {
    file: File,
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn is_same_file(open: &Flock<File>, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (nix::sys::stat::fstat(open.as_fd()), fs::metadata(path)) else {
        return false;
    };
    ours.st_ino == named.ino() && ours.st_dev == named.dev()
}

/// The id of a container: 1 to 255 letters, digits, `_`, `+`, `,`, `-`, `.` (runc's rule), and
/// neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<ContainerId> {
        let refuse = |reason: &str| Err(Error::invalid(format!("container id {text:?}"), reason));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+,-.".contains(&byte);
        if text.is_empty() {
            return refuse("must not be empty");
        }
        if text.len() > limits::CONTAINER_ID_BYTES {
            return refuse("must not be longer than 255 bytes");
        }
        if text == "." || text == ".." {
            return refuse("must not be the name of a directory");
        }
        if !text.bytes().all(allowed) {
            return refuse("may contain only letters, digits, '_', '+', ',', '-' and '.'");
        }
        Ok(ContainerId(text.to_owned()))
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;

    fn try_from(text: String) -> Result<ContainerId> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator for bounded random tests (xorshift64*): the same runs every time.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    #[test]
    fn ids_follow_the_rule_of_runc() {
        for good in ["a", "A-b_c.d+e,f", "0", "...", "-a", &"x".repeat(255)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "/a", "a b", "a\0b", "a\n", "ä", "a:b", "a@b", &"x".repeat(256)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_accepted_id_is_always_one_path_component() {
        let mut next = numbers(1);
        let alphabet = b"ab./_-+,:\\ \n\0~%";
        for _ in 0..20_000 {
            let length = next() % 6;
            let text: String =
                (0..length).map(|_| alphabet[(next() % alphabet.len() as u64) as usize] as char).collect();
            if text.parse::<ContainerId>().is_ok() {
                let path = Path::new("/r").join(&text);
                assert_eq!(path.parent(), Some(Path::new("/r")), "{text:?}");
                assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(text.as_str()));
            }
        }
    }

    #[test]
    fn the_first_user_namespace_is_told_from_others() {
        assert!(maps_all_ids("         0          0 4294967295\n"));
        for map in ["", "0 1000 1\n", "0 0 65536\n", "0 0 4294967295\n1 1 1\n"] {
            assert!(!maps_all_ids(map), "{map}");
        }
    }

    fn scratch(name: &str) -> (tempfile::TempDir, ContainerDir) {
        let directory = tempfile::tempdir().unwrap();
        let root = StateRoot::at(directory.path()).unwrap();
        let container = root.container(&name.parse().unwrap());
        (directory, container)
    }

    #[test]
    fn a_second_create_is_told_that_the_id_is_taken() {
        let (_keep, container) = scratch("a");
        let lock = container.create().unwrap();
        fs::write(container.file(STATE_FILE), "{}").unwrap();
        assert!(matches!(container.create(), Err(Error::ContainerExists(_))));
        drop(lock);
        assert!(matches!(container.create(), Err(Error::ContainerExists(_))));
    }

    #[test]
    fn a_directory_without_a_state_is_taken_over() {
        let (_keep, container) = scratch("a");
        drop(container.create().unwrap());
        assert!(container.create().is_ok());
    }

    #[test]
    fn directories_are_private() {
        let (_keep, container) = scratch("a");
        let _lock = container.create().unwrap();
        for directory in [container.path(), container.path().parent().unwrap()] {
            assert_eq!(fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_lock_excludes_and_ends_with_its_owner() {
        let (_keep, container) = scratch("a");
        let lock = container.create().unwrap();
        assert!(container.try_lock().unwrap().is_none());
        drop(lock);
        assert!(container.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_container_that_was_locked_is_not_mistaken_for_the_next_of_its_id() {
        let (_keep, container) = scratch("a");
        let released = container.create().unwrap().release().unwrap();
        let lock = container.lock_again(&released).unwrap();
        assert!(container.try_lock().unwrap().is_none());
        container.remove(&lock).unwrap();
        drop(lock);
        assert!(matches!(container.lock_again(&released), Err(Error::NoSuchContainer(_))));
        let next = container.create().unwrap();
        assert!(matches!(container.lock_again(&released), Err(Error::NoSuchContainer(_))));
        drop(next);
    }

    #[test]
    fn removal_leaves_nothing_and_the_id_is_unknown_after_it() {
        let (_keep, container) = scratch("a");
        let lock = container.create().unwrap();
        fs::write(container.file(STATE_FILE), "{}").unwrap();
        container.remove(&lock).unwrap();
        assert!(!container.path().exists());
        assert!(matches!(container.try_lock(), Err(Error::NoSuchContainer(_))));
    }
}
