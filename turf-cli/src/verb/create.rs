//! `turf create`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use turf_core::container::{self, CgroupOptions, CreateOptions, Unwritable};
use turf_core::root::{ContainerId, StateRoot, is_unprivileged};
use turf_core::sandbox::compile::{Keyring, RootEntry};
use turf_core::sandbox::init::Created;

use crate::command::{Create, Globals, Rootless};
use crate::log::Log;

/// Creates the container, or prints its plan.
pub fn run(root: &StateRoot, globals: &Globals, create: Create, log: &Log) -> Result<()> {
    if create.dry_run {
        dry_run(globals, &create)
    } else {
        create_container(root, globals, &create, log).map(drop)
    }
}

/// Creates the container; shared with `turf run`.
pub fn create_container(root: &StateRoot, globals: &Globals, create: &Create, log: &Log) -> Result<Created> {
    let id: ContainerId = create.id.parse()?;
    let created = container::create(root, &id, options(globals, create)?)?;
    created.warnings.iter().for_each(|warning| log.warning(warning));
    Ok(created)
}

/// Prints the plan; shared with `turf run`.
pub fn dry_run(globals: &Globals, create: &Create) -> Result<()> {
    let id: ContainerId = create.id.parse()?;
    let plan = container::plan(&id, &options(globals, create)?)?;
    super::print(&format!("{}\n", serde_json::to_string_pretty(&plan)?))
}

fn options<'a>(globals: &Globals, create: &'a Create) -> Result<CreateOptions<'a>> {
    let inherited = create.inherited();
    Ok(CreateOptions {
        bundle: &create.bundle,
        pid_file: create.pid_file.as_deref(),
        console_socket: create.console_socket.as_deref().map(connect_console).transpose()?,
        pidfd_socket: create.pidfd_socket.as_deref().map(connect_pidfd).transpose()?,
        preserve_fds: inherited.count,
        listen_fds: inherited.listen,
        keyring: if create.no_new_keyring { Keyring::Inherited } else { Keyring::New },
        root_entry: if create.no_pivot { RootEntry::Move } else { RootEntry::Pivot },
        cgroups: cgroups(globals),
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

/// Connects to the socket that receives a terminal; shared with `turf exec`.
pub fn connect_console(path: &Path) -> Result<OwnedFd> {
    connect(path, "--console-socket")
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
