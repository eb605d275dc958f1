//! Another process in a sandbox that stands: joins the namespaces of its init and its control groups, is
//! dressed as its plan says, and executes its program.
//!
//! ```text
//!  exec                       between                          the process
//!    clone3 ------------------> OOM score; non-dumpable
//!                               setns(init, all that differ)
//!                               terminal; becomes turf-init
//!                               clone(CLONE_PARENT) -----------> joins the cgroups; session
//!    <--------------------------'B' and its pid, ends            process plan
//!    <---------------------------------------------------------- 'N', and waits: sandbox::seccomp_agent
//!    <---------------------------------------------------------- 'x', then execve closes the connection
//!    <---------------------------------------------------------- or 'F': a step failed
//! ```
//!
//! Joining a pid namespace is for one's children only (setns(2)), which is what the one in between is
//! for; with `CLONE_PARENT` the process is the caller's child all the same.
//!
//! Whoever is in the container already must get nothing out of the newcomer before it is one of them
//! (CVE-2016-9962, CVE-2019-5736): the one in between is in a pid namespace that they do not see, the process is born
//! with the sealed program as its own, both are non-dumpable from before the first setns(2) until
//! execve(2), and every descriptor that is not meant for the program is closed or close-on-exec. No directory of the
//! host is ever open (CVE-2024-21626), except for the root of a container without a mount namespace of its own, which is
//! closed when it is entered.

use std::convert::Infallible;
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
use turf_init::message::{BORN, EXECUTING, FAILED, NOTIFICATIONS};
use turf_init::orders::Task;

use super::enter::{self, At};
use super::init::{Created, become_root, clone_flag};
use super::launch::InitProgram;
use super::orders::{Builder, Head, ProgramOrders, descriptor};
use super::plan::{HookPlan, InitPlan, NamespaceKind, ProcessPlan, TerminalPlan};
use super::step::StepError;
use super::{gate, number_list, program, seccomp_agent};
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
    /// What runs.
    pub run: Run<'a>,
    /// The files by which the container's control groups are joined.
    pub cgroup: &'a [OwnedFd],
    /// How many descriptors from 3 up the process inherits.
    pub preserve_fds: u32,
    /// Where the terminal's master is sent, if the plan asks for a terminal.
    pub console_socket: Option<OwnedFd>,
    /// Standard input, output and error; `None`: the caller's.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
}

/// What runs in the sandbox besides its init.
#[derive(Clone, Copy, Debug)]
pub enum Run<'a> {
    /// A program, dressed as its plan says.
    Process(&'a ProcessPlan),
    /// A hook, dressed as the plan of the container's process says: what an image holds under the hook's path must not have
    /// more rights than the container.
    Hook(&'a HookPlan, &'a ProcessPlan),
}

impl Run<'_> {
    fn terminal(&self) -> Option<TerminalPlan> {
        match self {
            Run::Process(plan) => plan.terminal,
            Run::Hook(..) => None,
        }
    }

    fn oom_score_adj(&self) -> Option<i32> {
        match self {
            Run::Process(plan) => plan.oom_score_adj,
            Run::Hook(..) => None,
        }
    }
}

/// Makes the process; returns when its program has been executed. The process is a child of the caller, which
/// must be single-threaded.
pub fn spawn(options: &ExecOptions<'_>) -> Result<Created> {
    let flags = namespaces_that_differ(options.init_pid)
        .operation(|| format!("compare the namespaces with those of process {}", options.init_pid))?;
    let init_program = InitProgram::seal()?;
    let (reader, writer) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .operation(|| "make a socket pair")?;
    let between = match clone_process(0).operation(|| "clone a process to join namespaces")? {
        Cloned::Parent(pid) => pid,
        Cloned::Child => run(&writer, || between(options, flags, &writer, &init_program)),
    };
    drop(writer);
    let answers = listen(options, File::from(reader));
    process::wait_for(between).operation(|| "wait for the process that joins namespaces")?;
    match answers? {
        Answers { pid: Some(pid), executing: true, failure: None, .. } => {
            let pidfd = pidfd_open(pid).operation(|| format!("open process {pid}"))?;
            Ok(Created { pid, pidfd, warnings: Vec::new(), notes: notes(options.run) })
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
    let (plan, status) = match options.run {
        Run::Process(plan) => (plan, "running"),
        Run::Hook(_, plan) => (plan, "created"),
    };
    let process = seccomp_agent::Process {
        plan,
        state: &options.sandbox.state,
        init_pid: options.init_pid,
        status,
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
                [BORN, a, b, c, d, rest @ ..] => {
                    answers.pid = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                    rest
                }
                [NOTIFICATIONS, a, b, c, d, rest @ ..] => {
                    answers.notifications = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                    rest
                }
                [EXECUTING, rest @ ..] => {
                    answers.executing = true;
                    rest
                }
                [FAILED, a, b, rest @ ..] => {
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
    [&[FAILED], &length.to_le_bytes()[..], body].concat()
}

/// The life of the one in between. A panic must not unwind into the caller's frames, of which it has a copy.
fn run(writer: &OwnedFd, live: impl FnOnce() -> std::result::Result<Infallible, StepError>) -> ! {
    let error = match catch_unwind(AssertUnwindSafe(live)) {
        Ok(Err(error)) => error,
        Err(_) => StepError::refused("join the container", "panicked"),
    };
    // A caller that is gone cannot be told.
    let _ = nix::unistd::write(writer, &failure(&error));
    process::exit_now(FAILURE_STATUS)
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
    init_program: &InitProgram,
) -> std::result::Result<Infallible, StepError> {
    // Here it is the host's root who asks, and the host's /proc that is written to.
    if let Some(score) = options.run.oom_score_adj() {
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
    close_the_rest(options, writer, init_program).at(|| "close the descriptors the process does not need")?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        become_root(options.sandbox)?;
    }
    if let Some(size) = options.run.terminal() {
        make_terminal(size, options)?;
    }
    if let Some(stdio) = options.stdio {
        terminal::become_stdio(stdio).at(|| "set up standard input and output")?;
    }
    let mut orders = Builder::new();
    let (program, proc) = write_orders(&mut orders, options)?;
    let talk = Some(writer.as_raw_fd());
    let head = Head { task: Task::Join, listener: None, talk, program: Some(program) };
    let orders = orders.finish(&head);
    let keep = [writer.as_fd()].into_iter().chain(options.cgroup.iter().map(AsFd::as_fd));
    init_program.execute(&orders, &keep.chain(proc.as_ref().map(AsFd::as_fd)).collect::<Vec<_>>())
}

/// What the process does at first can be seen nowhere when it is over; runc tells it in these words.
fn notes(run: Run<'_>) -> Vec<String> {
    let Run::Process(ProcessPlan { exec_cpu_affinity: Some(affinity), .. }) = run else { return Vec::new() };
    let Some((highest, lower)) = affinity.initial.split_last() else { return Vec::new() };
    let lower: String = lower.iter().rev().map(|word| format!("{word:016x}")).collect();
    vec![format!("initial CPU affinity: {highest:#x}{lower}")]
}

/// What the new process does to itself. The descriptor, if there is one, is for its calls.
fn write_orders(
    orders: &mut Builder,
    options: &ExecOptions<'_>,
) -> std::result::Result<(ProgramOrders, Option<OwnedFd>), StepError> {
    let affinity = match options.run {
        Run::Process(plan) => plan.exec_cpu_affinity.as_ref(),
        Run::Hook(..) => None,
    };
    if let Some(affinity) = affinity.filter(|affinity| !affinity.initial.is_empty()) {
        set_cpus(orders, "set the CPUs of execCPUAffinity.initial", &affinity.initial);
    }
    for file in options.cgroup {
        let zero = orders.data(b"0");
        let step = "join the control groups";
        orders.system(step, libc::SYS_write, &[descriptor(file), zero.into(), 1.into()]);
        orders.system(step, libc::SYS_close, &[descriptor(file)]);
    }
    if let Some(affinity) = affinity {
        // Without a list all CPUs: the kernel takes those of them that the control group has.
        let all = vec![u64::MAX; number_list::HIGHEST as usize / 64 + 1];
        let cpus = if affinity.lasting.is_empty() { &all } else { &affinity.lasting };
        set_cpus(orders, "set the CPUs of execCPUAffinity.final", cpus);
    }
    orders.system("start a session", libc::SYS_setsid, &[]);
    if options.run.terminal().is_some() {
        let take = [0.into(), libc::TIOCSCTTY.into(), 0.into()];
        orders.system("make the terminal the controlling one", libc::SYS_ioctl, &take);
    }
    match options.run {
        Run::Process(plan) => {
            // Here, where the words for a program that is not there can be found.
            let name = plan.args.first().map(String::as_str).unwrap_or_default();
            program::find(name, program::search_path(plan), &plan.cwd)?;
            // The score has been set from outside, and the files in /proc of a hidden process are not its own.
            let plan = ProcessPlan { oom_score_adj: None, ..plan.clone() };
            let proc = enter::dress(orders, &plan)?;
            Ok((program::prepare(orders, &plan)?, proc))
        }
        Run::Hook(hook, plan) => {
            let plan = ProcessPlan { oom_score_adj: None, ..plan.clone() };
            let proc = enter::dress(orders, &plan)?;
            Ok((program::of_hook(orders, hook)?, proc))
        }
    }
}

/// sched_setaffinity(2); bit N is CPU N.
fn set_cpus(orders: &mut Builder, step: &str, cpus: &[u64]) {
    let mask = orders.words(cpus);
    orders.system(step, libc::SYS_sched_setaffinity, &[0.into(), size_of_val(cpus).into(), mask.into()]);
}

/// Everything but what the program inherits is closed, or closes itself when it is executed.
fn close_the_rest(
    options: &ExecOptions<'_>,
    writer: &OwnedFd,
    init_program: &InitProgram,
) -> std::io::Result<()> {
    let mut keep = vec![writer.as_raw_fd(), init_program.number()];
    keep.extend(options.cgroup.iter().chain(&options.console_socket).map(AsRawFd::as_raw_fd));
    keep.extend(options.stdio.iter().flatten().map(AsRawFd::as_raw_fd));
    let inherited = (0..options.preserve_fds).filter_map(|index| i32::try_from(index).ok());
    keep.extend(inherited.map(|index| 3 + index));
    process::close_all_except(&mut keep)
}

/// Makes a terminal in the container's devpts, gives its master away and makes it stdio; the process makes it the
/// controlling one of its session.
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
    let uid = match options.run {
        Run::Process(plan) => Uid::from_raw(plan.uid),
        Run::Hook(..) => Uid::from_raw(0),
    };
    nix::unistd::fchown(&peer, Some(uid), None::<Gid>).at(|| format!("give the terminal to {uid}"))?;
    socket::send_packet(console.as_fd(), b"/dev/ptmx", &[master.as_fd()])
        .at(|| "send the terminal's master to the console socket")?;
    terminal::become_stdio([peer.as_fd(); 3]).at(|| "make the terminal the standard input and output")
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
        let born = [&[BORN][..], &77_i32.to_le_bytes()].concat();
        let executing = vec![EXECUTING];
        let both = Answers { pid: Some(77), executing: true, ..Answers::default() };
        assert_eq!(Answers::parse(&[born.clone(), executing.clone()].concat()), both);
        assert_eq!(Answers::parse(&[executing.clone(), born.clone()].concat()), both);
        let failed = Answers { pid: Some(77), failure: Some(error.clone()), ..Answers::default() };
        assert_eq!(Answers::parse(&[born.clone(), failure(&error)].concat()), failed);
        assert_eq!(Answers::parse(&[failure(&error), born.clone()].concat()), failed);
        let late = Answers { executing: true, ..failed };
        let waiting = Answers { pid: Some(77), notifications: Some(9), ..Answers::default() };
        assert_eq!(Answers::parse(&[&[NOTIFICATIONS, 9, 0, 0, 0][..], &born].concat()), waiting);
        assert_eq!(Answers::parse(&[executing, failure(&error), born].concat()), late);
        assert_eq!(Answers::parse(b"?"), Answers::default());
    }

    #[test]
    fn a_process_shares_all_namespaces_with_itself() {
        let flags = namespaces_that_differ(std::process::id() as i32).unwrap();
        assert!(flags.is_empty(), "{flags:?}");
    }
}
