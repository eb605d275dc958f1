//! What a supervisor waits on: epoll(7), with what each descriptor is about in the event's data.

use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::error::{Operation, Result};

/// What an event of epoll is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Signals,
    AdminListener,
    AdminClient(u64),
    Listener(u64),
    Init(u64),
    Channel(u64),
    Parked(u64),
    Lingering(u64),
    Start(u64),
}

/// Bits of a source's number; above them is its kind.
const NUMBER_BITS: u32 = 56;

impl Source {
    pub fn data(self) -> u64 {
        let (kind, number) = match self {
            Source::Signals => (0, 0),
            Source::AdminListener => (1, 0),
            Source::AdminClient(number) => (2, number),
            Source::Listener(number) => (3, number),
            Source::Init(number) => (4, number),
            Source::Channel(number) => (5, number),
            Source::Parked(number) => (6, number),
            Source::Lingering(number) => (7, number),
            Source::Start(number) => (8, number),
        };
        kind << NUMBER_BITS | number
    }

    pub fn of(data: u64) -> Source {
        let number = data & ((1 << NUMBER_BITS) - 1);
        match data >> NUMBER_BITS {
            0 => Source::Signals,
            1 => Source::AdminListener,
            2 => Source::AdminClient(number),
            3 => Source::Listener(number),
            4 => Source::Init(number),
            5 => Source::Channel(number),
            6 => Source::Parked(number),
            8 => Source::Start(number),
            _ => Source::Lingering(number),
        }
    }
}

/// What the supervisor waits on.
#[derive(Debug)]
pub(super) struct Poller(pub(super) Epoll);

impl Poller {
    pub fn new() -> Result<Poller> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).operation(|| "make an epoll instance").map(Poller)
    }

    pub fn add(&self, fd: impl AsFd, flags: EpollFlags, source: Source) -> Result<()> {
        self.0.add(fd, EpollEvent::new(flags, source.data())).operation(|| format!("wait for {source:?}"))
    }

    pub fn modify(&self, fd: impl AsFd, flags: EpollFlags, source: Source) -> Result<()> {
        let mut event = EpollEvent::new(flags, source.data());
        self.0.modify(fd, &mut event).operation(|| format!("wait for {source:?}"))
    }

    /// ENOENT only says that it was forgotten already.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = self.0.delete(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_their_number() {
        for source in [
            Source::Signals,
            Source::AdminListener,
            Source::AdminClient(7),
            Source::Listener(0),
            Source::Init((1 << NUMBER_BITS) - 1),
            Source::Channel(3),
            Source::Parked(4),
            Source::Lingering(5),
            Source::Start(6),
        ] {
            assert_eq!(Source::of(source.data()), source);
        }
    }
}
