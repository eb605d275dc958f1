//! The asking side of the seed protocol: one connection, one request, one reply.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};

use super::protocol::{
    self, Begin, FdName, ForkFds, ForkRequest, GroupEntry, MAX_PACKET, MAX_PLAN, Namespaces, ProtocolError,
    Reaper, Refusal, Reply, Report, Request, SeedStat,
};
use super::watch::Watch;
use crate::limits;
use crate::sys::{memory, socket};

/// Why a seed could not be asked, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket, or it may not be connected to.
    #[error("connect to the seed at {path}: {}", crate::error::describe(.source))]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A system call on the connection failed.
    #[error("{operation}: {}", crate::error::describe(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The peer went away without a word.
    #[error("{who} closed the connection without an answer")]
    Closed {
        /// Which peer.
        who: &'static str,
    },
    /// The answer did not come in time.
    #[error("{who} did not answer within {seconds} s")]
    Timeout {
        /// Which peer.
        who: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The answer was not understood, or the request cannot be put into a message.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The answer does not belong to the request.
    #[error("the seed's answer does not belong to the request")]
    Unexpected,
    /// The seed refused.
    #[error("{0}")]
    Refused(Refusal),
}

/// One worker to fork, as a caller describes it.
#[derive(Debug, Clone)]
pub struct Fork<'a> {
    /// The container's id.
    pub container: &'a str,
    /// The namespaces of init that differ from the host's.
    pub namespaces: Namespaces,
    /// Who collects the worker's exit status.
    pub reaper: Reaper,
    /// How the worker comes into its control groups.
    pub groups: GroupEntry,
    /// When the worker's life begins.
    pub begin: Begin,
    /// The encoded worker plan, at most [`MAX_PLAN`] bytes.
    pub plan: &'a [u8],
    /// The descriptors.
    pub fds: ForkFds<'a>,
}

/// A worker that a seed has forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forked {
    /// Its pid in the pid namespace of the sandbox's init.
    pub pid: i32,
    /// The seed asks to be replaced.
    pub due: bool,
}

/// A connection to a seed, good for one request.
#[derive(Debug)]
pub struct SeedClient {
    socket: OwnedFd,
    timeout: Duration,
}

impl SeedClient {
    /// Connects to the control socket of a seed.
    pub fn connect(control: &Path) -> Result<SeedClient, ClientError> {
        SeedClient::connect_within(control, limits::SEED_ANSWER)
    }

    /// Connects with a limit of its own for each answer.
    pub fn connect_within(control: &Path, timeout: Duration) -> Result<SeedClient, ClientError> {
        let failed = |source| ClientError::Connect { path: control.to_owned(), source };
        let socket = socket::seqpacket().map_err(failed)?;
        socket::set_timeout(socket.as_fd(), timeout).map_err(failed)?;
        socket::connect_long(socket.as_fd(), control).map_err(failed)?;
        Ok(SeedClient { socket, timeout })
    }

    /// The seed's pid.
    pub fn pid(&self) -> Result<i32, ClientError> {
        let failed = |source| ClientError::Io { operation: "identify the seed", source };
        socket::peer_credentials(self.socket.as_fd()).map(|peer| peer.pid).map_err(failed)
    }

    /// Asks for a worker, and waits for the answer: see [`Asked::answer`].
    pub fn fork(self, fork: &Fork<'_>) -> Result<Option<Forked>, ClientError> {
        self.ask_for_worker(fork)?.answer()
    }

    /// Asks for a worker, and leaves it to the caller when to wait for the answer.
    pub fn ask_for_worker(self, fork: &Fork<'_>) -> Result<Asked, ClientError> {
        let mut named = fork.fds.named();
        let plan = plan_file(fork.plan)?;
        named.push((FdName::Plan, plan.as_fd()));
        let (names, fds): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let request = ForkRequest {
            container: fork.container.to_owned(),
            namespaces: fork.namespaces,
            reaper: fork.reaper,
            groups: fork.groups,
            begin: fork.begin,
            plan_len: fork.plan.len() as u32,
            fds: names,
        };
        let was_sent = self.send(&Request::Fork(request), &fds)?;
        Ok(Asked { client: self, was_sent, watch: Watch::default(), looked: Instant::now() })
    }

    /// Asks how the seed is.
    pub fn stat(self) -> Result<SeedStat, ClientError> {
        match self.ask(&Request::Stat)? {
            Some(Reply::Stat(stat)) => Ok(stat),
            Some(Reply::Refused(_) | Reply::Forked { .. } | Reply::Stopping) => Err(ClientError::Unexpected),
            None => Err(ClientError::Closed { who: SEED }),
        }
    }

    /// Asks the seed to exit, when it has answered everybody who has connected so far.
    pub fn stop(self) -> Result<(), ClientError> {
        match self.ask(&Request::Stop)? {
            Some(Reply::Stopping) => Ok(()),
            Some(Reply::Refused(_) | Reply::Forked { .. } | Reply::Stat(_)) => Err(ClientError::Unexpected),
            None => Err(ClientError::Closed { who: SEED }),
        }
    }

    /// The answer; nothing if the request was not read.
    fn ask(&self, request: &Request) -> Result<Option<Reply>, ClientError> {
        let was_sent = self.send(request, &[])?;
        self.receive(was_sent, None)
    }

    /// Whether the request was taken; if not, there may be an answer all the same.
    fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<bool, ClientError> {
        let packet = protocol::encode(request)?;
        match socket::send_packet(self.socket.as_fd(), &packet, fds) {
            Ok(()) => Ok(true),
            // A seed that refuses a peer answers and hangs up: its answer is worth more than the broken pipe.
            Err(error) if has_gone(&error) => Ok(false),
            Err(source) => Err(ClientError::Io { operation: "send the request to the seed", source }),
        }
    }

    fn receive(&self, was_sent: bool, watch: Option<&mut Watch>) -> Result<Option<Reply>, ClientError> {
        self.wait_for_answer(watch)?;
        let buffer = &mut vec![0; MAX_PACKET];
        let packet = match socket::recv_packet(self.socket.as_fd(), buffer) {
            // The kernel tells so where something was left unread; an answer may have come before.
            Err(error) if has_gone(&error) => match socket::recv_packet(self.socket.as_fd(), buffer) {
                Ok(packet) if packet.len > 0 => packet,
                Ok(_) | Err(_) => return Ok(None),
            },
            Err(source) => return Err(ClientError::Io { operation: "receive an answer", source }),
            Ok(packet) if packet.len == 0 && !was_sent => return Ok(None),
            Ok(packet) if packet.len == 0 => return Err(ClientError::Closed { who: SEED }),
            Ok(packet) => packet,
        };
        if packet.truncated {
            return Err(ProtocolError::TooLong.into());
        }
        match protocol::decode(&buffer[..packet.len])? {
            Reply::Refused(refusal) => Err(ClientError::Refused(refusal)),
            reply @ (Reply::Forked { .. } | Reply::Stat(_) | Reply::Stopping) => Ok(Some(reply)),
        }
    }

    /// Waits until there is something to receive; with a watch the seed is looked at meanwhile.
    fn wait_for_answer(&self, mut watch: Option<&mut Watch>) -> Result<(), ClientError> {
        let failed = |source| ClientError::Io { operation: "wait for an answer", source };
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Timeout { who: SEED, seconds: self.timeout.as_secs() });
            }
            let slice = PollTimeout::try_from(left.min(limits::SEED_LOOK)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], slice) {
                Ok(0) => {}
                Err(Errno::EINTR) => continue,
                result => return result.map(drop).map_err(|errno| failed(errno.into())),
            }
            if let Some(watch) = watch.as_deref_mut() {
                watch.look(self.socket.as_fd()).map_err(failed)?;
            }
        }
    }
}

/// A seed that was asked for a worker. Its descriptor is readable when there is an answer.
#[derive(Debug)]
pub struct Asked {
    client: SeedClient,
    was_sent: bool,
    watch: Watch,
    looked: Instant,
}

impl Asked {
    /// Waits for the answer. Nothing is answered if the seed has ended without having read the request: then there is
    /// no worker. A seed that stays stopped ([`limits::SEED_LOOKS_STOPPED`]) or asleep ([`limits::SEED_LOOKS_ASLEEP`]) is killed.
    ///
    /// The worker exists then, but may still fail: wait for its report with [`receive_report`].
    pub fn answer(mut self) -> Result<Option<Forked>, ClientError> {
        match self.client.receive(self.was_sent, Some(&mut self.watch))? {
            None => Ok(None),
            Some(Reply::Forked { pid, due }) => Ok(Some(Forked { pid, due })),
            Some(Reply::Refused(_) | Reply::Stat(_) | Reply::Stopping) => Err(ClientError::Unexpected),
        }
    }

    /// For whoever does not wait: has a look at the seed now and then, as [`Asked::answer`] does.
    pub fn look_at_seed(&mut self) {
        if self.looked.elapsed() >= limits::SEED_LOOK {
            self.looked = Instant::now();
            // One that cannot be looked at has ended, which its connection tells.
            let _ = self.watch.look(self.client.socket.as_fd());
        }
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.socket.as_fd()
    }
}

/// The peer of a request, in messages.
const SEED: &str = "the seed";

fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// The two ends of a report: the one to wait on and the one to give to the worker.
pub fn report_channel() -> Result<(OwnedFd, OwnedFd), ClientError> {
    let failed = |source| ClientError::Io { operation: "make a report channel", source };
    let (ours, theirs) = socket::seqpacket_pair().map_err(failed)?;
    // The worker knows only the pid it has in its own namespace; the kernel tells ours.
    let told = nix::sys::socket::setsockopt(&ours, nix::sys::socket::sockopt::PassCred, &true);
    told.map_err(|errno| failed(errno.into()))?;
    Ok((ours, theirs))
}

/// Waits for the worker's report; returns the worker's pid too, as the caller sees it. The caller must have closed its
/// copy of the worker's end: then a worker that dies without a report is noticed at once.
pub fn receive_report(end: BorrowedFd<'_>, timeout: Duration) -> Result<(Report, i32), ClientError> {
    receive_from_process(end, timeout, "the worker").map(|(report, pid, _)| (report, pid))
}

/// Waits for a message; returns the pid and the user of the process that has sent it, too, as the caller sees them.
pub(super) fn receive_from_process<M: serde::de::DeserializeOwned>(
    end: BorrowedFd<'_>,
    timeout: Duration,
    who: &'static str,
) -> Result<(M, i32, u32), ClientError> {
    let failed = |source| ClientError::Io { operation: "receive a worker's report", source };
    let limit = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        match poll(&mut [PollFd::new(end, PollFlags::POLLIN)], limit) {
            Ok(0) => return Err(ClientError::Timeout { who, seconds: timeout.as_secs() }),
            Err(Errno::EINTR) => continue,
            result => result.map_err(|errno| failed(errno.into()))?,
        };
        return match receive_with_pid(end, &mut buffer) {
            Ok((0, ..)) => Err(ClientError::Closed { who }),
            Ok((length, pid, uid)) => Ok((protocol::decode(&buffer[..length])?, pid, uid)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ClientError::Closed { who }),
            Err(error) => Err(failed(error)),
        };
    }
}

/// Receives one packet without waiting, and the pid and user of its sender, translated to this pid namespace (unix(7),
/// `SCM_CREDENTIALS`).
fn receive_with_pid(end: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, i32, u32)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let received = recvmsg::<()>(end.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let sender = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmCredentials(sender) => Some((sender.pid(), sender.uid())),
        _ => None,
    });
    let (pid, uid) = sender.unwrap_or((0, u32::MAX));
    Ok((received.bytes, pid, uid))
}

/// Sends a worker's report.
pub fn send_report(end: BorrowedFd<'_>, report: &Report) -> Result<(), ClientError> {
    let packet = protocol::encode(report)?;
    socket::send_packet(end, &packet, &[])
        .map_err(|source| ClientError::Io { operation: "send the worker's report", source })
}

/// The word that a worker which reported [`Report::Waiting`] waits for.
const BEGIN: &[u8] = b"begin";

/// Tells a worker that was forked ahead of its start to begin, with these listeners beside those of its fork.
pub fn tell_to_begin(end: BorrowedFd<'_>, listeners: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
    socket::send_packet(end, BEGIN, listeners)
        .map_err(|source| ClientError::Io { operation: "tell the worker to begin", source })
}

/// The worker's side of [`Report::Waiting`]: reports it, and returns with further listeners when it was told to begin.
/// Whoever would have told it may have gone; then there is nothing to begin.
pub fn wait_to_begin(end: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let report = protocol::encode(&Report::Waiting).map_err(io::Error::other)?;
    socket::send_packet(end, &report, &[])?;
    let mut word = [0; BEGIN.len() + 1];
    loop {
        match socket::recv_packet(end, &mut word) {
            Ok(packet) if &word[..packet.len] == BEGIN && !packet.fds_truncated => return Ok(packet.fds),
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The worker's side of [`Report::Born`]: returns when the client has moved the worker.
pub fn wait_to_be_moved(end: BorrowedFd<'_>) -> io::Result<()> {
    let packet = protocol::encode(&Report::Born).map_err(io::Error::other)?;
    crate::sandbox::seccomp_agent::hand_over(end, &packet)
}

/// The worker's side of [`Report::Notifications`]: returns when the seccomp agent has the descriptor.
pub fn wait_for_agent(end: BorrowedFd<'_>, notifications: i32) -> io::Result<()> {
    let packet = protocol::encode(&Report::Notifications(notifications)).map_err(io::Error::other)?;
    crate::sandbox::seccomp_agent::hand_over(end, &packet)
}

fn plan_file(plan: &[u8]) -> Result<OwnedFd, ClientError> {
    if plan.len() > MAX_PLAN {
        return Err(ProtocolError::Limit { field: "the worker plan", limit: MAX_PLAN }.into());
    }
    memory::memfd_with(c"turf-worker-plan", plan)
        .map_err(|source| ClientError::Io { operation: "put the worker plan into a memfd", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_crosses_the_channel() {
        let (ours, theirs) = report_channel().unwrap();
        let report = Report::Failed(Refusal::new("open script", "open /x: no such file or directory"));
        send_report(theirs.as_fd(), &report).unwrap();
        drop(theirs);
        let own = std::process::id().cast_signed();
        assert_eq!(receive_report(ours.as_fd(), Duration::from_secs(5)).unwrap(), (report, own));
    }

    #[test]
    fn a_worker_forked_ahead_begins_when_it_is_told_and_not_when_nobody_is_left_to_tell_it() {
        let (ours, theirs) = report_channel().unwrap();
        let listener = std::fs::File::open("/dev/null").unwrap();
        tell_to_begin(ours.as_fd(), &[listener.as_fd()]).unwrap();
        assert_eq!(wait_to_begin(theirs.as_fd()).unwrap().len(), 1);
        assert_eq!(receive_report(ours.as_fd(), Duration::from_secs(5)).unwrap().0, Report::Waiting);
        for packet in [&b"begi"[..], b"begin!", b"begin with more than that"] {
            socket::send_packet(ours.as_fd(), packet, &[]).unwrap();
            assert_eq!(wait_to_begin(theirs.as_fd()).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        }
        let waiting = std::thread::spawn(move || wait_to_begin(theirs.as_fd()));
        receive_report(ours.as_fd(), Duration::from_secs(5)).unwrap();
        drop(ours);
        assert!(waiting.join().unwrap().is_err());
    }

    #[test]
    fn a_worker_that_dies_without_a_report_is_noticed() {
        let (ours, theirs) = report_channel().unwrap();
        drop(theirs);
        let error = receive_report(ours.as_fd(), Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.to_string(), "the worker closed the connection without an answer");
    }

    #[test]
    fn a_missing_seed_is_named_by_its_socket() {
        let error = SeedClient::connect(Path::new("/nonexistent/control.sock")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "connect to the seed at /nonexistent/control.sock: no such file or directory"
        );
    }
}
