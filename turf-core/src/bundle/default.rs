//! The config.json files that `turf spec` writes.

/// A bundle that executes a shell in `rootfs`, like the one runc writes.
pub const PROGRAM: &str = include_str!("default/program.json");

/// A worker bundle without an image: the bundle's own directory is mounted on /app, and
/// `worker.js` in it is the script.
pub const WORKER: &str = include_str!("default/worker.json");
