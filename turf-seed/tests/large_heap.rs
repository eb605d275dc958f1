//! A seed with much data: its heap lies in a file when it waits for forks, and clones of it use, change and collect it.
//!
//! A program of its own (no harness): a fork needs a process with one thread.

use std::io::{Read, Write};

use aworker_rt::{Runtime, Script, V8Flags, WorkerOptions, initialize};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use turf_core::sys::fork::{Fork, fork};
use turf_core::sys::process::exit_now;

/// About 20 MB of objects and strings.
const SEED: &str = "
    globalThis.data = [];
    for (let i = 0; i < 160_000; i++) data.push({ id: i, name: `user ${i}`, list: [i, i + 1, 1.5 * i], tag: { i } });
    globalThis.sum = () => data.reduce((sum, { id, name, list, tag }) => sum + id + name.length + list[2] + tag.i, 0);
    globalThis.expected = sum();
";
const SEED_BYTES: u64 = 16 << 20;

/// Reads all, changes a part, gives half back, collects, and fills the gaps.
const CLONE: &str = "
    if (sum() !== expected) throw new Error(`${sum()} is not ${expected}`);
    for (let i = 0; i < data.length; i += 100) { data[i].name += '!'; data[i].list = [0, 0, 1.5 * i]; }
    if (sum() !== expected + data.length / 100) throw new Error('changed');
    data = data.filter((_, index) => index % 2 === 0);
    const before = sum();
    gc();
    gc();
    for (let i = 0; i < 160_000; i++) data.push({ id: 0, name: '', list: [0, 0, 0], tag: { i: 0 } });
    gc();
    if (sum() !== before) throw new Error(`${sum()} is not ${before}`);
    globalThis.report = `${before}`;
";

fn main() {
    let extra = vec!["--expose-gc".to_owned()];
    initialize(&V8Flags { extra, ..V8Flags::default() });
    let mut seed = Runtime::new();
    seed.warm_up().expect("the built-ins work");
    seed.load(&Script::from_text("[seed]", SEED)).expect("the seed's script runs");
    seed.fire_serialize().expect("nobody objects");
    seed.settle();
    let before = anonymous_bytes();
    assert!(before > SEED_BYTES, "{before} bytes");
    seed.await_forks(turf_core::sys::program_pages::give_back).expect("memory for the heap's copy");
    let after = anonymous_bytes();
    println!("memory that a fork has to copy page tables of: {} kB, then {} kB", before >> 10, after >> 10);
    assert!(after < before - SEED_BYTES, "{before} bytes, then {after}");
    let open = std::fs::read_dir("/proc/self/fd").expect("a directory");
    let open = open.filter_map(|entry| std::fs::read_link(entry.expect("an entry").path()).ok());
    assert!(open.into_iter().all(|target| !target.to_string_lossy().contains("memfd")), "the file is closed");
    assert!(may_not_be_written(), "the file is sealed");

    let mut seed = Some(seed);
    let reports: Vec<String> = (0..3).map(|_| in_a_clone(&mut seed)).collect();
    assert!(reports[0].parse::<f64>().is_ok_and(|sum| sum > 0.0), "{reports:?}");
    assert!(
        reports.iter().all(|report| *report == reports[0]),
        "no clone sees another's changes: {reports:?}"
    );
    println!("3 clones have read, changed and collected it");
}

/// Memory that is not a file's (`Anonymous` in smaps(5)).
fn anonymous_bytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") << 10
}

/// Whether the heap's file, opened through the mapping, refuses to be written.
fn may_not_be_written() -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|line| line.contains("memfd:heap")).expect("the heap's mapping");
    let addresses = line.split(' ').next().expect("addresses");
    let file = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/map_files/{addresses}"));
    file.and_then(|file| std::os::unix::fs::FileExt::write_at(&file, b"x", 0)).is_err()
}

fn in_a_clone(seed: &mut Option<Runtime>) -> String {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    match fork().expect("forks") {
        Fork::Child => {
            let seed = seed.take().expect("the parent keeps its own");
            let worker = seed.become_worker(WorkerOptions::default()).map_err(|error| error.to_string());
            let said = worker.and_then(|mut worker| {
                let run = |text| Script::from_text("[clone]", text);
                worker.evaluate(&run(CLONE)).map_err(|error| error.to_string())?;
                worker.evaluate(&run("report")).map_err(|error| error.to_string())
            });
            let (text, status) = match said {
                Ok(report) => (report.unwrap_or_default(), 0),
                Err(error) => (error, 1),
            };
            let _ = writer.write_all(text.as_bytes());
            exit_now(status)
        }
        Fork::Parent { pid } => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("the child writes UTF-8");
            let status = waitpid(Pid::from_raw(pid), None).expect("a child to wait for");
            assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 0), "{text}");
            text
        }
    }
}
