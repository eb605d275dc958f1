//! From a bundle to its plan: pure, no system call. The order of the steps is decided here.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Hook, Hooks, Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Mount, Spec,
};

use super::mounts::{self, filesystem};
use super::plan::{
    CgroupPlan, HookPlan, HookState, HooksPlan, IdMapping, InitPlan, NamespaceKind, NamespacePlan, Plan,
    TimeOffset, WorkloadPlan,
};
use super::step::{
    DeviceKind, DeviceStep, MountIdMapping, MountSource, MountStep, Parameter, Propagation, PropagationKind,
    Step,
};
use super::{net_devices, process, seccomp};
use crate::bundle::{Bundle, WorkerSettings, Workload};
use crate::error::Result;
use crate::sys::mount::MOUNT_ATTR_RDONLY;

/// The version of the specification that states follow.
pub const OCI_VERSION: &str = "1.3.0";

/// Size of the root of a bundle without an image: it holds mount points and device nodes.
const EMPTY_ROOT_BYTES: u64 = 1 << 20;

/// What the plan depends on besides the bundle.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Whether the workload gets a session keyring of its own (`--no-new-keyring` says no).
    pub keyring: Keyring,
    /// How init enters the root (`--no-pivot`).
    pub root_entry: RootEntry,
}

/// How init enters the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootEntry {
    /// By pivot_root(2): nothing else of the host's tree is left.
    Pivot,
    /// By moving it over `/` and chroot(2).
    Move,
}

/// Which session keyring the workload gets (keyrings(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    /// A new one.
    New,
    /// The caller's.
    Inherited,
}

/// Compiles the plan of a validated bundle.
pub fn compile(bundle: &Bundle, context: Context<'_>) -> Result<Plan> {
    let spec = &bundle.spec;
    let without;
    let linux = match spec.linux() {
        Some(linux) => linux,
        None => {
            without = empty_linux();
            &without
        }
    };
    let hooks = hooks(spec);
    let mut process = process::compile(spec, &bundle.workload, context)?;
    process.seccomp =
        linux.seccomp().as_ref().map(|profile| seccomp::compile(profile, "$.linux.seccomp")).transpose()?;
    let namespaces: Vec<NamespacePlan> = linux.namespaces().iter().flatten().map(namespace).collect();
    let mut builder = Builder { bundle, linux, namespaces: &namespaces, steps: Vec::new() };
    builder.build(&hooks, context.root_entry);
    if bundle.workload == Workload::Exec && !process.args.is_empty() {
        let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).map(str::to_owned);
        builder.steps.push(Step::FindProgram {
            program: process.args[0].clone(),
            path,
            cwd: process.cwd.clone(),
        });
    }
    let steps = builder.steps;
    let init = InitPlan {
        steps,
        namespaces,
        uid_mappings: id_mappings(linux.uid_mappings()),
        gid_mappings: id_mappings(linux.gid_mappings()),
        owner: None,
        time_offsets: time_offsets(linux),
        state: HookState {
            oci_version: OCI_VERSION.to_owned(),
            id: context.id.to_owned(),
            bundle: bundle.directory.clone(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        },
    };
    let cgroup = CgroupPlan::compile(context.id, spec)?;
    Ok(Plan {
        workload: workload(&bundle.workload),
        init,
        process,
        cgroup,
        hooks,
        net_devices: net_devices::compile(linux)?,
        warnings: bundle.warnings.clone(),
    })
}

fn workload(workload: &Workload) -> WorkloadPlan {
    match workload {
        Workload::Exec => WorkloadPlan::Exec,
        Workload::Worker(settings) => {
            let WorkerSettings { seed, listen, promotable } = settings.clone();
            WorkloadPlan::Worker { seed, listen, promotable }
        }
    }
}

/// Builds the list of steps.
struct Builder<'a> {
    bundle: &'a Bundle,
    linux: &'a Linux,
    namespaces: &'a [NamespacePlan],
    steps: Vec<Step>,
}

impl Builder<'_> {
    fn build(&mut self, hooks: &HooksPlan, root_entry: RootEntry) {
        self.steps.push(Step::NewSession);
        self.system();
        let own_mounts = self.namespace(NamespaceKind::Mount).is_some();
        let spec = &self.bundle.spec;
        // Without a mount namespace the root is the directory as it is, unless something is to be mounted.
        let host_mounts = !own_mounts
            && (spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty())
                || spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)));
        if own_mounts {
            self.root();
        } else if let Some(path) = self.bundle.rootfs.clone() {
            self.steps.push(if host_mounts { Step::HostRoot { path } } else { Step::PlainRoot { path } });
        }
        let mounts = own_mounts || host_mounts;
        if mounts {
            self.mounts();
            self.devices();
        }
        if mounts && let Some(process) = self.bundle.spec.process() {
            self.steps.push(Step::Directory(clean(process.cwd())));
        }
        if let Some(process) = self.bundle.spec.process() {
            self.steps.extend(process::terminal(process).map(Step::Terminal));
        }
        if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
            self.steps.push(Step::RuntimeHooks);
        }
        if !hooks.create_container.is_empty() {
            self.steps.push(Step::ContainerHooks(hooks.create_container.clone()));
        }
        if mounts {
            self.protect();
        }
        self.steps.push(match root_entry {
            RootEntry::Move if own_mounts => Step::MoveRoot,
            RootEntry::Move | RootEntry::Pivot => Step::EnterRoot,
        });
        if let Some(propagation) = self.linux.rootfs_propagation().as_deref().and_then(mounts::propagation) {
            self.steps.push(Step::RootPropagation(propagation));
        }
    }

    fn namespace(&self, kind: NamespaceKind) -> Option<&NamespacePlan> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }

    /// What belongs to namespaces other than the mount namespace.
    fn system(&mut self) {
        if self.namespace(NamespaceKind::Network).is_some_and(|network| network.path.is_none()) {
            self.steps.push(Step::LoopbackUp);
        }
        let spec = &self.bundle.spec;
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        self.steps.extend(given(spec.hostname()).map(Step::Hostname));
        self.steps.extend(given(spec.domainname()).map(Step::Domainname));
        let mut sysctls: Vec<_> = self.linux.sysctl().iter().flatten().collect();
        sysctls.sort();
        self.steps.extend(
            sysctls
                .into_iter()
                .map(|(key, value)| Step::Sysctl { path: sysctl_path(key), value: value.clone() }),
        );
    }

    fn root(&mut self) {
        let asked = self.linux.rootfs_propagation().as_deref().and_then(mounts::propagation);
        // Events of the host come in by default, none go out. What is asked for the root is asked for
        // its surroundings too, as with runc: a shared root needs shared mounts around it.
        let kind = asked.map_or(PropagationKind::Slave, |asked| match asked.kind {
            PropagationKind::Unbindable => PropagationKind::Private,
            kind @ (PropagationKind::Shared | PropagationKind::Slave | PropagationKind::Private) => kind,
        });
        self.steps.push(Step::Propagation(Propagation { kind, recursive: true }));
        self.steps.push(match &self.bundle.rootfs {
            Some(path) => Step::BindRoot { path: path.clone() },
            None => Step::TmpfsRoot { size: EMPTY_ROOT_BYTES },
        });
    }

    fn mounts(&mut self) {
        let bundle_mounts = self.bundle.spec.mounts().as_deref().unwrap_or_default();
        if self.bundle.rootfs.is_none() {
            let defaults = [
                filesystem("/proc", "proc", &["nosuid", "nodev", "noexec"]),
                filesystem("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=64m"]),
            ];
            let replaced = |step: &MountStep| {
                bundle_mounts.iter().any(|mount| clean(mount.destination()) == step.target)
            };
            self.steps.extend(defaults.into_iter().filter(|step| !replaced(step)).map(Step::Mount));
        }
        for mount in bundle_mounts {
            let mut step = mount_step(mount, &self.bundle.directory);
            self.complete(&mut step, mount);
            self.steps.push(Step::Mount(step));
        }
    }

    /// What a mount gets from the rest of the configuration.
    fn complete(&self, step: &mut MountStep, mount: &Mount) {
        let has_cgroup_namespace = self.namespace(NamespaceKind::Cgroup).is_some();
        if mount.typ().as_deref() == Some("cgroup2") && !has_cgroup_namespace {
            // A new mount of the hierarchy would show the host's groups.
            step.source = MountSource::Cgroups;
        }
        if is_readonly_at_last(step) {
            step.attributes.set &= !MOUNT_ATTR_RDONLY;
        }
        if let MountSource::Filesystem { kind, parameters, .. } = &mut step.source
            && let Some(label) = self.linux.mount_label().as_ref().filter(|label| !label.is_empty())
            && !matches!(kind.as_str(), "proc" | "sysfs" | "mqueue" | "cgroup2")
        {
            parameters.push(Parameter { key: "context".to_owned(), value: Some(label.clone()) });
        }
        step.id_mapping = self.id_mapping(mount);
    }

    /// The owners that an id-mapped mount shows: its own mapping, or the container's.
    fn id_mapping(&self, mount: &Mount) -> Option<MountIdMapping> {
        let options = mounts::parse(mount.options().as_deref().unwrap_or_default()).unwrap_or_default();
        let own = (id_mappings(mount.uid_mappings()), id_mappings(mount.gid_mappings()));
        let asked = options.id_map.map(|(_, depth)| depth);
        if asked.is_none() && own.0.is_empty() {
            return None;
        }
        let (uids, gids) = if own.0.is_empty() {
            (id_mappings(self.linux.uid_mappings()), id_mappings(self.linux.gid_mappings()))
        } else {
            own
        };
        Some(MountIdMapping { uids, gids, recursive: asked == Some(mounts::Bind::Recursive) })
    }

    fn devices(&mut self) {
        let is_dev_bind = |mount: &Mount| {
            clean(mount.destination()) == Path::new("/dev")
                && mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind")
        };
        // The host's /dev bound into the container has its devices already, and must not be changed.
        if self.bundle.spec.mounts().iter().flatten().any(is_dev_bind) {
            return;
        }
        let bind = self.namespace(NamespaceKind::User).is_some();
        let asked: Vec<DeviceStep> = self
            .linux
            .devices()
            .iter()
            .flatten()
            .map(|device| device_step(device, bind))
            // It is the container's own multiplexer of terminals, whatever the host's is.
            .filter(|device| device.path != Path::new("/dev/ptmx"))
            .collect();
        let defaults = DEFAULT_DEVICES
            .iter()
            .map(|&(path, major, minor)| default_device(path, major, minor, bind))
            .filter(|default| !asked.iter().any(|device| device.path == default.path));
        self.steps.extend(defaults.chain(asked.iter().cloned()).map(Step::Device));
        self.steps.extend(
            DEFAULT_SYMLINKS
                .iter()
                .map(|&(target, content)| Step::Symlink { content: content.into(), target: target.into() }),
        );
    }

    /// What takes rights away comes last, when nothing has to be made any more.
    fn protect(&mut self) {
        for mount in self.bundle.spec.mounts().iter().flatten() {
            let step = mount_step(mount, &self.bundle.directory);
            if is_readonly_at_last(&step) {
                self.steps.push(Step::ReadonlyMount(step.target));
            }
        }
        let readonly = self.linux.readonly_paths().iter().flatten();
        self.steps.extend(readonly.map(|path| Step::Readonly(clean(Path::new(path)))));
        let masked = self.linux.masked_paths().iter().flatten();
        self.steps.extend(masked.map(|path| Step::Mask(clean(Path::new(path)))));
        let root = self.bundle.spec.root().as_ref();
        if root.is_none_or(|root| root.readonly().unwrap_or(false)) {
            self.steps.push(Step::ReadonlyRoot);
        }
    }
}

/// The devices every container has (runtime-spec, config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The symbolic links every container has.
const DEFAULT_SYMLINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

fn default_device(path: &str, major: u32, minor: u32, bind: bool) -> DeviceStep {
    DeviceStep {
        path: path.into(),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
        bind,
    }
}

fn device_step(device: &LinuxDevice, bind: bool) -> DeviceStep {
    let kind = match device.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::C | LinuxDeviceType::U | LinuxDeviceType::A => DeviceKind::Character,
    };
    DeviceStep {
        path: clean(device.path()),
        kind,
        major: u32::try_from(device.major()).unwrap_or(0),
        minor: u32::try_from(device.minor()).unwrap_or(0),
        mode: device.file_mode().unwrap_or(0o666) & 0o777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        // Anybody may make a pipe.
        bind: bind && kind != DeviceKind::Fifo,
    }
}

/// Whether a mount becomes read-only only when all that lies in it was made: mount points of other mounts in a
/// tmpfs, device nodes in /dev. runc does the same.
fn is_readonly_at_last(step: &MountStep) -> bool {
    let is_new_tmpfs = matches!(&step.source, MountSource::Filesystem { kind, .. } if kind == "tmpfs");
    let is_dev = step.target == Path::new("/dev");
    step.attributes.set & MOUNT_ATTR_RDONLY != 0 && (is_new_tmpfs || is_dev)
}

fn mount_step(mount: &Mount, bundle: &Path) -> MountStep {
    let options = mounts::parse(mount.options().as_deref().unwrap_or_default()).unwrap_or_default();
    let kind = mount.typ().clone().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    let bind = options.bind.or((kind == "bind").then_some(mounts::Bind::One));
    let source = match bind {
        _ if options.remount.is_some() => MountSource::Remount,
        Some(bind) => {
            MountSource::Bind { path: bundle.join(source), recursive: bind == mounts::Bind::Recursive }
        }
        None if kind == "cgroup" => MountSource::Cgroups,
        None => MountSource::Filesystem {
            source: if source.as_os_str().is_empty() { kind.clone() } else { source.display().to_string() },
            kind,
            parameters: options.parameters,
        },
    };
    MountStep {
        target: clean(mount.destination()),
        source,
        attributes: options.attributes,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation,
        copy_up: options.copy_up.is_some(),
        id_mapping: None,
    }
}

fn namespace(namespace: &oci_spec::runtime::LinuxNamespace) -> NamespacePlan {
    let kind = match namespace.typ() {
        LinuxNamespaceType::Mount => NamespaceKind::Mount,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Network => NamespaceKind::Network,
        LinuxNamespaceType::Time => NamespaceKind::Time,
    };
    NamespacePlan { kind, path: namespace.path().clone() }
}

fn id_mappings(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMapping> {
    let mapping = |mapping: &LinuxIdMapping| IdMapping {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        count: mapping.size(),
    };
    mappings.iter().flatten().map(mapping).collect()
}

fn time_offsets(linux: &Linux) -> Vec<TimeOffset> {
    let offsets = linux.time_offsets().iter().flatten().map(|(clock, offset)| TimeOffset {
        clock: clock.clone(),
        secs: offset.secs().unwrap_or(0),
        nanosecs: offset.nanosecs().unwrap_or(0),
    });
    let mut offsets: Vec<_> = offsets.collect();
    offsets.sort_by(|a, b| a.clock.cmp(&b.clock));
    offsets
}

fn hooks(spec: &Spec) -> HooksPlan {
    let Some(hooks) = spec.hooks() else { return HooksPlan::default() };
    let plans = |list: &Option<Vec<Hook>>| list.iter().flatten().map(hook).collect::<Vec<_>>();
    let [prestart, create_runtime, create_container, mut start_container, poststart, poststop] =
        hook_lists(hooks).map(|(list, _)| plans(list));
    // Those that say nothing of their environment have that of the process they stand in for, as with runc.
    let process_env = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
    for plan in &mut start_container {
        plan.env.get_or_insert_with(|| process_env.clone());
    }
    HooksPlan { prestart, create_runtime, create_container, start_container, poststart, poststop }
}

fn hook(hook: &Hook) -> HookPlan {
    HookPlan {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone(),
        timeout_s: hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()),
    }
}

/// The six lists of hooks with their names, in the order of a container's life.
#[allow(deprecated)]
pub(crate) fn hook_lists(hooks: &Hooks) -> [(&Option<Vec<Hook>>, &'static str); 6] {
    [
        (hooks.prestart(), "prestart"),
        (hooks.create_runtime(), "createRuntime"),
        (hooks.create_container(), "createContainer"),
        (hooks.start_container(), "startContainer"),
        (hooks.poststart(), "poststart"),
        (hooks.poststop(), "poststop"),
    ]
}

/// A `linux` section that says nothing. (The type's own default is a whole configuration.)
pub(crate) fn empty_linux() -> Linux {
    serde_json::from_value(serde_json::json!({})).unwrap_or_default()
}

/// An absolute path without `.`, `..` and doubled slashes; `..` at the root stays there.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// A sysctl's path below /proc/sys. As in sysctl.d(5), the first separator decides: after a dot, dots
/// separate and slashes stand for dots in names; after a slash it is a path already.
pub(crate) fn sysctl_path(key: &str) -> PathBuf {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key.chars().map(swap).collect::<String>().into(),
        Some(_) | None => key.into(),
    }
}

#[cfg(test)]
mod tests;
