//! `kill`: sends a signal to init, or to every process of the container; and the names of signals.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use super::hook;
use super::state::{Creator, State, load_plan};
use super::status::{Event, Status};
use crate::error::{Error, Result};
use crate::root::{ContainerDir, ContainerId, StateRoot};
use crate::sandbox::plan::WorkloadPlan;
use crate::sys::pidfd::pidfd_send_signal;

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The container's init, which passes it on to a worker.
    Init,
    /// Every process of the container; also allowed when init has exited and others live on.
    All,
}

/// A signal by its number, which includes the real-time signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalNumber(i32);

impl SignalNumber {
    /// SIGTERM, the default of `kill`.
    pub const TERM: SignalNumber = SignalNumber(libc::SIGTERM);
    /// SIGKILL.
    pub const KILL: SignalNumber = SignalNumber(libc::SIGKILL);

    /// The number.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl std::str::FromStr for SignalNumber {
    type Err = Error;

    /// Parses a number (0 to 64) or a name, with or without `SIG`, in upper or lower case:
    /// `9`, `KILL`, `sigkill`, `RTMIN+3`. 0 is no signal: kill(2) only says whether one could be sent.
    fn from_str(text: &str) -> Result<SignalNumber> {
        let known = parse_number(text).or_else(|| parse_name(text));
        known.map(SignalNumber).ok_or_else(|| {
            let reason = "must be a number from 0 to 64 or a name like TERM or SIGTERM";
            Error::invalid(format!("signal {text:?}"), reason)
        })
    }
}

/// The numbers Linux knows (signal(7)).
const HIGHEST: i32 = 64;

fn parse_number(text: &str) -> Option<i32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (0..=HIGHEST).contains(number))
}

fn parse_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(above) = name.strip_prefix("RTMIN") {
        let above = if above.is_empty() { 0 } else { parse_offset(above, '+')? };
        return Some(libc::SIGRTMIN() + above).filter(|number| *number <= HIGHEST);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        let below = if below.is_empty() { 0 } else { parse_offset(below, '-')? };
        return Some(HIGHEST - below).filter(|number| *number >= libc::SIGRTMIN());
    }
    match name {
        "CLD" => Some(libc::SIGCHLD),
        "POLL" => Some(libc::SIGIO),
        "IOT" => Some(libc::SIGABRT),
        _ => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32),
    }
}

fn parse_offset(text: &str, sign: char) -> Option<i32> {
    let digits = text.strip_prefix(sign)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Sends a signal. A frozen container is thawed by SIGKILL, because a frozen process does not die; a hook that `start`
/// waits for is ended too.
pub fn kill(root: &StateRoot, id: &ContainerId, signal: SignalNumber, target: Target) -> Result<()> {
    let dir = root.container(id);
    let state = State::load(&dir)?;
    let status = state.status(&dir, Creator::MayLive)?;
    match target {
        Target::All => kill_all(&dir, &state, status, signal)?,
        Target::Init if !status.allows(Event::Signalled) => return Err(refused(&state, status)),
        Target::Init => kill_init(&state, signal)?,
    }
    if signal == SignalNumber::KILL { hook::end(&dir) } else { Ok(()) }
}

fn kill_init(state: &State, signal: SignalNumber) -> Result<()> {
    let gone = || refused(state, Status::Stopped);
    let init = state.init.as_ref().ok_or_else(gone)?;
    let pidfd = init.open()?.ok_or_else(gone)?;
    match pidfd_send_signal(pidfd.as_fd(), signal.as_raw()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(gone()),
        sent => sent.map_err(|error| Error::io(format!("signal container {}", state.id), error))?,
    }
    if signal == SignalNumber::KILL && state.cgroup.is_frozen()? { state.cgroup.thaw() } else { Ok(()) }
}

fn kill_all(dir: &ContainerDir, state: &State, status: Status, signal: SignalNumber) -> Result<()> {
    match status {
        Status::Creating => Err(refused(state, status)),
        Status::Created | Status::Running | Status::Paused | Status::Stopped => {
            if signal == SignalNumber::KILL {
                return state.cgroup.kill_all();
            }
            state.cgroup.signal_all(signal.as_raw(), passes_on(dir, state)?)
        }
    }
}

/// The init of a worker, which passes on what it gets: the worker would have every signal twice, and takes
/// the second SIGTERM as an order to end at once.
fn passes_on(dir: &ContainerDir, state: &State) -> Result<Option<i32>> {
    match load_plan(dir)?.workload {
        WorkloadPlan::Worker { .. } => Ok(state.init.as_ref().map(|init| init.pid)),
        WorkloadPlan::Exec => Ok(None),
    }
}

fn refused(state: &State, status: Status) -> Error {
    Error::WrongStatus { id: state.id.to_string(), verb: "signal", status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_by_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("Term", 15),
            ("0", 0),
            ("1", 1),
            ("64", 64),
            ("HUP", 1),
            ("USR2", 12),
            ("CHLD", 17),
            ("CLD", 17),
            ("POLL", 29),
            ("IO", 29),
            ("IOT", 6),
            ("WINCH", 28),
            ("PWR", 30),
            ("STKFLT", 16),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("rtmax-2", 62),
        ] {
            assert_eq!(text.parse::<SignalNumber>().unwrap().as_raw(), number, "{text}");
        }
        for bad in [
            "",
            "65",
            "-9",
            "+9",
            "SIG",
            "SIGSIGKILL",
            "KILL ",
            "RTMIN+",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMAX-31",
            "RTMIN+-1",
            "99999999999",
            "٣",
        ] {
            assert!(bad.parse::<SignalNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn whatever_is_accepted_is_a_signal() {
        let pieces = ["SIG", "RT", "MIN", "MAX", "+", "-", "1", "9", "34", "KILL", "sig", "INT", "\0", "é"];
        let mut state = 3u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            if let Ok(signal) = text.parse::<SignalNumber>() {
                assert!((0..=HIGHEST).contains(&signal.as_raw()), "{text:?}");
            }
        }
    }
}
