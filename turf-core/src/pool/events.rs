//! What happened in a pool: numbered events, in memory for those who ask and in a file of bounded size.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Operation, Result};

/// Events kept in memory.
const KEPT: usize = 1000;

/// Messages of workers kept in memory, beside the events, so that they crowd out none.
const KEPT_MESSAGES: usize = 250;

/// Bytes after which the file is renamed to `.1` and a new one begun.
const FILE_BYTES: u64 = 1 << 20;

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number, from 1.
    pub seq: u64,
    /// When, as RFC 3339.
    pub time: String,
    /// What: `start`, `ready`, `exit`, `retire`, `refuse`, `degraded`, ...
    pub event: &'static str,
    /// The worker's container, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// What belongs to it.
    #[serde(flatten)]
    pub details: Value,
}

impl Event {
    /// As one line of JSON.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// The events of one pool.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
    written: u64,
    next: u64,
    kept: VecDeque<Event>,
    messages: VecDeque<Event>,
}

impl Events {
    /// Goes on in the file at `path`.
    pub fn open(path: &Path) -> Result<Events> {
        let file = append_to(path)?;
        let written = file.metadata().operation(|| format!("read {}", path.display()))?.len();
        Ok(Events {
            path: path.to_owned(),
            file,
            written,
            next: 1,
            kept: VecDeque::new(),
            messages: VecDeque::new(),
        })
    }

    /// Adds an event. A file that cannot be written does not stop the pool.
    pub fn add(&mut self, event: &'static str, worker: Option<&str>, details: Value) -> &Event {
        let event = self.next_event(event, worker, details);
        let line = event.line();
        if self.written + line.len() as u64 > FILE_BYTES {
            self.rotate();
        }
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.written += line.len() as u64;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
        &self.kept[self.kept.len() - 1]
    }

    /// Adds a message of a worker. It is not written to the file: how many there are is up to the script.
    pub fn add_message(&mut self, worker: &str, data: Value) -> &Event {
        let event = self.next_event("message", Some(worker), serde_json::json!({ "data": data }));
        if self.messages.len() == KEPT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(event);
        &self.messages[self.messages.len() - 1]
    }

    fn next_event(&mut self, event: &'static str, worker: Option<&str>, details: Value) -> Event {
        let time = crate::time::rfc3339(SystemTime::now());
        let event = Event { seq: self.next, time, event, worker: worker.map(str::to_owned), details };
        self.next += 1;
        event
    }

    /// The kept events and messages after number `seq`, in their order.
    pub fn after(&self, seq: u64) -> Vec<&Event> {
        let mut all: Vec<&Event> =
            self.kept.iter().chain(&self.messages).filter(|event| event.seq > seq).collect();
        all.sort_by_key(|event| event.seq);
        all
    }

    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        if fs::rename(&self.path, old).is_ok()
            && let Ok(file) = append_to(&self.path)
        {
            (self.file, self.written) = (file, 0);
        }
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .operation(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_crowd_out_no_event_and_are_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut events = Events::open(&path).unwrap();
        events.add("exit", None, json!({}));
        for number in 0..2 * KEPT_MESSAGES {
            events.add_message("p.1.1", json!({ "number": number }));
        }
        events.add("exit", None, json!({}));
        let all = events.after(0);
        assert_eq!(all.len(), KEPT_MESSAGES + 2);
        assert!(all.is_sorted_by_key(|event| event.seq));
        assert_eq!((all[0].event, all[1].event, all[all.len() - 1].event), ("exit", "message", "exit"));
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 2);
    }

    #[test]
    fn events_are_numbered_and_bounded_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut events = Events::open(&path).unwrap();
        for number in 0..3000 {
            events.add("exit", Some("p.1.1"), json!({ "code": number, "words": "x".repeat(1000) }));
        }
        assert_eq!(events.after(0).len(), KEPT);
        assert_eq!(events.after(2999).len(), 1);
        let size = |name: &str| fs::metadata(directory.path().join(name)).unwrap().len();
        assert!(size("events.jsonl") <= FILE_BYTES && size("events.jsonl.1") <= FILE_BYTES);
        let last = events.after(2999)[0].line();
        let value: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(
            (&value["seq"], &value["code"], &value["worker"]),
            (&json!(3000), &json!(2999), &json!("p.1.1"))
        );
    }
}
