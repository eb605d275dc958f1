//! An HTTP proxy for tests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::PATIENCE;

/// A proxy of plain bytes: it opens every tunnel that it is asked for, whatever the host's name, to one address. Other
/// requests it answers itself. What it was asked is in the list.
pub fn proxy(target: std::net::SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("an address").to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = heads.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, list) = (socket.expect("accepts"), list.clone());
            std::thread::spawn(move || {
                while let Some(head) = read_head(&mut socket) {
                    list.lock().expect("no test thread panics").push(head.clone());
                    if head.starts_with("CONNECT refused.test:") {
                        let _ = socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
                    } else if head.starts_with("CONNECT ") {
                        socket.write_all(b"HTTP/1.1 200 Here you are\r\nVia: test\r\n\r\n").expect("writes");
                        return carry(&socket, &TcpStream::connect(target).expect("connects"));
                    } else {
                        let line = head.lines().next().expect("a line");
                        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
                        let _ = socket.write_all(text.as_bytes());
                    }
                }
            });
        }
    });
    (address, heads)
}

fn read_head(socket: &mut TcpStream) -> Option<String> {
    socket.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).expect("UTF-8"))
}

/// Copies both ways until both sides have ended.
fn carry(first: &TcpStream, second: &TcpStream) {
    let (from, mut to) = (first.try_clone().expect("clones"), second.try_clone().expect("clones"));
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut &from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut &*second, &mut &*first);
    let _ = first.shutdown(std::net::Shutdown::Both);
    back.join().expect("copies");
}
