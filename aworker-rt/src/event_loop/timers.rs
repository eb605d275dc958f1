//! Timers: a heap by deadline on the loop's own clock.
//!
//! The loop's clock is CLOCK_MONOTONIC less the time the process spent frozen as
//! a seed, so that a timer armed before a fork has its remaining time left in
//! the worker, also when the worker lives in another time namespace.
//!
//! Two kinds of owner: a script's timer (`setTimeout`) keeps the loop alive and
//! goes to `internals.callbacks.timer(id)`; a native timer guards something else
//! that keeps the loop alive (a connection, a drain) and runs a Rust function.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::Action;

/// Longest delay: about 292 years fit into the clock, 100 are enough.
const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Cancelled entries may outnumber live ones by this factor before the heap is rebuilt.
const STALE_FACTOR: usize = 2;

/// Below this size the heap is not worth rebuilding.
const STALE_MINIMUM: usize = 64;

/// Nanoseconds on the loop's clock.
type Nanoseconds = i64;

/// Who a timer belongs to, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Script(u64),
    Native(u64),
}

/// A native timer, for [`Timers::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(u64);

/// What is to be done for a timer whose time has come.
#[derive(Debug)]
pub(super) enum Due {
    /// Call `internals.callbacks.timer` with this id.
    Script(u64),
    /// Run the action.
    Native(Action),
}

/// A live timer; the heap entry with another sequence number is stale.
#[derive(Debug)]
struct Live {
    sequence: u64,
    action: Option<Action>,
}

/// All armed timers.
#[derive(Debug)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Nanoseconds, u64, Owner)>>,
    live: HashMap<Owner, Live>,
    script_timers: usize,
    next_sequence: u64,
    /// CLOCK_MONOTONIC less the loop's clock.
    offset: Nanoseconds,
    /// Loop time at which the clock was stopped.
    stopped_at: Option<Nanoseconds>,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers {
            heap: BinaryHeap::new(),
            live: HashMap::new(),
            script_timers: 0,
            next_sequence: 0,
            offset: 0,
            stopped_at: None,
        }
    }

    /// Arms a native timer.
    pub fn arm(&mut self, delay: Duration, action: Action) -> TimerId {
        let id = self.next_sequence;
        self.insert(Owner::Native(id), delay, Some(action));
        TimerId(id)
    }

    /// Disarms a native timer; one that has fired already is ignored.
    pub fn cancel(&mut self, timer: TimerId) {
        self.remove(Owner::Native(timer.0));
    }

    /// Arms the script's timer `id`, replacing an armed one.
    pub(super) fn arm_script(&mut self, id: u64, delay: Duration) {
        self.insert(Owner::Script(id), delay, None);
    }

    /// Disarms the script's timer `id`.
    pub(super) fn cancel_script(&mut self, id: u64) {
        self.remove(Owner::Script(id));
    }

    /// Whether a script waits for a timer.
    pub(super) fn keep_alive(&self) -> bool {
        self.script_timers > 0
    }

    /// Whether nothing is armed, and nothing cancelled is left to forget.
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The loop's clock.
    pub(super) fn now(&self) -> Nanoseconds {
        self.stopped_at.unwrap_or_else(|| monotonic() - self.offset)
    }

    /// Time until the next deadline, zero if it has passed.
    pub(super) fn next_delay(&mut self) -> Option<Duration> {
        self.drop_stale_head();
        let Reverse((deadline, ..)) = self.heap.peek()?;
        let left = deadline.saturating_sub(self.now());
        Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    }

    /// Takes the next timer due at `now` that was armed before `sequence_limit`.
    pub(super) fn take_due(&mut self, now: Nanoseconds, sequence_limit: u64) -> Option<Due> {
        self.drop_stale_head();
        let &Reverse((deadline, sequence, owner)) = self.heap.peek()?;
        if deadline > now || sequence >= sequence_limit {
            return None;
        }
        self.heap.pop();
        let live = self.remove(owner)?;
        match owner {
            Owner::Script(id) => Some(Due::Script(id)),
            Owner::Native(_) => live.action.map(Due::Native),
        }
    }

    /// Timers armed from here on have at least this sequence number.
    pub(super) fn sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Stops the clock: the process is about to wait as a seed.
    pub(super) fn stop_clock(&mut self) {
        self.stopped_at.get_or_insert(monotonic() - self.offset);
    }

    /// Starts the clock where it was stopped.
    pub(super) fn start_clock(&mut self) {
        if let Some(stopped_at) = self.stopped_at.take() {
            self.offset = monotonic() - stopped_at;
        }
    }

    /// The script's timers in the order they fire in, with the time each has left.
    pub(super) fn script_timers_left(&self) -> Vec<(u64, Nanoseconds)> {
        let mut entries: Vec<_> = self.heap.iter().map(|Reverse(entry)| *entry).collect();
        entries.retain(|&(_, sequence, owner)| self.is_live(sequence, owner));
        entries.sort_unstable();
        let left = |(deadline, _, owner)| match owner {
            Owner::Script(id) => Some((id, Nanoseconds::max(deadline - self.now(), 0))),
            Owner::Native(_) => None,
        };
        entries.into_iter().filter_map(left).collect()
    }

    /// Disarms the timers of native code.
    pub(super) fn forget_native(&mut self) {
        self.live.retain(|owner, _| matches!(owner, Owner::Script(_)));
        self.rebuild_if_stale();
    }

    /// Whether native code waits for a timer.
    pub(super) fn has_native(&self) -> bool {
        self.live.len() > self.script_timers
    }

    fn insert(&mut self, owner: Owner, delay: Duration, action: Option<Action>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let delay = i64::try_from(delay.min(MAX_DELAY).as_nanos()).expect("100 years fit");
        self.heap.push(Reverse((self.now() + delay, sequence, owner)));
        let replaced = self.live.insert(owner, Live { sequence, action });
        if matches!(owner, Owner::Script(_)) && replaced.is_none() {
            self.script_timers += 1;
        }
        self.rebuild_if_stale();
    }

    fn remove(&mut self, owner: Owner) -> Option<Live> {
        let live = self.live.remove(&owner)?;
        if matches!(owner, Owner::Script(_)) {
            self.script_timers -= 1;
        }
        Some(live)
    }

    fn drop_stale_head(&mut self) {
        while let Some(&Reverse((_, sequence, owner))) = self.heap.peek() {
            if self.is_live(sequence, owner) {
                return;
            }
            self.heap.pop();
        }
    }

    fn is_live(&self, sequence: u64, owner: Owner) -> bool {
        self.live.get(&owner).is_some_and(|live| live.sequence == sequence)
    }

    /// Keeps the heap proportional to the live timers, whatever is armed and cancelled.
    fn rebuild_if_stale(&mut self) {
        if self.heap.len() < STALE_MINIMUM || self.heap.len() <= STALE_FACTOR * self.live.len() {
            return;
        }
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|&Reverse((_, sequence, owner))| self.is_live(sequence, owner));
        self.heap = entries.into();
    }
}

/// CLOCK_MONOTONIC, see clock_gettime(2).
fn monotonic() -> Nanoseconds {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has CLOCK_MONOTONIC");
    Duration::from(time).as_nanos().try_into().expect("292 years of uptime fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of the script timers due in a loop whose clock stands at `now`.
    fn fire_all(timers: &mut Timers, now: Nanoseconds) -> Vec<u64> {
        let limit = timers.sequence();
        std::iter::from_fn(|| timers.take_due(now, limit))
            .map(|due| match due {
                Due::Script(id) => id,
                Due::Native(action) => action.key,
            })
            .collect()
    }

    fn stopped() -> Timers {
        let mut timers = Timers::new();
        timers.stop_clock();
        timers
    }

    #[test]
    fn timers_fire_by_deadline_then_by_arming_order() {
        let mut timers = stopped();
        let now = timers.now();
        for (id, delay) in [(1, 20), (2, 10), (3, 20), (4, 0)] {
            timers.arm_script(id, Duration::from_nanos(delay));
        }
        assert_eq!(fire_all(&mut timers, now + 15), [4, 2]);
        assert_eq!(fire_all(&mut timers, now + 20), [1, 3]);
        assert!(!timers.keep_alive());
    }

    #[test]
    fn a_cancelled_timer_neither_fires_nor_keeps_the_loop_alive() {
        let mut timers = stopped();
        let now = timers.now();
        timers.arm_script(1, Duration::ZERO);
        timers.cancel_script(1);
        assert!(!timers.keep_alive());
        assert_eq!(timers.next_delay(), None);
        assert!(fire_all(&mut timers, now).is_empty());
    }

    #[test]
    fn rearming_replaces_the_deadline() {
        let mut timers = stopped();
        let now = timers.now();
        timers.arm_script(1, Duration::from_nanos(5));
        timers.arm_script(1, Duration::from_nanos(50));
        assert!(fire_all(&mut timers, now + 10).is_empty());
        assert_eq!(fire_all(&mut timers, now + 50), [1]);
    }

    #[test]
    fn a_timer_armed_while_timers_run_waits_for_the_next_turn() {
        let mut timers = stopped();
        let now = timers.now();
        timers.arm_script(1, Duration::ZERO);
        let limit = timers.sequence();
        assert!(timers.take_due(now, limit).is_some());
        timers.arm_script(2, Duration::ZERO);
        assert!(timers.take_due(now, limit).is_none());
        assert_eq!(fire_all(&mut timers, now), [2]);
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let mut timers = stopped();
        for id in 0..100_000 {
            timers.arm_script(id, Duration::from_secs(3600));
            timers.cancel_script(id);
        }
        assert!(timers.heap.len() <= STALE_MINIMUM);
    }

    #[test]
    fn a_stopped_clock_keeps_the_remaining_time() {
        let mut timers = stopped();
        timers.arm_script(1, Duration::from_secs(5));
        assert_eq!(timers.next_delay(), Some(Duration::from_secs(5)));
        timers.offset -= 3_600_000_000_000;
        timers.start_clock();
        let left = timers.next_delay().expect("armed");
        assert!(left > Duration::from_secs(4) && left <= Duration::from_secs(5), "{left:?}");
    }
}
