//! Plans of small bundles, looked at step by step.

use std::path::Path;

use super::*;
use crate::bundle::{Bundle, default};
use crate::sandbox::step::{MountAttributes, Parameter};

fn context() -> Context<'static> {
    Context { id: "c1", keyring: Keyring::New, root_entry: RootEntry::Pivot }
}

/// Loads a default bundle after changes to its JSON.
fn plan(config: &str, change: impl FnOnce(&mut serde_json::Value)) -> Result<(Plan, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rootfs")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(config).unwrap();
    change(&mut json);
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    let bundle = Bundle::load(dir.path())?;
    Ok((compile(&bundle, context())?, bundle.directory))
}

fn position(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(wanted).expect("the step is in the plan")
}

#[test]
fn what_a_bind_mount_passes_over_is_warned_of() {
    let (plan, _) = plan(default::PROGRAM, |json| {
        json["mounts"][3] = serde_json::json!({"destination": "x/y", "type": "bind", "source": "/x",
            "options": ["ro", "size=1"]});
    })
    .unwrap();
    let [warning] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
    assert!(warning.starts_with("config.json: $.mounts[3].options[1]: \"size=1\""), "{warning}");
    let below_the_root =
        |step: &Step| matches!(step, Step::Mount(mount) if mount.target == Path::new("/x/y"));
    position(&plan.init.steps, below_the_root);
}

fn refusal(config: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    plan(config, change).unwrap_err().to_string()
}

#[test]
fn a_worker_without_root_gets_an_empty_read_only_one_with_its_mounts() {
    let (plan, bundle) = plan(default::WORKER, |_| {}).unwrap();
    let steps = &plan.init.steps;
    assert!(steps.contains(&Step::TmpfsRoot { size: 1 << 20 }));
    assert!(steps.contains(&Step::ReadonlyRoot));
    let app = position(steps, |step| matches!(step, Step::Mount(mount) if mount.target == Path::new("/app")));
    let Step::Mount(app) = &steps[app] else { unreachable!() };
    assert_eq!(app.source, MountSource::Bind { path: bundle, recursive: false });
    for target in ["/proc", "/tmp"] {
        position(steps, |step| matches!(step, Step::Mount(mount) if mount.target == Path::new(target)));
    }
    assert!(!steps.iter().any(|step| matches!(step, Step::FindProgram { .. })));
    assert!(plan.init.has_new_pid_namespace());
    assert_eq!(
        plan.workload,
        WorkloadPlan::Worker { seed: "default".into(), listen: vec![], promotable: None }
    );
}

#[test]
fn a_bundles_own_mount_replaces_the_default_of_a_worker() {
    let (plan, _) = plan(default::WORKER, |json| {
        let mounts = json["mounts"].as_array_mut().unwrap();
        mounts.push(serde_json::json!({"destination": "/tmp/", "type": "tmpfs", "options": ["size=1k"]}));
    })
    .unwrap();
    let tmp: Vec<_> = plan
        .init
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Mount(mount) if mount.target == Path::new("/tmp") => Some(&mount.source),
            _ => None,
        })
        .collect();
    let parameters = vec![Parameter { key: "size".into(), value: Some("1k".into()) }];
    assert_eq!(tmp, [&MountSource::Filesystem { kind: "tmpfs".into(), source: "tmpfs".into(), parameters }]);
}

#[test]
fn steps_come_in_the_order_that_keeps_the_host_safe() {
    let (plan, bundle) = plan(default::PROGRAM, |json| {
        json["hooks"] = serde_json::json!({
            "prestart": [{"path": "/a"}], "createRuntime": [{"path": "/b"}], "createContainer": [{"path": "/c"}],
            "startContainer": [{"path": "/d"}], "poststart": [{"path": "/e", "timeout": 3}], "poststop": [{"path": "/f"}],
        });
        json["linux"]["rootfsPropagation"] = "rslave".into();
    })
    .unwrap();
    let steps = &plan.init.steps;
    let order = [
        position(steps, |step| *step == Step::NewSession),
        position(steps, |step| *step == Step::LoopbackUp),
        position(steps, |step| matches!(step, Step::Propagation(_))),
        position(steps, |step| *step == Step::BindRoot { path: bundle.join("rootfs") }),
        position(steps, |step| matches!(step, Step::Mount(_))),
        position(steps, |step| matches!(step, Step::Device(_))),
        position(steps, |step| matches!(step, Step::Symlink { .. })),
        position(steps, |step| *step == Step::Directory("/".into())),
        position(steps, |step| *step == Step::RuntimeHooks),
        position(
            steps,
            |step| matches!(step, Step::ContainerHooks(hooks) if hooks[0].path == Path::new("/c")),
        ),
        position(steps, |step| matches!(step, Step::Readonly(_))),
        position(steps, |step| matches!(step, Step::Mask(_))),
        position(steps, |step| *step == Step::ReadonlyRoot),
        position(steps, |step| *step == Step::EnterRoot),
        position(steps, |step| matches!(step, Step::RootPropagation(_))),
        position(steps, |step| matches!(step, Step::FindProgram { program, .. } if program == "sh")),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(plan.hooks.poststart[0].timeout_s, Some(3));
}

#[test]
fn a_user_namespace_binds_devices_instead_of_making_them() {
    let (plan, _) = plan(default::PROGRAM, |json| {
        json["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
        let mapping = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        json["linux"]["uidMappings"] = mapping.clone();
        json["linux"]["gidMappings"] = mapping;
    })
    .unwrap();
    assert!(plan.init.steps.iter().all(|step| !matches!(step, Step::Device(device) if !device.bind)));
    assert_eq!(plan.init.uid_mappings, [IdMapping { inside: 0, outside: 1000, count: 10 }]);
}

#[test]
fn a_device_of_config_json_replaces_the_default_of_its_path() {
    let (plan, _) = plan(default::PROGRAM, |json| {
        json["linux"]["devices"] = serde_json::json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5},
            {"path": "/dev/pipe", "type": "p"},
        ]);
    })
    .unwrap();
    let devices: Vec<_> = plan
        .init
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Device(device) if device.path == Path::new("/dev/null") => Some((device.mode, device.uid)),
            _ => None,
        })
        .collect();
    assert_eq!(devices, [(0o600, 5)]);
}

#[test]
fn a_bundle_that_binds_dev_keeps_its_devices() {
    let (plan, _) = plan(default::PROGRAM, |json| {
        json["mounts"] = serde_json::json!([{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]);
    })
    .unwrap();
    assert!(!plan.init.steps.iter().any(|step| matches!(step, Step::Device(_) | Step::Symlink { .. })));
}

#[test]
fn the_process_becomes_numbers() {
    let (plan, _) = plan(default::PROGRAM, |json| {
        json["process"]["user"] =
            serde_json::json!({"uid": 1, "gid": 2, "umask": 0o77, "additionalGids": [3]});
        json["process"]["scheduler"] = serde_json::json!({"policy": "SCHED_BATCH", "nice": 5});
        json["process"]["ioPriority"] = serde_json::json!({"class": "IOPRIO_CLASS_IDLE", "priority": 4});
        json["linux"]["personality"] = serde_json::json!({"domain": "LINUX32"});
    })
    .unwrap();
    let process = &plan.process;
    assert_eq!((process.uid, process.gid, process.umask), (1, 2, 0o77));
    assert_eq!(process.additional_gids, [3]);
    assert_eq!(process.capabilities.bounding, 1 << 29 | 1 << 5 | 1 << 10);
    assert_eq!((process.capabilities.ambient, process.capabilities.inheritable), (0, 0));
    assert_eq!(process.rlimits[0].resource, libc::RLIMIT_NOFILE);
    assert_eq!(process.io_priority, Some(3 << 13 | 4));
    assert_eq!(process.personality, Some(8));
    assert_eq!(process.scheduler.unwrap().policy, 3);
    assert_eq!(process.session_keyring.as_deref(), Some("_ses.c1"));
}

#[test]
fn a_plan_survives_json() {
    for config in [default::PROGRAM, default::WORKER] {
        let (plan, _) = plan(config, |_| {}).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}

#[test]
fn a_process_plan_survives_the_seed_protocols_encoding() {
    let (plan, _) = plan(default::WORKER, |json| {
        json["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
    })
    .unwrap();
    assert!(plan.process.seccomp.as_ref().is_some_and(|seccomp| !seccomp.program.is_empty()));
    let bytes = postcard::to_allocvec(&plan.process).unwrap();
    assert_eq!(postcard::from_bytes::<crate::sandbox::ProcessPlan>(&bytes).unwrap(), plan.process);
}

#[test]
fn sysctls_are_paths_below_proc_sys() {
    for (key, wanted) in [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ] {
        assert_eq!(sysctl_path(key), Path::new(wanted));
    }
}

#[test]
fn paths_are_cleaned() {
    for (path, wanted) in [("/a/../../b/./c//", "/b/c"), ("a", "/a"), ("/..", "/"), ("", "/")] {
        assert_eq!(clean(Path::new(path)), Path::new(wanted));
    }
}

#[test]
fn attributes_of_a_mount_are_in_its_step() {
    let (plan, _) = plan(default::PROGRAM, |_| {}).unwrap();
    let sys =
        position(&plan.init.steps, |step| matches!(step, Step::Mount(m) if m.target == Path::new("/sys")));
    let Step::Mount(sys) = &plan.init.steps[sys] else { unreachable!() };
    assert_eq!(sys.attributes, MountAttributes { set: 0b1111, clear: 0 });
}

type Change = fn(&mut serde_json::Value);

#[test]
fn what_a_program_bundle_must_not_say_is_refused_with_its_place() {
    let table: [(Change, &str); 40] = [
        (|json| json["ociVersion"] = "2.0.0".into(), "$.ociVersion: "),
        (|json| json["ociVersion"] = "x".into(), "$.ociVersion: "),
        (|json| json["process"]["args"] = serde_json::json!([]), "$.process.args: must not be empty"),
        (|json| json["process"]["args"] = serde_json::json!([""]), "$.process.args[0]: "),
        (|json| json["process"]["args"] = serde_json::json!(["a", "b\0"]), "$.process.args[1]: "),
        (|json| json["process"]["cwd"] = "tmp".into(), "$.process.cwd: \"tmp\" must be an absolute path"),
        (|json| json["process"]["env"] = serde_json::json!(["A=1", "B"]), "$.process.env[1]: "),
        (|json| json["process"]["rlimits"][0]["soft"] = 2000.into(), "$.process.rlimits[0].soft: 2000"),
        (|json| json["process"]["oomScoreAdj"] = 1001.into(), "$.process.oomScoreAdj: "),
        (
            |json| json["process"]["execCPUAffinity"] = serde_json::json!({"final": "3-1"}),
            "$.process.execCPUAffinity.final: ",
        ),
        (
            |json| json["linux"]["personality"] = serde_json::json!({"domain": "LINUX", "flags": ["X"]}),
            "$.linux.personality.flags[0]: \"X\" is no flag",
        ),
        (
            |json| json["linux"]["memoryPolicy"] = serde_json::json!({"mode": "MPOL_BIND"}),
            "$.linux.memoryPolicy.nodes: ",
        ),
        (
            |json| json["linux"]["netDevices"] = serde_json::json!({"eth0": {"name": "a/b"}}),
            "$.linux.netDevices[\"eth0\"].name: ",
        ),
        (
            |json| {
                json["mounts"][3] = serde_json::json!({"destination": "/dev", "type": "tmpfs",
                    "options": ["remount", "size=1"]})
            },
            "$.mounts[3].options[1]: \"size=1\" would belong to a file system",
        ),
        (
            |json| {
                json["mounts"][3] = serde_json::json!({"destination": "/x", "type": "bind", "source": "/x",
                    "options": ["idmap"]})
            },
            "$.mounts[3].options[0]: needs uidMappings",
        ),
        (
            |json| {
                json["mounts"][3] = serde_json::json!({"destination": "/x", "type": "bind", "source": "/x",
                    "uidMappings": [{"size": 1}]})
            },
            "$.mounts[3].gidMappings: ",
        ),
        (
            |json| {
                json["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "time"}));
                json["linux"]["timeOffsets"] = serde_json::json!({"realtime": {"secs": 1}})
            },
            "$.linux.timeOffsets.realtime: ",
        ),
        (|json| json["annotations"] = serde_json::json!({"": "x"}), "$.annotations: "),
        (
            |json| {
                json["process"]["ioPriority"] = serde_json::json!({"class": "IOPRIO_CLASS_BE", "priority": 8})
            },
            "$.process.ioPriority.priority: ",
        ),
        (
            |json| json["process"]["scheduler"] = serde_json::json!({"policy": "SCHED_FIFO", "priority": -1}),
            "$.process.scheduler.priority: ",
        ),
        (
            |json| json["process"]["selinuxLabel"] = "system_u:object_r:x_t:s0\0".into(),
            "$.process.selinuxLabel: ",
        ),
        (|json| drop(json.as_object_mut().unwrap().remove("root")), "$.root: must be there"),
        (|json| json["root"]["path"] = "/".into(), "$.root.path: the host's root"),
        (
            |json| json["linux"]["namespaces"][1]["type"] = "pid".into(),
            "$.linux.namespaces[1].type: \"pid\" is there twice",
        ),
        (|json| json["linux"]["namespaces"][1]["path"] = "x".into(), "$.linux.namespaces[1].path: "),
        (|json| json["linux"]["namespaces"][3]["type"] = "time".into(), "$.hostname: needs a uts namespace"),
        (
            |json| json["linux"]["uidMappings"] = serde_json::json!([{"size": 1}]),
            "$.linux.uidMappings: needs a user namespace",
        ),
        (|json| json["mounts"][0]["destination"] = "".into(), "$.mounts[0].destination: must not be empty"),
        (|json| json["mounts"][3]["options"][1] = "idmap".into(), "$.mounts[3].options[1]: only bind"),
        (|json| json["mounts"][1] = serde_json::json!({"destination": "/x"}), "$.mounts[1].type: "),
        (
            |json| json["mounts"][1] = serde_json::json!({"destination": "/x", "type": "bind"}),
            "$.mounts[1].source: ",
        ),
        (|json| json["mounts"][1]["destination"] = "/proc/self".into(), "$.mounts[1].destination: "),
        (
            |json| json["mounts"][1]["destination"] = "/sys/../proc".into(),
            "$.mounts[1].destination: only a proc",
        ),
        (
            |json| json["linux"]["sysctl"] = serde_json::json!({"kernel.sysrq": "1"}),
            "$.linux.sysctl[\"kernel.sysrq\"]: ",
        ),
        (
            |json| json["linux"]["sysctl"] = serde_json::json!({"net/../x": "1"}),
            "$.linux.sysctl[\"net/../x\"]: ",
        ),
        (
            |json| json["linux"]["devices"] = serde_json::json!([{"path": "/dev/a", "type": "a"}]),
            "$.linux.devices[0].type: ",
        ),
        (
            |json| json["linux"]["devices"] = serde_json::json!([{"path": "dev", "type": "c"}]),
            "$.linux.devices[0].path: ",
        ),
        (|json| json["linux"]["rootfsPropagation"] = "sharde".into(), "$.linux.rootfsPropagation: "),
        (|json| json["linux"]["cgroupsPath"] = "/a/../../b".into(), "linux.cgroupsPath: "),
        (
            |json| json["hooks"] = serde_json::json!({"poststop": [{"path": "x"}]}),
            "$.hooks.poststop[0].path: ",
        ),
    ];
    for (change, words) in table {
        let error = refusal(default::PROGRAM, change);
        assert!(error.starts_with("config.json: $.") && error.contains(words), "{error} lacks {words}");
    }
}

#[test]
fn what_a_worker_bundle_must_not_say_is_refused_with_its_place() {
    let table: [(Change, &str); 3] = [
        (
            |json| json["process"]["args"] = serde_json::json!(["aworker"]),
            "$.process.args: a worker bundle names its script",
        ),
        (|json| json["process"]["terminal"] = true.into(), "$.process.terminal: a worker has no terminal"),
        (
            |json| json["annotations"] = serde_json::json!({"io.turf.listen": "x"}),
            "$.annotations[\"io.turf.listen\"]: ",
        ),
    ];
    for (change, words) in table {
        let error = refusal(default::WORKER, change);
        assert!(error.contains(words), "{error} lacks {words}");
    }
}

#[test]
fn without_pivot_the_root_is_moved() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rootfs")).unwrap();
    std::fs::write(dir.path().join("config.json"), default::PROGRAM).unwrap();
    let bundle = Bundle::load(dir.path()).unwrap();
    let moved = compile(&bundle, Context { root_entry: RootEntry::Move, ..context() }).unwrap().init.steps;
    assert!(moved.contains(&Step::MoveRoot) && !moved.contains(&Step::EnterRoot));
}
