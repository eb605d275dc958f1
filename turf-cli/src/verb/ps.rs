//! `turf ps`.

use std::fs;

use anyhow::Result;
use turf_core::container;
use turf_core::root::StateRoot;

use crate::command::{Format, Ps};

/// Prints the processes of a container, by the pids of the caller's namespace.
pub fn run(root: &StateRoot, ps: &Ps) -> Result<()> {
    let pids = container::processes(root, &ps.id.parse()?)?;
    match ps.format {
        Format::Json => super::print(&format!("{}\n", serde_json::to_string(&pids)?)),
        Format::Table => {
            let mut rows = vec![["UID", "PID", "PPID", "CMD"].map(str::to_owned).to_vec()];
            // A process that exits meanwhile is left out.
            rows.extend(pids.iter().filter_map(|pid| row(*pid)));
            super::print(&super::table(&rows))
        }
    }
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
