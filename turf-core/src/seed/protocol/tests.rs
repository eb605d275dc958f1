//! What the decoder accepts, what it refuses, and that no input breaks it.

use std::os::fd::{AsFd, OwnedFd};

use super::*;

fn request(fds: Vec<FdName>) -> ForkRequest {
    ForkRequest {
        container: "c1".into(),
        namespaces: Namespaces::PID,
        reaper: Reaper::Init,
        groups: GroupEntry::Itself,
        begin: Begin::AtOnce,
        plan_len: 3,
        fds,
    }
}

const REQUIRED: [FdName; 7] =
    [FdName::Init, FdName::Stdin, FdName::Stdout, FdName::Stderr, FdName::Report, FdName::Gate, FdName::Plan];

fn some_fds(count: usize) -> Vec<OwnedFd> {
    let file = std::fs::File::open("/dev/null").unwrap();
    (0..count).map(|_| file.as_fd().try_clone_to_owned().unwrap()).collect()
}

#[test]
fn every_message_survives_encoding() {
    let refusal = Refusal::new("check", "two threads");
    let replies = [Reply::Forked { pid: 7, due: true }, Reply::Refused(refusal), Reply::Stopping];
    for reply in replies {
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
    }
    for message in [Request::Fork(request(REQUIRED.to_vec())), Request::Stat, Request::Stop] {
        assert_eq!(decode::<Request>(&encode(&message).unwrap()).unwrap(), message);
    }
}

#[test]
fn another_version_is_named_in_the_error() {
    let mut packet = encode(&Request::Stat).unwrap();
    packet[4..6].copy_from_slice(&9u16.to_le_bytes());
    assert_eq!(decode::<Request>(&packet), Err(ProtocolError::Version { theirs: 9 }));
}

#[test]
fn foreign_short_and_overlong_bodies_are_refused() {
    let packet = encode(&Request::Fork(request(REQUIRED.to_vec()))).unwrap();
    assert_eq!(decode::<Request>(b"GET / HTTP/1.1\r\n\r\n"), Err(ProtocolError::Magic));
    assert_eq!(decode::<Request>(b""), Err(ProtocolError::Magic));
    for len in HEADER_LEN..packet.len() {
        assert_eq!(decode::<Request>(&packet[..len]), Err(ProtocolError::Body), "cut to {len}");
    }
    let mut longer = packet;
    longer.push(0);
    assert_eq!(decode::<Request>(&longer), Err(ProtocolError::Body));
}

#[test]
fn a_message_over_the_packet_limit_is_not_encoded() {
    let mut big = request(vec![]);
    big.container = "x".repeat(MAX_PACKET);
    assert_eq!(encode(&Request::Fork(big)), Err(ProtocolError::TooLong));
}

#[test]
fn each_descriptor_goes_to_its_name() {
    let mut names = vec![FdName::Listener, FdName::Cgroup, FdName::Listener];
    names.extend(REQUIRED);
    let received = request(names.clone()).claim(some_fds(names.len())).unwrap();
    assert_eq!((received.listeners.len(), received.cgroups.len()), (2, 1));
}

#[test]
fn missing_double_and_surplus_descriptors_are_refused() {
    for missing in 0..REQUIRED.len() {
        let mut names = REQUIRED.to_vec();
        let name = names.remove(missing);
        let error = request(names.clone()).claim(some_fds(names.len())).unwrap_err();
        assert_eq!(error, ProtocolError::FdName { name, count: 0 });
    }
    let mut names = REQUIRED.to_vec();
    names.push(FdName::Gate);
    let error = request(names).claim(some_fds(8)).unwrap_err();
    assert_eq!(error, ProtocolError::FdName { name: FdName::Gate, count: 2 });

    let error = request(REQUIRED.to_vec()).claim(some_fds(8)).unwrap_err();
    assert_eq!(error, ProtocolError::FdCount { named: 7, carried: 8 });

    let mut names = REQUIRED.to_vec();
    names.push(FdName::Plan);
    let error = request(names).claim(some_fds(8)).unwrap_err();
    assert_eq!(error, ProtocolError::FdName { name: FdName::Plan, count: 2 });
}

#[test]
fn fields_over_their_limits_are_refused() {
    let mut long_id = request(REQUIRED.to_vec());
    long_id.container = "x".repeat(MAX_CONTAINER_ID + 1);
    let mut long_plan = request(REQUIRED.to_vec());
    long_plan.plan_len = MAX_PLAN as u32 + 1;
    let mut namespaces = request(REQUIRED.to_vec());
    namespaces.namespaces = Namespaces(1);
    for (request, part) in [(long_id, "container id"), (long_plan, "worker plan"), (namespaces, "namespaces")]
    {
        let error = request.claim(some_fds(7)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let names = [REQUIRED.to_vec(), vec![FdName::Cgroup; MAX_CGROUPS + 1]].concat();
    let count = names.len();
    assert_eq!(
        request(names).claim(some_fds(count)).unwrap_err(),
        ProtocolError::FdName { name: FdName::Cgroup, count: MAX_CGROUPS + 1 }
    );
}

/// A small generator, so that a failing input is found again by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}

#[test]
fn random_and_damaged_packets_never_panic_and_what_decodes_encodes_again() {
    let good =
        encode(&Request::Fork(request([REQUIRED.to_vec(), vec![FdName::Listener; 5]].concat()))).unwrap();
    let mut random = Random(1);
    for round in 0..200_000 {
        let mut packet = if round % 2 == 0 {
            good.clone()
        } else {
            let len = random.next() as usize % 80;
            let mut packet = good[..HEADER_LEN].to_vec();
            packet.extend((0..len).map(|_| random.next() as u8));
            packet
        };
        for _ in 0..random.next() % 4 {
            let at = random.next() as usize % packet.len();
            packet[at] = random.next() as u8;
        }
        packet.truncate(packet.len() - random.next() as usize % 3);
        if let Ok(message) = decode::<Request>(&packet) {
            assert_eq!(decode::<Request>(&encode(&message).unwrap()).unwrap(), message, "round {round}");
            if let Request::Fork(fork) = message {
                let _ = fork.claim(vec![]);
            }
        }
        let _ = decode::<Reply>(&packet);
        let _ = decode::<Report>(&packet);
    }
}

#[test]
fn an_error_text_is_in_lower_case_and_has_no_number() {
    let error = io::Error::from_raw_os_error(libc::ENOENT);
    assert_eq!(
        Refusal::from_io("open script", "open /app/worker.js", &error).text,
        "open /app/worker.js: no such file or directory"
    );
}
