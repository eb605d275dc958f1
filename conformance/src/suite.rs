//! Runs tests one after the other and reports them as `cargo test` does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::RunArgs;
use crate::case::Case;
use crate::{clean, known};

/// Who must pass a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every OCI runtime with runc's command line.
    Exec,
    /// Turf only: its own messages, verbs and worker bundles.
    Turf,
}

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// `area::what_is_so`.
    pub name: &'static str,
    /// Who must pass it.
    pub scope: Scope,
    /// The test itself.
    pub run: fn(&mut Case) -> Result<()>,
}

/// Lists the tests of one area: `tests! { "area"; Exec: a, b; Turf: c }`.
macro_rules! tests {
    ($area:literal; $($scope:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        /// The tests of this area.
        pub const TESTS: &[crate::suite::Test] = &[$($(crate::suite::Test {
            name: concat!($area, "::", stringify!($name)),
            scope: crate::suite::Scope::$scope,
            run: $name,
        }),+),+];
    };
}
pub(crate) use tests;

/// Says that a test cannot run on this machine, and why.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// An error that marks the test as ignored.
pub fn skip(reason: impl Into<String>) -> anyhow::Error {
    anyhow!(Skip(reason.into()))
}

/// How many tests ended in which way.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    ignored: usize,
    failed: Vec<(&'static str, String)>,
}

/// Runs the chosen tests; failure if one of them failed.
pub fn run(arguments: &RunArgs) -> Result<ExitCode> {
    let all = crate::tests::all();
    let chosen: Vec<Test> = all.iter().copied().filter(|test| wanted(test, arguments)).collect();
    if arguments.list {
        chosen.iter().for_each(|test| println!("{}: test", test.name));
        return Ok(ExitCode::SUCCESS);
    }
    enter_private_world()?;
    let runtime = admit(&arguments.runtime)?;
    let begun = Instant::now();
    println!("\nrunning {} tests of {}", chosen.len(), runtime.display());
    let mut tally = Tally::default();
    for (number, test) in chosen.iter().enumerate() {
        tally.add(test.name, known::judge(&runtime, test.name, one(test, &runtime, number)));
    }
    let ok = tally.report(all.len() - chosen.len(), begun);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted(test: &Test, arguments: &RunArgs) -> bool {
    let named = |words: &[String]| words.iter().any(|word| test.name.contains(word.as_str()));
    (test.scope == Scope::Exec || !arguments.exec_only)
        && (arguments.only.is_empty() || named(&arguments.only))
        && !named(&arguments.skip)
}

/// Runs one test and its clean-up; a panic is a failure of that test only.
fn one(test: &Test, runtime: &Path, number: usize) -> Result<()> {
    let mut case = Case::new(runtime, number)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(&mut case)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(anyhow!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
    })?;
    case.finish()
}

impl Tally {
    /// Prints and counts how a test ended.
    pub fn add(&mut self, name: &'static str, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(reason)) => {
                    println!("test {name} ... ignored, {reason}");
                    self.ignored += 1;
                }
                None => {
                    println!("test {name} ... FAILED");
                    self.failed.push((name, format!("{error:#}")));
                }
            },
        }
    }

    /// Prints what failed and the closing line; whether nothing failed.
    pub fn report(&self, filtered: usize, begun: Instant) -> bool {
        for (name, text) in &self.failed {
            println!("\n---- {name} ----\n{text}");
        }
        if !self.failed.is_empty() {
            println!("\nfailures:");
            self.failed.iter().for_each(|(name, _)| println!("    {name}"));
        }
        let ok = self.failed.is_empty();
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {filtered} filtered out; \
             finished in {:.2}s\n",
            if ok { "ok" } else { "FAILED" },
            self.passed,
            self.failed.len(),
            self.ignored,
            begun.elapsed().as_secs_f64(),
        );
        ok
    }
}

/// Makes this process the reaper of all its descendants, with mounts of its own.
pub fn enter_private_world() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the tests need root");
    nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make the mounts private")
}

/// The full path of a runtime, which the private world is made fit for.
///
/// crun 1.8 refuses a machine with v1 controllers and a nearly empty cgroup2 beside them. With a tmpfs in its place it
/// is content (it makes plain directories there), and in a private mount namespace nobody else notices.
pub fn admit(runtime: &Path) -> Result<PathBuf> {
    let program = runtime.canonicalize().with_context(|| format!("find {}", runtime.display()))?;
    let unified = "/sys/fs/cgroup/unified";
    let hybrid = Path::new("/sys/fs/cgroup/memory").exists() && clean::is_cgroup(Path::new(unified));
    if hybrid && program.file_name().is_some_and(|name| name == "crun") {
        umount2(unified, MntFlags::MNT_DETACH).context("unmount the second cgroup tree")?;
        mount(Some("tmpfs"), unified, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("hide it")?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests_of_the_suite {
    use super::*;

    #[test]
    fn every_test_has_a_name_of_its_own() {
        let mut names: Vec<&str> = crate::tests::all().iter().map(|test| test.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_failure_and_a_skip_are_counted_apart() {
        let mut tally = Tally::default();
        tally.add("a::b", Err(skip("no such kernel")));
        tally.add("a::b", Err(anyhow!("broken")));
        tally.add("a::b", Ok(()));
        assert_eq!((tally.passed, tally.ignored, tally.failed.len()), (1, 1, 1));
        assert!(!tally.report(0, Instant::now()));
    }
}
