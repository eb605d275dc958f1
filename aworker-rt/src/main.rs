//! `aworker`: runs a script from the command line, cold, as `turf` runs it from
//! a warm seed.

mod options;
mod watch;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use aworker_rt::engine::{give_back_memory, in_child, listen_fds};
use aworker_rt::http::ServerOptions;
use aworker_rt::net::{FileUrls, NetFiles};
use aworker_rt::{
    HeapSnapshots, IMPORT_MAP, ImportMap, ListenAddress, Listener, Runtime, Script, ScriptError, Snapshot,
    Start, V8Flags, Worker, WorkerOptions, build_snapshot,
};
use options::{Command, Program, RunOptions};

/// Where a worker listens when nobody says otherwise; `$PORT` replaces the port.
const DEFAULT_PORT: &str = "8080";

/// How long a program may take to the end of `serialize` when a snapshot of it is built and nobody says otherwise: programs
/// that prepare much take seconds.
const DEFAULT_BUILD_TIMEOUT_S: u64 = 60;

/// Exit status for a command line that cannot be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let outcome = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { options, .. }) if options.watch => {
            let again = watch::without_watch(std::env::args_os().skip(1));
            let failed = |error| ScriptError::new(format!("--watch: {error}"));
            watch::run(&again).map(ExitCode::from).map_err(failed)
        }
        Ok(Command::Run { program, options }) => run(program, options),
        Ok(Command::Eval { code, options }) => evaluate(&code, options),
        Ok(Command::BuildSnapshot { file, output, options }) => write_snapshot(&file, &output, options),
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("aworker {} (V8 {})", env!("CARGO_PKG_VERSION"), aworker_rt::engine::v8_version());
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("aworker: {message}\nTry `aworker --help`.");
            return ExitCode::from(USAGE);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

/// Runs a program up to `serialize` and writes its heap.
fn write_snapshot(file: &Path, output: &Path, options: RunOptions) -> Result<ExitCode, ScriptError> {
    let script = Script::read(file)?;
    let import_map = import_map(&options)?;
    let limit_s = options.timeout_s.unwrap_or(DEFAULT_BUILD_TIMEOUT_S);
    let built = in_child(Duration::from_secs(limit_s), || {
        initialize(&options);
        let failed = |error| ScriptError::new(format!("write {}: {error}", output.display()));
        let written =
            build_snapshot(&script, import_map).and_then(|snapshot| snapshot.write(output).map_err(failed));
        if let Err(error) = &written {
            eprintln!("{}: {error}", file.display());
        }
        i32::from(written.is_err())
    });
    let status = built.map_err(|error| ScriptError::new(format!("fork the builder: {error}")))?;
    let status = status.ok_or_else(|| {
        ScriptError::new(format!(
            "{}: after {limit_s} s its top level and `serialize` have not ended; --timeout SECONDS gives them more",
            file.display()
        ))
    })?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::FAILURE),
        None => Err(ScriptError::new(format!(
            "{}: the program ended before its heap was written ({status}); what is said above is why",
            file.display()
        ))),
    }
}

/// Runs a program's whole life.
fn run(program: Program, options: RunOptions) -> Result<ExitCode, ScriptError> {
    let (start, runtime) = match program {
        Program::Script(file) => {
            let script = Script::read(&file)?;
            (Start::Load(script), fresh_runtime(&options)?)
        }
        Program::Snapshot(file) => {
            initialize(&options);
            let restored = Snapshot::read(&file).and_then(Runtime::restored);
            let failed = |error| ScriptError::new(format!("snapshot {}: {error}", file.display()));
            (Start::Deserialize, restored.map_err(failed)?)
        }
    };
    let mut listeners = inherited_listeners()?;
    for address in &options.listen {
        listeners.push(Listener::bind(address).map_err(|error| ScriptError::new(error.to_string()))?);
    }
    let status = worker(runtime, options)?.run(start, listeners);
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// Evaluates code, and prints the value of a classic script.
fn evaluate(code: &str, options: RunOptions) -> Result<ExitCode, ScriptError> {
    let runtime = fresh_runtime(&options)?;
    let value = worker(runtime, options)?.evaluate(&Script::from_text("[eval]", code))?;
    if let Some(value) = value {
        // A reader that has gone away is no failure of the code.
        let _ = writeln!(std::io::stdout(), "{value}");
    }
    Ok(ExitCode::SUCCESS)
}

fn fresh_runtime(options: &RunOptions) -> Result<Runtime, ScriptError> {
    let import_map = import_map(options)?;
    initialize(options);
    let mut runtime = Runtime::new();
    if let Some(import_map) = import_map {
        runtime.set_import_map(import_map);
    }
    Ok(runtime)
}

/// The map of the command line, else the environment's.
fn import_map(options: &RunOptions) -> Result<Option<ImportMap>, ScriptError> {
    let named = options.import_map.clone().or_else(|| std::env::var_os(IMPORT_MAP).map(Into::into));
    named.map(|path| ImportMap::read(&path)).transpose()
}

fn initialize(options: &RunOptions) {
    aworker_rt::initialize(&V8Flags { max_heap_mb: options.max_heap_mb, extra: options.v8_flags.clone() });
}

fn worker(runtime: Runtime, options: RunOptions) -> Result<Worker, ScriptError> {
    let port = std::env::var("PORT").unwrap_or_else(|_| DEFAULT_PORT.to_owned());
    let default_listen: ListenAddress = format!("tcp://0.0.0.0:{port}")
        .parse()
        .map_err(|error| ScriptError::new(format!("PORT: {error}")))?;
    let mut net_files = NetFiles::default();
    net_files.resolv_conf = options.resolv_conf.unwrap_or(net_files.resolv_conf);
    let file_urls = if options.allow_file_fetch { FileUrls::Allowed } else { FileUrls::Refused };
    let mut server = ServerOptions::default();
    server.max_body_bytes = options.max_body_bytes.unwrap_or(server.max_body_bytes);
    server.request_timeout_ms = options.request_timeout_ms.unwrap_or(server.request_timeout_ms);
    server.idle_timeout_ms = options.idle_timeout_ms.unwrap_or(server.idle_timeout_ms);
    server.stall_timeout_ms = options.stall_timeout_ms.unwrap_or(server.stall_timeout_ms);
    let tools = match options.inspect.is_some() || options.cpu_profile.is_some() {
        true => Tools::InThreads,
        false => Tools::None,
    };
    runtime.become_worker(WorkerOptions {
        arguments: options.arguments,
        environment: environment(),
        working_directory: None,
        default_listen: Some(default_listen),
        on_listening: Some(announce),
        // What the work of starting has left behind goes back to the system, but not before the first answer.
        when_idle: match tools {
            Tools::None => Some(give_back_memory),
            Tools::InThreads => None,
        },
        location: options.location,
        inspect: options.inspect,
        cpu_profile: options.cpu_profile,
        heap_snapshots: match options.heap_snapshot_on_signal {
            true => HeapSnapshots::OnSignal,
            false => HeapSnapshots::Never,
        },
        server,
        net_files,
        file_urls,
    })
}

/// Whether a tool has brought threads of its own into the process.
enum Tools {
    None,
    InThreads,
}

/// Says, in one write, where the worker listens.
fn announce(address: &ListenAddress) {
    let line = format!("aworker: listening on {address}\n");
    eprint!("{line}");
}

/// Sockets from a service manager.
fn inherited_listeners() -> Result<Vec<Listener>, ScriptError> {
    let fds = listen_fds().map_err(|error| ScriptError::new(error.to_string()))?;
    let listeners: Result<Vec<Listener>, _> = fds.into_iter().map(Listener::from_fd).collect();
    listeners.map_err(|error| ScriptError::new(format!("LISTEN_FDS: {error}")))
}

/// The process's environment; what is not UTF-8 is shown with U+FFFD.
fn environment() -> Vec<(String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
