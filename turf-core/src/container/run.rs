//! `run` in the foreground: waits for a container whose init is a child of this process, and passes
//! on the signals that this process gets.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::notify::Notify;
use super::terminal::{Relay, Terminal};
use crate::cgroup::wait_for_exit;
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sandbox::init::{Created, Report};
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
    /// exit status: its own, or 128 and the number of the signal that killed it. An init that executes its program by itself, as
    /// `report` tells, and has not done so within the report's limit, is killed.
    pub fn wait(&self, init: &Created, attended: Attended, report: Option<&Report>) -> Result<i32> {
        let Attended { terminal, notify } = attended;
        let mut relay = terminal.map(Terminal::take).transpose()?.flatten();
        let mut executing = report.map(|report| (report, Instant::now() + report.limit()));
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
            // Looked at only when the limit has passed: hardly a program takes so long to be executed.
            let left = executing.map(|(_, end)| end.saturating_duration_since(Instant::now()));
            if let (Some((report, _)), Some(Duration::ZERO)) = (executing, left) {
                if report.is_pending()? {
                    return Err(give_up(init, report));
                }
                executing = None;
                continue;
            }
            self.sleep(init, relay.as_mut(), notify.as_ref(), left)?;
            self.pass_signals_on(init, relay.as_ref())?;
        }
    }

    /// Sleeps until there is something to do, or for so long, and reads what was typed.
    fn sleep(
        &self,
        init: &Created,
        relay: Option<&mut Relay>,
        notify: Option<&Notify>,
        limit: Option<Duration>,
    ) -> Result<()> {
        let stdin = std::io::stdin();
        let mut typed = false;
        {
            let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = vec![watch(self.signals.as_fd()), watch(init.pidfd.as_fd())];
            fds.extend(notify.map(|notify| watch(notify.as_fd())));
            let (master, wants_input) = relay.as_ref().map_or((None, false), |relay| relay.interest());
            fds.extend(master.map(|(fd, flags)| PollFd::new(fd, flags)));
            fds.extend(wants_input.then(|| watch(stdin.as_fd())));
            // Rounded up: a limit that has not quite passed would be waited for again and again.
            let timeout = limit.map_or(PollTimeout::NONE, |limit| {
                PollTimeout::try_from(limit + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
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

/// Ends an init whose program is not executed in time; the error says so.
fn give_up(init: &Created, report: &Report) -> Error {
    let late = Error::TimedOut {
        operation: "execute the container's program".to_owned(),
        limit_ms: u64::try_from(report.limit().as_millis()).unwrap_or(u64::MAX),
    };
    let killed = match pidfd_send_signal(init.pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        sent => sent.operation(|| "kill the container"),
    };
    // One that the kernel does not let go of is left to whoever deletes the container.
    let gone = killed.and_then(|()| wait_for_exit(init.pidfd.as_fd(), Instant::now() + limits::INIT_EXIT));
    late.and_clean_up(gone.and_then(|_| exit_status(init)).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::pidfd_open;
    use nix::sys::wait::waitpid;
    use std::process::{Child, Command, Stdio};

    fn started(command: &mut Command) -> (Child, Created) {
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, Created { pid, pidfd: pidfd_open(pid).unwrap(), warnings: Vec::new(), notes: Vec::new() })
    }

    fn foreground() -> Foreground {
        // No signal is taken from the test's process: the descriptors alone wake it.
        let signals = SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Foreground { signals: signals.unwrap() }
    }

    #[test]
    fn a_program_that_is_not_executed_in_time_is_given_up() {
        let (child, init) = started(&mut Command::new("cat"));
        let (report, _kept) = Report::pair(Duration::from_millis(1));
        let error = foreground().wait(&init, Attended::default(), Some(&report)).unwrap_err();
        assert_eq!(error.to_string(), "execute the container's program: no answer within 1 ms");
        assert_eq!(waitpid(Pid::from_raw(init.pid), None), Err(Errno::ECHILD), "it was not waited for");
        drop(child);
    }

    #[test]
    fn a_program_that_is_executed_has_no_limit() {
        // The limit has passed when it is first looked at, and the program goes on until its input ends.
        let (mut child, init) = started(Command::new("sh").args(["-c", "read line; exit 7"]));
        let (report, other) = Report::pair(Duration::ZERO);
        drop(other);
        let input = child.stdin.take();
        let waiting =
            std::thread::spawn(move || foreground().wait(&init, Attended::default(), Some(&report)).unwrap());
        drop(input);
        assert_eq!(waiting.join().unwrap(), 7);
    }
}
