//! The clone that makes init, and the namespaces it joins.
//!
//! New namespaces come with clone3(2) itself. To join existing ones, and to make a time namespace
//! with offsets, a process in between is needed: it enters them, then makes init as a child of *its*
//! parent (`CLONE_PARENT`) and ends. The cgroup namespace is made by init, once it is in its group.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use turf_init::message::{BORN, FAILED};

use super::SpawnOptions;
use super::inside::{self, Inherited};
use crate::error::{Error, Operation, Result};
use crate::sandbox::enter::At;
use crate::sandbox::gate;
use crate::sandbox::plan::{InitPlan, NamespaceKind, NamespacePlan, Plan, WorkloadPlan};
use crate::sandbox::step::{Step, StepError};
use crate::sys::namespace::{Cloned, clone_process};
use crate::sys::{credentials, fork, process};

/// Whether init can build its whole sandbox while its creator stands still: then it need not be a copy, which is a quarter of what
/// `turf run` does for itself. There is nothing for the creator to do meanwhile, and no limit of memory that could have
/// init, and with it everybody who has its memory, killed.
pub(super) fn can_lend_memory(options: &SpawnOptions<'_>) -> bool {
    let plan = options.plan;
    let steps = &plan.init.steps;
    let calls_the_creator = |step: &Step| matches!(step, Step::RuntimeHooks | Step::ContainerHooks(_));
    let settings = [&plan.cgroup.v1, &plan.cgroup.v2];
    let limits_memory =
        settings.into_iter().flatten().flatten().any(|setting| setting.controller == "memory");
    plan.workload == WorkloadPlan::Exec
        && options.unit.is_none()
        && plan.net_devices.is_empty()
        && plan.init.owner.is_none()
        && plan.init.namespace(NamespaceKind::User).is_none()
        && !needs_go_between(&plan.init)
        && !steps.iter().any(calls_the_creator)
        && !limits_memory
}

/// Whether init may, besides, execute the bundle's program as soon as the sandbox stands: nobody has anything to do in between, or just
/// after it.
pub(super) fn can_run_at_once(options: &SpawnOptions<'_>) -> bool {
    let Plan { process, hooks, .. } = options.plan;
    can_lend_memory(options)
        && !process.args.is_empty()
        && hooks.start_container.is_empty()
        && hooks.poststart.is_empty()
        && process.seccomp.as_ref().is_none_or(|seccomp| seccomp.agent.is_none())
}

/// Makes an init that has the creator's memory until it executes its program; returns its pid then.
pub(super) fn lend_memory(
    plan: &InitPlan,
    inherited: &mut Inherited<'_, '_>,
    limit: Duration,
) -> Result<i32> {
    // What is neither yes nor no cannot be set again; no is safe.
    let dumpable = prctl::get_dumpable().unwrap_or(false);
    // All of them stand in the upper bits of 32.
    let namespaces = new_namespaces(plan) as i32;
    let cloned = fork::clone_and_stand_still(namespaces, limit, |pid| inside::run(inherited, Some(pid)));
    // Init has hidden what was its memory, too.
    if dumpable {
        credentials::set_dumpable(true).operation(|| "let memory be looked into again")?;
    }
    match cloned {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(super::too_late(limit)),
        cloned => cloned.operation(|| "clone init into its namespaces"),
    }
}

/// Makes init; returns its pid, in the parent only.
pub(super) fn clone_init(plan: &InitPlan, mut inherited: Inherited<'_, '_>) -> Result<i32> {
    let flags = new_namespaces(plan);
    if needs_go_between(plan) {
        return clone_through(plan, flags, inherited);
    }
    match clone_for(plan.owner, flags).operation(|| "clone init into its namespaces")? {
        Cloned::Parent(pid) => Ok(pid),
        Cloned::Child => inside::run(&mut inherited, None),
    }
}

/// Makes the clone as a user who then owns the new user namespace (user_namespaces(7)).
fn clone_for(owner: Option<u32>, flags: u64) -> io::Result<Cloned> {
    let Some(owner) = owner else { return clone_process(flags) };
    let (signal, dumpable) = (prctl::get_pdeathsig()?, prctl::get_dumpable()?);
    credentials::become_effective(owner)?;
    let cloned = clone_process(flags);
    if !matches!(cloned, Ok(Cloned::Child)) {
        credentials::become_effective(0)?;
        // The changes of user have taken both away.
        credentials::set_dumpable(dumpable)?;
        prctl::set_pdeathsig(signal)?;
    }
    cloned
}

fn new_namespaces(plan: &InitPlan) -> u64 {
    let made_by_clone = |namespace: &&NamespacePlan| {
        namespace.path.is_none() && !matches!(namespace.kind, NamespaceKind::Cgroup | NamespaceKind::Time)
    };
    plan.namespaces
        .iter()
        .filter(made_by_clone)
        .fold(0, |flags, namespace| flags | clone_flag(namespace.kind).bits() as u32 as u64)
}

fn needs_go_between(plan: &InitPlan) -> bool {
    plan.namespaces.iter().any(|namespace| namespace.path.is_some() || namespace.kind == NamespaceKind::Time)
}

pub(in crate::sandbox) fn clone_flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
    }
}

/// Makes init by a process in between, which tells init's pid, or why there is none, over a pipe.
fn clone_through(plan: &InitPlan, flags: u64, inherited: Inherited<'_, '_>) -> Result<i32> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).operation(|| "make a pipe")?;
    let between = match clone_process(0).operation(|| "clone a process to join namespaces")? {
        Cloned::Parent(pid) => pid,
        Cloned::Child => between(plan, flags, inherited, &writer),
    };
    drop(writer);
    let mut answer = Vec::new();
    let read = File::from(reader).take(gate::PACKET_BYTES as u64).read_to_end(&mut answer);
    process::wait_for(between).operation(|| "wait for the process that joins namespaces")?;
    read.operation(|| "read from the process that joins namespaces")?;
    match answer.split_first() {
        Some((&BORN, &[a, b, c, d])) => Ok(i32::from_le_bytes([a, b, c, d])),
        Some((&FAILED, body)) => {
            let malformed = || Error::invalid("joining namespaces", "failed");
            Err(gate::decode_failure(body).map_or_else(malformed, Error::from))
        }
        Some(_) | None => Err(Error::invalid("joining namespaces", "ended without a word")),
    }
}

fn between(plan: &InitPlan, flags: u64, mut inherited: Inherited<'_, '_>, writer: &OwnedFd) -> ! {
    // Whoever is in a namespace already must not look into who joins it (CVE-2016-9962).
    let hidden = credentials::set_dumpable(false).at(|| "hide init from the container");
    let made = hidden.and_then(|()| enter_namespaces(plan)).and_then(|()| {
        clone_for(plan.owner, flags | libc::CLONE_PARENT as u64).at(|| "clone init into its namespaces")
    });
    let answer = match made {
        Ok(Cloned::Child) => inside::run(&mut inherited, None),
        Ok(Cloned::Parent(pid)) => [&[BORN][..], &pid.to_le_bytes()].concat(),
        Err(error) => gate::encode_failure(&error),
    };
    // A parent that is gone cannot be told: init sees the end of its socket as well.
    let _ = nix::unistd::write(writer, &answer);
    process::exit_now(0)
}

fn enter_namespaces(plan: &InitPlan) -> std::result::Result<(), StepError> {
    let mut joins = Vec::new();
    for namespace in &plan.namespaces {
        let Some(path) = &namespace.path else { continue };
        let step = format!("join the {:?} namespace {}", namespace.kind, path.display());
        let file = File::open(path).at(|| step.clone())?;
        joins.push((namespace.kind, step, file));
    }
    // Privileges over a namespace come from the user namespace that owns it: the one we are in, or
    // the one we join. Those that cannot be entered before the user namespace are tried after it.
    let is_user = |kind| kind == NamespaceKind::User;
    let mut later = Vec::new();
    let (user, others): (Vec<_>, Vec<_>) = joins.into_iter().partition(|(kind, _, _)| is_user(*kind));
    for (kind, step, file) in others {
        match setns(file.as_fd(), clone_flag(kind)) {
            Err(Errno::EPERM) if !user.is_empty() => later.push((kind, step, file)),
            result => result.at(|| step)?,
        }
    }
    for (kind, step, file) in user.into_iter().chain(later) {
        setns(file.as_fd(), clone_flag(kind)).at(|| step)?;
    }
    new_time_namespace(plan)
}

fn new_time_namespace(plan: &InitPlan) -> std::result::Result<(), StepError> {
    if plan.namespace(NamespaceKind::Time).is_none_or(|time| time.path.is_some()) {
        return Ok(());
    }
    unshare(clone_flag(NamespaceKind::Time)).at(|| "make a time namespace")?;
    if plan.time_offsets.is_empty() {
        return Ok(());
    }
    let line = |offset: &crate::sandbox::plan::TimeOffset| {
        format!("{} {} {}\n", offset.clock, offset.secs, offset.nanosecs)
    };
    let lines: String = plan.time_offsets.iter().map(line).collect();
    std::fs::write("/proc/self/timens_offsets", &lines).at(|| format!("set the clocks' offsets {lines:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_is_lent_where_init_needs_nobody() {
        let lends = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut config: serde_json::Value =
                serde_json::from_str(crate::bundle::default::PROGRAM).unwrap();
            change(&mut config);
            let plan = crate::bundle::compile_unchecked(config.to_string().as_bytes()).unwrap().unwrap();
            can_lend_memory(&SpawnOptions {
                plan: &plan,
                container_dir: std::path::Path::new("/"),
                cgroup: &[],
                unit: None,
                preserve_fds: 0,
                console_socket: None,
                lock: None,
                limit: Duration::ZERO,
            })
        };
        assert!(lends(&|_| {}));
        assert!(lends(&|config| config["linux"]["resources"] = json!({"pids": {"limit": 7}})));
        // A lack of memory would end the creator with init.
        assert!(!lends(&|config| config["linux"]["resources"] = json!({"memory": {"limit": 67108864}})));
        // The creator writes the mappings, runs the hooks, moves the devices.
        let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        assert!(!lends(&|config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = mapping.clone();
            config["linux"]["gidMappings"] = mapping.clone();
        }));
        for hook in ["prestart", "createRuntime", "createContainer"] {
            assert!(!lends(&|config| config["hooks"] = json!({hook: [{"path": "/bin/true"}]})), "{hook}");
        }
        assert!(!lends(&|config| config["linux"]["netDevices"] = json!({"eth7": {}})));
        // Another process makes init then.
        assert!(!lends(&|config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        }));
    }
}
