//! The command line of `aworker`, parsed once.

use std::ffi::OsString;
use std::path::PathBuf;

use aworker_rt::ListenAddress;

/// What `aworker --help` prints.
pub const HELP: &str = "\
Aworker runs JavaScript after the Service Worker model.

Usage: aworker [run] [OPTIONS] FILE [OPTIONS] [--] [ARGUMENTS...]
       aworker eval [OPTIONS] CODE [OPTIONS] [--] [ARGUMENTS...]
       aworker --help | --version

A script that handles `fetch` serves HTTP until SIGTERM; any other script ends
when it has nothing left to do. Its arguments are in `Aworker.args`: what
follows the options, from the first word on that is none of them.

Options:
  --listen ADDRESS    where to serve: tcp://HOST:PORT, HOST:PORT, PORT (on
                      127.0.0.1) or unix:///PATH; may be repeated. Default: the
                      sockets of LISTEN_FDS, else tcp://0.0.0.0:$PORT (8080)
  --max-heap-mb N     limit of the JavaScript heap in MB
  --max-body-bytes N  longest request body; longer ones get 413 (100 MiB)
  --request-timeout-ms N
                      time for a handler to respond; then 504 (60000)
  --v8-flag FLAG      a flag for V8, for instance --v8-flag=--jitless; may be repeated

Exit status: 0 after a clean end, 1 if the script fails, 2 for a wrong command
line, 143 if requests were cut off at the end of a drain.
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Run { file: PathBuf, options: RunOptions },
    Eval { code: String, options: RunOptions },
    Help,
    Version,
}

/// Options of `run` and `eval`.
#[derive(Debug, Default, PartialEq)]
pub struct RunOptions {
    pub listen: Vec<ListenAddress>,
    pub max_heap_mb: Option<u32>,
    pub max_body_bytes: Option<u64>,
    pub request_timeout_ms: Option<u64>,
    pub v8_flags: Vec<String>,
    pub arguments: Vec<String>,
}

/// The words of a command line that are still to be understood.
type Words<'a> = std::iter::Peekable<&'a mut dyn Iterator<Item = OsString>>;

/// Understands a command line without the program's name.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut words = (&mut arguments as &mut dyn Iterator<Item = OsString>).peekable();
    let eval = match words.peek().and_then(|first| first.to_str()) {
        None => return Err("want a file to run".to_owned()),
        Some("--help" | "-h" | "help") => return Ok(Command::Help),
        Some("--version" | "-V") => return Ok(Command::Version),
        Some(verb @ ("run" | "eval")) => {
            let eval = verb == "eval";
            words.next();
            eval
        }
        Some(_) => false,
    };
    let mut options = RunOptions::default();
    while take_option(&mut words, &mut options)? {}
    match words.peek().and_then(|word| word.to_str()) {
        Some("--help" | "-h") => return Ok(Command::Help),
        Some("--") => drop(words.next()),
        Some(word) if word.starts_with('-') => return Err(format!("unknown option {word}")),
        _ => {}
    }
    let subject = words.next().ok_or(if eval { "want code to evaluate" } else { "want a file to run" })?;
    while take_option(&mut words, &mut options)? {}
    words.next_if(|word| word == "--");
    options.arguments = words.map(|argument| argument.to_string_lossy().into_owned()).collect();
    match eval {
        true => Ok(Command::Eval { code: subject.to_string_lossy().into_owned(), options }),
        false => Ok(Command::Run { file: subject.into(), options }),
    }
}

/// Takes the next word, and its value, if it is an option of ours.
fn take_option(words: &mut Words<'_>, options: &mut RunOptions) -> Result<bool, String> {
    let Some(text) = words.peek().map(|word| word.to_string_lossy().into_owned()) else {
        return Ok(false);
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text.as_str(), None),
    };
    if !["--listen", "--max-heap-mb", "--max-body-bytes", "--request-timeout-ms", "--v8-flag"].contains(&name)
    {
        return Ok(false);
    }
    words.next();
    let value = value
        .or_else(|| words.next().map(|next| next.to_string_lossy().into_owned()))
        .ok_or(format!("{name} wants a value"))?;
    match name {
        "--listen" => options.listen.push(value.parse()?),
        "--max-heap-mb" => options.max_heap_mb = Some(megabytes(&value)?),
        "--max-body-bytes" => options.max_body_bytes = Some(number(name, &value)?),
        "--request-timeout-ms" => options.request_timeout_ms = Some(number(name, &value)?),
        _ => options.v8_flags.push(value),
    }
    Ok(true)
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("{name} {text}: want a positive number"))
}

fn megabytes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(megabytes @ 4..=65536) => Ok(megabytes),
        _ => Err(format!("--max-heap-mb {text}: want a number from 4 to 65536")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn options_stand_before_the_file_or_right_after_it() {
        let Ok(Command::Run { file, options }) =
            words("run --listen 80 --max-heap-mb=64 w.js --listen 81 a --listen x")
        else {
            panic!("a command");
        };
        assert_eq!(file, PathBuf::from("w.js"));
        let listen = ["tcp://127.0.0.1:80", "tcp://127.0.0.1:81"];
        assert_eq!(options.listen, listen.map(|address| address.parse().expect("an address")));
        assert_eq!(options.max_heap_mb, Some(64));
        assert_eq!(options.arguments, ["a", "--listen", "x"]);
    }

    #[test]
    fn the_scripts_arguments_begin_at_the_first_word_that_is_not_ours() {
        for (line, expected) in [
            ("run w.js --verbose --listen 80", vec!["--verbose", "--listen", "80"]),
            ("run w.js -- --listen 80", vec!["--listen", "80"]),
            ("run -- w.js --help", vec!["--help"]),
        ] {
            let Ok(Command::Run { file, options }) = words(line) else { panic!("{line}") };
            assert_eq!(file, PathBuf::from("w.js"));
            assert_eq!(options.arguments, expected, "{line}");
        }
    }

    #[test]
    fn the_verb_run_may_be_left_out() {
        assert_eq!(words("/app/worker.js a"), words("run /app/worker.js a"));
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for line in [
            "",
            "run",
            "eval",
            "--bogus w.js",
            "run --listen",
            "run --listen nowhere w.js",
            "run --max-heap-mb 1 w.js",
            "run --max-body-bytes -1 w.js",
            "run --request-timeout-ms 0 w.js",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
