//! WebCrypto outside of one run: beside another implementation of it, Node's (what one makes, the
//! other reads, verifies, opens and computes alike; skipped, with a reason, without Node), and
//! across a snapshot.

mod temporary;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Node's major version from which on it knows every algorithm of the exchange.
const NODE_MAJOR: u32 = 20;

/// Whether this machine has a Node that is new enough; says so if not.
fn has_node() -> bool {
    let version = Command::new("node").arg("--version").output();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let fits = major.is_some_and(|major| major >= NODE_MAJOR);
    if !fits {
        println!("skipped: no node of version {NODE_MAJOR} or later (found {version:?})");
    }
    fits
}

/// Runs a module that imports the exchange; its standard output.
#[track_caller]
fn run(mut runtime: Command, directory: &Path, name: &str, body: &str) -> String {
    let exchange = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crypto/exchange.mjs");
    let exchange = std::fs::read_to_string(exchange).expect("the exchange");
    // One module without imports: the text is the same for both runtimes.
    let script: PathBuf = directory.join(name);
    std::fs::write(&script, format!("{exchange}\n{body}\n")).expect("write the script");
    let output = runtime.arg(&script).output().expect("the runtime starts");
    assert!(
        output.status.success(),
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

fn aworker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aworker"));
    command.arg("run");
    command
}

#[test]
fn what_node_makes_aworker_reads_and_the_other_way() {
    if !has_node() {
        return;
    }
    let directory = temporary::path("crypto");
    std::fs::create_dir_all(&directory).expect("make the directory");
    let make = "console.log(await make());";
    let check = |made: &str| format!("console.log(await check({}));", text(made));
    let node = || Command::new("node");
    for (title, maker, checker) in [("node", node(), aworker()), ("aworker", aworker(), node())] {
        let made = run(maker, &directory, &format!("{title}-makes.mjs"), make);
        let agreed = run(checker, &directory, &format!("check-{title}.mjs"), &check(&made));
        assert!(agreed.parse::<u32>().is_ok_and(|agreed| agreed > 200), "only {agreed} things agreed");
    }
    std::fs::remove_dir_all(&directory).expect("remove the directory");
}

/// Makes keys and signatures before the snapshot, uses them after it.
const KEEPS_KEYS: &str = "
    const { subtle } = crypto;
    const data = new Uint8Array(100);
    let kept;
    async function make() {
      const key = await subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, false, ['sign', 'verify']);
      const pair = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
      const signature = await subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey, data);
      return { key, pair, signature, code: await subtle.sign('HMAC', key, data) };
    }
    addEventListener('serialize', (event) => event.waitUntil(make().then((made) => { kept = made; })));
    addEventListener('deserialize', (event) => event.waitUntil((async () => {
      const { key, pair, signature, code } = kept;
      const holds = await subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, pair.publicKey, signature, data);
      const fresh = await subtle.exportKey('jwk', (await subtle.generateKey('X25519', true, ['deriveBits'])).privateKey);
      console.log(await subtle.verify('HMAC', key, code, data), holds, key.extractable, fresh.d);
    })()));";

#[test]
fn keys_survive_a_snapshot_and_later_ones_differ() {
    let directory = temporary::path("crypto-snapshot");
    std::fs::create_dir_all(&directory).expect("make the directory");
    let (script, snapshot) = (directory.join("keys.js"), directory.join("keys.snap"));
    std::fs::write(&script, KEEPS_KEYS).expect("write the script");
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_aworker")).args(arguments).output().expect("aworker starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run(&["snapshot".as_ref(), "build".as_ref(), script.as_ref(), "-o".as_ref(), snapshot.as_ref()]);
    let lines: Vec<String> =
        (0..2).map(|_| run(&["run".as_ref(), "--snapshot".as_ref(), snapshot.as_ref()])).collect();
    std::fs::remove_dir_all(&directory).expect("remove the directory");
    assert!(lines.iter().all(|line| line.starts_with("true true false ")), "{lines:?}");
    assert_ne!(lines[0], lines[1], "two runs of one snapshot make the same key");
}

/// A static program finds getrandom(2), too: no device is read, which a container need not have.
#[test]
fn random_bytes_come_from_no_device() {
    let code = "crypto.getRandomValues(new Uint8Array(8)); console.log('drawn'); setInterval(() => {}, 1e6)";
    let mut child = Command::new(env!("CARGO_BIN_EXE_aworker"))
        .args(["eval", code])
        .stdout(Stdio::piped())
        .spawn()
        .expect("aworker starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says so");
    let open: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{}/fd", child.id()))
        .expect("its descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .collect();
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    assert_eq!(line, "drawn\n");
    assert!(!open.iter().any(|file| file.ends_with("urandom") || file.ends_with("random")), "{open:?}");
}

/// JSON as a JavaScript string.
fn text(json: &str) -> String {
    assert!(!json.contains('`') && !json.contains('\\'), "base64 in JSON needs no escapes");
    format!("`{json}`")
}
