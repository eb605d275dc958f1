//! Isolation as the program inside sees it: namespaces, mounts, the root, masked and read-only paths, devices,
//! sysctl, user mappings (config-linux.md of the OCI runtime specification).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::Case;
use crate::host;
use crate::suite::tests;

tests! { "isolation";
    Exec:
        every_configured_namespace_is_another_one,
        a_namespace_that_is_left_out_is_the_callers,
        a_namespace_can_be_joined_by_its_path,
        only_the_programs_own_processes_are_seen,
        the_root_is_the_bundles_and_has_no_way_out,
        a_read_only_root_refuses_writes,
        bind_mounts_show_the_source_and_obey_ro,
        a_tmpfs_mount_has_its_options,
        nothing_mounted_inside_is_seen_outside,
        links_in_the_root_cannot_lead_a_mount_out_of_it,
        masked_paths_are_empty,
        read_only_paths_refuse_writes,
        the_default_devices_are_there,
        a_configured_device_is_made,
        sysctls_are_set_in_the_namespace,
        a_user_namespace_maps_the_root_user,
        the_loopback_interface_exists_alone;
}

const KINDS: [&str; 6] = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];

/// A script that prints `name link` for every namespace of [`KINDS`].
const PRINT_NAMESPACES: &str =
    "for n in pid net ipc uts mnt cgroup; do echo $n $(readlink /proc/self/ns/$n); done";

fn inside(stdout: &str) -> HashMap<&str, &str> {
    stdout.lines().filter_map(|line| line.split_once(' ')).collect()
}

fn every_configured_namespace_is_another_one(case: &mut Case) -> Result<()> {
    let finished = case.run_shell(PRINT_NAMESPACES)?;
    let seen = inside(&finished.stdout);
    for kind in KINDS {
        let ours = host::namespace(std::process::id().cast_signed(), kind)?;
        let theirs = seen.get(kind).with_context(|| format!("no {kind}: {finished}"))?;
        ensure!(
            theirs.starts_with(kind) && *theirs != ours,
            "the {kind} namespace is the host's: {finished}"
        );
    }
    Ok(())
}

fn a_namespace_that_is_left_out_is_the_callers(case: &mut Case) -> Result<()> {
    for (kind, link) in [("network", "net"), ("ipc", "ipc"), ("cgroup", "cgroup")] {
        let mut bundle = case.shell(PRINT_NAMESPACES)?;
        bundle.without_namespace(kind);
        if kind == "network" {
            // sysfs shows the network namespace's devices and can only be mounted by its owner.
            drop_mount(&mut bundle.config, "/sys");
        }
        let finished = case.run(&bundle)?.success()?;
        let ours = host::namespace(std::process::id().cast_signed(), link)?;
        ensure!(inside(&finished.stdout).get(link) == Some(&ours.as_str()), "{kind} is not ours: {finished}");
    }
    Ok(())
}

fn a_namespace_can_be_joined_by_its_path(case: &mut Case) -> Result<()> {
    let holder = case.shell("exec sleep 1000")?;
    let holder = case.start(&holder)?;
    let mut bundle = case.shell(PRINT_NAMESPACES)?;
    for (kind, link) in [("network", "net"), ("ipc", "ipc")] {
        bundle.without_namespace(kind);
        let path = format!("/proc/{}/ns/{link}", holder.pid);
        bundle.push("/linux/namespaces", json!({"type": kind, "path": path}));
    }
    let finished = case.run(&bundle)?.success()?;
    for link in ["net", "ipc"] {
        let expected = host::namespace(holder.pid, link)?;
        ensure!(
            inside(&finished.stdout).get(link) == Some(&expected.as_str()),
            "{link} not joined: {finished}"
        );
    }
    Ok(())
}

fn drop_mount(config: &mut serde_json::Value, destination: &str) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != destination);
    }
}

fn only_the_programs_own_processes_are_seen(case: &mut Case) -> Result<()> {
    let finished = case.run_shell("cd /proc && for p in [0-9]*; do echo $p; done")?;
    ensure!(finished.lines() == ["1"], "{finished}");
    Ok(())
}

fn the_root_is_the_bundles_and_has_no_way_out(case: &mut Case) -> Result<()> {
    let bundle = case.shell("cd /../../..; pwd; ls /; ls /mnt | wc -l")?;
    fs::write(bundle.inside("/only-here"), "")?;
    let finished = case.run(&bundle)?.success()?;
    let lines = finished.lines();
    ensure!(lines.first() == Some(&"/") && lines.contains(&"only-here"), "{finished}");
    ensure!(!lines.contains(&"home") && lines.last() == Some(&"0"), "{finished}");
    Ok(())
}

fn a_read_only_root_refuses_writes(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("touch /new || echo refused; touch /dev/shm/new && echo written")?;
    bundle.set("/root/readonly", json!(true));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["refused", "written"], "{finished}");
    ensure!(finished.stderr.contains("Read-only file system"), "{finished}");
    Ok(())
}

fn bind_mounts_show_the_source_and_obey_ro(case: &mut Case) -> Result<()> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "from the host\n")?;
    let mut bundle =
        case.shell("cat /mnt/ro/file /data; touch /mnt/ro/new || echo refused; touch /mnt/rw/new")?;
    bundle.push("/mounts", json!({"destination": "/mnt/ro", "source": source, "options": ["rbind", "ro"]}));
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt/rw", "type": "bind", "source": source, "options": ["bind"]}),
    );
    let file = source.join("file");
    bundle.push(
        "/mounts",
        json!({"destination": "/data", "type": "bind", "source": file, "options": ["bind"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["from the host", "from the host", "refused"], "{finished}");
    ensure!(source.join("new").exists(), "the writable bind did not reach the host");
    Ok(())
}

fn a_tmpfs_mount_has_its_options(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("grep ' /mnt ' /proc/self/mountinfo")?;
    let options = ["nosuid", "nodev", "noexec", "size=1024k", "mode=0711"];
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options}),
    );
    let finished = case.run(&bundle)?.success()?;
    for word in ["nosuid", "nodev", "noexec", "size=1024k", "mode=711"] {
        ensure!(finished.stdout.contains(word), "no {word}: {finished}");
    }
    Ok(())
}

fn nothing_mounted_inside_is_seen_outside(case: &mut Case) -> Result<()> {
    let bundle = case.shell("exec sleep 1000")?;
    let container = case.start(&bundle)?;
    let host = fs::read_to_string("/proc/self/mountinfo")?;
    let root = bundle.inside("/");
    ensure!(
        !host.contains(root.to_string_lossy().trim_end_matches('/')),
        "mounts leaked to the host:\n{host}"
    );
    case.remove(&container)
}

fn links_in_the_root_cannot_lead_a_mount_out_of_it(case: &mut Case) -> Result<()> {
    let outside = case.directory().join("outside");
    fs::create_dir(&outside)?;
    let depth = "../".repeat(12);
    for (target, destination) in [
        (format!("{}", outside.display()), "/link/a"),
        (format!("{depth}{}", outside.display()), "/link/b/c"),
    ] {
        let mut bundle = case.shell("exec sleep 1000")?;
        std::os::unix::fs::symlink(&target, bundle.inside("/link"))?;
        bundle.push("/mounts", json!({"destination": destination, "type": "tmpfs", "source": "planted"}));
        bundle.write()?;
        let id = case.id(&format!("planted{}", destination.len()));
        // A runtime may refuse, or resolve the link inside the root; either way the host's directory stays as it is.
        case.runtime.call(&["create", "--bundle", crate::case::text(&bundle.path)?, &id])?;
        let entries = fs::read_dir(&outside)?.count();
        ensure!(entries == 0, "the mount point {destination} was made outside of the root");
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!table.contains("planted"), "mounted on the host:\n{table}");
    }
    let mut plain = case.shell("grep ' /mnt/d .* planted ' /proc/self/mountinfo")?;
    plain.push("/mounts", json!({"destination": "/mnt/d", "type": "tmpfs", "source": "planted"}));
    let finished = case.run(&plain)?.success()?;
    ensure!(finished.stdout.contains("planted"), "{finished}");
    Ok(())
}

fn masked_paths_are_empty(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /etc/secret; ls /etc/hidden; echo end")?;
    fs::write(bundle.inside("/etc/secret"), "secret\n")?;
    fs::create_dir(bundle.inside("/etc/hidden"))?;
    fs::write(bundle.inside("/etc/hidden/file"), "secret\n")?;
    bundle.set("/linux/maskedPaths", json!(["/etc/secret", "/etc/hidden", "/etc/not-there", "/proc/kcore"]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["end"], "{finished}");
    Ok(())
}

fn read_only_paths_refuse_writes(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell(
        "touch /etc/fixed/new || echo refused; echo 1 > /proc/sys/net/ipv4/ip_forward || echo refused",
    )?;
    fs::create_dir(bundle.inside("/etc/fixed"))?;
    bundle.set("/linux/readonlyPaths", json!(["/etc/fixed", "/etc/not-there", "/proc/sys"]));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["refused", "refused"], "{finished}");
    Ok(())
}

fn the_default_devices_are_there(case: &mut Case) -> Result<()> {
    let script = "for d in null zero full random urandom tty; do [ -c /dev/$d ] && echo $d; done; \
                  head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo written; echo x > /dev/full || echo full; \
                  readlink /dev/fd; readlink /dev/stdin; readlink /dev/ptmx; ls /dev/pts/ptmx";
    let finished = case.run_shell(script)?;
    let expected = [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "3",
        "written",
        "full",
        "/proc/self/fd",
        "/proc/self/fd/0",
    ];
    ensure!(finished.lines().starts_with(&expected), "{finished}");
    ensure!(finished.stdout.contains("pts/ptmx"), "{finished}");
    Ok(())
}

fn a_configured_device_is_made(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("stat -c '%F %a %t %T %u %g' /dev/mine; head -c 2 /dev/mine | wc -c")?;
    let device = json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4});
    bundle.push("/linux/devices", device);
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"});
    bundle.push("/linux/resources/devices", allow);
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["character special file 640 1 5 3 4", "2"], "{finished}");
    Ok(())
}

fn sysctls_are_set_in_the_namespace(case: &mut Case) -> Result<()> {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = fs::read_to_string(path)?;
    let mut bundle = case.shell(&format!("cat {path} /proc/sys/kernel/shmmni"))?;
    bundle
        .set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "777", "kernel.shmmni": "123"}));
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["777", "123"], "{finished}");
    ensure!(fs::read_to_string(path)? == before, "the host's value changed");
    Ok(())
}

fn a_user_namespace_maps_the_root_user(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/mine")?;
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    fs::set_permissions(case.directory(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(bundle.inside("/tmp"), fs::Permissions::from_mode(0o1777))?;
    let finished = case.run(&bundle)?.success()?;
    let words: Vec<&str> = finished.stdout.split_whitespace().collect();
    ensure!(words == ["0", "0", "100000", "65536", "0", "100000", "65536"], "{finished}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.inside("/tmp/mine"))?);
    ensure!(owner == 100_000, "the host sees owner {owner}");
    Ok(())
}

fn the_loopback_interface_exists_alone(case: &mut Case) -> Result<()> {
    let finished = case.run_shell("cd /sys/class/net && echo *; grep -c : /proc/net/dev")?;
    let lines = finished.lines();
    ensure!(lines.first().is_some_and(|names| names.split(' ').any(|name| name == "lo")), "{finished}");
    ensure!(!lines[0].contains("eth"), "an interface of the host is visible: {finished}");
    Ok(())
}
