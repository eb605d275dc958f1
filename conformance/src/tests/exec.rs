//! `exec`: another process in a running container. The specification does not name it; runc's command line does.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::process::receive_descriptor;
use crate::bundle::{Bundle, make_root};
use crate::case::{Case, Container, text};
use crate::runtime::Finished;
use crate::suite::tests;
use crate::{host, wait};

tests! { "exec";
    Exec:
        the_exit_code_is_passed_on,
        a_death_by_a_signal_is_128_and_its_number,
        stdio_is_the_callers,
        environment_directory_and_user_can_be_changed,
        a_process_file_says_everything,
        a_process_file_can_be_a_descriptor_of_the_caller,
        namespaces_and_root_are_those_of_init,
        the_control_groups_are_those_of_init,
        the_seccomp_profile_is_in_force,
        a_detached_process_is_left_to_the_caller,
        a_signal_is_passed_on,
        a_terminal_goes_to_the_console_socket,
        no_descriptor_leaks_in,
        preserved_descriptors_are_inherited,
        a_missing_program_is_named,
        a_program_without_permission_is_named,
        a_missing_directory_is_refused,
        a_stopped_container_is_refused,
        an_unknown_container_is_refused,
        the_process_ends_with_the_container;
    Turf:
        capabilities_are_the_containers_and_can_be_added,
        an_unknown_capability_is_only_warned_of,
        what_is_not_changed_is_the_containers,
        a_program_runs_in_a_workers_sandbox,
        a_program_runs_in_a_workers_user_namespace,
        a_paused_container_is_refused,
        a_container_at_its_pids_limit_can_be_looked_into,
        a_process_file_that_makes_no_sense_is_refused,
        an_exec_that_fails_ends_with_255;
}

const SLEEPER: &str = "exec sleep 1000";

impl Case {
    /// A running container that sleeps.
    fn sleeper(&mut self) -> Result<Container> {
        let bundle = self.shell(SLEEPER)?;
        self.start(&bundle)
    }

    /// `exec` of a shell script with flags.
    fn exec(&mut self, container: &Container, flags: &[&str], script: &str) -> Result<Finished> {
        let program = [container.id.as_str(), "/bin/sh", "-c", script];
        self.runtime.call(&[&["exec"], flags, &program].concat())
    }

    /// Kills a container and deletes it. A process that was left to this program is reaped first: until then
    /// it keeps the pid namespace, and so init, from ending.
    fn end(&mut self, container: &Container) -> Result<()> {
        self.runtime.ok(&["kill", &container.id, "KILL"])?;
        ensure!(wait::no_children(wait::STEP), "some processes of the container live on");
        self.runtime.ok(&["delete", &container.id]).map(drop)
    }

    /// Writes a process file.
    fn process_file(&self, process: &Value) -> Result<PathBuf> {
        let path = self.directory().join("process.json");
        fs::write(&path, process.to_string())?;
        Ok(path)
    }
}

fn the_exit_code_is_passed_on(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    for code in [0, 1, 37, 255] {
        case.exec(&container, &[], &format!("exit {code}"))?.exited(code)?;
    }
    ensure!(case.runtime.status(&container.id)? == "running");
    case.remove(&container)
}

fn a_death_by_a_signal_is_128_and_its_number(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.exec(&container, &[], "kill -9 $$")?.exited(137)?;
    case.remove(&container)
}

fn stdio_is_the_callers(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let input = case.directory().join("input");
    fs::write(&input, "first\nsecond\n")?;
    let arguments = ["exec", &container.id, "/bin/sh", "-c", "cat; echo err >&2"];
    let running = case.runtime.spawn(&arguments, Some(fs::File::open(&input)?.into()))?;
    let finished = running.finish()?.success()?;
    ensure!(finished.stdout == "first\nsecond\n" && finished.stderr == "err\n", "{finished}");
    case.remove(&container)
}

fn environment_directory_and_user_can_be_changed(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let flags = ["--cwd", "/tmp", "--env", "NEW=a b", "--user", "1000:1001"];
    let script = "pwd; echo $NEW; id -u; id -g";
    let finished = case.exec(&container, &flags, script)?.success()?;
    ensure!(finished.lines() == ["/tmp", "a b", "1000", "1001"], "{finished}");
    case.remove(&container)
}

fn what_is_not_changed_is_the_containers(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    bundle.set("/process/cwd", json!("/run")).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/process/oomScoreAdj", json!(321)).push("/process/env", json!("KEPT=yes"));
    let container = case.start(&bundle)?;
    let groups = case.exec(&container, &["--additional-gids", "7"], "grep ^Groups: /proc/self/status")?;
    ensure!(groups.stdout.split_whitespace().any(|group| group == "7"), "{groups}");
    let script = "echo $KEPT; pwd; id -u; id -g; cat /proc/self/oom_score_adj; ulimit -n;
        grep ^NoNewPrivs: /proc/self/status | grep -o '[01]$'";
    let finished = case.exec(&container, &[], script)?.success()?;
    ensure!(finished.lines() == ["yes", "/run", "1000", "1000", "321", "1024", "1"], "{finished}");
    case.remove(&container)
}

fn a_process_file_says_everything(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let script = "pwd; id -u; id -g; echo $WORD; ulimit -n; grep -E '^Cap(Eff|Bnd)' /proc/self/status";
    let process = json!({
        "args": ["/bin/sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin", "WORD=of the file"],
        "user": {"uid": 0, "gid": 5}, "noNewPrivileges": true,
        // Equal, because the Go runtime in runc races with it to raise the soft limit to the hard one.
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 66, "hard": 66}],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    });
    let file = case.process_file(&process)?;
    let finished = case.runtime.ok(&["exec", "--process", text(&file)?, &container.id])?;
    let lines = finished.lines();
    ensure!(lines[..5] == ["/tmp", "0", "5", "of the file", "66"], "{finished}");
    ensure!(lines[5..].iter().all(|line| line.ends_with("0000000000000020")), "{finished}");
    case.remove(&container)
}

const NAMESPACES: [&str; 6] = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];

/// Starts a detached process in the container; its pid from the pid file.
fn detached(case: &mut Case, container: &Container, script: &str) -> Result<i32> {
    let file = case.directory().join("exec.pid");
    case.exec(container, &["--detach", "--pid-file", text(&file)?], script)?.success()?;
    let pid = fs::read_to_string(&file).context("read the pid file")?;
    pid.trim().parse().with_context(|| format!("the pid file holds {pid:?}"))
}

fn a_process_file_can_be_a_descriptor_of_the_caller(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let process = json!({"args": ["/bin/sh", "-c", "echo here; ls /proc/self/fd"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let file = case.process_file(&process)?;
    // What a shell makes of `--process <(...)`.
    let script = format!("exec \"$@\" 7< {}", text(&file)?);
    case.runtime.run_through(&["/bin/sh", "-c", &script, "sh"]);
    let finished = case.runtime.call(&["exec", "--process", "/dev/fd/7", &container.id]);
    case.runtime.run_through(&[]);
    let finished = finished?.success()?;
    // The last one is the directory that ls(1) reads.
    ensure!(finished.lines() == ["here", "0", "1", "2", "3"], "{finished}");
    case.remove(&container)
}

fn an_unknown_capability_is_only_warned_of(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let flags = ["--cap", "CAP_OF_TOMORROW", "--cap", "CAP_SYS_TIME"];
    let finished = case.exec(&container, &flags, "grep CapBnd /proc/self/status")?.success()?;
    ensure!(finished.stderr.contains("CAP_OF_TOMORROW"), "{finished}");
    let set = finished.stdout.trim().rsplit('\t').next().unwrap_or_default();
    let set = u64::from_str_radix(set, 16).context("CapBnd")?;
    ensure!(set & 1 << 25 != 0, "{finished}");
    case.remove(&container)
}

fn namespaces_and_root_are_those_of_init(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let pid = detached(case, &container, SLEEPER)?;
    for name in NAMESPACES {
        let (ours, inits) = (host::namespace(pid, name)?, host::namespace(container.pid, name)?);
        ensure!(ours == inits, "{name}: {ours}, but init has {inits}");
    }
    let seen = host::field(pid, "status", "NSpid")?;
    ensure!(seen.split_whitespace().count() == 2, "the pids of the process are {seen}");
    case.exec(&container, &[], "test -x /bin/busybox && test ! -e /usr && test -d /proc/1")?.success()?;
    case.end(&container)
}

fn the_control_groups_are_those_of_init(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
    bundle.set("/linux/resources/memory", json!({"limit": 64 * 1024 * 1024}));
    let container = case.start(&bundle)?;
    let pid = detached(case, &container, SLEEPER)?;
    for (controller, v1, v2) in [
        ("pids", "pids.max", "pids.max"),
        ("memory", "memory.limit_in_bytes", "memory.max"),
        ("freezer", "", ""),
    ] {
        let ours = host::cgroup_file(pid, controller, v1, v2)?;
        let inits = host::cgroup_file(container.pid, controller, v1, v2)?;
        ensure!(ours == inits, "{} is not {}", ours.display(), inits.display());
    }
    case.end(&container)
}

fn capabilities_are_the_containers_and_can_be_added(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    let kill = json!(["CAP_KILL"]);
    bundle.set("/process/capabilities", json!({"bounding": kill, "effective": kill, "permitted": kill}));
    let container = case.start(&bundle)?;
    for (flags, mask) in [(&[][..], 0x20_u64), (&["--cap", "CAP_CHOWN"], 0x21)] {
        let finished = case.exec(&container, flags, "grep ^Cap /proc/self/status")?.success()?;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let value = host::find_field(&finished.stdout, set).context("no capability line")?;
            ensure!(u64::from_str_radix(value, 16)? == mask, "{set} should be {mask:x}: {finished}");
        }
    }
    case.remove(&container)
}

fn the_seccomp_profile_is_in_force(case: &mut Case) -> Result<()> {
    for no_new_privileges in [true, false] {
        let mut bundle = case.shell(SLEEPER)?;
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        bundle.set("/linux/seccomp", profile);
        let container = case.start(&bundle)?;
        let script = "grep ^Seccomp: /proc/self/status; mkdir /tmp/d && echo made; echo alive";
        let finished = case.exec(&container, &[], script)?.success()?;
        ensure!(host::find_field(&finished.stdout, "Seccomp") == Some("2"), "{finished}");
        ensure!(!finished.stdout.contains("made") && finished.stdout.contains("alive"), "{finished}");
        case.remove(&container)?;
    }
    Ok(())
}

fn a_detached_process_is_left_to_the_caller(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let pid = detached(case, &container, "read word < /tmp/never; exit 9")?;
    // No such file: the shell goes on at once. What counts is who collects the status.
    let status = wait::child(pid, wait::STEP)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 9)), "ended with {status:?}");
    case.remove(&container)
}

fn a_signal_is_passed_on(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let fifo = case.directory().join("bundle1/rootfs/tmp/ready");
    let mut ready = case.fifo(&fifo)?;
    // What sleeps holds no stream of ours: a kill that finds it between fork and exec may be lost in the shell.
    let script =
        "trap 'exit 44' TERM; echo up > /tmp/ready; while :; do sleep 1000 >/dev/null 2>&1 & wait $!; done";
    let running = case.runtime.spawn(&["exec", &container.id, "/bin/sh", "-c", script], None)?;
    ensure!(wait::line(&mut ready, wait::STEP)? == "up");
    kill(Pid::from_raw(running.pid()), Signal::SIGTERM)?;
    running.finish()?.exited(44)?;
    case.remove(&container)
}

fn a_terminal_goes_to_the_console_socket(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let path = case.directory().join("console");
    let listener = UnixListener::bind(&path)?;
    let (pid_file, script) =
        (case.directory().join("tty.pid"), "test -t 0 && test -t 1 && tty_is=yes; echo is=$tty_is; exit 3");
    let process = json!({
        "terminal": true, "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    });
    let file = case.process_file(&process)?;
    let arguments = [
        "exec",
        "--process",
        text(&file)?,
        "--console-socket",
        text(&path)?,
        "--detach",
        "--pid-file",
        text(&pid_file)?,
        &container.id,
    ];
    let running = case.runtime.spawn(&arguments, None)?;
    let mut master = receive_descriptor(&listener)?;
    running.finish()?.success()?;
    ensure!(wait::line(&mut master, wait::STEP)?.trim_end() == "is=yes");
    let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
    let status = wait::child(pid, wait::STEP)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 3)), "ended with {status:?}");
    case.remove(&container)
}

fn no_descriptor_leaks_in(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let finished = case.exec(&container, &[], "ls /proc/self/fd | wc -l")?.success()?;
    // 0, 1, 2 and the directory that ls itself reads.
    ensure!(finished.lines() == ["4"], "{finished}");
    case.remove(&container)
}

fn preserved_descriptors_are_inherited(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let file = case.directory().join("kept");
    fs::write(&file, "kept open\n")?;
    // The runtime's shell opens the file as descriptor 3.
    let script = format!("exec 3< {}; exec \"$0\" \"$@\"", text(&file)?);
    case.runtime.run_through(&["/bin/sh", "-c", &script]);
    let finished = case.exec(&container, &["--preserve-fds", "1"], "cat <&3")?.success()?;
    case.runtime.run_through(&[]);
    ensure!(finished.lines() == ["kept open"], "{finished}");
    case.remove(&container)
}

fn a_missing_program_is_named(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime
        .refused(&["exec", &container.id, "no-such-program"], &["executable file", "not found in $path"])?;
    case.runtime.refused(&["exec", &container.id, "/no/such/program"], &["no such file or directory"])?;
    ensure!(case.runtime.status(&container.id)? == "running");
    case.end(&container)
}

fn a_program_without_permission_is_named(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime.refused(&["exec", &container.id, "/etc/passwd"], &["permission denied"])?;
    case.end(&container)
}

fn an_exec_that_fails_ends_with_255(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime.call(&["exec", &container.id, "no-such-program"])?.exited(255)?;
    case.runtime.call(&["exec", "nobody", "true"])?.exited(255)?;
    case.runtime.call(&["exec", &container.id, "/bin/sh", "-c", "exit 1"])?.exited(1)?;
    case.remove(&container)
}

fn a_missing_directory_is_refused(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let arguments = ["exec", "--cwd", "/no/such/directory", &container.id, "/bin/true"];
    case.runtime.refused(&arguments, &["no such file or directory"])?;
    case.end(&container)
}

fn a_stopped_container_is_refused(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    case.wait(&container)?;
    let finished = case.runtime.call(&["exec", &container.id, "/bin/true"])?.failure(&[])?;
    let said = ["stopped", "not running"].iter().any(|words| finished.stderr.contains(words));
    ensure!(said, "the message does not say why: {finished}");
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn an_unknown_container_is_refused(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime.ok(&["exec", &container.id, "/bin/true"])?;
    let id = case.id("nobody");
    case.runtime.refused(&["exec", &id, "/bin/true"], &[])?;
    case.remove(&container)
}

fn the_process_ends_with_the_container(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    let pid = detached(case, &container, SLEEPER)?;
    case.runtime.ok(&["kill", &container.id, "KILL"])?;
    let status = wait::child(pid, wait::STEP)?;
    ensure!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "ended with {status:?}");
    case.wait(&container)?;
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

/// A worker bundle with a root of busybox.
fn worker_with_root(case: &mut Case) -> Result<Bundle> {
    let mut bundle = case.worker(super::HELLO)?;
    make_root(&bundle.path.join("rootfs"))?;
    fs::create_dir_all(bundle.inside("app"))?;
    bundle.set("/root", json!({"path": "rootfs"}));
    let proc = json!({"destination": "/proc", "type": "proc", "source": "proc"});
    bundle.push("/mounts", proc);
    Ok(bundle)
}

fn a_program_runs_in_a_workers_sandbox(case: &mut Case) -> Result<()> {
    let bundle = worker_with_root(case)?;
    let (container, address) = case.serve(&bundle)?;
    let worker = super::worker_of(&container)?;
    let finished = case.exec(&container, &[], "hostname; ls /app; echo $$; exit 5")?.exited(5)?;
    let lines = finished.lines();
    ensure!(lines[..2] == ["conformance", "worker.js"] && lines[2] != "1", "{finished}");
    let pid = detached(case, &container, SLEEPER)?;
    for name in NAMESPACES {
        ensure!(host::namespace(pid, name)? == host::namespace(worker, name)?, "{name} is not the worker's");
    }
    let ours = host::cgroup_file(pid, "devices", "", "")?;
    ensure!(ours == host::cgroup_file(worker, "devices", "", "")?, "the group is {}", ours.display());
    ensure!(crate::http::get(address, "/")?.status == 200);
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    wait::child(pid, wait::STEP)?;
    ensure!(case.runtime.status(&container.id)? == "running");
    case.remove(&container)
}

fn a_program_runs_in_a_workers_user_namespace(case: &mut Case) -> Result<()> {
    let mut bundle = worker_with_root(case)?;
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    for mapping in ["uidMappings", "gidMappings"] {
        let ids = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        bundle.set(&format!("/linux/{mapping}"), ids);
    }
    bundle.set("/process/oomScoreAdj", json!(100));
    let (container, _) = case.serve(&bundle)?;
    let script = "readlink /proc/self/ns/user; cat /proc/self/oom_score_adj; id -u";
    let finished = case.exec(&container, &[], script)?.success()?;
    let users = host::namespace(super::worker_of(&container)?, "user")?;
    ensure!(finished.lines() == [users.as_str(), "100", "0"], "{finished}");
    case.remove(&container)
}

fn a_paused_container_is_refused(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    case.runtime.ok(&["pause", &container.id])?;
    case.runtime.refused(&["exec", &container.id, "/bin/true"], &["paused"])?;
    case.runtime.ok(&["resume", &container.id])?;
    case.exec(&container, &[], "true")?.success()?;
    case.remove(&container)
}

fn a_container_at_its_pids_limit_can_be_looked_into(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(SLEEPER)?;
    bundle.set("/linux/resources/pids", json!({"limit": 1}));
    let container = case.start(&bundle)?;
    let finished = case.exec(&container, &[], "echo inside")?.success()?;
    ensure!(finished.lines() == ["inside"], "{finished}");
    case.remove(&container)
}

fn a_process_file_that_makes_no_sense_is_refused(case: &mut Case) -> Result<()> {
    let container = case.sleeper()?;
    for (process, words) in [
        (json!({"args": [], "cwd": "/"}), "$.args"),
        (json!({"args": ["/bin/true"], "cwd": "relative"}), "$.cwd"),
        (json!({"args": ["/bin/true"], "cwd": "/", "terminal": true}), "--console-socket"),
    ] {
        let file = case.process_file(&process)?;
        let exec = ["exec", "--detach", "--process", text(&file)?, &container.id];
        case.runtime.refused(&exec, &[words])?;
    }
    case.remove(&container)
}
