//! `cargo xtask VERB`: set-up, the demo, all tests, and the checks of the house rules.
//!
//! It knows nothing of V8 but where its archive is, so that it builds in seconds on a new machine.

mod demo;
mod packages;
mod shell;
mod test;
mod tidy;
mod touched;
mod v8;
mod v8_build;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask VERB

  demo    set up the machine, build, and run a worker from a bundle, with timings
  test    set up the machine, build, and run every check and test
  tidy    check the rules of docs/architecture.md that a program can check
  touched write the lists of the functions that short verbs and workers call, which the linker lays beside each other
  v8      find or make V8's archive; the last line is what to export for plain cargo
  vm      run the tests of control groups on cgroup v2, without and with systemd, in a virtual machine";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("demo") => demo::run(),
        Some("test") => test::run(),
        Some("tidy") => tidy::run(),
        Some("touched") => touched::run(&arguments[1..]),
        Some("v8") => v8::print_export(),
        Some("vm") => vm::run(&arguments[1..]),
        // The compiler wrapper of the source build: see v8_build.
        Some(v8_build::WRAPPER_VERB) => v8_build::compile(&arguments[1..]),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
