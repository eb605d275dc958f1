//! The fork into a sandbox, for real: as root, with a pid 1 in namespaces of its own.
//!
//! A program of its own with one thread, because that is what may be forked. It runs itself again as the sandbox's
//! pid 1, which reaps and prints what it reaped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, wait};
use turf_core::sys::fork::{Destination, Fork, Step, clone_and_stand_still, fork_into};
use turf_core::sys::pidfd::{pidfd_open, pidfd_send_signal};
use turf_core::sys::process::exit_now;

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET);

/// Longer than any of these children live.
const LONG: Duration = Duration::from_secs(60);

fn main() {
    if std::env::args().any(|argument| argument == "init") {
        return be_init();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make namespaces");
        return;
    }
    let tests: [(&str, fn()); 9] = [
        ("a_child_with_our_memory_leaves_what_it_wrote", a_child_with_our_memory_leaves_what_it_wrote),
        ("a_child_with_our_memory_is_gone_when_it_ends", a_child_with_our_memory_is_gone_when_it_ends),
        ("a_child_with_our_memory_that_hangs_is_killed", a_child_with_our_memory_that_hangs_is_killed),
        ("the_worker_is_a_child_of_the_sandboxes_init", the_worker_is_a_child_of_the_sandboxes_init),
        ("init_reaps_the_true_status", init_reaps_the_true_status),
        ("a_thousand_forks_leave_no_descriptor_and_no_process", a_thousand_forks_leave_nothing),
        ("a_dead_init_is_refused", a_dead_init_is_refused),
        ("a_descriptor_that_is_no_process_is_refused", a_descriptor_that_is_no_process_is_refused),
        ("a_cgroup_file_that_cannot_be_written_is_refused", an_unwritable_cgroup_is_refused),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
}

fn a_child_with_our_memory_leaves_what_it_wrote() {
    let mut words = vec!["ours".to_owned()];
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let new_pid_namespace = CloneFlags::CLONE_NEWPID.bits();
    let mut told = 0;
    let pid = clone_and_stand_still(new_pid_namespace, LONG, |pid| {
        told = pid;
        words.push(format!("{} of {}", nix::unistd::getpid(), nix::unistd::getppid()));
        // Of its own table of descriptors.
        nix::unistd::close(reader.as_raw_fd()).unwrap();
        exit_now(7)
    })
    .unwrap();
    assert_eq!(words, ["ours", "1 of 0"]);
    assert_eq!(told, pid);
    assert_eq!(nix::unistd::write(&writer, b"open"), Ok(4));
    assert_eq!(wait(), Ok(WaitStatus::Exited(nix::unistd::Pid::from_raw(pid), 7)));
}

fn a_child_with_our_memory_is_gone_when_it_ends() {
    let killed = clone_and_stand_still(0, LONG, |_| {
        nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        unreachable!("killed")
    });
    let pid = nix::unistd::Pid::from_raw(killed.unwrap());
    assert_eq!(wait(), Ok(WaitStatus::Signaled(pid, nix::sys::signal::Signal::SIGKILL, false)));
    let flags = CloneFlags::CLONE_FS.bits() | CloneFlags::CLONE_NEWNS.bits();
    let refused = clone_and_stand_still(flags, LONG, |_| exit_now(0));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(Errno::EINVAL as i32));
}

/// The first process of a pid namespace can be killed from outside of it only: its own signals and timers would be ignored.
fn a_child_with_our_memory_that_hangs_is_killed() {
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    let mut began = false;
    let hung = clone_and_stand_still(CloneFlags::CLONE_NEWPID.bits(), Duration::from_millis(50), |_| {
        began = true;
        loop {
            let _ = nix::unistd::read(&reader, &mut [0]);
        }
    });
    assert_eq!(hung.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(began);
    assert_eq!(wait(), Err(Errno::ECHILD));
}

/// pid 1 of a sandbox: prints `<pid> <status>` of each child it reaps, ends when its standard input does.
fn be_init() {
    println!("ready");
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) => println!("{pid} exited {status}"),
            Ok(WaitStatus::Signaled(pid, signal, _)) => println!("{pid} killed {}", signal as i32),
            Ok(_) => {}
            Err(Errno::ECHILD) => std::thread::sleep(std::time::Duration::from_micros(200)),
            Err(errno) => panic!("wait: {errno}"),
        }
    }
}

struct Sandbox {
    unshare: Child,
    output: BufReader<ChildStdout>,
    init: OwnedFd,
}

impl Sandbox {
    fn new() -> Sandbox {
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--mount", "--uts", "--ipc", "--net", "--fork", "--kill-child=KILL"])
            .arg(std::env::current_exe().unwrap())
            .arg("init")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(unshare.stdout.take().unwrap());
        assert_eq!(read_line(&mut output), "ready");
        let pid = unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let init = pidfd_open(children.trim().parse().unwrap()).unwrap();
        Sandbox { unshare, output, init }
    }

    fn destination(&self) -> Destination<'_> {
        Destination { process: self.init.as_fd(), namespaces: NAMESPACES.bits() as u32, cgroups: &[] }
    }

    fn reaped(&mut self) -> String {
        read_line(&mut self.output)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(self.init.as_fd(), libc::SIGKILL);
        self.unshare.wait().unwrap();
    }
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Forks a worker that runs `body` and exits with what it gives.
fn fork_worker(sandbox: &Sandbox, body: impl FnOnce() -> i32) -> i32 {
    match fork_into(&sandbox.destination()).unwrap() {
        Fork::Child => exit_now(body()),
        Fork::Parent { pid } => pid,
    }
}

fn the_worker_is_a_child_of_the_sandboxes_init() {
    let mut sandbox = Sandbox::new();
    let before = fs::read_link("/proc/self/ns/uts").unwrap();
    let uts = before.clone();
    let seed = std::process::id() as i32;
    let pid = fork_worker(&sandbox, || {
        let pid = std::process::id() as i32;
        // The parent is pid 1 once H has gone; libc's thread id is this process's own.
        while nix::unistd::getppid().as_raw() != 1 {
            std::thread::yield_now();
        }
        let moved = fs::read_link("/proc/self/ns/uts").map(|now| now != uts).unwrap_or(true);
        i32::from(!(pid != seed && nix::unistd::gettid().as_raw() == pid && moved))
    });
    assert_eq!(sandbox.reaped(), format!("{pid} exited 0"));
    assert_eq!(fs::read_link("/proc/self/ns/uts").unwrap(), before, "the seed stays in its namespaces");
    assert_eq!(children().trim(), sandbox.unshare.id().to_string());
}

fn init_reaps_the_true_status() {
    let mut sandbox = Sandbox::new();
    for status in [0, 1, 42, 255] {
        let pid = fork_worker(&sandbox, || status);
        assert_eq!(sandbox.reaped(), format!("{pid} exited {status}"));
    }
    let pid = fork_worker(&sandbox, || {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        0
    });
    assert_eq!(sandbox.reaped(), format!("{pid} killed 9"));
}

fn a_thousand_forks_leave_nothing() {
    let mut sandbox = Sandbox::new();
    let before = (open_fds(), children());
    // Touched memory makes the page-table copy real.
    let memory = vec![1_u8; 16 << 20];
    let started = std::time::Instant::now();
    let mut calls = Vec::new();
    for round in 0..1000 {
        let called = std::time::Instant::now();
        let pid = fork_worker(&sandbox, || i32::from(memory[round * 4096]) - 1);
        calls.push(called.elapsed());
        assert_eq!(sandbox.reaped(), format!("{pid} exited 0"));
    }
    calls.sort();
    println!("1000 forks in {:?}, the call: min {:?}, p50 {:?}", started.elapsed(), calls[0], calls[500]);
    assert_eq!((open_fds(), children()), before);
}

fn a_dead_init_is_refused() {
    let sandbox = Sandbox::new();
    pidfd_send_signal(sandbox.init.as_fd(), libc::SIGKILL).unwrap();
    let mut polled = [nix::poll::PollFd::new(sandbox.init.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE).unwrap();
    let error = fork_into(&sandbox.destination()).unwrap_err();
    assert_eq!((error.step, error.source.raw_os_error()), (Step::EnterNamespaces, Some(libc::ESRCH)));
}

fn a_descriptor_that_is_no_process_is_refused() {
    let file = fs::File::open("/dev/null").unwrap();
    let destination =
        Destination { process: file.as_fd(), namespaces: NAMESPACES.bits() as u32, cgroups: &[] };
    let error = fork_into(&destination).unwrap_err();
    assert_eq!((error.step, error.source.raw_os_error()), (Step::EnterNamespaces, Some(libc::EINVAL)));
}

fn an_unwritable_cgroup_is_refused() {
    let sandbox = Sandbox::new();
    let read_only = fs::File::open("/dev/null").unwrap();
    let writable = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let cgroups = [writable.as_fd(), read_only.as_fd()];
    let before = open_fds();
    let error = fork_into(&Destination { cgroups: &cgroups, ..sandbox.destination() }).unwrap_err();
    assert_eq!((error.step, error.source.raw_os_error()), (Step::EnterCgroup(1), Some(libc::EBADF)));
    assert_eq!(open_fds(), before);
    assert!(read_only.as_raw_fd() > 2);
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> String {
    let me = std::process::id();
    fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap()
}
