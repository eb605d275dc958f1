//! A worker that serves becomes a seed: the worker's side, and that of its clone ([`turf_core::seed::promotion`]).
//!
//! ```text
//!   worker: asked -> quiet -> fork -> (the child forks once more and ends) -> serves on
//!                               clone: forgets the worker -> Born -> `serialize`, settle, check -> Ready -> a seed
//! ```
//!
//! The clone is nobody's child: the worker has no time for its end. What fails in the clone is told to whoever asked, and ends it alone.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use aworker_rt::{Asked, Runtime, Worker};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use turf_core::limits;
use turf_core::seed::SEED_BACKLOG;
use turf_core::seed::promotion::{self, Answer, Terms, TermsFds};
use turf_core::seed::protocol::Refusal;
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::identity::{ProcessLayout, replace_environment};
use turf_core::sys::process::{self, exit_now};
use turf_core::sys::{program_pages, socket};

use crate::confine;
use crate::daemon;
use crate::options::{Options, Place, Task};
use crate::seed::Seed;
use crate::server::Server;
use crate::worker::{Beginning, Prepared};

/// What has become of a worker that was asked.
#[derive(Debug)]
pub enum Outcome {
    /// This is the worker, and it serves on.
    Remain,
    /// This is its clone.
    Become(Box<Clone>),
}

/// A clone that is to be a seed.
#[derive(Debug)]
pub struct Clone {
    connection: OwnedFd,
    terms: Terms,
    fds: TermsFds,
}

/// Answers whoever asks a worker to become a seed.
pub fn consider(asked: Asked) -> Outcome {
    let Asked { connection, obstacle } = asked;
    match agree(&connection, obstacle) {
        Ok((terms, fds)) => match fork_twice() {
            Ok(Fork::Child) => Outcome::Become(Box::new(Clone { connection, terms, fds })),
            Ok(Fork::Parent { .. }) => Outcome::Remain,
            Err(refusal) => refuse(&connection, refusal),
        },
        Err(refusal) => refuse(&connection, refusal),
    }
}

fn refuse(connection: &OwnedFd, refusal: Refusal) -> Outcome {
    // Who has gone need not be told.
    let _ = promotion::answer(connection.as_fd(), &Answer::Refused(refusal));
    Outcome::Remain
}

fn agree(connection: &OwnedFd, obstacle: Option<String>) -> Result<(Terms, TermsFds), Refusal> {
    let failed = |error: std::io::Error| Refusal::from_io("promote", "talk to turf", &error);
    fcntl(connection, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| failed(errno.into()))?;
    let peer = socket::peer_credentials(connection.as_fd()).map_err(failed)?;
    if peer.uid != 0 {
        return Err(Refusal::new("check peer", format!("user {} may not promote this worker", peer.uid)));
    }
    if let Some(what) = obstacle {
        let text = format!("the worker cannot become a seed, and serves on: it has {what}");
        return Err(Refusal::new("hold", text));
    }
    promotion::answer(connection.as_fd(), &Answer::Quiet).map_err(failed)?;
    promotion::receive_terms(connection.as_fd())
}

/// The child that returns is a grandchild: its parent has ended. Signals wait meanwhile, so that none is taken for the other's.
fn fork_twice() -> Result<Fork, Refusal> {
    let mask = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    let mask = mask.map_err(|errno| refusal_of_fork(&errno.into()))?;
    let forked = match fork() {
        Err(error) => Err(refusal_of_fork(&error.source)),
        Ok(Fork::Child) => match fork() {
            Err(error) => exit_now(error.source.raw_os_error().unwrap_or(Errno::EINVAL as i32)),
            Ok(Fork::Parent { .. }) => exit_now(0),
            // The signals stay blocked until their handlers are no longer the worker's.
            Ok(Fork::Child) => return Ok(Fork::Child),
        },
        Ok(Fork::Parent { pid }) => match process::wait_for(pid) {
            Ok(0) => Ok(Fork::Parent { pid }),
            Ok(status) => Err(refusal_of_fork(&std::io::Error::from_raw_os_error(status >> 8))),
            Err(error) => Err(refusal_of_fork(&error)),
        },
    };
    mask.thread_set_mask().map_err(|errno| refusal_of_fork(&errno.into()))?;
    forked
}

fn refusal_of_fork(error: &std::io::Error) -> Refusal {
    let operation = match error.raw_os_error() {
        Some(code) if code == Errno::EAGAIN as i32 => {
            "clone the worker (a promotion needs room for 2 processes in linux.resources.pids.limit)"
        }
        _ => "clone the worker",
    };
    Refusal::from_io("fork", operation, error)
}

impl Clone {
    /// Becomes the seed. If that fails, whoever asked is told, and there is nobody.
    pub fn become_seed(self, worker: Worker, layout: Option<ProcessLayout>) -> Option<Seed> {
        let Clone { connection, terms, fds } = self;
        match settle(&connection, terms, fds, worker, layout) {
            Ok(seed) => Some(seed),
            Err(refusal) => {
                eprintln!("turf-seed: {}", refusal.text);
                let _ = promotion::answer(connection.as_fd(), &Answer::Refused(refusal));
                None
            }
        }
    }
}

fn settle(
    connection: &OwnedFd,
    terms: Terms,
    fds: TermsFds,
    worker: Worker,
    layout: Option<ProcessLayout>,
) -> Result<Seed, Refusal> {
    let TermsFds { control, alive, log, null } = fds;
    let stdio = |errno: Errno| Refusal::from_io("stdio", "set up stdio", &errno.into());
    dup2_stdin(&null).map_err(stdio)?;
    dup2_stdout(&log).map_err(stdio)?;
    dup2_stderr(&log).map_err(stdio)?;
    drop((null, log));
    leave_worker(&terms, layout)?;
    let mut runtime = worker.into_seed();
    runtime.forget_time_zone();
    // Again: the kernel tells clients the process that has said so last, and they may have to end it.
    socket::listen(control.as_fd(), SEED_BACKLOG)
        .map_err(|error| Refusal::from_io("listen", "listen as the seed", &error))?;
    check_may_enter(&control)?;
    let gone = |error| Refusal::from_io("promote", "wait for turf", &error);
    // Its end ends every wait.
    socket::set_timeout(connection.as_fd(), limits::SEED_LOCK).map_err(gone)?;
    promotion::answer_and_wait(connection.as_fd(), &Answer::Born).map_err(gone)?;
    serialize(&mut runtime, &terms)?;
    let options = Options {
        name: terms.name,
        directory: terms.directory,
        recipe: terms.recipe,
        place: Place::Daemon,
        tenant: None,
        task: Task::Seed,
    };
    let server = Server::start(
        &options,
        control,
        confine::own_namespaces(),
        alive.into(),
        Some(connection),
        crate::server::packet(),
    )
    .map_err(|error| Refusal::new("check", format!("{error:#}")))?;
    eprintln!("turf-seed: {} is a clone of a worker, process {}", options.name, std::process::id());
    promotion::answer_and_wait(connection.as_fd(), &Answer::Ready).map_err(gone)?;
    let prepared = Prepared { layout, beginning: Beginning::Resume };
    Ok(Seed { server, runtime, prepared, options })
}

/// Puts everything back that was the worker's process's own: session, signals, name, environment.
fn leave_worker(terms: &Terms, layout: Option<ProcessLayout>) -> Result<(), Refusal> {
    let failed = |error: anyhow::Error| Refusal::new("process", format!("leave the worker: {error:#}"));
    setsid().map_err(|errno| Refusal::from_io("process", "setsid", &errno.into()))?;
    daemon::forget_caller().map_err(failed)?;
    let name = CString::from(c"turf-seed");
    // Looks only, as in a worker.
    let _ = prctl::set_name(&name);
    let arguments = ["turf-seed", "--name", &terms.name].map(CString::new);
    if let (Some(layout), Ok(arguments)) = (layout, arguments.into_iter().collect::<Result<Vec<_>, _>>()) {
        let _ = layout.show(&arguments, &[]);
    }
    // What it held of secrets is not for later workers, as far as it lies here.
    replace_environment(Vec::new());
    Ok(())
}

/// Whether the container's filter of system calls lets a seed enter sandboxes. `control` is no namespace.
fn check_may_enter(control: &OwnedFd) -> Result<(), Refusal> {
    match setns(control, CloneFlags::empty()) {
        Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) => {
            let operation =
                "enter sandboxes (the container's linux.seccomp must allow setns, clone and fork)";
            Err(Refusal::from_io("check", operation, &errno.into()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn serialize(runtime: &mut Runtime, terms: &Terms) -> Result<(), Refusal> {
    let failed = |what: &str, error: aworker_rt::ScriptError| {
        Refusal::new("settle", format!("{what} in the worker's clone for seed {}: {error}", terms.name))
    };
    runtime.fire_serialize().map_err(|error| failed("fire serialize", error))?;
    runtime.await_forks(program_pages::give_back).map_err(|error| failed("rehearse", error))
}
