//! Pseudo terminals: pty(7), ioctl_tty(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Unlocks a terminal by its master and opens its other end, without a path that could be
/// something else (ioctl_tty(2), `TIOCSPTLCK`, `TIOCGPTPEER`).
pub fn unlock_and_open_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives through the call.
    done(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes an integer and touches no memory.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just made this descriptor, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a terminal's size, unless both are 0 (ioctl_tty(2), `TIOCSWINSZ`).
pub fn set_size(master: BorrowedFd<'_>, height: u16, width: u16) -> io::Result<()> {
    if height == 0 && width == 0 {
        return Ok(());
    }
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives through the call.
    done(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

/// A terminal's height and width (ioctl_tty(2), `TIOCGWINSZ`).
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives through the call.
    done(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Makes a terminal the controlling one of this session (ioctl_tty(2), `TIOCSCTTY`).
pub fn control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer and touches no memory.
    done(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })
}

/// Makes these standard input, output and error (dup2(2)).
pub fn become_stdio(stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    for (number, fd) in (0..).zip(stdio) {
        // SAFETY: dup2 takes integers; the three standard descriptors are replaced on purpose.
        let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
