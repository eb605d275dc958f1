//! `turf-seed`: see the library.
//!
//! Standard output is for the starter, one message: `ready`, or the reason why not. Standard error is the log.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use turf_core::fault;
use turf_core::root::StateRoot;
use turf_core::seed::groups;
use turf_core::seed::registry::{READY, Registry, SeedDir, SeedSource, SeedState};
use turf_core::sys::identity::ProcessLayout;
use turf_seed::options::{Options, Place, Task};
use turf_seed::seed::Seed;
use turf_seed::server::Server;
use turf_seed::worker::{Beginning, Prepared};
use turf_seed::{confine, daemon, server, warmup};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("turf-seed: {text}");
            return ExitCode::from(2);
        }
    };
    match options.task {
        Task::Seed => be_seed(options),
        Task::Replace => replace(&options),
    }
}

/// Puts a fresh seed in the place of one that is due. The one who called goes on at once.
fn replace(options: &Options) -> ExitCode {
    let replaced = (|| {
        daemon::close_inherited()?;
        daemon::detach()?;
        daemon::forget_caller()?;
        Ok::<_, anyhow::Error>(Registry::at(&options.directory).replace_if_due(&options.name.parse()?)?)
    })();
    match replaced {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turf-seed: replace seed {}: {error:#}", options.name);
            ExitCode::FAILURE
        }
    }
}

fn be_seed(options: Options) -> ExitCode {
    let name = options.name.clone();
    match start(options) {
        Ok(seed) => seed.live(),
        Err(error) => {
            say(&format!("{error:#}"));
            eprintln!("turf-seed: {error:#}");
            groups::remove(&name);
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<Seed> {
    daemon::close_inherited()?;
    match options.place {
        Place::Daemon => daemon::detach()?,
        Place::Foreground => {}
    }
    daemon::forget_caller()?;
    let directory = SeedDir::at(&options.directory);
    arm_faults(&options.directory)?;
    let groups = daemon::enter_cgroups(&options);
    for left in &groups.left {
        eprintln!("turf-seed: {left}");
    }
    directory.write_groups(&groups.directories)?;
    let alive = directory.claim()?;
    directory
        .write_state(&SeedState { pid: std::process::id() as i32, source: options.recipe.source.clone() })?;
    let listener = server::listen(&directory.control())?;
    let own = confine::confine(&options.recipe.source, options.tenant, directory.path())?;
    // Before native memory is packed: a clone gives it back at once, and none of its own memory shall stand behind it.
    let packet = server::packet();
    let runtime = warmup::warm_runtime(&options)?;
    let server = Server::start(&options, listener, own, alive, None, packet)?;
    let beginning = match options.recipe.source {
        SeedSource::BuiltIns => Beginning::OwnScript,
        SeedSource::Script(_) | SeedSource::Snapshot(_) | SeedSource::Promoted(_) => Beginning::Deserialize,
    };
    let prepared = Prepared { layout: ProcessLayout::read().ok(), beginning };
    eprintln!("turf-seed: {} listens as process {}", options.name, std::process::id());
    say(READY);
    daemon::close_start_message().context("finish the start")?;
    Ok(Seed { server, runtime, prepared, options })
}

/// Reads the faults that tests ask for in the state directory, in which a seed has `seeds/NAME/GENERATION`.
fn arm_faults(directory: &Path) -> Result<()> {
    match directory.ancestors().nth(3) {
        Some(root) => Ok(fault::arm(&StateRoot::at(root)?)?),
        None => Ok(()),
    }
}

/// Tells the starter, who may be gone.
fn say(message: &str) {
    let mut output = std::io::stdout();
    let _ = writeln!(output, "{message}").and_then(|()| output.flush());
}
