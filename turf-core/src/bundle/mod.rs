//! Bundles: a directory with a config.json, loaded, validated, and what kind of workload it is.
//!
//! The specification is <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/bundle.md>.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::Result;

/// A validated bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its directory: absolute, without symbolic links.
    pub directory: PathBuf,
    /// Its configuration.
    pub spec: Spec,
    /// The container's root directory: absolute, without symbolic links; `None` for a worker
    /// bundle without an image.
    pub rootfs: Option<PathBuf>,
    workload: Workload,
}

/// What runs in a bundle's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A worker, forked from a seed.
    Worker,
    /// A program, executed.
    Exec,
}

impl Bundle {
    /// Loads and validates `config.json` in `directory`. Errors name the place:
    /// `config.json: $.process.args: must not be empty`.
    pub fn load(directory: &Path) -> Result<Bundle> {
        let _ = directory;
        Err(crate::Error::invalid("config.json", "not available"))
    }

    /// What runs in the container.
    pub fn workload(&self) -> Workload {
        self.workload
    }
}
