//! state.json: what the later verbs must know of a container, and the status that follows from it.
//!
//! ```text
//! {"version":3, ...}              the state: where this file is, there is a container
//! {"workload": ...}               the plan: what start and delete need besides
//! {"pid":1234,"start_time":567}   init's process id; from here on create is at work
//! "created"                       init stands at the gate
//! ```
//!
//! state.json is these lines. The first two are written to a temporary name that is renamed, the others are added at the
//! end, each by one write(2), and count when they are whole: a reader needs no lock and never sees half of anything. Only
//! `update` writes the file anew. One file, because making and removing files is what the state costs; not replaced,
//! because ext4 writes a file that replaces another to the disk at once (mount option `auto_da_alloc`), which takes milliseconds. It
//! is not forced to the disk: the state directory is volatile, and after a crash of the machine there is no
//! container left to describe.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use super::status::Status;
use crate::cgroup::Cgroup;
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::root::{ContainerDir, ContainerId, Lock, STATE_FILE};
use crate::sandbox::gate;
use crate::sandbox::plan::Plan;

/// The version of the file's form. Another version is refused, not guessed at.
const VERSION: u32 = 3;

/// The last line.
const CREATED: &[u8] = b"\"created\"\n";

/// How far `create` came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// `create` is at work, or was interrupted.
    #[default]
    Creating,
    /// `create` is done.
    Created,
}

/// What state.json holds besides the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The version of the OCI runtime specification that the bundle follows.
    pub oci_version: String,
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// The container's root on the host; none for a worker without an image.
    pub rootfs: Option<PathBuf>,
    /// The bundle's annotations.
    pub annotations: BTreeMap<String, String>,
    /// When `create` began, as RFC 3339.
    pub created: String,
    /// The user who called `create`.
    pub owner: u32,
    /// How far `create` came.
    #[serde(skip)]
    phase: Phase,
    /// init, once there is one.
    #[serde(skip)]
    pub init: Option<ProcessId>,
    /// The control groups. They are written down before they are made.
    pub cgroup: Cgroup,
    /// How many descriptors from 3 up init holds for the workload.
    pub preserved_fds: u32,
    /// How many of those, the first ones, are listening sockets.
    pub listen_fds: u32,
    /// Whether the bundle has `poststop` hooks.
    pub has_poststop: bool,
    /// The id of the mount in the host's mount namespace that all of the container's mounts lie in, if that is where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_root: Option<u64>,
}

impl State {
    /// The state of a container that `create` has just begun, without an init.
    pub fn begin(id: &ContainerId, plan: &Plan, rootfs: Option<PathBuf>, cgroup: Cgroup) -> State {
        State {
            version: VERSION,
            oci_version: plan.init.state.oci_version.clone(),
            id: id.clone(),
            bundle: plan.init.state.bundle.clone(),
            rootfs,
            annotations: plan.init.state.annotations.clone(),
            created: crate::time::rfc3339(std::time::SystemTime::now()),
            owner: nix::unistd::geteuid().as_raw(),
            phase: Phase::Creating,
            init: None,
            cgroup,
            preserved_fds: 0,
            listen_fds: 0,
            has_poststop: !plan.hooks.poststop.is_empty(),
            host_root: None,
        }
    }

    /// Reads the state of a container.
    pub fn load(dir: &ContainerDir) -> Result<State> {
        match Record::read(dir)? {
            Some(record) => record.state(),
            None => State::interrupted(dir),
        }
    }

    /// Reads the state and the plan of a container that exists.
    pub fn load_with_plan(dir: &ContainerDir) -> Result<(State, Plan)> {
        match Record::read(dir)? {
            Some(record) => Ok((record.state()?, record.plan()?)),
            None => Err(dir.unknown()),
        }
    }

    /// What a `create` or `delete` that was killed in its first or last step has left: files without state.json, no
    /// process and no control group. A verb that is still at work has them locked; then there is no container.
    fn interrupted(dir: &ContainerDir) -> Result<State> {
        match dir.try_lock() {
            Ok(Some(_)) => {}
            // Killed before it made the lock, or after it removed it.
            Err(Error::NoSuchContainer(_)) if dir.path().exists() => {}
            Ok(None) | Err(Error::NoSuchContainer(_)) => return Err(dir.unknown()),
            Err(error) => return Err(error),
        }
        Ok(State {
            version: VERSION,
            oci_version: crate::sandbox::compile::OCI_VERSION.to_owned(),
            id: dir.id().clone(),
            bundle: PathBuf::new(),
            rootfs: None,
            annotations: BTreeMap::new(),
            created: crate::time::rfc3339(dir.made()?),
            owner: nix::unistd::geteuid().as_raw(),
            phase: Phase::Creating,
            init: None,
            cgroup: Cgroup::default(),
            preserved_fds: 0,
            listen_fds: 0,
            has_poststop: false,
            host_root: None,
        })
    }

    /// Writes the state of a container that has no init yet, and its plan: from here on it exists.
    pub fn store(&self, dir: &ContainerDir, plan: &Plan, _lock: &Lock) -> Result<()> {
        let lines = [encode(self)?, encode(plan)?, Vec::new()];
        write_atomically(&dir.file(STATE_FILE), &lines.join(&b'\n'))
    }

    /// Writes down init, which is at work on its sandbox.
    pub fn store_init(&mut self, dir: &ContainerDir, init: ProcessId, _lock: &Lock) -> Result<()> {
        self.init = Some(init);
        let mut line = encode(&init)?;
        line.push(b'\n');
        append(dir, &line)
    }

    /// For an init whose program runs as soon as the sandbox stands: what is answered writes both down, init and that the container
    /// was created, also from where the state directory is out of reach.
    pub fn record_running(
        &mut self,
        dir: &ContainerDir,
        init: ProcessId,
        _lock: &Lock,
    ) -> Result<impl FnOnce() -> Result<()> + use<>> {
        let (mut lines, path) = (encode(&init)?, dir.file(STATE_FILE));
        lines.push(b'\n');
        lines.extend_from_slice(CREATED);
        let file = fs::OpenOptions::new().append(true).open(&path);
        let mut file = file.operation(|| format!("open {}", path.display()))?;
        (self.init, self.phase) = (Some(init), Phase::Created);
        Ok(move || file.write_all(&lines).operation(|| format!("write {}", path.display())))
    }

    /// Writes down that init stands at the gate.
    pub fn store_created(&mut self, dir: &ContainerDir, _lock: &Lock) -> Result<()> {
        self.phase = Phase::Created;
        append(dir, CREATED)
    }

    /// Writes a state that has changed, and leaves the other lines as they are.
    pub fn replace(&self, dir: &ContainerDir, _lock: &Lock) -> Result<()> {
        let Some(Record { path, text }) = Record::read(dir)? else { return Err(dir.unknown()) };
        let others = text.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &text[end..]);
        write_atomically(&path, &[&encode(self)?, others].concat())
    }

    /// The status of the container. `creator` says whether a `create` may still be at work.
    pub fn status(&self, dir: &ContainerDir, creator: Creator) -> Result<Status> {
        let init_lives = match &self.init {
            Some(init) => init.is_alive()?,
            None => false,
        };
        Ok(match (self.phase, init_lives) {
            (Phase::Creating, true) => Status::Creating,
            (Phase::Creating, false) if creator == Creator::MayLive && matches!(dir.try_lock(), Ok(None)) => {
                Status::Creating
            }
            (Phase::Creating | Phase::Created, false) => Status::Stopped,
            (Phase::Created, true) if gate::is_waiting(dir.path())? => Status::Created,
            (Phase::Created, true) if self.cgroup.is_frozen()? => Status::Paused,
            (Phase::Created, true) => Status::Running,
        })
    }

    /// The state as the OCI runtime specification shows it, with runc's additional members.
    pub fn to_oci(&self, status: Status) -> OciState {
        let pid = match (status, &self.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        };
        OciState {
            oci_version: self.oci_version.clone(),
            id: self.id.to_string(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: owner_name(self.owner),
        }
    }
}

/// Whether a `create` may still be at work on a container whose state is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creator {
    /// It may: the container's lock tells.
    MayLive,
    /// It does not: the caller holds the container's lock.
    Gone,
}

/// The state of a container as `turf state` prints it (OCI: runtime.md, "State").
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The pid of init; 0 when it has exited.
    pub pid: i32,
    /// The status.
    pub status: Status,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The container's root on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// When it was created.
    pub created: String,
    /// The annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who created it.
    pub owner: String,
}

/// Reads the plan.
pub fn load_plan(dir: &ContainerDir) -> Result<Plan> {
    Record::read(dir)?.ok_or_else(|| dir.unknown())?.plan()
}

/// The text of a state.json.
struct Record {
    path: PathBuf,
    text: Vec<u8>,
}

impl Record {
    fn read(dir: &ContainerDir) -> Result<Option<Record>> {
        let path = dir.file(STATE_FILE);
        Ok(read_bounded(&path)?.map(|text| Record { path, text }))
    }

    /// A line by its number from 0, if it is there as a whole.
    fn line(&self, number: usize) -> Option<&[u8]> {
        let ends = self.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let mut ends = ends.map(|(at, _)| at);
        let start = match number {
            0 => 0,
            number => ends.nth(number - 1)? + 1,
        };
        self.text.get(start..ends.next()?)
    }

    fn state(&self) -> Result<State> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let line = self.line(0).unwrap_or(&self.text);
        let version: Version = parse(&self.path, line)?;
        if version.version != VERSION {
            let reason = format!("is of version {}, this turf knows {VERSION}", version.version);
            return Err(Error::invalid(self.path.display().to_string(), reason));
        }
        let mut state: State = parse(&self.path, line)?;
        state.init = self.line(2).map(|line| parse(&self.path, line)).transpose()?;
        if self.line(3).is_some() {
            state.phase = Phase::Created;
        }
        Ok(state)
    }

    fn plan(&self) -> Result<Plan> {
        let missing = || Error::invalid(self.path.display().to_string(), "has no plan");
        parse(&self.path, self.line(1).ok_or_else(missing)?)
    }
}

/// Adds a line at the end of state.json.
fn append(dir: &ContainerDir, line: &[u8]) -> Result<()> {
    let path = dir.file(STATE_FILE);
    let opened = fs::OpenOptions::new().append(true).open(&path);
    opened.and_then(|mut file| file.write_all(line)).operation(|| format!("write {}", path.display()))
}

/// Tells whether a container's state.json is the file that it was: what is written anew is another file. Keeps it open, so that no other
/// comes to have its number.
#[derive(Debug)]
pub(super) struct Mark {
    _file: fs::File,
    file: (u64, u64),
}

impl Mark {
    /// Of the file that is there.
    pub(super) fn of(dir: &ContainerDir) -> Option<Mark> {
        let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(dir.file(STATE_FILE));
        let file = opened.ok()?;
        let found = file.metadata().ok()?;
        Some(Mark { _file: file, file: (found.dev(), found.ino()) })
    }

    /// Whether it is still there.
    pub(super) fn holds(&self, dir: &ContainerDir) -> bool {
        fs::metadata(dir.file(STATE_FILE)).is_ok_and(|found| (found.dev(), found.ino()) == self.file)
    }
}

/// Writes a file under another name in its directory and renames it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = fs::write(&temporary, content)
        .operation(|| format!("write {}", path.display()))
        .and_then(|()| fs::rename(&temporary, path).operation(|| format!("write {}", path.display())));
    if result.is_err() {
        // What is left of it is worthless, and there may be nothing.
        drop(fs::remove_file(&temporary));
    }
    result
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::invalid("state.json", error.to_string()))
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))
}

/// The content of a file of ours, or nothing if there is none.
pub(super) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.operation(|| format!("open {}", path.display()))?,
    };
    // Room for a usual file, so that it is read by one call.
    let mut text = Vec::with_capacity(8192);
    let read = file.take(limits::STATE_FILE_BYTES + 1).read_to_end(&mut text);
    read.operation(|| format!("read {}", path.display()))?;
    if text.len() as u64 > limits::STATE_FILE_BYTES {
        let reason = format!("is longer than {} bytes", limits::STATE_FILE_BYTES);
        return Err(Error::invalid(path.display().to_string(), reason));
    }
    Ok(Some(text))
}

/// The user's name, or the number of a user without one. Root needs no look-up.
fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    // Not getpwuid(3): a static program has no plug-ins to look further.
    crate::sandbox::program::user_name(Path::new("/etc/passwd"), uid).unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::StateRoot;
    use crate::sandbox::plan::{HookState, HooksPlan, InitPlan, ProcessPlan, WorkloadPlan};

    fn plan() -> Plan {
        let state = HookState {
            oci_version: "1.2.0".into(),
            id: "box".into(),
            bundle: "/bundle".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        };
        Plan {
            workload: WorkloadPlan::Exec,
            init: InitPlan {
                namespaces: Vec::new(),
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
                owner: None,
                time_offsets: Vec::new(),
                steps: Vec::new(),
                state,
            },
            process: ProcessPlan::default(),
            cgroup: crate::cgroup::CgroupPlan::compile_linux("box", None).unwrap(),
            hooks: HooksPlan::default(),
            net_devices: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn container() -> (tempfile::TempDir, ContainerDir, Lock, State) {
        let directory = tempfile::tempdir().unwrap();
        let id: ContainerId = "box".parse().unwrap();
        let dir = StateRoot::at(directory.path()).unwrap().container(&id);
        let lock = dir.create().unwrap();
        let state = State::begin(&id, &plan(), None, Cgroup::default());
        (directory, dir, lock, state)
    }

    fn myself() -> Option<ProcessId> {
        Some(ProcessId::of(std::process::id() as i32).unwrap())
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let (_keep, dir, lock, mut state) = container();
        assert!(matches!(State::load(&dir), Err(Error::NoSuchContainer(_))));
        state.store(&dir, &plan(), &lock).unwrap();
        assert_eq!(State::load(&dir).unwrap(), state);
        state.store_init(&dir, myself().unwrap(), &lock).unwrap();
        assert_eq!((state.phase, &State::load(&dir).unwrap()), (Phase::Creating, &state));
        state.store_created(&dir, &lock).unwrap();
        assert_eq!((state.phase, &State::load(&dir).unwrap()), (Phase::Created, &state));
        assert_eq!(load_plan(&dir).unwrap(), plan());
        state.preserved_fds = 7;
        state.replace(&dir, &lock).unwrap();
        assert_eq!(State::load_with_plan(&dir).unwrap(), (state, plan()));
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [STATE_FILE], "no temporary file is left");
    }

    #[test]
    fn a_state_that_is_written_anew_is_told_from_the_one_before() {
        let (_keep, dir, lock, mut state) = container();
        assert!(Mark::of(&dir).is_none());
        state.store(&dir, &plan(), &lock).unwrap();
        let mark = Mark::of(&dir).unwrap();
        // Lines that are added are of no state.
        state.record_running(&dir, myself().unwrap(), &lock).unwrap()().unwrap();
        assert!(mark.holds(&dir));
        let loaded = State::load(&dir).unwrap();
        assert_eq!((loaded.init, loaded.phase), (myself(), Phase::Created));
        for _ in 0..3 {
            state.replace(&dir, &lock).unwrap();
            assert!(!mark.holds(&dir));
        }
        dir.remove(&lock).unwrap();
        assert!(!mark.holds(&dir));
    }

    #[test]
    fn a_line_counts_when_it_is_whole() {
        let (_keep, dir, lock, mut state) = container();
        state.store(&dir, &plan(), &lock).unwrap();
        let begun = State::load(&dir).unwrap();
        state.store_init(&dir, myself().unwrap(), &lock).unwrap();
        let building = State::load(&dir).unwrap();
        state.store_created(&dir, &lock).unwrap();
        let text = fs::read(dir.file(STATE_FILE)).unwrap();
        let ends: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b'\n').collect();
        for length in ends[1] + 1..text.len() {
            fs::write(dir.file(STATE_FILE), &text[..length]).unwrap();
            let wanted = if length <= ends[2] { &begun } else { &building };
            assert_eq!(&State::load(&dir).unwrap(), wanted, "{length} bytes");
        }
    }

    #[test]
    fn another_version_and_nonsense_are_refused_by_the_files_name() {
        let (_keep, dir, _lock, _) = container();
        for text in ["{\"version\": 99}", "{", "", "[]"] {
            fs::write(dir.file(STATE_FILE), text).unwrap();
            let error = State::load(&dir).unwrap_err().to_string();
            assert!(error.contains("state.json: "), "{error}");
        }
    }

    #[test]
    fn the_status_follows_from_what_is_really_there() {
        let (_keep, dir, lock, mut state) = container();
        // `create` is at work as long as it holds the lock; if it died, nothing runs.
        assert_eq!(state.status(&dir, Creator::MayLive).unwrap(), Status::Creating);
        assert_eq!(state.status(&dir, Creator::Gone).unwrap(), Status::Stopped);
        drop(lock);
        assert_eq!(state.status(&dir, Creator::MayLive).unwrap(), Status::Stopped);
        // With a living init it cannot be called stopped.
        state.init = myself();
        assert_eq!(state.status(&dir, Creator::Gone).unwrap(), Status::Creating);
        state.phase = Phase::Created;
        assert_eq!(state.status(&dir, Creator::Gone).unwrap(), Status::Running);
        // The pid of a process that started at another time is not init's.
        state.init.as_mut().unwrap().start_time += 1;
        assert_eq!(state.status(&dir, Creator::Gone).unwrap(), Status::Stopped);
    }

    #[test]
    fn a_stopped_container_shows_no_pid() {
        let (_keep, _dir, _lock, mut state) = container();
        state.init = myself();
        assert_eq!(state.to_oci(Status::Stopped).pid, 0);
        let shown = serde_json::to_value(state.to_oci(Status::Running)).unwrap();
        assert_eq!(shown["pid"], std::process::id());
        assert_eq!(shown["status"], "running");
        assert_eq!(shown["ociVersion"], "1.2.0");
        assert_eq!(shown["annotations"]["a"], "b");
        assert!(shown.get("rootfs").is_none());
    }
}
