//! Worker bundles: scripts of both kinds answer from inside their sandbox, with the plan's privileges, and fail loudly.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, Container, text};
use crate::suite::tests;
use crate::{host, http, wait};

tests! { "worker";
    Turf:
        a_service_worker_script_answers,
        a_module_with_a_default_export_answers,
        a_typed_script_answers_from_its_sandbox,
        one_connection_carries_many_requests_and_bodies,
        the_specified_worker_bundle_answers,
        run_serves_until_it_is_killed,
        a_worker_listens_in_its_own_network_namespace,
        the_listen_annotation_names_the_address,
        listeners_of_socket_activation_are_inherited,
        a_worker_listens_on_several_addresses_and_unix_sockets,
        a_plan_that_fits_no_packet_arrives_whole,
        a_paused_worker_answers_after_it_is_resumed,
        a_listen_annotation_that_makes_no_sense_is_refused,
        a_root_that_is_left_out_is_empty_and_read_only,
        a_worker_runs_on_a_root_of_its_own,
        an_import_map_comes_from_the_environment,
        the_worker_is_inits_child_in_inits_namespaces_and_cgroups,
        the_worker_has_the_privileges_of_the_bundle,
        a_worker_runs_in_a_user_namespace,
        a_worker_without_a_pid_namespace_has_its_status_collected,
        the_environment_reaches_a_module,
        console_output_goes_to_the_containers_stdio,
        a_missing_script_fails_the_create,
        a_script_that_has_gone_fails_the_start,
        a_syntax_error_names_file_and_line,
        a_throw_at_load_prints_the_stack,
        a_worker_that_never_yields_can_be_killed,
        a_worker_that_dies_by_a_signal_takes_its_container_with_it,
        term_lets_the_request_in_flight_finish,
        term_for_all_processes_lets_the_request_in_flight_finish,
        a_worker_that_eats_memory_is_stopped_by_its_cgroup,
        a_worker_has_little_memory_of_its_own,
        start_refuses_a_running_worker,
        ps_and_list_show_the_worker,
        hooks_run_around_a_worker,
        eight_workers_start_side_by_side;
}

/// The most that a worker may have changed of what it shares with its seed, after so many requests.
const PRIVATE_KB: [(usize, u64); 2] = [(1, 600), (100, 1024)];

/// The smallest service-worker script.
pub const HELLO: &str =
    "addEventListener('fetch', (event) => event.respondWith(new Response('hello from a service worker')));\n";

/// The name under which [`Case::worker`] writes a script.
const CLASSIC: &str = "worker.js";

impl Case {
    /// A worker bundle of a classic script, without a root.
    pub fn worker(&mut self, source: &str) -> Result<Bundle> {
        Bundle::worker(self.bundle_path(), CLASSIC, source)
    }

    /// Starts a created worker on a listener of the host's network.
    pub fn start_listening(&mut self, container: &Container) -> Result<SocketAddr> {
        let address = http::free_address()?;
        self.runtime.ok(&["start", "--listen", &format!("tcp://{address}"), &container.id])?;
        Ok(address)
    }

    /// Creates and starts a worker on a listener of the host's network.
    pub fn serve(&mut self, bundle: &Bundle) -> Result<(Container, SocketAddr)> {
        let container = self.create(bundle)?;
        let address = self.start_listening(&container)?;
        Ok((container, address))
    }
}

/// The pid of the one worker under a container's init.
pub fn worker_of(container: &Container) -> Result<i32> {
    let children = host::children_of(container.pid);
    ensure!(children.len() == 1, "init {} has the children {children:?}", container.pid);
    Ok(children[0])
}

fn a_service_worker_script_answers(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    ensure!(case.runtime.status(&container.id)? == "created");
    let address = case.start_listening(&container)?;
    ensure!(case.runtime.status(&container.id)? == "running");
    let response = http::get(address, "/")?;
    ensure!(response.status == 200 && response.text()? == "hello from a service worker", "{response:?}");
    case.remove(&container)
}

fn a_module_with_a_default_export_answers(case: &mut Case) -> Result<()> {
    let source = "export default { fetch(request) { return new Response(`module ${new URL(request.url).pathname}`); } };\n";
    for file in ["worker.js", "worker.mjs"] {
        let bundle = Bundle::worker(case.bundle_path(), file, source)?;
        let (_, address) = case.serve(&bundle)?;
        let response = http::get(address, "/some/path")?;
        ensure!(response.text()? == "module /some/path", "{file}: {response:?}");
    }
    Ok(())
}

fn a_typed_script_answers_from_its_sandbox(case: &mut Case) -> Result<()> {
    let script = "\
interface Shape { kind: string }
const shape: Shape = { kind: 'classic' as const };
addEventListener('fetch', (event: FetchEvent): void => { event.respondWith(new Response(shape!.kind satisfies string)) });
";
    let module = "\
type Path<T extends string = string> = `/${T}`;
export default { fetch: (request: Request): Response => new Response(new URL(request.url).pathname as Path) };
";
    for (file, source, answer) in
        [("worker.ts", script, "classic"), ("worker.ts", module, "/path"), ("worker.mts", module, "/path")]
    {
        let bundle = Bundle::worker(case.bundle_path(), file, source)?;
        let (_, address) = case.serve(&bundle)?;
        ensure!(http::get(address, "/path")?.text()? == answer, "{file}: {source}");
    }
    let bundle = Bundle::worker(case.bundle_path(), "worker.ts", "type T = 1;\n  enum E { A }\n")?;
    let container = case.start(&bundle)?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 1)), "ended with {status:?}");
    let said = fs::read_to_string(&container.stderr)?;
    ensure!(said.contains("SyntaxError: /app/worker.ts:2:3: an enum"), "{said}");
    Ok(())
}

fn one_connection_carries_many_requests_and_bodies(case: &mut Case) -> Result<()> {
    let bundle = case.worker(
        "addEventListener('fetch', (event) => event.respondWith(
           event.request.text().then((body) => new Response(`${event.request.method} ${body.length} ${body.slice(-3)}`,
             { status: 201, headers: { 'x-kind': 'echo' } }))));\n",
    )?;
    let (_, address) = case.serve(&bundle)?;
    let mut client = http::Client::connect(address)?;
    for length in [0, 1, 1000, 200_000] {
        let response = client.post("/", &b"abc".repeat(length))?;
        let expected = format!("POST {} {}", 3 * length, if length > 0 { "abc" } else { "" });
        ensure!(response.status == 201 && response.text()? == expected, "{response:?}");
        ensure!(response.header("x-kind") == Some("echo"), "{response:?}");
    }
    Ok(())
}

fn the_specified_worker_bundle_answers(case: &mut Case) -> Result<()> {
    let path = case.bundle_path();
    fs::create_dir_all(&path)?;
    case.runtime.ok(&["spec", "--worker", "--bundle", text(&path)?])?;
    fs::write(path.join("worker.js"), HELLO)?;
    let config: Value = serde_json::from_slice(&fs::read(path.join("config.json"))?)?;
    let (_, address) = case.serve(&Bundle { path, config })?;
    let response = http::get(address, "/")?;
    ensure!(response.text()? == "hello from a service worker", "{response:?}");
    Ok(())
}

fn run_serves_until_it_is_killed(case: &mut Case) -> Result<()> {
    let bundle = case.worker(&format!("console.log('up');\n{HELLO}"))?;
    bundle.write()?;
    let (id, address) = (case.id("run"), http::free_address()?);
    let (mut output, input) = std::io::pipe()?;
    let listen = format!("tcp://{address}");
    let arguments = ["run", "--listen", &listen, "--bundle", text(&bundle.path)?, &id];
    let running = case.runtime.spawn_with(&arguments, None, Some(input.into()))?;
    ensure!(wait::line(&mut output, wait::STEP)? == "up");
    ensure!(http::get(address, "/")?.status == 200);
    case.runtime.ok(&["kill", &id, "KILL"])?;
    running.finish()?.exited(137)?;
    Ok(())
}

/// What curl gets from inside the network namespace of a container.
fn curl_inside(container: &Container, url: &str) -> Result<String> {
    curl_with(container, &[url])
}

fn curl_with(container: &Container, arguments: &[&str]) -> Result<String> {
    let net = format!("--net=/proc/{}/ns/net", container.pid);
    let curl = [net.as_str(), "curl", "--silent", "--show-error", "--max-time", "10"];
    let arguments = [&curl, arguments].concat();
    let output = Command::new("nsenter").args(arguments).output().context("run nsenter and curl")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn a_worker_listens_in_its_own_network_namespace(case: &mut Case) -> Result<()> {
    for (port, environment) in [(8080, None), (3000, Some("PORT=3000"))] {
        let mut bundle = case.worker(HELLO)?;
        if let Some(variable) = environment {
            bundle.push("/process/env", json!(variable));
        }
        let container = case.start(&bundle)?;
        let answer = curl_inside(&container, &format!("http://127.0.0.1:{port}/"))?;
        ensure!(answer == "hello from a service worker", "port {port}: {answer}");
        case.remove(&container)?;
    }
    Ok(())
}

fn the_listen_annotation_names_the_address(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/annotations", json!({"io.turf.listen": "tcp://127.0.0.1:9001"}));
    let container = case.start(&bundle)?;
    let answer = curl_inside(&container, "http://127.0.0.1:9001/")?;
    ensure!(answer == "hello from a service worker", "{answer}");
    case.remove(&container)
}

fn listeners_of_socket_activation_are_inherited(case: &mut Case) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).context("let the listener be inherited")?;
    // sd_listen_fds(3): the descriptors begin at 3, and the variables say whose they are.
    let script = format!("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&{}", listener.as_raw_fd());
    case.runtime.run_through(&["bash", "-c", &script]);
    let bundle = case.worker(HELLO)?;
    let container = case.create(&bundle)?;
    case.runtime.run_through(&[]);
    drop(listener);
    // The connection waits in the listener's queue until there is a worker.
    let mut client = http::Client::connect(address)?;
    case.runtime.ok(&["start", &container.id])?;
    ensure!(client.get("/")?.text()? == "hello from a service worker");
    case.remove(&container)
}

fn a_worker_listens_on_several_addresses_and_unix_sockets(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    let addresses = "tcp://127.0.0.1:9001,tcp://[::1]:9002,unix:///tmp/worker.sock";
    bundle.set("/annotations", json!({"io.turf.listen": addresses}));
    let container = case.start(&bundle)?;
    let socket = format!("/proc/{}/root/tmp/worker.sock", worker_of(&container)?);
    let ways: [&[&str]; 3] =
        [&["http://127.0.0.1:9001/"], &["http://[::1]:9002/"], &["--unix-socket", &socket, "http://unix/"]];
    for way in ways {
        let answer = curl_with(&container, way).with_context(|| format!("{way:?}"))?;
        ensure!(answer == "hello from a service worker", "{way:?}: {answer}");
    }
    case.remove(&container)
}

fn a_plan_that_fits_no_packet_arrives_whole(case: &mut Case) -> Result<()> {
    let source = "export default { fetch: (request, env) => new Response(`${Object.keys(env).length} ${env.V7.length}`) };\n";
    let mut bundle = Bundle::worker(case.bundle_path(), "worker.mjs", source)?;
    // 800 kB of environment: more than a packet of the seed's socket holds.
    let environment: Vec<String> = (0..20).map(|index| format!("V{index}={}", "x".repeat(40_000))).collect();
    bundle.set("/process/env", json!(environment));
    let (container, address) = case.serve(&bundle)?;
    let response = http::get(address, "/")?;
    ensure!(response.text()? == "20 40000", "{response:?}");
    case.remove(&container)
}

fn a_paused_worker_answers_after_it_is_resumed(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    case.runtime.ok(&["pause", &container.id])?;
    ensure!(case.runtime.status(&container.id)? == "paused");
    let mut client = http::Client::connect(address)?;
    client.send(b"GET / HTTP/1.1\r\nHost: conformance\r\n\r\n")?;
    ensure!(client.silent_for(Duration::from_millis(200)), "a paused worker answered");
    case.runtime.ok(&["resume", &container.id])?;
    ensure!(client.receive()?.status == 200);
    case.remove(&container)
}

fn a_listen_annotation_that_makes_no_sense_is_refused(case: &mut Case) -> Result<()> {
    for (annotation, value) in [
        ("io.turf.listen", "gopher://nowhere"),
        ("io.turf.listen", "tcp://127.0.0.1:99999"),
        ("io.turf.workload", "wizard"),
        ("io.turf.seed", "../up"),
    ] {
        let mut bundle = case.worker(HELLO)?;
        bundle.set("/annotations", json!({annotation: value})).write()?;
        let id = case.id("refused");
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[annotation, value])?;
    }
    Ok(())
}

fn a_root_that_is_left_out_is_empty_and_read_only(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, _) = case.serve(&bundle)?;
    let root = format!("/proc/{}/root/", worker_of(&container)?);
    let mut names: Vec<String> = fs::read_dir(&root)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    ensure!(names == ["app", "dev", "proc", "tmp"], "the root holds {names:?}");
    let refused = fs::write(format!("{root}new"), "").err().and_then(|error| error.raw_os_error());
    ensure!(refused == Some(nix::errno::Errno::EROFS as i32), "the root can be written to: {refused:?}");
    fs::write(format!("{root}tmp/new"), "").context("write to /tmp")?;
    ensure!(fs::metadata(format!("{root}dev/null")).is_ok(), "no /dev/null");
    case.remove(&container)
}

fn a_worker_runs_on_a_root_of_its_own(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    fs::create_dir(bundle.inside("/srv"))?;
    fs::write(
        bundle.inside("/srv/main.mjs"),
        "import { text } from './part.mjs';\nexport default { fetch: () => new Response(text) };\n",
    )?;
    fs::write(bundle.inside("/srv/part.mjs"), "export const text = 'from two files';\n")?;
    bundle.set("/process/args", json!(["/usr/bin/aworker", "/srv/main.mjs"]));
    let (_, address) = case.serve(&bundle)?;
    let response = http::get(address, "/")?;
    ensure!(response.text()? == "from two files", "{response:?}");
    Ok(())
}

fn an_import_map_comes_from_the_environment(case: &mut Case) -> Result<()> {
    let mut bundle = case.shell("")?;
    fs::create_dir(bundle.inside("/srv"))?;
    fs::write(
        bundle.inside("/srv/main.mjs"),
        "import { text } from 'part';\nexport default { fetch: () => new Response(text) };\n",
    )?;
    fs::write(bundle.inside("/srv/part.mjs"), "export const text = 'mapped';\n")?;
    fs::write(bundle.inside("/srv/map.json"), r#"{ "imports": { "part": "./part.mjs" } }"#)?;
    bundle.set("/process/args", json!(["aworker", "/srv/main.mjs"]));
    bundle.push("/process/env", json!("AWORKER_IMPORT_MAP=/srv/map.json"));
    let (_, address) = case.serve(&bundle)?;
    let response = http::get(address, "/")?;
    ensure!(response.text()? == "mapped", "{response:?}");
    Ok(())
}

fn the_worker_is_inits_child_in_inits_namespaces_and_cgroups(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/linux/resources/pids", json!({"limit": 20}));
    bundle.set("/linux/resources/memory", json!({"limit": 256 * 1024 * 1024}));
    let (container, _) = case.serve(&bundle)?;
    let worker = worker_of(&container)?;
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let (init, own) = (host::namespace(container.pid, kind)?, host::namespace(worker, kind)?);
        ensure!(init == own, "{kind}: init is in {init}, the worker in {own}");
        ensure!(own != host::namespace(std::process::id().cast_signed(), kind)?, "{kind} is the host's");
    }
    let groups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    ensure!(groups(container.pid)? == groups(worker)?, "init and worker are in different control groups");
    let limit = host::cgroup_value(worker, "pids", "pids.max", "pids.max")?;
    ensure!(limit == "20", "the worker's pids limit is {limit}");
    case.remove(&container)
}

fn the_worker_has_the_privileges_of_the_bundle(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/process/user", json!({"uid": 1234, "gid": 2345, "additionalGids": [7, 8], "umask": 0o027}));
    let net_bind = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.set("/process/capabilities", json!({"bounding": net_bind}));
    bundle.set("/process/oomScoreAdj", json!(222));
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]));
    let deny = json!({"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]}));
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let worker = worker_of(&container)?;
    let status = fs::read_to_string(format!("/proc/{worker}/status"))?;
    let expected = [
        ("Uid", "1234\t1234\t1234\t1234"),
        ("Gid", "2345\t2345\t2345\t2345"),
        ("Groups", "7 8"),
        ("Umask", "0027"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000400"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "2"),
        ("Threads", "1"),
    ];
    for (name, value) in expected {
        ensure!(host::find_field(&status, name) == Some(value), "{name} should be {value}:\n{status}");
    }
    let limits = fs::read_to_string(format!("/proc/{worker}/limits"))?;
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    ensure!(files.split_whitespace().nth(3) == Some("77"), "{files}");
    ensure!(fs::read_to_string(format!("/proc/{worker}/oom_score_adj"))?.trim() == "222");
    case.remove(&container)
}

fn a_worker_runs_in_a_user_namespace(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    let worker = worker_of(&container)?;
    let uid = host::field(worker, "status", "Uid")?;
    ensure!(uid.starts_with("100000"), "the host sees uid {uid}");
    ensure!(host::namespace(worker, "user")? == host::namespace(container.pid, "user")?);
    case.remove(&container)
}

fn a_worker_without_a_pid_namespace_has_its_status_collected(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker("throw new Error('at once');\n")?;
    bundle.without_namespace("pid");
    let container = case.start(&bundle)?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 1)), "ended with {status:?}");
    let mut bundle = case.worker(HELLO)?;
    bundle.without_namespace("pid");
    let (container, address) = case.serve(&bundle)?;
    ensure!(http::get(address, "/")?.status == 200);
    case.runtime.ok(&["kill", &container.id, "TERM"])?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 0)), "ended with {status:?}");
    Ok(())
}

fn the_environment_reaches_a_module(case: &mut Case) -> Result<()> {
    let source = "export default { fetch: (request, env) => new Response(`${env.GREETING}|${Object.keys(env).length}`) };\n";
    let mut bundle = Bundle::worker(case.bundle_path(), "worker.mjs", source)?;
    bundle.set("/process/env", json!(["GREETING=good day", "B=2"]));
    let (_, address) = case.serve(&bundle)?;
    let response = http::get(address, "/")?;
    ensure!(response.text()? == "good day|2", "{response:?}");
    Ok(())
}

fn console_output_goes_to_the_containers_stdio(case: &mut Case) -> Result<()> {
    let source = format!("console.log('to', {{ out: [1] }});\nconsole.error('to err');\n{HELLO}");
    let bundle = case.worker(&source)?;
    let (container, address) = case.serve(&bundle)?;
    // An answer means that the script has run.
    http::get(address, "/")?;
    case.remove(&container)?;
    let written = (fs::read_to_string(&container.stdout)?, fs::read_to_string(&container.stderr)?);
    ensure!(written.0 == "to { out: [ 1 ] }\n" && written.1 == "to err\n", "{written:?}");
    Ok(())
}

fn a_missing_script_fails_the_create(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    for script in ["/app/absent.js", "absent.js"] {
        bundle.set("/process/args", json!(["aworker", script]));
        bundle.write()?;
        let id = case.id("absent");
        let words = format!("open {script}: no such file or directory");
        case.runtime.refused(&["create", "--bundle", text(&bundle.path)?, &id], &[&words])?;
        case.runtime.refused(&["state", &id], &["does not exist"])?;
    }
    Ok(())
}

fn a_script_that_has_gone_fails_the_start(case: &mut Case) -> Result<()> {
    let mut bundle = case.worker(HELLO)?;
    let directory = bundle.path.join("scripts");
    fs::create_dir(&directory)?;
    fs::write(directory.join("leaving.js"), HELLO)?;
    bundle.push(
        "/mounts",
        json!({"destination": "/scripts", "type": "bind", "source": directory, "options": ["bind"]}),
    );
    bundle.set("/process/args", json!(["aworker", "/scripts/leaving.js"]));
    let container = case.create(&bundle)?;
    fs::remove_file(directory.join("leaving.js"))?;
    case.runtime.refused(&["start", &container.id], &["/scripts/leaving.js", "no such file or directory"])?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 1)), "ended with {status:?}");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    case.runtime.ok(&["delete", &container.id])?;
    Ok(())
}

/// Starts a script that must end by itself with status 1; what it wrote to stderr.
fn failing_script(case: &mut Case, source: &str) -> Result<String> {
    let bundle = case.worker(source)?;
    let container = case.start(&bundle)?;
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 1)), "ended with {status:?}");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    fs::read_to_string(&container.stderr).context("read the worker's stderr")
}

fn a_syntax_error_names_file_and_line(case: &mut Case) -> Result<()> {
    let said = failing_script(case, "const fine = 1;\nconst = 2;\n")?;
    ensure!(said.contains("SyntaxError") && said.contains("/app/worker.js:2"), "{said}");
    Ok(())
}

fn a_throw_at_load_prints_the_stack(case: &mut Case) -> Result<()> {
    let said =
        failing_script(case, "function inner() {\n  throw new TypeError('out of cheese');\n}\ninner();\n")?;
    for part in ["TypeError: out of cheese", "at inner", "/app/worker.js:2", "/app/worker.js:4"] {
        ensure!(said.contains(part), "no {part:?} in: {said}");
    }
    Ok(())
}

fn a_worker_that_never_yields_can_be_killed(case: &mut Case) -> Result<()> {
    for source in [
        "console.log('in');\nfor (;;);\n",
        "console.log('in');\nPromise.resolve().then(function f() { return Promise.resolve().then(f); });\n",
    ] {
        let bundle = case.worker(source)?;
        let (container, mut output) = case.create_piped(&bundle)?;
        case.runtime.ok(&["start", &container.id])?;
        ensure!(wait::line(&mut output, wait::STEP)? == "in");
        case.runtime.ok(&["kill", &container.id, "KILL"])?;
        let status = case.wait(&container)?;
        ensure!(matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "ended with {status:?}");
        case.runtime.ok(&["delete", &container.id])?;
    }
    Ok(())
}

fn a_worker_that_dies_by_a_signal_takes_its_container_with_it(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, _) = case.serve(&bundle)?;
    kill(Pid::from_raw(worker_of(&container)?), Signal::SIGKILL).context("kill the worker")?;
    let status = case.wait(&container)?;
    let right = matches!(status, WaitStatus::Exited(_, 137) | WaitStatus::Signaled(_, Signal::SIGKILL, _));
    ensure!(right, "ended with {status:?}");
    ensure!(case.runtime.status(&container.id)? == "stopped");
    Ok(())
}

fn term_lets_the_request_in_flight_finish(case: &mut Case) -> Result<()> {
    drained_by(case, |id| vec!["kill", id, "TERM"])
}

fn term_for_all_processes_lets_the_request_in_flight_finish(case: &mut Case) -> Result<()> {
    drained_by(case, |id| vec!["kill", "--all", id, "TERM"])
}

/// A worker that is told to end while it handles a request answers it and ends with status 0.
fn drained_by(case: &mut Case, kill: impl Fn(&str) -> Vec<&str>) -> Result<()> {
    let bundle = case.worker(
        "addEventListener('fetch', (event) => {
           console.log('in');
           event.respondWith(new Promise((done) => setTimeout(() => done(new Response('finished')), 300)));
         });\n",
    )?;
    let (container, mut output) = case.create_piped(&bundle)?;
    let address = case.start_listening(&container)?;
    let mut client = http::Client::connect(address)?;
    client.send(b"GET / HTTP/1.1\r\nHost: conformance\r\n\r\n")?;
    ensure!(wait::line(&mut output, wait::STEP)? == "in");
    case.runtime.ok(&kill(&container.id))?;
    let response = client.receive()?;
    ensure!(response.text()? == "finished", "{response:?}");
    let status = case.wait(&container)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 0)), "ended with {status:?}");
    Ok(())
}

fn a_worker_that_eats_memory_is_stopped_by_its_cgroup(case: &mut Case) -> Result<()> {
    let mut bundle =
        case.worker("const held = [];\nfor (;;) held.push(new Uint8Array(1 << 20).fill(1));\n")?;
    let limit = 64 * 1024 * 1024;
    bundle.set("/linux/resources/memory", json!({"limit": limit, "swap": limit}));
    let container = case.start(&bundle)?;
    let status = case.wait(&container)?;
    let right = matches!(status, WaitStatus::Exited(_, 137) | WaitStatus::Signaled(_, Signal::SIGKILL, _));
    ensure!(right, "ended with {status:?}");
    Ok(())
}

fn a_worker_has_little_memory_of_its_own(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    // What a single worker has read of a file counts as its own; a second one shows what is shared.
    let (other, other_address) = case.serve(&bundle)?;
    let (mut client, mut other_client) =
        (http::Client::connect(address)?, http::Client::connect(other_address)?);
    let mut answered = 0;
    for (requests, limit) in PRIVATE_KB {
        while answered < requests {
            client.get("/")?;
            other_client.get("/")?;
            answered += 1;
        }
        let private = host::kilobytes(worker_of(&container)?, "smaps_rollup", "Private_Dirty")?;
        ensure!(private <= limit, "{private} kB are private after {requests} requests, {limit} may be");
    }
    case.remove(&other)?;
    case.remove(&container)
}

fn start_refuses_a_running_worker(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, address) = case.serve(&bundle)?;
    case.runtime.refused(&["start", &container.id], &["running"])?;
    ensure!(http::get(address, "/")?.status == 200, "the worker was disturbed");
    case.runtime.refused(&["delete", &container.id], &["running"])?;
    case.remove(&container)
}

fn ps_and_list_show_the_worker(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let (container, _) = case.serve(&bundle)?;
    let printed = case.runtime.ok(&["ps", "--format", "json", &container.id])?.stdout;
    let mut pids: Vec<i32> = serde_json::from_str(&printed)?;
    pids.sort_unstable();
    let mut expected = [container.pid, worker_of(&container)?];
    expected.sort_unstable();
    ensure!(pids == expected, "{pids:?} instead of {expected:?}");
    let listed = case.runtime.ok(&["list", "--quiet"])?;
    ensure!(listed.lines() == [container.id.as_str()], "{listed}");
    case.remove(&container)
}

fn hooks_run_around_a_worker(case: &mut Case) -> Result<()> {
    let log = case.directory().join("log");
    let mut bundle = case.worker(HELLO)?;
    bundle.set("/hooks", json!({}));
    for kind in ["createRuntime", "poststart", "poststop"] {
        let script = format!("echo {kind} >> {}", text(&log)?);
        bundle.push(&format!("/hooks/{kind}"), json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
    }
    let (container, _) = case.serve(&bundle)?;
    case.remove(&container)?;
    let written = fs::read_to_string(&log)?;
    ensure!(written == "createRuntime\npoststart\npoststop\n", "{written}");
    Ok(())
}

fn eight_workers_start_side_by_side(case: &mut Case) -> Result<()> {
    let bundle = case.worker(HELLO)?;
    let containers: Vec<Container> = (0..8).map(|_| case.create(&bundle)).collect::<Result<_>>()?;
    let mut starts = Vec::new();
    for container in &containers {
        let address = http::free_address()?;
        let listen = format!("tcp://{address}");
        starts.push((case.runtime.spawn(&["start", "--listen", &listen, &container.id], None)?, address));
    }
    for (start, address) in starts {
        start.finish()?.success()?;
        ensure!(http::get(address, "/")?.status == 200);
    }
    ensure!(case.seeds() == ["default"], "the seeds are {:?}", case.seeds());
    containers.iter().try_for_each(|container| case.remove(container))
}
