//! One operation on a file, as a machine that never waits itself.
//!
//! ```text
//!   open --> look at it --> read ... read --> done
//!    ^ each arrow may be a wait: for the ring, for time, for other events
//! ```

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::stat::{FileStat, SFlag, fstat};

use crate::engine::{Access, Completion, Look, Patience, Ring, file_calls};

/// Most bytes of a whole file: larger ones are for streams.
pub(super) const MAX_WHOLE_BYTES: u64 = 512 << 20;
/// Most bytes read at a time, from a device or from the page cache.
const PIECE_BYTES: usize = 256 << 10;
/// First buffer for a file that does not know its size (`/proc`).
const UNKNOWN_SIZE_BYTES: usize = 16 << 10;
/// Most bytes copied from the page cache in one turn of the loop: about a millisecond.
const TURN_BYTES: usize = 4 << 20;
/// Waits between two looks at a range that is being read ahead.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(32);

/// How a process may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// Nobody has asked yet.
    Unknown,
    /// io_uring.
    Ring,
    /// No ring: read ahead, and look again after a while.
    LookingAgain,
    /// In place: no event loop runs.
    Blocking,
}

/// What an operation is to come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The whole file.
    Bytes,
    /// A file to read pieces of.
    Handle,
    /// What the path is.
    Stat,
    /// At most that many bytes at an offset of an open file.
    Piece { offset: u64, length: usize },
}

/// What an operation came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Bytes(Vec<u8>),
    File { file: Rc<OwnedFd>, size: u64 },
    Stat(Look),
}

/// Why an operation failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// errno(3).
    pub(super) code: i32,
    /// `open /path: no such file or directory`.
    pub(super) text: String,
}

/// What a job needs before it can go on.
#[derive(Debug)]
pub(super) enum Step {
    Done(Result<Outcome, Failure>),
    /// To know how it may wait.
    NeedsMeans,
    /// [`Job::submit`], then [`Job::complete`].
    UseRing,
    /// Time.
    LookAgain(Duration),
    /// The loop's next turn.
    Yield,
}

enum Stage {
    /// The answer of the ring, if it was asked.
    Opening(Option<io::Result<OwnedFd>>),
    /// The same for a look at the file, which was opened by the ring: what makes one wait may make the other wait.
    Looking(Rc<OwnedFd>, Option<io::Result<Look>>),
    /// The same for a read: the buffer and what came into it.
    Reading(Option<(Vec<u8>, io::Result<usize>)>),
    Finished,
}

/// One operation.
pub(super) struct Job {
    goal: Goal,
    /// For messages.
    path: String,
    access: Access,
    stage: Stage,
    file: Option<Rc<OwnedFd>>,
    buffer: Vec<u8>,
    filled: usize,
    look: Duration,
}

impl Job {
    /// An operation on a path.
    pub(super) fn on_path(goal: Goal, path: &str, access: Access) -> Job {
        Job {
            goal,
            path: path.to_owned(),
            access,
            stage: Stage::Opening(None),
            file: None,
            buffer: Vec::new(),
            filled: 0,
            look: FIRST_LOOK,
        }
    }

    /// A read from an open file.
    pub(super) fn on_file(file: Rc<OwnedFd>, path: &str, offset: u64, length: usize) -> Job {
        Job {
            goal: Goal::Piece { offset, length },
            path: path.to_owned(),
            access: Access::Read,
            stage: Stage::Reading(None),
            file: Some(file),
            buffer: vec![0; length],
            filled: 0,
            look: FIRST_LOOK,
        }
    }

    /// The failure of this operation for an errno(3).
    pub(super) fn failure(&self, code: i32) -> Failure {
        let operation = match (&self.stage, &self.goal) {
            (_, Goal::Stat) => "look at",
            (Stage::Opening(_) | Stage::Looking(..), _) => "open",
            (Stage::Reading(_) | Stage::Finished, _) => "read",
        };
        let reason = nix::errno::Errno::from_raw(code).desc();
        let reason = reason[..1].to_lowercase() + &reason[1..];
        Failure { code, text: format!("{operation} {}: {reason}", self.path) }
    }

    fn fails(&self, error: &io::Error) -> Step {
        Step::Done(Err(self.failure(error.raw_os_error().unwrap_or(libc::EIO))))
    }

    /// Goes on as far as it can.
    pub(super) fn advance(&mut self, means: Means) -> Step {
        let mut left_in_turn = TURN_BYTES;
        loop {
            let step = match std::mem::replace(&mut self.stage, Stage::Finished) {
                Stage::Opening(answer) => self.open(answer, means),
                Stage::Looking(file, Some(answer)) => self.looked(file, answer),
                Stage::Looking(file, None) => {
                    self.stage = Stage::Looking(file, None);
                    Some(Step::UseRing)
                }
                Stage::Reading(answer) => self.read(answer, means, &mut left_in_turn),
                Stage::Finished => unreachable!("a job that is done is not asked again"),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Opens the path, by the ring's answer if there is one. Nothing is returned if the job can go on at once.
    fn open(&mut self, answer: Option<io::Result<OwnedFd>>, means: Means) -> Option<Step> {
        self.stage = Stage::Opening(None);
        let Ok(path) = CString::new(self.path.as_str()) else {
            return Some(Step::Done(Err(self.failure(libc::EINVAL))));
        };
        let by_ring = answer.is_some();
        let opened = answer.unwrap_or_else(|| match file_calls::open_cached(&path, self.access) {
            Err(error) if is(&error, libc::EAGAIN) && means == Means::Unknown => Err(error),
            // An old kernel, or a filter of system calls, knows no openat2.
            Err(error) if is(&error, libc::EAGAIN) && means == Means::Ring => Err(error),
            Err(error)
                if [libc::EAGAIN, libc::ENOSYS, libc::EPERM, libc::EINVAL]
                    .iter()
                    .any(|code| is(&error, *code)) =>
            {
                file_calls::open(&path, self.access)
            }
            opened => opened,
        });
        match opened {
            Ok(file) if by_ring => {
                self.stage = Stage::Looking(Rc::new(file), None);
                None
            }
            Ok(file) => {
                let look = fstat(file.as_fd()).map(|stat| look(&stat)).map_err(io::Error::from);
                self.looked(Rc::new(file), look)
            }
            Err(error) if is(&error, libc::EAGAIN) && means == Means::Unknown => Some(Step::NeedsMeans),
            Err(error) if is(&error, libc::EAGAIN) && means == Means::Ring => Some(Step::UseRing),
            // A FIFO without a writer, a socket.
            Err(error) if is(&error, libc::ENXIO) => Some(self.is_no_file()),
            Err(error) => Some(self.fails(&error)),
        }
    }

    fn is_no_file(&self) -> Step {
        Step::Done(Err(Failure {
            code: libc::EISDIR,
            text: format!("open {}: it is no regular file", self.path),
        }))
    }

    fn looked(&mut self, file: Rc<OwnedFd>, look: io::Result<Look>) -> Option<Step> {
        let look = match look {
            Ok(look) => look,
            Err(error) => return Some(self.fails(&error)),
        };
        if self.goal == Goal::Stat {
            return Some(Step::Done(Ok(Outcome::Stat(look))));
        }
        if kind(look.mode) != SFlag::S_IFREG {
            return Some(self.is_no_file());
        }
        let size = look.size;
        if self.goal == Goal::Handle {
            return Some(Step::Done(Ok(Outcome::File { file, size })));
        }
        if size > MAX_WHOLE_BYTES {
            return Some(Step::Done(Err(self.failure(libc::EFBIG))));
        }
        // One byte more than there is shows the end without growing.
        let room =
            if size == 0 { UNKNOWN_SIZE_BYTES } else { usize::try_from(size).unwrap_or(usize::MAX) + 1 };
        self.buffer = vec![0; room];
        self.file = Some(file);
        self.stage = Stage::Reading(None);
        None
    }

    /// Reads a piece, by the ring's answer if there is one.
    fn read(
        &mut self,
        answer: Option<(Vec<u8>, io::Result<usize>)>,
        means: Means,
        left_in_turn: &mut usize,
    ) -> Option<Step> {
        self.stage = Stage::Reading(None);
        let read = match answer {
            Some((piece, Ok(read))) => {
                self.buffer[self.filled..self.filled + read].copy_from_slice(&piece[..read]);
                Ok(read)
            }
            Some((_, Err(error))) => Err(error),
            None if *left_in_turn == 0 => return Some(Step::Yield),
            None => self.read_now(means),
        };
        match read {
            Ok(read) => {
                self.filled += read;
                self.look = FIRST_LOOK;
                *left_in_turn = left_in_turn.saturating_sub(read);
                self.after(read)
            }
            Err(error) if is(&error, libc::EINTR) => None,
            Err(error) if is(&error, libc::EAGAIN) || is(&error, libc::EOPNOTSUPP) => Some(match means {
                Means::Unknown => Step::NeedsMeans,
                Means::Ring => Step::UseRing,
                Means::LookingAgain | Means::Blocking => self.look_again(),
            }),
            Err(error) => Some(self.fails(&error)),
        }
    }

    /// A file system that cannot tell whether it would wait (`/proc`) is waited for where there is no ring.
    fn read_now(&mut self, means: Means) -> io::Result<usize> {
        let (offset, end) = (self.offset(), self.buffer.len().min(self.filled + PIECE_BYTES));
        let file = self.file.as_ref().expect("the file was opened");
        let piece = &mut self.buffer[self.filled..end];
        let patience = if means == Means::Blocking { Patience::Any } else { Patience::None };
        match file_calls::read_at(file.as_fd(), piece, offset, patience) {
            Err(error) if is(&error, libc::EOPNOTSUPP) && means == Means::LookingAgain => {
                file_calls::read_at(file.as_fd(), piece, offset, Patience::Any)
            }
            read => read,
        }
    }

    fn look_again(&mut self) -> Step {
        let file = self.file.as_ref().expect("the file was opened");
        file_calls::read_ahead(file.as_fd(), self.offset(), PIECE_BYTES.max(self.buffer.len() - self.filled));
        let delay = self.look;
        self.look = (self.look * 2).min(LAST_LOOK);
        Step::LookAgain(delay)
    }

    fn offset(&self) -> u64 {
        match self.goal {
            Goal::Piece { offset, .. } => offset + self.filled as u64,
            Goal::Bytes | Goal::Handle | Goal::Stat => self.filled as u64,
        }
    }

    /// After a read of that many bytes.
    fn after(&mut self, read: usize) -> Option<Step> {
        let is_piece = matches!(self.goal, Goal::Piece { .. });
        if read == 0 || is_piece {
            self.buffer.truncate(self.filled);
            let bytes = std::mem::take(&mut self.buffer);
            return Some(Step::Done(Ok(Outcome::Bytes(bytes))));
        }
        if self.filled == self.buffer.len() {
            if self.filled as u64 > MAX_WHOLE_BYTES {
                return Some(Step::Done(Err(self.failure(libc::EFBIG))));
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        None
    }

    /// Hands the next wait to the ring; the number of its operation.
    pub(super) fn submit(&mut self, ring: &mut Ring) -> Result<u64, Failure> {
        let submitted = match (&self.stage, &self.file) {
            (Stage::Looking(file, _), _) => ring.look(file),
            (_, Some(file)) => {
                let length = (self.buffer.len() - self.filled).min(PIECE_BYTES);
                ring.read(file, vec![0; length], self.offset())
            }
            (_, None) => match CString::new(self.path.as_str()) {
                Ok(path) => ring.open(path, self.access),
                Err(_) => return Err(self.failure(libc::EINVAL)),
            },
        };
        submitted.map_err(|error| self.failure(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// Takes the ring's answer.
    pub(super) fn complete(&mut self, completion: Completion) {
        self.stage = match completion {
            Completion::Look(look) => match std::mem::replace(&mut self.stage, Stage::Finished) {
                Stage::Looking(file, _) => Stage::Looking(file, Some(look)),
                Stage::Opening(_) | Stage::Reading(_) | Stage::Finished => {
                    unreachable!("a job waits for one thing at a time")
                }
            },
            Completion::Read(buffer, read) => Stage::Reading(Some((buffer, read))),
            Completion::Open(opened) => Stage::Opening(Some(opened)),
        };
    }
}

/// The kind of file, of its mode.
pub(super) fn kind(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

fn look(stat: &FileStat) -> Look {
    Look {
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}
