//! From a host's name to a TCP connection: happy eyeballs, RFC 8305.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, setsockopt, socket, sockopt,
};

use super::dns::{Files, Next, look_up};
use super::error::NetError;
use super::executor::{Executor, Side, Sleep, Source, sleep};
use super::limits::{ATTEMPT_DELAY, RESOLUTION_DELAY};

/// Connects to one address.
///
/// # Errors
/// As connect(2).
pub async fn connect_tcp(executor: &Rc<Executor>, address: SocketAddr) -> io::Result<Source> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    // A peer that vanishes without a word is noticed after hours rather than never.
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    match nix::sys::socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => return Source::new(executor, fd),
        Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let source = Source::new(executor, fd)?;
    source.expect_event(Side::Write);
    source
        .io(Side::Write, |fd| match getsockopt(&fd, sockopt::SocketError)? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        })
        .await?;
    Ok(source)
}

type Attempt = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<Source>)>>>;

/// Connects to a host: its addresses are tried one after the other, each a moment after the last,
/// and the first that answers wins.
///
/// # Errors
/// The name has no address, or the last address's failure.
pub async fn connect_host(
    executor: &Rc<Executor>,
    files: &Files,
    host: &str,
    port: u16,
) -> Result<Source, NetError> {
    let mut lookup = look_up(executor, files, host);
    let mut attempts: Vec<Attempt> = Vec::new();
    // Runs from the first IPv4 address on, then from each attempt on.
    let mut delay: Option<Pin<Box<Sleep>>> = None;
    let mut has_waited_for_ipv6 = false;
    let mut failure = None;
    let mut connecting = pin!(std::future::poll_fn(move |context| {
        loop {
            let mut index = 0;
            while index < attempts.len() {
                match attempts[index].as_mut().poll(context) {
                    Poll::Pending => index += 1,
                    Poll::Ready((_, Ok(source))) => return Poll::Ready(Ok(source)),
                    Poll::Ready((address, Err(error))) => {
                        failure = Some(NetError::io(format_args!("connect to {address}"), &error));
                        drop(attempts.swap_remove(index));
                        // A failure is as good as the delay's end.
                        delay = None;
                    }
                }
            }
            if let Some(waiting) = delay.as_mut() {
                if waiting.as_mut().poll(context).is_pending() {
                    lookup.wake_on_news(context);
                    // IPv6 addresses that have come end the wait for them.
                    let for_ipv6 = attempts.is_empty() && has_waited_for_ipv6;
                    if !for_ipv6 || lookup.waits_for_ipv6() {
                        return Poll::Pending;
                    }
                }
                delay = None;
            }
            if lookup.waits_for_ipv6() && !has_waited_for_ipv6 {
                has_waited_for_ipv6 = true;
                delay = Some(Box::pin(sleep(executor, RESOLUTION_DELAY)));
                continue;
            }
            match lookup.take(context) {
                Next::Address(address) => {
                    let (inner, address) = (executor.clone(), SocketAddr::new(address, port));
                    attempts.push(Box::pin(async move { (address, connect_tcp(&inner, address).await) }));
                    delay = Some(Box::pin(sleep(executor, ATTEMPT_DELAY)));
                }
                Next::Later => return Poll::Pending,
                Next::Nothing(_) if !attempts.is_empty() => return Poll::Pending,
                Next::Nothing(outcome) => {
                    let none = || NetError::new("ENOTFOUND", format!("look up {host}: it has no address"));
                    return Poll::Ready(Err(match (failure.take(), outcome) {
                        (Some(failure), _) | (None, Err(failure)) => failure,
                        (None, Ok(())) => none(),
                    }));
                }
            }
        }
    }));
    connecting.as_mut().await
}
