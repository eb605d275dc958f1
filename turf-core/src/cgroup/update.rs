//! Changing the settings of control groups in which processes live.

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::layout::Layout;
use super::resources::{Setting, settings_v1, settings_v2};
use super::{
    Cgroup, CgroupPlan, Group, Hierarchies, Version, enable_controllers, inherit_cpuset, make_directory,
    read_file, read_pids, write_file,
};
use crate::error::{Error, Result};

impl Cgroup {
    /// The groups of a container once the settings of `resources` apply: on version 1 a controller that
    /// `create` did not need has no group yet. Changes nothing.
    pub fn extended_for(&self, plan: &CgroupPlan, resources: &LinuxResources) -> Result<Cgroup> {
        let wanted = CgroupPlan {
            path: plan.path.clone(),
            hierarchies: Hierarchies::Needed,
            v1: settings_v1(resources).or_else(|error| self.only_if_unused(Version::V1, error))?,
            v2: settings_v2(resources).or_else(|error| self.only_if_unused(Version::V2, error))?,
            devices: Vec::new(),
        };
        let located = Cgroup::locate_in(&Layout::read()?, &wanted)?;
        let mut extended = self.clone();
        for group in located.groups {
            match extended.groups.iter_mut().find(|known| known.mount == group.mount) {
                None => {
                    let occupants = read_pids(&group.directory.join("cgroup.procs"))?.len();
                    if occupants > 0 {
                        let object = format!("control group {}", group.directory.display());
                        return Err(Error::invalid(object, format!("is not empty: {occupants} processes")));
                    }
                    extended.groups.push(group);
                }
                Some(known) if known.version == Version::V2 => {
                    let missing = |name: &String| !known.controllers.contains(name);
                    let more: Vec<String> = group.controllers.into_iter().filter(missing).collect();
                    known.controllers.extend(more);
                }
                Some(_) => {}
            }
        }
        Ok(extended)
    }

    /// What cannot be said in the other version's terms matters only where that version is.
    fn only_if_unused(&self, version: Version, error: Error) -> Result<Vec<Setting>> {
        if self.groups.iter().any(|group| group.version == version) { Err(error) } else { Ok(Vec::new()) }
    }

    /// Makes the groups that `before` did not have, changes the settings, then brings the container's
    /// processes into the new groups, so that they are under their limits from the first moment on.
    pub fn update(&self, before: &Cgroup, resources: &LinuxResources) -> Result<()> {
        let (new, old): (Vec<&Group>, Vec<&Group>) = self
            .groups
            .iter()
            .partition(|group| !before.groups.iter().any(|known| known.directory == group.directory));
        for group in &new {
            make_directory(&group.directory)?;
            if group.has("cpuset") {
                inherit_cpuset(group)?;
            }
        }
        for group in old.iter().filter(|group| group.version == Version::V2) {
            enable_controllers(group)?;
        }
        for group in &self.groups {
            let settings = match group.version {
                Version::V1 => settings_v1(resources)?,
                Version::V2 => settings_v2(&with_period_and_quota(group, resources)?)?,
            };
            write_settings(group, settings.iter().filter(|setting| group.serves(setting)))?;
        }
        if new.is_empty() { Ok(()) } else { self.gather(&new) }
    }

    /// Moves the processes, which meanwhile are frozen so that none forks away.
    fn gather(&self, groups: &[&Group]) -> Result<()> {
        let was_frozen = self.is_frozen()?;
        let frozen = was_frozen || self.freeze().is_ok();
        let moved = self.processes().and_then(|pids| {
            for (pid, group) in pids.iter().flat_map(|pid| groups.iter().map(move |group| (pid, group))) {
                match write_file(&group.directory.join("cgroup.procs"), &pid.to_string()) {
                    // It has exited.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    result => result?,
                }
            }
            Ok(())
        });
        if frozen && !was_frozen { moved.and(self.thaw()) } else { moved }
    }
}

/// Writes the settings. One that the kernel finds invalid is tried again after the others: memory may not be
/// raised above memory and swap together, nor both be lowered below memory, so which of them has to
/// be first depends on what is in force.
fn write_settings<'a>(group: &Group, settings: impl Iterator<Item = &'a Setting>) -> Result<()> {
    let write = |setting: &Setting| write_file(&group.directory.join(&setting.file), &setting.value);
    let mut again = Vec::new();
    for setting in settings {
        match write(setting) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
            result => result?,
        }
    }
    again.into_iter().try_for_each(write)
}

/// Version 2 has one file for quota and period: what is not given stays as it is.
fn with_period_and_quota(group: &Group, resources: &LinuxResources) -> Result<LinuxResources> {
    let given = resources.cpu().as_ref().map(|cpu| (cpu.quota().is_some(), cpu.period().is_some()));
    let Some((true, false) | (false, true)) = given else { return Ok(resources.clone()) };
    let current = read_file(&group.directory.join("cpu.max"))?;
    let malformed = |error: serde_json::Error| Error::invalid("linux.resources.cpu", error.to_string());
    let mut value = serde_json::to_value(resources).map_err(malformed)?;
    fill_in(&mut value, &current);
    serde_json::from_value(value).map_err(malformed)
}

fn fill_in(resources: &mut Value, current: &str) {
    let mut words = current.split_whitespace();
    let (quota, period) = (words.next().unwrap_or("max"), words.next().and_then(|us| us.parse::<u64>().ok()));
    let quota = quota.parse::<i64>().unwrap_or(-1);
    let cpu = &mut resources["cpu"];
    if cpu["quota"].is_null() {
        cpu["quota"] = json!(quota);
    }
    if let Some(period) = period.filter(|_| cpu["period"].is_null()) {
        cpu["period"] = json!(period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_of_quota_and_period_stays() {
        for (given, current, filled) in [
            (json!({"quota": 5000}), "max 200000\n", json!({"quota": 5000, "period": 200_000})),
            (json!({"period": 50_000}), "7000 100000\n", json!({"quota": 7000, "period": 50_000})),
            (json!({"period": 50_000}), "max 100000\n", json!({"quota": -1, "period": 50_000})),
        ] {
            let mut resources = json!({ "cpu": given });
            fill_in(&mut resources, current);
            assert_eq!(resources["cpu"], filled);
        }
    }
}
