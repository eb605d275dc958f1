//! Modules beyond files that import each other: import maps, values as modules, `import.meta`, messages, source maps.

mod script_support;
mod temporary;

use script_support::{Directory, aworker};

#[test]
fn an_import_map_gives_bare_specifiers_a_meaning() {
    let directory = Directory::new(
        "map",
        &[
            (
                "main.js",
                "import { name } from 'pkg'; import { deep } from 'pkg/deep.js'; import 'app/inner.js';
                 const later = await import('pkg');
                 console.log(name, deep, later.name, import.meta.resolve('pkg/x.js').endsWith('/vendor/pkg/x.js'));",
            ),
            ("vendor/pkg/index.js", "export const name = 'outer';"),
            ("vendor/pkg/deep.js", "export const deep = 'deep';"),
            ("vendor/other.js", "export const name = 'scoped';"),
            ("inner/inner.js", "import { name } from 'pkg'; console.log('inner sees', name);"),
            (
                "maps/map.json",
                r#"{ "imports": { "pkg": "../vendor/pkg/index.js", "pkg/": "../vendor/pkg/", "app/": "../inner/" },
                     "scopes": { "../inner/": { "pkg": "../vendor/other.js" } } }"#,
            ),
            ("broken.json", "{ \"imports\": 5 }"),
        ],
    );
    let expected = "inner sees scoped\nouter deep outer true\n";
    directory.run(&["run", "--import-map", "maps/map.json", "main.js"]).prints(expected);
    let by_environment = aworker()
        .current_dir(&directory.0)
        .env("AWORKER_IMPORT_MAP", directory.0.join("maps/map.json"))
        .args(["run", "main.js"])
        .output()
        .expect("aworker starts");
    assert_eq!(String::from_utf8_lossy(&by_environment.stdout), expected);
    directory.run(&["main.js"]).fails_with(&["\"pkg\"", "main.js:1:22", "--import-map"]);
    directory
        .run(&["run", "--import-map", "broken.json", "main.js"])
        .fails_with(&["import map broken.json: \"imports\" must be an object"]);
    directory
        .run(&["run", "--import-map", "none.json", "main.js"])
        .fails_with(&["none.json", "no such file"]);
}

/// Files with the digests that `openssl dgst -sha256 -binary | base64` gives of them, and one that was changed.
#[test]
fn modules_are_what_the_integrity_of_the_import_map_says() {
    const GOOD: &str = "sha256-lpCeHc6FylNP2IgfbINpqKh+Bt9aS/ge9Epy2xlbBwQ=";
    let map = |name: &str, value: &str| format!(r#"{{ "integrity": {{ "./{name}": "{value}" }} }}"#);
    let directory = Directory::new(
        "map-integrity",
        &[
            (
                "main.mjs",
                "import x from './x.js'; import json from './x.json' with { type: 'json' }; console.log(x, json);",
            ),
            ("x.js", "export default 1;\n"),
            ("x.json", "2"),
            ("good.json", &map("x.js", GOOD)),
            ("other.json", &map("y.js", &GOOD.replace('l', "m"))),
            ("bad.json", &map("x.js", &GOOD.replace('l', "m"))),
            ("bad-json.json", &map("x.json", GOOD)),
            ("bad-main.json", &map("main.mjs", GOOD)),
            ("unknown.json", &map("x.js", "md5-abc")),
        ],
    );
    for fitting in ["good.json", "other.json"] {
        directory.run(&["run", "--import-map", fitting, "main.mjs"]).prints("1 2\n");
    }
    let wanted = "is not what the import map's \"integrity\" wants";
    for (wrong, file) in [("bad.json", "x.js"), ("bad-json.json", "x.json"), ("bad-main.json", "main.mjs")] {
        directory.run(&["run", "--import-map", wrong, "main.mjs"]).fails_with(&[file, wanted]);
    }
    directory
        .run(&["run", "--import-map", "unknown.json", "main.mjs"])
        .fails_with(&["unknown.json", "md5-abc"]);
}

#[test]
fn a_snapshot_keeps_its_import_map() {
    let directory = Directory::new(
        "map-snapshot",
        &[
            (
                "main.js",
                "addEventListener('deserialize', (e) => e.waitUntil(import('pkg').then((m) => console.log(m.x))));",
            ),
            ("pkg.js", "export const x = import.meta.main;"),
            ("map.json", r#"{ "imports": { "pkg": "./pkg.js" } }"#),
        ],
    );
    directory.run(&["snapshot", "build", "--import-map", "map.json", "main.js", "-o", "s"]).prints("");
    std::fs::remove_file(directory.0.join("map.json")).expect("removed");
    directory.run(&["run", "--snapshot", "s"]).prints("false\n");
}

#[test]
fn json_text_and_bytes_are_modules() {
    let directory = Directory::new(
        "values",
        &[
            (
                "main.js",
                "import data from './data.json' with { type: 'json' };
                 import text from './data.json' with { type: 'text' };
                 import bytes from './data.json' with { type: 'bytes' };
                 import page from './page.html' with { type: 'text' };
                 import code from './main.js' with { type: 'text' };
                 const again = await import('./data.json', { with: { type: 'json' } });
                 console.log(data, JSON.stringify(text), bytes, page, code.length > 100, again.default === data);
                 for (const type of ['css', 'webassembly']) {
                   await import('./page.html', { with: { type } }).catch((e) => console.log(e.message.split('main.js: ')[1]));
                 }
                 await import('./page.html', { with: { kind: 'x' } }).catch((e) => console.log(e.message.split('main.js: ')[1]));",
            ),
            ("data.json", "\u{feff}[1]"),
            ("page.html", "<p>ä</p>"),
        ],
    );
    directory.run(&["main.js"]).prints(
        "[ 1 ] \"[1]\" Uint8Array(6) [ 239, 187, 191, 91, 49, 93 ] <p>ä</p> true true\n\
         modules of type \"css\" are not supported: want json, text or bytes\n\
         modules of type \"webassembly\" are not supported: want json, text or bytes\n\
         the import attribute \"kind\" is not supported\n",
    );
}

#[test]
fn import_meta_says_where_a_module_is() {
    let directory = Directory::new(
        "meta",
        &[
            (
                "main.js",
                "import { meta } from './lib/b.js?v=1';
                 console.log(import.meta.main, meta.main, meta.filename, meta.dirname);
                 console.log(meta.url.endsWith('/lib/b.js?v=1'), meta.resolve('../x.js') === new URL('x.js', import.meta.url).href);
                 console.log(import.meta.resolve('https://example.org/a.js'), Object.keys(import.meta));
                 try { import.meta.resolve('bare'); } catch (e) { console.log(e.name); }
                 console.log(await import('./lib/b.js?v=1').then((b) => b.meta === meta));",
            ),
            ("lib/b.js", "export const meta = import.meta;"),
        ],
    );
    directory.run(&["main.js"]).prints(&format!(
        "true false {} {}\ntrue true\nhttps://example.org/a.js [ 'url', 'filename', 'dirname', 'main', 'resolve' ]\nTypeError\ntrue\n",
        directory.shown("lib/b.js"),
        directory.shown("lib"),
    ));
}

#[test]
fn a_missing_module_is_met_with_a_suggestion() {
    let directory = Directory::new(
        "suggest",
        &[
            ("extension.js", "import './helper';"),
            ("typo.js", "import './lib/helpre.js';"),
            ("case.js", "import './Helper.js';"),
            ("directory.js", "import './lib';"),
            ("unlike.js", "import './zzz.js';"),
            ("typescript.js", "import './types.tsx';"),
            ("fifo.js", "import './fifo.js' with { type: 'text' };"),
            ("helper.js", ""),
            ("lib/helper.js", ""),
            ("lib/index.js", ""),
            ("types.tsx", "export {}"),
            ("common.cts", "export {}"),
        ],
    );
    let fails = |file: &str, parts: &[&str]| directory.run(&[file]).fails_with(parts);
    fails("extension.js", &["extension.js:1:8", "did you mean \"helper.js\"?"]);
    fails("typo.js", &["did you mean \"helper.js\"?"]);
    fails("case.js", &["did you mean \"helper.js\"?"]);
    fails("directory.js", &["it is no regular file"]);
    fails("typescript.js", &["types.tsx", "compile it first", "esbuild"]);
    fails("types.tsx", &["compile it first", "esbuild"]);
    fails("common.cts", &["compile it first", "esbuild"]);
    let unlike = directory.run(&["unlike.js"]);
    assert!(!unlike.stderr.contains("did you mean"), "{}", unlike.stderr);
}

#[test]
fn cycles_and_awaiting_modules_run_in_the_standards_order() {
    let directory = Directory::new(
        "order",
        &[
            ("main.js", "import './a.js'; import './slow.js'; import './fast.js'; console.log('main');"),
            (
                "a.js",
                "import { b } from './b.js'; console.log('a', b); export const a = 'A'; export function early() { return 'hoisted'; }",
            ),
            (
                "b.js",
                "import { a, early } from './a.js'; export const b = 'B'; console.log('b', early());
                      try { a; } catch (e) { console.log(e.name); }",
            ),
            (
                "slow.js",
                "console.log('slow begins'); await new Promise((done) => setTimeout(done, 5)); console.log('slow ends');",
            ),
            ("fast.js", "console.log('fast');"),
        ],
    );
    directory
        .run(&["main.js"])
        .prints("b hoisted\nReferenceError\na B\nslow begins\nfast\nslow ends\nmain\n");
}

/// What esbuild makes of `src/app.ts`, by hand: two lines of source in one line of program.
const MAP: &str = r#"{"version":3,"sources":["../src/app.ts"],"sourcesContent":["type A = string;\n  throw new Error('mapped' as A);\n"],"mappings":"AACE,MAAM"}"#;

#[test]
fn stack_traces_show_the_sources_of_a_file_map_and_of_an_inline_one() {
    use std::fmt::Write;
    let mut inline = String::from("throw new Error('mapped');\n//# sourceMappingURL=data:application/json,");
    for byte in MAP.bytes() {
        write!(inline, "%{byte:02x}").expect("a string takes it");
    }
    let directory = Directory::new(
        "source-maps",
        &[
            ("dist/app.js", "throw new Error('mapped');\n//# sourceMappingURL=app.js.map"),
            ("dist/app.js.map", MAP),
            ("dist/inline.mjs", &inline),
            (
                "dist/caught.js",
                "try { f() } catch (e) { console.log(e.stack.includes('caught.js:3')); console.error(e) }\nfunction f() {\nthrow new Error('seen') }\n//# sourceMappingURL=caught.map",
            ),
            ("dist/caught.map", r#"{"version":3,"sources":["../src/c.ts"],"mappings":"AAAA;;AAUA"}"#),
            ("dist/none.js", "throw new Error('plain');\n//# sourceMappingURL=missing.map"),
            (
                "dist/own.js",
                "Error.prepareStackTrace = () => 'mine'; console.log(new Error('x').stack);\n//# sourceMappingURL=app.js.map",
            ),
        ],
    );
    let source = directory.shown("src/app.ts");
    for file in ["dist/app.js", "dist/inline.mjs"] {
        directory.run(&[file]).fails_with(&[
            &format!("{source}:2:"),
            "\n  throw new Error('mapped' as A);\n  ",
            "Error: mapped",
            &format!("at {source}:2:9"),
        ]);
    }
    let caught = directory.run(&["dist/caught.js"]);
    assert_eq!(caught.stdout, "true\n", "`stack` itself stays as V8 made it");
    assert!(
        caught.stderr.contains(&format!("at f ({}:11:1)", directory.shown("src/c.ts"))),
        "{}",
        caught.stderr
    );
    directory.run(&["dist/none.js"]).fails_with(&["none.js:1:7", "Error: plain"]);
    directory.run(&["dist/own.js"]).prints("mine\n");
}

#[test]
fn a_snapshot_keeps_what_leads_to_its_source_map() {
    let directory = Directory::new(
        "source-map-snapshot",
        &[
            (
                "main.mjs",
                "addEventListener('deserialize', () => { throw new Error('late') });\n//# sourceMappingURL=main.map",
            ),
            ("main.map", r#"{"version":3,"sources":["app.ts"],"mappings":"AAUA"}"#),
        ],
    );
    directory.run(&["snapshot", "build", "main.mjs", "-o", "s"]).prints("");
    directory
        .run(&["run", "--snapshot", "s"])
        .fails_with(&["Error: late", &format!("{}:11:1", directory.shown("app.ts"))]);
}
