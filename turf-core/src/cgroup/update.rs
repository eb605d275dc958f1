//! Changing the settings of control groups in which processes live.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::files::{read_file, read_pids, write_file, write_settings};
use super::layout::CgroupPath;
use super::resources::{Setting, settings_v1, settings_v2};
use super::{
    Cgroup, CgroupPlan, DeviceRules, Group, Hierarchies, Version, enable_controllers, inherit_cpuset,
    make_directory, rdt, settings,
};
use crate::error::{Error, Result};

impl Cgroup {
    /// The groups of a container once the settings of `resources` apply: on version 1 a controller that
    /// `create` did not need has no group yet. Changes nothing.
    pub fn extended_for(&self, plan: &CgroupPlan, resources: &LinuxResources) -> Result<Cgroup> {
        let on_v2 = match self.groups.iter().find(|group| group.version == Version::V2) {
            Some(group) => with_what_is_in_force(group, resources)?,
            None => resources.clone(),
        };
        let wanted = CgroupPlan {
            path: self.path_of(plan),
            hierarchies: Hierarchies::Needed,
            v1: settings(settings_v1(resources))?,
            v2: settings(settings_v2(&on_v2))?,
            devices: DeviceRules::default(),
            owner: None,
            resources: LinuxResources::default(),
            rdt: None,
            unit_properties: BTreeMap::new(),
        };
        let located = Cgroup::on_this_machine(&wanted)?;
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

    /// The path of the plan, or where systemd has put the groups, which is the same in every hierarchy.
    fn path_of(&self, plan: &CgroupPlan) -> CgroupPath {
        let below = |group: &Group| Some(group.directory.strip_prefix(&group.mount).ok()?.to_owned());
        match (&self.unit, self.groups.first().and_then(below)) {
            (Some(_), Some(path)) => CgroupPath::Absolute(path),
            (Some(_) | None, _) => plan.path.clone(),
        }
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
        if let Some(unit) = &self.unit {
            let resources = match old.iter().find(|group| group.version == Version::V2) {
                Some(group) => with_what_is_in_force(group, resources)?,
                None => resources.clone(),
            };
            unit.update(&resources, self.version())?;
        }
        let mut written = Vec::new();
        let changed = self.groups.iter().try_for_each(|group| change(group, resources, &mut written));
        if let Err(error) = changed {
            return Err(error.and_clean_up(restore(written)));
        }
        if new.is_empty() { Ok(()) } else { self.gather(&new) }
    }

    /// Gives the container other shares of cache and memory bandwidth.
    pub fn update_rdt(&self, l3_cache: Option<&str>, memory_bandwidth: Option<&str>) -> Result<()> {
        let lines = rdt::update_lines(l3_cache, memory_bandwidth)?;
        match &self.rdt {
            Some(located) => located.update(&lines),
            None if lines.is_empty() => Ok(()),
            None => {
                let reason = "has no class of Intel RDT: its configuration has no linux.intelRdt";
                Err(Error::invalid("the container", reason))
            }
        }
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

/// Files of settings with what they said before.
type Before = Vec<(PathBuf, String)>;

/// Writes the settings that a group serves, and notes in `before` how it was.
fn change(group: &Group, resources: &LinuxResources, before: &mut Before) -> Result<()> {
    let settings = match group.version {
        Version::V1 => settings_v1(resources)?,
        Version::V2 => {
            let resources = with_what_is_in_force(group, resources)?;
            refuse_below_usage(group, &resources)?;
            settings_v2(&resources)?
        }
    };
    let served: Vec<&Setting> = settings.iter().filter(|setting| group.serves(setting)).collect();
    for setting in &served {
        let path = group.directory.join(&setting.file);
        // A file that is not there, or has a line for each device, cannot be brought back like this.
        if let Ok(text) = read_file(&path)
            && text.trim().lines().count() == 1
        {
            before.push((path, text.trim().to_owned()));
        }
    }
    write_settings(&group.directory, served.into_iter())
}

/// Brings back what was in force, so that a refused update changes nothing. Twice, because what is refused at first
/// may fit after the rest.
fn restore(before: Before) -> Result<()> {
    let write = |(path, text): &(PathBuf, String)| write_file(path, text);
    let refused: Before = before.into_iter().filter(|entry| write(entry).is_err()).collect();
    refused.iter().try_for_each(write)
}

/// On version 2 a limit below what is used kills; `checkBeforeUpdate` says that the update is to fail
/// instead. Version 1 refuses it by itself.
fn refuse_below_usage(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true)) else {
        return Ok(());
    };
    // No such file: the group of another controller beside version 1.
    let usage = read_file(&group.directory.join("memory.current")).unwrap_or_default();
    let usage: i64 = usage.trim().parse().unwrap_or(0);
    for (member, limit) in [("limit", memory.limit()), ("swap", memory.swap())] {
        if limit.is_some_and(|limit| limit > 0 && limit < usage) {
            let reason = format!("is below the {usage} bytes in use");
            return Err(Error::invalid(format!("linux.resources.memory.{member}"), reason));
        }
    }
    Ok(())
}

/// Version 2 has one file for quota and period, and counts swap apart from memory: of each pair, what is not
/// given stays as it is.
fn with_what_is_in_force(group: &Group, resources: &LinuxResources) -> Result<LinuxResources> {
    let malformed = |error: serde_json::Error| Error::invalid("linux.resources", error.to_string());
    let mut value = serde_json::to_value(resources).map_err(malformed)?;
    let given = |section: &str, name: &str| value[section][name].as_i64().is_some_and(|number| number != 0);
    let cpu = given("cpu", "quota") != given("cpu", "period");
    let memory = given("memory", "limit") != given("memory", "swap");
    let read = |file: &str| read_file(&group.directory.join(file));
    // Where a file is missing, another group has that controller, or writing it will say so.
    if cpu && let Ok(current) = read("cpu.max") {
        fill_in_cpu(&mut value["cpu"], &current);
    }
    if memory && let Ok(limit) = read("memory.max") {
        // A kernel without swap has no such file.
        let swap = read("memory.swap.max").unwrap_or_else(|_| "max".to_owned());
        fill_in_memory(&mut value["memory"], &limit, &swap);
    }
    serde_json::from_value(value).map_err(malformed)
}

fn fill_in_cpu(cpu: &mut Value, current: &str) {
    let mut words = current.split_whitespace();
    let (quota, period) = (words.next().unwrap_or("max"), words.next().and_then(|us| us.parse::<u64>().ok()));
    if cpu["quota"].as_i64().unwrap_or(0) == 0 {
        cpu["quota"] = json!(quota.parse::<i64>().unwrap_or(-1));
    }
    if let Some(period) = period.filter(|_| cpu["period"].as_i64().unwrap_or(0) == 0) {
        cpu["period"] = json!(period);
    }
}

/// Memory and swap together keep their limit when that of memory changes, as on version 1, unless it was none.
fn fill_in_memory(memory: &mut Value, limit: &str, swap: &str) {
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let (limit, swap) = (number(limit), number(swap));
    if memory["limit"].as_i64().unwrap_or(0) == 0 {
        memory["limit"] = json!(limit.unwrap_or(0));
    } else if let (Some(limit), Some(swap)) = (limit, swap)
        && memory["limit"].as_i64() != Some(-1)
    {
        memory["swap"] = json!(limit.saturating_add(swap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_of_quota_and_period_stays() {
        for (mut given, current, filled) in [
            (json!({"quota": 5000}), "max 200000\n", json!({"quota": 5000, "period": 200_000})),
            (json!({"period": 50_000}), "7000 100000\n", json!({"quota": 7000, "period": 50_000})),
            (json!({"period": 50_000}), "max 100000\n", json!({"quota": -1, "period": 50_000})),
        ] {
            fill_in_cpu(&mut given, current);
            assert_eq!(given, filled);
        }
    }

    #[test]
    fn memory_and_swap_together_keep_their_limit() {
        for (mut given, limit, swap, filled) in [
            (json!({"limit": 60}), "100\n", "50\n", json!({"limit": 60, "swap": 150})),
            (json!({"limit": 60}), "100\n", "max\n", json!({"limit": 60})),
            (json!({"limit": 60}), "max\n", "0\n", json!({"limit": 60})),
            (json!({"limit": -1}), "100\n", "50\n", json!({"limit": -1})),
            (json!({"swap": 160}), "100\n", "50\n", json!({"swap": 160, "limit": 100})),
            (json!({"swap": 160}), "max\n", "50\n", json!({"swap": 160, "limit": 0})),
        ] {
            fill_in_memory(&mut given, limit, swap);
            assert_eq!(given, filled);
        }
    }
}
