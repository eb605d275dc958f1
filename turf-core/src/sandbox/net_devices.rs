//! `linux.netDevices`: which network devices of the host move into the container, and under which names. Pure; the
//! moving is [`super::init`]'s.

use std::collections::BTreeSet;

use oci_spec::runtime::Linux;

use super::plan::NetDevicePlan;
use crate::error::{Error, Result};

/// Longest name of a network device (`IFNAMSIZ` without its zero).
const NAME_BYTES: usize = 15;

/// Compiles the list, in the order of the names on the host.
pub(crate) fn compile(linux: &Linux) -> Result<Vec<NetDevicePlan>> {
    let mut plans = Vec::new();
    let mut inside = BTreeSet::new();
    for (host_name, device) in linux.net_devices().iter().flatten() {
        let place = format!("config.json: $.linux.netDevices[\"{host_name}\"]");
        let given = device.name().as_deref().filter(|name| !name.is_empty());
        let name = given.unwrap_or(host_name);
        check(host_name).map_err(|reason| Error::invalid(&place, reason))?;
        check(name).map_err(|reason| Error::invalid(format!("{place}.name"), reason))?;
        if !inside.insert(name.to_owned()) {
            return Err(Error::invalid(format!("{place}.name"), format!("{name:?} is there twice")));
        }
        plans.push(NetDevicePlan { host_name: host_name.clone(), name: name.to_owned() });
    }
    plans.sort_by(|a, b| a.host_name.cmp(&b.host_name));
    Ok(plans)
}

/// The kernel's rules for names (`dev_valid_name`), and none that it would fill in.
fn check(name: &str) -> std::result::Result<(), &'static str> {
    let wrong = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err("a network device's name has 1 to 15 bytes");
    }
    if name == "." || name == ".." || name.contains(wrong) {
        return Err("is no name of a network device");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(json: serde_json::Value) -> Result<Vec<NetDevicePlan>> {
        compile(&serde_json::from_value(serde_json::json!({ "netDevices": json })).unwrap())
    }

    #[test]
    fn devices_keep_their_names_unless_given_others() {
        let plans = devices(serde_json::json!({"eth1": {"name": "inside0"}, "eth0": {}})).unwrap();
        let plan =
            |host: &str, name: &str| NetDevicePlan { host_name: host.to_owned(), name: name.to_owned() };
        assert_eq!(plans, [plan("eth0", "eth0"), plan("eth1", "inside0")]);
    }

    #[test]
    fn impossible_names_are_refused() {
        for json in [
            serde_json::json!({"": {}}),
            serde_json::json!({"a/b": {}}),
            serde_json::json!({"eth0": {"name": ".."}}),
            serde_json::json!({"eth0": {"name": "a b"}}),
            serde_json::json!({"eth0": {"name": "eth%d"}}),
            serde_json::json!({"eth0": {"name": "sixteen-bytes-xx"}}),
            serde_json::json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
        ] {
            let error = devices(json.clone()).unwrap_err().to_string();
            assert!(error.starts_with("config.json: $.linux.netDevices[\""), "{json}: {error}");
        }
    }
}
