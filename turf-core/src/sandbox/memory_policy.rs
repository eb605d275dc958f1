//! `linux.memoryPolicy`: on which NUMA nodes memory comes from (set_mempolicy(2)). Pure.

use oci_spec::runtime::{Linux, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::number_list;
use super::plan::MemoryPolicyPlan;
use crate::error::{Error, Result};

/// Compiles the policy, if there is one. Which flags a mode takes is the kernel's to say; what no kernel could
/// understand is refused here.
pub(crate) fn compile(linux: &Linux) -> Result<Option<MemoryPolicyPlan>> {
    let Some(policy) = linux.memory_policy() else { return Ok(None) };
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    let nodes = number_list::mask(nodes).map_err(|reason| invalid("nodes", &reason))?;
    match policy.mode() {
        MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal if !nodes.is_empty() => {
            return Err(invalid("nodes", "must be empty: this mode has no nodes"));
        }
        MemoryPolicyModeType::MpolBind
        | MemoryPolicyModeType::MpolInterleave
        | MemoryPolicyModeType::MpolWeightedInterleave
        | MemoryPolicyModeType::MpolPreferredMany
            if nodes.is_empty() =>
        {
            return Err(invalid("nodes", "must name the nodes of this mode"));
        }
        _ => {}
    }
    Ok(Some(MemoryPolicyPlan { mode: mode(policy) | flags(policy)?, nodes }))
}

fn mode(policy: &LinuxMemoryPolicy) -> u32 {
    match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

fn flags(policy: &LinuxMemoryPolicy) -> Result<u32> {
    const STATIC_NODES: u32 = 1 << 15;
    const RELATIVE_NODES: u32 = 1 << 14;
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => RELATIVE_NODES,
        MemoryPolicyFlagType::MpolFStaticNodes => STATIC_NODES,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, one| flags | flag(one));
    if flags & STATIC_NODES != 0 && flags & RELATIVE_NODES != 0 {
        return Err(invalid("flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"));
    }
    Ok(flags)
}

fn invalid(field: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: $.linux.memoryPolicy.{field}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: serde_json::Value) -> Result<Option<MemoryPolicyPlan>> {
        compile(&serde_json::from_value(serde_json::json!({ "memoryPolicy": json })).unwrap())
    }

    #[test]
    fn a_policy_becomes_numbers() {
        let plan = policy(serde_json::json!({
            "mode": "MPOL_INTERLEAVE", "nodes": "0-1,65", "flags": ["MPOL_F_STATIC_NODES"]
        }));
        let wanted = MemoryPolicyPlan { mode: 3 | 1 << 15, nodes: vec![3, 2] };
        assert_eq!(plan.unwrap(), Some(wanted));
        let none = policy(serde_json::json!({"mode": "MPOL_DEFAULT"})).unwrap();
        assert_eq!(none, Some(MemoryPolicyPlan { mode: 0, nodes: vec![] }));
    }

    #[test]
    fn what_no_kernel_could_understand_is_refused() {
        for (json, words) in [
            (serde_json::json!({"mode": "MPOL_BIND"}), "$.linux.memoryPolicy.nodes"),
            (serde_json::json!({"mode": "MPOL_LOCAL", "nodes": "0"}), "$.linux.memoryPolicy.nodes"),
            (serde_json::json!({"mode": "MPOL_BIND", "nodes": "x"}), "$.linux.memoryPolicy.nodes"),
            (
                serde_json::json!({"mode": "MPOL_BIND", "nodes": "0",
                    "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
                "$.linux.memoryPolicy.flags",
            ),
        ] {
            let error = policy(json).unwrap_err().to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }
}
