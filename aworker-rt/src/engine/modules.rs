//! ES modules: loading a graph of files, linking, evaluation, `import()`,
//! `import.meta`, modules that are values (JSON, text, bytes).
//!
//! Files are read synchronously when a graph is loaded; afterwards everything
//! needed for linking is in the module map, which lives in a slot of the isolate.
//! Errors are JavaScript exceptions that name the importer and the specifier.

use std::collections::HashMap;
use std::num::NonZeroI32;

use serde::{Deserialize, Serialize};

use super::conversions::{self, string, throw_syntax_error, throw_type_error};
use super::import_map::ImportMap;
use super::isolate::callback;
use super::module_files;
use super::snapshot::{self, SnapshotError};
use super::source_maps;
use super::specifier::{self, ModuleName};
use super::typed;
use crate::typescript::Goal;

/// Most modules of one worker: a guard against generated, endless graphs.
const MAX_MODULES: usize = 10_000;

/// The text of a module that is a value. V8's synthetic modules would do the same with a native function, whose
/// address a snapshot cannot keep.
const VALUE_MODULE: &str = "export default import.meta.value;";

/// What a file is loaded as; the same file as two kinds is two modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Kind {
    JavaScript,
    /// `with { type: 'json' }`: the parsed value.
    Json,
    /// `with { type: 'text' }`: a string. <https://github.com/tc39/proposal-import-text>
    Text,
    /// `with { type: 'bytes' }`: a Uint8Array. <https://github.com/tc39/proposal-import-bytes>
    Bytes,
}

/// A compiled module.
struct Entry {
    module: v8::Global<v8::Module>,
    name: ModuleName,
    /// The default export of a module that is no program, until it is evaluated.
    value: Option<v8::Global<v8::Value>>,
}

/// All modules of the isolate.
#[derive(Default)]
struct ModuleMap {
    entries: Vec<Entry>,
    by_name: HashMap<(ModuleName, Kind), usize>,
    /// V8 does not promise that identity hashes are unique.
    by_hash: HashMap<NonZeroI32, Vec<usize>>,
    import_map: Option<ImportMap>,
    /// The program itself: `import.meta.main`.
    main: Option<ModuleName>,
}

impl ModuleMap {
    fn insert(&mut self, entry: Entry, kind: Kind, hash: NonZeroI32) {
        let index = self.entries.len();
        self.by_name.insert((entry.name.clone(), kind), index);
        self.by_hash.entry(hash).or_default().push(index);
        self.entries.push(entry);
    }

    /// The name behind what stack traces, and so V8, call a module or script.
    fn named(&self, shown: &str) -> ModuleName {
        let entry = self.entries.iter().find(|entry| entry.name.as_str() == shown);
        entry.map_or_else(|| ModuleName::from_path(shown), |entry| entry.name.clone())
    }

    fn place(&self, module: v8::Local<v8::Module>) -> Option<usize> {
        let places = self.by_hash.get(&module.get_identity_hash())?;
        places.iter().copied().find(|place| self.entries[*place].module == module)
    }

    fn find(&mut self, module: v8::Local<v8::Module>) -> Option<&mut Entry> {
        let place = self.place(module)?;
        self.entries.get_mut(place)
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

/// Gives the program its import map, before anything is imported.
pub(super) fn set_import_map(isolate: &mut v8::Isolate, import_map: ImportMap) {
    map(isolate).import_map = Some(import_map);
}

/// What a snapshot keeps of the map beside the modules themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedModules {
    modules: Vec<(SavedName, Kind)>,
    import_map: Option<ImportMap>,
    main: Option<SavedName>,
}

/// URL, and what stack traces show.
type SavedName = (String, String);

fn save_name(name: &ModuleName) -> SavedName {
    (name.url().to_owned(), name.as_str().to_owned())
}

/// Adds every module to the context's data, behind `internals`.
pub(super) fn save(
    scope: &mut v8::PinScope<'_, '_, ()>,
    context: v8::Local<'_, v8::Context>,
) -> SavedModules {
    let ModuleMap { entries, by_name, import_map, main, .. } = std::mem::take(map(scope));
    let mut modules = Vec::new();
    for ((name, kind), index) in by_name {
        let module = v8::Local::new(scope, &entries[index].module);
        // What did not get as far as to run is read again when it is wanted.
        if matches!(module.get_status(), v8::ModuleStatus::Evaluated | v8::ModuleStatus::Errored) {
            let index = scope.add_context_data(context, module);
            modules.push((save_name(&name), kind));
            assert_eq!(index, snapshot::INTERNALS + modules.len(), "the context's data are in order");
        }
    }
    SavedModules { modules, import_map, main: main.as_ref().map(save_name) }
}

/// Makes the map that was saved.
pub(super) fn restore(scope: &mut v8::PinScope<'_, '_>, saved: SavedModules) -> Result<(), SnapshotError> {
    let restored = |(url, shown): &SavedName| ModuleName::from_parts(url, shown);
    map(scope).import_map = saved.import_map;
    map(scope).main = saved.main.as_ref().map(restored);
    for (place, (name, kind)) in saved.modules.iter().enumerate() {
        v8::scope!(let scope, scope);
        let module = scope.get_context_data_from_snapshot_once::<v8::Module>(snapshot::INTERNALS + 1 + place);
        let Ok(module) = module else {
            return Err(SnapshotError::Damaged(format!("the heap has no module {}", name.1)));
        };
        let entry = Entry { module: v8::Global::new(scope, module), name: restored(name), value: None };
        map(scope).insert(entry, *kind, module.get_identity_hash());
    }
    Ok(())
}

/// As [`compile`], for the program itself, whose source is what its file holds.
pub(super) fn compile_main<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    source: &str,
    text: &str,
) -> Option<v8::Local<'s, v8::Module>> {
    // The program was read before its import map; a byte order mark is gone.
    if let Some(import_map) = &map(scope).import_map
        && let Err(reason) = import_map.check(name.url(), source.as_bytes())
        && import_map.check(name.url(), format!("\u{feff}{source}").as_bytes()).is_err()
    {
        throw_type_error(scope, &reason);
        return None;
    }
    map(scope).main.get_or_insert_with(|| name.clone());
    compile(scope, name, text)
}

/// Compiles the source of a file, JavaScript or TypeScript. An exception is pending if there is no module.
fn compile_source<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    source: &str,
) -> Option<v8::Local<'s, v8::Module>> {
    match typed::javascript(&name.path(), source, Goal::Module) {
        Ok(source) => compile(scope, name, &source.text),
        Err(refusal) => {
            throw_syntax_error(scope, &format!("{}:{refusal}", name.as_str()));
            None
        }
    }
}

/// Compiles JavaScript as a module and enters it into the map.
/// An exception is pending if there is none.
fn compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    text: &str,
) -> Option<v8::Local<'s, v8::Module>> {
    let module = compile_text(scope, name, text)?;
    let entry = Entry { module: v8::Global::new(scope, module), name: name.clone(), value: None };
    map(scope).insert(entry, Kind::JavaScript, module.get_identity_hash());
    Some(module)
}

fn compile_text<'s>(
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
    let mapping = module.get_unbound_module_script(scope).get_source_mapping_url(scope);
    source_maps::note(scope, name.as_str(), name.url(), mapping);
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
            waiting.push(load(scope, &specifier, &referrer, &importer, &attributes)?);
        }
    }
    Some(())
}

/// The module a specifier means, from the map or its file.
/// An exception is pending if there is none.
fn load<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    specifier: &str,
    referrer: &ModuleName,
    importer: &str,
    attributes: &[(String, String)],
) -> Option<v8::Local<'s, v8::Module>> {
    let import_map = map(scope).import_map.as_ref();
    let found = target(specifier, referrer, attributes, import_map)
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
        (Found::Source(text), Kind::Json) => {
            let value = parse_json(scope, &name, &text)?;
            compile_value(scope, &name, kind, value)
        }
        (Found::Source(text), Kind::Text) => {
            let value = string(scope, &text).into();
            compile_value(scope, &name, kind, value)
        }
        (Found::Source(text), Kind::JavaScript | Kind::Bytes) => compile_source(scope, &name, &text),
        (Found::Bytes(bytes), _) => {
            let value = uint8_array(scope, bytes)?.into();
            compile_value(scope, &name, kind, value)
        }
    }
}

/// Name and kind of the module that an import asks for.
fn target(
    specifier: &str,
    referrer: &ModuleName,
    attributes: &[(String, String)],
    import_map: Option<&ImportMap>,
) -> Result<(ModuleName, Kind), String> {
    let mut kind = Kind::JavaScript;
    for (key, value) in attributes {
        match (key.as_str(), value.as_str()) {
            ("type", "json") => kind = Kind::Json,
            ("type", "text") => kind = Kind::Text,
            ("type", "bytes") => kind = Kind::Bytes,
            ("type", other) => {
                return Err(format!(
                    "modules of type \"{other}\" are not supported: want json, text or bytes"
                ));
            }
            (other, _) => return Err(format!("the import attribute \"{other}\" is not supported")),
        }
    }
    let name = specifier::resolve(specifier, referrer, import_map)?;
    if kind == Kind::JavaScript && name.path().ends_with(".json") {
        return Err("a JSON module needs `with { type: \"json\" }`".to_owned());
    }
    Ok((name, kind))
}

/// A module of the map, or what to make one of.
enum Found {
    Compiled(v8::Global<v8::Module>),
    Source(String),
    Bytes(Vec<u8>),
}

fn find_or_read(isolate: &mut v8::Isolate, name: &ModuleName, kind: Kind) -> Result<Found, String> {
    let map = map(isolate);
    if let Some(index) = map.by_name.get(&(name.clone(), kind)) {
        return Ok(Found::Compiled(map.entries[*index].module.clone()));
    }
    if map.entries.len() >= MAX_MODULES {
        return Err(format!("there are {MAX_MODULES} modules already"));
    }
    let bytes = match kind {
        Kind::JavaScript => module_files::read_source_bytes(&name.path())?,
        Kind::Json | Kind::Text | Kind::Bytes => module_files::read_bytes(&name.path())?,
    };
    if let Some(import_map) = &map.import_map {
        import_map.check(name.url(), &bytes)?;
    }
    Ok(match kind {
        Kind::JavaScript | Kind::Json | Kind::Text => Found::Source(module_files::into_text(bytes)),
        Kind::Bytes => Found::Bytes(bytes),
    })
}

fn uint8_array<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: Vec<u8>,
) -> Option<v8::Local<'s, v8::Uint8Array>> {
    let length = bytes.len();
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    v8::Uint8Array::new(scope, buffer, 0, length)
}

/// Wraps a value into a module with a default export.
fn compile_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: &ModuleName,
    kind: Kind,
    value: v8::Local<'s, v8::Value>,
) -> Option<v8::Local<'s, v8::Module>> {
    let module = compile_text(scope, name, VALUE_MODULE)?;
    let value = Some(v8::Global::new(scope, value));
    let entry = Entry { module: v8::Global::new(scope, module), name: name.clone(), value };
    map(scope).insert(entry, kind, module.get_identity_hash());
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
    let problem = problem.trim_start_matches("SyntaxError: ");
    throw_syntax_error(scope, &format!("{}: {problem}", name.path()));
    None
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
    load(scope, &specifier, &referrer, referrer.as_str(), &attributes)
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
    let referrer = map(scope).named(&importer);
    let outcome = load(scope, &specifier, &referrer, &importer, &attributes)
        .and_then(|module| evaluate_later(scope, module));
    match (outcome, scope.exception()) {
        (Some(namespace), _) => {
            resolver.resolve(scope, namespace);
        }
        (None, Some(exception)) => {
            scope.reset();
            resolver.reject(scope, exception);
        }
        (None, None) => return None,
    }
    Some(resolver.get_promise(scope))
}

/// The promise of a module's namespace. Evaluation is a job of its own, as the standard has it: the module may be
/// the very one that runs.
fn evaluate_later<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    module: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Value>> {
    let function = callback(scope, "importLater")?;
    let function = v8::Local::new(scope, function);
    let place = map(scope).place(module)?;
    let place = v8::Integer::new_from_unsigned(scope, u32::try_from(place).ok()?).into();
    let receiver = v8::undefined(scope).into();
    function.call(scope, receiver, &[place])
}

/// `ops.module_run(place)`: links and evaluates a module of the map; `[promise of its evaluation, namespace]`.
pub(crate) fn module_run(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let place = arguments.get(0).uint32_value(scope).and_then(|place| usize::try_from(place).ok());
    let module = place.and_then(|place| map(scope).entries.get(place)).map(|entry| entry.module.clone());
    let Some(module) = module else {
        return throw_type_error(scope, "module_run: there is no such module");
    };
    let module = v8::Local::new(scope, module);
    if let Some(evaluated) = run(scope, module) {
        let pair = [evaluated.into(), module.get_module_namespace()];
        result.set(v8::Array::new_with_elements(scope, &pair).into());
    }
}

/// `ops.module_resolve(specifier, url of the referrer)`: `import.meta.resolve`.
pub(crate) fn module_resolve(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let specifier = arguments.get(0).to_rust_string_lossy(scope);
    let referrer = ModuleName::from_parts(&arguments.get(1).to_rust_string_lossy(scope), "");
    match specifier::resolve_url(&specifier, &referrer, map(scope).import_map.as_ref()) {
        Ok(url) => result.set(string(scope, url.as_str()).into()),
        Err(reason) => throw_type_error(scope, &format!("cannot resolve \"{specifier}\": {reason}")),
    }
}

/// `import.meta`: `url`, the same as paths, `main`, `resolve`.
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
    let Some(entry) = map(scope).find(module) else {
        return;
    };
    let (name, value) = (entry.name.clone(), entry.value.take());
    if let Some(value) = value {
        let value = v8::Local::new(scope, value);
        return conversions::set(scope, meta, "value", value);
    }
    let is_main = map(scope).main.as_ref() == Some(&name);
    let path = name.path();
    let directory = path
        .rsplit_once('/')
        .map_or("/", |(directory, _)| if directory.is_empty() { "/" } else { directory });
    let Some(function) = callback(scope, "initialiseImportMeta") else {
        return;
    };
    let texts = [name.url(), &path, directory].map(|text| string(scope, text).into());
    let is_main = v8::Boolean::new(scope, is_main).into();
    let function = v8::Local::new(scope, function);
    let receiver = v8::undefined(scope).into();
    // It only defines properties of a fresh object: nothing in it throws.
    let _ = function.call(scope, receiver, &[meta.into(), texts[0], texts[1], texts[2], is_main]);
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
