//! Init: the process that builds a sandbox from the inside and then waits at the gate.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::plan::Plan;
use crate::error::Result;

/// What init needs besides the plan.
#[derive(Debug)]
pub struct SpawnOptions<'a> {
    /// The compiled plan.
    pub plan: &'a Plan,
    /// The container's own directory, where the gate is made.
    pub container_dir: &'a Path,
    /// The files that init joins its control groups by, writing `0` (v1: one `tasks` each; v2: `cgroup.procs`).
    pub cgroup: &'a [OwnedFd],
    /// How many descriptors from 3 up the workload inherits.
    pub preserve_fds: u32,
    /// Where the terminal's master is sent, if the plan asks for a terminal.
    pub console_socket: Option<OwnedFd>,
}

/// An init that builds its sandbox. Dropping it kills and reaps init.
#[derive(Debug)]
pub struct Building {
    pid: i32,
    pidfd: OwnedFd,
}

/// An init that waits at the gate. It is a child of the caller and outlives it.
#[derive(Debug)]
pub struct Created {
    /// Its process id, as the caller sees it.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
}

/// Makes init with clone3(2) in the namespaces of the plan. The caller must be single-threaded.
pub fn spawn(options: SpawnOptions<'_>) -> Result<Building> {
    let _ = options;
    Err(crate::Error::invalid("init", "not available"))
}

impl Building {
    /// Init's process id, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until init stands at the gate. `runtime_hooks` is called once in between, when the
    /// namespaces and mounts exist and the root has not been entered yet: the caller runs the
    /// `prestart` and `createRuntime` hooks there. If anything fails, init is killed and reaped.
    pub fn wait_created(self, runtime_hooks: impl FnOnce() -> Result<()>) -> Result<Created> {
        runtime_hooks()?;
        Ok(Created { pid: self.pid, pidfd: self.pidfd })
    }
}
