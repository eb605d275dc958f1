//! The beginning of a program without the standard library's own, which reads `/proc/self/maps` and makes a second stack in order to
//! tell of an overflow of the first: a fiftieth of what a short verb costs.

use std::panic::{UnwindSafe, catch_unwind};

/// The exit status of a program that has panicked, as the standard library has it.
const PANICKED: u8 = 101;

/// Makes a `fn() -> u8`, which returns the exit status, the main function of a program that has `#![no_main]`.
#[macro_export]
macro_rules! main_function {
    ($function:path) => {
        /// What the C library calls. Arguments and environment are known to `std::env` by then.
        #[unsafe(no_mangle)]
        pub extern "C" fn main(_count: i32, _arguments: *const *const u8) -> i32 {
            $crate::sys::program::run($function)
        }
    };
}

/// What the standard library's beginning does besides: descriptors 0 to 2 are open, a closed pipe is an error and no signal,
/// and a panic is an exit status.
pub fn run(function: impl FnOnce() -> u8 + UnwindSafe) -> i32 {
    open_stdio();
    // SAFETY: an ignored signal runs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    catch_unwind(function).unwrap_or(PANICKED).into()
}

/// Opens `/dev/null` in place of each of the first three descriptors that is closed: whatever is opened next would be taken for it.
fn open_stdio() {
    let closed = |number| {
        // SAFETY: F_GETFD takes no argument.
        unsafe { libc::fcntl(number, libc::F_GETFD) == -1 }
    };
    for number in 0..3 {
        // SAFETY: the path is a live string. The lowest number that is free is this one.
        if closed(number) && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != number {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_exit_status() {
        assert_eq!(run(|| 7), 7);
        assert_eq!(run(|| panic!("on purpose")), 101);
    }
}
