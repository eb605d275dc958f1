//! `start`: lets the program of a created container run.
//!
//! For a program init does it all. For a worker this process connects the two who know nothing of each other: init,
//! which waits at the gate, and the seed, which forks ([`super::ready`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use super::hook::{self, Purpose};
use super::process::ProcessId;
use super::ready::Ready;
use super::state::{Creator, State};
use super::status::{Event, Status};
use crate::cgroup::wait_for_exit;
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::root::{ContainerDir, ContainerId, Lock, StateRoot};
use crate::sandbox::exec::{self, ExecOptions};
use crate::sandbox::gate::Gate;
use crate::sandbox::plan::{HookPlan, ListenAddress, Plan, WorkloadPlan};
use crate::sandbox::{hooks, seccomp_agent};
use crate::seed::protocol::Timeline;
use crate::sys::pidfd::pidfd_send_signal;

/// Starts a created container. `listeners` are sockets for a worker to accept on, besides those that
/// `create` was handed; a program cannot be given any more at this point. Returns when a worker's start reached its
/// milestones; a program has none.
pub fn start(root: &StateRoot, id: &ContainerId, listeners: &[OwnedFd]) -> Result<Option<Timeline>> {
    let dir = root.container(id);
    let lock = dir.lock()?;
    let (state, plan) = State::load_with_plan(&dir)?;
    check_created(&state, &dir)?;
    fault::at(Point::StartLoaded)?;
    start_created(root, Created { dir, lock, state, plan }, &borrow(listeners)).map(|(timeline, _)| timeline)
}

/// A container that is known to be created, and is locked.
pub(super) struct Created {
    pub(super) dir: ContainerDir,
    pub(super) lock: Lock,
    pub(super) state: State,
    pub(super) plan: Plan,
}

/// Starts it, and gives its lock back.
pub(super) fn start_created(
    root: &StateRoot,
    created: Created,
    listeners: &[BorrowedFd<'_>],
) -> Result<(Option<Timeline>, Lock)> {
    let Created { dir, lock, state, plan } = created;
    match &plan.workload {
        WorkloadPlan::Exec if !listeners.is_empty() => {
            Err(Error::invalid("--listen", "is for workers; this bundle runs a program"))
        }
        WorkloadPlan::Exec if plan.process.args.is_empty() => {
            Err(Error::invalid("config.json: $.process", "must be there: it says what to run"))
        }
        WorkloadPlan::Exec => {
            let init = state.init.as_ref().ok_or_else(|| stopped(&state))?;
            start_program(&dir, &state, &plan, init)?;
            fault::at(Point::StartRunning)?;
            run_poststart(&dir, &plan, init)?;
            Ok((None, lock))
        }
        WorkloadPlan::Worker { .. } => {
            let ready = Ready::open(root, dir, state, plan)?;
            let (timeline, lock) = ready.fork(lock, listeners, None)?.wait()?;
            Ok((Some(timeline), lock))
        }
    }
}

/// Refuses a container that may not be started. The caller holds its lock.
fn check_created(state: &State, dir: &ContainerDir) -> Result<()> {
    let status = state.status(dir, Creator::Gone)?;
    match state.init {
        Some(_) if status.allows(Event::Started) => Ok(()),
        Some(_) | None => Err(Error::WrongStatus { id: dir.id().to_string(), verb: "start", status }),
    }
}

fn start_program(dir: &ContainerDir, state: &State, plan: &Plan, init: &ProcessId) -> Result<()> {
    run_start_container(dir, plan, state, init)?;
    let started = Gate::connect(dir.path())?.start_program_with_agent(|number| {
        let pidfd = init.open()?.ok_or_else(|| stopped(state))?;
        introduce(plan, init.pid, init.pid, pidfd.as_fd(), number)
    });
    if let Err(Error::Remote { .. }) = &started
        && let Some(pidfd) = init.open()?
    {
        // init has said why, and ends: whoever asks next shall not see it still ending.
        wait_for_exit(pidfd.as_fd(), Instant::now() + limits::INIT_EXIT)?;
    }
    started
}

/// Kills init, and returns when it has exited.
pub(super) fn end(init: BorrowedFd<'_>) -> Result<()> {
    match pidfd_send_signal(init, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        sent => {
            sent.operation(|| "kill the container")?;
            wait_for_exit(init, Instant::now() + limits::INIT_EXIT).map(drop)
        }
    }
}

/// Gives the seccomp agent of the plan a descriptor of the process that is about to run.
pub(super) fn introduce(
    plan: &Plan,
    init_pid: i32,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    number: i32,
) -> Result<()> {
    let status = Status::Created.as_str();
    let process =
        seccomp_agent::Process { plan: &plan.process, state: &plan.init.state, init_pid, status, pid, pidfd };
    seccomp_agent::introduce(&process, number)
}

pub(super) fn stopped(state: &State) -> Error {
    Error::WrongStatus { id: state.id.to_string(), verb: "start", status: Status::Stopped }
}

pub(super) fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// Runs the `startContainer` hooks inside the sandbox. If one fails the container is stopped (OCI: runtime.md,
/// "Lifecycle").
pub(super) fn run_start_container(
    dir: &ContainerDir,
    plan: &Plan,
    state: &State,
    init: &ProcessId,
) -> Result<()> {
    if plan.hooks.start_container.is_empty() {
        return Ok(());
    }
    let pid = init.pid_inside()?;
    let shown = hooks::state_json(&plan.init.state, Status::Created.as_str(), pid);
    let cgroup = state.cgroup.open_for_join()?;
    let enter = |hook: &HookPlan, stdio: [BorrowedFd<'_>; 3]| {
        exec::spawn(&ExecOptions {
            init_pid: init.pid,
            init: init.open()?.ok_or_else(|| stopped(state))?,
            sandbox: &plan.init,
            run: exec::Run::Hook(hook, &plan.process),
            cgroup: &cgroup,
            preserve_fds: 0,
            console_socket: None,
            stdio: Some(stdio),
        })
    };
    let record = hook::record(dir, Purpose::Begin);
    hooks::run_inside("startContainer", &plan.hooks.start_container, &shown, Some(&record), enter).map_err(
        |failed| {
            let stop = || init.open()?.map_or(Ok(()), |pidfd| end(pidfd.as_fd()));
            Error::from(failed).and_clean_up(stop())
        },
    )
}

/// Runs the `poststart` hooks. If one fails the container is stopped (OCI: runtime.md, "Lifecycle").
pub(super) fn run_poststart(dir: &ContainerDir, plan: &Plan, init: &ProcessId) -> Result<()> {
    if plan.hooks.poststart.is_empty() {
        return Ok(());
    }
    let shown = hooks::state_json(&plan.init.state, Status::Running.as_str(), init.pid);
    let bundle = Path::new(&plan.init.state.bundle);
    let record = hook::record(dir, Purpose::Begin);
    hooks::run("poststart", &plan.hooks.poststart, bundle, &shown, Some(&record)).map_err(|failed| {
        let kill = || init.open()?.map_or(Ok(()), |pidfd| end(pidfd.as_fd()));
        Error::from(failed).and_clean_up(kill())
    })
}

/// Opens listening sockets in the namespaces of the caller, for [`start`].
pub fn open_listeners(addresses: &[ListenAddress]) -> Result<Vec<OwnedFd>> {
    if addresses.len() > limits::LISTENERS {
        let reason = format!("at most {} addresses are allowed", limits::LISTENERS);
        return Err(Error::invalid("--listen", reason));
    }
    addresses.iter().map(super::listen::open).collect()
}
