//! What is written for which resources, by table.

use super::*;

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn lines(settings: Vec<Setting>) -> Vec<String> {
    let line = |setting: Setting| {
        let otherwise = match setting.otherwise {
            Otherwise::Refuse => String::new(),
            Otherwise::Skip => " or nothing".to_owned(),
            Otherwise::Write { file, value } => format!(" or {file}={value}"),
        };
        format!("{} {}={}{otherwise}", setting.controller, setting.file, setting.value)
    };
    settings.into_iter().map(line).collect()
}

#[track_caller]
fn check(json: serde_json::Value, v1: &[&str], v2: &[&str]) {
    let resources = resources(json);
    assert_eq!(lines(settings_v1(&resources).unwrap()), v1, "version 1");
    assert_eq!(lines(settings_v2(&resources).unwrap()), v2, "version 2");
}

#[test]
fn nothing_asked_for_is_nothing_written() {
    check(serde_json::json!({}), &[], &[]);
    check(
        serde_json::json!({"memory": {}, "cpu": {}, "pids": {"limit": 0}, "devices": [],
            "blockIO": {}, "network": {}, "hugepageLimits": [], "rdma": {}, "unified": {}}),
        &[],
        &[],
    );
}

#[test]
fn memory() {
    check(
        serde_json::json!({"memory": {"limit": 67108864, "swap": 100663296, "reservation": 1048576,
            "swappiness": 60, "disableOOMKiller": true, "kernel": 1, "kernelTCP": 4096, "useHierarchy": true, "checkBeforeUpdate": true}}),
        &[
            "memory memory.limit_in_bytes=67108864",
            "memory memory.memsw.limit_in_bytes=100663296",
            "memory memory.soft_limit_in_bytes=1048576",
            "memory memory.oom_control=1",
            "memory memory.swappiness=60",
        ],
        &["memory memory.swap.max=33554432", "memory memory.max=67108864", "memory memory.low=1048576"],
    );
    check(
        serde_json::json!({"memory": {"limit": -1}}),
        &["memory memory.limit_in_bytes=-1", "memory memory.memsw.limit_in_bytes=-1 or nothing"],
        &["memory memory.swap.max=max or nothing", "memory memory.max=max"],
    );
    // What Kubernetes gives: no swap at all.
    check(
        serde_json::json!({"memory": {"limit": 4096, "swap": 4096}}),
        &["memory memory.limit_in_bytes=4096", "memory memory.memsw.limit_in_bytes=4096"],
        &["memory memory.swap.max=0 or nothing", "memory memory.max=4096"],
    );
    for refused in [
        serde_json::json!({"memory": {"swap": 4096}}),
        serde_json::json!({"memory": {"limit": 8192, "swap": 4096}}),
    ] {
        assert!(settings_v2(&resources(refused)).is_err());
    }
}

#[test]
fn cpu() {
    check(
        serde_json::json!({"cpu": {"shares": 1024, "quota": 50000, "period": 200000, "burst": 1000,
            "cpus": "0-1", "mems": "0"}}),
        &[
            "cpu cpu.shares=1024",
            "cpu cpu.cfs_period_us=200000",
            "cpu cpu.cfs_quota_us=50000",
            "cpu cpu.cfs_burst_us=1000 or nothing",
            "cpuset cpuset.cpus=0-1",
            "cpuset cpuset.mems=0",
        ],
        &[
            "cpu cpu.weight=100",
            "cpu cpu.max=50000 200000",
            "cpu cpu.max.burst=1000 or nothing",
            "cpuset cpuset.cpus=0-1",
            "cpuset cpuset.mems=0",
        ],
    );
    check(
        serde_json::json!({"cpu": {"quota": -1, "shares": 0, "cpus": "", "mems": ""}}),
        &["cpu cpu.cfs_quota_us=-1"],
        &["cpu cpu.max=max 100000"],
    );
    check(
        serde_json::json!({"cpu": {"idle": 1, "shares": 2}}),
        &["cpu cpu.shares=2", "cpu cpu.idle=1"],
        &["cpu cpu.idle=1"],
    );
    check(
        serde_json::json!({"cpu": {"realtimeRuntime": 900, "realtimePeriod": 1000}}),
        &["cpu cpu.rt_period_us=1000", "cpu cpu.rt_runtime_us=900"],
        &[],
    );
}

#[test]
fn pids() {
    let limit = |limit: i64| serde_json::json!({"pids": {"limit": limit}});
    check(limit(2048), &["pids pids.max=2048"], &["pids pids.max=2048"]);
    check(limit(-1), &["pids pids.max=max"], &["pids pids.max=max"]);
}

#[test]
fn shares_meet_weights_at_both_ends_and_at_the_default() {
    for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
    for pair in (2..=262_144u64).collect::<Vec<_>>().windows(2) {
        assert!(weight_of_shares(pair[0]) <= weight_of_shares(pair[1]), "{pair:?}");
    }
}

#[test]
fn block_io_huge_pages_network_and_unified() {
    check(
        serde_json::json!({
            "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}, "none": {}},
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "unified": {"memory.high": "1000"},
        }),
        &[
            "blkio blkio.weight=500 or blkio.bfq.weight=500",
            "blkio blkio.throttle.read_bps_device=8:0 600",
            "blkio blkio.throttle.write_iops_device=8:16 300",
            "hugetlb hugetlb.2MB.limit_in_bytes=9223372",
            "hugetlb hugetlb.2MB.rsvd.limit_in_bytes=9223372 or nothing",
            "net_cls net_cls.classid=1048577",
            "net_prio net_prio.ifpriomap=eth0 500",
            "rdma rdma.max=mlx4_0 hca_object=1",
            "rdma rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
            "unified memory.high=1000",
        ],
        &[
            "io io.bfq.weight=500 or io.weight=default 4950",
            "io io.max=8:0 rbps=600",
            "io io.max=8:16 wiops=300",
            "hugetlb hugetlb.2MB.max=9223372",
            "hugetlb hugetlb.2MB.rsvd.max=9223372 or nothing",
            "rdma rdma.max=mlx4_0 hca_object=1",
            "rdma rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
            "memory memory.high=1000",
        ],
    );
    for refused in ["../memory.max", "memory", "", "a/b.c"] {
        let unified = resources(serde_json::json!({"unified": {refused: "1"}}));
        assert!(settings_v2(&unified).is_err(), "{refused}");
    }
}

#[test]
fn weights_of_devices() {
    check(
        serde_json::json!({"blockIO": {"leafWeight": 300, "weightDevice": [
            {"major": 8, "minor": 0, "weight": 1000, "leafWeight": 10}, {"major": 8, "minor": 16}]}}),
        &[
            "blkio blkio.leaf_weight=300",
            "blkio blkio.weight_device=8:0 1000 or blkio.bfq.weight_device=8:0 1000",
            "blkio blkio.leaf_weight_device=8:0 10",
        ],
        &["io io.bfq.weight=8:0 1000 or io.weight=8:0 10000"],
    );
    assert_eq!([10, 100, 500, 1000].map(block_io::io_weight), [1, 910, 4950, 10_000]);
}

#[test]
fn what_no_kernel_would_do_is_refused_by_its_name() {
    for (json, member) in [
        (serde_json::json!({"cpu": {"shares": 1}}), "cpu.shares"),
        (serde_json::json!({"cpu": {"shares": 262_145}}), "cpu.shares"),
        (serde_json::json!({"cpu": {"idle": 2}}), "cpu.idle"),
        (serde_json::json!({"memory": {"swappiness": 101}}), "memory.swappiness"),
        (serde_json::json!({"blockIO": {"weight": 9}}), "blockIO.weight"),
        (
            serde_json::json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]}}),
            "weightDevice",
        ),
        (serde_json::json!({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}), "hugepageLimits"),
        (serde_json::json!({"hugepageLimits": [{"pageSize": "MB", "limit": 1}]}), "hugepageLimits"),
        (serde_json::json!({"hugepageLimits": [{"pageSize": "2MB/../x", "limit": 1}]}), "hugepageLimits"),
        (serde_json::json!({"rdma": {"a b": {"hcaHandles": 1}}}), "rdma"),
    ] {
        let text = settings_v1(&resources(json.clone())).unwrap_err().to_string();
        assert!(text.contains(member), "{json}: {text}");
    }
    // Version 2 has no such limits for shares, and no swappiness.
    for json in
        [serde_json::json!({"cpu": {"shares": 1}}), serde_json::json!({"memory": {"swappiness": 101}})]
    {
        assert!(settings_v2(&resources(json)).is_ok());
    }
    assert_eq!(
        lines(settings_v1(&resources(serde_json::json!({"memory": {"swappiness": u64::MAX}}))).unwrap()),
        [""; 0]
    );
}

#[test]
fn a_negative_quota_is_none() {
    check(
        serde_json::json!({"cpu": {"quota": -7, "period": 50_000}}),
        &["cpu cpu.cfs_period_us=50000", "cpu cpu.cfs_quota_us=-7"],
        &["cpu cpu.max=max 50000"],
    );
}
