//! Requests that workers of a pool hand to each other, with their connections.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::pool::{Load, Pool};
use crate::case::Case;
use crate::http::{self, Client};
use crate::suite::tests;
use crate::wait;

tests! { "pool";
    Turf:
        a_request_goes_to_another_worker_with_its_connection,
        what_cannot_be_handed_over_is_refused_and_goes_on,
        a_refused_request_that_nobody_will_answer_is_answered_at_once,
        a_request_outlives_the_worker_that_was_to_take_it,
        a_worker_that_drains_answers_what_it_was_given_before,
        a_handed_over_request_waits_for_the_next_supervisor,
        hand_overs_under_load_lose_no_request;
}

/// `/to?ID` goes to a worker, `/any?ID` away from it, `/round` on and on; everything else says who answers.
const SCRIPT: &str = "\
const me = Aworker.pool.id;
let answered;
async function answer(request) {
  const { pathname, search } = new URL(request.url);
  const whom = search.slice(1);
  try {
    if (pathname === '/load' && Math.random() < 0.5) return await Aworker.pool.handOver(request);
    if (pathname === '/to' && whom !== me) return await Aworker.pool.handOver(request, { to: whom });
    if (pathname === '/later' && whom !== me) {
      await new Promise((done) => setTimeout(done, 1));
      return await Aworker.pool.handOver(request, { to: whom });
    }
    if (pathname === '/any' && whom === me) return await Aworker.pool.handOver(request);
    if (pathname === '/round') return await Aworker.pool.handOver(request);
    if (pathname === '/read') { await request.text(); return await Aworker.pool.handOver(request); }
    if (pathname === '/own') return await Aworker.pool.handOver(new Request('http://a/'));
    if (pathname === '/nothing') return await Aworker.pool.handOver('request');
    if (pathname === '/meanwhile') {
      Aworker.pool.handOver(request, { to: whom }).catch(() => {});
      return new Response(me);
    }
    if (pathname === '/thrown') {
      Aworker.pool.handOver(request, { to: whom }).catch(() => {});
      throw new Error('no answer');
    }
    if (pathname === '/left') {
      Aworker.pool.handOver(request, { to: whom });
      return new Promise(() => {});
    }
    if (pathname === '/answered') return await Aworker.pool.handOver(answered);
  } catch (error) {
    if (pathname !== '/load') return new Response(`${me} ${error.name}`);
  }
  if (pathname === '/keep') answered = request;
  const body = request.method === 'POST' ? ` ${(await request.text()).length}` : '';
  return new Response(`${me}${body}`);
}
addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
";

/// A pool whose workers take turns, and their ids: the first takes the next connection.
fn start(case: &mut Case, workers: usize) -> Result<(Pool, Vec<String>)> {
    let count = workers.to_string();
    let mut pool = Pool::start(case, SCRIPT, &["--dispatch", "rr", "--min", &count, "--max", &count])?;
    for _ in 0..workers {
        pool.wait_for_event("ready")?;
    }
    let ids = (0..workers).map(|_| text(&pool, "/")).collect::<Result<_>>()?;
    Ok((pool, ids))
}

fn text(pool: &Pool, path: &str) -> Result<String> {
    let response = http::get(pool.address, path)?;
    ensure!(response.status == 200, "{path}: {response:?}");
    Ok(response.text()?.to_owned())
}

/// The process of a worker.
fn process(pool: &Pool, case: &mut Case, id: &str) -> Result<Pid> {
    let workers = pool.workers(case)?;
    let worker = workers.iter().find(|worker| worker["id"] == id).context("no such worker")?;
    let pid = worker["worker_pid"].as_i64().context("the worker has no process")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

/// Waits until so many requests are under way between workers.
fn wait_for_under_way(pool: &Pool, case: &mut Case, count: u64) -> Result<Value> {
    let end = Instant::now() + wait::STEP;
    loop {
        let status = pool.status(case)?;
        if status["handovers"]["under_way"] == count {
            return Ok(status["handovers"].clone());
        }
        ensure!(Instant::now() < end, "not {count} under way: {}", status["handovers"]);
    }
}

fn a_request_goes_to_another_worker_with_its_connection(case: &mut Case) -> Result<()> {
    let (pool, ids) = start(case, 2).context("begin")?;
    if let Err(error) = move_to_and_fro(case, &pool, &ids) {
        return Err(error.context(format!("the pool: {}", pool.status(case)?)));
    }
    pool.drain(case)
}

fn move_to_and_fro(case: &mut Case, pool: &Pool, ids: &[String]) -> Result<()> {
    let mut client = Client::connect(pool.address)?;
    ensure!(client.get("/")?.text()? == ids[0]);
    let to_second = format!("/to?{}", ids[1]);
    let moved = client.get(&to_second).context("the first hand-over")?;
    ensure!(moved.text()? == ids[1], "the first worker has answered");
    // The connection has gone with it.
    ensure!(client.get("/")?.text()? == ids[1]);
    // And back, with a body: as much as fits into a packet, and more than that.
    for (length, id) in [(100, &ids[0]), (60_000, &ids[1]), (300_000, &ids[0])] {
        let response = client.post(&format!("/to?{id}"), &vec![b'x'; length]);
        let response = response.with_context(|| format!("with a body of {length}"))?;
        ensure!(response.text()? == format!("{id} {length}"), "{length}: {response:?}");
    }
    // When the handler has waited for something, too.
    let later = client.get(&format!("/later?{}", ids[1])).context("later")?;
    ensure!(later.text()? == ids[1], "{later:?}");
    // What came behind the request goes along, and the answers keep their order.
    let line = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let to_first = format!("/to?{}", ids[0]);
    client.send([line("/"), line(&to_first), line("/"), line(&to_second), line("/")].concat().as_bytes())?;
    for (index, id) in [&ids[1], &ids[0], &ids[0], &ids[1], &ids[1]].into_iter().enumerate() {
        let response =
            client.receive().with_context(|| format!("request {index} of those that came at once"))?;
        ensure!(response.text()? == *id, "{index}: {response:?}");
    }
    // Whoever it is that takes it.
    ensure!(client.get(&format!("/any?{}", ids[1]))?.text()? == ids[0]);
    let handed = pool.status(case)?["handovers"].clone();
    ensure!(handed["taken"] == 8 && handed["refused"] == 0 && handed["under_way"] == 0, "{handed}");
    // Every worker but the last has let go of it.
    let end = Instant::now() + wait::STEP;
    loop {
        let workers = pool.workers(case)?;
        let open: u64 = workers.iter().filter_map(|worker| worker["connections"].as_u64()).sum();
        if open == 1 {
            break;
        }
        ensure!(open > 1 && Instant::now() < end, "{open} connections are open: {workers:#?}");
    }
    Ok(())
}

fn what_cannot_be_handed_over_is_refused_and_goes_on(case: &mut Case) -> Result<()> {
    let (pool, ids) = start(case, 2)?;
    let mut client = Client::connect(pool.address)?;
    for (path, error) in
        [("/to?nobody.1.1", "NotFoundError"), ("/own", "TypeError"), ("/nothing", "TypeError")]
    {
        let response = client.get(path)?;
        ensure!(response.text()? == format!("{} {error}", ids[0]), "{path}: {response:?}");
    }
    // What has come behind a request that goes on here is answered, too.
    client.send(b"GET /to?nobody.1.1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(client.receive()?.text()? == format!("{} NotFoundError", ids[0]));
    ensure!(client.receive()?.text()? == ids[0]);
    let response = client.post("/read", b"some bytes")?;
    ensure!(response.text()? == format!("{} InvalidStateError", ids[0]), "{response:?}");
    client.get("/keep")?;
    let response = client.get("/answered")?;
    ensure!(response.text()? == format!("{} InvalidStateError", ids[0]), "{response:?}");
    // Two workers that each mean the other one.
    let response = client.get("/round")?;
    ensure!(response.text()?.ends_with(" OperationError"), "{response:?}");
    drop(client);
    pool.drain(case)?;
    // Alone there is nobody to hand anything to.
    let mut pool = Pool::start(case, SCRIPT, &["--min", "1", "--max", "1"])?;
    pool.wait_for_event("ready")?;
    ensure!(text(&pool, "/round")?.ends_with(" NotFoundError"));
    pool.drain(case)
}

fn a_refused_request_that_nobody_will_answer_is_answered_at_once(case: &mut Case) -> Result<()> {
    let (pool, ids) = start(case, 2)?;
    let mut client = Client::connect(pool.address)?;
    for path in ["/meanwhile", "/thrown", "/left"] {
        let response = client.get(&format!("{path}?nobody.1.1")).context(path)?;
        ensure!(response.status == 503, "{path}: {response:?}");
        // The connection goes on here.
        ensure!(client.get("/")?.text()? == ids[0], "{path}: the next request");
    }
    // What is taken is the other worker's to answer, whatever the handler does.
    let moved = client.get(&format!("/meanwhile?{}", ids[1]))?;
    ensure!(moved.status == 503, "the second worker has nobody to hand it to: {moved:?}");
    ensure!(client.get("/")?.text()? == ids[1]);
    let failures: u64 = pool.workers(case)?.iter().filter_map(|worker| worker["failures"].as_u64()).sum();
    ensure!(failures >= 4, "{failures}");
    drop(client);
    pool.drain(case)
}

fn a_request_outlives_the_worker_that_was_to_take_it(case: &mut Case) -> Result<()> {
    let (pool, ids) = start(case, 3)?;
    let mut client = Client::connect(pool.address)?;
    ensure!(client.get("/")?.text()? == ids[0]);
    let others = [process(&pool, case, &ids[1])?, process(&pool, case, &ids[2])?];
    for pid in others {
        kill(pid, Signal::SIGSTOP)?;
    }
    // Nobody else is asked for what was meant for one.
    client.send(format!("GET /to?{} HTTP/1.1\r\nHost: a\r\n\r\n", ids[1]).as_bytes())?;
    wait_for_under_way(&pool, case, 1)?;
    kill(others[0], Signal::SIGKILL)?;
    ensure!(client.receive()?.text()? == format!("{} NotFoundError", ids[0]));

    // Whoever may take it: the one that is stopped, until it is killed; then one that serves.
    let mut pool = pool;
    pool.wait_for("exit", |event| event["event"] == "exit" && event["worker"] == *ids[1])?;
    let replacement = pool.wait_for_event("ready")?["worker"].as_str().context("no id")?.to_owned();
    let replacement_pid = process(&pool, case, &replacement)?;
    kill(replacement_pid, Signal::SIGSTOP)?;
    client.send(format!("GET /any?{} HTTP/1.1\r\nHost: a\r\n\r\n", ids[0]).as_bytes())?;
    wait_for_under_way(&pool, case, 1)?;
    kill(others[1], Signal::SIGKILL)?;
    kill(replacement_pid, Signal::SIGKILL)?;
    let answered = client.receive()?.text()?.to_owned();
    ensure!(answered == format!("{} NotFoundError", ids[0]) || !ids.contains(&answered), "{answered}");
    ensure!(client.get("/")?.status == 200, "the connection lives");
    drop(client);
    pool.drain(case)
}

fn a_worker_that_drains_answers_what_it_was_given_before(case: &mut Case) -> Result<()> {
    let (mut pool, ids) = start(case, 2)?;
    let mut client = Client::connect(pool.address)?;
    let second = process(&pool, case, &ids[1])?;
    kill(second, Signal::SIGSTOP)?;
    client.send(format!("GET /to?{} HTTP/1.1\r\nHost: a\r\n\r\n", ids[1]).as_bytes())?;
    wait_for_under_way(&pool, case, 1)?;
    let name = pool.name().to_owned();
    let control = format!("pool reload {name}");
    let arguments: Vec<&str> = control.split(' ').collect();
    let reload = case.runtime.spawn_with(&arguments, None, None)?;
    // The second worker is told to drain, and reads that behind what it was given.
    pool.wait_for("retire", |event| event["event"] == "retire" && event["worker"] == *ids[1])?;
    kill(second, Signal::SIGCONT)?;
    ensure!(client.receive()?.text()? == ids[1]);
    reload.finish()?.success()?;
    // Who has gone is not found; the connection has moved on meanwhile.
    let gone = client.get(&format!("/to?{}", ids[1]))?.text()?.to_owned();
    ensure!(gone.ends_with(" NotFoundError") && !ids.iter().any(|id| gone.starts_with(id)), "{gone}");
    drop(client);
    pool.drain(case)
}

fn a_handed_over_request_waits_for_the_next_supervisor(case: &mut Case) -> Result<()> {
    let flags = ["--dispatch", "shared", "--min", "2", "--max", "2"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    for _ in 0..2 {
        pool.wait_for_event("ready")?;
    }
    let supervisor = pool.status(case)?["pid"].as_i64().context("no pid")?;
    let mut client = Client::connect(pool.address)?;
    let first = client.get("/")?.text()?.to_owned();
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGKILL)?;
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    pool.finish_follower()?;
    client.send(format!("GET /any?{first} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    let mut second = Pool::run(case, &name, &script, address, &flags)?;
    let answered = client.receive()?.text()?.to_owned();
    ensure!(answered != first && !answered.contains(' '), "{answered}");
    second.wait_for_event("reloaded")?;
    ensure!(client.get("/")?.status == 200);
    drop(client);
    second.drain(case)
}

fn hand_overs_under_load_lose_no_request(case: &mut Case) -> Result<()> {
    let flags = ["--dispatch", "shared", "--min", "3", "--max", "3"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    for _ in 0..3 {
        pool.wait_for_event("ready")?;
    }
    pool.ignore_events()?;
    let load = Load::on(pool.address, 8);
    load.wait_for_answers(500)?;
    let name = pool.name().to_owned();
    case.runtime.ok(&["pool", "reload", &name])?;
    load.wait_for_answers(500)?;
    case.runtime.ok(&["pool", "scale", &name, "--min", "1", "--max", "1"])?;
    load.wait_for_answers(500)?;
    load.finish()?;
    let handed = pool.status(case)?["handovers"].clone();
    ensure!(handed["taken"].as_u64() > Some(100) && handed["under_way"] == 0, "{handed}");
    pool.drain(case)
}
