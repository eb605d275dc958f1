//! Links `aworker` statically and at a fixed address, and makes the startup snapshot: runs every file of `src/js` in name order in a
//! fresh context and writes the heap to `$OUT_DIR/builtins.snapshot`.
//!
//! Operations are not callable here. Each name of `op_list.rs` gets a
//! placeholder of its own that throws, so that the snapshot's references to
//! native functions have the same indices as the library's table
//! (`src/engine/ops.rs`). Only while the built-ins go through a worker's life once, so that
//! what every worker runs is compiled already, placeholders give `undefined`.
//!
//! The text of the built-ins is no part of the heap: it stays in the program's file, where nobody reads it who needs
//! no further function compiled (`$OUT_DIR/builtin_sources.rs` lists it for the library).
//!
//! The `v8` crate finds or downloads its static library itself
//! (`RUSTY_V8_ARCHIVE` names a local copy).

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

include!("src/engine/op_list.rs");
include!("src/engine/snapshot_layout.rs");
include!("../build/static_link.rs");
include!("../build/touched.rs");

thread_local! {
    /// Whether operations do nothing at this moment, rather than throw.
    static REHEARSING: Cell<bool> = const { Cell::new(false) };
}

/// Defines one placeholder per operation and the table of all of them.
macro_rules! placeholders {
    ($($name:ident => $path:path,)*) => {
        mod placeholder {
            $(
                /// Stands in for the operation of this name.
                pub fn $name(
                    scope: &mut v8::PinScope<'_, '_>,
                    _: v8::FunctionCallbackArguments,
                    _: v8::ReturnValue,
                ) {
                    if crate::REHEARSING.get() {
                        return;
                    }
                    let text = concat!("ops.", stringify!($name), " is not callable while the built-ins load");
                    let text = v8::String::new(scope, text).expect("a short string");
                    let error = v8::Exception::type_error(scope, text);
                    scope.throw_exception(error);
                }
            )*
        }
        fn placeholder_table() -> Vec<(&'static str, v8::FunctionCallback)> {
            use v8::MapFnTo;
            vec![$((stringify!($name), placeholder::$name.map_fn_to()),)*]
        }
    };
}
for_each_op!(placeholders);

fn main() {
    // V8's tables of addresses are then ready in the program's file: nothing is relocated at its start, no page of them is
    // private; and no library is looked for.
    link_statically("aworker", &["c", "m", "dl", "pthread", "rt", "util"], &["dlsym"]);
    lay_touched("aworker", "touched.txt");
    println!("cargo:rerun-if-changed=../build/static_link.rs");
    println!("cargo:rerun-if-changed=../build/touched.rs");
    println!("cargo:rerun-if-changed=src/js");
    println!("cargo:rerun-if-changed=src/engine/op_list.rs");
    println!("cargo:rerun-if-changed=src/engine/snapshot_layout.rs");
    v8::V8::set_flags_from_string(SNAPSHOT_FLAGS);
    v8::V8::initialize_platform(v8::new_single_threaded_default_platform(false).make_shared());
    v8::V8::initialize();

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let files: Vec<Builtin> = builtin_files(Path::new("src/js")).into_iter().map(read).collect();
    write_sources(&out, &files);
    let blob = snapshot(&files);
    assert!(blob.can_be_rehashed(), "the snapshot would fix the string hash seed at build time");
    write(&out.join("builtins.snapshot"), &blob);
}

/// A file as V8 gets it. Its text is never given back: the heap refers to it.
struct Builtin {
    path: PathBuf,
    text: &'static v8::OneByteConst,
}

fn read(path: PathBuf) -> Builtin {
    println!("cargo:rerun-if-changed={}", path.display());
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| fail(&format!("read {}: {error}", path.display())));
    // The directive shares the first line, so that line numbers stay right.
    let text = format!("'use strict';{}", without_comments(&text));
    if !text.is_ascii() {
        fail(&format!(
            "{}: code of built-ins is ASCII; write other characters as \\u escapes",
            path.display()
        ));
    }
    let text = v8::String::create_external_onebyte_const(Box::leak(text.into_bytes().into_boxed_slice()));
    Builtin { path, text: Box::leak(Box::new(text)) }
}

/// Writes the texts and the list of them, in load order, for `src/engine/ops.rs`.
fn write_sources(out: &Path, files: &[Builtin]) {
    let directory = out.join("sources");
    fs::create_dir_all(&directory)
        .unwrap_or_else(|error| fail(&format!("make {}: {error}", directory.display())));
    let mut list =
        "/// The text of each built-in, in load order.\nstatic SOURCES: &[v8::OneByteConst] = &[\n"
            .to_owned();
    for Builtin { path, text } in files {
        let file = directory.join(path.file_name().expect("a file name"));
        write(&file, text.as_str().as_bytes());
        let _ = writeln!(list, "    v8::String::create_external_onebyte_const(include_bytes!({file:?})),");
    }
    list.push_str("];\n");
    write(&out.join("builtin_sources.rs"), list.as_bytes());
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| fail(&format!("write {}: {error}", path.display())));
}

/// The built-in files in load order.
fn builtin_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| fail(&format!("read {}: {error}", directory.display())));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "js"))
        .collect();
    files.sort();
    files
}

/// Runs the files and returns the heap they leave behind.
fn snapshot(files: &[Builtin]) -> v8::StartupData {
    let ops = placeholder_table();
    let functions = ops.iter().map(|(_, function)| v8::ExternalReference { function: *function });
    let texts = files.iter().map(|file| std::ptr::from_ref(file.text).cast_mut().cast());
    let references: Vec<v8::ExternalReference> =
        functions.chain(texts.map(|pointer| v8::ExternalReference { pointer })).collect();
    let mut isolate = v8::Isolate::snapshot_creator(Some(references.into()), None);
    {
        v8::scope!(let scope, &mut isolate);
        let context = v8::Context::new(scope, v8::ContextOptions::default());
        let scope = &mut v8::ContextScope::new(scope, context);
        let primordials = v8::Object::new(scope);
        let internals = v8::Object::new(scope);
        let callbacks = v8::Object::new(scope);
        set(scope, internals, "callbacks", callbacks.into());
        let table = v8::Object::new(scope);
        for (name, function) in ops {
            let key = v8::String::new(scope, name).expect("an operation's name");
            // Without the prototype that a constructor has: it and its hidden class are as large as the rest.
            let function = v8::Function::builder_raw(function)
                .constructor_behavior(v8::ConstructorBehavior::Throw)
                .build(scope)
                .expect("a function");
            function.set_name(key);
            table.set(scope, key.into(), function.into());
        }
        let arguments =
            [primordials, table, internals, context.global(scope)].map(v8::Local::<v8::Value>::from);
        for file in files {
            run(scope, file, &arguments);
        }
        let lazy: Vec<Builtin> = builtin_files(Path::new("src/js/lazy")).into_iter().map(read).collect();
        lazy.iter().for_each(|file| compile(scope, file));
        prune(scope, primordials, files, &lazy);
        rehearse(scope, callbacks);
        scope.set_default_context(context);
        let index = scope.add_context_data(context, internals);
        assert_eq!(index, INTERNALS_INDEX);
    }
    isolate.create_blob(v8::FunctionCodeHandling::Keep).expect("V8 makes the snapshot")
}

/// Takes away the primordials that no file can name any more: what a file has taken while it loaded it keeps by itself, the rest is
/// what functions name as `primordials.NAME` (to take names out of it is for the top of a file), and any word of a file that is
/// loaded late.
fn prune(
    scope: &mut v8::PinScope<'_, '_>,
    primordials: v8::Local<v8::Object>,
    files: &[Builtin],
    lazy: &[Builtin],
) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut needed: HashSet<&str> =
        lazy.iter().flat_map(|file| file.text.as_str().split(|c| !is_name(c))).collect();
    for file in files {
        let is_late = |line: &&str| line.starts_with(' ') && line.ends_with("} = primordials;");
        if let Some(line) = file.text.as_str().lines().find(is_late) {
            fail(&format!("{}: `{}` belongs to the top of the file", file.path.display(), line.trim()));
        }
        let named = file.text.as_str().split("primordials.").skip(1);
        needed.extend(named.filter_map(|rest| rest.split(|c| !is_name(c)).next()));
    }
    let needed: Vec<&str> = needed.into_iter().collect();
    let needed = v8::String::new(scope, &needed.join(" ")).expect("a list of names");
    let keep = v8::String::new(scope, KEEP_ONLY).expect("a short script");
    let keep = v8::Script::compile(scope, keep, None).and_then(|script| script.run(scope));
    let keep =
        keep.and_then(|keep| keep.try_cast::<v8::Function>().ok()).expect("a script that gives a function");
    let receiver = v8::undefined(scope).into();
    keep.call(scope, receiver, &[primordials.into(), needed.into()]).expect("a function that does not throw");
}

/// Deletes all properties but those named and freezes the rest. What is left is a table with room for what was there, until the
/// object is used as a prototype: then V8 gives it the form of other objects.
const KEEP_ONLY: &str = "(object, names) => {
    'use strict';
    const needed = new Set(names.split(' '));
    for (const name of Object.keys(object)) if (!needed.has(name)) delete object[name];
    Object.freeze(object);
    ({ __proto__: object }).name;
}";

/// Goes through a worker's life once, so that the functions it calls are in the snapshot as bytecode.
fn rehearse(scope: &mut v8::PinScope<'_, '_>, callbacks: v8::Local<v8::Object>) {
    let key = v8::String::new(scope, "rehearse").expect("a short string");
    {
        v8::tc_scope!(let scope, scope);
        let function =
            callbacks.get(scope, key.into()).and_then(|function| function.try_cast::<v8::Function>().ok());
        REHEARSING.set(true);
        let receiver = v8::undefined(scope).into();
        if function.and_then(|function| function.call(scope, receiver, &[])).is_none() {
            fail(&describe(scope, Path::new("internals.callbacks.rehearse")));
        }
        REHEARSING.set(false);
    }
    callbacks.delete(scope, key.into());
    scope.perform_microtask_checkpoint();
}

/// Compiles one file, which is loaded late, only to see whether it can be compiled.
fn compile(scope: &mut v8::PinScope<'_, '_>, file: &Builtin) {
    v8::scope!(let scope, scope);
    v8::tc_scope!(let scope, scope);
    if function(scope, file).is_none() {
        fail(&describe(scope, &file.path));
    }
}

/// Runs one file as the body of a strict function of the four arguments.
fn run(scope: &mut v8::PinScope<'_, '_>, file: &Builtin, arguments: &[v8::Local<v8::Value>]) {
    {
        v8::tc_scope!(let scope, scope);
        let receiver = v8::undefined(scope).into();
        let done = function(scope, file).and_then(|function| function.call(scope, receiver, arguments));
        if done.is_none() {
            fail(&describe(scope, &file.path));
        }
    }
    scope.perform_microtask_checkpoint();
}

/// The text with empty lines in the place of its comments. Comments begin a line, by the style of these files.
fn without_comments(text: &str) -> String {
    let mut in_block = false;
    let lines = text.lines().map(|line| {
        let start = line.trim_start();
        let is_comment = in_block || start.starts_with("//") || start.starts_with("/*");
        in_block = (in_block || start.starts_with("/*")) && !start.contains("*/");
        if is_comment { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A file as a strict function of the four arguments; `None` with an exception pending.
fn function<'s>(scope: &mut v8::PinScope<'s, '_>, file: &Builtin) -> Option<v8::Local<'s, v8::Function>> {
    let text = v8::String::new_from_onebyte_const(scope, file.text).expect("a built-in fits into a string");
    let name = format!("aworker:{}", file.path.file_stem().expect("a file name").to_string_lossy());
    let name = v8::String::new(scope, &name).expect("a short string");
    let origin = v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, 0, None, false, false, false, None);
    let mut source = v8::script_compiler::Source::new(text, Some(&origin));
    let parameters = ["primordials", "ops", "internals", "globalThis"]
        .map(|name| v8::String::new(scope, name).expect("a name"));

    v8::script_compiler::compile_function(
        scope,
        &mut source,
        &parameters,
        &[],
        v8::script_compiler::CompileOptions::NoCompileOptions,
        v8::script_compiler::NoCacheReason::NoReason,
    )
}

/// What went wrong and where, from a try-catch scope that caught something.
fn describe(scope: &v8::PinnedRef<'_, v8::TryCatch<'_, '_, v8::HandleScope<'_>>>, file: &Path) -> String {
    let line = scope.message().and_then(|message| message.get_line_number(scope)).unwrap_or(0);
    let stack = scope.stack_trace().filter(|stack| stack.is_string()).or_else(|| scope.exception());
    let stack = stack.map(|stack| stack.to_rust_string_lossy(scope)).unwrap_or_default();
    format!("{}:{line}: {stack}", file.display())
}

/// Sets one property of an object.
fn set(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<v8::Object>,
    name: &str,
    value: v8::Local<v8::Value>,
) {
    let key = v8::String::new(scope, name).expect("a short string");
    object.set(scope, key.into(), value);
}

/// Ends the build with a message.
fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1);
}
