//! Seeds from the outside: how to start one, find it and ask it for a worker.
//!
//! A seed is a warm V8 process (the `turf-seed` program) that listens on a socket in its [`directory`] below
//! `<root>/seeds/<name>/`. This module holds what both sides share ([`protocol`], [`plan`]), the asking side ([`client`]),
//! and the [`registry`], which starts, replaces and stops seeds; [`bundle`] finds the script of a worker bundle; [`privileges`], [`tenant`] and [`groups`] say what a seed may
//! do; [`promotion`] makes one of a worker that serves; [`upkeep`] has one replaced when it is old. It never hears of V8.

pub mod bundle;
pub mod client;
pub mod directory;
pub mod groups;
pub mod name;
pub mod plan;
pub mod privileges;
pub mod promotion;
pub mod protocol;
pub mod registry;
mod spawn;
pub mod tenant;
pub mod upkeep;
mod watch;

/// Connections to a seed that wait for their turn. A burst of starts is some hundreds; more are told to try again.
pub const SEED_BACKLOG: i32 = 1024;
