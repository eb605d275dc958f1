//! `turf ps`.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use turf_core::container;
use turf_core::root::StateRoot;

use crate::command::{Format, Ps};

/// Prints the processes of a container, by the pids of the caller's namespace.
pub fn run(root: &StateRoot, ps: &Ps) -> Result<()> {
    let pids = container::processes(root, &ps.id.parse()?)?;
    match ps.format {
        Format::Json => super::print(&format!("{}\n", serde_json::to_string(&pids)?)),
        Format::Table if !ps.options.is_empty() => super::print(&columns_of_ps(&pids, &ps.options)?),
        Format::Table => {
            // What runc prints; a machine without the program gets what /proc says.
            if let Ok(columns) = columns_of_ps(&pids, &["-ef".into()]) {
                return super::print(&columns);
            }
            let mut rows = vec![["UID", "PID", "PPID", "CMD"].map(str::to_owned).to_vec()];
            // A process that exits meanwhile is left out.
            rows.extend(pids.iter().filter_map(|pid| row(*pid)));
            super::print(&super::table(&rows))
        }
    }
}

/// What ps(1) prints with these options, without the processes that are not the container's.
fn columns_of_ps(pids: &[i32], options: &[OsString]) -> Result<String> {
    let output = Command::new("ps").args(options).stderr(Stdio::inherit()).output().context("run ps")?;
    ensure!(output.status.success(), "ps: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    lines_of(pids, &text).context("ps: its output has no column PID; give options that show one")
}

/// The heading and the lines of these processes; none without a column of pids.
fn lines_of(pids: &[i32], text: &str) -> Option<String> {
    let heading = text.lines().next()?;
    let column = heading.split_whitespace().position(|word| word == "PID")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines = std::iter::once(heading).chain(text.lines().skip(1).filter(ours));
    Some(lines.map(|line| format!("{line}\n")).collect())
}

fn row(pid: i32) -> Option<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments);
    let arguments = arguments.trim_end_matches('\0').replace('\0', " ");
    let command = if arguments.is_empty() { format!("[{}]", field("Name")) } else { arguments };
    Some(vec![field("Uid"), pid.to_string(), field("PPid"), command])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_of_ps_are_shown() {
        let text = "USER     PID CMD\nroot      1 init\nroot     22 sh\nroot    222 sh 22\n";
        assert_eq!(lines_of(&[22, 7], text).unwrap(), "USER     PID CMD\nroot     22 sh\n");
        assert_eq!(lines_of(&[1], "CMD\ninit\n"), None);
        assert_eq!(lines_of(&[1], ""), None);
    }
}
