//! What `mounts` of config.json must be beyond their types.

use std::path::Path;

use oci_spec::runtime::{Linux, Mount};

use super::linux::id_mapping;
use super::{invalid, no_zero_byte};
use crate::error::Result;
use crate::sandbox::mounts::{self, Options};

pub(super) fn mount(mount: &Mount, linux: &Linux, place: &str) -> Result<()> {
    // One that is not absolute is taken as below the root, as with runc and crun.
    let destination = mount.destination().to_string_lossy();
    no_zero_byte(&destination, &format!("{place}.destination"))?;
    if destination.is_empty() {
        return Err(invalid(&format!("{place}.destination"), "must not be empty"));
    }
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
    id_mappings(mount, &parsed, linux, place)?;
    if parsed.remount.is_some()
        && let Some((index, reason)) = parameter(options)
    {
        return Err(invalid(&format!("{place}.options[{index}]"), &reason));
    }
    if let Some(source) = mount.source() {
        no_zero_byte(&source.to_string_lossy(), &format!("{place}.source"))?;
    }
    if parsed.remount.is_some() {
        return Ok(());
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
    below_proc(mount, is_bind, kind, place)
}

/// What a bind mount passes over, like the kernel: there are clients that give every mount the same options.
pub(super) fn warnings(mount: &Mount, place: &str) -> Option<String> {
    let options = mount.options().as_deref().unwrap_or_default();
    let parsed = mounts::parse(options).ok()?;
    if parsed.remount.is_some() || parsed.bind.is_none() && mount.typ().as_deref() != Some("bind") {
        return None;
    }
    let (index, reason) = parameter(options)?;
    Some(format!("config.json: $.{place}.options[{index}]: {reason}"))
}

/// The first option that is a parameter of a file system: it says nothing to a mount of one that is mounted already.
fn parameter(options: &[String]) -> Option<(usize, String)> {
    let is_parameter = |option: &String| {
        let parsed = mounts::parse(std::slice::from_ref(option)).unwrap_or_default();
        parsed.parameters.iter().any(|parameter| !mounts::is_common_flag(parameter))
    };
    let index = options.iter().position(is_parameter)?;
    let reason = format!(
        "{:?} would belong to a file system, but this mount shows one that is mounted already",
        options[index]
    );
    Some((index, reason))
}

/// Id-mapped mounts: both kinds of ids or none, and only of what is there already.
fn id_mappings(mount: &Mount, options: &Options, linux: &Linux, place: &str) -> Result<()> {
    let lists = [(mount.uid_mappings(), "uidMappings"), (mount.gid_mappings(), "gidMappings")];
    let lists = lists.map(|(list, name)| (list.as_deref().unwrap_or_default(), format!("{place}.{name}")));
    for (list, place) in &lists {
        list.iter().enumerate().try_for_each(|(index, mapping)| id_mapping(mapping, place, index))?;
    }
    let [(uids, _), (gids, gid_place)] = &lists;
    if uids.is_empty() != gids.is_empty() {
        return Err(invalid(gid_place, "uidMappings and gidMappings go together"));
    }
    let asked = match options.id_map {
        Some((index, _)) => format!("{place}.options[{index}]"),
        None if uids.is_empty() => return Ok(()),
        None => format!("{place}.uidMappings"),
    };
    let is_bind = options.bind.is_some() || mount.typ().as_deref() == Some("bind");
    if !is_bind || options.remount.is_some() {
        return Err(invalid(&asked, "only bind mounts can be id-mapped"));
    }
    let of_container = linux.uid_mappings().as_deref().unwrap_or_default();
    if uids.is_empty() && of_container.is_empty() {
        return Err(invalid(&asked, "needs uidMappings and gidMappings, of the mount or of $.linux"));
    }
    Ok(())
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
