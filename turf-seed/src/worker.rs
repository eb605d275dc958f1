//! From the fork to user code: the clone of a seed becomes the process its plan describes.
//!
//! What can fail is told on the report channel, in the words a user of `turf start` sees; after `Running` the worker
//! speaks on its own standard error.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aworker_rt::http::ServerOptions;
use aworker_rt::{
    IMPORT_MAP, ImportMap, ListenAddress, Listener, Pause, Runtime, Script, Start, Supervision, Worker,
    WorkerOptions,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::time::ClockId;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setresgid, setresuid, setsid};
use turf_core::sandbox::{StepError, enter, gate};
use turf_core::seed::client::{send_report, wait_for_agent, wait_to_be_moved, wait_to_begin};
use turf_core::seed::plan::WorkerPlan;
use turf_core::seed::protocol::{
    Begin, ForkRequest, GroupEntry, Namespaces, Reaper, ReceivedFds, Refusal, Report, SupervisionFds,
    Timeline,
};
use turf_core::sys::identity::{ProcessLayout, replace_environment};

use crate::helper;
use crate::promote;
use crate::seed::Seed;
use crate::server::{ForkedWorker, nanoseconds};

/// What the seed prepares so that its workers need not.
#[derive(Debug)]
pub struct Prepared {
    /// The seed's own layout, if the kernel tells it.
    pub layout: Option<ProcessLayout>,
    /// Where a worker's life begins.
    pub beginning: Beginning,
}

/// Where a worker's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// At the script that its plan names.
    OwnScript,
    /// At `deserialize`: the seed has run the script.
    Deserialize,
    /// The same, but that nothing is left to install: the seed is the clone of a worker that has served.
    Resume,
}

/// How a worker's life goes out.
pub enum Life {
    /// The process is to end with this status.
    Ended(i32),
    /// This process is a clone of the worker, and a seed.
    Seed(Box<Seed>),
}

/// Exit status of a worker that could not be made; the reason was reported.
const NOT_STARTED: i32 = 1;

/// Lives the worker's life. The caller has let go of everything that is the seed's.
pub fn live(forked: ForkedWorker, runtime: Runtime, prepared: &Prepared) -> Life {
    let ForkedWorker { request, fds, mut timeline } = forked;
    // Kept apart, so that a failure can be reported whatever became of the rest.
    let Ok(report) = fds.report.try_clone() else {
        return Life::Ended(NOT_STARTED);
    };
    let made = make(&request, fds, runtime, prepared, &mut timeline, report.as_fd());
    let message = match &made {
        Ok(_) => Report::Running(timeline),
        Err(refusal) => Report::Failed(refusal.clone()),
    };
    // If `turf start` is gone, init still knows that the worker runs.
    let _ = send_report(report.as_fd(), &message);
    drop(report);
    match made {
        Ok(ready) => run(ready, prepared),
        Err(_) => Life::Ended(NOT_STARTED),
    }
}

fn run(ready: Ready, prepared: &Prepared) -> Life {
    let Ready { mut worker, start, listeners } = ready;
    let mut pause = worker.run_until_asked(&start, listeners);
    loop {
        match pause {
            Pause::Ended(status) => {
                // The heap is not taken apart, which would touch and copy most of its pages.
                std::mem::forget(worker);
                return Life::Ended(status);
            }
            Pause::Asked(asked) => match promote::consider(asked) {
                promote::Outcome::Remain => pause = worker.go_on(),
                promote::Outcome::Become(clone) => {
                    return match clone.become_seed(worker, prepared.layout) {
                        Some(seed) => Life::Seed(Box::new(seed)),
                        None => Life::Ended(NOT_STARTED),
                    };
                }
            },
        }
    }
}

/// A worker for which only user code is left to run.
struct Ready {
    worker: Worker,
    start: Start,
    listeners: Vec<Listener>,
}

fn make(
    request: &ForkRequest,
    fds: ReceivedFds,
    mut runtime: Runtime,
    prepared: &Prepared,
    timeline: &mut Timeline,
    report: BorrowedFd<'_>,
) -> Result<Ready, Refusal> {
    let fds = helper::finish_entry(request, fds)?;
    let at_gate = |error| Refusal::from_io("gate", "tell the container's init of its worker", &error);
    gate::report_born(fds.gate.as_fd()).map_err(at_gate)?;
    if request.groups == GroupEntry::Moved {
        let moved = wait_to_be_moved(report);
        moved
            .map_err(|error| Refusal::from_io("enter cgroup", "wait to be moved into the cgroup", &error))?;
    }
    // It is where they lead; one that is forked ahead has time for it.
    drop((fds.init, fds.cgroups));
    let plan = read_plan(request.plan_len, fds.plan)?;
    if request.namespaces.contains(Namespaces::USER) {
        become_root_of_user_namespace()?;
    }
    become_own_process(&plan, prepared)?;
    let mut listeners = fds.listeners.into_iter().map(inherited_listener).collect::<Result<Vec<_>, _>>()?;
    for address in &plan.listen {
        listeners.push(bind(address, &plan)?);
    }
    // Standard error is the last to change: until here a panic would show in the seed's log.
    let [stdin, stdout, stderr] = fds.stdio;
    let stdio_failed = |errno: nix::errno::Errno| Refusal::from_io("stdio", "set up stdio", &errno.into());
    dup2_stdin(stdin).map_err(stdio_failed)?;
    dup2_stdout(stdout).map_err(stdio_failed)?;
    dup2_stderr(stderr).map_err(stdio_failed)?;
    let mut agent = |notifications: RawFd| {
        wait_for_agent(report, notifications)?;
        nix::unistd::close(notifications).map_err(Into::into)
    };
    enter::apply_process(&plan.process, &mut agent).map_err(step_refusal)?;
    // A change of user takes this away; execve(2) would give it back.
    prctl::set_dumpable(true)
        .map_err(|errno| Refusal::from_io("dumpable", "make /proc/self readable", &errno.into()))?;
    if request.reaper == Reaper::Relay {
        end_with_relay()?;
    }
    timeline.plan_applied_ns = nanoseconds(ClockId::CLOCK_MONOTONIC);
    if let Some(SupervisionFds { channel, peer, gauges }) = fds.supervision {
        runtime
            .supervise(Supervision { channel, peer, gauges })
            .map_err(|error| Refusal::from_io("supervision", "map the worker's gauges", &error))?;
    }
    if request.begin == Begin::WhenTold {
        runtime.rehearse().map_err(|error| Refusal::new("rehearse", error.to_string()))?;
        let told = wait_to_begin(report)
            .map_err(|error| Refusal::from_io("begin", "wait to be told to begin", &error))?;
        for listener in told {
            listeners.push(inherited_listener(listener)?);
        }
    }
    let start = match prepared.beginning {
        Beginning::Deserialize => Start::Deserialize,
        Beginning::Resume => Start::Resume,
        Beginning::OwnScript => Start::Load(open_script(&plan)?),
    };
    if let (Beginning::OwnScript, Some(path)) = (prepared.beginning, import_map(&plan)) {
        let map = ImportMap::read(Path::new(path));
        runtime.set_import_map(map.map_err(|error| Refusal::new("open import map", error.to_string()))?);
    }
    let mut worker = runtime
        .become_worker(worker_options(&plan)?)
        .map_err(|error| Refusal::new("become worker", error.to_string()))?;
    if let Some(listener) = fds.promotion {
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| {
            Refusal::from_io("promotion", "prepare the worker's promotion", &errno.into())
        })?;
        worker.be_promotable(listener);
    }
    timeline.javascript_ns = nanoseconds(ClockId::CLOCK_MONOTONIC);
    gate::report_running(fds.gate.as_fd()).map_err(at_gate)?;
    Ok(Ready { worker, start, listeners })
}

fn read_plan(len: u32, file: OwnedFd) -> Result<WorkerPlan, Refusal> {
    let mut bytes = vec![0; len as usize];
    File::from(file)
        .read_exact_at(&mut bytes, 0)
        .map_err(|error| Refusal::from_io("decode plan", "read the worker's plan", &error))?;
    WorkerPlan::decode(&bytes).map_err(|error| Refusal::new("decode plan", error.to_string()))
}

/// Whoever enters a user namespace has all capabilities in it, but is still nobody.
fn become_root_of_user_namespace() -> Result<(), Refusal> {
    let failed = |errno: nix::errno::Errno| {
        Refusal::from_io("user namespace", "become root of the user namespace", &errno.into())
    };
    let (group, user) = (Gid::from_raw(0), Uid::from_raw(0));
    setresgid(group, group, group).map_err(failed)?;
    setresuid(user, user, user).map_err(failed)
}

/// The relay ends the worker when init has gone. If the relay is killed, too, nobody would: no pid namespace ends with init here.
/// Not earlier, because a change of user takes it away.
fn end_with_relay() -> Result<(), Refusal> {
    let failed = |errno: nix::errno::Errno| {
        Refusal::from_io("process", "ask for the end of the relay to be the worker's", &errno.into())
    };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)
}

/// What execve(2) and runc's init would have done: signals (their actions are the default ones in the seed), session, name, arguments and environment.
fn become_own_process(plan: &WorkerPlan, prepared: &Prepared) -> Result<(), Refusal> {
    let failed = |operation: &'static str| {
        move |errno: nix::errno::Errno| Refusal::from_io("process", operation, &errno.into())
    };
    SigSet::empty().thread_set_mask().map_err(failed("unblock signals"))?;
    setsid().map_err(failed("setsid"))?;
    let arguments = c_strings(&plan.process.args)?;
    let environment = c_strings(&plan.process.env)?;
    let name = plan.process.args.first().map(|path| path.rsplit('/').next().unwrap_or(path)).unwrap_or("");
    let name = CString::new(name).map_err(|_| contains_zero(name))?;
    prctl::set_name(&name).map_err(failed("set the process's name"))?;
    if let Some(layout) = &prepared.layout {
        // Looks only: a kernel without it shows the seed's arguments.
        let _ = layout.show(&arguments, &environment);
    }
    replace_environment(environment);
    Ok(())
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, Refusal> {
    texts.iter().map(|text| CString::new(text.as_str()).map_err(|_| contains_zero(text))).collect()
}

fn contains_zero(text: &str) -> Refusal {
    Refusal::new("process", format!("{text:?} contains a zero byte"))
}

fn inherited_listener(fd: OwnedFd) -> Result<Listener, Refusal> {
    Listener::from_fd(fd).map_err(|error| Refusal::from_io("listen", "take an inherited listener", &error))
}

fn bind(address: &turf_core::sandbox::plan::ListenAddress, plan: &WorkerPlan) -> Result<Listener, Refusal> {
    use turf_core::sandbox::plan::ListenAddress as Planned;
    let address = match address {
        Planned::Tcp(address) => ListenAddress::Tcp(address.to_string()),
        Planned::Unix(path) => ListenAddress::Unix(path.clone()),
    };
    let listener = Listener::bind(&address).map_err(|error| Refusal::new("listen", error.to_string()))?;
    if let ListenAddress::Unix(path) = &address {
        let (user, group) = (Uid::from_raw(plan.process.uid), Gid::from_raw(plan.process.gid));
        nix::unistd::chown(path, Some(user), Some(group)).map_err(|errno| {
            Refusal::from_io("listen", &format!("chown {}", path.display()), &errno.into())
        })?;
    }
    Ok(listener)
}

fn open_script(plan: &WorkerPlan) -> Result<Script, Refusal> {
    match plan.process.args.get(1) {
        Some(path) => {
            Script::read(Path::new(path)).map_err(|error| Refusal::new("open script", error.to_string()))
        }
        None => {
            Err(Refusal::new("open script", "process.args names no script: [\"aworker\", \"SCRIPT\", ...]"))
        }
    }
}

fn import_map(plan: &WorkerPlan) -> Option<&str> {
    let entries = plan.process.env.iter().filter_map(|entry| entry.split_once('='));
    entries.filter(|(name, _)| *name == IMPORT_MAP).map(|(_, path)| path).next_back()
}

/// The port of the default address if the environment names none.
const DEFAULT_PORT: u16 = 8080;

fn worker_options(plan: &WorkerPlan) -> Result<WorkerOptions, Refusal> {
    let environment: Vec<(String, String)> = plan
        .process
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let port = match environment.iter().rev().find(|(name, _)| name == "PORT") {
        None => DEFAULT_PORT,
        Some((_, port)) => port
            .parse()
            .map_err(|_| Refusal::new("listen", format!("PORT={port} is no number from 0 to 65535")))?,
    };
    let mut server = ServerOptions::default();
    if let Some(limits) = &plan.limits {
        server.request_timeout_ms = limits.request_timeout_ms;
        server.max_in_flight = limits.concurrency as usize;
        server.max_requests = limits.max_requests;
        server.slow_ms = limits.slow_ms;
    }
    Ok(WorkerOptions {
        server,
        arguments: plan.process.args.iter().skip(2).cloned().collect(),
        environment,
        working_directory: None,
        default_listen: Some(ListenAddress::Tcp(format!("0.0.0.0:{port}"))),
        ..WorkerOptions::default()
    })
}

fn step_refusal(error: StepError) -> Refusal {
    let text = error.to_string();
    let errno = (error.errno != 0).then_some(error.errno);
    Refusal { step: error.step, errno, text }
}
