//! Heap snapshots on demand: SIGUSR2 writes one, in the format that DevTools reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::engine::{ScriptError, stdio};
use crate::event_loop::{self, Checkpoint, Interest, Life, Ready};

/// The signal's descriptor, and how many snapshots there were.
struct OnSignal {
    signals: SignalFd,
    written: u32,
}

/// Writes `aworker-PID-N.heapsnapshot` into the working directory at each SIGUSR2.
///
/// # Errors
/// As signalfd(2).
pub(super) fn write_on_signal(scope: &mut v8::PinScope<'_, '_>) -> Result<(), ScriptError> {
    let failed = |error: std::io::Error| ScriptError::new(format!("watch for SIGUSR2: {error}"));
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR2);
    signals.thread_block().map_err(|error| failed(error.into()))?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).map_err(|error| failed(error.into()))?;
    let reactor = event_loop::get(scope).reactor();
    reactor.register(signals.as_fd(), Interest::READ, Life::Background, on_signal, 0).map_err(failed)?;
    scope.set_slot(OnSignal { signals, written: 0 });
    Ok(())
}

fn on_signal(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    let Some(state) = scope.get_slot_mut::<OnSignal>() else {
        return Checkpoint::Done;
    };
    while let Ok(Some(_)) = state.signals.read_signal() {}
    state.written += 1;
    let name = format!("aworker-{}-{}.heapsnapshot", std::process::id(), state.written);
    let text = match write(scope, &name) {
        Ok(()) => format!("aworker: wrote {name}\n"),
        Err(error) => format!("aworker: write {name}: {error}\n"),
    };
    stdio::write_all(libc::STDERR_FILENO, text.as_bytes());
    Checkpoint::Done
}

fn write(isolate: &mut v8::Isolate, name: &str) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(name)?);
    let mut outcome = Ok(());
    isolate.take_heap_snapshot(|piece| {
        outcome = file.write_all(piece);
        outcome.is_ok()
    });
    outcome.and_then(|()| file.flush())
}
