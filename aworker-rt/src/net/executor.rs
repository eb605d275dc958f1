//! Futures on one thread: tasks, descriptors and timers, without a runtime.
//!
//! Tokio may not be used on the far side of a fork once it was used before it. This executor holds
//! nothing but what [`Executor::close`] can drop: an epoll instance that is made with the first
//! descriptor, boxed futures, and deadlines. It never blocks: the event loop waits for its epoll
//! descriptor and for its earliest deadline, and gives it turns.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::limits::{MAX_EVENTS, MAX_POLLS_PER_TURN};

/// Something that runs by itself.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A running task, for [`Executor::cancel`]; never reused for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId {
    index: usize,
    generation: u64,
}

/// Tasks that were woken, in order.
#[derive(Debug, Default)]
struct Ready(Mutex<VecDeque<TaskId>>);

impl Ready {
    fn push(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    fn pop(&self) -> Option<TaskId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Wakes one task. (Wakers must be `Send`; everything happens on one thread.)
#[derive(Debug)]
struct TaskWaker {
    task: TaskId,
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

#[derive(Default)]
struct Slot {
    generation: u64,
    /// Absent while the task is polled.
    future: Option<Task>,
    waker: Option<Arc<TaskWaker>>,
}

/// What a descriptor is ready for, and who waits for it.
#[derive(Debug, Default)]
struct Readiness {
    is_open: bool,
    generation: u32,
    is_readable: bool,
    is_writable: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Executor {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    ready: Arc<Ready>,
    epoll: RefCell<Option<Rc<Epoll>>>,
    sources: RefCell<Vec<Readiness>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_timer: Cell<u64>,
}

impl Executor {
    /// Starts a task; it is polled first in the next [`Self::run`].
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            slots.len() - 1
        });
        let slot = &mut slots[index];
        let task = TaskId { index, generation: slot.generation };
        slot.future = Some(Box::pin(future));
        slot.waker =
            Some(Arc::new(TaskWaker { task, is_queued: AtomicBool::new(true), ready: self.ready.clone() }));
        self.ready.push(task);
        task
    }

    /// Drops a task at once; one that has ended is ignored.
    pub fn cancel(&self, task: TaskId) {
        let future = self.retire(task);
        // The future's own drop may call back.
        drop(future);
    }

    fn retire(&self, task: TaskId) -> Option<Task> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(task.index).filter(|slot| slot.generation == task.generation)?;
        slot.generation += 1;
        slot.waker = None;
        self.free.borrow_mut().push(task.index);
        slot.future.take()
    }

    /// Takes what the descriptors and the clock have to say and polls what was woken. `true` if more
    /// is ready than one turn may do.
    pub fn run(&self) -> bool {
        self.take_events();
        self.take_timers();
        for _ in 0..MAX_POLLS_PER_TURN {
            let Some(task) = self.ready.pop() else { return false };
            self.poll_task(task);
        }
        true
    }

    fn poll_task(&self, task: TaskId) {
        let (mut future, waker) = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(task.index).filter(|slot| slot.generation == task.generation)
            else {
                return;
            };
            let (Some(future), Some(waker)) = (slot.future.take(), slot.waker.clone()) else { return };
            (future, waker)
        };
        waker.is_queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(waker);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.retire(task);
            return;
        }
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(task.index).filter(|slot| slot.generation == task.generation) {
            slot.future = Some(future);
        } else {
            // It was cancelled while it ran.
            drop(slots);
            drop(future);
        }
    }

    fn take_events(&self) {
        let Some(epoll) = self.epoll.borrow().clone() else { return };
        let mut events = [EpollEvent::empty(); MAX_EVENTS];
        // EINTR: the next turn looks again.
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..count] {
            self.take_event(event);
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn take_event(&self, event: &EpollEvent) {
        let (index, generation) = (event.data() as u32 as usize, (event.data() >> 32) as u32);
        let mut sources = self.sources.borrow_mut();
        let Some(source) =
            sources.get_mut(index).filter(|source| source.is_open && source.generation == generation)
        else {
            return;
        };
        let broken = event.events().intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let mut woken = [None, None];
        if broken || event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP) {
            source.is_readable = true;
            woken[0] = source.reader.take();
        }
        if broken || event.events().contains(EpollFlags::EPOLLOUT) {
            source.is_writable = true;
            woken[1] = source.writer.take();
        }
        drop(sources);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    fn take_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let later = self.timers.borrow_mut().split_off(&(Instant::now(), u64::MAX));
        let due = self.timers.replace(later);
        due.into_values().for_each(Waker::wake);
    }

    /// When [`Self::run`] must be called although no descriptor is ready.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// The epoll descriptor to wait for, if there is any descriptor.
    pub fn epoll(&self) -> Option<Rc<Epoll>> {
        self.epoll.borrow().clone()
    }

    /// Drops every task, descriptor and deadline.
    pub fn close(&self) {
        for slot in self.slots.take() {
            drop(slot);
        }
        self.free.take();
        self.timers.take();
        self.sources.take();
        self.epoll.take();
        while self.ready.pop().is_some() {}
    }

    /// Waits for a descriptor, edge-triggered, as long as the source lives.
    fn add(&self, fd: BorrowedFd<'_>) -> io::Result<(usize, u32)> {
        let epoll = self.epoll.borrow().clone();
        let epoll = match epoll {
            Some(epoll) => epoll,
            None => {
                let made = Rc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
                *self.epoll.borrow_mut() = Some(made.clone());
                made
            }
        };
        let mut sources = self.sources.borrow_mut();
        let index = sources.iter().position(|source| !source.is_open).unwrap_or_else(|| {
            sources.push(Readiness::default());
            sources.len() - 1
        });
        let source = &mut sources[index];
        let generation = source.generation.wrapping_add(1);
        // What is not so is found out by the first try.
        *source = Readiness {
            is_open: true,
            generation,
            is_readable: true,
            is_writable: true,
            ..Default::default()
        };
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let added = epoll.add(fd, EpollEvent::new(flags, u64::from(generation) << 32 | index as u64));
        if let Err(errno) = added {
            source.is_open = false;
            return Err(errno.into());
        }
        Ok((index, generation))
    }
}

/// Which side of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
}

/// A non-blocking descriptor that tasks wait for. Closed when dropped.
pub struct Source {
    executor: Rc<Executor>,
    index: usize,
    generation: u32,
    fd: OwnedFd,
}

impl Source {
    /// Takes a descriptor, which must be non-blocking.
    ///
    /// # Errors
    /// As epoll_create1(2) and epoll_ctl(2).
    pub fn new(executor: &Rc<Executor>, fd: OwnedFd) -> io::Result<Source> {
        let (index, generation) = executor.add(fd.as_fd())?;
        Ok(Source { executor: executor.clone(), index, generation, fd })
    }

    /// Tries an operation whenever the side may be ready, until it does not say EAGAIN.
    pub fn poll_io<T>(
        &self,
        context: &mut Context<'_>,
        side: Side,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            {
                let mut sources = self.executor.sources.borrow_mut();
                let source =
                    sources.get_mut(self.index).filter(|source| source.generation == self.generation);
                let Some(source) = source else {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                };
                let (is_ready, waiter) = match side {
                    Side::Read => (source.is_readable, &mut source.reader),
                    Side::Write => (source.is_writable, &mut source.writer),
                };
                if !is_ready {
                    *waiter = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
            match operation(self.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear(side),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn clear(&self, side: Side) {
        if let Some(source) = self.executor.sources.borrow_mut().get_mut(self.index) {
            match side {
                Side::Read => source.is_readable = false,
                Side::Write => source.is_writable = false,
            }
        }
    }

    /// As [`Self::poll_io`], for `await`.
    ///
    /// # Errors
    /// The operation's.
    pub async fn io<T>(
        &self,
        side: Side,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        std::future::poll_fn(|context| self.poll_io(context, side, &mut operation)).await
    }

    /// The next event of this side tells whether it is ready; until then it counts as not ready.
    pub fn expect_event(&self, side: Side) {
        self.clear(side);
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // After `close` the table is empty or another's.
        if let Some(epoll) = self.executor.epoll.borrow().as_ref() {
            let mut sources = self.executor.sources.borrow_mut();
            let source = sources.get_mut(self.index).filter(|source| source.generation == self.generation);
            if let Some(source) = source {
                source.is_open = false;
                source.reader = None;
                source.writer = None;
                // ENOENT or EBADF only say that the kernel has forgotten it already.
                let _ = epoll.delete(&self.fd);
            }
        }
    }
}

/// Ends at a time. See [`sleep`].
pub struct Sleep {
    executor: Rc<Executor>,
    deadline: Instant,
    key: Option<u64>,
}

/// Waits for a time to pass.
pub fn sleep(executor: &Rc<Executor>, duration: Duration) -> Sleep {
    Sleep { executor: executor.clone(), deadline: Instant::now() + duration, key: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let next = self.executor.next_timer.get();
            self.executor.next_timer.set(next + 1);
            next
        });
        self.key = Some(key);
        let waker = context.waker().clone();
        self.executor.timers.borrow_mut().insert((self.deadline, key), waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.executor.timers.borrow_mut().remove(&(self.deadline, key));
        }
    }
}

/// Lets the tasks that were woken before go first.
pub async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

/// Awaits a future for a time.
///
/// # Errors
/// The time has passed.
pub async fn timeout<F: Future>(
    executor: &Rc<Executor>,
    duration: Duration,
    future: F,
) -> Result<F::Output, TimedOut> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(sleep(executor, duration));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        sleep.as_mut().poll(context).map(|()| Err(TimedOut))
    })
    .await
}

/// Runs a future to its end, sleeping as an event loop would. For tests.
#[cfg(test)]
pub fn block_on<T: 'static>(executor: &Rc<Executor>, future: impl Future<Output = T> + 'static) -> T {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    executor.spawn(async move {
        let value = future.await;
        *slot.borrow_mut() = Some(value);
    });
    loop {
        while executor.run() {}
        if let Some(value) = result.borrow_mut().take() {
            return value;
        }
        let patience = executor.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let patience = patience.map_or(10_000, |patience| patience.as_millis() + 1);
        let patience = PollTimeout::try_from(patience).expect("a short time");
        let epoll = executor.epoll();
        let mut fds: Vec<_> =
            epoll.iter().map(|epoll| PollFd::new(epoll.0.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, patience).expect("waits");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_task_waits_for_a_descriptor_and_for_time() {
        let executor = Rc::new(Executor::default());
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("sets");
        let source = Source::new(&executor, ours.into()).expect("registers");
        let inner = executor.clone();
        let read = async move {
            let mut byte = [0; 1];
            let mut read = |fd: BorrowedFd<'_>| Ok(nix::unistd::read(fd, &mut byte)?);
            let early = timeout(&inner, Duration::from_millis(5), source.io(Side::Read, &mut read)).await;
            assert_eq!(early.expect_err("nothing was written"), TimedOut);
            theirs.write_all(b"x").expect("writes");
            assert_eq!(source.io(Side::Read, read).await.expect("reads"), 1);
            byte[0]
        };
        assert_eq!(block_on(&executor, read), b'x');
        assert!(executor.next_deadline().is_none(), "a dropped timer is forgotten");
    }

    #[test]
    fn a_cancelled_task_is_dropped_at_once() {
        let executor = Rc::new(Executor::default());
        let witness = Rc::new(());
        let held = witness.clone();
        let task = executor.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        executor.run();
        assert_eq!(Rc::strong_count(&witness), 2);
        executor.cancel(task);
        assert_eq!(Rc::strong_count(&witness), 1);
        executor.cancel(task);
    }

    #[test]
    fn closing_leaves_no_descriptor() {
        let executor = Rc::new(Executor::default());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let source = Source::new(&executor, ours.into()).expect("registers");
        executor.spawn(async move {
            std::future::pending::<()>().await;
            drop(source);
        });
        executor.run();
        executor.close();
        assert!(executor.epoll().is_none());
        let mut end = [0; 1];
        assert_eq!(std::io::Read::read(&mut &theirs, &mut end).expect("reads"), 0, "the other end is closed");
    }
}
