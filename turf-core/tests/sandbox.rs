//! Sandboxes for real: as root, from a bundle to init, gate, program and worker, looked at from inside.
//!
//! A program of its own with one thread, because init is cloned from it. Every test has its bundle and its
//! container's directory below a temporary directory; everything it makes ends with it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::CloneFlags;
use serde_json::{Value, json};
use turf_core::bundle::{Bundle, default};
use turf_core::sandbox::compile::{Context, Keyring, compile};
use turf_core::sandbox::gate::{self, Gate, WorkerStart};
use turf_core::sandbox::init::{Created, SpawnOptions, spawn};
use turf_core::sandbox::plan::Plan;
use turf_core::sandbox::{enter, hooks};
use turf_core::sys::fork::{Destination, Fork, fork_into};
use turf_core::sys::namespace::{Cloned, clone_process};
use turf_core::sys::process::{exit_now, wait_for};
use turf_core::{Error, Result};

/// Longest wait for something that is about to happen.
const SOON: Duration = Duration::from_secs(20);

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make namespaces");
        return;
    }
    // What the tests mount must not reach the machine.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    use nix::mount::MsFlags;
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .unwrap();
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let before = Leftovers::count();
        let outcome = std::panic::catch_unwind(|| {
            test();
            assert_eq!(before, Leftovers::count(), "{name} left something behind");
        });
        if outcome.is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            kill_children();
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name as fn())),*];
    };
}

tests![
    a_program_sees_its_own_sandbox,
    a_program_has_only_what_its_plan_gives,
    masked_and_read_only_paths_are,
    attributes_of_mounts_hold,
    a_program_that_cannot_be_found_fails_create,
    a_program_that_the_user_may_not_execute_fails_start,
    the_status_changes_with_execve,
    links_in_the_root_do_not_lead_out,
    a_mount_that_a_link_leads_into_proc_is_refused,
    a_working_directory_outside_is_refused,
    a_failing_step_is_named,
    hooks_run_in_their_order_and_place,
    a_failing_hook_leaves_nothing,
    a_created_container_can_be_ended,
    a_killed_create_leaves_no_init,
    a_program_runs_without_a_pid_namespace,
    a_program_runs_in_a_user_namespace,
    a_program_runs_in_a_joined_namespace,
    a_program_runs_without_a_mount_namespace,
    a_time_namespace_has_its_offset,
    seccomp_returns_its_error_number,
    a_worker_runs_and_init_exits_with_its_status,
    a_worker_that_dies_by_a_signal_shows_it,
    a_worker_that_ends_before_it_runs_is_reported,
    a_start_that_dies_before_the_worker_leaves_init_waiting,
    a_worker_is_adopted_when_start_dies,
    signals_are_passed_on_to_the_worker,
    a_relayed_worker_ends_init_with_its_status,
    a_relay_that_dies_takes_the_worker_along,
    a_bundle_without_an_image_has_a_root,
    control_groups_are_mounted,
    a_terminal_is_made_and_given_away,
];

/// What a test could leave behind.
#[derive(Debug, PartialEq)]
struct Leftovers {
    descriptors: usize,
    mounts: usize,
    children: String,
}

impl Leftovers {
    fn count() -> Leftovers {
        let pid = std::process::id();
        Leftovers {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
            children: fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap(),
        }
    }
}

/// Ends what a failed test left running.
fn kill_children() {
    for child in Leftovers::count().children.split_whitespace() {
        let pid = child.parse().unwrap();
        let _ = turf_core::sys::process::kill(pid, libc::SIGKILL);
        let _ = wait_for(pid);
    }
}

/// A bundle with busybox as its image, and the directory of its container.
struct Case {
    dir: tempfile::TempDir,
    config: Value,
    preserve_fds: u32,
    console: Option<OwnedFd>,
}

impl Case {
    fn program(script: &str) -> Case {
        let mut config: Value = serde_json::from_str(default::PROGRAM).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["root"]["readonly"] = false.into();
        Case::new(config)
    }

    fn worker() -> Case {
        Case::new(serde_json::from_str(default::WORKER).unwrap())
    }

    fn new(config: Value) -> Case {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = dir.path().join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(dir.path().join("container")).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in [
            "sh", "cat", "ls", "echo", "grep", "id", "mount", "touch", "true", "sleep", "test", "stat",
            "hostname", "chmod", "mkdir", "head", "ulimit", "umask", "pwd", "ps", "kill", "readlink", "tty",
            "stty",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        Case { dir, config, preserve_fds: 0, console: None }
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }

    fn container(&self) -> PathBuf {
        self.dir.path().join("container")
    }

    fn plan(&self) -> Plan {
        let bundle = self.dir.path().join("bundle");
        fs::write(bundle.join("config.json"), self.config.to_string()).unwrap();
        let bundle = Bundle::load(&bundle).unwrap();
        compile(&bundle, Context { id: "box", keyring: Keyring::New }).unwrap()
    }

    fn create(&self) -> Result<Created> {
        self.create_with(|| Ok(()))
    }

    fn create_with(&self, runtime_hooks: impl FnOnce() -> Result<()>) -> Result<Created> {
        let plan = self.plan();
        // A container's directory is made anew for each container.
        let _ = fs::remove_file(self.container().join(gate::SOCKET_NAME));
        let options = SpawnOptions {
            plan: &plan,
            container_dir: &self.container(),
            cgroup: &[],
            preserve_fds: self.preserve_fds,
            console_socket: self.console.as_ref().map(|console| console.try_clone().unwrap()),
        };
        spawn(options)?.wait_created(runtime_hooks)
    }

    /// Creates, starts and waits: the program's wait status.
    fn run(&self) -> i32 {
        let created = self.create().unwrap();
        assert!(gate::is_waiting(&self.container()).unwrap());
        Gate::connect(&self.container()).unwrap().start_program().unwrap();
        assert!(!gate::is_waiting(&self.container()).unwrap());
        wait_for(created.pid).unwrap()
    }

    /// Runs a program that succeeds, and returns what it wrote to /out.
    fn output(&self) -> String {
        let status = self.run();
        assert_eq!(status, 0, "the program failed: {:?}", fs::read_to_string(self.rootfs().join("out")));
        fs::read_to_string(self.rootfs().join("out")).unwrap()
    }

    fn namespaces(&mut self, kinds: &[&str]) {
        self.config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    }
}

fn error_of(result: Result<Created>) -> String {
    result.map(|created| kill(&created)).unwrap_err().to_string()
}

fn kill(created: &Created) {
    turf_core::sys::process::kill(created.pid, libc::SIGKILL).unwrap();
    wait_for(created.pid).unwrap();
}

fn exited(status: i32) -> Option<i32> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

fn a_program_sees_its_own_sandbox() {
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

fn a_program_has_only_what_its_plan_gives() {
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

fn masked_and_read_only_paths_are() {
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

fn attributes_of_mounts_hold() {
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

fn a_program_that_cannot_be_found_fails_create() {
    let mut case = Case::program("");
    case.config["process"]["args"] = json!(["no-such-program"]);
    assert_eq!(error_of(case.create()), "exec: \"no-such-program\": executable file not found in $PATH");
    case.config["process"]["args"] = json!(["/no/such"]);
    assert_eq!(error_of(case.create()), "exec: \"/no/such\": stat /no/such: no such file or directory");
    fs::write(case.rootfs().join("plain"), "").unwrap();
    case.config["process"]["args"] = json!(["/plain"]);
    assert_eq!(error_of(case.create()), "exec: \"/plain\": stat /plain: permission denied");
}

fn a_program_that_the_user_may_not_execute_fails_start() {
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

fn the_status_changes_with_execve() {
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

fn links_in_the_root_do_not_lead_out() {
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

fn a_mount_that_a_link_leads_into_proc_is_refused() {
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
    assert!(error.contains("resolve without links"), "{error}");
}

fn a_working_directory_outside_is_refused() {
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
        let error = enter::apply_process(&plan).unwrap_err().to_string();
        exit_now(i32::from(!error.ends_with("it lies outside of the container's root")));
    });
    assert_eq!(exited(wait_for(refused).unwrap()), Some(0));
}

fn a_failing_step_is_named() {
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

fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

fn hooks_run_in_their_order_and_place() {
    let mut case = Case::program("echo program >>/log");
    let log = case.rootfs().join("log");
    let line = |name: &str, place: &Path| hook(&format!("echo {name} $(cat) >>{}", place.display()));
    case.config["hooks"] = json!({
        "createRuntime": [hook("true")],
        "createContainer": [line("createContainer", &log), hook(&format!("hostname >>{}", log.display()))],
        "startContainer": [line("startContainer", Path::new("/log"))],
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
    assert_eq!(starts, ["createRuntime", "createContainer", "turf", "startContainer", "program"]);
    let state = log.lines().nth(1).unwrap().split_once(' ').unwrap().1;
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!(
        (&state["id"], &state["status"], &state["pid"]),
        (&json!("box"), &json!("creating"), &json!(1))
    );
    assert!(log.contains("\"status\":\"created\""));
}

fn a_failing_hook_leaves_nothing() {
    let mut case = Case::program("true");
    case.config["hooks"] = json!({"createContainer": [hook("echo why >&2; exit 3")]});
    assert_eq!(error_of(case.create()), "createContainer hook /bin/sh: exited with status 3: why");
    case.config["hooks"] = json!({"createRuntime": [hook("true")]});
    let plan = case.plan();
    let failing = || {
        let state = hooks::state_json(&plan.init.state, "creating", 1);
        let mut list = plan.hooks.create_runtime.clone();
        list[0].args[2] = "exit 9".into();
        hooks::run("createRuntime", &list, &state).map_err(Error::from)
    };
    assert_eq!(error_of(case.create_with(failing)), "createRuntime hook /bin/sh: exited with status 9");
    case.config["hooks"] = json!({"startContainer": [hook("exit 4")]});
    let created = case.create().unwrap();
    let error = Gate::connect(&case.container()).unwrap().start_program().unwrap_err().to_string();
    assert_eq!(error, "startContainer hook /bin/sh: exited with status 4");
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(1));
}

fn a_created_container_can_be_ended() {
    let case = Case::program("true");
    let created = case.create().unwrap();
    turf_core::sys::process::kill(created.pid, libc::SIGWINCH).unwrap();
    assert!(gate::is_waiting(&case.container()).unwrap());
    turf_core::sys::process::kill(created.pid, libc::SIGTERM).unwrap();
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(128 + libc::SIGTERM));
}

/// Runs something in a child with a memory of its own, which may then be killed.
fn in_child(act: impl FnOnce()) -> i32 {
    match clone_process(0).unwrap() {
        Cloned::Parent(pid) => pid,
        Cloned::Child => {
            act();
            exit_now(0)
        }
    }
}

fn a_killed_create_leaves_no_init() {
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

fn a_program_runs_without_a_pid_namespace() {
    let mut case = Case::program("echo $$ >/out; kill -9 $$");
    case.namespaces(&["mount", "uts", "ipc", "network"]);
    let created = case.create().unwrap();
    let pid = created.pid;
    Gate::connect(&case.container()).unwrap().start_program().unwrap();
    let status = wait_for(pid).unwrap();
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == 9);
    assert_eq!(fs::read_to_string(case.rootfs().join("out")).unwrap(), format!("{pid}\n"));
}

fn a_program_runs_in_a_user_namespace() {
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

fn a_program_runs_in_a_joined_namespace() {
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

fn a_program_runs_without_a_mount_namespace() {
    let mut case = Case::program("{ ls /; pwd; } >/out");
    case.namespaces(&["pid", "uts"]);
    case.config.as_object_mut().unwrap().remove("mounts");
    case.config["linux"]["maskedPaths"] = json!([]);
    case.config["linux"]["readonlyPaths"] = json!([]);
    assert_eq!(case.output(), "bin\nout\n/\n");
}

fn a_time_namespace_has_its_offset() {
    let mut case = Case::program("cat /proc/uptime >/out");
    case.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    case.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    let uptime: f64 = case.output().split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1e9, "{uptime}");
}

fn seccomp_returns_its_error_number() {
    for no_new_privileges in [true, false] {
        let mut case = Case::program("{ mkdir /new; grep Seccomp: /proc/self/status; } >/out 2>&1");
        case.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        case.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOTEMPTY}]});
        let out = case.output();
        assert!(out.contains("Directory not empty") && out.contains("Seccomp:\t2"), "{out}");
    }
}

/// The namespaces of a sandbox of the default worker bundle that a worker is forked into.
const WORKERS_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Forks this process into the sandbox, as a seed does; the child acts with the gate's connection.
fn fork_worker(created: &Created, gate: &Gate, act: impl FnOnce(&OwnedFd) -> i32) {
    let connection = gate.as_fd().try_clone_to_owned().unwrap();
    let destination = Destination {
        process: created.pidfd.as_fd(),
        namespaces: WORKERS_NAMESPACES.bits() as u32,
        cgroups: &[],
    };
    if let Fork::Child = fork_into(&destination).unwrap() {
        gate::report_born(connection.as_fd()).unwrap();
        exit_now(act(&connection))
    }
}

/// A worker's life: dressed as its plan says, running, then what the test wants.
fn run_worker(plan: &Plan, connection: &OwnedFd) {
    if let Err(error) = enter::apply_process(&plan.process) {
        let _ = fs::write("/dev/stderr", format!("{error}\n"));
        exit_now(99);
    }
    gate::report_running(connection.as_fd()).unwrap();
}

fn a_worker_runs_and_init_exits_with_its_status() {
    let case = Case::worker();
    let plan = case.plan();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    let (go, hold) = nix::unistd::pipe().unwrap();
    fork_worker(&created, &gate, |connection| {
        nix::unistd::close(hold.as_raw_fd()).unwrap();
        run_worker(&plan, connection);
        nix::unistd::read(&go, &mut [0]).unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let is_child_of_init = status.contains("\nPPid:\t1\n");
        let has_nothing =
            status.contains("\nCapEff:\t0000000000000000\n") && status.contains("\nNoNewPrivs:\t1\n");
        i32::from(is_child_of_init) + 2 * i32::from(has_nothing)
    });
    assert_eq!(gate.wait_running(SOON).unwrap(), WorkerStart::Running);
    assert!(!gate::is_waiting(&case.container()).unwrap());
    drop((go, hold));
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(3));
}

fn a_worker_that_dies_by_a_signal_shows_it() {
    let case = Case::worker();
    let plan = case.plan();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    fork_worker(&created, &gate, |connection| {
        run_worker(&plan, connection);
        turf_core::sys::process::kill(nix::unistd::getpid().as_raw(), libc::SIGABRT).unwrap();
        0
    });
    assert_eq!(gate.wait_running(SOON).unwrap(), WorkerStart::Running);
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(128 + libc::SIGABRT));
}

fn a_worker_that_ends_before_it_runs_is_reported() {
    let case = Case::worker();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    fork_worker(&created, &gate, |_| 5);
    let WorkerStart::Ended(status) = gate.wait_running(SOON).unwrap() else { panic!("the worker runs") };
    assert_eq!(exited(status), Some(5));
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(5));
}

fn a_start_that_dies_before_the_worker_leaves_init_waiting() {
    let case = Case::worker();
    let plan = case.plan();
    let created = case.create().unwrap();
    for _ in 0..3 {
        let gate = Gate::connect(&case.container()).unwrap();
        gate.prepare_worker().unwrap();
        drop(gate);
        assert!(gate::is_waiting(&case.container()).unwrap());
    }
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    fork_worker(&created, &gate, |connection| {
        run_worker(&plan, connection);
        0
    });
    assert_eq!(gate.wait_running(SOON).unwrap(), WorkerStart::Running);
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(0));
}

fn a_worker_is_adopted_when_start_dies() {
    let case = Case::worker();
    let plan = case.plan();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    let (go, hold) = nix::unistd::pipe().unwrap();
    fork_worker(&created, &gate, |connection| {
        // Only this process is left to hold the connection.
        nix::unistd::close(hold.as_raw_fd()).unwrap();
        nix::unistd::read(&go, &mut [0]).unwrap();
        run_worker(&plan, connection);
        42
    });
    drop(gate);
    assert!(gate::is_waiting(&case.container()).unwrap());
    drop((go, hold));
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(42));
    assert!(!gate::is_waiting(&case.container()).unwrap());
}

fn signals_are_passed_on_to_the_worker() {
    let case = Case::worker();
    let plan = case.plan();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    fork_worker(&created, &gate, |connection| {
        use nix::sys::signal::{SigSet, Signal};
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR1);
        set.thread_block().unwrap();
        run_worker(&plan, connection);
        if set.wait().unwrap() != Signal::SIGUSR1 {
            return 1;
        }
        // What is not waited for ends the worker: it is not the first process of its namespace.
        loop {
            nix::unistd::pause();
        }
    });
    assert_eq!(gate.wait_running(SOON).unwrap(), WorkerStart::Running);
    turf_core::sys::process::kill(created.pid, libc::SIGUSR1).unwrap();
    turf_core::sys::process::kill(created.pid, libc::SIGTERM).unwrap();
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(128 + libc::SIGTERM));
}

/// Whether the worker may end by itself.
#[derive(PartialEq)]
enum Release {
    Worker,
    Nobody,
}

/// A worker in a sandbox without a pid namespace: H, a child of this process, stays its parent. The
/// worker's status comes back through `finish`, which H calls with the connection.
fn relayed(release: Release, finish: impl FnOnce(&OwnedFd, i32)) -> i32 {
    let mut case = Case::worker();
    case.namespaces(&["mount", "uts", "ipc"]);
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    let connection = gate.as_fd().try_clone_to_owned().unwrap();
    let (go, hold) = nix::unistd::pipe().unwrap();
    let (runs, tell) = nix::unistd::pipe().unwrap();
    let helper = in_child(|| {
        let pid = match clone_process(0).unwrap() {
            Cloned::Parent(pid) => pid,
            Cloned::Child => {
                nix::unistd::close(hold.as_raw_fd()).unwrap();
                gate::report_born(connection.as_fd()).unwrap();
                gate::report_running(connection.as_fd()).unwrap();
                // As a worker does: from here on only H holds the connection.
                nix::unistd::close(connection.as_raw_fd()).unwrap();
                nix::unistd::close(gate.as_fd().as_raw_fd()).unwrap();
                nix::unistd::write(&tell, b"x").unwrap();
                nix::unistd::read(&go, &mut [0]).unwrap();
                turf_core::sys::process::kill(nix::unistd::getpid().as_raw(), libc::SIGUSR2).unwrap();
                exit_now(1)
            }
        };
        nix::unistd::close(hold.as_raw_fd()).unwrap();
        nix::unistd::read(&runs, &mut [0]).unwrap();
        finish(&connection, pid);
    });
    drop(connection);
    assert_eq!(gate.wait_running(SOON).unwrap(), WorkerStart::Running);
    if release == Release::Worker {
        drop(hold);
    }
    let status = wait_for(created.pid).unwrap();
    wait_for(helper).unwrap();
    status
}

fn a_relayed_worker_ends_init_with_its_status() {
    let status = relayed(Release::Worker, |connection, worker| {
        gate::report_exit(connection.as_fd(), wait_for(worker).unwrap()).unwrap();
    });
    // Init is no first process here, so it can end by the same signal.
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGUSR2, "{status:#x}");
}

fn a_relay_that_dies_takes_the_worker_along() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let status = relayed(Release::Nobody, |_, _| {});
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status:#x}");
    let orphan = nix::sys::wait::wait().unwrap();
    assert!(matches!(orphan, nix::sys::wait::WaitStatus::Signaled(..)), "{orphan:?}");
    nix::sys::prctl::set_child_subreaper(false).unwrap();
}

fn a_bundle_without_an_image_has_a_root() {
    let case = Case::worker();
    fs::write(case.dir.path().join("bundle/worker.js"), "script words").unwrap();
    let created = case.create().unwrap();
    let root = PathBuf::from(format!("/proc/{}/root", created.pid));
    assert_eq!(fs::read_to_string(root.join("app/worker.js")).unwrap(), "script words");
    assert!(fs::write(root.join("app/new"), "").is_err());
    assert!(fs::write(root.join("new"), "").is_err());
    fs::write(root.join("tmp/new"), "x").unwrap();
    fs::write(root.join("dev/null"), "x").unwrap();
    assert!(fs::read_to_string(root.join("proc/1/status")).unwrap().contains("turf:init"));
    let mut names: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app", "dev", "proc", "tmp"]);
    kill(&created);
}

fn control_groups_are_mounted() {
    let case = Case::program("ls /sys/fs/cgroup >/out; grep cgroup /proc/self/mountinfo >>/out");
    let out = case.output();
    assert!(out.contains(" /sys/fs/cgroup ro,nosuid,nodev,noexec"), "{out}");
    let groups = Command::new("grep").args(["-c", " - cgroup ", "/proc/self/mountinfo"]).output().unwrap();
    let groups: usize = String::from_utf8_lossy(&groups.stdout).trim().parse().unwrap();
    assert_eq!(out.lines().filter(|line| line.contains(" - cgroup ")).count(), groups, "{out}");
}

fn a_terminal_is_made_and_given_away() {
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
