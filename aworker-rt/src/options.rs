//! The command line of `aworker`, parsed once.

use std::ffi::OsString;
use std::path::PathBuf;

use aworker_rt::ListenAddress;

/// What `aworker --help` prints.
pub const HELP: &str = "\
Aworker runs JavaScript after the Service Worker model.

Usage: aworker [run] [OPTIONS] FILE [ARGUMENTS...]
       aworker eval [OPTIONS] CODE [ARGUMENTS...]
       aworker --help | --version

A script that handles `fetch` serves HTTP until SIGTERM; any other script ends
when it has nothing left to do. Its arguments are in `Aworker.args`.

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

/// Understands a command line without the program's name.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments.peekable();
    let eval = match arguments.peek().and_then(|first| first.to_str()) {
        None => return Err("want a file to run".to_owned()),
        Some("--help" | "-h" | "help") => return Ok(Command::Help),
        Some("--version" | "-V") => return Ok(Command::Version),
        Some(verb @ ("run" | "eval")) => {
            let eval = verb == "eval";
            arguments.next();
            eval
        }
        Some(_) => false,
    };
    let mut options = RunOptions::default();
    let subject = loop {
        let Some(argument) = arguments.next() else {
            return Err(if eval { "want code to evaluate" } else { "want a file to run" }.to_owned());
        };
        let text = argument.to_string_lossy().into_owned();
        if !text.starts_with('-') {
            break argument;
        }
        if text == "--" {
            break arguments.next().ok_or("want a file after --")?;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        if matches!(name, "--help" | "-h") {
            return Ok(Command::Help);
        }
        let mut value = || {
            value
                .clone()
                .or_else(|| arguments.next().map(|next| next.to_string_lossy().into_owned()))
                .ok_or(format!("{name} wants a value"))
        };
        match name {
            "--listen" => options.listen.push(value()?.parse()?),
            "--max-heap-mb" => options.max_heap_mb = Some(megabytes(&value()?)?),
            "--max-body-bytes" => options.max_body_bytes = Some(number(name, &value()?)?),
            "--request-timeout-ms" => options.request_timeout_ms = Some(number(name, &value()?)?),
            "--v8-flag" => options.v8_flags.push(value()?),
            _ => return Err(format!("unknown option {name}")),
        }
    };
    options.arguments = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    match eval {
        true => Ok(Command::Eval { code: subject.to_string_lossy().into_owned(), options }),
        false => Ok(Command::Run { file: subject.into(), options }),
    }
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
    fn options_before_the_file_are_ours_and_after_it_the_scripts() {
        let Ok(Command::Run { file, options }) = words("run --listen 80 --max-heap-mb=64 w.js --listen x")
        else {
            panic!("a command");
        };
        assert_eq!(file, PathBuf::from("w.js"));
        assert_eq!(options.listen, ["tcp://127.0.0.1:80".parse().expect("an address")]);
        assert_eq!(options.max_heap_mb, Some(64));
        assert_eq!(options.arguments, ["--listen", "x"]);
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
