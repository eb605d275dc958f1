//! CVE-2019-5736: a container must not get at a program of the host through `/proc/PID/exe`. Each test attacks a
//! copy of the runtime, from a container with more capabilities than it should be given.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::bundle::{Bundle, DEFAULT_CAPABILITIES};
use crate::case::{Case, Container, text};
use crate::runtime::{Finished, Running};
use crate::suite::{skip, tests};
use crate::{http, wait};

tests! { "disguise";
    Turf:
        a_program_that_is_the_runtime_itself_gets_no_file_of_the_host,
        a_script_for_the_runtime_itself_gets_no_file_of_the_host,
        inits_program_cannot_be_written_after_the_start,
        an_exec_in_progress_shows_no_file_of_the_host,
        where_no_memfd_may_be_executed_the_same_holds,
        a_container_that_joins_a_pid_namespace_shows_no_file_of_the_host,
        a_container_that_joins_a_pid_namespace_cannot_be_looked_into,
        a_workers_program_cannot_be_written;
}

/// What an attacker would like to have besides.
const MORE_CAPABILITIES: &[&str] =
    &["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"];

/// A program of the host that must stay what it is.
struct Target {
    path: PathBuf,
    content: Vec<u8>,
}

impl Target {
    fn copy(from: &Path, to: PathBuf) -> Result<Target> {
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        // Its owner may write it, as the owner of an installed program may.
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(Target { content: fs::read(&to)?, path: to })
    }

    fn identity(&self) -> Result<String> {
        let file = fs::metadata(&self.path)?;
        Ok(format!("{}:{}", file.dev(), file.ino()))
    }

    /// Nobody runs it any more, so a descriptor of it could be written through now.
    fn check(&self) -> Result<()> {
        ensure!(fs::read(&self.path)? == self.content, "{} was overwritten", self.path.display());
        Ok(())
    }
}

/// From now on the case runs a copy of the runtime: if the attack succeeds, only that is lost.
fn use_a_copy(case: &mut Case) -> Result<Target> {
    let copy = case.directory().join("runtime");
    let target = Target::copy(case.runtime.program(), copy.clone())?;
    case.runtime.replace_program(copy);
    Ok(target)
}

/// A shell bundle with an attacker's capabilities.
fn hostile(case: &mut Case, script: &str) -> Result<Bundle> {
    let mut bundle = case.shell(script)?;
    let all: Vec<&str> = DEFAULT_CAPABILITIES.iter().chain(MORE_CAPABILITIES).copied().collect();
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(all));
    }
    Ok(bundle)
}

/// The image has everything that a program of the host needs to run: its loader and its libraries, any of which
/// could hold the attacker's code, as in the first exploit.
fn bring_libraries(bundle: &Bundle) -> Result<()> {
    let names =
        ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libseccomp.so.2", "libdl.so.2", "libpthread.so.0"];
    let below = "lib/x86_64-linux-gnu";
    for (from, to) in names
        .map(|name| (Path::new("/").join(below).join(name), format!("/{below}/{name}")))
        .into_iter()
        .chain([(PathBuf::from("/lib64/ld-linux-x86-64.so.2"), "/lib64/ld-linux-x86-64.so.2".to_owned())])
    {
        let to = bundle.inside(&to);
        fs::create_dir_all(to.parent().context("a library is in a directory")?)?;
        if from.exists() {
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    symlink("/proc/self/exe", bundle.inside("/own")).context("link to /proc/self/exe")
}

/// What the runtime says of its version nobody may get to hear from inside: its program would run there.
fn did_not_run(ran: &Finished, target: &Target) -> Result<()> {
    ensure!(!ran.status.success() && ran.stdout.is_empty(), "the runtime's program ran inside: {ran}");
    target.check()
}

fn a_program_that_is_the_runtime_itself_gets_no_file_of_the_host(case: &mut Case) -> Result<()> {
    let target = use_a_copy(case)?;
    let mut bundle = hostile(case, "")?;
    bring_libraries(&bundle)?;
    for program in ["/own", "/proc/self/exe"] {
        bundle.set("/process/args", json!([program, "--version"]));
        did_not_run(&case.run(&bundle)?, &target)?;
    }
    // The same as another process of a container that runs.
    bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    let container = case.start(&bundle)?;
    for program in ["/own", "/proc/self/exe"] {
        did_not_run(&case.runtime.call(&["exec", &container.id, program, "--version"])?, &target)?;
    }
    case.remove(&container)
}

fn a_script_for_the_runtime_itself_gets_no_file_of_the_host(case: &mut Case) -> Result<()> {
    let target = use_a_copy(case)?;
    let mut bundle = hostile(case, "")?;
    bring_libraries(&bundle)?;
    // The kernel looks the interpreter up while the runtime's program is still in place.
    for (name, interpreter) in [("/direct", "/proc/self/exe"), ("/linked", "/own")] {
        fs::write(bundle.inside(name), format!("#!{interpreter} --version\n"))?;
        fs::set_permissions(bundle.inside(name), fs::Permissions::from_mode(0o755))?;
        bundle.set("/process/args", json!([name]));
        did_not_run(&case.run(&bundle)?, &target)?;
    }
    Ok(())
}

/// Keeps `/proc/1/exe` open, waits until init has become the program, writes.
const HOLD_AND_WRITE: &str = "\
exec 3</proc/1/exe; stat -L -c %d:%i /proc/self/fd/3; wc -c < /proc/self/fd/3; echo held; read go < /go
if echo overwritten > /proc/self/fd/3; then echo written; else echo refused; fi; wc -c < /proc/self/fd/3
";

fn inits_program_cannot_be_written_after_the_start(case: &mut Case) -> Result<()> {
    let target = use_a_copy(case)?;
    let bundle = hostile(case, "exec sleep 1000")?;
    let _go = case.fifo(&bundle.inside("/go"))?;
    let container = case.create(&bundle)?;
    let (mut output, input) = std::io::pipe()?;
    let arguments = ["exec", &container.id, "/bin/sh", "-c", HOLD_AND_WRITE];
    let attacker = case.runtime.spawn_with(&arguments, None, Some(input.into()))?;
    let found = wait::line(&mut output, wait::STEP)?;
    let size = wait::line(&mut output, wait::STEP)?;
    ensure!(found != target.identity()?, "/proc/1/exe is the runtime's own file");
    ensure!(wait::line(&mut output, wait::STEP)? == "held");
    // From here on nobody executes it, so it is not the running that protects it.
    case.runtime.ok(&["start", &container.id])?;
    fs::write(bundle.inside("/go"), "go\n")?;
    let outcome = wait::line(&mut output, wait::STEP)?;
    ensure!(outcome == "refused", "{outcome}");
    ensure!(wait::line(&mut output, wait::STEP)? == size, "the file changed its size");
    attacker.finish()?;
    target.check()?;
    case.remove(&container)
}

/// Stops every process that it sees as soon as it sees it, and looks at its program. What has become a program of the
/// container already goes on.
const STOP_NEWCOMERS: &str = "\
echo ready
while :; do
  until kill -STOP -1 2>/dev/null; do :; done
  for process in /proc/[0-9]*; do
    case $process in /proc/1|/proc/$$) continue;; esac
    if [ -e $process/exe ] && ! [ $process/exe -ef /bin/busybox ]; then
      exec 3<$process/exe
      kill -CONT -1
      stat -L -c %d:%i /proc/self/fd/3
      read go < /go
      if echo overwritten > /proc/self/fd/3; then echo written; else echo refused; fi
      exec sleep 1000
    fi
  done
  kill -CONT -1
done
";

/// How many processes join before the attacker must have caught one.
const JOINS: usize = 200;

fn an_exec_in_progress_shows_no_file_of_the_host(case: &mut Case) -> Result<()> {
    let target = use_a_copy(case)?;
    let bundle = hostile(case, STOP_NEWCOMERS)?;
    let _go = case.fifo(&bundle.inside("/go"))?;
    let (container, mut output) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &container.id])?;
    ensure!(wait::line(&mut output, wait::STEP)? == "ready");
    let mut joins = 0;
    while !wait::readable_within(&output, std::time::Duration::ZERO) {
        ensure!(joins < JOINS, "no process was caught while it joined");
        case.runtime.ok(&["exec", &container.id, "/bin/true"])?;
        joins += 1;
    }
    let found = wait::line(&mut output, wait::STEP)?;
    ensure!(found != target.identity()?, "the runtime's own file was seen");
    // Whoever ran it has ended.
    fs::write(bundle.inside("/go"), "go\n")?;
    let outcome = wait::line(&mut output, wait::STEP)?;
    ensure!(outcome == "refused", "{outcome}");
    target.check()?;
    case.remove(&container)
}

/// `vm.memfd_noexec` is a setting of the pid namespace.
const FORBID_MEMFDS: [&str; 7] = [
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "/bin/sh",
    "-c",
    "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$0\" \"$@\"",
];

fn where_no_memfd_may_be_executed_the_same_holds(case: &mut Case) -> Result<()> {
    if !Path::new("/proc/sys/vm/memfd_noexec").exists() {
        return Err(skip("this kernel has no vm.memfd_noexec"));
    }
    let target = use_a_copy(case)?;
    let mut bundle = hostile(case, "echo ran; exit 7")?;
    bring_libraries(&bundle)?;
    case.runtime.run_through(&FORBID_MEMFDS);
    let ran = case.run(&bundle)?.exited(7)?;
    ensure!(ran.lines() == ["ran"], "{ran}");
    bundle.set("/process/args", json!(["/proc/self/exe", "--version"]));
    let attacked = case.run(&bundle)?;
    case.runtime.run_through(&[]);
    did_not_run(&attacked, &target)
}

/// A container that joins the pid namespace of another one, and stands still while its sandbox is built.
fn joining(case: &mut Case, other: &Container) -> Result<(Running, String, File)> {
    let mut bundle = case.shell("exec sleep 1000")?;
    let begun = bundle.inside("/begun");
    let fifo = case.fifo(&begun)?;
    bundle.without_namespace("pid");
    let namespace = format!("/proc/{}/ns/pid", other.pid);
    bundle.push("/linux/namespaces", json!({"type": "pid", "path": namespace}));
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo > {}; exec sleep 1000", begun.display())]});
    bundle.set("/hooks", json!({"createRuntime": [hook]}));
    bundle.write()?;
    let id = case.id("joins");
    let create = case.runtime.spawn(&["create", "--bundle", text(&bundle.path)?, &id], None)?;
    Ok((create, id, fifo))
}

/// Looks at the first newcomer's program and root, then holds the program until it is told to write.
const LOOK_AT_A_NEWCOMER: &str = "\
echo ready
read go < /go
for process in /proc/[0-9]*; do
  case $process in /proc/1|/proc/$$) continue;; esac
  if readlink $process/exe > /dev/null 2>&1; then echo seen; else echo hidden; continue; fi
  exec 3<$process/exe
  stat -L -c %d:%i /proc/self/fd/3
  read go < /go
  if echo overwritten > /proc/self/fd/3; then echo written; else echo refused; fi
done
exec sleep 1000
";

fn a_container_that_joins_a_pid_namespace_shows_no_file_of_the_host(case: &mut Case) -> Result<()> {
    let target = use_a_copy(case)?;
    let bundle = hostile(case, LOOK_AT_A_NEWCOMER)?;
    let mut go = case.fifo(&bundle.inside("/go"))?;
    let (attacker, mut output) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &attacker.id])?;
    ensure!(wait::line(&mut output, wait::STEP)? == "ready");
    let (create, id, mut begun) = joining(case, &attacker)?;
    wait::line(&mut begun, wait::STEP)?;
    go.write_all(b"go\n")?;
    ensure!(wait::line(&mut output, wait::STEP)? == "seen", "the attack did not reach the newcomer");
    wait::line(&mut output, wait::STEP)?;
    // From here on nobody executes it.
    case.runtime.ok(&["delete", "--force", &id])?;
    create.finish()?.failure(&[])?;
    go.write_all(b"go\n")?;
    let outcome = wait::line(&mut output, wait::STEP)?;
    ensure!(outcome == "refused", "{outcome}");
    target.check()?;
    case.remove(&attacker)
}

fn a_container_that_joins_a_pid_namespace_cannot_be_looked_into(case: &mut Case) -> Result<()> {
    let bundle = case.shell(LOOK_AT_A_NEWCOMER)?;
    let mut go = case.fifo(&bundle.inside("/go"))?;
    let (attacker, mut output) = case.create_piped(&bundle)?;
    case.runtime.ok(&["start", &attacker.id])?;
    ensure!(wait::line(&mut output, wait::STEP)? == "ready");
    let (create, id, mut begun) = joining(case, &attacker)?;
    wait::line(&mut begun, wait::STEP)?;
    go.write_all(b"go\n")?;
    let outcome = wait::line(&mut output, wait::STEP)?;
    ensure!(outcome == "hidden", "{outcome}");
    case.runtime.ok(&["delete", "--force", &id])?;
    create.finish()?.failure(&[])?;
    case.remove(&attacker)
}

/// A worker runs its seed's program, which is too large to be copied: it runs it from a mount that is read-only for
/// whoever comes through `/proc`, even for the host's root, even when nobody runs it any more.
fn a_workers_program_cannot_be_written(case: &mut Case) -> Result<()> {
    let seed = case.runtime.program().with_file_name("turf-seed");
    let runtime = use_a_copy(case)?;
    let target = Target::copy(&seed, case.directory().join("turf-seed"))?;
    let bundle = case.worker(super::HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let held = File::open(format!("/proc/{}/exe", super::worker_of(&container)?))?;
    let identity = held.metadata().map(|file| format!("{}:{}", file.dev(), file.ino()))?;
    ensure!(identity == target.identity()?, "the worker runs another file");
    case.remove(&container)?;
    case.runtime.ok(&["seed", "stop", "default"])?;
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let written = OpenOptions::new().write(true).open(&path).map(drop);
    let refusal = written.expect_err("the worker's program was opened for writing");
    ensure!(refusal.kind() == ErrorKind::ReadOnlyFilesystem, "{refusal}");
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    let remounted = mount(None::<&str>, path.as_str(), None::<&str>, flags, None::<&str>);
    ensure!(remounted == Err(Errno::EINVAL), "remount: {remounted:?}");
    // By its own name it can be written: nothing else keeps anybody from it.
    OpenOptions::new().write(true).open(&target.path)?;
    target.check()?;
    runtime.check()
}
