//! Attacks on runtimes that have a number: each test is the attack, and the host must be as it was afterwards.
//!
//! Where an attack is a race, an attacker exchanges a directory of a shared volume for a link as fast as it can while
//! containers are created; how often is bounded, so it takes seconds. docs/security.md has the list.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use super::process::receive_descriptor;
use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::suite::tests;

tests! { "attacks";
    Exec:
        cve_2019_19921_proc_is_not_mounted_through_a_link,
        cve_2021_30465_a_raced_volume_leads_no_mount_outside,
        cve_2023_27561_a_volume_cannot_stand_in_for_proc_or_sys,
        cve_2024_21626_no_working_directory_leads_outside,
        cve_2024_45310_a_raced_volume_leads_no_file_outside,
        cve_2025_31133_masks_do_not_trust_the_containers_null,
        cve_2025_52565_the_console_does_not_trust_the_containers_dev,
        cve_2025_52881_no_mount_redirects_writes_to_proc;
}

/// How many containers are made while the attacker is at work.
const ROUNDS: usize = 24;

/// Exchanges two names until it is told to stop.
struct Attacker {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    /// Exchanges `directory`, which is made, and a link beside it that says `target`.
    fn start(directory: &Path, target: &Path) -> Result<Attacker> {
        let link = directory.with_extension("link");
        fs::create_dir_all(directory)?;
        symlink(target, &link)?;
        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted, directory) = (stop.clone(), exchanges.clone(), directory.to_owned());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                if renameat2(AT_FDCWD, &directory, AT_FDCWD, &link, flags).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Attacker { stop, exchanges, thread: Some(thread) })
    }

    /// How often it has exchanged them so far.
    fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

/// A directory of the host that no container may touch, and a way to it from below any root.
fn outside(case: &Case) -> Result<(PathBuf, PathBuf)> {
    let outside = case.directory().join("outside");
    fs::create_dir(&outside)?;
    let climbing = PathBuf::from(format!("{}{}", "../".repeat(16), outside.display()));
    Ok((outside, climbing))
}

fn untouched(outside: &Path) -> Result<()> {
    let entries: Vec<_> = fs::read_dir(outside)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(entries.is_empty(), "made outside of the container: {entries:?}");
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !table.contains(&format!(" {}", outside.display())),
        "mounted outside of the container:\n{table}"
    );
    Ok(())
}

/// Creates a container and removes it; a runtime may refuse, but must say so and end.
fn try_once(case: &mut Case, bundle: &Bundle, id: &str) -> Result<bool> {
    bundle.write()?;
    let created = case.runtime.call(&["create", "--bundle", text(&bundle.path)?, id])?;
    ensure!(created.status.code().is_some(), "killed: {created}");
    if created.status.success() {
        case.runtime.ok(&["delete", "--force", id])?;
    }
    Ok(created.status.success())
}

/// The race for a volume: `mounts` lie below /vol/a, which the attacker exchanges for a link.
fn race_for_a_volume(case: &mut Case, mounts: &[Value]) -> Result<()> {
    let (outside, climbing) = outside(case)?;
    for target in [outside.clone(), climbing] {
        let volume = case.directory().join(format!("volume{}", target.as_os_str().len()));
        let attacker = Attacker::start(&volume.join("a"), &target)?;
        let mut bundle = case.shell("exec sleep 1000")?;
        bundle.push(
            "/mounts",
            json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]}),
        );
        for mount in mounts {
            bundle.push("/mounts", mount.clone());
        }
        let id = case.id("raced");
        let before = attacker.exchanges();
        for _ in 0..ROUNDS / 2 {
            try_once(case, &bundle, &id)?;
            untouched(&outside)?;
        }
        ensure!(attacker.exchanges() > before, "the attacker did nothing");
    }
    Ok(())
}

fn cve_2021_30465_a_raced_volume_leads_no_mount_outside(case: &mut Case) -> Result<()> {
    race_for_a_volume(
        case,
        &[
            json!({"destination": "/vol/a/mounted", "type": "tmpfs", "source": "planted"}),
            json!({"destination": "/vol/a/deep/er", "type": "tmpfs", "source": "planted"}),
        ],
    )
}

fn cve_2024_45310_a_raced_volume_leads_no_file_outside(case: &mut Case) -> Result<()> {
    let file = case.directory().join("file");
    fs::write(&file, "")?;
    let bind =
        |target: &str| json!({"destination": target, "type": "bind", "source": file, "options": ["bind"]});
    race_for_a_volume(case, &[bind("/vol/a/file"), bind("/vol/a/deep/file")])
}

fn cve_2019_19921_proc_is_not_mounted_through_a_link(case: &mut Case) -> Result<()> {
    let (outside, climbing) = outside(case)?;
    for (index, target) in [Path::new("/evil"), &outside, &climbing].into_iter().enumerate() {
        let mut bundle = case.shell("exec sleep 1000")?;
        fs::remove_dir(bundle.inside("/proc"))?;
        fs::create_dir(bundle.inside("/evil"))?;
        symlink(target, bundle.inside("/proc"))?;
        bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([])).write()?;
        let id = case.id(&format!("link{index}"));
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[])?;
        untouched(&outside)?;
    }
    // The same with a directory is no problem.
    case.run_shell("test -e /proc/self/status").map(drop)
}

fn cve_2023_27561_a_volume_cannot_stand_in_for_proc_or_sys(case: &mut Case) -> Result<()> {
    let (outside, _) = outside(case)?;
    for name in ["proc", "sys"] {
        // The image's directory is a link into a volume, in which the attacker exchanges what it leads to.
        let volume = case.directory().join(format!("volume-{name}"));
        let attacker = Attacker::start(&volume.join("fake"), &outside)?;
        let mut bundle = case.shell("exec sleep 1000")?;
        fs::remove_dir(bundle.inside(name))?;
        symlink("/vol/fake", bundle.inside(name))?;
        bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
        let mut mounts =
            vec![json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]})];
        mounts.extend(bundle.config["mounts"].as_array().context("mounts")?.iter().cloned());
        bundle.set("/mounts", json!(mounts));
        let id = case.id(name);
        for _ in 0..ROUNDS / 4 {
            ensure!(!try_once(case, &bundle, &id)?, "{name} was mounted through a link");
            untouched(&outside)?;
        }
        ensure!(attacker.exchanges() > 0, "the attacker did nothing");
    }
    Ok(())
}

fn cve_2024_21626_no_working_directory_leads_outside(case: &mut Case) -> Result<()> {
    // A descriptor of the host's root that is not close-on-exec, as if some caller had forgotten it.
    let leak = fs::File::open("/")?;
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty())?;
    let marker = case.directory().join("marker");
    fs::write(&marker, "the host's\n")?;
    let relative = text(&marker)?.trim_start_matches('/').to_owned();
    let script = format!("cat {relative} ../{relative} ../../{relative} 2> /dev/null; echo end");
    for number in 3..24 {
        let mut bundle = case.shell(&script)?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let finished = case.run(&bundle)?;
        ensure!(!finished.stdout.contains("the host's"), "descriptor {number}: {finished}");
    }
    let sleeper = case.shell("exec sleep 1000")?;
    let container = case.start(&sleeper)?;
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let arguments = ["exec", "--cwd", &cwd, &container.id, "/bin/sh", "-c", &script];
        let finished = case.runtime.call(&arguments)?;
        ensure!(!finished.stdout.contains("the host's"), "exec, descriptor {number}: {finished}");
    }
    case.remove(&container)
}

fn cve_2025_31133_masks_do_not_trust_the_containers_null(case: &mut Case) -> Result<()> {
    // The container's /dev is a volume in which somebody has put a link in the place of /dev/null.
    let volume = case.directory().join("volume");
    fs::create_dir(&volume)?;
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o755))?;
    let mut bundle =
        case.shell("cat /etc/secret; stat -c '%F %t %T' /etc/secret; stat -c %n /etc/bait; echo end")?;
    fs::write(bundle.inside("/etc/secret"), "secret\n")?;
    fs::write(bundle.inside("/etc/bait"), "bait\n")?;
    symlink("/etc/bait", volume.join("null"))?;
    bundle.set("/linux/maskedPaths", json!(["/etc/secret"]));
    bundle.set(
        "/mounts/1",
        json!({"destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"]}),
    );
    bundle.set("/mounts/2", json!({"destination": "/mnt", "type": "tmpfs", "source": "x"}));
    bundle.set("/mounts/3", json!({"destination": "/run", "type": "tmpfs", "source": "x"}));
    let finished = case.run(&bundle)?;
    // A runtime may refuse such a /dev. What it masks must be masked by the device.
    if finished.status.success() {
        let lines = finished.lines();
        ensure!(!lines.contains(&"secret") && !lines.contains(&"bait"), "{finished}");
        ensure!(lines.first() == Some(&"character special file 1 3"), "masked by something else: {finished}");
    }
    let bait = fs::symlink_metadata(bundle.inside("/etc/bait"))?;
    ensure!(bait.file_type().is_file() && !bait.file_type().is_char_device(), "the bait was changed");
    Ok(())
}

fn cve_2025_52565_the_console_does_not_trust_the_containers_dev(case: &mut Case) -> Result<()> {
    let (outside, climbing) = outside(case)?;
    let bait = outside.join("bait");
    for target in [Path::new("/etc/bait").to_owned(), climbing.join("bait"), bait.clone()] {
        // What is bound on /dev/console must not come to lie elsewhere, and no file may be made elsewhere.
        let mut bundle = case.shell("stat -c '%F' /etc/bait; echo end")?;
        bundle.set("/process/terminal", json!(true));
        fs::write(bundle.inside("/etc/bait"), "bait\n")?;
        let volume = case.directory().join(format!("dev{}", target.as_os_str().len()));
        fs::create_dir_all(volume.join("pts"))?;
        symlink(&target, volume.join("console"))?;
        bundle.set(
            "/mounts/1",
            json!({"destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"]}),
        );
        let path = case.directory().join(format!("console{}", target.as_os_str().len()));
        let listener = UnixListener::bind(&path)?;
        let id = case.id(&format!("console{}", target.as_os_str().len()));
        bundle.write()?;
        let create = ["create", "--bundle", text(&bundle.path)?, "--console-socket", text(&path)?, &id];
        let creating = case.runtime.spawn(&create, None)?;
        let created = creating.finish()?;
        if created.status.success() {
            drop(receive_descriptor(&listener)?);
        }
        ensure!(!bait.exists(), "made outside of the container: {created}");
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!table.contains("outside"), "mounted outside of the container:\n{table}");
    }
    // Something else in the place of the multiplexer of terminals is not opened for one.
    let mut bundle = case.shell("exit 0")?;
    bundle.set("/process/terminal", json!(true));
    let volume = case.directory().join("dev");
    fs::create_dir_all(volume.join("pts"))?;
    fs::write(volume.join("pts/ptmx"), "not a terminal")?;
    bundle.set(
        "/mounts/1",
        json!({"destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"]}),
    );
    bundle.set("/mounts/2", json!({"destination": "/mnt", "type": "tmpfs", "source": "x"}));
    bundle.write()?;
    let path = case.directory().join("console");
    let _listener = UnixListener::bind(&path)?;
    let id = case.id("terminal");
    let create = ["create", "--bundle", text(&bundle.path)?, "--console-socket", text(&path)?, &id];
    case.runtime.call(&create)?.failure(&[]).map(drop)
}

fn cve_2025_52881_no_mount_redirects_writes_to_proc(case: &mut Case) -> Result<()> {
    // What the runtime writes to /proc for the container (labels, scores, sysctl) must arrive there, whatever the
    // configuration mounts into /proc by its name or through a link.
    let fake = case.directory().join("fake");
    fs::create_dir_all(&fake)?;
    for name in ["current", "exec", "oom_score_adj", "ip_unprivileged_port_start"] {
        fs::write(fake.join(name), "untouched")?;
    }
    let bind =
        |target: &str| json!({"destination": target, "type": "bind", "source": fake, "options": ["bind"]});
    for target in
        ["/proc/self/attr", "/proc/thread-self/attr", "/proc/sys/net/ipv4", "/link/attr", "/link/sys"]
    {
        let mut bundle =
            case.shell("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start")?;
        let behind = if target == "/link/sys" { "/proc" } else { "/proc/self" };
        symlink(behind, bundle.inside("/link"))?;
        bundle.push("/mounts", bind(target));
        bundle.set("/process/oomScoreAdj", json!(777));
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "777"}));
        let finished = case.run(&bundle)?;
        if finished.status.success() {
            ensure!(finished.lines() == ["777", "777"], "{target}: {finished}");
        }
        for entry in fs::read_dir(&fake)? {
            let path = entry?.path();
            ensure!(fs::read_to_string(&path)? == "untouched", "{target}: {} was written", path.display());
            ensure!(fs::metadata(&path)?.size() == 9);
        }
    }
    let mut plain = case.shell("cat /proc/self/oom_score_adj")?;
    plain.set("/process/oomScoreAdj", json!(777));
    let finished = case.run(&plain)?.success()?;
    ensure!(finished.lines() == ["777"], "{finished}");
    Ok(())
}
