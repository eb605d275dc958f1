//! The command line of `turf-seed`. People use `turf seed start`, which writes it.

use std::path::PathBuf;

use turf_core::seed::registry::{Recipe, SeedSource};

/// How the program is to be called.
pub const USAGE: &str = "usage: turf-seed --name NAME --directory DIRECTORY [--script FILE | --snapshot FILE]
                 [--tenant ID] [--max-forks NUMBER] [--max-age-ms NUMBER] [--foreground]
       turf-seed --replace --name NAME --directory SEEDS";

/// What the program was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The seed's name.
    pub name: String,
    /// Its directory, which exists; for [`Task::Replace`] the directory of all seeds.
    pub directory: PathBuf,
    /// What it loads, and when it is to be replaced.
    pub recipe: Recipe,
    /// Whether to leave a daemon behind or to be the seed.
    pub place: Place,
    /// The user that user code runs as; without it, it runs as whoever has called.
    pub tenant: Option<u32>,
    /// What to do.
    pub task: Task,
}

/// What the program is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To be a seed.
    Seed,
    /// To put a fresh seed in the place of one that is due.
    Replace,
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
        let mut recipe = Recipe::from(SeedSource::BuiltIns);
        let (mut task, mut tenant) = (Task::Seed, None);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--name" => name = Some(value()?),
                "--directory" => directory = Some(PathBuf::from(value()?)),
                "--script" => recipe.source = SeedSource::Script(value()?.into()),
                "--snapshot" => recipe.source = SeedSource::Snapshot(value()?.into()),
                "--max-forks" => recipe.max_forks = Some(number(&argument, &value()?)?),
                "--max-age-ms" => recipe.max_age_ms = Some(number(&argument, &value()?)?),
                "--tenant" => tenant = Some(number(&argument, &value()?)?),
                "--replace" => task = Task::Replace,
                "--foreground" => place = Place::Foreground,
                _ => return Err(format!("unknown argument {argument:?}\n{USAGE}")),
            }
        }
        let missing = |flag: &str| format!("{flag} is missing\n{USAGE}");
        Ok(Options {
            name: name.ok_or_else(|| missing("--name"))?,
            directory: directory.ok_or_else(|| missing("--directory"))?,
            recipe,
            place,
            tenant,
            task,
        })
    }
}

fn number<N: std::str::FromStr>(flag: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{flag} {text:?} is no number\n{USAGE}"))
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
        assert_eq!((options.name.as_str(), options.recipe.source), ("a", SeedSource::Script("/s.js".into())));
        let options = parse("--name a --directory /r --snapshot /s").unwrap();
        assert_eq!((options.recipe.source, options.task), (SeedSource::Snapshot("/s".into()), Task::Seed));
        let options =
            parse("--name a --directory /r --max-forks 7 --max-age-ms 9 --tenant 5 --replace").unwrap();
        assert_eq!(options.tenant, Some(5));
        assert_eq!((options.recipe.max_forks, options.recipe.max_age_ms), (Some(7), Some(9)));
        assert_eq!(options.task, Task::Replace);
        for (line, word) in [
            ("--name a", "--directory is missing"),
            ("--directory /r", "--name is missing"),
            ("--name", "needs a value"),
            ("--max-forks many", "is no number"),
            ("--heap x", "unknown argument \"--heap\""),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
