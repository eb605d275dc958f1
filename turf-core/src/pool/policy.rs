//! How many workers a pool should have: a pure function of what is seen now.
//!
//! The supervisor looks, [`decide`] answers, the supervisor acts. Nothing here reads a clock or
//! remembers: what must be remembered (when something began to wait, when the next start is allowed)
//! is part of the [`View`].
//!
//! | what is seen | what follows |
//! |---|---|
//! | fewer workers than `min` | start the missing ones, unless starts are held back |
//! | something waits and no worker lives | start at once |
//! | something has waited for [`PATIENCE_MS`] although workers live | start more, up to `max` |
//! | every worker's processor share is above [`BUSY_PERMILLE`], or every worker is full | start one more, up to `max` |
//! | a worker is idle for `idle_timeout_ms`, more than `min` live, nothing waits | retire it |
//! | more than `max` live | retire the idlest |
//! | `max` live, and more than `max_queue` wait | refuse what is above |
//! | one worker is busy, another is not and has far fewer connections | move connections |

/// How long something waits before another worker is started for it: a worker that is not overloaded
/// accepts within one turn of its loop.
pub const PATIENCE_MS: u64 = 5;

/// A share of a processor, in thousandths, from which a worker counts as busy.
pub const BUSY_PERMILLE: u32 = 900;

/// A share below which a worker can take connections of a busy one.
pub const CALM_PERMILLE: u32 = 600;

/// Connections that one worker is expected to take at once when none of its limits says less.
pub const CONNECTIONS_PER_WORKER: u32 = 16;

/// Most workers on their way at a time: the seed forks one after the other, and more would only wait there.
pub const STARTS_AT_ONCE: u32 = 32;

/// What a pool's owner asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest workers.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// Most connections that wait for a worker; above it they are refused.
    pub max_queue: u32,
    /// A worker without requests for so long may go.
    pub idle_timeout_ms: u64,
    /// Most requests in flight per worker; 0 for no limit.
    pub concurrency: u32,
    /// Each worker serves one connection.
    pub disposable: bool,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Forked; its script has not finished starting.
    Starting,
    /// It takes connections.
    Serving,
    /// It finishes what it has begun.
    Draining,
}

/// A worker as the supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub slot: u64,
    /// What it does.
    pub phase: Phase,
    /// Requests in flight.
    pub in_flight: u32,
    /// Open connections.
    pub connections: u32,
    /// Open WebSockets: requests whose end nobody knows.
    pub web_sockets: u32,
    /// Milliseconds since its last request, or its start.
    pub idle_ms: u64,
    /// It takes no connections because of `concurrency`.
    pub is_full: bool,
    /// Its share of a processor since the last look, in thousandths.
    pub cpu_permille: u32,
}

/// Everything that a decision depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The workers.
    pub workers: Vec<WorkerView>,
    /// Connections that wait for a worker.
    pub waiting: u32,
    /// For how long some connection has been waiting.
    pub waiting_ms: u64,
    /// Milliseconds until a start is allowed again after workers have failed; 0 if it is allowed.
    pub held_back_ms: u64,
    /// A worker is being replaced by another, which may exist beside it.
    pub surge: u32,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// How many workers to start.
    pub start: u32,
    /// Which workers to retire.
    pub retire: Vec<u64>,
    /// How many waiting connections to refuse.
    pub refuse: u32,
    /// Connections to move: from which worker, and how many.
    pub shed: Option<(u64, u32)>,
    /// When a worker may become idle enough to go, in milliseconds from now.
    pub look_again_ms: Option<u64>,
}

/// The policy.
pub fn decide(bounds: &Bounds, view: &View) -> Decision {
    let mut decision = Decision::default();
    let live_count = live(bounds, view);
    let starting = count(view.workers.iter().filter(|worker| worker.phase == Phase::Starting));
    let serving = || view.workers.iter().filter(|worker| worker.phase == Phase::Serving);
    let most = bounds.max.saturating_add(view.surge);

    if view.held_back_ms == 0 {
        let wanted = wanted(bounds, view, live_count, starting);
        let room = most.saturating_sub(live_count).min(STARTS_AT_ONCE.saturating_sub(starting));
        decision.start = wanted.min(room);
    } else {
        decision.look_again_ms = Some(view.held_back_ms);
    }
    if live_count >= bounds.max && decision.start == 0 && starting == 0 {
        decision.refuse = view.waiting.saturating_sub(bounds.max_queue);
    }
    if decision.start == 0 {
        retire(bounds, view, live_count, &mut decision);
    }
    if decision.start == 0 && decision.retire.is_empty() && !bounds.disposable {
        decision.shed = shed(serving());
    }
    decision
}

/// The workers that count towards `max`. One that has a connection for itself is used up when it has served it, and
/// there may be no more of those than of others.
fn live(bounds: &Bounds, view: &View) -> u32 {
    let is_live = |worker: &&WorkerView| worker.phase != Phase::Draining || bounds.disposable;
    count(view.workers.iter().filter(is_live))
}

fn count<'a>(workers: impl Iterator<Item = &'a WorkerView>) -> u32 {
    u32::try_from(workers.count()).unwrap_or(u32::MAX)
}

/// How many workers to start, without regard to `max`.
fn wanted(bounds: &Bounds, view: &View, live: u32, starting: u32) -> u32 {
    let missing = match bounds.disposable {
        false => bounds.min.saturating_sub(live),
        true => bounds.min.saturating_sub(free(view)),
    };
    let for_waiting = match view.waiting {
        0 => 0,
        waiting if bounds.disposable => waiting.saturating_sub(free(view)),
        // Those on their way will take some of it.
        waiting if live == 0 || view.waiting_ms >= PATIENCE_MS => {
            let each = match bounds.concurrency {
                0 => CONNECTIONS_PER_WORKER,
                limit => limit,
            };
            waiting.div_ceil(each).saturating_sub(starting)
        }
        _ => 0,
    };
    let mut serving = view.workers.iter().filter(|worker| worker.phase == Phase::Serving).peekable();
    let has_serving = serving.peek().is_some();
    let all_busy =
        has_serving && serving.all(|worker| worker.is_full || worker.cpu_permille >= BUSY_PERMILLE);
    let for_busy = u32::from(all_busy && starting == 0 && !bounds.disposable);
    missing.max(for_waiting).max(for_busy)
}

/// Disposable workers without a connection, on their way or ready.
fn free(view: &View) -> u32 {
    let is_free = |worker: &&WorkerView| worker.phase != Phase::Draining && worker.in_flight == 0;
    count(view.workers.iter().filter(is_free))
}

/// Chooses the workers that are not needed any more, the idlest first.
fn retire(bounds: &Bounds, view: &View, live: u32, decision: &mut Decision) {
    let mut idle: Vec<&WorkerView> = view
        .workers
        .iter()
        .filter(|worker| worker.phase == Phase::Serving && worker.in_flight == 0)
        .collect();
    // One that talks over WebSockets goes only if there are too many, and then last.
    idle.sort_by_key(|worker| {
        (worker.web_sockets > 0, std::cmp::Reverse(worker.idle_ms), std::cmp::Reverse(worker.slot))
    });
    let above_max = live.saturating_sub(bounds.max.saturating_add(view.surge));
    let above_min = live.saturating_sub(bounds.min);
    for (nth, worker) in (0..).zip(idle) {
        let is_idle = worker.web_sockets == 0 && view.waiting == 0;
        let is_old = is_idle && worker.idle_ms >= bounds.idle_timeout_ms;
        if nth >= above_min {
            break;
        }
        if nth < above_max || is_old {
            decision.retire.push(worker.slot);
        } else if is_idle {
            let left = bounds.idle_timeout_ms.saturating_sub(worker.idle_ms);
            decision.look_again_ms = Some(decision.look_again_ms.map_or(left, |soonest| soonest.min(left)));
        }
    }
}

/// Moves connections from the busiest worker towards the calmest.
fn shed<'a>(serving: impl Iterator<Item = &'a WorkerView> + Clone) -> Option<(u64, u32)> {
    let busiest = serving.clone().max_by_key(|worker| (worker.cpu_permille, worker.connections))?;
    let calmest = serving.min_by_key(|worker| (worker.connections, worker.cpu_permille))?;
    let is_uneven = busiest.cpu_permille >= BUSY_PERMILLE
        && calmest.cpu_permille < CALM_PERMILLE
        && busiest.connections > calmest.connections + 1;
    is_uneven.then(|| (busiest.slot, (busiest.connections - calmest.connections) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { min: 0, max: 4, max_queue: 8, idle_timeout_ms: 1000, concurrency: 0, disposable: false };

    fn worker(slot: u64, phase: Phase) -> WorkerView {
        WorkerView {
            slot,
            phase,
            in_flight: 0,
            connections: 0,
            web_sockets: 0,
            idle_ms: 0,
            is_full: false,
            cpu_permille: 0,
        }
    }

    fn view(workers: &[WorkerView]) -> View {
        View { workers: workers.to_vec(), ..View::default() }
    }

    #[test]
    fn the_first_connection_starts_a_worker_at_once() {
        assert_eq!(decide(&BOUNDS, &View { waiting: 1, ..View::default() }).start, 1);
        assert_eq!(decide(&BOUNDS, &View::default()), Decision::default());
    }

    #[test]
    fn what_a_serving_worker_is_about_to_take_starts_no_other() {
        let mut seen = view(&[worker(0, Phase::Serving)]);
        seen.waiting = 3;
        assert_eq!(decide(&BOUNDS, &seen).start, 0);
        seen.waiting_ms = PATIENCE_MS;
        assert_eq!(decide(&BOUNDS, &seen).start, 1);
        seen.waiting = 100;
        assert_eq!(decide(&BOUNDS, &seen).start, 3, "up to max");
    }

    #[test]
    fn what_starting_workers_will_take_starts_no_others() {
        let mut seen = view(&[worker(0, Phase::Starting)]);
        (seen.waiting, seen.waiting_ms) = (CONNECTIONS_PER_WORKER, 1000);
        assert_eq!(decide(&BOUNDS, &seen).start, 0);
        seen.waiting += 1;
        assert_eq!(decide(&BOUNDS, &seen).start, 1);
    }

    #[test]
    fn full_or_busy_workers_get_company() {
        let busy = WorkerView { cpu_permille: 950, in_flight: 3, ..worker(0, Phase::Serving) };
        let full = WorkerView { is_full: true, in_flight: 1, ..worker(1, Phase::Serving) };
        assert_eq!(decide(&BOUNDS, &view(&[busy, full])).start, 1);
        assert_eq!(decide(&BOUNDS, &view(&[busy, full, worker(2, Phase::Serving)])).start, 0);
        assert_eq!(decide(&BOUNDS, &view(&[busy, full, worker(2, Phase::Starting)])).start, 0);
    }

    #[test]
    fn disposable_workers_are_started_for_connections_that_have_none_and_never_above_max() {
        let bounds = Bounds { disposable: true, ..BOUNDS };
        let promised = WorkerView { in_flight: 1, ..worker(0, Phase::Starting) };
        let mut seen = view(&[promised, worker(1, Phase::Starting)]);
        seen.waiting = 2;
        assert_eq!(decide(&bounds, &seen).start, 1, "one of the two is another connection's");
        let used = WorkerView { in_flight: 1, ..worker(2, Phase::Draining) };
        let mut seen = view(&[used, used, used]);
        seen.waiting = 9;
        assert_eq!(decide(&bounds, &seen).start, 1, "those that serve count");
        seen.workers.push(used);
        assert_eq!((decide(&bounds, &seen).start, decide(&bounds, &seen).refuse), (0, 1));
    }

    #[test]
    fn no_more_than_so_many_are_on_their_way() {
        let bounds = Bounds { max: 1000, min: 1000, ..BOUNDS };
        let mut seen = View::default();
        assert_eq!(decide(&bounds, &seen).start, STARTS_AT_ONCE);
        seen.workers = vec![worker(0, Phase::Starting); 30];
        assert_eq!(decide(&bounds, &seen).start, STARTS_AT_ONCE - 30);
    }

    #[test]
    fn idle_workers_go_when_their_time_has_come() {
        let idle = |slot, idle_ms| WorkerView { idle_ms, ..worker(slot, Phase::Serving) };
        let decision = decide(&BOUNDS, &view(&[idle(0, 1000), idle(1, 400), idle(2, 5000)]));
        assert_eq!((decision.retire, decision.look_again_ms), (vec![2, 0], Some(600)));
        let keep = Bounds { min: 2, ..BOUNDS };
        let decision = decide(&keep, &view(&[idle(0, 1000), idle(1, 400), idle(2, 5000)]));
        assert_eq!((decision.retire, decision.look_again_ms), (vec![2], None));
    }

    #[test]
    fn a_worker_with_a_web_socket_is_not_idle_but_goes_when_there_are_too_many() {
        let talking = WorkerView { web_sockets: 1, idle_ms: 9000, ..worker(0, Phase::Serving) };
        let idle = WorkerView { idle_ms: 10, ..worker(1, Phase::Serving) };
        let decision = decide(&BOUNDS, &view(&[talking, idle]));
        assert_eq!((decision.retire, decision.look_again_ms), (vec![], Some(990)));
        let fewer = Bounds { min: 1, max: 1, ..BOUNDS };
        assert_eq!(decide(&fewer, &view(&[talking, idle])).retire, [1]);
        assert_eq!(decide(&fewer, &view(&[talking, WorkerView { slot: 2, ..talking }])).retire, [2]);
    }

    #[test]
    fn above_the_queue_is_refused_only_when_nobody_else_comes() {
        let all = [0, 1, 2, 3].map(|slot| WorkerView { in_flight: 1, ..worker(slot, Phase::Serving) });
        let mut seen = view(&all);
        (seen.waiting, seen.waiting_ms) = (11, 100);
        assert_eq!(decide(&BOUNDS, &seen).refuse, 3);
        seen.workers[3].phase = Phase::Starting;
        assert_eq!(decide(&BOUNDS, &seen).refuse, 0);
        seen.workers.pop();
        assert_eq!(decide(&BOUNDS, &seen).refuse, 0);
    }

    #[test]
    fn failures_hold_starts_back() {
        let seen = View { waiting: 5, held_back_ms: 300, ..View::default() };
        let decision = decide(&BOUNDS, &seen);
        assert_eq!((decision.start, decision.look_again_ms), (0, Some(300)));
    }

    #[test]
    fn connections_move_from_a_busy_worker_to_a_calm_one() {
        let busy =
            WorkerView { cpu_permille: 990, in_flight: 9, connections: 10, ..worker(0, Phase::Serving) };
        let decision = decide(&BOUNDS, &view(&[busy, worker(1, Phase::Serving)]));
        assert_eq!(decision.shed, Some((0, 5)));
        let calm = WorkerView { cpu_permille: 100, ..busy };
        assert_eq!(decide(&BOUNDS, &view(&[calm, worker(1, Phase::Serving)])).shed, None);
    }

    /// A small generator, so that a failure can be repeated from its seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    fn check(bounds: &Bounds, seen: &View, decision: &Decision) {
        let live = live(bounds, seen);
        let most = bounds.max + seen.surge;
        assert!(decision.start == 0 || live + decision.start <= most.max(live), "{bounds:?} {seen:?}");
        assert!(decision.start == 0 || seen.held_back_ms == 0, "{seen:?}");
        assert!(decision.start == 0 || decision.retire.is_empty(), "{seen:?}");
        let retired = decision.retire.len() as u32;
        assert!(retired == 0 || live - retired >= bounds.min, "{bounds:?} {seen:?} {decision:?}");
        assert!(decision.refuse == 0 || (live >= bounds.max && seen.waiting > bounds.max_queue));
        if seen.waiting > 0 && live <= most {
            assert!(decision.retire.is_empty(), "never shrinks while something waits: {seen:?}");
        }
        for slot in &decision.retire {
            let worker = seen.workers.iter().find(|worker| worker.slot == *slot).unwrap();
            assert!(worker.phase == Phase::Serving && worker.in_flight == 0);
        }
        if seen.waiting > 0 && live == 0 && seen.held_back_ms == 0 && bounds.max > 0 {
            assert!(decision.start > 0, "what waits is never forgotten: {bounds:?} {seen:?}");
        }
    }

    /// Plays random traffic against the policy for many pools: the invariants hold at every step, and a pool that is
    /// left alone ends at `min`.
    #[test]
    fn invariants_hold_over_random_event_sequences() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let max = 1 + random.below(8) as u32;
            let bounds = Bounds {
                min: random.below(u64::from(max) + 1) as u32,
                max,
                max_queue: random.below(20) as u32,
                idle_timeout_ms: 50 + random.below(500),
                concurrency: random.below(4) as u32,
                disposable: random.below(4) == 0,
            };
            let mut seen = View::default();
            let mut next_slot = 0;
            for step in 0..600 {
                let is_quiet = step >= 400;
                let passed = 1 + random.below(40);
                for worker in &mut seen.workers {
                    worker.idle_ms = if worker.in_flight == 0 { worker.idle_ms + passed } else { 0 };
                    worker.web_sockets = u32::from(!is_quiet && random.below(8) == 0);
                    worker.cpu_permille = random.below(1001) as u32 * u32::from(worker.in_flight > 0);
                    match random.below(6) {
                        0 if worker.phase == Phase::Starting => worker.phase = Phase::Serving,
                        1 => worker.in_flight = 0,
                        2 if !is_quiet && worker.phase == Phase::Serving && seen.waiting > 0 => {
                            (worker.in_flight, worker.idle_ms) = (worker.in_flight + 1, 0);
                            seen.waiting -= 1;
                        }
                        _ => {}
                    }
                    if is_quiet {
                        worker.in_flight = 0;
                        worker.phase =
                            if worker.phase == Phase::Starting { Phase::Serving } else { worker.phase };
                    }
                }
                seen.waiting = match is_quiet {
                    true => 0,
                    false => seen.waiting + random.below(3) as u32,
                };
                seen.waiting_ms = if seen.waiting == 0 { 0 } else { seen.waiting_ms + passed };
                seen.held_back_ms = if !is_quiet && random.below(10) == 0 { random.below(100) } else { 0 };
                seen.workers.retain(|worker| worker.phase != Phase::Draining || random.below(3) > 0);
                let decision = decide(&bounds, &seen);
                check(&bounds, &seen, &decision);
                seen.waiting -= decision.refuse;
                for worker in &mut seen.workers {
                    if decision.retire.contains(&worker.slot) {
                        worker.phase = Phase::Draining;
                    }
                }
                for _ in 0..decision.start {
                    seen.workers.push(worker(next_slot, Phase::Starting));
                    next_slot += 1;
                }
            }
            let live = seen.workers.iter().filter(|worker| worker.phase != Phase::Draining).count();
            assert_eq!(live as u32, bounds.min, "seed {seed}: {bounds:?} {seen:?}");
        }
    }
}
