//! Unix sockets of type `SOCK_SEQPACKET`, with file descriptors as ancillary data: unix(7), cmsg(3).
//!
//! The standard library knows stream and datagram sockets only. A sequenced packet keeps message borders and has a
//! connection, so that a request and its descriptors arrive as one piece or not at all.

use std::fs::File;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Longest path in bytes that an address holds: `sun_path` without its final zero.
const MAX_ADDRESS: usize = 107;

/// The most descriptors that one packet can carry: `SCM_MAX_FD` of the kernel.
pub const MAX_PACKET_FDS: usize = 253;

/// Who sits at the other end of a connected Unix socket, as of `connect`: `SO_PEERCRED` in unix(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id in this process's pid namespace, 0 if it has none there.
    pub pid: i32,
    /// User id in this process's user namespace.
    pub uid: u32,
    /// Group id in this process's user namespace.
    pub gid: u32,
}

/// One received packet.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of the packet that fit the buffer.
    pub len: usize,
    /// Descriptors that came with it, in the sender's order, all close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The packet was longer than the buffer (`MSG_TRUNC`).
    pub truncated: bool,
    /// Some descriptors could not be received (`MSG_CTRUNC`).
    pub fds_truncated: bool,
}

/// socket(2): a close-on-exec `SOCK_SEQPACKET` Unix socket.
pub fn seqpacket() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    owned(fd)
}

/// socketpair(2): two connected close-on-exec `SOCK_SEQPACKET` Unix sockets.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for the two descriptors that socketpair(2) writes.
    let rc = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    };
    check(rc)?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// bind(2) to a path of at most 107 bytes.
pub fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (address, len) = address(path)?;
    // SAFETY: `address` is a sockaddr_un of which `len` bytes are initialised, and it lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// connect(2) to a path of at most 107 bytes.
pub fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (address, len) = address(path)?;
    // SAFETY: `address` is a sockaddr_un of which `len` bytes are initialised, and it lives through the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })
}

/// connect(2) to a path of any length: a long one is reached through its directory's descriptor in `/proc/self/fd`.
pub fn connect_long(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    with_short_path(path, |short| connect(socket, short))
}

/// bind(2) to a path of any length, as [`connect_long`].
pub fn bind_long(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    with_short_path(path, |short| bind(socket, short))
}

fn with_short_path(path: &Path, call: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.as_os_str().len() <= MAX_ADDRESS {
        return call(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    };
    let directory = File::open(directory)?;
    call(&Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// listen(2).
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) })
}

/// accept4(2), close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: null pointers ask accept4(2) not to report the peer's address.
    let fd = unsafe {
        libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    };
    owned(fd)
}

/// accept4(2), close-on-exec and not blocking.
pub fn accept_nonblocking(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers ask accept4(2) not to report the peer's address.
    let fd =
        unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    owned(fd)
}

/// How many connections wait to be accepted: `tcpi_unacked` of `TCP_INFO` on a listening socket (tcp(7)). Fails for
/// other sockets.
pub fn accept_queue(listener: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: tcp_info is plain data of C for which all zeroes are valid.
    let mut info: libc::tcp_info = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut len = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `len` describe a writable tcp_info, which is what TCP_INFO fills in.
    check(unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    })?;
    Ok(info.tcpi_unacked)
}

/// setsockopt(2): bounds every later receive and send on the socket (`EAGAIN` afterwards).
pub fn set_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let value = libc::timeval {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: timeout.subsec_micros().into(),
    };
    set_option(socket, libc::SO_RCVTIMEO, &value)?;
    set_option(socket, libc::SO_SNDTIMEO, &value)
}

/// getsockopt(2) `SO_PEERCRED`.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let mut value = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` and `len` describe a writable ucred, which is what SO_PEERCRED fills in.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut value).cast(),
            &raw mut len,
        )
    })?;
    Ok(PeerCredentials { pid: value.pid, uid: value.uid, gid: value.gid })
}

/// sendmsg(2): one packet with descriptors; never raises `SIGPIPE`.
pub fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, bytes, fds, 0)
}

/// As [`send_packet`], without waiting whatever the socket's own flags say: whoever has a copy of it can change them.
pub fn send_packet_now(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket, bytes, fds, libc::MSG_DONTWAIT)
}

fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: libc::c_int,
) -> io::Result<()> {
    if fds.len() > MAX_PACKET_FDS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut control = ControlBuffer::new();
    let mut data = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = empty_message(&mut data);
    if !fds.is_empty() {
        let payload = mem::size_of_val(fds) as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as usize;
        // SAFETY: msg_control points to a zeroed, aligned buffer of at least msg_controllen bytes.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: CMSG_LEN only computes.
        let header_len = unsafe { libc::CMSG_LEN(payload) } as usize;
        let value =
            libc::cmsghdr { cmsg_len: header_len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        // SAFETY: the buffer holds one header and `payload` bytes, so CMSG_FIRSTHDR is not null.
        unsafe { header.write(value) };
        // SAFETY: as above; CMSG_DATA points just behind the header.
        let slots = unsafe { libc::CMSG_DATA(header) }.cast::<libc::c_int>();
        for (index, fd) in fds.iter().enumerate() {
            let slot = slots.wrapping_add(index);
            // SAFETY: index < fds.len(), for which the buffer has room; slots need not be aligned.
            unsafe { slot.write_unaligned(fd.as_raw_fd()) };
        }
    }
    // SAFETY: `message` points to `data`, `bytes` and `control`, which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL | flags) };
    // A packet goes whole or not at all.
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// recvmsg(2): one packet with its descriptors. Length 0 and no descriptors is the end of the connection.
pub fn recv_packet(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    recv_with(socket, buffer, 0)
}

/// As [`recv_packet`], without waiting whatever the socket's own flags say: whoever has a copy of it can change them.
pub fn recv_packet_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    recv_with(socket, buffer, libc::MSG_DONTWAIT)
}

fn recv_with(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> io::Result<Packet> {
    let mut control = ControlBuffer::new();
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = empty_message(&mut data);
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control.0);
    // SAFETY: `message` points to `data`, `buffer` and `control`, which outlive the call and are writable.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC | flags) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Packet {
        len: received as usize,
        fds: take_fds(&message),
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Takes ownership of every descriptor in the ancillary data that the kernel wrote for this message.
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg(2) left msg_control and msg_controllen describing what it wrote.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: `next` is null or points to a header inside the control buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let payload = header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the header is followed by its data.
            let slots = unsafe { libc::CMSG_DATA(next) }.cast::<libc::c_int>();
            for index in 0..payload / mem::size_of::<libc::c_int>() {
                let slot = slots.wrapping_add(index);
                // SAFETY: the kernel wrote `payload` bytes of descriptors there.
                let fd = unsafe { slot.read_unaligned() };
                // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: `next` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    fds
}

/// Room for the largest set of descriptors and for credentials that a sender may add; `u64` for alignment.
struct ControlBuffer([u64; CONTROL_WORDS]);

const CONTROL_WORDS: usize = (MAX_PACKET_FDS * 4 + 128) / 8;

impl ControlBuffer {
    fn new() -> ControlBuffer {
        ControlBuffer([0; CONTROL_WORDS])
    }
}

fn empty_message(data: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is plain data of C for which all zeroes mean "nothing".
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = data;
    message.msg_iovlen = 1;
    message
}

fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: sockaddr_un is plain data of C for which all zeroes are valid.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) || bytes.len() > MAX_ADDRESS {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (slot, byte) in address.sun_path.iter_mut().zip(bytes) {
        *slot = *byte as libc::c_char;
    }
    let len = mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    Ok((address, len as libc::socklen_t))
}

fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: &libc::timeval) -> io::Result<()> {
    let len = mem::size_of_val(value) as libc::socklen_t;
    // SAFETY: `value` is a timeval of `len` bytes, which is what both timeout options read.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), len)
    })
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call has just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_packet_keeps_its_border_and_its_descriptors() {
        let (left, right) = seqpacket_pair().unwrap();
        let (inner, _other) = seqpacket_pair().unwrap();
        send_packet(left.as_fd(), b"first", &[inner.as_fd(), inner.as_fd()]).unwrap();
        send_packet(left.as_fd(), b"second", &[]).unwrap();
        let mut buffer = [0; 64];
        let first = recv_packet(right.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len()), (&b"first"[..], 2));
        let second = recv_packet(right.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..second.len], second.fds.len()), (&b"second"[..], 0));
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_marked_truncated() {
        let (left, right) = seqpacket_pair().unwrap();
        send_packet(left.as_fd(), &[7; 100], &[]).unwrap();
        let packet = recv_packet(right.as_fd(), &mut [0; 10]).unwrap();
        assert!(packet.truncated);
        assert_eq!(packet.len, 10);
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (left, _right) = seqpacket_pair().unwrap();
        let peer = peer_credentials(left.as_fd()).unwrap();
        assert_eq!(peer.pid as u32, std::process::id());
    }

    #[test]
    fn a_receive_ends_at_its_timeout() {
        let (left, _right) = seqpacket_pair().unwrap();
        set_timeout(left.as_fd(), Duration::from_millis(10)).unwrap();
        let error = recv_packet(left.as_fd(), &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        let socket = seqpacket().unwrap();
        let long = "x".repeat(108);
        assert_eq!(
            bind(socket.as_fd(), Path::new(&long)).unwrap_err().raw_os_error(),
            Some(libc::ENAMETOOLONG)
        );
    }
}
