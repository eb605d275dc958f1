//! What a configuration asks for and this machine does not have: refused before anything is made, as runc does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};

use super::validate::invalid;
use crate::cgroup::rdt;
use crate::error::Result;

/// Checks a whole configuration.
pub(super) fn check(spec: &Spec) -> Result<()> {
    if let Some(process) = spec.process() {
        labels(process)?;
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    let asked = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    if asked(linux.mount_label()) && !has_selinux() {
        return Err(invalid("linux.mountLabel", NO_SELINUX));
    }
    if linux.intel_rdt().is_some() && rdt::mount_point()?.is_none() {
        let reason = "there is no resctrl file system: this machine has no Intel RDT, or it is switched off";
        return Err(invalid("linux.intelRdt", reason));
    }
    sysctls_of_the_host(linux)
}

const NO_SELINUX: &str = "SELinux is not enabled on this machine";

/// Checks the security labels of a process.
pub(super) fn labels(process: &Process) -> Result<()> {
    let asked = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    if asked(process.selinux_label()) && !has_selinux() {
        return Err(invalid("process.selinuxLabel", NO_SELINUX));
    }
    if asked(process.apparmor_profile()) && !has_apparmor() {
        return Err(invalid("process.apparmorProfile", "AppArmor is not enabled on this machine"));
    }
    Ok(())
}

fn has_selinux() -> bool {
    // The file system is there only when SELinux is on.
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// A namespace that is joined by path may be the host's own: then a sysctl would change the host.
fn sysctls_of_the_host(linux: &Linux) -> Result<()> {
    for (kind, name, prefix) in
        [(LinuxNamespaceType::Network, "net", "net/"), (LinuxNamespaceType::Ipc, "ipc", "kernel/")]
    {
        let namespaces = linux.namespaces().iter().flatten();
        let joined = namespaces.filter(|one| one.typ() == kind).find_map(|one| one.path().as_deref());
        let Some(joined) = joined else { continue };
        let own = format!("/proc/self/ns/{name}");
        let (Ok(own), Ok(joined)) = (fs::metadata(own), fs::metadata(joined)) else { continue };
        if (own.dev(), own.ino()) != (joined.dev(), joined.ino()) {
            continue;
        }
        let mut keys = linux.sysctl().iter().flatten().map(|(key, _)| key);
        let host = keys.find(|key| {
            let path = crate::sandbox::compile::sysctl_path(key);
            path.starts_with(prefix) && path != Path::new("kernel/domainname")
        });
        if let Some(key) = host {
            let reason =
                format!("belongs to the host: the {name} namespace that is joined is the host's own");
            return Err(invalid(&format!("linux.sysctl[\"{key}\"]"), &reason));
        }
    }
    Ok(())
}
