//! The messages between a client and a seed, and between a worker and the one who waits for it to run.
//!
//! ```text
//!   client                          seed                            worker
//!     | connect                      |                                |
//!     | Request (one packet, fds) -> |                                |
//!     |                              | fork ------------------------> |
//!     | <- Reply (one packet)        |                                |
//!     | <------------------------------- Report (one packet) -------- |
//! ```
//!
//! With [`Begin::WhenTold`] the worker reports `Waiting` when all is done that can be done before its start, and then
//! waits for a word on the same connection (`client::tell_to_begin`).
//!
//! Transport is `SOCK_SEQPACKET` (unix(7)): one message is one packet, descriptors travel in the same packet as
//! `SCM_RIGHTS`, and the message names each of them, in order. A connection carries one request. Every packet is
//! `magic, version, body`; the body is encoded by `postcard`. What does not decode exactly - unknown version, trailing
//! bytes, a name without a descriptor or a descriptor without a name - is refused.
//!
//! The worker's plan, with the container's environment, is a file in memory that only the forked worker reads: what
//! a seed has once read, later workers would have in their memory.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::describe;

/// Version of the messages. A seed outlives an upgrade of the programs around it, so both sides check.
pub const VERSION: u16 = 4;

/// First bytes of every packet.
const MAGIC: [u8; 4] = *b"turf";
const HEADER_LEN: usize = MAGIC.len() + size_of::<u16>();

/// Longest packet in bytes. Fits the default send buffer of a socket, with all names.
pub const MAX_PACKET: usize = 64 * 1024;
/// Longest plan in bytes. Dominated by the seccomp program (at most 32 kB) and the environment (the kernel's
/// `MAX_ARG_STRLEN` allows 128 KiB for one variable).
pub const MAX_PLAN: usize = 4 * 1024 * 1024;
/// Longest container id in bytes (runc's limit is 1024).
pub const MAX_CONTAINER_ID: usize = 1024;
/// Most cgroup files to join: cgroup v1 has fewer than 16 controllers, Resource Director Technology two groups.
pub const MAX_CGROUPS: usize = 18;
/// Most listeners that one worker inherits.
pub const MAX_LISTENERS: usize = 32;
/// Most descriptors in one packet; the kernel's own limit is 253.
pub const MAX_FDS: usize = 12 + MAX_CGROUPS + MAX_LISTENERS;
/// Longest text of a refusal in bytes; a longer one is cut.
pub const MAX_TEXT: usize = 8 * 1024;

/// What a client asks of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Fork a worker into a sandbox. Descriptors: as the request names them.
    Fork(ForkRequest),
    /// Say how the seed is.
    Stat,
    /// Answer, then answer everybody who has connected so far, and exit.
    Stop,
}

/// What a seed answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The worker exists; whether it runs is told by its [`Report`].
    Forked {
        /// The worker's pid in the pid namespace of the sandbox's init.
        pid: i32,
        /// The seed has reached its limit of forks or its age, and asks whoever can to replace it.
        due: bool,
    },
    /// Nothing was forked.
    Refused(Refusal),
    /// Answer to [`Request::Stat`].
    Stat(SeedStat),
    /// Answer to [`Request::Stop`].
    Stopping,
}

/// One worker to fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRequest {
    /// The container's id, for messages and the log.
    pub container: String,
    /// The namespaces of init that differ from the host's: those the worker must join.
    pub namespaces: Namespaces,
    /// Who collects the worker's exit status.
    pub reaper: Reaper,
    /// How the worker comes into the sandbox's control groups.
    pub groups: GroupEntry,
    /// When the worker's life begins.
    pub begin: Begin,
    /// The length of the worker's plan, at most [`MAX_PLAN`] bytes.
    pub plan_len: u32,
    /// The name of each descriptor in the packet, in order.
    pub fds: Vec<FdName>,
}

/// A set of namespaces, as the `CLONE_NEW*` bits of clone(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces(u32);

impl Namespaces {
    const KNOWN: u32 = (libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP) as u32
        | Namespaces::TIME;
    /// `CLONE_NEWTIME`, which the C library's headers keep apart because clone(2) itself does not take it.
    const TIME: u32 = 0x80;

    /// The set of these `CLONE_NEW*` bits, or nothing if a bit is not a namespace.
    pub fn from_bits(bits: u32) -> Option<Namespaces> {
        (bits & !Namespaces::KNOWN == 0).then_some(Namespaces(bits))
    }

    /// The `CLONE_NEW*` bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether every namespace of `other` is in this set.
    pub fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set without those of `other`.
    pub fn without(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & !other.0)
    }

    /// This set and `other` together.
    pub fn with(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }

    /// No namespace.
    pub const NONE: Namespaces = Namespaces(0);
    /// The pid namespace alone.
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u32);
    /// The user namespace alone.
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u32);
    /// The time namespace alone.
    pub const TIME_ONLY: Namespaces = Namespaces(Namespaces::TIME);
}

/// Who collects the worker's exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reaper {
    /// init is pid 1 of the pid namespace, so the kernel makes it the worker's parent.
    Init,
    /// init is not: a relay process stays as the worker's parent and tells init over the gate connection.
    Relay,
}

/// How a worker comes into the control groups of its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupEntry {
    /// It enters them itself, by the descriptors named [`FdName::Cgroup`].
    Itself,
    /// It waits until the client has moved it: who holds such a descriptor could move any process of the host.
    Moved,
}

/// When a forked worker becomes one: randomness, clocks, environment, script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// At once.
    AtOnce,
    /// When whoever asked for it says so: it is forked ahead of its start.
    WhenTold,
}

/// The meaning of one descriptor of a [`ForkRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FdName {
    /// pidfd of the sandbox's init, exactly one.
    Init,
    /// A file that moves the process that writes `0` to it into a cgroup; as many as there are hierarchies.
    Cgroup,
    /// The worker's standard input, exactly one.
    Stdin,
    /// The worker's standard output, exactly one.
    Stdout,
    /// The worker's standard error, exactly one.
    Stderr,
    /// A listening socket for the worker to accept on; any number, order kept.
    Listener,
    /// Where the worker sends its [`Report`], exactly one.
    Report,
    /// The connection to init's gate, exactly one.
    Gate,
    /// The worker's plan, a memfd, exactly one.
    Plan,
    /// The worker's end of its supervisor's channel; the next two come with it.
    Channel,
    /// The supervisor's end, for a later supervisor to find.
    Peer,
    /// The page of the worker's gauges.
    Gauges,
    /// Where the worker is asked to become a seed: a listening socket, at most one.
    Promotion,
}

/// Why a seed did not fork, or why a worker did not get as far as user code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The step that failed, one word or two: `join namespaces`.
    pub step: String,
    /// The error number, if a system call failed.
    pub errno: Option<i32>,
    /// The whole message for a person: operation, object, cause.
    pub text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Refusal {
    /// A refusal for a reason of our own.
    pub fn new(step: &str, text: impl Into<String>) -> Refusal {
        Refusal { step: step.into(), errno: None, text: cut(text.into()) }
    }

    /// A refusal because a system call failed; `operation` names it and its object.
    pub fn from_io(step: &str, operation: &str, error: &io::Error) -> Refusal {
        let text = format!("{operation}: {}", describe(error));
        Refusal { step: step.into(), errno: error.raw_os_error(), text: cut(text) }
    }
}

/// How a seed is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedStat {
    /// The seed's process id in its own pid namespace.
    pub pid: i32,
    /// The name it was started with.
    pub name: String,
    /// The script of a userland seed.
    pub script: Option<String>,
    /// Milliseconds since it became ready.
    pub age_ms: u64,
    /// The age at which it is to be replaced.
    pub max_age_ms: Option<u64>,
    /// Workers forked.
    pub forks: u64,
    /// The number of workers after which it is to be replaced.
    pub max_forks: Option<u64>,
    /// Whether it is to be replaced.
    pub due: bool,
    /// Requests refused.
    pub refusals: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

/// What a forked worker says on the descriptor named [`FdName::Report`] before user code runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The worker is in its namespaces and waits for a word before it goes on: with [`GroupEntry::Moved`].
    Born,
    /// The plan is applied, and the worker waits to be told that it begins: with [`Begin::WhenTold`].
    Waiting,
    /// The plan is applied, the script is open, the listeners are bound: user code runs next.
    Running(Timeline),
    /// A step failed; the worker exits with status 1.
    Failed(Refusal),
    /// The filter of system calls is loaded: the seccomp agent must get this descriptor of the worker, which waits
    /// for a word (`sandbox::seccomp_agent`) and reports once more.
    Notifications(i32),
}

/// When a worker's start reached its milestones: nanoseconds of the seed's `CLOCK_MONOTONIC`, except one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The seed had received and checked the request.
    pub requested_ns: u64,
    /// The seed was about to fork.
    pub fork_called_ns: u64,
    /// The worker's first instruction after the fork.
    pub worker_entered_ns: u64,
    /// Namespaces, ids, capabilities, seccomp and the rest of the plan are in force.
    pub plan_applied_ns: u64,
    /// V8 is the worker's own: a first script has given its result.
    pub javascript_ns: u64,
    /// `CLOCK_REALTIME` in microseconds at `fork_called_ns`, to compare with what a script prints.
    pub fork_called_unix_us: u64,
}

/// Why a packet was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// The packet is not of this protocol.
    #[error("not a packet of the seed protocol")]
    Magic,
    /// The packet is of another version.
    #[error("the peer speaks version {theirs} of the seed protocol, this program version {VERSION}")]
    Version {
        /// The version in the packet.
        theirs: u16,
    },
    /// The body is not a message, or is followed by something.
    #[error("the packet's body is not a message of version {VERSION}")]
    Body,
    /// The packet is longer than [`MAX_PACKET`].
    #[error("the packet is longer than {MAX_PACKET} bytes")]
    TooLong,
    /// Not all descriptors arrived.
    #[error("not all descriptors of the packet arrived (the receiver's limit of open files?)")]
    FdsLost,
    /// The names and the descriptors of the packet do not agree.
    #[error("the packet names {named} descriptors and carries {carried}")]
    FdCount {
        /// Names in the message.
        named: usize,
        /// Descriptors in the packet.
        carried: usize,
    },
    /// A descriptor is missing or given more often than its kind allows.
    #[error("the packet carries {count} descriptors named {name:?}")]
    FdName {
        /// The kind.
        name: FdName,
        /// How often it was given.
        count: usize,
    },
    /// A field exceeds its limit.
    #[error("{field} is longer than its limit of {limit}")]
    Limit {
        /// The field.
        field: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// The namespaces are not a set of `CLONE_NEW*` bits.
    #[error("{0:#x} is not a set of namespaces")]
    Namespaces(u32),
}

/// The packet of a message. Fails only if the message exceeds [`MAX_PACKET`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, ProtocolError> {
    let mut packet = Vec::with_capacity(256);
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(&VERSION.to_le_bytes());
    let packet = postcard::to_extend(message, packet).map_err(|_| ProtocolError::Body)?;
    if packet.len() > MAX_PACKET { Err(ProtocolError::TooLong) } else { Ok(packet) }
}

/// The message of a packet; every byte must be used.
pub fn decode<M: DeserializeOwned>(packet: &[u8]) -> Result<M, ProtocolError> {
    let (header, body) = packet.split_at_checked(HEADER_LEN).ok_or(ProtocolError::Magic)?;
    let (magic, version) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(ProtocolError::Magic);
    }
    let theirs = u16::from_le_bytes([version[0], version[1]]);
    if theirs != VERSION {
        return Err(ProtocolError::Version { theirs });
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(ProtocolError::Body),
    }
}

/// What connects a worker with its supervisor.
#[derive(Debug, Clone, Copy)]
pub struct SupervisionFds<T> {
    /// The worker's end of the channel.
    pub channel: T,
    /// The supervisor's end, for a later supervisor to find.
    pub peer: T,
    /// The page of the worker's gauges.
    pub gauges: T,
}

/// The descriptors of a fork as the client has them.
#[derive(Debug, Clone)]
pub struct ForkFds<'a> {
    /// pidfd of the sandbox's init.
    pub init: BorrowedFd<'a>,
    /// Files to write `0` to, to join the sandbox's cgroups.
    pub cgroups: Vec<BorrowedFd<'a>>,
    /// Standard input, output and error of the worker.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Inherited listeners.
    pub listeners: Vec<BorrowedFd<'a>>,
    /// The worker's end of [`super::client::report_channel`].
    pub report: BorrowedFd<'a>,
    /// The connection to init's gate.
    pub gate: BorrowedFd<'a>,
    /// For a worker with a supervisor.
    pub supervision: Option<SupervisionFds<BorrowedFd<'a>>>,
    /// For a worker that may become a seed.
    pub promotion: Option<BorrowedFd<'a>>,
}

impl<'a> ForkFds<'a> {
    /// Names and descriptors in the order in which they are sent.
    pub fn named(&self) -> Vec<(FdName, BorrowedFd<'a>)> {
        let mut all = vec![
            (FdName::Init, self.init),
            (FdName::Stdin, self.stdio[0]),
            (FdName::Stdout, self.stdio[1]),
            (FdName::Stderr, self.stdio[2]),
            (FdName::Report, self.report),
            (FdName::Gate, self.gate),
        ];
        all.extend(self.cgroups.iter().map(|fd| (FdName::Cgroup, *fd)));
        all.extend(self.listeners.iter().map(|fd| (FdName::Listener, *fd)));
        if let Some(SupervisionFds { channel, peer, gauges }) = self.supervision {
            all.extend([(FdName::Channel, channel), (FdName::Peer, peer), (FdName::Gauges, gauges)]);
        }
        all.extend(self.promotion.map(|fd| (FdName::Promotion, fd)));
        all
    }
}

/// The descriptors of a fork as the seed received them, each kind as often as it may be.
#[derive(Debug)]
pub struct ReceivedFds {
    /// pidfd of the sandbox's init.
    pub init: OwnedFd,
    /// Files to write `0` to, to join the sandbox's cgroups.
    pub cgroups: Vec<OwnedFd>,
    /// Standard input, output and error of the worker.
    pub stdio: [OwnedFd; 3],
    /// Inherited listeners.
    pub listeners: Vec<OwnedFd>,
    /// Where the worker sends its [`Report`].
    pub report: OwnedFd,
    /// The connection to init's gate.
    pub gate: OwnedFd,
    /// The plan.
    pub plan: OwnedFd,
    /// For a worker with a supervisor.
    pub supervision: Option<SupervisionFds<OwnedFd>>,
    /// For a worker that may become a seed.
    pub promotion: Option<OwnedFd>,
}

impl ForkRequest {
    /// Checks the limits and gives each received descriptor its meaning.
    pub fn claim(&self, fds: Vec<OwnedFd>) -> Result<ReceivedFds, ProtocolError> {
        self.check_limits()?;
        if self.fds.len() != fds.len() {
            return Err(ProtocolError::FdCount { named: self.fds.len(), carried: fds.len() });
        }
        let mut named: Vec<(FdName, OwnedFd)> = self.fds.iter().copied().zip(fds).collect();
        let received = ReceivedFds {
            init: take_one(&mut named, FdName::Init)?,
            stdio: [
                take_one(&mut named, FdName::Stdin)?,
                take_one(&mut named, FdName::Stdout)?,
                take_one(&mut named, FdName::Stderr)?,
            ],
            report: take_one(&mut named, FdName::Report)?,
            gate: take_one(&mut named, FdName::Gate)?,
            cgroups: take_up_to(&mut named, FdName::Cgroup, MAX_CGROUPS)?,
            listeners: take_up_to(&mut named, FdName::Listener, MAX_LISTENERS)?,
            plan: take_one(&mut named, FdName::Plan)?,
            supervision: match named.iter().any(|(name, _)| *name == FdName::Channel) {
                false => None,
                true => Some(SupervisionFds {
                    channel: take_one(&mut named, FdName::Channel)?,
                    peer: take_one(&mut named, FdName::Peer)?,
                    gauges: take_one(&mut named, FdName::Gauges)?,
                }),
            },
            promotion: take_up_to(&mut named, FdName::Promotion, 1)?.pop(),
        };
        match named.first() {
            None => Ok(received),
            Some((name, _)) => Err(ProtocolError::FdName { name: *name, count: named.len() }),
        }
    }

    fn check_limits(&self) -> Result<(), ProtocolError> {
        if Namespaces::from_bits(self.namespaces.0).is_none() {
            return Err(ProtocolError::Namespaces(self.namespaces.0));
        }
        let fields = [
            ("the container id", (self.container.len(), MAX_CONTAINER_ID)),
            ("the worker plan", (self.plan_len as usize, MAX_PLAN)),
            ("the list of descriptors", (self.fds.len(), MAX_FDS)),
        ];
        for (field, (len, limit)) in fields {
            if len > limit {
                return Err(ProtocolError::Limit { field, limit });
            }
        }
        Ok(())
    }
}

fn take_one(named: &mut Vec<(FdName, OwnedFd)>, name: FdName) -> Result<OwnedFd, ProtocolError> {
    let mut found = take_all(named, name);
    match (found.pop(), found.len()) {
        (Some(fd), 0) => Ok(fd),
        (None, _) => Err(ProtocolError::FdName { name, count: 0 }),
        (Some(_), others) => Err(ProtocolError::FdName { name, count: others + 1 }),
    }
}

fn take_up_to(
    named: &mut Vec<(FdName, OwnedFd)>,
    name: FdName,
    limit: usize,
) -> Result<Vec<OwnedFd>, ProtocolError> {
    let found = take_all(named, name);
    if found.len() > limit { Err(ProtocolError::FdName { name, count: found.len() }) } else { Ok(found) }
}

fn take_all(named: &mut Vec<(FdName, OwnedFd)>, name: FdName) -> Vec<OwnedFd> {
    named.extract_if(.., |(other, _)| *other == name).map(|(_, fd)| fd).collect()
}

/// Cuts a text to [`MAX_TEXT`] bytes at a character's border.
fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

#[cfg(test)]
mod tests;
