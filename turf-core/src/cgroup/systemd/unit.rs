//! The unit of a container: its name, its place, and its resources as properties; pure.
//!
//! systemd has to know the limits, because it writes them again when it is reloaded; Turf writes the files besides, for
//! what systemd has no property for. systemd.unit(5), systemd.slice(5), systemd.resource-control(5).

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::message::Value;
use crate::cgroup::devices::{self, Kind, Rule};
use crate::cgroup::resources::{unsupported, weight_of_shares};
use crate::cgroup::{DeviceRules, Version};
use crate::error::{Error, Result};

/// The unit that a bundle asks for by `slice:prefix:name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The slice that it is in; none: the manager's usual one.
    pub slice: Option<String>,
    /// Its name, with the ending `.scope` or `.slice`.
    pub name: String,
}

impl Unit {
    /// Parses `linux.cgroupsPath`; without one it is the scope `turf-<id>`.
    pub fn parse(path: Option<&Path>, id: &str) -> Result<Unit> {
        let refuse = |reason: String| Err(Error::invalid("config.json: $.linux.cgroupsPath", reason));
        let path = path.map(|path| path.to_string_lossy()).filter(|path| !path.is_empty());
        let Some(path) = path else {
            return Ok(Unit { slice: None, name: format!("turf-{id}.scope") });
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return refuse(format!("must be slice:prefix:name for systemd, which {path:?} is not"));
        };
        let name = match (prefix, name) {
            (_, name) if name.ends_with(".slice") => name.to_owned(),
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        let known = |letter: char| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter);
        if name.starts_with('.') || name.len() > 255 || !name.chars().all(known) {
            return refuse(format!("{name:?} cannot be the name of a unit"));
        }
        let slice = Some(slice.to_owned()).filter(|slice| !slice.is_empty());
        for slice in slice.iter().chain(Some(&name).filter(|name| name.ends_with(".slice"))) {
            if expand_slice(slice).is_none() {
                return refuse(format!("{slice:?} is not the name of a slice"));
            }
        }
        Ok(Unit { slice, name })
    }

    /// Where the unit's control group is below the manager's, if its slice is `usual` where none is named.
    pub fn path(&self, usual: &str) -> PathBuf {
        let slice = self.slice.as_deref().unwrap_or(usual);
        expand_slice(slice).unwrap_or_default().join(match self.name.ends_with(".slice") {
            // A slice is where its name says.
            true => return expand_slice(&self.name).unwrap_or_default(),
            false => &self.name,
        })
    }
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains('/') || part.starts_with('.') {
            return None;
        }
        path.push(format!("{prefix}{part}.slice"));
        prefix = format!("{prefix}{part}-");
    }
    Some(path)
}

/// The properties with which a unit is made, those of its resources not among them.
pub fn properties(unit: &Unit, usual_slice: &str, id: &str, pid: i32) -> Vec<(String, Value)> {
    let slice = unit.slice.as_deref().unwrap_or(usual_slice).to_owned();
    let mut all = vec![("Description".to_owned(), Value::Text(format!("turf container {id}")))];
    if unit.name.ends_with(".slice") {
        all.push(("Wants".to_owned(), Value::Texts(vec![slice])));
    } else {
        all.push(("Slice".to_owned(), Value::Text(slice)));
        all.push(("Delegate".to_owned(), Value::Bool(true)));
        all.push(("PIDs".to_owned(), Value::Numbers(vec![pid.cast_unsigned()])));
    }
    for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        all.push((name.to_owned(), Value::Bool(true)));
    }
    // Its end is ours to order, not that of a shutdown target.
    all.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
    all
}

/// Versions of systemd since which properties exist.
const CPU_QUOTA_PERIOD: u32 = 242;
const ALLOWED_CPUS: u32 = 244;
const CPU_WEIGHT_IDLE: u32 = 252;

/// The properties that say the same as `linux.resources`.
pub(in crate::cgroup) fn resource_properties(
    resources: &LinuxResources,
    version: Version,
    systemd: u32,
) -> Result<Vec<(String, Value)>> {
    let mut all = Properties { all: Vec::new(), systemd };
    match version {
        Version::V1 => all.v1(resources),
        Version::V2 => all.v2(resources)?,
    }
    if let Some(cpu) = resources.cpu() {
        all.quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            // On version 1 systemd does not use the controller.
            if let (Version::V2, Some(list)) = (version, list.as_deref().filter(|list| !list.is_empty())) {
                all.set_of(name, list)?;
            }
        }
    }
    // Without it systemd takes a share of what its slice has.
    if let Some(pids) = resources.pids() {
        let limit = u64::try_from(pids.limit()).ok().filter(|limit| *limit > 0);
        all.number("TasksMax", limit.unwrap_or(u64::MAX));
    }
    if version == Version::V2 {
        for (file, value) in resources.unified().iter().flatten() {
            all.unified(file, value)?;
        }
    }
    Ok(all.all)
}

struct Properties {
    all: Vec<(String, Value)>,
    systemd: u32,
}

impl Properties {
    fn number(&mut self, name: &str, value: u64) {
        self.all.push((name.to_owned(), Value::U64(value)));
    }

    /// Zero is "not given" and a negative number "no limit".
    fn limit(&mut self, name: &str, value: Option<i64>) {
        match value {
            None | Some(0) => {}
            Some(value) => self.number(name, u64::try_from(value).unwrap_or(u64::MAX)),
        }
    }

    fn v1(&mut self, resources: &LinuxResources) {
        if let Some(memory) = resources.memory() {
            self.limit("MemoryLimit", memory.limit());
        }
        if let Some(shares) = resources.cpu().as_ref().and_then(|cpu| cpu.shares()).filter(|n| *n != 0) {
            self.number("CPUShares", shares);
        }
        let weight = resources.block_io().as_ref().and_then(|block_io| block_io.weight());
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            self.number("BlockIOWeight", u64::from(weight));
        }
    }

    fn v2(&mut self, resources: &LinuxResources) -> Result<()> {
        if let Some(memory) = resources.memory() {
            let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
            self.limit("MemoryMax", memory.limit());
            self.limit("MemoryLow", memory.reservation());
            match (limit, swap) {
                (-1, 0) | (_, -1) => self.number("MemorySwapMax", u64::MAX),
                (1.., 1..) if swap >= limit => self.number("MemorySwapMax", swap.abs_diff(limit)),
                // What makes no sense is refused where the file's value is computed.
                _ => {}
            }
        }
        if let Some(cpu) = resources.cpu() {
            match (cpu.idle(), cpu.shares().filter(|shares| *shares != 0)) {
                // As property, weight 0 stands for "idle".
                (Some(1), _) if self.systemd >= CPU_WEIGHT_IDLE => self.number("CPUWeight", 0),
                (Some(1), _) | (_, None) => {}
                (_, Some(shares)) => self.number("CPUWeight", weight_of_shares(shares)),
            }
        }
        Ok(())
    }

    /// systemd keeps the quota as time of each second, in whole percents: it is rounded up to that.
    fn quota(&mut self, quota: i64, period: u64) {
        if quota == 0 && period == 0 {
            return;
        }
        if period != 0 && self.systemd >= CPU_QUOTA_PERIOD {
            self.number("CPUQuotaPeriodUSec", period);
        }
        let period = if period == 0 { crate::cgroup::resources::DEFAULT_PERIOD_US } else { period };
        let per_second = match u64::try_from(quota).ok().filter(|quota| *quota > 0) {
            Some(quota) => (quota.saturating_mul(1_000_000) / period).next_multiple_of(10_000),
            None => u64::MAX,
        };
        self.number("CPUQuotaPerSecUSec", per_second);
    }

    /// A list like `0-3,7` as bits, the lowest first.
    fn set_of(&mut self, name: &str, list: &str) -> Result<()> {
        if self.systemd < ALLOWED_CPUS {
            return Ok(());
        }
        let mut bits = Vec::new();
        for part in list.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
                return Err(unsupported("cpu", &format!("{list:?} is not a list like 0-3,7")));
            };
            for number in usize::from(first)..=usize::from(last) {
                if bits.len() <= number / 8 {
                    bits.resize(number / 8 + 1, 0u8);
                }
                bits[number / 8] |= 1 << (number % 8);
            }
        }
        self.all.push((name.to_owned(), Value::Bytes(bits)));
        Ok(())
    }

    /// The files that systemd knows too; the others are only written.
    fn unified(&mut self, file: &str, value: &str) -> Result<()> {
        let bad = || unsupported(&format!("unified: {file}"), &format!("{value:?} is not a number"));
        let number = |text: &str| match text.trim() {
            "max" => Ok(u64::MAX),
            text => text.parse::<u64>().map_err(|_| bad()),
        };
        let name = match file {
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpuset.cpus" => return self.set_of("AllowedCPUs", value),
            "cpuset.mems" => return self.set_of("AllowedMemoryNodes", value),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = number(words.next().unwrap_or("max"))?;
                let period = words.next().map_or(Ok(0), number)?;
                // No limit is a negative quota.
                self.quota(i64::try_from(quota).unwrap_or(-1), period);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let value = number(value)?;
        self.number(name, value);
        Ok(())
    }
}

/// The device rules as systemd takes them, so that a reload of systemd does not open what is closed. What cannot be said so
/// is in force by the group's own rules; systemd then allows everything, and both have to.
pub fn device_properties(devices: &DeviceRules) -> Vec<(String, Value)> {
    let policy = |name: &str, list| {
        vec![
            ("DevicePolicy".to_owned(), Value::Text(name.to_owned())),
            ("DeviceAllow".to_owned(), Value::Pairs(list)),
        ]
    };
    match devices::allowed_list(&devices.rules) {
        Some(rules) => match rules.iter().map(device).collect::<Option<Vec<_>>>() {
            Some(list) => policy("strict", list),
            None => policy("auto", Vec::new()),
        },
        None => policy("auto", Vec::new()),
    }
}

/// A path or a pattern, and the accesses.
fn device(rule: &Rule) -> Option<(String, String)> {
    let kind = match rule.kind {
        Kind::Block => "block",
        Kind::Character => "char",
        Kind::All => return None,
    };
    let path = match (rule.major, rule.minor) {
        (None, None) => format!("{kind}-*"),
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        // Only by the name of the driver, which may change with the kernel: pseudo-terminals are always this.
        (Some(136), None) if kind == "char" => "char-pts".to_owned(),
        (_, _) => return None,
    };
    Some((path, rule.access_letters()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_units() {
        let parse = |path: &str| Unit::parse(Some(Path::new(path)), "box");
        let unit =
            |slice: Option<&str>, name: &str| Unit { slice: slice.map(str::to_owned), name: name.to_owned() };
        assert_eq!(Unit::parse(None, "box").unwrap(), unit(None, "turf-box.scope"));
        assert_eq!(parse("").unwrap(), unit(None, "turf-box.scope"));
        assert_eq!(parse("system.slice:docker:abc").unwrap(), unit(Some("system.slice"), "docker-abc.scope"));
        assert_eq!(parse("::abc").unwrap(), unit(None, "abc.scope"));
        assert_eq!(parse(":x:a-b.slice").unwrap(), unit(None, "a-b.slice"));
        for refused in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "notaslice:a:b",
            "a--b.slice:x:y",
            "s.slice:x:a/b",
            "::",
            "a/b.slice:c:d",
        ] {
            assert!(parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn slices_lie_in_each_other() {
        let path = |slice: &str, name: &str| {
            Unit::parse(Some(Path::new(&format!("{slice}:p:{name}"))), "box").unwrap().path("system.slice")
        };
        assert_eq!(
            path("kubepods-burstable-pod1.slice", "x"),
            Path::new("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/p-x.scope")
        );
        assert_eq!(path("", "x"), Path::new("system.slice/p-x.scope"));
        assert_eq!(path("-.slice", "x"), Path::new("p-x.scope"));
        assert_eq!(path("", "a-b.slice"), Path::new("a.slice/a-b.slice"));
    }

    fn of(json: serde_json::Value, version: Version, systemd: u32) -> Vec<(String, Value)> {
        resource_properties(&serde_json::from_value(json).unwrap(), version, systemd).unwrap()
    }

    #[track_caller]
    fn check(got: Vec<(String, Value)>, expected: &[(&str, Value)]) {
        let expected: Vec<(String, Value)> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn resources_on_version_2() {
        let number = Value::U64;
        check(
            of(
                serde_json::json!({
                    "memory": {"limit": 1000, "swap": 1500, "reservation": 100},
                    "cpu": {"shares": 1024, "quota": 50_001, "period": 100_000, "cpus": "0-2,9", "mems": "0"},
                    "pids": {"limit": 7}, "unified": {"memory.high": "900", "io.weight": "5"}
                }),
                Version::V2,
                252,
            ),
            &[
                ("MemoryMax", number(1000)),
                ("MemoryLow", number(100)),
                ("MemorySwapMax", number(500)),
                ("CPUWeight", number(100)),
                ("CPUQuotaPeriodUSec", number(100_000)),
                ("CPUQuotaPerSecUSec", number(510_000)),
                ("AllowedCPUs", Value::Bytes(vec![7, 2])),
                ("AllowedMemoryNodes", Value::Bytes(vec![1])),
                ("TasksMax", number(7)),
                ("MemoryHigh", number(900)),
            ],
        );
        check(
            of(
                serde_json::json!({"memory": {"limit": -1}, "cpu": {"idle": 1, "shares": 5, "quota": -1, "cpus": "1"},
                    "pids": {"limit": 0}}),
                Version::V2,
                240,
            ),
            &[
                ("MemoryMax", number(u64::MAX)),
                ("MemorySwapMax", number(u64::MAX)),
                ("CPUQuotaPerSecUSec", number(u64::MAX)),
                ("TasksMax", number(u64::MAX)),
            ],
        );
        check(of(serde_json::json!({"cpu": {"idle": 1}}), Version::V2, 252), &[("CPUWeight", number(0))]);
        check(of(serde_json::json!({}), Version::V2, 252), &[]);
        let bad = serde_json::from_value(serde_json::json!({"unified": {"memory.high": "much"}})).unwrap();
        assert!(resource_properties(&bad, Version::V2, 252).is_err());
    }

    #[test]
    fn resources_on_version_1() {
        check(
            of(
                serde_json::json!({"memory": {"limit": 1000, "swap": 1500}, "blockIO": {"weight": 500},
                    "cpu": {"shares": 512, "cpus": "0", "period": 50_000}}),
                Version::V1,
                252,
            ),
            &[
                ("MemoryLimit", Value::U64(1000)),
                ("CPUShares", Value::U64(512)),
                ("BlockIOWeight", Value::U64(500)),
                ("CPUQuotaPeriodUSec", Value::U64(50_000)),
                ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
            ],
        );
    }

    #[test]
    fn devices_that_systemd_can_name() {
        let rules = |json: serde_json::Value| DeviceRules {
            rules: devices::compile(&serde_json::from_value::<Vec<_>>(json).unwrap()).unwrap(),
            asked_for: true,
        };
        let properties = device_properties(&rules(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"},
        ])));
        assert_eq!(properties[0].1, Value::Text("strict".into()));
        let Value::Pairs(list) = &properties[1].1 else { panic!("{properties:?}") };
        for (path, access) in
            [("/dev/block/8:0", "r"), ("/dev/char/1:3", "rwm"), ("char-pts", "rwm"), ("char-*", "m")]
        {
            assert!(list.contains(&(path.to_owned(), access.to_owned())), "{path} in {list:?}");
        }
        for open in [
            serde_json::json!([{"allow": true, "access": "rwm"}]),
            serde_json::json!([{"allow": true, "type": "c", "major": 10, "access": "r"}]),
        ] {
            assert_eq!(device_properties(&rules(open))[0].1, Value::Text("auto".into()));
        }
    }
}
