//! Drives the built `aworker` program as a server: both kinds of handler, the
//! end by signals, failures inside and outside of requests.

mod temporary;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A serving `aworker`, killed when dropped.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where it listens, as `host:port` or a path.
    address: String,
    script: PathBuf,
}

impl Server {
    /// Runs a script and waits until it listens.
    fn start(name: &str, script: &str) -> Server {
        Server::listening_on(name, script, "tcp://127.0.0.1:0")
    }

    fn listening_on(name: &str, script: &str, listen: &str) -> Server {
        let file = temporary::path(&format!("{name}.js"));
        std::fs::write(&file, script).expect("write the script");
        let mut child = Command::new(env!("CARGO_BIN_EXE_aworker"))
            .args(["run", "--listen", listen])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("aworker starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("reads");
        let address =
            line.trim().strip_prefix("aworker: listening on ").unwrap_or_else(|| panic!("{line:?}"));
        let address = address.trim_start_matches("tcp://").trim_start_matches("unix://").to_owned();
        Server { child, stderr, address, script: file }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("connects")
    }

    /// One request on a connection of its own; the whole answer.
    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        request(&mut stream, path);
        read_all(&mut stream)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("signals");
    }

    /// Waits for the end; the status and the rest of standard error.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("ends");
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("UTF-8");
        (status, text)
    }

    /// The next line of standard output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut byte = [0];
        while stdout.read(&mut byte).expect("reads") == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.script);
    }
}

fn request(stream: &mut impl Write, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("writes");
}

fn read_all(stream: &mut impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reads an answer");
    text
}

#[track_caller]
fn assert_answer(answer: &str, status: u16, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.ends_with(body), "{answer}");
}

#[test]
fn a_service_worker_script_answers() {
    let server = Server::start(
        "classic",
        "addEventListener('fetch', (e) => e.respondWith(new Response('hello ' + new URL(e.request.url).pathname)));",
    );
    assert_answer(&server.get("/a"), 200, "hello /a");
    assert_answer(&server.get("/b"), 200, "hello /b");
}

#[test]
fn a_module_with_a_default_export_answers() {
    let server = Server::start(
        "module",
        "export default { async fetch(request, env) {
            await 0; return Response.json({ path: new URL(request.url).pathname, home: typeof env.PATH });
        } }",
    );
    assert_answer(&server.get("/x"), 200, "{\"path\":\"/x\",\"home\":\"string\"}");
}

#[test]
fn a_unix_socket_serves() {
    let path = temporary::path("serve.sock");
    let script = "export default { fetch() { return new Response('unix') } }";
    let server = Server::listening_on("unix", script, &format!("unix://{}", path.display()));
    let mut stream = UnixStream::connect(&server.address).expect("connects");
    request(&mut stream, "/");
    assert_answer(&read_all(&mut stream), 200, "unix");
    std::fs::remove_file(path).expect("the socket is there");
}

#[test]
fn an_error_inside_a_request_is_answered_with_500_and_the_worker_lives() {
    let server = Server::start(
        "errors",
        "addEventListener('fetch', (e) => {
            const path = new URL(e.request.url).pathname;
            if (path === '/throw') throw new Error('thrown in a request');
            if (path === '/reject') return e.respondWith(Promise.reject(new Error('rejected in a request')));
            e.respondWith(new Response('fine'));
         });",
    );
    assert_answer(&server.get("/throw"), 500, "");
    assert_answer(&server.get("/reject"), 500, "");
    assert_answer(&server.get("/"), 200, "fine");
    server.signal(Signal::SIGTERM);
    let (status, stderr) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains("thrown in a request") && stderr.contains("rejected in a request"), "{stderr}");
}

#[test]
fn an_error_outside_of_requests_ends_the_worker() {
    let server = Server::start(
        "outside",
        "addEventListener('fetch', (e) => e.respondWith(new Response('x')));
         setTimeout(() => { throw new Error('in a timer') }, 1);",
    );
    let (status, stderr) = server.end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("Uncaught Error: in a timer"), "{stderr}");
}

#[test]
fn sigterm_ends_an_idle_worker_with_status_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(
            &format!("idle-{signal}"),
            "setInterval(() => {}, 1000); export default { fetch() { return new Response() } }",
        );
        // A kept connection that waits for its next request is no reason to stay.
        let _idle = server.connect();
        assert_answer(&server.get("/"), 200, "");
        server.signal(signal);
        assert_eq!(server.end().0.code(), Some(0));
    }
}

#[test]
fn sigterm_lets_a_request_in_flight_finish_and_accepts_no_other() {
    let mut server = Server::start(
        "drain",
        "export default { fetch() {
            console.log('in flight');
            return new Promise((resolve) => setTimeout(() => resolve(new Response('slow')), 500));
         } }",
    );
    let mut slow = server.connect();
    request(&mut slow, "/");
    assert_eq!(server.line(), "in flight");
    server.signal(Signal::SIGTERM);
    while TcpStream::connect(&server.address).is_ok() {}
    assert!(server.child.try_wait().expect("a child").is_none(), "refuses while it still works");
    assert_answer(&read_all(&mut slow), 200, "slow");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn a_promise_given_to_wait_until_is_awaited_at_the_end() {
    let mut server = Server::start(
        "wait-until",
        "addEventListener('fetch', (e) => {
            e.respondWith(new Response('answered'));
            e.waitUntil(new Promise((r) => setTimeout(r, 100)).then(() => console.log('finished')));
         });",
    );
    assert_answer(&server.get("/"), 200, "answered");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.line(), "finished");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_worker_that_never_yields() {
    let mut server =
        Server::start("endless", "export default { fetch() { console.log('busy'); for (;;); } }");
    let mut stream = server.connect();
    request(&mut stream, "/");
    assert_eq!(server.line(), "busy");
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGINT);
    let (status, _) = server.end();
    // Two signals that are pending together are handled in the kernel's order.
    assert!(matches!(status.code(), Some(143 | 130)) && status.signal().is_none(), "{status:?}");
}

/// Takes as long as the drain's limit: both kinds of hanging side by side.
#[test]
fn a_drain_that_cannot_finish_ends_by_its_deadline() {
    const NEVER: &str = "export default { fetch(request) {
        console.log('in');
        if (request.url.endsWith('/spin')) for (;;);
        return new Promise(() => {});
    } }";
    let mut servers: Vec<(Server, TcpStream)> = ["/hang", "/spin"]
        .into_iter()
        .map(|path| {
            let server = Server::start(&format!("never-{}", &path[1..]), NEVER);
            let mut stream = server.connect();
            request(&mut stream, path);
            (server, stream)
        })
        .collect();
    for (server, _) in &mut servers {
        assert_eq!(server.line(), "in");
        server.signal(Signal::SIGTERM);
    }
    for (server, _stream) in servers {
        assert_eq!(server.end().0.code(), Some(143));
    }
}

#[test]
fn what_a_request_began_may_fail_later_without_ending_the_worker() {
    let server = Server::start(
        "late",
        "const sleep = () => new Promise((resolve) => setTimeout(resolve, 1));
         const fail = async (text) => { await sleep(); throw new Error(text); };
         export default { async fetch(request, env, ctx) {
           const path = new URL(request.url).pathname;
           // Nobody awaits these; each later answer comes after them.
           if (path === '/promise') { fail('lost promise'); }
           if (path === '/nested') { (async () => { await sleep(); fail('nested promise'); })(); }
           if (path === '/timer') setTimeout(() => { throw new Error('thrown by a timer'); }, 1);
           if (path === '/interval') { let n = 0; const i = setInterval(() => { if (++n === 2) clearInterval(i); throw new Error(`interval ${n}`); }, 1); }
           if (path === '/microtask') setTimeout(() => queueMicrotask(() => { throw new Error('thrown by a microtask'); }), 1);
           if (path === '/listener') setTimeout(() => {
             const target = new EventTarget();
             target.addEventListener('x', () => { throw new Error('thrown by a listener'); });
             target.dispatchEvent(new Event('x'));
           }, 1);
           if (path === '/writer') {
             const { readable, writable } = new TransformStream({ async transform() { await fail('failed transform'); } });
             writable.getWriter().write(1);
             readable.getReader().read();
           }
           if (path === '/wait') { ctx.waitUntil(fail('failed waitUntil')); }
           if (path === '/handler') { await request.text(); await sleep(); throw new Error('late handler'); }
           for (let i = 0; i < 10; i++) await sleep();
           return new Response(path);
         } };",
    );
    for path in
        ["/promise", "/nested", "/timer", "/interval", "/microtask", "/listener", "/writer", "/wait", "/last"]
    {
        assert_answer(&server.get(path), 200, path);
    }
    assert_answer(&server.get("/handler"), 500, "");
    assert_answer(&server.get("/last"), 200, "/last");
    server.signal(Signal::SIGTERM);
    let (status, stderr) = server.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    for text in [
        "lost promise",
        "nested promise",
        "thrown by a timer",
        "interval 1",
        "interval 2",
        "thrown by a microtask",
        "thrown by a listener",
        "failed transform",
        "failed waitUntil",
        "late handler",
    ] {
        assert!(stderr.contains(text), "{text} is not in {stderr}");
    }
}

#[test]
fn what_the_script_began_itself_ends_the_worker_while_requests_are_served() {
    for failing in ["throw new Error('own work')", "Promise.reject(new Error('own work'))"] {
        let script = format!(
            "let go; const asked = new Promise((resolve) => {{ go = resolve; }});
             asked.then(() => setTimeout(() => {{ {failing}; }}, 1));
             export default {{ fetch() {{ go(); return new Promise(() => {{}}); }} }};"
        );
        let server = Server::start("own", &script);
        let mut client = server.connect();
        request(&mut client, "/");
        let (status, stderr) = server.end();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("own work"), "{stderr}");
    }
}
