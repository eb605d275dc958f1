//! Reading a directory beside the event loop: getdents64(2) waits for the directory's blocks, or for a file system's server, and
//! io_uring(7) has no operation for it.
//!
//! A short-lived process of its own does it, with this one's memory and descriptors (clone(2) with CLONE_VM and CLONE_FILES): it costs
//! neither copied page tables nor a program. It shares the C library's thread-local data, too, and so calls nothing of it: system
//! calls are instructions here. All its signals are blocked, so that no handler runs in it, and it is killed when its parent ends.
//! What it works with belongs to [`Listing`] and is given back only when it has ended.
//!
//! clone(2), getdents64(2), pidfd_open(2), PR_SET_PDEATHSIG(2const).

use std::arch::asm;
use std::ffi::{CString, c_void};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Room for a directory's entries, mapped and only used as they come: 100,000 of the longest names.
const BUFFER_BYTES: usize = 32 << 20;
/// Stack of the process; it calls a handful of small functions.
const STACK_BYTES: usize = 64 << 10;
/// Most bytes of one getdents64(2).
const PIECE_BYTES: usize = 256 << 10;
/// More room than any entry needs: fewer bytes left than this mean that the directory is too large.
const LONGEST_ENTRY_BYTES: usize = 512;

/// Where a directory's entry (`struct linux_dirent64`) has its length, its type and its name.
const LENGTH_AT: usize = 16;
const TYPE_AT: usize = 18;
const NAME_AT: usize = 19;

/// A directory's entry: its name, and DT_REG and the like (readdir(3)).
pub type Entry = (Vec<u8>, u8);

/// What both processes see.
struct Task {
    path: CString,
    buffer: *mut u8,
    filled: AtomicUsize,
    /// errno(3), or 0.
    error: AtomicI32,
}

/// A directory that is being read.
pub struct Listing {
    /// Given back only when the process has ended.
    task: ManuallyDrop<Box<Task>>,
    /// The buffer, and the stack behind it.
    memory: *mut c_void,
    process: OwnedFd,
    has_ended: bool,
}

impl Listing {
    /// Begins to read a directory.
    ///
    /// # Errors
    /// As clone(2): EAGAIN where there may be no further process, EPERM or ENOSYS where a filter of system calls forbids it.
    pub fn begin(path: CString) -> io::Result<Listing> {
        let memory = map(BUFFER_BYTES + STACK_BYTES)?;
        let (filled, error) = (AtomicUsize::new(0), AtomicI32::new(0));
        let mut task = Box::new(Task { path, buffer: memory.cast(), filled, error });
        match start(&raw mut *task, memory.wrapping_byte_add(BUFFER_BYTES + STACK_BYTES)) {
            Ok(process) => Ok(Listing { task: ManuallyDrop::new(task), memory, process, has_ended: false }),
            Err(error) => {
                unmap(memory);
                Err(error)
            }
        }
    }

    /// The entries, after the process has become readable.
    ///
    /// # Errors
    /// As open(2) and getdents64(2); EFBIG for more than there is room for.
    pub fn finish(mut self) -> io::Result<Vec<Entry>> {
        self.wait()?;
        match self.task.error.load(Ordering::Acquire) {
            0 => {
                let filled = self.task.filled.load(Ordering::Acquire);
                // SAFETY: so many bytes of the mapping have been filled, and nobody writes to them any more.
                Ok(entries(unsafe { std::slice::from_raw_parts(self.task.buffer, filled) }))
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let process = libc::id_t::try_from(self.process.as_raw_fd()).expect("a descriptor is positive");
        loop {
            // SAFETY: all-zero bytes are a valid siginfo_t.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: `info` is live. The process sends no signal at its end, hence __WALL.
            let waited =
                unsafe { libc::waitid(libc::P_PIDFD, process, &raw mut info, libc::WEXITED | libc::__WALL) };
            if waited == 0 {
                self.has_ended = true;
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl AsFd for Listing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if self.has_ended {
            unmap(self.memory);
            // SAFETY: it is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.task) };
        } else {
            // It may be in the kernel still, which writes to the memory: that stays.
            let process = self.process.as_raw_fd();
            // SAFETY: the descriptor is the process's own; no information goes with the signal.
            unsafe {
                libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, ptr::null::<u8>(), 0)
            };
        }
    }
}

fn map(length: usize) -> io::Result<*mut c_void> {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping, wherever there is room.
    let memory = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
}

fn unmap(memory: *mut c_void) {
    // SAFETY: the mapping is of `map`, and nobody uses it any more.
    unsafe { libc::munmap(memory, BUFFER_BYTES + STACK_BYTES) };
}

/// Starts the process; its descriptor. `stack` is the end of its stack.
fn start(task: *mut Task, stack: *mut c_void) -> io::Result<OwnedFd> {
    let flags = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_PIDFD;
    let mut process: libc::c_int = -1;
    // SAFETY: all-zero bytes are a valid sigset_t.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are live. The process inherits what is blocked, and keeps it.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    // SAFETY: the stack is mapped and nobody else's; the task lives until the process has ended; the function keeps to what
    // a process may do that shares memory and thread-local data with one that goes on.
    let cloned = unsafe { libc::clone(read_directory, stack, flags, task.cast(), &raw mut process) };
    let error = io::Error::last_os_error();
    // SAFETY: the set is what sigprocmask has given.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    match cloned {
        -1 => Err(error),
        // SAFETY: the kernel has made the descriptor, and nobody else owns it.
        _ => Ok(unsafe { OwnedFd::from_raw_fd(process) }),
    }
}

/// What the process does; then it ends.
extern "C" fn read_directory(task: *mut c_void) -> libc::c_int {
    // SAFETY: the task outlives the process; its parent reads only what is atomic meanwhile.
    let task = unsafe { &*task.cast::<Task>() };
    system_call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as isize, libc::SIGKILL as isize, 0, 0]);
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let path = task.path.as_ptr() as isize;
    let directory = system_call(libc::SYS_openat, [libc::AT_FDCWD as isize, path, flags as isize, 0]);
    if directory < 0 {
        task.error.store(-directory as i32, Ordering::Release);
        return 0;
    }
    let mut filled = 0;
    loop {
        let room = BUFFER_BYTES - filled;
        if room < LONGEST_ENTRY_BYTES {
            task.error.store(libc::EFBIG, Ordering::Release);
            break;
        }
        let at = task.buffer.wrapping_add(filled);
        let room = if room < PIECE_BYTES { room } else { PIECE_BYTES };
        let read = system_call(libc::SYS_getdents64, [directory, at as isize, room as isize, 0]);
        if read <= 0 {
            task.error.store(-read as i32, Ordering::Release);
            break;
        }
        find_types(directory, at, read as usize);
        filled += read as usize;
    }
    task.filled.store(filled, Ordering::Release);
    system_call(libc::SYS_close, [directory, 0, 0, 0]);
    0
}

/// Some file systems do not say what an entry is: then the entry itself is looked at.
fn find_types(directory: isize, entries: *mut u8, length: usize) {
    let mut at = 0;
    while at < length {
        let entry = entries.wrapping_add(at);
        // SAFETY: the kernel has written an entry there, whose length is two bytes.
        let entry_length = unsafe { entry.wrapping_add(LENGTH_AT).cast::<u16>().read_unaligned() };
        let kind = entry.wrapping_add(TYPE_AT);
        // SAFETY: the byte is the entry's type.
        if unsafe { kind.read() } == libc::DT_UNKNOWN {
            // SAFETY: all-zero bytes are a valid stat.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            let (name, into) = (entry.wrapping_add(NAME_AT) as isize, &raw mut stat as isize);
            let flags = libc::AT_SYMLINK_NOFOLLOW as isize;
            if system_call(libc::SYS_newfstatat, [directory, name, into, flags]) == 0 {
                // SAFETY: the same byte. IFTODT of readdir(3).
                unsafe { kind.write((stat.st_mode >> 12) as u8 & 0xf) };
            }
        }
        at += usize::from(entry_length);
    }
}

/// A system call of at most four arguments, without the C library's `errno`, which is the parent's.
fn system_call(number: libc::c_long, arguments: [isize; 4]) -> isize {
    let result;
    // SAFETY: what the arguments point to is the caller's affair: buffers of that length, live paths. The kernel changes rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Takes the kernel's entries apart, `.` and `..` left out.
fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    while let Some(&[low, high]) = bytes.get(LENGTH_AT..TYPE_AT) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some((entry, rest)) = bytes.split_at_checked(length).filter(|_| length > NAME_AT) else { break };
        let name = entry[NAME_AT..].split(|byte| *byte == 0).next().unwrap_or_default();
        if name != b"." && name != b".." {
            found.push((name.to_vec(), entry[TYPE_AT]));
        }
        bytes = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn list(path: &Path) -> io::Result<BTreeMap<Vec<u8>, u8>> {
        let listing = Listing::begin(CString::new(path.as_os_str().as_bytes()).unwrap())?;
        poll(&mut [PollFd::new(listing.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        Ok(listing.finish()?.into_iter().collect())
    }

    #[test]
    fn a_directory_is_read_by_a_process_beside() {
        let directory = std::env::temp_dir().join(format!("aworker-beside-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("below")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.join("link")).unwrap();
        for number in 0..3000 {
            std::fs::write(directory.join(format!("{number:0>200}")), "").unwrap();
        }
        let found = list(&directory);
        std::fs::remove_dir_all(&directory).unwrap();
        let found = found.unwrap();
        assert_eq!(found.len(), 3002);
        assert_eq!(found[&b"below"[..]], libc::DT_DIR);
        assert_eq!(found[&b"link"[..]], libc::DT_LNK);
        assert_eq!(found[format!("{:0>200}", 2999).as_bytes()], libc::DT_REG);
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        let code = |path: &str| list(Path::new(path)).unwrap_err().raw_os_error();
        assert_eq!(code("/proc/self/status"), Some(libc::ENOTDIR));
        assert_eq!(code("/no/such/directory"), Some(libc::ENOENT));
    }

    #[test]
    fn a_listing_that_nobody_waits_for_may_be_dropped() {
        drop(Listing::begin(c"/".to_owned()).unwrap());
    }
}
