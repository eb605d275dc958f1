//! The server's state: listeners, a slab of clients, the shared buffers and
//! the deadlines. Plain data in a slot of the isolate; what calls JavaScript
//! is in [`super::serve`], what JavaScript calls in [`super::ops`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::connection::{Connection, Fate};
use super::date::DateCache;
use super::handover::Handing;
use super::head::{Head, HeaderSpans};
use super::limits::{
    DEFAULT_IDLE_TIMEOUT_MS, DEFAULT_MAX_BODY_BYTES, DEFAULT_REQUEST_TIMEOUT_MS, DEFAULT_STALL_TIMEOUT_MS,
    LINGER_TIMEOUT_MS, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_LEFTOVER_BYTES, MIN_PROGRESS_BYTES,
    WRITE_HIGH_WATER_BYTES,
};
use super::slow::SlowLog;
use super::supervised::Supervised;
use super::target::OriginCache;
use super::upgrade::Upgrade;
use crate::event_loop::{TimerId, Token};
use crate::worker::Listener;

/// What a program may choose about its server.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Longest request body in bytes; longer ones get 413.
    pub max_body_bytes: u64,
    /// Time a handler has for the head of its response, in milliseconds; then
    /// 504. Also bounds the time a client has for the head of its request.
    pub request_timeout_ms: u64,
    /// Time an idle connection is kept, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Time in which a body that is wanted may make no progress, in either direction, in milliseconds.
    pub stall_timeout_ms: u64,
    /// Most requests in flight at one time; 0 for no limit. At the limit the
    /// listeners rest, and the next request of a kept connection waits.
    pub max_in_flight: usize,
    /// Requests after which the worker retires; 0 for no limit.
    pub max_requests: u64,
    /// Milliseconds after which a request without an answer is told to the supervisor; 0 for never.
    pub slow_ms: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            request_timeout_ms: DEFAULT_REQUEST_TIMEOUT_MS,
            idle_timeout_ms: DEFAULT_IDLE_TIMEOUT_MS,
            stall_timeout_ms: DEFAULT_STALL_TIMEOUT_MS,
            max_in_flight: 0,
            max_requests: 0,
            slow_ms: 0,
        }
    }
}

/// Bits of a request's number that are its place in the slab.
const PLACE_BITS: u32 = MAX_CONNECTIONS.ilog2();

const _: () = assert!(1 << PLACE_BITS == MAX_CONNECTIONS);

/// One request: a place in the slab and a number that is never used there
/// again. Fits the 53 bits of a JavaScript number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestId {
    pub place: usize,
    pub sequence: u64,
}

impl RequestId {
    /// The number JavaScript holds.
    #[allow(clippy::cast_precision_loss)]
    pub fn to_number(self) -> f64 {
        (self.sequence << PLACE_BITS | self.place as u64) as f64
    }

    /// The request of a number; garbage gives a request that does not exist.
    pub fn from_number(number: f64) -> RequestId {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bits = number as u64;
        RequestId { place: bits as usize & (MAX_CONNECTIONS - 1), sequence: bits >> PLACE_BITS }
    }
}

/// In which form a whole body is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    Text,
    Bytes,
}

/// What JavaScript waits for of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    None,
    Chunk,
    Whole(BodyKind),
}

/// A socket and its registration.
#[derive(Debug)]
pub(super) struct Transport {
    pub fd: OwnedFd,
    pub token: Token,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Absent in a warm-up: output goes nowhere.
    pub transport: Option<Transport>,
    pub machine: Connection,
    /// Input that could not be used yet.
    pub leftover: Vec<u8>,
    /// `leftover` is an incomplete message: more input is needed to go on.
    pub leftover_is_partial: bool,
    pub out: Vec<u8>,
    pub sent: usize,
    /// The socket may have input (edge-triggered: until a short read).
    pub readable: bool,
    pub peer_closed: bool,
    /// Nothing more can be sent or received.
    pub broken: bool,
    pub fate: Fate,
    pub lingering: bool,
    pub deadline_ms: u64,
    pub progress: u64,
    pub demand: Demand,
    /// Body bytes received for the demand.
    pub body: Vec<u8>,
    /// A stream's source waits until the output is sent.
    pub source_waits: bool,
    /// JavaScript has been told that the client is gone.
    pub told_gone: bool,
    /// Its request counts as one in flight.
    pub is_counted: bool,
    /// The request may become a WebSocket, or becomes one.
    pub upgrade: Option<Box<Upgrade>>,
    /// The handler has asked for the request's body.
    pub body_asked_for: bool,
    /// How often its request was handed over, and how often the next one was.
    pub hops: u8,
    pub next_hops: u8,
    /// Its request goes to another worker.
    pub handing: Option<Box<Handing>>,
}

impl Client {
    pub fn new(transport: Option<Transport>, deadline_ms: u64) -> Client {
        Client {
            transport,
            machine: Connection::default(),
            leftover: Vec::new(),
            leftover_is_partial: false,
            out: Vec::new(),
            sent: 0,
            readable: false,
            peer_closed: false,
            broken: false,
            fate: Fate::Open,
            lingering: false,
            deadline_ms,
            progress: 0,
            demand: Demand::None,
            body: Vec::new(),
            source_waits: false,
            told_gone: false,
            is_counted: false,
            upgrade: None,
            body_asked_for: false,
            hops: 0,
            next_hops: 0,
            handing: None,
        }
    }

    /// Bytes of output that the client has not taken.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The connection can be closed at once.
    pub fn is_over(&self) -> bool {
        self.broken
            || (self.out.is_empty() && self.fate == Fate::Close)
            || (self.lingering && self.peer_closed)
            || (self.peer_closed && self.machine.is_idle() && self.out.is_empty() && !self.readable)
    }
}

/// A place in the slab.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub sequence: u64,
    pub client: Option<Client>,
    /// The place is in [`Server::kicked`].
    pub is_kicked: bool,
}

/// A listener and its registration; none while it rests.
#[derive(Debug)]
pub(super) struct Gate {
    /// Its name among the worker's listeners.
    pub number: u32,
    pub listener: Listener,
    pub token: Option<Token>,
}

/// The request whose head still lies in the read buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub id: RequestId,
    pub start: usize,
    pub head: Head,
}

/// Functions of the built-ins.
#[derive(Debug)]
pub(super) struct Callbacks {
    pub dispatch: v8::Global<v8::Function>,
    pub body_chunk: v8::Global<v8::Function>,
    pub body_whole: v8::Global<v8::Function>,
    pub body_failed: v8::Global<v8::Function>,
    pub drained: v8::Global<v8::Function>,
    pub gone: v8::Global<v8::Function>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Server {
    pub options: ServerOptions,
    pub gates: Vec<Gate>,
    pub places: Vec<Place>,
    pub free: Vec<usize>,
    /// Where the numbers of a place that did not exist before begin.
    pub first_sequence: u64,
    pub open: usize,
    pub read_buffer: Vec<u8>,
    /// An empty buffer with capacity, lent to whichever client writes.
    pub spare: Vec<u8>,
    /// A buffer of operations, empty between them; kept for its capacity.
    pub scratch: Vec<u8>,
    pub headers: HeaderSpans,
    pub current: Option<Current>,
    pub origins: OriginCache,
    pub date: DateCache,
    pub callbacks: Option<std::rc::Rc<Callbacks>>,
    /// The client being pumped: its output is flushed at the end.
    pub pumping: Option<usize>,
    /// Clients with something to do that no event will announce.
    pub kicked: Vec<usize>,
    pub sweep: Option<(TimerId, u64)>,
    pub epoch: Instant,
    pub now_ms: u64,
    pub draining: bool,
    /// No connection is accepted and no further request read: see [`super::hold`].
    pub is_held: bool,
    /// The listeners rest because every place is taken.
    pub is_full: bool,
    pub is_set_up: bool,
    pub supervised: Supervised,
    pub slow: SlowLog,
    /// The last number of a request that was to be handed over.
    pub tickets: u32,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            options: ServerOptions::default(),
            gates: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            first_sequence: 0,
            open: 0,
            read_buffer: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            headers: Vec::new(),
            current: None,
            origins: OriginCache::default(),
            date: DateCache::default(),
            callbacks: None,
            pumping: None,
            kicked: Vec::new(),
            sweep: None,
            epoch: Instant::now(),
            now_ms: 0,
            draining: false,
            is_held: false,
            is_full: false,
            is_set_up: false,
            supervised: Supervised::default(),
            slow: SlowLog::default(),
            tickets: 0,
        }
    }
}

/// Gives an isolate its server.
pub fn attach(isolate: &mut v8::Isolate) {
    isolate.set_slot(Server::default());
}

/// Takes the server away again, and with it every handle to JavaScript.
pub fn detach(isolate: &mut v8::Isolate) {
    drop(isolate.remove_slot::<Server>());
}

/// The isolate's server.
pub(super) fn get(isolate: &mut v8::Isolate) -> &mut Server {
    isolate.get_slot_mut::<Server>().expect("the runtime attached a server")
}

impl Server {
    /// Reads the clock; deadlines are compared with the value read last.
    pub fn tick(&mut self) {
        self.now_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// The time for an operation: the clock is read unless the loop has just
    /// read it for the client it pumps. A timer or a promise may call long after.
    pub fn now(&mut self) -> u64 {
        if self.pumping.is_none() {
            self.tick();
        }
        self.now_ms
    }

    pub fn client(&mut self, place: usize) -> Option<&mut Client> {
        self.places.get_mut(place)?.client.as_mut()
    }

    /// The client of a request that is being answered here.
    pub fn exchange(&mut self, id: RequestId) -> Option<&mut Client> {
        let place = self.places.get_mut(id.place).filter(|place| place.sequence == id.sequence)?;
        place.client.as_mut().filter(|client| client.machine.in_exchange() && client.handing.is_none())
    }

    /// The same for whoever answers it. What is answered on its way to another worker is lost here, and noted.
    pub fn answering(&mut self, id: RequestId) -> Option<&mut Client> {
        let place = self.places.get_mut(id.place).filter(|place| place.sequence == id.sequence)?;
        let client = place.client.as_mut().filter(|client| client.machine.in_exchange())?;
        if let Some(handing) = client.handing.as_mut() {
            handing.is_answered = true;
            return None;
        }
        Some(client)
    }

    /// A number for what is to be handed over, above zero.
    pub fn next_ticket(&mut self) -> u32 {
        self.tickets = self.tickets.checked_add(1).unwrap_or(1);
        self.tickets
    }

    /// The number of the request a place is at.
    pub fn request_at(&self, place: usize) -> RequestId {
        RequestId { place, sequence: self.places[place].sequence }
    }

    /// A place for a new client; none when the server is full.
    pub fn take_place(&mut self) -> Option<usize> {
        if self.open == MAX_CONNECTIONS {
            return None;
        }
        self.open += 1;
        Some(self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { sequence: self.first_sequence, ..Place::default() });
            self.places.len() - 1
        }))
    }

    /// Empties a place.
    pub fn leave_place(&mut self, place: usize) -> Option<Client> {
        let client = self.places[place].client.take();
        if client.as_ref().is_some_and(|client| client.is_counted) {
            self.supervised.in_flight -= 1;
        }
        // A number of the last request must not find the next client.
        self.places[place].sequence += 1;
        self.free.push(place);
        self.open -= 1;
        client
    }

    /// Gives up the room that more connections or longer heads than now have needed. No number of a request is used again.
    pub fn shrink(&mut self) {
        self.spare = Vec::new();
        self.scratch = Vec::new();
        if self.open == 0 && self.current.is_none() {
            self.first_sequence =
                self.places.iter().map(|place| place.sequence).max().unwrap_or(self.first_sequence);
            self.places = Vec::new();
            self.free = Vec::new();
            self.kicked = Vec::new();
            self.supervised.waiting = VecDeque::new();
        }
    }

    /// Asks for a turn of this client after the running callback.
    pub fn kick(&mut self, place: usize) {
        if self.pumping != Some(place) && !std::mem::replace(&mut self.places[place].is_kicked, true) {
            self.kicked.push(place);
        }
    }

    /// Makes the read buffer, once. A seed makes it before the fork: its clones
    /// then touch only the pages that they receive into.
    pub fn make_read_buffer(&mut self) {
        if self.read_buffer.is_empty() {
            // From this size on a block is a mapping of its own: only the pages that are received into become memory.
            const OWN_MAPPING: usize = 512 << 10;
            self.read_buffer = vec![0; OWN_MAPPING];
            self.read_buffer.truncate(MAX_LEFTOVER_BYTES);
        }
    }

    /// Puts input into the read buffer: what was left over and what the socket
    /// has. `None` when there is nothing to process.
    pub fn fill(&mut self, place: usize) -> Option<usize> {
        self.make_read_buffer();
        let client = self.places.get_mut(place)?.client.as_mut()?;
        while client.machine.is_hungry() && !client.broken {
            let gap = client.leftover.len();
            if gap > 0 && !client.leftover_is_partial {
                self.read_buffer[..gap].copy_from_slice(&client.leftover);
                client.leftover = Vec::new();
                return Some(gap);
            }
            if !client.readable {
                return None;
            }
            let fd = client.transport.as_ref()?.fd.as_raw_fd();
            let room = &mut self.read_buffer[gap..];
            let count = match recv(fd, room, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => {
                    client.peer_closed = true;
                    client.readable = false;
                    return None;
                }
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(nix::errno::Errno::EAGAIN) => {
                    client.readable = false;
                    return None;
                }
                Err(_) => {
                    client.broken = true;
                    return None;
                }
            };
            // A short read has emptied the socket, epoll(7); but an end of
            // stream that came with it is announced only once.
            client.readable = count == room.len() || client.peer_closed;
            let came = &room[..count];
            // A head that grows without a line end is not parsed each time.
            if gap > 0
                && client.machine.is_idle()
                && gap + count < MAX_HEAD_BYTES
                && memchr::memchr(b'\n', came).is_none()
            {
                client.leftover.extend_from_slice(came);
                continue;
            }
            self.read_buffer[..gap].copy_from_slice(&client.leftover);
            client.leftover = Vec::new();
            return Some(gap + count);
        }
        None
    }

    /// Sends what there is to send. `true` if output was pending and is gone.
    pub fn flush(&mut self, place: usize) -> bool {
        let (now, stall_timeout_ms) = (self.now_ms, self.options.stall_timeout_ms);
        let Some(client) = self.places.get_mut(place).and_then(|place| place.client.as_mut()) else {
            return false;
        };
        let pending = !client.out.is_empty();
        while client.sent < client.out.len() && !client.broken {
            let Some(transport) = &client.transport else {
                client.sent = client.out.len();
                break;
            };
            match send(transport.fd.as_raw_fd(), &client.out[client.sent..], MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => {
                    client.sent += count;
                    client.progress += count as u64;
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(_) => client.broken = true,
            }
        }
        let done = client.sent == client.out.len();
        if done && pending {
            client.sent = 0;
            client.out.clear();
            let buffer = std::mem::take(&mut client.out);
            if buffer.capacity() <= 2 * WRITE_HIGH_WATER_BYTES && self.spare.capacity() == 0 {
                self.spare = buffer;
            }
        }
        if done && client.fate == Fate::Linger && !client.lingering && !client.broken {
            client.lingering = true;
            client.leftover = Vec::new();
            client.deadline_ms = now.saturating_add(LINGER_TIMEOUT_MS.min(stall_timeout_ms));
            if let Some(transport) = &client.transport {
                // ENOTCONN: the client has closed already, which is what we wait for.
                let _ = shutdown(transport.fd.as_raw_fd(), Shutdown::Write);
            }
        }
        pending && done
    }

    /// The buffer a client writes into.
    pub fn out(&mut self, place: usize) -> Option<&mut Vec<u8>> {
        let client = self.places.get_mut(place)?.client.as_mut()?;
        if client.out.capacity() == 0 {
            client.out = std::mem::take(&mut self.spare);
        }
        Some(&mut client.out)
    }

    /// Sets the deadline that fits what the client is waited for now.
    pub fn choose_deadline(&mut self, place: usize) {
        let (now, options) = (self.now_ms, self.options);
        let Some(client) = self.client(place) else { return };
        if client.lingering {
            return;
        }
        let waits_for_client =
            client.unsent() > 0 || (client.machine.in_exchange() && client.machine.is_hungry());
        if waits_for_client {
            // Progress counts when it is more than a trickle.
            if client.progress >= MIN_PROGRESS_BYTES || client.deadline_ms == u64::MAX {
                client.progress = 0;
                client.deadline_ms = now.saturating_add(options.stall_timeout_ms);
            }
        } else if client.machine.is_responding() {
            client.deadline_ms = u64::MAX;
        } else if client.machine.is_idle() && client.leftover.is_empty() {
            client.deadline_ms = now.saturating_add(options.idle_timeout_ms);
        }
    }

    /// The earliest deadline of all clients.
    pub fn next_deadline(&self) -> Option<u64> {
        self.places
            .iter()
            .filter_map(|place| place.client.as_ref())
            .map(|client| client.deadline_ms)
            .min()
            .filter(|deadline| *deadline != u64::MAX)
    }
}

/// Accepts connections without delay of small segments: the option is
/// inherited from the listener. Unix sockets have no such delay.
pub(super) fn set_no_delay(listener: &Listener) {
    // EOPNOTSUPP for a Unix socket.
    let _ = nix::sys::socket::setsockopt(&listener.as_fd(), nix::sys::socket::sockopt::TcpNoDelay, &true);
}

/// Whether accept(2) failed because something is used up, which waiting mends.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_survive_the_way_through_javascript() {
        for (place, sequence) in [(0, 0), (5, 1), (MAX_CONNECTIONS - 1, (1 << 39) - 1)] {
            let id = RequestId { place, sequence };
            assert_eq!(RequestId::from_number(id.to_number()), id);
        }
        for garbage in [f64::NAN, -1.0, f64::INFINITY, 1e300] {
            let id = RequestId::from_number(garbage);
            assert!(Server::default().exchange(id).is_none());
        }
    }

    #[test]
    fn numbers_of_places_that_were_given_up_find_nobody() {
        let mut server = Server::default();
        let places: Vec<usize> = (0..3).map(|_| server.take_place().expect("room")).collect();
        let mut headers = Vec::new();
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut ids = Vec::new();
        for place in &places {
            server.places[*place].sequence += 1 + *place as u64;
            server.places[*place].client = Some(Client::new(None, 0));
            server.client(*place).expect("there").machine.advance(head, &mut headers, 0);
            ids.push(server.request_at(*place));
        }
        server.shrink();
        assert!(ids.iter().all(|id| server.exchange(*id).is_some()), "who is there stays");
        for place in places {
            server.leave_place(place);
        }
        server.shrink();
        assert_eq!(server.places.capacity(), 0);
        for _ in 0..3 {
            let place = server.take_place().expect("room");
            server.places[place].client = Some(Client::new(None, 0));
            server.client(place).expect("there").machine.advance(head, &mut headers, 0);
            assert!(!ids.contains(&server.request_at(place)));
        }
        assert!(ids.iter().all(|id| server.exchange(*id).is_none()));
    }

    #[test]
    fn a_place_that_was_left_is_not_found_by_old_numbers() {
        let mut server = Server::default();
        let place = server.take_place().expect("room");
        server.places[place].client = Some(Client::new(None, 0));
        let mut headers = Vec::new();
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        server.client(place).expect("there").machine.advance(head, &mut headers, 0);
        let id = server.request_at(place);
        assert!(server.exchange(id).is_some());
        server.leave_place(place);
        assert_eq!(server.take_place(), Some(place));
        server.places[place].client = Some(Client::new(None, 0));
        server.client(place).expect("there").machine.advance(head, &mut headers, 0);
        assert!(server.exchange(id).is_none());
    }
}
