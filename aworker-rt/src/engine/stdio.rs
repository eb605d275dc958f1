//! Standard output and error for `console`: unbuffered, complete, bounded.

use std::time::{Duration, Instant};

/// Longest time one `print` waits for a reader of a full pipe. A worker whose
/// log nobody reads goes on serving; the rest of the text is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// `ops.print(fd, text)`: writes the text to descriptor 1 or 2, whole.
///
/// A closed pipe is not an error: a worker outlives its log.
pub(crate) fn print(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let fd = match arguments.get(0).int32_value(scope) {
        Some(fd @ (1 | 2)) => fd,
        _ => return super::conversions::throw_range_error(scope, "print: the descriptor must be 1 or 2"),
    };
    let text = arguments.get(1).to_rust_string_lossy(scope);
    write_all(fd, text.as_bytes());
}

/// Writes all bytes, waiting for a reader at most [`WRITE_TIMEOUT`].
pub(crate) fn write_all(fd: i32, mut bytes: &[u8]) {
    let mut deadline = None;
    while !bytes.is_empty() {
        // SAFETY: the pointer and length describe a live slice.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if let Ok(written) = usize::try_from(written) {
            bytes = &bytes[written..];
            continue;
        }
        match std::io::Error::last_os_error().kind() {
            std::io::ErrorKind::Interrupted => {}
            std::io::ErrorKind::WouldBlock => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + WRITE_TIMEOUT);
                if !wait_writable(fd, deadline) {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Waits until the descriptor takes bytes; false once the deadline has passed.
fn wait_writable(fd: i32, deadline: Instant) -> bool {
    let Some(left) = deadline.checked_duration_since(Instant::now()) else {
        return false;
    };
    let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd, and the count says so.
    unsafe { libc::poll(&mut poll, 1, milliseconds) };
    true
}
