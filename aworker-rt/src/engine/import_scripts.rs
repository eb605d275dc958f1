//! `importScripts`: another classic script, read from a file and run to its end
//! before the call returns.
//! <https://html.spec.whatwg.org/#import-scripts-into-worker-global-scope>

use super::conversions::{self, string};
use super::specifier::ModuleName;
use super::{module_files, source_maps, typed};
use crate::typescript::Goal;

/// The program is a classic script: it may import others.
struct Classic;

/// Says that the program is a classic script, before it runs.
pub(super) fn allow(scope: &mut v8::PinScope<'_, '_>) {
    scope.set_slot(Classic);
}

/// `ops.imports_scripts()`: whether the program is a classic script.
pub(crate) fn imports_scripts(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let classic = scope.get_slot::<Classic>().is_some();
    result.set_bool(classic);
}

/// `ops.read_script(path)`: a script's text, or throws an Error that says why not.
pub(crate) fn read_script(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let path = arguments.get(0).to_rust_string_lossy(scope);
    match module_files::read_source(&path) {
        Ok(text) => result.set(string(scope, &text).into()),
        Err(message) => conversions::throw_error(scope, &message),
    }
}

/// `ops.run_script(text, name)`: compiles and runs a classic script; what it
/// throws is thrown on.
pub(crate) fn run_script(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let name = arguments.get(1);
    let Ok(text) = arguments.get(0).try_cast::<v8::String>() else {
        return conversions::throw_type_error(scope, "run_script: the text must be a string");
    };
    let shown = name.to_rust_string_lossy(scope);
    let text = match typed::is_typed(&shown) {
        false => text,
        true => match typed::javascript(&shown, &text.to_rust_string_lossy(scope), Goal::Script) {
            Ok(source) => string(scope, &source.text),
            Err(refusal) => return conversions::throw_syntax_error(scope, &format!("{shown}:{refusal}")),
        },
    };
    let origin = v8::ScriptOrigin::new(scope, name, 0, 0, false, 0, None, false, false, false, None);
    if let Some(script) = v8::Script::compile(scope, text, Some(&origin)) {
        let mapping = script.get_unbound_script(scope).get_source_mapping_url(scope);
        source_maps::note(scope, &shown, ModuleName::from_path(&shown).url(), mapping);
        script.run(scope);
    }
}
