//! Pages of the program that only its start needed, given back by madvise(2).
//!
//! A process that stays for long (a seed, a pool's supervisor) has run through much of its program until it waits: V8's compilers
//! and parsers in a seed, `create` in a supervisor. The pages stay mapped, and count as its memory. What is unmapped here the
//! kernel may reclaim like any other page of a file; what is touched again comes back from the page cache, neighbours included,
//! in one fault. Clones of a process lose nothing: fork(2) does not copy page tables of a file's private mapping that nobody
//! has written to (`vma_needs_copy` in the kernel's `mm/memory.c`).
//!
//! proc_pid_smaps(5).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

/// Unmaps the pages of all files that the process cannot write to and has not written to.
///
/// # Errors
/// There is no `/proc`, or the kernel refuses the advice.
pub fn give_back() -> io::Result<()> {
    for range in unwritten(BufReader::new(File::open("/proc/self/smaps")?))? {
        let start = range.start as *mut libc::c_void;
        // SAFETY: the pages of the range are all the file's: none has contents of its own that would be lost.
        if unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The private mappings of files without write permission in which no page is the process's own (relocated data is).
fn unwritten(smaps: impl BufRead) -> io::Result<Vec<Range<usize>>> {
    let mut candidate = None;
    let mut found = Vec::new();
    for line in smaps.lines() {
        let line = line?;
        match line.strip_prefix("Anonymous:") {
            Some(size) if size.trim() == "0 kB" => found.extend(candidate.take()),
            Some(_) => candidate = None,
            None => {
                if let Some(mapping) = Mapping::parse(&line) {
                    candidate = mapping.is_file_and_unwritable.then_some(mapping.range);
                }
            }
        }
    }
    Ok(found)
}

/// The first line of a mapping's description.
struct Mapping {
    range: Range<usize>,
    is_file_and_unwritable: bool,
}

impl Mapping {
    fn parse(line: &str) -> Option<Mapping> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let access = words.next()?.as_bytes();
        let inode = words.nth(2)?;
        let is_file_and_unwritable = access.first() == Some(&b'r')
            && access.get(1) == Some(&b'-')
            && access.last() == Some(&b'p')
            && inode != "0";
        Some(Mapping { range, is_file_and_unwritable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mappings as a program has them: constants, relocated data, code, data, memory of its own.
    const SMAPS: &str = "\
00200000-00300000 r--p 00000000 fe:01 77 /program
Rss:                 100 kB
Anonymous:             0 kB
VmFlags: rd mr
00300000-00301000 r--p 00100000 fe:01 77 /program
Anonymous:             4 kB
00400000-00500000 r-xp 00101000 fe:01 77 /a program (deleted)
Anonymous:             0 kB
00500000-00501000 rw-p 00201000 fe:01 77 /program
Anonymous:             0 kB
00600000-00601000 r--p 00000000 00:00 0
Anonymous:             0 kB
00700000-00701000 ---p 00000000 fe:01 77 /program
Anonymous:             0 kB
00800000-00801000 r--s 00000000 fe:01 77 /shared
Anonymous:             0 kB
7fff0000-7fff1000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_unwritten_pages_of_files_are_given_back() {
        let found = unwritten(SMAPS.as_bytes()).unwrap();
        assert_eq!(found, [0x20_0000..0x30_0000, 0x40_0000..0x50_0000]);
    }
}
