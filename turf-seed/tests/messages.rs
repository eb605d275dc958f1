//! What a worker does with messages that no worker has written. Here because this crate knows both ends of the channel.

use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use aworker_rt::{Runtime, Script, Start, Supervision, V8Flags, WorkerOptions, initialize};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use turf_core::pool::channel::{Channel, PACKET_BYTES, Said, tag};
use turf_core::pool::gauges::Gauges;
use turf_core::pool::message::{Kind, Message};

/// Sends samples of everything that can be cloned, to nobody that exists; then counts what comes.
const SCRIPT: &str = "
let messages = 0;
let errors = 0;
const samples = [
  { map: new Map([[1, [2n, 'three']]]), set: new Set(['x']), date: new Date(5), list: [1, , 3] },
  [new Blob(['inside']), new File(['a'], 'b'), new DOMException('far', 'AbortError'), new RangeError('x')],
  new Uint8Array(300).fill(7),
];
for (const sample of samples) Aworker.pool.postMessage(sample, { to: 'p.1.2' });
crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']).then((key) => {
  Aworker.pool.postMessage({ key }, { to: 'p.1.2' });
});
const news = new BroadcastChannel('news');
news.onmessage = news.onmessageerror = () => {};
Aworker.pool.onmessage = ({ data, source }) => {
  if (source === null) { Aworker.pool.postMessage({ messages, errors }); return; }
  messages += 1;
  structuredClone(data);
};
Aworker.pool.onmessageerror = () => { errors += 1; };
addEventListener('fetch', () => {});
";

/// The rounds of the test: hostile messages sent.
const ROUNDS: usize = 4000;

/// xorshift64: the same sequence in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Waits until the channel has something, or room.
fn wait_for(channel: &Channel, flags: PollFlags) {
    let mut polled = [PollFd::new(channel.as_fd(), flags)];
    assert_eq!(poll(&mut polled, PollTimeout::from(30_000u16)), Ok(1), "nothing happens");
}

/// The next message of the worker.
fn receive(channel: &Channel) -> Vec<u8> {
    let mut buffer = vec![0; PACKET_BYTES];
    loop {
        wait_for(channel, PollFlags::POLLIN);
        if let Some(Said::Message { packet, .. }) = channel.receive(&mut buffer).unwrap() {
            return packet;
        }
    }
}

fn send(channel: &Channel, packet: &[u8]) {
    while let Err(error) = channel.send(packet, None) {
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        wait_for(channel, PollFlags::POLLOUT);
    }
}

/// The form of a body that is V8's bytes and nothing else.
const PLAIN: u8 = 0;

/// A resizable ArrayBuffer whose greatest length no address space has.
const IMPOSSIBLE: [u8; 11] = [0xff, 0x10, 0x7e, 0x29, 0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0x6f];

/// Plays the supervisor: takes the samples, sends changes of them, and asks for the counts.
fn play(channel: &Channel) -> (u64, u64, u64) {
    let samples: Vec<Vec<u8>> = (0..4).map(|_| receive(channel)).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sent = 0;
    for round in 0..ROUNDS {
        let sample = Message::decode(&samples[random.below(samples.len())]).expect("a worker's message");
        let mut body = sample.body.to_vec();
        // The first ones are as they were.
        for _ in 0..if round < 8 { 0 } else { 1 + random.below(6) } {
            let at = random.below(body.len().max(1));
            match random.below(4) {
                0 if at < body.len() => body[at] = u8::try_from(random.below(256)).unwrap(),
                1 if at < body.len() => body[at] ^= 1 << random.below(8),
                2 => body.truncate(at),
                _ => body.insert(at.min(body.len()), u8::try_from(random.below(256)).unwrap()),
            }
        }
        let mut form = if round < 8 { sample.form } else { u8::try_from(random.below(4)).unwrap() };
        if round >= 8 && random.below(16) == 0 {
            (form, body) = (PLAIN, IMPOSSIBLE.to_vec());
        }
        let kind = if random.below(4) == 0 { Kind::Broadcast } else { Kind::Worker };
        sent += u64::from(kind == Kind::Worker);
        let message = Message { kind, form, who: b"p.1.9", name: b"news", body: &body };
        send(channel, &message.encode(tag::MESSAGE).unwrap());
        // Framing that is none is nobody's.
        let rubbish: Vec<u8> =
            (0..random.below(40)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        send(channel, &[&[tag::MESSAGE, 9], &rubbish[..]].concat());
    }
    let ask = Message { kind: Kind::Supervisor, form: 0, who: b"", name: b"", body: b"{}" };
    send(channel, &ask.encode(tag::MESSAGE).unwrap());
    let answer = receive(channel);
    let counts: serde_json::Value = serde_json::from_slice(Message::decode(&answer).unwrap().body).unwrap();
    send(channel, &[tag::DRAIN]);
    (sent, counts["messages"].as_u64().unwrap(), counts["errors"].as_u64().unwrap())
}

#[test]
fn hostile_messages_are_errors_for_the_script_and_nothing_else() {
    initialize(&V8Flags { max_heap_mb: None, extra: vec![] });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.js");
    std::fs::write(&path, SCRIPT).unwrap();
    let (channel, theirs) = Channel::pair().unwrap();
    channel.send(&[&[tag::IDENTITY], &b"p.1.1"[..]].concat(), None).unwrap();
    let gauges = Gauges::create(&directory.path().join("gauges")).unwrap();
    let copy = |fd: std::os::fd::BorrowedFd<'_>| -> OwnedFd { fd.try_clone_to_owned().unwrap() };
    let (peer, gauges) = (copy(channel.as_fd()), copy(gauges.as_fd()));
    let supervisor = thread::spawn(move || play(&channel));
    let mut runtime = Runtime::new();
    runtime.supervise(Supervision { channel: theirs, peer, gauges }).unwrap();
    let worker = runtime.become_worker(WorkerOptions::default()).unwrap();
    let status = worker.run(Start::Load(Script::read(&path).unwrap()), Vec::new());
    assert_eq!(status, 0, "a message has ended the worker");
    let (sent, messages, errors) = supervisor.join().unwrap();
    assert_eq!(messages + errors, sent, "each is a message or an error");
    assert!(messages >= 4 && errors > 100, "{messages} messages, {errors} errors");
}
