//! Why something on the network failed, for a person and for a program.

use std::fmt;
use std::io;

/// A failure; the code is what Node gives as `error.code`, where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetError {
    code: &'static str,
    text: String,
}

impl NetError {
    /// A failure with its code.
    pub fn new(code: &'static str, text: impl Into<String>) -> NetError {
        NetError { code, text: text.into() }
    }

    /// A failed system call and what it was for.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> NetError {
        NetError { code: code_of(error), text: format!("{what}: {error}") }
    }

    /// The code, or an empty string.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The text behind what was tried.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> NetError {
        NetError { text: format!("{what}: {}", self.text), ..self }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for NetError {}

/// The name of an error number, as far as networks give it.
fn code_of(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::ECONNRESET) => "ECONNRESET",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::ETIMEDOUT) => "ETIMEDOUT",
        Some(libc::EPIPE) => "EPIPE",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EPERM) => "EPERM",
        Some(libc::EMFILE) => "EMFILE",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        _ => match error.kind() {
            io::ErrorKind::UnexpectedEof => "ECONNRESET",
            io::ErrorKind::TimedOut => "ETIMEDOUT",
            _ => "",
        },
    }
}

/// A failure of hyper: what it was, with the system's or TLS's own reason if there is one.
pub fn of_hyper(error: &hyper::Error) -> NetError {
    let mut source = std::error::Error::source(error);
    let mut text = error.to_string();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return NetError::io(text, io);
        }
        if let Some(ours) = inner.downcast_ref::<NetError>() {
            return ours.clone();
        }
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    let code = match error {
        error if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => "ECONNRESET",
        error if error.is_parse() => "HPE_INVALID",
        _ => "",
    };
    NetError { code, text }
}
