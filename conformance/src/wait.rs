//! Waiting with a bound and without polling: for a child to end, for a byte to arrive, for the last child to go.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::clean;

/// The longest any single step of a test may take on a busy machine.
pub const STEP: Duration = Duration::from_secs(30);

/// Waits for a child or an adopted descendant, and returns how it ended.
pub fn child(pid: i32, limit: Duration) -> Result<WaitStatus> {
    let ended = one_ends_within(&[pid], limit).with_context(|| format!("wait for process {pid}"))?;
    ensure!(ended, "process {pid} still runs after {limit:?}");
    retry(|| waitpid(Pid::from_raw(pid), None)).with_context(|| format!("wait for process {pid}"))
}

/// Reaps children until none is left; false if some still run at the limit.
pub fn no_children(limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        match retry(|| waitpid(None, Some(WaitPidFlag::WNOHANG))) {
            Err(_) => return true,
            Ok(WaitStatus::StillAlive) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() || !one_ends_within(&clean::child_ids(), left).unwrap_or(true) {
                    return false;
                }
            }
            Ok(_) => {}
        }
    }
}

/// Whether one of the processes ends within the limit, or there is none; it is not reaped. One may wait for another to be reaped,
/// as the first of a pid namespace does for all in it.
pub fn one_ends_within(pids: &[i32], limit: Duration) -> Result<bool> {
    let open = |&pid: &i32| {
        let id = rustix::process::Pid::from_raw(pid).context("0 is no process")?;
        pidfd_open(id, PidfdFlags::empty()).with_context(|| format!("open process {pid}"))
    };
    let processes = pids.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut fds: Vec<_> =
        processes.iter().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(limit.as_millis()).unwrap_or(PollTimeout::MAX);
    Ok(fds.is_empty() || retry(|| poll(&mut fds, timeout)).context("poll")? > 0)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Reads one line, without its end, byte by byte so that nothing behind it is consumed.
pub fn line(source: &mut (impl Read + AsFd), limit: Duration) -> Result<String> {
    let end = Instant::now() + limit;
    let mut text = Vec::new();
    loop {
        readable(source, end)?;
        let mut byte = [0];
        if source.read(&mut byte).context("read a line")? == 0 {
            bail!("end of file after {:?}", String::from_utf8_lossy(&text));
        }
        if byte[0] == b'\n' {
            return String::from_utf8(text).context("a line that is no UTF-8");
        }
        text.push(byte[0]);
    }
}

/// Whether something can be read, or the end has come, within the limit.
pub fn readable_within(source: &impl AsFd, limit: Duration) -> bool {
    readable(source, Instant::now() + limit).is_ok()
}

fn readable(source: &impl AsFd, end: Instant) -> Result<()> {
    let left = end.saturating_duration_since(Instant::now()).as_millis();
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
    let ready = retry(|| poll(&mut fds, timeout)).context("poll")?;
    ensure!(ready > 0, "nothing to read from fd {} within the limit", source.as_fd().as_raw_fd());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_ends_before_what_follows() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(line(&mut reader, STEP).unwrap(), "one");
        assert_eq!(line(&mut reader, STEP).unwrap(), "two");
        drop(writer);
        assert!(line(&mut reader, STEP).is_err());
    }

    #[test]
    fn a_line_that_never_comes_is_an_error() {
        let (mut reader, _writer) = std::io::pipe().unwrap();
        assert!(line(&mut reader, Duration::from_millis(1)).is_err());
    }
}
