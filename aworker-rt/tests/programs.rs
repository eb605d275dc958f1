//! Programs of frameworks that people use, bundled by esbuild as their authors would, served by
//! `aworker run` and asked by curl and wrk: Hono, itty-router, React's streaming render.
//!
//! The packages come from npm's registry, in the versions of `tests/programs/package.json`, into a
//! directory below cargo's target. Without npm or the registry the tests are skipped, with a reason.

mod http_support;
mod temporary;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use http_support::Server;

/// Words of npm that mean that the registry cannot be reached now; anything else is a fault of the test.
const UNREACHABLE: [&str; 8] = [
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ERR_SOCKET_TIMEOUT",
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

fn run(command: &mut Command) -> Option<Output> {
    command.output().ok()
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The directory with the packages, or why there is none.
fn install() -> Result<PathBuf, String> {
    if !run(Command::new("npm").arg("--version")).is_some_and(|output| output.status.success()) {
        return Err("no npm".to_owned());
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    let wanted = std::fs::read(sources().join("package.json")).expect("the list of packages");
    let done = directory.join("installed.json");
    if std::fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("make the directory");
    std::fs::write(directory.join("package.json"), &wanted).expect("write the list of packages");
    let mut npm = Command::new("npm");
    npm.current_dir(&directory).args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
    npm.args(["--no-package-lock", "--fetch-retries=0", "--fetch-timeout=20000"]);
    let output = run(&mut npm).expect("npm starts");
    let error = error_of(&output);
    if !output.status.success() {
        let reason = error.lines().find(|line| UNREACHABLE.iter().any(|word| line.contains(word)));
        let reason = reason.unwrap_or_else(|| panic!("npm install:\n{error}"));
        return Err(format!("the registry cannot be reached: {reason}"));
    }
    std::fs::write(done, wanted).expect("write what is installed");
    Ok(directory)
}

/// [`install`], once for all tests; says so when they are skipped.
fn packages() -> Option<&'static PathBuf> {
    static PACKAGES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PACKAGES.get_or_init(install) {
        Ok(directory) => Some(directory),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// One file of `tests/programs` and all that it imports, as one script.
fn bundle(packages: &Path, source: &str, format: &str) -> String {
    // Beside the packages, so that imports find them.
    let file = packages.join(source);
    std::fs::copy(sources().join(source), &file).expect("copy the source");
    let mut esbuild = Command::new(packages.join("node_modules/.bin/esbuild"));
    esbuild.current_dir(packages).args([
        "--bundle",
        "--platform=neutral",
        "--jsx=automatic",
        "--log-level=warning",
    ]);
    esbuild.args(["--main-fields=module,main", "--conditions=worker,browser"]);
    esbuild.args(["--define:process.env.NODE_ENV=\"production\"", &format!("--format={format}")]).arg(&file);
    let output = run(&mut esbuild).expect("esbuild starts");
    assert!(output.status.success() && output.stderr.is_empty(), "esbuild {source}: {}", error_of(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What curl received.
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Asks with curl, which decodes and checks the framing.
#[track_caller]
fn curl(server: &Server, target: &str, options: &[&str]) -> Answer {
    let url = format!("http://{}{target}", server.address);
    let output = run(Command::new("curl").args(["-sS", "-i", "--max-time", "30"]).args(options).arg(&url))
        .expect("curl starts");
    assert!(output.status.success(), "curl {url}: {}", error_of(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|word| word.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.expect("a status"),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// A second of wrk; every answer must be a good one.
#[track_caller]
fn load(server: &Server, target: &str) {
    let url = format!("http://{}{target}", server.address);
    let Some(output) = run(Command::new("wrk").args(["-t1", "-c16", "-d1s", &url])) else {
        return println!("skipped: no wrk");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "wrk {url}: {}", error_of(&output));
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).map(str::trim);
    assert!(rate.and_then(|rate| rate.parse::<f64>().ok()).is_some_and(|rate| rate > 50.0), "{text}");
}

#[test]
fn a_hono_application_runs() {
    let Some(packages) = packages() else { return };
    let server = Server::start("hono", &bundle(packages, "hono.js", "esm"));
    let get = |target: &str| curl(&server, target, &[]);

    let hello = get("/");
    assert_eq!((hello.status, hello.body.as_str()), (200, "hello from hono"));
    assert_eq!(hello.header("x-powered-by"), "Hono");
    assert_eq!(hello.header("x-frame-options"), "SAMEORIGIN");
    assert!(hello.header("server-timing").starts_with("total;dur="));
    assert_eq!(hello.header("x-request-id").len(), 36);
    assert_eq!(
        get("/users/12/posts/a-b?tag=x&tag=y&q=%20z").body,
        r#"{"slug":"a-b","id":"12","tags":["x","y"],"q":" z"}"#
    );
    assert_eq!(get("/users/no/posts").status, 404);
    assert_eq!(get("/page/%3Cb%3E").body, "<p>&lt;b&gt;</p>");
    assert_eq!(get("/sub/deep/x/y").body, "/sub/deep/x/y");
    let moved = get("/moved");
    assert_eq!((moved.status, moved.header("location")), (301, "/"));
    let missing = get("/none");
    assert_eq!((missing.status, missing.body.as_str()), (404, r#"{"missing":"/none"}"#));
    let broken = get("/broken");
    assert_eq!((broken.status, broken.body.as_str()), (500, "caught: on purpose"));
    let teapot = get("/teapot");
    assert_eq!((teapot.status, teapot.body.as_str()), (418, "short and stout"));
    assert_eq!(curl(&server, "/", &["-I"]).body, "");

    let shared = curl(&server, "/api/data", &["-H", "origin: https://other.example"]);
    assert_eq!(shared.header("access-control-allow-origin"), "https://other.example");
    assert_eq!(shared.body, r#"{"id":36}"#);
    let asked = ["-X", "OPTIONS", "-H", "origin: https://other.example"];
    assert_eq!(curl(&server, "/api/data", &asked).header("access-control-allow-methods"), "GET,PUT");
    load(&server, "/users/12/posts/a-b?tag=x");
    assert_eq!(server.stop(), "");
}

#[test]
fn honos_middleware_uses_cryptography_compression_and_streams() {
    let Some(packages) = packages() else { return };
    let server = Server::start("hono-middleware", &bundle(packages, "hono.js", "esm"));
    let get = |target: &str| curl(&server, target, &[]);
    let with = |target: &str, header: &str| curl(&server, target, &["-H", header]);

    // An entity tag is a digest; Basic compares digests.
    let tagged = get("/tagged/text");
    let tag = tagged.header("etag").to_owned();
    assert_eq!(tag.len(), 42, "{tag:?}");
    assert_eq!(with("/tagged/text", &format!("if-none-match: {tag}")).status, 304);
    assert_eq!(get("/private/room").status, 401);
    assert_eq!(curl(&server, "/private/room", &["-u", "user:wrong"]).status, 401);
    assert_eq!(curl(&server, "/private/room", &["-u", "user:pass"]).body, "inside");
    // JSON web tokens and signed cookies are HMACs.
    let token = get("/issue").body;
    let who = with("/token/who", &format!("authorization: Bearer {token}"));
    assert_eq!(who.body, r#"{"sub":"me","exp":4102444800}"#);
    assert_eq!(with("/token/who", &format!("authorization: Bearer {token}x")).status, 401);
    assert_eq!(get("/token/who").status, 401);
    let cookie = get("/cookie/set").header("set-cookie").split(';').next().expect("a cookie").to_owned();
    assert_eq!(with("/cookie/get", &format!("cookie: {cookie}")).body, r#"{"value":"value"}"#);
    let forged = cookie.replace("=value.", "=other.");
    assert_eq!(with("/cookie/get", &format!("cookie: {forged}")).body, r#"{"value":false}"#);

    let packed = curl(&server, "/packed/text", &["--compressed"]);
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.body, "squeeze me ".repeat(500));
    assert_eq!(get("/lines").body, "line 0\nline 1\nline 2\nline 3\nline 4\n");
    let events = get("/events");
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.body.matches("event: tick\ndata: message ").count(), 3);

    let json = ["-H", "content-type: application/json", "-d"];
    let created = curl(&server, "/json", &[&json[..], &[r#"{"name":"you"}"#]].concat());
    assert_eq!((created.status, created.body.as_str()), (201, r#"{"hello":"you"}"#));
    assert_eq!(curl(&server, "/json", &[&json[..], &["{}"]].concat()).status, 422);
    assert_eq!(curl(&server, "/json", &[&json[..], &["{"]].concat()).status, 400);
    let form = ["-F", "text=some text", "-F", "file=content of it;filename=a.txt;type=text/plain"];
    assert_eq!(
        curl(&server, "/form", &form).body,
        r#"{"text":"some text","name":"a.txt","type":"text/plain","content":"content of it"}"#
    );
    assert_eq!(curl(&server, "/limited", &["-X", "PUT", "-d", "short"]).body, "short");
    assert_eq!(curl(&server, "/limited", &["-X", "PUT", "-d", "much too long"]).status, 413);
    load(&server, "/tagged/text");
    assert_eq!(server.stop(), "");
}

#[test]
fn a_hono_application_in_service_worker_form_runs() {
    let Some(packages) = packages() else { return };
    let server = Server::start("hono-fire", &bundle(packages, "hono_service_worker.js", "iife"));
    assert_eq!(curl(&server, "/", &[]).body, "hello from a service worker");
    assert_eq!(curl(&server, "/me", &[]).body, r#"{"name":"me"}"#);
    load(&server, "/");
    assert_eq!(server.stop(), "");
}

#[test]
fn an_itty_router_api_runs() {
    let Some(packages) = packages() else { return };
    let server = Server::start("itty", &bundle(packages, "itty.js", "esm"));
    let get = |target: &str| {
        let answer = curl(&server, target, &[]);
        (answer.status, answer.body)
    };
    assert_eq!(get("/api/items"), (200, r#"[{"id":"1","text":"first"}]"#.to_owned()));
    assert_eq!(get("/api/items/7"), (404, r#"{"status":404,"error":"no item 7"}"#.to_owned()));
    assert_eq!(get("/api/search?a=1&b=2&b=3"), (200, r#"{"query":{"a":"1","b":["2","3"]}}"#.to_owned()));
    assert_eq!(get("/api/files/x/y/z"), (200, r#"{"path":"x/y/z"}"#.to_owned()));
    assert_eq!(get("/api/throws"), (500, r#"{"status":500,"error":"on purpose"}"#.to_owned()));
    assert_eq!(get("/other"), (404, r#"{"status":404,"error":"no such thing here"}"#.to_owned()));

    let post =
        |body: &str| curl(&server, "/api/items", &["-H", "content-type: application/json", "-d", body]);
    let created = post(r#"{"text":"second"}"#);
    assert_eq!((created.status, created.header("location")), (201, "/api/items/2"));
    assert_eq!(get("/api/items/2").1, r#"{"id":"2","text":"second"}"#);
    assert_eq!(post("{}").status, 400);
    assert_eq!(curl(&server, "/api/items/1", &["-X", "DELETE"]).status, 204);
    assert_eq!(get("/api/items/1").0, 404);
    let preflight = curl(&server, "/api/items", &["-X", "OPTIONS", "-H", "origin: https://other.example"]);
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, "*"));
    load(&server, "/api/items/2");
    assert_eq!(server.stop(), "");
}

#[test]
fn react_renders_a_page_as_a_stream() {
    let Some(packages) = packages() else { return };
    let server = Server::start("react", &bundle(packages, "react.jsx", "esm"));

    // The shell comes while the page still waits for what another request will give it.
    let mut page = server.connect();
    page.send("GET /?name=ann&count=2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let shell = page.until(b"<em>loading</em>");
    let shell = String::from_utf8(shell).expect("UTF-8");
    assert!(shell.contains("transfer-encoding: chunked"), "{shell}");
    assert!(shell.contains("<h1>Hello, <!-- -->ann<!-- --> &amp; others</h1>"), "{shell}");
    assert!(shell.contains(r#"<li class="even">item 0</li><li class="odd">item 1</li></ul>"#), "{shell}");
    assert!(!shell.contains("has come"), "{shell}");
    assert_eq!(curl(&server, "/release?name=ann", &[]).body, "released");
    let rest = page.until(b"0\r\n\r\n");
    let rest = String::from_utf8(rest).expect("UTF-8");
    assert!(rest.contains("<p>ann has come</p>") && rest.contains("</html>"), "{rest}");

    // The same page when nothing is left to wait for, and whole.
    for options in [&[][..], &["-H", "x-whole: yes"]] {
        let whole = curl(&server, "/?name=ann&count=1", options);
        assert_eq!((whole.status, whole.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(
            whole.body.starts_with("<!DOCTYPE html><html") && whole.body.ends_with("</html>"),
            "{}",
            whole.body
        );
        assert!(whole.body.contains("<!--$--><p>ann has come</p><!--/$-->"), "{}", whole.body);
        assert!(whole.body.contains(r#"<script src="/client.js""#), "{}", whole.body);
    }
    let broken = curl(&server, "/broken", &[]);
    assert_eq!((broken.status, broken.body.as_str()), (500, "caught: a component threw"));
    // A client that leaves before the page is whole costs nothing but its page.
    let mut leaver = server.connect();
    leaver.send("GET /?name=bob HTTP/1.1\r\nHost: a\r\n\r\n");
    leaver.until(b"<em>loading</em>");
    drop(leaver);
    load(&server, "/?name=ann&count=20");
    let long = curl(&server, "/?name=ann&count=20000", &[]);
    assert!(long.body.contains("item 19999") && long.body.ends_with("</html>"));
    assert_eq!(server.stop(), "");
}
