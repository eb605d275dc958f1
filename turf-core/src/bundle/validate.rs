//! What config.json must be beyond its types: each refusal names the JSON path and says what would be
//! right.
//!
//! What can be judged from the text alone is judged here, so that it fails before anything is made.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use oci_spec::runtime::{
    Hook, Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec,
};

use super::workload::{self, Workload};
use crate::error::{Error, Result};
use crate::sandbox::mounts;

/// Longest host name (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES: usize = 64;

/// Validates the configuration and says what it runs.
pub(super) fn validate(spec: &Spec) -> Result<Workload> {
    version(spec.version())?;
    let process =
        spec.process().as_ref().ok_or_else(|| invalid("process", "must be there: it says what to run"))?;
    let args = args(process)?;
    let workload = workload::decide(spec, args)?;
    self::process(process, &workload)?;
    let linux = spec.linux().clone().unwrap_or_default_empty();
    let namespaces = namespaces(&linux)?;
    root(spec, &workload, &namespaces)?;
    names(spec, &namespaces)?;
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        self::mount(mount, &format!("mounts[{index}]"))?;
    }
    self::linux(&linux, &namespaces)?;
    hooks(spec)?;
    Ok(workload)
}

/// An absent `linux` is an empty one; the type's own default is a whole configuration.
trait OrEmpty {
    fn unwrap_or_default_empty(self) -> Linux;
}

impl OrEmpty for Option<Linux> {
    fn unwrap_or_default_empty(self) -> Linux {
        self.unwrap_or_else(crate::sandbox::compile::empty_linux)
    }
}

fn version(version: &str) -> Result<()> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = numbers.split('.').map(str::parse::<u32>).collect();
    match parts.as_slice() {
        [Ok(1), Ok(_), Ok(_)] => Ok(()),
        [Ok(_), Ok(_), Ok(_)] => Err(invalid("ociVersion", &format!("{version:?}: version 1 is supported"))),
        _ => Err(invalid("ociVersion", &format!("{version:?} must be a version like \"1.2.0\""))),
    }
}

fn args(process: &Process) -> Result<&[String]> {
    let args = process.args().as_deref().unwrap_or_default();
    match args.first() {
        None => return Err(invalid("process.args", "must not be empty")),
        Some(program) if program.is_empty() => {
            return Err(invalid("process.args[0]", "must name a program, and is empty"));
        }
        Some(_) => {}
    }
    for (index, arg) in args.iter().enumerate() {
        no_zero_byte(arg, &format!("process.args[{index}]"))?;
    }
    Ok(args)
}

/// Validates a process that joins a container (`exec --process`): errors say where in `process`.
pub(super) fn another_process(process: &Process) -> Result<()> {
    args(process)?;
    self::process(process, &Workload::Exec)
}

fn process(process: &Process, workload: &Workload) -> Result<()> {
    absolute(process.cwd(), "process.cwd")?;
    for (index, entry) in process.env().iter().flatten().enumerate() {
        let place = format!("process.env[{index}]");
        no_zero_byte(entry, &place)?;
        if entry.find('=').is_none_or(|at| at == 0) {
            return Err(invalid(&place, &format!("{entry:?} must be NAME=VALUE")));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let place = format!("process.rlimits[{index}]");
        if !seen.insert(limit.typ().to_string()) {
            return Err(invalid(&format!("{place}.type"), &format!("{} is there twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let reason = format!("{} must not be above the hard limit {}", limit.soft(), limit.hard());
            return Err(invalid(&format!("{place}.soft"), &reason));
        }
    }
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        return Err(invalid("process.oomScoreAdj", &format!("{score} must be -1000 to 1000")));
    }
    if process.user().umask().is_some_and(|umask| umask > 0o777) {
        return Err(invalid("process.user.umask", "must be at most 511 (octal 777)"));
    }
    if let Workload::Worker(_) = workload {
        if process.args().as_ref().is_none_or(|args| args.len() < 2) {
            return Err(invalid("process.args", "a worker bundle names its script in args[1]"));
        }
        if process.terminal() == Some(true) {
            return Err(invalid("process.terminal", "a worker has no terminal: must be false"));
        }
    }
    Ok(())
}

fn namespaces(linux: &Linux) -> Result<BTreeSet<String>> {
    let mut kinds = BTreeSet::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let place = format!("linux.namespaces[{index}]");
        if !kinds.insert(namespace.typ().to_string()) {
            return Err(invalid(
                &format!("{place}.type"),
                &format!("\"{}\" is there twice", namespace.typ()),
            ));
        }
        if let Some(path) = namespace.path() {
            absolute(path, &format!("{place}.path"))?;
        }
    }
    let new = |kind| {
        let find = |ns: &&oci_spec::runtime::LinuxNamespace| ns.typ() == kind && ns.path().is_none();
        linux.namespaces().iter().flatten().find(find).is_some()
    };
    for (mappings, name) in [(linux.uid_mappings(), "uidMappings"), (linux.gid_mappings(), "gidMappings")] {
        let place = format!("linux.{name}");
        let mappings = mappings.as_deref().unwrap_or_default();
        if new(LinuxNamespaceType::User) && mappings.is_empty() {
            return Err(invalid(&place, "must not be empty: there is a new user namespace"));
        }
        if !kinds.contains("user") && !mappings.is_empty() {
            return Err(invalid(&place, "needs a user namespace in $.linux.namespaces"));
        }
        mappings.iter().enumerate().try_for_each(|(index, mapping)| id_mapping(mapping, &place, index))?;
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())
        && !new(LinuxNamespaceType::Time)
    {
        return Err(invalid("linux.timeOffsets", "needs a new time namespace in $.linux.namespaces"));
    }
    Ok(kinds)
}

fn id_mapping(mapping: &LinuxIdMapping, place: &str, index: usize) -> Result<()> {
    let fits = |first: u32| first.checked_add(mapping.size()).is_some();
    if mapping.size() == 0 || !fits(mapping.host_id()) || !fits(mapping.container_id()) {
        return Err(invalid(&format!("{place}[{index}]"), "must map at least one id, below 2^32"));
    }
    Ok(())
}

fn root(spec: &Spec, workload: &Workload, namespaces: &BTreeSet<String>) -> Result<()> {
    let has_mounts = spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty());
    let own_mounts = namespaces.contains("mnt");
    match (spec.root(), workload) {
        (None, Workload::Exec) => {
            Err(invalid("root", "must be there: only a worker bundle may leave it out"))
        }
        (None, Workload::Worker(_)) if !own_mounts => {
            Err(invalid("linux.namespaces", "a bundle without root needs a mount namespace"))
        }
        (Some(root), _) if root.path().as_os_str().is_empty() => {
            Err(invalid("root.path", "must not be empty"))
        }
        (Some(_), _) if has_mounts && !own_mounts => {
            Err(invalid("mounts", "needs a mount namespace in $.linux.namespaces"))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn names(spec: &Spec, namespaces: &BTreeSet<String>) -> Result<()> {
    for (name, place) in [(spec.hostname(), "hostname"), (spec.domainname(), "domainname")] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if !namespaces.contains("uts") {
            return Err(invalid(place, "needs a uts namespace in $.linux.namespaces"));
        }
        no_zero_byte(name, place)?;
        if name.len() > HOSTNAME_BYTES {
            return Err(invalid(place, &format!("must be at most {HOSTNAME_BYTES} bytes")));
        }
    }
    Ok(())
}

fn mount(mount: &Mount, place: &str) -> Result<()> {
    absolute(mount.destination(), &format!("{place}.destination"))?;
    let options = mount.options().as_deref().unwrap_or_default();
    let parsed = mounts::parse(options)
        .map_err(|(index, reason)| invalid(&format!("{place}.options[{index}]"), reason))?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    no_zero_byte(kind, &format!("{place}.type"))?;
    let is_bind = parsed.bind.is_some() || kind == "bind";
    if let Some(index) = parsed.copy_up
        && (is_bind || kind != "tmpfs")
    {
        return Err(invalid(&format!("{place}.options[{index}]"), "tmpcopyup is for mounts of type tmpfs"));
    }
    if is_bind && mount.source().as_ref().is_none_or(|source| source.as_os_str().is_empty()) {
        return Err(invalid(&format!("{place}.source"), "must be there: this is a bind mount"));
    }
    if !is_bind && (kind.is_empty() || kind == "none") {
        return Err(invalid(
            &format!("{place}.type"),
            "must name a file system, or the options say \"bind\"",
        ));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(invalid(&format!("{place}.uidMappings"), "id-mapped mounts are not supported"));
    }
    if let Some(source) = mount.source() {
        no_zero_byte(&source.to_string_lossy(), &format!("{place}.source"))?;
    }
    below_proc(mount, is_bind, kind, place)
}

/// Files of /proc that clients bind something over (lxcfs, resource views); anything else over /proc would
/// let a container fool the runtime's own checks (CVE-2019-16884).
const OVER_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

fn below_proc(mount: &Mount, is_bind: bool, kind: &str, place: &str) -> Result<()> {
    let destination = crate::sandbox::compile::clean(mount.destination());
    let Ok(below) = destination.strip_prefix("/proc") else { return Ok(()) };
    let place = format!("{place}.destination");
    if below.as_os_str().is_empty() {
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if kind == "proc" && !is_bind || is_bind && source.starts_with("/proc") {
            return Ok(());
        }
        return Err(invalid(&place, "only a proc file system can be mounted on /proc"));
    }
    let allowed = below.to_str().is_some_and(|below| OVER_PROC.contains(&below));
    if allowed || kind == "proc" {
        return Ok(());
    }
    Err(invalid(
        &place,
        &format!("{} lies inside of /proc, where nothing may be mounted", destination.display()),
    ))
}

fn linux(linux: &Linux, namespaces: &BTreeSet<String>) -> Result<()> {
    let unsupported = [
        (linux.intel_rdt().is_some(), "linux.intelRdt", "resource director technology"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy", "memory policies"),
        (
            linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
            "linux.netDevices",
            "moving network devices",
        ),
        (
            linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
            "linux.mountLabel",
            "SELinux labels of mounts",
        ),
    ];
    for (asked, place, what) in unsupported {
        if asked {
            return Err(invalid(place, &format!("{what} cannot be had from this runtime")));
        }
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        self::device(device, &format!("linux.devices[{index}]"))?;
    }
    for (paths, name) in [(linux.masked_paths(), "maskedPaths"), (linux.readonly_paths(), "readonlyPaths")] {
        let paths = paths.as_deref().unwrap_or_default();
        if !paths.is_empty() && !namespaces.contains("mnt") {
            return Err(invalid(&format!("linux.{name}"), "needs a mount namespace in $.linux.namespaces"));
        }
        for (index, path) in paths.iter().enumerate() {
            absolute(Path::new(path), &format!("linux.{name}[{index}]"))?;
        }
    }
    if let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty())
        && mounts::propagation(word).is_none()
    {
        let reason = format!(
            "{word:?} must be shared, slave, private or unbindable, or one of these with an r before"
        );
        return Err(invalid("linux.rootfsPropagation", &reason));
    }
    for (key, value) in linux.sysctl().iter().flatten() {
        sysctl(key, value, namespaces)?;
    }
    Ok(())
}

fn device(device: &LinuxDevice, place: &str) -> Result<()> {
    absolute(device.path(), &format!("{place}.path"))?;
    if device.typ() == LinuxDeviceType::A {
        return Err(invalid(&format!("{place}.type"), "\"a\" is no device: must be c, u, b or p"));
    }
    let numbers = [(device.major(), "major"), (device.minor(), "minor")];
    for (number, name) in numbers {
        if u32::try_from(number).is_err() {
            return Err(invalid(&format!("{place}.{name}"), &format!("{number} must be 0 to 4294967295")));
        }
    }
    if device.file_mode().is_some_and(|mode| mode & !0o170_777 != 0) {
        return Err(invalid(&format!("{place}.fileMode"), "must be at most 511 (octal 777)"));
    }
    Ok(())
}

/// Only what belongs to a namespace of the container may be changed: everything else is the host's.
fn sysctl(key: &str, value: &str, namespaces: &BTreeSet<String>) -> Result<()> {
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/auto_msgmni",
    ];
    let place = format!("linux.sysctl[\"{key}\"]");
    let path = crate::sandbox::compile::sysctl_path(key);
    let text = path.to_str().unwrap_or_default();
    if path.components().any(|part| !matches!(part, Component::Normal(_))) || text.is_empty() {
        return Err(invalid(&place, "must be a name like net.ipv4.ip_forward"));
    }
    no_zero_byte(value, &place)?;
    let needs = match text {
        _ if text.starts_with("net/") => "net",
        _ if text.starts_with("fs/mqueue/") || IPC.contains(&text) => "ipc",
        "kernel/hostname" => return Err(invalid(&place, "set $.hostname instead")),
        "kernel/domainname" => "uts",
        _ if text.starts_with("user/") => "user",
        _ => return Err(invalid(&place, "belongs to the host, not to a namespace of the container")),
    };
    if !namespaces.contains(needs) {
        let needs = if needs == "net" { "network" } else { needs };
        return Err(invalid(&place, &format!("needs a {needs} namespace in $.linux.namespaces")));
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    for (list, name) in crate::sandbox::compile::hook_lists(hooks) {
        for (index, hook) in list.iter().flatten().enumerate() {
            self::hook(hook, &format!("hooks.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn hook(hook: &Hook, place: &str) -> Result<()> {
    absolute(hook.path(), &format!("{place}.path"))?;
    if let Some(seconds) = hook.timeout()
        && u32::try_from(seconds).map_or(true, |seconds| seconds == 0)
    {
        return Err(invalid(&format!("{place}.timeout"), &format!("{seconds} must be greater than zero")));
    }
    let strings = [(hook.args(), "args"), (hook.env(), "env")];
    for (list, name) in strings {
        for (index, text) in list.iter().flatten().enumerate() {
            no_zero_byte(text, &format!("{place}.{name}[{index}]"))?;
        }
    }
    Ok(())
}

fn absolute(path: &Path, place: &str) -> Result<()> {
    no_zero_byte(&path.to_string_lossy(), place)?;
    if path.is_absolute() {
        return Ok(());
    }
    Err(invalid(place, &format!("{:?} must be an absolute path", path.display().to_string())))
}

fn no_zero_byte(text: &str, place: &str) -> Result<()> {
    if text.contains('\0') { Err(invalid(place, "must not contain a zero byte")) } else { Ok(()) }
}

fn invalid(place: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.{place}"), reason)
}
