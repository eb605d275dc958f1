//! One run of one file: a script that loads the harness, what the file asks for and the file itself, and the report
//! that comes back on standard output.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::outcome::Outcome;
use super::own_server::OwnServer;
use super::plan::Plan;
use crate::http;

/// The npm package whose `testharness` directory holds the harness.
const PACKAGE: &str = "wpt-runner";

/// What begins the line with the report.
const MARK: &str = "wpt-report ";

/// Most of a crashed runtime's last words that are shown, in bytes.
const MAX_LAST_WORDS: usize = 600;

/// The harness's files.
pub struct Harness {
    testharness: PathBuf,
    /// Stands in for `/resources` where the tests have none.
    resources: PathBuf,
}

/// What all runs share.
pub struct Room<'a> {
    /// The runtime.
    pub runtime: &'a Path,
    /// The tests' root.
    pub tests: &'a Path,
    /// The harness.
    pub harness: &'a Harness,
    /// The URL of the tests' root.
    pub base: &'a str,
    /// The server that is part of the tests, if that is the one that runs.
    pub own: Option<&'a OwnServer>,
    /// Where generated scripts go.
    pub scratch: &'a Path,
}

/// Finds the harness among the tests, or installs it into `scratch`.
pub fn find(tests: &Path, scratch: &Path) -> Result<Harness> {
    let resources = tests.join("resources");
    if resources.join("testharness.js").is_file() {
        return Ok(Harness { testharness: resources.join("testharness.js"), resources });
    }
    let output = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--prefix"])
        .arg(scratch)
        .arg(PACKAGE)
        .output()
        .context("run npm")?;
    ensure!(output.status.success(), "npm install {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr));
    let resources = scratch.join("node_modules").join(PACKAGE).join("testharness");
    let testharness = resources.join("testharness.js");
    ensure!(testharness.is_file(), "{PACKAGE} ships no {}", testharness.display());
    Ok(Harness { testharness, resources })
}

/// Runs one file.
pub fn run(room: &Room<'_>, index: usize, plan: &Plan) -> Outcome {
    try_run(room, index, plan).unwrap_or_else(|error| Outcome::broken(format!("{error:#}")))
}

fn try_run(room: &Room<'_>, index: usize, plan: &Plan) -> Result<Outcome> {
    let script = room.scratch.join(format!("test-{index}.cjs"));
    fs::write(&script, wrapper(room, plan)?).context("write the script")?;
    let location =
        format!("{}/{}{}", room.base, plan.path.replace(".any.js", ".any.worker.js"), plan.variant);
    let mut command = Command::new(room.runtime);
    if let Some(own) = room.own {
        command.env("SSL_CERT_FILE", &own.authority);
    }
    let mut child = command
        .args(["run", "--v8-flag=--expose-gc", "--location"])
        .arg(location)
        .arg(&script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", room.runtime.display()))?;
    let outcome = report(&mut child, plan.limit);
    // The report is there, or the time is over: nothing of the process is wanted any more.
    child.kill().ok();
    child.wait()?;
    fs::remove_file(&script)?;
    outcome
}

/// Waits for the report of a started runtime.
fn report(child: &mut Child, limit: Duration) -> Result<Outcome> {
    let stdout = child.stdout.take().context("the runtime's output")?;
    let mut stderr = child.stderr.take().context("the runtime's errors")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if let Some(report) = line.strip_prefix(MARK) {
                sender.send(report.to_owned()).ok();
                return;
            }
        }
    });
    let words = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    });
    match receiver.recv_timeout(limit) {
        Ok(report) => Outcome::parse(&report).context("the report cannot be read"),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(Outcome::broken(format!("no report after {limit:?}"))),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let text = words.join().unwrap_or_default();
            let start = text.char_indices().rev().nth(MAX_LAST_WORDS).map_or(0, |(at, _)| at);
            Ok(Outcome::broken(format!("it ended without a report: {}", text[start..].trim())))
        }
    }
}

/// The main script of a run: a classic script, which loads the others one by one, as a worker's wrapper does.
fn wrapper(room: &Room<'_>, plan: &Plan) -> Result<String> {
    let own = room.tests.join(&plan.path);
    let mut text = String::from(PRELUDE);
    let mut load =
        |path: &Path| text.push_str(&format!("importScripts({:?});\n", format!("file://{}", path.display())));
    load(&room.harness.testharness);
    for script in &plan.scripts {
        let path = match script.strip_prefix("/resources/") {
            Some(name) if !room.tests.join("resources").join(name).is_file() => vendored(room.harness, name),
            _ => match script.strip_prefix('/') {
                Some(path) => room.tests.join(path),
                None => own.with_file_name(script),
            },
        };
        match room.own.filter(|_| script.contains(".sub.")) {
            Some(server) => load(&substituted(room, server, &path)?),
            None => load(&path),
        }
    }
    text.push_str(COMPLETION);
    if plan.loads_harness {
        text.push_str(&format!(
            "const base = {:?}, root = {:?}, load = importScripts;\n{OWN_SCRIPTS}",
            format!("{}/", room.base),
            format!("file://{}/", room.tests.display())
        ));
    }
    if let Some(title) = &plan.meta_title {
        text.push_str(&format!("self.META_TITLE = {title:?};\n"));
    }
    let test = match room.own.filter(|_| plan.path.contains(".sub.")) {
        Some(server) => substituted(room, server, &own)?,
        None => own,
    };
    text.push_str(&format!("importScripts({:?});\n", format!("file://{}", test.display())));
    if !plan.loads_harness {
        text.push_str("done();\n");
    }
    Ok(text)
}

/// A file of the tests with what it leaves open to the server filled in: a copy.
fn substituted(room: &Room<'_>, server: &OwnServer, path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("open {}", path.display()))?;
    let below = path.strip_prefix(room.tests).context("a script below the tests")?.to_string_lossy();
    let copy = room.scratch.join(below.replace('/', "+"));
    if !copy.is_file() {
        let response = http::get(server.address()?, &format!("/{below}"))?;
        ensure!(response.status == 200, "GET /{below}: status {}", response.status);
        // Another run may be at the same file: it appears whole or not at all.
        let part = tempfile::NamedTempFile::new_in(room.scratch)?;
        fs::write(part.path(), &response.body)?;
        part.persist(&copy)?;
    }
    Ok(copy)
}

/// A file of the harness's package in the place of one below `/resources`.
fn vendored(harness: &Harness, name: &str) -> PathBuf {
    match name {
        "WebIDLParser.js" | "webidl2/lib/webidl2.js" => harness.resources.join("webidl2/lib/webidl2.js"),
        _ => harness.resources.join(name),
    }
}

/// What a page or a worker's wrapper says about its global. A listener keeps exceptions from ending the process: the
/// harness has seen them by then.
const PRELUDE: &str = "\
self.GLOBAL = { isWindow: () => false, isWorker: () => true, isShadowRealm: () => false };
addEventListener('error', (event) => { if (event instanceof ErrorEvent) event.preventDefault(); });
addEventListener('unhandledrejection', (event) => event.preventDefault());
";

/// A test that loads its scripts itself asks the server for them: here they come from the files behind it, except the
/// harness, which is there already.
const OWN_SCRIPTS: &str = "\
self.importScripts = (...urls) => {
  for (const url of urls) {
    const { href } = new URL(url, location);
    if (!href.endsWith('/resources/testharness.js')) load(href.replace(base, root));
  }
};
";

/// Prints the report. `stringify` and `log` are kept: tests replace what they find.
const COMPLETION: &str = "\
{
  const { stringify } = JSON;
  const { log } = console;
  add_completion_callback((tests, status) => {
    const rows = tests.map((test) => [test.name, test.status, test.message]);
    log('wpt-report ' + stringify({ status: status.status, message: status.message, tests: rows }));
  });
}
";
