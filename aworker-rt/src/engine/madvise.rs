//! `madvise(2)` without MADV_DONTFORK.
//!
//! V8 marks its heap, code range and tables MADV_DONTFORK, which would leave a
//! forked worker without a heap. The program's own definition takes precedence
//! over libc's for everything that is linked statically, V8 included. All other
//! advice passes through: some callers depend on it (MADV_WIPEONFORK keeps
//! random generators from being cloned).

use libc::{c_int, c_void, size_t};

/// `madvise(2)`, except that MADV_DONTFORK succeeds without effect.
///
/// # Safety
/// As `madvise(2)`: some advice discards the range's contents.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, length: size_t, advice: c_int) -> c_int {
    if advice == libc::MADV_DONTFORK {
        return 0;
    }
    // SAFETY: the caller's arguments go to the kernel unchanged; the caller
    // answers for them.
    let result = unsafe { libc::syscall(libc::SYS_madvise, address, length, advice) };
    c_int::try_from(result).unwrap_or(-1)
}
