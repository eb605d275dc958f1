//! `turf spec`.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};
use turf_core::bundle::default;

use crate::command::Spec;

/// Writes config.json into the bundle's directory; an existing one is not touched.
pub fn run(spec: &Spec) -> Result<()> {
    let path = spec.file.clone().unwrap_or_else(|| spec.bundle.join("config.json"));
    let text = if spec.worker { default::WORKER.to_owned() } else { default::program() };
    let text = if spec.rootless { default::rootless(&text)? } else { text };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}
