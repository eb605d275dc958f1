//! `cargo xtask vm [plain|systemd]...`: the tests of control groups on a kernel with cgroup v2 only, in a virtual
//! machine made of Debian's packages. Not part of `cargo xtask test`.
//!
//! The machine is one initial RAM disk: a small Debian, the built programs, and a list of command lines. It runs
//! once without systemd and once with it, writes to its serial console, and powers off. The processor is emulated, so
//! that it runs wherever qemu does, and takes some minutes; `TURF_VM_ACCEL=kvm` is faster where KVM works.
//! `TURF_VM_ONLY` replaces the choice of conformance tests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{command, execute, output, step};
use crate::test::{build, program};
use crate::{packages, v8};

/// What the host needs: the emulator and what makes the root file system.
const HOST: &[&str] = &["qemu-system-x86", "mmdebstrap", "busybox-static"];

/// What is in the machine. runc and crun test the tests.
const GUEST: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "busybox-static",
    "libseccomp2",
    "util-linux",
    "procps",
    "iproute2",
    "uidmap",
    "runc",
    "crun",
];

/// The release of Debian in the machine.
const RELEASE: &str = "bookworm";

/// The package that depends on the newest kernel of the release for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// How long one boot may take: emulation is about twenty times slower than the processor.
const LIMIT: Duration = Duration::from_secs(1500);

/// What the machine prints last, before the number of what it says is its result.
const RESULT: &str = "turf-vm: result ";

/// Areas of the conformance tests that have to do with control groups, life cycles, and a clock that may be set.
const AREAS: &str = "resources:: update:: lifecycle:: exec:: isolation:: clock::";

/// With systemd: its driver.
const SYSTEMD_AREAS: &str = "systemd::";

/// `cargo xtask vm`: both boots, or those that are named.
pub fn run(arguments: &[String]) -> Result<()> {
    let boots: Vec<&str> = match arguments {
        [] => vec!["plain", "systemd"],
        named => named.iter().map(String::as_str).collect(),
    };
    if let Some(unknown) = boots.iter().find(|boot| !["plain", "systemd"].contains(boot)) {
        bail!("{unknown}: must be plain or systemd");
    }
    packages::install(packages::BUILD)?;
    packages::install(HOST)?;
    let library = v8::find()?;
    step("build the release programs");
    build(&library)?;
    let unit_tests = unit_tests(&library)?;
    let directory = crate::shell::workspace().join("target/vm");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let kernel = kernel(&directory)?;
    let root = root(&directory)?;
    for boot in boots {
        step(&format!("boot {} with {boot}", kernel.display()));
        fill(&root, boot, &unit_tests)?;
        let disk = pack(&directory, &root)?;
        let begun = Instant::now();
        let passed = start(&kernel, &disk, boot)?;
        println!("    {boot}: {:.0} s", begun.elapsed().as_secs_f64());
        ensure!(passed, "the tests in the virtual machine with {boot} failed");
    }
    Ok(())
}

/// The name of turf-core's unit tests in the machine.
const UNIT_TESTS: &str = "turf-core-tests";

/// Builds turf-core's unit tests, those of control groups among them; the path of the program.
fn unit_tests(library: &v8::Library) -> Result<PathBuf> {
    let mut cargo = command("cargo");
    library.apply(cargo.args(["test", "--release", "-p", "turf-core", "--lib", "--no-run"]));
    let built = cargo.output().context("run cargo test --no-run")?;
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    // "  Executable unittests src/lib.rs (target/release/deps/turf_core-0123456789abcdef)"
    let path = said.lines().find_map(|line| line.split_once("src/lib.rs (")?.1.strip_suffix(')'));
    let path = path.with_context(|| format!("cargo test --no-run names no program: {said}"))?;
    Ok(crate::shell::workspace().join(path))
}

/// Downloads and unpacks the kernel's package, unless that was done; the path of the kernel.
fn kernel(directory: &Path) -> Result<PathBuf> {
    let depends = output(command("apt-cache").args(["depends", KERNEL]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("{KERNEL} depends on nothing; apt-get update?"))?;
    let unpacked = directory.join(package);
    if !unpacked.exists() {
        execute(command("apt-get").args(["download", "-q", package]).current_dir(directory))?;
        let archive = entry(directory, |name| name.starts_with(package) && name.ends_with(".deb"))?;
        execute(command("dpkg-deb").arg("-x").arg(archive).arg(&unpacked))?;
    }
    entry(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))
}

/// The entry of a directory with a name like that.
fn entry(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let found = entries.flatten().find(|entry| wanted(&entry.file_name().to_string_lossy()));
    found.map(|entry| entry.path()).with_context(|| format!("nothing suitable in {}", directory.display()))
}

/// Makes the root file system from packages, unless that was done with the same ones.
fn root(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    let stamp = directory.join("root.packages");
    let include = format!("--include={}", GUEST.join(","));
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == include) {
        return Ok(root);
    }
    if root.exists() {
        execute(command("rm").args(["-rf", "--one-file-system"]).arg(&root))?;
    }
    let arguments = ["--quiet", "--variant=minbase", &include, "--format=directory", RELEASE];
    execute(command("mmdebstrap").args(arguments).arg(&root))?;
    add_user(&root)?;
    fs::write(&stamp, &include).with_context(|| format!("write {}", stamp.display()))?;
    Ok(root)
}

/// An ordinary user, for whom systemd runs from the start.
fn add_user(root: &Path) -> Result<()> {
    let append = |file: &str, line: &str| -> Result<()> {
        let path = root.join(file);
        let mut opened = fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = opened.as_mut().map(|opened| writeln!(opened, "{line}"));
        written.map(drop).map_err(|error| anyhow::anyhow!("append to {}: {error}", path.display()))
    };
    append("etc/passwd", "turf-test:x:1000:1000::/tmp:/bin/sh")?;
    append("etc/group", "turf-test:x:1000:")?;
    append("etc/shadow", "turf-test:*:19000:0:99999:7:::")?;
    let linger = root.join("var/lib/systemd/linger");
    fs::create_dir_all(&linger).with_context(|| format!("create {}", linger.display()))?;
    append("var/lib/systemd/linger/turf-test", "")
}

/// Puts the programs, the scripts and the command lines into the root file system.
fn fill(root: &Path, boot: &str, unit_tests: &Path) -> Result<()> {
    let here = root.join("opt/turf");
    fs::create_dir_all(here.join("bin")).with_context(|| format!("create {}", here.display()))?;
    let programs = ["turf", "turf-seed", "aworker", "conformance"].map(|name| (program(name), name));
    for (from, name) in programs.into_iter().chain([(unit_tests.to_owned(), UNIT_TESTS)]) {
        let to = here.join("bin").join(name);
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    let script = |path: PathBuf, text: &str| -> Result<()> {
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    };
    script(root.join("init"), include_str!("vm/init.sh"))?;
    script(here.join("plain.sh"), include_str!("vm/plain.sh"))?;
    script(here.join("tests.sh"), include_str!("vm/tests.sh"))?;
    let unit = root.join("etc/systemd/system/turf-vm.service");
    fs::write(&unit, include_str!("vm/turf-vm.service"))
        .with_context(|| format!("write {}", unit.display()))?;
    let commands = here.join("commands");
    fs::write(&commands, commands_of(boot).join("\n") + "\n")
        .with_context(|| format!("write {}", commands.display()))
}

/// What runs in the machine.
fn commands_of(boot: &str) -> Vec<String> {
    let areas = if boot == "systemd" { SYSTEMD_AREAS } else { AREAS };
    let only = std::env::var("TURF_VM_ONLY").unwrap_or_else(|_| areas.to_owned());
    let only: String = only.split_whitespace().map(|word| format!(" --only {word}")).collect();
    let conformance = |runtime: &str| format!("conformance run --runtime {runtime}{only}");
    let unit_tests = (boot != "systemd").then(|| format!("{UNIT_TESTS} cgroup"));
    let on_runtimes = [
        conformance("/opt/turf/bin/turf"),
        format!("{} --exec-only", conformance("/usr/sbin/runc")),
        format!("{} --exec-only", conformance("/usr/bin/crun")),
    ];
    unit_tests.into_iter().chain(on_runtimes).collect()
}

/// The root file system as an initial RAM disk.
fn pack(directory: &Path, root: &Path) -> Result<PathBuf> {
    let disk = directory.join("root.cpio");
    let script = format!(
        "cd {} && find . -xdev -print0 | busybox xargs -0 -n 100000 printf '%s\\n' | busybox cpio -o -H newc > {}",
        root.display(),
        disk.display()
    );
    execute(command("sh").args(["-c", &script]).stderr(Stdio::null()))?;
    Ok(disk)
}

/// Boots the machine and shows its console; whether the tests passed.
fn start(kernel: &Path, disk: &Path, boot: &str) -> Result<bool> {
    let init = match boot {
        "systemd" => "/sbin/init systemd.unit=turf-vm.service",
        _ => "/opt/turf/plain.sh",
    };
    let append = format!("console=ttyS0 quiet panic=-1 psi=1 turf.init={init}");
    let mut qemu = command("qemu-system-x86_64");
    let accelerator = std::env::var("TURF_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned());
    qemu.args(["-accel", &accelerator, "-cpu", "max", "-smp", "2", "-m", "3072"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(disk).args(["-append", &append]);
    println!("    $ {}", crate::shell::shown(&qemu));
    let mut machine = qemu.stdout(Stdio::piped()).spawn().context("run qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the console is a pipe")?;
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let mut result = None;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        println!("    | {line}");
        std::io::stdout().flush()?;
        result = line.strip_prefix(RESULT).map(|number| number == "0").or(result);
    }
    if Instant::now() >= deadline {
        machine.kill().context("end the virtual machine")?;
        machine.wait()?;
        bail!("the virtual machine still runs after {LIMIT:?}");
    }
    machine.wait()?;
    result.context("the virtual machine ended without a result")
}
