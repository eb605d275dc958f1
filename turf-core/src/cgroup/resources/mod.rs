//! From `linux.resources` to what is written into which file of a control group: pure, for both
//! versions of the interface.
//!
//! A setting whose value the specification leaves out, or whose value means "leave it alone", is
//! not written. Values are checked only as far as the kernel would misunderstand them; what it
//! would refuse, it refuses when the file is written, and the error names the file. Not written are
//! `memory.kernel`, `memory.kernelTCP` and `memory.useHierarchy`, which kernels have given up and runc ignores.
//! config-linux.md, "Control groups"; cgroups(7); Documentation/admin-guide/cgroup-v2.rst.

mod block_io;
mod cpu;
mod memory;

use std::fmt::Write;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxResources};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub(super) use cpu::DEFAULT_PERIOD_US;
pub use cpu::weight_of_shares;

/// One write: `value` into `file` of the group of `controller`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The controller's name, as in /proc/cgroups ("memory"); on version 2 it must be enabled.
    pub controller: String,
    /// The file's name in the group's directory.
    pub file: String,
    /// What is written, in one write(2).
    pub value: String,
    /// What happens where the group has no such file.
    #[serde(default, skip_serializing_if = "Otherwise::is_refuse")]
    pub otherwise: Otherwise,
}

/// What happens where a group does not have the file of a [`Setting`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It is an error.
    #[default]
    Refuse,
    /// Nothing: the kernel without that file already does what is asked for.
    Skip,
    /// This is written instead: the file has another name, and its values another range, on other kernels.
    Write {
        /// The other file.
        file: String,
        /// What is written into it.
        value: String,
    },
}

impl Otherwise {
    fn is_refuse(&self) -> bool {
        *self == Otherwise::Refuse
    }
}

impl Setting {
    fn or_skip(self) -> Setting {
        Setting { otherwise: Otherwise::Skip, ..self }
    }

    fn or_write(self, file: &str, value: impl ToString) -> Setting {
        let otherwise = Otherwise::Write { file: file.to_owned(), value: value.to_string() };
        Setting { otherwise, ..self }
    }
}

/// In place of a controller: a setting that only version 2 understands.
pub const UNIFIED: &str = "unified";

pub(crate) fn setting(controller: &str, file: &str, value: impl ToString) -> Setting {
    let (controller, file, value) = (controller.to_owned(), file.to_owned(), value.to_string());
    Setting { controller, file, value, otherwise: Otherwise::Refuse }
}

/// The settings on version 1, in the order in which they must be written.
pub fn settings_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory::settings_v1(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu::settings_v1(cpu)?);
    }
    all.extend(resources.pids().as_ref().and_then(pids));
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io::settings_v1(block_io)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.extend(huge_pages(limit, "limit_in_bytes")?);
    }
    if let Some(network) = resources.network() {
        all.extend(network_v1(network));
    }
    all.extend(rdma(resources)?);
    // There is no such controller, so a machine with version 1 refuses these.
    let unified = resources.unified().iter().flatten();
    all.extend(unified.map(|(file, value)| setting(UNIFIED, file, value)));
    Ok(all)
}

/// The settings on version 2, in the order in which they must be written. `unified` comes last,
/// so that what it says wins. `network` has no counterpart there (runc ignores it too).
pub fn settings_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory::settings_v2(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu::settings_v2(cpu)?);
    }
    all.extend(resources.pids().as_ref().and_then(pids));
    if let Some(block_io) = resources.block_io() {
        all.extend(block_io::settings_v2(block_io)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        all.extend(huge_pages(limit, "max")?);
    }
    all.extend(rdma(resources)?);
    let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let controller = file.split('.').next().unwrap_or_default();
        if file.contains('/') || controller.is_empty() || controller.len() == file.len() {
            return Err(unsupported(&format!("unified: {file}"), "must be a file name like memory.high"));
        }
        all.push(setting(controller, file, value));
    }
    Ok(all)
}

pub(super) fn unsupported(member: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.linux.resources.{member}"), reason)
}

/// Zero is "not given": engines say so when they mean no limit (runc before 1.4, crun).
fn pids(pids: &LinuxPids) -> Option<Setting> {
    match pids.limit() {
        0 => None,
        limit if limit < 0 => Some(setting("pids", "pids.max", "max")),
        limit => Some(setting("pids", "pids.max", limit)),
    }
}

/// The limit, and the same for reservations, which kernels before 5.7 do not count.
fn huge_pages(limit: &LinuxHugepageLimit, file: &str) -> Result<[Setting; 2]> {
    let size = limit.page_size();
    let digits = size.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = &size[digits.len()..];
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !number || !["KB", "MB", "GB"].contains(&unit) {
        return Err(unsupported("hugepageLimits", "pageSize must look like 64KB, 2MB or 1GB"));
    }
    let limit = limit.limit();
    Ok([
        setting("hugetlb", &format!("hugetlb.{size}.{file}"), limit),
        setting("hugetlb", &format!("hugetlb.{size}.rsvd.{file}"), limit).or_skip(),
    ])
}

fn network_v1(network: &LinuxNetwork) -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend(network.class_id().map(|class| setting("net_cls", "net_cls.classid", class)));
    all.extend(network.priorities().iter().flatten().map(|interface| {
        setting("net_prio", "net_prio.ifpriomap", format!("{} {}", interface.name(), interface.priority()))
    }));
    all
}

/// One line for each device; both versions have the same file.
fn rdma(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut all = Vec::new();
    for (name, limits) in devices {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(unsupported(&format!("rdma: {name:?}"), "must be the name of a device"));
        }
        let mut line = name.clone();
        for (key, value) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(line, " {key}={value}");
            }
        }
        if line.len() > name.len() {
            all.push(setting("rdma", "rdma.max", line));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
