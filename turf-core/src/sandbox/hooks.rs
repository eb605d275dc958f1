//! Running hooks: programs that get the container's state as JSON on their standard input.
//!
//! The specification is
//! <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#posix-platform-hooks>.
//! What a failure means depends on the list and is the caller's business: `prestart` to
//! `startContainer` stop the container, `poststart` and `poststop` are only warned about.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::init::Created;
use super::plan::{HookPlan, HookState};
use super::step::StepError;
use crate::error::Error;
use crate::sys::pidfd::pidfd_open;
use crate::sys::process;

/// How much of a failed hook's error output is kept for the message.
const ERROR_OUTPUT_BYTES: usize = 4096;

/// The state as a hook gets to see it (runtime-spec, runtime.md, "State").
pub fn state_json(state: &HookState, status: &str, pid: i32) -> Vec<u8> {
    let state = serde_json::json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status,
        "pid": pid,
        "bundle": state.bundle,
        "annotations": state.annotations,
    });
    state.to_string().into_bytes()
}

/// A file in which each hook is written down before it begins, as the leader of a process group, and which is removed when
/// the hook has ended. Whoever ends a container by force finds there what else there is to end.
pub type RecordFile<'a> = Option<&'a Path>;

/// Runs the hooks of one list in order, and stops at the first that fails: it cannot be executed,
/// its status is not 0, or its time is over (then it and its process group are killed). `kind`
/// names the list in errors ("poststart"). A hook without a timeout is waited for for ever. Their working directory is
/// `directory`, or `/` if that is gone.
pub fn run(
    kind: &str,
    hooks: &[HookPlan],
    directory: &Path,
    state: &[u8],
    record: RecordFile<'_>,
) -> Result<(), StepError> {
    let run_one = |hook| attend_to_end(spawn(hook, directory, record)?, hook, state, record);
    hooks.iter().try_for_each(|hook| run_one(hook).map_err(|reason| failed(kind, hook, &reason)))
}

/// The same for hooks that run inside a sandbox: `enter` makes the process there, the leader of a session, a child of the
/// caller, with these as standard input, output and error.
pub fn run_inside(
    kind: &str,
    hooks: &[HookPlan],
    state: &[u8],
    record: RecordFile<'_>,
    enter: impl Fn(&HookPlan, [BorrowedFd<'_>; 3]) -> Result<Created, Error>,
) -> Result<(), StepError> {
    let run_one = |hook| {
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from);
        let call = |error| Failure::Call("prepare", error);
        let (input_end, input) = pipe().map_err(call)?;
        let (errors, errors_end) = pipe().map_err(call)?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(call)?;
        let made = enter(hook, [input_end.as_fd(), null.as_fd(), errors_end.as_fd()]);
        let Created { pid, pidfd, .. } = made.map_err(|error| Failure::Enter(error.to_string()))?;
        drop((input_end, errors_end));
        let running = Running { pid, ended: pidfd, input: Some(input.into()), errors: Some(errors.into()) };
        let recorded = record.map_or(Ok(()), |path| std::fs::write(path, process::record_of(pid)));
        if let Err(error) = recorded {
            kill_group(pid);
            return Err(Failure::Call("write down", error));
        }
        attend_to_end(running, hook, state, record)
    };
    hooks.iter().try_for_each(|hook| run_one(hook).map_err(|reason| failed(kind, hook, &reason)))
}

/// Why a hook failed.
enum Failure {
    Call(&'static str, io::Error),
    Enter(String),
    Status(ExitStatus, String),
    TimedOut(u32),
}

/// A hook that runs, a child of this process and the leader of its process group.
struct Running {
    pid: i32,
    ended: OwnedFd,
    input: Option<File>,
    errors: Option<File>,
}

fn spawn(hook: &HookPlan, directory: &Path, record: RecordFile<'_>) -> Result<Running, Failure> {
    let mut command = command(hook, directory);
    if let Some(path) = record {
        let file = File::create(path).map_err(|error| Failure::Call("write down", error))?;
        process::record_before_exec(&mut command, file.into());
    }
    let mut child = command.spawn().map_err(|error| Failure::Call("execute", error))?;
    let watch = |error| Failure::Call("watch", error);
    let pid = i32::try_from(child.id()).map_err(|_| watch(io::ErrorKind::InvalidData.into()))?;
    let ended = pidfd_open(pid).map_err(watch)?;
    let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    let errors = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
    Ok(Running { pid, ended, input, errors })
}

fn attend_to_end(
    mut running: Running,
    hook: &HookPlan,
    state: &[u8],
    record: RecordFile<'_>,
) -> Result<(), Failure> {
    let deadline = hook.timeout_s.map(|s| Instant::now() + Duration::from_secs(u64::from(s)));
    let outcome = attend(&mut running, state, deadline, hook.timeout_s.unwrap_or(0));
    if outcome.is_err() {
        kill_group(running.pid);
    }
    let forgotten = record.map_or(Ok(()), std::fs::remove_file);
    let (status, output) = outcome?;
    forgotten.map_err(|error| Failure::Call("forget", error))?;
    if status.success() { Ok(()) } else { Err(Failure::Status(status, output)) }
}

fn command(hook: &HookPlan, directory: &Path) -> Command {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    // Without a word on it, it is the runtime's own: so do runc and crun, and hooks count on its PATH.
    if let Some(environment) = &hook.env {
        command.env_clear().envs(environment.iter().filter_map(|entry| entry.split_once('=')));
    }
    let directory = if directory.is_dir() { directory } else { Path::new("/") };
    command.current_dir(directory).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Feeds the state to the hook, collects its errors and waits for its end.
fn attend(
    running: &mut Running,
    state: &[u8],
    deadline: Option<Instant>,
    timeout_s: u32,
) -> Result<(ExitStatus, String), Failure> {
    let Running { pid, ended, input, errors } = running;
    let mut rest = state;
    let mut output = Vec::new();
    if let Some(input) = input {
        set_nonblocking(input.as_fd()).map_err(|error| Failure::Call("write the state to", error))?;
    }
    if let Some(errors) = errors {
        set_nonblocking(errors.as_fd()).map_err(|error| Failure::Call("read the errors of", error))?;
    }
    loop {
        let ready = wait_for_any(ended, input.as_ref(), errors.as_ref(), deadline)
            .map_err(|error| Failure::Call("wait for", error))?;
        let Some(ready) = ready else { return Err(Failure::TimedOut(timeout_s)) };
        if ready.input {
            // A hook need not read its input: a closed pipe ends the writing, nothing more.
            match input.as_mut().map(|pipe| pipe.write(rest)) {
                Some(Ok(written)) if written < rest.len() => rest = &rest[written..],
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(_) | None => *input = None,
            }
        }
        if ready.errors {
            let mut chunk = [0; 1024];
            match errors.as_mut().map(|pipe| pipe.read(&mut chunk)) {
                Some(Ok(length)) if length > 0 => {
                    let room = ERROR_OUTPUT_BYTES.saturating_sub(output.len());
                    output.extend_from_slice(&chunk[..length.min(room)]);
                    continue;
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(_) | None => *errors = None,
            }
        }
        if ready.ended {
            let status = process::wait_for(*pid).map_err(|error| Failure::Call("wait for", error))?;
            return Ok((ExitStatus::from_raw(status), String::from_utf8_lossy(&output).trim().to_owned()));
        }
    }
}

struct Ready {
    ended: bool,
    input: bool,
    errors: bool,
}

/// Waits until something happens to the hook; `None` when its time is over.
fn wait_for_any(
    ended: &OwnedFd,
    input: Option<&File>,
    errors: Option<&File>,
    deadline: Option<Instant>,
) -> io::Result<Option<Ready>> {
    let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
    fds.extend(input.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
    fds.extend(errors.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up: a timeout of 0 must mean that the time is over.
                PollTimeout::try_from(left.as_millis() + u128::from(!left.is_zero()))
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(None),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut states = fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
    let mut next = |present: bool| present && states.next().unwrap_or(false);
    let ended = next(true);
    let input = next(input.is_some());
    let errors = next(errors.is_some());
    Ok(Some(Ready { ended, input, errors }))
}

/// Kills the hook's process group and reaps the hook. Nothing can be done about a failure here: the
/// hook has ended already.
fn kill_group(pid: i32) {
    let _ = process::kill(-pid, libc::SIGKILL);
    let _ = process::kill(pid, libc::SIGKILL);
    let _ = process::wait_for(pid);
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn failed(kind: &str, hook: &HookPlan, failure: &Failure) -> StepError {
    let step = format!("{kind} hook {}", hook.path.display());
    match failure {
        Failure::Call(what, error) => {
            let errno = error.raw_os_error();
            let text = errno.map_or_else(|| error.to_string(), crate::error::errno_text);
            StepError { step: format!("{what} {step}"), errno: errno.unwrap_or(0), text }
        }
        Failure::Enter(text) => StepError::refused(step, text.clone()),
        Failure::TimedOut(seconds) => {
            StepError::refused(step, format!("killed: it ran longer than its timeout of {seconds} s"))
        }
        Failure::Status(status, output) => {
            let status = match (status.code(), status.signal()) {
                (Some(code), _) => format!("exited with status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "failed".to_owned(),
            };
            let text = if output.is_empty() { status } else { format!("{status}: {output}") };
            StepError::refused(step, text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout_s: Option<u32>) -> HookPlan {
        HookPlan {
            path: "/bin/sh".into(),
            args: vec!["hook".into(), "-c".into(), script.into()],
            env: Some(vec!["A=b".into()]),
            timeout_s,
        }
    }

    #[test]
    fn a_hook_gets_state_arguments_and_only_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("cat > {0}; echo \" $0 $A ${{HOME-none}}\" >> {0}", out.display());
        let state = vec![b'x'; 300_000];
        run("poststart", &[shell(&script, None)], Path::new("/"), &state, None).unwrap();
        let written = std::fs::read(&out).unwrap();
        assert_eq!(&written[..state.len()], &state[..]);
        assert_eq!(&written[state.len()..], b" hook b none\n");
    }

    #[test]
    fn a_hook_that_does_not_read_its_input_is_no_failure() {
        run("poststop", &[shell("exec <&-", None)], Path::new("/"), &vec![b'x'; 300_000], None).unwrap();
    }

    #[test]
    fn a_failing_hook_stops_the_list_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let hooks = [shell("echo oh no >&2; exit 7", None), shell(&format!("> {}", out.display()), None)];
        let error = run("createRuntime", &hooks, Path::new("/"), b"{}", None).unwrap_err();
        assert_eq!(error.to_string(), "createRuntime hook /bin/sh: exited with status 7: oh no");
        assert!(!out.exists());
    }

    #[test]
    fn a_hook_is_killed_with_its_children_when_its_time_is_over() {
        let started = Instant::now();
        let error = run("prestart", &[shell("sleep 100 & sleep 100", Some(1))], Path::new("/"), b"{}", None)
            .unwrap_err();
        assert!(error.text.contains("timeout of 1 s"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_missing_hook_is_named() {
        let hook = HookPlan { path: "/does/not/exist".into(), args: vec![], env: None, timeout_s: None };
        let error = run("poststop", &[hook], Path::new("/"), b"{}", None).unwrap_err();
        assert_eq!(error.to_string(), "execute poststop hook /does/not/exist: no such file or directory");
    }

    #[test]
    fn the_state_is_what_the_specification_says() {
        let state = HookState {
            oci_version: "1.2.0".into(),
            id: "a".into(),
            bundle: "/b".into(),
            ..Default::default()
        };
        let json: serde_json::Value = serde_json::from_slice(&state_json(&state, "creating", 7)).unwrap();
        let wanted = serde_json::json!({
            "ociVersion": "1.2.0", "id": "a", "status": "creating", "pid": 7, "bundle": "/b", "annotations": {}
        });
        assert_eq!(json, wanted);
    }
}
