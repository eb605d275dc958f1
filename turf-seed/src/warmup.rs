//! From a started process to a JavaScript runtime worth forking.

use anyhow::{Context, Result};
use aworker_rt::{Runtime, Script, V8Flags, initialize};

use crate::options::Options;

/// Starts V8, warms it, runs a userland seed's script up to `serialize`, and gives back what memory is not needed.
pub fn warm_runtime(options: &Options) -> Result<Runtime> {
    initialize(&V8Flags::default());
    let mut runtime = Runtime::new();
    runtime.warm_up().context("warm up")?;
    if let Some(path) = &options.script {
        let script = Script::read(path)?;
        runtime.load(&script).with_context(|| format!("run {}", path.display()))?;
        runtime.fire_serialize().with_context(|| format!("fire serialize in {}", path.display()))?;
    }
    runtime.settle();
    Ok(runtime)
}
