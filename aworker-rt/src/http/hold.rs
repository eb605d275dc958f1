//! A pause between two requests: what has begun is finished, and nothing further is begun until the worker goes on.
//! Connections wait in the listeners' queues, requests in their sockets; no client notices more than a delay.

use std::io;

use super::gates::{close_gates, open_gates};
use super::server::{self, Server, ServerOptions};
use super::slow::SlowLog;
use super::supervised::Supervised;

/// Accepts no further connection and reads no further request.
pub fn hold(scope: &mut v8::PinScope<'_, '_>) {
    server::get(scope).is_held = true;
    close_gates(scope);
}

/// The end of [`hold`].
///
/// # Errors
/// A listener cannot be registered with the event loop.
pub fn go_on(scope: &mut v8::PinScope<'_, '_>) -> io::Result<()> {
    let server = server::get(scope);
    server.is_held = false;
    for place in std::mem::take(&mut server.supervised.waiting) {
        server.kick(place);
    }
    open_gates(scope)
}

/// How many requests are not answered to their end.
pub fn under_way(isolate: &mut v8::Isolate) -> usize {
    let clients = server::get(isolate).places.iter().filter_map(|place| place.client.as_ref());
    clients.filter(|client| client.machine.in_exchange()).count()
}

/// In a clone of a held worker, whose loop has forgotten its descriptors: closes its copies of listeners and
/// connections. What they are to others stays as it is.
pub fn forget(isolate: &mut v8::Isolate) {
    let server = server::get(isolate);
    server.forget_clients();
    server.gates = Vec::new();
    server.options = ServerOptions::default();
    server.sweep = None;
    server.is_full = false;
    server.is_held = false;
    server.supervised = Supervised::default();
    server.slow = SlowLog::default();
}

impl Server {
    fn forget_clients(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place].client.is_some() {
                drop(self.leave_place(place));
            }
            self.places[place].is_kicked = false;
        }
        self.kicked = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::Client;
    use super::*;

    #[test]
    fn a_held_server_keeps_a_client_between_two_requests_waiting() {
        let mut server = Server::default();
        let place = server.take_place().expect("room");
        server.places[place].client = Some(Client::new(None, 0));
        assert!(!server.must_wait(place));
        server.is_held = true;
        assert!(server.must_wait(place));
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
        server.client(place).expect("there").machine.advance(head, &mut Vec::new(), 9);
        assert!(!server.must_wait(place), "a request that has begun is read to its end");
    }

    #[test]
    fn forgotten_clients_leave_no_place_that_old_numbers_find() {
        let mut server = Server::default();
        let place = server.take_place().expect("room");
        server.places[place].client = Some(Client::new(None, 0));
        server.kick(place);
        let id = server.request_at(place);
        server.forget_clients();
        assert!(server.kicked.is_empty() && server.open == 0 && server.client(place).is_none());
        assert_ne!(server.request_at(place), id);
    }
}
