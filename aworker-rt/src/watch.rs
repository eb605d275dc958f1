//! `aworker run --watch`: runs the program in a child, and again whenever a file that it has loaded changes.
//!
//! The child names each path on a socket before it reads it, and waits until it is watched. Directories are watched
//! (inotify(7)), not files: editors replace a file by another of its name. The next run begins when nothing has changed for a moment.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use aworker_rt::engine::{LOADED_FILES_FD, inheritable, open_process, prepare_child};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// Files must be quiet for this long: an editor's save is several changes, a build writes many files.
const QUIET: Duration = Duration::from_millis(60);
/// How long a program may finish what it has begun.
const GRACE: Duration = Duration::from_secs(2);

/// Runs until SIGINT or SIGTERM; the exit status.
pub fn run(arguments: &[OsString]) -> io::Result<u8> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut watched = Watched::new()?;
    loop {
        let (mut child, loaded) = spawn(arguments)?;
        let ended = watched.until_changed(&signals, &mut child, loaded)?;
        stop(&mut child)?;
        match ended {
            Ended::Changed(path) => eprintln!("aworker: {} has changed, running again", path.display()),
            Ended::Told => return Ok(0),
        }
    }
}

enum Ended {
    Changed(PathBuf),
    Told,
}

/// The program as a child, and the socket on which it names the files that it loads.
fn spawn(arguments: &[OsString]) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let inherited = inheritable(theirs.as_fd())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env(LOADED_FILES_FD, inherited.as_raw_fd().to_string());
    prepare_child(&mut command);
    Ok((command.spawn()?, ours))
}

fn stop(child: &mut Child) -> io::Result<()> {
    let pid = Pid::from_raw(child.id().cast_signed());
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    kill(pid, Signal::SIGTERM)?;
    let process = open_process(pid.as_raw())?;
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::NONE);
    if poll(&mut polled, timeout)? == 0 {
        child.kill()?;
    }
    child.wait().map(drop)
}

/// Directories, and the names in them that matter.
struct Watched {
    inotify: Inotify,
    directories: HashMap<WatchDescriptor, PathBuf>,
    files: HashSet<PathBuf>,
}

impl Watched {
    fn new() -> io::Result<Watched> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Watched { inotify, directories: HashMap::new(), files: HashSet::new() })
    }

    /// Watches a file that the program has loaded.
    fn add(&mut self, path: &Path) {
        let Some(directory) = path.parent().filter(|_| self.files.insert(path.to_owned())) else {
            return;
        };
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM;
        // A directory that has gone, or one too many: its files are not watched.
        if let Ok(watch) = self.inotify.add_watch(directory, changes) {
            self.directories.insert(watch, directory.to_owned());
        }
    }

    /// The files that changed since the last look.
    fn changed(&self) -> Option<PathBuf> {
        let mut found = None;
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                let directory = self.directories.get(&event.wd);
                let path = directory.zip(event.name.as_ref()).map(|(directory, name)| directory.join(name));
                found = path.filter(|path| self.files.contains(path)).or(found);
            }
        }
        found
    }

    fn until_changed(
        &mut self,
        signals: &SignalFd,
        child: &mut Child,
        loaded: UnixStream,
    ) -> io::Result<Ended> {
        let mut loaded = Some(Lines { socket: loaded, bytes: Vec::new() });
        let mut changed: Option<(PathBuf, Instant)> = None;
        loop {
            let timeout = match &changed {
                None => PollTimeout::NONE,
                Some((_, since)) => {
                    let left = QUIET.saturating_sub(since.elapsed());
                    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
                }
            };
            let (speaks, told) = {
                let mut polled = vec![
                    PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                    PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                ];
                polled.extend(
                    loaded.as_ref().map(|lines| PollFd::new(lines.socket.as_fd(), PollFlags::POLLIN)),
                );
                match poll(&mut polled, timeout) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let is_ready = |polled: &PollFd<'_>| polled.any() == Some(true);
                (polled.get(2).is_some_and(is_ready), is_ready(&polled[1]))
            };
            if speaks && let Some(lines) = &mut loaded {
                match lines.read()? {
                    Some(paths) => {
                        for path in paths {
                            self.add(&path);
                            lines.answer();
                        }
                    }
                    None => loaded = None,
                }
            }
            if told && self.is_told_to_end(signals, child)? {
                return Ok(Ended::Told);
            }
            if let Some(path) = self.changed() {
                changed = Some((path, Instant::now()));
            }
            if let Some((path, since)) = &changed
                && since.elapsed() >= QUIET
            {
                return Ok(Ended::Changed(path.clone()));
            }
        }
    }

    /// Whether a signal asks for the end; a child's end is only told.
    fn is_told_to_end(&self, signals: &SignalFd, child: &mut Child) -> io::Result<bool> {
        let mut told = false;
        while let Some(signal) = signals.read_signal()? {
            told |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        if !told && let Some(status) = child.try_wait()? {
            eprintln!("aworker: the program has ended ({status}); waiting for a change");
        }
        Ok(told)
    }
}

/// Paths, one a line, each of which is answered.
struct Lines {
    socket: UnixStream,
    bytes: Vec<u8>,
}

impl Lines {
    /// The lines that have come whole; nothing at the end.
    fn read(&mut self) -> io::Result<Option<Vec<PathBuf>>> {
        let mut buffer = [0; 4096];
        let count = match self.socket.read(&mut buffer) {
            Ok(count) => count,
            // It has ended before it read an answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        if count == 0 {
            return Ok(None);
        }
        self.bytes.extend_from_slice(&buffer[..count]);
        let end = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let whole: Vec<u8> = self.bytes.drain(..end).collect();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(Some(lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect()))
    }

    /// The child may go on; one that has ended does not hear it.
    fn answer(&mut self) {
        let _ = self.socket.write_all(&[0]);
    }
}

/// The command line without `--watch`, for the child.
pub fn without_watch(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut left = Vec::new();
    let mut is_done = false;
    for argument in arguments {
        match argument == "--watch" && !is_done {
            true => is_done = true,
            false => left.push(argument),
        }
    }
    left
}
