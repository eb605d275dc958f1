//! Attacks by whoever owns a seed with user code: made by native code, behind the very steps that the seed takes before
//! it runs a script. As root, for there is nothing to be kept from otherwise.

#[allow(dead_code)] // Each program uses a part.
mod support;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aworker_rt::engine::in_child;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, chroot, sethostname, setresuid};
use support::Sandbox;
use turf_core::seed::registry::SeedSource;
use turf_core::seed::tenant::Tenant;
use turf_core::sys::pidfd::{pidfd_getfd, pidfd_open, pidfd_send_signal};
use turf_seed::confine::confine;

fn main() {
    if std::env::args().any(|argument| argument == "init") {
        return support::be_init();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make namespaces");
        return;
    }
    let tests: [(&str, fn()); 4] = [
        ("user_code_reaches_nothing_of_the_host", user_code_reaches_nothing_of_the_host),
        ("user_code_enters_its_tenants_sandboxes_and_no_others", user_code_enters_its_tenants_sandboxes),
        ("a_script_in_a_shared_directory_is_alone", a_script_in_a_shared_directory_is_alone),
        ("user_code_without_a_tenant_is_refused", user_code_without_a_tenant_is_refused),
    ];
    let only = std::env::args().nth(1);
    for (name, test) in tests.iter().filter(|(name, _)| only.as_ref().is_none_or(|part| name.contains(part)))
    {
        test();
        println!("test {name} ... ok");
    }
}

/// A tenant, a private directory with a script, and a place for the root.
struct World {
    directory: tempfile::TempDir,
    tenant: Tenant,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("code")).unwrap();
        fs::create_dir(directory.path().join("place")).unwrap();
        fs::write(directory.path().join("code/seed.js"), "secret of the tenant").unwrap();
        fs::write(directory.path().join("beside"), "secret of the host").unwrap();
        let tenant = Tenant::of(directory.path()).unwrap();
        World { directory, tenant }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the attacks in a child that has been confined as a seed is.
    fn attack(&self, script: &Path, attacks: impl FnOnce()) {
        let status = in_child(Duration::from_secs(60), || {
            let source = SeedSource::Script(script.to_owned());
            confine(&source, Some(self.tenant.owner()), &self.path("place")).unwrap();
            attacks();
            0
        });
        assert!(status.unwrap().expect("it takes less than a minute").success());
    }
}

fn refused<T>(result: nix::Result<T>, errno: Errno, what: &str) {
    assert_eq!(result.err(), Some(errno), "{what}");
}

fn refused_io<T>(result: io::Result<T>, errno: Errno, what: &str) {
    assert_eq!(result.err().and_then(|error| error.raw_os_error()), Some(errno as i32), "{what}");
}

fn user_code_reaches_nothing_of_the_host() {
    let world = World::new();
    let script = world.path("code/seed.js");
    let beside = world.path("beside");
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = host.local_addr().unwrap();
    let name = format!("turf-attack-{}", std::process::id());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract_listener = UnixListener::bind_addr(&abstract_address).unwrap();
    let parent = std::process::id().cast_signed();
    // A process of another tenant's, and a socket as that tenant's seed has one, open to everybody for once.
    let other = World::new();
    let neighbour = Sandbox::of_user(other.tenant.owner());
    let control = other.path("control.sock");
    let _control = UnixListener::bind(&control).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&control, everybody).unwrap();
    world.attack(&script, || {
        // Files: its own code, and nothing else; nothing can be written.
        assert_eq!(fs::read_to_string(&script).unwrap(), "secret of the tenant");
        let names = |path: &str| -> Vec<String> {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let top = script.components().nth(1).unwrap().as_os_str().to_owned().into_string().unwrap();
        let mut root = names("/");
        root.sort();
        let mut wanted = vec!["proc".to_owned(), top];
        wanted.sort();
        assert_eq!(root, wanted);
        for path in ["/etc/passwd", "/dev", "/sys", "/run", "/proc/sys/kernel/hostname", "/proc/1/status"] {
            assert_eq!(fs::metadata(path).unwrap_err().kind(), ErrorKind::NotFound, "{path}");
        }
        assert_eq!(fs::metadata(&beside).unwrap_err().kind(), ErrorKind::NotFound);
        refused_io(fs::write("/x", "x"), Errno::EROFS, "write to the root");
        refused_io(fs::write(&script, "x"), Errno::EROFS, "write the code");
        refused_io(fs::read_dir(format!("/proc/{parent}/fd")), Errno::ENOENT, "look into the parent");
        // Processes: none to be seen, signalled, or taken anything from.
        let own = std::process::id().to_string();
        let seen: Vec<String> = names("/proc")
            .into_iter()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .collect();
        assert_eq!(seen, [own]);
        for pid in [1, parent, neighbour.init_pid] {
            refused(kill(Pid::from_raw(pid), None), Errno::EPERM, "signal");
            let process = pidfd_open(pid).unwrap();
            refused_io(pidfd_send_signal(process.as_fd(), 0), Errno::EPERM, "signal by descriptor");
            let one = Pid::from_raw(pid);
            // What it knows of others: that they are there, and where they may run.
            let processors = sched_getaffinity(one).unwrap();
            refused(sched_setaffinity(one, &processors), Errno::EPERM, "choose its processors");
            for file in ["mem", "environ", "maps", "oom_score_adj", "root", "fd", "ns/net"] {
                refused_io(fs::metadata(format!("/proc/{pid}/{file}")), Errno::ENOENT, file);
            }
            refused_io(pidfd_getfd(process.as_fd(), 0), Errno::EPERM, "take a descriptor");
            let all = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
            refused(setns(process.as_fd(), all), Errno::EPERM, "enter the host's namespaces");
        }
        for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTERM] {
            refused(kill(Pid::from_raw(neighbour.init_pid), signal), Errno::EPERM, "signal another tenant");
        }
        refused_io(UnixStream::connect(&control), Errno::ENOENT, "connect to another seed's socket");
        // Privileges.
        refused(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)), Errno::EPERM, "become root");
        let none: Option<&str> = None;
        refused(mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), none), Errno::EPERM, "mount");
        refused(unshare(CloneFlags::CLONE_NEWUSER), Errno::EPERM, "make a user namespace");
        refused(chroot("/proc"), Errno::EPERM, "chroot");
        refused(sethostname("mine"), Errno::EPERM, "sethostname");
        refused_io(Command::new("/proc/self/exe").spawn(), Errno::EPERM, "execute a program");
        // Networks: not the host's, not its abstract sockets.
        refused_io(TcpStream::connect(address), Errno::ENETUNREACH, "connect to the host");
        refused_io(
            UnixStream::connect_addr(&abstract_address),
            Errno::ECONNREFUSED,
            "connect to a socket of the host",
        );
        // What /proc says of all this.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(
            (field("NoNewPrivs").as_str(), field("Seccomp").as_str(), field("Groups").as_str()),
            ("1", "2", "")
        );
    });
}

fn user_code_enters_its_tenants_sandboxes() {
    let world = World::new();
    let other = World::new();
    let own = Sandbox::of_user(world.tenant.owner());
    let others = Sandbox::of_user(other.tenant.owner());
    let hosts = Sandbox::new();
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    world.attack(&world.path("code/seed.js"), || {
        let enter = |sandbox: &Sandbox, flags| setns(pidfd_open(sandbox.init_pid).unwrap().as_fd(), flags);
        refused(enter(&others, all), Errno::EPERM, "enter another tenant's sandbox");
        refused(enter(&hosts, all & !CloneFlags::CLONE_NEWUSER), Errno::EPERM, "enter a sandbox of root's");
        enter(&own, all).unwrap();
        // From inside there is no way out either.
        refused(enter(&others, all), Errno::EPERM, "enter another tenant's sandbox from the own one");
        refused(unshare(CloneFlags::CLONE_NEWUSER), Errno::EPERM, "make a user namespace inside");
    });
}

fn a_script_in_a_shared_directory_is_alone() {
    let world = World::new();
    let (script, beside) = (world.path("code/seed.js"), world.path("code/other.js"));
    fs::write(&beside, "not this tenant's").unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(world.path("code"), open_to_all).unwrap();
    world.attack(&script, || {
        assert_eq!(fs::read_to_string(&script).unwrap(), "secret of the tenant");
        assert_eq!(fs::metadata(&beside).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

fn user_code_without_a_tenant_is_refused() {
    let world = World::new();
    let status = in_child(Duration::from_secs(60), || {
        let source = SeedSource::Script(world.path("code/seed.js"));
        let error = confine(&source, None, &world.path("place")).unwrap_err().to_string();
        assert_eq!(error, "user code needs a tenant");
        0
    });
    assert!(status.unwrap().expect("it takes less than a minute").success());
}
