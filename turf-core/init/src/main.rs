//! `turf-init`: the first process of a container, and what `turf exec` enters one with.
//!
//! Executed by `turf` from a sealed memfd, so that nothing in a container can reach a program of the host
//! through `/proc/PID/exe` (CVE-2019-5736), with the number of the descriptor that holds its orders as
//! its only argument.

#![no_std]
#![no_main]

mod calls;
mod message;
mod orders;
mod sys;
mod waiting;

#[path = "sys/entry.rs"]
mod entry;
