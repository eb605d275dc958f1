//! One isolate with one context, made from the built-in snapshot, and the
//! state that natives keep beside it.

use super::exceptions;
use super::import_map::ImportMap;
use super::snapshot::{Heap, Saved, Snapshot, SnapshotError};
use super::{
    conversions, image, malloc, memory, modules, ops, platform, rejections, snapshot, source_maps, trim,
    uncaught, wasm, watched,
};

/// The running JavaScript engine: isolate and context.
///
/// Natives keep their state in slots of the isolate (`scope.get_slot::<T>()`),
/// JavaScript objects hold integer handles only.
pub struct Engine {
    // Dropped before the isolate that owns what it refers to.
    context: v8::Global<v8::Context>,
    isolate: v8::OwnedIsolate,
}

/// The built-ins' `internals` object, for lookups of `internals.callbacks`.
struct Internals(v8::Global<v8::Object>);

impl Default for Engine {
    fn default() -> Engine {
        Engine::new()
    }
}

impl Engine {
    /// Makes an isolate and a context with all built-ins. V8 must be initialised.
    pub fn new() -> Engine {
        let parameters = parameters().external_references(ops::external_references().into());
        let mut isolate = v8::Isolate::new(parameters.snapshot_blob(snapshot::builtins()));
        isolate.add_message_listener(uncaught::on_message);
        Engine::set_up(isolate)
    }

    /// As [`Engine::new`], but for a heap that [`Engine::into_snapshot`] will write.
    pub fn for_snapshot() -> Engine {
        let references = Some(ops::external_references().into());
        let mut isolate = v8::Isolate::snapshot_creator_from_existing_snapshot(
            snapshot::builtins(),
            references,
            Some(parameters()),
        );
        isolate.add_message_listener(uncaught::on_message);
        Engine::set_up(isolate)
    }

    /// Makes an isolate and a context from a program's snapshot, modules included.
    ///
    /// # Errors
    /// The heap lacks a module that its metadata names.
    pub fn restored(snapshot: Snapshot) -> Result<Engine, SnapshotError> {
        let parameters = parameters().external_references(ops::external_references().into());
        let Snapshot { saved, heap } = snapshot;
        // The message listener is in the heap.
        let mut engine = Engine::set_up(v8::Isolate::new(parameters.snapshot_blob(heap.into_startup_data())));
        source_maps::restore(&mut engine.isolate, saved.source_maps);
        engine.with_scope(|scope| modules::restore(scope, saved.modules))?;
        Ok(engine)
    }

    /// Writes the heap, its modules and the script's timers.
    ///
    /// # Errors
    /// V8 could not write the heap.
    pub fn into_snapshot(
        mut self,
        timers: Vec<(u64, i64)>,
        next_exchange: u64,
    ) -> Result<Snapshot, SnapshotError> {
        let context = self.context.clone();
        let Internals(internals) = self.isolate.remove_slot().expect("set at the beginning");
        rejections::forget(&mut self.isolate);
        memory::forget_context(&mut self.isolate);
        let saved = {
            v8::scope!(let scope, &mut self.isolate);
            let context = v8::Local::new(scope, &context);
            let scope = &mut v8::ContextScope::new(scope, context);
            let internals = v8::Local::new(scope, internals);
            let index = scope.add_context_data(context, internals);
            assert_eq!(index, snapshot::INTERNALS);
            let modules = modules::save(scope, context);
            scope.clear_kept_objects();
            scope.set_default_context(context);
            let source_maps = source_maps::save(scope);
            Saved { modules, source_maps, timers, next_exchange }
        };
        drop(context);
        let Engine { context, isolate } = self;
        drop(context);
        let blob = isolate.create_blob(v8::FunctionCodeHandling::Keep).ok_or(SnapshotError::NotWritten)?;
        Ok(Snapshot { saved, heap: Heap::from(&*blob) })
    }

    fn set_up(mut isolate: v8::OwnedIsolate) -> Engine {
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        platform::attach(&mut isolate);
        modules::install(&mut isolate);
        wasm::install(&mut isolate);
        isolate.set_promise_reject_callback(rejections::on_promise_reject);
        isolate.set_capture_stack_trace_for_uncaught_exceptions(true, exceptions::STACK_FRAMES);
        let (context, internals) = {
            v8::scope!(let scope, &mut isolate);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            let scope = &mut v8::ContextScope::new(scope, context);
            let internals = scope
                .get_context_data_from_snapshot_once::<v8::Object>(snapshot::INTERNALS)
                .expect("the snapshot holds the built-ins' internals object");
            (v8::Global::new(scope, context), v8::Global::new(scope, internals))
        };
        isolate.set_slot(Internals(internals));
        memory::install_limit(&mut isolate, context.clone());
        trim::install(&mut isolate);
        Engine { context, isolate }
    }

    /// What specifiers mean beyond paths; for a program that is not loaded yet.
    pub fn set_import_map(&mut self, import_map: ImportMap) {
        modules::set_import_map(&mut self.isolate, import_map);
    }

    /// Makes local times those of this zone (a value of `TZ`), which a seed could
    /// not know. Costs nothing if the process had the same zone before.
    pub fn set_time_zone(&mut self, zone: &str) {
        if std::env::var_os("TZ").is_some_and(|present| present == zone) {
            return;
        }
        // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("TZ", zone) };
        self.isolate.date_time_configuration_change_notification(v8::TimeZoneDetection::Redetect);
    }

    /// Makes local times those of the process's environment, which has changed.
    pub fn forget_time_zone(&mut self) {
        self.isolate.date_time_configuration_change_notification(v8::TimeZoneDetection::Redetect);
    }

    /// Collects garbage, before the process is cloned.
    pub fn settle(&mut self) {
        memory::settle(&mut self.isolate);
    }

    /// Native memory that is handed out from here on lies together, in pages of its own. What the process holds now is what it
    /// needs.
    pub fn pack_memory(&mut self) {
        malloc::freeze();
        trim::rest(&mut self.isolate);
        // So that no clone looks for one, which takes the lock of the environment.
        watched::supervisor();
    }

    /// Gives the heap of JavaScript, if it is large, and native memory the form in which clones share most of it. The last
    /// step before the process is cloned: what runs afterwards makes pages private again.
    ///
    /// # Errors
    /// There is no memory for the heap's copy.
    pub fn freeze(&mut self) -> std::io::Result<()> {
        let inside = self.with_scope(|scope| {
            let value = v8::undefined(scope);
            // SAFETY: a local handle is the address of a slot.
            let slot: *const usize = unsafe { std::mem::transmute_copy(&value) };
            // SAFETY: the slot holds a tagged pointer into the heap for as long as the scope lives.
            unsafe { slot.read() }
        });
        image::move_heap(inside)?;
        malloc::freeze();
        trim::look_away();
        Ok(())
    }

    /// Runs `action` in the context.
    pub fn with_scope<R>(&mut self, action: impl for<'s, 'i> FnOnce(&mut v8::PinScope<'s, 'i>) -> R) -> R {
        v8::scope!(let scope, &mut self.isolate);
        let context = v8::Local::new(scope, &self.context);
        let scope = &mut v8::ContextScope::new(scope, context);
        action(scope)
    }
}

/// What every isolate is made with.
fn parameters() -> v8::CreateParams {
    // The one thread must not wait for itself; the standard's service workers may not either.
    v8::CreateParams::default().allow_atomics_wait(false)
}

/// The function a built-in left in `internals.callbacks` under this name.
///
/// Look it up once and keep the `v8::Global`: entry points never change after
/// the built-ins are loaded.
pub fn callback(scope: &mut v8::PinScope<'_, '_>, name: &str) -> Option<v8::Global<v8::Function>> {
    let internals = scope.get_slot::<Internals>()?.0.clone();
    let internals = v8::Local::new(scope, internals);
    let callbacks = conversions::get(scope, internals, "callbacks")?.try_cast::<v8::Object>().ok()?;
    let function = conversions::get(scope, callbacks, name)?.try_cast::<v8::Function>().ok()?;
    Some(v8::Global::new(scope, function))
}

/// A value as `console` formats it, if that does not throw.
pub fn inspect(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<String> {
    let internals = scope.get_slot::<Internals>()?.0.clone();
    let internals = v8::Local::new(scope, internals);
    let function = conversions::get(scope, internals, "inspect")?.try_cast::<v8::Function>().ok()?;
    let text = function.call(scope, internals.into(), &[value])?;
    Some(text.to_rust_string_lossy(scope))
}
