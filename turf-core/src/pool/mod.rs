//! Pools: n workers on one port, as many as are needed, replaced when they die.
//!
//! ```text
//!              turf pool run                          (policy: a pure function of what is seen)
//!                    |
//!   clients     supervisor --create, start, delete--> containers <pool>.<generation>.<number>
//!      |          |     ^                                  |
//!      |          |     +--------- channel, gauges --------+
//!      +--- listening socket ------ accept ------------> worker
//! ```
//!
//! The supervisor is not in the way of requests: workers accept for themselves. What they do it reads from their
//! [gauges]; what they are to do it tells them over their [channel]. If it dies they serve on, and the next supervisor
//! takes them over ([`Supervisor::start`]).

mod admin;
mod adopt;
pub mod channel;
pub mod client;
pub mod config;
mod connections;
mod events;
pub mod gauges;
mod handover;
mod keeper;
mod listeners;
pub mod message;
mod messages;
pub mod place;
pub mod policy;
mod poller;
mod slow;
mod sockets;
mod source;
mod start;
mod status;
mod supervisor;
mod worker;

pub use config::{PoolConfig, PoolName, PoolOptions};
pub use supervisor::Supervisor;
