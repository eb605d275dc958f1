//! The command lines that engines write all day, understood without clap, which first describes every verb and flag
//! to itself: a third of the page faults and a fifth of the instructions of a short verb.
//!
//! This is no second grammar: whatever is not entirely plain (a flag given twice, a value that begins with a hyphen,
//! an unknown word) is left to clap, which also says what is wrong. `quick_is_what_clap_says` compares the two.

use std::ffi::OsString;
use std::path::PathBuf;
use std::slice;

use clap::ValueEnum;

use super::{Arguments, Command, Create, Delete, Globals, Kill, LogFormat, One, Rootless, Run, Start};

impl Arguments {
    /// Understands a plain command line of a short verb; `None` for all others.
    pub fn quick(given: &[OsString]) -> Option<Arguments> {
        let mut words = Words { rest: given.get(1..)?.iter() };
        let (globals, verb) = globals(&mut words)?;
        let command = match verb {
            "create" => Command::Create(run(&mut words, Verb::Create)?.create),
            "run" => Command::Run(run(&mut words, Verb::Run)?),
            "start" => Command::Start(start(&mut words)?),
            "state" => Command::State(one(&mut words)?),
            "kill" => Command::Kill(kill(&mut words)?),
            "delete" => Command::Delete(delete(&mut words)?),
            "pause" => Command::Pause(one(&mut words)?),
            "resume" => Command::Resume(one(&mut words)?),
            _ => return None,
        };
        Some(Arguments { globals, version: None, command })
    }
}

/// One word of the command line.
enum Word<'a> {
    /// A flag, and its value if that stands in the same word.
    Flag(&'a str, Option<&'a str>),
    /// Anything else.
    Free(&'a str),
    /// There is none left.
    End,
}

struct Words<'a> {
    rest: slice::Iter<'a, OsString>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        let Some(word) = self.rest.next() else { return Some(Word::End) };
        let word = word.to_str()?;
        Some(match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => Word::Flag(flag, Some(value)),
            Some(_) | None if !word.starts_with('-') => Word::Free(word),
            // A short flag with a value in the same word.
            Some(_) => return None,
            None => Word::Flag(word, None),
        })
    }

    /// The value of a flag: what stands in the same word, or the next word.
    fn value(&mut self, here: Option<&'a str>) -> Option<&'a str> {
        let value = match here {
            Some(value) => value,
            None => self.rest.next()?.to_str()?,
        };
        (!value.is_empty() && !value.starts_with('-')).then_some(value)
    }
}

/// Fills a place that may be filled once.
fn fill<T>(place: &mut Option<T>, value: T) -> Option<()> {
    match place.replace(value) {
        Some(_) => None,
        None => Some(()),
    }
}

/// Switches a flag on, once and without a value.
fn switch(flag: &mut bool, value: Option<&str>) -> Option<()> {
    (value.is_none() && !std::mem::replace(flag, true)).then_some(())
}

/// The flags before the verb, and the verb.
fn globals<'a>(words: &mut Words<'a>) -> Option<(Globals, &'a str)> {
    let (mut root, mut log, mut log_format, mut rootless) = (None, None, None, None);
    let (mut debug, mut systemd_cgroup) = (false, false);
    loop {
        match words.next()? {
            Word::Flag("--root", here) => fill(&mut root, PathBuf::from(words.value(here)?))?,
            Word::Flag("--log", here) => fill(&mut log, PathBuf::from(words.value(here)?))?,
            Word::Flag("--log-format", here) => {
                fill(&mut log_format, LogFormat::from_str(words.value(here)?, false).ok()?)?;
            }
            Word::Flag("--rootless", here) => {
                fill(&mut rootless, Rootless::from_str(words.value(here)?, false).ok()?)?;
            }
            Word::Flag("--debug", here) => switch(&mut debug, here)?,
            Word::Flag("--systemd-cgroup", here) => switch(&mut systemd_cgroup, here)?,
            Word::Free(verb) => {
                let globals = Globals {
                    root,
                    log,
                    log_format: log_format.unwrap_or(LogFormat::Text),
                    debug,
                    systemd_cgroup,
                    cgroup_manager: None,
                    rootless: rootless.unwrap_or(Rootless::Auto),
                    criu: None,
                };
                return Some((globals, verb));
            }
            Word::Flag(..) | Word::End => return None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Run,
}

/// `run`, and `create`, whose flags are some of it.
fn run(words: &mut Words<'_>, verb: Verb) -> Option<Run> {
    let (mut bundle, mut pid_file, mut console_socket, mut pidfd_socket) = (None, None, None, None);
    let (mut preserve_fds, mut config, mut id) = (None, None, None);
    let (mut no_pivot, mut no_subreaper, mut no_new_keyring) = (false, false, false);
    let (mut detach, mut keep, mut listen) = (false, false, Vec::new());
    let is_run = verb == Verb::Run;
    loop {
        match words.next()? {
            Word::Flag("--bundle" | "-b", here) => fill(&mut bundle, PathBuf::from(words.value(here)?))?,
            Word::Flag("--config" | "-f", here) => fill(&mut config, PathBuf::from(words.value(here)?))?,
            Word::Flag("--pid-file", here) => fill(&mut pid_file, PathBuf::from(words.value(here)?))?,
            Word::Flag("--console-socket", here) => {
                fill(&mut console_socket, PathBuf::from(words.value(here)?))?;
            }
            Word::Flag("--pidfd-socket", here) => fill(&mut pidfd_socket, PathBuf::from(words.value(here)?))?,
            Word::Flag("--preserve-fds", here) => {
                fill(&mut preserve_fds, words.value(here)?.parse().ok()?)?;
            }
            Word::Flag("--no-pivot", here) => switch(&mut no_pivot, here)?,
            Word::Flag("--no-subreaper", here) => switch(&mut no_subreaper, here)?,
            Word::Flag("--no-new-keyring", here) => switch(&mut no_new_keyring, here)?,
            Word::Flag("--detach" | "-d", here) if is_run => switch(&mut detach, here)?,
            Word::Flag("--keep", here) if is_run => switch(&mut keep, here)?,
            Word::Flag("--listen", here) if is_run => addresses(words.value(here)?, &mut listen)?,
            Word::Flag(..) => return None,
            Word::Free(word) => fill(&mut id, word.to_owned())?,
            Word::End => break,
        }
    }
    let create = Create {
        bundle: bundle.unwrap_or_else(|| PathBuf::from(".")),
        config,
        pid_file,
        console_socket,
        preserve_fds: preserve_fds.unwrap_or(0),
        pidfd_socket,
        no_pivot,
        no_subreaper,
        no_new_keyring,
        dry_run: false,
        id: id?,
    };
    Some(Run { create, detach, listen, keep })
}

fn start(words: &mut Words<'_>) -> Option<Start> {
    let (mut listen, mut id) = (Vec::new(), None);
    loop {
        match words.next()? {
            Word::Flag("--listen", here) => addresses(words.value(here)?, &mut listen)?,
            Word::Flag(..) => return None,
            Word::Free(word) => fill(&mut id, word.to_owned())?,
            Word::End => return Some(Start { listen, id: id? }),
        }
    }
}

/// The addresses of one `--listen`, which may be given again.
fn addresses(text: &str, all: &mut Vec<String>) -> Option<()> {
    text.split(',').try_for_each(|address| {
        all.push(address.to_owned());
        (!address.is_empty()).then_some(())
    })
}

fn one(words: &mut Words<'_>) -> Option<One> {
    match (words.next()?, words.next()?) {
        (Word::Free(id), Word::End) => Some(One { id: id.to_owned() }),
        (Word::Free(_) | Word::Flag(..) | Word::End, _) => None,
    }
}

fn kill(words: &mut Words<'_>) -> Option<Kill> {
    let (mut all, mut id, mut signal) = (false, None, None);
    loop {
        match words.next()? {
            Word::Flag("--all" | "-a", here) => switch(&mut all, here)?,
            Word::Flag(..) => return None,
            Word::Free(word) if id.is_none() => id = Some(word.to_owned()),
            Word::Free(word) => fill(&mut signal, word.to_owned())?,
            Word::End => {
                return Some(Kill { all, id: id?, signal: signal.unwrap_or_else(|| "TERM".to_owned()) });
            }
        }
    }
}

fn delete(words: &mut Words<'_>) -> Option<Delete> {
    let (mut force, mut id) = (false, None);
    loop {
        match words.next()? {
            Word::Flag("--force" | "-f", here) => switch(&mut force, here)?,
            Word::Flag(..) => return None,
            Word::Free(word) => fill(&mut id, word.to_owned())?,
            Word::End => return Some(Delete { force, id: id? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_engines_write_is_understood() {
        for line in [
            "turf --log-format=json --log /l create --bundle /b --pid-file /p --console-socket /s ID",
            "turf --root /r --log /l --log-format json create --bundle /b --pid-file /p ID",
            "turf --systemd-cgroup --rootless=true create --no-pivot --no-new-keyring --no-subreaper ID",
            "turf create --bundle /b --pid-file /p --preserve-fds 1 ID",
            "turf run --config /c --detach ID",
            "turf --root /r run --bundle /b ID",
            "turf --debug start --listen tcp://127.0.0.1:0,unix:///a --listen tcp://[::1]:1 ID",
            "turf state ID",
            "turf kill --all ID 9",
            "turf kill ID",
            "turf delete --force ID",
            "turf delete ID -f",
            "turf pause ID",
            "turf resume ID",
        ] {
            assert!(Arguments::quick(&words(line)).is_some(), "{line}");
        }
    }

    /// Random lines of words that mean something to one of the two, most of them nonsense.
    #[test]
    fn quick_is_what_clap_says() {
        const WORDS: &[&str] = &[
            "--root",
            "/r",
            "--root=/r",
            "--log",
            "--log-format=json",
            "--log-format",
            "json",
            "xml",
            "--rootless",
            "auto",
            "--rootless=true",
            "--debug",
            "--systemd-cgroup",
            "--bundle",
            "-b",
            "--bundle=",
            "--bundle=/b",
            "/b",
            "-",
            "--",
            "--pid-file",
            "--config",
            "--console-socket=/s",
            "--pidfd-socket",
            "--preserve-fds",
            "7",
            "--preserve-fds=+8",
            "-1",
            "--no-pivot",
            "--no-pivot=1",
            "--no-subreaper",
            "--no-new-keyring",
            "--detach",
            "-d",
            "-bd",
            "-b=/b",
            "--keep",
            "--listen",
            "a,b",
            "--listen=a,,b",
            ",",
            "--all",
            "-a",
            "--force",
            "-f",
            "KILL",
            "ID",
            "a b",
            "ä=b",
            "--help",
            "-v",
            "--dry-run",
            "",
        ];
        const VERBS: &[&str] =
            &["create", "run", "start", "state", "kill", "delete", "pause", "resume", "exec"];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        let mut understood = 0;
        for _ in 0..20_000 {
            let mut line = vec!["turf"];
            (0..next(3)).for_each(|_| line.push(WORDS[next(WORDS.len())]));
            line.push(VERBS[next(VERBS.len())]);
            (0..next(4)).for_each(|_| line.push(WORDS[next(WORDS.len())]));
            if next(2) == 0 {
                line.push("ID");
            }
            let given: Vec<OsString> = line.iter().map(OsString::from).collect();
            let Some(quick) = Arguments::quick(&given) else { continue };
            understood += 1;
            match Arguments::try_parse_from(&given) {
                Ok(clap) => assert_eq!(format!("{quick:?}"), format!("{clap:?}"), "{line:?}"),
                Err(error) => panic!("{line:?} is refused: {error}"),
            }
        }
        assert!(understood > 1000, "only {understood} lines were compared");
    }
}
