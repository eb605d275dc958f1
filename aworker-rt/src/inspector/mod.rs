//! `--inspect`: the Chrome DevTools protocol for a cold worker, on the worker's one thread.
//!
//! ```text
//!   debugger --WebSocket--> Server --> V8's session --> answers and events back
//!                             ^
//!      running: the event loop | paused: a loop of our own that knows only these sockets
//! ```
//!
//! V8 implements the protocol; here are its transport, and the waiting while JavaScript is paused. A script that never
//! yields is interrupted (`interrupt`). CPU profiles are made through the same interface.

mod interrupt;
mod profile;
mod server;
mod websocket;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use v8::inspector::{
    Channel, ChannelImpl, StringBuffer, StringView, V8Inspector, V8InspectorClient, V8InspectorClientImpl,
    V8InspectorClientTrustLevel, V8InspectorSession,
};

use crate::engine::{self, ContextHandle, ScriptError};
use crate::event_loop::{self, Checkpoint, Interest, Life, Ready, Token};
use interrupt::Interrupts;
use server::{Event, Server};

pub(crate) use profile::Profile;

/// The one group of contexts.
const GROUP: i32 = 1;

/// Whether the program waits for a debugger before its first statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It runs at once.
    AtOnce,
    /// It waits, and stops at its first statement.
    WithDebugger,
}

/// What `--inspect` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectOptions {
    /// Where to listen for a debugger.
    pub address: SocketAddr,
    /// Whether to wait for it.
    pub begin: Begin,
}

/// What V8's callbacks and the event loop share.
struct Shared {
    server: RefCell<Server>,
    session: RefCell<Option<Rc<V8InspectorSession>>>,
    is_paused: Cell<bool>,
    is_awaited: Cell<bool>,
    /// Tells the event loop of a debugger that has come or gone while JavaScript ran.
    changed: EventFd,
    interrupts: RefCell<Option<Interrupts>>,
}

/// The isolate's inspector.
struct Inspector {
    shared: Rc<Shared>,
    inspector: Rc<V8Inspector>,
    /// The debugger's place in the event loop, and a copy of its descriptor that is the loop's.
    debugger: Option<(Token, OwnedFd)>,
    stops_at_start: bool,
}

/// Listens for a debugger, and waits for it if asked to.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) fn start(
    scope: &mut v8::PinScope<'_, '_>,
    options: InspectOptions,
    title: &str,
) -> Result<(), ScriptError> {
    let failed = |error: std::io::Error| ScriptError::new(format!("--inspect: {error}"));
    let server = Server::bind(options.address, title).map_err(failed)?;
    let text = format!(
        "Debugger listening on {}\nOpen chrome://inspect, or the address in a client of the Chrome DevTools protocol.\n",
        server.url()
    );
    engine::stdio::write_all(libc::STDERR_FILENO, text.as_bytes());
    let shared = Rc::new(Shared {
        server: RefCell::new(server),
        session: RefCell::default(),
        is_paused: Cell::new(false),
        is_awaited: Cell::new(options.begin == Begin::WithDebugger),
        changed: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| failed(errno.into()))?,
        interrupts: RefCell::default(),
    });
    let inspector = Rc::new(create(scope, &shared));
    interrupt_on_arrival(scope, &shared, &inspector).map_err(failed)?;
    if let Some(function) = engine::callback(scope, "inspectConsole") {
        let function = v8::Local::new(scope, function);
        engine::call_or_fail(scope, function, &[]);
    }
    let reactor = event_loop::get(scope).reactor();
    let listener = shared.server.borrow().listener().try_clone_to_owned().map_err(failed)?;
    reactor.register(listener.as_fd(), Interest::READ, Life::Background, on_listener, 0).map_err(failed)?;
    let changed = shared.changed.as_fd();
    reactor.register(changed, Interest::READ, Life::Background, on_change, 0).map_err(failed)?;
    scope.set_slot(Inspector {
        shared: Rc::clone(&shared),
        inspector: Rc::clone(&inspector),
        debugger: None,
        stops_at_start: false,
    });
    // The loop watches a copy of the listener's descriptor for as long as the process lives.
    std::mem::forget(listener);
    if options.begin == Begin::WithDebugger {
        shared.wait(&inspector, |shared| shared.is_awaited.get());
        watch_debugger(scope);
    }
    if let Some(found) = self::inspector(scope) {
        found.stops_at_start = options.begin == Begin::WithDebugger;
    }
    Ok(())
}

/// Has what arrives at the sockets interrupt the script that runs.
fn interrupt_on_arrival(
    scope: &mut v8::PinScope<'_, '_>,
    shared: &Rc<Shared>,
    inspector: &Rc<V8Inspector>,
) -> std::io::Result<()> {
    let (inner, v8) = (Rc::clone(shared), Rc::clone(inspector));
    let interrupts = Interrupts::start(scope.thread_safe_handle(), Rc::new(move || inner.look(&v8)))?;
    interrupts.watch(shared.server.borrow().listener());
    shared.interrupts.replace(Some(interrupts));
    Ok(())
}

/// The program's first statement is the next to run: the debugger may have asked to stop there.
pub(crate) fn at_start(scope: &mut v8::PinScope<'_, '_>) {
    let Some(found) = inspector(scope) else {
        return;
    };
    if !std::mem::take(&mut found.stops_at_start) {
        return;
    }
    if let Some(session) = &*found.shared.session.borrow() {
        session.schedule_pause_on_next_statement(view("Break on start"), view("{}"));
    }
}

/// V8's inspector of this isolate and context.
fn create(scope: &mut v8::PinScope<'_, '_>, shared: &Rc<Shared>) -> V8Inspector {
    let client = V8InspectorClient::new(Box::new(Client {
        shared: Rc::clone(shared),
        context: ContextHandle::new(scope),
    }));
    let inspector = V8Inspector::create(scope, client);
    let context = scope.get_current_context();
    inspector.context_created(context, GROUP, view("worker"), view("{\"isDefault\":true}"));
    inspector
}

fn view(text: &str) -> StringView<'_> {
    StringView::from(text.as_bytes())
}

struct Client {
    shared: Rc<Shared>,
    context: ContextHandle,
}

impl V8InspectorClientImpl for Client {
    fn run_message_loop_on_pause(&self, _: i32) {
        // V8 asks again while one of these loops runs already.
        if self.shared.is_paused.replace(true) {
            return;
        }
        let session = self.shared.session.borrow().clone();
        self.shared.wait_with(session, |shared| shared.is_paused.get());
        self.shared.is_paused.set(false);
    }

    fn quit_message_loop_on_pause(&self) {
        self.shared.is_paused.set(false);
    }

    fn run_if_waiting_for_debugger(&self, _: i32) {
        self.shared.is_awaited.set(false);
    }

    fn ensure_default_context_in_group(&self, _: i32) -> Option<v8::Local<'_, v8::Context>> {
        Some(self.context.local())
    }

    /// Programs are named by paths; a debugger wants URLs.
    fn resource_name_to_url(&self, resource_name: &StringView) -> Option<v8::UniquePtr<StringBuffer>> {
        let name = resource_name.to_string();
        let url = url::Url::from_file_path(name).ok()?;
        Some(StringBuffer::create(view(url.as_str())))
    }
}

/// Where V8 sends answers and events.
struct ToDebugger {
    shared: Rc<Shared>,
}

impl ToDebugger {
    fn send(&self, message: &v8::UniquePtr<StringBuffer>) {
        if let Some(message) = message.as_ref() {
            self.shared.server.borrow_mut().send(&message.string().to_string());
        }
    }
}

impl ChannelImpl for ToDebugger {
    fn send_response(&self, _: i32, message: v8::UniquePtr<StringBuffer>) {
        self.send(&message);
    }

    fn send_notification(&self, message: v8::UniquePtr<StringBuffer>) {
        self.send(&message);
    }

    fn flush_protocol_notifications(&self) {}
}

impl Shared {
    /// Handles what the sockets say, and nothing else, while the condition holds.
    fn wait(self: &Rc<Shared>, inspector: &Rc<V8Inspector>, condition: impl Fn(&Shared) -> bool) {
        while condition(self) {
            let event = self.wait_for_event();
            match event {
                Some(Event::Connected) => self.connect(inspector),
                Some(event) => self.handle(event),
                None => {}
            }
        }
    }

    /// As [`Self::wait`] for a debugger that is there: when it goes, its session lets go of JavaScript.
    fn wait_with(&self, session: Option<Rc<V8InspectorSession>>, condition: impl Fn(&Shared) -> bool) {
        while condition(self) {
            match self.wait_for_event() {
                Some(Event::Disconnected) => {
                    let _ = self.changed.write(1);
                    if let Some(session) = &session {
                        session.dispatch_protocol_message(view("{\"id\":0,\"method\":\"Debugger.disable\"}"));
                    }
                    self.is_paused.set(false);
                }
                Some(event) => self.handle(event),
                None => {}
            }
        }
    }

    /// Handles what the sockets have, in the middle of a script that runs.
    fn look(self: &Rc<Shared>, inspector: &Rc<V8Inspector>) {
        // A loop of our own that is under way looks itself.
        while !self.is_paused.get() && !self.is_awaited.get() {
            // What is read is understood in the next round.
            let is_quiet = self.is_quiet();
            match self.next_event(PollTimeout::ZERO) {
                Some(Event::Connected) => {
                    self.connect(inspector);
                    // Only the loop can watch it, and forget it: it hears of it when it turns.
                    let _ = self.changed.write(1);
                }
                Some(Event::Disconnected) => {
                    self.handle(Event::Disconnected);
                    let _ = self.changed.write(1);
                }
                Some(event) => self.handle(event),
                None if is_quiet => return,
                None => {}
            }
        }
    }

    /// Whether no socket has anything to read.
    fn is_quiet(&self) -> bool {
        self.poll(PollTimeout::ZERO).is_none_or(|ready| ready == (false, false))
    }

    /// Whether the listener and the debugger's socket can be read, waiting so long; `None` if a signal came.
    fn poll(&self, patience: PollTimeout) -> Option<(bool, bool)> {
        let server = self.server.borrow();
        let mut polled = vec![PollFd::new(server.listener(), PollFlags::POLLIN)];
        polled.extend(server.debugger().map(|debugger| PollFd::new(debugger, PollFlags::POLLIN)));
        poll(&mut polled, patience).ok()?;
        let is_ready = |polled: &PollFd<'_>| polled.any() == Some(true);
        Some((is_ready(&polled[0]), polled.get(1).is_some_and(is_ready)))
    }

    fn wait_for_event(&self) -> Option<Event> {
        self.next_event(PollTimeout::NONE)
    }

    fn next_event(&self, patience: PollTimeout) -> Option<Event> {
        if let Some(event) = self.server.borrow_mut().receive() {
            return Some(event);
        }
        // EINTR: the caller looks at its condition, and comes again.
        let (listens, speaks) = self.poll(patience)?;
        let mut server = self.server.borrow_mut();
        if speaks {
            return server.read();
        }
        if listens { server.accept() } else { None }
    }

    fn connect(self: &Rc<Shared>, inspector: &Rc<V8Inspector>) {
        let channel = Channel::new(Box::new(ToDebugger { shared: Rc::clone(self) }));
        let trust = V8InspectorClientTrustLevel::FullyTrusted;
        let session = inspector.connect(GROUP, channel, view("{}"), trust);
        self.session.replace(Some(Rc::new(session)));
        if let (Some(interrupts), Some(debugger)) =
            (&*self.interrupts.borrow(), self.server.borrow().debugger())
        {
            interrupts.watch(debugger);
        }
    }

    /// A message is V8's; a debugger that has gone takes its breakpoints with it.
    fn handle(&self, event: Event) {
        match event {
            Event::Message(text) => {
                let session = self.session.borrow().clone();
                if let Some(session) = session {
                    dispatch(&session, &text);
                }
            }
            Event::Disconnected => drop(self.session.take()),
            Event::Connected => {}
        }
    }
}

fn dispatch(session: &V8InspectorSession, text: &str) {
    if text.is_ascii() {
        session.dispatch_protocol_message(view(text));
    } else {
        let units: Vec<u16> = text.encode_utf16().collect();
        session.dispatch_protocol_message(StringView::from(&units[..]));
    }
}

fn inspector<'a>(scope: &'a mut v8::PinScope<'_, '_>) -> Option<&'a mut Inspector> {
    scope.get_slot_mut::<Inspector>()
}

fn on_listener(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    let Some((shared, v8)) = inspector(scope).map(|found| (found.shared.clone(), found.inspector.clone()))
    else {
        return Checkpoint::Done;
    };
    let event = shared.server.borrow_mut().accept();
    if event == Some(Event::Connected) {
        shared.connect(&v8);
        watch_debugger(scope);
        drain(scope, &shared);
    }
    Checkpoint::Due
}

/// A debugger has come or gone while JavaScript ran.
fn on_change(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    let Some(shared) = inspector(scope).map(|found| found.shared.clone()) else {
        return Checkpoint::Done;
    };
    let _ = shared.changed.read();
    watch_debugger(scope);
    drain(scope, &shared);
    Checkpoint::Due
}

fn on_debugger(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    let Some(shared) = inspector(scope).map(|found| found.shared.clone()) else {
        return Checkpoint::Done;
    };
    // An interrupt may have read what the loop was told of.
    if shared.poll(PollTimeout::ZERO).is_some_and(|(_, speaks)| speaks) {
        let event = shared.server.borrow_mut().read();
        if let Some(event) = event {
            shared.handle(event);
        }
    }
    drain(scope, &shared);
    let is_gone = shared.server.borrow().debugger().is_none();
    if is_gone {
        shared.session.take();
        watch_debugger(scope);
    }
    Checkpoint::Due
}

/// Handles the messages that have come whole.
fn drain(_: &mut v8::PinScope<'_, '_>, shared: &Rc<Shared>) {
    loop {
        let event = shared.server.borrow_mut().receive();
        match event {
            Some(event) => shared.handle(event),
            None => return,
        }
    }
}

/// Has the loop tell of the messages of the debugger that there is, and of no other.
fn watch_debugger(scope: &mut v8::PinScope<'_, '_>) {
    let Some(found) = inspector(scope) else {
        return;
    };
    let (shared, before) = (found.shared.clone(), found.debugger.take());
    let reactor = event_loop::get(scope).reactor();
    if let Some((token, socket)) = before {
        reactor.deregister(token, socket.as_fd());
    }
    let socket = shared.server.borrow().debugger().and_then(|debugger| debugger.try_clone_to_owned().ok());
    let Some(socket) = socket else {
        return;
    };
    let registered = reactor.register(socket.as_fd(), Interest::READ, Life::Background, on_debugger, 0);
    if let (Ok(token), Some(found)) = (registered, inspector(scope)) {
        found.debugger = Some((token, socket));
    }
}
