//! TypeScript as a program's language: what runs, where errors are, what is refused.

mod http_support;
mod script_support;
mod temporary;

use http_support::Server;
use script_support::Directory;

/// A server with most of what can be erased.
const APP: &str = r#"
import type { Absent } from './absent.ts';

interface Item<in out T = unknown> { readonly id: number; name: string; extra?: T }
type Handler = (request: Request, ...rest: [string, Map<number, Item>]) => Promise<Response> | Response
declare const COMPILED: boolean;
namespace Types { export type Route = [method: string, path: `/${string}`, handler: Handler] }

abstract class Store<T extends { id: number }> implements Iterable<T> {
  protected abstract readonly label: string
  private static made: number = 0
  readonly #items: Map<number, T> = new Map<number, T>()
  declare absent: Absent
  get: string
  set?(item: T): void
  constructor() { Store.made++; this.get = 'a field' }
  add(item: T): this
  add(item: T, times?: number): this { for (let i = 0; i < (times ?? 1)!; i++) this.#items.set(item.id + i, item); return this }
  public async *[Symbol.asyncIterator](this: Store<T>): AsyncGenerator<T> { yield* this.#items.values() }
  *[Symbol.iterator](): Iterator<T> { yield* this.#items.values() }
  protected static get count(): number { return Store.made }
  [key: string]: any
}

class Items extends Store<Item<string>> {
  protected override readonly label = 'items' as const
  static override get count(): number { return super.count * 10 }
  describe(): string { return `${this.label}: ${[...this].map((item) => item.name satisfies string).join()}` }
}

const items = new Items().add({ id: 1, name: 'one' }).add({ id: 2, name: 'two' } as Item<string>) as Items

const pick = <K extends keyof Item,>(item: Item, key: K):
  Item[K] => item[key]

function isItem(value: unknown): value is Item { return typeof (value as Item)?.id === 'number' }

const routes: Types.Route[] = [
  ['GET', '/items', () => new Response(items.describe())],
  ['GET', '/count', async (): Promise<
    Response
  > => Response.json({ count: Items['count'], get: items.get, isItem: isItem([...items][0]), pick: pick({ id: 5, name: 'x' }, 'name') })],
  ['GET', '/stream', async () => { let text = ''; for await (const item of items) text += item!.name; return new Response(text) }],
  ['GET', '/fail', () => { throw new TypeError('from typed code' as string) }],
]

export default {
  async fetch(request: Request, env?: Record<string, string>): Promise<Response> {
    const { pathname } = new URL(request.url) as { pathname: string }
    const route = routes.find(([method, path]) => method === request.method && path === pathname)
    return (await route?.[2]!(request, 'rest', new Map<number, Item>())) ?? new Response(env!.GREETING as string, { status: 404 })
  },
} satisfies { fetch: (request: Request, env: Record<string, string>) => Promise<Response> }
"#;

#[test]
fn a_typed_program_serves() {
    let server = Server::start_file("typed-app", "app.ts", APP, &["--listen", "127.0.0.1:0"]);
    assert_eq!(server.get("/items").text(), "items: one,two");
    assert_eq!(server.get("/count").text(), r#"{"count":10,"get":"a field","isItem":true,"pick":"x"}"#);
    assert_eq!(server.get("/stream").text(), "onetwo");
    assert_eq!((server.get("/none").status, server.get("/none").text()), (404, "hello from env"));
    assert_eq!(server.get("/fail").status, 500);
    let line = 1 + APP.lines().position(|line| line.contains("from typed code")).expect("the line");
    let column =
        1 + APP.lines().nth(line - 1).and_then(|text| text.find("new TypeError")).expect("the place");
    let stderr = server.stop();
    assert!(stderr.contains(&format!("app.ts:{line}:{column})")), "{line}:{column} in\n{stderr}");
}

#[test]
fn modules_and_scripts_may_be_typed() {
    let directory = Directory::new(
        "typed",
        &[
            (
                "main.ts",
                "import { type Point, origin } from './lib/point.mts';
                 import plain from './plain.js';
                 import text from './lib/point.mts' with { type: 'text' };
                 import { main } from './only-types.ts';
                 const later = (await import('./lib/point.mts?again')) as typeof import('./lib/point.mts');
                 console.log(origin satisfies Point, plain, text.includes('interface'), later.origin === origin, import.meta.main, main);",
            ),
            (
                "lib/point.mts",
                "export interface Point { x: number }\nexport type { Absent } from './absent.ts';\nexport const origin: Point = { x: 0 };",
            ),
            ("plain.js", "export { value as default } from './value.ts';"),
            ("value.ts", "export const value: string = 'typed';"),
            ("only-types.ts", "import type { Absent } from './absent.ts';\nexport const main: boolean = import.meta.main;"),
            ("classic.ts", "importScripts('./part.ts'); with ({ a: 1 as number }) { console.log(a!, typeof part, this === self as any) }"),
            ("part.ts", "var part: () => void = function (this: unknown): void {};\ninterface Part {}"),
            ("strict.mts", "console.log(this as undefined);"),
            ("typed-module.ts", "import type { Absent } from './absent.ts';\nconsole.log(this)"),
        ],
    );
    directory.run(&["main.ts"]).prints("{ x: 0 } typed true false true false\n");
    directory.run(&["classic.ts"]).prints("1 function true\n");
    directory.run(&["strict.mts"]).prints("undefined\n");
    directory.run(&["typed-module.ts"]).prints("undefined\n");
}

#[test]
fn errors_of_typed_code_are_where_the_source_has_them() {
    let directory = Directory::new(
        "typed-errors",
        &[
            (
                "main.ts",
                "type Id = 'ä\u{1f600}' | number;\nfunction f(id: Id): never { const text: 'ö' = 'ö' as 'ö'; throw new Error(`${id}${text}` as string) }\n  f(7 as Id)",
            ),
            (
                "caught.mts",
                "try { (undefined as any)!.a } catch (e: unknown) { console.log((e as Error).stack!.split('\\n')[1]) }",
            ),
        ],
    );
    let main = directory.shown("main.ts");
    directory.run(&["main.ts"]).fails_with(&[
        &format!("{main}:2:59\n"),
        "Error: 7ö",
        &format!("at f ({main}:2:65)"),
        &format!("at {main}:3:3"),
    ]);
    let place = format!("    at {}:1:27\n", directory.shown("caught.mts"));
    directory.run(&["caught.mts"]).prints(&place);
}

#[test]
fn what_cannot_be_stripped_is_refused_with_its_place() {
    let directory = Directory::new(
        "typed-refused",
        &[
            ("enum.ts", "const a = 1;\n  enum Colour { Red }"),
            ("importer.js", "import './enum.ts';"),
            ("later.mjs", "await import('./enum.ts').catch((e) => console.log(e.name, e.message));"),
            (
                "scripts.js",
                "try { importScripts('./property.ts') } catch (e) { console.log(e.name, e.message) }",
            ),
            ("property.ts", "class A { constructor(private a: string) {} }"),
            ("wrong.ts", "let a: = 1;"),
            ("page.tsx", "let a = <p/>;"),
            ("common.cts", "export = 1;"),
            (
                "map.json",
                r#"{ "integrity": { "./checked.ts": "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" } }"#,
            ),
            ("checked.ts", "export const a: number = 1;"),
        ],
    );
    let place = format!("{}:2:3", directory.shown("enum.ts"));
    let main = directory.run(&["enum.ts"]);
    main.fails_with(&[
        &format!("{place}\n  enum Colour {{ Red }}\n  ^\n"),
        "SyntaxError",
        "an enum makes an object",
    ]);
    directory.run(&["importer.js"]).fails_with(&["SyntaxError", &format!("{place}: an enum")]);
    let later = directory.run(&["later.mjs"]);
    assert!(later.stdout.starts_with(&format!("SyntaxError {place}: an enum")), "{later:?}");
    let scripts = directory.run(&["scripts.js"]);
    let place = format!("SyntaxError {}:1:23: a parameter property", directory.shown("property.ts"));
    assert!(scripts.stdout.starts_with(&place), "{scripts:?}");
    directory.run(&["wrong.ts"]).fails_with(&["wrong.ts:1:8", "SyntaxError"]);
    directory.run(&["page.tsx"]).fails_with(&["page.tsx", "esbuild"]);
    directory.run(&["common.cts"]).fails_with(&["common.cts", "esbuild"]);
    // The digest is that of the file, not of what is left of it.
    let checked = directory.run(&["run", "--import-map", "map.json", "checked.ts"]);
    checked.fails_with(&["checked.ts", "is not what the import map's \"integrity\" wants"]);
}

#[test]
fn a_source_that_nests_without_end_is_an_error_not_a_crash() {
    let directory = Directory::new(
        "typed-deep",
        &[("deep.ts", &format!("let a: T = {}1{};", "(".repeat(100_000), ")".repeat(100_000)))],
    );
    directory.run(&["deep.ts"]).fails_with(&["RangeError: Maximum call stack size exceeded"]);
    std::fs::write(directory.0.join("deep.ts"), "[".repeat(100_000)).expect("written");
    directory.run(&["deep.ts"]).fails_with(&["SyntaxError", "deep.ts:1:100001"]);
}

#[test]
fn a_snapshot_is_made_of_a_typed_program() {
    let directory = Directory::new(
        "typed-snapshot",
        &[
            (
                "main.ts",
                "import { type Part, part } from './part.ts';
                 addEventListener('deserialize', (event: Event) => { console.log((part as Part).made); later() });
                 function later(): void { throw new Error('late' as string) }",
            ),
            ("part.ts", "export interface Part { made: string }\nexport const part: Part = { made: 'before' };"),
        ],
    );
    directory.run(&["snapshot", "build", "main.ts", "-o", "s"]).prints("");
    for file in ["main.ts", "part.ts"] {
        std::fs::remove_file(directory.0.join(file)).expect("removed");
    }
    let run = directory.run(&["run", "--snapshot", "s"]);
    assert_eq!(run.stdout, "before\n");
    run.fails_with(&["Error: late", &format!("{}:3:49", directory.shown("main.ts"))]);
}
