//! The life of a container: its status, its state on disk, and the operations of the OCI
//! runtime specification (`create`, `start`, `kill`, `delete`, ...), one file each.
//!
//! Every operation takes the state directory and an id, and may be killed between any two of its
//! steps: what it leaves is told truthfully by [`state()`] and removed by [`delete()`].

pub mod process;
pub mod state;
mod status;

pub use status::{After, Event, Status};
