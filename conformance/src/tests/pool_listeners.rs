//! Listeners that workers of a pool hand to each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::pool::Pool;
use crate::case::Case;
use crate::http;
use crate::suite::tests;

tests! { "pool";
    Turf:
        a_listener_goes_to_another_worker_and_back,
        a_listener_that_cannot_be_handed_over_is_refused,
        listeners_that_are_handed_over_under_load_lose_no_connection;
}

/// Does what `turf pool send` says, with a listener that it accepts on or with one that it has seen before, and tells how that ended.
const SCRIPT: &str = "\
const me = Aworker.pool.id;
const seen = [];
Aworker.pool.onmessage = async ({ data }) => {
  const { give, again, other, to } = data;
  const mine = Aworker.pool.listeners;
  for (const listener of mine) if (!seen.includes(listener)) seen.push(listener);
  let result;
  try {
    const what = give !== undefined ? mine[give] : again !== undefined ? seen[again] : other;
    result = String(await Aworker.pool.handOver(what, { to }));
  } catch (error) {
    result = error.name;
  }
  Aworker.pool.postMessage({ result, listeners: Aworker.pool.listeners.map(({ address }) => address) });
};
addEventListener('fetch', (event) => event.respondWith(new Response(me)));
";

/// A pool of this many workers and their ids, in the order of their readiness.
fn start(case: &mut Case, workers: usize, flags: &[&str]) -> Result<(Pool, Vec<String>)> {
    let count = workers.to_string();
    let mut pool =
        Pool::start(case, SCRIPT, &[&["--min", &count, "--max", &count, "--spare", "1"], flags].concat())?;
    let mut ids = Vec::new();
    for _ in 0..workers {
        let ready = pool.wait_for_event("ready")?;
        ids.push(ready["worker"].as_str().context("a worker without an id")?.to_owned());
    }
    Ok((pool, ids))
}

/// Has a worker do something with a listener: how that ended, and where it accepts afterwards.
fn tell(case: &mut Case, pool: &mut Pool, worker: &str, what: &Value) -> Result<(String, Vec<String>)> {
    let name = pool.name().to_owned();
    case.runtime.ok(&["pool", "send", &name, &what.to_string(), "--to", worker])?;
    let said = pool.wait_for("message", |event| event["event"] == "message" && event["worker"] == worker)?;
    let said = &said["data"];
    let result = said["result"].as_str().with_context(|| format!("no result: {said}"))?.to_owned();
    let listeners = said["listeners"].as_array().context("no listeners")?.iter();
    Ok((result, listeners.filter_map(|address| address.as_str().map(str::to_owned)).collect()))
}

/// Who answers so many connections, each one of its own.
fn who_answers(address: SocketAddr, connections: usize) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for _ in 0..connections {
        let response = http::get(address, "/")?;
        ensure!(response.status == 200, "{response:?}");
        all.push(response.text()?.to_owned());
    }
    all.sort();
    all.dedup();
    Ok(all)
}

fn listeners_of(pool: &Pool, case: &mut Case, id: &str) -> Result<Value> {
    let workers = pool.workers(case)?;
    let worker = workers.iter().find(|worker| worker["id"] == id).context("no such worker")?;
    Ok(worker["listeners"].clone())
}

fn a_listener_goes_to_another_worker_and_back(case: &mut Case) -> Result<()> {
    let second = http::free_address()?;
    let (mut pool, ids) = start(case, 2, &["--listen", &second.to_string()])?;
    let addresses = [format!("tcp://{}", pool.address), format!("tcp://{second}")];
    let (first_worker, second_worker) = (&ids[0], &ids[1]);

    let given = tell(case, &mut pool, first_worker, &json!({ "give": 1, "to": second_worker }))?;
    ensure!(given == ("undefined".to_owned(), vec![addresses[0].clone()]), "{given:?}");
    ensure!(listeners_of(&pool, case, first_worker)? == json!([addresses[0]]));
    ensure!(listeners_of(&pool, case, second_worker)? == json!(addresses));
    ensure!(who_answers(second, 20)? == std::slice::from_ref(second_worker));
    ensure!(who_answers(pool.address, 1)?.len() == 1);

    // To the only other one.
    let back = tell(case, &mut pool, second_worker, &json!({ "give": 1 }))?;
    ensure!(back == ("undefined".to_owned(), vec![addresses[0].clone()]), "{back:?}");
    ensure!(who_answers(second, 20)? == std::slice::from_ref(first_worker));
    let moved = pool.seen().iter().filter(|event| event["event"] == "listener").collect::<Vec<_>>();
    ensure!(
        moved.len() == 2 && moved[0]["worker"] == **first_worker && moved[0]["to"] == **second_worker,
        "{moved:?}"
    );
    ensure!(moved.iter().all(|event| event["address"] == addresses[1]), "{moved:?}");
    ensure!(pool.status(case)?["handovers"]["listeners"] == 2);

    // When the receiver goes somebody else accepts, although all others have handed it over.
    let workers = pool.workers(case)?;
    let receiver = workers.iter().find(|worker| worker["id"] == **first_worker).context("no receiver")?;
    let pid = i32::try_from(receiver["worker_pid"].as_i64().context("no pid")?)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    pool.wait_for_event("exit")?;
    ensure!(!who_answers(second, 5)?.contains(first_worker));
    // And a worker that comes later accepts everywhere.
    let replacement = pool.wait_for_event("ready")?["worker"].clone();
    let replacement = replacement.as_str().context("no id")?;
    ensure!(listeners_of(&pool, case, replacement)? == json!(addresses));
    ensure!(listeners_of(&pool, case, second_worker)? == json!([addresses[0]]));
    // The one that helped out has heard that it need not.
    let after = tell(case, &mut pool, second_worker, &json!({ "other": null }))?;
    ensure!(after == ("TypeError".to_owned(), vec![addresses[0].clone()]), "{after:?}");
    ensure!(who_answers(second, 20)? == [replacement.to_owned()]);
    pool.drain(case)
}

fn a_listener_that_cannot_be_handed_over_is_refused(case: &mut Case) -> Result<()> {
    let (mut pool, ids) = start(case, 2, &[])?;
    let both = vec![format!("tcp://{}", pool.address)];
    for (what, error) in [
        (json!({ "give": 0, "to": "nobody.1.1" }), "NotFoundError"),
        (json!({ "give": 0, "to": ids[0] }), "NotFoundError"),
        (json!({ "give": 1, "to": ids[1] }), "TypeError"),
        (json!({ "other": "listener", "to": ids[1] }), "TypeError"),
        (json!({ "other": {}, "to": ids[1] }), "TypeError"),
    ] {
        let refused = tell(case, &mut pool, &ids[0], &what)?;
        ensure!(refused == (error.to_owned(), both.clone()), "{what}: {refused:?}");
    }
    // What is another's already.
    let given = tell(case, &mut pool, &ids[0], &json!({ "give": 0, "to": ids[1] }))?;
    ensure!(given == ("undefined".to_owned(), Vec::new()), "{given:?}");
    let again = tell(case, &mut pool, &ids[0], &json!({ "again": 0, "to": ids[1] }))?;
    ensure!(again == ("InvalidStateError".to_owned(), Vec::new()), "{again:?}");
    ensure!(who_answers(pool.address, 20)? == [ids[1].clone()]);
    pool.drain(case)?;

    // Where the supervisor accepts there is nothing to hand over, and alone nobody to take it.
    let (mut pool, ids) = start(case, 1, &["--dispatch", "rr"])?;
    let none = tell(case, &mut pool, &ids[0], &json!({ "give": 0 }))?;
    ensure!(none == ("TypeError".to_owned(), Vec::new()), "{none:?}");
    pool.drain(case)?;
    let (mut pool, ids) = start(case, 1, &[])?;
    let mine = vec![format!("tcp://{}", pool.address)];
    let alone = tell(case, &mut pool, &ids[0], &json!({ "give": 0 }))?;
    ensure!(alone == ("NotFoundError".to_owned(), mine), "{alone:?}");
    pool.drain(case)
}

fn listeners_that_are_handed_over_under_load_lose_no_connection(case: &mut Case) -> Result<()> {
    for dispatch in ["reuseport", "shared"] {
        let (mut pool, ids) = start(case, 2, &["--dispatch", dispatch])?;
        let (address, stop, count) =
            (pool.address, Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        // A connection for each request: every one goes through a queue.
        let client = |stop: Arc<AtomicBool>, count: Arc<AtomicU64>| {
            thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    ensure!(http::get(address, "/")?.status == 200);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients: Vec<_> = (0..4).map(|_| client(Arc::clone(&stop), Arc::clone(&count))).collect();
        let mut given = Ok(());
        for turn in 0..20 {
            let (from, to) = (&ids[turn % 2], &ids[(turn + 1) % 2]);
            let before = count.load(Ordering::Relaxed);
            given = tell(case, &mut pool, from, &json!({ "give": 0, "to": to })).and_then(|(result, _)| {
                ensure!(result == "undefined", "{dispatch}: turn {turn}: {result}");
                Ok(())
            });
            if given.is_err() {
                break;
            }
            // As many requests as there are clients have begun since.
            while count.load(Ordering::Relaxed) < before + 8
                && !clients.iter().any(|client| client.is_finished())
            {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?.context(dispatch)?;
        }
        given?;
        ensure!(pool.status(case)?["handovers"]["listeners"] == 20);
        pool.drain(case)?;
    }
    Ok(())
}
