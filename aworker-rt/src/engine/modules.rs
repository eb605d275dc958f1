//! ES modules: loading a graph of files, linking, evaluation, `import()`,
//! `import.meta`, JSON modules.
//!
//! Files are read synchronously when a graph is loaded; afterwards everything
//! needed for linking is in the module map, which lives in a slot of the isolate.
//! Errors are JavaScript exceptions that name the importer and the specifier.

use std::collections::HashMap;
use std::num::NonZeroI32;

use super::conversions::{self, string, throw_type_error};
use super::specifier::{self, ModuleName};

/// Most modules of one worker: a guard against generated, endless graphs.
const MAX_MODULES: usize = 10_000;

/// Largest source file. V8's longest string is about 500 MB; a bundle of this
/// size would not start in any sensible time.
const MAX_SOURCE_BYTES: u64 = 64 << 20;

/// What a file is loaded as; the same file as two kinds is two modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    JavaScript,
    Json,
}

/// A compiled module.
struct Entry {
    module: v8::Global<v8::Module>,
    name: ModuleName,
    /// The default export of a JSON module until it is evaluated.
    json: Option<v8::Global<v8::Value>>,
}

/// All modules of the isolate.
#[derive(Default)]
struct ModuleMap {
    entries: Vec<Entry>,
    by_name: HashMap<(ModuleName, Kind), usize>,
    /// V8 does not promise that identity hashes are unique.
    by_hash: HashMap<NonZeroI32, Vec<usize>>,
}

impl ModuleMap {
    fn insert(&mut self, entry: Entry, kind: Kind, hash: NonZeroI32) {
        let index = self.entries.len();
        self.by_name.insert((entry.name.clone(), kind), index);
        self.by_hash.entry(hash).or_default().push(index);
        self.entries.push(entry);
    }

    fn find(&mut self, module: v8::Local<v8::Module>) -> Option<&mut Entry> {
        let indices = self.by_hash.get(&module.get_identity_hash())?;
        let index = *indices.iter().find(|index| self.entries[**index].module == module)?;
        self.entries.get_mut(index)
    }
}

fn map(isolate: &mut v8::Isolate) -> &mut ModuleMap {
    if isolate.get_slot::<ModuleMap>().is_none() {
        isolate.set_slot(ModuleMap::default());
    }
    isolate.get_slot_mut::<ModuleMap>().expect("set above")
}

/// Registers the callbacks for `import()` and `import.meta`.
pub(super) fn install(isolate: &mut v8::Isolate) {
    isolate.set_host_import_module_dynamically_callback(import_dynamically);
    isolate.set_host_initialize_import_meta_object_callback(initialise_import_meta);
}

/// Compiles source text as a module and enters it into the map.
/// An exception is pending if there is none.
pub(super) fn compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    text: &str,
) -> Option<v8::Local<'s, v8::Module>> {
    let source = string(scope, text);
    let resource = string(scope, name.as_str());
    let origin =
        v8::ScriptOrigin::new(scope, resource.into(), 0, 0, false, 0, None, false, false, true, None);
    let mut source = v8::script_compiler::Source::new(source, Some(&origin));
    let module = v8::script_compiler::compile_module(scope, &mut source)?;
    let entry = Entry { module: v8::Global::new(scope, module), name: name.clone(), json: None };
    map(scope).insert(entry, Kind::JavaScript, module.get_identity_hash());
    Some(module)
}

/// Loads what the module imports, links and evaluates it; the promise of its
/// evaluation. An exception is pending if there is none.
pub(super) fn run<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    module: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Promise>> {
    if module.get_status() == v8::ModuleStatus::Errored {
        scope.throw_exception(module.get_exception());
        return None;
    }
    load_imports(scope, module)?;
    module.instantiate_module(scope, resolve_for_linking)?;
    module.evaluate(scope)?.try_cast::<v8::Promise>().ok()
}

/// Compiles every module the graph below `root` needs and the map lacks.
fn load_imports<'s>(scope: &mut v8::PinScope<'s, '_>, root: v8::Local<'s, v8::Module>) -> Option<()> {
    let mut waiting = vec![root];
    let mut seen = std::collections::HashSet::new();
    while let Some(module) = waiting.pop() {
        if module.get_status() != v8::ModuleStatus::Uninstantiated || !module.is_source_text_module() {
            continue;
        }
        let referrer = map(scope).find(module)?.name.clone();
        if !seen.insert(referrer.clone()) {
            continue;
        }
        let requests = module.get_module_requests();
        for index in 0..requests.length() {
            let request = requests.get(scope, index)?.cast::<v8::ModuleRequest>();
            let place = module.source_offset_to_location(request.get_source_offset());
            let importer = format!(
                "{}:{}:{}",
                referrer.as_str(),
                place.get_line_number() + 1,
                place.get_column_number() + 1
            );
            let specifier = request.get_specifier().to_rust_string_lossy(scope);
            let attributes = attributes(scope, request.get_import_attributes(), 3);
            waiting.push(load(scope, &specifier, referrer.as_str(), &importer, &attributes)?);
        }
    }
    Some(())
}

/// The module a specifier means, from the map or its file.
/// An exception is pending if there is none.
fn load<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    specifier: &str,
    referrer: &str,
    importer: &str,
    attributes: &[(String, String)],
) -> Option<v8::Local<'s, v8::Module>> {
    let found = target(specifier, referrer, attributes)
        .and_then(|(name, kind)| find_or_read(scope, &name, kind).map(|found| (name, kind, found)));
    let (name, kind, found) = match found {
        Ok(found) => found,
        Err(reason) => {
            throw_type_error(scope, &format!("cannot import \"{specifier}\" from {importer}: {reason}"));
            return None;
        }
    };
    match (found, kind) {
        (Found::Compiled(module), _) => Some(v8::Local::new(scope, module)),
        (Found::Source(text), Kind::JavaScript) => compile(scope, &name, &text),
        (Found::Source(text), Kind::Json) => compile_json(scope, &name, &text),
    }
}

/// Name and kind of the module that an import asks for.
fn target(
    specifier: &str,
    referrer: &str,
    attributes: &[(String, String)],
) -> Result<(ModuleName, Kind), String> {
    let mut kind = Kind::JavaScript;
    for (key, value) in attributes {
        match (key.as_str(), value.as_str()) {
            ("type", "json") => kind = Kind::Json,
            ("type", other) => return Err(format!("modules of type \"{other}\" are not supported")),
            (other, _) => return Err(format!("the import attribute \"{other}\" is not supported")),
        }
    }
    let name = specifier::resolve(specifier, referrer)?;
    if kind == Kind::JavaScript && name.path().ends_with(".json") {
        return Err("a JSON module needs `with { type: \"json\" }`".to_owned());
    }
    Ok((name, kind))
}

/// A module of the map, or the text to make one of.
enum Found {
    Compiled(v8::Global<v8::Module>),
    Source(String),
}

fn find_or_read(isolate: &mut v8::Isolate, name: &ModuleName, kind: Kind) -> Result<Found, String> {
    let map = map(isolate);
    if let Some(index) = map.by_name.get(&(name.clone(), kind)) {
        return Ok(Found::Compiled(map.entries[*index].module.clone()));
    }
    if map.entries.len() >= MAX_MODULES {
        return Err(format!("there are {MAX_MODULES} modules already"));
    }
    read_source(&name.path()).map(Found::Source)
}

/// Reads a source file as UTF-8, without its byte order mark.
///
/// # Errors
/// `open /path: no such file or directory`, and the like.
pub(super) fn read_source(path: &str) -> Result<String, String> {
    use std::io::Read;
    let explain = |operation: &str, error: &std::io::Error| format!("{operation} {path}: {}", reason(error));
    let file = std::fs::File::open(path).map_err(|error| explain("open", &error))?;
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| explain("read", &error))?;
    if bytes.len() as u64 > MAX_SOURCE_BYTES {
        return Err(format!("read {path}: the file is larger than {} MB", MAX_SOURCE_BYTES >> 20));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The system's words, in lower case as other runtimes print them.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let text = nix::errno::Errno::from_raw(code).desc();
            text[..1].to_lowercase() + &text[1..]
        }
        None => error.to_string(),
    }
}

/// Parses JSON and wraps it into a module with a default export.
fn compile_json<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    text: &str,
) -> Option<v8::Local<'s, v8::Module>> {
    let value = parse_json(scope, name, text)?;
    let value = v8::Global::new(scope, value);
    let resource = string(scope, name.as_str());
    let exports = [string(scope, "default")];
    let module = v8::Module::create_synthetic_module(scope, resource, &exports, evaluate_json);
    let entry = Entry { module: v8::Global::new(scope, module), name: name.clone(), json: Some(value) };
    map(scope).insert(entry, Kind::Json, module.get_identity_hash());
    Some(module)
}

/// JSON.parse, whose error names the file.
fn parse_json<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    text: &str,
) -> Option<v8::Local<'s, v8::Value>> {
    let text = string(scope, text);
    let problem = {
        v8::tc_scope!(let scope, scope);
        if let Some(value) = v8::json::parse(scope, text) {
            return Some(value);
        }
        scope.exception().map(|exception| exception.to_rust_string_lossy(scope)).unwrap_or_default()
    };
    let message = string(scope, &format!("{}: {}", name.path(), problem.trim_start_matches("SyntaxError: ")));
    let error = v8::Exception::syntax_error(scope, message);
    scope.throw_exception(error);
    None
}

/// Evaluation steps of a JSON module.
fn evaluate_json<'s>(
    context: v8::Local<'s, v8::Context>,
    module: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Value>> {
    // SAFETY: V8 calls this with the current context, while no other scope of
    // ours is in use.
    v8::callback_scope!(unsafe scope, context);
    let value = map(scope).find(module)?.json.take()?;
    let value = v8::Local::new(scope, value);
    let key = string(scope, "default");
    module.set_synthetic_module_export(scope, key, value)?;
    let resolver = v8::PromiseResolver::new(scope)?;
    let undefined = v8::undefined(scope).into();
    resolver.resolve(scope, undefined)?;
    Some(resolver.get_promise(scope).into())
}

/// ResolveModuleCallback: everything is in the map already.
fn resolve_for_linking<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    attributes_array: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    // SAFETY: V8 calls this with the current context, while no other scope of
    // ours is in use.
    v8::callback_scope!(unsafe scope, context);
    let specifier = specifier.to_rust_string_lossy(scope);
    let attributes = attributes(scope, attributes_array, 3);
    let referrer = map(scope).find(referrer)?.name.clone();
    load(scope, &specifier, referrer.as_str(), referrer.as_str(), &attributes)
}

/// HostLoadImportedModule for `import()`.
fn import_dynamically<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    _: v8::Local<'s, v8::Data>,
    resource: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    attributes_array: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let specifier = specifier.to_rust_string_lossy(scope);
    let importer = resource.to_rust_string_lossy(scope);
    let attributes = attributes(scope, attributes_array, 2);
    v8::tc_scope!(let scope, scope);
    let referrer = if importer.starts_with('/') { importer.clone() } else { in_working_directory() };
    let outcome = load(scope, &specifier, &referrer, &importer, &attributes).and_then(|module| {
        let evaluated = run(scope, module)?;
        let namespace = module.get_module_namespace();
        let to_namespace = v8::Function::builder(
            |_: &mut v8::PinScope<'_, '_>,
             arguments: v8::FunctionCallbackArguments,
             mut result: v8::ReturnValue| {
                result.set(arguments.data());
            },
        )
        .data(namespace)
        .build(scope)?;
        evaluated.then(scope, to_namespace)
    });
    match (outcome, scope.exception()) {
        (Some(namespace), _) => {
            resolver.resolve(scope, namespace.into());
        }
        (None, Some(exception)) => {
            scope.reset();
            resolver.reject(scope, exception);
        }
        (None, None) => return None,
    }
    Some(resolver.get_promise(scope))
}

/// What code without a file resolves its imports against.
fn in_working_directory() -> String {
    let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
    format!("{}/", directory.to_string_lossy())
}

/// `import.meta`: `url`, and the same as paths.
unsafe extern "C" fn initialise_import_meta(
    context: v8::Local<v8::Context>,
    module: v8::Local<v8::Module>,
    meta: v8::Local<v8::Object>,
) {
    // SAFETY: V8 calls this with the current context, while no other scope of
    // ours is in use.
    v8::callback_scope!(unsafe scope, context);
    v8::scope!(let scope, scope);
    let module = v8::Local::new(scope, module);
    let Some(name) = map(scope).find(module).map(|entry| entry.name.clone()) else {
        return;
    };
    let path = name.path();
    let directory = path
        .rsplit_once('/')
        .map_or("/", |(directory, _)| if directory.is_empty() { "/" } else { directory });
    for (key, value) in [("url", name.url().as_str()), ("filename", &path), ("dirname", directory)] {
        let value = string(scope, value);
        conversions::set(scope, meta, key, value.into());
    }
}

/// Import attributes from V8's flat array; `stride` is 3 where source offsets
/// stand between the pairs.
fn attributes(
    scope: &mut v8::PinScope<'_, '_>,
    array: v8::Local<v8::FixedArray>,
    stride: usize,
) -> Vec<(String, String)> {
    let text = |scope: &mut v8::PinScope<'_, '_>, index| {
        let value = array.get(scope, index).and_then(|value| value.try_cast::<v8::String>().ok());
        value.map(|value| value.to_rust_string_lossy(scope)).unwrap_or_default()
    };
    (0..array.length()).step_by(stride).map(|index| (text(scope, index), text(scope, index + 1))).collect()
}
