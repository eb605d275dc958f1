//! `run` in the foreground: waits for a container whose init is a child of this process, and passes
//! on the signals that this process gets.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Error, Operation, Result};
use crate::sandbox::init::Created;
use crate::sys::pidfd::pidfd_send_signal;

/// Keeps signals waiting from its making on, so that none is lost before [`Foreground::wait`] passes
/// them on. Made before `create`: init unblocks its own.
#[derive(Debug)]
pub struct Foreground {
    signals: SigSet,
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
        Ok(Foreground { signals })
    }

    /// Waits until init has exited, passing on every signal but SIGCHLD, and returns the
    /// exit status: its own, or 128 and the number of the signal that killed it.
    pub fn wait(&self, init: &Created) -> Result<i32> {
        loop {
            // Asked first: it may have exited before anybody waited.
            if let Some(status) = exit_status(init)? {
                return Ok(status);
            }
            let signal = match self.signals.wait() {
                Err(Errno::EINTR) => continue,
                signal => signal.operation(|| "wait for a signal")?,
            };
            if signal != Signal::SIGCHLD {
                match pidfd_send_signal(init.pidfd.as_fd(), signal as i32) {
                    // It has exited: the next round asks for its status.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    sent => sent.operation(|| format!("pass {signal} on to process {}", init.pid))?,
                }
            }
        }
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
