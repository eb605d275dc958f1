//! The process that a bundle asks for: arguments, environment, identity, stdio, limits, privileges
//! (config.md of the OCI runtime specification, section "Process").

use std::fs::{self, File};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::bundle::DEFAULT_CAPABILITIES;
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, wait};

tests! { "process";
    Exec:
        arguments_arrive_unchanged,
        the_environment_is_exactly_the_configured_one,
        the_working_directory_is_entered,
        user_group_and_additional_groups_are_set,
        the_umask_is_set,
        the_hostname_is_set,
        stdin_is_passed_through,
        stdout_and_stderr_are_kept_apart,
        no_descriptor_of_the_caller_leaks_in,
        resource_limits_are_set,
        the_oom_score_is_adjusted,
        capabilities_are_exactly_the_configured_ones,
        no_capability_is_left_without_a_list,
        no_new_privileges_is_set_and_can_be_left_out,
        a_seccomp_profile_is_in_force,
        the_program_is_pid_1_and_leads_its_session,
        a_terminal_goes_to_the_console_socket,
        a_terminal_without_a_console_socket_is_refused;
}

fn arguments_arrive_unchanged(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    let script = "for a in \"$@\"; do echo \"[$a]\"; done";
    bundle.set("/process/args", json!(["/bin/sh", "-c", script, "zero", "a b", "", "ü$HOME'\"", "-x"]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["[a b]", "[]", "[ü$HOME'\"]", "[-x]"], "{finished}");
    Ok(())
}

fn the_environment_is_exactly_the_configured_one(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    bundle.set("/process/args", json!(["/bin/env"]));
    bundle.set("/process/env", json!(["PATH=/bin", "A=one two", "EMPTY="]));
    let finished = case.run(&bundle)?.success()?;
    let mut lines = finished.lines();
    // runc adds HOME when it is missing.
    lines.retain(|line| !line.starts_with("HOME="));
    ensure!(lines == ["PATH=/bin", "A=one two", "EMPTY="], "{finished}");
    Ok(())
}

fn the_working_directory_is_entered(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("pwd")?;
    bundle.set("/process/cwd", json!("/tmp"));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["/tmp"], "{finished}");
    Ok(())
}

fn user_group_and_additional_groups_are_set(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("id -u; id -g; grep ^Groups: /proc/self/status")?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8]}));
    let finished = case.run(&bundle)?.success()?;
    let words: Vec<&str> = finished.stdout.split_whitespace().collect();
    ensure!(words[..2] == ["1000", "1001"], "{finished}");
    let groups: Vec<&str> = words[3..].iter().copied().filter(|group| *group != "1001").collect();
    ensure!(groups == ["7", "8"], "{finished}");
    Ok(())
}

fn the_umask_is_set(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("umask")?;
    bundle.set("/process/user/umask", json!(0o027));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["0027"], "{finished}");
    Ok(())
}

fn the_hostname_is_set(case: &mut Case) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = case.shell("hostname")?;
    bundle.set("/hostname", json!("inner-name"));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["inner-name"], "{finished}");
    ensure!(fs::read_to_string("/proc/sys/kernel/hostname")? == before, "the host's name changed");
    Ok(())
}

fn stdin_is_passed_through(case: &mut Case) -> Result<()> {
    let bundle = case.shell("cat; echo end")?;
    bundle.write()?;
    let (input, id) = (case.directory().join("input"), case.id("cat"));
    fs::write(&input, "first\nsecond\n")?;
    let arguments = ["run", "--bundle", text(&bundle.path)?, &id];
    let running = case.runtime.spawn(&arguments, Some(Stdio::from(File::open(&input)?)))?;
    let finished = running.finish()?.success()?;
    ensure!(finished.lines() == ["first", "second", "end"], "{finished}");
    Ok(())
}

fn stdout_and_stderr_are_kept_apart(case: &mut Case) -> Result<()> {
    let finished = case.run_shell("echo out; echo err >&2")?;
    ensure!(finished.stdout == "out\n" && finished.stderr == "err\n", "{finished}");
    Ok(())
}

fn no_descriptor_of_the_caller_leaks_in(case: &mut Case) -> Result<()> {
    // The shell expands the pattern itself while it has one descriptor open on the directory.
    let finished =
        case.run_shell("cd /proc/self/fd && for n in *; do [ -e $n ] && readlink $n; done; true")?;
    let leaked: Vec<&str> = finished
        .lines()
        .into_iter()
        .filter(|link| link.contains("config.json") || link.contains("/root/"))
        .collect();
    ensure!(leaked.is_empty(), "{leaked:?} in {finished}");
    let opened = case.run_shell("ls /proc/self/fd | wc -l")?;
    // 0, 1, 2 and the directory that ls itself reads.
    ensure!(opened.lines() == ["4"], "{opened}");
    Ok(())
}

fn resource_limits_are_set(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("ulimit -Sn; ulimit -Hn; ulimit -Sc")?;
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    bundle.set("/process/rlimits", limits);
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["77", "99", "0"], "{finished}");
    Ok(())
}

fn the_oom_score_is_adjusted(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /proc/self/oom_score_adj")?;
    bundle.set("/process/oomScoreAdj", json!(321));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["321"], "{finished}");
    Ok(())
}

/// Bit numbers of the capabilities in [`DEFAULT_CAPABILITIES`] (linux/capability.h).
const DEFAULT_BITS: [u32; 11] = [0, 1, 3, 4, 5, 10, 31, 6, 8, 7, 18];

fn capabilities_are_exactly_the_configured_ones(case: &mut Case) -> Result<()> {
    assert_eq!(DEFAULT_BITS.len(), DEFAULT_CAPABILITIES.len());
    let mask = DEFAULT_BITS.iter().fold(0u64, |mask, bit| mask | 1 << bit);
    let finished = case.run_shell("grep ^Cap /proc/self/status")?;
    for (set, expected) in
        [("CapInh", 0), ("CapPrm", mask), ("CapEff", mask), ("CapBnd", mask), ("CapAmb", 0)]
    {
        let value = host::find_field(&finished.stdout, set).context("no capability line")?;
        ensure!(u64::from_str_radix(value, 16)? == expected, "{set} should be {expected:x}: {finished}");
    }
    Ok(())
}

fn no_capability_is_left_without_a_list(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status")?;
    let empty: [&str; 0] = [];
    let lists = json!({"bounding": empty, "effective": empty, "permitted": empty});
    bundle.set("/process/capabilities", lists);
    let finished = case.run(&bundle)?.success()?;
    let none = finished.lines().iter().all(|line| line.ends_with("0000000000000000"));
    ensure!(none && finished.lines().len() == 3, "{finished}");
    Ok(())
}

fn no_new_privileges_is_set_and_can_be_left_out(case: &mut Case) -> Result<()> {
    for (wanted, seen) in [(true, "1"), (false, "0")] {
        let mut bundle = case.shell("grep ^NoNewPrivs: /proc/self/status")?;
        bundle.set("/process/noNewPrivileges", json!(wanted));
        let finished = case.run(&bundle)?.success()?;
        ensure!(host::find_field(&finished.stdout, "NoNewPrivs") == Some(seen), "{finished}");
    }
    Ok(())
}

fn a_seccomp_profile_is_in_force(case: &mut Case) -> Result<()> {
    let script =
        "grep ^Seccomp: /proc/self/status; mkdir /tmp/d && echo made; hostname >/dev/null && echo alive";
    let mut bundle = case.shell(script)?;
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    bundle.set("/linux/seccomp", profile);
    let finished = case.run(&bundle)?.success()?;
    ensure!(host::find_field(&finished.stdout, "Seccomp") == Some("2"), "{finished}");
    ensure!(!finished.stdout.contains("made") && finished.stdout.contains("alive"), "{finished}");
    ensure!(finished.stderr.contains("Function not implemented"), "errnoRet was ignored: {finished}");
    Ok(())
}

/// How long a runtime may take from its call to the terminal's arrival.
const TERMINAL_LIMIT: Duration = Duration::from_secs(5);

/// Accepts one connection and takes the descriptor that it brings.
pub fn receive_descriptor(listener: &UnixListener) -> Result<File> {
    ensure!(wait::readable_within(listener, TERMINAL_LIMIT), "nobody connected to the console socket");
    let (stream, _) = listener.accept().context("accept on the console socket")?;
    let (mut text, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).context("receive the terminal")?;
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(File::from(rights.next().context("no descriptor came")?))
}

fn a_terminal_goes_to_the_console_socket(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(
        "test -t 0 && test -t 1 && test -t 2 && readlink /proc/self/fd/0; read word; echo \"got $word\"",
    )?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let (path, id) = (case.directory().join("console"), case.id("terminal"));
    let listener = UnixListener::bind(&path)?;
    let create = ["create", "--bundle", text(&bundle.path)?, "--console-socket", text(&path)?, &id];
    let creating = case.runtime.spawn(&create, None)?;
    let mut master = receive_descriptor(&listener)?;
    creating.finish()?.success()?;
    case.runtime.ok(&["start", &id])?;
    let mut lines = vec![wait::line(&mut master, wait::STEP)?];
    master.write_all(b"word\n")?;
    // The terminal echoes what is typed.
    for _ in 0..2 {
        lines.push(wait::line(&mut master, wait::STEP)?);
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    ensure!(lines[0].starts_with("/dev/") && lines[1..] == ["word", "got word"], "{lines:?}");
    Ok(())
}

fn a_terminal_without_a_console_socket_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let id = case.id("terminal");
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &["console"])?;
    bundle.set("/process/terminal", json!(false));
    case.create_as(&bundle, &id).map(drop)
}

fn the_program_is_pid_1_and_leads_its_session(case: &mut Case) -> Result<()> {
    let finished = case.run_shell("echo $$; awk '{print $6}' /proc/self/stat")?;
    ensure!(finished.lines() == ["1", "1"], "{finished}");
    Ok(())
}
