//! The control groups of one container: made, joined, frozen, emptied, removed.
//!
//! On version 1 a container has one group per controller that its resources ask for, one in the
//! freezer, which knows all its processes, and one each for what it has used of memory and CPU time; one per
//! hierarchy if the bundle names the group. On version 2 it has one group. The files are written
//! directly (docs/decisions/0001-cgroups-by-hand.md). cgroups(7).

pub mod devices;
pub mod layout;
mod oom;
pub mod resources;
mod stats;
mod sub;
mod update;

pub use oom::{OomEvent, OomWatch};
pub use stats::Stats;
pub use sub::SubGroup;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sys::bpf;
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use layout::{CgroupPath, Layout};
use resources::Setting;

/// The version 1 hierarchies in which a container has a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchies {
    /// Those that its resources ask for, the freezer, and those that count memory and CPU time.
    Needed,
    /// All: who gives `linux.cgroupsPath` reads the statistics there by itself, and podman fails where
    /// containerd tells those of the parent if a group is missing.
    All,
}

/// The version 1 controllers whose numbers `turf events` tells of every container. Each group costs a
/// start about 50 microseconds, so the others are made only when they are asked for.
const COUNTING: [&str; 2] = ["memory", "cpuacct"];

/// What the bundle asks of its control groups; independent of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Where the group is.
    pub path: CgroupPath,
    /// On version 1: in which hierarchies it is.
    pub hierarchies: Hierarchies,
    /// What to write on version 1, in order.
    pub v1: Vec<Setting>,
    /// What to write on version 2, in order.
    pub v2: Vec<Setting>,
    /// The devices that may be used, in the order in which the rules apply; none: all of them.
    pub devices: Vec<devices::Rule>,
}

impl CgroupPlan {
    /// Compiles `linux.cgroupsPath` and `linux.resources`.
    pub fn compile(id: &str, linux: Option<&Linux>) -> Result<CgroupPlan> {
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let hierarchies = match path {
            Some(path) if !path.as_os_str().is_empty() => Hierarchies::All,
            Some(_) | None => Hierarchies::Needed,
        };
        let path = CgroupPath::parse(path, id)?;
        let Some(resources) = resources else {
            return Ok(CgroupPlan { path, hierarchies, v1: Vec::new(), v2: Vec::new(), devices: Vec::new() });
        };
        let devices = devices::compile(resources.devices().as_deref().unwrap_or_default())?;
        let lines = devices.iter().map(|rule| rule.to_v1());
        let mut v1: Vec<Setting> =
            lines.map(|(file, line)| resources::setting("devices", file, line)).collect();
        v1.extend(resources::settings_v1(resources)?);
        let v2 = resources::settings_v2(resources)?;
        Ok(CgroupPlan { path, hierarchies, v1, v2, devices })
    }
}

/// The version of a group's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    V1,
    V2,
}

/// One directory of a control group file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    version: Version,
    /// Version 1: the controllers of the hierarchy. Version 2: those that the container needs.
    controllers: Vec<String>,
    mount: PathBuf,
    directory: PathBuf,
}

/// The control groups of one container, located on this machine. Kept in state.json, so that later
/// verbs need not look for them again.
///
/// The first group is the one that is asked for the container's processes; there is none at all on
/// a machine without control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cgroup {
    groups: Vec<Group>,
}

impl Cgroup {
    /// Finds out which groups the plan needs on this machine; changes nothing. Refuses a controller
    /// that is not there, and a group in which somebody else's processes live: they would be killed
    /// with the container.
    pub fn locate(plan: &CgroupPlan) -> Result<Cgroup> {
        let cgroup = Cgroup::locate_in(&Layout::read()?, plan)?;
        for group in &cgroup.groups {
            let occupants = read_pids(&group.directory.join("cgroup.procs"))?.len();
            if occupants > 0 {
                let object = format!("control group {}", group.directory.display());
                return Err(Error::invalid(object, format!("is not empty: {occupants} processes are in it")));
            }
        }
        Ok(cgroup)
    }

    fn locate_in(layout: &Layout, plan: &CgroupPlan) -> Result<Cgroup> {
        match &layout.v2 {
            Some(hierarchy) if layout.is_unified() => {
                let mut controllers: Vec<String> = Vec::new();
                for setting in &plan.v2 {
                    if setting.controller != "cgroup" && !controllers.contains(&setting.controller) {
                        controllers.push(setting.controller.clone());
                    }
                }
                let base = match &plan.path {
                    CgroupPath::Absolute(path) => path.clone(),
                    CgroupPath::Relative(path) => hierarchy.own.parent().unwrap_or(Path::new("")).join(path),
                };
                let mount = hierarchy.mount.clone();
                let directory = mount.join(base);
                Ok(Cgroup { groups: vec![Group { version: Version::V2, controllers, mount, directory }] })
            }
            Some(_) | None => Cgroup::locate_v1(layout, plan),
        }
    }

    fn locate_v1(layout: &Layout, plan: &CgroupPlan) -> Result<Cgroup> {
        let mut chosen = Vec::new();
        // For bookkeeping the freezer, because it can also stop the processes; else any hierarchy.
        chosen.extend(layout.v1_of("freezer").or(layout.v1.first()));
        for setting in &plan.v1 {
            let hierarchy = layout.v1_of(&setting.controller).ok_or_else(|| missing(&setting.controller))?;
            if !chosen.iter().any(|known| std::ptr::eq(*known, hierarchy)) {
                chosen.push(hierarchy);
            }
        }
        // What the container uses can be counted only from its beginning on. A missing one is forgiven.
        for hierarchy in COUNTING.iter().filter_map(|controller| layout.v1_of(controller)) {
            if !chosen.iter().any(|known| std::ptr::eq(*known, hierarchy)) {
                chosen.push(hierarchy);
            }
        }
        if plan.hierarchies == Hierarchies::All {
            for hierarchy in &layout.v1 {
                if !chosen.iter().any(|known| std::ptr::eq(*known, hierarchy)) {
                    chosen.push(hierarchy);
                }
            }
        }
        let group = |hierarchy: &layout::Hierarchy| {
            let directory = match &plan.path {
                CgroupPath::Absolute(path) => hierarchy.mount.join(path),
                CgroupPath::Relative(path) => hierarchy.mount.join(&hierarchy.own).join(path),
            };
            let (controllers, mount) = (hierarchy.controllers.clone(), hierarchy.mount.clone());
            Group { version: Version::V1, controllers, mount, directory }
        };
        Ok(Cgroup { groups: chosen.into_iter().map(group).collect() })
    }

    /// Makes the groups and writes the plan's settings. After an error nothing is left.
    pub fn create(&self, plan: &CgroupPlan) -> Result<()> {
        self.try_create(plan).map_err(|error| error.and_clean_up(self.remove()))
    }

    fn try_create(&self, plan: &CgroupPlan) -> Result<()> {
        for group in &self.groups {
            make_directory(&group.directory)?;
            match group.version {
                Version::V1 if group.has("cpuset") => inherit_cpuset(group)?,
                Version::V1 => {}
                Version::V2 => enable_controllers(group)?,
            }
        }
        for group in &self.groups {
            let settings = match group.version {
                Version::V1 => &plan.v1,
                Version::V2 => &plan.v2,
            };
            for setting in settings.iter().filter(|setting| group.serves(setting)) {
                write_file(&group.directory.join(&setting.file), &setting.value)?;
            }
            if group.version == Version::V2 && !plan.devices.is_empty() {
                restrict_devices(&group.directory, &plan.devices)?;
            }
        }
        Ok(())
    }

    /// Opens the files through which a process enters the groups with [`join_self`].
    ///
    /// On version 1 these are the `tasks` files: a thread that writes `0` moves itself without
    /// waiting for an RCU grace period, which writing to `cgroup.procs` does (milliseconds).
    pub fn open_for_join(&self) -> Result<Vec<OwnedFd>> {
        self.groups.iter().map(|group| open_for_writing(&group.directory.join(group.join_file()))).collect()
    }

    /// The directory for clone3(2) with CLONE_INTO_CGROUP, if the container has a version 2 group:
    /// the child is born there, which costs nothing.
    pub fn open_for_clone(&self) -> Result<Option<OwnedFd>> {
        let Some(group) = self.groups.iter().find(|group| group.version == Version::V2) else {
            return Ok(None);
        };
        let directory = fs::File::open(&group.directory);
        directory.operation(|| format!("open {}", group.directory.display())).map(|file| Some(file.into()))
    }

    /// The directories, the bookkeeping one first.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|group| group.directory.as_path())
    }

    /// The container's processes as pids of the caller's pid namespace, sorted; those in groups that
    /// the container made below its own are included. Empty if the groups are gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(group) = self.groups.first() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for directory in with_children(&group.directory)? {
            all.extend(read_pids(&directory.join("cgroup.procs"))?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Stops every process of the container where it is, and waits until all have stopped.
    pub fn freeze(&self) -> Result<()> {
        let group = self.freezer()?;
        match group.version {
            Version::V1 => write_file(&group.directory.join("freezer.state"), "FROZEN")?,
            Version::V2 => write_file(&group.directory.join("cgroup.freeze"), "1")?,
        }
        let what = format!("freeze {}", group.directory.display());
        wait_until(&what, limits::FREEZE, || group.is_frozen())
            .map_err(|error| error.and_clean_up(self.thaw()))
    }

    /// Lets the processes of a frozen container go on; there are none if the groups are gone.
    pub fn thaw(&self) -> Result<()> {
        let group = self.freezer()?;
        let thawed = match group.version {
            Version::V1 => write_file(&group.directory.join("freezer.state"), "THAWED"),
            Version::V2 => write_file(&group.directory.join("cgroup.freeze"), "0"),
        };
        match thawed {
            Err(error) if is_gone(&error) => Ok(()),
            thawed => thawed,
        }
    }

    /// Whether the container is frozen. One without a freezer, or whose groups are gone, is not.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(group) = self.freezer() else { return Ok(false) };
        match group.is_frozen() {
            Err(error) if is_gone(&error) => Ok(false),
            frozen => frozen,
        }
    }

    fn freezer(&self) -> Result<&Group> {
        let group = self.groups.first().filter(|group| group.version == Version::V2 || group.has("freezer"));
        group.ok_or_else(|| missing("freezer"))
    }

    /// Sends `signal` to every process of the container, but not to `spared` unless it is the only one. They
    /// are frozen meanwhile where that is possible, so that none forks away and no pid can come to mean
    /// another process.
    pub fn signal_all(&self, signal: i32, spared: Option<i32>) -> Result<()> {
        let was_frozen = self.is_frozen()?;
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.processes().and_then(|mut pids| {
            if pids.len() > 1 {
                pids.retain(|pid| Some(*pid) != spared);
            }
            signal_each(&pids, signal)
        });
        if frozen && !was_frozen {
            return result.and(self.thaw());
        }
        result
    }

    /// Kills every process of the container and waits until all are gone, for at most
    /// [`limits::KILLED_PROCESSES_GONE`]. A frozen container is thawed, because a frozen process
    /// does not die.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + limits::KILLED_PROCESSES_GONE;
        while !self.processes()?.is_empty() {
            // A process that exits between the listing and the opening is gone: that is the aim.
            let handles: Vec<OwnedFd> =
                self.processes()?.into_iter().filter_map(|pid| pidfd_open(pid).ok()).collect();
            self.kill_once(&handles)?;
            if !wait_for_exits(&handles, deadline)? {
                let directory = self.groups.first().map(|group| group.directory.display().to_string());
                return Err(Error::TimedOut {
                    operation: format!("kill the processes in {}", directory.unwrap_or_default()),
                    limit_ms: limits::KILLED_PROCESSES_GONE.as_millis() as u64,
                });
            }
        }
        Ok(())
    }

    fn kill_once(&self, handles: &[OwnedFd]) -> Result<()> {
        if let Some(group) = self.groups.first().filter(|group| group.version == Version::V2) {
            // Since Linux 5.14 the kernel does it all at once.
            if write_file(&group.directory.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        let frozen = self.is_frozen()? || self.freeze().is_ok();
        for handle in handles {
            match pidfd_send_signal(handle.as_fd(), libc::SIGKILL) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    let thawed = if frozen { self.thaw() } else { Ok(()) };
                    return Err(Error::io("kill a process of the container", error).and_clean_up(thawed));
                }
                Ok(()) | Err(_) => {}
            }
        }
        if frozen { self.thaw() } else { Ok(()) }
    }

    /// Removes the groups and those that the container made below them; groups that are gone
    /// already are no error. An exited process leaves its group a moment after its parent learned of
    /// the exit, so "busy" is retried for at most [`limits::CGROUP_REMOVAL`].
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + limits::CGROUP_REMOVAL;
        for group in &self.groups {
            remove_tree(&group.directory, deadline)?;
        }
        Ok(())
    }
}

/// Moves the calling single-threaded process into the groups whose files [`Cgroup::open_for_join`]
/// opened. Allocates nothing, so that it may run between fork and exec.
pub fn join_self(files: &[BorrowedFd<'_>]) -> io::Result<()> {
    for file in files {
        nix::unistd::write(file, b"0")?;
    }
    Ok(())
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn serves(&self, setting: &Setting) -> bool {
        self.version == Version::V2 || self.has(&setting.controller)
    }

    fn join_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        }
    }

    fn is_frozen(&self) -> Result<bool> {
        match self.version {
            Version::V1 => Ok(read_file(&self.directory.join("freezer.state"))?.trim() == "FROZEN"),
            Version::V2 => {
                Ok(read_file(&self.directory.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"))
            }
        }
    }
}

fn missing(controller: &str) -> Error {
    if controller == resources::UNIFIED {
        return Error::invalid(
            "config.json: $.linux.resources.unified",
            "needs cgroup v2; this machine has v1",
        );
    }
    Error::invalid(format!("cgroup controller {controller}"), "is needed, but not mounted on this machine")
}

/// Makes a group; its parents too, but only if they are missing.
fn make_directory(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(directory),
        result => result,
    }
    .operation(|| format!("create control group {}", directory.display()))
}

/// The directories from just below `mount` down to `directory`.
fn below<'a>(mount: &Path, directory: &'a Path) -> Vec<&'a Path> {
    let mut all: Vec<&Path> = directory.ancestors().take_while(|ancestor| *ancestor != mount).collect();
    all.reverse();
    all
}

/// A version 1 cpuset takes no process before it has CPUs and memory nodes: take the parent's.
fn inherit_cpuset(group: &Group) -> Result<()> {
    for directory in below(&group.mount, &group.directory) {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read_file(&directory.join(file))?.trim().is_empty() {
                let parent = directory.parent().unwrap_or(&group.mount);
                write_file(&directory.join(file), read_file(&parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// On version 2 a controller is there only if every ancestor passes it on.
fn enable_controllers(group: &Group) -> Result<()> {
    if group.controllers.is_empty() {
        return Ok(());
    }
    let enable: Vec<String> = group.controllers.iter().map(|name| format!("+{name}")).collect();
    let enable = enable.join(" ");
    let parents = std::iter::once(group.mount.as_path()).chain(below(&group.mount, &group.directory));
    for parent in parents.filter(|parent| *parent != group.directory) {
        write_file(&parent.join("cgroup.subtree_control"), &enable)?;
    }
    Ok(())
}

/// Version 2 has no files for devices: a BPF program of the group decides.
fn restrict_devices(directory: &Path, rules: &[devices::Rule]) -> Result<()> {
    let group = fs::File::open(directory).operation(|| format!("open {}", directory.display()))?;
    let program = bpf::load_device_program(&devices::program(rules)).operation(|| "load the device rules")?;
    let attached = bpf::attach_device_program(group.as_fd(), program.as_fd());
    attached.operation(|| format!("attach the device rules to {}", directory.display()))
}

fn open_for_writing(path: &Path) -> Result<OwnedFd> {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.map(OwnedFd::from).operation(|| format!("open {}", path.display()))
}

fn write_file(path: &Path, value: &str) -> Result<()> {
    let mut file = fs::File::from(open_for_writing(path)?);
    file.write_all(value.as_bytes()).operation(|| format!("write {value:?} to {}", path.display()))
}

fn read_file(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(path).operation(|| format!("open {}", path.display()))?;
    let read = file.take(limits::CGROUP_FILE_BYTES).read_to_string(&mut text);
    read.operation(|| format!("read {}", path.display()))?;
    Ok(text)
}

/// The pids in a `cgroup.procs`; none if the group does not exist. Zero stands for a process of
/// another pid namespace, which has no number here and cannot be reached.
fn read_pids(path: &Path) -> Result<Vec<i32>> {
    match read_file(path) {
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        text => Ok(text?.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()),
    }
}

/// Whether a group was not there to be opened, or was removed while its file was open.
fn is_gone(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The group and all groups below it, parents first.
fn with_children(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        let mut children = Vec::new();
        let entries = match fs::read_dir(parent) {
            // Removed meanwhile, or never made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => {
                let entries = entries.and_then(Iterator::collect::<io::Result<Vec<_>>>);
                entries.operation(|| format!("read directory {}", parent.display()))?
            }
        };
        for entry in entries {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                children.push(entry.path());
            }
        }
        all.extend(children);
        next += 1;
    }
    Ok(all)
}

fn signal_each(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        let sent = pidfd_open(*pid).and_then(|pidfd| pidfd_send_signal(pidfd.as_fd(), signal));
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            sent => sent.operation(|| format!("send signal {signal} to process {pid}"))?,
        }
    }
    Ok(())
}

/// Waits until every process has exited; false if the deadline came first.
fn wait_for_exits(handles: &[OwnedFd], deadline: Instant) -> Result<bool> {
    for handle in handles {
        if !wait_for_exit(handle.as_fd(), deadline)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits until the process behind a pidfd has exited; false if the deadline came first.
pub(crate) fn wait_for_exit(pidfd: BorrowedFd<'_>, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for a process to exit", errno)),
        }
    }
}

/// Asks again and again, with growing pauses, for something the kernel gives no event for.
fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    while !done()? {
        if Instant::now() >= deadline {
            let limit_ms = limit.as_millis() as u64;
            return Err(Error::TimedOut { operation: what.to_owned(), limit_ms });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    // The usual case: no children, nobody in it.
    match fs::remove_dir(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let what = format!("remove control group {}", directory.display());
    let limit = deadline.saturating_duration_since(Instant::now());
    wait_until(&what, limit, || {
        for group in with_children(directory)?.iter().rev() {
            match fs::remove_dir(group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                Err(error) => return Err(Error::io(what.clone(), error)),
            }
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests;
