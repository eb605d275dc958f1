//! The pool's listening sockets.
//!
//! The supervisor keeps every socket open for as long as the pool lives, so a queue never dies with a worker. It looks
//! at the queues' lengths, and accepts only what it is to pass on or to refuse.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};

use crate::error::{Operation, Result};
use crate::sandbox::plan::ListenAddress;
use crate::sys::socket as sys_socket;

/// One listening socket.
#[derive(Debug)]
pub struct Listening {
    /// What workers call it.
    pub number: u32,
    /// Its address, as a person writes it.
    pub address: String,
    /// The slot it is meant for, with `reuseport`.
    pub slot: Option<u32>,
    /// The worker that was handed it, by number.
    pub given_to: Option<u64>,
    /// The file of a Unix socket that this pool made.
    pub made_path: Option<std::path::PathBuf>,
    socket: OwnedFd,
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listening {
    /// Takes a socket that listens already.
    pub fn adopt(number: u32, slot: Option<u32>, socket: OwnedFd) -> Result<Listening> {
        let address = describe(&socket);
        prepare(&socket).operation(|| format!("prepare {address}"))?;
        Ok(Listening { number, address, slot, given_to: None, made_path: None, socket })
    }

    /// How many connections wait here.
    pub fn waiting(&self) -> u32 {
        match sys_socket::accept_queue(self.socket.as_fd()) {
            Ok(count) => count,
            // A Unix socket does not tell how many, only whether.
            Err(_) => {
                let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                u32::from(matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1)))
            }
        }
    }

    /// Takes one waiting connection.
    pub fn accept(&self) -> std::io::Result<OwnedFd> {
        sys_socket::accept_nonblocking(self.socket.as_fd())
    }
}

/// Opens the sockets of one address: one, or with `slots` one for each slot.
pub fn open(address: &ListenAddress, slots: Option<u32>, first_number: u32) -> Result<Vec<Listening>> {
    match (address, slots) {
        (ListenAddress::Tcp(address), Some(slots)) => {
            // Port 0 is chosen once for all.
            let mut address = *address;
            (0..slots)
                .map(|slot| {
                    let socket = tcp(address, true).operation(|| format!("listen on tcp://{address}"))?;
                    if let Some(chosen) = local_address(&socket) {
                        address = chosen;
                    }
                    Listening::adopt(first_number + slot, Some(slot), socket)
                })
                .collect()
        }
        (ListenAddress::Tcp(address), None) => {
            let socket = tcp(*address, false).operation(|| format!("listen on tcp://{address}"))?;
            Ok(vec![Listening::adopt(first_number, None, socket)?])
        }
        (ListenAddress::Unix(path), _) => {
            let socket = unix(path).operation(|| format!("listen on unix://{}", path.display()))?;
            let mut listening = Listening::adopt(first_number, None, socket.into())?;
            listening.made_path = Some(path.clone());
            Ok(vec![listening])
        }
    }
}

fn tcp(address: SocketAddr, reuse_port: bool) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if reuse_port {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

/// A socket file that nobody listens on any more is replaced.
fn unix(path: &Path) -> std::io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let is_stale = || {
        UnixStream::connect(path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if is_socket && is_stale() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Not blocking, a long queue, and segments that leave at once on every accepted connection.
fn prepare(socket: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    listen(socket, Backlog::MAXCONN)?;
    // EOPNOTSUPP for a Unix socket.
    let _ = setsockopt(socket, sockopt::TcpNoDelay, &true);
    Ok(())
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    if let Some(address) = name.as_sockaddr_in() {
        return Some(SocketAddr::from((address.ip(), address.port())));
    }
    name.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port())))
}

/// `tcp://ADDR:PORT` or `unix:///PATH` of a socket.
pub fn describe(socket: &OwnedFd) -> String {
    if let Some(address) = local_address(socket) {
        return format!("tcp://{address}");
    }
    let name = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok();
    let path = name.filter(|name| name.family() == Some(AddressFamily::Unix));
    let path = path.as_ref().and_then(|name| name.as_unix_addr()?.path().map(Path::to_owned));
    path.map_or_else(|| "an unnamed socket".to_owned(), |path| format!("unix://{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn local(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    fn address_of(listening: &Listening) -> SocketAddr {
        listening.address.strip_prefix("tcp://").unwrap().parse().unwrap()
    }

    #[test]
    fn the_queue_is_counted_without_accepting() {
        let sockets = open(&local("127.0.0.1:0"), None, 0).unwrap();
        assert_eq!(sockets[0].waiting(), 0);
        let address = address_of(&sockets[0]);
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(sockets[0].waiting(), 2);
        sockets[0].accept().unwrap();
        assert_eq!(sockets[0].waiting(), 1);
    }

    #[test]
    fn slots_share_one_port_and_another_pool_cannot_have_it() {
        let sockets = open(&local("127.0.0.1:0"), Some(3), 10).unwrap();
        assert_eq!(sockets.iter().map(|socket| socket.number).collect::<Vec<_>>(), [10, 11, 12]);
        assert!(sockets.iter().all(|socket| socket.address == sockets[0].address));
        let error = open(&ListenAddress::Tcp(address_of(&sockets[0])), None, 0).unwrap_err();
        assert!(error.to_string().contains("address already in use"), "{error}");
    }

    #[test]
    fn a_unix_socket_tells_that_something_waits_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let address = ListenAddress::Unix(path.clone());
        let sockets = open(&address, Some(4), 0).unwrap();
        assert_eq!((sockets.len(), sockets[0].waiting()), (1, 0));
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(sockets[0].waiting(), 1);
        assert!(open(&address, None, 0).is_err());
        drop(sockets);
        assert!(open(&address, None, 0).is_ok());
    }
}
