//! What a container has of cache and bandwidth, and what it uses of them, in the JSON of `runc events --stats`.
//!
//! A file that is not there (another processor, no monitoring) leaves its member out.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Located, read_file};

/// The member `intel_rdt`; empty for a container without `linux.intelRdt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RdtStats {
    /// What the cache can be divided into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// The line of the default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema_root: Option<String>,
    /// The line of the container's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// What the bandwidth can be divided into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// The line of the default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema_root: Option<String>,
    /// The line of the container's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Memory bandwidth used, by L3 domain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<BandwidthUsed>,
    /// Cache used, by L3 domain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<CacheUsed>,
}

/// The directory `info/L3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the file of its name")]
pub struct CacheInfo {
    pub cbm_mask: String,
    pub min_cbm_bits: u64,
    pub num_closids: u64,
}

/// The directory `info/MB`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the file of its name, without its first word")]
pub struct BandwidthInfo {
    pub bandwidth_gran: u64,
    pub delay_linear: u64,
    pub min_bandwidth: u64,
    pub num_closids: u64,
}

/// Bytes that went to and from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthUsed {
    /// All of them.
    pub mbm_total_bytes: u64,
    /// Those of the domain's own memory.
    pub mbm_local_bytes: u64,
}

/// Bytes in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUsed {
    /// How many.
    pub llc_occupancy: u64,
}

impl Located {
    /// What the groups say at this moment.
    pub(in crate::cgroup) fn stats(&self) -> RdtStats {
        let mount = self.mount.as_path();
        let word = |path: &Path| read_file(path).ok().map(|text| text.trim().to_owned());
        let number = |path: &Path| word(path).and_then(|text| text.parse().ok()).unwrap_or(0);
        let schema = |directory: &Path, resource: &str| {
            let text = read_file(&directory.join("schemata")).ok()?;
            text.lines().map(str::trim).find(|line| line.starts_with(resource)).map(str::to_owned)
        };
        let (cache, bandwidth) = (mount.join("info/L3"), mount.join("info/MB"));
        let mut stats = RdtStats {
            l3_cache_info: word(&cache.join("cbm_mask")).map(|cbm_mask| CacheInfo {
                cbm_mask,
                min_cbm_bits: number(&cache.join("min_cbm_bits")),
                num_closids: number(&cache.join("num_closids")),
            }),
            l3_cache_schema_root: schema(mount, "L3"),
            l3_cache_schema: schema(&self.directory, "L3"),
            mem_bw_info: bandwidth.is_dir().then(|| BandwidthInfo {
                bandwidth_gran: number(&bandwidth.join("bandwidth_gran")),
                delay_linear: number(&bandwidth.join("delay_linear")),
                min_bandwidth: number(&bandwidth.join("min_bandwidth")),
                num_closids: number(&bandwidth.join("num_closids")),
            }),
            mem_bw_schema_root: schema(mount, "MB:"),
            mem_bw_schema: schema(&self.directory, "MB:"),
            ..RdtStats::default()
        };
        let counted = self.monitor.as_ref().or(self.own.then_some(&self.directory));
        let entries = counted.and_then(|directory| fs::read_dir(directory.join("mon_data")).ok());
        let mut domains: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        domains.sort();
        for domain in domains.iter().filter(|path| path.is_dir()) {
            if domain.join("mbm_total_bytes").exists() {
                stats.mbm_stats.push(BandwidthUsed {
                    mbm_total_bytes: number(&domain.join("mbm_total_bytes")),
                    mbm_local_bytes: number(&domain.join("mbm_local_bytes")),
                });
            }
            if domain.join("llc_occupancy").exists() {
                stats.cmt_stats.push(CacheUsed { llc_occupancy: number(&domain.join("llc_occupancy")) });
            }
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_class_and_of_its_monitoring_group() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("info/L3/cbm_mask", "7ff\n");
        write("info/L3/min_cbm_bits", "1\n");
        write("info/L3/num_closids", "16\n");
        write("schemata", "    L3:0=7ff\n");
        write("box/schemata", "    L3:0=00f\n");
        write("box/mon_groups/box/mon_data/mon_L3_00/llc_occupancy", "4096\n");
        write("box/mon_groups/box/mon_data/mon_L3_00/mbm_total_bytes", "10\n");
        write("box/mon_groups/box/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n");
        let directory = mount.path().join("box");
        let monitor = Some(directory.join("mon_groups/box"));
        let located = Located { mount: mount.path().to_owned(), directory, own: true, monitor };
        let stats = serde_json::to_value(located.stats()).unwrap();
        let expected = serde_json::json!({
            "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=7ff",
            "l3_cache_schema": "L3:0=00f",
            "mbm_stats": [{"mbm_total_bytes": 10, "mbm_local_bytes": 0}],
            "cmt_stats": [{"llc_occupancy": 4096}],
        });
        assert_eq!(stats, expected);
        assert_eq!(serde_json::to_value(RdtStats::default()).unwrap(), serde_json::json!({}));
    }
}
