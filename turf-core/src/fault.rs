//! Faults on request, for tests of what a verb leaves behind when it is killed, stopped or refused something
//! half-way.
//!
//! A file `faults` in the state directory has lines `POINT ACTION`; a verb, or a seed that was started while the file was there, that
//! comes to that point of its work is killed (`kill`), stopped (`stop`), fails (`errno NUMBER`), sleeps (`sleep MILLISECONDS`) or never goes
//! on (`spin`) there. The points are those of [`Point`].
//!
//! This is in every build, so that what is tested is what runs. It is safe because the state directory belongs to
//! the user alone (0700): whoever can write this file could as well rewrite the plan in state.json, which says what is done as
//! that user. Without the file it costs one open(2) for each command and each seed.

use std::io::{self, Read};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};

use crate::error::{Error, Operation, Result};
use crate::root::StateRoot;

/// The file's name in the state directory.
pub const FILE: &str = "faults";

/// Longest file that is read, in bytes.
const FILE_BYTES: u64 = 64 * 1024;

/// The points of this process, read once.
static ARMED: OnceLock<Vec<(Point, Action)>> = OnceLock::new();

/// Whether this process has stopped itself.
static STOPPED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Fail(i32),
    Sleep(Duration),
    Spin,
}

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// Where a verb can be hit: after what the name says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $name),+
        }

        impl Point {
            /// All points, in the order in which a container's life comes to them.
            pub const ALL: &'static [Point] = &[$(Point::$name),+];

            /// The word in the file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Point::$name => $word),+
                }
            }
        }
    };
}

points! {
    /// `create` has the id and its lock.
    CreateLocked = "create:locked",
    /// state.json is written: the container exists.
    CreateStateStored = "create:state-stored",
    /// The control groups are made.
    CreateGroupsMade = "create:groups-made",
    /// init runs and is not yet written down.
    CreateInitSpawned = "create:init-spawned",
    /// init is written down.
    CreateInitStored = "create:init-stored",
    /// The `prestart` and `createRuntime` hooks have run.
    CreateHooksRun = "create:hooks-run",
    /// init stands at the gate.
    CreateAtGate = "create:at-gate",
    /// The container is written down as created.
    CreateCreatedStored = "create:created-stored",
    /// The pid file is written; init still depends on `create`.
    CreateToldPid = "create:told-pid",
    /// init lives on its own.
    CreateReleased = "create:released",
    /// `start` has the lock and the state.
    StartLoaded = "start:loaded",
    /// A worker's seed is there.
    StartSeedConnected = "start:seed-connected",
    /// init expects a worker.
    StartPrepared = "start:prepared",
    /// The seed has forked.
    StartForked = "start:forked",
    /// The worker has reported that it runs.
    StartReported = "start:reported",
    /// The workload runs; the `poststart` hooks come next.
    StartRunning = "start:running",
    /// A seed has read a request for a worker, and has not forked.
    SeedAsked = "seed:asked",
    /// A seed has forked, and has not answered; an error is a connection that is closed without an answer.
    SeedForked = "seed:forked",
    /// The worker that is to become a seed holds its clients.
    PromoteQuiet = "promote:quiet",
    /// It has forked; its clone waits.
    PromoteBorn = "promote:born",
    /// The clone can be forked, and waits.
    PromoteReady = "promote:ready",
    /// The clone serves forks, and has no name.
    PromoteServing = "promote:serving",
    /// It has the name, and the former seed still lives.
    PromoteNamed = "promote:named",
    /// A pool's supervisor has made a sandbox that pool.json does not know.
    PoolSandboxMade = "pool:sandbox-made",
    /// A pool's supervisor has a worker that pool.json does not know.
    PoolWorkerForked = "pool:worker-forked",
    /// `exec` knows its container.
    ExecLoaded = "exec:loaded",
    /// The process runs; its pid is not yet written.
    ExecSpawned = "exec:spawned",
    /// `delete` has the lock.
    DeleteLocked = "delete:locked",
    /// Nothing of the container runs.
    DeleteKilled = "delete:killed",
    /// The control groups are gone.
    DeleteGroupsRemoved = "delete:groups-removed",
    /// state.json is gone.
    DeleteStateRemoved = "delete:state-removed",
    /// The directory is gone; the `poststop` hooks come next.
    DeleteRemoved = "delete:removed",
}

impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Point> {
        let known = Point::ALL.iter().copied().find(|point| point.as_str() == text);
        known.ok_or_else(|| Error::invalid(format!("fault {text:?}"), "is no point of a verb's work"))
    }
}

/// Reads which faults are asked for; a command does it once, before anything else, and a seed before it leaves the host's root.
pub fn arm(root: &StateRoot) -> Result<()> {
    let path = root.path().join(FILE);
    let file = match std::fs::File::open(&path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        // Without the right to look into the directory the verb's own error says so better.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        file => file.operation(|| format!("open {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(FILE_BYTES).read_to_string(&mut text).operation(|| format!("read {}", path.display()))?;
    let faults =
        parse(&text).map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
    // A command has one state directory.
    ARMED.get_or_init(|| faults);
    Ok(())
}

fn parse(text: &str) -> Result<Vec<(Point, Action)>> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let point = words.next().unwrap_or_default().parse()?;
        let action = match (words.next(), words.next().map(str::parse), words.next()) {
            (Some("kill"), None, None) => Action::Kill,
            (Some("stop"), None, None) => Action::Stop,
            (Some("spin"), None, None) => Action::Spin,
            (Some("errno"), Some(Ok(number)), None) => Action::Fail(number),
            (Some("sleep"), Some(Ok(milliseconds @ 0..)), None) => {
                Action::Sleep(Duration::from_millis(milliseconds.unsigned_abs().into()))
            }
            _ => {
                return Err(Error::invalid(
                    format!("fault {line:?}"),
                    "must be POINT kill, stop, spin, errno NUMBER or sleep MILLISECONDS",
                ));
            }
        };
        Ok((point, action))
    };
    text.lines().filter(|text| !text.trim().is_empty()).map(line).collect()
}

/// Comes to a point: nothing happens unless a fault is asked for here. An error is the one that was asked for.
pub fn at(point: Point) -> Result<()> {
    let Some(armed) = ARMED.get() else { return Ok(()) };
    for (_, action) in armed.iter().filter(|(known, _)| *known == point) {
        let what = || format!("come to {}", point.as_str());
        match action {
            Action::Kill => raise(Signal::SIGKILL).operation(what)?,
            // Once: a step that is tried again goes on.
            Action::Stop if STOPPED.swap(true, Ordering::Relaxed) => {}
            Action::Stop => raise(Signal::SIGSTOP).operation(what)?,
            Action::Sleep(time) => std::thread::sleep(*time),
            Action::Spin => loop {
                std::hint::spin_loop();
            },
            Action::Fail(number) => return Err(Error::io(what(), Errno::from_raw(*number))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_lines_of_a_point_and_an_action() {
        let text = "create:locked kill\n\n start:forked  errno 28\ndelete:removed stop\nseed:asked spin\nseed:forked sleep 7";
        let wanted = [
            (Point::CreateLocked, Action::Kill),
            (Point::StartForked, Action::Fail(28)),
            (Point::DeleteRemoved, Action::Stop),
            (Point::SeedAsked, Action::Spin),
            (Point::SeedForked, Action::Sleep(Duration::from_millis(7))),
        ];
        assert_eq!(parse(text).unwrap(), wanted);
        for wrong in [
            "create:x kill",
            "create:locked",
            "create:locked die",
            "create:locked errno",
            "create:locked kill 9",
            "create:locked spin 9",
            "create:locked sleep",
            "create:locked sleep -1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for point in Point::ALL {
            assert_eq!(point.as_str().parse::<Point>().unwrap(), *point);
        }
    }

    #[test]
    fn without_a_file_nothing_is_armed() {
        let directory = tempfile::tempdir().unwrap();
        arm(&StateRoot::at(directory.path()).unwrap()).unwrap();
        arm(&StateRoot::at(&directory.path().join("none/at/all")).unwrap()).unwrap();
        assert!(at(Point::CreateLocked).is_ok());
        std::fs::write(directory.path().join(FILE), "no such point\n").unwrap();
        let error = arm(&StateRoot::at(directory.path()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("faults: "), "{error}");
    }
}
