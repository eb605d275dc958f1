//! Startup snapshots of programs: what survives, what is refused, and files that are wrong.

mod script_support;
mod temporary;

use script_support::{Directory, Run, aworker};

/// Builds `main.js` into `app.snap` and runs that; both must succeed.
#[track_caller]
fn build_and_run(name: &str, files: &[(&str, &str)], arguments: &[&str]) -> Run {
    let directory = Directory::new(name, files);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("");
    // The program is in the snapshot: its files are not needed.
    for (file, _) in files.iter().filter(|(file, _)| *file != "later.js") {
        std::fs::remove_file(directory.0.join(file)).expect("removed");
    }
    let mut words = vec!["run", "--snapshot", "app.snap"];
    words.extend(arguments);
    directory.run(&words)
}

/// What a build says that must fail, and leaves no file.
#[track_caller]
fn refused(name: &str, source: &str, parts: &[&str]) {
    let directory = Directory::new(name, &[("main.js", source)]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).fails_with(parts);
    let left: Vec<_> = std::fs::read_dir(&directory.0).expect("a directory").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Whether it yields or not, and wherever it is.
#[test]
fn a_build_that_does_not_end_is_given_up() {
    for (index, source) in [
        "for (;;);",
        "addEventListener('serialize', () => { for (;;); });",
        "addEventListener('serialize', (event) => event.waitUntil(new Promise(() => setInterval(() => {}, 1))));",
    ]
    .into_iter()
    .enumerate()
    {
        let directory = Directory::new(&format!("endless-{index}"), &[("main.js", source)]);
        directory
            .run(&["snapshot", "build", "main.js", "-o", "app.snap", "--timeout", "1"])
            .fails_with(&["main.js: after 1 s", "--timeout"]);
        assert!(!directory.0.join("app.snap").exists());
    }
}

#[test]
fn what_a_program_computed_survives() {
    let source = "
        let count = 1;
        const map = new Map([['key', { nested: [1, 2n] }]]);
        const floats = new Float64Array([1.5, 0]);
        const buffer = new ArrayBuffer(5_000_000);
        new Uint8Array(buffer)[4_999_999] = 7;
        class Counter { #n = 41; next() { return ++this.#n; } }
        const counter = new Counter();
        const weak = new WeakMap([[counter, 'weak']]);
        function* numbers() { yield 1; yield 2; }
        const generator = numbers();
        generator.next();
        let resolve;
        const pending = new Promise((r) => { resolve = r; });
        const waiting = (async () => `${await pending} at last`)();
        const url = new URL('http://host/path?a=b');
        const registry = new FinalizationRegistry(() => {});
        registry.register({}, 1);
        addEventListener('serialize', (event) => {
          event.waitUntil(new Promise((done) => setTimeout(() => { count += 1; done(); }, 5)));
        });
        addEventListener('deserialize', (event) => {
          console.log(count, map.get('key').nested, floats, new Uint8Array(buffer)[4_999_999]);
          console.log(counter.next(), weak.get(counter), generator.next().value, url.searchParams.get('a'));
          console.log(/(?<year>\\d+)/.exec('in 2026').groups.year, new Intl.NumberFormat('en').format(1234.5));
          resolve('done');
          event.waitUntil(waiting.then((text) => console.log(text)));
        });
        addEventListener('install', () => console.log('install'));";
    build_and_run("state", &[("main.js", source)], &[]).prints(
        "2 [ 1, 2n ] Float64Array(2) [ 1.5, 0 ] 7\n42 weak 2 b\n2026 1,234.5\ndone at last\ninstall\n",
    );
}

#[test]
fn modules_survive_and_import_others_later() {
    let run = build_and_run(
        "modules",
        &[
            (
                "main.js",
                "import { shared } from './lib.js';
                 import data from './data.json' with { type: 'json' };
                 export const mine = 1;
                 const self = import('./main.js');
                 addEventListener('deserialize', (event) => event.waitUntil((async () => {
                   const later = await import('./later.js');
                   const lib = await import('./lib.js');
                   console.log(later.seen === shared, lib.shared === shared, data.x, (await self).mine,
                     import.meta.url.endsWith('/main.js'));
                 })()));",
            ),
            ("lib.js", "export const shared = {};"),
            ("data.json", "{\"x\": 5}"),
            ("later.js", "import { shared } from './lib.js'; export const seen = shared;"),
        ],
        &[],
    );
    run.prints("true true 5 1 true\n");
}

#[test]
fn a_worker_of_a_snapshot_has_its_own_arguments_environment_time_and_randomness() {
    let source = "
        const before = [Math.random(), crypto.randomUUID(), performance.timeOrigin];
        if (Aworker.args.length || Object.keys(Aworker.env).length) throw new Error('of the build');
        addEventListener('deserialize', () => {
          const now = [Math.random(), crypto.randomUUID(), performance.timeOrigin];
          console.log(now.every((value, i) => value !== before[i]), Aworker.args, typeof Aworker.env.PATH,
            performance.now() < 10_000);
          console.log(now[0]);
        });";
    let directory = Directory::new("own", &[("main.js", source)]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("");
    let runs = [0, 1].map(|_| directory.run(&["run", "--snapshot", "app.snap", "a", "b"]));
    let lines = runs.each_ref().map(|run| run.stdout.lines().collect::<Vec<_>>());
    assert_eq!(lines[0][0], "true [ 'a', 'b' ] string true", "{runs:?}");
    assert_ne!(lines[0][1], lines[1][1], "two workers drew the same random number");
}

#[test]
fn timers_go_on_with_the_time_they_had_left_and_in_their_order() {
    let source = "
        const begun = Date.now();
        const say = (name) => () => console.log(name);
        setTimeout(say('third'), 60);
        setTimeout(say('first'), 40);
        setTimeout(say('second'), 40);
        const cleared = setTimeout(say('never'), 1);
        const interval = setInterval(() => { console.log('interval'); clearInterval(interval); }, 80);
        clearTimeout(cleared);
        setTimeout(say('in a week'), 7 * 24 * 3600 * 1000);
        addEventListener('deserialize', () => {
          const start = performance.now();
          setTimeout(() => {
            console.log('waited', performance.now() - start >= 85);
            removeEventListener('x', say);
            for (let id = 1; id < 100; id++) clearTimeout(id);
          }, 90);
        });";
    build_and_run("timers", &[("main.js", source)], &[])
        .prints("first\nsecond\nthird\ninterval\nwaited true\n");
}

#[test]
fn an_error_after_the_restore_is_reported_once_and_ends_the_worker() {
    let source = "
        addEventListener('error', () => console.log('seen'));
        addEventListener('deserialize', () => queueMicrotask(() => { throw new Error('on purpose'); }));";
    let run = build_and_run("error", &[("main.js", source)], &[]);
    run.fails_with(&["Error: on purpose", "main.js:3"]);
    assert_eq!(run.stdout, "seen\n");
}

#[test]
fn what_cannot_be_in_a_snapshot_is_refused_by_name_and_place() {
    refused(
        "intl",
        "const kept = {};\nkept.format = new Intl.NumberFormat('de');\nnew Intl.Collator('de');",
        &["cannot be in a snapshot", "an Intl.NumberFormat, made at", "main.js:2:15", "`deserialize`"],
    );
    refused(
        "wasm",
        "const m = new WebAssembly.Memory({ initial: 1 });",
        &["a WebAssembly.Memory cannot be in a snapshot", "main.js:1"],
    );
    refused(
        "wasm-async",
        "await WebAssembly.instantiate(new Uint8Array(8));",
        &["a WebAssembly.Module cannot be in a snapshot"],
    );
    refused("shared", "new SharedArrayBuffer(8)", &["a SharedArrayBuffer cannot be in a snapshot"]);
    refused(
        "resizable",
        "globalThis.b = new ArrayBuffer(8, { maxByteLength: 16 })",
        &["a resizable ArrayBuffer, made at"],
    );
    refused(
        "decoder",
        "globalThis.d = new TextDecoder();\nd.decode(new Uint8Array([0xe2]), { stream: true });",
        &["a TextDecoder in the middle of a stream"],
    );
    // Nobody answers there: the connection stays in the listener's queue.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = silent.local_addr().expect("an address");
    refused(
        "fetch",
        &format!("globalThis.f = fetch('http://{address}/');"),
        &[&format!("a fetch of http://{address} under way")],
    );
    refused(
        "socket",
        &format!("globalThis.s = new WebSocket('ws://{address}/x');"),
        &[&format!("a WebSocket to {address}")],
    );
    refused(
        "frozen",
        "Object.freeze(globalThis);",
        &["an object whose 'ArrayBuffer' cannot be changed any more cannot be in a snapshot"],
    );
    refused(
        "compression",
        "globalThis.c = new CompressionStream('gzip');\nc.readable.getReader().read();\nc.writable.getWriter().write(new Uint8Array(9));",
        &["a CompressionStream or DecompressionStream that has not ended"],
    );
    refused(
        "segments",
        "globalThis.s = new Intl.Segmenter('en').segment('a b');\nglobalThis.i = s[Symbol.iterator]();",
        &["an Intl.Segments, made at", "main.js:1:", "an iterator of Intl.Segments, made at", "main.js:2:"],
    );
}

#[test]
fn a_fetch_in_flight_cannot_be_in_a_snapshot() {
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = silent.local_addr().expect("an address");
    refused(
        "fetch",
        &format!("fetch('http://{address}/')"),
        &[&format!("a fetch of http://{address} under way")],
    );
}

#[test]
fn a_build_whose_process_dies_says_so() {
    let directory = Directory::new(
        "dies",
        &[("main.js", "const all = []; for (;;) all.push(new Array(10000).fill(1));")],
    );
    let ended = directory.run(&["snapshot", "build", "--max-heap-mb", "32", "main.js", "-o", "app.snap"]);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    for text in ["reached its limit of 32 MB", "main.js: the program ended before its heap was written"] {
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}

#[test]
fn what_has_come_and_gone_is_no_obstacle() {
    let source = "
        const text = new Intl.DateTimeFormat('en').format(0) + new Intl.NumberFormat('de').format(1.5);
        const { ArrayBuffer: Buffer, Intl: { NumberFormat } } = globalThis;
        new Buffer(8, { maxByteLength: 16 });
        console.log(new ArrayBuffer(1).constructor === ArrayBuffer, new Buffer(1) instanceof ArrayBuffer);
        addEventListener('deserialize', () => console.log(
          text, typeof WebAssembly.Module, new SharedArrayBuffer(8).byteLength, new NumberFormat('de').format(1.5),
          new ArrayBuffer(1).constructor === ArrayBuffer));";
    let directory = Directory::new("gone", &[("main.js", source)]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("true true\n");
    directory.run(&["run", "--snapshot", "app.snap"]).prints("1/1/19701,5 function 8 1,5 true\n");
}

#[test]
fn a_program_that_fails_makes_no_snapshot() {
    refused("throws", "\nthrow new Error('at load')", &["main.js: ", "main.js:2", "Error: at load"]);
    refused(
        "rejects",
        "addEventListener('serialize', (e) => e.waitUntil(Promise.reject(new Error('no'))))",
        &["Error: no"],
    );
    refused("syntax", "let let = 1", &["SyntaxError"]);
    refused(
        "waits",
        "addEventListener('serialize', (e) => e.waitUntil(new Promise(() => {})))",
        &["waitUntil of serialize waits for something that cannot happen"],
    );
}

#[test]
fn an_old_snapshot_stays_when_another_cannot_be_built() {
    let directory = Directory::new("old", &[("main.js", "console.log('built')")]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("built\n");
    let before = std::fs::read(directory.0.join("app.snap")).expect("a snapshot");
    std::fs::write(directory.0.join("main.js"), "throw 1").expect("written");
    assert_eq!(directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).status, Some(1));
    assert_eq!(std::fs::read(directory.0.join("app.snap")).expect("a snapshot"), before);
    directory.run(&["run", "--snapshot", "app.snap"]).prints("");
}

#[test]
fn files_that_are_no_snapshot_of_this_program_are_refused() {
    let directory = Directory::new(
        "wrong",
        &[("main.js", "1"), ("text.snap", "not a snapshot, but long enough for a header")],
    );
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("");
    let good = std::fs::read(directory.0.join("app.snap")).expect("a snapshot");
    let run = |bytes: &[u8], flags: &[&str]| {
        std::fs::write(directory.0.join("bad.snap"), bytes).expect("written");
        let mut words = vec!["run"];
        words.extend(flags);
        words.extend(["--snapshot", "bad.snap"]);
        directory.run(&words)
    };
    run(&good, &[]).prints("");
    run(b"", &[]).fails_with(&["snapshot bad.snap: it is no snapshot of Aworker"]);
    directory.run(&["run", "--snapshot", "text.snap"]).fails_with(&["it is no snapshot of Aworker"]);
    directory.run(&["run", "--snapshot", "/dev/zero"]).fails_with(&["it is no regular file"]);
    directory
        .run(&["run", "--snapshot", "none"])
        .fails_with(&["snapshot none: ", "o such file or directory"]);
    run(&good[..good.len() - 1], &[]).fails_with(&["its header says"]);
    run(&[&good[..], b"x"].concat(), &[]).fails_with(&["its header says"]);
    run(&good, &["--v8-flag=--stack-size=900"]).fails_with(&["made with V8's flags", "build it again"]);
    for (at, message) in [
        (8, "made with layout"),
        (19, "the most is"),
        (27, "the most is"),
        (33, "its checksum is wrong"),
        (60, "its checksum is wrong"),
        (good.len() / 2, "its checksum is wrong"),
        (good.len() - 1, "its checksum is wrong"),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        run(&bytes, &[]).fails_with(&["snapshot bad.snap: ", message]);
    }
}

#[test]
fn a_snapshot_of_another_version_is_refused_with_both_versions() {
    let directory = Directory::new("version", &[("main.js", "1")]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("");
    let mut bytes = std::fs::read(directory.0.join("app.snap")).expect("a snapshot");
    let own = env!("CARGO_PKG_VERSION").as_bytes();
    let at =
        bytes.windows(own.len()).position(|window| window == own).expect("the version is in the identity");
    bytes[at] = b'9';
    // The checksum is of what stands behind the header's 36 bytes.
    let checksum = crc32fast::hash(&bytes[36..]);
    bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(directory.0.join("app.snap"), bytes).expect("written");
    let theirs = format!("made with Aworker 9{}", &env!("CARGO_PKG_VERSION")[1..]);
    let ours = format!("this is {}: build it again", env!("CARGO_PKG_VERSION"));
    directory.run(&["run", "--snapshot", "app.snap"]).fails_with(&[&theirs, &ours]);
}

#[test]
fn a_snapshot_serves() {
    use std::io::{BufRead, BufReader, Read, Write};
    let source = "let served = 0; export default { fetch: (request) => new Response(`${++served} ${new URL(request.url).pathname}`) }";
    let directory = Directory::new("serves", &[("main.js", source)]);
    directory.run(&["snapshot", "build", "main.js", "-o", "app.snap"]).prints("");
    let mut worker = aworker()
        .current_dir(&directory.0)
        .args(["run", "--snapshot", "app.snap", "--listen", "127.0.0.1:0"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("aworker starts");
    let mut line = String::new();
    BufReader::new(worker.stderr.take().expect("piped")).read_line(&mut line).expect("reads");
    let address = line.trim().rsplit("tcp://").next().expect("an address").to_owned();
    for expected in ["1 /a", "2 /a"] {
        let mut connection = std::net::TcpStream::connect(&address).expect("connects");
        connection.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").expect("writes");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("reads");
        assert!(answer.ends_with(expected), "{answer}");
    }
    worker.kill().expect("killed");
    worker.wait().expect("ended");
}
