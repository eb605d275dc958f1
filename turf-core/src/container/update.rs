//! `update`: other limits for a container that lives.

use serde_json::{Map, Value, json};

use super::state::{Creator, State};
use super::status::Status;
use crate::error::{Error, Result};
use crate::root::{ContainerId, StateRoot};

/// Limits as flags give them; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; -1: no limit.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1: no limit.
    pub memory_swap: Option<i64>,
    /// Bytes that are reclaimed last.
    pub memory_reservation: Option<i64>,
    /// Relative weight, 2 to 262,144.
    pub cpu_shares: Option<u64>,
    /// Microseconds in each period; -1: no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds that may be saved up.
    pub cpu_burst: Option<u64>,
    /// 1: only when nobody else wants the CPU.
    pub cpu_idle: Option<i64>,
    /// Microseconds.
    pub cpu_realtime_period: Option<u64>,
    /// Microseconds in each real-time period.
    pub cpu_realtime_runtime: Option<i64>,
    /// Relative weight, 10 to 1000.
    pub block_io_weight: Option<u16>,
    /// List of CPUs, like `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// List of memory nodes.
    pub cpuset_mems: Option<String>,
    /// Most processes; -1: no limit.
    pub pids: Option<i64>,
}

impl Limits {
    /// The limits as `linux.resources` of a config.json.
    pub fn to_json(&self) -> Vec<u8> {
        let mut resources = Map::new();
        let mut put = |section: &str, name: &str, value: Option<Value>| {
            if let Some(value) = value {
                resources.entry(section).or_insert_with(|| json!({}))[name] = value;
            }
        };
        put("memory", "limit", self.memory.map(Value::from));
        put("memory", "swap", self.memory_swap.map(Value::from));
        put("memory", "reservation", self.memory_reservation.map(Value::from));
        put("cpu", "shares", self.cpu_shares.map(Value::from));
        put("cpu", "quota", self.cpu_quota.map(Value::from));
        put("cpu", "period", self.cpu_period.map(Value::from));
        put("cpu", "burst", self.cpu_burst.map(Value::from));
        put("cpu", "idle", self.cpu_idle.map(Value::from));
        put("cpu", "realtimePeriod", self.cpu_realtime_period.map(Value::from));
        put("cpu", "realtimeRuntime", self.cpu_realtime_runtime.map(Value::from));
        put("blockIO", "weight", self.block_io_weight.map(Value::from));
        put("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from));
        put("cpu", "mems", self.cpuset_mems.clone().map(Value::from));
        put("pids", "limit", self.pids.map(Value::from));
        Value::Object(resources).to_string().into_bytes()
    }
}

/// Largest text of resources that is read, in bytes: they are a few hundred.
pub const RESOURCES_BYTES: u64 = 1 << 20;

/// Schemas of Intel RDT as flags give them; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schemas {
    /// Of the L3 cache.
    pub l3_cache: Option<String>,
    /// Of the memory bandwidth.
    pub memory_bandwidth: Option<String>,
}

/// Changes the limits of a container. `resources` is `linux.resources` of a config.json, in which what is left
/// out stays as it is; its device rules are ignored, as runc ignores them.
pub fn update(root: &StateRoot, id: &ContainerId, resources: &[u8], schemas: &Schemas) -> Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(resources);
    let resources = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        Error::invalid(format!("resources: $.{}", error.path()), error.inner().to_string())
    })?;
    let dir = root.container(id);
    let lock = dir.lock()?;
    let (mut state, plan) = State::load_with_plan(&dir)?;
    let status = state.status(&dir, Creator::Gone)?;
    match status {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating | Status::Stopped => {
            return Err(Error::WrongStatus { id: id.to_string(), verb: "update", status });
        }
    }
    let before = state.cgroup.clone();
    let extended = before.extended_for(&plan.cgroup, &resources)?;
    if extended != before {
        // Written down before they are made: `delete` removes what state.json names.
        state.cgroup = extended;
        state.replace(&dir, &lock)?;
    }
    state.cgroup.update(&before, &resources)?;
    state.cgroup.update_rdt(schemas.l3_cache.as_deref(), schemas.memory_bandwidth.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_resources() {
        assert_eq!(Limits::default().to_json(), b"{}");
        let limits = Limits {
            memory: Some(-1),
            cpu_shares: Some(7),
            cpuset_cpus: Some("0".into()),
            pids: Some(9),
            block_io_weight: Some(10),
            ..Limits::default()
        };
        let value: Value = serde_json::from_slice(&limits.to_json()).unwrap();
        let expected = json!({
            "memory": {"limit": -1}, "cpu": {"shares": 7, "cpus": "0"},
            "blockIO": {"weight": 10}, "pids": {"limit": 9},
        });
        assert_eq!(value, expected);
    }
}
