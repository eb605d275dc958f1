//! Files without threads: reads that never make the event loop wait for a device.
//!
//! ```text
//!   in the caches? --yes--> answered at once
//!        | no
//!   io_uring --forbidden--> read ahead, look again after a while
//!        |                          |
//!        +---> the loop goes on <---+---> the promise is settled
//! ```
//!
//! [`job`] is one operation, without V8; here are the table of operations and files, and what JavaScript calls.
//! `src/js/80_files.js` is what users see. In a seed and during the build of a snapshot, where neither a ring nor an
//! epoll instance may be, everything waits in place.

mod job;
mod list;
mod ops;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

pub(crate) use ops::{file_bytes, file_close, file_list, file_open, file_read, file_stat};

use crate::engine::{Completion, Ring};
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready};
use job::{Failure, Job, Means, Outcome, Step};

/// Open files of streams; far below the usual limit of descriptors.
const MAX_OPEN: usize = 1024;
/// Operations under way and waiting for their turn.
const MAX_JOBS: usize = 16_384;
/// Whether io_uring may be used; `0` in the environment's variable of this name forbids it.
const RING_VARIABLE: &str = "AWORKER_IO_URING";

/// The isolate's files.
#[derive(Default)]
struct Files {
    open: HashMap<u32, Rc<OwnedFd>>,
    next_file: u32,
    jobs: HashMap<u64, (Job, v8::Global<v8::PromiseResolver>)>,
    next_job: u64,
    /// Operations of the ring, and whose they are.
    in_ring: HashMap<u64, u64>,
    /// Directories that are being read.
    listings: HashMap<u64, list::Waiting>,
    /// Jobs for which the ring has no room.
    queue: VecDeque<u64>,
    ring: RingState,
    is_worker: bool,
}

#[derive(Default)]
enum RingState {
    #[default]
    Unknown,
    Made(Box<Ring>),
    Forbidden,
}

/// This process is a worker of its own: it may wait without blocking.
pub(crate) fn become_worker(isolate: &mut v8::Isolate) {
    files(isolate).is_worker = true;
}

/// This clone of a worker is a seed: it has neither the worker's ring nor one of its own.
pub(crate) fn become_seed(isolate: &mut v8::Isolate) {
    let files = files(isolate);
    files.is_worker = false;
    files.ring = RingState::Unknown;
}

/// What a snapshot could not keep.
pub(crate) fn held(isolate: &mut v8::Isolate) -> Option<&'static str> {
    let files = isolate.get_slot::<Files>()?;
    let is_held = !files.open.is_empty() || !files.jobs.is_empty() || !files.listings.is_empty();
    is_held.then_some("an open file")
}

/// Drops everything.
pub(crate) fn forget(isolate: &mut v8::Isolate) {
    drop(isolate.remove_slot::<Files>());
}

fn files(isolate: &mut v8::Isolate) -> &mut Files {
    if isolate.get_slot::<Files>().is_none() {
        isolate.set_slot(Files::default());
    }
    isolate.get_slot_mut::<Files>().expect("set above")
}

impl Files {
    /// Takes a file for a stream; its handle.
    fn insert(&mut self, file: Rc<OwnedFd>) -> Option<u32> {
        if self.open.len() >= MAX_OPEN {
            return None;
        }
        let handle = self.next_file;
        self.next_file = self.next_file.wrapping_add(1);
        self.open.insert(handle, file);
        Some(handle)
    }
}

/// How this process may wait. A ring is made, and watched, on first use.
fn means(scope: &mut v8::PinScope<'_, '_>) -> Means {
    let files = files(scope);
    match (&files.ring, files.is_worker) {
        (_, false) => return Means::Blocking,
        (RingState::Made(_), true) => return Means::Ring,
        (RingState::Forbidden, true) => return Means::LookingAgain,
        (RingState::Unknown, true) => {}
    }
    let forbidden = std::env::var_os(RING_VARIABLE).is_some_and(|value| value == "0");
    let ring = if forbidden { None } else { watched_ring(scope).ok() };
    let files = self::files(scope);
    match ring {
        Some(ring) => {
            files.ring = RingState::Made(Box::new(ring));
            Means::Ring
        }
        // Forbidden, not there, or no memory for it: the other way works everywhere.
        None => {
            files.ring = RingState::Forbidden;
            Means::LookingAgain
        }
    }
}

fn watched_ring(scope: &mut v8::PinScope<'_, '_>) -> std::io::Result<Ring> {
    let ring = Ring::new()?;
    // Jobs keep the loop running, not the ring.
    let reactor = event_loop::get(scope).reactor();
    reactor.register(ring.as_fd(), Interest::READ, Life::Background, on_ring, 0)?;
    Ok(ring)
}

/// What a job came to at once, or that it goes on behind a promise.
enum Begun<'s> {
    Done(Result<Outcome, Failure>),
    Promise(v8::Local<'s, v8::Promise>),
}

/// Runs a job as far as it goes.
fn begin<'s>(scope: &mut v8::PinScope<'s, '_>, mut job: Job) -> Begun<'s> {
    // The means cost something to find out: only what is not in the caches asks for them.
    let step = match job.advance(Means::Unknown) {
        Step::NeedsMeans => {
            let means = means(scope);
            job.advance(means)
        }
        step => step,
    };
    if let Step::Done(outcome) = step {
        return Begun::Done(outcome);
    }
    if files(scope).jobs.len() >= MAX_JOBS {
        return Begun::Done(Err(job.failure(libc::EMFILE)));
    }
    let Some(resolver) = v8::PromiseResolver::new(scope) else {
        return Begun::Done(Err(job.failure(libc::ENOMEM)));
    };
    let promise = resolver.get_promise(scope);
    let resolver = v8::Global::new(scope, resolver);
    let files = files(scope);
    let number = files.next_job;
    files.next_job += 1;
    files.jobs.insert(number, (job, resolver));
    event_loop::get(scope).begin_operation();
    suspend(scope, number, step);
    Begun::Promise(promise)
}

/// Arranges that a job goes on once what it waits for has come.
fn suspend(scope: &mut v8::PinScope<'_, '_>, number: u64, step: Step) {
    match step {
        Step::Yield => event_loop::get(scope).tasks().push(Action { run: resume, key: number }),
        Step::LookAgain(delay) => {
            event_loop::get(scope).timers().arm(delay, Action { run: resume, key: number });
        }
        Step::UseRing => {
            files(scope).queue.push_back(number);
            feed_ring(scope);
        }
        Step::Done(outcome) => settle(scope, number, outcome),
        Step::NeedsMeans => unreachable!("the means are known"),
    }
}

/// The next step of a job that waits for time or for its turn.
fn resume(scope: &mut v8::PinScope<'_, '_>, number: u64) {
    let means = means(scope);
    if let Some((job, _)) = files(scope).jobs.get_mut(&number) {
        let step = job.advance(means);
        suspend(scope, number, step);
    }
}

fn settle(scope: &mut v8::PinScope<'_, '_>, number: u64, outcome: Result<Outcome, Failure>) {
    let Some((_, resolver)) = files(scope).jobs.remove(&number) else {
        return;
    };
    event_loop::get(scope).end_operation();
    let resolver = v8::Local::new(scope, resolver);
    match ops::to_value(scope, outcome) {
        Ok(value) => resolver.resolve(scope, value),
        Err(error) => resolver.reject(scope, error),
    };
}

/// Gives the ring what it has room for.
fn feed_ring(scope: &mut v8::PinScope<'_, '_>) {
    let mut failed = Vec::new();
    let Files { ring: RingState::Made(ring), queue, jobs, in_ring, .. } = files(scope) else {
        return;
    };
    while ring.has_room() {
        let Some(number) = queue.pop_front() else {
            break;
        };
        let Some((job, _)) = jobs.get_mut(&number) else {
            continue;
        };
        match job.submit(ring) {
            Ok(operation) => drop(in_ring.insert(operation, number)),
            Err(failure) => failed.push((number, failure)),
        }
    }
    for (number, failure) in failed {
        settle(scope, number, Err(failure));
    }
}

fn take_completion(files: &mut Files) -> Option<(u64, Completion)> {
    let RingState::Made(ring) = &mut files.ring else {
        return None;
    };
    let (operation, completion) = ring.take()?;
    Some((files.in_ring.remove(&operation)?, completion))
}

/// The ring has answers.
fn on_ring(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    while let Some((number, completion)) = take_completion(files(scope)) {
        let means = means(scope);
        if let Some((job, _)) = files(scope).jobs.get_mut(&number) {
            job.complete(completion);
            let step = job.advance(means);
            suspend(scope, number, step);
        }
    }
    feed_ring(scope);
    Checkpoint::Due
}
