//! The watchdog: interrupts JavaScript that does not yield.
//!
//! ```text
//!   a callback begins --> the timer is armed, if it is not
//!   the timer fires, the same callback still runs:
//!      after LIMIT       --> V8 is told to terminate the execution: the callback ends with an exception
//!      after 2 x LIMIT   --> last words, SIGKILL: native code that V8 cannot interrupt
//!   the timer fires, nothing has run since it fired last --> it is disarmed
//! ```
//!
//! One POSIX timer (timer_create(2), not inherited over a fork), whose period is a quarter of the limit: an idle
//! worker is never woken, and a busy one pays no system call per request. The handler runs on the only
//! thread there is; it touches atomics, V8's request for termination (which V8 allows at any moment), and
//! async-signal-safe calls.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::gauges;

/// Looks per limit.
const LOOKS: u32 = 4;

/// The shortest period: a limit below four of these is as good as this.
const SHORTEST_PERIOD: Duration = Duration::from_millis(5);

/// Counts callbacks: odd while one runs.
static TURN: AtomicU64 = AtomicU64::new(0);

/// The value of [`TURN`] at the last look.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Looks in a row at which the same callback ran.
static SAME: AtomicU32 = AtomicU32::new(0);

/// Whether the timer runs.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Whether a termination was asked for and nobody has noticed it yet.
static TERMINATING: AtomicBool = AtomicBool::new(false);

/// The timer; null while there is no watchdog.
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Whether there is a watchdog.
static EXISTS: AtomicBool = AtomicBool::new(false);

/// The timer's period in nanoseconds.
static PERIOD_NS: AtomicU64 = AtomicU64::new(0);

static ISOLATE: OnceLock<v8::IsolateHandle> = OnceLock::new();

/// Watches this process's JavaScript from now on.
///
/// # Errors
/// As sigaction(2) and timer_create(2).
pub fn start(isolate: &v8::Isolate, limit: Duration) -> io::Result<()> {
    ISOLATE.get_or_init(|| isolate.thread_safe_handle());
    let period = (limit / LOOKS).max(SHORTEST_PERIOD);
    #[allow(clippy::cast_possible_truncation)]
    PERIOD_NS.store(period.as_nanos() as u64, Ordering::SeqCst);
    let signal = signal_number();
    // SAFETY: all-zero bytes are a valid sigaction: default handler, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is a valid sigaction, and the handler is async-signal-safe.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid sigevent.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: both pointers are to live values of the right types.
    if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    TIMER.store(timer, Ordering::SeqCst);
    EXISTS.store(true, Ordering::SeqCst);
    Ok(())
}

/// A real-time signal that neither the C library nor this program uses otherwise.
fn signal_number() -> libc::c_int {
    libc::SIGRTMIN() + 4
}

/// A callback begins.
pub fn enter() {
    if !EXISTS.load(Ordering::Relaxed) {
        return;
    }
    TURN.store(TURN.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    if !ARMED.swap(true, Ordering::Relaxed) {
        set_timer(PERIOD_NS.load(Ordering::Relaxed));
    }
}

/// Another callback begins within the same turn of the loop.
pub fn progress() {
    if EXISTS.load(Ordering::Relaxed) {
        TURN.fetch_add(2, Ordering::Relaxed);
    }
}

/// No callback runs.
pub fn leave() {
    if EXISTS.load(Ordering::Relaxed) {
        TURN.store((TURN.load(Ordering::Relaxed) | 1) + 1, Ordering::Relaxed);
    }
}

/// Whether the watchdog has ended the callback that has just returned without a result.
pub fn take_interruption() -> bool {
    TERMINATING.load(Ordering::Relaxed) && TERMINATING.swap(false, Ordering::Relaxed)
}

/// Arms the timer with a period, or disarms it with 0.
fn set_timer(period_ns: u64) {
    #[allow(clippy::cast_possible_wrap)]
    let period = libc::timespec {
        tv_sec: (period_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (period_ns % 1_000_000_000) as libc::c_long,
    };
    let value = libc::itimerspec { it_interval: period, it_value: period };
    // SAFETY: the timer exists, `value` is live; timer_settime is async-signal-safe.
    unsafe { libc::timer_settime(TIMER.load(Ordering::SeqCst), 0, &raw const value, std::ptr::null_mut()) };
}

extern "C" fn on_signal(_: libc::c_int) {
    let turn = TURN.load(Ordering::Relaxed);
    let is_same = SEEN.swap(turn, Ordering::Relaxed) == turn;
    if !is_same {
        SAME.store(0, Ordering::Relaxed);
        return;
    }
    if turn.is_multiple_of(2) {
        ARMED.store(false, Ordering::Relaxed);
        return set_timer(0);
    }
    let same = SAME.fetch_add(1, Ordering::Relaxed) + 1;
    if same == LOOKS {
        TERMINATING.store(true, Ordering::Relaxed);
        if let Some(isolate) = ISOLATE.get() {
            isolate.terminate_execution();
        }
    } else if same >= 2 * LOOKS {
        gauges::last_words(&[b"did not yield and could not be interrupted: ", gauges::request()]);
        // SAFETY: async-signal-safe.
        unsafe { libc::raise(libc::SIGKILL) };
        // SAFETY: the same; reached only by the first process of a pid namespace, which no signal of its own ends.
        unsafe { libc::_exit(128 + libc::SIGKILL) };
    }
}
