//! A created worker container with everything at hand that its start needs, and a start that is on its way.
//!
//! ```text
//!   created --open--> Ready --fork: one message to the seed--> Starting --the worker reports--> running
//!                       |  |                                      |
//!                       |  +--fork_ahead--> Starting, waits --begin--+   (no user code before that)
//!                       |                                         |
//!                       +-- dropped: still created                +-- fails: the container is to be deleted
//! ```
//!
//! `turf start` does it in one go. Who starts many workers opens ahead of time ([`Ready`]), and takes the answers when
//! they come instead of waiting for them ([`Starting::hear`]).
//!
//! A [`Ready`] holds init's gate: init has been told that a worker comes, and listens to nobody else until the
//! connection ends. If its holder dies, or the seed does before a worker is born, init goes back to waiting: the
//! container is still created. A worker that was forked ahead ends when nobody is left who could tell it to begin, and
//! init with it: the container is stopped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fresh::Fresh;
use super::process::ProcessId;
use super::start::{borrow, end, introduce, run_poststart, run_start_container, stopped};
use super::state::State;
use crate::cgroup::{move_beside, wait_for_exit};
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::root::{ContainerDir, Lock, Released, StateRoot};
use crate::sandbox::gate::{Gate, WorkerStart};
use crate::sandbox::init;
use crate::sandbox::plan::{ListenAddress, NamespaceKind, Plan, WorkloadPlan};
use crate::sandbox::seccomp_agent;
use crate::seed::client::{Asked, ClientError, Fork, receive_report, report_channel, tell_to_begin};
use crate::seed::plan::{WorkerLimits, WorkerPlan};
use crate::seed::promotion;
use crate::seed::protocol::{
    Begin, ForkFds, GroupEntry, Namespaces, Reaper, Report, SupervisionFds, Timeline,
};
use crate::seed::registry::{Registry, SeedName};
use crate::sys::pidfd::{pidfd_getfd, pidfd_open};

/// A worker's ties to the supervisor of its pool.
#[derive(Debug, Clone, Copy)]
pub struct Supervised<'a> {
    /// The channel and the gauges.
    pub fds: SupervisionFds<BorrowedFd<'a>>,
    /// What the pool asks of its workers.
    pub limits: WorkerLimits,
}

/// A created container whose worker can be forked at once.
#[derive(Debug)]
pub struct Ready {
    root: StateRoot,
    dir: ContainerDir,
    /// What it was locked by.
    released: Option<Released>,
    state: State,
    plan: Plan,
    init: ProcessId,
    pidfd: OwnedFd,
    gate: Gate,
    /// None when the worker is there.
    for_worker: Option<ForWorker>,
}

/// What a seed is handed for the worker.
#[derive(Debug)]
struct ForWorker {
    cgroups: Vec<OwnedFd>,
    /// What init holds for it.
    stdio: [OwnedFd; 3],
    listeners: Vec<OwnedFd>,
}

impl Ready {
    /// Opens what the start of a container needs that this process has created; returns also its init, which is a
    /// child of this process. Nobody else can start the container while this lives, but any verb may end it.
    pub fn of(root: &StateRoot, fresh: Fresh) -> Result<(Ready, init::Created)> {
        let Fresh { dir, lock, state, plan, init, report: _ } = fresh;
        let mut ready = Ready::open(root, dir, state, plan)?;
        ready.released = Some(lock.release()?);
        Ok((ready, init))
    }

    /// The same of any created container; the caller has its lock.
    pub(super) fn open(root: &StateRoot, dir: ContainerDir, state: State, plan: Plan) -> Result<Ready> {
        let init = state.init.ok_or_else(|| stopped(&state))?;
        let pidfd = init.open()?.ok_or_else(|| stopped(&state))?;
        let take = |number: i32| {
            pidfd_getfd(pidfd.as_fd(), number)
                .operation(|| format!("take descriptor {number} of the container's init"))
        };
        let listeners = (0..state.listen_fds as i32).map(|index| take(3 + index)).collect::<Result<_>>()?;
        let stdio = [take(0)?, take(1)?, take(2)?];
        let cgroups = match group_entry(&plan) {
            GroupEntry::Itself => state.cgroup.open_for_join()?,
            GroupEntry::Moved => Vec::new(),
        };
        let gate = Gate::connect(dir.path())?;
        gate.prepare_worker()?;
        fault::at(Point::StartPrepared)?;
        let (root, released) = (root.clone(), None);
        let for_worker = Some(ForWorker { cgroups, stdio, listeners });
        Ok(Ready { root, dir, released, state, plan, init, pidfd, gate, for_worker })
    }

    /// A descriptor of init, readable when init has ended.
    pub fn init(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Forks the worker under the container's lock, which is refused if another verb has it. Nothing is waited for but
    /// hooks, and a default seed that must be made first.
    pub fn start(self, listeners: &[BorrowedFd<'_>], supervised: Supervised<'_>) -> Result<Starting> {
        let lock = self.lock()?;
        self.fork(lock, listeners, Some(supervised))
    }

    /// Forks the worker ahead of the container's start: it enters the sandbox, applies its plan, makes the memory its
    /// own that it will write to, and waits for [`Starting::begin`]. The container stays created.
    pub fn fork_ahead(self, supervised: Supervised<'_>) -> Result<Starting> {
        let lock = self.lock()?;
        self.ask_for_worker(lock, Begin::WhenTold, &[], Some(supervised))
    }

    fn lock(&self) -> Result<Lock> {
        let lock = match &self.released {
            Some(released) => self.dir.try_lock_again(released)?,
            None => self.dir.try_lock()?,
        };
        let busy = || Error::invalid(format!("container {}", self.state.id), "is busy with another verb");
        lock.ok_or_else(busy)
    }

    pub(super) fn fork(
        self,
        lock: Lock,
        listeners: &[BorrowedFd<'_>],
        supervised: Option<Supervised<'_>>,
    ) -> Result<Starting> {
        run_start_container(&self.dir, &self.plan, &self.state, &self.init)?;
        self.ask_for_worker(lock, Begin::AtOnce, listeners, supervised)
    }

    fn ask_for_worker(
        self,
        lock: Lock,
        begin: Begin,
        listeners: &[BorrowedFd<'_>],
        supervised: Option<Supervised<'_>>,
    ) -> Result<Starting> {
        let (seed, listen) = worker_of(&self.plan)?;
        let worker = WorkerPlan {
            process: self.plan.process.clone(),
            listen: listen.to_vec(),
            limits: supervised.map(|supervised| supervised.limits),
        };
        let request = Request {
            seed,
            worker: worker.encode()?,
            begin,
            listeners: duplicates(listeners)?,
            supervision: supervised.map(|supervised| duplicate_all(&supervised.fds)).transpose()?,
        };
        let stage = self.ask(&request)?;
        Ok(Starting { ready: self, lock: Some(lock), request, attempts: 1, stage })
    }

    fn ask(&self, request: &Request) -> Result<Stage> {
        let seed = Registry::new(&self.root).connect(&request.seed)?;
        fault::at(Point::StartSeedConnected)?;
        let (report, workers_end) = report_channel()?;
        let has_own_reaper = self.plan.init.has_new_pid_namespace();
        let for_worker = self.for_worker.as_ref().ok_or_else(|| {
            Error::invalid(format!("container {}", self.state.id), "has its worker already")
        })?;
        let listeners = borrow(&for_worker.listeners).into_iter().chain(borrow(&request.listeners)).collect();
        let promotion = match &self.plan.workload {
            WorkloadPlan::Worker { promotable: Some(_), .. } => Some(promotion::listen(self.dir.path())?),
            WorkloadPlan::Worker { promotable: None, .. } | WorkloadPlan::Exec => None,
        };
        let asked = seed.ask_for_worker(&Fork {
            container: self.state.id.as_str(),
            namespaces: namespaces(&self.plan)?,
            reaper: if has_own_reaper { Reaper::Init } else { Reaper::Relay },
            groups: group_entry(&self.plan),
            begin: request.begin,
            plan: &request.worker,
            fds: ForkFds {
                init: self.pidfd.as_fd(),
                cgroups: borrow(&for_worker.cgroups),
                stdio: for_worker.stdio.each_ref().map(AsFd::as_fd),
                listeners,
                // Without a copy of ours a worker that dies without a word is noticed at once.
                report: workers_end.as_fd(),
                gate: self.gate.as_fd(),
                supervision: request.supervision.as_ref().map(|fds| SupervisionFds {
                    channel: fds.channel.as_fd(),
                    peer: fds.peer.as_fd(),
                    gauges: fds.gauges.as_fd(),
                }),
                promotion: promotion.as_ref().map(AsFd::as_fd),
            },
        })?;
        Ok(Stage::Asked(asked, report))
    }
}

/// What a seed is asked, so that another one can be asked the same.
#[derive(Debug)]
struct Request {
    seed: SeedName,
    worker: Vec<u8>,
    begin: Begin,
    listeners: Vec<OwnedFd>,
    supervision: Option<SupervisionFds<OwnedFd>>,
}

fn duplicate(fd: &BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().operation(|| "duplicate a descriptor for a worker")
}

fn duplicates(fds: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>> {
    fds.iter().map(duplicate).collect()
}

fn duplicate_all(fds: &SupervisionFds<BorrowedFd<'_>>) -> Result<SupervisionFds<OwnedFd>> {
    Ok(SupervisionFds {
        channel: duplicate(&fds.channel)?,
        peer: duplicate(&fds.peer)?,
        gauges: duplicate(&fds.gauges)?,
    })
}

/// A worker that was asked for. It has the container's lock until it is dropped, but for the time in which a worker
/// waits to be told to begin.
///
/// A start that has failed leaves a container to be deleted: its worker may yet be born.
#[derive(Debug)]
pub struct Starting {
    ready: Ready,
    /// None while the worker waits to be told to begin.
    lock: Option<Lock>,
    request: Request,
    /// How many seeds were asked.
    attempts: usize,
    stage: Stage,
}

/// How far a start has come, and who speaks next.
#[derive(Debug)]
enum Stage {
    /// The seed, over its connection; then the worker, over its report.
    Asked(Asked, OwnedFd),
    /// The worker, over its report; if the seed has ended over the request, how: there may be no worker.
    Forked { report: OwnedFd, groups: GroupEntry, lost: Option<Error> },
    /// The worker waits, at the other end of its report, to be told to begin.
    Waiting(OwnedFd),
    /// init, over the gate.
    Running(Timeline),
    /// Nobody: it runs, or it failed.
    Over,
}

/// What has been heard of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that is of use to anybody.
    Nothing,
    /// The worker waits to be told to begin.
    Waits,
    /// The worker runs, and the `poststart` hooks have run; the start's milestones.
    Runs(Timeline),
}

impl Starting {
    /// Whether the worker waits to be told to begin; then there is nothing to [`hear`](Starting::hear).
    pub fn waits(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_))
    }

    /// Starts the container whose worker was forked ahead, under its lock, which is refused if another verb has it. A
    /// worker that is not there yet begins as soon as it is.
    pub fn begin(&mut self, listeners: &[BorrowedFd<'_>]) -> Result<()> {
        if self.lock.is_none() {
            self.lock = Some(self.ready.lock()?);
        }
        run_start_container(&self.ready.dir, &self.ready.plan, &self.ready.state, &self.ready.init)?;
        self.request.begin = Begin::AtOnce;
        self.request.listeners = duplicates(listeners)?;
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(report) => self.tell(report),
            stage @ (Stage::Asked(..) | Stage::Forked { .. } | Stage::Running(_) | Stage::Over) => {
                self.stage = stage;
                Ok(())
            }
        }
    }

    fn tell(&mut self, report: OwnedFd) -> Result<()> {
        tell_to_begin(report.as_fd(), &borrow(&self.request.listeners))?;
        self.stage = Stage::Forked { report, groups: GroupEntry::Itself, lost: None };
        Ok(())
    }

    /// Readable when there is something to [`hear`](Starting::hear); another descriptor after each time.
    pub fn next(&self) -> BorrowedFd<'_> {
        match &self.stage {
            Stage::Asked(asked, _) => asked.as_fd(),
            Stage::Forked { report, .. } | Stage::Waiting(report) => report.as_fd(),
            Stage::Running(_) | Stage::Over => self.ready.gate.as_fd(),
        }
    }

    /// For whoever does not wait: has a look at the seed now and then, and kills one that will never answer.
    pub fn look_at_seed(&mut self) {
        if let Stage::Asked(asked, _) = &mut self.stage {
            asked.look_at_seed();
        }
    }

    /// Takes what has been said, without waiting for more; an error when there will be no worker.
    pub fn hear(&mut self) -> Result<Heard> {
        while !self.waits() && is_readable(self.next()) {
            if let Some(timeline) = self.step()? {
                run_poststart(&self.ready.dir, &self.ready.plan, &self.ready.init)?;
                return Ok(Heard::Runs(timeline));
            }
        }
        Ok(if self.waits() { Heard::Waits } else { Heard::Nothing })
    }

    /// Waits until the worker runs and init knows it, so that the container's status is `running`. A start that fails
    /// leaves nothing that might still begin to run.
    pub(super) fn wait(mut self) -> Result<(Timeline, Lock)> {
        let followed = loop {
            match self.step() {
                Ok(None) => {}
                Ok(Some(timeline)) => break Ok(timeline),
                Err(error) => break Err(error),
            }
        };
        match followed {
            Ok(timeline) => {
                fault::at(Point::StartRunning)?;
                run_poststart(&self.ready.dir, &self.ready.plan, &self.ready.init)?;
                let lock = self.lock.ok_or_else(|| Error::invalid("the start", "has lost its lock"))?;
                Ok((timeline, lock))
            }
            // The worker has ended by itself, and init ends with its status.
            Err(error @ Error::Remote { .. }) => Err(error),
            Err(error) => Err(error.and_clean_up(end(self.ready.init()))),
        }
    }

    /// Waits for the next word.
    fn step(&mut self) -> Result<Option<Timeline>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Asked(asked, report) => self.hear_seed(asked, report)?,
            Stage::Forked { report, groups, lost } => self.hear_worker(report, groups, lost)?,
            Stage::Running(timeline) => {
                self.hear_init()?;
                return Ok(Some(timeline));
            }
            Stage::Waiting(_) | Stage::Over => return Err(Error::invalid("the start", "is over")),
        }
        Ok(None)
    }

    fn hear_seed(&mut self, asked: Asked, report: OwnedFd) -> Result<()> {
        let groups = group_entry(&self.ready.plan);
        self.stage = match asked.answer() {
            Ok(Some(forked)) => {
                if forked.due {
                    Registry::new(&self.ready.root).begin_replacement(&self.request.seed);
                }
                Stage::Forked { report, groups, lost: None }
            }
            Ok(None) => {
                let seed = format!("seed {}", self.request.seed);
                return self.ask_again(Error::invalid(seed, "ends again and again"));
            }
            // It ended over the request. Its last worker, if there is one, holds the other end of the report.
            Err(error @ (ClientError::Closed { .. } | ClientError::Timeout { .. })) => {
                Stage::Forked { report, groups, lost: Some(error.into()) }
            }
            Err(error) => return Err(error.into()),
        };
        fault::at(Point::StartForked)
    }

    /// The seed ended, and no worker was born: init waits as before.
    fn ask_again(&mut self, lost: Error) -> Result<()> {
        if self.attempts >= limits::SEED_FORK_ATTEMPTS {
            return Err(lost);
        }
        self.attempts += 1;
        self.stage = self.ready.ask(&self.request)?;
        Ok(())
    }

    fn hear_worker(&mut self, report: OwnedFd, groups: GroupEntry, lost: Option<Error>) -> Result<()> {
        let (said, worker_pid) = match (receive_report(report.as_fd(), limits::WORKER_RUNNING), lost) {
            (Ok(received), _) => received,
            (Err(ClientError::Closed { .. }), Some(lost)) => return self.ask_again(lost),
            // Somebody holds the other end, who may yet bear a worker: the seed, or its helper.
            (Err(_), Some(lost @ Error::TimedOut { .. })) => return Err(lost),
            (Err(error), Some(_)) => return Err(error.into()),
            (Err(error), None) => return Err(self.explain(error)),
        };
        self.stage = match said {
            Report::Failed(refusal) => return Err(Error::Remote { text: refusal.text }),
            Report::Born if groups == GroupEntry::Moved => {
                move_beside(worker_pid, self.ready.init.pid)?;
                seccomp_agent::go_on(report.as_fd()).operation(|| "send to the worker")?;
                Stage::Forked { report, groups: GroupEntry::Itself, lost: None }
            }
            Report::Running(timeline) if groups == GroupEntry::Itself => {
                fault::at(Point::StartReported)?;
                Stage::Running(timeline)
            }
            Report::Waiting if groups == GroupEntry::Itself => match self.request.begin {
                Begin::AtOnce => return self.tell(report),
                Begin::WhenTold => {
                    self.ready.released = self.lock.take().map(Lock::release).transpose()?;
                    // It has what it was handed, and no seed is asked again: a thousand that wait should not each hold twenty
                    // descriptors.
                    self.ready.for_worker = None;
                    self.request.supervision = None;
                    self.request.worker = Vec::new();
                    Stage::Waiting(report)
                }
            },
            Report::Born | Report::Running(_) | Report::Waiting => {
                return Err(Error::invalid("the seed's worker", "is not in the container's control groups"));
            }
            Report::Notifications(number) => {
                let worker = pidfd_open(worker_pid).operation(|| format!("open the worker {worker_pid}"))?;
                introduce(&self.ready.plan, self.ready.init.pid, worker_pid, worker.as_fd(), number)?;
                seccomp_agent::go_on(report.as_fd()).operation(|| "send to the worker")?;
                Stage::Forked { report, groups, lost: None }
            }
        };
        Ok(())
    }

    /// A worker that ends without a word has most likely been killed for want of memory, and that can be known.
    fn explain(&self, error: ClientError) -> Error {
        match (&error, self.ready.state.cgroup.oom_kills()) {
            (ClientError::Closed { .. }, Ok(1..)) => Error::Remote {
                text: "the worker has run out of memory before it could run (linux.resources.memory.limit)"
                    .to_owned(),
            },
            _ => error.into(),
        }
    }

    fn hear_init(&self) -> Result<()> {
        match self.ready.gate.wait_running(limits::WORKER_RUNNING) {
            // It did run, as it said itself, even if it has ended since.
            Ok(WorkerStart::Running | WorkerStart::Ended(_)) => Ok(()),
            Err(error @ Error::TimedOut { .. }) => Err(error),
            // And init with it, before it could say so.
            Err(error) => {
                let has_ended = wait_for_exit(self.ready.init(), Instant::now() + limits::INIT_EXIT)?;
                if has_ended { Ok(()) } else { Err(error) }
            }
        }
    }
}

/// A seed that runs user code gets no descriptor of a control group: it could move other processes with it.
fn group_entry(plan: &Plan) -> GroupEntry {
    if plan.init.owner.is_some() { GroupEntry::Moved } else { GroupEntry::Itself }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    matches!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(1))
}

fn worker_of(plan: &Plan) -> Result<(SeedName, &[ListenAddress])> {
    match &plan.workload {
        WorkloadPlan::Worker { seed, listen, .. } => Ok((seed.parse()?, listen)),
        WorkloadPlan::Exec => Err(Error::invalid("config.json", "is no worker bundle's; it runs a program")),
    }
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
