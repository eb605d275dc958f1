// What the build script and the library must agree on about the startup
// snapshot. Included by both.

/// Flags that change what the snapshot holds.
const SNAPSHOT_FLAGS: &str = "--single-threaded --no-flush-bytecode";

/// Index of the `internals` object among the context's data.
const INTERNALS_INDEX: usize = 0;
