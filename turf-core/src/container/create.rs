//! `create`: from a bundle to an init that waits at the gate.
//!
//! The order is what makes a killed `create` harmless: state.json names the control groups before they are
//! made, and init is written down before it can reach the gate, and as created while it still ends with this
//! process. Whatever fails here is undone here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::cgroups::{self, CgroupOptions};
use super::fresh::Fresh;
use super::hook::{self, Purpose};
use super::host_root::{self, HostRoot};
use super::notify;
use super::process::ProcessId;
use super::promotable;
use super::rootless;
use super::state::{State, write_atomically};
use super::tenant;
use super::terminal::Console;
use crate::bundle::Bundle;
use crate::error::{Error, Operation, Result};
use crate::fault::{self, Point};
use crate::limits;
use crate::root::{ContainerDir, ContainerId, Lock, StateRoot};
use crate::sandbox::compile::{Context, Keyring, RootEntry, compile};
use crate::sandbox::hooks;
use crate::sandbox::init::{self, SpawnOptions};
use crate::sandbox::plan::{HookPlan, Plan};
use crate::sandbox::step::Step;
use crate::sys::socket;

/// What `create` needs besides the id.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The bundle's directory.
    pub bundle: &'a Path,
    /// Its configuration, if not `config.json`; relative to the bundle's directory.
    pub config: Option<&'a Path>,
    /// Where init's pid is written when the container is created.
    pub pid_file: Option<&'a Path>,
    /// Where the terminal's master is sent.
    pub console: Console,
    /// Whether the workload may notify a service manager.
    pub notify: Notifications,
    /// Where a descriptor of init is sent.
    pub pidfd_socket: Option<OwnedFd>,
    /// How many descriptors from 3 up the workload inherits, listening sockets included.
    pub preserve_fds: u32,
    /// How many of those, the first ones, are listening sockets handed in as sd_listen_fds(3) says.
    pub listen_fds: u32,
    /// Which session keyring the workload gets.
    pub keyring: Keyring,
    /// How init enters the root.
    pub root_entry: RootEntry,
    /// How the control groups are made.
    pub cgroups: CgroupOptions,
    /// When the workload begins.
    pub begin: Begin,
}

/// When the workload of a container begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At `start`.
    AtStart,
    /// As soon as the sandbox stands, if nobody has anything to do in between; else at `start`.
    AtOnce,
}

/// Whether a workload is handed a `$NOTIFY_SOCKET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    /// It is not: the caller has none.
    Off,
    /// It is; [`Notify`](super::Notify) listens there.
    PassedOn,
}

/// Compiles the bundle to the plan that `create` would follow; no container is changed.
pub fn plan(root: &StateRoot, id: &ContainerId, options: &CreateOptions<'_>) -> Result<Plan> {
    load(root, id, options).map(|(_, plan)| plan)
}

/// Creates a container, and returns init, which is a child of the caller.
pub fn create(root: &StateRoot, id: &ContainerId, options: CreateOptions<'_>) -> Result<init::Created> {
    create_fresh(root, id, options).map(|fresh| fresh.init)
}

/// The same for whoever goes on with the container: it stays locked, and what is known of it need not be read again.
pub fn create_fresh(root: &StateRoot, id: &ContainerId, options: CreateOptions<'_>) -> Result<Fresh> {
    let (bundle, mut plan) = load(root, id, &options)?;
    let dir = root.container(id);
    if options.notify == Notifications::PassedOn {
        notify::pass_in(&mut plan, &dir);
    }
    // First of all the id: whoever has it has the control group of that name too.
    let lock = dir.create()?;
    let cgroup = fault::at(Point::CreateLocked)
        .and_then(|()| cgroups::locate(&plan.cgroup, id.as_str(), options.cgroups))
        .map_err(|error| error.and_clean_up(dir.remove(&lock)))?;
    let mut state = State::begin(id, &plan, bundle.rootfs, cgroup);
    state.preserved_fds = options.preserve_fds;
    state.listen_fds = listeners_of(&plan.process.env).min(options.preserve_fds);
    match build(&dir, &lock, &mut state, &plan, options) {
        Ok((init, report)) => Ok(Fresh { dir, lock, state, plan, init, report }),
        Err(error) => Err(error.and_clean_up(undo(&dir, &lock, &state, &plan))),
    }
}

fn load(root: &StateRoot, id: &ContainerId, options: &CreateOptions<'_>) -> Result<(Bundle, Plan)> {
    let mut bundle = Bundle::load_with(options.bundle, options.config)?;
    let owner = tenant::adopt(root, &mut bundle)?;
    let seed = promotable::adopt(root, &mut bundle)?;
    let context = Context { id: id.as_str(), keyring: options.keyring, root_entry: options.root_entry };
    let mut plan = compile(&bundle, context)?;
    plan.init.owner = owner;
    if let Some(seed) = seed {
        promotable::dress(&mut plan, seed)?;
    }
    rootless::check(&mut plan, rootless::Caller::own())?;
    options.console.check(plan.process.terminal.is_some(), "config.json: $.process.terminal")?;
    for step in &mut plan.init.steps {
        if let Step::Terminal(size) = step {
            *size = options.console.size(*size);
        }
    }
    if options.listen_fds > 0 {
        pass_listeners(&mut plan.process.env, options.listen_fds);
    }
    Ok((bundle, plan))
}

/// Tells the workload of its listening sockets (sd_listen_fds(3)); as in runc its pid is 1.
fn pass_listeners(env: &mut Vec<String>, count: u32) {
    env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
    env.push(format!("LISTEN_FDS={count}"));
    env.push("LISTEN_PID=1".to_owned());
}

/// How many listening sockets the workload's environment promises it, as its first descriptors. podman
/// writes that into config.json itself and only asks for `--preserve-fds`.
fn listeners_of(env: &[String]) -> u32 {
    let value = |name: &str| env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    match (value("LISTEN_PID"), value("LISTEN_FDS")) {
        (Some("1"), Some(count)) => count.parse().unwrap_or(0),
        (Some(_) | None, Some(_) | None) => 0,
    }
}

fn build(
    dir: &ContainerDir,
    lock: &Lock,
    state: &mut State,
    plan: &Plan,
    options: CreateOptions<'_>,
) -> Result<(init::Created, Option<init::Report>)> {
    notify::make_directory(plan, dir)?;
    let host_root = HostRoot::prepare(plan, state)?;
    state.store(dir, plan, lock)?;
    fault::at(Point::CreateStateStored)?;
    if let Some(root) = host_root {
        root.attach()?;
    }
    // Until init has joined, nobody else is in a scope of systemd's.
    let _placeholder = state.cgroup.create(&plan.cgroup)?;
    fault::at(Point::CreateGroupsMade)?;
    let unit = state.cgroup.attaching_unit().cloned();
    let cgroup = match unit {
        Some(_) => state.cgroup.open_rdt_for_join()?,
        None => state.cgroup.open_for_join()?,
    };
    let spawn = SpawnOptions {
        plan,
        container_dir: dir.path(),
        cgroup: &cgroup,
        unit: unit.as_ref(),
        preserve_fds: options.preserve_fds,
        console_socket: options.console.into_socket(plan.process.terminal.is_some())?,
        lock: Some(lock.as_fd()),
        limit: limits::INIT_READY,
    };
    // Whoever passes on a service's readiness listens first.
    if options.begin == Begin::AtOnce && options.notify == Notifications::Off && init::can_run_at_once(&spawn)
    {
        let mut witness = |pid| -> Result<init::Written> {
            Ok(Box::new(state.record_running(dir, ProcessId::of(pid)?, lock)?))
        };
        let (created, report) = init::run(spawn, &mut witness)?;
        let told = tell(created.pid, created.pidfd.as_fd(), options.pid_file, options.pidfd_socket.as_ref());
        return match told {
            Ok(()) => Ok((created, Some(report))),
            Err(error) => Err(error.and_clean_up(kill_child(&created))),
        };
    }
    let building = init::spawn(spawn)?;
    let pid = building.pid();
    fault::at(Point::CreateInitSpawned)?;
    state.store_init(dir, ProcessId::of(pid)?, lock)?;
    fault::at(Point::CreateInitStored)?;
    let runtime_hooks = || {
        let shown = hooks::state_json(&plan.init.state, "creating", pid);
        let record = hook::record(dir, Purpose::Begin);
        let bundle = Path::new(&plan.init.state.bundle);
        hooks::run("prestart", &plan.hooks.prestart, bundle, &shown, Some(&record))?;
        hooks::run("createRuntime", &plan.hooks.create_runtime, bundle, &shown, Some(&record))?;
        fault::at(Point::CreateHooksRun)
    };
    // Written down while init still ends with this process: whatever says that the container is created is true
    // however this ends.
    let at_gate = |pidfd: BorrowedFd<'_>| {
        fault::at(Point::CreateAtGate)?;
        state.store_created(dir, lock)?;
        fault::at(Point::CreateCreatedStored)?;
        tell(pid, pidfd, options.pid_file, options.pidfd_socket.as_ref())?;
        fault::at(Point::CreateToldPid)
    };
    let created = building.wait_created(runtime_hooks, at_gate)?;
    match fault::at(Point::CreateReleased) {
        Ok(()) => Ok((created, None)),
        Err(error) => Err(error.and_clean_up(kill_child(&created))),
    }
}

/// Tells the caller which process there is: its pid in a file, a descriptor over a socket.
pub(super) fn tell(
    pid: i32,
    pidfd: BorrowedFd<'_>,
    pid_file: Option<&Path>,
    pidfd_socket: Option<&OwnedFd>,
) -> Result<()> {
    if let Some(path) = pid_file {
        write_atomically(path, pid.to_string().as_bytes())?;
    }
    match pidfd_socket {
        Some(socket) => socket::send_packet(socket.as_fd(), b"pidfd", &[pidfd])
            .operation(|| "--pidfd-socket: send the descriptor"),
        None => Ok(()),
    }
}

/// Kills and reaps an init that is a child of this process.
fn kill_child(created: &init::Created) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(created.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).operation(|| "kill init")?;
    nix::sys::wait::waitpid(pid, None).operation(|| "wait for init").map(drop)
}

/// Removes what a failed `create` made; init is dead already.
fn undo(dir: &ContainerDir, lock: &Lock, state: &State, plan: &Plan) -> Result<()> {
    let emptied = state.cgroup.kill_all().and_then(|()| state.cgroup.remove());
    // A failed hook does not keep the others from clearing up; the first error is the one to report.
    if state.init.is_some() {
        let record = hook::record(dir, Purpose::ClearUp);
        drop(run_poststop(&plan.hooks.poststop, plan, Some(&record)));
    }
    emptied.and(host_root::detach(state)).and(dir.remove(lock))
}

/// Runs every `poststop` hook, whatever becomes of the ones before, and returns what failed.
pub(super) fn run_poststop(all: &[HookPlan], plan: &Plan, record: hooks::RecordFile<'_>) -> Vec<Error> {
    let shown = hooks::state_json(&plan.init.state, "stopped", 0);
    let bundle = Path::new(&plan.init.state.bundle);
    let run = |hook| hooks::run("poststop", std::slice::from_ref(hook), bundle, &shown, record).err();
    all.iter().filter_map(run).map(Error::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_replace_what_the_environment_says_of_them() {
        let mut env = vec!["A=1".to_owned(), "LISTEN_FDS=9".to_owned(), "LISTEN_PID=7".to_owned()];
        pass_listeners(&mut env, 2);
        assert_eq!(env, ["A=1", "LISTEN_FDS=2", "LISTEN_PID=1"]);
        assert_eq!(listeners_of(&env), 2);
    }

    #[test]
    fn listeners_are_promised_to_pid_1() {
        for (env, count) in [
            (&["LISTEN_FDS=3", "LISTEN_PID=1"][..], 3),
            (&["LISTEN_FDS=3", "LISTEN_PID=17"], 0),
            (&["LISTEN_FDS=x", "LISTEN_PID=1"], 0),
            (&["LISTEN_FDS=3"], 0),
            (&["XLISTEN_FDS=3", "LISTEN_PID=1"], 0),
            (&[], 0),
        ] {
            let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
            assert_eq!(listeners_of(&env), count, "{env:?}");
        }
    }
}
