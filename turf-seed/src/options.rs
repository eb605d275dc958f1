//! The command line of `turf-seed`. People use `turf seed start`, which writes it.

use std::path::PathBuf;

use turf_core::seed::registry::SeedSource;

/// How the program is to be called.
pub const USAGE: &str =
    "usage: turf-seed --name NAME --directory DIRECTORY [--script FILE | --snapshot FILE] [--foreground]";

/// What the program was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The seed's name.
    pub name: String,
    /// Its directory, which exists.
    pub directory: PathBuf,
    /// What it loads.
    pub source: SeedSource,
    /// Whether to leave a daemon behind or to be the seed.
    pub place: Place,
}

/// Where the seed lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a session of its own, while the program that was called returns.
    Daemon,
    /// In the program that was called: for a service manager.
    Foreground,
}

impl Options {
    /// Understands the arguments behind the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Options, String> {
        let mut arguments = arguments.into_iter();
        let (mut name, mut directory, mut place) = (None, None, Place::Daemon);
        let mut source = SeedSource::BuiltIns;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--name" => name = Some(value()?),
                "--directory" => directory = Some(PathBuf::from(value()?)),
                "--script" => source = SeedSource::Script(value()?.into()),
                "--snapshot" => source = SeedSource::Snapshot(value()?.into()),
                "--foreground" => place = Place::Foreground,
                _ => return Err(format!("unknown argument {argument:?}\n{USAGE}")),
            }
        }
        let missing = |flag: &str| format!("{flag} is missing\n{USAGE}");
        Ok(Options {
            name: name.ok_or_else(|| missing("--name"))?,
            directory: directory.ok_or_else(|| missing("--directory"))?,
            source,
            place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn name_and_directory_are_required_and_the_rest_is_known() {
        let options = parse("--name a --directory /r --script /s.js --foreground").unwrap();
        assert_eq!((options.name.as_str(), options.source), ("a", SeedSource::Script("/s.js".into())));
        let options = parse("--name a --directory /r --snapshot /s").unwrap();
        assert_eq!(options.source, SeedSource::Snapshot("/s".into()));
        for (line, word) in [
            ("--name a", "--directory is missing"),
            ("--directory /r", "--name is missing"),
            ("--name", "needs a value"),
            ("--heap x", "unknown argument \"--heap\""),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
