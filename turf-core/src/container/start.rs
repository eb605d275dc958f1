//! `start`: lets the program of a created container run.
//!
//! For a program init does it all. For a worker this process connects the two who know nothing of
//! each other: init, which waits at the gate, and the seed, which forks. If `start` dies, or the seed
//! does, before a worker is born, init goes back to waiting: the container is still created.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::hook::{self, Purpose};
use super::process::ProcessId;
use super::state::{Creator, State};
use super::status::{Event, Status};
use crate::cgroup::{move_beside, wait_for_exit};
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::root::{ContainerDir, ContainerId, StateRoot};
use crate::sandbox::exec::{self, ExecOptions};
use crate::sandbox::gate::{Gate, WorkerStart};
use crate::sandbox::plan::{HookPlan, ListenAddress, NamespaceKind, Plan, WorkloadPlan};
use crate::sandbox::{hooks, seccomp_agent};
use crate::seed::client::{Fork, receive_report, report_channel};
use crate::seed::plan::{WorkerLimits, WorkerPlan};
use crate::seed::protocol::{ForkFds, GroupEntry, Namespaces, Reaper, Report, SupervisionFds, Timeline};
use crate::seed::registry::{ForkError, Registry, SeedName};
use crate::sys::pidfd::{pidfd_getfd, pidfd_open, pidfd_send_signal};

/// A worker's ties to the supervisor of its pool.
#[derive(Debug, Clone, Copy)]
pub struct Supervised<'a> {
    /// The channel and the gauges.
    pub fds: SupervisionFds<BorrowedFd<'a>>,
    /// What the pool asks of its workers.
    pub limits: WorkerLimits,
}

/// Starts a created container. `listeners` are sockets for a worker to accept on, besides those that
/// `create` was handed; a program cannot be given any more at this point. Returns when a worker's start reached its
/// milestones; a program has none.
pub fn start(root: &StateRoot, id: &ContainerId, listeners: &[OwnedFd]) -> Result<Option<Timeline>> {
    start_supervised(root, id, &borrow(listeners), None)
}

/// As [`start`], for a worker of a pool.
pub fn start_supervised(
    root: &StateRoot,
    id: &ContainerId,
    listeners: &[BorrowedFd<'_>],
    supervised: Option<Supervised<'_>>,
) -> Result<Option<Timeline>> {
    let dir = root.container(id);
    let _lock = dir.lock()?;
    let (state, plan) = State::load_with_plan(&dir)?;
    fault::at(Point::StartLoaded)?;
    let status = state.status(&dir, Creator::Gone)?;
    let init = match &state.init {
        Some(init) if status.allows(Event::Started) => init,
        Some(_) | None => return Err(Error::WrongStatus { id: id.to_string(), verb: "start", status }),
    };
    start_created(&Starting { root, dir: &dir, state: &state, plan: &plan, init, supervised }, listeners)
}

/// Starts a container that is known to be created, and is locked.
pub(super) fn start_created(
    starting: &Starting<'_>,
    listeners: &[BorrowedFd<'_>],
) -> Result<Option<Timeline>> {
    let Starting { dir, state, plan, init, supervised, .. } = *starting;
    let timeline = match &plan.workload {
        WorkloadPlan::Exec if !listeners.is_empty() => {
            return Err(Error::invalid("--listen", "is for workers; this bundle runs a program"));
        }
        WorkloadPlan::Exec if plan.process.args.is_empty() => {
            return Err(Error::invalid("config.json: $.process", "must be there: it says what to run"));
        }
        WorkloadPlan::Exec => {
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
            started?;
            None
        }
        WorkloadPlan::Worker { seed, listen } => {
            run_start_container(dir, plan, state, init)?;
            let worker = WorkerPlan {
                process: plan.process.clone(),
                listen: listen.clone(),
                limits: supervised.map(|supervised| supervised.limits),
            };
            Some(start_worker(starting, seed, &worker, listeners)?)
        }
    };
    fault::at(Point::StartRunning)?;
    run_poststart(dir, plan, init)?;
    Ok(timeline)
}

/// A container that is to be started, and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Starting<'a> {
    pub(super) root: &'a StateRoot,
    pub(super) dir: &'a ContainerDir,
    pub(super) state: &'a State,
    pub(super) plan: &'a Plan,
    pub(super) init: &'a ProcessId,
    pub(super) supervised: Option<Supervised<'a>>,
}

impl Starting<'_> {
    /// A seed that runs user code gets no descriptor of a control group: it could move other processes with it.
    fn group_entry(&self) -> GroupEntry {
        if self.plan.init.owner.is_some() { GroupEntry::Moved } else { GroupEntry::Itself }
    }
}

fn start_worker(
    starting: &Starting<'_>,
    seed: &str,
    worker: &WorkerPlan,
    listeners: &[BorrowedFd<'_>],
) -> Result<Timeline> {
    let worker = worker.encode()?;
    let (registry, name) = (Registry::new(starting.root), seed.parse()?);
    for _ in 1..limits::SEED_FORK_ATTEMPTS {
        match try_seed(starting, &registry, &name, &worker, listeners)? {
            Tried::Running(timeline) => return Ok(timeline),
            Tried::Lost(_) => {}
        }
    }
    match try_seed(starting, &registry, &name, &worker, listeners)? {
        Tried::Running(timeline) => Ok(timeline),
        Tried::Lost(error) => Err(error),
    }
}

/// What became of one request to a seed.
enum Tried {
    Running(Timeline),
    /// The seed ended over it, and no worker was born: init waits as before.
    Lost(Error),
}

fn try_seed(
    starting: &Starting<'_>,
    registry: &Registry,
    name: &SeedName,
    worker: &[u8],
    listeners: &[BorrowedFd<'_>],
) -> Result<Tried> {
    // The seed first: if there is none, init need not hear of it.
    let seed = registry.connect(name)?;
    fault::at(Point::StartSeedConnected)?;
    let pidfd = starting.init.open()?.ok_or_else(|| stopped(starting.state))?;
    let inherited = inherited_fds(pidfd.as_fd(), starting.state)?;
    let groups = starting.group_entry();
    let cgroups = match groups {
        GroupEntry::Itself => starting.state.cgroup.open_for_join()?,
        GroupEntry::Moved => Vec::new(),
    };
    let gate = Gate::connect(starting.dir.path())?;
    gate.prepare_worker()?;
    fault::at(Point::StartPrepared)?;
    let (report, workers_end) = report_channel()?;
    let fork = Fork {
        container: starting.state.id.as_str(),
        namespaces: namespaces(starting.plan)?,
        reaper: if starting.plan.init.has_new_pid_namespace() { Reaper::Init } else { Reaper::Relay },
        groups,
        plan: worker,
        fds: ForkFds {
            init: pidfd.as_fd(),
            cgroups: borrow(&cgroups),
            stdio: [inherited.stdio[0].as_fd(), inherited.stdio[1].as_fd(), inherited.stdio[2].as_fd()],
            listeners: borrow(&inherited.listeners).into_iter().chain(listeners.iter().copied()).collect(),
            report: workers_end.as_fd(),
            gate: gate.as_fd(),
            supervision: starting.supervised.map(|supervised| supervised.fds),
        },
    };
    let forked = registry.fork(name, seed, &fork);
    // Without this copy of ours a worker that dies without a word is noticed at once.
    drop(workers_end);
    let lost = match forked {
        Ok(_) => None,
        Err(ForkError::Before(error)) => return Err(error),
        // Its last worker, or none: if there is one, it holds the other end of the report.
        Err(ForkError::Unknown(error)) => Some(error),
    };
    match (follow_worker(starting, report, gate, pidfd.as_fd()), lost) {
        (Ok(timeline), _) => Ok(Tried::Running(timeline)),
        (Err(Error::Remote { .. }), Some(lost)) => Ok(Tried::Lost(lost)),
        // The worker has ended by itself, and init ends with its status.
        (Err(error @ Error::Remote { .. }), None) => Err(error),
        // A start that fails leaves nothing that might still begin to run.
        (Err(error), _) => Err(error.and_clean_up(end(pidfd.as_fd()))),
    }
}

/// From the fork until the worker runs.
fn follow_worker(
    starting: &Starting<'_>,
    report: OwnedFd,
    gate: Gate,
    init: BorrowedFd<'_>,
) -> Result<Timeline> {
    fault::at(Point::StartForked)?;
    let mut groups = starting.group_entry();
    let timeline = loop {
        let (said, worker_pid) = receive_report(report.as_fd(), limits::WORKER_RUNNING)?;
        match said {
            Report::Failed(refusal) => return Err(Error::Remote { text: refusal.text }),
            Report::Born if groups == GroupEntry::Moved => {
                move_beside(worker_pid, starting.init.pid)?;
                groups = GroupEntry::Itself;
                seccomp_agent::go_on(report.as_fd()).operation(|| "send to the worker")?;
            }
            Report::Running(timeline) if groups == GroupEntry::Itself => break timeline,
            Report::Born | Report::Running(_) => {
                return Err(Error::invalid("the seed's worker", "is not in the container's control groups"));
            }
            Report::Notifications(number) => {
                let worker = pidfd_open(worker_pid).operation(|| format!("open the worker {worker_pid}"))?;
                introduce(starting.plan, starting.init.pid, worker_pid, worker.as_fd(), number)?;
                seccomp_agent::go_on(report.as_fd()).operation(|| "send to the worker")?;
            }
        }
    };
    drop(report);
    fault::at(Point::StartReported)?;
    match gate.wait_running(limits::WORKER_RUNNING) {
        Ok(WorkerStart::Running) => Ok(timeline),
        // It did run, as it said itself, and has ended since.
        Ok(WorkerStart::Ended(_)) => Ok(timeline),
        Err(error @ Error::TimedOut { .. }) => Err(error),
        // And init with it, before it could say so.
        Err(error) => {
            let has_ended = wait_for_exit(init, Instant::now() + limits::INIT_EXIT)?;
            if has_ended { Ok(timeline) } else { Err(error) }
        }
    }
}

/// Kills init, and returns when it has exited.
fn end(init: BorrowedFd<'_>) -> Result<()> {
    match pidfd_send_signal(init, libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        sent => {
            sent.operation(|| "kill the container")?;
            wait_for_exit(init, Instant::now() + limits::INIT_EXIT).map(drop)
        }
    }
}

/// Gives the seccomp agent of the plan a descriptor of the process that is about to run.
fn introduce(plan: &Plan, init_pid: i32, pid: i32, pidfd: BorrowedFd<'_>, number: i32) -> Result<()> {
    let status = Status::Created.as_str();
    let process =
        seccomp_agent::Process { plan: &plan.process, state: &plan.init.state, init_pid, status, pid, pidfd };
    seccomp_agent::introduce(&process, number)
}

fn stopped(state: &State) -> Error {
    Error::WrongStatus { id: state.id.to_string(), verb: "start", status: Status::Stopped }
}

pub(super) fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// What init holds for the worker.
struct Inherited {
    stdio: [OwnedFd; 3],
    listeners: Vec<OwnedFd>,
}

fn inherited_fds(init: BorrowedFd<'_>, state: &State) -> Result<Inherited> {
    let take = |number: i32| {
        pidfd_getfd(init, number).operation(|| format!("take descriptor {number} of the container's init"))
    };
    let listeners = (0..state.listen_fds as i32).map(|index| take(3 + index)).collect::<Result<_>>()?;
    Ok(Inherited { stdio: [take(0)?, take(1)?, take(2)?], listeners })
}

/// The namespaces in which init is and the caller is not.
fn namespaces(plan: &Plan) -> Result<Namespaces> {
    let bits = plan.init.namespaces.iter().fold(0, |bits, namespace| bits | clone_flag(namespace.kind));
    Namespaces::from_bits(bits)
        .ok_or_else(|| Error::invalid("the container's namespaces", "are unknown to the seed"))
}

fn clone_flag(kind: NamespaceKind) -> u32 {
    /// Not in the C library's set for clone(2); from linux/sched.h.
    const CLONE_NEWTIME: u32 = 0x80;
    match kind {
        NamespaceKind::User => libc::CLONE_NEWUSER as u32,
        NamespaceKind::Pid => libc::CLONE_NEWPID as u32,
        NamespaceKind::Network => libc::CLONE_NEWNET as u32,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC as u32,
        NamespaceKind::Uts => libc::CLONE_NEWUTS as u32,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP as u32,
        NamespaceKind::Time => CLONE_NEWTIME,
        NamespaceKind::Mount => libc::CLONE_NEWNS as u32,
    }
}

/// Runs the `startContainer` hooks inside the sandbox. If one fails the container is stopped (OCI: runtime.md,
/// "Lifecycle").
fn run_start_container(dir: &ContainerDir, plan: &Plan, state: &State, init: &ProcessId) -> Result<()> {
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
            run: exec::Run::Hook(hook),
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
fn run_poststart(dir: &ContainerDir, plan: &Plan, init: &ProcessId) -> Result<()> {
    if plan.hooks.poststart.is_empty() {
        return Ok(());
    }
    let shown = hooks::state_json(&plan.init.state, Status::Running.as_str(), init.pid);
    hooks::run("poststart", &plan.hooks.poststart, &shown, Some(&hook::record(dir, Purpose::Begin))).map_err(
        |failed| {
            let kill = || init.open()?.map_or(Ok(()), |pidfd| end(pidfd.as_fd()));
            Error::from(failed).and_clean_up(kill())
        },
    )
}

/// Opens listening sockets in the namespaces of the caller, for [`start`].
pub fn open_listeners(addresses: &[ListenAddress]) -> Result<Vec<OwnedFd>> {
    if addresses.len() > limits::LISTENERS {
        let reason = format!("at most {} addresses are allowed", limits::LISTENERS);
        return Err(Error::invalid("--listen", reason));
    }
    addresses.iter().map(super::listen::open).collect()
}
