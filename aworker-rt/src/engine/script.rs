//! A user's program: classic script or module, and how it is told which.

use std::path::Path;

use super::conversions::string;
use super::exceptions::{self, CatchScope, ScriptError};
use super::specifier::ModuleName;
use super::{import_scripts, module_files, modules, source_maps, typed};
use crate::typescript::Goal;

/// The source of a program.
#[derive(Clone, Debug)]
pub struct Script {
    name: ModuleName,
    text: String,
}

impl Script {
    /// Reads a program from a file; a relative path is taken from the working
    /// directory.
    ///
    /// # Errors
    /// `open /app/worker.js: no such file or directory`, and the like.
    pub fn read(path: &Path) -> Result<Script, ScriptError> {
        let absolute = std::path::absolute(path)
            .map_err(|error| ScriptError::new(format!("open {}: {error}", path.display())))?;
        let absolute = absolute.to_string_lossy().into_owned();
        let text = module_files::read_source(&absolute).map_err(ScriptError::new)?;
        Ok(Script { name: ModuleName::from_path(&absolute), text })
    }

    /// A program that comes from elsewhere than a file. Stack traces show `name`;
    /// if it is an absolute path, relative imports start there.
    pub fn from_text(name: &str, text: impl Into<String>) -> Script {
        Script { name: ModuleName::from_path(name), text: text.into() }
    }

    /// The URL of the program: `about:blank` if it does not come from a file.
    pub fn url(&self) -> String {
        match self.name().starts_with('/') {
            true => self.name.url().to_owned(),
            false => "about:blank".to_owned(),
        }
    }

    /// The name that stack traces show.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// What came of running a program's top level.
pub enum Loaded {
    /// A classic script has run; its completion value.
    Classic(v8::Global<v8::Value>),
    /// A module is being evaluated: it has run once the promise is settled.
    Module {
        /// Settled when the module and all it awaits has run.
        evaluated: v8::Global<v8::Promise>,
        /// Its exports.
        namespace: v8::Global<v8::Object>,
    },
}

/// What V8 says, in these words, of module syntax in a classic script: the error
/// as a module is then the one to tell.
const MODULE_SYNTAX: [&str; 5] = [
    "Cannot use import statement outside a module",
    "Unexpected token 'export'",
    "Cannot use 'import.meta' outside a module",
    "await is only valid in async functions and the top level bodies of modules",
    "Unexpected reserved word",
];

/// Compiles and runs a program.
///
/// `.mjs` and `.mts` are modules, `.cjs` is a classic script, `.ts` is what it looks like; anything else is tried as a
/// classic script first, and then as a module, for `import`, `export`,
/// `import.meta` or a top-level `await`.
///
/// # Errors
/// Syntax errors, imports that fail, and what the top level throws.
pub fn load(scope: &mut v8::PinScope<'_, '_>, script: &Script) -> Result<Loaded, ScriptError> {
    v8::tc_scope!(let scope, scope);
    let source = typed::javascript(script.name(), &script.text, Goal::Either)
        .map_err(|refusal| exceptions::refused(script.name(), &refusal))?;
    let (is_module, is_classic) = match source.is_module {
        Some(is_module) => (is_module, !is_module),
        None => (script.name().ends_with(".mjs"), script.name().ends_with(".cjs")),
    };
    if is_module {
        return load_module(scope, script, &source.text, None);
    }
    if let Some(compiled) = compile_classic(scope, &script.name, &source.text) {
        import_scripts::allow(scope);
        let value = compiled.run(scope).ok_or_else(|| exceptions::caught(scope))?;
        return Ok(Loaded::Classic(v8::Global::new(scope, value)));
    }
    let error = exceptions::caught(scope);
    if is_classic {
        return Err(error);
    }
    let as_script = (!is_module_syntax(scope)).then_some(error);
    scope.reset();
    load_module(scope, script, &source.text, as_script)
}

/// Runs a program as a module. If it is none, `as_script` says what is wrong with it as a script.
fn load_module(
    scope: &mut CatchScope<'_, '_, '_, '_>,
    script: &Script,
    text: &str,
    as_script: Option<ScriptError>,
) -> Result<Loaded, ScriptError> {
    let Some(module) = modules::compile_main(scope, &script.name, &script.text, text) else {
        return Err(as_script.unwrap_or_else(|| exceptions::caught(scope)));
    };
    let evaluated = modules::run(scope, module).ok_or_else(|| exceptions::caught(scope))?;
    // The loop reports how the evaluation ends.
    evaluated.mark_as_handled();
    let evaluated = v8::Global::new(scope, evaluated);
    let namespace = module.get_module_namespace().cast::<v8::Object>();
    Ok(Loaded::Module { evaluated, namespace: v8::Global::new(scope, namespace) })
}

/// Compiles and runs a small program, so that what V8 makes for the first one is there: it listens to `fetch`, and
/// gives a function that ends this. One of another number is compiled again; the same one V8 would remember. Tells what failed.
pub fn warm_up_compiler(
    scope: &mut v8::PinScope<'_, '_>,
    number: u32,
) -> Result<v8::Global<v8::Function>, String> {
    v8::scope!(let scope, scope);
    let text = format!(
        "(function warmUp(one) {{
           const listener = (event) => event.respondWith(new Response([one].map((each) => `${{each}}`)[0]));
           addEventListener('fetch', listener);
           return () => removeEventListener('fetch', listener);
         }})({number});"
    );
    let name = ModuleName::from_path("aworker:warm-up");
    let value = compile_classic(scope, &name, &text).and_then(|compiled| compiled.run(scope));
    let undo = value.and_then(|value| value.try_cast::<v8::Function>().ok());
    let undo = undo.ok_or_else(|| "the script of the warm-up failed".to_owned())?;
    Ok(v8::Global::new(scope, undo))
}

/// Adds a name to V8's table of names: after a collection of garbage the next name makes it resize the table, in every
/// worker if not here.
pub fn warm_up_names(scope: &mut v8::PinScope<'_, '_>) {
    v8::scope!(let scope, scope);
    // A short text is always a string.
    let _ = v8::String::new_from_utf8(scope, b"aworker: one more name", v8::NewStringType::Internalized);
}

fn compile_classic<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    text: &str,
) -> Option<v8::Local<'s, v8::Script>> {
    let source = string(scope, text);
    let shown = string(scope, name.as_str());
    let origin = v8::ScriptOrigin::new(scope, shown.into(), 0, 0, false, 0, None, false, false, false, None);
    let compiled = v8::Script::compile(scope, source, Some(&origin))?;
    let mapping = compiled.get_unbound_script(scope).get_source_mapping_url(scope);
    source_maps::note(scope, name.as_str(), name.url(), mapping);
    Some(compiled)
}

fn is_module_syntax(scope: &CatchScope<'_, '_, '_, '_>) -> bool {
    let message =
        scope.message().map(|message| message.get(scope).to_rust_string_lossy(scope)).unwrap_or_default();
    MODULE_SYNTAX.iter().any(|text| message.contains(text))
}
