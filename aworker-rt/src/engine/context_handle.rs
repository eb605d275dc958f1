//! The context for V8's inspector, which asks for it without a scope.

/// The one context of an isolate.
pub struct ContextHandle {
    isolate: v8::UnsafeRawIsolatePtr,
    context: v8::Global<v8::Context>,
}

impl ContextHandle {
    /// The current context.
    pub fn new(scope: &mut v8::PinScope<'_, '_>) -> ContextHandle {
        let context = scope.get_current_context();
        let context = v8::Global::new(scope, context);
        // SAFETY: the pointer is used by `local` only, while the isolate runs.
        let isolate = unsafe { scope.as_raw_isolate_ptr() };
        ContextHandle { isolate, context }
    }

    /// The context, for a callback of the inspector: V8 runs, and has a handle scope open.
    pub fn local(&self) -> v8::Local<'_, v8::Context> {
        let mut pointer = self.isolate;
        // SAFETY: the inspector that calls is one of the isolate, so that it lives; there is one thread.
        let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut pointer) };
        // SAFETY: V8 calls this on the isolate's thread, and no other scope of ours is in use meanwhile.
        v8::callback_scope!(unsafe scope, isolate);
        let local = v8::Local::new(scope, &self.context);
        // SAFETY: the handle is in the handle scope that V8 has open around its callback, which outlives the
        // value's use there.
        unsafe { std::mem::transmute::<v8::Local<'_, v8::Context>, v8::Local<'_, v8::Context>>(local) }
    }
}
