//! System calls: one function per call, typed (`OwnedFd`, never a number), named as its man page.
//!
//! This is the only room of the library where `unsafe` is allowed. What `nix` or `std` already
//! offers safely is called directly from where it is needed and is not wrapped again here.
#![allow(unsafe_code)]

pub mod bpf;
pub mod credentials;
pub mod fd;
pub mod fork;
pub mod identity;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod pidfd;
pub mod process;
pub mod program;
pub mod program_pages;
pub mod socket;
pub mod terminal;
