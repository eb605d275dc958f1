//! May this process be forked? Nothing may be in it that a clone would share or lack.
//!
//! | what | why not |
//! |---|---|
//! | a second thread | does not exist in the clone, but its locks do |
//! | a descriptor beyond the expected | epoll, timers and rings are shared with the clone; anything else leaks into a sandbox |
//! | a mapping marked `dc` (MADV_DONTFORK) | is missing in the clone: V8's heap, by default |

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use turf_core::seed::protocol::Refusal;

const STEP: &str = "check that the seed may be forked";

/// Remembers what was checked, so that the check before each fork is short.
#[derive(Debug)]
pub struct Forkable {
    expected: BTreeSet<RawFd>,
    checked_pages: u64,
}

impl Forkable {
    /// The whole check, with the descriptors that this process is to have, and those that it has for this once.
    pub fn check(expected: impl IntoIterator<Item = RawFd>, passing: &[RawFd]) -> Result<Forkable, Refusal> {
        let mut forkable = Forkable { expected: expected.into_iter().collect(), checked_pages: 0 };
        forkable.check_again(passing)?;
        Ok(forkable)
    }

    /// The check before a fork, with the descriptors of the request. Memory is looked at only if its size changed
    /// since it was last looked at: V8 does not run in between.
    pub fn check_again(&mut self, also_expected: &[RawFd]) -> Result<(), Refusal> {
        check_threads()?;
        self.check_descriptors(also_expected)?;
        let pages = mapped_pages()?;
        if pages != self.checked_pages {
            check_mappings()?;
            self.checked_pages = pages;
        }
        Ok(())
    }

    fn check_descriptors(&self, also_expected: &[RawFd]) -> Result<(), Refusal> {
        let failed = |errno: nix::errno::Errno| Refusal::from_io(STEP, "read /proc/self/fd", &errno.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::open("/proc/self/fd", flags, Mode::empty()).map_err(failed)?;
        let own = directory.as_raw_fd();
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse::<RawFd>().ok()) else {
                continue;
            };
            if fd != own && !self.expected.contains(&fd) && !also_expected.contains(&fd) {
                let target = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
                let text = format!("the seed may not be forked: descriptor {fd} is {}", target.display());
                return Err(Refusal::new(STEP, text));
            }
        }
        Ok(())
    }
}

fn check_threads() -> Result<(), Refusal> {
    let metadata = fs::metadata("/proc/self/task");
    let metadata = metadata.map_err(|error| Refusal::from_io(STEP, "stat /proc/self/task", &error))?;
    // The link count is 2 plus the number of threads (`proc_task_getattr` in the kernel).
    match metadata.nlink().saturating_sub(2) {
        1 => Ok(()),
        threads => {
            Err(Refusal::new(STEP, format!("the seed may not be forked: it has {threads} threads, not one")))
        }
    }
}

/// Every mapping survives a fork: none has `dc` among its `VmFlags` (proc_pid_smaps(5)).
pub fn check_mappings() -> Result<(), Refusal> {
    let smaps = fs::read_to_string("/proc/self/smaps");
    let smaps = smaps.map_err(|error| Refusal::from_io(STEP, "read /proc/self/smaps", &error))?;
    let mut mapping = "";
    for line in smaps.lines() {
        match line.strip_prefix("VmFlags:") {
            Some(flags) if flags.split_ascii_whitespace().any(|flag| flag == "dc") => {
                let text = format!(
                    "the seed may not be forked: mapping {mapping} is marked MADV_DONTFORK and would be missing in the worker"
                );
                return Err(Refusal::new(STEP, text));
            }
            Some(_) => {}
            // The line of a mapping begins with its addresses; every other line begins with a capital letter.
            None if line.starts_with(|c: char| c.is_ascii_digit() || c.is_ascii_lowercase()) => {
                mapping = line
            }
            None => {}
        }
    }
    Ok(())
}

fn mapped_pages() -> Result<u64, Refusal> {
    memory_pages().map(|(mapped, _)| mapped)
}

/// Mapped and resident pages: proc_pid_statm(5).
pub fn memory_pages() -> Result<(u64, u64), Refusal> {
    let statm = fs::read_to_string("/proc/self/statm");
    let statm = statm.map_err(|error| Refusal::from_io(STEP, "read /proc/self/statm", &error))?;
    let mut numbers = statm.split_ascii_whitespace().map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(mapped), Some(resident)) => Ok((mapped, resident)),
        _ => Err(Refusal::new(STEP, format!("/proc/self/statm says {statm:?}"))),
    }
}
