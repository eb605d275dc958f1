//! Parsing by table, and the shape of the JSON; the kernel's own files are read in `cgroup/tests.rs`.

use super::*;
use crate::cgroup::Group;

/// A directory with these files, read as a group of the version.
#[track_caller]
fn stats_of(version: Version, controllers: &[&str], files: &[(&str, &str)]) -> serde_json::Value {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let group = Group {
        version,
        controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        mount: directory.path().to_owned(),
        directory: directory.path().to_owned(),
    };
    serde_json::to_value(Cgroup { groups: vec![group], ..Cgroup::default() }.stats().unwrap()).unwrap()
}

#[test]
fn version_1_in_the_shape_of_runc() {
    let stats = stats_of(
        Version::V1,
        &["cpu", "cpuacct", "memory", "pids", "blkio", "cpuset", "hugetlb"],
        &[
            ("cpuacct.usage", "5801900\n"),
            ("cpuacct.usage_percpu", "1333280 4468620 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 1 2\n1 3 4\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 77\n"),
            ("memory.usage_in_bytes", "2510848\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max_usage_in_bytes", "2785280\n"),
            ("memory.failcnt", "4\n"),
            ("memory.memsw.usage_in_bytes", "11\n"),
            ("memory.stat", "cache 12288\nrss 5\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\n8:0 Total 512\nTotal 512\n"),
            ("cpuset.cpus", "0-1,4\n"),
            ("cpuset.mems", "0\n"),
            ("cpuset.sched_relax_domain_level", "-1\n"),
            ("hugetlb.2MB.usage_in_bytes", "4096\n"),
            ("hugetlb.2MB.failcnt", "1\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "1\n"),
        ],
    );
    let expected = serde_json::json!({
        "cpu": {
            "usage": {"total": 5801900, "percpu": [1333280, 4468620], "percpu_kernel": [2, 4],
                "percpu_user": [1, 3], "kernel": 10_000_000, "user": 20_000_000},
            "throttling": {"periods": 9, "throttledPeriods": 3, "throttledTime": 77},
        },
        "cpuset": {"cpus": [0, 1, 4], "cpu_exclusive": 0, "mems": [0], "mem_hardwall": 0, "mem_exclusive": 0,
            "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
            "sched_load_balance": 0, "sched_relax_domain_level": -1},
        "memory": {
            "cache": 12288,
            "usage": {"limit": 9223372036854771712u64, "usage": 2510848, "max": 2785280, "failcnt": 4},
            "swap": {"limit": 0, "usage": 11, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": {"cache": 12288, "rss": 5},
        },
        "pids": {"current": 2},
        "blkio": {"ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 512}, {"major": 8, "op": "Total", "value": 512}]},
        "hugetlb": {"2MB": {"usage": 4096, "failcnt": 1}},
        "intel_rdt": {},
        "network_interfaces": null,
    });
    assert_eq!(stats, expected);
}

#[test]
fn version_2_in_the_same_shape() {
    let stats = stats_of(
        Version::V2,
        &[],
        &[
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 1\nthrottled_usec 5\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.25 total=99\nfull avg10=0.00 total=3\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "4096\n"),
            ("memory.peak", "2000\n"),
            ("memory.swap.current", "24\n"),
            ("memory.swap.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("pids.current", "3\n"),
            ("pids.max", "17\n"),
            ("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.events", "max 2\n"),
            ("hugetlb.1GB.rsvd.current", "0\n"),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
        ],
    );
    assert_eq!(
        stats["cpu"],
        serde_json::json!({
            "usage": {"total": 30_000, "kernel": 10_000, "user": 20_000},
            "throttling": {"periods": 1, "throttledTime": 5000},
            "psi": {"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.25, "total": 99},
                "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 3}},
        })
    );
    assert_eq!(
        stats["memory"],
        serde_json::json!({
            "cache": 2,
            "usage": {"limit": 4096, "usage": 1000, "max": 2000, "failcnt": 6},
            "swap": {"limit": u64::MAX, "usage": 1024, "max": 2000, "failcnt": 0},
            "kernel": {"limit": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "failcnt": 0},
            "raw": {"anon": 1, "file": 2},
        })
    );
    assert_eq!(stats["pids"], serde_json::json!({"current": 3, "limit": 17}));
    let read = |value: u64| serde_json::json!({"major": 8, "minor": 16, "op": "Read", "value": value});
    assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][0], read(1));
    assert_eq!(stats["blkio"]["ioServicedRecursive"][0], read(3));
    assert_eq!(stats["hugetlb"], serde_json::json!({"1GB": {"failcnt": 2}}));
    assert_eq!(stats["rdma"], serde_json::json!({"mlx4_0": {"hca_handles": 2, "hca_objects": 2000}}));
}

#[test]
fn nothing_there_is_zero() {
    let stats = Cgroup::default().stats().unwrap();
    assert_eq!(stats, Stats::default());
    let stats = stats_of(Version::V1, &["freezer"], &[("tasks", "1\n2\n3\n")]);
    assert_eq!(stats["pids"], serde_json::json!({"current": 3}));
}

#[test]
fn lists_of_numbers() {
    assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
    assert_eq!(parse_list("\n"), [0u32; 0]);
    assert_eq!(parse_list("x,3-1,7"), [7]);
    assert!(parse_list("0-4294967295").len() < 70_000);
}
