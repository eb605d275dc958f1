//! The status of a container and the one table of its transitions.
//!
//! ```text
//!            Prepared           Started            Froze
//!  creating ----------> created ---------> running -------> paused
//!     |                    |                |   ^             |  |
//!     | Exited             | Exited         |   +--- Thawed --+  |
//!     +--------------------+--------------> | Exited             | Exited
//!                                           v                    |
//!                        Deleted          stopped <--------------+
//!              (gone) <---------------------- also from created
//! ```
//!
//! The status is never believed from a file alone: [`observe`](super::state) derives it from what
//! state.json recorded, from init being alive, from init's gate, and from the freezer.
//! OCI: runtime.md, "State"; `paused` is an extension that every engine knows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// The sandbox stands and init waits at the gate.
    Created,
    /// The program of the bundle runs.
    Running,
    /// Every process of the container is frozen.
    Paused,
    /// init has exited.
    Stopped,
}

impl Status {
    /// All statuses, in the order of a life.
    pub const ALL: [Status; 5] =
        [Status::Creating, Status::Created, Status::Running, Status::Paused, Status::Stopped];

    /// The word of the OCI runtime specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }

    /// What `event` makes of a container in this status: the one transition table.
    pub fn after(self, event: Event) -> After {
        use After::{Gone, Is, Refused};
        match (self, event) {
            (Status::Creating, Event::Prepared) => Is(Status::Created),
            (Status::Created, Event::Started) => Is(Status::Running),
            (Status::Running, Event::Froze) => Is(Status::Paused),
            (Status::Paused, Event::Thawed) => Is(Status::Running),
            // The specification wants `delete` refused before the container has stopped. runc, crun and youki delete what
            // has not begun to run, and scripts rely on it.
            (Status::Created | Status::Stopped, Event::Deleted) => Gone,

            // A signal leaves the status alone: it may or may not end in an exit.
            (Status::Created | Status::Running | Status::Paused, Event::Signalled) => Is(self),
            (Status::Creating | Status::Stopped, Event::Signalled) => Refused,

            // init can die at any moment of its life.
            (Status::Creating | Status::Created | Status::Running | Status::Paused, Event::Exited) => {
                Is(Status::Stopped)
            }
            (Status::Stopped, Event::Exited) => Refused,

            (Status::Created | Status::Running | Status::Paused | Status::Stopped, Event::Prepared)
            | (Status::Creating | Status::Running | Status::Paused | Status::Stopped, Event::Started)
            | (Status::Creating | Status::Created | Status::Paused | Status::Stopped, Event::Froze)
            | (Status::Creating | Status::Created | Status::Running | Status::Stopped, Event::Thawed)
            | (Status::Creating | Status::Running | Status::Paused, Event::Deleted) => Refused,
        }
    }

    /// Whether `event` may happen to a container in this status.
    pub fn allows(self, event: Event) -> bool {
        self.after(event) != After::Refused
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// init reached the gate (end of `create`).
    Prepared,
    /// The gate opened and the program runs (end of `start`).
    Started,
    /// A signal was sent (`kill`).
    Signalled,
    /// All processes were frozen (`pause`).
    Froze,
    /// All processes were thawed (`resume`).
    Thawed,
    /// init exited, by itself or by a signal.
    Exited,
    /// `delete` without `--force`, which is an `Exited` that is brought about first.
    Deleted,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 7] = [
        Event::Prepared,
        Event::Started,
        Event::Signalled,
        Event::Froze,
        Event::Thawed,
        Event::Exited,
        Event::Deleted,
    ];
}

/// The outcome of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The container is in this status.
    Is(Status),
    /// The container no longer exists.
    Gone,
    /// The event is not allowed in that status.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as a person would draw it: rows in the order of `Status::ALL`, columns in the
    /// order of `Event::ALL`; `-` refused, `x` gone, else the first letters of the new status.
    const TABLE: [&str; 5] = [
        // Prepared Started Signalled Froze Thawed Exited Deleted
        "created - - - - stopped -",
        "- running created - - stopped x",
        "- - running paused - stopped -",
        "- - paused - running stopped -",
        "- - - - - - x",
    ];

    #[test]
    fn every_status_and_event_goes_where_the_table_says() {
        for (status, row) in Status::ALL.iter().zip(TABLE) {
            let cells: Vec<&str> = row.split(' ').collect();
            assert_eq!(cells.len(), Event::ALL.len());
            for (event, cell) in Event::ALL.iter().zip(cells) {
                let got = match status.after(*event) {
                    After::Is(next) => next.as_str(),
                    After::Gone => "x",
                    After::Refused => "-",
                };
                assert_eq!(got, cell, "{status} after {event:?}");
            }
        }
    }

    #[test]
    fn every_life_ends_in_stopped() {
        for status in Status::ALL {
            let after_exit = status.after(Event::Exited);
            assert!(status == Status::Stopped || after_exit == After::Is(Status::Stopped), "{status}");
        }
    }

    #[test]
    fn the_words_are_those_of_the_specification() {
        let words: Vec<String> = Status::ALL.iter().map(|s| serde_json::to_string(s).unwrap()).collect();
        assert_eq!(words, ["\"creating\"", "\"created\"", "\"running\"", "\"paused\"", "\"stopped\""]);
    }
}
