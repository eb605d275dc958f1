//! The seed's own sandbox: what it does before V8 starts, so that whoever takes it over later has little.
//!
//! ```text
//!   new mount, network, ipc and uts namespaces        (the pid and user namespaces stay: sandboxes are joined from them)
//!   root: an empty tmpfs, read-only, with /proc (own processes only) and, for user code, the code's directory
//!   user, capabilities, no_new_privs, filter: turf_core::seed::privileges; an empty session keyring
//! ```
//!
//! Not where the caller is not root: such a seed has its user's rights and can make none of this.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root, sethostname};
use turf_core::error::Operation;
use turf_core::sandbox::enter::apply_process;
use turf_core::sandbox::init::user_namespace;
use turf_core::sandbox::plan::IdMapping;
use turf_core::seed::privileges;
use turf_core::seed::protocol::Namespaces;
use turf_core::seed::registry::SeedSource;
use turf_core::sys::mount::{
    Depth, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttr,
    mount_setattr, move_mount, open_tree_clone,
};

/// The namespaces of its own that a seed has, which its workers always leave for those of their init.
const OWN: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// The namespaces of its own that a seed has; a worker that may become one has them, too.
pub fn own_namespaces() -> Namespaces {
    Namespaces::from_bits(OWN.bits().unsigned_abs()).unwrap_or(Namespaces::NONE)
}

/// Enters the sandbox; the namespaces that are the seed's own then. `place` is an existing directory that is covered.
pub fn confine(source: &SeedSource, tenant: Option<u32>, place: &Path) -> Result<Namespaces> {
    if turf_core::root::is_unprivileged() {
        return Ok(Namespaces::NONE);
    }
    let code = match (source, tenant) {
        (SeedSource::BuiltIns, _) => None,
        (SeedSource::Promoted(_), _) => bail!("a worker alone can make this seed"),
        (SeedSource::Script(_) | SeedSource::Snapshot(_), None) => bail!("user code needs a tenant"),
        (SeedSource::Script(file), Some(tenant)) => Some((directory_of(file)?, tenant)),
        (SeedSource::Snapshot(file), Some(tenant)) => Some((file.clone(), tenant)),
    };
    unshare(OWN).context("make the seed's namespaces")?;
    sethostname("seed").context("name the seed's host")?;
    // Before the root is another one: the mapping is made by way of /proc.
    let code =
        code.map(|(path, tenant)| Ok::<_, anyhow::Error>((read_only(&path, tenant)?, path))).transpose()?;
    enter_empty_root(place, code)?;
    let mut plan = privileges::of_seed(tenant)?;
    // What the starter has put into its own is not for whoever owns the seed.
    plan.session_keyring = Some(format!("_seed.{}", std::process::id()));
    apply_process(&plan, &mut |_| Ok(()))?;
    // A change of user takes this away, and /proc/self could not be read.
    prctl::set_dumpable(true).context("make /proc/self readable")?;
    Ok(own_namespaces())
}

/// What of the host a script sees: its directory, for what it imports. In one where anybody may put files, itself alone.
fn directory_of(script: &Path) -> Result<PathBuf> {
    let context = || format!("open {}", script.display());
    fs::metadata(script).operation(context)?;
    let directory = script.parent().filter(|directory| *directory != Path::new("/"));
    let is_shared = |directory: &Path| fs::metadata(directory).map(|found| found.mode() & 0o002 != 0);
    match directory {
        Some(directory) if !is_shared(directory).operation(context)? => Ok(directory.to_owned()),
        Some(_) | None => Ok(script.to_owned()),
    }
}

/// A read-only mount of the file or directory, in which what belongs to its owner belongs to the tenant.
fn read_only(path: &Path, tenant: u32) -> Result<OwnedFd> {
    let context = || format!("open {}", path.display());
    let found = fs::metadata(path).operation(context)?;
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let tree = open_tree_clone(AT_FDCWD, &name, Depth::One).with_context(context)?;
    let attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    let attributes = MountAttr { attr_set, ..MountAttr::default() };
    mount_setattr(tree.as_fd(), Depth::One, &attributes).with_context(context)?;
    let map = |id: u32| [IdMapping { inside: id, outside: tenant, count: 1 }];
    let owners = user_namespace(&map(found.uid()), &map(found.gid()))?;
    let userns_fd = u64::try_from(owners.as_raw_fd())?;
    let attributes = MountAttr { attr_set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
    // Not every file system can: then the code has to be readable to everybody.
    if let Err(error) = mount_setattr(tree.as_fd(), Depth::One, &attributes) {
        eprintln!("turf-seed: map the owner of {}: {error}", path.display());
    }
    Ok(tree)
}

fn enter_empty_root(place: &Path, code: Option<(OwnedFd, PathBuf)>) -> Result<()> {
    // The tenant has to find its way to the code.
    umask(Mode::from_bits_truncate(0o022));
    let none: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("make the mounts private")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("size=64k,mode=755")).context("mount the root")?;
    let proc = place.join("proc");
    fs::create_dir(&proc).context("make /proc")?;
    let flags = flags | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &proc, Some("proc"), flags, Some("hidepid=invisible,subset=pid"))
        .context("mount /proc")?;
    if let Some((tree, path)) = code {
        let target = place.join(path.strip_prefix("/").unwrap_or(&path));
        let is_directory = path.is_dir();
        let parent = if is_directory { Some(target.as_path()) } else { target.parent() };
        fs::create_dir_all(parent.unwrap_or(place)).context("make the code's directory")?;
        if !is_directory {
            fs::File::create(&target).context("make the code's place")?;
        }
        let target = open(&target, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .context("open the code's place")?;
        move_mount(tree.as_fd(), target.as_fd()).context("mount the code")?;
    }
    chdir(place).context("enter the root")?;
    pivot_root(".", ".").context("enter the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the host's root")?;
    chdir("/").context("enter the root")?;
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, "/", none, flags, none).context("make the root read-only")
}
