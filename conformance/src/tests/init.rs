//! Init, the first process of a container: what it weighs, what it shows, and that it outlives everything that is done to it.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::wait::WaitStatus;
use serde_json::json;

use super::worker::{HELLO, worker_of};
use crate::bundle::Bundle;
use crate::case::{Case, Container, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "init";
    Turf:
        init_needs_at_most_100_kb,
        a_created_container_is_one_process,
        init_shows_nothing_of_the_host,
        every_signal_reaches_the_worker,
        init_ends_by_a_signal_before_the_start,
        init_reaps_whatever_it_inherits,
        init_cannot_be_looked_into,
        init_outlives_signals_from_inside,
        init_outlives_a_full_pids_group,
        killing_everything_inside_ends_the_container,
        nonsense_at_the_gate_does_not_keep_the_container_from_starting;
}

/// Private memory and page tables together, in kB.
const MOST_KB: u64 = 100;

/// Everything that one init costs in memory: all of its resident pages, as if it shared none, the pages of its
/// program's file that are not mapped, and its page tables.
fn weight_kb(pid: i32) -> Result<u64> {
    let program = fs::metadata(format!("/proc/{pid}/exe"))?.st_blocks() / 2;
    Ok(host::kilobytes(pid, "smaps_rollup", "Rss")? + program + host::kilobytes(pid, "status", "VmPTE")?)
}

/// A bundle with what engines give: a long environment and a system call filter of many names.
fn heavy(case: &mut Case) -> Result<Bundle> {
    let mut bundle = case.shell("exec sleep 1000")?;
    for number in 0..40 {
        bundle.push("/process/env", json!(format!("VARIABLE_{number}={}", "value".repeat(8))));
    }
    let names = [
        "mkdir",
        "mkdirat",
        "rename",
        "renameat",
        "link",
        "linkat",
        "unlink",
        "unlinkat",
        "symlink",
        "chmod",
        "fchmod",
        "chown",
        "fchown",
        "lchown",
        "mount",
        "umount2",
        "ptrace",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "request_key",
        "reboot",
        "swapon",
        "swapoff",
        "init_module",
        "delete_module",
        "kexec_load",
    ];
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}]}),
    );
    Ok(bundle)
}

fn init_needs_at_most_100_kb(case: &mut Case) -> Result<()> {
    let light = |what: &str, container: &Container| -> Result<()> {
        let weight = weight_kb(container.pid)?;
        ensure!(weight <= MOST_KB, "{what}: {weight} kB");
        Ok(())
    };
    let bundle = heavy(case)?;
    let container = case.create(&bundle)?;
    light("waiting for a program", &container)?;
    case.remove(&container)?;
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    light("waiting for a worker", &container)?;
    let address = case.start_listening(&container)?;
    ensure!(http::get(address, "/")?.status == 200);
    light("with a worker that runs", &container)?;
    case.remove(&container)
}

fn a_created_container_is_one_process(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    ensure!(host::children_of(container.pid).is_empty());
    let own = std::process::id().cast_signed();
    ensure!(host::children_of(own) == [container.pid], "{:?}", host::children_of(own));
    ensure!(case.seeds().is_empty(), "a seed was started");
    let threads = host::field(container.pid, "status", "Threads")?;
    ensure!(threads == "1", "{threads} threads");
    case.remove(&container)
}

fn init_shows_nothing_of_the_host(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    let shown = |file: &str| -> Result<String> {
        let bytes = fs::read(format!("/proc/{}/{file}", container.pid))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let link = |file: &str| fs::read_link(format!("/proc/{}/{file}", container.pid));
    ensure!(shown("environ")?.is_empty(), "{}", shown("environ")?);
    ensure!(shown("cmdline")?.trim_end_matches('\0') == "turf-init", "{}", shown("cmdline")?);
    ensure!(shown("comm")?.trim() == "turf:init", "{}", shown("comm")?);
    ensure!(link("cwd")?.as_os_str() == "/" && link("root")?.as_os_str() == "/");
    let program = link("exe")?;
    ensure!(text(&program)?.starts_with("/memfd:"), "{}", program.display());
    let runtime = text(case.runtime.program().parent().context("the runtime is in a directory")?)?.to_owned();
    for file in ["maps", "mountinfo"] {
        for secret in [runtime.as_str(), "/runtime"] {
            ensure!(!shown(file)?.contains(secret), "{file} shows {secret}: {}", shown(file)?);
        }
    }
    let mapped: Vec<String> =
        shown("maps")?.lines().filter_map(|line| Some(line.split_once('/')?.1.to_owned())).collect();
    ensure!(mapped.iter().all(|path| path.starts_with("memfd:turf-init")), "{mapped:?}");
    case.remove(&container)
}

/// SIGHUP, SIGUSR2, the two that C libraries keep for themselves, the first and the last of a program's real-time ones.
const DEADLY_SIGNALS: [i32; 6] = [1, 12, 32, 33, 34, 64];

fn every_signal_reaches_the_worker(case: &mut Case) -> Result<()> {
    for signal in DEADLY_SIGNALS {
        let bundle = case.worker(HELLO)?;
        let (container, _) = case.serve(&bundle)?;
        // To init alone: what ends the worker was passed on.
        case.runtime.ok(&["kill", &container.id, &signal.to_string()])?;
        let ended = case.wait(&container)?;
        ensure!(
            matches!(ended, WaitStatus::Exited(_, code) if code == 128 + signal),
            "signal {signal}: {ended:?}"
        );
        case.runtime.ok(&["delete", &container.id])?;
    }
    Ok(())
}

fn init_ends_by_a_signal_before_the_start(case: &mut Case) -> Result<()> {
    for signal in [15, 1, 32, 34, 64] {
        for is_worker in [true, false] {
            let bundle = if is_worker { case.worker(HELLO)? } else { case.shell("exec sleep 1000")? };
            let container = case.create(&bundle)?;
            // What is harmless to a process is harmless here.
            for harmless in ["WINCH", "CHLD", "URG", "CONT"] {
                case.runtime.ok(&["kill", &container.id, harmless])?;
            }
            ensure!(case.runtime.status(&container.id)? == "created");
            case.runtime.ok(&["kill", &container.id, &signal.to_string()])?;
            let ended = case.wait(&container)?;
            ensure!(
                matches!(ended, WaitStatus::Exited(_, code) if code == 128 + signal),
                "signal {signal}: {ended:?}"
            );
            ensure!(case.runtime.status(&container.id)? == "stopped");
            case.runtime.ok(&["delete", &container.id])?;
        }
    }
    Ok(())
}

/// A worker with the tools of a shell in its root, for `exec`.
fn worker_with_tools(case: &mut Case) -> Result<Bundle> {
    let mut bundle = case.worker(HELLO)?;
    crate::bundle::make_root(&bundle.path.join("rootfs"))?;
    bundle.set("/root", json!({"path": "rootfs"}));
    bundle.push("/mounts", json!({"destination": "/proc", "type": "proc", "source": "proc"}));
    Ok(bundle)
}

impl Case {
    /// `exec` of a shell script, which must succeed.
    fn inside(&mut self, container: &Container, script: &str) -> Result<String> {
        Ok(self.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", script])?.stdout)
    }
}

/// Waits until init has no child but its worker, dead ones included.
fn only_the_worker_is_left(container: &Container, worker: i32) -> Result<()> {
    let end = Instant::now() + wait::STEP;
    loop {
        let children: Vec<i32> = host::processes()
            .into_iter()
            .filter(|process| process.parent == container.pid)
            .map(|process| process.pid)
            .collect();
        if children == [worker] {
            return Ok(());
        }
        ensure!(Instant::now() < end, "init has the children {children:?}");
        std::thread::yield_now();
    }
}

fn init_reaps_whatever_it_inherits(case: &mut Case) -> Result<()> {
    let bundle = worker_with_tools(case)?;
    let (container, address) = case.serve(&bundle)?;
    let worker = worker_of(&container)?;
    // Orphans: those that end at once, and those that outlive their parent.
    case.inside(
        &container,
        "i=0; while [ $i -lt 200 ]; do i=$((i + 1)); (true & cat /proc/uptime >/dev/null &); done",
    )?;
    only_the_worker_is_left(&container, worker)?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(case.runtime.status(&container.id)? == "running");
    case.remove(&container)
}

fn init_cannot_be_looked_into(case: &mut Case) -> Result<()> {
    let bundle = worker_with_tools(case)?;
    let (container, _) = case.serve(&bundle)?;
    // Root inside, but without CAP_SYS_PTRACE.
    let script = "cd /proc/1; for file in exe cwd root fd/*; do readlink $file && echo leaked $file; done
      for file in environ maps mem; do head -c 1 $file && echo leaked $file; done; echo tried";
    let seen = case.runtime.call(&["exec", &container.id, "/bin/sh", "-c", script])?;
    ensure!(seen.stdout == "tried\n", "{seen}");
    case.remove(&container)
}

fn init_outlives_signals_from_inside(case: &mut Case) -> Result<()> {
    let bundle = worker_with_tools(case)?;
    let (container, address) = case.serve(&bundle)?;
    // KILL and STOP do not reach the first process of a pid namespace from inside; a flood of harmless ones does.
    case.inside(&container, "kill -KILL 1; kill -STOP 1; i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); kill -WINCH 1; kill -CHLD 1; kill -URG 1; done")?;
    ensure!(http::get(address, "/")?.status == 200);
    ensure!(case.runtime.status(&container.id)? == "running");
    case.runtime.ok(&["kill", &container.id, "TERM"])?;
    let ended = case.wait(&container)?;
    ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

fn init_outlives_a_full_pids_group(case: &mut Case) -> Result<()> {
    let mut bundle = worker_with_tools(case)?;
    bundle.set("/linux/resources/pids", json!({"limit": 8}));
    let (container, address) = case.serve(&bundle)?;
    let worker = worker_of(&container)?;
    let bomb = "i=0; while [ $i -lt 30 ]; do i=$((i + 1)); sleep 1000 & done; wait";
    let full = case.runtime.spawn(&["exec", &container.id, "/bin/sh", "-c", bomb], None)?.finish()?;
    ensure!(!full.status.success(), "{full}");
    // Busy to the last place: init needs none to go on.
    ensure!(http::get(address, "/")?.status == 200);
    for process in host::children_of(container.pid).into_iter().filter(|pid| *pid != worker) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL)?;
    }
    only_the_worker_is_left(&container, worker)?;
    ensure!(case.runtime.status(&container.id)? == "running");
    case.remove(&container)
}

fn killing_everything_inside_ends_the_container(case: &mut Case) -> Result<()> {
    let bundle = worker_with_tools(case)?;
    let (container, _) = case.serve(&bundle)?;
    let all =
        case.runtime.call(&["exec", &container.id, "/bin/sh", "-c", "kill -KILL -1; exec sleep 1000"])?;
    ensure!(!all.status.success(), "{all}");
    let ended = case.wait(&container)?;
    ensure!(matches!(ended, WaitStatus::Exited(_, 137)), "{ended:?}");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    case.runtime.ok(&["delete", &container.id]).map(drop)
}

/// Connections to the gate that say nothing, or nonsense, or leave at once.
const INTRUDERS: usize = 300;

fn nonsense_at_the_gate_does_not_keep_the_container_from_starting(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exit 7")?;
    let worker = case.worker(HELLO)?;
    for (bundle, is_worker) in [(bundle, false), (worker, true)] {
        let container = disturb(case, &bundle)?;
        if is_worker {
            let address = case.start_listening(&container)?;
            ensure!(http::get(address, "/")?.status == 200);
            case.remove(&container)?;
            continue;
        }
        case.runtime.ok(&["start", &container.id])?;
        let ended = case.wait(&container)?;
        ensure!(matches!(ended, WaitStatus::Exited(_, 7)), "{ended:?}");
        case.runtime.ok(&["delete", &container.id])?;
    }
    Ok(())
}

/// A created container whose gate has seen intruders.
fn disturb(case: &mut Case, bundle: &Bundle) -> Result<Container> {
    let container = case.create(bundle)?;
    let gate = case.runtime.root().join("containers").join(&container.id).join("gate.sock");
    // A socket of another type is turned away by the kernel.
    ensure!(UnixDatagram::unbound()?.connect(&gate).is_err());
    for number in 0..INTRUDERS {
        let intruder = connect(&gate)?;
        let words: [&[u8]; 5] = [b"W", b"E\0\0\0\0", b"R", b"no such word, and too long", b""];
        // Init hangs up on whoever talks nonsense, so the words may come too late.
        let _ = nix::unistd::write(&intruder, words[number % words.len()]);
    }
    ensure!(case.runtime.status(&container.id)? == "created");
    Ok(container)
}

/// Connects as `turf start` does; waits while the queue is full.
fn connect(gate: &std::path::Path) -> Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(Duration::from_secs(10)),
    )?;
    connect(&socket, &SocketAddrUnix::new(gate)?)?;
    Ok(socket)
}
