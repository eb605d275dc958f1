//! The page of a worker's gauges, as its supervisor reads it.
//!
//! The worker maps the file and stores numbers in it; this side reads and writes the file, which is the same memory.
//! The layout is the runtime's (version 1 there): 64-bit words in the machine's byte order, then two texts, each
//! a 16-bit length and bytes. It is spelled out here again because this crate must not depend on the runtime;
//! `turf-seed/tests/supervision.rs`, which knows both, compares them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The version of the layout.
pub const VERSION: u64 = 1;

/// Bytes of the page.
pub const PAGE_BYTES: usize = 4096;

/// Where the words end and the text of the request at work begins.
pub const REQUEST_OFFSET: usize = 512;

/// Where the last words begin.
pub const LAST_WORDS_OFFSET: usize = 1024;

/// The words, by index. See the runtime for their meaning.
pub mod word {
    /// The layout's version.
    pub const VERSION: usize = 0;
    /// 1 starting, 2 serving, 3 draining.
    pub const PHASE: usize = 1;
    /// Requests dispatched.
    pub const REQUESTS: usize = 2;
    /// Requests in flight.
    pub const IN_FLIGHT: usize = 3;
    /// Open connections.
    pub const CONNECTIONS: usize = 4;
    /// Requests answered by an error of the server.
    pub const FAILURES: usize = 5;
    /// `CLOCK_MONOTONIC` in milliseconds of the last activity.
    pub const ACTIVE_MS: usize = 6;
    /// Set by the supervisor to be told of the next request.
    pub const QUIET: usize = 7;
    /// Scripts interrupted.
    pub const INTERRUPTED: usize = 8;
    /// Whether the limit of concurrency is reached.
    pub const FULL: usize = 9;
    /// The worker's descriptor of its end of the channel.
    pub const CHANNEL: usize = 10;
    /// The worker's descriptor of the supervisor's end.
    pub const PEER: usize = 11;
    /// Messages that the worker has not sent yet.
    pub const MESSAGES_WAITING: usize = 12;
    /// Open WebSockets of served requests.
    pub const WEB_SOCKETS: usize = 13;
    /// The worker's pid in its own namespace.
    pub const PID: usize = 14;
    /// How many listeners follow.
    pub const LISTENERS: usize = 15;
    /// The first listener's descriptor.
    pub const FIRST_LISTENER: usize = 16;
}

/// A look at a page.
#[derive(Clone, Debug)]
pub struct Reading {
    bytes: Box<[u8; PAGE_BYTES]>,
}

impl Reading {
    /// One word.
    pub fn word(&self, index: usize) -> u64 {
        let start = index * size_of::<u64>();
        self.bytes[start..start + size_of::<u64>()].try_into().map_or(0, u64::from_ne_bytes)
    }

    /// A worker has set the page up, in the layout that is known here.
    pub fn is_known(&self) -> bool {
        self.word(word::VERSION) == VERSION
    }

    /// The descriptors of the worker's listeners.
    pub fn listeners(&self) -> Vec<i32> {
        let count = usize::try_from(self.word(word::LISTENERS)).unwrap_or(0);
        let room = REQUEST_OFFSET / size_of::<u64>() - word::FIRST_LISTENER;
        let number = |index| i32::try_from(self.word(word::FIRST_LISTENER + index)).unwrap_or(-1);
        (0..count.min(room)).map(number).collect()
    }

    /// Method and target of the request that was at work last.
    pub fn request(&self) -> String {
        self.text(REQUEST_OFFSET, LAST_WORDS_OFFSET)
    }

    /// Why the worker ended, in its own words.
    pub fn last_words(&self) -> String {
        self.text(LAST_WORDS_OFFSET, PAGE_BYTES)
    }

    fn text(&self, start: usize, end: usize) -> String {
        let length = u16::from_ne_bytes([self.bytes[start], self.bytes[start + 1]]);
        let begin = start + 2;
        let length = usize::from(length).min(end - begin);
        String::from_utf8_lossy(&self.bytes[begin..begin + length]).into_owned()
    }
}

/// A worker's page.
#[derive(Debug)]
pub struct Gauges {
    file: File,
}

impl Gauges {
    /// Makes an empty page at `path`, for a worker that is about to start.
    pub fn create(path: &Path) -> io::Result<Gauges> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_len(PAGE_BYTES as u64)?;
        Ok(Gauges { file })
    }

    /// Opens the page of a worker that runs already.
    pub fn open(path: &Path) -> io::Result<Gauges> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Gauges { file })
    }

    /// Looks at all of it.
    pub fn read(&self) -> io::Result<Reading> {
        let mut bytes = Box::new([0; PAGE_BYTES]);
        self.file.read_exact_at(&mut bytes[..], 0)?;
        Ok(Reading { bytes })
    }

    /// Looks at the words only.
    pub fn read_words(&self) -> io::Result<Reading> {
        let mut bytes = Box::new([0; PAGE_BYTES]);
        self.file.read_exact_at(&mut bytes[..REQUEST_OFFSET], 0)?;
        Ok(Reading { bytes })
    }

    /// Asks to be told of the next request.
    pub fn ask_for_wake_up(&self) -> io::Result<()> {
        self.file.write_all_at(&1u64.to_ne_bytes(), (word::QUIET * size_of::<u64>()) as u64)
    }
}

impl AsFd for Gauges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_written_and_garbage_is_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("page");
        let gauges = Gauges::create(&path).unwrap();
        assert!(!gauges.read().unwrap().is_known());
        gauges.ask_for_wake_up().unwrap();
        assert_eq!(gauges.read_words().unwrap().word(word::QUIET), 1);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[3, 0, b'G', b'E', b'T'], REQUEST_OFFSET as u64).unwrap();
        file.write_all_at(&[255, 255, b'o', b'o', b'm'], LAST_WORDS_OFFSET as u64).unwrap();
        file.write_all_at(&[255; 8], (word::LISTENERS * 8) as u64).unwrap();
        let reading = Gauges::open(&path).unwrap().read().unwrap();
        assert_eq!(reading.request(), "GET");
        assert!(reading.last_words().starts_with("oom"));
        assert!(reading.listeners().len() <= 64);
    }
}
