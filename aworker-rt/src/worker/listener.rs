//! Where a worker listens: addresses, and sockets made or inherited.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `tcp://HOST:PORT`; port 0 lets the system choose.
    Tcp(String),
    /// `unix:///PATH`.
    Unix(PathBuf),
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    /// Understands `tcp://HOST:PORT`, `HOST:PORT`, `PORT` and `unix:///PATH`.
    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let usage =
            || format!("listen address \"{text}\": want tcp://HOST:PORT, HOST:PORT, PORT or unix:///PATH");
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') || path.len() < 2 {
                return Err(usage());
            }
            return Ok(ListenAddress::Unix(path.into()));
        }
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = address.rsplit_once(':').unwrap_or(("127.0.0.1", address));
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(usage());
        }
        Ok(ListenAddress::Tcp(format!("{host}:{port}")))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(formatter, "tcp://{address}"),
            ListenAddress::Unix(path) => write!(formatter, "unix://{}", path.display()),
        }
    }
}

/// A listening stream socket, non-blocking.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: ListenAddress,
}

impl Listener {
    /// Makes a socket and listens. A Unix socket that nobody listens on any more
    /// is replaced.
    ///
    /// # Errors
    /// `listen on tcp://127.0.0.1:80: permission denied`, and the like.
    pub fn bind(address: &ListenAddress) -> io::Result<Listener> {
        let fd: io::Result<OwnedFd> = match address {
            ListenAddress::Tcp(host_and_port) => bind_tcp(host_and_port).map(OwnedFd::from),
            ListenAddress::Unix(path) => bind_unix(path).map(OwnedFd::from),
        };
        let listener = fd.and_then(Listener::from_fd);
        listener.map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))
    }

    /// Takes a socket that listens already, made by someone else.
    ///
    /// # Errors
    /// The descriptor is no listening TCP or Unix stream socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Listener> {
        if !getsockopt(&fd, sockopt::AcceptConn)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        let name: SockaddrStorage = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd))?;
        let address = match name.family() {
            Some(AddressFamily::Unix) => {
                let path = name.as_unix_addr().and_then(|address| address.path().map(Path::to_owned));
                ListenAddress::Unix(path.unwrap_or_default())
            }
            Some(AddressFamily::Inet | AddressFamily::Inet6) => ListenAddress::Tcp(name.to_string()),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the socket is neither TCP nor Unix",
                ));
            }
        };
        nix::sys::socket::listen(&fd, Backlog::MAXCONN)?;
        // SO_NONBLOCK belongs to the open file: whoever shares the socket expects it too.
        let flags = nix::fcntl::OFlag::from_bits_retain(nix::fcntl::fcntl(&fd, nix::fcntl::F_GETFL)?);
        nix::fcntl::fcntl(&fd, nix::fcntl::F_SETFL(flags | nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Listener { fd, address })
    }

    /// Where it listens; the real port if the system chose it.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn bind_tcp(host_and_port: &str) -> io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = host_and_port.to_socket_addrs()?.collect();
    TcpListener::bind(&addresses[..])
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let is_stale =
        || UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if is_socket && is_stale() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        let tcp = |text: &str| Ok(ListenAddress::Tcp(text.to_owned()));
        assert_eq!("tcp://0.0.0.0:8080".parse(), tcp("0.0.0.0:8080"));
        assert_eq!("[::1]:80".parse(), tcp("[::1]:80"));
        assert_eq!("8080".parse(), tcp("127.0.0.1:8080"));
        assert_eq!("unix:///run/w.sock".parse(), Ok(ListenAddress::Unix("/run/w.sock".into())));
        for wrong in [
            "",
            "tcp://",
            "tcp://host",
            "host:",
            ":80",
            "1:70000",
            "unix://w.sock",
            "unix:///",
            "http://a:1/",
        ] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_listener_knows_the_port_that_the_system_chose() {
        let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().expect("an address")).expect("listens");
        let ListenAddress::Tcp(address) = listener.address() else { panic!("a TCP listener") };
        assert!(std::net::TcpStream::connect(address).is_ok(), "{address}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = std::env::temp_dir().join(format!("aworker-listener-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let address = ListenAddress::Unix(directory.join("socket"));
        let live = Listener::bind(&address).expect("listens");
        assert_eq!(Listener::bind(&address).expect_err("is in use").kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(Listener::bind(&address).is_ok());
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let (socket, _peer) = UnixStream::pair().expect("a pair");
        assert!(Listener::from_fd(socket.into()).is_err());
    }
}
