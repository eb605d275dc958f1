//! One io_uring(7) instance for files whose data are not in the page cache.
//!
//! Made in a worker when first needed, never in a seed: an instance inherited over a fork would be shared. What the
//! kernel writes to (buffers, paths) is owned here until it has answered, so that nothing a script does can take it away.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::{IoUring, opcode, squeue, types};

use super::file_calls::Access;

/// Operations under way at one time; a caller with more waits for its turn.
const ENTRIES: u32 = 64;

/// What the kernel works with meanwhile.
enum Lent {
    Read { _file: Rc<OwnedFd>, buffer: Vec<u8> },
    Open { _path: CString },
    Look { _file: Rc<OwnedFd>, into: Box<libc::statx> },
}

/// What an operation came to.
#[derive(Debug)]
pub enum Completion {
    /// The buffer, and how many of its bytes were read.
    Read(Vec<u8>, io::Result<usize>),
    /// The file.
    Open(io::Result<OwnedFd>),
    /// What the file is.
    Look(io::Result<Look>),
}

/// What statx(2) says of a file.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// `st_mode`.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds of the last modification.
    pub modified: (i64, u32),
}

/// The instance.
pub struct Ring {
    ring: IoUring,
    lent: HashMap<u64, Lent>,
    next: u64,
}

impl Ring {
    /// Makes an instance.
    ///
    /// # Errors
    /// As io_uring_setup(2): EPERM or ENOSYS where it is forbidden.
    pub fn new() -> io::Result<Ring> {
        Ok(Ring { ring: IoUring::new(ENTRIES)?, lent: HashMap::new(), next: 0 })
    }

    /// Whether another operation can begin.
    pub fn has_room(&self) -> bool {
        self.lent.len() < ENTRIES as usize
    }

    /// Begins to read into the whole buffer; the operation's number. There is room.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn read(&mut self, file: &Rc<OwnedFd>, mut buffer: Vec<u8>, offset: u64) -> io::Result<u64> {
        let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let entry =
            opcode::Read::new(types::Fd(file.as_raw_fd()), buffer.as_mut_ptr(), length).offset(offset);
        // Some file systems (FUSE) would be waited for within the call that submits.
        let entry = entry.build().flags(squeue::Flags::ASYNC);
        self.submit(&entry, Lent::Read { _file: Rc::clone(file), buffer })
    }

    /// Begins to open a path; the operation's number. There is room.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn open(&mut self, path: CString, access: Access) -> io::Result<u64> {
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).flags(access.flags());
        self.submit(&entry.build(), Lent::Open { _path: path })
    }

    /// Begins to look at an open file; the operation's number. There is room.
    ///
    /// # Errors
    /// As io_uring_enter(2).
    pub fn look(&mut self, file: &Rc<OwnedFd>) -> io::Result<u64> {
        // SAFETY: all-zero bytes are a valid statx.
        let mut into: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
        let at = (&raw mut *into).cast();
        let entry = opcode::Statx::new(types::Fd(file.as_raw_fd()), c"".as_ptr(), at)
            .flags(libc::AT_EMPTY_PATH)
            .mask(libc::STATX_BASIC_STATS);
        self.submit(&entry.build(), Lent::Look { _file: Rc::clone(file), into })
    }

    fn submit(&mut self, entry: &io_uring::squeue::Entry, lent: Lent) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        let entry = entry.clone().user_data(number);
        // SAFETY: what the entry points to is in `lent`, on the heap, until its completion is taken.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
        // Before the call: the kernel may begin even if it reports an error.
        self.lent.insert(number, lent);
        self.ring.submit()?;
        Ok(number)
    }

    /// Takes one completion.
    pub fn take(&mut self) -> Option<(u64, Completion)> {
        let entry = self.ring.completion().next()?;
        let result = match entry.result() {
            result @ 0.. => Ok(result.unsigned_abs()),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        let completion = match self.lent.remove(&entry.user_data())? {
            Lent::Read { buffer, .. } => Completion::Read(buffer, result.map(|read| read as usize)),
            Lent::Look { into, .. } => Completion::Look(result.map(|_| Look {
                mode: into.stx_mode.into(),
                size: into.stx_size,
                modified: (into.stx_mtime.tv_sec, into.stx_mtime.tv_nsec),
            })),
            Lent::Open { .. } => Completion::Open(result.map(|fd| {
                // SAFETY: the kernel opened the descriptor for this operation; nobody else owns it.
                unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) }
            })),
        };
        Some((entry.user_data(), completion))
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the instance owns its descriptor for as long as it is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write to buffers of what is under way: they outlive the instance.
        std::mem::forget(std::mem::take(&mut self.lent));
    }
}
