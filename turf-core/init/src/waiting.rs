//! Init at the gate, and after it: waiting for a start, then for the worker's end.
//!
//! ```text
//!              'W', answered 'r'           'B' from the worker           'R' from the worker
//!   waiting -------------------> expecting ------------------> born ---------------------------> running
//!      ^                             |                           |    listener closed, 'R'           |
//!      +--- connection ended --------+                           +----------+------------------------+
//!      |                                                                    | the worker ended
//!      | 'X': calls, execve                                                 v
//!      v                                                          exit with its status
//!   the program
//! ```
//!
//! One thread, one loop over poll(2). As long as no worker was born, a signal that ends processes ends
//! init; then signals are passed on to the worker.

use crate::calls;
use crate::message::{self, Framing};
use crate::orders::Task;
use crate::sys::{self, Block, Errno, PollFd};

/// The status init exits with when it fails by itself.
const FAILURE_STATUS: i32 = 1;
/// The status of a worker whose end nobody could tell: as if it was killed.
const UNKNOWN_END: i32 = SIGKILL;
/// No descriptor.
const NONE: i32 = -1;

const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGTSTP: i32 = 20;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

const EINTR: Errno = Errno(4);
const ENOENT: Errno = Errno(2);
const EAGAIN: Errno = Errno(11);
const EACCES: Errno = Errno(13);
const ENOTDIR: Errno = Errno(20);
const ECANCELED: Errno = Errno(125);

/// Reads the orders from this descriptor and follows them; returns the exit status.
pub fn follow(orders: i32) -> i32 {
    // Whoever is in the container must not look into init, which holds descriptors of the host.
    if sys::hide().is_err() {
        return FAILURE_STATUS;
    }
    // Ignored ones are inherited: SIGCHLD would take the children's statuses away, and the program expects none.
    sys::default_signal_actions();
    let Ok(block) = Block::read_from(orders) else { return FAILURE_STATUS };
    let task = block.orders().task;
    for fd in [block.orders().listener, block.orders().talk] {
        if fd != NONE && sys::close_on_exec(fd).is_err() {
            return FAILURE_STATUS;
        }
    }
    if task == Task::Join as u32 {
        return join(&block);
    }
    if task == Task::Run as u32 {
        return become_program(&block, block.orders().talk, Framing::Packet, Announced::No);
    }
    let _ = sys::set_name(c"turf:init");
    // Before anybody knows that the container exists: a signal that the first process of a pid
    // namespace neither blocks nor handles is lost.
    let Ok(signals) = sys::watch_signals() else { return FAILURE_STATUS };
    if !report_ready(block.orders().talk) {
        return FAILURE_STATUS;
    }
    Waiting::new(block, signals, task == Task::Program as u32).run()
}

/// Tells the creator that init stands at the gate, and waits for its last word. A creator that has died ends init.
fn report_ready(creator: i32) -> bool {
    let mut word = [0; 4];
    if sys::send(creator, &[message::READY]).is_err() {
        return false;
    }
    let heard = loop {
        match sys::read(creator, &mut word) {
            Err(EINTR) => {}
            heard => break heard,
        }
    };
    sys::close(creator);
    heard == Ok(1) && word[0] == message::GO
}

/// `turf exec`: the new process is a child of the caller, born in the pid namespace that this one has joined for its
/// children.
fn join(block: &Block<'_>) -> i32 {
    let report = block.orders().talk;
    match sys::clone_sibling() {
        Ok(0) => {
            let _ = sys::set_name(c"turf:exec");
            become_program(block, report, Framing::Length, Announced::Yes)
        }
        Ok(pid) => {
            let [a, b, c, d] = pid.to_le_bytes();
            i32::from(sys::write(report, &[message::BORN, a, b, c, d]).is_err())
        }
        Err(errno) => fail(report, Framing::Length, errno.0, b"clone the process into the container", &[]),
    }
}

/// Whether execve(2) is told of before it. Who is not told hears of a failure, or of the end of the connection.
#[derive(PartialEq, Eq)]
enum Announced {
    Yes,
    No,
}

/// Performs the calls and executes the program; returns the exit status if it cannot.
fn become_program(block: &Block<'_>, report: i32, framing: Framing, announced: Announced) -> i32 {
    let mut hand_over = |notifications| hand_over(report, notifications);
    if let Err(failure) = calls::perform(block, &mut hand_over) {
        return fail(report, framing, failure.errno, failure.step, failure.text);
    }
    if let Err(errno) = sys::unblock_signals() {
        return fail(report, framing, errno.0, b"unblock signals", &[]);
    }
    if announced == Announced::Yes {
        // By write(2), which every filter of system calls allows.
        let _ = sys::write(report, &[message::EXECUTING]);
    }
    let orders = block.orders();
    let mut refused = None;
    // As execvp(3) looks for a program: only what is not there, or may not be executed, is passed over.
    for program in block.programs() {
        let errno = sys::execve(program, orders.arguments, orders.environment);
        match errno {
            ENOENT | ENOTDIR => refused = refused.or(Some((errno, program))),
            EACCES => refused = Some((errno, program)),
            _ => {
                refused = Some((errno, program));
                break;
            }
        }
    }
    let (errno, name) = refused.map_or((ENOENT, &[][..]), |(errno, program)| (errno, block.string(program)));
    let mut step = [0; 128];
    let mut length = 0;
    for byte in b"exec ".iter().chain(name).take(step.len()) {
        step[length] = *byte;
        length += 1;
    }
    fail(report, framing, errno.0, &step[..length], &[])
}

/// Tells the number of the descriptor of seccomp notifications, and returns when the agent has it. By write(2) and
/// read(2) alone: nobody would answer for another call before.
fn hand_over(report: i32, notifications: i32) -> Result<(), Errno> {
    let [a, b, c, d] = notifications.to_le_bytes();
    sys::write(report, &[message::NOTIFICATIONS, a, b, c, d])?;
    let mut answer = [0];
    loop {
        match sys::read(report, &mut answer) {
            Ok(1) if answer[0] == message::GO => return Ok(()),
            // Whoever was to talk to the agent could not, and says itself why.
            Ok(_) => return Err(ECANCELED),
            Err(EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reports a failure to whoever waits for it, if anybody does.
fn fail(report: i32, framing: Framing, errno: i32, step: &[u8], text: &[u8]) -> i32 {
    let mut packet = [0; message::FAILURE_BYTES];
    let _ = sys::write(report, message::failure(&mut packet, framing, errno, step, text));
    FAILURE_STATUS
}

struct Waiting<'a> {
    orders: Block<'a>,
    is_program: bool,
    /// The gate; closed when the status is `running`.
    listener: i32,
    connection: i32,
    signals: i32,
    pid: i32,
    /// 0: none was born.
    worker: i32,
    running: bool,
    /// The child reaped last while no worker was known: it may turn out to have been the worker.
    unknown_end: Option<(i32, i32)>,
    /// The worker's wait status, once it has ended.
    ended: Option<i32>,
}

impl<'a> Waiting<'a> {
    fn new(orders: Block<'a>, signals: i32, is_program: bool) -> Waiting<'a> {
        Waiting {
            is_program,
            listener: orders.orders().listener,
            connection: NONE,
            signals,
            pid: sys::getpid(),
            worker: 0,
            running: false,
            unknown_end: None,
            ended: None,
            orders,
        }
    }

    /// Whether orphans, and so the worker, become init's children.
    fn is_reaper(&self) -> bool {
        self.pid == 1
    }

    fn run(&mut self) -> i32 {
        loop {
            // While somebody is connected nobody else is listened to.
            let listener = if self.connection == NONE { self.listener } else { NONE };
            let mut fds = [self.signals, listener, self.connection].map(PollFd::readable);
            match sys::poll(&mut fds) {
                Ok(_) => {}
                Err(EINTR) => continue,
                Err(_) => return FAILURE_STATUS,
            }
            if fds[1].happened() {
                self.accept();
            }
            if fds[0].happened()
                && let Some(status) = self.take_signals()
            {
                return status;
            }
            // A worker's words come before its end: once it has been reaped, all of them are here.
            if let Some(status) = self.hear_all() {
                return status;
            }
            if let Some(status) = self.ended {
                return self.finish(status);
            }
        }
    }

    /// Accepts whoever may: the user that made the container. The directory's permissions keep others
    /// out already; this is the second lock.
    fn accept(&mut self) {
        // A connection that ended while it waited is no reason to do anything.
        let Ok(connection) = sys::accept(self.listener) else { return };
        let (owner, peer) = (sys::peer_user(self.listener), sys::peer_user(connection));
        if owner.is_ok() && owner == peer && sys::pass_credentials(connection).is_ok() {
            self.connection = connection;
        } else {
            sys::close(connection);
        }
    }

    /// Handles the messages that are there; `Some` is init's exit status.
    fn hear_all(&mut self) -> Option<i32> {
        while self.connection != NONE {
            let mut packet = [0; 8];
            let (length, sender) = match sys::receive(self.connection, &mut packet) {
                Ok(received) => received,
                Err(EAGAIN) => return None,
                Err(EINTR) => continue,
                Err(_) => (0, 0),
            };
            if let Some(status) = self.hear(packet.get(..length).unwrap_or(&[]), sender) {
                return Some(status);
            }
        }
        None
    }

    /// Handles one message; `Some` is init's exit status.
    fn hear(&mut self, packet: &[u8], sender: i32) -> Option<i32> {
        match packet {
            [] => self.connection_ended(),
            [message::START_PROGRAM] if self.is_program => {
                return Some(become_program(&self.orders, self.connection, Framing::Packet, Announced::Yes));
            }
            [message::START_WORKER] if !self.is_program => self.answer(&[message::READY]),
            // A worker has a pid in this pid namespace; 0 is somebody outside of it.
            [message::BORN] if !self.is_program && sender > 0 => self.born(sender),
            [message::RUNNING] if !self.is_program && sender > 0 => self.worker_runs(sender),
            [message::ENDED, a, b, c, d] if !self.is_program => {
                if !self.is_reaper() && self.worker != 0 {
                    self.ended = Some(i32::from_le_bytes([*a, *b, *c, *d]));
                }
            }
            // Whoever talks nonsense is hung up on.
            _ => self.connection_ended(),
        }
        None
    }

    /// Nobody holds the other end any more: `start` and the seed have let go, and the worker or H.
    fn connection_ended(&mut self) {
        sys::close(self.connection);
        self.connection = NONE;
        if self.is_reaper() || self.ended.is_some() || self.worker == 0 {
            return;
        }
        // H is gone without telling how the worker ended: the worker must not outlive init.
        sys::kill(self.worker, SIGKILL);
        self.ended = Some(UNKNOWN_END);
    }

    fn born(&mut self, pid: i32) {
        if self.worker != 0 {
            return;
        }
        self.worker = pid;
        if let Some((_, status)) = self.unknown_end.filter(|(known, _)| *known == pid) {
            self.ended = Some(status);
        }
    }

    /// The status changes here: first nobody listens any more, then `start` hears of it.
    fn worker_runs(&mut self, sender: i32) {
        self.born(sender);
        if self.worker != sender {
            return;
        }
        sys::close(self.listener);
        self.listener = NONE;
        self.running = true;
        self.answer(&[message::RUNNING]);
        // Whoever reads at their other end sees the end when the worker has ended.
        sys::close_stdio();
    }

    /// Answers whoever waits for it, if anybody does: a `start` that has died needs no answer.
    fn answer(&self, packet: &[u8]) {
        if self.connection != NONE {
            let _ = sys::send(self.connection, packet);
        }
    }

    /// Reaps and passes on; `Some` is init's exit status.
    fn take_signals(&mut self) -> Option<i32> {
        while let Some((signal, sender)) = sys::read_signal(self.signals) {
            let is_of = |pid: i32| i64::from(sender) == i64::from(pid);
            match (signal, self.worker) {
                (SIGCHLD, _) => self.reap(),
                // Its own, from an answer that nobody waited for.
                (SIGPIPE, _) if is_of(self.pid) => {}
                (signal, 0) if ends_processes(signal) => return Some(128 + signal),
                (_, 0) => {}
                // A worker that has just ended is noticed by its SIGCHLD.
                (signal, worker) if !is_of(worker) => sys::kill(worker, signal),
                _ => {}
            }
        }
        None
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap() {
            if self.worker == 0 {
                self.unknown_end = Some((pid, status));
            } else if self.worker == pid {
                self.ended = Some(status);
            }
        }
    }

    /// Ends as the worker ended. The first process of a pid namespace cannot be killed by its own
    /// signal, so it exits with what shells make of one.
    fn finish(&self, status: i32) -> i32 {
        if !self.running {
            let [a, b, c, d] = status.to_le_bytes();
            self.answer(&[message::ENDED, a, b, c, d]);
        }
        let signal = status & 0x7f;
        if signal == 0 {
            return status >> 8 & 0xff;
        }
        if !self.is_reaper() {
            sys::die_by(signal);
        }
        128 + signal
    }
}

/// Whether the default action of a signal is to end the process (signal(7)).
fn ends_processes(signal: i32) -> bool {
    !matches!(signal, SIGCHLD | SIGCONT | SIGURG | SIGWINCH | SIGTSTP | SIGTTIN | SIGTTOU)
}
