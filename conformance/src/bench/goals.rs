//! What Turf wants to reach, and whether a report says that it has.

use std::fmt::Write as _;

use super::series::Report;

/// A limit of one figure.
enum Limit {
    /// In the row's own unit.
    Most(f64),
    /// Times the same figure of another row.
    MostTimes(f64, &'static str),
    /// Times the same figure of another row.
    LeastTimes(f64, &'static str),
}

/// One goal: a figure of a row, and its limit.
struct Goal {
    text: &'static str,
    section: &'static str,
    row: &'static str,
    /// The percentile that counts.
    rank: f64,
    limit: Limit,
}

const LOAD: &str = "Requests over keep-alive";
const PLAIN: &str = "Plain programs";
const POOL: &str = "Pool beside Node's cluster";

const RESIDENT: &str = "Starts without a process";
const BURST: &str = "Starts at once";

const MEDIAN: f64 = 50.0;

const fn at_most(text: &'static str, section: &'static str, row: &'static str, limit: f64) -> Goal {
    Goal { text, section, row, rank: MEDIAN, limit: Limit::Most(limit) }
}

const fn beside(text: &'static str, section: &'static str, row: &'static str, limit: Limit) -> Goal {
    Goal { text, section, row, rank: MEDIAN, limit }
}

const GOALS: &[Goal] = &[
    at_most(
        "fork call to first JavaScript result",
        "Inside a start",
        "fork call to first JavaScript result",
        1500.0,
    ),
    at_most(
        "`turf start` as a process, to the first byte",
        "Commands",
        "`turf start` and the first answer",
        10.0,
    ),
    beside(
        "a start from a seed of 64 MB beside one of 4 MB",
        "Cost over the size of the seed",
        "64 MB: fork call to first JavaScript result",
        Limit::MostTimes(1.3, "4 MB: fork call to first JavaScript result"),
    ),
    at_most("private memory of an idle worker", "Memory", "worker, idle, no request yet: private", 2048.0),
    at_most(
        "private memory of a worker after a request",
        "Memory",
        "worker, after 1 request: private",
        350.0,
    ),
    at_most("private memory of a worker after 100", "Memory", "worker, after 100 requests: private", 1024.0),
    at_most(
        "all of a container with a worker, after a request",
        "Memory",
        "container, after 1 request: all",
        819.0,
    ),
    at_most(
        "hello, service worker: user instructions",
        LOAD,
        "hello, turf, service worker: user instructions per request",
        10_000.0,
    ),
    at_most(
        "hello, module: user instructions",
        LOAD,
        "hello, turf, module: user instructions per request",
        10_000.0,
    ),
    at_most(
        "URL and headers read: user instructions",
        LOAD,
        "URL and headers read, turf, module: user instructions per request",
        25_000.0,
    ),
    at_most(
        "1 MiB streamed out: user instructions",
        LOAD,
        "1 MiB streamed out, turf, module: user instructions per request",
        350_000.0,
    ),
    at_most(
        "1 MiB upload read as text: user instructions",
        LOAD,
        "1 MiB upload read as text, turf, module: user instructions per request",
        400_000.0,
    ),
    beside(
        "cold start faster than bun's",
        "Cold start",
        "aworker: start to first response",
        Limit::MostTimes(1.0, "bun: start to first response"),
    ),
    beside(
        "private dirty memory below bun's",
        "Cold start",
        "aworker: private dirty memory after it",
        Limit::MostTimes(1.0, "bun: private dirty memory after it"),
    ),
    beside(
        "`turf run`, time, beside crun",
        PLAIN,
        "`turf run`: wall",
        Limit::MostTimes(0.5, "`crun run`: wall"),
    ),
    beside(
        "`turf run`, CPU, beside crun",
        PLAIN,
        "`turf run`: CPU",
        Limit::MostTimes(0.5, "`crun run`: CPU"),
    ),
    beside(
        "`turf run`, time, beside runc",
        PLAIN,
        "`turf run`: wall",
        Limit::MostTimes(0.25, "`runc run`: wall"),
    ),
    beside(
        "`turf run`, CPU, beside runc",
        PLAIN,
        "`turf run`: CPU",
        Limit::MostTimes(0.25, "`runc run`: CPU"),
    ),
    beside(
        "peak memory of `run` beside crun",
        PLAIN,
        "`turf run`: peak memory",
        Limit::MostTimes(1.0, "`crun run`: peak memory"),
    ),
    beside(
        "peak memory of `create` beside crun",
        PLAIN,
        "`turf create`: peak memory",
        Limit::MostTimes(1.0, "`crun create`: peak memory"),
    ),
    beside(
        "peak memory of `state` beside crun",
        PLAIN,
        "`turf state`: peak memory",
        Limit::MostTimes(1.0, "`crun state`: peak memory"),
    ),
    beside(
        "peak memory of `start` beside crun",
        PLAIN,
        "`turf start`: peak memory",
        Limit::MostTimes(1.0, "`crun start`: peak memory"),
    ),
    beside(
        "peak memory of `delete` beside crun",
        PLAIN,
        "`turf delete`: peak memory",
        Limit::MostTimes(1.0, "`crun delete`: peak memory"),
    ),
    beside(
        "a pool beside Node's cluster: simple request",
        POOL,
        "turf pool: simple request",
        Limit::LeastTimes(1.0, "node cluster: simple request"),
    ),
    beside(
        "the same, I/O bound",
        POOL,
        "turf pool: I/O bound: a wait of 5 ms",
        Limit::LeastTimes(1.0, "node cluster: I/O bound: a wait of 5 ms"),
    ),
    beside(
        "the same, I/O and fibonacci",
        POOL,
        "turf pool: I/O and fibonacci(30)",
        Limit::LeastTimes(1.0, "node cluster: I/O and fibonacci(30)"),
    ),
    beside(
        "memory of all of its processes, idle",
        POOL,
        "turf pool: PSS of all processes, idle",
        Limit::MostTimes(1.0 / 3.0, "node cluster: PSS of all processes, idle"),
    ),
    beside(
        "the same a second after the load",
        POOL,
        "turf pool: PSS of all processes, after the load",
        Limit::MostTimes(1.0 / 3.0, "node cluster: PSS of all processes, after the load"),
    ),
    beside(
        "the same in the moment that the load ends",
        POOL,
        "turf pool: PSS of all processes, in the moment that a load ends",
        Limit::MostTimes(1.0 / 3.0, "node cluster: PSS of all processes, in the moment that a load ends"),
    ),
    beside(
        "memory of a pool of 4, idle",
        POOL,
        "turf pool of 4: PSS of all processes, idle",
        Limit::MostTimes(1.0 / 3.0, "node cluster of 4: PSS of all processes, idle"),
    ),
    beside(
        "the same a second after the load",
        POOL,
        "turf pool of 4: PSS of all processes, after the load",
        Limit::MostTimes(1.0 / 3.0, "node cluster of 4: PSS of all processes, after the load"),
    ),
    beside(
        "the same in the moment that the load ends",
        POOL,
        "turf pool of 4: PSS of all processes, in the moment that a load ends",
        Limit::MostTimes(
            1.0 / 3.0,
            "node cluster of 4: PSS of all processes, in the moment that a load ends",
        ),
    ),
    beside(
        "memory of a pool of 8, idle",
        POOL,
        "turf pool of 8: PSS of all processes, idle",
        Limit::MostTimes(1.0 / 3.0, "node cluster of 8: PSS of all processes, idle"),
    ),
    beside(
        "the same a second after the load",
        POOL,
        "turf pool of 8: PSS of all processes, after the load",
        Limit::MostTimes(1.0 / 3.0, "node cluster of 8: PSS of all processes, after the load"),
    ),
    beside(
        "the same in the moment that the load ends",
        POOL,
        "turf pool of 8: PSS of all processes, in the moment that a load ends",
        Limit::MostTimes(
            1.0 / 3.0,
            "node cluster of 8: PSS of all processes, in the moment that a load ends",
        ),
    ),
    at_most(
        "start of a prepared sandbox to the first byte, one every 200 ms",
        RESIDENT,
        "one every 200 ms: connect to first byte",
        0.8,
    ),
    Goal {
        text: "the same",
        section: RESIDENT,
        row: "one every 200 ms: connect to first byte",
        rank: 99.0,
        limit: Limit::Most(2.0),
    },
    at_most("the same, back to back", RESIDENT, "back to back: connect to first byte", 0.8),
    at_most("a thousand starts at once, all answered", BURST, "1000 connections, all answered after", 1500.0),
    at_most(
        "processor time of a start of a prepared sandbox",
        RESIDENT,
        "processor time of a sandbox: its start, until the last of all is answered",
        0.8,
    ),
    at_most("processor time of a thousand at once, each", BURST, "processor time per start until then", 0.8),
    at_most(
        "first connection to a pool at zero",
        "First connection to a pool at zero",
        "connect to answer",
        3.0,
    ),
];

/// The goals as a table; those that the report has no rows for are left out.
pub fn table(report: &Report) -> String {
    let mut out = String::from("| goal | limit | seen | |\n|---|--:|--:|---|\n");
    for goal in GOALS {
        if let Some(line) = line(goal, report) {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

fn line(goal: &Goal, report: &Report) -> Option<String> {
    let Goal { text, section, row, rank, limit } = goal;
    let (own, unit) = report.figure(section, row, *rank)?;
    let statistic = match *rank {
        50.0 => "p50".to_owned(),
        rank => format!("p{rank}"),
    };
    let number = super::series::number;
    let (limit, seen, reached) = match *limit {
        Limit::Most(most) => {
            (format!("{} {unit}", number(most)), format!("{} {unit}", number(own)), own <= most)
        }
        Limit::MostTimes(factor, other) => {
            let ratio = own / report.figure(section, other, *rank)?.0;
            (format!("at most {factor:.2} times"), format!("{ratio:.2} times"), ratio <= factor)
        }
        Limit::LeastTimes(factor, other) => {
            let ratio = own / report.figure(section, other, *rank)?.0;
            (format!("at least {factor:.2} times"), format!("{ratio:.2} times"), ratio >= factor)
        }
    };
    let verdict = if reached { "reached" } else { "**not reached**" };
    Some(format!("| {text}, {statistic} | {limit} | {seen} | {verdict} |"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_its_figure() {
        let mut report = Report::new("a machine".into());
        assert_eq!(table(&report).lines().count(), 2);
        for time in [2.0, 2.5, 9.0] {
            report.add("First connection to a pool at zero", "connect to answer", "ms", time);
        }
        report.add(PLAIN, "`turf run`: CPU", "ms", 3.0);
        report.add(PLAIN, "`crun run`: CPU", "ms", 4.0);
        let table = table(&report);
        assert!(table.contains("at zero, p50 | 3.00 ms | 2.50 ms | reached |"), "{table}");
        assert!(
            table.contains("beside crun, p50 | at most 0.50 times | 0.75 times | **not reached** |"),
            "{table}"
        );
    }

    #[test]
    fn more_is_better_where_it_says_so() {
        let mut report = Report::new("a machine".into());
        report.add(POOL, "turf pool: simple request", "1/s", 12.0);
        report.add(POOL, "node cluster: simple request", "1/s", 10.0);
        let table = table(&report);
        assert!(table.contains("at least 1.00 times | 1.20 times | reached |"), "{table}");
    }
}
