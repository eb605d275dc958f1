//! Readiness of descriptors: one epoll instance, see epoll(7).
//!
//! The instance is made when the first descriptor is registered in a worker,
//! never in a seed: an epoll instance inherited over a fork would be shared with
//! every other clone.
//!
//! ## How a server uses it
//! ```text
//! let token = event_loop::get(scope).reactor().register(
//!     connection.as_fd(), Interest::READ, Life::KeepsAlive, on_ready, connection_index)?;
//! fn on_ready(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint { ... }
//! ```
//! - `on_ready` is a plain function; its state lives in the caller's own table,
//!   found by `ready.key`. The loop holds no borrow while it runs: it may
//!   register, modify and deregister anything, itself included.
//! - Level-triggered: a handler that leaves bytes unread is called again in the
//!   next turn, so it may bound its work. [`Interest::EDGE`] asks for edges; then
//!   the handler must go on until EAGAIN.
//! - A deregistered token gets no event, not even one that is already in hand
//!   (tokens carry a generation). Deregister before closing the descriptor.
//! - [`Life::KeepsAlive`]: the loop runs as long as such a registration exists.
//!   Listeners and connections keep it alive. A drain ends when the last one is
//!   gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Most descriptors handled in one turn; the others are reported in the next.
const MAX_EVENTS: usize = 128;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(EpollFlags);

impl Interest {
    /// Nothing but errors and hang-ups.
    pub const NONE: Interest = Interest(EpollFlags::empty());
    /// Bytes or connections to read, or the peer's end of stream.
    pub const READ: Interest = Interest(EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP));
    /// Room to write.
    pub const WRITE: Interest = Interest(EpollFlags::EPOLLOUT);
    /// Report changes only (EPOLLET).
    pub const EDGE: Interest = Interest(EpollFlags::EPOLLET);
    /// For listeners that several processes wait on: wake one of them
    /// (EPOLLEXCLUSIVE). Cannot be modified later, only deregistered.
    pub const EXCLUSIVE: Interest = Interest(EpollFlags::EPOLLEXCLUSIVE.union(EpollFlags::EPOLLIN));

    /// Both interests together.
    pub const fn and(self, other: Interest) -> Interest {
        Interest(self.0.union(other.0))
    }
}

/// Whether a registration keeps the loop running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The loop runs while this registration exists.
    KeepsAlive,
    /// The loop may end in spite of it.
    Background,
}

/// Whether the loop owes the script a microtask checkpoint after a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The handler ran JavaScript, or may have settled a promise.
    Due,
    /// No JavaScript ran, or the handler made the checkpoint itself.
    Done,
}

/// A registration; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// What a handler is told.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The registration.
    pub token: Token,
    /// The number given at registration.
    pub key: u64,
    flags: EpollFlags,
}

impl Ready {
    /// A read will not block: there are bytes, a connection, an end of stream or an error.
    pub fn readable(self) -> bool {
        self.flags.intersects(
            EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR,
        )
    }

    /// A write will not block: there is room, or an error to be told.
    pub fn writable(self) -> bool {
        self.flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
    }

    /// The peer has shut down its sending side, or both.
    pub fn peer_closed(self) -> bool {
        self.flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP)
    }

    /// The descriptor is of no more use in either direction.
    pub fn broken(self) -> bool {
        self.flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
    }
}

/// Called for a descriptor that is ready.
pub type OnReady = for<'s, 'i> fn(&mut v8::PinScope<'s, 'i>, Ready) -> Checkpoint;

#[derive(Debug)]
struct Registration {
    on_ready: OnReady,
    key: u64,
    life: Life,
}

/// A place in the table; its generation changes whenever it is freed.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    registration: Option<Registration>,
}

/// The registered descriptors.
#[derive(Debug, Default)]
pub struct Reactor {
    epoll: Option<Epoll>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    keeping_alive: usize,
}

impl Reactor {
    /// Waits for `interest` on a descriptor and calls `on_ready` with `key`.
    ///
    /// # Errors
    /// As epoll_create1(2) and epoll_ctl(2): a regular file (EPERM), a descriptor
    /// registered already (EEXIST), too many watches (ENOSPC).
    pub fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        life: Life,
        on_ready: OnReady,
        key: u64,
    ) -> io::Result<Token> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("there are fewer descriptors than 2^32")
        });
        let token = Token(u64::from(self.slots[index as usize].generation) << 32 | u64::from(index));
        let added = self.epoll().and_then(|epoll| Ok(epoll.add(fd, EpollEvent::new(interest.0, token.0))?));
        if let Err(error) = added {
            self.free.push(index);
            return Err(error);
        }
        self.slots[index as usize].registration = Some(Registration { on_ready, key, life });
        self.keeping_alive += usize::from(life == Life::KeepsAlive);
        Ok(token)
    }

    /// Changes what a registration waits for.
    ///
    /// # Errors
    /// As epoll_ctl(2): EINVAL for an exclusive registration, ENOENT for a
    /// descriptor that is not the registered one.
    pub fn modify(&mut self, token: Token, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let mut event = EpollEvent::new(interest.0, token.0);
        Ok(self.epoll()?.modify(fd, &mut event)?)
    }

    /// Changes whether a registration keeps the loop running.
    pub fn set_life(&mut self, token: Token, life: Life) {
        let (index, generation) = split(token);
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation);
        let Some(registration) = slot.and_then(|slot| slot.registration.as_mut()) else {
            return;
        };
        self.keeping_alive -= usize::from(registration.life == Life::KeepsAlive);
        self.keeping_alive += usize::from(life == Life::KeepsAlive);
        registration.life = life;
    }

    /// Closes the epoll instance if nothing is registered: a seed must not have one.
    pub fn close_if_empty(&mut self) {
        if self.is_empty() {
            self.epoll = None;
        }
    }

    /// Ends a registration. The descriptor must still be open; a token that is
    /// gone already is ignored.
    pub fn deregister(&mut self, token: Token, fd: BorrowedFd<'_>) {
        let (index, generation) = split(token);
        let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)
        else {
            return;
        };
        let Some(registration) = slot.registration.take() else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.keeping_alive -= usize::from(registration.life == Life::KeepsAlive);
        if let Some(epoll) = &self.epoll {
            // ENOENT or EBADF only say that the kernel has forgotten it already.
            let _ = epoll.delete(fd);
        }
    }

    /// In a clone of a worker: ends every registration here, and none in the epoll instance, which is the worker's.
    pub(super) fn forget(&mut self) {
        self.epoll = None;
        self.keeping_alive = 0;
        for (index, slot) in (0..).zip(&mut self.slots) {
            if slot.registration.take().is_some() {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index);
            }
        }
    }

    /// Whether a registration keeps the loop running.
    pub(super) fn keep_alive(&self) -> bool {
        self.keeping_alive > 0
    }

    /// Whether nothing at all can become ready.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether the epoll instance exists, which forbids a fork.
    pub(super) fn exists(&self) -> bool {
        self.epoll.is_some()
    }

    /// Waits at most `timeout` (for ever if absent) and puts what is ready into
    /// `events`; the number of events.
    pub(super) fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        if self.epoll.is_none() {
            // A seed that waits for a timer: sleep without making the instance.
            std::thread::sleep(timeout.unwrap_or_default());
            return Ok(0);
        }
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // Whole milliseconds, rounded up: a timer never fires early, and a
            // wait never degenerates into polling.
            Some(timeout) => {
                let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
                EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
            }
        };
        match self.epoll()?.wait(&mut events.0, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The handler for an event, unless its registration is gone.
    pub(super) fn handler(&self, event: &EpollEvent) -> Option<(OnReady, Ready)> {
        let token = Token(event.data());
        let (index, generation) = split(token);
        let slot = self.slots.get(index as usize).filter(|slot| slot.generation == generation)?;
        let registration = slot.registration.as_ref()?;
        Some((registration.on_ready, Ready { token, key: registration.key, flags: event.events() }))
    }

    fn epoll(&mut self) -> io::Result<&Epoll> {
        if self.epoll.is_none() {
            self.epoll = Some(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        }
        Ok(self.epoll.as_ref().expect("made above"))
    }
}

/// Room for one wait's events.
#[derive(Debug)]
pub(super) struct Events([EpollEvent; MAX_EVENTS]);

impl Events {
    pub(super) fn new() -> Events {
        Events([EpollEvent::empty(); MAX_EVENTS])
    }

    pub(super) fn get(&self, index: usize) -> EpollEvent {
        self.0[index]
    }
}

/// Index and generation of a token.
fn split(token: Token) -> (u32, u32) {
    #[allow(clippy::cast_possible_truncation)]
    let index = token.0 as u32;
    (index, (token.0 >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn never_called(_: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
        Checkpoint::Done
    }

    /// Keys of the registrations that are ready within a second.
    fn ready_keys(reactor: &mut Reactor) -> Vec<u64> {
        let mut events = Events::new();
        let count = reactor.wait(&mut events, Some(Duration::from_secs(1))).expect("waits");
        (0..count)
            .filter_map(|index| reactor.handler(&events.get(index)))
            .map(|(_, ready)| ready.key)
            .collect()
    }

    #[test]
    fn a_registration_is_told_of_bytes_and_of_the_end() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut reactor = Reactor::default();
        let token = reactor
            .register(reader.as_fd(), Interest::READ, Life::KeepsAlive, never_called, 7)
            .expect("registers");
        assert!(reactor.keep_alive());
        writer.write_all(b"x").expect("writes");
        assert_eq!(ready_keys(&mut reactor), [7]);
        assert_eq!(ready_keys(&mut reactor), [7], "level-triggered: the byte is still there");
        reactor.set_life(token, Life::Background);
        reactor.close_if_empty();
        assert!(!reactor.keep_alive() && reactor.exists());
        reactor.deregister(token, reader.as_fd());
        reactor.close_if_empty();
        assert!(reactor.is_empty() && !reactor.exists());
    }

    #[test]
    fn a_deregistered_token_gets_no_event_even_if_its_place_is_taken_again() {
        let (first, mut first_writer) = std::io::pipe().expect("a pipe");
        let (second, _second_writer) = std::io::pipe().expect("a pipe");
        let mut reactor = Reactor::default();
        let token = reactor
            .register(first.as_fd(), Interest::READ, Life::KeepsAlive, never_called, 1)
            .expect("registers");
        first_writer.write_all(b"x").expect("writes");
        let mut events = Events::new();
        assert_eq!(reactor.wait(&mut events, None).expect("waits"), 1);
        reactor.deregister(token, first.as_fd());
        reactor
            .register(second.as_fd(), Interest::READ, Life::KeepsAlive, never_called, 2)
            .expect("registers in the same place");
        assert!(reactor.handler(&events.get(0)).is_none());
        reactor.deregister(token, first.as_fd());
        assert!(reactor.keep_alive(), "a stale token ends no other registration");
    }

    #[test]
    fn a_refused_descriptor_leaves_nothing_behind() {
        let file = std::fs::File::open("/proc/self/exe").expect("opens");
        let mut reactor = Reactor::default();
        let refused = reactor.register(file.as_fd(), Interest::READ, Life::KeepsAlive, never_called, 0);
        assert_eq!(refused.expect_err("a regular file").raw_os_error(), Some(libc::EPERM));
        assert!(reactor.is_empty() && !reactor.keep_alive());
    }

    #[test]
    fn no_epoll_instance_exists_before_the_first_registration() {
        let mut reactor = Reactor::default();
        assert_eq!(reactor.wait(&mut Events::new(), Some(Duration::from_millis(1))).expect("sleeps"), 0);
        assert!(!reactor.exists());
    }
}
