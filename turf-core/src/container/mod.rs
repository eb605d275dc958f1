//! The life of a container: its status, its state on disk, and the operations of the OCI
//! runtime specification (`create`, `start`, `kill`, `delete`, ...), one file each.
//!
//! Every operation takes the state directory and an id, and may be killed between any two of its
//! steps: what it leaves is told truthfully by [`state()`] and removed by [`delete()`].

mod cgroups;
mod create;
mod delete;
mod events;
mod exec;
mod fresh;
mod hook;
mod host_root;
mod kill;
mod listen;
mod notify;
mod pause;
pub mod process;
mod promotable;
mod promote;
mod query;
mod ready;
mod rootless;
mod run;
mod start;
pub mod state;
mod status;
mod tenant;
mod terminal;
mod update;

pub use cgroups::{CgroupManager, CgroupOptions, Unwritable};
pub use create::{Begin, CreateOptions, Notifications, create, create_fresh, plan};
pub use delete::{Force, delete};
pub use events::{Event, Events, stats};
pub use exec::{Changes, Exec, ExecProcess, IfPaused, User, exec};
pub use fresh::{Fresh, Running};
pub use kill::{SignalNumber, Target, kill};
pub use notify::{Notify, service_manager};
pub use pause::{pause, resume};
pub use promote::promote;
pub use query::{Unreadable, list, processes, state};
pub use ready::{Heard, Ready, Starting, Supervised};
pub use run::{Attended, Foreground};
pub use start::{open_listeners, start};
pub use state::OciState;
pub use status::{After, Status};
pub use terminal::{Console, Terminal};
pub use update::{Limits, RESOURCES_BYTES, Schemas, update};
