//! What the tests of a seed stand on: a state directory, a sandbox, a worker's ends.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, wait};
use turf_core::root::StateRoot;
use turf_core::sandbox::plan::ProcessPlan;
use turf_core::seed::client::{ClientError, Fork, SeedClient, receive_report, report_channel};
use turf_core::seed::plan::WorkerPlan;
use turf_core::seed::protocol::{
    self, FdName, ForkFds, ForkRequest, Namespaces, Reaper, Report, Request, SeedStat,
};
use turf_core::seed::registry::{Registry, SeedName, SeedSource, SeedState};
use turf_core::sys::pidfd::{pidfd_open, pidfd_send_signal};
use turf_core::sys::socket;

/// Longest wait of a test for a worker.
const PATIENCE: Duration = Duration::from_secs(30);

/// pid 1 of a sandbox: prints `<pid> exited|killed <number>` of each child it reaps.
pub fn be_init() {
    println!("ready");
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) => println!("{pid} exited {status}"),
            Ok(WaitStatus::Signaled(pid, signal, _)) => println!("{pid} killed {}", signal as i32),
            Ok(_) => {}
            Err(Errno::ECHILD) => std::thread::sleep(Duration::from_micros(500)),
            Err(errno) => panic!("wait: {errno}"),
        }
    }
}

pub struct Sandbox {
    unshare: Child,
    output: BufReader<ChildStdout>,
    init: OwnedFd,
    pub init_pid: i32,
    namespaces: CloneFlags,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let all = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET;
        Sandbox::with(&["--pid", "--mount", "--mount-proc", "--uts", "--ipc", "--net"], all)
    }

    pub fn without_pid_namespace() -> Sandbox {
        let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNET;
        Sandbox::with(&["--mount", "--uts", "--net"], all)
    }

    /// One in a user namespace that this user owns.
    pub fn of_user(id: u32) -> Sandbox {
        let all = CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET;
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={id}"), format!("--regid={id}")]).args(["--clear-groups", "unshare"]);
        let namespaces =
            ["--user", "--map-root-user", "--pid", "--mount", "--mount-proc", "--uts", "--ipc", "--net"];
        Sandbox::by(command, &namespaces, all)
    }

    fn with(arguments: &[&str], namespaces: CloneFlags) -> Sandbox {
        Sandbox::by(Command::new("unshare"), arguments, namespaces)
    }

    fn by(mut command: Command, arguments: &[&str], namespaces: CloneFlags) -> Sandbox {
        let mut unshare = command
            .args(arguments)
            .args(["--fork", "--kill-child=KILL"])
            .arg(std::env::current_exe().unwrap())
            .arg("init")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(unshare.stdout.take().unwrap());
        assert_eq!(read_line(&mut output), "ready");
        let pid = unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let init_pid = children.trim().parse().unwrap();
        Sandbox { unshare, output, init: pidfd_open(init_pid).unwrap(), init_pid, namespaces }
    }

    /// The next line of init: a child it has reaped.
    pub fn reaped(&mut self) -> String {
        read_line(&mut self.output)
    }

    /// Kills init and waits for its end.
    pub fn end(&mut self) {
        let _ = pidfd_send_signal(self.init.as_fd(), libc::SIGKILL);
        self.unshare.wait().unwrap();
    }

    /// The pid on the host of a child of init with this pid inside.
    pub fn host_pid(&self, inside: i32) -> i32 {
        let init = self.init_pid;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
        let is_it = |pid: &&str| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("NSpid:")).unwrap().to_owned();
            line.split_whitespace().last() == Some(&inside.to_string())
        };
        children.split_whitespace().find(is_it).unwrap().parse().unwrap()
    }

    pub fn parent_of(&self, inside: i32) -> i32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.host_pid(inside))).unwrap();
        let line = status.lines().find(|line| line.starts_with("PPid:")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    pub fn kill(&self, inside: i32) {
        let process = pidfd_open(self.host_pid(inside)).unwrap();
        pidfd_send_signal(process.as_fd(), libc::SIGKILL).unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

/// A state directory with the registry of its seeds; all of them end with it.
pub struct Seeds {
    root: PathBuf,
    pub registry: Registry,
    pub name: SeedName,
}

impl Seeds {
    fn new(root: &Path) -> Seeds {
        let state_root = StateRoot::at(root).unwrap();
        let registry = Registry::new(&state_root).with_program(Path::new(env!("CARGO_BIN_EXE_turf-seed")));
        Seeds { root: root.to_owned(), registry, name: SeedName::default_seed() }
    }

    pub fn start(&self, name: &str, script: Option<&Path>) -> turf_core::Result<SeedState> {
        self.start_from(
            name,
            script.map_or(SeedSource::BuiltIns, |script| SeedSource::Script(script.to_owned())),
        )
    }

    pub fn start_from(&self, name: &str, source: SeedSource) -> turf_core::Result<SeedState> {
        self.registry.start(&name.parse().unwrap(), &source.into())
    }

    pub fn stat(&self) -> SeedStat {
        self.registry.connect(&self.name).unwrap().stat().unwrap()
    }

    pub fn control(&self) -> PathBuf {
        self.root.join("seeds").join(self.name.as_str()).join("current/control.sock")
    }

    pub fn raw_connection(&self) -> OwnedFd {
        drop(self.registry.connect(&self.name).unwrap().stat().unwrap());
        let connection = socket::seqpacket().unwrap();
        socket::set_timeout(connection.as_fd(), PATIENCE).unwrap();
        socket::connect_long(connection.as_fd(), &self.control()).unwrap();
        connection
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        for seed in self.registry.list().unwrap() {
            self.registry.stop(&seed.name).unwrap();
        }
    }
}

/// A seed and a sandbox to fork it into.
pub struct World {
    // The seed ends before its sandbox and its files do.
    pub seeds: Seeds,
    pub sandbox: Sandbox,
    directory: tempfile::TempDir,
}

/// A worker that was forked, and the test's ends of its descriptors.
#[derive(Debug)]
pub struct Worker {
    pub pid: i32,
    pub report: Report,
    pub output: File,
    gate: Option<OwnedFd>,
}

impl World {
    pub fn new() -> World {
        World::empty()
    }

    pub fn empty() -> World {
        World::with_sandbox(Sandbox::new())
    }

    /// A sandbox that the seed `mine` may enter when it runs user code.
    pub fn of_tenant() -> World {
        let directory = tempfile::tempdir().unwrap();
        let mut seeds = Seeds::new(directory.path());
        seeds.name = "mine".parse().unwrap();
        let tenant = seeds.registry.tenant(&seeds.name).unwrap();
        World { sandbox: Sandbox::of_user(tenant.owner()), seeds, directory }
    }

    pub fn with_sandbox(sandbox: Sandbox) -> World {
        let directory = tempfile::tempdir().unwrap();
        World { seeds: Seeds::new(directory.path()), sandbox, directory }
    }

    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Forks, waits for the report and for the end of the worker's output.
    pub fn run(&mut self, arguments: &[&str], reaper: Reaper) -> (Report, String) {
        let mut worker = self.start(arguments, reaper);
        (worker.report, output_of(&mut worker.output))
    }

    /// Forks and waits for the report.
    pub fn start(&mut self, arguments: &[&str], reaper: Reaper) -> Worker {
        self.try_fork(arguments, reaper).unwrap()
    }

    pub fn try_fork(&mut self, arguments: &[&str], reaper: Reaper) -> Result<Worker, ClientError> {
        let ends = Ends::new();
        let plan = plan(arguments);
        let client: SeedClient = self.seeds.registry.connect(&self.seeds.name).unwrap();
        let pid = client.fork(&self.fork(&ends, &plan, reaper))?.expect("a seed that reads").pid;
        let Ends { output, output_end, report, report_end, gate, gate_end, .. } = ends;
        drop((report_end, gate_end, output_end));
        let (report, _) = receive_report(report.as_fd(), PATIENCE)?;
        Ok(Worker { pid, report, output, gate: Some(gate) })
    }

    /// Sends a request and is gone before it can be answered; what a worker would write.
    pub fn send_and_go(&mut self, arguments: &[&str]) -> File {
        let ends = Ends::new();
        let plan = plan(arguments);
        let fork = self.fork(&ends, &plan, Reaper::Init);
        let file = turf_core::sys::memory::memfd_with(c"plan", &plan).unwrap();
        let mut named = fork.fds.named();
        named.push((FdName::Plan, file.as_fd()));
        let (names, fds): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let request = Request::Fork(ForkRequest {
            container: fork.container.to_owned(),
            namespaces: fork.namespaces,
            reaper: fork.reaper,
            groups: fork.groups,
            begin: fork.begin,
            plan_len: plan.len() as u32,
            fds: names,
        });
        let connection = socket::seqpacket().unwrap();
        socket::connect_long(connection.as_fd(), &self.seeds.control()).unwrap();
        socket::send_packet(connection.as_fd(), &protocol::encode(&request).unwrap(), &fds).unwrap();
        ends.output
    }

    fn fork<'a>(&'a self, ends: &'a Ends, plan: &'a [u8], reaper: Reaper) -> Fork<'a> {
        Fork {
            container: "test",
            namespaces: Namespaces::from_bits(self.sandbox.namespaces.bits() as u32).unwrap(),
            reaper,
            groups: protocol::GroupEntry::Itself,
            begin: protocol::Begin::AtOnce,
            plan,
            fds: ForkFds {
                init: self.sandbox.init.as_fd(),
                cgroups: Vec::new(),
                stdio: [ends.null.as_fd(), ends.output_end.as_fd(), ends.output_end.as_fd()],
                listeners: Vec::new(),
                report: ends.report_end.as_fd(),
                gate: ends.gate_end.as_fd(),
                supervision: None,
                promotion: None,
            },
        }
    }
}

/// Both ends of everything that a worker is given.
struct Ends {
    null: File,
    output: File,
    output_end: OwnedFd,
    report: OwnedFd,
    report_end: OwnedFd,
    gate: OwnedFd,
    gate_end: OwnedFd,
}

impl Ends {
    fn new() -> Ends {
        let null = File::open("/dev/null").unwrap();
        let (output, output_end) = std::io::pipe().unwrap();
        let (report, report_end) = report_channel().unwrap();
        let (gate, gate_end) = socket::seqpacket_pair().unwrap();
        let output = File::from(OwnedFd::from(output));
        Ends { null, output, output_end: output_end.into(), report, report_end, gate, gate_end }
    }
}

fn plan(arguments: &[&str]) -> Vec<u8> {
    let process = ProcessPlan {
        args: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        env: vec!["GREETING=hello".into(), "PATH=/bin".into()],
        cwd: "/".into(),
        umask: 0o022,
        ..ProcessPlan::default()
    };
    WorkerPlan { process, listen: Vec::new(), limits: None }.encode().unwrap()
}

impl Worker {
    /// Everything that was told at the gate, until nobody can tell any more.
    pub fn gate_messages(&self) -> Vec<Vec<u8>> {
        let gate = self.gate.as_ref().unwrap();
        let mut messages = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match socket::recv_packet(gate.as_fd(), &mut buffer).unwrap().len {
                0 => return messages,
                len => messages.push(buffer[..len].to_vec()),
            }
        }
    }

    pub fn close_gate(&mut self) {
        self.gate = None;
    }
}

/// Waits for the end of a process that is not ours.
pub fn wait_for_end(process: &OwnedFd) {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(nix::poll::poll(&mut polled, patience), Ok(1), "the process ends");
}

pub fn output_of(output: &mut File) -> String {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
