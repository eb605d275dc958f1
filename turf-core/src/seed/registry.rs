//! The directory of seeds: start one, find one by name, list them, stop one.
//!
//! ```text
//! <root>/seeds/<name>/lock          held by whoever starts or stops the seed
//! <root>/seeds/<name>/alive         locked by the seed as long as it lives: the kernel lets go of it
//! <root>/seeds/<name>/state.json    pid and source, written by the seed
//! <root>/seeds/<name>/control.sock  where it listens
//! <root>/seeds/<name>/log           its standard error
//! ```
//!
//! A seed that was killed leaves its files behind; `alive` is not locked then, and the next start replaces it. The
//! directory itself stays, so that two commands that lock it always lock the same file.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use serde::{Deserialize, Serialize};

use super::client::{ClientError, SeedClient};
use super::protocol::SeedStat;
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::root::{StateRoot, create_private_dir_all};
use crate::sandbox::launch::read_only_program;
use crate::sys::pidfd;

/// The name of the seed that starts on first use.
pub const DEFAULT_SEED: &str = "default";
/// The file name of the seed's program.
pub const PROGRAM: &str = "turf-seed";
/// What a seed writes to its standard output when it listens; anything else is the reason why it does not.
pub const READY: &str = "ready";

/// Where the program is looked for after the directory of the running program.
const PROGRAM_DIRECTORIES: [&str; 2] = ["/usr/libexec/turf", "/usr/local/libexec/turf"];
/// Longest message of a seed that does not start, in bytes.
const MAX_START_MESSAGE: u64 = 64 * 1024;

/// The name of a seed: 1 to 64 letters, digits, `_`, `-`, `.`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeedName(String);

impl SeedName {
    /// The seed that starts on first use.
    pub fn default_seed() -> SeedName {
        SeedName(DEFAULT_SEED.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SeedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<SeedName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= limits::SEED_NAME_BYTES && text.bytes().all(allowed) {
            return Ok(SeedName(text.to_owned()));
        }
        let rule = "must be 1 to 64 letters, digits, '_', '-' or '.', and start with a letter or digit";
        Err(Error::invalid(format!("seed name {text:?}"), rule))
    }
}

impl TryFrom<String> for SeedName {
    type Error = Error;

    fn try_from(text: String) -> Result<SeedName> {
        text.parse()
    }
}

impl From<SeedName> for String {
    fn from(name: SeedName) -> String {
        name.0
    }
}

impl fmt::Display for SeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a seed has loaded when it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeedSource {
    /// The built-ins only: each worker loads its own script.
    BuiltIns,
    /// A user's script, run up to its `serialize` event: each worker starts at `deserialize`.
    Script(PathBuf),
    /// A snapshot, made behind a program's `serialize` event: each worker starts at `deserialize`.
    Snapshot(PathBuf),
}

impl SeedSource {
    /// The file of user code, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            SeedSource::BuiltIns => None,
            SeedSource::Script(path) | SeedSource::Snapshot(path) => Some(path),
        }
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

/// The files of one seed.
#[derive(Clone, Debug)]
pub struct SeedDir(PathBuf);

impl SeedDir {
    /// The directory at `path`.
    pub fn at(path: &Path) -> SeedDir {
        SeedDir(path.to_owned())
    }

    /// Where the seed listens.
    pub fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    fn state_file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Locks `alive` for the calling seed, or says that another one has it.
    pub fn claim(&self) -> Result<Alive> {
        match try_lock(&self.0.join("alive"))? {
            Some(lock) => Ok(Alive { lock }),
            None => Err(Error::invalid(self.0.display().to_string(), "belongs to another living seed")),
        }
    }

    fn is_alive(&self) -> Result<bool> {
        Ok(try_lock(&self.0.join("alive"))?.is_none())
    }

    /// Writes state.json, whole or not at all.
    pub fn write_state(&self, state: &SeedState) -> Result<()> {
        let path = self.state_file();
        let text = serde_json::to_vec(state).map_err(io::Error::from);
        let text = text.operation(|| format!("encode {}", path.display()))?;
        let temporary = self.0.join("state.json.new");
        fs::write(&temporary, text).operation(|| format!("write {}", temporary.display()))?;
        fs::rename(&temporary, &path).operation(|| format!("rename {}", temporary.display()))
    }

    /// Reads state.json; nothing if there is none.
    fn read_state(&self) -> Result<Option<SeedState>> {
        let path = self.state_file();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.operation(|| format!("read {}", path.display()))?,
        };
        match serde_json::from_slice(&text) {
            Ok(state) => Ok(Some(state)),
            Err(error) => Err(Error::invalid(path.display().to_string(), error.to_string())),
        }
    }

    /// Removes what a seed leaves behind, except the directory, its locks and the log. Only for the seed itself at its
    /// end, and for who knows that it is gone.
    pub fn clear(&self) -> Result<()> {
        for path in [self.control(), self.state_file()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.operation(|| format!("remove {}", path.display()))?,
            }
        }
        Ok(())
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

/// All seeds of one state directory.
#[derive(Clone, Debug)]
pub struct Registry {
    seeds: PathBuf,
    program: Option<PathBuf>,
}

impl Registry {
    /// The seeds of this state directory.
    pub fn new(root: &StateRoot) -> Registry {
        Registry { seeds: root.seeds(), program: None }
    }

    /// Starts seeds with this program instead of the installed one.
    pub fn with_program(self, program: &Path) -> Registry {
        Registry { program: Some(program.to_owned()), ..self }
    }

    /// Connects to a seed. The default seed is started if it does not run; another is not.
    pub fn connect(&self, name: &SeedName) -> Result<SeedClient> {
        let directory = self.directory(name);
        let error = match SeedClient::connect(&directory.control()) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        if name.as_str() != DEFAULT_SEED {
            return Err(Error::invalid(
                format!("seed {name}"),
                format!("is not running ({error}); start it with `turf seed start {name}`"),
            ));
        }
        let _lock = self.lock(name)?;
        // Another command may have started it while this one waited for the lock.
        if let Running::Yes(client) = self.look(name)? {
            return Ok(client);
        }
        self.spawn(name, &SeedSource::BuiltIns)?;
        Ok(SeedClient::connect(&directory.control())?)
    }

    /// Starts a seed and waits until it listens. An error if one of that name runs.
    pub fn start(&self, name: &SeedName, source: &SeedSource) -> Result<SeedState> {
        let _lock = self.lock(name)?;
        if let Running::Yes(_) = self.look(name)? {
            return Err(Error::invalid(format!("seed {name}"), "is already running"));
        }
        self.spawn(name, source)
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
            let directory = self.directory(&name);
            if let Some(state) = directory.read_state()? {
                let client = SeedClient::connect_within(&directory.control(), limits::SEED_STAT);
                found.push(SeedEntry { name, state, stat: client.and_then(SeedClient::stat) });
            }
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// Stops a seed: asks it, then kills it if it does not go. Its workers live on.
    pub fn stop(&self, name: &SeedName) -> Result<()> {
        if !self.path(name).exists() {
            return Err(not_running(name));
        }
        let _lock = self.lock(name)?;
        let directory = self.directory(name);
        let state = directory.read_state()?;
        if !directory.is_alive()? {
            directory.clear()?;
            return if state.is_some() { Ok(()) } else { Err(not_running(name)) };
        }
        let asked = SeedClient::connect_within(&directory.control(), limits::SEED_STAT);
        let asked = asked.and_then(SeedClient::stop);
        if asked.is_err() || !wait_until(limits::SEED_STOP, || Ok(!directory.is_alive()?))? {
            self.kill(name, &directory)?;
        }
        directory.clear()
    }

    fn path(&self, name: &SeedName) -> PathBuf {
        self.seeds.join(name.as_str())
    }

    fn directory(&self, name: &SeedName) -> SeedDir {
        SeedDir(self.path(name))
    }

    fn lock(&self, name: &SeedName) -> Result<File> {
        let path = self.path(name);
        create_private_dir_all(&path)?;
        let file = path.join("lock");
        let mut lock = None;
        let locked = wait_until(limits::SEED_LOCK, || {
            lock = try_lock(&file)?;
            Ok(lock.is_some())
        })?;
        match lock.filter(|_| locked) {
            Some(lock) => Ok(lock),
            None => Err(timed_out(format!("lock seed {name}"), limits::SEED_LOCK)),
        }
    }

    /// Whether a seed of that name runs; one that lives but does not listen in time is killed. The caller holds the lock.
    fn look(&self, name: &SeedName) -> Result<Running> {
        let directory = self.directory(name);
        let mut client = None;
        // A seed whose starter was killed is warming up, and will listen soon.
        wait_until(limits::SEED_START, || {
            client = SeedClient::connect(&directory.control()).ok();
            Ok(client.is_some() || !directory.is_alive()?)
        })?;
        if let Some(client) = client {
            return Ok(Running::Yes(client));
        }
        if directory.is_alive()? {
            self.kill(name, &directory)?;
        }
        directory.clear()?;
        Ok(Running::No)
    }

    fn kill(&self, name: &SeedName, directory: &SeedDir) -> Result<()> {
        let Some(state) = directory.read_state()? else {
            return Err(Error::invalid(format!("seed {name}"), "lives, but has not written its state.json"));
        };
        match pidfd::pidfd_open(state.pid) {
            // It went by itself.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            opened => {
                let process = opened.operation(|| format!("open process {} of seed {name}", state.pid))?;
                // The number is the seed's only while the seed holds its lock.
                if directory.is_alive()? {
                    pidfd::pidfd_send_signal(process.as_fd(), libc::SIGKILL)
                        .operation(|| format!("kill seed {name}"))?;
                }
            }
        }
        match wait_until(limits::SEED_STOP, || Ok(!directory.is_alive()?))? {
            true => Ok(()),
            false => Err(timed_out(format!("wait for the end of seed {name}"), limits::SEED_STOP)),
        }
    }

    fn spawn(&self, name: &SeedName, source: &SeedSource) -> Result<SeedState> {
        let directory = self.directory(name);
        let program = self.find_program()?;
        let log = directory.log();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let log_file = options.open(&log).operation(|| format!("open {}", log.display()))?;
        // Workers are forks of it: its file shows in their sandboxes as /proc/PID/exe (CVE-2019-5736).
        let sealed = match read_only_program(&program) {
            // Who may not mount is not root, and can hardly write the file that root installed.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            sealed => Some(sealed.operation(|| format!("mount {} read-only", program.display()))?),
        };
        let path = sealed.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let mut command = Command::new(path.as_deref().unwrap_or(&program));
        command.arg0(&program).arg("--name").arg(name.as_str()).arg("--directory").arg(&directory.0);
        match source {
            SeedSource::BuiltIns => {}
            SeedSource::Script(script) => drop(command.arg("--script").arg(script)),
            SeedSource::Snapshot(snapshot) => drop(command.arg("--snapshot").arg(snapshot)),
        }
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let mut child = command.spawn().operation(|| format!("run {}", program.display()))?;
        let message = read_start_message(child.stdout.take(), name);
        // The program leaves a daemon behind and returns at once.
        child.wait().operation(|| format!("wait for {}", program.display()))?;
        let message = message?;
        if message.trim_end() != READY {
            let text = match message.trim_end() {
                "" => format!("seed {name} died while it started; see {}", log.display()),
                reason => format!("seed {name} does not start: {reason}"),
            };
            return Err(Error::Remote { text });
        }
        match directory.read_state()? {
            Some(state) => Ok(state),
            None => Err(not_running(name)),
        }
    }

    fn find_program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let own = std::env::current_exe().operation(|| "read /proc/self/exe")?;
        let beside = own.parent().map(|directory| directory.join(PROGRAM));
        let installed = PROGRAM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(PROGRAM));
        let places: Vec<PathBuf> = beside.into_iter().chain(installed).collect();
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Ok(place.clone()),
            None => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                Err(Error::invalid(PROGRAM, format!("is not at {}", places.join(", "))))
            }
        }
    }
}

enum Running {
    Yes(SeedClient),
    No,
}

/// Reads what the seed says when it is ready or has failed, up to the end of a line or of the file.
fn read_start_message(output: Option<std::process::ChildStdout>, name: &SeedName) -> Result<String> {
    let Some(output) = output else {
        return Ok(String::new());
    };
    let deadline = Instant::now() + limits::SEED_START;
    let mut message = Vec::new();
    let mut output = output.take(MAX_START_MESSAGE);
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut polled = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) => return Err(timed_out(format!("start seed {name}"), limits::SEED_START)),
            Err(Errno::EINTR) => continue,
            result => result.operation(|| format!("wait for seed {name}"))?,
        };
        let count = output.read(&mut buffer).operation(|| format!("read the answer of seed {name}"))?;
        message.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return Ok(String::from_utf8_lossy(&message).into_owned());
        }
    }
}

/// flock(2) through the standard library, whose file keeps the lock until the last copy of it is closed: what unlocks
/// when it is dropped would, in a forked worker, unlock the seed's.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).operation(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io(format!("lock {}", path.display()), error)),
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

fn not_running(name: &SeedName) -> Error {
    Error::invalid(format!("seed {name}"), "is not running")
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        Error::Remote { text: error.to_string() }
    }
}
