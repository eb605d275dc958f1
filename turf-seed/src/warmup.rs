//! From a started process to a JavaScript runtime worth forking.

use anyhow::{Context, Result};
use aworker_rt::{Runtime, Script, Snapshot, V8Flags, initialize};
use turf_core::seed::registry::SeedSource;
use turf_core::sys::program_pages;

use crate::options::Options;

/// Starts V8, warms it, brings a userland seed's program behind its `serialize` event, and gives back what memory
/// is not needed.
pub fn warm_runtime(options: &Options) -> Result<Runtime> {
    initialize(&V8Flags::default());
    let mut runtime = match &options.recipe.source {
        SeedSource::BuiltIns | SeedSource::Script(_) | SeedSource::Promoted(_) => Runtime::new(),
        SeedSource::Snapshot(path) => Snapshot::read(path)
            .and_then(Runtime::restored)
            .with_context(|| format!("snapshot {}", path.display()))?,
    };
    runtime.warm_up().context("warm up")?;
    if let SeedSource::Script(path) = &options.recipe.source {
        let script = Script::read(path)?;
        runtime.load(&script).with_context(|| format!("run {}", path.display()))?;
        runtime.fire_serialize().with_context(|| format!("fire serialize in {}", path.display()))?;
    }
    runtime.await_forks(program_pages::give_back).context("rehearse")?;
    Ok(runtime)
}
