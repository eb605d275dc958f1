//! `turf exec`.

use anyhow::Result;
use turf_core::container::{self, Attended, Changes, ExecProcess, Foreground, IfPaused};
use turf_core::root::StateRoot;

use super::create::{connect_pidfd, console, foreground_console};
use crate::command::Exec;
use crate::log::Log;

/// Executes the program and returns its exit status, or 0 for a detached one.
pub fn run(root: &StateRoot, exec: Exec, log: &Log) -> Result<u8> {
    let id = exec.id.parse()?;
    let foreground = if exec.detach { None } else { Some(Foreground::block_signals()?) };
    let socket = exec.console_socket.as_deref();
    let (terminal, console) =
        if exec.detach { (None, console(socket)?) } else { foreground_console(socket)? };
    let preserve_fds = exec.inherited();
    let process = match &exec.process {
        Some(path) => ExecProcess::File(path),
        None => ExecProcess::Changed(Changes {
            args: exec.command,
            cwd: exec.cwd,
            env: exec.env,
            user: exec.user.map(|user| user.parse()).transpose()?,
            additional_gids: exec.additional_gids,
            capabilities: exec.cap,
            apparmor_profile: exec.apparmor,
            selinux_label: exec.process_label,
            no_new_privileges: exec.no_new_privs,
        }),
    };
    let options = container::Exec {
        process,
        terminal: exec.tty,
        console,
        pidfd_socket: exec.pidfd_socket.as_deref().map(connect_pidfd).transpose()?,
        cgroups: exec.cgroup.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        paused: if exec.ignore_paused { IfPaused::Join } else { IfPaused::Refuse },
        pid_file: exec.pid_file.as_deref(),
        preserve_fds,
    };
    let created = container::exec(root, &id, options)?;
    created.warnings.iter().for_each(|warning| log.warning(warning));
    created.notes.iter().for_each(|note| log.debug(|| note.clone()));
    let Some(foreground) = foreground else { return Ok(0) };
    // Wait statuses have eight bits, and 128 + 64 fits too.
    Ok(u8::try_from(foreground.wait(&created, Attended { terminal, notify: None }, None)?).unwrap_or(u8::MAX))
}
