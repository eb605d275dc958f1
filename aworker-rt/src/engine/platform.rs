//! Starting V8: flags and the single-threaded platform, once per process.

use std::sync::{Once, OnceLock};

use super::{malloc, snapshot};

/// Settings of V8 that are fixed for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct V8Flags {
    /// Limit of the JavaScript heap (its old generation); V8's own choice (by the machine's memory)
    /// when absent.
    pub max_heap_mb: Option<u32>,
    /// Further flags in V8's own notation, for instance `--jitless`.
    pub extra: Vec<String>,
}

/// Flags every process runs with.
///
/// - no bytecode flushing: a seed may idle for hours and must keep its warm code;
/// - no memory reducer: it starts collections by time, and a collection in a
///   clone dirties pages that it shares with the seed;
/// - a small semi-space: its pages are the first that every clone dirties;
/// - 40 MB before the old generation is marked. ArrayBuffers of young views count
///   there, too: with V8's own 8 MB a stream of chunks makes it mark the whole heap
///   every 8 MB, while at 32 MB of such buffers a scavenge frees them all (36 is enough).
const FLAGS: &str = "--no-memory-reducer --max-semi-space-size=2 --min-semi-space-size=1 \
    --initial-old-space-size=40 --no-verify-snapshot-checksum";

static STARTED: Once = Once::new();

/// All flags that V8 was started with, but for its limits.
static IN_FORCE: OnceLock<String> = OnceLock::new();

/// Starts V8 on a platform without threads. Only the first call has an effect.
pub fn initialize(flags: &V8Flags) {
    STARTED.call_once(|| {
        malloc::make_forkable();
        v8::V8::set_flags_from_string(snapshot::FLAGS);
        v8::V8::set_flags_from_string(FLAGS);
        if let Some(limit) = flags.max_heap_mb {
            v8::V8::set_flags_from_string(&format!("--max-old-space-size={limit}"));
        }
        let mut in_force = format!("{} {FLAGS}", snapshot::FLAGS);
        for flag in &flags.extra {
            v8::V8::set_flags_from_string(flag);
            in_force = in_force + " " + flag;
        }
        IN_FORCE.get_or_init(|| in_force);
        // V8's own source reads 4 kB of /dev/urandom for each of seven generators.
        v8::V8::set_entropy_source(fill_with_entropy);
        v8::V8::initialize_platform(v8::new_single_threaded_default_platform(false).make_shared());
        v8::V8::initialize();
    });
}

fn fill_with_entropy(bytes: &mut [u8]) -> bool {
    getrandom::fill(bytes).is_ok()
}

/// Runs one of V8's own tasks (garbage collection, WebAssembly) if one is due;
/// whether there was one.
pub fn run_platform_task(isolate: &v8::Isolate) -> bool {
    match isolate.get_slot::<Platform>() {
        Some(Platform(platform)) => v8::Platform::pump_message_loop(platform, isolate, false),
        None => false,
    }
}

/// The platform, kept in the isolate: V8's own record of it is behind a lock.
struct Platform(v8::SharedRef<v8::Platform>);

/// Lets [`run_platform_task`] find the platform.
pub(super) fn attach(isolate: &mut v8::Isolate) {
    isolate.set_slot(Platform(v8::V8::get_current_platform()));
}

/// The flags that decide whether a snapshot fits: all but V8's limits.
pub(super) fn flags() -> &'static str {
    IN_FORCE.get().map_or(FLAGS, String::as_str)
}

/// The version of V8, for instance `15.0.245.2`.
pub fn v8_version() -> &'static str {
    v8::V8::get_version()
}
