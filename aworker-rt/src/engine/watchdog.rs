//! The watchdog: interrupts JavaScript that does not yield.
//!
//! ```text
//!   a callback begins --> the timer is armed, if it is not
//!   the timer fires, the same callback still runs:
//!      after SLOW        --> V8 is asked for the stack, for the log of slow requests (`running.rs`)
//!      after LIMIT       --> V8 is told to terminate the execution: the callback ends with an exception
//!      after 2 x LIMIT   --> last words, SIGKILL: native code that V8 cannot interrupt
//!   the timer fires, nothing has run since it fired last --> it is disarmed
//! ```
//!
//! One POSIX timer (timer_create(2), not inherited over a fork), whose period is a quarter of the shorter time: an idle
//! worker is never woken, and a busy one pays no system call per request. The handler runs on the only
//! thread there is; it touches atomics, V8's request for termination (which V8 allows at any moment), and
//! async-signal-safe calls.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{gauges, running};

/// Looks per shorter time.
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

/// Looks after which a callback is interrupted.
static LIMIT_LOOKS: AtomicU32 = AtomicU32::new(u32::MAX);

/// Looks after which a callback is slow.
static SLOW_LOOKS: AtomicU32 = AtomicU32::new(u32::MAX);

/// What is known of the callback that runs: a [`Slow`].
static SLOW: AtomicU32 = AtomicU32::new(Slow::No as u32);

/// The value of [`TURN`] when the stack was asked for.
static ASKED_IN: AtomicU64 = AtomicU64::new(0);

/// After a look at a slow callback that was not in generated code, the next one comes so soon.
const NEXT_TRY_NS: u64 = 1_000_000;

/// Most looks of this kind for one callback: they put off the regular ones.
const MAX_TRIES: u32 = 200;

/// Looks of this kind since the callback began.
static TRIES: AtomicU32 = AtomicU32::new(0);

/// Whether the next look is of this kind.
static IS_TRY: AtomicBool = AtomicBool::new(false);

/// Whether a callback took longer than is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Slow {
    /// Not that anybody has seen.
    No = 0,
    /// It did, and its stack could not be read: it was in native code, or ended first.
    Unseen = 1,
    /// Its stack was read.
    Seen = 2,
}

static ISOLATE: OnceLock<v8::IsolateHandle> = OnceLock::new();

/// Watches this process's JavaScript from now on. Who wants the stacks of callbacks that run longer than `slow` has said so
/// with [`running::observe`].
///
/// # Errors
/// As sigaction(2) and timer_create(2).
pub fn start(isolate: &v8::Isolate, limit: Duration, slow: Option<Duration>) -> io::Result<()> {
    ISOLATE.get_or_init(|| isolate.thread_safe_handle());
    let period = (slow.map_or(limit, |slow| slow.min(limit)) / LOOKS).max(SHORTEST_PERIOD);
    let looks = |time: Duration| {
        u32::try_from(time.as_nanos().div_ceil(period.as_nanos()))
            .unwrap_or(u32::MAX / 2)
            .clamp(1, u32::MAX / 2)
    };
    LIMIT_LOOKS.store(looks(limit), Ordering::SeqCst);
    SLOW_LOOKS.store(slow.map_or(u32::MAX, looks), Ordering::SeqCst);
    #[allow(clippy::cast_possible_truncation)]
    PERIOD_NS.store(period.as_nanos() as u64, Ordering::SeqCst);
    let signal = signal_number();
    // SAFETY: all-zero bytes are a valid sigaction: default handler, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
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

/// Whether the callback that runs was slow so far; what follows in it counts as another.
pub fn take_slow() -> Slow {
    match SLOW.swap(Slow::No as u32, Ordering::Relaxed) {
        known if known == Slow::No as u32 => Slow::No,
        known if known == Slow::Seen as u32 => {
            progress();
            Slow::Seen
        }
        _ => {
            progress();
            Slow::Unseen
        }
    }
}

/// The stack has come: whether it is that of the callback for which it was asked.
pub fn stack_is_of_this_callback() -> bool {
    let is_same = ASKED_IN.load(Ordering::Relaxed) == TURN.load(Ordering::Relaxed);
    if is_same {
        SLOW.store(Slow::Seen as u32, Ordering::Relaxed);
    }
    is_same
}

/// Arms the timer with a period, or disarms it with 0.
fn set_timer(period_ns: u64) {
    set_timer_from(period_ns, period_ns);
}

/// Arms the timer for a first time and, from then on, a period.
fn set_timer_from(first_ns: u64, period_ns: u64) {
    #[allow(clippy::cast_possible_wrap)]
    let time = |ns: u64| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    let value = libc::itimerspec { it_interval: time(period_ns), it_value: time(first_ns) };
    // SAFETY: the timer exists, `value` is live; timer_settime is async-signal-safe.
    unsafe { libc::timer_settime(TIMER.load(Ordering::SeqCst), 0, &raw const value, std::ptr::null_mut()) };
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let turn = TURN.load(Ordering::Relaxed);
    let is_same = SEEN.swap(turn, Ordering::Relaxed) == turn;
    let is_try = IS_TRY.swap(false, Ordering::Relaxed);
    if !is_same {
        TRIES.store(0, Ordering::Relaxed);
        SAME.store(0, Ordering::Relaxed);
        SLOW.store(Slow::No as u32, Ordering::Relaxed);
        return;
    }
    if turn.is_multiple_of(2) {
        ARMED.store(false, Ordering::Relaxed);
        return set_timer(0);
    }
    if is_try {
        return look_at_stack(turn, context);
    }
    let same = SAME.fetch_add(1, Ordering::Relaxed) + 1;
    let limit = LIMIT_LOOKS.load(Ordering::Relaxed);
    if same == limit {
        TERMINATING.store(true, Ordering::Relaxed);
        if let Some(isolate) = ISOLATE.get() {
            isolate.terminate_execution();
        }
    } else if same >= 2 * limit {
        gauges::last_words(&[b"did not yield and could not be interrupted: ", gauges::request()]);
        // SAFETY: async-signal-safe.
        unsafe { libc::raise(libc::SIGKILL) };
        // SAFETY: the same; reached only by the first process of a pid namespace, which no signal of its own ends.
        unsafe { libc::_exit(128 + libc::SIGKILL) };
    } else if same >= SLOW_LOOKS.load(Ordering::Relaxed) && SLOW.load(Ordering::Relaxed) != Slow::Seen as u32
    {
        look_at_stack(turn, context);
    }
}

/// Asks for the stack if that is safe here; else the next look tries again.
fn look_at_stack(turn: u64, context: *mut libc::c_void) {
    SLOW.store(Slow::Unseen as u32, Ordering::Relaxed);
    // SAFETY: the kernel gives a handler with SA_SIGINFO the interrupted context.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_ref() }) else { return };
    let instruction = context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let was_asked = ASKED_IN.load(Ordering::Relaxed) == turn;
    let Some(isolate) = ISOLATE.get().filter(|_| !was_asked) else { return };
    if running::is_generated(instruction.cast_unsigned() as usize) {
        ASKED_IN.store(turn, Ordering::Relaxed);
        running::ask(isolate);
    } else if TRIES.fetch_add(1, Ordering::Relaxed) < MAX_TRIES {
        IS_TRY.store(true, Ordering::Relaxed);
        set_timer_from(NEXT_TRY_NS, PERIOD_NS.load(Ordering::Relaxed));
    }
}
