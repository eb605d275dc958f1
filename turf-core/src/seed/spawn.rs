//! Running the program of seeds: a fresh seed that somebody waits for, and a replacement that nobody does.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::directory::{NameDir, Recipe, SeedDir, SeedSource, SeedState};
use super::name::SeedName;
use super::tenant::Tenant;
use crate::error::{Error, Operation, Result};
use crate::limits;
use crate::sandbox::launch::read_only_program;

/// The file name of the seed's program.
pub const PROGRAM: &str = "turf-seed";
/// What a seed writes to its standard output when it listens; anything else is the reason why it does not.
pub const READY: &str = "ready";

/// Where the program is looked for after the directory of the running program.
const PROGRAM_DIRECTORIES: [&str; 2] = ["/usr/libexec/turf", "/usr/local/libexec/turf"];
/// Longest message of a seed that does not start, in bytes.
const MAX_START_MESSAGE: u64 = 64 * 1024;

/// Who starts seeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Spawner {
    /// The program, if it is not the installed one.
    pub program: Option<PathBuf>,
}

impl Spawner {
    /// Starts a seed in its own directory and waits until it listens. If it does not, it may still live.
    pub fn spawn(
        &self,
        name: &SeedName,
        names: &NameDir,
        generation: &SeedDir,
        recipe: &Recipe,
        tenant: Option<Tenant>,
    ) -> Result<SeedState> {
        let program = self.find_program()?;
        // Workers are forks of it: its file shows in their sandboxes as /proc/PID/exe (CVE-2019-5736).
        let sealed = match read_only_program(&program) {
            // Who may not mount is not root, and can hardly write the file that root installed.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            sealed => Some(sealed.operation(|| format!("mount {} read-only", program.display()))?),
        };
        let path = sealed.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let mut command = Command::new(path.as_deref().unwrap_or(&program));
        command.arg0(&program);
        add_arguments(&mut command, name, generation.path(), recipe);
        if let Some(tenant) = tenant {
            command.arg("--tenant").arg(tenant.owner().to_string());
        }
        let limit = recipe.start_timeout_ms.map_or(limits::SEED_START, Duration::from_millis);
        let message = run(command, &program, names.open_log()?, Stdio::piped(), name, limit)?;
        if message.trim_end() != READY {
            let text = match message.trim_end() {
                "" => format!("seed {name} died while it started; see {}", names.log().display()),
                reason => format!("seed {name} does not start: {reason}"),
            };
            return Err(Error::Remote { text });
        }
        if tenant.is_some() {
            serve(&generation.groups()?)?;
        }
        match generation.read_state()? {
            Some(state) => Ok(state),
            None => Err(not_running(name)),
        }
    }

    /// Leaves a process behind that replaces the seed: [`super::registry::Registry::replace_if_due`].
    pub fn spawn_replacer(&self, name: &SeedName, names: &NameDir, root: &Path) -> Result<()> {
        let program = self.find_program()?;
        let mut command = Command::new(&program);
        command.arg("--replace").arg("--name").arg(name.as_str()).arg("--directory").arg(root);
        run(command, &program, names.open_log()?, Stdio::null(), name, limits::SEED_START).map(drop)
    }

    fn find_program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        let own = std::env::current_exe().operation(|| "read /proc/self/exe")?;
        // On a mount of its own (`execute_from_read_only_mount`) it has no directory but the one in its name.
        let alone = own.parent().is_none_or(|directory| directory == Path::new("/"));
        let name = std::env::args_os().next().map(PathBuf::from).filter(|name| alone && name.is_absolute());
        let own = name.unwrap_or(own);
        let beside = own.parent().map(|directory| directory.join(PROGRAM));
        let installed = PROGRAM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(PROGRAM));
        let places: Vec<PathBuf> = beside.into_iter().chain(installed).collect();
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Ok(place.clone()),
            None => {
                let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
                Err(Error::invalid(PROGRAM, format!("is not at {}", places.join(", "))))
            }
        }
    }
}

fn add_arguments(command: &mut Command, name: &SeedName, directory: &Path, recipe: &Recipe) {
    command.arg("--name").arg(name.as_str()).arg("--directory").arg(directory);
    match &recipe.source {
        // A promoted one is made by nobody but a worker.
        SeedSource::BuiltIns | SeedSource::Promoted(_) => {}
        SeedSource::Script(script) => drop(command.arg("--script").arg(script)),
        SeedSource::Snapshot(snapshot) => drop(command.arg("--snapshot").arg(snapshot)),
    }
    if let Some(forks) = recipe.max_forks {
        command.arg("--max-forks").arg(forks.to_string());
    }
    if let Some(age_ms) = recipe.max_age_ms {
        command.arg("--max-age-ms").arg(age_ms.to_string());
    }
}

/// Runs the program, which leaves a daemon behind and returns at once; what the daemon says first.
fn run(
    mut command: Command,
    program: &Path,
    log: File,
    output: Stdio,
    name: &SeedName,
    limit: Duration,
) -> Result<String> {
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(output).stderr(log);
    let mut child = command.spawn().operation(|| format!("run {}", program.display()))?;
    let message = read_start_message(child.stdout.take(), name, limit);
    child.wait().operation(|| format!("wait for {}", program.display()))?;
    message
}

/// Reads what the seed says when it is ready or has failed, up to the end of the file.
fn read_start_message(output: Option<ChildStdout>, name: &SeedName, limit: Duration) -> Result<String> {
    let Some(output) = output else {
        return Ok(String::new());
    };
    let deadline = Instant::now() + limit;
    let mut message = Vec::new();
    let mut output = output.take(MAX_START_MESSAGE);
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut polled = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut polled, timeout) {
            Ok(0) => {
                return Err(Error::TimedOut {
                    operation: format!("start seed {name}"),
                    limit_ms: limit.as_millis() as u64,
                });
            }
            Err(Errno::EINTR) => continue,
            result => result.operation(|| format!("wait for seed {name}"))?,
        };
        let count = output.read(&mut buffer).operation(|| format!("read the answer of seed {name}"))?;
        message.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return Ok(String::from_utf8_lossy(&message).into_owned());
        }
    }
}

/// Gives the control groups of a seed whose user code has run the limits for serving.
pub(super) fn serve(groups: &[PathBuf]) -> Result<()> {
    for (file, value) in
        groups.iter().flat_map(|group| limits::SEED_SERVING.map(|(name, value)| (group.join(name), value)))
    {
        if file.exists() {
            std::fs::write(&file, value.to_string())
                .operation(|| format!("write {value} to {}", file.display()))?;
        }
    }
    Ok(())
}

/// Nothing of that name runs.
pub(super) fn not_running(name: &SeedName) -> Error {
    Error::invalid(format!("seed {name}"), "is not running")
}
