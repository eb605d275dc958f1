//! The startup snapshot that the build script made of `src/js`.

include!("snapshot_layout.rs");

/// V8 reads the blob in words: keep it aligned.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static BLOB: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/builtins.snapshot")));

/// The heap with all built-ins loaded.
pub(super) fn builtins() -> v8::StartupData {
    v8::StartupData::from(&BLOB.0)
}

/// Flags the snapshot was made with.
pub(super) const FLAGS: &str = SNAPSHOT_FLAGS;

/// Index of `internals` among the context's data.
pub(super) const INTERNALS: usize = INTERNALS_INDEX;
