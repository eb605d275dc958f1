//! A connection to a D-Bus, on which methods are called one after the other and signals waited for.
//!
//! Blocking, with one deadline for each answer, and no threads: the program that uses it clones its container from a
//! single thread. D-Bus Specification, "Authentication Protocol" (EXTERNAL), "Message Bus Messages".

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use super::message::{Call, FIXED_HEADER, Kind, Message, Value, decode, encode, total_length};
use crate::error::{Error, Operation, Result};
use crate::limits;

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

/// An error that the other side answered with.
#[derive(Debug)]
pub struct Refused {
    /// The name, like `org.freedesktop.systemd1.NoSuchUnit`.
    pub name: String,
    /// What it says.
    pub text: String,
}

const BUS: &str = "org.freedesktop.DBus";

impl Bus {
    /// Connects to the first address of a list (`unix:path=/run/...;...`) that can be reached, and says hello.
    pub fn connect(addresses: &str) -> Result<Bus> {
        let mut last = Error::invalid(format!("D-Bus address {addresses:?}"), "names no unix socket");
        for address in addresses.split(';') {
            match open(address) {
                None => {}
                Some(Err(error)) => last = Error::io(format!("connect to the D-Bus at {address}"), error),
                Some(Ok(stream)) => {
                    let mut bus = Bus { stream, serial: 0, signals: VecDeque::new() };
                    bus.authenticate().operation(|| format!("authenticate to the D-Bus at {address}"))?;
                    bus.call(BUS, "/org/freedesktop/DBus", BUS, "Hello", &[])?
                        .map_err(|refused| Error::invalid(format!("D-Bus at {address}"), refused.text))?;
                    return Ok(bus);
                }
            }
        }
        Err(last)
    }

    /// Proves by the socket's credentials who we are.
    fn authenticate(&mut self) -> io::Result<()> {
        let user: String =
            nix::unistd::geteuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.set_read_timeout(Some(limits::BUS_ANSWER))?;
        self.stream.set_write_timeout(Some(limits::BUS_ANSWER))?;
        self.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > limits::BUS_LINE_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::other(String::from_utf8_lossy(&line).trim().to_owned()));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Asks for signals of an interface's member.
    pub fn listen(&mut self, interface: &str, member: &str) -> Result<()> {
        let rule = format!("type='signal',interface='{interface}',member='{member}'");
        let answer = self.call(BUS, "/org/freedesktop/DBus", BUS, "AddMatch", &[Value::Text(rule)])?;
        answer.map(drop).map_err(|refused| Error::invalid(format!("signals {member}"), refused.text))
    }

    /// Calls a method and waits for its answer.
    pub fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        arguments: &[Value],
    ) -> Result<std::result::Result<Vec<String>, Refused>> {
        self.serial += 1;
        let serial = self.serial;
        let bytes = encode(&Call { destination, path, interface, member, arguments }, serial);
        let what = || format!("call {member} of {destination}");
        self.stream.write_all(&bytes).operation(what)?;
        let deadline = Instant::now() + limits::BUS_ANSWER;
        loop {
            let message = self.receive(deadline, &what())?;
            match message.kind {
                Kind::Return if message.reply_serial == serial => return Ok(Ok(message.arguments)),
                Kind::Error if message.reply_serial == serial => {
                    let text = message.arguments.into_iter().next().unwrap_or_default();
                    return Ok(Err(Refused { name: message.error_name, text }));
                }
                Kind::Signal => self.keep(message),
                Kind::Return | Kind::Error | Kind::Call => {}
            }
        }
    }

    /// Waits for a signal that `wanted` accepts.
    pub fn wait_for_signal(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        let deadline = Instant::now() + limits::BUS_ANSWER;
        loop {
            while let Some(message) = self.signals.pop_front() {
                if wanted(&message) {
                    return Ok(message);
                }
            }
            let message = self.receive(deadline, what)?;
            if message.kind == Kind::Signal {
                self.keep(message);
            }
        }
    }

    /// Of many signals, other units' among them, the latest count.
    fn keep(&mut self, signal: Message) {
        if self.signals.len() == limits::BUS_SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(signal);
    }

    fn receive(&mut self, deadline: Instant, what: &str) -> Result<Message> {
        let mut header = [0; FIXED_HEADER];
        self.read(&mut header, deadline, what)?;
        let mut bytes = vec![0; total_length(&header)?];
        bytes[..FIXED_HEADER].copy_from_slice(&header);
        self.read(&mut bytes[FIXED_HEADER..], deadline, what)?;
        decode(&bytes)
    }

    fn read(&mut self, mut into: &mut [u8], deadline: Instant, what: &str) -> Result<()> {
        let late = || Error::TimedOut {
            operation: what.to_owned(),
            limit_ms: limits::BUS_ANSWER.as_millis() as u64,
        };
        while !into.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_millis(1) {
                return Err(late());
            }
            self.stream.set_read_timeout(Some(left)).operation(|| what)?;
            match self.stream.read(into) {
                Ok(0) => return Err(Error::io(what, io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(count) => into = &mut into[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
                Err(error) => return Err(Error::io(what, error)),
            }
        }
        Ok(())
    }
}

/// Connects to one address; none if it is of a kind that we do not speak.
fn open(address: &str) -> Option<io::Result<UnixStream>> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|key| match key.split_once('=')? {
        ("path", path) => Some(UnixStream::connect(unescape(path))),
        ("abstract", name) => {
            let address = SocketAddr::from_abstract_name(unescape(name));
            Some(address.and_then(|address| UnixStream::connect_addr(&address)))
        }
        _ => None,
    })
}

/// Undoes `%20` and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let code = others.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_escaped() {
        assert_eq!(unescape("/run/a%20b%2fc"), "/run/a b/c");
        assert_eq!(unescape("100%"), "100%");
        assert!(open("tcp:host=x").is_none());
        assert!(open("unix:guid=1").is_none());
        let error = Bus::connect("unix:path=/no/such/bus").unwrap_err().to_string();
        assert!(error.contains("connect to the D-Bus at unix:path=/no/such/bus"), "{error}");
    }
}
