//! The resolver against name servers of its own, on loopback.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::executor::block_on;
use super::*;

/// What a fake server does with a question for a name and a type code.
enum Reply {
    /// Response code and addresses.
    Answer(u8, Vec<IpAddr>),
    /// Truncated over UDP, these addresses over TCP.
    ByTcp(Vec<IpAddr>),
    /// Forged answers first, then these addresses.
    AfterForgeries(Vec<IpAddr>),
    Silence,
}

/// Answers questions on a port of 127.0.0.1, over UDP and TCP; its threads end with the test program.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

fn start(reply: impl Fn(&str, u16) -> Reply + Send + Sync + 'static) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = tcp.local_addr().expect("an address").port();
    let udp = UdpSocket::bind(("127.0.0.1", port)).expect("the same port is free for UDP");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let reply = Arc::new(reply);
    let (list, for_udp) = (asked.clone(), reply.clone());
    std::thread::spawn(move || {
        let mut datagram = [0; 1500];
        while let Ok((count, peer)) = udp.recv_from(&mut datagram) {
            let query = &datagram[..count];
            let (name, kind) = question(query);
            list.lock().expect("no panic").push(format!("{name} {kind}"));
            let messages = match for_udp(&name, kind) {
                Reply::Answer(code, addresses) => vec![answer(query, 0x8180 | u16::from(code), &addresses)],
                Reply::ByTcp(_) => vec![answer(query, 0x8380, &[])],
                Reply::AfterForgeries(addresses) => {
                    let mut forged = answer(query, 0x8180, &[IpAddr::from([6, 6, 6, 6])]);
                    forged[0] ^= 0xff;
                    let other_name = {
                        let mut forged = answer(query, 0x8180, &[IpAddr::from([6, 6, 6, 6])]);
                        forged[13] ^= 1;
                        forged
                    };
                    vec![forged, other_name, vec![1, 2, 3], answer(query, 0x8180, &addresses)]
                }
                Reply::Silence => vec![],
            };
            for message in messages {
                udp.send_to(&message, peer).expect("sends");
            }
        }
    });
    std::thread::spawn(move || {
        for socket in tcp.incoming() {
            let mut socket = socket.expect("accepts");
            let mut length = [0; 2];
            socket.read_exact(&mut length).expect("reads");
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            socket.read_exact(&mut query).expect("reads");
            let (name, kind) = question(&query);
            if let Reply::ByTcp(addresses) = reply(&name, kind) {
                let message = answer(&query, 0x8180, &addresses);
                let length = u16::try_from(message.len()).expect("short").to_be_bytes();
                // In pieces, as TCP may.
                for piece in [&length[..1], &length[1..], &message[..5], &message[5..]] {
                    socket.write_all(piece).expect("writes");
                }
            }
        }
    });
    Server { port, asked }
}

fn question(query: &[u8]) -> (String, u16) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]))
}

fn answer(query: &[u8], flags: u16, addresses: &[IpAddr]) -> Vec<u8> {
    // The question without what EDNS adds.
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("the name's end") + 5;
    let mut message = query[..end].to_vec();
    message[10..12].fill(0);
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[6..8].copy_from_slice(&u16::try_from(addresses.len()).expect("few").to_be_bytes());
    for address in addresses {
        let (kind, data) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).expect("short")]);
        message.extend(data);
    }
    message
}

const A: u16 = 1;

/// Looks up a name; all addresses in the order they are tried.
fn resolve_with(resolv_conf: &str, hosts: &str, name: &str) -> Result<Vec<IpAddr>, NetError> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let unique = format!("aworker-dns-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
    let directory = std::env::temp_dir().join(unique);
    std::fs::create_dir_all(&directory).expect("makes a directory");
    let files = Files { resolv_conf: directory.join("resolv.conf"), hosts: directory.join("hosts") };
    std::fs::write(&files.resolv_conf, resolv_conf).expect("writes");
    std::fs::write(&files.hosts, hosts).expect("writes");
    let executor = Rc::new(Executor::default());
    let inner = executor.clone();
    let lookup = RefCell::new(look_up(&executor, &files, name));
    let result = block_on(&executor, async move {
        let mut addresses = Vec::new();
        std::future::poll_fn(|context| {
            let mut lookup = lookup.borrow_mut();
            if lookup.waits_for_ipv6() {
                lookup.wake_on_news(context);
                return Poll::Pending;
            }
            loop {
                match lookup.take(context) {
                    Next::Address(address) => addresses.push(address),
                    Next::Later => return Poll::Pending,
                    Next::Nothing(outcome) => return Poll::Ready(outcome),
                }
            }
        })
        .await
        .map(|()| addresses)
    });
    inner.close();
    std::fs::remove_dir_all(&directory).expect("removes");
    result
}

fn ipv4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn ipv6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

#[test]
fn both_families_are_asked_for_and_alternate() {
    let server = start(|_, kind| match kind {
        A => Reply::Answer(0, vec![ipv4(1), ipv4(2), ipv4(3)]),
        _ => Reply::Answer(0, vec![ipv6(1), ipv6(2)]),
    });
    let conf = format!("nameserver [127.0.0.1]:{}\n", server.port);
    // The two answers are packets of their own: addresses of the one may be taken before the other is there.
    let found = (0..100).map(|_| {
        let found = resolve_with(&conf, "", "a.example").expect("resolves");
        assert_eq!(found.len(), 5);
        found
    });
    let alternating = [ipv6(1), ipv4(1), ipv6(2), ipv4(2), ipv4(3)];
    assert!(found.into_iter().any(|found| found == alternating), "never alternating");
}

#[test]
fn hosts_and_localhost_come_before_any_server() {
    let conf = "nameserver [127.0.0.1]:1\n";
    let hosts = "10.0.0.9 a.example alias\nfd00::9 a.example\n";
    assert_eq!(resolve_with(conf, hosts, "A.EXAMPLE").expect("resolves"), [ipv6(9), ipv4(9)]);
    assert_eq!(resolve_with(conf, hosts, "alias").expect("resolves"), [ipv4(9)]);
    let loopback: Vec<IpAddr> = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    for name in ["localhost", "deep.below.localhost", "LocalHost."] {
        assert_eq!(resolve_with(conf, "", name).expect("resolves"), loopback, "{name}");
    }
    assert_eq!(resolve_with(conf, "", "[::1]").expect("an address"), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
}

#[test]
fn the_search_list_is_tried_in_order() {
    let server = start(|name, kind| match (name, kind) {
        ("a.second.example", A) => Reply::Answer(0, vec![ipv4(2)]),
        ("a.second.example", _) => Reply::Answer(0, vec![]),
        _ => Reply::Answer(3, vec![]),
    });
    let conf = format!("nameserver [127.0.0.1]:{}\nsearch first.example second.example\n", server.port);
    assert_eq!(resolve_with(&conf, "", "a").expect("resolves"), [ipv4(2)]);
    let asked = server.asked.lock().expect("no panic").clone();
    assert!(asked[..2].iter().all(|question| question.starts_with("a.first.example ")), "{asked:?}");
    let failed = resolve_with(&conf, "", "missing").expect_err("no such name");
    assert_eq!(failed.code(), "ENOTFOUND");
}

#[test]
fn a_truncated_answer_is_fetched_by_tcp() {
    let server = start(|_, kind| match kind {
        A => Reply::ByTcp((1..=200).map(ipv4).collect()),
        _ => Reply::Answer(0, vec![]),
    });
    let conf = format!("nameserver [127.0.0.1]:{}\n", server.port);
    let found = resolve_with(&conf, "", "big.example").expect("resolves");
    assert_eq!(found.len(), MAX_ADDRESSES, "and no more are tried");
}

#[test]
fn forged_answers_are_passed_over() {
    let server = start(|_, kind| match kind {
        A => Reply::AfterForgeries(vec![ipv4(1)]),
        _ => Reply::Answer(0, vec![]),
    });
    let conf = format!("nameserver [127.0.0.1]:{}\n", server.port);
    assert_eq!(resolve_with(&conf, "", "a.example").expect("resolves"), [ipv4(1)]);
}

#[test]
fn a_silent_or_failing_server_leaves_the_next_one() {
    let silent = start(|_, _| Reply::Silence);
    let failing = start(|_, _| Reply::Answer(2, vec![]));
    let good =
        start(|_, kind| if kind == A { Reply::Answer(0, vec![ipv4(7)]) } else { Reply::Answer(0, vec![]) });
    let servers: String =
        [&silent, &failing, &good].map(|server| format!("nameserver [127.0.0.1]:{}\n", server.port)).concat();
    let conf = format!("{servers}options timeout:1 attempts:1\n");
    assert_eq!(resolve_with(&conf, "", "a.example").expect("resolves"), [ipv4(7)]);
    // A closed port refuses at once: no patience is needed.
    let conf = format!("nameserver [127.0.0.1]:1\nnameserver [127.0.0.1]:{}\n", good.port);
    assert_eq!(resolve_with(&conf, "", "a.example").expect("resolves"), [ipv4(7)]);
    let conf = format!("nameserver [127.0.0.1]:{}\noptions timeout:1 attempts:1\n", silent.port);
    assert_eq!(resolve_with(&conf, "", "a.example").expect_err("nobody answers").code(), "EAI_AGAIN");
    let conf = format!("nameserver [127.0.0.1]:{}\n", failing.port);
    assert_eq!(resolve_with(&conf, "", "a.example").expect_err("it cannot tell").code(), "EAI_AGAIN");
}

#[test]
fn options_decide_how_questions_are_asked() {
    let server = start(|_, kind| if kind == A { Reply::ByTcp(vec![ipv4(1)]) } else { Reply::Silence });
    let conf = format!("nameserver [127.0.0.1]:{}\noptions use-vc no-aaaa edns0 rotate\n", server.port);
    assert_eq!(resolve_with(&conf, "", "a.example").expect("resolves"), [ipv4(1)]);
    assert!(server.asked.lock().expect("no panic").is_empty(), "nothing was asked over UDP");
}
