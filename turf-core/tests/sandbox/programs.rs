//! Sandboxes of programs, and what holds for every sandbox.

use serde_json::{Value, json};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use turf_core::Error;
use turf_core::sandbox::gate::{self, Gate};
use turf_core::sandbox::{enter, hooks};
use turf_core::sys::process::{exit_now, wait_for};

use crate::support::*;

pub fn a_program_sees_its_own_sandbox() {
    let case = Case::program(
        "{ echo pid $$; hostname; pwd; ls /; ls -l /dev; cat /proc/self/mountinfo; ls /proc/self/fd; cat /proc/net/dev; } >/out 2>&1",
    );
    let out = case.output();
    assert!(out.starts_with("pid 1\nturf\n/\n"), "{out}");
    for words in [
        "/dev/pts rw,nosuid,noexec",
        "fd -> /proc/self/fd",
        "stdin -> /proc/self/fd/0",
        "ptmx -> pts/ptmx",
        "crw-rw-rw-    1 0        0           1,   3",
        "lo:",
    ] {
        assert!(out.contains(words), "{out} lacks {words}");
    }
    // Nothing of the host is left in sight, and no descriptor but stdio and that of ls itself.
    assert!(out.contains("\n0\n1\n2\n3\n"), "{out}");
    assert!(!out.contains("\n4\n"), "{out}");
}

pub fn a_program_has_only_what_its_plan_gives() {
    let mut case = Case::program(
        "{ id; umask; ulimit -n; cat /proc/self/status; echo A=$A HOME=$HOME; pwd; } >/tmp/out",
    );
    fs::create_dir(case.rootfs().join("tmp")).unwrap();
    fs::set_permissions(case.rootfs().join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    let process = &mut case.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o27});
    process["env"] = json!(["PATH=/bin", "A=b"]);
    process["cwd"] = "/work/deep".into();
    process["oomScoreAdj"] = 500.into();
    process["rlimits"][0]["soft"] = 100.into();
    process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    assert_eq!(exited(case.run()), Some(0));
    let out = fs::read_to_string(case.rootfs().join("tmp/out")).unwrap();
    for words in [
        "uid=1000 gid=1001 groups=7,8",
        "0027\n100\n",
        "NoNewPrivs:\t1",
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000020000420",
        "CapAmb:\t0000000000000020",
        "Seccomp:\t0",
        "A=b HOME=/\n/work/deep\n",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(out.contains(words), "{out} lacks {words}");
    }
    assert_eq!(fs::metadata(case.rootfs().join("tmp/out")).unwrap().mode() & 0o777, 0o640);
}

pub fn masked_and_read_only_paths_are() {
    let mut case = Case::program(
        "{ cat /secret; ls /hidden; cat /proc/timer_list; touch /fixed/x || echo refused; touch /proc/sysrq-trigger || echo also; } >/out 2>&1",
    );
    fs::write(case.rootfs().join("secret"), "secret words").unwrap();
    fs::create_dir_all(case.rootfs().join("hidden/below")).unwrap();
    fs::create_dir(case.rootfs().join("fixed")).unwrap();
    let masked = case.config["linux"]["maskedPaths"].as_array_mut().unwrap();
    masked.extend([
        json!("/secret"),
        json!("/hidden"),
        json!("/not/there"),
        json!("/secret/not/a/directory"),
    ]);
    case.config["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/fixed"));
    let out = case.output();
    assert!(out.contains("refused") && out.contains("also"), "{out}");
    assert!(!out.contains("secret words") && !out.contains("below") && !out.contains("Timer"), "{out}");
    assert!(!case.rootfs().join("fixed/x").exists());
}

pub fn attributes_of_mounts_hold() {
    let mut case = Case::program(
        "{ grep -E ' /(a|b|c|file) ' /proc/self/mountinfo; touch /a/x || echo a refused; touch /b/sub/x || echo b refused; cat /file; cat /c/x; } >/out 2>&1",
    );
    let source = case.dir.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("x"), "file words").unwrap();
    fs::set_permissions(case.rootfs(), fs::Permissions::from_mode(0o755)).unwrap();
    case.config["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/a", "source": source, "options": ["bind", "ro", "noexec", "nosuid", "nodev", "private"]}),
        json!({"destination": "/b", "source": source, "options": ["rbind", "rro", "rshared"]}),
        json!({"destination": "/c", "source": "../source", "type": "bind", "options": ["noatime"]}),
        json!({"destination": "/file", "source": source.join("x"), "options": ["bind"]}),
    ]);
    let out = case.output();
    for words in
        [" /a ro,nosuid,nodev,noexec", "a refused", "b refused", "file wordsfile words", " /b ro", "shared:"]
    {
        assert!(out.contains(words), "{out} lacks {words}");
    }
    assert!(out.contains(",noatime") || out.contains("noatime "), "{out}");
}

pub fn a_program_that_cannot_be_found_fails_create() {
    let mut case = Case::program("");
    case.config["process"]["args"] = json!(["no-such-program"]);
    assert_eq!(error_of(case.create()), "exec: \"no-such-program\": executable file not found in $PATH");
    case.config["process"]["args"] = json!(["/no/such"]);
    assert_eq!(error_of(case.create()), "exec: \"/no/such\": stat /no/such: no such file or directory");
    fs::write(case.rootfs().join("plain"), "").unwrap();
    case.config["process"]["args"] = json!(["/plain"]);
    assert_eq!(error_of(case.create()), "exec: \"/plain\": stat /plain: permission denied");
}

pub fn a_program_that_the_user_may_not_execute_fails_start() {
    let mut case = Case::program("");
    fs::copy("/bin/busybox", case.rootfs().join("bin/private")).unwrap();
    fs::set_permissions(case.rootfs().join("bin/private"), fs::Permissions::from_mode(0o700)).unwrap();
    case.config["process"]["args"] = json!(["/bin/private"]);
    case.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    case.config["process"]["capabilities"] = json!({});
    let created = case.create().unwrap();
    let error = Gate::connect(&case.container()).unwrap().start_program().unwrap_err().to_string();
    assert!(error.contains("permission denied"), "{error}");
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(1));
}

pub fn the_status_changes_with_execve() {
    let case = Case::program("cat /fifo");
    nix::unistd::mkfifo(&case.rootfs().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    let created = case.create().unwrap();
    // Whoever only asks changes nothing.
    for _ in 0..20 {
        assert!(gate::is_waiting(&case.container()).unwrap());
    }
    Gate::connect(&case.container()).unwrap().start_program().unwrap();
    assert!(!gate::is_waiting(&case.container()).unwrap());
    let error = Gate::connect(&case.container()).unwrap_err().to_string();
    assert!(error.contains("connection refused"), "{error}");
    fs::write(case.rootfs().join("fifo"), "x").unwrap();
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(0));
}

pub fn links_in_the_root_do_not_lead_out() {
    let outside = tempfile::tempdir().unwrap();
    let mut case = Case::program("{ ls /inner; ls -d /deep/er; cat /proc/self/mountinfo; } >/out 2>&1");
    symlink(outside.path(), case.rootfs().join("absolute")).unwrap();
    symlink("../../../../../../..", case.rootfs().join("up")).unwrap();
    case.config["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/absolute/made", "type": "tmpfs"}),
        json!({"destination": "/up/inner", "type": "tmpfs"}),
        json!({"destination": "/deep/er", "type": "tmpfs"}),
    ]);
    // The link's target does not exist inside, and must not be made outside.
    let error = error_of(case.create());
    assert!(error.contains("mount tmpfs on /absolute/made"), "{error}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/absolute/made");
    let out = case.output();
    assert!(out.contains(" /inner ") && out.contains(" /deep/er "), "{out}");
    assert!(!Path::new("/inner").exists());
}

pub fn a_mount_that_a_link_leads_into_proc_is_refused() {
    let mut case = Case::program("");
    symlink("/proc/sys", case.rootfs().join("link")).unwrap();
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/link", "type": "tmpfs"}));
    let error = error_of(case.create());
    assert!(error.contains("leads into a proc file system"), "{error}");
    // A proc file system itself goes only on a plain directory.
    let mut case = Case::program("");
    symlink("/bin", case.rootfs().join("proc")).unwrap();
    case.config["mounts"] = json!([{"destination": "/proc", "type": "proc"}]);
    let error = error_of(case.create());
    assert!(error.contains("must be mounted on ordinary directory"), "{error}");
}

pub fn a_working_directory_outside_is_refused() {
    use nix::fcntl::{OFlag, open};
    // A descriptor of a directory outside, which init is even told to keep (CVE-2024-21626).
    let outside = open("/tmp", OFlag::O_RDONLY | OFlag::O_DIRECTORY, nix::sys::stat::Mode::empty()).unwrap();
    let mut case = Case::program("");
    let directory = format!("/proc/self/fd/{}", outside.as_raw_fd());
    case.config["process"]["cwd"] = directory.as_str().into();
    case.preserve_fds = outside.as_raw_fd() as u32 - 2;
    let error = error_of(case.create());
    assert_eq!(error, format!("make the directory {directory}: too many symbolic links encountered"));
    // Even where the root is entered with the working directory left outside, it is noticed.
    let mut plan = case.plan().process;
    plan.cwd = ".".into();
    let refused = in_child(|| {
        nix::unistd::chroot(&case.rootfs()).unwrap();
        nix::unistd::fchdir(&outside).unwrap();
        let error = enter::apply_process(&plan, &mut |_| Err(std::io::ErrorKind::Unsupported.into()))
            .unwrap_err()
            .to_string();
        exit_now(i32::from(!error.ends_with("it lies outside of the container's root")));
    });
    assert_eq!(exited(wait_for(refused).unwrap()), Some(0));
}

pub fn a_failing_step_is_named() {
    let mut case = Case::program("");
    let cases = [
        (
            json!({"destination": "/x", "type": "no-such-fs"}),
            "mount no-such-fs on /x: the kernel has no file system",
        ),
        (
            json!({"destination": "/x", "source": "/no/such", "options": ["bind"]}),
            "bind /no/such on /x: no such file or directory",
        ),
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["no-such-option=1"]}),
            "mount tmpfs on /x: option no-such-option: invalid argument",
        ),
        (json!({"destination": "/bin/sh/x", "type": "tmpfs"}), "mount tmpfs on /bin/sh/x: not a directory"),
    ];
    for (mount, words) in cases {
        case.config["mounts"] = json!([mount]);
        let error = error_of(case.create());
        assert!(error.starts_with(words), "{error} does not start with {words}");
    }
}

pub fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

pub fn hooks_run_in_their_order_and_place() {
    let mut case = Case::program("echo program >>/log");
    let log = case.rootfs().join("log");
    let line = |name: &str, place: &Path| hook(&format!("echo {name} $(cat) >>{}", place.display()));
    case.config["hooks"] = json!({
        "createRuntime": [hook("true")],
        "createContainer": [line("createContainer", &log), hook(&format!("hostname >>{}", log.display()))],
    });
    let created = case
        .create_with(|| {
            fs::write(&log, "createRuntime\n").unwrap();
            Ok(())
        })
        .unwrap();
    Gate::connect(&case.container()).unwrap().start_program().unwrap();
    wait_for(created.pid).unwrap();
    let log = fs::read_to_string(log).unwrap();
    let starts: Vec<_> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["createRuntime", "createContainer", "turf", "program"]);
    let state = log.lines().nth(1).unwrap().split_once(' ').unwrap().1;
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!(
        (&state["id"], &state["status"], &state["pid"]),
        (&json!("box"), &json!("creating"), &json!(1))
    );
}

pub fn a_failing_hook_leaves_nothing() {
    let mut case = Case::program("true");
    case.config["hooks"] = json!({"createContainer": [hook("echo why >&2; exit 3")]});
    assert_eq!(error_of(case.create()), "createContainer hook /bin/sh: exited with status 3: why");
    case.config["hooks"] = json!({"createRuntime": [hook("true")]});
    let plan = case.plan();
    let failing = || {
        let state = hooks::state_json(&plan.init.state, "creating", 1);
        let mut list = plan.hooks.create_runtime.clone();
        list[0].args[2] = "exit 9".into();
        hooks::run("createRuntime", &list, std::path::Path::new("/"), &state, None).map_err(Error::from)
    };
    assert_eq!(error_of(case.create_with(failing)), "createRuntime hook /bin/sh: exited with status 9");
}

pub fn a_created_container_can_be_ended() {
    let case = Case::program("true");
    let created = case.create().unwrap();
    turf_core::sys::process::kill(created.pid, libc::SIGWINCH).unwrap();
    assert!(gate::is_waiting(&case.container()).unwrap());
    turf_core::sys::process::kill(created.pid, libc::SIGTERM).unwrap();
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(128 + libc::SIGTERM));
}

pub fn a_killed_create_leaves_no_init() {
    let mut case = Case::program("true");
    case.config["hooks"] = json!({"createRuntime": [hook("true")]});
    // Orphans come to this process, so that their end can be waited for.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let create = in_child(|| {
        let _ = case.create_with(|| {
            nix::unistd::write(&writer, b"x").unwrap();
            turf_core::sys::process::kill(std::process::id() as i32, libc::SIGKILL).unwrap();
            Ok(())
        });
    });
    nix::unistd::read(&reader, &mut [0]).unwrap();
    assert!(libc::WIFSIGNALED(wait_for(create).unwrap()));
    let orphan = nix::sys::wait::wait().unwrap();
    assert_eq!(orphan, nix::sys::wait::WaitStatus::Exited(orphan.pid().unwrap(), 1));
    nix::sys::prctl::set_child_subreaper(false).unwrap();
}

/// The server of the file system never answers, so whoever looks for the file hangs; init does, with the memory of its creator, which
/// stands still.
pub fn a_mount_of_a_dead_server_ends_create_at_the_limit() {
    let mut case = Case::program("true");
    let dead = case.dir.path().join("dead");
    fs::create_dir(&dead).unwrap();
    let server = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    nix::mount::mount(none, &dead, Some("fuse"), flags, Some(options.as_str())).unwrap();
    case.config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/mnt", "type": "bind", "source": dead.join("file"), "options": ["bind"],
    }));
    case.limit = Duration::from_millis(200);
    let error = case.create().map(|created| kill(&created)).unwrap_err();
    assert!(
        matches!(&error, Error::TimedOut { operation, limit_ms: 200 } if operation == "wait for init"),
        "{error}"
    );
    nix::mount::umount2(&dead, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

pub fn a_program_runs_without_a_pid_namespace() {
    let mut case = Case::program("echo $$ >/out; kill -9 $$");
    case.namespaces(&["mount", "uts", "ipc", "network"]);
    let created = case.create().unwrap();
    let pid = created.pid;
    Gate::connect(&case.container()).unwrap().start_program().unwrap();
    let status = wait_for(pid).unwrap();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == 9);
    assert_eq!(fs::read_to_string(case.rootfs().join("out")).unwrap(), format!("{pid}\n"));
}

pub fn a_program_runs_in_a_user_namespace() {
    let mut case = Case::program(
        "{ id; cat /proc/self/uid_map; cat /proc/self/status; echo x >/dev/null && echo null; } >/out 2>&1",
    );
    case.namespaces(&["pid", "mount", "uts", "ipc", "network", "cgroup", "user"]);
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    case.config["linux"]["uidMappings"] = mapping.clone();
    case.config["linux"]["gidMappings"] = mapping;
    case.config["process"]["oomScoreAdj"] = 300.into();
    case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    std::os::unix::fs::chown(case.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let out = case.output();
    assert!(
        out.contains("uid=0 gid=0") && out.contains("100000       1000") && out.contains("null"),
        "{out}"
    );
    assert_eq!(fs::metadata(case.rootfs().join("out")).unwrap().uid(), 100_000);
}

pub fn a_program_runs_in_a_joined_namespace() {
    let mut first = Case::program("sleep 1000");
    first.config["hostname"] = "first".into();
    let other = first.create().unwrap();
    let mut case = Case::program(
        "{ hostname; echo pid $$; for kind in net uts pid; do readlink /proc/self/ns/$kind; done; } >/out",
    );
    let join =
        |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{}/ns/{file}", other.pid)});
    case.config["linux"]["namespaces"] = json!([join("uts", "uts"), join("network", "net"), join("pid", "pid"), {"type": "mount"}, {"type": "ipc"}]);
    case.config.as_object_mut().unwrap().remove("hostname");
    let out = case.output();
    assert!(out.starts_with("first\npid "), "{out}");
    assert!(!out.starts_with("first\npid 1\n"), "{out}");
    for name in ["net", "uts", "pid"] {
        let wanted = fs::read_link(format!("/proc/{}/ns/{name}", other.pid)).unwrap();
        assert!(out.contains(wanted.to_str().unwrap()), "{out}");
    }
    kill(&other);
}

pub fn a_program_runs_without_a_mount_namespace() {
    let mut case = Case::program("{ ls /; pwd; } >/out");
    case.namespaces(&["pid", "uts"]);
    case.config.as_object_mut().unwrap().remove("mounts");
    case.config["linux"]["maskedPaths"] = json!([]);
    case.config["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(case.output(), "bin\nout\n/\n");
}

pub fn a_time_namespace_has_its_offset() {
    let mut case = Case::program("cat /proc/uptime >/out");
    case.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    case.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    let uptime: f64 = case.output().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1e9, "{uptime}");
}

pub fn seccomp_returns_its_error_number() {
    for no_new_privileges in [true, false] {
        let mut case = Case::program("{ mkdir /new; grep Seccomp: /proc/self/status; } >/out 2>&1");
        case.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        case.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOTEMPTY}]});
        let out = case.output();
        assert!(out.contains("Directory not empty") && out.contains("Seccomp:\t2"), "{out}");
    }
}

pub fn control_groups_are_mounted() {
    let case = Case::program("ls /sys/fs/cgroup >/out; grep cgroup /proc/self/mountinfo >>/out");
    let out = case.output();
    assert!(out.contains(" /sys/fs/cgroup ro,nosuid,nodev,noexec"), "{out}");
    let groups = Command::new("grep").args(["-c", " - cgroup ", "/proc/self/mountinfo"]).output().unwrap();
    let groups: usize = String::from_utf8_lossy(&groups.stdout).trim().parse().unwrap();
    assert_eq!(out.lines().filter(|line| line.contains(" - cgroup ")).count(), groups, "{out}");
}

pub fn a_terminal_is_made_and_given_away() {
    let mut case =
        Case::program("{ tty; stty size; ls -l /dev/console; readlink /proc/self/fd/0; } >/out; echo said");
    case.config["process"]["terminal"] = true.into();
    case.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    case.console = Some(theirs.into());
    let created = case.create().unwrap();
    let packet = turf_core::sys::socket::recv_packet(ours.as_fd(), &mut [0; 64]).unwrap();
    let mut master = fs::File::from(packet.fds.into_iter().next().unwrap());
    Gate::connect(&case.container()).unwrap().start_program().unwrap();
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(0));
    let mut said = [0; 64];
    let length = std::io::Read::read(&mut master, &mut said).unwrap();
    assert_eq!(&said[..length], b"said\r\n");
    let out = fs::read_to_string(case.rootfs().join("out")).unwrap();
    assert!(out.contains("33 99\n") && out.contains("/dev/console"), "{out}");
    assert!(out.ends_with("/dev/pts/0\n") || out.ends_with("/0\n"), "{out}");
}
