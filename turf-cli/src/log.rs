//! Log lines as engines read them: errors on stderr and, if there is a `--log` file, at its end.
//!
//! containerd takes the last line of a JSON log as the reason for a failure, so that every line must be a
//! JSON object with `level`, `msg` and `time` (RFC 3339).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::ValueEnum;
use serde::Serialize;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="..." level=error msg="..."`.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Where log lines go. The file is opened for each line: most commands write none.
#[derive(Debug, PartialEq, Eq)]
pub struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// A log to stderr and perhaps to a file.
    pub fn new(file: Option<PathBuf>, format: LogFormat, debug: bool) -> Log {
        Log { file, format, debug }
    }

    /// Says why the command failed.
    pub fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    /// Says what went wrong although the command succeeded.
    pub fn warning(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// Says what the command does, if `--debug` asks for it.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.write(Level::Debug, &message());
        }
    }

    fn write(&self, level: Level, message: &str) {
        let level_word = level.word();
        // stderr may be closed; then nobody wants to hear.
        drop(writeln!(std::io::stderr(), "turf: {level_word}: {message}"));
        let Some(path) = &self.file else { return };
        let line = format_line(self.format, level, message, &turf_core::time::rfc3339(SystemTime::now()));
        let opened = OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
            drop(writeln!(std::io::stderr(), "turf: write log {}: {error}", path.display()));
        }
    }
}

fn format_line(format: LogFormat, level: Level, message: &str, time: &str) -> String {
    match format {
        LogFormat::Text => format!("time=\"{time}\" level={} msg={message:?}\n", level.word()),
        LogFormat::Json => {
            let line = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_json_line_is_one_object_whatever_the_message() {
        for message in ["open /x: no such file or directory", "two\nlines \"quoted\" \\ \u{1}", ""] {
            let line = format_line(LogFormat::Json, Level::Error, message, "2026-01-01T00:00:00.0Z");
            assert_eq!(line.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["level"], "error");
            assert_eq!(value["msg"], message);
            assert_eq!(value["time"], "2026-01-01T00:00:00.0Z");
        }
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let line = format_line(LogFormat::Text, Level::Warning, "a\nb \"c\"", "T");
        assert_eq!(line, "time=\"T\" level=warning msg=\"a\\nb \\\"c\\\"\"\n");
    }
}
