//! Init: the process that builds a sandbox from the inside and then waits at the gate.
//!
//! ```text
//!  create                              init
//!    clone3 ------------------------->   close what is not needed
//!    write the id mappings
//!    'g' ---------------------------->   join the cgroups; execute the steps ...
//!    run prestart, createRuntime <---'h' Step::RuntimeHooks
//!    'g' ---------------------------->   ...
//!                                        writes its orders, becomes turf-init by execve(2)
//!    <-------------------------------'r' stands at the gate, or 'F': a step failed
//!    'g' ---------------------------->   from here on init lives without create
//! ```
//!
//! Where nothing stands between `create` and `start` either (`turf run` of a plain program, [`run`]) there is no gate: `turf-init` executes the
//! program at once.
//!
//! The two talk over a socket pair. Where nothing stands between the first 'g' and 'r', `create` sends it beforehand and lends
//! init its memory ([`spawn`](self::spawn)). Init ends when its creator dies before the last 'g', so a killed
//! `create` leaves no init behind. This file is the creator's side; `inside` is init's until it becomes
//! `turf-init` ([`super::launch`]), which waits at the gate with a few pages of memory.

mod copy_up;
mod id_mapped;
mod idmap;
mod inside;
mod mounting;
mod move_root;
mod net_devices;
mod netlink;
mod root;
mod spawn;
mod steps;

pub use id_mapped::user_namespace;
pub(super) use inside::become_root;
pub use inside::{Witness, Written};
pub(super) use spawn::clone_flag;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send};
use turf_init::message::{FAILED, GO, READY};

use self::inside::WaitFor;
use super::gate;
use super::launch::InitProgram;
use super::plan::Plan;
use crate::error::{Error, Operation, Result};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};
use crate::sys::{process, socket};

const HOOKS_DUE: u8 = b'h';

/// What init needs besides the plan.
#[derive(Debug)]
pub struct SpawnOptions<'a> {
    /// The compiled plan.
    pub plan: &'a Plan,
    /// The container's own directory, where the gate is made.
    pub container_dir: &'a Path,
    /// The files that init joins its control groups by, writing `0` (v1: one `tasks` each; v2: `cgroup.procs`).
    pub cgroup: &'a [OwnedFd],
    /// The unit that systemd moves init into, in place of those files.
    pub unit: Option<&'a crate::cgroup::systemd::Located>,
    /// How many descriptors from 3 up the workload inherits.
    pub preserve_fds: u32,
    /// Where the terminal's master is sent, if the plan asks for a terminal.
    pub console_socket: Option<OwnedFd>,
    /// What init keeps open while it builds: the container's lock. A `create` that is killed before it has written down
    /// which process init is leaves the container locked until init has ended.
    pub lock: Option<BorrowedFd<'a>>,
    /// How long init may be at work without a word, usually [`limits::INIT_READY`](crate::limits::INIT_READY).
    pub limit: Duration,
}

/// An init that builds its sandbox. Dropping it kills and reaps init.
#[derive(Debug)]
pub struct Building {
    init: Child,
    setup: OwnedFd,
    warnings: Vec<String>,
    limit: Duration,
}

/// An init that waits at the gate. It is a child of the caller and outlives it.
#[derive(Debug)]
pub struct Created {
    /// Its process id, as the caller sees it.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
    /// What was no error, but should be known to whoever wrote the configuration.
    pub warnings: Vec<String>,
    /// What is only told to whoever looks for the cause of something.
    pub notes: Vec<String>,
}

/// Makes init with clone(2) in the namespaces of the plan. The caller must be single-threaded.
/// Init runs from here on and stops where it needs the caller.
pub fn spawn(options: SpawnOptions<'_>) -> Result<Building> {
    check_terminal(&options)?;
    let lends_memory = spawn::can_lend_memory(&options);
    let listener = gate::listen(options.container_dir)?;
    let (ours, theirs) = socket::seqpacket_pair().operation(|| "make a socket pair for init")?;
    let unit = options.unit;
    let (plan, limit) = (options.plan, options.limit);
    let mut inherited = inherit(options, theirs, WaitFor::Start(listener))?;
    let pid = if lends_memory {
        // Nobody could say so while init builds.
        go(&ours)?;
        let pid = spawn::lend_memory(&plan.init, &mut inherited, limit)?;
        drop(inherited);
        pid
    } else {
        spawn::clone_init(&plan.init, inherited)?
    };
    let pidfd = pidfd_open(pid).operation(|| format!("open a descriptor of init ({pid})"));
    let init = Child { pid, pidfd: Some(pidfd?) };
    idmap::write(&plan.init, pid)?;
    net_devices::move_all(&plan.net_devices, pid)?;
    if let Some(unit) = unit {
        unit.attach(pid)?;
    }
    let warnings = plan.warnings.clone();
    let building = Building { init, setup: ours, warnings, limit };
    if !lends_memory {
        go(&building.setup)?;
    }
    Ok(building)
}

/// What init is given.
fn inherit<'a, 'w>(
    options: SpawnOptions<'a>,
    setup: OwnedFd,
    wait_for: WaitFor<'w>,
) -> Result<inside::Inherited<'a, 'w>> {
    Ok(inside::Inherited {
        plan: options.plan,
        program: InitProgram::seal()?,
        setup,
        wait_for,
        executes: false,
        cgroup: options.cgroup,
        preserve_fds: options.preserve_fds,
        console: options.console_socket,
        lock: options.lock,
        id_mapped: id_mapped::prepare(&options.plan.init)?,
    })
}

fn check_terminal(options: &SpawnOptions<'_>) -> Result<()> {
    if options.plan.process.terminal.is_some() && options.console_socket.is_none() {
        let reason = "is true, but there is no console socket to send the terminal to";
        return Err(Error::invalid("config.json: $.process.terminal", reason));
    }
    Ok(())
}

/// Whether [`run`] may make this init.
pub fn can_run_at_once(options: &SpawnOptions<'_>) -> bool {
    spawn::can_run_at_once(options)
}

/// Where an init that executes the bundle's program by itself says why it could not.
#[derive(Debug)]
pub struct Report {
    socket: OwnedFd,
    limit: Duration,
}

impl Report {
    /// One whose other end is the caller's.
    #[cfg(test)]
    pub(crate) fn pair(limit: Duration) -> (Report, OwnedFd) {
        let (socket, other) = socket::seqpacket_pair().unwrap();
        (Report { socket, limit }, other)
    }

    /// How long that may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether nothing is known yet: the program is not executed, and init has not said why not.
    pub fn is_pending(&self) -> Result<bool> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        // Who waits for nothing is not interrupted.
        let ready = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
        ready.operation(|| "look whether the program is executed").map(|ready| ready == 0)
    }

    /// Returns when the program is executed, or has been killed by its filter of system calls; the error says why it could not
    /// be. Who waits for init's end may wait for that before.
    pub fn read(self) -> Result<()> {
        let mut packet = [0; gate::PACKET_BYTES];
        let length = receive(self.socket.as_fd(), &mut packet, self.limit)?;
        match packet[..length].split_first() {
            None => Ok(()),
            Some((&FAILED, body)) => Err(failure(body)),
            Some(_) => Err(not_understood()),
        }
    }
}

/// Makes an init that executes the bundle's program as soon as its sandbox stands, and returns when it stands. `witness` is asked to
/// write that down. If anything fails, init is killed and reaped. Only where [`can_run_at_once`] says so.
pub fn run<'w>(options: SpawnOptions<'_>, witness: &'w mut Witness<'w>) -> Result<(Created, Report)> {
    check_terminal(&options)?;
    let (ours, theirs) = socket::seqpacket_pair().operation(|| "make a socket pair for init")?;
    let (plan, limit) = (options.plan, options.limit);
    let mut inherited = inherit(options, theirs, WaitFor::Nothing(witness))?;
    let pid = spawn::lend_memory(&plan.init, &mut inherited, limit)?;
    let executes = inherited.executes;
    drop(inherited);
    let pidfd = pidfd_open(pid).operation(|| format!("open a descriptor of init ({pid})"));
    let mut init = Child { pid, pidfd: Some(pidfd?) };
    let report = Report { socket: ours, limit };
    if !executes {
        return Err(report.read().err().unwrap_or_else(|| init.ended()));
    }
    Ok((init.created(plan.warnings.clone())?, report))
}

fn failure(body: &[u8]) -> Error {
    let malformed = || Error::invalid("init", "sent a failure that cannot be understood");
    gate::decode_failure(body).map_or_else(malformed, Error::from)
}

fn not_understood() -> Error {
    Error::invalid("init", "sent a packet that cannot be understood")
}

fn go(setup: &OwnedFd) -> Result<()> {
    send(setup.as_raw_fd(), &[GO], MsgFlags::MSG_NOSIGNAL).operation(|| "send to init").map(drop)
}

impl Building {
    /// Init's process id, as the caller sees it.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Waits until init stands at the gate, and lets it live on its own. `runtime_hooks` is called once in between, when the
    /// namespaces and mounts exist and the root has not been entered yet: the caller runs the
    /// `prestart` and `createRuntime` hooks there. `at_gate` is called with a descriptor of init while init still
    /// ends with the caller. If anything fails, init is killed and reaped.
    pub fn wait_created(
        mut self,
        runtime_hooks: impl FnOnce() -> Result<()>,
        at_gate: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Created> {
        let mut runtime_hooks = Some(runtime_hooks);
        loop {
            let mut packet = [0; gate::PACKET_BYTES];
            let length = receive(self.setup.as_fd(), &mut packet, self.limit)?;
            match packet[..length].split_first() {
                Some((&READY, [])) => break,
                Some((&HOOKS_DUE, [])) => {
                    runtime_hooks.take().map_or(Ok(()), |hooks| hooks())?;
                    go(&self.setup)?;
                }
                Some((&FAILED, body)) => return Err(failure(body)),
                Some(_) => return Err(not_understood()),
                None => return Err(self.init.ended()),
            }
        }
        if let Some(hooks) = runtime_hooks.take() {
            hooks()?;
        }
        if let Some(pidfd) = &self.init.pidfd {
            at_gate(pidfd.as_fd())?;
        }
        go(&self.setup)?;
        self.init.created(self.warnings)
    }
}

/// A child that is killed and reaped unless its descriptor was taken away.
#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Lets it live on its own.
    fn created(mut self, warnings: Vec<String>) -> Result<Created> {
        let pidfd = self.pidfd.take().ok_or_else(|| Error::invalid("init", "has no descriptor"))?;
        Ok(Created { pid: self.pid, pidfd, warnings, notes: Vec::new() })
    }

    /// The error of an init that ended without a word.
    fn ended(&mut self) -> Error {
        let status = self.pidfd.take().and_then(|_| process::wait_for(self.pid).ok());
        let reason = match status {
            Some(status) => format!("ended before its sandbox stood (wait status {status:#x})"),
            None => "ended before its sandbox stood".to_owned(),
        };
        Error::invalid("init", reason)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // A child that has ended already only needs to be reaped.
            let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait_for(self.pid);
        }
    }
}

/// The error of an init that is still at work after the limit.
fn too_late(limit: Duration) -> Error {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Error::TimedOut { operation: "wait for init".to_owned(), limit_ms }
}

/// Waits for a packet of init, so long at most.
fn receive(setup: BorrowedFd<'_>, packet: &mut [u8], limit: Duration) -> Result<usize> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(setup, PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(too_late(limit)),
            Ok(_) => match recv(setup.as_raw_fd(), packet, MsgFlags::empty()) {
                Err(nix::errno::Errno::ECONNRESET) => return Ok(0),
                result => return result.operation(|| "receive from init"),
            },
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for init", errno)),
        }
    }
}
