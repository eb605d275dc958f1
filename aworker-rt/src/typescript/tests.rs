//! Every construct with what becomes of it, and every one that is refused with the place.

use super::scan::is_line_terminator;
use super::{Goal, JavaScript, strip};

/// A source of one goal or the other, as JavaScript.
fn stripped(source: &str) -> String {
    let JavaScript { text, .. } =
        strip(source, Goal::Either).unwrap_or_else(|error| panic!("{source}: {error}"));
    let lengths = |text: &str| -> Vec<usize> {
        text.split(is_line_terminator).map(|line| line.encode_utf16().count()).collect()
    };
    assert_eq!(lengths(source), lengths(&text), "the columns of\n{source}\n{text}");
    text
}

/// Checks sources and what becomes of them, each beside the other.
fn become_each(table: &[(&str, &str)]) {
    for (source, expected) in table {
        assert_eq!(stripped(source), *expected, "of\n{source}");
    }
}

#[test]
fn annotations_and_arguments_of_types_go() {
    become_each(&[
        (
            "let a: number = 1, b!: string, { c, d: [e] }: T = f;",
            "let a         = 1, b         , { c, d: [e] }    = f;",
        ),
        (
            "function f<T extends U = V>(a: T, b?: number, { c }: D = {}, ...d: E[]): asserts a is T {}",
            "function f                 (a   , b         , { c }    = {}, ...d     )                 {}",
        ),
        (
            "function f(this: A) {} function g(this: A, a: B) {} function h(this: A /* c */ , ) {}",
            "function f(       ) {} function g(         a   ) {} function h(        /* c */   ) {}",
        ),
        (
            "let f = <T,>(a: T): a is U => a, g = async <T>(a?: T): Promise<T> => a, h = function* <T>(): G<T> {};",
            "let f =     (a   )         => a, g = async    (a    )             => a, h = function*    ()       {};",
        ),
        (
            "a as T; b satisfies U; c!; d as unknown as V satisfies W; (e as X).f!.g![0]!(h!);",
            "a     ; b            ; c ; d                            ; (e     ).f .g [0] (h );",
        ),
        (
            "(a as any) = 1; a! += 2; b!.c++; [a as T, b!] = c; ({ d: e as T } = f); for ((g as T) of h!) {}",
            "(a       ) = 1; a  += 2; b .c++; [a     , b ] = c; ({ d: e      } = f); for ((g     ) of h ) {}",
        ),
        (
            "new Map<K, V>(); f<T>(a); f<T>`b`; g?.<T>(a); h<T>?.(b); i = j<T>;",
            "new Map      (); f   (a); f   `b`; g?.   (a); h   ?.(b); i = j   ;",
        ),
        (
            "for (const a of b as T[]) {} for (let i: number = 0; i < (a as T).length; i++) {} try {} catch (e: unknown) {}",
            "for (const a of b       ) {} for (let i         = 0; i < (a     ).length; i++) {} try {} catch (e         ) {}",
        ),
        (
            "x = { m<T>(this: A, a: T): void {}, get g(): T { return 1 }, set g(v: T) {}, async *[k as T]<U>(): V {}, ...(a as T) }",
            "x = { m   (         a   )       {}, get g()    { return 1 }, set g(v   ) {}, async *[k     ]   ()    {}, ...(a     ) }",
        ),
        (
            "`${a as T} ${b!} ${<T,>(x: T) => x}`; switch (a as T) { case b as U: c as V }",
            "`${a     } ${b } ${    (x   ) => x}`; switch (a     ) { case b     : c      }",
        ),
        (
            "let f: (a: T, ...b: U[]) => asserts b is V, g: abstract new () => T, h: `x${string}`, i: { readonly [K in T as U]-?: V }, j: typeof import('x'), k: A extends infer B extends C ? D : -1;",
            "let f                                     , g                      , h              , i                                 , j                    , k                                      ;",
        ),
        ("let ö: 'ä' = 'ü' as '\u{1f600}', after;", "let ö      = 'ü'        , after;"),
        (
            "a ? (b): T => c : d; a ? (b) : (c): T => d; a ? (b) : (c, d as T);",
            "a ? (b)    => c : d; a ? (b) : (c)    => d; a ? (b) : (c, d     );",
        ),
    ]);
}

#[test]
fn statements_of_types_leave_a_semicolon() {
    become_each(&[
        ("const x = 1\ntype A = number\n(f)()", "const x = 1\n;              \n(f)()"),
        (
            "interface A<T> extends B<T>, C { <T>(a: T): U\n new (a: T): V; readonly [k: string]: W; m?(): X }\n[x].y",
            ";                                            \n                                                  \n[x].y",
        ),
        (
            "function f(a: string): void\nfunction f(a: any) {}",
            ";                          \nfunction f(a     ) {}",
        ),
        (
            "declare const a: T, b: U;declare function f(): void\ndeclare class C { x: T }\ndeclare enum E { A }\ndeclare namespace N { const a: 1 }\ndeclare module 'x' { }\ndeclare global { var x: 1 }\n(a)",
            ";                        ;                         \n;                       \n;                   \n;                                 \n;                     \n;                          \n(a)",
        ),
        (
            "namespace A { export type B = 1; interface C {} namespace D.E { type F = 1 } }\n(x)",
            ";                                                                             \n(x)",
        ),
        ("if (a) { type T = 1 } else { interface U {} }", "if (a) { ;          } else { ;              }"),
        ("type A = 1\n'use strict'", ";         \n'use strict'"),
        ("switch (a) { case 1: type T = 1\n (b) }", "switch (a) { case 1: ;         \n (b) }"),
        ("import type A = require('a')\n(b)", ";                           \n(b)"),
    ]);
}

#[test]
fn imports_and_exports_of_types_go() {
    become_each(&[
        (
            "import type A from 'a'\nimport type { B } from 'b'; import type * as C from 'c';",
            ";                     \n;                           ;                           ",
        ),
        (
            "import { type A } from 'a'; import b, { type C, d, type E as F, } from 'e';",
            "import {        } from 'a'; import b, {         d,              } from 'e';",
        ),
        (
            "import { type as as } from 'a'; import { type type } from 'b'; import { type as as as } from 'c';",
            "import { type as as } from 'a'; import {           } from 'b'; import {               } from 'c';",
        ),
        (
            "export type { A } from 'a'; export type * from 'b'; export type * as C from 'c'; export type { D };",
            ";                           ;                       ;                            ;                 ",
        ),
        (
            "export { type A, b, type C as D }; export { type E } from 'e';",
            "export {         b,             }; export {        } from 'e';",
        ),
        (
            "export type A = 1\nexport interface B {}\nexport declare const c: T;\nexport namespace D { type E = 1 }\n(x)",
            ";                \n;                    \n;                         \n;                                \n(x)",
        ),
        ("export default interface A { b: T }\n(x)", ";                                  \n(x)"),
        (
            "export default function f(a: T): void\nexport default function f(a?: any) {}",
            ";                                    \nexport default function f(a      ) {}",
        ),
        (
            "export function f(): void; export function f() {}",
            ";                          export function f() {}",
        ),
        (
            "export const a = 1 as const, b = <T>(c: T) => c; export default (d as T);",
            "export const a = 1         , b =    (c   ) => c; export default (d     );",
        ),
        (
            "export abstract class A {} export default abstract class<T> implements B {}",
            "export          class A {} export default          class                 {}",
        ),
        ("export as namespace A", ";                    "),
    ]);
}

#[test]
fn members_of_classes_lose_what_is_of_types() {
    become_each(&[
        (
            "abstract class A<in out T> extends (B as C)<D> implements E, F.G<H> { }",
            "         class A           extends (B     )                         { }",
        ),
        (
            "(class implements A {}); (class B<T> implements A {}); (class /* a */ implements A {});",
            "(class              {}); (class B                 {}); (class /* a */              {});",
        ),
        (
            "class A { a: T; b?: U = 1; c!: V; #d: W = 2; static e: X; ['f']?: Y; 'g'!: Z; 1: T = 3 }",
            "class A { a;  ; b     = 1; c;   ; #d    = 2; static e;  ; ['f'];   ; 'g';   ; 1    = 3 }",
        ),
        (
            "class A { private a = 1; static readonly b: T = 2; declare c: U; protected override d; public static e = 3; readonly #f: T }",
            "class A { ;       a = 1; static          b    = 2; ;             ;                  d; ;      static e = 3; ;        #f;   }",
        ),
        (
            "class A { abstract a: T; abstract b(): void; abstract get c(): T; abstract accessor d; e() {} }",
            "class A { ;              ;                   ;                    ;                    e() {} }",
        ),
        (
            "class A { constructor(a: T); constructor(a?: any) {} f(): void; f<T>(a?: T) {} private g?(): void {} private async *h() {} protected static get i(): T { return 1 } }",
            "class A { ;                  constructor(a      ) {} ;          f   (a    ) {} ;       g ()       {} ;       async *h() {} ;         static get i()    { return 1 } }",
        ),
        (
            "class A { [k: string]: any; static readonly [k: number]: T\n static { let a: T = 1 } }",
            "class A { ;                 ;                             \n static { let a    = 1 } }",
        ),
        (
            "class A { public public: T = 1; private readonly = 2; readonly readonly: 3; abstract = 4; declare; override; static static: T = 5 }",
            "class A { ;      public    = 1; ;       readonly = 2; ;        readonly;  ; abstract = 4; declare; override; static static    = 5 }",
        ),
        ("class A { get: T\n f() {} }", "class A { get;  \n f() {} }"),
        (
            "class A { set: T\n f() {}\n static: T\n g() {}\n get?\n h() {} }",
            "class A { set;  \n f() {}\n static;  \n g() {}\n get;\n h() {} }",
        ),
        (
            "class A { a = 1\n public [b] = 2\n private *c() {}\n readonly in = 3 }",
            "class A { a = 1\n ;      [b] = 2\n ;       *c() {}\n ;        in = 3 }",
        ),
        ("class A { a: T\n [b]: U\n *c() {} }", "class A { a;  \n [b];  \n *c() {} }"),
        ("class A { a\n declare b: T\n ['c'] = 1 }", "class A { a\n ;           \n ['c'] = 1 }"),
    ]);
}

#[test]
fn lines_do_not_join_where_a_type_has_ended_a_statement() {
    become_each(&[
        ("a as T\n(b)", "a ;   \n(b)"),
        ("a satisfies T\n[b]", "a ;          \n[b]"),
        ("a = b as T // c\n/* d */ `e`", "a = b ;    // c\n/* d */ `e`"),
        ("x = () => a as T\n(b)", "x = () => a ;   \n(b)"),
        ("class A { a = b as T\n [c] = 1 }", "class A { a = b ;   \n [c] = 1 }"),
        ("a as T; (b)", "a     ; (b)"),
        ("(a as T)\n(b)", "(a     )\n(b)"),
        ("a as T\n+b", "a     \n+b"),
        ("a as T\n/b/c", "a     \n/b/c"),
        ("a!\n(b)", "a \n(b)"),
        ("f<T>\n(a)", "f   \n(a)"),
        ("let a: T\n(b)", "let a   \n(b)"),
        ("a = b\nabstract class C {}", "a = b\n         class C {}"),
        (
            "if (a) b as T\nelse c as U\ndo d as T\nwhile (e)",
            "if (a) b     \nelse c     \ndo d     \nwhile (e)",
        ),
        ("a as T\r\n(b)", "a ;   \r\n(b)"),
        ("a as T\u{2028}(b)", "a ;   \u{2028}(b)"),
    ]);
}

#[test]
fn parentheses_move_where_a_line_would_end_too_soon() {
    become_each(&[
        ("f = (a): T\n | U => a", "f = (a    \n   ) => a"),
        ("f = async (a,\n b)\n : Promise<\n T\n> => a", "f = async (a,\n b \n           \n  \n) => a"),
        ("f = (a): {\n ä: T } => a", "f = (a    \n      ) => a"),
        ("f = (): \nÄ => a", "f = (   \n) => a"),
        ("function f() { return <T,\n U>(a: T) => a }", "function f() { return (  \n    a   ) => a }"),
        ("f = async <\nT>(a: T): T => a", "f = async (\n   a   )    => a"),
        ("function f(a):\n T { }", "function f(a) \n   { }"),
        ("f = (a): T => a", "f = (a)    => a"),
        ("async<\nT>(a)", "async \n  (a)"),
    ]);
}

#[test]
fn what_javascript_has_stays_as_it_is() {
    for source in [
        "#!/usr/bin/env aworker\nlet a = b < c, d = e > (f);",
        "var type = 1, declare, module, namespace, abstract, as, satisfies, is, keyof, readonly, infer, asserts, global;",
        "type\nfoo\n(x)",
        "class A { get; set; static; async; readonly; declare; static x = 1; static { } static async *y() {} #z = 1 }",
        "export { a as type, type as b } from 'c'; import type, { d } from 'e'; import data from './d.json' with { type: 'json' };",
        "x = { get: 1, set() {}, async a() {}, [b]: `${c}` }; y = a ? (b) : c => d; for (const [k, v] of e) f?.[k]?.(v);",
        "/* let a: number */ // b as c\n'd: e' + `f as ${g}` + /h:i/.test(j)",
        "await a; for await (const b of c) {}",
        "with (a) b; var await = 010;",
    ] {
        assert_eq!(stripped(source), source);
    }
}

#[test]
fn what_means_something_at_run_time_is_refused_where_it_is() {
    for (source, line, column, reason) in [
        ("let a = 1;\n  enum E { A }", 2, 3, "an enum"),
        ("/* \u{1f600} */ const enum E { A }", 1, 10, "an enum"),
        ("export enum E {}", 1, 8, "an enum"),
        ("namespace N { export const a = 1 }", 1, 1, "a namespace with values"),
        ("namespace A.B { f() }", 1, 1, "a namespace with values"),
        ("namespace N { declare const a: 1 }", 1, 1, "a namespace with values"),
        ("module 'm' {}", 1, 8, "ambient modules"),
        ("export {}; global { var a: T }", 1, 12, "without `declare`"),
        ("import a = require('b')", 1, 1, "`import =`"),
        ("export import a = b.c", 1, 8, "`import =`"),
        ("import a = b.c", 1, 1, "`import =`"),
        ("export = a", 1, 1, "`export =`"),
        ("class A { constructor(private a, b) {} }", 1, 23, "a parameter property"),
        ("class A { constructor(readonly a: T) {} }", 1, 23, "a parameter property"),
        ("class A { constructor(override a: T) {} }", 1, 23, "a parameter property"),
        ("let a = <T>b", 1, 9, "an assertion before its value"),
        ("@a class B {}", 1, 1, "decorators"),
        ("class B { @a() c }", 1, 11, "decorators"),
        ("class B { @a declare c; @b abstract d }", 1, 11, "decorators"),
        ("class B { c(@d e) {} }", 1, 13, "decorators"),
        ("class B { accessor c: T = 1 }", 1, 11, "`accessor`"),
        ("f(() => { enum E {} })\nenum F {}", 1, 11, "an enum"),
        ("enum F {}\nlet a = <T>b", 1, 1, "an enum"),
    ] {
        let refusal = strip(source, Goal::Either).expect_err(source);
        assert_eq!((refusal.line, refusal.column), (line, column), "{source}: {refusal}");
        assert!(refusal.reason.contains(reason), "{source}: {refusal}");
    }
}

#[test]
fn what_is_no_typescript_is_refused_where_it_is() {
    for (source, goal, line, column) in [
        ("let a: = 1", Goal::Either, 1, 8),
        ("let a\r\n\r\nlet b: )", Goal::Module, 3, 8),
        ("let a\u{2028}let b: )", Goal::Module, 2, 8),
        ("f(", Goal::Script, 1, 3),
        ("await a", Goal::Script, 1, 1),
        ("let a: T\n", Goal::Module, 0, 0),
    ] {
        let refusal = strip(source, goal).err();
        let place = refusal.as_ref().map_or((0, 0), |refusal| (refusal.line, refusal.column));
        assert_eq!(place, (line, column), "{source}: {refusal:?}");
    }
    let refusal = strip("a\n  b: enum {\nc", Goal::Module).expect_err("no TypeScript");
    assert_eq!((refusal.line, refusal.text.as_str()), (2, "  b: enum {"));
}

#[test]
fn a_source_says_whether_it_is_a_module() {
    for (source, is_module) in [
        ("let a: T", false),
        ("import type { A } from 'a'", true),
        ("export type A = 1", true),
        ("export {}", true),
        ("await a as T", true),
        ("f(import.meta as T)", true),
        ("import('a')", false),
        ("var await: T", false),
    ] {
        let stripped = strip(source, Goal::Either).expect(source);
        assert_eq!(stripped.is_module, is_module, "{source}");
        assert!(!strip(source, Goal::Module).is_ok_and(|stripped| !stripped.is_module), "{source}");
    }
}
