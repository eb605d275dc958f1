//! Init at the gate, and after it: waiting for a start, then for the worker's end.
//!
//! ```text
//!              'W': hooks, 'r'            'B' from the worker           'R' from the worker
//!   waiting -------------------> expecting ------------------> born ---------------------------> running
//!      ^                             |                           |    listener closed, 'R'           |
//!      +--- connection ended --------+                           +----------+------------------------+
//!      |                                                                    | the worker ended
//!      | 'X': hooks, plan, execve                                           v
//!      v                                                          exit with its status
//!   the program
//! ```
//!
//! One thread, one loop over poll(2). Nothing in the loop allocates, except for running hooks and for
//! executing a program. As long as no worker was born, a signal that ends processes ends init; then
//! signals are passed on to the worker.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};

use super::inside::FAILURE_STATUS;
use crate::sandbox::enter::{self, At};
use crate::sandbox::plan::{HooksPlan, Plan, WorkloadPlan};
use crate::sandbox::program::Program;
use crate::sandbox::step::StepError;
use crate::sandbox::{gate, hooks, seccomp_agent};
use crate::sys::{credentials, process, socket};

/// The status of a worker whose end nobody could tell: as if it was killed.
const UNKNOWN_END: i32 = libc::SIGKILL;

/// Waits at the gate, then attends the worker; returns init's exit status, or becomes the program.
pub(super) fn wait(plan: &Plan, listener: OwnedFd, signals: OwnedFd) -> i32 {
    let mut waiting = Waiting {
        plan,
        listener: Some(listener),
        connection: None,
        signals,
        is_reaper: nix::unistd::getpid().as_raw() == 1,
        worker: None,
        running: false,
        unknown_end: None,
        ended: None,
    };
    waiting.run()
}

struct Waiting<'a> {
    plan: &'a Plan,
    /// The gate; closed when the status is `running`.
    listener: Option<OwnedFd>,
    connection: Option<OwnedFd>,
    signals: OwnedFd,
    /// Whether orphans, and so the worker, become init's children.
    is_reaper: bool,
    worker: Option<i32>,
    running: bool,
    /// The child reaped last while no worker was known: it may turn out to have been the worker.
    unknown_end: Option<(i32, i32)>,
    /// The worker's wait status, once it has ended.
    ended: Option<i32>,
}

impl Waiting<'_> {
    fn run(&mut self) -> i32 {
        loop {
            let ready = match self.poll() {
                Ok(ready) => ready,
                Err(_) => return FAILURE_STATUS,
            };
            if ready.listener {
                self.accept();
            }
            if ready.signals
                && let Some(status) = self.take_signals()
            {
                return status;
            }
            // A worker's words come before its end: once it has been reaped, all of them are here.
            if let Some(status) = self.hear_all() {
                return status;
            }
            if let Some(status) = self.ended {
                return self.finish(status);
            }
        }
    }

    fn poll(&self) -> Result<Ready, Errno> {
        let none = self.signals.as_fd();
        let listens = self.connection.is_none() && self.listener.is_some();
        let events = |wanted| if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
        let listener = self.listener.as_ref().filter(|_| listens).map_or(none, AsFd::as_fd);
        let connection = self.connection.as_ref().map_or(none, AsFd::as_fd);
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener, events(listens)),
            PollFd::new(connection, events(self.connection.is_some())),
        ];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(Ready { signals: happened(&fds[0]), listener: listens && happened(&fds[1]) })
    }

    /// Accepts whoever may: the user that made the container. The directory's permissions keep others
    /// out already; this is the second lock.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        // A connection that ended while it waited is no reason to do anything.
        let Ok(connection) = socket::accept(listener.as_fd()) else { return };
        let owner = socket::peer_credentials(listener.as_fd());
        let peer = socket::peer_credentials(connection.as_fd());
        let (Ok(owner), Ok(peer)) = (owner, peer) else { return };
        if owner.uid == peer.uid && setsockopt(&connection, sockopt::PassCred, &true).is_ok() {
            self.connection = Some(connection);
        }
    }

    /// Handles the messages that are there; `Some` is init's exit status.
    fn hear_all(&mut self) -> Option<i32> {
        while let Some(connection) = &self.connection {
            let mut packet = [0; 8];
            let (length, sender) = match process::receive_with_pid(connection.as_fd(), &mut packet) {
                Ok(received) => received,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return None,
                    Some(libc::EINTR) => continue,
                    Some(_) | None => (0, 0),
                },
            };
            if let Some(status) = self.hear(packet.get(..length).unwrap_or_default(), sender) {
                return Some(status);
            }
        }
        None
    }

    /// Handles one message; `Some` is init's exit status.
    fn hear(&mut self, packet: &[u8], sender: i32) -> Option<i32> {
        match packet {
            [] => self.connection_ended(),
            [gate::START_PROGRAM] if self.is_exec() => return Some(self.start_program()),
            [gate::START_WORKER] if !self.is_exec() => return self.expect_worker(),
            [gate::BORN] => self.born(sender),
            [gate::RUNNING] => self.worker_runs(sender),
            [gate::ENDED, a, b, c, d] => {
                if !self.is_reaper && self.worker.is_some() {
                    self.ended = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                }
            }
            // Whoever talks nonsense is hung up on.
            _ => self.connection_ended(),
        }
        None
    }

    fn is_exec(&self) -> bool {
        self.plan.workload == WorkloadPlan::Exec
    }

    /// Nobody holds the other end any more: `start` and the seed have let go, and the worker or H.
    fn connection_ended(&mut self) {
        self.connection = None;
        if self.is_reaper || self.ended.is_some() {
            return;
        }
        if let Some(worker) = self.worker {
            // H is gone without telling how the worker ended: the worker must not outlive init.
            let _ = process::kill(worker, libc::SIGKILL);
            self.ended = Some(UNKNOWN_END);
        }
    }

    fn born(&mut self, pid: i32) {
        if self.worker.is_some() || pid <= 0 {
            return;
        }
        self.worker = Some(pid);
        if let Some((_, status)) = self.unknown_end.filter(|(known, _)| *known == pid) {
            self.ended = Some(status);
        }
    }

    /// The status changes here: first nobody listens any more, then `start` hears of it.
    fn worker_runs(&mut self, sender: i32) {
        self.born(sender);
        if self.worker != Some(sender) {
            return;
        }
        self.listener = None;
        self.running = true;
        self.answer(&[gate::RUNNING]);
        process::close_stdio();
    }

    fn expect_worker(&mut self) -> Option<i32> {
        match self.start_hooks() {
            Ok(()) => {
                self.answer(&[gate::READY]);
                None
            }
            Err(error) => {
                self.answer(&gate::encode_failure(&error));
                Some(FAILURE_STATUS)
            }
        }
    }

    fn start_hooks(&self) -> Result<(), StepError> {
        let HooksPlan { start_container, .. } = &self.plan.hooks;
        if start_container.is_empty() {
            return Ok(());
        }
        let state = hooks::state_json(&self.plan.init.state, "created", nix::unistd::getpid().as_raw());
        hooks::run("startContainer", start_container, &state)
    }

    /// Becomes the program; returns init's exit status if it cannot.
    fn start_program(&mut self) -> i32 {
        let error = match self.prepare_program() {
            Ok(program) => {
                self.write(&[gate::EXECUTING]);
                program.execute()
            }
            Err(error) => error,
        };
        self.write(&gate::encode_failure(&error));
        FAILURE_STATUS
    }

    fn prepare_program(&self) -> Result<Program, StepError> {
        self.start_hooks()?;
        // The attributes of a hidden process belong to the host's root, who this may no longer be.
        credentials::set_dumpable(true).at(|| "show init to the container")?;
        enter::apply_process(&self.plan.process, &mut |number| match &self.connection {
            Some(connection) => seccomp_agent::hand_over(connection.as_fd(), &seccomp_agent::packet(number)),
            None => Err(Errno::ENOTCONN.into()),
        })?;
        let program = Program::prepare(&self.plan.process)?;
        process::default_signal_actions();
        process::unblock_signals().at(|| "unblock signals")?;
        Ok(program)
    }

    /// Answers whoever waits for it, if anybody does: a `start` that has died needs no answer.
    fn answer(&self, packet: &[u8]) {
        if let Some(connection) = &self.connection {
            let _ = send(connection.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL);
        }
    }

    /// The same by write(2), which every filter of system calls allows.
    fn write(&self, packet: &[u8]) {
        if let Some(connection) = &self.connection {
            let _ = nix::unistd::write(connection, packet);
        }
    }

    /// Reaps and passes on; `Some` is init's exit status.
    fn take_signals(&mut self) -> Option<i32> {
        while let Some((signal, sender)) = process::read_signal(self.signals.as_fd()) {
            match (signal, self.worker) {
                (libc::SIGCHLD, _) => self.reap(),
                // Its own, from a hook that did not read its standard input: ignored, but because all
                // signals are blocked it waits to be read all the same.
                (libc::SIGPIPE, _) if i64::from(sender) == i64::from(nix::unistd::getpid().as_raw()) => {}
                (signal, Some(worker)) if i64::from(sender) != i64::from(worker) => {
                    // A worker that has just ended is noticed by its SIGCHLD.
                    let _ = process::kill(worker, signal);
                }
                (_, Some(_)) => {}
                (signal, None) if ends_processes(signal) => return Some(128 + signal),
                (_, None) => {}
            }
        }
        None
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = process::reap() {
            match self.worker {
                Some(worker) if worker == pid => self.ended = Some(status),
                Some(_) => {}
                None => self.unknown_end = Some((pid, status)),
            }
        }
    }

    /// Ends as the worker ended. The first process of a pid namespace cannot be killed by its own
    /// signal, so it exits with what shells make of one.
    fn finish(&self, status: i32) -> i32 {
        if !self.running {
            let [a, b, c, d] = status.to_le_bytes();
            self.answer(&[gate::ENDED, a, b, c, d]);
        }
        if libc::WIFEXITED(status) {
            return libc::WEXITSTATUS(status);
        }
        let signal = libc::WTERMSIG(status);
        if !self.is_reaper {
            process::die_by(signal);
        }
        128 + signal
    }
}

struct Ready {
    signals: bool,
    listener: bool,
}

/// Whether the default action of a signal is to end the process (signal(7)).
fn ends_processes(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}
