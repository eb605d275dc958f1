//! `aworker`: runs scripts from the command line.

use std::process::ExitCode;

use aworker_rt::engine::Script;
use aworker_rt::{Runtime, V8Flags, WorkerOptions, initialize};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["eval", code] => evaluate(code),
        ["--version"] => {
            println!("aworker {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: aworker eval CODE | aworker --version");
            ExitCode::from(2)
        }
    }
}

/// Evaluates code and prints its value.
fn evaluate(code: &str) -> ExitCode {
    initialize(&V8Flags::default());
    let worker = Runtime::new().become_worker(WorkerOptions::default());
    match worker.and_then(|mut worker| worker.evaluate(&Script::from_text("[eval]", code))) {
        Ok(value) => {
            value.into_iter().for_each(|value| println!("{value}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
