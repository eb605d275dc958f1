//! V8's locks in a program of one thread: nothing.
//!
//! Taking a lock and letting it go writes to the page that it is on: without this, workers copied five pages of their seed for
//! no other reason. A program that has one thread for all of its life links these functions in the place of Abseil's (the
//! linker's `--wrap`, see `turf-seed/build.rs`); in every other program they are not called.

use std::ffi::c_void;

/// `absl::Mutex::lock`.
///
/// # Safety
/// The process has one thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap__ZN4absl5Mutex4lockEv(_: *mut c_void) {}

/// `absl::Mutex::unlock`.
///
/// # Safety
/// The process has one thread.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap__ZN4absl5Mutex6unlockEv(_: *mut c_void) {}
