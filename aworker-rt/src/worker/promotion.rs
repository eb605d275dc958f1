//! A serving worker is asked for a clone that is to be the next seed.
//!
//! ```text
//!   serving --somebody connects--> holding: no connection is accepted, no further request read
//!      ^                             |--nothing is under way------------> quiet: asked, without an obstacle
//!      |                             |--something never ends, time over-> asked, with the obstacle's name
//!      +-----hang-up, go_on----------+
//! ```
//!
//! Quiet is a moment between two turns of the loop: no JavaScript runs, no request and no operation of the worker is
//! under way, and no outbound connection is open. Whoever runs the worker may clone the process then, and lets it go on;
//! the clone forgets what is the worker's ([`forget_worker`]). Timers, pending promises without native work behind them, and
//! everything in memory are in both.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::engine::accept;
use crate::event_loop::{self, Action, Checkpoint, Interest, Life, Ready, TimerId, Token};
use crate::{files, http, net};

use super::supervised;

/// How long what is under way may take to end. Clients wait meanwhile.
pub const QUIET_LIMIT: Duration = Duration::from_secs(5);

/// Somebody has asked for a clone.
#[derive(Debug)]
pub struct Asked {
    /// The connection of whoever asks: nothing was read from it, and it does not block.
    pub connection: OwnedFd,
    /// What stands against a clone; nothing if the worker is quiet.
    pub obstacle: Option<String>,
}

/// How a worker's run was interrupted.
#[derive(Debug)]
pub enum Pause {
    /// The worker has ended with this exit status.
    Ended(i32),
    /// It is to be cloned, and goes on afterwards.
    Asked(Asked),
}

/// Where worker and askers meet.
struct Promotion {
    listener: OwnedFd,
    /// The listener's registration; none while somebody is answered.
    token: Option<Token>,
    pending: Option<Pending>,
}

/// Who asks.
struct Pending {
    connection: OwnedFd,
    token: Token,
    timer: TimerId,
    is_time_over: bool,
}

/// What stands against a clone, and whether waiting helps.
enum Obstacle {
    Passing(String),
    Lasting(String),
}

/// Lets whoever connects to this listener ask for a clone, once the worker serves.
pub(super) fn attach(scope: &mut v8::PinScope<'_, '_>, listener: OwnedFd) {
    scope.set_slot(Promotion { listener, token: None, pending: None });
    event_loop::get(scope).before_sleep(Action { run: stay_awake, key: 0 });
}

/// The last request may have ended after the loop had its last look: it is not to sleep before the next.
fn stay_awake(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    if is_decided(scope) {
        event_loop::get(scope).tasks().push(Action { run: |_, _| {}, key: 0 });
    }
}

/// Begins to listen, or goes on.
///
/// # Errors
/// As epoll_ctl(2).
pub(super) fn listen(scope: &mut v8::PinScope<'_, '_>) -> std::io::Result<()> {
    let Some(mut promotion) = scope.remove_slot::<Promotion>() else { return Ok(()) };
    let reactor = event_loop::get(scope).reactor();
    let fd = promotion.listener.as_fd();
    let registered = reactor.register(fd, Interest::READ, Life::Background, on_asker, 0);
    promotion.token = registered.as_ref().ok().copied();
    scope.set_slot(promotion);
    registered.map(drop)
}

fn on_asker(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    let Some(mut promotion) = scope.remove_slot::<Promotion>() else { return Checkpoint::Done };
    if let Ok(connection) = accept(promotion.listener.as_fd()) {
        let event_loop = event_loop::get(scope);
        let fd = connection.as_fd();
        // What it asks is read by whoever clones; here only its end counts.
        if let Ok(token) = event_loop.reactor().register(fd, Interest::NONE, Life::Background, on_hang_up, 0)
        {
            let timer = event_loop.timers().arm(QUIET_LIMIT, Action { run: on_time_over, key: 0 });
            event_loop.reactor().deregister(ready.token, promotion.listener.as_fd());
            promotion.token = None;
            promotion.pending = Some(Pending { connection, token, timer, is_time_over: false });
            http::hold(scope);
        }
    }
    scope.set_slot(promotion);
    Checkpoint::Done
}

fn on_hang_up(scope: &mut v8::PinScope<'_, '_>, _: Ready) -> Checkpoint {
    drop(take_pending(scope));
    // Who cannot be listened to any more asks in vain; the worker serves on.
    let _ = go_on(scope);
    Checkpoint::Done
}

fn on_time_over(scope: &mut v8::PinScope<'_, '_>, _: u64) {
    if let Some(pending) = scope.get_slot_mut::<Promotion>().and_then(|promotion| promotion.pending.as_mut())
    {
        pending.is_time_over = true;
    }
}

fn take_pending(scope: &mut v8::PinScope<'_, '_>) -> Option<Pending> {
    let pending = scope.get_slot_mut::<Promotion>()?.pending.take()?;
    let event_loop = event_loop::get(scope);
    event_loop.reactor().deregister(pending.token, pending.connection.as_fd());
    event_loop.timers().cancel(pending.timer);
    Some(pending)
}

/// Whether somebody asks and can be answered.
pub(super) fn is_decided(scope: &mut v8::PinScope<'_, '_>) -> bool {
    let Some(Promotion { pending: Some(pending), .. }) = scope.get_slot::<Promotion>() else { return false };
    pending.is_time_over || !matches!(obstacle(scope), Some(Obstacle::Passing(_)))
}

/// The asker, once it can be answered. A quiet worker lets go of its idle outbound connections.
pub(super) fn take(scope: &mut v8::PinScope<'_, '_>) -> Option<Asked> {
    let Pending { connection, .. } = take_pending(scope)?;
    let obstacle = obstacle(scope).map(|obstacle| match obstacle {
        Obstacle::Lasting(what) => what,
        Obstacle::Passing(what) => format!("{what}, still after {} s", QUIET_LIMIT.as_secs()),
    });
    if obstacle.is_none() {
        net::freeze(scope);
    }
    Some(Asked { connection, obstacle })
}

/// After an asker was answered: serves on, and listens for the next.
///
/// # Errors
/// As epoll_ctl(2).
pub(super) fn go_on(scope: &mut v8::PinScope<'_, '_>) -> std::io::Result<()> {
    http::go_on(scope)?;
    listen(scope)
}

fn obstacle(scope: &mut v8::PinScope<'_, '_>) -> Option<Obstacle> {
    if supervised::exists(scope) {
        return Some(Obstacle::Lasting("the channel to the supervisor of its pool".to_owned()));
    }
    if let Some(what) = net::open_socket(scope) {
        return Some(Obstacle::Lasting(what));
    }
    let requests = match http::under_way(scope) {
        0 => None,
        1 => Some("a request under way".to_owned()),
        count => Some(format!("{count} requests under way")),
    };
    let what = requests
        .or_else(|| net::under_way(scope))
        .or_else(|| files::held(scope).map(str::to_owned))
        .or_else(|| event_loop::get(scope).unfinished().map(str::to_owned));
    what.map(Obstacle::Passing)
}

/// In the clone: forgets what is the worker's, without a word to the kernel about what both share.
pub(super) fn forget_worker(scope: &mut v8::PinScope<'_, '_>) {
    // First of all the registrations: taken back one by one they would be the worker's.
    event_loop::get(scope).forget();
    scope.remove_slot::<Promotion>();
    super::serve::forget(scope);
    http::forget(scope);
    files::become_seed(scope);
}
