//! The Web APIs, seen by scripts: each file of `tests/web` runs in `aworker` and
//! ends with the number of facts it has checked.

mod temporary;

use std::path::Path;
use std::process::Command;

/// Runs one script; it must succeed and say that it checked something.
#[track_caller]
fn passes(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web").join(format!("{name}.js"));
    let output = Command::new(env!("CARGO_BIN_EXE_aworker"))
        .args(["run", "--v8-flag=--expose-gc"])
        .arg(path)
        .output()
        .expect("aworker starts");
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
    blob,
    body_mixin,
    compression_streams,
    clients,
    console,
    crypto,
    dom_exception,
    encoding,
    event,
    event_target,
    file_reader,
    form_data,
    global,
    interfaces,
    messaging,
    minimum_common_api,
    performance,
    readable_byte_stream,
    readable_stream,
    reporting,
    stream_transfer,
    structured_clone,
    subtle_errors,
    subtle_keys,
    subtle_vectors,
    tampering,
    text_streams,
    timers,
    transform_stream,
    url,
    url_pattern,
    url_search_params,
    wasm_streaming,
    writable_stream,
}

#[test]
fn a_script_whose_fact_does_not_hold_fails() {
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web/facts.js");
    let script = temporary::path("web.mjs");
    let text = format!("import {{ fact, same }} from {:?};\nfact('wrong', () => same(1, 2));\n", facts);
    std::fs::write(&script, text).expect("write the script");
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).arg("run").arg(&script).output().expect("aworker starts");
    std::fs::remove_file(&script).expect("remove the script");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong: 1 is not 2"));
}

/// What `console.log(CODE)` prints, line by line.
#[test]
fn console_shows_values_for_people() {
    for (code, shown) in [
        (
            "'text', 1, -0, 10n, null, undefined, true, Symbol('s')",
            "text 1 -0 10n null undefined true Symbol(s)",
        ),
        (
            "{a: 1, 'b-c': ['x', \"it's\"], [Symbol('k')]: 2}",
            "{ a: 1, 'b-c': [ 'x', \"it's\" ], [Symbol(k)]: 2 }",
        ),
        ("[1, , , 4], new Array(3)", "[ 1, <2 empty items>, 4 ] [ <3 empty items> ]"),
        ("new Map([[{a: 1}, 'b']]), new Set([1, [2]])", "Map(1) { { a: 1 } => 'b' } Set(2) { 1, [ 2 ] }"),
        (
            "new (class Foo { x = 1 }), class Foo {}, class extends Array {}, () => 1, function f() {}",
            "Foo { x: 1 } [class Foo] [class (anonymous) extends Array] [Function (anonymous)] [Function: f]",
        ),
        (
            "{a: {b: {c: {d: {e: {}}}}}}, [[[[[[]]]]]]",
            "{ a: { b: { c: { d: { e: [Object] } } } } } [ [ [ [ [ [Array] ] ] ] ] ]",
        ),
        ("(() => { const o = {}; o.self = o; return o; })()", "<ref *1> { self: [Circular *1] }"),
        (
            "new Uint8Array(3), new ArrayBuffer(2), new DataView(new ArrayBuffer(1))",
            "Uint8Array(3) [ 0, 0, 0 ] ArrayBuffer { [Contents]: <00 00>, byteLength: 2 } DataView {\n  byteLength: 1,\n  buffer: ArrayBuffer { [Contents]: <00>, byteLength: 1 }\n}",
        ),
        (
            "new Date(0), new Date(NaN), /x/g, Object(1), Object('ab')",
            "1970-01-01T00:00:00.000Z Invalid Date /x/g [Number: 1] [String: 'ab']",
        ),
        (
            "Promise.resolve(1), new Promise(() => {}), new Proxy({a: 1}, {})",
            "Promise { 1 } Promise { <pending> } Proxy { a: 1 }",
        ),
        ("{get a() { return 1 }, set a(x) {}, get b() { return 1 }}", "{ a: [Getter/Setter], b: [Getter] }"),
        (
            "Object.create(null), new URL('http://a/').searchParams, new URLSearchParams('a=1')",
            "[Object: null prototype] {} URLSearchParams {} URLSearchParams { a: '1' }",
        ),
        (
            "new AbortController().signal, new ReadableStream()",
            "AbortSignal { aborted: false, reason: undefined } ReadableStream { locked: false, state: 'readable' }",
        ),
        ("(() => { const f = new FormData(); f.append('a', 'b'); return f; })()", "FormData { a: 'b' }"),
        (
            "new Blob(['abc'], {type: 'text/plain'}), new Headers({a: 'b'})",
            "Blob { size: 3, type: 'text/plain' } Headers { a: 'b' }",
        ),
        (
            "'%s is %d%% of %i, %f, %o, %O, %c.', 'a', '4.5', 4.5, '1.5x', {a: 1}, [1], 'color: red', 'rest'",
            "a is 4.5% of 4, 1.5, { a: 1 }, [ 1 ], . rest",
        ),
        ("'%s', '%x %', 100", "%x % 100"),
        ("'%s'", "%s"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_aworker"))
            .args(["eval", &format!("console.log({code});")])
            .output()
            .expect("aworker starts");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stdout = stdout.strip_suffix("undefined\n").unwrap_or(&stdout);
        assert_eq!(stdout, format!("{shown}\n"), "{code}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn console_shows_errors_with_stack_and_cause() {
    let code = "console.log(new Error('outer', {cause: new TypeError('inner')})); console.error({e: new DOMException('m', 'AbortError')})";
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).args(["eval", code]).output().expect("aworker starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.starts_with("Error: outer\n    at "), "{stdout}");
    assert!(stdout.contains("[cause]: TypeError: inner\n      at "), "{stdout}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("e: AbortError: m\n      at "), "{stderr}");
}

#[test]
fn an_error_that_nobody_handles_is_printed() {
    let code = "const t = new EventTarget(); t.addEventListener('x', () => { throw new Error('lost'); }); t.dispatchEvent(new Event('x')); console.log('on')";
    let output =
        Command::new(env!("CARGO_BIN_EXE_aworker")).args(["eval", code]).output().expect("aworker starts");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("on\n"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Uncaught Error: lost\n    at "), "{stderr}");
}
