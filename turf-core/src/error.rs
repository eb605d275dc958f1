//! The error of this library: which operation failed on which object, and why.
//!
//! A variant of its own exists only where a caller acts on it (an engine matches the
//! words, `delete --force` forgives an unknown id). Everything else is [`Error::Io`]
//! or [`Error::Invalid`]. Nothing here prints.

use std::io;

use crate::container::Status;

/// The result of every fallible function in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words for the user of `turf`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed; `operation` names it and its object ("mount tmpfs on /dev").
    #[error("{operation}: {}", describe(.source))]
    Io {
        /// The operation and its object.
        operation: String,
        /// The error number.
        source: io::Error,
    },

    /// Something given to us cannot be accepted: `object` is a flag, a file, or a path in
    /// config.json, `reason` says what is wrong and what would be right.
    #[error("{object}: {reason}")]
    Invalid {
        /// Where the wrong value stands.
        object: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },

    /// No container has this id. Engines match the words "does not exist".
    #[error("container {0}: does not exist")]
    NoSuchContainer(String),

    /// The id is taken.
    #[error("container {0}: a container with that id already exists")]
    ContainerExists(String),

    /// The verb is not allowed in the container's status.
    #[error("container {id}: cannot {verb} a container that is {status}{}", hint(*.status, verb))]
    WrongStatus {
        /// The container.
        id: String,
        /// What was to be done ("start").
        verb: &'static str,
        /// The status it is in.
        status: Status,
    },

    /// A step failed in another process (init, the seed or a worker), which told us its words.
    #[error("{text}")]
    Remote {
        /// The message as that process wrote it: operation, object, reason.
        text: String,
    },

    /// A bounded wait ran out.
    #[error("{operation}: no answer within {limit_ms} ms")]
    TimedOut {
        /// What was waited for.
        operation: String,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },

    /// An operation failed, and clearing up after it failed too.
    #[error("{first}; clearing up after that failed as well: {cleanup}")]
    CleanUp {
        /// The first failure, which is the one to act on.
        first: Box<Error>,
        /// Why something may have been left behind.
        cleanup: Box<Error>,
    },
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(object: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { object: object.into(), reason: reason.into() }
    }

    /// An [`Error::Io`] from an error of `std` or of `nix`.
    pub fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io { operation: operation.into(), source: source.into() }
    }

    /// Attaches a failed clean-up to the error that made it necessary.
    pub fn and_clean_up(self, cleanup: Result<()>) -> Error {
        match cleanup {
            Ok(()) => self,
            Err(cleanup) => Error::CleanUp { first: Box::new(self), cleanup: Box::new(cleanup) },
        }
    }

    /// The error number behind this error, if a system call of ours failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } => source.raw_os_error(),
            Error::CleanUp { first, .. } => first.raw_os_error(),
            Error::Invalid { .. }
            | Error::NoSuchContainer(_)
            | Error::ContainerExists(_)
            | Error::WrongStatus { .. }
            | Error::Remote { .. }
            | Error::TimedOut { .. } => None,
        }
    }
}

/// Names the operation that a failed system call belonged to.
pub trait Operation<T> {
    /// Turns the error into an [`Error::Io`]; `operation` is built only on failure.
    fn operation<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Operation<T> for std::result::Result<T, E> {
    fn operation<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::io(operation(), source))
    }
}

/// An error number in the words engines match: those of `strerror(3)`, in lower case.
pub fn errno_text(errno: i32) -> String {
    let text = nix::errno::Errno::from_raw(errno).desc();
    let mut letters = text.chars();
    match letters.next() {
        // "I/O error", "RFS specific error": the second letter tells an acronym.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        Some(_) | None => text.to_owned(),
    }
}

pub(crate) fn describe(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => source.to_string(),
    }
}

/// The words that engines look for when a container has ended.
fn hint(status: Status, verb: &str) -> &'static str {
    match status {
        Status::Stopped if matches!(verb, "signal" | "exec in") => ": container not running",
        Status::Creating | Status::Created | Status::Running | Status::Paused | Status::Stopped => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_number_reads_as_engines_match_it() {
        let error = Error::io("open /app/worker.js", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "open /app/worker.js: no such file or directory");
        assert_eq!(errno_text(libc::EPERM), "operation not permitted");
        assert_eq!(errno_text(libc::EACCES), "permission denied");
        assert_eq!(errno_text(libc::EIO), "I/O error");
    }

    #[test]
    fn signalling_a_stopped_container_says_what_containerd_looks_for() {
        let error = Error::WrongStatus { id: "a".into(), verb: "signal", status: Status::Stopped };
        assert!(error.to_string().contains("container not running"), "{error}");
    }

    #[test]
    fn a_failed_clean_up_is_attached_to_the_first_error() {
        let first = Error::invalid("config.json: process.args", "must not be empty");
        let both = first.and_clean_up(Err(Error::io("rmdir /x", io::Error::from_raw_os_error(libc::EBUSY))));
        let text = both.to_string();
        assert!(text.starts_with("config.json: process.args: must not be empty; "), "{text}");
        assert!(text.contains("rmdir /x"), "{text}");
    }
}
