//! Mounts: every option of the specification, propagation, owners, order (config.md, "Mounts").

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, text};
use crate::host;
use crate::suite::{skip, tests};

tests! { "mounts";
    Exec:
        attributes_are_those_of_the_options,
        rarer_options_are_understood,
        recursive_attributes_reach_the_mounts_below,
        rarer_recursive_attributes_hold_and_undo_one_another,
        without_a_recursive_option_the_mounts_below_keep_theirs,
        flags_of_the_file_system_are_set,
        propagation_is_that_of_the_options,
        an_unknown_option_is_a_parameter_of_the_file_system,
        parameters_of_a_bind_mount_are_passed_over,
        a_file_is_bound_on_a_file_that_is_made,
        mounts_lie_over_one_another_in_their_order,
        a_relative_destination_lies_below_the_root,
        a_read_only_tmpfs_has_room_for_mount_points,
        a_tmpfs_can_begin_with_what_it_covers,
        a_source_that_is_missing_is_named,
        locked_attributes_survive_in_a_user_namespace,
        id_mapped_mounts_show_other_owners,
        control_groups_are_those_of_the_container,
        control_groups_can_be_read_only,
        what_only_the_hosts_root_can_reach_is_mounted_under_mapped_ids;
    Turf:
        mounts_without_a_mount_namespace_are_the_hosts_until_delete,
        an_id_mapped_mount_can_take_the_containers_mapping,
        a_remount_changes_an_earlier_mount,
        a_link_in_place_of_proc_or_sys_is_named;
}

/// One line of a mountinfo table (proc_pid_mountinfo(5)).
struct Mounted {
    attributes: String,
    optional: String,
    superblock: String,
}

/// The last mount on `target` in a table.
fn find(table: &str, target: &str) -> Result<Mounted> {
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(target));
    let line = line.with_context(|| format!("nothing is mounted on {target}:\n{table}"))?;
    let (left, right) = line.split_once(" - ").context("a line of mountinfo")?;
    let fields: Vec<&str> = left.split(' ').collect();
    Ok(Mounted {
        attributes: fields[5].to_owned(),
        optional: fields[6..].join(" "),
        superblock: right.split(' ').nth(2).unwrap_or_default().to_owned(),
    })
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|one| one == word)
}

const TABLE: &str = "cat /proc/self/mountinfo";

/// Runs a container with these mounts; the table of its mounts.
fn table_with(case: &mut Case, mounts: &[Value]) -> Result<String> {
    let mut bundle = case.shell(TABLE)?;
    for mount in mounts {
        bundle.push("/mounts", mount.clone());
    }
    Ok(case.run(&bundle)?.success()?.stdout)
}

/// A directory of the host with another mount in it, and in that one more; unmounted when dropped.
struct Tree {
    path: PathBuf,
}

impl Tree {
    fn new(case: &Case, name: &str) -> Result<Tree> {
        let path = case.directory().join(name);
        for part in ["", "sub", "sub/sub"] {
            let place = path.join(part);
            fs::create_dir_all(&place)?;
            mount(Some("tree"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
                .context("mount")?;
        }
        Ok(Tree { path })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The case reports what is left.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Options, the words that must be in the attributes, and those that must not.
type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);
const ATTRIBUTES: [Row; 9] = [
    (&["ro"], &["ro"], &["rw"]),
    (&["nosuid"], &["nosuid"], &[]),
    (&["nodev"], &["nodev"], &[]),
    (&["noexec"], &["noexec"], &[]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["strictatime"], &[], &["noatime", "relatime"]),
    (&["relatime"], &["relatime"], &["noatime"]),
    (&["nodiratime"], &["nodiratime"], &[]),
    (&["ro", "nosuid", "nodev", "noexec"], &["ro", "nosuid", "nodev", "noexec"], &[]),
];

/// Attributes younger than the others, and words that ask for what is so anyway.
const RARER: [Row; 9] = [
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["nosymfollow"], &["nosymfollow"], &[]),
    (&["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
    (&["defaults", "async", "loud", "noiversion", "nolazytime", "nomand"], &["rw"], &[]),
    (&["iversion", "silent", "norelatime", "nostrictatime"], &["rw"], &[]),
];

fn attributes_are_those_of_the_options(case: &mut Case) -> Result<()> {
    check_attributes(case, &ATTRIBUTES)
}

fn rarer_options_are_understood(case: &mut Case) -> Result<()> {
    check_attributes(case, &RARER)
}

fn check_attributes(case: &mut Case, rows: &[Row]) -> Result<()> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    let mut mounts = Vec::new();
    for (index, (options, _, _)) in rows.iter().enumerate() {
        mounts.push(json!({"destination": format!("/mnt/t{index}"), "type": "tmpfs", "source": "t", "options": options}));
        let bind: Vec<&str> = ["bind"].iter().chain(*options).copied().collect();
        mounts.push(
            json!({"destination": format!("/mnt/b{index}"), "type": "bind", "source": source, "options": bind}),
        );
    }
    let table = table_with(case, &mounts)?;
    for (index, (options, wanted, unwanted)) in rows.iter().enumerate() {
        for target in [format!("/mnt/t{index}"), format!("/mnt/b{index}")] {
            let attributes = find(&table, &target)?.attributes;
            for word in *wanted {
                ensure!(has(&attributes, word), "{options:?}: no {word} in {attributes} of {target}");
            }
            for word in *unwanted {
                ensure!(!has(&attributes, word), "{options:?}: {word} in {attributes} of {target}");
            }
        }
    }
    Ok(())
}

/// Recursive options and what they do to each mount of a tree.
const RECURSIVE: [Row; 4] = [
    (&["rro"], &["ro"], &[]),
    (&["rnosuid"], &["nosuid"], &[]),
    (&["rnodev"], &["nodev"], &[]),
    (&["rnoexec"], &["noexec"], &[]),
];

/// Those that not every runtime has or gets right.
const RARER_RECURSIVE: [Row; 12] = [
    (&["rnodiratime"], &["nodiratime"], &[]),
    (&["rro", "rrw"], &["rw"], &["ro"]),
    (&["rnosuid", "rsuid"], &[], &["nosuid"]),
    (&["rnodev", "rdev"], &[], &["nodev"]),
    (&["rnoexec", "rexec"], &[], &["noexec"]),
    (&["rnoatime"], &["noatime"], &[]),
    (&["rstrictatime"], &[], &["noatime", "relatime"]),
    (&["rrelatime"], &["relatime"], &[]),
    (&["rnoatime", "ratime"], &[], &["noatime"]),
    (&["rnodiratime", "rdiratime"], &[], &["nodiratime"]),
    (&["rnosymfollow"], &["nosymfollow"], &[]),
    (&["rnosymfollow", "rsymfollow"], &[], &["nosymfollow"]),
];

fn recursive_attributes_reach_the_mounts_below(case: &mut Case) -> Result<()> {
    check_recursive(case, &RECURSIVE)
}

fn rarer_recursive_attributes_hold_and_undo_one_another(case: &mut Case) -> Result<()> {
    check_recursive(case, &RARER_RECURSIVE)
}

fn check_recursive(case: &mut Case, rows: &[Row]) -> Result<()> {
    let tree = Tree::new(case, "tree")?;
    let mounts: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(index, (options, _, _))| {
            let options: Vec<&str> = ["rbind"].iter().chain(*options).copied().collect();
            json!({"destination": format!("/mnt/r{index}"), "type": "bind", "source": tree.path, "options": options})
        })
        .collect();
    let table = table_with(case, &mounts)?;
    for (index, (options, wanted, unwanted)) in rows.iter().enumerate() {
        for below in ["", "/sub", "/sub/sub"] {
            let attributes = find(&table, &format!("/mnt/r{index}{below}"))?.attributes;
            let right = wanted.iter().all(|word| has(&attributes, word))
                && !unwanted.iter().any(|word| has(&attributes, word));
            ensure!(right, "{options:?} on {below:?}: {attributes}");
        }
    }
    Ok(())
}

fn without_a_recursive_option_the_mounts_below_keep_theirs(case: &mut Case) -> Result<()> {
    let tree = Tree::new(case, "tree")?;
    let bind = |target: &str, options: Value| json!({"destination": target, "type": "bind", "source": tree.path, "options": options});
    let table = table_with(
        case,
        &[bind("/mnt/all", json!(["rbind", "ro", "noexec"])), bind("/mnt/one", json!(["bind", "ro"]))],
    )?;
    let (top, below) = (find(&table, "/mnt/all")?, find(&table, "/mnt/all/sub")?);
    ensure!(has(&top.attributes, "ro") && has(&top.attributes, "noexec"), "{}", top.attributes);
    ensure!(has(&below.attributes, "rw") && !has(&below.attributes, "noexec"), "{}", below.attributes);
    ensure!(find(&table, "/mnt/one/sub").is_err(), "bind took the mounts below along:\n{table}");
    Ok(())
}

fn flags_of_the_file_system_are_set(case: &mut Case) -> Result<()> {
    let tmpfs = |name: &str, options: Value| json!({"destination": format!("/mnt/{name}"), "type": "tmpfs", "source": "t", "options": options});
    let table = table_with(
        case,
        &[
            tmpfs("sync", json!(["sync", "size=64k", "nr_inodes=50"])),
            tmpfs("dirsync", json!(["dirsync"])),
            tmpfs("lazytime", json!(["lazytime", "mode=711", "uid=5", "gid=6"])),
        ],
    )?;
    for (name, words) in [
        ("sync", &["sync", "size=64k", "nr_inodes=50"][..]),
        ("dirsync", &["dirsync"]),
        ("lazytime", &["lazytime", "mode=711", "uid=5", "gid=6"]),
    ] {
        let superblock = find(&table, &format!("/mnt/{name}"))?.superblock;
        for word in words {
            ensure!(has(&superblock, word), "no {word} in {superblock}");
        }
    }
    Ok(())
}

fn propagation_is_that_of_the_options(case: &mut Case) -> Result<()> {
    let tree = Tree::new(case, "tree")?;
    // A slave needs a master: the source is shared with the host.
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    mount(None::<&str>, &tree.path, None::<&str>, shared, None::<&str>).context("share the tree")?;
    let table = [
        ("private", &["rbind", "rprivate"][..], &["", ""][..]),
        ("slave", &["rbind", "rslave"], &["master:", "master:"]),
        ("shared", &["rbind", "rprivate", "shared"], &["shared:", ""]),
        ("rshared", &["rbind", "rprivate", "rshared"], &["shared:", "shared:"]),
        ("unbindable", &["rbind", "rprivate", "unbindable"], &["unbindable", ""]),
        ("both", &["rbind", "rslave", "rshared"], &["shared:", "shared:"]),
    ];
    let mounts: Vec<Value> = table
        .iter()
        .map(|(name, options, _)| json!({"destination": format!("/mnt/{name}"), "type": "bind", "source": tree.path, "options": options}))
        .collect();
    let mounted = table_with(case, &mounts)?;
    for (name, options, wanted) in table {
        for (below, word) in ["", "/sub"].iter().zip(wanted) {
            let optional = find(&mounted, &format!("/mnt/{name}{below}"))?.optional;
            let right = if word.is_empty() { optional.is_empty() } else { optional.contains(word) };
            ensure!(right, "{options:?} on {below:?}: {optional:?}");
        }
    }
    let both = find(&mounted, "/mnt/both")?.optional;
    ensure!(both.contains("master:") && both.contains("shared:"), "a shared slave: {both}");
    Ok(())
}

fn an_unknown_option_is_a_parameter_of_the_file_system(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("exit 0")?;
    let mount = json!({"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["size=64k", "no_such_option=7"]});
    bundle.push("/mounts", mount).write()?;
    let id = case.id("unknown");
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &["mnt"])?;
    bundle.set("/mounts/5/options", json!(["size=64k"]));
    case.create_as(&bundle, &id).map(drop)
}

fn a_file_is_bound_on_a_file_that_is_made(case: &mut Case) -> Result<()> {
    let source = case.directory().join("source");
    fs::write(&source, "content\n")?;
    let mut bundle =
        case.shell("cat /deep/in/the/root/file; test -f /deep/in/the/root/file && ls /deep/in/the/root")?;
    let mount = json!({"destination": "/deep/in/the/root/file", "type": "bind", "source": source, "options": ["bind", "ro"]});
    bundle.push("/mounts", mount);
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["content", "file"], "{finished}");
    Ok(())
}

fn mounts_lie_over_one_another_in_their_order(case: &mut Case) -> Result<()> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("mine"), "")?;
    let mut bundle = case.shell("ls /mnt; ls /mnt/inner")?;
    bundle.push("/mounts", json!({"destination": "/mnt", "type": "tmpfs", "source": "first"}));
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt/inner", "type": "bind", "source": source, "options": ["bind"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["inner", "mine"], "{finished}");
    Ok(())
}

fn a_read_only_tmpfs_has_room_for_mount_points(case: &mut Case) -> Result<()> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    let mut bundle = case.shell("touch /mnt/new || echo refused; touch /mnt/inner/new && echo written")?;
    bundle.push("/mounts", json!({"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["ro"]}));
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt/inner", "type": "bind", "source": source, "options": ["bind"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["refused", "written"], "{finished}");
    Ok(())
}

fn a_tmpfs_can_begin_with_what_it_covers(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("cat /etc/passwd | head -n 1; touch /etc/new && echo written")?;
    bundle.push(
        "/mounts",
        json!({"destination": "/etc", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["root:x:0:0:root:/:/bin/sh", "written"], "{finished}");
    ensure!(!bundle.inside("/etc/new").exists(), "the image was written to");
    Ok(())
}

fn a_source_that_is_missing_is_named(case: &mut Case) -> Result<()> {
    let source = case.directory().join("not-there");
    let mut bundle = case.shell("exit 0")?;
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind"]}),
    );
    bundle.write()?;
    let id = case.id("missing");
    let create = ["create", "--bundle", text(&bundle.path)?, &id];
    case.runtime.refused(&create, &["not-there", "no such file"])?;
    fs::create_dir(&source)?;
    case.create_as(&bundle, &id).map(drop)
}

/// Adds a user namespace in which root is user 100000 of the host.
fn with_user_namespace(case: &Case, bundle: &mut crate::bundle::Bundle) -> Result<()> {
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    Ok(fs::set_permissions(case.directory(), fs::Permissions::from_mode(0o755))?)
}

fn locked_attributes_survive_in_a_user_namespace(case: &mut Case) -> Result<()> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("locked"), &source, Some("tmpfs"), flags, Some("mode=755")).context("mount")?;
    let outcome = (|| {
        let mut bundle = case.shell(TABLE)?;
        with_user_namespace(case, &mut bundle)?;
        bundle.push(
            "/mounts",
            json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", "ro"]}),
        );
        let finished = case.run(&bundle)?.success()?;
        let attributes = find(&finished.stdout, "/mnt")?.attributes;
        for word in ["ro", "nosuid", "nodev", "noexec"] {
            ensure!(has(&attributes, word), "no {word} in {attributes}");
        }
        Ok(())
    })();
    umount2(&source, MntFlags::MNT_DETACH)?;
    outcome
}

/// A directory with one file of the host's root in it, fit for a user namespace.
fn owned_by_root(case: &Case) -> Result<PathBuf> {
    let source = case.directory().join("source");
    fs::create_dir(&source)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o777))?;
    fs::write(source.join("file"), "")?;
    fs::set_permissions(case.directory(), fs::Permissions::from_mode(0o755))?;
    Ok(source)
}

/// Whether the file system of a directory knows id-mapped mounts: a runtime cannot be blamed otherwise.
fn needs_id_mapping(path: &Path) -> Result<()> {
    let kind = nix::sys::statfs::statfs(path)?.filesystem_type();
    let known = [
        nix::sys::statfs::EXT4_SUPER_MAGIC,
        nix::sys::statfs::TMPFS_MAGIC,
        nix::sys::statfs::BTRFS_SUPER_MAGIC,
        nix::sys::statfs::XFS_SUPER_MAGIC,
        nix::sys::statfs::OVERLAYFS_SUPER_MAGIC,
    ];
    if known.contains(&kind) { Ok(()) } else { Err(skip(format!("{} cannot be id-mapped", path.display()))) }
}

fn id_mapped_mounts_show_other_owners(case: &mut Case) -> Result<()> {
    let source = owned_by_root(case)?;
    needs_id_mapping(&source)?;
    let mut bundle = case.shell("stat -c '%u:%g' /mnt/file; touch /mnt/new")?;
    bundle.set("/process/user", json!({"uid": 3000, "gid": 4000}));
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["rbind", "ridmap"],
            "uidMappings": [{"containerID": 0, "hostID": 3000, "size": 1}, {"containerID": 7, "hostID": 4000, "size": 5}],
            "gidMappings": [{"containerID": 0, "hostID": 4000, "size": 1}]}),
    );
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["3000:4000"], "{finished}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(source.join("new"))?);
    ensure!(owner == 0, "what the user made belongs to {owner} on the disk");
    Ok(())
}

fn an_id_mapped_mount_can_take_the_containers_mapping(case: &mut Case) -> Result<()> {
    let source = owned_by_root(case)?;
    needs_id_mapping(&source)?;
    let mut bundle = case.shell("stat -c '%u:%g' /mnt/file /run/file; touch /mnt/new")?;
    with_user_namespace(case, &mut bundle)?;
    bundle.push("/mounts", json!({"destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "idmap", "nodev"]}));
    bundle.push(
        "/mounts",
        json!({"destination": "/run", "type": "bind", "source": source, "options": ["bind"]}),
    );
    let finished = case.run(&bundle)?.success()?;
    // Without a mapping the host's root is nobody.
    ensure!(finished.lines() == ["0:0", "65534:65534"], "{finished}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(source.join("new"))?);
    ensure!(owner == 0, "what root made belongs to {owner} on the disk");
    Ok(())
}

fn parameters_of_a_bind_mount_are_passed_over(case: &mut Case) -> Result<()> {
    let options = ["nosuid", "mode=755", "size=1k", "bind", "ro", "private"];
    let mount = json!({"destination": "/mnt", "source": "/tmp", "options": options});
    let attributes = find(&table_with(case, &[mount])?, "/mnt")?.attributes;
    ensure!(has(&attributes, "ro") && has(&attributes, "nosuid"), "{attributes}");
    Ok(())
}

/// The lines of this process's mountinfo that tell of mounts at or below the path, and that of `/`.
fn own_mounts(below: &Path) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let concerns = |line: &&str| {
        line.split(' ').nth(4).is_some_and(|point| point == "/" || Path::new(point).starts_with(below))
    };
    Ok(table.lines().filter(concerns).map(str::to_owned).collect())
}

fn mounts_without_a_mount_namespace_are_the_hosts_until_delete(case: &mut Case) -> Result<()> {
    let shared = case.directory().join("shared");
    fs::create_dir(&shared)?;
    mount(Some(&shared), &shared, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind")?;
    let _unmounted_at_last = Tree { path: shared.clone() };
    mount(None::<&str>, &shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).context("share")?;
    let mut bundle = Bundle::shell(shared.join("bundle"), "exec sleep 1000")?;
    bundle.without_namespace("mount").set("/root/readonly", json!(true));
    bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let before = own_mounts(&shared)?;
    let container = case.start(&bundle)?;
    let own = std::process::id().cast_signed();
    ensure!(host::namespace(container.pid, "mnt")? == host::namespace(own, "mnt")?);
    let during = own_mounts(&shared)?;
    ensure!(before.iter().all(|line| during.contains(line)), "a mount of the host changed: {during:#?}");
    for place in ["/", "/proc", "/dev"] {
        let point = bundle.inside(place);
        let is_there =
            during.iter().any(|line| line.split(' ').nth(4).map(Path::new) == Some(point.as_path()));
        ensure!(is_there, "nothing is mounted on {}: {during:#?}", point.display());
    }
    let look = "test -e /proc/self/status && test -c /dev/null && ! touch /mine && echo in its root";
    let seen = case.runtime.ok(&["exec", &container.id, "/bin/sh", "-c", look])?;
    ensure!(seen.lines() == ["in its root"], "{seen}");
    case.remove(&container)?;
    ensure!(own_mounts(&shared)? == before, "left: {:#?}", own_mounts(&shared)?);
    // A `create` that fails takes its mounts away again.
    bundle.set("/process/args", json!(["/no/such/program"])).write()?;
    let id = case.id("none");
    case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &["/no/such/program"])?;
    ensure!(own_mounts(&shared)? == before, "left: {:#?}", own_mounts(&shared)?);
    Ok(())
}

fn what_only_the_hosts_root_can_reach_is_mounted_under_mapped_ids(case: &mut Case) -> Result<()> {
    let closed = case.directory().join("closed");
    fs::create_dir_all(closed.join("volume"))?;
    fs::write(closed.join("volume/file"), "of a volume\n")?;
    let mut bundle = Bundle::shell(closed.join("bundle"), "id -u; cat /mnt/file")?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let volume = json!({"destination": "/mnt", "source": closed.join("volume"), "options": ["bind"]});
    bundle.push("/mounts", volume);
    // Mount points cannot be made in a directory of the host's root.
    fs::create_dir_all(bundle.inside("/mnt"))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["0", "of a volume"], "{finished}");
    Ok(())
}

fn a_relative_destination_lies_below_the_root(case: &mut Case) -> Result<()> {
    let mount =
        json!({"destination": "tmp/below", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]});
    let attributes = find(&table_with(case, &[mount])?, "/tmp/below")?.attributes;
    ensure!(has(&attributes, "nosuid"), "{attributes}");
    Ok(())
}

fn a_link_in_place_of_proc_or_sys_is_named(case: &mut Case) -> Result<()> {
    for name in ["proc", "sys"] {
        let mut bundle = case.shell("exit 0")?;
        bundle.push("/mounts", json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
        let place = bundle.inside(&format!("/{name}"));
        fs::create_dir_all(&place)?;
        fs::remove_dir(&place)?;
        std::os::unix::fs::symlink("/nowhere", &place)?;
        bundle.write()?;
        let id = case.id(name);
        case.runtime.refused(
            &["create", "--bundle", text(&bundle.path)?, &id],
            &[&format!("on /{name}"), "must be mounted on ordinary directory"],
        )?;
    }
    Ok(())
}

fn a_remount_changes_an_earlier_mount(case: &mut Case) -> Result<()> {
    let table = table_with(
        case,
        &[
            json!({"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["nosuid"]}),
            json!({"destination": "/mnt", "options": ["remount", "noexec", "ro"]}),
        ],
    )?;
    let attributes = find(&table, "/mnt")?.attributes;
    for word in ["nosuid", "noexec", "ro"] {
        ensure!(has(&attributes, word), "no {word} in {attributes}");
    }
    Ok(())
}

/// A bundle that has its control groups on /sys/fs/cgroup.
fn with_cgroups(case: &mut Case, script: &str, options: Value) -> Result<crate::bundle::Bundle> {
    let mut bundle = case.shell(script)?;
    let mount =
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
    bundle.push("/mounts", mount);
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    Ok(bundle)
}

fn control_groups_are_those_of_the_container(case: &mut Case) -> Result<()> {
    if host::is_unified() {
        return Err(skip("this machine has control groups of version 2 alone"));
    }
    for own_namespace in [true, false] {
        let script = "cat /sys/fs/cgroup/pids/pids.max; cat /sys/fs/cgroup/pids/cgroup.procs";
        let mut bundle = with_cgroups(case, script, json!(["nosuid", "noexec", "nodev", "relatime"]))?;
        if !own_namespace {
            bundle.without_namespace("cgroup");
        }
        let finished = case.run(&bundle)?.success()?;
        let lines = finished.lines();
        ensure!(lines.first() == Some(&"77") && lines.get(1) == Some(&"1"), "{own_namespace}: {finished}");
    }
    Ok(())
}

fn control_groups_can_be_read_only(case: &mut Case) -> Result<()> {
    if host::is_unified() {
        return Err(skip("this machine has control groups of version 2 alone"));
    }
    let script = "echo 5 > /sys/fs/cgroup/pids/pids.max || echo refused; mkdir /sys/fs/cgroup/pids/new || echo refused; \
                  cat /sys/fs/cgroup/pids/pids.max";
    let bundle = with_cgroups(case, script, json!(["nosuid", "noexec", "nodev", "ro"]))?;
    let finished = case.run(&bundle)?.success()?;
    ensure!(finished.lines() == ["refused", "refused", "77"], "{finished}");
    Ok(())
}
