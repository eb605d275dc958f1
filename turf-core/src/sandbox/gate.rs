//! The gate: the socket at which init waits between `create` and `start`.
//!
//! A `SOCK_SEQPACKET` Unix socket, `gate.sock` in the container's directory. `create` binds it and
//! init inherits it as the only owner. **The marker of the status is the socket itself**: while
//! somebody listens, the container is `created`; when nobody does and init lives, it is `running`.
//! For a program the kernel closes the socket in execve(2), at the very moment the status changes;
//! for a worker init closes it when the worker says that it runs. Neither `start` nor anybody else
//! can leave it in a wrong state by dying.
//!
//! One message is one packet: a tag byte, then what the table says.
//!
//! ```text
//!  tag  from -> to       meaning
//!  'X'  start -> init    apply the process plan, execute the program
//!  'W'  start -> init    a worker comes
//!  'r'  init -> start    ready: send the worker
//!  'B'  worker -> init   born: this is my pid (init reads it from SCM_CREDENTIALS)
//!  'R'  worker -> init   running: user code comes next
//!  'E'  H -> init        the worker ended with this wait status (i32); only where init is not
//!                        the reaper of a pid namespace of its own
//!  'N'  init -> start    the filter is loaded: give this descriptor of mine (i32) to the seccomp agent
//!  'g'  start -> init    the agent has it
//!  'x'  init -> start    about to call execve(2); the connection is closed by its success
//!  'R'  init -> start    the worker runs, the status has changed
//!  'E'  init -> start    the worker ended before it ran, with this wait status (i32)
//!  'F'  init -> start    a step failed: errno (i32), length of the step (u16), step, text
//! ```
//!
//! `start` hands a duplicate of its connection to the seed, and so to the worker, which is how
//! the worker talks to init. Init counts on the connection's end: it comes only when `start`, the
//! seed and the worker have all let go of it. If it comes before a worker was born, no worker can
//! come any more and init waits for the next `start`; a worker that was born is adopted, whatever
//! happened to `start`.
//!
//! Worker's side: [`report_born`] right after the fork, [`report_running`] after the process plan
//! was applied and before user code, then close the descriptor. If the sandbox has no pid
//! namespace of its own, H stays the worker's parent, keeps a duplicate and calls
//! [`report_exit`]; when H finds the connection ended (init died), it kills the worker.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr};

use turf_init::message::{
    BORN, ENDED, EXECUTING, FAILED, NOTIFICATIONS, READY, RUNNING, START_PROGRAM, START_WORKER,
};

use super::seccomp_agent;
use super::step::StepError;
use crate::error::{Error, Operation, Result};
use crate::limits;

/// The socket's name in the container's directory.
pub const SOCKET_NAME: &str = "gate.sock";

/// Longest packet: a failure with the path of a file in it, cut if it is longer.
pub(crate) const PACKET_BYTES: usize = 8192;

/// Connections that may wait: one `start`, and the status queries of other commands. A query that
/// finds the queue full knows as well that somebody listens.
const BACKLOG: i32 = 8;

/// How a worker's start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStart {
    /// The worker runs and the container's status is `running`.
    Running,
    /// The worker ended before it ran user code, with this wait status; the container is stopped.
    Ended(i32),
}

/// A connection of `start` to the init of a created container.
#[derive(Debug)]
pub struct Gate {
    socket: OwnedFd,
    container_dir: PathBuf,
}

impl Gate {
    /// Connects to the init that waits in `container_dir`; refused when nobody waits there.
    pub fn connect(container_dir: &Path) -> Result<Gate> {
        let socket = new_socket(SockFlag::empty())
            .and_then(|socket| limit_sending(&socket).map(|()| socket))
            .and_then(|socket| connect_with(container_dir, socket))
            .operation(|| format!("connect to {}", socket_path(container_dir).display()))?;
        Ok(Gate { socket, container_dir: container_dir.to_owned() })
    }

    /// Starts an exec bundle: returns when the program has been executed. A directory on a network file system
    /// may take as long as it likes to be entered, so there is no time limit here.
    pub fn start_program(self) -> Result<()> {
        let nobody =
            |_| Err(Error::invalid("the container's init", "wants a seccomp agent that no profile names"));
        self.start_program_with_agent(nobody)
    }

    /// The same where the filter may leave calls to an agent: `introduce` gives it init's descriptor of that number.
    pub fn start_program_with_agent(self, introduce: impl Fn(RawFd) -> Result<()>) -> Result<()> {
        self.send(&[START_PROGRAM])?;
        let mut executing = false;
        loop {
            match self.receive(None)? {
                Answer::Executing => executing = true,
                Answer::Notifications(number) => {
                    introduce(number)?;
                    seccomp_agent::go_on(self.socket.as_fd()).operation(|| "send to the container's init")?;
                }
                Answer::Failed(error) => return Err(error.into()),
                Answer::Closed if executing => return self.wait_closed(),
                answer @ (Answer::Closed | Answer::Ready | Answer::Running | Answer::Ended(_)) => {
                    return Err(unexpected(&answer, "an executed program"));
                }
            }
        }
    }

    /// Returns when nobody listens at the gate. Init's side of a connection may end a moment before the
    /// gate does, for execve(2) closes one after the other; connecting once more blocks or leads to a
    /// connection that is never accepted, and both end with the gate.
    fn wait_closed(&self) -> Result<()> {
        match connect(&self.container_dir, SockFlag::empty()) {
            Ok(witness) => wait_hangup(witness.as_fd()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOENT)) => Ok(()),
            Err(error) => Err(Error::io("wait for the gate to close", error)),
        }
    }

    /// Announces a worker: returns when init waits for it. Until this connection ends, init listens to nobody else.
    pub fn prepare_worker(&self) -> Result<()> {
        self.send(&[START_WORKER])?;
        match self.receive(Some(limits::GATE_READY))? {
            Answer::Ready => Ok(()),
            Answer::Failed(error) => Err(error.into()),
            answer @ (Answer::Closed
            | Answer::Executing
            | Answer::Notifications(_)
            | Answer::Running
            | Answer::Ended(_)) => Err(unexpected(&answer, "an init that is ready")),
        }
    }

    /// Waits at most `limit` for the worker to run. Call it after the seed has answered `Forked`.
    pub fn wait_running(&self, limit: Duration) -> Result<WorkerStart> {
        match self.receive(Some(limit))? {
            Answer::Running => Ok(WorkerStart::Running),
            Answer::Ended(status) => Ok(WorkerStart::Ended(status)),
            Answer::Failed(error) => Err(error.into()),
            answer @ (Answer::Closed | Answer::Ready | Answer::Executing | Answer::Notifications(_)) => {
                Err(unexpected(&answer, "a worker that runs"))
            }
        }
    }

    fn send(&self, packet: &[u8]) -> Result<()> {
        socket::send(self.socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL)
            .operation(|| "send to the container's init")
            .map(drop)
    }

    fn receive(&self, limit: Option<Duration>) -> Result<Answer> {
        if let Some(limit) = limit {
            wait_readable(self.socket.as_fd(), limit)?;
        }
        let mut packet = [0; PACKET_BYTES];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(length) => return Answer::decode(&packet[..length]),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(Answer::Closed),
                Err(errno) => return Err(Error::io("receive from the container's init", errno)),
            }
        }
    }
}

impl AsFd for Gate {
    /// The connection, of which the seed gets a duplicate.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether an init waits at the gate in `container_dir`: whether the container is `created`
/// (given that its init lives). Never blocks, not even when the container is paused.
pub fn is_waiting(container_dir: &Path) -> Result<bool> {
    match connect(container_dir, SockFlag::SOCK_NONBLOCK) {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(true),
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
            Some(_) | None => {
                Err(Error::io(format!("connect to {}", socket_path(container_dir).display()), error))
            }
        },
    }
}

/// Worker's side: tells init that this process is the worker.
pub fn report_born(connection: BorrowedFd<'_>) -> io::Result<()> {
    write_packet(connection, &[BORN])
}

/// Worker's side: tells init that user code comes next. The status is `running` from here.
pub fn report_running(connection: BorrowedFd<'_>) -> io::Result<()> {
    write_packet(connection, &[RUNNING])
}

/// H's side, where init has no pid namespace of its own: tells init how the worker ended.
pub fn report_exit(connection: BorrowedFd<'_>, wait_status: i32) -> io::Result<()> {
    let status = wait_status.to_le_bytes();
    write_packet(connection, &[ENDED, status[0], status[1], status[2], status[3]])
}

/// Makes the gate of a container and listens at it; for init to inherit.
pub(crate) fn listen(container_dir: &Path) -> Result<OwnedFd> {
    let path = socket_path(container_dir);
    let make = || -> io::Result<OwnedFd> {
        let socket = new_socket(SockFlag::empty())?;
        let directory = open_directory(container_dir)?;
        socket::bind(socket.as_raw_fd(), &short_address(&directory)?)?;
        socket::listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(socket)
    };
    make().operation(|| format!("listen on {}", path.display()))
}

/// Encodes a failure as a packet, cutting what does not fit.
pub(crate) fn encode_failure(error: &StepError) -> Vec<u8> {
    let step = cut(&error.step, PACKET_BYTES / 2);
    let text = cut(&error.text, PACKET_BYTES / 2 - 16);
    let length = u16::try_from(step.len()).unwrap_or(0);
    let mut packet = vec![FAILED];
    packet.extend_from_slice(&error.errno.to_le_bytes());
    packet.extend_from_slice(&length.to_le_bytes());
    packet.extend_from_slice(step.as_bytes());
    packet.extend_from_slice(text.as_bytes());
    packet
}

/// Decodes what follows the tag of a failure; `None` if it is malformed.
pub(crate) fn decode_failure(body: &[u8]) -> Option<StepError> {
    let (errno, rest) = body.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (step, text) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let errno = i32::from_le_bytes(*errno);
    let step = String::from_utf8_lossy(step).into_owned();
    // init's small program knows no words for error numbers.
    let text = match text {
        [] if errno != 0 => crate::error::errno_text(errno),
        text => String::from_utf8_lossy(text).into_owned(),
    };
    Some(StepError { step, errno, text })
}

/// What init answers.
#[derive(Debug)]
enum Answer {
    Ready,
    Executing,
    Notifications(RawFd),
    Running,
    Ended(i32),
    Failed(StepError),
    Closed,
}

impl Answer {
    fn decode(packet: &[u8]) -> Result<Answer> {
        let malformed = || Error::invalid("the container's init", "sent a packet that cannot be understood");
        match packet.split_first() {
            None => Ok(Answer::Closed),
            Some((&READY, [])) => Ok(Answer::Ready),
            Some((&EXECUTING, [])) => Ok(Answer::Executing),
            Some((&NOTIFICATIONS, &[a, b, c, d])) => {
                Ok(Answer::Notifications(i32::from_le_bytes([a, b, c, d])))
            }
            Some((&RUNNING, [])) => Ok(Answer::Running),
            Some((&ENDED, &[a, b, c, d])) => Ok(Answer::Ended(i32::from_le_bytes([a, b, c, d]))),
            Some((&FAILED, body)) => decode_failure(body).map(Answer::Failed).ok_or_else(malformed),
            Some(_) => Err(malformed()),
        }
    }
}

fn unexpected(answer: &Answer, wanted: &str) -> Error {
    let what = match answer {
        Answer::Closed => "ended",
        Answer::Ready => "said that it is ready",
        Answer::Executing => "executes a program",
        Answer::Notifications(_) => "wants a seccomp agent",
        Answer::Running => "said that a worker runs",
        Answer::Ended(_) => "said that the worker ended",
        Answer::Failed(_) => "failed",
    };
    Error::invalid("the container's init", format!("{what} where {wanted} was expected"))
}

/// Waits until the other end is gone.
fn wait_hangup(socket: BorrowedFd<'_>) -> Result<()> {
    loop {
        match nix::poll::poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for the gate to close", errno)),
        }
    }
}

fn wait_readable(socket: BorrowedFd<'_>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::TimedOut {
                    operation: "wait for the container's init".to_owned(),
                    limit_ms,
                });
            }
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::io("wait for the container's init", errno)),
        }
    }
}

fn socket_path(container_dir: &Path) -> PathBuf {
    container_dir.join(SOCKET_NAME)
}

fn connect(container_dir: &Path, flags: SockFlag) -> io::Result<OwnedFd> {
    connect_with(container_dir, new_socket(flags)?)
}

/// A queue that is full, because init listens to somebody else, must not hold anybody up for ever.
fn limit_sending(socket: &OwnedFd) -> io::Result<()> {
    let limit = nix::sys::time::TimeVal::new(limits::GATE_READY.as_secs() as i64, 0);
    Ok(socket::setsockopt(socket, socket::sockopt::SendTimeout, &limit)?)
}

fn connect_with(container_dir: &Path, socket: OwnedFd) -> io::Result<OwnedFd> {
    let directory = open_directory(container_dir)?;
    socket::connect(socket.as_raw_fd(), &short_address(&directory)?)?;
    Ok(socket)
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags | SockFlag::SOCK_CLOEXEC, None)?)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())?)
}

/// The socket's address through a descriptor of its directory: short, however long the path is
/// (`sun_path` holds 107 bytes, unix(7)).
fn short_address(directory: &OwnedFd) -> io::Result<UnixAddr> {
    let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
    Ok(UnixAddr::new(path.as_str())?)
}

fn write_packet(connection: BorrowedFd<'_>, packet: &[u8]) -> io::Result<()> {
    loop {
        match socket::send(connection.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The start of a text, cut at a character's boundary.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_its_packet() {
        let error = StepError { step: "open /app/worker.js".into(), errno: 2, text: "no such file".into() };
        let packet = encode_failure(&error);
        assert_eq!(decode_failure(&packet[1..]), Some(error));
    }

    #[test]
    fn a_failure_that_is_too_long_is_cut_to_one_packet() {
        let error = StepError { step: "ä".repeat(9000), errno: 1, text: "ö".repeat(9000) };
        let packet = encode_failure(&error);
        assert!(packet.len() <= PACKET_BYTES);
        let decoded = decode_failure(&packet[1..]).unwrap();
        assert!(error.step.starts_with(&decoded.step) && error.text.starts_with(&decoded.text));
    }

    #[test]
    fn malformed_packets_are_refused() {
        for packet in [&b"?"[..], b"r1", b"E123", b"E12345", b"F", b"F1234", b"F1234\xff\xffx"] {
            assert!(Answer::decode(packet).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn nobody_waits_at_a_gate_whose_owner_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_waiting(dir.path()).unwrap());
        let listener = listen(dir.path()).unwrap();
        assert!(is_waiting(dir.path()).unwrap());
        drop(listener);
        assert!(!is_waiting(dir.path()).unwrap());
    }

    #[test]
    fn a_full_queue_at_the_gate_still_counts_as_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = listen(dir.path()).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..BACKLOG * 2 {
            if let Ok(socket) = connect(dir.path(), SockFlag::SOCK_NONBLOCK) {
                waiting.push(socket);
            }
        }
        assert!(waiting.len() < usize::try_from(BACKLOG * 2).unwrap());
        assert!(is_waiting(dir.path()).unwrap());
    }
}
