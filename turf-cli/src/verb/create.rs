//! `turf create`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use turf_core::container::{self, CreateOptions};
use turf_core::root::{ContainerId, StateRoot};
use turf_core::sandbox::compile::Keyring;
use turf_core::sandbox::init::Created;

use crate::command::Create;

/// Creates the container, or prints its plan.
pub fn run(root: &StateRoot, create: Create) -> Result<()> {
    if create.dry_run { dry_run(&create) } else { create_container(root, &create).map(drop) }
}

/// Creates the container; shared with `turf run`.
pub fn create_container(root: &StateRoot, create: &Create) -> Result<Created> {
    let id: ContainerId = create.id.parse()?;
    Ok(container::create(root, &id, options(create)?)?)
}

/// Prints the plan; shared with `turf run`.
pub fn dry_run(create: &Create) -> Result<()> {
    let id: ContainerId = create.id.parse()?;
    let plan = container::plan(&id, &options(create)?)?;
    super::print(&format!("{}\n", serde_json::to_string_pretty(&plan)?))
}

fn options(create: &Create) -> Result<CreateOptions<'_>> {
    if create.no_pivot {
        bail!("--no-pivot: is not supported: the root is always entered by pivot_root(2)");
    }
    let inherited = create.inherited();
    Ok(CreateOptions {
        bundle: &create.bundle,
        pid_file: create.pid_file.as_deref(),
        console_socket: create.console_socket.as_deref().map(connect_console).transpose()?,
        preserve_fds: inherited.count,
        listen_fds: inherited.listen,
        keyring: if create.no_new_keyring { Keyring::Inherited } else { Keyring::New },
    })
}

/// Connects to the socket that receives a terminal; shared with `turf exec`.
pub fn connect_console(path: &Path) -> Result<OwnedFd> {
    let socket = UnixStream::connect(path)
        .with_context(|| format!("--console-socket: connect to {}", path.display()))?;
    Ok(socket.into())
}
