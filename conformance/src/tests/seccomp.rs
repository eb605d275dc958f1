//! Filters of system calls: actions, conditions, newer calls, and the agent that decides on calls (config-linux.md,
//! "Seccomp").

use std::fs::{File, Permissions};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use super::worker::{HELLO, worker_of};
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{http, wait};

tests! { "seccomp";
    Exec:
        every_action_does_what_it_says,
        conditions_compare_arguments,
        a_condition_on_one_argument_twice_means_either,
        calls_newer_than_the_profile_do_not_exist,
        the_default_error_number_is_the_profiles,
        names_that_nobody_knows_are_passed_over,
        a_filter_with_flags_is_loaded,
        a_filter_need_not_allow_what_the_runtime_does_for_the_directory,
        an_agent_decides_on_calls,
        notify_is_refused_where_it_cannot_work;
    Turf:
        an_agent_decides_on_calls_of_exec,
        an_agent_gets_the_notifications_of_a_worker,
        without_an_agent_the_start_fails,
        bad_profiles_are_refused_with_their_place;
}

/// The permissions of `chmod` in the scripts below: the argument that conditions compare.
const CHMOD: [&str; 3] = ["chmod", "fchmodat", "fchmodat2"];

fn profile(bundle: &mut Bundle, default: &str, rules: Value) {
    bundle.set("/linux/seccomp", json!({"defaultAction": default, "syscalls": rules}));
}

fn every_action_does_what_it_says(case: &mut Case) -> Result<()> {
    // The exit status of a shell whose child is killed by SIGSYS, or sees an error.
    let script = "chmod 700 /tmp 2> /error; echo $?; cat /error";
    for (action, errno, status, words) in [
        ("SCMP_ACT_ALLOW", None, "0", ""),
        ("SCMP_ACT_LOG", None, "0", ""),
        ("SCMP_ACT_ERRNO", None, "1", "not permitted"),
        ("SCMP_ACT_ERRNO", Some(28), "1", "No space left"),
        ("SCMP_ACT_TRACE", None, "1", "not implemented"),
        ("SCMP_ACT_TRAP", None, "159", ""),
        ("SCMP_ACT_KILL", None, "159", ""),
        ("SCMP_ACT_KILL_THREAD", None, "159", ""),
        ("SCMP_ACT_KILL_PROCESS", None, "159", ""),
    ] {
        let mut bundle = case.shell(script)?;
        let mut rule = json!({"names": CHMOD, "action": action});
        if let Some(errno) = errno {
            rule["errnoRet"] = json!(errno);
        }
        let default = if action == "SCMP_ACT_ALLOW" { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" };
        profile(&mut bundle, default, json!([rule]));
        let finished = case.run(&bundle)?.success()?;
        let lines = finished.lines();
        ensure!(lines.first() == Some(&status) && finished.stdout.contains(words), "{action}: {finished}");
    }
    Ok(())
}

fn conditions_compare_arguments(case: &mut Case) -> Result<()> {
    // chmod has the mode as argument 1, fchmodat as argument 2: the busybox of the bundle uses chmod.
    for (op, value, two, refused) in [
        ("SCMP_CMP_EQ", 0o700, None, true),
        ("SCMP_CMP_EQ", 0o701, None, false),
        ("SCMP_CMP_NE", 0o700, None, false),
        ("SCMP_CMP_NE", 0o701, None, true),
        ("SCMP_CMP_LT", 0o700, None, false),
        ("SCMP_CMP_LT", 0o701, None, true),
        ("SCMP_CMP_LE", 0o700, None, true),
        ("SCMP_CMP_LE", 0o677, None, false),
        ("SCMP_CMP_GT", 0o700, None, false),
        ("SCMP_CMP_GT", 0o677, None, true),
        ("SCMP_CMP_GE", 0o700, None, true),
        ("SCMP_CMP_GE", 0o701, None, false),
        ("SCMP_CMP_MASKED_EQ", 0o070, Some(0), true),
        ("SCMP_CMP_MASKED_EQ", 0o100, Some(0), false),
        ("SCMP_CMP_MASKED_EQ", 0o100, Some(0o100), true),
    ] {
        let mut bundle = case.shell("chmod 700 /tmp || echo refused")?;
        let mut condition = json!({"index": 1, "op": op, "value": value});
        if let Some(two) = two {
            condition["valueTwo"] = json!(two);
        }
        let rule = json!([{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [condition]}]);
        profile(&mut bundle, "SCMP_ACT_ALLOW", rule);
        let finished = case.run(&bundle)?.success()?;
        ensure!((finished.lines() == ["refused"]) == refused, "{op} {value:o}: {finished}");
    }
    Ok(())
}

fn a_condition_on_one_argument_twice_means_either(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("for mode in 700 701 702; do chmod $mode /tmp || echo $mode; done")?;
    let equal = |value: u32| json!({"index": 1, "op": "SCMP_CMP_EQ", "value": value});
    let rule = json!({"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [equal(0o700), equal(0o702)]});
    profile(&mut bundle, "SCMP_ACT_ALLOW", json!([rule]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["700", "702"], "{finished}");
    Ok(())
}

fn a_filter_need_not_allow_what_the_runtime_does_for_the_directory(case: &mut Case) -> Result<()> {
    for no_new_privileges in [false, true] {
        let mut bundle = case.shell("cat /proc/self/status; cd /tmp || echo refused")?;
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        let rule = json!({"names": ["chdir", "fchdir", "getcwd"], "action": "SCMP_ACT_ERRNO"});
        profile(&mut bundle, "SCMP_ACT_ALLOW", json!([rule]));
        let finished = case.run(&bundle)?.success()?;
        let filtered = finished.lines().contains(&"Seccomp:\t2");
        ensure!(filtered && finished.lines().last() == Some(&"refused"), "{no_new_privileges}: {finished}");
    }
    Ok(())
}

/// A list of what a shell of the bundle needs, and no more.
const SHELL: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "exit",
    "exit_group",
    "fchdir",
    "fcntl",
    "fork",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setpgid",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "sysinfo",
    "tgkill",
    "uname",
    "vfork",
    "wait4",
    "write",
    "writev",
    "umask",
    "recvmsg",
    "recvfrom",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "nanosleep",
    "sched_yield",
    "sched_getaffinity",
    "eventfd2",
    "setresgid32",
    "setresuid32",
    "faccessat",
    "faccessat2",
    "keyctl",
];

fn calls_newer_than_the_profile_do_not_exist(case: &mut Case) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(crate::suite::skip("the numbers are those of x86_64"));
    }
    // Nothing in the list is newer than faccessat2 (439): mseal (462) is, and mkdir (83) is not.
    let mut bundle = case.shell("mkdir /new")?;
    let rule = json!([{"names": SHELL, "action": "SCMP_ACT_ALLOW"}]);
    profile(&mut bundle, "SCMP_ACT_ERRNO", rule);
    bundle.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64"]));
    let finished = case.run(&bundle)?;
    ensure!(finished.stderr.contains("not permitted"), "{finished}");
    probe(case, &mut bundle, 462, "38")?;
    probe(case, &mut bundle, 83, "1")
}

/// Runs a program that makes one system call and prints the error number.
fn probe(case: &mut Case, bundle: &mut Bundle, number: u32, wanted: &str) -> Result<()> {
    let program = crate::probe::build(case.directory())?;
    std::fs::copy(&program, bundle.inside("/bin/probe"))?;
    bundle.set("/process/args", json!(["/bin/probe", number.to_string()]));
    let finished = case.run(bundle)?.success()?;
    ensure!(finished.lines() == [wanted], "call {number}: {finished}");
    Ok(())
}

fn the_default_error_number_is_the_profiles(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("mkdir /new")?;
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
            "syscalls": [{"names": SHELL, "action": "SCMP_ACT_ALLOW"}]}),
    );
    let finished = case.run(&bundle)?;
    ensure!(finished.stderr.contains("No space left"), "{finished}");
    Ok(())
}

fn names_that_nobody_knows_are_passed_over(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("chmod 700 /tmp || echo refused")?;
    let names = json!(["no_such_call", "chmod", "fchmodat", "another_one"]);
    profile(&mut bundle, "SCMP_ACT_ALLOW", json!([{"names": names, "action": "SCMP_ACT_ERRNO"}]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["refused"], "{finished}");
    Ok(())
}

fn a_filter_with_flags_is_loaded(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("grep -E '^(Seccomp|Speculation_Store_Bypass)' /proc/self/status")?;
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(
        finished.stdout.contains("Seccomp:\t2") && !finished.stdout.contains("force mitigated"),
        "{finished}"
    );
    Ok(())
}

/// An agent in a thread of its own: what it was told, and how many calls it decided on.
struct Agent {
    socket: PathBuf,
    thread: JoinHandle<Result<(Value, usize)>>,
}

impl Agent {
    /// Answers `calls` calls with this error number, then lets go.
    fn start(case: &Case, calls: usize, errno: i32) -> Result<Agent> {
        let socket = case.directory().join("agent");
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o777))?;
        let thread = thread::spawn(move || serve(&listener, calls, errno));
        Ok(Agent { socket, thread })
    }

    fn finish(self) -> Result<(Value, usize)> {
        self.thread.join().ok().context("the agent panicked")?
    }
}

fn serve(listener: &UnixListener, calls: usize, errno: i32) -> Result<(Value, usize)> {
    ensure!(wait::readable_within(listener, wait::STEP), "nobody came to the agent");
    let (mut stream, _) = listener.accept()?;
    let mut bytes = vec![0; 1 << 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(received.bytes);
    stream.read_to_end(&mut bytes)?;
    let told: Value = serde_json::from_slice(&bytes).context("what the agent was told is no JSON")?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    ensure!(fds.len() == 1, "the agent got {} descriptors", fds.len());
    let notifications = File::from(fds.remove(0));
    let mut decided = 0;
    while decided < calls {
        ensure!(wait::readable_within(&notifications, wait::STEP), "no call came");
        let request = ScmpNotifReq::receive(notifications.as_raw_fd())?;
        let flags = ScmpNotifRespFlags::empty();
        ScmpNotifResp::new_error(request.id, -errno, flags).respond(notifications.as_raw_fd())?;
        decided += 1;
    }
    Ok((told, decided))
}

fn with_agent(bundle: &mut Bundle, agent: &Path) {
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent, "listenerMetadata": "some data",
            "syscalls": [{"names": CHMOD, "action": "SCMP_ACT_NOTIFY"}]}),
    );
}

/// What an agent must have been told of a process.
fn check_told(told: &Value, id: &str, pid: Option<i32>, init: Option<i32>) -> Result<()> {
    ensure!(told["fds"] == json!(["seccompFd"]) && told["metadata"] == "some data", "{told}");
    ensure!(told["ociVersion"].is_string() && told["state"]["id"] == id, "{told}");
    ensure!(told["state"]["bundle"].is_string() && told["state"]["status"].is_string(), "{told}");
    ensure!(told["pid"].as_i64().is_some_and(|told| told > 0), "{told}");
    ensure!(pid.is_none_or(|pid| told["pid"] == pid), "not {pid:?}: {told}");
    ensure!(init.is_none_or(|init| told["state"]["pid"] == init), "not {init:?}: {told}");
    Ok(())
}

fn an_agent_decides_on_calls(case: &mut Case) -> Result<()> {
    let agent = Agent::start(case, 2, 28)?;
    let mut bundle = case.shell("chmod 700 /tmp; chmod 701 /tmp")?;
    with_agent(&mut bundle, &agent.socket);
    let container = case.create(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    let (told, decided) = agent.finish()?;
    check_told(&told, &container.id, Some(container.pid), Some(container.pid))?;
    case.wait(&container)?;
    let errors = std::fs::read_to_string(&container.stderr)?;
    ensure!(decided == 2 && errors.matches("No space left").count() == 2, "{errors}");
    Ok(())
}

fn an_agent_decides_on_calls_of_exec(case: &mut Case) -> Result<()> {
    let agent = Agent::start(case, 0, 28)?;
    let mut bundle = case.shell("exec sleep 1000")?;
    with_agent(&mut bundle, &agent.socket);
    let container = case.start(&bundle)?;
    std::fs::remove_file(&agent.socket)?;
    agent.finish()?;
    let agent = Agent::start(case, 1, 18)?;
    let finished = case.runtime.call(&["exec", &container.id, "/bin/chmod", "700", "/tmp"])?.exited(1)?;
    ensure!(finished.stderr.contains("Invalid cross-device link"), "{finished}");
    let (told, decided) = agent.finish()?;
    check_told(&told, &container.id, None, Some(container.pid))?;
    ensure!(decided == 1 && told["pid"] != container.pid && told["state"]["status"] == "running", "{told}");
    // Nobody listens any more: the program does not run.
    let refused =
        case.runtime.call(&["exec", &container.id, "/bin/echo", "ran"])?.failure(&["seccomp agent at"])?;
    ensure!(refused.stdout.is_empty(), "{refused}");
    case.remove(&container)
}

fn an_agent_gets_the_notifications_of_a_worker(case: &mut Case) -> Result<()> {
    let agent = Agent::start(case, 0, 28)?;
    let mut bundle = case.worker(HELLO)?;
    with_agent(&mut bundle, &agent.socket);
    let container = case.create(&bundle)?;
    let address = case.start_listening(&container)?;
    let (told, _) = agent.finish()?;
    check_told(&told, &container.id, Some(worker_of(&container)?), Some(container.pid))?;
    ensure!(http::get(address, "/")?.status == 200);
    // The worker itself has let go of the descriptor.
    for entry in std::fs::read_dir(format!("/proc/{}/fd", worker_of(&container)?))? {
        let target = std::fs::read_link(entry?.path())?;
        ensure!(!target.to_string_lossy().contains("seccomp"), "the worker holds {}", target.display());
    }
    case.remove(&container)
}

fn without_an_agent_the_start_fails(case: &mut Case) -> Result<()> {
    let nowhere = case.directory().join("nobody");
    let mut bundle = case.shell("touch /ran")?;
    with_agent(&mut bundle, &nowhere);
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["seccomp agent at", "nobody", "no such file"])?;
    case.wait(&container)?;
    ensure!(case.runtime.status(&container.id)? == "stopped" && !bundle.inside("/ran").exists());
    let mut bundle = case.worker(HELLO)?;
    with_agent(&mut bundle, &nowhere);
    let container = case.create(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["seccomp agent at", "nobody"])?;
    let ended = case.wait(&container)?;
    ensure!(case.runtime.status(&container.id)? == "stopped", "{ended:?}");
    Ok(())
}

fn refused(case: &mut Case, seccomp: Value, words: &[&str]) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/linux/seccomp", seccomp).write()?;
    let id = case.id("refused");
    let finished = case.runtime.call(&["run", "--bundle", text(&bundle.path)?, &id])?;
    ensure!(finished.status.signal().is_none(), "{finished}");
    finished.failure(words).map(drop)
}

fn notify_is_refused_where_it_cannot_work(case: &mut Case) -> Result<()> {
    let path = case.directory().join("agent");
    let notify = |name: &str| json!([{"names": [name], "action": "SCMP_ACT_NOTIFY"}]);
    // A profile that needs no agent runs.
    let mut bundle = case.shell("exit 7")?;
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    case.run(&bundle)?.exited(7)?;
    refused(case, json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path}), &[])?;
    refused(case, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify("chmod")}), &[])?;
    refused(
        case,
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": notify("write")}),
        &[],
    )
}

fn bad_profiles_are_refused_with_their_place(case: &mut Case) -> Result<()> {
    for (profile, place) in [
        (json!({"defaultAction": "SCMP_ACT_TYPO"}), "$.linux.seccomp.defaultAction"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_TYPO"]}),
            "$.linux.seccomp.architectures[0]",
        ),
        (json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["TYPO"]}), "$.linux.seccomp.flags[0]"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
            "$.linux.seccomp.syscalls[0].names",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "$.linux.seccomp.syscalls[0].args[0].index",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "$.linux.seccomp.listenerMetadata",
        ),
    ] {
        refused(case, profile, &[place])?;
    }
    Ok(())
}
