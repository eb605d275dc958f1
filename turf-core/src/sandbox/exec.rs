//! Another process in a sandbox that stands: joins the namespaces of its init and its control groups, is
//! dressed as its plan says, and executes its program.
//!
//! ```text
//!  exec                       between                          the process
//!    clone3 ------------------> OOM score; non-dumpable
//!                               setns(init, all that differ)
//!                               clone3(CLONE_PARENT) ----------> close the rest; join the cgroups
//!    <--------------------------'B' and its pid, ends            session, terminal, process plan
//!    <---------------------------------------------------------- 'N', and waits: sandbox::seccomp_agent
//!    <---------------------------------------------------------- 'x', then execve closes the connection
//!    <---------------------------------------------------------- or 'F': a step failed
//! ```
//!
//! Joining a pid namespace is for one's children only (setns(2)), which is what the one in between is
//! for; with `CLONE_PARENT` the process is the caller's child all the same.
//!
//! Whoever is in the container already must get nothing out of the newcomer before it is one of them
//! (CVE-2016-9962, CVE-2019-5736): both are non-dumpable from before the first setns(2) until execve(2), so
//! neither their descriptors nor their program can be opened through `/proc`, and every descriptor that
//! is not meant for the program is closed or close-on-exec. No directory of the host is ever open
//! (CVE-2024-21626), except for the root of a container without a mount namespace of its own, which is
//! closed when it is entered.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::{Gid, Uid};

use super::enter::{self, At};
use super::gate;
use super::init::{Created, become_root, clone_flag};
use super::number_list;
use super::plan::{InitPlan, NamespaceKind, ProcessPlan, TerminalPlan};
use super::program::Program;
use super::seccomp_agent;
use super::step::StepError;
use crate::error::{Error, Operation, Result};
use crate::sys::namespace::{Cloned, clone_process};
use crate::sys::pidfd::pidfd_open;
use crate::sys::{credentials, process, socket, terminal};

/// The status of a process that could not be made; the reason was reported.
const FAILURE_STATUS: i32 = 1;

/// What another process of a container needs.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The pid of the container's init, as the caller sees it.
    pub init_pid: i32,
    /// A descriptor of the container's init.
    pub init: OwnedFd,
    /// How the sandbox was built.
    pub sandbox: &'a InitPlan,
    /// How the process is dressed, and what it runs.
    pub process: &'a ProcessPlan,
    /// The files by which the container's control groups are joined.
    pub cgroup: &'a [OwnedFd],
    /// How many descriptors from 3 up the process inherits.
    pub preserve_fds: u32,
    /// Where the terminal's master is sent, if the plan asks for a terminal.
    pub console_socket: Option<OwnedFd>,
}

/// Makes the process; returns when its program has been executed. The process is a child of the caller, which
/// must be single-threaded.
pub fn spawn(options: &ExecOptions<'_>) -> Result<Created> {
    let flags = namespaces_that_differ(options.init_pid)
        .operation(|| format!("compare the namespaces with those of process {}", options.init_pid))?;
    let (reader, writer) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .operation(|| "make a socket pair")?;
    let between = match clone_process(0).operation(|| "clone a process to join namespaces")? {
        Cloned::Parent(pid) => pid,
        Cloned::Child => run(&writer, || between(options, flags, &writer)),
    };
    drop(writer);
    let answers = listen(options, File::from(reader));
    process::wait_for(between).operation(|| "wait for the process that joins namespaces")?;
    match answers? {
        Answers { pid: Some(pid), executing: true, failure: None, .. } => {
            let pidfd = pidfd_open(pid).operation(|| format!("open process {pid}"))?;
            Ok(Created { pid, pidfd, warnings: Vec::new() })
        }
        Answers { pid, failure, .. } => {
            if let Some(pid) = pid {
                process::wait_for(pid).operation(|| format!("wait for process {pid}"))?;
            }
            let silent = || Error::invalid("the new process", "ended before it executed its program");
            Err(failure.map_or_else(silent, Error::from))
        }
    }
}

/// Reads what the two processes say, until both have ended or executed a program, and answers the one that waits for a
/// seccomp agent.
fn listen(options: &ExecOptions<'_>, mut connection: File) -> Result<Answers> {
    // A few short answers at most.
    const ALL: usize = 4 * gate::PACKET_BYTES;
    let mut bytes = Vec::new();
    let mut introduced = false;
    loop {
        let mut part = [0; gate::PACKET_BYTES];
        let length = match connection.read(&mut part) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.operation(|| "read from the process that joins namespaces")?,
        };
        bytes.extend_from_slice(&part[..length]);
        let answers = Answers::parse(&bytes);
        if length == 0 || bytes.len() > ALL {
            return Ok(answers);
        }
        if let Answers { pid: Some(pid), notifications: Some(number), .. } = answers
            && !introduced
        {
            introduced = true;
            let waiting = introduce(options, pid, number).and_then(|()| {
                seccomp_agent::go_on(connection.as_fd()).operation(|| "send to the new process")
            });
            if waiting.is_err() {
                // It ends when it sees the end of the connection.
                drop(connection);
                process::wait_for(pid).operation(|| format!("wait for process {pid}"))?;
                return waiting.map(|()| Answers::default());
            }
        }
    }
}

fn introduce(options: &ExecOptions<'_>, pid: i32, number: i32) -> Result<()> {
    let pidfd = pidfd_open(pid).operation(|| format!("open process {pid}"))?;
    let process = seccomp_agent::Process {
        plan: options.process,
        state: &options.sandbox.state,
        init_pid: options.init_pid,
        status: "running",
        pid,
        pidfd: pidfd.as_fd(),
    };
    seccomp_agent::introduce(&process, number)
}

/// What came over the connection.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    pid: Option<i32>,
    notifications: Option<i32>,
    executing: bool,
    failure: Option<StepError>,
}

impl Answers {
    /// Each answer is one write(2) for which an empty pipe has room, so they do not mix; but the two writers may
    /// come in either order.
    fn parse(mut bytes: &[u8]) -> Answers {
        let mut answers = Answers::default();
        loop {
            bytes = match bytes {
                [gate::BORN, a, b, c, d, rest @ ..] => {
                    answers.pid = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                    rest
                }
                [seccomp_agent::NOTIFICATIONS, a, b, c, d, rest @ ..] => {
                    answers.notifications = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                    rest
                }
                [gate::EXECUTING, rest @ ..] => {
                    answers.executing = true;
                    rest
                }
                [gate::FAILED, a, b, rest @ ..] => {
                    let length = usize::from(u16::from_le_bytes([*a, *b]));
                    let (body, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    answers.failure = gate::decode_failure(body);
                    rest
                }
                _ => return answers,
            };
        }
    }
}

/// A failure as [`Answers::parse`] reads it: its length stands before it.
fn failure(error: &StepError) -> Vec<u8> {
    let packet = gate::encode_failure(error);
    let body = packet.get(1..).unwrap_or_default();
    // A packet has at most PACKET_BYTES.
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&[gate::FAILED], &length.to_le_bytes()[..], body].concat()
}

/// A child's whole life. A panic must not unwind into the caller's frames, of which the child has a copy.
fn run(writer: &OwnedFd, live: impl FnOnce() -> std::result::Result<(), StepError>) -> ! {
    let error = match catch_unwind(AssertUnwindSafe(live)) {
        Ok(Ok(())) => process::exit_now(0),
        Ok(Err(error)) => error,
        Err(_) => StepError::refused("join the container", "panicked"),
    };
    tell(writer, &failure(&error));
    process::exit_now(FAILURE_STATUS)
}

/// A caller that is gone cannot be told.
fn tell(writer: &OwnedFd, answer: &[u8]) {
    let _ = nix::unistd::write(writer, answer);
}

/// The namespaces of `pid` that are not the caller's own. Joining one's own again is refused for a user
/// namespace, and of no use for the others.
fn namespaces_that_differ(pid: i32) -> std::io::Result<CloneFlags> {
    const KINDS: [(NamespaceKind, &str); 8] = [
        (NamespaceKind::User, "user"),
        (NamespaceKind::Pid, "pid"),
        (NamespaceKind::Network, "net"),
        (NamespaceKind::Ipc, "ipc"),
        (NamespaceKind::Uts, "uts"),
        (NamespaceKind::Cgroup, "cgroup"),
        (NamespaceKind::Time, "time"),
        (NamespaceKind::Mount, "mnt"),
    ];
    let mut flags = CloneFlags::empty();
    for (kind, name) in KINDS {
        let own = match fs::metadata(format!("/proc/self/ns/{name}")) {
            // A kernel without this kind.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            own => own?,
        };
        let other = fs::metadata(format!("/proc/{pid}/ns/{name}"))?;
        if (own.dev(), own.ino()) != (other.dev(), other.ino()) {
            flags |= clone_flag(kind);
        }
    }
    Ok(flags)
}

fn between(
    options: &ExecOptions<'_>,
    flags: CloneFlags,
    writer: &OwnedFd,
) -> std::result::Result<(), StepError> {
    // Here it is the host's root who asks, and the host's /proc that is written to.
    if let Some(score) = options.process.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .at(|| format!("set oom_score_adj to {score}"))?;
    }
    let root = if flags.contains(CloneFlags::CLONE_NEWNS) {
        None
    } else {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let path = format!("/proc/{}/root", options.init_pid);
        Some(open(path.as_str(), flags, Mode::empty()).at(|| "open the container's root")?)
    };
    credentials::set_dumpable(false).at(|| "hide from the container")?;
    if !flags.is_empty() {
        setns(&options.init, flags).at(|| "join the namespaces of the container's init")?;
    }
    if let Some(root) = root {
        nix::unistd::fchdir(&root).at(|| "enter the container's root")?;
        nix::unistd::chroot(".").at(|| "enter the container's root")?;
    }
    match clone_process(libc::CLONE_PARENT as u64).at(|| "clone the process into the container")? {
        Cloned::Child => run(writer, || become_program(options, flags, writer)),
        Cloned::Parent(pid) => {
            tell(writer, &[&[gate::BORN][..], &pid.to_le_bytes()].concat());
            Ok(())
        }
    }
}

fn become_program(
    options: &ExecOptions<'_>,
    flags: CloneFlags,
    writer: &OwnedFd,
) -> std::result::Result<(), StepError> {
    close_the_rest(options, writer).at(|| "close the descriptors the process does not need")?;
    let groups = options.cgroup.iter().map(AsFd::as_fd).collect::<Vec<_>>();
    let affinity = options.process.exec_cpu_affinity.as_ref();
    if let Some(affinity) = affinity.filter(|affinity| !affinity.initial.is_empty()) {
        credentials::set_cpu_affinity(&affinity.initial).at(|| "set the CPUs of execCPUAffinity.initial")?;
    }
    crate::cgroup::join_self(&groups).at(|| "join the control groups")?;
    if let Some(affinity) = affinity {
        // Without a list all CPUs: the kernel takes those of them that the control group has.
        let all = vec![u64::MAX; number_list::HIGHEST as usize / 64 + 1];
        let cpus = if affinity.lasting.is_empty() { &all } else { &affinity.lasting };
        credentials::set_cpu_affinity(cpus).at(|| "set the CPUs of execCPUAffinity.final")?;
    }
    credentials::set_name(c"turf:exec").at(|| "name the process")?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        become_root(options.sandbox)?;
    }
    nix::unistd::setsid().at(|| "start a session")?;
    if let Some(size) = options.process.terminal {
        make_terminal(size, options)?;
    }
    // The score has been set from outside, and the files in /proc of a hidden process are not its own.
    let plan = ProcessPlan { oom_score_adj: None, ..options.process.clone() };
    enter::apply_process(&plan, &mut |number| {
        seccomp_agent::hand_over(writer.as_fd(), &seccomp_agent::packet(number))
    })?;
    let program = Program::prepare(&plan)?;
    process::default_signal_actions();
    process::unblock_signals().at(|| "unblock signals")?;
    tell(writer, &[gate::EXECUTING]);
    Err(program.execute())
}

/// Everything but what the program inherits is closed, or closes itself when it is executed.
fn close_the_rest(options: &ExecOptions<'_>, writer: &OwnedFd) -> std::io::Result<()> {
    let mut keep = vec![writer.as_raw_fd()];
    keep.extend(options.cgroup.iter().chain(&options.console_socket).map(AsRawFd::as_raw_fd));
    let inherited = (0..options.preserve_fds).filter_map(|index| i32::try_from(index).ok());
    keep.extend(inherited.map(|index| 3 + index));
    process::close_all_except(&mut keep)
}

/// Makes a terminal in the container's devpts, gives its master away and makes it stdio.
fn make_terminal(size: TerminalPlan, options: &ExecOptions<'_>) -> std::result::Result<(), StepError> {
    let step = || "make a terminal";
    let Some(console) = &options.console_socket else {
        return Err(StepError::refused(step(), "there is no console socket"));
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).at(|| "open /")?;
    let master = openat2(&root, "dev/pts/ptmx", how).at(|| "open /dev/pts/ptmx")?;
    check_multiplexer(master.as_fd())?;
    let peer = terminal::unlock_and_open_peer(master.as_fd()).at(step)?;
    terminal::set_size(master.as_fd(), size.height, size.width).at(|| "set the terminal's size")?;
    let (uid, gid) = (Uid::from_raw(options.process.uid), None::<Gid>);
    nix::unistd::fchown(&peer, Some(uid), gid).at(|| format!("give the terminal to {uid}"))?;
    socket::send_packet(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])
        .at(|| "send the terminal's master to the console socket")?;
    terminal::become_stdio(peer).at(|| "make the terminal the standard input and output")
}

/// Whether this is the multiplexer of a devpts: the container may have put anything else in its place
/// (CVE-2025-52565).
pub(super) fn check_multiplexer(master: BorrowedFd<'_>) -> std::result::Result<(), StepError> {
    let step = || "check /dev/pts/ptmx";
    let device = fstat(master).at(step)?.st_rdev;
    let kind = nix::sys::statfs::fstatfs(master).at(step)?.filesystem_type();
    if (major(device), minor(device)) == (5, 2) && kind == nix::sys::statfs::DEVPTS_SUPER_MAGIC {
        Ok(())
    } else {
        Err(StepError::refused(step(), "it is not a terminal multiplexer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_in_either_order() {
        let error = StepError::new("change into /x", nix::errno::Errno::ENOENT);
        let born = [&[gate::BORN][..], &77_i32.to_le_bytes()].concat();
        let executing = vec![gate::EXECUTING];
        let both = Answers { pid: Some(77), executing: true, ..Answers::default() };
        assert_eq!(Answers::parse(&[born.clone(), executing.clone()].concat()), both);
        assert_eq!(Answers::parse(&[executing.clone(), born.clone()].concat()), both);
        let failed = Answers { pid: Some(77), failure: Some(error.clone()), ..Answers::default() };
        assert_eq!(Answers::parse(&[born.clone(), failure(&error)].concat()), failed);
        assert_eq!(Answers::parse(&[failure(&error), born.clone()].concat()), failed);
        let late = Answers { executing: true, ..failed };
        let waiting = Answers { pid: Some(77), notifications: Some(9), ..Answers::default() };
        assert_eq!(Answers::parse(&[&seccomp_agent::packet(9)[..], &born].concat()), waiting);
        assert_eq!(Answers::parse(&[executing, failure(&error), born].concat()), late);
        assert_eq!(Answers::parse(b"?"), Answers::default());
    }

    #[test]
    fn a_process_shares_all_namespaces_with_itself() {
        let flags = namespaces_that_differ(std::process::id() as i32).unwrap();
        assert!(flags.is_empty(), "{flags:?}");
    }
}
