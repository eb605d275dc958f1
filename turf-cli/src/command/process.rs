//! The command lines of the verbs that make processes: `create`, `start`, `run`, `exec`.

use std::path::PathBuf;

use clap::Args;

/// `turf create`, and the first half of `turf run`.
#[derive(Debug, Args)]
pub struct Create {
    /// The bundle's directory.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The configuration, if not config.json; relative to the bundle's directory.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File to write init's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that receives the master of the container's terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Let the container inherit this many descriptors from 3 up, besides those of LISTEN_FDS.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Unix socket that receives a descriptor of init (pidfd_open(2)).
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Enter the root by moving it to / instead of by pivot_root(2), which a ramfs does not allow.
    #[arg(long)]
    pub no_pivot: bool,
    /// Changes nothing: orphans belong to the container's init.
    #[arg(long)]
    pub no_subreaper: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Print the compiled plan and create nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The container's id.
    pub id: String,
}

/// What a container inherits from 3 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// How many descriptors in all.
    pub count: u32,
    /// How many of them, the first ones, are listening sockets.
    pub listen: u32,
}

/// Most descriptors a container may inherit. The number comes from the caller and costs a table entry
/// each; nobody has been seen to pass more than a handful.
const MAX_INHERITED: u32 = 1024;

impl Create {
    /// The descriptors to keep open: those of sd_listen_fds(3), if they are meant for this process,
    /// then those of `--preserve-fds`.
    pub fn inherited(&self) -> Inherited {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        inherited(number("LISTEN_PID"), number("LISTEN_FDS"), std::process::id(), self.preserve_fds)
    }
}

fn inherited(listen_pid: Option<u32>, listen_fds: Option<u32>, own_pid: u32, preserve: u32) -> Inherited {
    let listen = if listen_pid == Some(own_pid) { listen_fds.unwrap_or(0) } else { 0 };
    let count = listen.saturating_add(preserve).min(MAX_INHERITED);
    Inherited { count, listen: listen.min(count) }
}

/// `turf start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Open a listener here and hand it to the worker: tcp://ADDR:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// The container.
    pub id: String,
}

/// `turf run`.
#[derive(Debug, Args)]
pub struct Run {
    /// How it is created.
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the container's end.
    #[arg(long, short)]
    pub detach: bool,
    /// Open a listener here and hand it to the worker: tcp://ADDR:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Do not delete the container after its end.
    #[arg(long)]
    pub keep: bool,
}

/// `turf exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// File that holds `process` of a config.json; in place of the container's own process.
    #[arg(long, short, value_name = "FILE", conflicts_with_all = CHANGES)]
    pub process: Option<PathBuf>,
    /// Working directory in the container.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Set an environment variable, in addition to the container's.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// User, and group, by number.
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Supplementary groups in addition to the container's.
    #[arg(long, short = 'g', value_name = "GID", value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// Capabilities in addition to the container's.
    #[arg(long, short, value_name = "CAP", value_delimiter = ',')]
    pub cap: Vec<String>,
    /// AppArmor profile.
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label.
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Forbid gaining privileges by executing programs.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Group below the container's own control groups, which must exist.
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub cgroup: Vec<String>,
    /// Also in a paused container; the process runs when it is resumed.
    #[arg(long)]
    pub ignore_paused: bool,
    /// Give the process a terminal: the caller's own, or that of --console-socket.
    #[arg(long, short)]
    pub tty: bool,
    /// Do not wait for the process's end.
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process's pid to.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Unix socket that receives the master of the process's terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that receives a descriptor of the process (pidfd_open(2)).
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Let the process inherit this many descriptors from 3 up, besides those of LISTEN_FDS.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The container.
    pub id: String,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "process")]
    pub command: Vec<String>,
}

/// The flags that change the container's own process.
const CHANGES: [&str; 9] =
    ["cwd", "env", "user", "additional_gids", "cap", "apparmor", "process_label", "no_new_privs", "command"];

impl Exec {
    /// How many descriptors from 3 up to keep open.
    pub fn inherited(&self) -> u32 {
        self.preserve_fds.min(MAX_INHERITED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_count_only_if_they_are_ours() {
        assert_eq!(inherited(None, None, 7, 0), Inherited { count: 0, listen: 0 });
        assert_eq!(inherited(Some(7), Some(2), 7, 1), Inherited { count: 3, listen: 2 });
        assert_eq!(inherited(Some(1), Some(2), 7, 1), Inherited { count: 1, listen: 0 });
        assert_eq!(inherited(None, Some(2), 7, 0), Inherited { count: 0, listen: 0 });
        let all = inherited(Some(7), Some(u32::MAX), 7, u32::MAX);
        assert_eq!(all, Inherited { count: MAX_INHERITED, listen: MAX_INHERITED });
    }
}
