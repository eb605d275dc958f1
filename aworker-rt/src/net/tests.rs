//! How long the client waits, with times that a test can wait for.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use http::{HeaderMap, Method};

use super::exchange::{Plan, PlannedBody, Pulled};
use super::executor::{block_on, sleep};
use super::pool::{Choice, Origin};
use super::*;

/// The limit under test; the others are far beyond it.
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

fn net(timeouts: Timeouts) -> Rc<Net> {
    Net::new(NetOptions { timeouts, ..NetOptions::default() }, 1)
}

/// A server that does something with its first connection once it has read a request's head.
fn server<T: Send + 'static>(act: impl FnOnce(TcpStream) -> T + Send + 'static) -> (Plan, mpsc::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("an address").port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accepts");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).expect("reads");
            head.push(byte[0]);
        }
        sender.send(act(socket)).ok();
    });
    let plan = Plan {
        origin: Origin { is_secure: false, host: "127.0.0.1".to_owned(), port },
        connection: Choice::Any,
        target: "/".to_owned(),
        method: Method::GET,
        headers: HeaderMap::new(),
        body: PlannedBody::None,
    };
    (plan, receiver)
}

/// What a server does that says no more: it reads until the client closes, and tells when that was.
fn until_closed(mut socket: TcpStream) -> Instant {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    Instant::now()
}

/// Lets the client go on for this long.
fn run(net: &Rc<Net>, time: Duration) {
    let executor = net.executor.clone();
    block_on(&net.executor, async move { sleep(&executor, time).await });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let net = net(Timeouts { idle_connection: SHORT, head: LONG, body: LONG });
    let (plan, closed) = server(|mut socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("writes");
        (Instant::now(), until_closed(socket))
    });
    let exchange = Exchange::begin(&net, 1, false, plan);
    run(&net, 3 * SHORT);
    assert_eq!(exchange.take_head().map(|head| head.status), Some(200));
    let (answered, closed) = closed.recv_timeout(LONG).expect("the connection is closed");
    assert!(closed - answered >= SHORT, "not before its time: {:?}", closed - answered);
}

#[test]
fn a_response_that_does_not_come_in_time_is_given_up() {
    let net = net(Timeouts { idle_connection: LONG, head: SHORT, body: LONG });
    let (plan, closed) = server(until_closed);
    let exchange = Exchange::begin(&net, 1, false, plan);
    run(&net, 2 * SHORT);
    let error = exchange.failure().expect("it has failed");
    assert!(error.to_string().contains("no response came in time"), "{error}");
    closed.recv_timeout(LONG).expect("the connection is closed");
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let net = net(Timeouts { idle_connection: LONG, head: LONG, body: SHORT });
    let (plan, closed) = server(|mut socket| {
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").expect("writes");
        until_closed(socket)
    });
    let exchange = Exchange::begin(&net, 1, false, plan);
    run(&net, 2 * SHORT);
    assert!(matches!(exchange.pull(), Pulled::Bytes(bytes) if bytes == b"half"));
    let Pulled::Failed(error) = exchange.pull() else { panic!("it has stalled") };
    assert!(error.to_string().contains("no byte of the response's body came in time"), "{error}");
    closed.recv_timeout(LONG).expect("the connection is closed");
}
