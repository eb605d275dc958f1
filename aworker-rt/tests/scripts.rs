//! Drives the built `aworker` program with scripts: modules, errors, order of
//! the event loop, lifecycle, exit codes.

mod script_support;
mod temporary;

use std::process::Command;

use script_support::{Directory, Run, aworker, path_text};

#[test]
fn eval_prints_the_value_of_the_code() {
    Run::eval("6 * 7").prints("42\n");
    Run::eval("'text'").prints("text\n");
    Run::eval("({ a: [1] })").prints("{ a: [ 1 ] }\n");
    Run::eval("Symbol('x')").prints("Symbol(x)\n");
    Run::eval("undefined").prints("");
    Run::eval("const x = await 1; console.log(x)").prints("1\n");
}

#[test]
fn modules_import_files_json_and_each_other() {
    let directory = Directory::new(
        "modules",
        &[
            (
                "main.js",
                "import { b, viaCycle } from './lib/b.js';
                 import data from './data.json' with { type: 'json' };
                 const again = await import('./lib/b.js');
                 console.log(b, viaCycle(), data.x, again.b === b, import.meta.url, import.meta.dirname);",
            ),
            (
                "lib/b.js",
                "import { name } from '../c.js'; export const b = 'b'; export const viaCycle = () => name();",
            ),
            ("c.js", "import { b } from './lib/b.js'; export function name() { return 'c of ' + b; }"),
            ("data.json", "{\"x\": 1}"),
        ],
    );
    let expected =
        format!("b c of b 1 true file://{} {}\n", directory.shown("main.js"), path_text(&directory.0));
    directory.run(&["run", "main.js"]).prints(&expected);
}

#[test]
fn an_await_anywhere_at_the_top_level_makes_a_module() {
    let directory = Directory::new(
        "await",
        &[("main.js", "console.log(await 1, this);"), ("broken.js", "console.log(await 1, this;")],
    );
    directory.run(&["main.js"]).prints("1 undefined\n");
    directory.run(&["broken.js"]).fails_with(&["broken.js:1:", "SyntaxError: missing ) after argument list"]);
}

#[test]
fn a_module_may_import_itself_while_it_runs() {
    let directory = Directory::new(
        "self",
        &[
            (
                "main.js",
                "import('./main.js').then((self) => console.log(self.name)); import './b.js'; export const name = 'me';",
            ),
            ("b.js", "import('./main.js').then((main) => console.log('b sees', main.name)); await null;"),
        ],
    );
    directory.run(&["run", "main.js"]).prints("b sees me\nme\n");
}

#[test]
fn a_script_without_module_syntax_is_sloppy_and_a_module_is_strict() {
    let directory = Directory::new(
        "detection",
        &[
            ("classic.js", "var x = 010; console.log(x, this === globalThis);"),
            ("module.mjs", "console.log(this === undefined);"),
            ("module.js", "export {}; console.log(this === undefined);"),
            ("meta.js", "console.log(typeof import.meta.url);"),
        ],
    );
    directory.run(&["classic.js"]).prints("8 true\n");
    directory.run(&["module.mjs"]).prints("true\n");
    directory.run(&["module.js"]).prints("true\n");
    directory.run(&["meta.js"]).prints("string\n");
}

#[test]
fn import_errors_name_importer_and_specifier() {
    let directory = Directory::new(
        "import-errors",
        &[
            ("missing.js", "\n\nimport './nothing.js';"),
            ("bare.js", "import x from 'left-pad';"),
            ("json.js", "import x from './data.json';"),
            ("export.js", "import { nothing } from './empty.js';"),
            ("syntax.js", "import './broken.js';"),
            ("badjson.js", "import x from './broken.json' with { type: 'json' };"),
            ("empty.js", ""),
            ("data.json", "{}"),
            ("broken.json", "{x"),
            ("broken.js", "let a = 1;\nlet a = 2;\n"),
        ],
    );
    let fails = |file: &str, parts: &[&str]| directory.run(&[file]).fails_with(parts);
    let nothing = format!("open {}: no such file or directory", directory.shown("nothing.js"));
    fails("missing.js", &["\"./nothing.js\"", &format!("{}:3:8", directory.shown("missing.js")), &nothing]);
    fails("bare.js", &["\"left-pad\"", "bare.js:1"]);
    fails("json.js", &["\"./data.json\"", "with { type: \"json\" }"]);
    fails("export.js", &["export.js:1", "does not provide an export named 'nothing'"]);
    fails(
        "syntax.js",
        &[&format!("{}:2:5\nlet a = 2;\n    ^", directory.shown("broken.js")), "already been declared"],
    );
    fails("badjson.js", &["broken.json", "JSON"]);
}

#[test]
fn a_failed_dynamic_import_rejects() {
    let directory = Directory::new(
        "dynamic",
        &[
            (
                "main.js",
                "try { await import('./broken.js') } catch (e) { console.log(e.name, e.message) }
                         try { await import('./throws.js') } catch (e) { console.log(e.message) }
                         try { await import('./throws.js') } catch (e) { console.log(e.message) }",
            ),
            ("broken.js", "let a ="),
            ("throws.js", "throw new Error('at load ' + (globalThis.count = (globalThis.count ?? 0) + 1))"),
        ],
    );
    directory.run(&["main.js"]).prints("SyntaxError Unexpected end of input\nat load 1\nat load 1\n");
}

#[test]
fn uncaught_errors_show_place_line_and_stack() {
    let directory = Directory::new(
        "uncaught",
        &[
            ("throws.js", "function f() {\n  throw new TypeError('boom');\n}\nf();\n"),
            ("syntax.js", "let a = ;\n"),
            ("rejects.js", "Promise.reject(new Error('nobody listens'));"),
            (
                "timer.js",
                "setTimeout(() => { throw new Error('late') }, 1);\nsetTimeout(() => console.log('never'), 50);",
            ),
            ("microtask.js", "queueMicrotask(() => { throw new Error('micro') });"),
            ("primitive.js", "throw 'just text';"),
            ("symbol.js", "throw Symbol('s');"),
            ("hostile.js", "throw { toString() { throw 1 }, get x() { throw 2 }, get stack() { throw 3 } };"),
            ("object.js", "throw { code: [7] };"),
            ("cause.js", "throw new Error('outer', { cause: new Error('inner') });"),
        ],
    );
    let throws = directory.shown("throws.js");
    directory.run(&["throws.js"]).fails_with(&[
        &format!("{throws}:2:3\n  throw new TypeError('boom');\n  ^\nUncaught TypeError: boom\n"),
        &format!("    at f ({throws}:2:9)\n    at {throws}:4:1"),
    ]);
    directory
        .run(&["syntax.js"])
        .fails_with(&[&format!("{}:1:9\nlet a = ;\n        ^", directory.shown("syntax.js"))]);
    directory.run(&["rejects.js"]).fails_with(&["Uncaught (in promise) Error: nobody listens"]);
    let timer = directory.run(&["timer.js"]);
    timer.fails_with(&["Uncaught Error: late", "timer.js:1"]);
    assert_eq!(timer.stdout, "");
    directory.run(&["microtask.js"]).fails_with(&["Uncaught Error: micro"]);
    directory.run(&["symbol.js"]).fails_with(&["Uncaught Symbol(s)"]);
    directory.run(&["hostile.js"]).fails_with(&["hostile.js:1:1", "Uncaught "]);
    directory.run(&["object.js"]).fails_with(&["Uncaught { code: [ 7 ] }"]);
    directory.run(&["cause.js"]).fails_with(&["Uncaught Error: outer", "[cause]: Error: inner"]);
    directory.run(&["primitive.js"]).fails_with(&["primitive.js:1:1", "Uncaught just text"]);
}

#[test]
fn error_listeners_may_take_exceptions_and_rejections() {
    Run::eval(
        "addEventListener('error', (e) => { e.preventDefault(); console.log('error', e.error.message); });
         addEventListener('unhandledrejection', (e) => { e.preventDefault(); console.log('rejection', e.reason); });
         setTimeout(() => { throw new Error('x') }); Promise.reject(7); 0",
    )
    .prints("rejection 7\nerror x\n0\n");
}

#[test]
fn a_rejection_handled_before_the_checkpoint_is_no_error() {
    Run::eval("const p = Promise.reject(1); queueMicrotask(() => p.catch(() => console.log('caught'))); 0")
        .prints("caught\n0\n");
}

#[test]
fn callbacks_run_in_the_order_of_the_standards() {
    let directory = Directory::new(
        "order",
        &[(
            "order.js",
            "const log = (x) => console.log(x);
             setTimeout(() => log('timer 2'), 2);
             setTimeout(() => { log('timer 0'); Promise.resolve().then(() => log('microtask of timer 0')); });
             setTimeout(() => log('timer 0 again'));
             const i = setInterval(() => { log('interval'); clearInterval(i) }, 1);
             clearTimeout(setTimeout(() => log('never'), 1));
             queueMicrotask(() => log('microtask'));
             Promise.resolve().then(() => log('promise'));
             log('sync');",
        )],
    );
    directory.run(&["order.js"]).prints(
        "sync\nmicrotask\npromise\ntimer 0\nmicrotask of timer 0\ntimer 0 again\ninterval\ntimer 2\n",
    );
}

#[test]
fn nested_timers_and_intervals_keep_the_script_alive() {
    Run::eval(
        "let n = 0; const i = setInterval(() => {
             if (++n < 3) return;
             clearInterval(i);
             console.log('three');
             setTimeout(() => setTimeout(() => console.log('nested'), 1), 1);
         }, 1); 0",
    )
    .prints("three\nnested\n0\n");
}

#[test]
fn lifecycle_events_wait_for_their_promises_in_order() {
    let directory = Directory::new(
        "lifecycle",
        &[(
            "worker.js",
            "const wait = (ms, text) => new Promise((r) => setTimeout(() => { console.log(text); r() }, ms));
             addEventListener('install', (e) => {
               console.log('install');
               e.waitUntil(wait(2, 'installing').then(() => e.waitUntil(wait(1, 'still installing'))));
             });
             oninstall = () => console.log('handler');
             addEventListener('activate', (e) => { console.log('activate'); e.waitUntil(wait(1, 'activating')); });
             console.log('load');",
        )],
    );
    directory
        .run(&["worker.js"])
        .prints("load\ninstall\nhandler\ninstalling\nstill installing\nactivate\nactivating\n");
}

#[test]
fn a_failing_install_or_activate_ends_the_worker() {
    let directory = Directory::new(
        "install-fails",
        &[
            ("throws.js", "addEventListener('install', () => { throw new Error('no install') });"),
            (
                "rejects.js",
                "addEventListener('activate', (e) => e.waitUntil(Promise.reject(new Error('no activate'))));",
            ),
            ("stalls.js", "addEventListener('install', (e) => e.waitUntil(new Promise(() => {})));"),
        ],
    );
    directory.run(&["throws.js"]).fails_with(&["Uncaught Error: no install", "throws.js:1"]);
    directory.run(&["rejects.js"]).fails_with(&["Error: no activate"]);
    directory
        .run(&["stalls.js"])
        .fails_with(&["waitUntil of install waits for something that cannot happen"]);
}

#[test]
fn a_top_level_await_that_nothing_settles_is_an_error() {
    Run::eval("await new Promise(() => {}); export {}").fails_with(&["the top level of [eval] waits"]);
}

#[test]
fn wait_until_of_an_inactive_event_throws() {
    Run::eval("try { new ExtendableEvent('install').waitUntil(1) } catch (e) { e.name }")
        .prints("InvalidStateError\n");
}

#[test]
fn scripts_see_their_arguments_and_environment() {
    let directory =
        Directory::new("arguments", &[("a.js", "console.log(Aworker.args.join(), Aworker.env.COLOUR)")]);
    let mut command = aworker();
    command.current_dir(&directory.0).args(["a.js", "--x", "y"]).env("COLOUR", "blue");
    Run::of(&mut command).prints("--x,y blue\n");
}

#[test]
fn endless_recursion_is_a_range_error() {
    Run::eval("function f() { return 1 + f() } try { f() } catch (e) { e instanceof RangeError }")
        .prints("true\n");
}

#[test]
fn outside_of_a_pool_there_is_no_listener_to_hand_over() {
    Run::eval("`${Aworker.pool.listeners.length} ${Object.isFrozen(Aworker.pool.listeners)}`")
        .prints("0 true\n");
    Run::eval("await Aworker.pool.handOver({}).catch(({ name }) => console.log(name))").prints("TypeError\n");
}

#[test]
fn a_full_heap_aborts_with_a_message() {
    let run = Run::of(aworker().args([
        "eval",
        "--max-heap-mb=16",
        "const all = []; for (;;) all.push(new Array(1000).fill({}))",
    ]));
    assert_eq!(run.status, None, "ends by a signal: {run:?}");
    assert!(run.stderr.contains("the JavaScript heap reached its limit"), "{run:?}");
}

#[test]
fn an_array_that_does_not_fit_the_heap_aborts_with_a_message() {
    let run = Run::of(aworker().args([
        "eval",
        "--max-heap-mb=64",
        "const big = new Array(1 << 24).fill(1.5); for (let i = 0; ; i++) big.push(i + 0.5)",
    ]));
    assert_eq!(run.status, None, "ends by a signal: {run:?}");
    assert!(run.stderr.contains("the JavaScript heap reached its limit of 64 MB"), "{run:?}");
}

/// No address space has room for them: an error for the script, which goes on, however often it asks.
#[test]
fn buffers_of_impossible_lengths_are_range_errors() {
    Run::eval(
        "const caught = [];
         const attempt = (make) => { try { make(); caught.push('made') } catch (error) { caught.push(error.name) } };
         for (let i = 0; i < 3; i++) {
           attempt(() => new ArrayBuffer(0, { maxByteLength: 2 ** 52 }));
           attempt(() => new SharedArrayBuffer(0, { maxByteLength: 2 ** 52 }));
           attempt(() => new ArrayBuffer(2 ** 52));
         }
         [...new Set(caught)].join()",
    )
    .prints("RangeError\n");
}

#[test]
fn web_assembly_compiles_asynchronously() {
    Run::eval(
        "const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0,
           7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0, 32, 1, 106, 11]);
         WebAssembly.instantiate(bytes).then(({ instance }) => console.log(instance.exports.add(2, 3))); 0",
    )
    .prints("5\n0\n");
}

#[test]
fn a_closed_standard_output_does_not_end_a_script() {
    let output = Command::new("sh")
        .args(["-c", "\"$0\" eval 'for (let i = 0; i < 100000; i++) console.log(\"line\"); console.error(\"end\"); 0' | head -n 1", env!("CARGO_BIN_EXE_aworker")])
        .output()
        .expect("sh starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "line\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "end\n");
}

#[test]
fn command_line_errors_and_missing_files_have_their_exit_codes() {
    assert_eq!(Run::of(&mut aworker()).status, Some(2));
    assert_eq!(Run::of(aworker().arg("--no-such-option")).status, Some(2));
    Run::of(aworker().args(["run", "/no/such/file.js"]))
        .fails_with(&["open /no/such/file.js: no such file or directory"]);
    let help = Run::of(aworker().arg("--help"));
    assert!(help.status == Some(0) && help.stdout.contains("--listen"), "{help:?}");
}

#[test]
fn local_times_follow_tz() {
    let mut command = aworker();
    command.args(["eval", "new Date(0).getHours()"]).env("TZ", "Asia/Tokyo");
    Run::of(&mut command).prints("9\n");
}

#[test]
fn the_one_thread_never_waits_for_itself() {
    Run::eval("try { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) } catch (e) { e.name }")
        .prints("TypeError\n");
}

#[test]
fn import_scripts_run_one_by_one_in_the_same_global() {
    let directory = Directory::new(
        "import-scripts",
        &[
            (
                "main.js",
                "let mine = 1; importScripts('lib/a.js', './b.js?q'); console.log(mine, a, b(), typeof this.c);",
            ),
            ("lib/a.js", "const a = mine + 1;"),
            ("b.js", "function b() { return a + 1; } var c = 4;"),
            (
                "throws.js",
                "try { importScripts('bad.js'); } catch (error) { console.log(error.message, error.stack.includes('bad.js:2:')); }",
            ),
            ("bad.js", "\nthrow new Error('bad');"),
            (
                "fails.js",
                "for (const url of ['none.js', 'http://a/b.js', 'http://[']) try { importScripts(url); } catch (error) { console.log(error.name); }",
            ),
            (
                "late.js",
                "addEventListener('install', () => importScripts('lib/c.js')); addEventListener('activate', () => { try { importScripts('lib/c.js'); } catch (error) { console.log(error.name, c); } });",
            ),
            ("lib/c.js", "var c = 5;"),
            ("module.mjs", "try { importScripts('lib/c.js'); } catch (error) { console.log(error.name); }"),
        ],
    );
    for (script, expected) in [
        ("main.js", "1 2 3 number\n"),
        ("throws.js", "bad true\n"),
        ("fails.js", "NetworkError\nNetworkError\nSyntaxError\n"),
        ("late.js", "NetworkError 5\n"),
        ("module.mjs", "TypeError\n"),
    ] {
        let run = directory.run(&["run", script]);
        assert_eq!((run.status, run.stdout.as_str()), (Some(0), expected), "{script}: {}", run.stderr);
    }
}

#[test]
fn the_location_may_be_told() {
    let directory =
        Directory::new("location", &[("a.js", "console.log(location.href, origin, location.search);")]);
    let run = directory.run(&["run", "--location", "http://example.org:80/x?y#z", "a.js"]);
    assert_eq!(run.stdout, "http://example.org/x?y#z http://example.org ?y\n");
    let run = directory.run(&["run", "a.js"]);
    assert_eq!(run.stdout, format!("file://{} null \n", directory.shown("a.js")));
}

#[test]
fn a_top_level_await_amid_an_expression_makes_a_module() {
    let directory = Directory::new(
        "await",
        &[("a.js", "console.log(await 1, [await 2]);"), ("b.js", "// await\nlet = ;")],
    );
    let run = directory.run(&["run", "a.js"]);
    assert_eq!((run.status, run.stdout.as_str()), (Some(0), "1 [ 2 ]\n"), "{}", run.stderr);
    let run = directory.run(&["run", "b.js"]);
    assert!(run.status == Some(1) && run.stderr.contains("b.js:2"), "{}", run.stderr);
}

#[test]
fn a_service_worker_may_skip_waiting_and_claim_once_it_is_active() {
    let script = "addEventListener('install', (event) => {
        event.waitUntil(clients.claim().then(() => console.log('wrong'), (error) => console.log(error.name)));
        event.waitUntil(self.skipWaiting());
    });
    addEventListener('activate', (event) => event.waitUntil(clients.claim().then(() => console.log('claimed'))));";
    let directory = Directory::new("claim", &[("a.js", script)]);
    let run = directory.run(&["run", "a.js"]);
    assert_eq!(
        (run.status, run.stdout.as_str()),
        (Some(0), "InvalidStateError\nclaimed\n"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_lifecycle_event_that_fails_ends_with_status_1_whichever_it_is() {
    for failure in ["throw new Error('failed')", "event.waitUntil(Promise.reject(new Error('failed')))"] {
        for event in ["install", "activate", "serialize", "deserialize"] {
            let script = format!("addEventListener('{event}', (event) => {{ {failure}; }});");
            let directory = Directory::new(event, &[("a.js", &script)]);
            let build: &[&str] = &["snapshot", "build", "a.js", "-o", "a.snap"];
            let run = match event {
                "serialize" => directory.run(build),
                "deserialize" => {
                    assert_eq!(directory.run(build).status, Some(0));
                    directory.run(&["run", "--snapshot", "a.snap"])
                }
                _ => directory.run(&["run", "a.js"]),
            };
            assert_eq!(run.status, Some(1), "{event}: {failure}");
            assert!(run.stderr.contains("Error: failed"), "{event}: {failure}: {}", run.stderr);
        }
    }
}
