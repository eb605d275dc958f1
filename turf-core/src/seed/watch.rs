//! Whether a seed that owes an answer will ever give it, by what the kernel shows of its process (proc_pid_status(5)).
//!
//! A seed that spins is none of this module's business: the kernel ends it ([`limits::SEED_REQUEST_CPU`]). What is left are those that do nothing: stopped
//! ones, and ones that sleep over a request. A healthy seed is woken by each request and sleeps in between, so its switches are counted on. One that waits for
//! a processor is runnable, and one in a frozen control group is as it is because somebody wants so: both are left alone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::limits;
use crate::sys::{pidfd, socket};

/// A seed that is looked at once in [`limits::SEED_LOOK`] for as long as it owes an answer.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Option<Sight>,
    /// How many looks before showed the same.
    same: u32,
}

/// What is seen of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// By a signal or a tracer.
    Stopped,
    /// After so many switches to another process.
    Asleep { switches: u64 },
    /// It runs or would like to, or cannot be looked at.
    Busy,
}

impl Watch {
    /// Has a look at the process at the other end of `connection`, and kills it if it is hopeless.
    pub fn look(&mut self, connection: BorrowedFd<'_>) -> io::Result<()> {
        let peer = socket::peer_credentials(connection)?;
        let Ok(process) = pidfd::pidfd_open(peer.pid) else { return Ok(()) };
        // The number is the seed's own as long as the seed has its end of the connection.
        if poll(&mut [PollFd::new(connection, PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0) {
            return Ok(());
        }
        if self.is_hopeless(Sight::of(peer.pid)) {
            pidfd::pidfd_send_signal(process.as_fd(), libc::SIGKILL)?;
        }
        Ok(())
    }

    fn is_hopeless(&mut self, sight: Sight) -> bool {
        self.same = if self.last == Some(sight) { self.same.saturating_add(1) } else { 0 };
        self.last = Some(sight);
        match sight {
            Sight::Stopped => self.same >= limits::SEED_LOOKS_STOPPED,
            Sight::Asleep { .. } => self.same >= limits::SEED_LOOKS_ASLEEP,
            Sight::Busy => false,
        }
    }
}

impl Sight {
    fn of(pid: i32) -> Sight {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let sight = Sight::in_status(&read("status"));
        match sight {
            Sight::Asleep { .. } if is_freezer(&read("wchan")) => Sight::Busy,
            Sight::Asleep { .. } | Sight::Stopped | Sight::Busy => sight,
        }
    }

    fn in_status(status: &str) -> Sight {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let switches = || {
            let counts = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
            counts.iter().map(|name| field(name)?.parse::<u64>().ok()).sum::<Option<u64>>()
        };
        match (field("State:").and_then(|state| state.chars().next()), switches()) {
            (Some('T' | 't'), _) => Sight::Stopped,
            (Some('S' | 'D'), Some(switches)) => Sight::Asleep { switches },
            (Some(_) | None, _) => Sight::Busy,
        }
    }
}

/// Whether a process sleeps in one of the kernel's functions for frozen ones, of either version of control groups.
fn is_freezer(function: &str) -> bool {
    function.contains("refrigerator") || function.contains("freezer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asleep(switches: u64) -> Sight {
        Sight::Asleep { switches }
    }

    /// After how many looks the last of which was hopeless.
    fn hopeless_after(sights: impl Iterator<Item = Sight>) -> Option<usize> {
        let mut watch = Watch::default();
        sights.take(1000).position(|sight| watch.is_hopeless(sight)).map(|index| index + 1)
    }

    #[test]
    fn who_stays_stopped_or_sleeps_through_is_hopeless_and_nobody_else() {
        let again = |sight: Sight| std::iter::repeat(sight);
        assert_eq!(hopeless_after(again(Sight::Stopped)), Some(limits::SEED_LOOKS_STOPPED as usize + 1));
        assert_eq!(hopeless_after(again(asleep(7))), Some(limits::SEED_LOOKS_ASLEEP as usize + 1));
        assert_eq!(hopeless_after(again(Sight::Busy)), None);
        assert_eq!(hopeless_after((0..).map(asleep)), None, "it wakes in between");
        let in_turn = [asleep(7), asleep(7), Sight::Busy, Sight::Stopped].into_iter().cycle();
        assert_eq!(hopeless_after(in_turn), None);
    }

    #[test]
    fn a_status_tells_what_a_process_does() {
        let status = |state: &str| {
            format!(
                "Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n"
            )
        };
        assert_eq!(Sight::in_status(&status("T (stopped)")), Sight::Stopped);
        assert_eq!(Sight::in_status(&status("t (tracing stop)")), Sight::Stopped);
        assert_eq!(Sight::in_status(&status("S (sleeping)")), asleep(7));
        assert_eq!(Sight::in_status(&status("D (disk sleep)")), asleep(7));
        assert_eq!(Sight::in_status(&status("R (running)")), Sight::Busy);
        assert_eq!(Sight::in_status("State:\tS (sleeping)\n"), Sight::Busy, "nothing is counted");
        assert_eq!(Sight::in_status(""), Sight::Busy);
        for function in ["do_freezer_trap", "__refrigerator"] {
            assert!(is_freezer(function));
        }
        assert!(!is_freezer("do_sys_poll") && !is_freezer("0"));
    }
}
