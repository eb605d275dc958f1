//! The command line of `turf-seed`. People use `turf seed start`, which writes it.

use std::path::PathBuf;

/// How the program is to be called.
pub const USAGE: &str = "usage: turf-seed --name NAME --directory DIRECTORY [--script FILE] [--foreground]";

/// What the program was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The seed's name.
    pub name: String,
    /// Its directory, which exists.
    pub directory: PathBuf,
    /// The script of a userland seed.
    pub script: Option<PathBuf>,
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
        let (mut name, mut directory, mut script, mut place) = (None, None, None, Place::Daemon);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--name" => name = Some(value()?),
                "--directory" => directory = Some(PathBuf::from(value()?)),
                "--script" => script = Some(PathBuf::from(value()?)),
                "--foreground" => place = Place::Foreground,
                _ => return Err(format!("unknown argument {argument:?}\n{USAGE}")),
            }
        }
        let missing = |flag: &str| format!("{flag} is missing\n{USAGE}");
        Ok(Options {
            name: name.ok_or_else(|| missing("--name"))?,
            directory: directory.ok_or_else(|| missing("--directory"))?,
            script,
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
        assert_eq!((options.name.as_str(), options.script), ("a", Some("/s.js".into())));
        for (line, word) in [
            ("--name a", "--directory is missing"),
            ("--directory /r", "--name is missing"),
            ("--name", "needs a value"),
            ("--snapshot x", "unknown argument \"--snapshot\""),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
