//! `turf`: the command line. One verb is one file in `verb`; what it does is turf-core's.
//!
//! This is where exit codes and the words of errors are chosen: 0, or 1 after an error (255 where `exec` fails), whose
//! last log line says what it was; `turf run` and `exec` in the foreground exit with the status of what they ran.
//!
//! The program is single-threaded, because init is forked from it, and reads nothing that its verb
//! does not need.
#![cfg_attr(not(test), no_main)]

mod command;
mod log;
mod verb;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::IntoRawFd;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::error::ErrorKind;

use command::{Arguments, Command};
use log::Log;
use turf_core::sys::fd;

#[cfg(not(test))]
turf_core::main_function!(turf);

#[cfg(test)]
fn main() -> std::process::ExitCode {
    turf().into()
}

/// From the command line to the exit status.
fn turf() -> u8 {
    let given: Vec<OsString> = std::env::args_os().collect();
    let arguments = match Arguments::quick(&given).map_or_else(|| parse(&given), Ok) {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    let globals = arguments.globals;
    let log = Log::new(globals.log.clone(), globals.log_format, globals.debug);
    log.debug(|| format!("{:?}", arguments.command));
    let failure = if matches!(arguments.command, Command::Exec(_)) { EXEC_FAILURE } else { FAILURE };
    match close_inherited(&arguments.command).and_then(|()| verb::run(&globals, arguments.command, &log)) {
        Ok(status) => status,
        Err(error) => {
            log.error(&words(&error));
            failure
        }
    }
}

/// Understands any command line. Apart from `main`, so that whoever does not need it pays nothing for it.
#[inline(never)]
fn parse(given: &[OsString]) -> Result<Arguments, u8> {
    Arguments::try_parse_from(given).map_err(|error| refuse(given, &error))
}

/// What a verb ends with that has failed.
const FAILURE: u8 = 1;

/// What `exec` ends with when the process could not be run, so that it is told from a process that ended with 1; runc
/// has the same.
const EXEC_FAILURE: u8 = 255;

/// Closes what the caller left open from 3 up, except what the container is to inherit. containerd's
/// shim, for one, leaks its listening socket, and init would keep it.
///
/// What is to be inherited and is not open stays closed for the workload, as with crun; but its number is taken until then, so that
/// no descriptor of our own comes to have it.
fn close_inherited(command: &Command) -> Result<()> {
    let kept = match command {
        Command::Create(create) => create.inherited().count,
        Command::Run(run) => run.create.inherited().count,
        Command::Exec(exec) => exec.inherited(),
        Command::Pool(pool) => pool.inherited(),
        Command::Spec(_)
        | Command::Start(_)
        | Command::State(_)
        | Command::Kill(_)
        | Command::Delete(_)
        | Command::List(_)
        | Command::Ps(_)
        | Command::Events(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Update(_)
        | Command::Seed(_)
        | Command::Features
        | Command::Checkpoint(_)
        | Command::Restore(_) => 0,
    };
    if command.reads_inherited() {
        // A file that a shell made for `--process <(...)`; the process that is made closes it.
        fd::close_range_cloexec(3 + kept)
    } else {
        fd::close_range_from(3 + kept)
    }
    .context("close inherited descriptors")?;
    for number in 3..3 + kept {
        if !i32::try_from(number).is_ok_and(fd::is_open) {
            // The lowest free number is this one, and it is closed on execution.
            let taken = File::open("/dev/null").with_context(|| format!("take the number {number}"))?;
            ensure!(
                i64::from(taken.into_raw_fd()) == i64::from(number),
                "descriptor {number} cannot be taken"
            );
        }
    }
    Ok(())
}

/// An error with its causes. turf-core's errors name theirs themselves; a bare error of the system reads
/// as engines match it.
fn words(error: &anyhow::Error) -> String {
    let mut words = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            Some(errno) => words.push(turf_core::error::errno_text(errno)),
            None => words.push(cause.to_string()),
        }
        if cause.is::<turf_core::Error>() {
            break;
        }
    }
    words.join(": ")
}

/// A command line that is not understood is an error like any other, in the log too; help and version
/// are not.
fn refuse(given: &[OsString], error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell if this fails.
            drop(error.print());
            0
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            command::log_of_unparsed(given).error(text.lines().next().unwrap_or(text));
            eprintln!("{}", text.lines().skip(1).collect::<Vec<_>>().join("\n").trim());
            FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_each_cause_once() {
        let io = || std::io::Error::from_raw_os_error(13);
        let ours = anyhow::Error::from(turf_core::Error::io("open /x", io()));
        assert_eq!(words(&ours), "open /x: permission denied");
        assert_eq!(words(&ours.context("start a")), "start a: open /x: permission denied");
        assert_eq!(words(&anyhow::Error::from(io()).context("write /y")), "write /y: permission denied");
    }
}
