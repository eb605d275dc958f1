//! Sandboxes that a worker is forked into.

use nix::sched::CloneFlags;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use turf_core::sandbox::enter;
use turf_core::sandbox::gate::{self, Gate, WorkerStart};
use turf_core::sandbox::init::Created;
use turf_core::sandbox::plan::Plan;
use turf_core::sys::fork::{Destination, Fork, fork_into};
use turf_core::sys::namespace::{Cloned, clone_process};
use turf_core::sys::process::{exit_now, wait_for};

use crate::support::*;

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
    if let Err(error) =
        enter::apply_process(&plan.process, &mut |_| Err(std::io::ErrorKind::Unsupported.into()))
    {
        let _ = fs::write("/dev/stderr", format!("{error}\n"));
        exit_now(99);
    }
    gate::report_running(connection.as_fd()).unwrap();
}

pub fn a_worker_runs_and_init_exits_with_its_status() {
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

pub fn a_worker_that_dies_by_a_signal_shows_it() {
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

pub fn a_worker_that_ends_before_it_runs_is_reported() {
    let case = Case::worker();
    let created = case.create().unwrap();
    let gate = Gate::connect(&case.container()).unwrap();
    gate.prepare_worker().unwrap();
    fork_worker(&created, &gate, |_| 5);
    let WorkerStart::Ended(status) = gate.wait_running(SOON).unwrap() else { panic!("the worker runs") };
    assert_eq!(exited(status), Some(5));
    assert_eq!(exited(wait_for(created.pid).unwrap()), Some(5));
}

pub fn a_start_that_dies_before_the_worker_leaves_init_waiting() {
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

pub fn a_worker_is_adopted_when_start_dies() {
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

pub fn signals_are_passed_on_to_the_worker() {
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
    // As `turf start` does: from here on only H holds the connection.
    drop(gate);
    if release == Release::Worker {
        drop(hold);
    }
    let status = wait_for(created.pid).unwrap();
    wait_for(helper).unwrap();
    status
}

pub fn a_relayed_worker_ends_init_with_its_status() {
    let status = relayed(Release::Worker, |connection, worker| {
        gate::report_exit(connection.as_fd(), wait_for(worker).unwrap()).unwrap();
    });
    // Init is no first process here, so it can end by the same signal.
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGUSR2, "{status:#x}");
}

pub fn a_relay_that_dies_takes_the_worker_along() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let status = relayed(Release::Nobody, |_, _| {});
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status:#x}");
    let orphan = nix::sys::wait::wait().unwrap();
    assert!(matches!(orphan, nix::sys::wait::WaitStatus::Signaled(..)), "{orphan:?}");
    nix::sys::prctl::set_child_subreaper(false).unwrap();
}

pub fn a_bundle_without_an_image_has_a_root() {
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
