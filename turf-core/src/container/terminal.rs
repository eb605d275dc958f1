//! The caller's terminal as that of a process in the foreground: the container has a pseudo terminal, and what
//! comes and goes there is passed on. pty(7), termios(3).

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Error, Operation, Result};
use crate::sandbox::plan::TerminalPlan;
use crate::sys::{socket, terminal};

/// How much is read at once, in bytes; what was typed and not yet taken is never more.
const CHUNK: usize = 4096;

/// Where the master of a process's terminal goes.
#[derive(Debug, Default)]
pub enum Console {
    /// Nowhere: the process must not want a terminal.
    #[default]
    None,
    /// To the socket that `--console-socket` names: the process must want a terminal.
    Socket(OwnedFd),
    /// To the caller, who passes on what comes: if the process wants a terminal.
    Caller(Offer),
}

/// Where the caller finds its end of a socket pair, which is made if the process wants a terminal.
#[derive(Clone, Debug, Default)]
pub struct Offer(Rc<OnceCell<OwnedFd>>);

impl Console {
    /// Refuses what does not fit a process that wants a terminal, or none; `place` says where it is wanted.
    pub(super) fn check(&self, wanted: bool, place: &str) -> Result<()> {
        match (wanted, self) {
            (true, Console::None) => Err(Error::invalid(place, "is true, which needs --console-socket")),
            (false, Console::Socket(_)) => {
                Err(Error::invalid("--console-socket", format!("is given, but {place} is not true")))
            }
            (true, Console::Socket(_) | Console::Caller(_)) | (false, Console::None | Console::Caller(_)) => {
                Ok(())
            }
        }
    }

    /// The size that a terminal has from its beginning: as configured, else that of the caller's.
    pub(super) fn size(&self, configured: TerminalPlan) -> TerminalPlan {
        match self {
            Console::Caller(_) if configured == TerminalPlan::default() => {
                // Standard input that is no terminal has no size.
                let (height, width) = terminal::size(io::stdin().as_fd()).unwrap_or_default();
                TerminalPlan { height, width }
            }
            Console::None | Console::Socket(_) | Console::Caller(_) => configured,
        }
    }

    /// The socket, if a process wants a terminal.
    pub(super) fn into_socket(self, wanted: bool) -> Result<Option<OwnedFd>> {
        match self {
            Console::Socket(socket) if wanted => Ok(Some(socket)),
            Console::Caller(Offer(end)) if wanted => {
                let (ours, theirs) =
                    socket::seqpacket_pair().operation(|| "make a socket pair for a terminal")?;
                end.set(ours).map_err(|_| Error::invalid("a terminal", "is offered to one process only"))?;
                Ok(Some(theirs))
            }
            Console::None | Console::Socket(_) | Console::Caller(_) => Ok(None),
        }
    }
}

/// The caller's end of [`Console::Caller`].
#[derive(Debug)]
pub struct Terminal {
    offer: Offer,
}

impl Terminal {
    /// A console for a process that may want a terminal, and the end at which its master arrives.
    pub fn offer() -> (Terminal, Console) {
        let offer = Offer::default();
        (Terminal { offer: offer.clone() }, Console::Caller(offer))
    }

    /// Takes the master, which is there once the process is made; nothing if it wanted no terminal.
    pub(super) fn take(self) -> Result<Option<Relay>> {
        let Some(socket) = self.offer.0.get() else { return Ok(None) };
        let received = socket::recv_packet(socket.as_fd(), &mut [0; 64]);
        let received = received.operation(|| "receive the container's terminal")?;
        received.fds.into_iter().next().map(Relay::begin).transpose()
    }
}

/// Passes bytes on between the caller's standard input and output and a terminal's master. Dropping it puts the caller's
/// terminal back into the mode it was in.
#[derive(Debug)]
pub(super) struct Relay {
    /// None once the other end has hung up.
    master: Option<OwnedFd>,
    before: Option<Termios>,
    typed: Vec<u8>,
    input_ended: bool,
}

impl Relay {
    fn begin(master: OwnedFd) -> Result<Relay> {
        let flags = fcntl(&master, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        flags
            .and_then(|flags| fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)))
            .operation(|| "prepare the container's terminal")?;
        let stdin = io::stdin();
        // Standard input that is no terminal has no mode.
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&stdin, SetArg::TCSANOW, &raw).operation(|| "make the caller's terminal raw")?;
        }
        Ok(Relay { master: Some(master), before, typed: Vec::new(), input_ended: false })
    }

    /// Gives the container's terminal the size of the caller's. Without one it keeps its own.
    pub(super) fn resize(&self) {
        if let (Some(master), Ok((height, width))) = (&self.master, terminal::size(io::stdin().as_fd())) {
            // A terminal that has just gone needs no size.
            let _ = terminal::set_size(master.as_fd(), height, width);
        }
    }

    /// What to wait for: at the master, and at standard input.
    pub(super) fn interest(&self) -> (Option<(BorrowedFd<'_>, PollFlags)>, bool) {
        let output = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let master = self.master.as_ref().map(|master| (master.as_fd(), PollFlags::POLLIN | output));
        (master, self.master.is_some() && self.typed.is_empty() && !self.input_ended)
    }

    /// Reads what was typed; called when standard input is readable.
    pub(super) fn read_input(&mut self) -> Result<()> {
        let mut chunk = [0; CHUNK];
        match nix::unistd::read(io::stdin(), &mut chunk) {
            Ok(0) => self.input_ended = true,
            Ok(length) => self.typed.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // The caller's terminal is gone.
            Err(_) => self.input_ended = true,
        }
        self.pass_on()
    }

    /// Passes on what there is in both directions, without waiting for more.
    pub(super) fn pass_on(&mut self) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        if !self.typed.is_empty() {
            match nix::unistd::write(master, &self.typed) {
                Ok(written) => drop(self.typed.drain(..written)),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // Nobody is there to read it.
                Err(_) => self.typed.clear(),
            }
        }
        let mut chunk = [0; CHUNK];
        loop {
            match nix::unistd::read(master, &mut chunk) {
                Ok(0) | Err(Errno::EIO) => {
                    self.master = None;
                    return Ok(());
                }
                Ok(length) => print(&chunk[..length])?,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(Error::io("read from the container's terminal", errno)),
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone has no mode.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

fn print(mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(io::stdout(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_writable()?,
            Err(errno) => return Err(Error::io("write to standard output", errno)),
        }
    }
    Ok(())
}

/// Standard output may be somebody's non-blocking descriptor.
fn wait_writable() -> Result<()> {
    use nix::poll::{PollFd, PollTimeout, poll};
    let stdout = io::stdout();
    match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::io("wait for standard output", errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_goes_with_a_terminal_unless_it_is_only_offered() {
        let socket = || socket::seqpacket_pair().unwrap().0;
        assert!(Console::None.check(false, "terminal").is_ok());
        assert!(Console::None.check(true, "terminal").is_err());
        assert!(Console::Socket(socket()).check(true, "terminal").is_ok());
        assert!(Console::Socket(socket()).check(false, "terminal").is_err());
        for wanted in [true, false] {
            assert!(Console::Caller(Offer::default()).check(wanted, "terminal").is_ok());
            let socket = Console::Caller(Offer::default()).into_socket(wanted).unwrap();
            assert_eq!(socket.is_some(), wanted);
        }
    }

    #[test]
    fn a_process_without_a_terminal_sends_no_master() {
        let (terminal, console) = Terminal::offer();
        drop(console);
        assert!(terminal.take().unwrap().is_none());
    }
}
