//! WebCrypto beside another implementation of it, Node's: what one makes, the other
//! reads, verifies, opens and computes alike. Skipped, with a reason, without Node.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    let directory = std::env::temp_dir().join(format!("aworker-crypto-{}", std::process::id()));
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

/// JSON as a JavaScript string.
fn text(json: &str) -> String {
    assert!(!json.contains('`') && !json.contains('\\'), "base64 in JSON needs no escapes");
    format!("`{json}`")
}
