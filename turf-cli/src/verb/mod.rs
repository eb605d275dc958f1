//! The verbs, one file each.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod pool;
mod pool_status;
mod ps;
mod run;
mod seed;
mod spec;
mod start;
mod state;
mod update;

use std::io::Write;

use anyhow::{Context, Result, bail};
use turf_core::fault;
use turf_core::root::StateRoot;

use crate::command::{Command, Globals};
use crate::log::Log;

/// Runs a verb and returns the exit status.
pub fn run(globals: &Globals, command: Command, log: &Log) -> Result<u8> {
    let root = || -> Result<StateRoot> {
        let root = match &globals.root {
            Some(path) => StateRoot::at(path)?,
            None => StateRoot::default_for_user()?,
        };
        fault::arm(&root)?;
        Ok(root)
    };
    match command {
        Command::Spec(spec) => spec::run(&spec)?,
        Command::Create(create) => create::run(&root()?, globals, create, log)?,
        Command::Start(start) => start::run(&root()?, &start, log)?,
        Command::Run(run) => return run::run(&root()?, globals, run, log),
        Command::Exec(exec) => return exec::run(&root()?, exec, log),
        Command::State(one) => state::run(&root()?, &one)?,
        Command::Kill(kill) => kill::run(&root()?, &kill)?,
        Command::Delete(delete) => delete::run(&root()?, &delete, log)?,
        Command::List(list) => list::run(&root()?, &list, log)?,
        Command::Ps(ps) => ps::run(&root()?, &ps)?,
        Command::Events(events) => events::run(&root()?, &events)?,
        Command::Pause(one) => pause::pause(&root()?, &one)?,
        Command::Resume(one) => pause::resume(&root()?, &one)?,
        Command::Update(update) => update::run(&root()?, update)?,
        Command::Seed(command) => seed::run(&root()?, command)?,
        Command::Pool(pool) => return pool::run(&root()?, *pool),
        Command::Features => features::run()?,
        Command::Checkpoint(_) => {
            bail!("checkpoint: is not supported: turf cannot save the processes of a container")
        }
        Command::Restore(_) => bail!("restore: is not supported: turf cannot bring saved processes back"),
    }
    Ok(0)
}

/// Prints a verb's output; a closed stdout is an error, not a panic.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write to standard output")
}

/// Columns, each as wide as its widest cell, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&[
            row(["ID", "PID", "STATUS"]),
            row(["a", "12345", "running"]),
            row(["longer", "0", "stopped"]),
        ]);
        assert_eq!(text, "ID      PID    STATUS\na       12345  running\nlonger  0      stopped\n");
        assert_eq!(table(&[]), "");
    }
}
