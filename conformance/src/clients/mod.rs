//! `conformance clients`: podman and containerd, as Debian packages them, with a runtime program below them.
//!
//! Everything they use is private: a tmpfs in a mount namespace of this process holds their configuration, storage and
//! sockets, and the images are built here, so that no registry is asked. What is left of them at the end is a failure.

mod containerd;
mod image;
mod podman;
mod rootless;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::suite::{self, Tally};
use crate::{clean, wait};

/// How long the processes of a client may take to disappear after its last container is gone.
const SETTLE: Duration = Duration::from_secs(10);

/// What `conformance clients` understands.
#[derive(clap::Args)]
pub struct ClientsArgs {
    /// The runtime program to put below them.
    #[arg(long)]
    runtime: PathBuf,
    /// Only this client.
    #[arg(long, value_enum)]
    only: Option<ClientName>,
}

/// The clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClientName {
    /// podman with conmon.
    Podman,
    /// podman of a user who is not root.
    Rootless,
    /// containerd through containerd-shim-runc-v2, driven by ctr.
    Containerd,
}

/// One test of one client.
struct Test<C> {
    name: &'static str,
    run: fn(&mut C) -> Result<()>,
}

/// Lists the tests of one client: `tests! { Podman, "podman": a, b }`.
macro_rules! tests {
    ($client:ty, $area:literal: $($name:ident),+ $(,)?) => {
        /// The tests of this client, in the order in which they run.
        pub const TESTS: &[crate::clients::Test<$client>] = &[$(crate::clients::Test {
            name: concat!($area, "::", stringify!($name)),
            run: $name,
        }),+];
    };
}
pub(crate) use tests;

/// Runs the tests of the chosen clients; failure if one of them failed.
pub fn run(arguments: &ClientsArgs) -> Result<ExitCode> {
    suite::enter_private_world()?;
    let runtime = suite::admit(&arguments.runtime)?;
    let begun = Instant::now();
    let wanted = |name| arguments.only.is_none_or(|only| only == name);
    let mut tally = Tally::default();
    let mut filtered = 0;
    if wanted(ClientName::Podman) {
        one_client(&mut tally, podman::TESTS, &runtime, podman::Podman::start, podman::Podman::finish);
    } else {
        filtered += podman::TESTS.len();
    }
    if wanted(ClientName::Rootless) {
        let (start, finish) = (rootless::Rootless::start, rootless::Rootless::finish);
        one_client(&mut tally, rootless::TESTS, &runtime, start, finish);
    } else {
        filtered += rootless::TESTS.len();
    }
    if wanted(ClientName::Containerd) {
        let (start, finish) = (containerd::Containerd::start, containerd::Containerd::finish);
        one_client(&mut tally, containerd::TESTS, &runtime, start, finish);
    } else {
        filtered += containerd::TESTS.len();
    }
    let ok = tally.report(filtered, begun);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests of one client in a world of its own. If the client cannot be started, for instance because it is
/// not installed, each of its tests says so. Its end is counted as one more test.
fn one_client<C>(
    tally: &mut Tally,
    tests: &[Test<C>],
    runtime: &Path,
    start: fn(&World) -> Result<C>,
    finish: fn(&mut C) -> Result<()>,
) {
    println!("\nrunning {} tests of {} under a client", tests.len(), runtime.display());
    let begun = World::new(runtime).and_then(|world| Ok((start(&world)?, world)));
    match begun {
        Ok((mut client, world)) => {
            for test in tests {
                tally.add(test.name, (test.run)(&mut client));
            }
            let ended = finish(&mut client);
            drop(client);
            let clean = ended.and_then(|()| world.close());
            tally.add("clients::nothing_is_left_behind", clean);
        }
        Err(error) => {
            let reason = error.downcast_ref::<suite::Skip>().map(|suite::Skip(reason)| reason.clone());
            let text = format!("{error:#}");
            for test in tests {
                let outcome = match &reason {
                    Some(reason) => suite::skip(reason.clone()),
                    None => anyhow::anyhow!("{text}"),
                };
                tally.add(test.name, Err(outcome));
            }
        }
    }
}

/// A private directory, the name that all control groups of the test carry, and the images.
struct World {
    /// The runtime program.
    runtime: PathBuf,
    /// A tmpfs of this process's mount namespace.
    directory: PathBuf,
    /// Unique on this machine.
    tag: String,
    mounts_before: std::collections::BTreeSet<PathBuf>,
    clean: bool,
}

impl World {
    fn new(runtime: &Path) -> Result<World> {
        let tag = format!("cfc{}", std::process::id());
        let directory = std::env::temp_dir().join(&tag);
        let mounts_before = clean::mounts()?;
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        // Layers of an overlay need a file system that is no overlay itself, and all of it goes with one umount.
        mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("mount a tmpfs on {}", directory.display()))?;
        let world = World { runtime: runtime.to_owned(), directory, tag, mounts_before, clean: false };
        for name in ["output", "tmp", "home", "turf"] {
            fs::create_dir(world.directory.join(name))?;
        }
        image::build(&world.directory)?;
        Ok(world)
    }

    /// Looks for what is left, then removes the directory.
    fn close(mut self) -> Result<()> {
        let mut leaks = Vec::new();
        if !wait::no_children(SETTLE) {
            leaks.extend(clean::children().into_iter().map(|process| format!("process {process}")));
        }
        let mut known = self.mounts_before.clone();
        known.insert(self.directory.clone());
        let mounts = clean::mounts()?;
        leaks.extend(mounts.difference(&known).map(|path| format!("mount {}", path.display())));
        leaks.extend(clean::cgroups(&self.tag).iter().map(|path| format!("cgroup {}", path.display())));
        ensure!(leaks.is_empty(), "left behind:\n  {}", leaks.join("\n  "));
        self.clean = true;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.clean {
            clean::kill_children();
        }
        let outcome = unmount_below(&self.directory)
            .and_then(|()| fs::remove_dir(&self.directory).context("remove the directory"));
        if let Err(error) = outcome {
            eprintln!("conformance: clean-up of {}: {error:#}", self.directory.display());
        }
        remove_groups(&self.tag);
    }
}

/// Takes away the mounts at and below a directory.
fn unmount_below(directory: &Path) -> Result<()> {
    for path in clean::mounts()?.iter().rev().filter(|path| path.starts_with(directory)) {
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))?;
    }
    Ok(())
}

/// Removes the empty control groups whose path has the tag, with those below them. A client may leave such groups
/// for its own processes; one that is not empty stays, and is found as a leak.
fn remove_groups(tag: &str) {
    for group in clean::cgroups(tag) {
        for below in fs::read_dir(&group).into_iter().flatten().flatten() {
            // Only a directory without processes and children can be removed; the rest are the files of the group.
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(&group);
    }
}

/// Stops the seed that a root's workers were forked from.
fn stop_seed(runtime: &Path, root: &Path) -> Result<()> {
    if !root.join("seeds/default").exists() {
        return Ok(());
    }
    let output = Command::new(runtime).arg("--root").arg(root).args(["seed", "stop", "default"]).output()?;
    ensure!(output.status.success(), "stop the seed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A skip if one of the programs is not installed.
fn need(programs: &[&str], package: &str) -> Result<()> {
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    for program in programs {
        if !directories.iter().any(|directory| Path::new(directory).join(program).exists()) {
            return Err(suite::skip(format!("{program} is not installed (Debian package {package})")));
        }
    }
    Ok(())
}
