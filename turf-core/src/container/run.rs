//! `run` in the foreground: waits for a container whose init is a child of this process, and passes
//! on the signals that this process gets.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::notify::Notify;
use super::terminal::{Relay, Terminal};
use crate::error::{Error, Operation, Result};
use crate::sandbox::init::Created;
use crate::sys::pidfd::pidfd_send_signal;

/// Keeps signals waiting from its making on, so that none is lost before [`Foreground::wait`] passes
/// them on. Made before `create`: init unblocks its own.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
}

/// What is passed on besides signals.
#[derive(Debug, Default)]
pub struct Attended {
    /// The process's terminal, if it has the caller's.
    pub terminal: Option<Terminal>,
    /// What a service says of itself.
    pub notify: Option<Notify>,
}

impl Foreground {
    /// Blocks every signal that can be passed on, and SIGCHLD.
    pub fn block_signals() -> Result<Foreground> {
        let mut signals = SigSet::all();
        // Faults of this very process, what stops it with its terminal, and the ignored SIGPIPE of a hook
        // that does not read: blocked, it would wait for init, which inherits the mask.
        for own in [
            Signal::SIGPIPE,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGTRAP,
            Signal::SIGABRT,
            Signal::SIGSYS,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGTSTP,
        ] {
            signals.remove(own);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).operation(|| "block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&signals, flags).operation(|| "watch signals")?;
        Ok(Foreground { signals })
    }

    /// Waits until init has exited, passing on every signal but SIGCHLD and what is attended, and returns the
    /// exit status: its own, or 128 and the number of the signal that killed it.
    pub fn wait(&self, init: &Created, attended: Attended) -> Result<i32> {
        let Attended { terminal, notify } = attended;
        let mut relay = terminal.map(Terminal::take).transpose()?.flatten();
        loop {
            // Asked before the rest is passed on, so that nothing it said before its end is lost.
            let status = exit_status(init)?;
            if let Some(relay) = &mut relay {
                relay.pass_on()?;
            }
            if let Some(notify) = &notify {
                notify.pass_on()?;
            }
            if let Some(status) = status {
                return Ok(status);
            }
            self.sleep(init, relay.as_mut(), notify.as_ref())?;
            self.pass_signals_on(init, relay.as_ref())?;
        }
    }

    /// Sleeps until there is something to do, and reads what was typed.
    fn sleep(&self, init: &Created, relay: Option<&mut Relay>, notify: Option<&Notify>) -> Result<()> {
        let stdin = std::io::stdin();
        let mut typed = false;
        {
            let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = vec![watch(self.signals.as_fd()), watch(init.pidfd.as_fd())];
            fds.extend(notify.map(|notify| watch(notify.as_fd())));
            let (master, wants_input) = relay.as_ref().map_or((None, false), |relay| relay.interest());
            fds.extend(master.map(|(fd, flags)| PollFd::new(fd, flags)));
            fds.extend(wants_input.then(|| watch(stdin.as_fd())));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("wait for the container", errno)),
            }
            if wants_input {
                typed = fds.last().and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
            }
        }
        match relay {
            Some(relay) if typed => relay.read_input(),
            Some(_) | None => Ok(()),
        }
    }

    fn pass_signals_on(&self, init: &Created, relay: Option<&Relay>) -> Result<()> {
        while let Some(signal) = self.signals.read_signal().operation(|| "read a signal")? {
            // Signals have small numbers.
            let signal = i32::try_from(signal.ssi_signo).unwrap_or(0);
            match (signal, relay) {
                (libc::SIGCHLD, _) => {}
                (libc::SIGWINCH, Some(relay)) => relay.resize(),
                (signal, _) => match pidfd_send_signal(init.pidfd.as_fd(), signal) {
                    // It has exited: the next round asks for its status.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    sent => {
                        sent.operation(|| format!("pass signal {signal} on to process {}", init.pid))?;
                    }
                },
            }
        }
        Ok(())
    }
}

fn exit_status(init: &Created) -> Result<Option<i32>> {
    loop {
        return match waitpid(Pid::from_raw(init.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => Ok(Some(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(128 + signal as i32)),
            Ok(_) => Ok(None),
            Err(Errno::EINTR) => continue,
            Err(errno) => Err(Error::io(format!("wait for process {}", init.pid), errno)),
        };
    }
}
