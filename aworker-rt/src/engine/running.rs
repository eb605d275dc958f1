//! The stack of the JavaScript that runs at this moment, asked for from a signal handler.
//!
//! The handler asks V8 to interrupt itself ([`ask`]); V8 does so at the next place where that is safe, and the callback
//! reads the stack there. Asking allocates, so it is done only when the signal has hit generated code: then neither
//! the allocator nor V8's own code is in the middle of something. Generated code is what lies in no program or
//! library, as dl_iterate_phdr(3) tells them.

use std::ffi::c_void;
use std::fmt::Write;
use std::ops::Range;
use std::sync::OnceLock;

use super::source_maps;

/// Frames of a stack that are told.
const FRAMES: usize = 20;

/// Longest stack that is told, in bytes; the frames beyond it are left out.
const STACK_BYTES: usize = 4096;

/// Who is called with the stack.
pub type OnStack = fn(&mut v8::PinScope<'_, '_>, &str);

/// The isolate's context and who wants its stacks.
struct Observer {
    context: v8::Global<v8::Context>,
    on_stack: OnStack,
}

/// Where code of programs and libraries lies.
static CODE: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Prepares [`ask`] in this process.
pub fn observe(scope: &mut v8::PinScope<'_, '_>, on_stack: OnStack) {
    CODE.get_or_init(code_of_programs);
    let context = scope.get_current_context();
    let context = v8::Global::new(scope, context);
    scope.set_slot(Observer { context, on_stack });
}

fn code_of_programs() -> Vec<Range<usize>> {
    unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> libc::c_int {
        // SAFETY: the C library calls with a live description.
        let info = unsafe { &*info };
        // SAFETY: `found` is the vector that was given to dl_iterate_phdr, which nobody else uses meanwhile.
        let found = unsafe { &mut *found.cast::<Vec<Range<usize>>>() };
        // SAFETY: the object has so many program headers there.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers.iter().filter(|header| header.p_flags & libc::PF_X != 0) {
            #[allow(clippy::cast_possible_truncation)]
            let start = info.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
            #[allow(clippy::cast_possible_truncation)]
            found.push(start..start.saturating_add(header.p_memsz as usize));
        }
        0
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: the callback has the type that is asked for, and its data outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut found).cast()) };
    found
}

/// Whether an instruction is generated code. Async-signal-safe.
pub fn is_generated(instruction: usize) -> bool {
    CODE.get().is_some_and(|code| !code.iter().any(|range| range.contains(&instruction)))
}

/// Asks for the stack. Only from a signal handler that has hit generated code ([`is_generated`]).
pub fn ask(isolate: &v8::IsolateHandle) {
    isolate.request_interrupt(on_interrupt, std::ptr::null_mut());
}

unsafe extern "C" fn on_interrupt(mut pointer: v8::UnsafeRawIsolatePtr, _: *mut c_void) {
    // SAFETY: V8 calls with the isolate that runs, on its thread.
    let isolate = unsafe { v8::Isolate::ref_from_raw_isolate_ptr_mut(&mut pointer) };
    let Some(observer) = isolate.get_slot::<Observer>() else { return };
    let (context, on_stack) = (observer.context.clone(), observer.on_stack);
    // SAFETY: V8 calls this on the isolate's thread, and no other scope of ours is in use meanwhile.
    v8::callback_scope!(unsafe scope, isolate);
    let context = v8::Local::new(scope, context);
    let scope = &mut v8::ContextScope::new(scope, context);
    let stack = stack(scope);
    on_stack(scope, &stack);
}

/// The frames that are told of a stack whose places have become longer.
fn cut(stack: &str) -> &str {
    let mut end = 0;
    for frame in stack.split_inclusive('\n') {
        if end + frame.len() > STACK_BYTES {
            break;
        }
        end += frame.len();
    }
    &stack[..end]
}

/// The script's frames of now, each as `    at function (file:line:column)`.
pub(super) fn stack(scope: &mut v8::PinScope<'_, '_>) -> String {
    let mut text = String::new();
    let Some(trace) = v8::StackTrace::current_stack_trace(scope, FRAMES) else { return text };
    for index in 0..trace.get_frame_count() {
        let Some(frame) = trace.get_frame(scope, index) else { continue };
        let file = frame.get_script_name_or_source_url(scope);
        let file = file.map_or_else(|| "<anonymous>".to_owned(), |file| file.to_rust_string_lossy(scope));
        // Built-ins say nothing to a script's author.
        if file.starts_with("aworker:") {
            continue;
        }
        let function = frame.get_function_name(scope).map(|name| name.to_rust_string_lossy(scope));
        let function = function.filter(|name| !name.is_empty());
        let function = function.unwrap_or_else(|| "<anonymous>".to_owned());
        let before = text.len();
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "    at {function} ({file}:{}:{})", frame.get_line_number(), frame.get_column());
        if text.len() > STACK_BYTES {
            text.truncate(before);
            break;
        }
    }
    // The places of the sources, where there is a source map.
    match source_maps::rewrite(scope, &text) {
        Some(mapped) => cut(&mapped).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_cut_between_frames() {
        assert_eq!(cut("    at a (b:1:2)\n    at c (d:3:4)\n"), "    at a (b:1:2)\n    at c (d:3:4)\n");
        let frame = format!("    at {} (b:1:2)\n", "ä".repeat(500));
        let told = cut(&frame.repeat(10)).to_owned();
        assert_eq!(told, frame.repeat(STACK_BYTES / frame.len()));
    }

    #[test]
    fn code_of_programs_is_known_and_data_is_no_code_of_theirs() {
        CODE.get_or_init(code_of_programs);
        assert!(!is_generated(code_of_programs as *const () as usize));
        assert!(!is_generated(libc::malloc as *const () as usize));
        let heap = Box::new(1);
        assert!(is_generated(&raw const *heap as usize), "what is no code of a file counts as generated");
    }
}
