//! The driver against a bus that answers by a script, over a real socket. A real systemd is asked in the virtual machine.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use super::message::tests::encode_answer;
use super::message::{FIXED_HEADER, Kind, Message, decode, total_length};
use super::*;

/// What the bus does when it is called: an answer, then perhaps a signal.
enum Answer {
    Text(&'static str),
    Nothing,
    Error(&'static str),
    /// The path of a job, and the result with which it is removed.
    Job(&'static str),
}

/// A bus that serves one connection and returns the calls it got.
struct FakeBus {
    address: String,
    served: JoinHandle<Vec<Message>>,
    _directory: tempfile::TempDir,
}

impl FakeBus {
    fn new(script: Vec<(&'static str, Answer)>) -> FakeBus {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || serve(&listener, script));
        FakeBus { address: format!("unix:path={}", path.display()), served, _directory: directory }
    }

    fn calls(self) -> Vec<Message> {
        self.served.join().unwrap()
    }
}

fn serve(listener: &UnixListener, script: Vec<(&'static str, Answer)>) -> Vec<Message> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    assert!(line.starts_with(b"\0AUTH EXTERNAL "), "{line:?}");
    stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
    let mut begin = [0; 7];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"BEGIN\r\n");
    let hello = [("Hello", Answer::Text(":1.7"))];
    let mut calls = Vec::new();
    for (serial, (member, answer)) in (1u32..).zip(hello.into_iter().chain(script)) {
        let mut header = [0; FIXED_HEADER];
        stream.read_exact(&mut header).unwrap();
        let mut bytes = header.to_vec();
        bytes.resize(total_length(&header).unwrap(), 0);
        stream.read_exact(&mut bytes[FIXED_HEADER..]).unwrap();
        let call = decode(&bytes).unwrap();
        assert_eq!(call.member, member);
        calls.push(call);
        // Others' signals come all the time.
        stream.write_all(&signal("UnitRemoved", &["x.service", "/x"])).unwrap();
        let reply = |arguments: &[Value]| encode_answer(Kind::Return, serial, "", arguments);
        let text = |text: &str| Value::Text(text.to_owned());
        match answer {
            Answer::Text(answer) => stream.write_all(&reply(&[text(answer)])).unwrap(),
            Answer::Nothing => stream.write_all(&reply(&[text("")])).unwrap(),
            Answer::Error(name) => {
                stream.write_all(&encode_answer(Kind::Error, serial, name, &[text("no")])).unwrap();
            }
            Answer::Job(result) => {
                // Another job's end, ours, and only then the answer: the order is not promised.
                stream.write_all(&signal("JobRemoved", &["3", "/job/3", "other.service", "failed"])).unwrap();
                stream.write_all(&signal("JobRemoved", &["4", "/job/4", "turf-box.scope", result])).unwrap();
                stream.write_all(&reply(&[text("/job/4")])).unwrap();
            }
        }
    }
    calls
}

fn signal(member: &str, arguments: &[&str]) -> Vec<u8> {
    let arguments: Vec<Value> = arguments.iter().map(|text| Value::Text((*text).to_owned())).collect();
    encode_answer(Kind::Signal, 0, member, &arguments)
}

fn located() -> Located {
    let unit = Unit::parse(None, "box").unwrap();
    Located { unit, manager: Manager::System, id: "box".to_owned() }
}

fn plan() -> CgroupPlan {
    let linux = serde_json::json!({"resources": {"pids": {"limit": 9}}});
    CgroupPlan::compile_linux("box", Some(&serde_json::from_value(linux).unwrap())).unwrap()
}

#[test]
fn a_unit_is_started_changed_and_stopped() {
    let bus = FakeBus::new(vec![
        ("Get", Answer::Text("252.39-1~deb12u2")),
        ("AddMatch", Answer::Nothing),
        ("StartTransientUnit", Answer::Job("done")),
        ("AttachProcessesToUnit", Answer::Nothing),
        ("Get", Answer::Text("252.39-1~deb12u2")),
        ("SetUnitProperties", Answer::Nothing),
        ("AddMatch", Answer::Nothing),
        ("StopUnit", Answer::Job("done")),
        ("ResetFailedUnit", Answer::Error("org.freedesktop.systemd1.NoSuchUnit")),
    ]);
    let mut connection = Bus::connect(&bus.address).unwrap();
    let located = located();
    located.start_on(&mut connection, &plan(), Version::V2, 77).unwrap();
    located.attach_on(&mut connection, 78).unwrap();
    located.update_on(&mut connection, &plan().resources, Version::V2).unwrap();
    located.stop_on(&mut connection).unwrap();
    drop(connection);
    let calls = bus.calls();
    assert_eq!(calls[3].arguments, ["turf-box.scope", "replace"]);
    assert_eq!(calls[4].arguments, ["turf-box.scope", "/"]);
    assert_eq!(calls[8].arguments, ["turf-box.scope", "replace"]);
}

#[test]
fn a_unit_of_before_that_failed_is_forgotten_and_started() {
    let bus = FakeBus::new(vec![
        ("Get", Answer::Text("v255")),
        ("AddMatch", Answer::Nothing),
        ("StartTransientUnit", Answer::Error(UNIT_EXISTS)),
        ("ResetFailedUnit", Answer::Nothing),
        ("AddMatch", Answer::Nothing),
        ("StartTransientUnit", Answer::Job("done")),
    ]);
    let mut connection = Bus::connect(&bus.address).unwrap();
    located().start_on(&mut connection, &plan(), Version::V2, 77).unwrap();
    drop(connection);
    bus.calls();
}

#[test]
fn what_systemd_refuses_is_named() {
    for (answer, words) in [
        (Answer::Error("org.freedesktop.DBus.Error.AccessDenied"), "start unit turf-box.scope: no (org."),
        (Answer::Job("failed"), "StartTransientUnit turf-box.scope: ended with \"failed\""),
    ] {
        let bus = FakeBus::new(vec![
            ("Get", Answer::Text("252")),
            ("AddMatch", Answer::Nothing),
            ("StartTransientUnit", answer),
        ]);
        let mut connection = Bus::connect(&bus.address).unwrap();
        let text = located().start_on(&mut connection, &plan(), Version::V2, 77).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
        bus.calls();
    }
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let bus = FakeBus::new(vec![("AddMatch", Answer::Nothing), ("StopUnit", Answer::Error(NO_SUCH_UNIT))]);
    located().stop_on(&mut Bus::connect(&bus.address).unwrap()).unwrap();
    bus.calls();
}

#[test]
fn a_bus_that_hangs_up_is_an_error() {
    let bus = FakeBus::new(vec![("AddMatch", Answer::Nothing)]);
    let text = located().stop_on(&mut Bus::connect(&bus.address).unwrap()).unwrap_err().to_string();
    assert!(text.contains("call StopUnit of org.freedesktop.systemd1"), "{text}");
    bus.calls();
}

#[test]
fn without_systemd_the_flag_is_refused() {
    if Path::new(BOOTED).is_dir() {
        return println!("skipped: systemd runs here");
    }
    let text = crate::cgroup::Cgroup::locate_unit(&plan(), "box").unwrap_err().to_string();
    assert!(text.contains("needs systemd"), "{text}");
}

#[test]
fn versions_are_numbers_in_front() {
    assert_eq!(["252.39-1~deb12u2", "v255", "", "x"].map(version_number), [252, 255, 0, 0]);
}
