//! Listening addresses: their text, and opening one in the caller's network namespace.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Operation, Result};
use crate::limits::SOCKET_PATH_BYTES;
use crate::sandbox::plan::ListenAddress;

impl FromStr for ListenAddress {
    type Err = Error;

    /// Parses `tcp://ADDR:PORT` (an IPv6 address in brackets; the scheme may be left out) or `unix:///PATH`.
    fn from_str(text: &str) -> Result<ListenAddress> {
        let refuse = |reason: &str| Err(Error::invalid(format!("listen address {text:?}"), reason));
        if let Some(address) = text.strip_prefix("tcp://") {
            return match address.parse::<SocketAddr>() {
                Ok(address) => Ok(ListenAddress::Tcp(address)),
                Err(_) => refuse(
                    "after tcp:// must come a numeric address and a port: 127.0.0.1:8080 or [::1]:8080",
                ),
            };
        }
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                return refuse("after unix:// must come the absolute path of a socket");
            }
            if path.len() > SOCKET_PATH_BYTES {
                return refuse("the path of a socket has at most 107 bytes");
            }
            return Ok(ListenAddress::Unix(PathBuf::from(path)));
        }
        text.parse()
            .map(ListenAddress::Tcp)
            .or_else(|_| refuse("must be tcp://ADDR:PORT with a numeric address, or unix:///PATH"))
    }
}

/// Opens a listening socket at `address` in the network and mount namespaces of the caller.
pub fn open(address: &ListenAddress) -> Result<OwnedFd> {
    match address {
        ListenAddress::Tcp(address) => {
            TcpListener::bind(address).map(OwnedFd::from).operation(|| format!("listen on tcp://{address}"))
        }
        ListenAddress::Unix(path) => {
            let listener = UnixListener::bind(path).map(OwnedFd::from);
            listener.operation(|| format!("listen on unix://{}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds() {
        for good in ["tcp://127.0.0.1:8080", "tcp://[::1]:0", "tcp://0.0.0.0:65535", "unix:///run/a.sock"] {
            let parsed: ListenAddress = good.parse().unwrap();
            let text = match parsed {
                ListenAddress::Tcp(address) => format!("tcp://{address}"),
                ListenAddress::Unix(path) => format!("unix://{}", path.display()),
            };
            assert_eq!(text, good);
        }
        assert_eq!("[::1]:80".parse::<ListenAddress>().unwrap(), "tcp://[::1]:80".parse().unwrap());
        for bad in [
            "",
            "8080",
            ":8080",
            "localhost:8080",
            "tcp://",
            "tcp://localhost:80",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:65536",
            "tcp://::1:80",
            "unix://",
            "unix://a.sock",
            "unix:///",
            "unix:///a/",
            "http://127.0.0.1:80",
            "tcp://127.0.0.1:80 ",
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn random_text_never_panics_and_unix_paths_are_absolute() {
        let pieces = ["tcp://", "unix://", "/", "127.0.0.1", ":", "[", "]", "80", "ä", "\0", "unix", " "];
        let mut state = 7u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            if let Ok(ListenAddress::Unix(path)) = text.parse() {
                assert!(path.is_absolute() && path.file_name().is_some(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_listener_accepts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let _listener = open(&ListenAddress::Unix(path.clone())).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let error = open(&ListenAddress::Unix(path)).unwrap_err().to_string();
        assert!(error.contains("address already in use"), "{error}");
    }
}
