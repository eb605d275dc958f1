//! Filling in the id mappings of init's new user namespace (user_namespaces(7)).
//!
//! Root writes them. Another user may map the own id alone, and for that must give up setgroups(2); the ids that
//! /etc/subuid and /etc/subgid give this user are mapped by the privileged programs newuidmap(1) and newgidmap(1).

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use nix::unistd::{getegid, geteuid};

use crate::error::{Error, Operation, Result};
use crate::sandbox::plan::{IdMapping, InitPlan, NamespaceKind};

/// Longest words of a mapping program that are shown, in bytes.
const WORDS: usize = 512;

pub(super) fn write(plan: &InitPlan, pid: i32) -> Result<()> {
    if plan.namespace(NamespaceKind::User).is_none_or(|user| user.path.is_some()) {
        return Ok(());
    }
    let (users, groups) = (&plan.uid_mappings, &plan.gid_mappings);
    if geteuid().is_root() {
        write_file(pid, "uid_map", &lines(users))?;
        return write_file(pid, "gid_map", &lines(groups));
    }
    if is_only(users, geteuid().as_raw()) {
        write_file(pid, "uid_map", &lines(users))?;
    } else {
        run("newuidmap", "uidMappings", users, pid)?;
    }
    if is_only(groups, getegid().as_raw()) {
        write_file(pid, "setgroups", "deny")?;
        write_file(pid, "gid_map", &lines(groups))
    } else {
        run("newgidmap", "gidMappings", groups, pid)
    }
}

/// Whether nothing but this one id is mapped.
fn is_only(mappings: &[IdMapping], id: u32) -> bool {
    matches!(mappings, [IdMapping { outside, count: 1, .. }] if *outside == id)
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    fs::write(&path, text).operation(|| format!("write {text:?} to {path}"))
}

fn run(program: &str, list: &str, mappings: &[IdMapping], pid: i32) -> Result<()> {
    let place = || format!("config.json: $.linux.{list}");
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(lines(mappings).split_whitespace());
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason =
                format!("maps more than the caller's own id, which needs the program {program} (uidmap)");
            return Err(Error::invalid(place(), reason));
        }
        output => output.operation(|| format!("run {program}"))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let reason = format!("is refused by {program}: {}", &said[..said.floor_char_boundary(WORDS)]);
    Err(Error::invalid(place(), reason))
}

pub(super) fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_is_told_from_others() {
        let map = |outside, count| IdMapping { inside: 0, outside, count };
        assert!(is_only(&[map(7, 1)], 7));
        for mappings in [&[map(7, 2)][..], &[map(8, 1)], &[map(7, 1), map(9, 1)], &[]] {
            assert!(!is_only(mappings, 7), "{mappings:?}");
        }
        assert_eq!(lines(&[map(7, 2), map(9, 1)]), "0 7 2\n0 9 1\n");
    }
}
