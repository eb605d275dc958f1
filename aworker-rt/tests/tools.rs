//! The tools around a program: `--inspect` with a scripted debugger, profiles, heap snapshots, `--watch`.

mod script_support;
mod temporary;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use script_support::{Directory, aworker};
use serde_json::{Value, json};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program with its output; killed when dropped.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(directory: &Directory, arguments: &[&str]) -> Running {
        let mut command: Command = aworker();
        command.current_dir(&directory.0).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("aworker starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, stdout, stderr }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("reads");
        line.trim_end().to_owned()
    }

    /// The rest of the first line of standard error that has this part.
    fn error_line(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.stderr.read_line(&mut line).expect("reads"), 0, "no line has {part:?}");
            if let Some((_, rest)) = line.split_once(part) {
                return rest.trim_end().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("is there");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a line").to_owned(), body.to_owned())
}

/// A client of the Chrome DevTools protocol.
struct Debugger {
    stream: TcpStream,
    last_id: u64,
    /// What came before it was waited for.
    events: Vec<Value>,
}

impl Debugger {
    fn connect(url: &str) -> Debugger {
        let (address, path) = url.trim_start_matches("ws://").split_once('/').expect("a path");
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .expect("writes");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("UTF-8");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Debugger { stream, last_id: 0, events: Vec::new() }
    }

    fn send(&mut self, method: &str, parameters: Value) -> u64 {
        self.last_id += 1;
        let text = json!({ "id": self.last_id, "method": method, "params": parameters }).to_string();
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).expect("writes");
        self.last_id
    }

    fn receive(&mut self) -> Value {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x81, "one text frame a message");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).expect("a length");
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).expect("a length");
                u64::from_be_bytes(length)
            }
            length => u64::from(length),
        };
        let mut text = vec![0; usize::try_from(length).expect("fits")];
        self.stream.read_exact(&mut text).expect("a message");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Sends, and waits for the answer.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.send(method, parameters);
        loop {
            let message = self.receive();
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// The next event of that name.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let message = match self.events.iter().position(|event| event["method"] == name) {
                Some(place) => self.events.remove(place),
                None => self.receive(),
            };
            if message["method"] == name {
                return message["params"].clone();
            }
            self.events.push(message);
        }
    }
}

#[test]
fn a_debugger_stops_at_the_start_and_at_breakpoints_and_evaluates() {
    let source = "const greeting = 'hällo';\nfunction add(a, b) {\n  const sum = a + b;\n  return sum;\n}\nconsole.log(add(2, 3), greeting);\n";
    let directory = Directory::new("debug", &[("main.mjs", source)]);
    let mut running = Running::start(&directory, &["run", "--inspect-brk=0", "main.mjs"]);
    let url = running.error_line("Debugger listening on ");
    let address = url.trim_start_matches("ws://").split('/').next().expect("an address").to_owned();

    let (status, version) = get(&address, "/json/version", &address);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(version.contains("\"Protocol-Version\":\"1.3\""), "{version}");
    let (_, list) = get(&address, "/json/list", "localhost:1");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list[0]["webSocketDebuggerUrl"], url.as_str());
    assert_eq!(get(&address, "/json/list", "rebound.example").0, "HTTP/1.1 403 Forbidden");
    assert_eq!(get(&address, "/other", &address).0, "HTTP/1.1 404 Not Found");

    let mut debugger = Debugger::connect(&url);
    debugger.call("Runtime.enable", json!({}));
    debugger.call("Debugger.enable", json!({}));
    let file = format!("file://{}", directory.shown("main.mjs"));
    let set = json!({ "url": file, "lineNumber": 3 });
    debugger.call("Debugger.setBreakpointByUrl", set);
    debugger.call("Runtime.runIfWaitingForDebugger", json!({}));

    let first = debugger.event("Debugger.paused");
    assert_eq!(first["callFrames"][0]["location"]["lineNumber"], 0, "{first}");
    debugger.call("Debugger.resume", json!({}));
    let second = debugger.event("Debugger.paused");
    assert_eq!(second["callFrames"][0]["functionName"], "add");
    assert_eq!(second["callFrames"][0]["location"]["lineNumber"], 3);
    assert_eq!(second["hitBreakpoints"].as_array().map(Vec::len), Some(1), "{second}");
    let frame = second["callFrames"][0]["callFrameId"].clone();
    let evaluate = |expression: &str| json!({ "callFrameId": frame, "expression": expression });
    let value = debugger.call("Debugger.evaluateOnCallFrame", evaluate("sum * 100 + a + b"));
    assert_eq!(value["result"]["value"], 505);
    debugger.call("Debugger.evaluateOnCallFrame", evaluate("globalThis.seen = 'ä'"));
    debugger.call("Debugger.resume", json!({}));
    let said = debugger.event("Runtime.consoleAPICalled");
    assert_eq!(said["type"], "log");
    assert_eq!(said["args"][1]["value"], "hällo");
    assert!(running.line().ends_with("hällo"));
    assert!(running.child.wait().expect("ends").success());
}

#[test]
fn a_serving_worker_is_debugged_between_requests_and_outlives_its_debugger() {
    let source = "let count = 0;\nexport default { fetch() {\n  count += 1;\n  return new Response(`count ${count}`);\n} };";
    let directory = Directory::new("debug-serve", &[("main.mjs", source)]);
    let mut running =
        Running::start(&directory, &["run", "--inspect=0", "--listen", "127.0.0.1:0", "main.mjs"]);
    let url = running.error_line("Debugger listening on ");
    let address = running.error_line("listening on tcp://");
    assert!(get(&address, "/", "h").1.contains("count 1"));

    let mut debugger = Debugger::connect(&url);
    let (place, path) = url.trim_start_matches("ws://").split_once('/').expect("a path");
    let mut other = TcpStream::connect(place).expect("connects");
    other.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(other, "GET /{path} HTTP/1.1\r\nHost: {place}\r\nSec-WebSocket-Key: a\r\n\r\n").expect("writes");
    let mut refusal = String::new();
    other.read_to_string(&mut refusal).expect("reads");
    assert!(
        refusal.starts_with("HTTP/1.1 409 ") && refusal.contains("another debugger is connected"),
        "{refusal}"
    );
    debugger.call("Debugger.enable", json!({}));
    let result = debugger.call("Runtime.evaluate", json!({ "expression": "1 + 1" }));
    assert_eq!(result["result"]["value"], 2);
    let file = format!("file://{}", directory.shown("main.mjs"));
    debugger.call("Debugger.setBreakpointByUrl", json!({ "url": file, "lineNumber": 3 }));
    let mut request = TcpStream::connect(&address).expect("connects");
    request.set_read_timeout(Some(PATIENCE)).expect("set");
    request.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("writes");
    let paused = debugger.event("Debugger.paused");
    assert_eq!(paused["callFrames"][0]["functionName"], "fetch");
    // The debugger goes while JavaScript is paused: the request is answered.
    drop(debugger);
    let mut answer = String::new();
    request.read_to_string(&mut answer).expect("reads");
    assert!(answer.contains("count 2"), "{answer}");
    let mut debugger = Debugger::connect(&url);
    let result = debugger.call("Runtime.evaluate", json!({ "expression": "6 * 7" }));
    assert_eq!(result["result"]["value"], 42);
}

#[test]
fn a_script_that_never_yields_is_paused_by_a_debugger_that_comes_late() {
    let source = "let count = 0;\nglobalThis.goesOn = true;\nconsole.log('begun');\nwhile (globalThis.goesOn) {\n  count += 1;\n}\nconsole.log('over');\nsetTimeout(() => console.log('later'), 1);\n";
    let directory = Directory::new("debug-busy", &[("main.mjs", source)]);
    let mut running = Running::start(&directory, &["run", "--inspect=0", "main.mjs"]);
    let url = running.error_line("Debugger listening on ");
    assert_eq!(running.line(), "begun");
    let mut debugger = Debugger::connect(&url);
    debugger.call("Debugger.enable", json!({}));
    debugger.call("Debugger.pause", json!({}));
    let paused = debugger.event("Debugger.paused");
    let line = paused["callFrames"][0]["location"]["lineNumber"].as_u64().expect("a line");
    assert!((3..=5).contains(&line), "{paused}");
    let frame = paused["callFrames"][0]["callFrameId"].clone();
    let evaluate = json!({ "callFrameId": frame, "expression": "count > 0" });
    assert_eq!(debugger.call("Debugger.evaluateOnCallFrame", evaluate)["result"]["value"], true);
    debugger.call("Debugger.resume", json!({}));
    // It runs again; a second pause reaches it, and lets it out of its loop.
    debugger.call("Debugger.pause", json!({}));
    let paused = debugger.event("Debugger.paused");
    let frame = paused["callFrames"][0]["callFrameId"].clone();
    debugger.call(
        "Debugger.evaluateOnCallFrame",
        json!({ "callFrameId": frame, "expression": "globalThis.goesOn = false" }),
    );
    debugger.call("Debugger.resume", json!({}));
    assert_eq!(running.line(), "over");
    assert_eq!(running.line(), "later");
    drop(debugger);
    assert!(running.child.wait().expect("ends").success());
}

#[test]
fn a_cpu_profile_names_the_programs_functions() {
    let source = "function busyWork() { let s = 0; for (let i = 0; i < 3e7; i++) s += i % 7; return s; }\nconsole.log(busyWork() > 0);";
    let directory = Directory::new("cpu", &[("main.js", source)]);
    directory.run(&["run", "--cpu-prof=p.cpuprofile", "main.js"]).prints("true\n");
    let text = std::fs::read_to_string(directory.0.join("p.cpuprofile")).expect("a profile");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    let nodes = profile["nodes"].as_array().expect("nodes");
    assert!(nodes.iter().any(|node| node["callFrame"]["functionName"] == "busyWork"), "{text}");
    assert!(!profile["samples"].as_array().expect("samples").is_empty());
}

#[test]
fn sigusr2_writes_a_heap_snapshot_and_the_program_goes_on() {
    let source = "class Marked {}\nglobalThis.kept = new Marked();\nconsole.log('ready');\nsetInterval(() => {}, 1000);";
    let directory = Directory::new("heap", &[("main.js", source)]);
    let mut running = Running::start(&directory, &["run", "--heap-snapshot-on-signal", "main.js"]);
    assert_eq!(running.line(), "ready");
    for number in 1..=2 {
        running.signal(Signal::SIGUSR2);
        let name = running.error_line("wrote ");
        assert_eq!(name, format!("aworker-{}-{number}.heapsnapshot", running.child.id()));
        let text = std::fs::read_to_string(directory.0.join(name)).expect("a snapshot");
        let snapshot: Value = serde_json::from_str(&text).expect("JSON");
        let strings = snapshot["strings"].as_array().expect("strings");
        assert!(strings.iter().any(|string| string == "Marked"));
    }
}

#[test]
fn watch_runs_a_typed_program_again_after_it_was_refused() {
    let directory = Directory::new(
        "watch-typed",
        &[
            (
                "main.ts",
                "import { text } from './part.mts'; console.log(text as string); setInterval(() => {}, 1000);",
            ),
            ("part.mts", "export const text: string = 'first';"),
        ],
    );
    let mut running = Running::start(&directory, &["run", "--watch", "main.ts"]);
    assert_eq!(running.line(), "first");
    let part = directory.0.join("part.mts");
    std::fs::write(&part, "export enum Text { A }").expect("written");
    running.error_line("part.mts:1:8: an enum");
    running.error_line("the program has ended");
    std::fs::write(&part, "export const text = 'second' satisfies string;").expect("written");
    assert_eq!(running.line(), "second");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.child.wait().expect("ends").code(), Some(0));
}

#[test]
fn watch_runs_again_when_a_loaded_file_changes_however_it_is_replaced() {
    let directory = Directory::new(
        "watch",
        &[
            (
                "main.mjs",
                "import { text } from './lib/part.mjs'; console.log(text); setInterval(() => {}, 1000);",
            ),
            ("lib/part.mjs", "export const text = 'first';"),
            ("lib/other.mjs", ""),
        ],
    );
    let mut running = Running::start(&directory, &["run", "--watch", "main.mjs"]);
    assert_eq!(running.line(), "first");
    let part = directory.0.join("lib/part.mjs");
    std::fs::write(&part, "export const text = 'second';").expect("written");
    assert_eq!(running.line(), "second");
    // As editors do: another file of the same name. A file that was not loaded changes nothing.
    std::fs::write(directory.0.join("lib/other.mjs"), "1").expect("written");
    std::fs::write(directory.0.join("lib/new"), "export const text = 'third';").expect("written");
    std::fs::rename(directory.0.join("lib/new"), &part).expect("renamed");
    assert_eq!(running.line(), "third");
    // A program that fails is run again, too, also for a file that was missing.
    std::fs::write(&part, "import './missing.mjs'; export const text = 'fourth';").expect("written");
    running.error_line("missing.mjs");
    running.error_line("the program has ended");
    std::fs::write(directory.0.join("lib/missing.mjs"), "").expect("written");
    assert_eq!(running.line(), "fourth");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.child.wait().expect("ends").code(), Some(0));
    let mut rest = String::new();
    running.stdout.read_to_string(&mut rest).expect("the program has ended, too");
    assert_eq!(rest, "");
}

/// The supervisor is stopped while the program loads a file: the program reads it only once it is watched.
#[test]
fn a_file_is_watched_before_it_is_read() {
    let directory = Directory::new(
        "watch-before",
        &[
            (
                "main.mjs",
                "const there = () => Aworker.files.stat('go').then(() => true, () => false);
                 console.log('ready');
                 while (!(await there())) await new Promise((resolve) => setTimeout(resolve, 5));
                 console.log('asking');
                 console.log((await import('./lib/late.mjs')).text);
                 setInterval(() => {}, 1000);",
            ),
            ("lib/late.mjs", "export const text = 'first';"),
        ],
    );
    let late = directory.0.join("lib/late.mjs");
    let mut running = Running::start(&directory, &["run", "--watch", "main.mjs"]);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::SIGSTOP);
    let supervisor = Pid::from_raw(running.child.id().cast_signed());
    let status = waitpid(supervisor, Some(WaitPidFlag::WUNTRACED)).expect("it stops");
    assert_eq!(status, WaitStatus::Stopped(supervisor, Signal::SIGSTOP));
    std::fs::write(directory.0.join("go"), "").expect("written");
    assert_eq!(running.line(), "asking");
    std::fs::write(&late, "export const text = 'second';").expect("written");
    running.signal(Signal::SIGCONT);
    assert_eq!(running.line(), "second");
    std::fs::write(&late, "export const text = 'third';").expect("written");
    assert_eq!([running.line(), running.line(), running.line()], ["ready", "asking", "third"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.child.wait().expect("ends").code(), Some(0));
}
