//! The control groups of one container: made, joined, frozen, emptied, removed.
//!
//! On version 1 a container has one group per controller that its resources ask for, one in the
//! freezer, which knows all its processes, and one each for what it has used of memory and CPU time; one per
//! hierarchy if the bundle names the group. On version 2 it has one group. The files are written
//! directly (docs/decisions/0001-cgroups-by-hand.md). cgroups(7).

mod beside;
mod devices;
mod files;
pub mod layout;
mod occupants;
mod oom;
pub mod rdt;
pub mod resources;
mod stats;
mod sub;
pub mod systemd;
mod update;

pub use beside::move_beside;
pub(crate) use occupants::wait_for_exit;
pub use oom::{OomEvent, OomWatch};
pub use stats::Stats;
pub use sub::SubGroup;
#[cfg(any(test, fuzzing))]
pub(crate) use systemd::variant::select as select_unit_properties;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sys::bpf;
use files::{is_gone, open_for_writing, read_file, remove_tree, write_file, write_lines, write_settings};
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
    pub v1: Settings,
    /// What to write on version 2, in order.
    pub v2: Settings,
    /// The devices that may be used, in the order in which the rules apply.
    pub devices: DeviceRules,
    /// On version 2: the user of the host who gets the group, so that the container can divide it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// What the settings were made of, the devices left out: systemd is told by properties.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: LinuxResources,
    /// The groups of Resource Director Technology, if it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::RdtPlan>,
    /// Further properties of the unit, if systemd makes the groups: annotations `org.systemd.property.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unit_properties: BTreeMap<String, String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Settings of one version, or why that version cannot have what is asked for: it matters only on a machine
/// with that version.
pub type Settings = std::result::Result<Vec<Setting>, Refusal>;

/// An [`Error::Invalid`] that waits for the machine on which it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where the wrong value stands.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Error {
        Error::invalid(&refusal.object, &refusal.reason)
    }
}

fn settings(compiled: Result<Vec<Setting>>) -> Result<Settings> {
    match compiled {
        Err(Error::Invalid { object, reason }) => Ok(Err(Refusal { object, reason })),
        Ok(settings) => Ok(Ok(settings)),
        Err(error) => Err(error),
    }
}

/// Which devices a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRules {
    /// The rules in the order in which they apply; none: it may use what its parent may.
    pub rules: Vec<devices::Rule>,
    /// Whether some are the bundle's own: they must be in force, while the default ones are left out where
    /// the machine or the user cannot have them.
    pub asked_for: bool,
}

impl CgroupPlan {
    /// Compiles what a bundle says of its control groups.
    pub fn compile(id: &str, spec: &Spec) -> Result<CgroupPlan> {
        let mut plan = CgroupPlan::compile_linux(id, spec.linux().as_ref())?;
        plan.owner = owner(spec);
        let annotations = spec.annotations().iter().flatten();
        plan.unit_properties = systemd::variant::select(
            &annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
        )?;
        Ok(plan)
    }

    /// Compiles `linux.cgroupsPath` and `linux.resources`.
    pub fn compile_linux(id: &str, linux: Option<&Linux>) -> Result<CgroupPlan> {
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let mut resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let hierarchies = match path {
            Some(path) if !path.as_os_str().is_empty() => Hierarchies::All,
            Some(_) | None => Hierarchies::Needed,
        };
        let given = resources.devices().as_deref().unwrap_or_default();
        let devices = DeviceRules { rules: devices::compile(given)?, asked_for: !given.is_empty() };
        // Everybody who asks finds them above.
        resources.set_devices(None);
        Ok(CgroupPlan {
            path: CgroupPath::parse(path, id)?,
            hierarchies,
            v1: settings(resources::settings_v1(&resources))?,
            v2: settings(resources::settings_v2(&resources))?,
            devices,
            owner: None,
            resources,
            rdt: rdt::RdtPlan::compile(id, linux)?,
            unit_properties: BTreeMap::new(),
        })
    }
}

/// The host's number of the workload's user if the container gets a cgroup namespace of its own with a writable
/// cgroup file system in it, and has other users than the host. config-linux.md, "Cgroup ownership".
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let new_namespace = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup && namespace.path().is_none());
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let read_only = |options: &Vec<String>| options.iter().any(|option| option == "ro");
        let kind = mount.typ().as_deref();
        matches!(kind, Some("cgroup" | "cgroup2")) && !mount.options().as_ref().is_some_and(read_only)
    });
    if !new_namespace || !writable {
        return None;
    }
    let user = spec.process().as_ref().map_or(0, |process| process.user().uid());
    let mapped = linux.uid_mappings().iter().flatten().find_map(|mapping| {
        let offset = user.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    });
    // Without mappings the numbers are the host's: root owns the group already.
    let own = linux.uid_mappings().as_ref().is_none_or(Vec::is_empty).then_some(user);
    mapped.or(own).filter(|uid| *uid != 0)
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
pub struct Cgroup {
    groups: Vec<Group>,
    /// The unit around them, if systemd makes the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<systemd::Located>,
    /// The groups of Resource Director Technology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdt: Option<rdt::Located>,
}

impl Cgroup {
    /// Finds out which groups the plan needs on this machine; changes nothing. Refuses a controller
    /// that is not there, and a group in which somebody else's processes live: they would be killed
    /// with the container.
    pub fn locate(plan: &CgroupPlan) -> Result<Cgroup> {
        let cgroup = Cgroup::on_this_machine(plan)?;
        for group in &cgroup.groups {
            let object = || format!("control group {}", group.directory.display());
            let occupants = match read_file(&group.directory.join("cgroup.procs")) {
                Err(error) if is_gone(&error) => continue,
                text => text?.lines().count(),
            };
            if occupants > 0 {
                let reason = format!("container's cgroup is not empty: {occupants} process(es) found");
                return Err(Error::invalid(object(), reason));
            }
            if (group.version == Version::V2 || group.has("freezer")) && group.is_frozen()? {
                return Err(Error::invalid(
                    object(),
                    "container's cgroup unexpectedly frozen: what joins it would stand still",
                ));
            }
        }
        Ok(cgroup)
    }

    /// The same where systemd makes the groups: in a unit of its own.
    pub fn locate_unit(plan: &CgroupPlan, id: &str) -> Result<Cgroup> {
        let unit = match (&plan.path, plan.hierarchies) {
            (CgroupPath::Unit(unit), _) => unit.clone(),
            (CgroupPath::Relative(_), Hierarchies::Needed) => systemd::Unit::parse(None, id)?,
            (CgroupPath::Relative(path) | CgroupPath::Absolute(path), _) => {
                systemd::Unit::parse(Some(path), id)?
            }
        };
        let (located, path) = systemd::Located::locate(&unit, id)?;
        let below = CgroupPlan {
            path: CgroupPath::Absolute(path),
            // All, as with runc: systemd makes groups only in those that it uses itself.
            hierarchies: Hierarchies::All,
            ..plan.clone()
        };
        Ok(Cgroup { unit: Some(located), ..Cgroup::locate(&below)? })
    }

    /// By the usual places, and by the table of all mounts if those do not do.
    fn on_this_machine(plan: &CgroupPlan) -> Result<Cgroup> {
        let controllers;
        let wanted = match (plan.hierarchies, &plan.v1) {
            (Hierarchies::Needed, Ok(settings)) => {
                controllers = settings
                    .iter()
                    .map(|setting| &*setting.controller)
                    .chain(["freezer", "devices"])
                    .chain(COUNTING)
                    .collect::<Vec<_>>();
                Some(&controllers[..])
            }
            (Hierarchies::Needed, Err(_)) | (Hierarchies::All, _) => None,
        };
        match Layout::usual_of(wanted)?.map(|layout| Cgroup::locate_in(&layout, plan)) {
            Some(Ok(cgroup)) => Ok(cgroup),
            Some(Err(_)) | None => Cgroup::locate_in(&Layout::read()?, plan),
        }
    }

    fn locate_in(layout: &Layout, plan: &CgroupPlan) -> Result<Cgroup> {
        if let CgroupPath::Unit(unit) = &plan.path {
            let reason = format!("is a unit of systemd ({}): give --systemd-cgroup, or a path", unit.name);
            return Err(Error::invalid("config.json: $.linux.cgroupsPath", reason));
        }
        match &layout.v2 {
            Some(hierarchy) if layout.is_unified() => {
                let settings = plan.v2.as_ref()?;
                let group =
                    Group::of_v2(hierarchy, plan, settings.iter().map(|setting| &*setting.controller));
                Ok(Cgroup { groups: vec![group], ..Cgroup::default() })
            }
            Some(_) | None => Cgroup::locate_v1(layout, plan),
        }
    }

    fn locate_v1<'a>(layout: &'a Layout, plan: &CgroupPlan) -> Result<Cgroup> {
        let mut chosen: Vec<&'a layout::Hierarchy> = Vec::new();
        let mut choose = |hierarchy: &'a layout::Hierarchy| {
            if !chosen.iter().any(|known| std::ptr::eq(*known, hierarchy)) {
                chosen.push(hierarchy);
            }
        };
        // For bookkeeping the freezer, because it can also stop the processes; else any hierarchy.
        layout.v1_of("freezer").or(layout.v1.first()).into_iter().for_each(&mut choose);
        let mut elsewhere = Vec::new();
        for setting in plan.v1.as_ref()? {
            match layout.v1_of(&setting.controller) {
                Some(hierarchy) => choose(hierarchy),
                None => elsewhere.push(setting.controller.as_str()),
            }
        }
        if !plan.devices.rules.is_empty() {
            match layout.v1_of("devices") {
                Some(hierarchy) => choose(hierarchy),
                None if plan.devices.asked_for => return Err(missing("devices")),
                None => {}
            }
        }
        // What the container uses can be counted only from its beginning on. A missing one is forgiven.
        COUNTING.iter().filter_map(|controller| layout.v1_of(controller)).for_each(&mut choose);
        if plan.hierarchies == Hierarchies::All {
            layout.v1.iter().for_each(&mut choose);
        }
        let group = |hierarchy: &&layout::Hierarchy| {
            let directory = directory_of(&plan.path, &hierarchy.mount, &hierarchy.own);
            let (controllers, mount) = (hierarchy.controllers.clone(), hierarchy.mount.clone());
            Group { version: Version::V1, controllers, mount, directory }
        };
        let mut groups: Vec<Group> = chosen.iter().map(group).collect();
        // A hybrid machine has some controllers only on version 2.
        if let Some(first) = elsewhere.first() {
            let hierarchy = layout.v2.as_ref().ok_or_else(|| missing(first))?;
            let available = read_file(&hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
            let lacks = |name: &&&str| !available.split_whitespace().any(|known| known == **name);
            if let Some(name) = elsewhere.iter().find(lacks) {
                return Err(missing(name));
            }
            plan.v2.as_ref()?;
            groups.push(Group::of_v2(hierarchy, plan, elsewhere.into_iter()));
        }
        Ok(Cgroup { groups, ..Cgroup::default() })
    }

    /// The same with the groups of Resource Director Technology that the plan asks for.
    pub fn with_rdt(self, plan: &CgroupPlan) -> Result<Cgroup> {
        Ok(Cgroup { rdt: plan.rdt.as_ref().map(rdt::Located::locate).transpose()?, ..self })
    }

    /// Makes the groups and writes the plan's settings. After an error nothing is left. What is returned keeps a
    /// unit of systemd alive until the container's first process has joined; it may be dropped then.
    pub fn create(&self, plan: &CgroupPlan) -> Result<Option<systemd::Placeholder>> {
        let started = match &self.unit {
            Some(unit) => unit.start(plan, self.version()).map(Some),
            None => Ok(None),
        };
        let made = started.and_then(|placeholder| self.try_create(plan).map(|()| placeholder));
        made.map_err(|error| error.and_clean_up(self.remove()))
    }

    /// The version by which the container is limited.
    fn version(&self) -> Version {
        self.groups.first().map_or(Version::V2, |group| group.version)
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
            restrict_devices(group, &plan.devices)?;
            let settings = match group.version {
                Version::V1 => plan.v1.as_ref()?,
                Version::V2 => plan.v2.as_ref()?,
            };
            write_settings(&group.directory, settings.iter().filter(|setting| group.serves(setting)))?;
            if let (Version::V2, Some(owner)) = (group.version, plan.owner) {
                delegate(&group.directory, owner)?;
            }
        }
        match (&self.rdt, &plan.rdt) {
            (Some(located), Some(plan)) => located.create(plan),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Opens the files through which a process enters the groups with [`join_self`].
    ///
    /// On version 1 these are the `tasks` files: a thread that writes `0` moves itself without
    /// waiting for an RCU grace period, which writing to `cgroup.procs` does (milliseconds).
    pub fn open_for_join(&self) -> Result<Vec<OwnedFd>> {
        let groups =
            self.groups.iter().map(|group| open_for_writing(&group.directory.join(group.join_file())));
        groups.chain(self.open_rdt_for_join()?.into_iter().map(Ok)).collect()
    }

    /// Those of Resource Director Technology alone: into a unit of systemd's a process is moved by systemd.
    pub fn open_rdt_for_join(&self) -> Result<Vec<OwnedFd>> {
        self.rdt.as_ref().map_or(Ok(Vec::new()), rdt::Located::open_for_join)
    }

    /// The unit into which systemd has to move the container's first process, because that may not move itself: one of
    /// the user's systemd.
    pub fn attaching_unit(&self) -> Option<&systemd::Located> {
        self.unit.as_ref().filter(|unit| unit.manager == systemd::Manager::User)
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

    /// Removes the group that is asked for the container's processes if nobody is in it and none is below it; whether it did. There is
    /// nothing to kill then.
    pub fn remove_idle(&self) -> bool {
        let group = self.groups.first().filter(|_| self.unit.is_none());
        group.is_some_and(|group| fs::remove_dir(&group.directory).is_ok())
    }

    /// Ends the unit of systemd, if there is one, and removes the groups and those that the container made below them; groups that are gone
    /// already are no error. An exited process leaves its group a moment after its parent learned of
    /// the exit, so "busy" is retried for at most [`limits::CGROUP_REMOVAL`].
    pub fn remove(&self) -> Result<()> {
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        let deadline = Instant::now() + limits::CGROUP_REMOVAL;
        for group in &self.groups {
            remove_tree(&group.directory, deadline)?;
        }
        self.rdt.as_ref().map_or(Ok(()), rdt::Located::remove)
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

/// Where the group is in a hierarchy. A unit's place is told by systemd: it has become a path before.
fn directory_of(path: &CgroupPath, mount: &Path, own: &Path) -> PathBuf {
    match path {
        CgroupPath::Absolute(path) => mount.join(path),
        CgroupPath::Relative(path) => mount.join(own).join(path),
        CgroupPath::Unit(unit) => mount.join(own).join(&unit.name),
    }
}

impl Group {
    fn of_v2<'a>(
        hierarchy: &layout::Hierarchy,
        plan: &CgroupPlan,
        needed: impl Iterator<Item = &'a str>,
    ) -> Group {
        let mut controllers: Vec<String> = Vec::new();
        for controller in needed {
            if controller != "cgroup" && !controllers.iter().any(|known| known == controller) {
                controllers.push(controller.to_owned());
            }
        }
        let mount = hierarchy.mount.clone();
        let beside = hierarchy.own.parent().unwrap_or(Path::new(""));
        let directory = directory_of(&plan.path, &mount, beside);
        Group { version: Version::V2, controllers, mount, directory }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn serves(&self, setting: &Setting) -> bool {
        self.has(&setting.controller) || self.version == Version::V2 && setting.controller == "cgroup"
    }

    fn join_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        }
    }
}

fn missing(controller: &str) -> Error {
    if controller == resources::UNIFIED {
        return Error::invalid(
            "config.json: $.linux.resources.unified",
            "invalid configuration: it needs cgroup v2, and this machine has v1",
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

/// On version 2 a controller is there only if every ancestor passes it on. All that there are are passed on, as
/// runc does: the numbers of memory, CPU time and tasks exist only with their controllers. Only those that
/// the container needs must be there in the end.
fn enable_controllers(group: &Group) -> Result<()> {
    let mut refused = None;
    let parents = std::iter::once(group.mount.as_path()).chain(below(&group.mount, &group.directory));
    for parent in parents.filter(|parent| *parent != group.directory) {
        let file = parent.join("cgroup.subtree_control");
        let passed_on = read_file(&file)?;
        let available = read_file(&parent.join("cgroup.controllers"))?;
        let lacks = |name: &&str| !passed_on.split_whitespace().any(|known| known == *name);
        let enable: Vec<String> =
            available.split_whitespace().filter(lacks).map(|name| format!("+{name}")).collect();
        if enable.is_empty() || write_file(&file, &enable.join(" ")).is_ok() {
            continue;
        }
        // One of them may be in use elsewhere; the others are worth having.
        for line in &enable {
            refused = write_file(&file, line).err().or(refused);
        }
    }
    let there = read_file(&group.directory.join("cgroup.controllers"))?;
    match group.controllers.iter().find(|name| !there.split_whitespace().any(|known| known == **name)) {
        None => Ok(()),
        Some(name) => Err(refused.unwrap_or_else(|| {
            let object = format!("cgroup controller {name}");
            Error::invalid(object, format!("is needed, but not available in {}", group.directory.display()))
        })),
    }
}

/// Whether this is not root of the machine, who alone may restrict devices.
fn is_restricted_user() -> bool {
    let mapped = || read_file(Path::new("/proc/self/uid_map")).is_ok_and(|map| !map.contains("4294967295"));
    !nix::unistd::geteuid().is_root() || mapped()
}

/// Puts the device rules in force: by lines on version 1, on version 2 by a BPF program of the group. For an
/// ordinary user, and in a user namespace, the kernel's own rules must do, as in runc.
fn restrict_devices(group: &Group, devices: &DeviceRules) -> Result<()> {
    let restricted = match group.version {
        _ if devices.rules.is_empty() => Ok(()),
        Version::V1 if group.has("devices") => {
            write_lines(&group.directory, &devices::lines_v1(&devices.rules)?)
        }
        Version::V1 => Ok(()),
        Version::V2 => attach_devices(&group.directory, &devices.rules),
    };
    match restricted {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            if is_restricted_user() {
                Ok(())
            } else {
                Err(error)
            }
        }
        restricted => restricted,
    }
}

fn attach_devices(directory: &Path, rules: &[devices::Rule]) -> Result<()> {
    let group = fs::File::open(directory).operation(|| format!("open {}", directory.display()))?;
    let program = bpf::load_device_program(&devices::program(rules)).operation(|| "load the device rules")?;
    let attached = bpf::attach_device_program(group.as_fd(), program.as_fd());
    attached.operation(|| format!("attach the device rules to {}", directory.display()))
}

/// The files of a group that its owner may write to where the kernel does not list them itself.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Gives the group to a user: the directory, and the files that the kernel says are meant for that.
fn delegate(directory: &Path, owner: u32) -> Result<()> {
    let listed = read_file(Path::new("/sys/kernel/cgroup/delegate"));
    let files = listed.unwrap_or_else(|_| DELEGATED.to_owned());
    let paths = files.lines().map(|file| directory.join(file));
    for path in std::iter::once(directory.to_owned()).chain(paths) {
        match chown(&path, Some(owner), None) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.operation(|| format!("give {} to user {owner}", path.display()))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
