//! Termination signals of a serving worker, see signal(7).
//!
//! ```text
//!   SIGTERM or SIGINT --> the eventfd becomes readable: drain
//!         again       --> _exit(128 + signal) at once
//!   deadline (SIGALRM)--> the same, also when JavaScript never yields
//! ```
//!
//! Installed when a worker begins to serve, after the fork. Before that the
//! default action applies.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The number after that of the eventfd the handler writes to; 0 if there is none. All three begin as zeroes, so that they lie
/// together: a worker copies the page that they are on.
static AFTER_EVENT_FD: AtomicI32 = AtomicI32::new(0);

/// The first termination signal received, or 0.
static FIRST_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Seconds between the first signal and the hard end.
static GRACE_SECONDS: AtomicI32 = AtomicI32::new(0);

/// Catches SIGTERM and SIGINT; the returned eventfd becomes readable with the
/// first of them. `grace_seconds` later the process ends whatever it does.
///
/// # Errors
/// As eventfd(2) and sigaction(2).
pub fn catch_termination(grace_seconds: u16) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: eventfd returned a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    AFTER_EVENT_FD.store(fd.as_raw_fd() + 1, Ordering::SeqCst);
    GRACE_SECONDS.store(i32::from(grace_seconds), Ordering::SeqCst);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGALRM] {
        install(signal)?;
    }
    Ok(fd)
}

/// In a clone of a worker that becomes a seed: no signal has come, and none is heard by way of the worker's descriptor. The caller
/// has given the signals their default actions.
pub fn forget() {
    AFTER_EVENT_FD.store(0, Ordering::SeqCst);
    FIRST_SIGNAL.store(0, Ordering::SeqCst);
}

/// The signal that asked the worker to end, if one did.
pub fn termination_signal() -> Option<i32> {
    match FIRST_SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

fn install(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid sigaction: default handler, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is a valid sigaction and the handler is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Only atomics and async-signal-safe calls.
extern "C" fn on_signal(signal: libc::c_int) {
    if let Err(first) = FIRST_SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst) {
        // SAFETY: _exit is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + first) };
    }
    let grace = GRACE_SECONDS.load(Ordering::SeqCst).unsigned_abs();
    // SAFETY: alarm is async-signal-safe.
    unsafe { libc::alarm(grace) };
    let one = 1_u64;
    // SAFETY: eight bytes of a live u64; a failed write leaves the alarm to end the process.
    unsafe {
        libc::write(AFTER_EVENT_FD.load(Ordering::SeqCst) - 1, (&raw const one).cast(), size_of::<u64>())
    };
}
