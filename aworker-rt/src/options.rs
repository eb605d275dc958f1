//! The command line of `aworker`, parsed once.

use std::ffi::OsString;
use std::path::PathBuf;

use aworker_rt::{Begin, InspectOptions, ListenAddress};

/// Where a debugger is listened for when nobody says otherwise.
const DEFAULT_INSPECT: &str = "127.0.0.1:9229";
/// Where a CPU profile goes when nobody says otherwise.
const DEFAULT_PROFILE: &str = "aworker.cpuprofile";

/// What `aworker --help` prints.
pub const HELP: &str = "\
Aworker runs JavaScript, and TypeScript by stripping its types, after the Service
Worker model.

Usage: aworker [run] [OPTIONS] FILE [OPTIONS] [--] [ARGUMENTS...]
       aworker run [OPTIONS] --snapshot SNAPSHOT [OPTIONS] [--] [ARGUMENTS...]
       aworker eval [OPTIONS] CODE [OPTIONS] [--] [ARGUMENTS...]
       aworker snapshot build [OPTIONS] FILE -o SNAPSHOT [--timeout SECONDS]
       aworker --help | --version

A script that handles `fetch` serves HTTP until SIGTERM; any other script ends
when it has nothing left to do. Its arguments are in `Aworker.args`: what
follows the options, from the first word on that is none of them.

`snapshot build` runs the script, fires `serialize`, waits for what its listeners
wait for, and writes the heap; `run --snapshot` goes on from there with
`deserialize`. A snapshot fits only the aworker that made it. A build that has
not ended after --timeout SECONDS (60) is given up.

Serving (run):
  --listen ADDRESS    where to serve: tcp://HOST:PORT, HOST:PORT, PORT (on
                      127.0.0.1) or unix:///PATH; may be repeated. Default: the
                      sockets of LISTEN_FDS, else tcp://0.0.0.0:$PORT (8080)
  --max-body-bytes N  longest request body; longer ones get 413 (100 MiB)
  --request-timeout-ms N
                      time for a handler to respond; then 504 (60000)
  --idle-timeout-ms N time an idle connection is kept (75000)
  --stall-timeout-ms N
                      time in which a body may make no progress (30000)

Environment (run, eval):
  --location URL      what self.location is, and where relative URLs begin
                      (the script's own URL)
  --allow-file-fetch  let fetch read file: URLs
  --resolv-conf FILE  settings of the resolver (/etc/resolv.conf)

Modules:
  --import-map FILE   what specifiers mean beyond paths; by default the file that
                      the environment's AWORKER_IMPORT_MAP names. A snapshot keeps
                      the map it was built with

Tools (run):
  --watch             run again whenever a file that the program has loaded changes
  --inspect[=ADDRESS] listen for a debugger that speaks the Chrome DevTools protocol
                      at HOST:PORT or PORT (127.0.0.1:9229); who reaches it runs code
  --inspect-brk[=ADDRESS]
                      the same; wait for it, and stop at the first statement
  --cpu-prof[=FILE]   write a CPU profile at the end (aworker.cpuprofile)
  --heap-snapshot-on-signal
                      write aworker-PID-N.heapsnapshot at each SIGUSR2

V8:
  --max-heap-mb N     limit of the JavaScript heap in MB
  --v8-flag FLAG      a flag for V8, for instance --v8-flag=--jitless; may be repeated
  --v8-flags LIST     the same, several, separated by commas; --v8-flags=--help
                      lists them all

Exit status: 0 after a clean end, 1 if the script fails, 2 for a wrong command
line, 143 if requests were cut off at the end of a drain.
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Run { program: Program, options: RunOptions },
    Eval { code: String, options: RunOptions },
    BuildSnapshot { file: PathBuf, output: PathBuf, options: RunOptions },
    Help,
    Version,
}

/// What is run.
#[derive(Debug, PartialEq)]
pub enum Program {
    Script(PathBuf),
    Snapshot(PathBuf),
}

/// Options of all verbs.
#[derive(Debug, Default, PartialEq)]
pub struct RunOptions {
    pub import_map: Option<PathBuf>,
    pub listen: Vec<ListenAddress>,
    pub location: Option<String>,
    pub max_heap_mb: Option<u32>,
    pub max_body_bytes: Option<u64>,
    pub request_timeout_ms: Option<u64>,
    pub idle_timeout_ms: Option<u64>,
    pub stall_timeout_ms: Option<u64>,
    pub allow_file_fetch: bool,
    pub resolv_conf: Option<PathBuf>,
    pub v8_flags: Vec<String>,
    pub arguments: Vec<String>,
    pub inspect: Option<InspectOptions>,
    pub cpu_profile: Option<PathBuf>,
    pub heap_snapshot_on_signal: bool,
    pub watch: bool,
    pub timeout_s: Option<u64>,
    snapshot: Option<PathBuf>,
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Run,
    Eval,
    BuildSnapshot,
}

const ALL: &[Verb] = &[Verb::Run, Verb::Eval, Verb::BuildSnapshot];
const RUN: &[Verb] = &[Verb::Run];
const BUILD: &[Verb] = &[Verb::BuildSnapshot];

/// Whether a value follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// `--name VALUE` or `--name=VALUE`.
    Value,
    /// `--name` or `--name=VALUE`.
    Optional,
    /// `--name`.
    Nothing,
}

/// Every option, the verbs that know it, and whether it has a value.
const OPTIONS: &[(&str, &[Verb], Takes)] = &[
    ("--import-map", ALL, Takes::Value),
    ("--listen", RUN, Takes::Value),
    ("--location", &[Verb::Run, Verb::Eval], Takes::Value),
    ("--max-heap-mb", ALL, Takes::Value),
    ("--max-body-bytes", RUN, Takes::Value),
    ("--request-timeout-ms", RUN, Takes::Value),
    ("--idle-timeout-ms", RUN, Takes::Value),
    ("--stall-timeout-ms", RUN, Takes::Value),
    ("--allow-file-fetch", &[Verb::Run, Verb::Eval], Takes::Nothing),
    ("--resolv-conf", ALL, Takes::Value),
    ("--v8-flag", ALL, Takes::Value),
    ("--v8-flags", ALL, Takes::Value),
    ("--snapshot", RUN, Takes::Value),
    ("--inspect", RUN, Takes::Optional),
    ("--inspect-brk", RUN, Takes::Optional),
    ("--cpu-prof", RUN, Takes::Optional),
    ("--heap-snapshot-on-signal", RUN, Takes::Nothing),
    ("--watch", RUN, Takes::Nothing),
    ("--timeout", BUILD, Takes::Value),
    ("--output", BUILD, Takes::Value),
    ("-o", BUILD, Takes::Value),
];

/// Enters an option that its verb knows.
fn apply(options: &mut RunOptions, name: &str, value: &str) -> Result<(), String> {
    match name {
        "--import-map" => options.import_map = Some(value.into()),
        "--listen" => options.listen.push(value.parse()?),
        "--location" => options.location = Some(location(value)?),
        "--max-heap-mb" => options.max_heap_mb = Some(megabytes(value)?),
        "--max-body-bytes" => options.max_body_bytes = Some(number(name, value)?),
        "--request-timeout-ms" => options.request_timeout_ms = Some(number(name, value)?),
        "--idle-timeout-ms" => options.idle_timeout_ms = Some(number(name, value)?),
        "--stall-timeout-ms" => options.stall_timeout_ms = Some(number(name, value)?),
        "--allow-file-fetch" => options.allow_file_fetch = true,
        "--resolv-conf" => options.resolv_conf = Some(value.into()),
        "--v8-flag" => options.v8_flags.push(value.to_owned()),
        "--v8-flags" => options.v8_flags.extend(value.split(',').map(str::to_owned)),
        "--snapshot" => options.snapshot = Some(value.into()),
        "--inspect" => options.inspect = Some(inspect(value, Begin::AtOnce)?),
        "--inspect-brk" => options.inspect = Some(inspect(value, Begin::WithDebugger)?),
        "--cpu-prof" if value.is_empty() => options.cpu_profile = Some(DEFAULT_PROFILE.into()),
        "--cpu-prof" => options.cpu_profile = Some(value.into()),
        "--heap-snapshot-on-signal" => options.heap_snapshot_on_signal = true,
        "--watch" => options.watch = true,
        "--timeout" => options.timeout_s = Some(number(name, value)?),
        "--output" | "-o" => options.output = Some(value.into()),
        _ => unreachable!("every option of the table has its line here"),
    }
    Ok(())
}

/// The words of a command line that are still to be understood.
type Words<'a> = std::iter::Peekable<&'a mut dyn Iterator<Item = OsString>>;

/// Understands a command line without the program's name.
pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut words = (&mut arguments as &mut dyn Iterator<Item = OsString>).peekable();
    let verb = match words.peek().and_then(|first| first.to_str()) {
        None => return Err("want a file to run".to_owned()),
        Some("--help" | "-h" | "help") => return Ok(Command::Help),
        Some("--version" | "-V") => return Ok(Command::Version),
        Some(verb @ ("run" | "eval" | "snapshot")) => match (verb.to_owned(), words.next()) {
            (verb, _) if verb == "run" => Verb::Run,
            (verb, _) if verb == "eval" => Verb::Eval,
            _ if matches!(words.peek().and_then(|word| word.to_str()), Some("--help" | "-h")) => {
                return Ok(Command::Help);
            }
            _ if words.next_if(|word| word == "build").is_some() => Verb::BuildSnapshot,
            _ => return Err("want `aworker snapshot build FILE -o SNAPSHOT`".to_owned()),
        },
        Some(_) => Verb::Run,
    };
    let mut options = RunOptions::default();
    while take_option(verb, &mut words, &mut options)? {}
    match words.peek().and_then(|word| word.to_str()) {
        Some("--help" | "-h") => return Ok(Command::Help),
        Some("--") => drop(words.next()),
        Some(word) if word.starts_with('-') && word.len() > 1 => return Err(unknown(verb, word)),
        _ => {}
    }
    let subject = match (&options.snapshot, verb) {
        (Some(_), _) => OsString::new(),
        (None, Verb::Run) => words.next().ok_or("want a file to run")?,
        (None, Verb::Eval) => words.next().ok_or("want code to evaluate")?,
        (None, Verb::BuildSnapshot) => words.next().ok_or("want a file to run up to `serialize`")?,
    };
    while take_option(verb, &mut words, &mut options)? {}
    words.next_if(|word| word == "--");
    options.arguments = words.map(|argument| argument.to_string_lossy().into_owned()).collect();
    finish(verb, subject, options)
}

fn finish(verb: Verb, subject: OsString, mut options: RunOptions) -> Result<Command, String> {
    match verb {
        Verb::Eval => Ok(Command::Eval { code: subject.to_string_lossy().into_owned(), options }),
        Verb::Run if options.inspect.is_some() && options.cpu_profile.is_some() => {
            Err("--cpu-prof: with --inspect the debugger makes profiles".to_owned())
        }
        Verb::Run => {
            let program = match options.snapshot.take() {
                Some(_) if options.import_map.is_some() => {
                    return Err("--import-map: a snapshot keeps the map it was built with".to_owned());
                }
                Some(snapshot) => Program::Snapshot(snapshot),
                None => Program::Script(subject.into()),
            };
            Ok(Command::Run { program, options })
        }
        Verb::BuildSnapshot => match (options.output.take(), options.arguments.first()) {
            (_, Some(surplus)) => Err(format!(
                "what to do with {surplus}? A snapshot's program gets its arguments from `run --snapshot`"
            )),
            (None, None) => Err("want -o SNAPSHOT, the file to write".to_owned()),
            (Some(output), None) => Ok(Command::BuildSnapshot { file: subject.into(), output, options }),
        },
    }
}

/// Takes the next word, and its value, if it is an option of ours.
fn take_option(verb: Verb, words: &mut Words<'_>, options: &mut RunOptions) -> Result<bool, String> {
    let Some(text) = words.peek().map(|word| word.to_string_lossy().into_owned()) else {
        return Ok(false);
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text.as_str(), None),
    };
    let known = OPTIONS.iter().find(|(known, verbs, _)| *known == name && verbs.contains(&verb));
    let Some((_, _, takes)) = known else {
        return Ok(false);
    };
    words.next();
    match takes {
        Takes::Value => {
            let value = value.or_else(|| words.next().map(|next| next.to_string_lossy().into_owned()));
            apply(options, name, &value.ok_or(format!("{name} wants a value"))?)?;
        }
        Takes::Optional => apply(options, name, &value.unwrap_or_default())?,
        Takes::Nothing if value.is_some() => return Err(format!("{name} takes no value")),
        Takes::Nothing => apply(options, name, "")?,
    }
    Ok(true)
}

/// Says that an option is not known, or not to this verb.
fn unknown(verb: Verb, word: &str) -> String {
    let name = word.split('=').next().unwrap_or(word);
    match OPTIONS.iter().any(|(known, ..)| *known == name) {
        true => format!(
            "{name} is no option of `{}`",
            match verb {
                Verb::Run => "run",
                Verb::Eval => "eval",
                Verb::BuildSnapshot => "snapshot build",
            }
        ),
        false => format!("unknown option {word}"),
    }
}

fn location(text: &str) -> Result<String, String> {
    match aworker_rt::is_url(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("--location {text}: want an absolute URL")),
    }
}

/// `HOST:PORT`, `PORT`, or nothing for the usual place.
fn inspect(text: &str, begin: Begin) -> Result<InspectOptions, String> {
    let text = if text.is_empty() { DEFAULT_INSPECT } else { text };
    let full = if text.contains(':') { text.to_owned() } else { format!("127.0.0.1:{text}") };
    let address = full.replace("localhost:", "127.0.0.1:").parse();
    let address = address.map_err(|_| format!("--inspect {text}: want HOST:PORT or PORT"))?;
    Ok(InspectOptions { address, begin })
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
        let Ok(Command::Run { program, options }) =
            words("run --listen 80 --max-heap-mb=64 w.js --listen 81 a --listen x")
        else {
            panic!("a command");
        };
        assert_eq!(program, Program::Script("w.js".into()));
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
            let Ok(Command::Run { program, options }) = words(line) else { panic!("{line}") };
            assert_eq!(program, Program::Script("w.js".into()));
            assert_eq!(options.arguments, expected, "{line}");
        }
    }

    #[test]
    fn the_verb_run_may_be_left_out() {
        assert_eq!(words("/app/worker.js a"), words("run /app/worker.js a"));
    }

    #[test]
    fn snapshots_are_built_from_a_file_and_run_instead_of_one() {
        let Ok(Command::BuildSnapshot { file, output, .. }) = words("snapshot build w.js -o s") else {
            panic!("a command");
        };
        assert_eq!((file, output), ("w.js".into(), "s".into()));
        let Ok(Command::Run { program, options }) = words("run --snapshot=s --listen 80 a b") else {
            panic!("a command");
        };
        assert_eq!(program, Program::Snapshot("s".into()));
        assert_eq!(options.arguments, ["a", "b"]);
    }

    #[test]
    fn a_debuggers_address_may_be_left_out_and_is_no_next_word() {
        for (line, expected) in [
            ("run --inspect w.js", "127.0.0.1:9229"),
            ("run --inspect-brk=9000 w.js", "127.0.0.1:9000"),
            ("run --inspect=[::1]:0 w.js", "[::1]:0"),
        ] {
            let Ok(Command::Run { program, options }) = words(line) else { panic!("{line}") };
            assert_eq!(program, Program::Script("w.js".into()), "{line}");
            assert_eq!(options.inspect.map(|inspect| inspect.address.to_string()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn v8_flags_are_a_list() {
        let Ok(Command::Eval { options, .. }) = words("eval --v8-flag --a --v8-flags=--b,--c=1 1") else {
            panic!("a command");
        };
        assert_eq!(options.v8_flags, ["--a", "--b", "--c=1"]);
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
            "run --location elsewhere w.js",
            "run --max-heap-mb 1 w.js",
            "run --max-body-bytes -1 w.js",
            "run --request-timeout-ms 0 w.js",
            "snapshot",
            "snapshot build",
            "snapshot build w.js",
            "snapshot build w.js -o",
            "snapshot build w.js -o s argument",
            "snapshot build --listen 80 w.js -o s",
            "snapshot build --timeout 0 w.js -o s",
            "run --timeout 5 w.js",
            "eval --snapshot s 1",
            "run --snapshot s --import-map m",
            "run --output s w.js",
            "run --inspect=nowhere w.js",
            "run --watch=1 w.js",
            "run --inspect --cpu-prof w.js",
            "eval --inspect 1",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
