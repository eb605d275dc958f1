//! `turf create`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use turf_core::bundle::{config_path, joins_a_pid_namespace};
use turf_core::container::{
    self, Begin, CgroupOptions, Console, CreateOptions, Fresh, Notifications, Terminal, Unwritable,
    service_manager,
};
use turf_core::root::{ContainerId, StateRoot, is_unprivileged};
use turf_core::sandbox::compile::{Keyring, RootEntry};
use turf_core::sandbox::execute_from_read_only_mount;

use crate::command::{Create, Globals, Rootless};
use crate::log::Log;

/// Creates the container, or prints its plan.
pub fn run(root: &StateRoot, globals: &Globals, create: Create, log: &Log) -> Result<()> {
    if create.dry_run {
        dry_run(root, globals, &create)
    } else {
        hide_from_neighbours(&create)?;
        let console = console(create.console_socket.as_deref())?;
        create_container(root, globals, &create, console, Begin::AtStart, log).map(drop)
    }
}

/// Init is a fork of this program until its sandbox stands. In a pid namespace that it joins it is seen meanwhile,
/// with its program, which must be no file that could be written (CVE-2019-5736); shared with `turf run`.
pub fn hide_from_neighbours(create: &Create) -> Result<()> {
    if joins_a_pid_namespace(&config_path(&create.bundle, create.config.as_deref())) {
        execute_from_read_only_mount()?;
    }
    Ok(())
}

/// Creates the container; shared with `turf run`.
pub fn create_container(
    root: &StateRoot,
    globals: &Globals,
    create: &Create,
    console: Console,
    begin: Begin,
    log: &Log,
) -> Result<Fresh> {
    let id: ContainerId = create.id.parse()?;
    let fresh = container::create_fresh(root, &id, options(globals, create, console, begin)?)?;
    fresh.warnings().iter().for_each(|warning| log.warning(warning));
    Ok(fresh)
}

/// Prints the plan; shared with `turf run`.
pub fn dry_run(root: &StateRoot, globals: &Globals, create: &Create) -> Result<()> {
    let id: ContainerId = create.id.parse()?;
    // Whether it has a terminal to give is a matter of `create`.
    let (_terminal, console) = Terminal::offer();
    let plan = container::plan(root, &id, &options(globals, create, console, Begin::AtStart)?)?;
    super::print(&format!("{}\n", serde_json::to_string_pretty(&plan)?))
}

fn options<'a>(
    globals: &Globals,
    create: &'a Create,
    console: Console,
    begin: Begin,
) -> Result<CreateOptions<'a>> {
    let inherited = create.inherited();
    Ok(CreateOptions {
        bundle: &create.bundle,
        config: create.config.as_deref(),
        pid_file: create.pid_file.as_deref(),
        console,
        notify: match service_manager() {
            Some(_) => Notifications::PassedOn,
            None => Notifications::Off,
        },
        pidfd_socket: create.pidfd_socket.as_deref().map(connect_pidfd).transpose()?,
        preserve_fds: inherited.count,
        listen_fds: inherited.listen,
        keyring: if create.no_new_keyring { Keyring::Inherited } else { Keyring::New },
        root_entry: if create.no_pivot { RootEntry::Move } else { RootEntry::Pivot },
        cgroups: cgroups(globals),
        begin,
    })
}

/// Who makes the control groups, and what becomes of those that may not be made.
fn cgroups(globals: &Globals) -> CgroupOptions {
    let skip = match globals.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => is_unprivileged(),
    };
    CgroupOptions {
        manager: globals.cgroup_manager(),
        unwritable: if skip { Unwritable::Skipped } else { Unwritable::Refused },
    }
}

/// The socket that receives a terminal, if one is named; shared with `turf exec`.
pub fn console(path: Option<&Path>) -> Result<Console> {
    match path {
        Some(path) => Ok(Console::Socket(connect(path, "--console-socket")?)),
        None => Ok(Console::None),
    }
}

/// The same for a process in the foreground, which may have the caller's terminal.
pub fn foreground_console(path: Option<&Path>) -> Result<(Option<Terminal>, Console)> {
    match path {
        Some(_) => Ok((None, console(path)?)),
        None => {
            let (terminal, console) = Terminal::offer();
            Ok((Some(terminal), console))
        }
    }
}

/// Connects to the socket that receives a descriptor of a process; shared with `turf exec`.
pub fn connect_pidfd(path: &Path) -> Result<OwnedFd> {
    connect(path, "--pidfd-socket")
}

fn connect(path: &Path, flag: &str) -> Result<OwnedFd> {
    let socket =
        UnixStream::connect(path).with_context(|| format!("{flag}: connect to {}", path.display()))?;
    Ok(socket.into())
}
