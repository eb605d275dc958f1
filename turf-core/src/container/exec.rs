//! `exec`: another process in a container that has been created.
//!
//! The container's lock is not taken: nothing of the container changes. If it ends meanwhile, joining it
//! fails, or the new process ends with it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::create::tell;
use super::rootless;
use super::state::{Creator, State, load_plan};
use super::status::Status;
use super::terminal::Console;
use crate::bundle;
use crate::cgroup::SubGroup;
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::root::{ContainerId, StateRoot};
use crate::sandbox::exec::{self, ExecOptions};
use crate::sandbox::init::Created;
use crate::sandbox::plan::{LabelMoment, ProcessPlan, TerminalPlan};
use crate::sandbox::process::{capability_bit, compile_another};
use crate::sys::pidfd::pidfd_send_signal;

/// What `exec` needs besides the id.
#[derive(Debug)]
pub struct Exec<'a> {
    /// What runs.
    pub process: ExecProcess<'a>,
    /// Whether the process gets a terminal, whatever `process` says.
    pub terminal: bool,
    /// Where the terminal's master is sent.
    pub console: Console,
    /// Where the pid is written when the program has been executed.
    pub pid_file: Option<&'a Path>,
    /// Where a descriptor of the process is sent.
    pub pidfd_socket: Option<OwnedFd>,
    /// Groups below the container's own that the process joins in their place.
    pub cgroups: Vec<SubGroup>,
    /// What is done in a paused container.
    pub paused: IfPaused,
    /// How many descriptors from 3 up the process inherits.
    pub preserve_fds: u32,
}

/// What `exec` does in a paused container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPaused {
    /// It is refused: the process would wait for the container to be resumed, and `exec` with it.
    Refuse,
    /// It joins the container and waits.
    Join,
}

/// What `exec` runs.
#[derive(Clone, Debug)]
pub enum ExecProcess<'a> {
    /// A file that holds `process` of a config.json.
    File(&'a Path),
    /// The container's own process with these changes.
    Changed(Changes),
}

/// How a process differs from the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The program with its arguments.
    pub args: Vec<String>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// `NAME=VALUE`, each in addition to the environment or in place of what has this name.
    pub env: Vec<String>,
    /// User, and group if it is another.
    pub user: Option<User>,
    /// Supplementary groups in addition.
    pub additional_gids: Vec<u32>,
    /// Capabilities in addition, by name.
    pub capabilities: Vec<String>,
    /// AppArmor profile, if another.
    pub apparmor_profile: Option<String>,
    /// SELinux label, if another.
    pub selinux_label: Option<String>,
    /// Forbids gaining privileges by execve(2) even if the container does not.
    pub no_new_privileges: bool,
}

/// A user by number, and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id in the container.
    pub uid: u32,
    /// The group's id; `None`: that of the container's own process.
    pub gid: Option<u32>,
}

impl std::str::FromStr for User {
    type Err = Error;

    /// Parses `UID` or `UID:GID`.
    fn from_str(text: &str) -> Result<User> {
        let refused = || Error::invalid(format!("user {text:?}"), "must be UID or UID:GID, in numbers");
        let number = |text: &str| text.parse::<u32>().map_err(|_| refused());
        Ok(match text.split_once(':') {
            Some((uid, gid)) => User { uid: number(uid)?, gid: Some(number(gid)?) },
            None => User { uid: number(text)?, gid: None },
        })
    }
}

/// Executes a program in a container, and returns its process, which is a child of the caller.
pub fn exec(root: &StateRoot, id: &ContainerId, options: Exec<'_>) -> Result<Created> {
    let dir = root.container(id);
    let state = State::load(&dir)?;
    fault::at(Point::ExecLoaded)?;
    let status = state.status(&dir, Creator::MayLive)?;
    let refused = |status| Error::WrongStatus { id: id.to_string(), verb: "exec in", status };
    match status {
        Status::Created | Status::Running => {}
        Status::Paused if options.paused == IfPaused::Join => {}
        Status::Paused => {
            return Err(Error::invalid(format!("container {id}"), "cannot exec in a paused container"));
        }
        Status::Creating | Status::Stopped => return Err(refused(status)),
    }
    let init = state.init.as_ref().ok_or_else(|| refused(Status::Stopped))?;
    let pidfd = init.open()?.ok_or_else(|| refused(Status::Stopped))?;
    let plan = load_plan(&dir)?;
    let mut process = compile(&options.process, &plan.process)?;
    rootless::ids(&plan.init, &process)?;
    if options.terminal {
        process.terminal = process.terminal.or(Some(TerminalPlan::default()));
    }
    let wants_terminal = process.terminal.is_some();
    options.console.check(wants_terminal, "the process's terminal")?;
    process.terminal = process.terminal.map(|size| options.console.size(size));
    let mut created = exec::spawn(&ExecOptions {
        init_pid: init.pid,
        init: pidfd,
        sandbox: &plan.init,
        run: exec::Run::Process(&process),
        cgroup: &state.cgroup.open_for_join_below(&options.cgroups)?,
        preserve_fds: options.preserve_fds,
        console_socket: options.console.into_socket(wants_terminal)?,
        stdio: None,
    })?;
    created.warnings.extend(warnings_of(&options.process));
    let told = fault::at(Point::ExecSpawned).and_then(|()| {
        tell(created.pid, created.pidfd.as_fd(), options.pid_file, options.pidfd_socket.as_ref())
    });
    match told {
        Ok(()) => Ok(created),
        Err(error) => Err(error.and_clean_up(kill_child(&created))),
    }
}

fn warnings_of(process: &ExecProcess<'_>) -> Vec<String> {
    let ExecProcess::Changed(Changes { capabilities, .. }) = process else { return Vec::new() };
    let unknown = capabilities.iter().filter(|name| capability_bit(name).is_none());
    unknown.map(|name| format!("--cap {name:?} is no capability that this program knows")).collect()
}

fn compile(process: &ExecProcess<'_>, own: &ProcessPlan) -> Result<ProcessPlan> {
    let mut plan = match process {
        ExecProcess::File(path) => compile_another(&bundle::load_process(path)?, own)?,
        ExecProcess::Changed(changes) => changed(changes, own)?,
    };
    // The container's own process may be a worker, which executes nothing; this one does.
    plan.labels = LabelMoment::Exec;
    Ok(plan)
}

fn changed(changes: &Changes, own: &ProcessPlan) -> Result<ProcessPlan> {
    let mut plan = ProcessPlan { args: changes.args.clone(), terminal: None, ..own.clone() };
    if plan.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("the command line", "must name a program, or --process a file"));
    }
    if let Some(cwd) = &changes.cwd {
        if !cwd.is_absolute() {
            return Err(Error::invalid(format!("--cwd {}", cwd.display()), "must be absolute"));
        }
        plan.cwd.clone_from(cwd);
    }
    for entry in &changes.env {
        let name = entry.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid(format!("--env {entry:?}"), "must be NAME=VALUE"))?;
        let same = |known: &String| known.split_once('=').is_some_and(|(known, _)| known == name);
        plan.env.retain(|known| !same(known));
        plan.env.push(entry.clone());
    }
    if let Some(User { uid, gid }) = changes.user {
        plan.uid = uid;
        plan.gid = gid.unwrap_or(plan.gid);
    }
    plan.additional_gids.extend(&changes.additional_gids);
    for name in &changes.capabilities {
        // One that is unknown is warned of, as one in config.json is.
        let bit = capability_bit(name).unwrap_or(0);
        plan.capabilities.bounding |= bit;
        plan.capabilities.permitted |= bit;
        plan.capabilities.effective |= bit;
    }
    plan.apparmor_profile = changes.apparmor_profile.clone().or(plan.apparmor_profile);
    plan.selinux_label = changes.selinux_label.clone().or(plan.selinux_label);
    plan.no_new_privileges |= changes.no_new_privileges;
    Ok(plan)
}

/// Kills and reaps a process that is a child of this one.
fn kill_child(created: &Created) -> Result<()> {
    pidfd_send_signal(created.pidfd.as_fd(), libc::SIGKILL)
        .and_then(|()| crate::sys::process::wait_for(created.pid))
        .operation(|| format!("kill process {}", created.pid))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessPlan {
        ProcessPlan {
            args: vec!["aworker".into(), "/a.js".into()],
            env: vec!["PATH=/bin".into(), "A=1".into()],
            cwd: "/app".into(),
            uid: 7,
            gid: 8,
            labels: LabelMoment::Now,
            no_new_privileges: true,
            terminal: Some(TerminalPlan::default()),
            ..ProcessPlan::default()
        }
    }

    #[test]
    fn changes_change_only_what_they_name() {
        let changes = Changes {
            args: vec!["sh".into()],
            env: vec!["A=2".into(), "B=3".into()],
            user: Some("1:2".parse().unwrap()),
            capabilities: vec!["cap_chown".into(), "KILL".into()],
            ..Changes::default()
        };
        let plan = compile(&ExecProcess::Changed(changes), &own()).unwrap();
        assert_eq!(
            (plan.args, plan.env),
            (vec!["sh".to_owned()], vec!["PATH=/bin".to_owned(), "A=2".into(), "B=3".into()])
        );
        assert_eq!((plan.uid, plan.gid, plan.cwd.as_path()), (1, 2, Path::new("/app")));
        assert_eq!((plan.capabilities.bounding, plan.capabilities.ambient), (1 | 1 << 5, 0));
        assert_eq!((plan.labels, plan.no_new_privileges, plan.terminal), (LabelMoment::Exec, true, None));
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let args = vec!["a".to_owned()];
        for changes in [
            Changes::default(),
            Changes { args: vec![String::new()], ..Changes::default() },
            Changes { args: args.clone(), cwd: Some("a".into()), ..Changes::default() },
            Changes { args: args.clone(), env: vec!["A".into()], ..Changes::default() },
            Changes { args, env: vec!["=A".into()], ..Changes::default() },
        ] {
            assert!(compile(&ExecProcess::Changed(changes.clone()), &own()).is_err(), "{changes:?}");
        }
    }

    #[test]
    fn a_user_is_one_number_or_two() {
        assert_eq!("5".parse::<User>().unwrap(), User { uid: 5, gid: None });
        assert_eq!("5:6".parse::<User>().unwrap(), User { uid: 5, gid: Some(6) });
        for text in ["", ":", "5:", ":6", "root", "-1", "5:6:7", "4294967296"] {
            assert!(text.parse::<User>().is_err(), "{text}");
        }
    }
}
