//! Messages in a pool: between workers, with the supervisor, from outside, too many of them, and without a supervisor.

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
        messages_reach_workers_the_supervisor_and_the_outside,
        a_message_keeps_its_types_between_workers,
        a_flood_of_messages_is_bounded_counted_and_told,
        messages_wait_for_the_next_supervisor;
}

/// Tells the supervisor of everything that it hears; a request's path says what to send.
const SCRIPT: &str = "\
const tell = (what) => Aworker.pool.postMessage({ worker: Aworker.pool.id, ...what });
const news = new BroadcastChannel('news');
news.onmessage = ({ data }) => tell({ heard: data });
news.onmessageerror = () => tell({ error: 'news' });
Aworker.pool.addEventListener('message', ({ data, source }) => {
  tell({ got: data, source });
  if (data?.ask) Aworker.pool.postMessage({ answer: data.ask * 2 }, { to: source });
});
addEventListener('fetch', (event) => event.respondWith((async () => {
  const url = new URL(event.request.url);
  const to = url.searchParams.get('to');
  if (url.pathname === '/id') return new Response(Aworker.pool.id);
  if (url.pathname === '/news') news.postMessage({ text: 'extra' });
  if (url.pathname === '/shared') news.postMessage(new SharedArrayBuffer(8));
  if (url.pathname === '/ask') Aworker.pool.postMessage({ ask: 21 }, { to });
  return new Response('sent');
})()));
";

/// The ids of a pool's workers, once all of them serve.
fn workers(pool: &mut Pool, case: &mut Case, count: usize) -> Result<Vec<String>> {
    for _ in 0..count {
        pool.wait_for_event("ready")?;
    }
    let status = pool.status(case)?;
    let ids = status["workers"].as_array().context("no workers")?.iter();
    Ok(ids.filter_map(|worker| worker["id"].as_str().map(str::to_owned)).collect())
}

fn ask(pool: &Pool, path: &str) -> Result<String> {
    let response = http::get(pool.address, path)?;
    ensure!(response.status == 200, "{path}: {response:?}");
    Ok(response.text()?.to_owned())
}

/// The data of the next `count` messages of workers, sorted.
fn messages(pool: &mut Pool, count: usize) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(pool.wait_for_event("message")?["data"].clone());
    }
    all.sort_by_key(Value::to_string);
    Ok(all)
}

fn messages_reach_workers_the_supervisor_and_the_outside(case: &mut Case) -> Result<()> {
    let mut pool = Pool::start(case, SCRIPT, &["--dispatch", "rr", "--min", "3", "--max", "3"])?;
    let ids = workers(&mut pool, case, 3)?;
    // Connections go round: the fourth answers as the first.
    let order: Vec<String> = (0..3).map(|_| ask(&pool, "/id")).collect::<Result<_>>()?;
    let mut sorted = order.clone();
    sorted.sort();
    ensure!(sorted == ids, "{order:?} are not {ids:?}");

    ask(&pool, "/news")?;
    let heard = messages(&mut pool, 2)?;
    let expected = |id: &String| json!({ "worker": id, "heard": { "text": "extra" } });
    let mut others: Vec<Value> = order[1..].iter().map(expected).collect();
    others.sort_by_key(Value::to_string);
    ensure!(heard == others, "{heard:#?}");

    ask(&pool, &format!("/ask?to={}", order[0]))?;
    let got = messages(&mut pool, 2)?;
    ensure!(
        got.contains(&json!({ "worker": order[0], "got": { "ask": 21 }, "source": order[1] })),
        "{got:#?}"
    );
    ensure!(
        got.contains(&json!({ "worker": order[1], "got": { "answer": 42 }, "source": order[0] })),
        "{got:#?}"
    );

    // Memory is not shared between processes: the standard's answer.
    ask(&pool, "/shared")?;
    let errors = messages(&mut pool, 2)?;
    ensure!(errors.iter().all(|error| error["error"] == "news"), "{errors:#?}");

    let name = pool.name().to_owned();
    let sent = case.runtime.ok(&["pool", "send", &name, "{\"config\": [1, null]}"])?;
    ensure!(sent.stdout.trim() == "3", "{sent}");
    for got in messages(&mut pool, 3)? {
        ensure!(got["got"] == json!({ "config": [1, null] }) && got["source"].is_null(), "{got}");
    }
    let sent = case.runtime.ok(&["pool", "send", &name, "7", "--to", &order[2]])?;
    ensure!(sent.stdout.trim() == "1", "{sent}");
    let got = messages(&mut pool, 1)?;
    ensure!(got[0] == json!({ "worker": order[2], "got": 7, "source": null }), "{got:?}");
    case.runtime.refused(&["pool", "send", &name, "{"], &["no JSON"])?;
    case.runtime
        .refused(&["pool", "send", &name, "1", "--to", "nobody.1.1"], &["there is no worker nobody.1.1"])?;

    // Who has gone gets nothing, and that is counted.
    ask(&pool, "/ask?to=nobody.1.1")?;
    let lost = pool.wait_for_event("messages-lost")?;
    ensure!(lost["lost_gone"] == 1 && lost["lost_full"] == 0, "{lost}");
    // Everything was an event, in order, and is still there.
    let listed = case.runtime.ok(&["pool", "events", &name])?;
    ensure!(listed.stdout.matches("\"event\":\"message\"").count() == 10, "{listed}");
    pool.drain(case)
}

fn a_message_keeps_its_types_between_workers(case: &mut Case) -> Result<()> {
    let script = "\
const big = new Uint8Array(3 << 20).fill(7);
Aworker.pool.onmessage = async ({ data, source }) => {
  if (source === null) {
    const buffer = new ArrayBuffer(5);
    const key = await crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
    const blob = new File(['inside'], 'a.txt', { type: 'text/plain' });
    Aworker.pool.postMessage(
      { map: new Map([[1, new Date(5)]]), error: new RangeError('far'), big, buffer, key, blob, cause: new DOMException('x', 'AbortError') },
      { to: data.to, transfer: [buffer] },
    );
    const refused = [];
    for (const [value, options] of [
      [() => 1, { to: data.to }],
      [() => 1, undefined],
      [1, { to: data.to, transfer: [new MessageChannel().port1] }],
      [new Uint8Array(17 << 20), { to: data.to }],
      ['x'.repeat(17000), undefined],
    ]) {
      try { Aworker.pool.postMessage(value, options); refused.push('sent'); } catch (error) { refused.push(error.name); }
    }
    Aworker.pool.postMessage({ detached: buffer.detached, refused });
    return;
  }
  const { map, error, big: copy, buffer, key, blob, cause } = data;
  await crypto.subtle.sign('HMAC', key, new Uint8Array(1));
  Aworker.pool.postMessage({
    map: map.get(1).getTime(), error: error instanceof RangeError && error.message, big: copy.length, last: copy.at(-1),
    buffer: buffer.byteLength, key: key.extractable, blob: await blob.text(), name: blob.name, cause: cause.name,
  });
};
addEventListener('fetch', (event) => event.respondWith(new Response('')));
";
    let mut pool = Pool::start(case, script, &["--min", "2", "--max", "2"])?;
    let ids = workers(&mut pool, case, 2)?;
    let to = format!("{{\"to\": \"{}\"}}", ids[1]);
    case.runtime.ok(&["pool", "send", pool.name(), &to, "--to", &ids[0]])?;
    let seen = messages(&mut pool, 2)?;
    let kept = json!({
        "map": 5, "error": "far", "big": 3 << 20, "last": 7, "buffer": 5, "key": false, "blob": "inside", "name": "a.txt",
        "cause": "AbortError",
    });
    ensure!(seen.contains(&kept), "{seen:#?}");
    let refused = ["DataCloneError"; 5];
    ensure!(seen.contains(&json!({ "detached": true, "refused": refused })), "{seen:#?}");
    pool.drain(case)
}

fn a_flood_of_messages_is_bounded_counted_and_told(case: &mut Case) -> Result<()> {
    const FLOODS: usize = 50;
    // The second worker does not run while the first sends as fast as it can.
    let script = "\
let got = 0;
Aworker.pool.onmessage = ({ data, source }) => {
  if (source !== null) { got += 1; return; }
  if (data.report) { Aworker.pool.postMessage({ got }); return; }
  let sent = 0;
  let refused = 0;
  const body = 'x'.repeat(1000);
  for (let i = 0; i < 20000; i++) {
    try { Aworker.pool.postMessage(body, { to: data.to }); sent += 1; } catch (error) {
      if (error.name !== 'QuotaExceededError') throw error;
      refused += 1;
    }
  }
  const tell = () => {
    try { Aworker.pool.postMessage({ sent, refused }); } catch { setTimeout(tell, 1); }
  };
  tell();
};
addEventListener('fetch', (event) => event.respondWith(new Response('')));
";
    let mut pool = Pool::start(case, script, &["--min", "2", "--max", "2"])?;
    let ids = workers(&mut pool, case, 2)?;
    let name = pool.name().to_owned();
    case.runtime.ok(&["pause", &ids[1]])?;
    let to = format!("{{\"to\": \"{}\"}}", ids[1]);
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(u64::MAX);
    // Through the sockets and the supervisor's bounded queue goes only so much to one who does not read. Where the supervisor does not
    // run meanwhile, most is refused to the sender, and several floods are needed.
    let mut sent = 0;
    for _ in 0..FLOODS {
        case.runtime.ok(&["pool", "send", &name, &to, "--to", &ids[0]])?;
        let told = messages(&mut pool, 1)?;
        let (more, refused) = (number(&told[0], "sent"), number(&told[0], "refused"));
        ensure!(more + refused == 20_000 && more > 0, "{told:?}");
        sent += more;
        if number(&pool.status(case)?["messages"], "lost_full") > 0 {
            break;
        }
    }
    let told = pool.seen().iter().find(|event| event["event"] == "messages-lost").cloned();
    let told = told.map_or_else(|| pool.wait_for_event("messages-lost"), Ok)?;
    ensure!(told["lost_gone"] == 0, "{told}");
    case.runtime.ok(&["resume", &ids[1]])?;
    case.runtime.ok(&["pool", "send", &name, "{\"report\": true}", "--to", &ids[1]])?;
    let got = number(&messages(&mut pool, 1)?[0], "got");
    let status = pool.status(case)?;
    let lost = number(&status["messages"], "lost_full");
    ensure!(got + lost == sent && lost > 0 && got > 0, "{got} got, {lost} lost, {sent} sent: {status:#}");
    ensure!(http::get(pool.address, "/")?.status == 200);
    pool.drain(case)
}

fn messages_wait_for_the_next_supervisor(case: &mut Case) -> Result<()> {
    let flags = ["--dispatch", "shared", "--min", "2", "--max", "2"];
    let mut pool = Pool::start(case, SCRIPT, &flags)?;
    let ids = workers(&mut pool, case, 2)?;
    let supervisor = pool.status(case)?["pid"].as_i64().context("no pid")?;
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGKILL)?;
    let (name, script, address) = (pool.name().to_owned(), pool.script().to_owned(), pool.address);
    pool.finish_follower()?;
    // Either worker may answer; a worker can write to itself.
    ensure!(http::get(address, &format!("/ask?to={}", ids[0]))?.text()? == "sent");
    let mut second = Pool::run(case, &name, &script, address, &flags)?;
    let got = messages(&mut second, 1)?;
    ensure!(got[0]["got"] == json!({ "ask": 21 }) && got[0]["worker"] == *ids[0], "{got:?}");
    second.drain(case)
}
