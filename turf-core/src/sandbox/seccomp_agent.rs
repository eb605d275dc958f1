//! Handing the descriptor of seccomp notifications to the agent that a profile names
//! (<https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#containerprocessstate>).
//!
//! ```text
//!  the process                              start or exec, on the host            the agent
//!    loads its filter
//!    'N', number of the descriptor  ------->  takes a copy (pidfd_getfd(2))
//!                                             state of the process, the copy ------> accept, recvmsg
//!    goes on  <----------------------- 'g'
//! ```
//!
//! The agent's socket is a path of the host, which the process itself cannot reach.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use turf_init::message::GO;

use super::plan::{HookState, ProcessPlan, SeccompAgentPlan};
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sys::pidfd::pidfd_getfd;
use crate::sys::socket;

/// A process whose filter leaves calls to an agent.
#[derive(Debug)]
pub struct Process<'a> {
    /// Its plan.
    pub plan: &'a ProcessPlan,
    /// The state of its container.
    pub state: &'a HookState,
    /// Pid of the container's init, as the host sees it.
    pub init_pid: i32,
    /// The container's status.
    pub status: &'a str,
    /// Its pid, as the host sees it.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: BorrowedFd<'a>,
}

/// Takes descriptor `number` of the process and sends it to the agent.
pub fn introduce(process: &Process<'_>, number: RawFd) -> Result<()> {
    let agent = process.plan.seccomp.as_ref().and_then(|filter| filter.agent.as_ref());
    let agent =
        agent.ok_or_else(|| Error::invalid("the process", "has a seccomp agent that no profile names"))?;
    let notifications = pidfd_getfd(process.pidfd, number)
        .operation(|| format!("take the seccomp notifications of process {}", process.pid))?;
    let path = agent.socket.display();
    let socket = connect(agent).operation(|| format!("failed to connect with seccomp agent at {path}"))?;
    // A blocking stream takes a message of this size whole.
    socket::send_packet(socket.as_fd(), &message(process, agent), &[notifications.as_fd()])
        .operation(|| format!("hand the seccomp notifications to the agent at {path}"))
}

fn connect(agent: &SeccompAgentPlan) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::set_timeout(socket.as_fd(), limits::SECCOMP_AGENT)?;
    socket::connect_long(socket.as_fd(), &agent.socket)?;
    Ok(socket)
}

/// The `ContainerProcessState`.
fn message(process: &Process<'_>, agent: &SeccompAgentPlan) -> Vec<u8> {
    let HookState { oci_version, id, bundle, annotations } = process.state;
    let state = serde_json::json!({
        "ociVersion": oci_version,
        "fds": ["seccompFd"],
        "pid": process.pid,
        "metadata": agent.metadata,
        "state": {
            "ociVersion": oci_version,
            "id": id,
            "status": process.status,
            "pid": process.init_pid,
            "bundle": bundle,
            "annotations": annotations,
        },
    });
    state.to_string().into_bytes()
}

/// The process's side: sends the packet over its connection to `start` or `exec`, and waits for the word. Nothing but
/// write(2) is used before the agent has the descriptor, and no filter may leave that to the agent.
pub fn hand_over(connection: BorrowedFd<'_>, packet: &[u8]) -> io::Result<()> {
    nix::unistd::write(connection, packet)?;
    let mut answer = [0];
    loop {
        match nix::unistd::read(connection, &mut answer) {
            Ok(1) if answer[0] == GO => return Ok(()),
            // Whoever was to talk to the agent could not, and says itself why.
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The other side's word.
pub(crate) fn go_on(connection: BorrowedFd<'_>) -> io::Result<()> {
    nix::sys::socket::send(connection.as_raw_fd(), &[GO], nix::sys::socket::MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use turf_init::message::NOTIFICATIONS;

    #[test]
    fn the_agent_is_told_what_the_specification_says() {
        let state = HookState {
            oci_version: "1.3.0".into(),
            id: "a".into(),
            bundle: "/b".into(),
            ..Default::default()
        };
        let agent = SeccompAgentPlan { socket: "/s".into(), metadata: "m".into() };
        let pidfd = crate::sys::pidfd::pidfd_open(std::process::id().cast_signed()).unwrap();
        let plan = ProcessPlan::default();
        let process = Process {
            plan: &plan,
            state: &state,
            init_pid: 7,
            status: "running",
            pid: 8,
            pidfd: pidfd.as_fd(),
        };
        let told: serde_json::Value = serde_json::from_slice(&message(&process, &agent)).unwrap();
        let wanted = serde_json::json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 8, "metadata": "m",
            "state": {"ociVersion": "1.3.0", "id": "a", "status": "running", "pid": 7, "bundle": "/b", "annotations": {}},
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_process_waits_for_a_word_or_the_end() {
        let (ours, theirs) = socket::seqpacket_pair().unwrap();
        go_on(ours.as_fd()).unwrap();
        hand_over(theirs.as_fd(), &[NOTIFICATIONS, 5, 0, 0, 0]).unwrap();
        let mut bytes = [0; 8];
        let received = socket::recv_packet(ours.as_fd(), &mut bytes).unwrap();
        assert_eq!(bytes[..received.len], [NOTIFICATIONS, 5, 0, 0, 0]);
        assert!(nix::sys::socket::shutdown(ours.as_raw_fd(), nix::sys::socket::Shutdown::Write).is_ok());
        let error = hand_over(theirs.as_fd(), &[NOTIFICATIONS, 5, 0, 0, 0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }
}
