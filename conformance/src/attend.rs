//! Who attends a run of the tests: a process beside it that lives longer, and ends what the run has made, however that ends.
//!
//! A test that fails clears up after itself ([`crate::case`]). This is for a run that is interrupted, killed, or crashes: its
//! descendants become children of the attendant (prctl(2), `PR_SET_CHILD_SUBREAPER`), which ends them by their ids and removes the
//! control groups and directories that have the run's tag. Only an attendant that is killed itself leaves something.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};

use crate::{case, clean};

/// Tells the run that it is attended, by the attendant's id.
const ATTENDANT: &str = "CONFORMANCE_ATTENDANT";

/// What is asked of the attendant: it ends the run.
const INTERRUPTIONS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Does the work in a process of its own that is attended.
pub fn attended(work: impl FnOnce() -> Result<ExitCode>) -> Result<ExitCode> {
    let mut signals: SigSet = INTERRUPTIONS.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    if std::env::var(ATTENDANT).is_ok_and(|attendant| attendant == getppid().to_string()) {
        // The mask is inherited. An attendant that is killed takes its run along.
        signals.thread_unblock().context("unblock signals")?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("end with the attendant")?;
        return work();
    }
    nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
    signals.thread_block().context("block signals")?;
    let program = std::env::current_exe().context("find this program")?;
    let mut run = Command::new(program);
    run.args(std::env::args_os().skip(1)).env(ATTENDANT, std::process::id().to_string());
    // A terminal's signals reach the attendant alone, which ends the run as a whole.
    let run = run.process_group(0).spawn().context("begin the run")?;
    let id = run.id();
    let run = Pid::from_raw(id.cast_signed());
    let mut interrupted = None;
    let status = loop {
        match signals.wait().context("wait for a signal")? {
            Signal::SIGCHLD => {
                if let Some(status) = reap(run)? {
                    break status;
                }
            }
            signal => {
                interrupted = Some(signal);
                // It may have ended by itself in between.
                let _ = kill(run, Signal::SIGKILL);
            }
        }
    };
    clear_up(id)?;
    if let Some(signal) = interrupted {
        eprintln!("conformance: ended by {signal}, with all that the tests had begun");
    }
    Ok(exit_code(status))
}

/// Reaps whoever has ended; how the run did, if it is among them.
fn reap(run: Pid) -> Result<Option<ExitStatus>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == run => ended = Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == run => {
                ended = Some(ExitStatus::from_raw(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the run"),
        }
    }
}

/// Ends and removes what there is of the run. Its mounts were in a namespace of its own, and are gone with its processes.
fn clear_up(run: u32) -> Result<()> {
    let tags = case::tags(run);
    let swept = tags.iter().map(|tag| clean::sweep(&clean::mounts()?, tag)).collect::<Vec<_>>();
    let entries = std::fs::read_dir(std::env::temp_dir()).context("list the directory of temporary files")?;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        tags.iter().any(|tag| name.starts_with(tag.as_str()))
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(is_ours) {
        std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    swept.into_iter().collect()
}

/// A run that was killed ends as shells say it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
