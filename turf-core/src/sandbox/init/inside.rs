//! Init's life from its birth until it becomes `turf-init`, which goes to the gate, or executes the bundle's program at once.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};
use turf_init::message::GO;
use turf_init::orders::Task;

use super::spawn::clone_flag;
use super::steps::{Sandbox, path_fd};
use crate::sandbox::enter::{self, At};
use crate::sandbox::launch::InitProgram;
use crate::sandbox::orders::{Builder, Head};
use crate::sandbox::plan::{IdMapping, InitPlan, NamespaceKind, Plan, ProcessPlan, WorkloadPlan};
use crate::sandbox::step::{MountSource, MountStep, Step, StepError};
use crate::sandbox::{gate, program};
use crate::seed::registry::DEFAULT_SEED;
use crate::sys::{credentials, process};

/// The status init exits with when it fails by itself.
pub(super) const FAILURE_STATUS: i32 = 1;

/// What init has from its creator.
pub(super) struct Inherited<'a, 'w> {
    pub(super) plan: &'a Plan,
    pub(super) program: InitProgram,
    pub(super) setup: OwnedFd,
    /// What init waits for at the gate; nothing, if it runs the program as soon as the sandbox stands.
    pub(super) wait_for: WaitFor<'w>,
    /// Whether init has come to the execution of its program: of use to a creator whose memory it has.
    pub(super) executes: bool,
    pub(super) cgroup: &'a [OwnedFd],
    pub(super) preserve_fds: u32,
    pub(super) console: Option<OwnedFd>,
    pub(super) lock: Option<BorrowedFd<'a>>,
    pub(super) id_mapped: VecDeque<OwnedFd>,
}

/// What init waits for when its sandbox stands.
pub(super) enum WaitFor<'w> {
    /// A `start`, which connects to this socket.
    Start(OwnedFd),
    /// Nothing. It has its creator's memory.
    Nothing(&'w mut Witness<'w>),
}

impl WaitFor<'_> {
    fn listener(&self) -> Option<RawFd> {
        match self {
            WaitFor::Start(listener) => Some(listener.as_raw_fd()),
            WaitFor::Nothing(_) => None,
        }
    }
}

/// Called by an init that waits for nothing when it is born, with its pid as the creator sees it and before its root is another.
/// What is answered is called when the sandbox stands, and belongs to init: its descriptors are not the creator's.
pub type Witness<'a> = dyn FnMut(i32) -> crate::error::Result<Written> + 'a;

/// Writes down that the container runs.
pub type Written = Box<dyn FnOnce() -> crate::error::Result<()>>;

/// Init's whole life; `lent_to` is its pid, as the creator sees it, if it has the creator's memory. A panic must not unwind into the creator's frames, of which init has a copy, or which it has itself. Then it may
/// drop nothing that is the creator's.
pub(super) fn run(inherited: &mut Inherited<'_, '_>, lent_to: Option<i32>) -> ! {
    let lived = catch_unwind(AssertUnwindSafe(|| live(inherited, lent_to)));
    process::exit_now(lived.unwrap_or(FAILURE_STATUS))
}

fn live(inherited: &mut Inherited<'_, '_>, lent_to: Option<i32>) -> i32 {
    let Err(error) = build(inherited, lent_to);
    // If the creator is gone there is nobody to tell.
    let _ = send(inherited.setup.as_raw_fd(), &gate::encode_failure(&error), MsgFlags::MSG_NOSIGNAL);
    FAILURE_STATUS
}

/// From birth to the program that goes to the gate.
fn build(inherited: &mut Inherited<'_, '_>, lent_to: Option<i32>) -> Result<Infallible, StepError> {
    close_the_rest(inherited, While::Building).at(|| "close the descriptors init does not need")?;
    let not_written = |error: crate::Error| StepError::refused("write down init", error.to_string());
    if lent_to.is_some() {
        // A creator that is killed leaves nothing, even if init is stuck in a mount.
        prctl::set_pdeathsig(Signal::SIGKILL).at(|| "end with the creator")?;
    }
    let written = match &mut inherited.wait_for {
        WaitFor::Start(_) => {
            wait_for_word(inherited.setup.as_fd())?;
            None
        }
        WaitFor::Nothing(witness) => Some(witness(lent_to.unwrap_or_default()).map_err(not_written)?),
    };
    make_sandbox(inherited)?;
    let (orders, proc) = write_orders(inherited)?;
    if let Some(written) = written {
        written().map_err(not_written)?;
    }
    if lent_to.is_some() {
        prctl::set_pdeathsig(None).at(|| "live on without the creator")?;
    }
    close_the_rest(inherited, While::Waiting(proc.as_ref()))
        .at(|| "close the descriptors init does not need any more")?;
    inherited.executes = true;
    let listener = match &inherited.wait_for {
        WaitFor::Start(listener) => Some(listener.as_fd()),
        WaitFor::Nothing(_) => None,
    };
    let keep = listener.into_iter().chain([inherited.setup.as_fd()]).chain(proc.as_ref().map(AsFd::as_fd));
    inherited.program.execute(&orders, &keep.collect::<Vec<_>>())
}

fn make_sandbox(inherited: &mut Inherited<'_, '_>) -> Result<(), StepError> {
    let plan = &inherited.plan.init;
    let own = inherited.cgroup.iter().map(AsFd::as_fd).collect::<Vec<_>>();
    crate::cgroup::join_self(&own).at(|| "join the control groups")?;
    let early = early_paths(plan);
    become_root(plan)?;
    // Who is in the container must not look into init, which still holds descriptors of the host.
    credentials::set_dumpable(false).at(|| "hide init from the container")?;
    credentials::set_name(c"turf:init").at(|| "name init")?;
    let id_mapped = std::mem::take(&mut inherited.id_mapped);
    let mut sandbox =
        Sandbox::new(inherited.plan, inherited.setup.as_fd(), inherited.console.as_ref(), id_mapped)?;
    sandbox.early = early;
    if plan.namespace(NamespaceKind::Cgroup).is_some_and(|cgroup| cgroup.path.is_none()) {
        unshare(clone_flag(NamespaceKind::Cgroup)).at(|| "make a cgroup namespace")?;
    }
    plan.steps.iter().try_for_each(|step| sandbox.execute(step))
}

/// The directories and files of the host that the steps name, as their creator's user finds them: root of a user namespace
/// may not pass through a directory that belongs to the host's root alone. What is not there yet, or at all, is the steps' to
/// find out.
fn early_paths(plan: &InitPlan) -> BTreeMap<PathBuf, OwnedFd> {
    if plan.namespace(NamespaceKind::User).is_none() {
        return BTreeMap::new();
    }
    let paths = plan.steps.iter().filter_map(|step| match step {
        Step::BindRoot { path } => Some(path),
        Step::Mount(MountStep { source: MountSource::Bind { path, .. }, .. }) => Some(path),
        _ => None,
    });
    paths.filter_map(|path| Some((path.clone(), path_fd(path).ok()?))).collect()
}

/// What `turf-init` is to do, and a descriptor that its orders need.
fn write_orders(inherited: &Inherited<'_, '_>) -> Result<(Vec<u64>, Option<OwnedFd>), StepError> {
    let mut orders = Builder::new();
    let (task, program, proc) = match &inherited.plan.workload {
        WorkloadPlan::Worker { seed, .. } => {
            if seed == DEFAULT_SEED {
                find_script(&inherited.plan.process)?;
            }
            (Task::Worker, None, None)
        }
        WorkloadPlan::Exec => {
            let process = &inherited.plan.process;
            let proc = enter::dress(&mut orders, process)?;
            let task = match inherited.wait_for {
                WaitFor::Start(_) => Task::Program,
                WaitFor::Nothing(_) => Task::Run,
            };
            (task, Some(program::prepare(&mut orders, process)?), proc)
        }
    };
    let orders = orders.finish(&Head {
        task,
        listener: inherited.wait_for.listener(),
        talk: Some(inherited.setup.as_raw_fd()),
        program,
    });
    Ok((orders, proc))
}

/// A script that is not there fails `create`, as a program does. Whether a seed that has run a script already needs the
/// worker's own is the seed's business.
fn find_script(process: &ProcessPlan) -> Result<(), StepError> {
    let Some(script) = process.args.get(1) else { return Ok(()) };
    std::fs::metadata(process.cwd.join(script)).at(|| format!("open {script}")).map(drop)
}

/// Waits for the creator's word. If it has died, init ends here.
pub(super) fn wait_for_word(setup: BorrowedFd<'_>) -> Result<(), StepError> {
    let mut packet = [0; 4];
    loop {
        match recv(setup.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(1) if packet[0] == GO => return Ok(()),
            Ok(_) => return Err(StepError::refused("wait for create", "it has ended")),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(StepError::new("wait for create", errno)),
        }
    }
}

/// What init is about to do.
enum While<'a> {
    Building,
    /// With what the orders need.
    Waiting(Option<&'a OwnedFd>),
}

fn close_the_rest(inherited: &Inherited<'_, '_>, then: While<'_>) -> std::io::Result<()> {
    let mut keep = vec![inherited.setup.as_raw_fd(), inherited.program.number()];
    keep.extend(inherited.wait_for.listener());
    match then {
        While::Building => {
            keep.extend(inherited.cgroup.iter().map(AsRawFd::as_raw_fd));
            keep.extend(inherited.console.iter().map(AsRawFd::as_raw_fd));
            keep.extend(inherited.lock.iter().map(AsRawFd::as_raw_fd));
            keep.extend(inherited.id_mapped.iter().map(AsRawFd::as_raw_fd));
        }
        While::Waiting(proc) => keep.extend(proc.map(AsRawFd::as_raw_fd)),
    }
    keep.extend(
        (0..inherited.preserve_fds).filter_map(|index| i32::try_from(index).ok()).map(|index| 3 + index),
    );
    process::close_all_except(&mut keep)
}

/// In a new user namespace init has all capabilities, but no id that files could belong to until it
/// takes one.
pub(in crate::sandbox) fn become_root(plan: &InitPlan) -> Result<(), StepError> {
    let has_root = |mappings: &[IdMapping]| mappings.iter().any(|mapping| mapping.inside == 0);
    if plan.namespace(NamespaceKind::User).is_none() {
        return Ok(());
    }
    if plan.gid_mappings.is_empty() || has_root(&plan.gid_mappings) {
        match credentials::setgroups(&[]) {
            // Forbidden where an unprivileged user made the namespace; then the groups are harmless.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            result => result.at(|| "drop the supplementary groups")?,
        }
        credentials::setresgid(0).at(|| "become group 0 of the user namespace")?;
    }
    if plan.uid_mappings.is_empty() || has_root(&plan.uid_mappings) {
        credentials::setresuid(0).at(|| "become user 0 of the user namespace")?;
    }
    Ok(())
}
