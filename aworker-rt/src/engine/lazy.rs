//! Built-ins that are too large for what few scripts need them: files of `src/js/lazy`,
//! kept as text in the program, outside of the startup snapshot, and compiled when a
//! built-in first asks for them. They are written like the others and are called with
//! the same arguments.

/// Name and text of each file.
const FILES: &[(&str, &str)] = &[
    ("crypto_algorithms", include_str!("../js/lazy/crypto_algorithms.js")),
    ("crypto_curves", include_str!("../js/lazy/crypto_curves.js")),
    ("crypto_jwk", include_str!("../js/lazy/crypto_jwk.js")),
    ("crypto_methods", include_str!("../js/lazy/crypto_methods.js")),
    ("crypto_rsa", include_str!("../js/lazy/crypto_rsa.js")),
    ("crypto_symmetric", include_str!("../js/lazy/crypto_symmetric.js")),
];

/// `ops.lazy_builtin(name)`: the file as a function of `(primordials, ops, internals, globalThis)`.
pub(crate) fn lazy_builtin(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let name = arguments.get(0).to_rust_string_lossy(scope);
    let (name, text) = FILES.iter().find(|(file, _)| *file == name).expect("a file of the list");
    if let Some(function) = compile(scope, name, text) {
        result.set(function.into());
    }
}

fn compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &str,
    text: &str,
) -> Option<v8::Local<'s, v8::Function>> {
    // As in `build.rs`: the directive shares the first line.
    let text = v8::String::new(scope, &format!("'use strict';{text}"))?;
    let name = v8::String::new(scope, &format!("aworker:{name}"))?;
    let origin = v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, 0, None, false, false, false, None);
    let mut source = v8::script_compiler::Source::new(text, Some(&origin));
    let parameters = ["primordials", "ops", "internals", "globalThis"];
    let parameters = parameters.map(|name| v8::String::new(scope, name).expect("a short string"));
    v8::script_compiler::compile_function(
        scope,
        &mut source,
        &parameters,
        &[],
        v8::script_compiler::CompileOptions::NoCompileOptions,
        v8::script_compiler::NoCacheReason::NoReason,
    )
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn every_file_of_the_directory_is_listed() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/js/lazy");
        let mut found: Vec<String> = std::fs::read_dir(directory)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        found.sort_unstable();
        let listed: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.js")).collect();
        assert_eq!(found, listed);
    }
}
