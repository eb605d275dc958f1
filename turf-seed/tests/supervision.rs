//! The supervisor's side of a worker's channel and gauges is spelled out in turf-core, the worker's in aworker-rt, which
//! must not know each other. This crate knows both.

use aworker_rt::engine::gauges::{self as worker, Gauge};
use aworker_rt::worker::supervised::{ONE_REQUEST, tag as worker_tag};
use turf_core::pool::channel::tag;
use turf_core::pool::gauges as supervisor;
use turf_core::pool::gauges::word;

#[test]
fn both_ends_of_the_channel_use_the_same_tags() {
    let pairs = [
        (tag::CONNECTION, worker_tag::CONNECTION),
        (tag::LAST, worker_tag::LAST),
        (tag::LISTEN, worker_tag::LISTEN),
        (tag::UNLISTEN, worker_tag::UNLISTEN),
        (tag::DRAIN, worker_tag::DRAIN),
        (tag::FINISH, worker_tag::FINISH),
        (tag::POKE, worker_tag::POKE),
        (tag::SHED, worker_tag::SHED),
        (tag::READY, worker_tag::READY),
        (tag::ACTIVE, worker_tag::ACTIVE),
        (tag::FULL, worker_tag::FULL),
        (tag::VACANT, worker_tag::VACANT),
        (tag::GIVEN_BACK, worker_tag::GIVEN_BACK),
        (tag::DRAINS, worker_tag::DRAINS),
        (tag::SLOW, worker_tag::SLOW),
        (tag::IDENTITY, worker_tag::IDENTITY),
        (tag::MESSAGE, worker_tag::MESSAGE),
    ];
    for (index, (ours, theirs)) in pairs.iter().enumerate() {
        assert_eq!(ours, theirs, "tag {index}");
        assert!(pairs[..index].iter().all(|(other, _)| other != ours), "tag {index} is used twice");
    }
    assert_eq!(ONE_REQUEST, u8::from(true));
}

#[test]
fn both_readers_of_the_gauges_see_the_same_page() {
    assert_eq!(
        (
            supervisor::VERSION,
            supervisor::PAGE_BYTES,
            supervisor::REQUEST_OFFSET,
            supervisor::LAST_WORDS_OFFSET
        ),
        (worker::VERSION, worker::PAGE_BYTES, worker::REQUEST_OFFSET, worker::LAST_WORDS_OFFSET)
    );
    for (ours, theirs) in [
        (word::VERSION, Gauge::Version),
        (word::PHASE, Gauge::Phase),
        (word::REQUESTS, Gauge::Requests),
        (word::IN_FLIGHT, Gauge::InFlight),
        (word::CONNECTIONS, Gauge::Connections),
        (word::FAILURES, Gauge::Failures),
        (word::ACTIVE_MS, Gauge::ActiveMs),
        (word::QUIET, Gauge::Quiet),
        (word::INTERRUPTED, Gauge::Interrupted),
        (word::FULL, Gauge::Full),
        (word::CHANNEL, Gauge::Channel),
        (word::PEER, Gauge::Peer),
        (word::MESSAGES_WAITING, Gauge::MessagesWaiting),
        (word::WEB_SOCKETS, Gauge::WebSockets),
        (word::PID, Gauge::Pid),
        (word::LISTENERS, Gauge::Listeners),
        (word::FIRST_LISTENER, Gauge::FirstListener),
    ] {
        assert_eq!(ours, theirs as usize, "{theirs:?}");
    }
}

#[test]
fn what_a_worker_writes_its_supervisor_reads() {
    use std::os::fd::AsFd;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gauges");
    let page = supervisor::Gauges::create(&path).unwrap();
    worker::map(page.as_fd()).unwrap();
    worker::set(Gauge::Requests, 7);
    worker::set_listeners([5, 9].into_iter());
    worker::set_request(b"GET", b"/a?b");
    worker::last_words(&[b"over ", "x".repeat(9999).as_bytes()]);
    let reading = page.read().unwrap();
    assert!(reading.is_known());
    assert_eq!((reading.word(word::REQUESTS), reading.listeners()), (7, vec![5, 9]));
    assert_eq!((reading.request(), worker::request()), ("GET /a?b".to_owned(), &b"GET /a?b"[..]));
    assert_eq!(reading.last_words().len(), worker::LAST_WORDS_BYTES);
    assert!(!worker::take_quiet());
    page.ask_for_wake_up().unwrap();
    assert!(worker::take_quiet() && !worker::take_quiet());
}
