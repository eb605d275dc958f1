//! Links `aworker` at a fixed address, and makes the startup snapshot: runs every file of `src/js` in name order in a
//! fresh context and writes the heap to `$OUT_DIR/builtins.snapshot`.
//!
//! Operations are not callable here. Each name of `op_list.rs` gets a
//! placeholder of its own that throws, so that the snapshot's references to
//! native functions have the same indices as the library's table
//! (`src/engine/ops.rs`).
//!
//! The `v8` crate finds or downloads its static library itself
//! (`RUSTY_V8_ARCHIVE` names a local copy).

use std::path::{Path, PathBuf};
use std::{env, fs};

include!("src/engine/op_list.rs");
include!("src/engine/snapshot_layout.rs");

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
    // V8's tables of addresses are then ready in the program's file: nothing is relocated at its start, no page of them is private.
    println!("cargo:rustc-link-arg-bin=aworker=-no-pie");
    println!("cargo:rerun-if-changed=src/js");
    println!("cargo:rerun-if-changed=src/engine/op_list.rs");
    println!("cargo:rerun-if-changed=src/engine/snapshot_layout.rs");
    v8::V8::set_flags_from_string(SNAPSHOT_FLAGS);
    v8::V8::initialize_platform(v8::new_single_threaded_default_platform(false).make_shared());
    v8::V8::initialize();

    let blob = snapshot(&builtin_files(Path::new("src/js")));
    assert!(blob.can_be_rehashed(), "the snapshot would fix the string hash seed at build time");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("builtins.snapshot");
    fs::write(&out, &*blob).unwrap_or_else(|error| fail(&format!("write {}: {error}", out.display())));
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
fn snapshot(files: &[PathBuf]) -> v8::StartupData {
    let ops = placeholder_table();
    let references: Vec<v8::ExternalReference> =
        ops.iter().map(|(_, function)| v8::ExternalReference { function: *function }).collect();
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
            let function = v8::Function::builder_raw(function).build(scope).expect("a function");
            function.set_name(key);
            table.set(scope, key.into(), function.into());
        }
        let arguments =
            [primordials, table, internals, context.global(scope)].map(v8::Local::<v8::Value>::from);
        for file in files {
            run(scope, file, &arguments);
        }
        for file in builtin_files(Path::new("src/js/lazy")) {
            compile(scope, &file);
        }
        scope.set_default_context(context);
        let index = scope.add_context_data(context, internals);
        assert_eq!(index, INTERNALS_INDEX);
    }
    isolate.create_blob(v8::FunctionCodeHandling::Keep).expect("V8 makes the snapshot")
}

/// Compiles one file, which is loaded late, only to see whether it can be compiled.
fn compile(scope: &mut v8::PinScope<'_, '_>, file: &Path) {
    v8::scope!(let scope, scope);
    v8::tc_scope!(let scope, scope);
    if function(scope, file).is_none() {
        fail(&describe(scope, file));
    }
}

/// Runs one file as the body of a strict function of the four arguments.
fn run(scope: &mut v8::PinScope<'_, '_>, file: &Path, arguments: &[v8::Local<v8::Value>]) {
    {
        v8::tc_scope!(let scope, scope);
        let receiver = v8::undefined(scope).into();
        let done = function(scope, file).and_then(|function| function.call(scope, receiver, arguments));
        if done.is_none() {
            fail(&describe(scope, file));
        }
    }
    scope.perform_microtask_checkpoint();
}

/// The text with empty lines in the place of its comments: every process keeps the
/// source of the built-ins in its heap. Comments begin a line, by the style of these files.
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
fn function<'s>(scope: &mut v8::PinScope<'s, '_>, file: &Path) -> Option<v8::Local<'s, v8::Function>> {
    println!("cargo:rerun-if-changed={}", file.display());
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| fail(&format!("read {}: {error}", file.display())));
    // The directive shares the first line, so that line numbers stay right.
    let text = v8::String::new(scope, &format!("'use strict';{}", without_comments(&text)))
        .expect("a built-in fits into a string");
    let name = format!("aworker:{}", file.file_stem().expect("a file name").to_string_lossy());
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
