//! `dlsym(3)` in a static program, which has no table of symbols: it would find nothing.
//!
//! The `getrandom` crate looks for its function that way, and reads `/dev/urandom` where there is none: a descriptor more, and no
//! randomness at all in a root without devices, as a seed's is. Static programs link this in the place of the C library's (the
//! linker's `--wrap`).

use std::ffi::{CStr, c_char, c_void};

/// `dlsym(3)`: the one function that is looked for.
///
/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_dlsym(_: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: by the contract of this function.
    let name = unsafe { CStr::from_ptr(name) };
    if name == c"getrandom" { libc::getrandom as *mut c_void } else { std::ptr::null_mut() }
}
