//! A debugger reaches a script that never yields: a thread, which does nothing else, waits for bytes on the inspector's
//! sockets and has V8 interrupt what runs. V8 then calls [`on_interrupt`] on the worker's thread, in the middle of the
//! script. The thread exists with `--inspect` only, and so never in a process that forks.

use std::cell::RefCell;
use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

thread_local! {
    /// What is to be done on the worker's thread.
    static ACTION: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// The sockets that the thread watches.
pub(super) struct Interrupts(Arc<Epoll>);

impl Interrupts {
    /// Starts the thread; `action` runs on this thread, whatever JavaScript is doing.
    ///
    /// # Errors
    /// As epoll_create1(2) and pthread_create(3).
    pub(super) fn start(isolate: v8::IsolateHandle, action: Rc<dyn Fn()>) -> io::Result<Interrupts> {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        ACTION.set(Some(action));
        let watched = Arc::clone(&epoll);
        std::thread::Builder::new().name("inspector".to_owned()).spawn(move || {
            let mut events = [EpollEvent::empty(); 2];
            loop {
                match watched.wait(&mut events, EpollTimeout::NONE) {
                    Ok(_) if isolate.request_interrupt(on_interrupt, std::ptr::null_mut()) => {}
                    Err(Errno::EINTR) => {}
                    // The isolate is gone.
                    Ok(_) | Err(_) => return,
                }
            }
        })?;
        Ok(Interrupts(epoll))
    }

    /// Watches one more socket, until it is closed. Edges are enough: each arrival interrupts once.
    pub(super) fn watch(&self, socket: BorrowedFd<'_>) {
        // Without it the socket is looked after by the event loop alone.
        let _ = self.0.add(socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0));
    }
}

/// What V8 calls; safe to call on any thread.
extern "C" fn on_interrupt(_: v8::UnsafeRawIsolatePtr, _: *mut c_void) {
    let action = ACTION.with_borrow(|action| action.clone());
    if let Some(action) = action {
        action();
    }
}
