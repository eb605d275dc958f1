//! The fork of one worker: from a checked request to two processes.
//!
//! ```text
//!   init reaps:    seed -> H (gone at once) -> worker                 the worker's parent is init
//!   a relay reaps: seed -> H (gone at once) -> relay -> worker        the relay tells init how the worker ended
//! ```
//!
//! The second way is for sandboxes without a pid namespace of their own: nobody there inherits the worker. The relay
//! stays outside of the sandbox's namespaces (but for the pid namespace, whose numbers init must understand).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use turf_core::sandbox::gate;
use turf_core::seed::protocol::{ForkRequest, Namespaces, Reaper, ReceivedFds, Refusal};
use turf_core::sys::fork::{Destination, Fork, ForkError, Step, fork, fork_into};
use turf_core::sys::process::exit_now;
use turf_core::sys::{pidfd, process};

/// Forks towards the sandbox. The child is the worker, or, with [`Reaper::Relay`], the relay to be.
pub fn fork_towards(request: &ForkRequest, fds: &ReceivedFds) -> Result<Fork, Refusal> {
    let all: Vec<BorrowedFd<'_>> = fds.cgroups.iter().map(AsFd::as_fd).collect();
    let (namespaces, cgroups) = match request.reaper {
        Reaper::Init => (request.namespaces.without(Namespaces::TIME_ONLY), all.as_slice()),
        Reaper::Relay => (outside_relay(request.namespaces), [].as_slice()),
    };
    let destination = Destination { process: fds.init.as_fd(), namespaces: namespaces.bits(), cgroups };
    fork_into(&destination).map_err(|error| refusal(&error))
}

/// What the child of [`fork_towards`] has to do before it is a worker in its sandbox: joining what a process can
/// only join itself, and forking once more if a relay is needed. The relay does not return.
pub fn finish_entry(request: &ForkRequest, fds: ReceivedFds) -> Result<ReceivedFds, Refusal> {
    match request.reaper {
        Reaper::Init => {
            // Only an address space that nobody shares may change its clocks.
            enter(&fds.init, only(request.namespaces, Namespaces::TIME_ONLY))?;
            Ok(fds)
        }
        Reaper::Relay => match fork().map_err(|error| refusal(&error))? {
            Fork::Parent { pid } => {
                // What the worker owns must close when the worker closes it.
                let gate = fds.gate;
                drop((
                    fds.report,
                    fds.stdio,
                    fds.listeners,
                    fds.cgroups,
                    fds.init,
                    fds.plan,
                    fds.supervision,
                    fds.promotion,
                ));
                relay(pid, gate)
            }
            Fork::Child => {
                enter(&fds.init, request.namespaces.without(outside_relay(request.namespaces)))?;
                for file in &fds.cgroups {
                    nix::unistd::write(file, b"0").map_err(|errno| {
                        Refusal::from_io("enter cgroup", "enter the container's cgroup", &errno.into())
                    })?;
                }
                Ok(fds)
            }
        },
    }
}

/// The namespaces a relay has to be in: the pid namespace, and the user namespace that gives the right to it.
fn outside_relay(namespaces: Namespaces) -> Namespaces {
    let pid = only(namespaces, Namespaces::PID);
    let user = only(namespaces, Namespaces::USER);
    if pid.bits() == 0 { pid } else { pid.with(user) }
}

fn only(namespaces: Namespaces, one: Namespaces) -> Namespaces {
    namespaces.without(namespaces.without(one))
}

fn enter(init: &OwnedFd, namespaces: Namespaces) -> Result<(), Refusal> {
    if namespaces.bits() == 0 {
        return Ok(());
    }
    setns(init, CloneFlags::from_bits_retain(namespaces.bits() as i32))
        .map_err(|errno| Refusal::from_io("enter namespaces", ENTER, &errno.into()))
}

const ENTER: &str = "enter the namespaces of the container's init";

/// Waits for the worker and tells init; if init goes first, the worker goes too.
fn relay(worker: i32, gate: OwnedFd) -> ! {
    let _ = nix::sys::prctl::set_name(c"turf-relay");
    if let Ok(process) = pidfd::pidfd_open(worker) {
        loop {
            let mut polled = [
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(gate.as_fd(), PollFlags::empty()),
            ];
            if poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {
                continue;
            }
            if polled[1].any() == Some(true) {
                // An error means that the worker is gone already.
                let _ = pidfd::pidfd_send_signal(process.as_fd(), Signal::SIGKILL as i32);
            }
            break;
        }
    }
    if let Ok(status) = process::wait_for(worker) {
        // Nobody is left to hear of a failure.
        let _ = gate::report_exit(gate.as_fd(), status);
    }
    exit_now(0)
}

fn refusal(error: &ForkError) -> Refusal {
    let (step, operation) = match error.step {
        Step::CountThreads => ("count threads", "check that the seed has one thread".to_owned()),
        Step::CloneHelper if error.source.raw_os_error() == Some(Errno::EAGAIN as i32) => (
            "clone helper",
            "make the helper of the fork (the seed needs room for 3 processes in its own control group)"
                .to_owned(),
        ),
        Step::CloneHelper => ("clone helper", "make the helper of the fork".to_owned()),
        Step::EnterNamespaces if error.source.raw_os_error() == Some(Errno::EPERM as i32) => (
            "enter namespaces",
            format!("{ENTER} (a seed with user code enters only what was created for it)"),
        ),
        Step::EnterNamespaces => ("enter namespaces", ENTER.to_owned()),
        Step::EnterCgroup(index) => ("enter cgroup", format!("enter the container's cgroup (file {index})")),
        // init, H and the worker are in the container's cgroup for a moment.
        Step::ForkChild if error.source.raw_os_error() == Some(Errno::EAGAIN as i32) => (
            "fork",
            "fork the worker (a start needs room for 3 processes in linux.resources.pids.limit)".to_owned(),
        ),
        Step::ForkChild => ("fork", "fork the worker".to_owned()),
        Step::Killed(_) => ("helper", "fork the worker".to_owned()),
    };
    Refusal::from_io(step, &operation, &error.source)
}
