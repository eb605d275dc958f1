//! The life of a container: its status, its state on disk, and the operations of the OCI
//! runtime specification (`create`, `start`, `kill`, `delete`, ...).

mod status;

pub use status::{After, Event, Status};
