//! The Web APIs, seen by scripts: each file of `tests/web` runs in `aworker` and
//! ends with the number of facts it has checked.

use std::path::Path;
use std::process::Command;

/// Runs one script; it must succeed and say that it checked something.
#[track_caller]
fn passes(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web").join(format!("{name}.js"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).arg("run").arg(path).output().expect("aworker starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    let passed = stdout.lines().last().and_then(|line| line.strip_suffix(" facts hold")?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed > 0), "{name} checked nothing:\n{stdout}\n{stderr}");
}

macro_rules! scripts {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                passes(stringify!($name));
            }
        )*

        #[test]
        fn every_script_is_run() {
            let mut listed = vec![$(concat!(stringify!($name), ".js"),)* "facts.js"];
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web");
            let mut found: Vec<String> = std::fs::read_dir(directory)
                .expect("the directory of scripts")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
                .collect();
            listed.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, listed);
        }
    };
}

scripts! {
    abort,
    base64,
    console,
    crypto,
    dom_exception,
    encoding,
    event,
    event_target,
    global,
    interfaces,
    performance,
    readable_byte_stream,
    readable_stream,
    reporting,
    structured_clone,
    tampering,
    text_streams,
    timers,
    transform_stream,
    url,
    url_search_params,
    writable_stream,
}

#[test]
fn a_script_whose_fact_does_not_hold_fails() {
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web/facts.js");
    let script = std::env::temp_dir().join(format!("aworker-web-{}.mjs", std::process::id()));
    let text = format!("import {{ fact, same }} from {:?};\nfact('wrong', () => same(1, 2));\n", facts);
    std::fs::write(&script, text).expect("write the script");
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).arg("run").arg(&script).output().expect("aworker starts");
    std::fs::remove_file(&script).expect("remove the script");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong: 1 is not 2"));
}
