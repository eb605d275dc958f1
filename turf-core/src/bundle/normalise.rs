//! config.json as the specification writes it, made into what the types of oci-spec read.
//!
//! What differs: values that may be left out, names that the types spell otherwise, and capabilities this program has
//! never heard of, which must be a warning and no error (config.md, "Process").

use serde_json::{Value, json};

use crate::sandbox::process::capability_bit;

/// Flags of `process.scheduler`: the specification's names and those of the types.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Changes a whole configuration; returns the warnings.
pub(super) fn configuration(config: &mut Value) -> Vec<String> {
    config.get_mut("process").map_or_else(Vec::new, |value| process(value, "$.process"))
}

/// Changes a `process`, which stands at `place`; returns the warnings.
pub(super) fn process(process: &mut Value, place: &str) -> Vec<String> {
    let Some(object) = process.as_object_mut() else { return Vec::new() };
    if object.get("user").is_none_or(Value::is_null) {
        object.insert("user".to_owned(), json!({}));
    }
    if let Some(flags) = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut) {
        for flag in flags {
            let known = SCHEDULER_FLAGS.iter().find(|(name, _)| *flag == *name);
            if let Some((_, name)) = known {
                *flag = json!(name);
            }
        }
    }
    let mut warnings = Vec::new();
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        let list = process.pointer_mut(&format!("/capabilities/{set}")).and_then(Value::as_array_mut);
        list.into_iter().for_each(|list| {
            list.retain(|name| {
                // What is no name of a capability at all is the types' to refuse.
                let known = name.as_str().is_none_or(|name| capability_bit(name).is_some());
                if !known {
                    warnings.push(format!(
                        "config.json: {place}.capabilities.{set}: {name} is no capability that this program knows"
                    ));
                }
                known
            });
        });
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_warned_of_and_left_out() {
        let mut config = json!({"process": {"capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_OF_TOMORROW"], "ambient": ["CAP_Y"], "effective": [7, "TEST_CAP"]
        }}});
        let warnings = configuration(&mut config);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("$.process.capabilities.bounding: \"CAP_OF_TOMORROW\""), "{warnings:?}");
        let left = json!({"bounding": ["CAP_CHOWN"], "ambient": [], "effective": [7]});
        assert_eq!(config["process"]["capabilities"], left);
    }

    #[test]
    fn names_of_the_specification_are_read() {
        let mut config = json!({"process": {"user": null, "cwd": "/", "scheduler": {
            "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]
        }}});
        assert!(configuration(&mut config).is_empty());
        let process: oci_spec::runtime::Process = serde_json::from_value(config["process"].take()).unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 3);
    }
}
