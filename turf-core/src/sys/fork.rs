//! Forking a warm process into a sandbox: helper H.
//!
//! ```text
//!   seed     | clone(VM|VFORK)           (suspended)                         | wait4: knows the pid or the error
//!   H, outer   | setns(init, all) | clone(VM|VFORK)    (suspended)   | wait4 |
//!   H, inner                        | join cgroups | fork --+ | exit |
//!   worker                                                   | returns up the seed's own stack
//! ```
//!
//! H is a child that shares the seed's memory and borrows its stack, as after vfork(2): making it copies no page
//! table. It comes in two halves because setns(2) into a pid namespace is meant for one's children only: the outer half
//! enters all namespaces, the inner half is born in the pid namespace. When the inner half exits, the kernel gives
//! its child to the reaper of *its* pid namespace, which is the sandbox's init (`find_new_reaper` in the kernel's
//! `kernel/exit.c`). The seed itself never leaves its namespaces and has no child for longer than this call.
//!
//! The one page-table copy is libc's _Fork(3) in the inner half: with libc's own, its cached thread id is right in the worker.
//! Handlers of pthread_atfork(3) do not run: one that holds a lock meanwhile would leave it held in the seed's memory when the
//! half is killed, as it is whenever the sandbox's init ends at that moment. With one thread there is nobody to hold locks against. The worker then *returns*: out of the inner half's function, out of the outer
//! half's, out of the assembly, so that it continues on the seed's main stack, where V8 expects to be.
//!
//! The process must have one thread; these functions check it and refuse otherwise.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the fork of a seed is written for x86-64, the only architecture of the V8 archive");

use std::arch::asm;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::process::exit_now;

/// Where a process goes by itself before its child is forked.
#[derive(Debug)]
pub struct Destination<'a> {
    /// pidfd of a process whose namespaces are entered.
    pub process: BorrowedFd<'a>,
    /// The namespaces to enter, `CLONE_NEW*` bits without the time namespace; may be none.
    pub namespaces: u32,
    /// Files to write `0` to, to enter the cgroups they belong to.
    pub cgroups: &'a [BorrowedFd<'a>],
}

/// Which of the two processes returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The process that called; the child's pid in the pid namespace that the child was born in.
    Parent {
        /// The child.
        pid: i32,
    },
    /// The new process.
    Child,
}

/// What failed in H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The calling process has more than one thread, or could not tell.
    CountThreads,
    /// Making the outer or the inner half.
    CloneHelper,
    /// Entering the namespaces.
    EnterNamespaces,
    /// Entering the cgroup of this index.
    EnterCgroup(usize),
    /// The fork itself.
    ForkChild,
    /// H was killed by this signal.
    Killed(i32),
}

/// Why there is no child.
#[derive(Debug)]
pub struct ForkError {
    /// The step that failed.
    pub step: Step,
    /// The cause.
    pub source: io::Error,
}

/// Forks a child that is born in the namespaces and cgroups of the destination, and whose parent is the reaper of
/// its pid namespace (or, where the pid namespace is not entered, the reaper of the caller's).
pub fn fork_into(destination: &Destination<'_>) -> Result<Fork, ForkError> {
    check_single_threaded()?;
    let cgroups: Vec<libc::c_int> = destination.cgroups.iter().map(AsRawFd::as_raw_fd).collect();
    let mut shared = Shared {
        process: destination.process.as_raw_fd(),
        namespaces: destination.namespaces as libc::c_int,
        cgroups: cgroups.as_ptr(),
        cgroup_count: cgroups.len(),
        outcome: Outcome::UNKNOWN,
    };
    let registration = RestartableSequences::of_this_thread();
    let mask = SignalMask::block_all();
    // SAFETY: one thread, all signals blocked; `outer` returns only in a copy of this address space.
    let result = unsafe { call_in_vfork(outer, &raw mut shared) };
    if result == RETURNED {
        // A process that shares memory has no registration, and passes that on to its children.
        registration.renew();
        mask.restore();
        return Ok(Fork::Child);
    }
    let ended = if result > 0 { wait_for(result as libc::pid_t) } else { 0 };
    mask.restore();
    if result < 0 {
        return Err(ForkError {
            step: Step::CloneHelper,
            source: io::Error::from_raw_os_error(-result as i32),
        });
    }
    shared.outcome.into_result(ended)
}

/// libc's fork(3).
pub fn fork() -> Result<Fork, ForkError> {
    check_single_threaded()?;
    // SAFETY: the process has one thread, so the child's memory is in the state of a program, not of a program
    // interrupted somewhere.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent { pid }),
        _ => Err(ForkError { step: Step::ForkChild, source: io::Error::last_os_error() }),
    }
}

/// Makes a child in new namespaces (`CLONE_NEW*`, not those of users and of time) that has this process's memory and stack, and returns
/// its pid when it has executed a program or has ended. Until then this process stands still: what the child does to memory
/// stays, what it does to descriptors, directories and credentials does not. The child is told its pid as this process sees it.
///
/// Not vfork(2), whose parent cannot give up: a child that is still at work after `limit` is killed, which the error
/// `TimedOut` says, and then a child of this process to be reaped. One that the kernel does not let go of (it waits uninterruptibly for a device) is
/// waited for.
///
/// A child that is killed in the middle of changing something leaves it so.
pub fn clone_and_stand_still(
    namespaces: libc::c_int,
    limit: Duration,
    mut child: impl FnMut(i32) -> Infallible,
) -> io::Result<i32> {
    let mut lent = Lent { pid: 0, child: &raw mut child };
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: this process has one thread, which does nothing meanwhile, and the child acts in its place. `live_on` does not return.
    // This program handles no signals, so nothing else runs on either side.
    let (result, in_time) = unsafe { call_standing_still(namespaces, &limit, live_on, &raw mut lent) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result as i32));
    }
    let pid = result as i32;
    if in_time {
        return Ok(pid);
    }
    wait_for(pid);
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

/// What [`clone_and_stand_still`] shares with its child. The word is first, where the kernel finds it.
#[repr(C)]
struct Lent<F> {
    /// The child's pid, written by the kernel before the child runs (`CLONE_PARENT_SETTID`), and 0 when the child has let go of
    /// this memory (`CLONE_CHILD_CLEARTID`).
    pid: i32,
    child: *mut F,
}

/// The child's side: never returns.
///
/// # Safety
///
/// Only as the function of [`call_standing_still`], for a `child` that lives in the frame of its caller.
unsafe extern "C" fn live_on<F: FnMut(i32) -> Infallible>(lent: *mut Lent<F>) {
    // SAFETY: the caller waits in the frame in which both live.
    let lent = unsafe { &*lent };
    // SAFETY: as above; nobody else has a reference.
    let child = unsafe { &mut *lent.child };
    child(lent.pid);
}

/// clone(2) with `CLONE_VM`, calling `function` in the child on the same stack, and futex(2) until the child has let go of the memory.
/// Answers the child's pid, or a negative error number, and whether that was within `limit`; after it the child is killed.
///
/// The caller makes its system calls from registers alone and leaves the stack to the child. `lent` begins with the word that
/// [`Lent::pid`] is.
///
/// # Safety
///
/// The process has one thread and no handlers of signals; `function` does not return.
#[inline(never)]
unsafe fn call_standing_still<T>(
    namespaces: libc::c_int,
    limit: &libc::timespec,
    function: unsafe extern "C" fn(*mut T),
    lent: *mut T,
) -> (i64, bool) {
    let shared = libc::CLONE_VM | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    let result: i64;
    let limit_left: *const libc::timespec;
    // SAFETY: the child uses the stack below the pointer only, which the compiler leaves alone (no `nostack`, so no red zone
    // either), and where the caller pushes nothing. Every register that a call may change is declared.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "js 6f",
            "jnz 2f",
            "mov rdi, r12",
            "call r13",
            "ud2",
            // The caller: as long as the word is not 0 it sleeps on it.
            "2:",
            "mov r13, rax",
            "3:",
            "cmp dword ptr [r12], 0",
            "je 5f",
            "mov eax, {futex}",
            "mov rdi, r12",
            "xor esi, esi",
            "mov edx, r13d",
            "mov r10, r15",
            "syscall",
            "cmp eax, -{timed_out}",
            "jne 3b",
            // The limit has passed: from here on there is none.
            "mov eax, {kill}",
            "mov edi, r13d",
            "mov esi, {sigkill}",
            "syscall",
            "xor r15d, r15d",
            "jmp 3b",
            "5:",
            "mov rax, r13",
            "6:",
            futex = const libc::SYS_futex,
            kill = const libc::SYS_kill,
            sigkill = const libc::SIGKILL,
            timed_out = const libc::ETIMEDOUT,
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") i64::from(namespaces | shared),
            in("rsi") 0_i64,
            in("rdx") lent,
            in("r10") lent,
            in("r8") 0_i64,
            in("r12") lent,
            inlateout("r13") function => _,
            inlateout("r15") std::ptr::from_ref(limit) => limit_left,
            clobber_abi("C"),
        );
    }
    (result, !limit_left.is_null())
}

fn check_single_threaded() -> Result<(), ForkError> {
    let failed = |source| ForkError { step: Step::CountThreads, source };
    // The directory's link count is 2 plus the number of threads (`proc_task_getattr` in the kernel).
    let threads =
        std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("/proc/self/task").map_err(failed)?);
    if threads == 3 { Ok(()) } else { Err(failed(io::Error::other(format!("{} threads", threads - 2)))) }
}

/// What the halves of H read, and where they leave their result; lives in the seed's frame.
#[repr(C)]
struct Shared {
    process: libc::c_int,
    namespaces: libc::c_int,
    cgroups: *const libc::c_int,
    cgroup_count: usize,
    outcome: Outcome,
}

/// How far H came.
#[derive(Clone, Copy)]
struct Outcome {
    pid: libc::pid_t,
    step: Step,
    errno: libc::c_int,
}

impl Outcome {
    /// No half has left a result: it did not live long enough.
    const UNKNOWN: Outcome = Outcome { pid: 0, step: Step::Killed(0), errno: 0 };

    fn into_result(self, wait_status: libc::c_int) -> Result<Fork, ForkError> {
        if self.pid > 0 {
            return Ok(Fork::Parent { pid: self.pid });
        }
        match self.step {
            Step::Killed(_) => {
                let signal = if libc::WIFSIGNALED(wait_status) { libc::WTERMSIG(wait_status) } else { 0 };
                let text = match signal {
                    // The inner half, which belongs to the sandbox.
                    0 => "the helper was killed with the sandbox, whose init has ended".to_owned(),
                    signal => format!("the helper was killed by signal {signal}"),
                };
                Err(ForkError { step: Step::Killed(signal), source: io::Error::other(text) })
            }
            step => Err(ForkError { step, source: io::Error::from_raw_os_error(self.errno) }),
        }
    }
}

/// What [`call_in_vfork`] answers where the function returned; no system call answers this.
const RETURNED: i64 = i64::MIN;

/// clone(2) with `CLONE_VM | CLONE_VFORK`, calling `function` in the child on the same stack.
///
/// Answers the child's pid, or a negative error number, in the caller, when the child has exited. Where `function`
/// returns, [`RETURNED`] is the answer.
///
/// # Safety
///
/// Signals blocked or without handlers. `function` may return only in a process that does not share this memory, else the
/// child would overwrite the frames that the caller still needs.
#[inline(never)]
unsafe fn call_in_vfork<T>(function: unsafe extern "C" fn(*mut T), shared: *mut T) -> i64 {
    let flags = i64::from(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD);
    let result: i64;
    // SAFETY: the child uses the stack below the pointer only, which the compiler leaves alone (no `nostack`, so no
    // red zone either), while the kernel keeps the caller suspended. Every register that a call may change is declared.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "call r13",
            "mov rax, r14",
            "2:",
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") flags,
            in("rsi") 0_i64,
            in("rdx") 0_i64,
            in("r10") 0_i64,
            in("r8") 0_i64,
            in("r12") shared,
            in("r13") function,
            in("r14") RETURNED,
            clobber_abi("C"),
        );
    }
    result
}

/// The outer half: enters the namespaces, then makes the inner half.
///
/// # Safety
///
/// Only as the function of [`call_in_vfork`].
unsafe extern "C" fn outer(shared: *mut Shared) {
    // SAFETY: the seed is suspended in its frame, where `shared` lives.
    let shared = unsafe { &mut *shared };
    // SAFETY: setns(2) takes two integers.
    if shared.namespaces != 0 && unsafe { libc::setns(shared.process, shared.namespaces) } != 0 {
        fail(shared, Step::EnterNamespaces);
    }
    // SAFETY: as for the outer half; this half is suspended while the inner one runs.
    let result = unsafe { call_in_vfork(inner, shared) };
    if result == RETURNED {
        return;
    }
    if result < 0 {
        shared.outcome.step = Step::CloneHelper;
        shared.outcome.errno = -result as libc::c_int;
        exit_now(1);
    }
    wait_for(result as libc::pid_t);
    exit_now(0);
}

unsafe extern "C" {
    /// fork(3) without handlers (POSIX.1-2024; glibc has it since 2.34).
    fn _Fork() -> libc::pid_t;
}

/// The inner half: enters the cgroups, then forks. Returns in the new process only.
///
/// # Safety
///
/// Only as the function of [`call_in_vfork`].
unsafe extern "C" fn inner(shared: *mut Shared) {
    // SAFETY: the outer half, whose argument this is, is suspended and does not touch it.
    let shared = unsafe { &mut *shared };
    for index in 0..shared.cgroup_count {
        let file = shared.cgroups.wrapping_add(index);
        // SAFETY: `cgroups` points to `cgroup_count` descriptors in the seed's frame.
        let file = unsafe { file.read() };
        // SAFETY: one byte of a static string is written.
        if unsafe { libc::write(file, c"0".as_ptr().cast(), 1) } != 1 {
            fail(shared, Step::EnterCgroup(index));
        }
    }
    // SAFETY: the address space has one running thread, this one.
    match unsafe { _Fork() } {
        0 => {}
        pid if pid > 0 => {
            shared.outcome.pid = pid;
            exit_now(0);
        }
        _ => fail(shared, Step::ForkChild),
    }
}

fn fail(shared: &mut Shared, step: Step) -> ! {
    shared.outcome.errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    shared.outcome.step = step;
    exit_now(1);
}

/// wait4(2) for one child; its wait status.
fn wait_for(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: `status` is a writable int.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
    status
}

/// The signal mask from before all signals were blocked.
struct SignalMask(libc::sigset_t);

impl SignalMask {
    fn block_all() -> SignalMask {
        // SAFETY: sigset_t is plain data for which all zeroes are valid.
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: the set is writable.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: one set is readable, the other writable.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old) };
        SignalMask(old)
    }

    fn restore(&self) {
        // SAFETY: the set was filled in by sigprocmask(2).
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// libc's registration of rseq(2): the kernel drops it in a child that shares memory, and libc would go on to believe
/// the processor number it finds there.
struct RestartableSequences {
    area: *mut libc::c_void,
    len: u32,
}

/// The signature that libc registers on x86 (`RSEQ_SIG` in `<sys/rseq.h>`).
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
/// The size of the first version of `struct rseq`, below which no registration is accepted.
const RSEQ_MIN_LEN: u32 = 32;

impl RestartableSequences {
    fn of_this_thread() -> RestartableSequences {
        let none = RestartableSequences { area: std::ptr::null_mut(), len: 0 };
        // SAFETY: dlsym with a C string.
        let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) }.cast::<isize>();
        // SAFETY: dlsym with a C string.
        let size = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()) }.cast::<u32>();
        // A libc before 2.35 has no such symbols, and no registration.
        if offset.is_null() || size.is_null() {
            return none;
        }
        // SAFETY: libc exports a constant of this type.
        let offset = unsafe { offset.read() };
        // SAFETY: libc exports a constant of this type.
        let size = unsafe { size.read() };
        if size == 0 {
            return none;
        }
        let thread_pointer: *mut u8;
        // SAFETY: the first word at the thread pointer is the thread pointer itself (x86-64 ABI).
        unsafe { asm!("mov {}, fs:0", out(reg) thread_pointer, options(nostack, readonly, preserves_flags)) };
        RestartableSequences {
            area: thread_pointer.wrapping_offset(offset).cast(),
            len: size.max(RSEQ_MIN_LEN),
        }
    }

    fn renew(&self) {
        if !self.area.is_null() {
            // SAFETY: libc registered this very area of this thread before; the kernel writes nothing beyond its length.
            // A failure leaves the state as it was, which costs only the speed-ups that libc builds on it.
            unsafe { libc::syscall(libc::SYS_rseq, self.area, self.len, 0, RSEQ_SIGNATURE) };
        }
    }
}
