//! The name of a seed: a directory's name, checked once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits;

/// The name of the seed that starts on first use.
pub const DEFAULT_SEED: &str = "default";

/// The name of a seed: 1 to 64 letters, digits, `_`, `-`, `.`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SeedName(String);

impl SeedName {
    /// The seed that starts on first use.
    pub fn default_seed() -> SeedName {
        SeedName(DEFAULT_SEED.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SeedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<SeedName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= limits::SEED_NAME_BYTES && text.bytes().all(allowed) {
            return Ok(SeedName(text.to_owned()));
        }
        let rule = "must be 1 to 64 letters, digits, '_', '-' or '.', and start with a letter or digit";
        Err(Error::invalid(format!("seed name {text:?}"), rule))
    }
}

impl TryFrom<String> for SeedName {
    type Error = Error;

    fn try_from(text: String) -> Result<SeedName> {
        text.parse()
    }
}

impl From<SeedName> for String {
    fn from(name: SeedName) -> String {
        name.0
    }
}

impl fmt::Display for SeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
