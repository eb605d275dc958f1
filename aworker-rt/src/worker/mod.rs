//! The life of a worker.
//!
//! ```text
//!   Runtime::new -> [load -> fire_serialize] -> [warm_up] -> settle -> (fork)
//!        |                                                        |
//!        +------------------ become_worker <----------------------+
//!                                  |
//!   Worker::run:  load | deserialize -> install -> activate -> serve or drain the loop -> exit status
//!   Worker::run_until_asked: the same, with a pause when somebody asks for a clone; Worker::into_seed in the clone
//! ```

pub(crate) mod handover;
mod heap_snapshot;
mod lifecycle;
mod listener;
pub(crate) mod listeners;
pub(crate) mod messages;
pub mod promotion;
mod serve;
mod snapshot;
pub mod supervised;
mod warm_up;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use lifecycle::Start;
pub use listener::{ListenAddress, Listener};
pub use promotion::{Asked, Pause};
pub(crate) use serve::retire;
pub use snapshot::build_snapshot;
pub use supervised::Supervision;
use warm_up::Program;

use crate::engine::{Engine, ImportMap, Script, ScriptError};
use crate::event_loop;
use crate::http::{self, ServerOptions};
use crate::inspector::InspectOptions;
use crate::net::{self, FileUrls, NetFiles, NetOptions};

/// The variable of the environment that names a worker's import map.
pub const IMPORT_MAP: &str = "AWORKER_IMPORT_MAP";

/// JavaScript, ready to load a script: in a seed, or in a process that becomes
/// a worker at once.
pub struct Runtime {
    engine: Engine,
    /// Timers of a snapshot's program: armed once this process is a worker.
    timers: Vec<(u64, i64)>,
    program: Program,
}

/// What a worker is told of the place it runs in.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// The script's own arguments.
    pub arguments: Vec<String>,
    /// The environment a script sees.
    pub environment: Vec<(String, String)>,
    /// Where to go before anything else; the process's own working directory
    /// when absent.
    pub working_directory: Option<PathBuf>,
    /// Where to listen if the script handles `fetch` and `run` is given no
    /// listener.
    pub default_listen: Option<ListenAddress>,
    /// Told every address once the worker accepts connections there.
    pub on_listening: Option<fn(&ListenAddress)>,
    /// Called once, when the worker serves and has nothing to do for the first time.
    pub when_idle: Option<fn()>,
    /// What `self.location` is, and where relative URLs begin; the script's own URL when absent.
    pub location: Option<String>,
    /// Where to listen for a debugger, if at all.
    pub inspect: Option<InspectOptions>,
    /// Where to write a CPU profile of the whole run, if at all.
    pub cpu_profile: Option<PathBuf>,
    /// Whether SIGUSR2 writes a heap snapshot.
    pub heap_snapshots: HeapSnapshots,
    /// Limits of the HTTP server.
    pub server: ServerOptions,
    /// Where the resolver finds its settings.
    pub net_files: NetFiles,
    /// Whether `fetch` reads files.
    pub file_urls: FileUrls,
}

/// Whether a signal writes a heap snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeapSnapshots {
    /// SIGUSR2 has its usual meaning.
    #[default]
    Never,
    /// SIGUSR2 writes `aworker-PID-N.heapsnapshot` into the working directory.
    OnSignal,
}

/// A runtime that may serve: it has its own randomness, time and environment.
pub struct Worker {
    engine: Engine,
    options: WorkerOptions,
}

impl Runtime {
    /// Makes a runtime with the built-ins. V8 must have been started with
    /// [`crate::initialize`].
    pub fn new() -> Runtime {
        Runtime::around(Engine::new())
    }

    fn around(mut engine: Engine) -> Runtime {
        engine.with_scope(|scope| {
            event_loop::attach(scope);
            http::attach(scope);
        });
        Runtime { engine, timers: Vec::new(), program: Program::None }
    }

    /// What specifiers mean beyond paths; for a program that is not loaded yet.
    pub fn set_import_map(&mut self, import_map: ImportMap) {
        self.engine.set_import_map(import_map);
    }

    /// Runs a program's top level to its end, as a seed does.
    ///
    /// # Errors
    /// Syntax errors, failed imports, what the top level throws, and a
    /// top-level `await` that nothing can settle.
    pub fn load(&mut self, script: &Script) -> Result<(), ScriptError> {
        self.program = Program::Loaded;
        self.engine.with_scope(|scope| lifecycle::load(scope, script).map(drop))
    }

    /// Fires `serialize` and waits for what its listeners wait for.
    ///
    /// # Errors
    /// What a listener throws or a promise given to `waitUntil` is rejected with.
    pub fn fire_serialize(&mut self) -> Result<(), ScriptError> {
        self.engine.with_scope(|scope| lifecycle::fire(scope, "serialize"))
    }

    /// Exercises the built-ins until their hot paths are compiled, so that clones
    /// share the code instead of making it. For seeds; a cold worker has no use
    /// for it.
    ///
    /// # Errors
    /// A built-in failed: the build is broken.
    pub fn warm_up(&mut self) -> Result<(), ScriptError> {
        self.engine.with_scope(|scope| warm_up::warm_up(scope, self.program))
    }

    /// Collects garbage and stops the clock of timers.
    pub fn settle(&mut self) {
        self.engine.with_scope(|scope| {
            net::freeze(scope);
            event_loop::get(scope).stop_clock();
        });
        self.engine.settle();
    }

    /// [`Runtime::settle`] for a process that waits for forks: what every worker does first is brought back into
    /// memory, and native memory is packed no further, so that clones share what they have of it. `give_back` is
    /// called when all code has been made and may unmap what of the program is not needed any more.
    ///
    /// # Errors
    /// A built-in failed: the build is broken. There is no memory for a copy of a large heap. An error of `give_back`.
    pub fn await_forks(&mut self, give_back: impl FnOnce() -> io::Result<()>) -> Result<(), ScriptError> {
        self.settle();
        // What the rehearsal allocates and workers write to (remembered sets, tables of names) lies together.
        self.engine.pack_memory();
        self.engine.with_scope(|scope| warm_up::rehearse(scope, self.program))?;
        give_back().map_err(|error| ScriptError::new(format!("give back the program's pages: {error}")))?;
        // Workers share the pages of the program that this brings back.
        self.engine.with_scope(|scope| warm_up::rehearse_again(scope, self.program))?;
        self.engine.freeze().map_err(|error| ScriptError::new(format!("move the heap into a file: {error}")))
    }

    /// For a clone of a seed that waits for its start: what every worker writes to first becomes its own memory, and
    /// the program's pages that every worker runs are mapped. It is still no worker: nothing is read that differs from
    /// clone to clone.
    ///
    /// # Errors
    /// A built-in failed: the build is broken.
    pub fn rehearse(&mut self) -> Result<(), ScriptError> {
        self.engine.with_scope(|scope| warm_up::rehearse_in_clone(scope, self.program))
    }

    /// Makes local times those of the process's environment again, after a worker's zone.
    pub fn forget_time_zone(&mut self) {
        self.engine.forget_time_zone();
    }

    /// Whether the process holds something that must not be shared with a clone.
    pub fn may_be_forked(&mut self) -> bool {
        self.engine.with_scope(|scope| !event_loop::get(scope).has_epoll())
    }

    /// Puts the worker that this will be under a supervisor.
    ///
    /// # Errors
    /// The page of the gauges cannot be mapped.
    pub fn supervise(&mut self, supervision: Supervision) -> std::io::Result<()> {
        self.engine.with_scope(|scope| supervised::attach(scope, supervision))
    }

    /// Makes this process's copy of the runtime a worker of its own: randomness,
    /// time origin, environment, clock.
    ///
    /// # Errors
    /// The working directory cannot be entered.
    pub fn become_worker(mut self, options: WorkerOptions) -> Result<Worker, ScriptError> {
        if let Some(directory) = &options.working_directory {
            std::env::set_current_dir(directory)
                .map_err(|error| ScriptError::new(format!("chdir to {}: {error}", directory.display())))?;
        }
        if let Some((_, zone)) = options.environment.iter().find(|(name, _)| name == "TZ") {
            self.engine.set_time_zone(zone);
        }
        self.engine.with_scope(|scope| {
            event_loop::get(scope).start_clock();
            event_loop::get(scope).arm_script_timers(&self.timers);
            net::thaw(scope, NetOptions::new(&options));
            crate::files::become_worker(scope);
            crate::web::performance::reset_time_origin(scope);
            lifecycle::tell_environment(scope, &options)
        })?;
        Ok(Worker { engine: self.engine, options })
    }
}

impl Default for Runtime {
    fn default() -> Runtime {
        Runtime::new()
    }
}

impl Worker {
    /// Lives until the end; the status the process is to exit with, soon: the
    /// heap is not taken apart, which would touch and copy most of its pages.
    ///
    /// Errors of the script go to standard error: they are part of what the
    /// script says, like its `console`.
    pub fn run(mut self, start: Start, listeners: Vec<Listener>) -> i32 {
        let Worker { engine, options } = &mut self;
        let status = engine.with_scope(|scope| lifecycle::run_observed(scope, &start, listeners, options));
        std::mem::forget(self.engine);
        status
    }

    /// Lets whoever connects to this listener ask for a clone once the worker serves: for [`Worker::run_until_asked`].
    pub fn be_promotable(&mut self, listener: OwnedFd) {
        self.engine.with_scope(|scope| promotion::attach(scope, listener));
    }

    /// As [`Worker::run`], but returns also when somebody has asked for a clone; then [`Worker::go_on`].
    pub fn run_until_asked(&mut self, start: &Start, listeners: Vec<Listener>) -> Pause {
        let Worker { engine, options } = self;
        engine.with_scope(|scope| lifecycle::run_until_asked(scope, start, listeners, options))
    }

    /// Serves on after [`Pause::Asked`].
    pub fn go_on(&mut self) -> Pause {
        self.engine.with_scope(lifecycle::go_on)
    }

    /// In a clone of a worker that has paused without an obstacle: forgets what is the worker's, its listeners and clients
    /// first of all. What its script has made is kept.
    pub fn into_seed(mut self) -> Runtime {
        self.engine.with_scope(promotion::forget_worker);
        Runtime { engine: self.engine, timers: Vec::new(), program: Program::Loaded }
    }

    /// Runs a program and returns its completion value as text: `aworker eval`.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn evaluate(&mut self, script: &Script) -> Result<Option<String>, ScriptError> {
        self.engine.with_scope(|scope| lifecycle::evaluate(scope, script))
    }
}
