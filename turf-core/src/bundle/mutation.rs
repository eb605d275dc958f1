//! Configurations that somebody has mutilated: whatever they say, they are refused with a place or compiled, and nothing
//! panics or hangs. The numbers are always the same; a failure prints the configuration.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use super::{Bundle, parse, validate};
use crate::sandbox::compile::{Context, Keyring, RootEntry, compile};

/// How many configurations are tried: about a second.
const ROUNDS: usize = 4000;

/// A configuration that says something of everything.
fn rich() -> Value {
    let mut config: Value = serde_json::from_str(super::default::PROGRAM).unwrap();
    config["domainname"] = json!("example.org");
    config["annotations"] = json!({"a": "b", "io.turf.workload": "exec"});
    config["hooks"] = json!({"prestart": [{"path": "/a", "args": ["a"], "env": ["A=b"], "timeout": 3}], "poststop": [{"path": "/b"}]});
    let process = &mut config["process"];
    process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
    process["scheduler"] = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": ["SCHED_FLAG_RECLAIM"]});
    process["execCPUAffinity"] = json!({"initial": "0-1", "final": "1"});
    process["consoleSize"] = json!({"height": 1, "width": 2});
    process["oomScoreAdj"] = json!(5);
    process["user"] = json!({"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]});
    let linux = &mut config["linux"];
    linux["devices"] =
        json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 420, "uid": 0, "gid": 0}]);
    linux["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    linux["personality"] = json!({"domain": "LINUX32", "flags": ["UNAME26"]});
    linux["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0-3", "flags": ["MPOL_F_STATIC_NODES"]});
    linux["netDevices"] = json!({"eth0": {"name": "eth1"}});
    linux["rootfsPropagation"] = json!("slave");
    linux["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/agent", "listenerMetadata": "x",
        "syscalls": [
            {"names": ["read", "close"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["chmod"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
             "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]},
        ],
    });
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/x", "type": "bind", "source": "x", "options": ["rbind", "rro", "ridmap", "rslave"],
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}]}));
    mounts.push(json!({"destination": "/y", "type": "tmpfs", "options": ["tmpcopyup", "size=1k", "ro"]}));
    config
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Every pointer into a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| {
                pointers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found)
            });
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Values that somebody might think of.
fn odd(numbers: &mut Numbers) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(4_294_967_296_u64),
        json!(1.5),
        json!(""),
        json!("\0"),
        json!("/"),
        json!("//../.."),
        json!("a"),
        json!("/proc/self/fd/3"),
        json!("ü\u{202e}"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"": ""}),
        json!("0-9999999999"),
        json!("rro"),
        json!("SCMP_ACT_NOTIFY"),
        json!("MPOL_DEFAULT"),
        json!(["", "a=", "=b"]),
        json!("bind"),
        json!(4095),
        json!(4096),
    ];
    all[numbers.below(all.len())].clone()
}

fn mutilate(config: &mut Value, numbers: &mut Numbers) {
    let mut found = Vec::new();
    pointers(config, "", &mut found);
    let (target, source) = (&found[numbers.below(found.len())], &found[numbers.below(found.len())]);
    let copied = config.pointer(source).cloned().unwrap_or_default();
    let replacement = if numbers.below(4) == 0 { copied } else { odd(numbers) };
    if let Some(place) = config.pointer_mut(target) {
        match place {
            // Longer lists, too.
            Value::Array(list) if numbers.below(2) == 0 => list.push(replacement),
            place => *place = replacement,
        }
    }
}

fn attempt(config: &Value) {
    crate::fuzz::configuration(config.to_string().as_bytes());
}

#[test]
fn a_rich_configuration_compiles() {
    let (spec, warnings) = parse(rich().to_string().as_bytes()).unwrap();
    let workload = validate::validate(&spec).unwrap();
    let bundle = Bundle {
        directory: "/bundle".into(),
        spec,
        rootfs: Some("/bundle/rootfs".into()),
        workload,
        warnings,
    };
    let context = Context { id: "c1", keyring: Keyring::New, root_entry: RootEntry::Pivot };
    let plan = compile(&bundle, context).unwrap();
    assert!(plan.process.seccomp.is_some_and(|filter| filter.agent.is_some()));
    assert_eq!(plan.net_devices.len(), 1);
}

#[test]
fn mutilated_configurations_are_refused_or_compiled() {
    const SEED: u64 = 0x005e_ed0f_7e57_0001;
    println!("seed {SEED:#x}");
    let mut numbers = Numbers(SEED);
    let rich = rich();
    for _ in 0..ROUNDS {
        let mut config = rich.clone();
        for _ in 0..=numbers.below(3) {
            mutilate(&mut config, &mut numbers);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(&config)));
        assert!(outcome.is_ok(), "panicked: {config}");
    }
}
