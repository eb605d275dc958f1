//! What a seed may do: one with user code, from its script and from outside; the default one, from outside.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::failure::seed_pid;
use super::worker::{HELLO, worker_of};
use crate::case::{Case, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "confined";
    Turf:
        a_seeds_script_sees_nothing_of_the_host,
        a_seed_with_user_code_has_no_privilege,
        the_default_seed_keeps_only_what_it_needs,
        a_worker_of_user_code_is_in_its_tenants_user_namespace_and_its_own_cgroup,
        tenants_have_other_ids,
        a_seed_has_a_session_keyring_of_its_own,
        a_bundle_that_user_code_could_not_enter_is_refused,
        a_seed_whose_script_never_yields_is_a_clear_error_and_ends,
        a_seed_whose_script_floods_memory_ends_alone;
}

/// Tries what a script can try, and tells what came of it.
const CURIOUS: &str = "
const tried = {};
const attempt = async (name, work) => {
  try { tried[name] = { got: String(await work()).slice(0, 60) }; } catch (error) { tried[name] = { error: error.name }; }
};
addEventListener('serialize', (event) => event.waitUntil((async () => {
  await attempt('passwd', () => Aworker.files.text('/etc/passwd'));
  await attempt('import', () => import('file:///etc/hostname', { with: { type: 'text' } }));
  await attempt('init', () => Aworker.files.text('/proc/1/environ'));
  await attempt('beside', () => Aworker.files.text('BESIDE'));
  await attempt('host', () => fetch('HOST'));
  await attempt('own', () => Aworker.files.text('OWN'));
})()));
addEventListener('fetch', (event) => event.respondWith(Response.json(tried)));
";

impl Case {
    fn curious(&mut self, source: &str) -> Result<crate::bundle::Bundle> {
        let directory = self.directory().join("code");
        fs::create_dir_all(&directory)?;
        let script = directory.join("mine.js");
        fs::write(&script, source)?;
        self.runtime.ok(&["seed", "start", "--script", text(&script)?, "mine"])?;
        let mut bundle = self.worker(source)?;
        bundle.set("/annotations", json!({"io.turf.seed": "mine"})).write()?;
        Ok(bundle)
    }
}

fn a_seeds_script_sees_nothing_of_the_host(case: &mut Case) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let beside = case.directory().join("beside");
    fs::write(&beside, "secret")?;
    let source = CURIOUS
        .replace("BESIDE", text(&beside)?)
        .replace("HOST", &format!("http://{}/", listener.local_addr()?))
        .replace("OWN", text(&case.directory().join("code/mine.js"))?);
    let bundle = case.curious(&source)?;
    let (container, address) = case.serve(&bundle)?;
    let tried: Value = serde_json::from_slice(&http::get(address, "/")?.body)?;
    for name in ["passwd", "import", "init", "beside", "host"] {
        ensure!(tried[name]["error"].is_string(), "{name}: {tried}");
    }
    ensure!(tried["own"]["got"].is_string(), "{tried}");
    case.remove(&container)
}

/// A seed with user code has no privilege, a place of its own, and limits.
pub fn ensure_confined(seed: i32) -> Result<()> {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(host::field(seed, "status", set)? == "0000000000000000", "{set}");
    }
    for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Groups", "")] {
        ensure!(host::field(seed, "status", name)?.trim() == value, "{name}");
    }
    let users = host::field(seed, "status", "Uid")?;
    ensure!(
        users.split_whitespace().all(|user| user.parse::<u32>().is_ok_and(|user| user >= 1_900_000_000)),
        "{users}"
    );
    let own = std::process::id().cast_signed();
    for kind in ["mnt", "net", "ipc", "uts"] {
        ensure!(host::namespace(seed, kind)? != host::namespace(own, kind)?, "it is in the host's {kind}");
    }
    for (controller, v1, v2, most) in
        [("memory", "memory.limit_in_bytes", "memory.max", 4 << 30), ("pids", "pids.max", "pids.max", 4096)]
    {
        let group = host::cgroup_file(seed, controller, v1, v2)?;
        ensure!(text(&group)?.contains("turf-seeds"), "{}", group.display());
        let value = fs::read_to_string(&group)?;
        ensure!(value.trim().parse::<u64>().is_ok_and(|value| value <= most), "{controller}: {value}");
    }
    Ok(())
}

fn a_seed_with_user_code_has_no_privilege(case: &mut Case) -> Result<()> {
    case.curious(HELLO)?;
    let seed = seed_pid(case, "mine")?;
    ensure_confined(seed)?;
    ensure!(host::open_fds(seed)? <= 6, "it has {} descriptors", host::open_fds(seed)?);
    Ok(())
}

fn the_default_seed_keeps_only_what_it_needs(case: &mut Case) -> Result<()> {
    case.runtime.ok(&["seed", "start", "default"])?;
    let seed = seed_pid(case, "default")?;
    let own = u64::from_str_radix(&host::field(std::process::id().cast_signed(), "status", "CapPrm")?, 16)?;
    // docs/security.md names them; CAP_SYS_RESOURCE is kept where root has it.
    let kept: u64 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14, 18, 19, 21, 23, 24, 27, 29, 31]
        .iter()
        .map(|bit| 1 << bit)
        .sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        let value = u64::from_str_radix(&host::field(seed, "status", set)?, 16)?;
        ensure!(value == kept & own, "{set} is {value:016x}, not {:016x}", kept & own);
    }
    ensure!(host::field(seed, "status", "Seccomp")? == "2");
    let own = std::process::id().cast_signed();
    for kind in ["mnt", "net", "ipc", "uts"] {
        ensure!(host::namespace(seed, kind)? != host::namespace(own, kind)?, "it is in the host's {kind}");
    }
    let root: Vec<_> =
        fs::read_dir(format!("/proc/{seed}/root/"))?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(root == ["proc"], "its root holds {root:?}");
    Ok(())
}

fn a_worker_of_user_code_is_in_its_tenants_user_namespace_and_its_own_cgroup(case: &mut Case) -> Result<()> {
    let bundle = case.curious(HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let (seed, worker) = (seed_pid(case, "mine")?, worker_of(&container)?);
    let user = |pid| -> Result<u32> {
        Ok(host::field(pid, "status", "Uid")?.split_whitespace().next().unwrap_or_default().parse()?)
    };
    ensure!(host::namespace(worker, "user")? == host::namespace(container.pid, "user")?);
    ensure!(host::namespace(worker, "user")? != host::namespace(seed, "user")?);
    ensure!(user(worker)? != user(seed)? && user(worker)? / 65536 == user(container.pid)? / 65536);
    for controller in ["memory", "pids"] {
        let group = |pid| host::cgroup_file(pid, controller, "cgroup.procs", "cgroup.procs");
        ensure!(
            group(worker)? == group(container.pid)?,
            "the worker is not in its container's {controller} group"
        );
    }
    case.remove(&container)
}

fn tenants_have_other_ids(case: &mut Case) -> Result<()> {
    let script = case.directory().join("one.js");
    fs::write(&script, HELLO)?;
    let mut users = Vec::new();
    for name in ["one", "two"] {
        case.runtime.ok(&["seed", "start", "--script", text(&script)?, name])?;
        users.push(host::field(seed_pid(case, name)?, "status", "Uid")?);
    }
    ensure!(users[0] != users[1], "{users:?}");
    case.runtime.ok(&["seed", "replace", "one"])?;
    ensure!(
        host::field(seed_pid(case, "one")?, "status", "Uid")? == users[0],
        "the next generation is another tenant"
    );
    Ok(())
}

fn a_seed_has_a_session_keyring_of_its_own(case: &mut Case) -> Result<()> {
    case.runtime.ok(&["seed", "start", "default"])?;
    case.curious(HELLO)?;
    let keys = fs::read_to_string("/proc/keys").context("read /proc/keys")?;
    for name in ["default", "mine"] {
        let wanted = format!("_seed.{}:", seed_pid(case, name)?);
        // The kernel keeps it as long as the seed, which is alone in it.
        let line = keys.lines().find(|line| line.split_whitespace().any(|word| word == wanted));
        ensure!(line.is_some_and(|line| line.ends_with("empty")), "seed {name}: {wanted} {line:?}");
    }
    Ok(())
}

fn a_bundle_that_user_code_could_not_enter_is_refused(case: &mut Case) -> Result<()> {
    let mut bundle = case.curious(HELLO)?;
    let path = text(&bundle.path)?.to_owned();
    bundle.without_namespace("network").write()?;
    let id = case.id("hosts-network");
    case.runtime
        .refused(&["create", "--bundle", &path, &id], &["$.linux.namespaces", "network", "seed mine"])?;
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/annotations", json!({"io.turf.seed": "mine"}));
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let roots = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    bundle.set("/linux/uidMappings", roots.clone()).set("/linux/gidMappings", roots).write()?;
    let path = text(&bundle.path)?.to_owned();
    let id = case.id("hosts-root");
    case.runtime.refused(&["create", "--bundle", &path, &id], &["must not map the host's root"])?;
    // A container of before the seed had user code.
    case.runtime.ok(&["seed", "start", "later"])?;
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/annotations", json!({"io.turf.seed": "later"}));
    let container = case.create(&bundle)?;
    case.runtime.ok(&["seed", "stop", "later"])?;
    let script = case.directory().join("code/mine.js");
    case.runtime.ok(&["seed", "start", "--script", text(&script)?, "later"])?;
    let words = ["operation not permitted", "a seed with user code enters only what was created for it"];
    case.runtime.refused(&["start", &container.id], &words).map(drop)
}

fn a_seed_whose_script_never_yields_is_a_clear_error_and_ends(case: &mut Case) -> Result<()> {
    let script = case.directory().join("forever.js");
    fs::write(&script, "for (;;);")?;
    let begun = Instant::now();
    let arguments = ["seed", "start", "--timeout", "1s", "--script", text(&script)?, "forever"];
    case.runtime.refused(&arguments, &["start seed forever", "1000 ms"])?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    ensure!(wait::no_children(wait::STEP), "the seed runs on");
    case.runtime.refused(&["seed", "stop", "forever"], &["not running"]).map(drop)
}

fn a_seed_whose_script_floods_memory_ends_alone(case: &mut Case) -> Result<()> {
    let script = case.directory().join("flood.js");
    fs::write(&script, "const all = []; for (;;) all.push(new Uint8Array(64 << 20).fill(1));")?;
    let arguments = ["seed", "start", "--timeout", "20s", "--script", text(&script)?, "flood"];
    case.runtime.refused(&arguments, &["flood"])?;
    ensure!(wait::no_children(wait::STEP), "the seed runs on");
    // The name is free again.
    fs::write(&script, HELLO)?;
    case.runtime.ok(&["seed", "start", "--script", text(&script)?, "flood"]).map(drop)
}
