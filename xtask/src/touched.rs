//! `cargo xtask touched`: writes `turf-cli/touched.txt`, the functions that short verbs of `turf` call,
//! `turf-seed/touched.txt`, those that a worker calls from its fork to its end ([`worker`]), and `aworker-rt/touched.txt`, those of
//! a cold start ([`cold`]).
//!
//! Each verb is run step by step (ptrace(2), `PTRACE_SINGLESTEP`), init until it becomes another program included, and every
//! address is looked up in the symbols. The build scripts lay the functions beside each other. A list may be
//! older than its program: it only gets less good.

mod cold;
mod worker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::shell::{command, execute, output, step, workspace};
use crate::test::program;

/// The list, from the workspace on.
const LIST: &str = "turf-cli/touched.txt";

/// Libraries whose objects have no section for each function: they are named by member.
const LIBRARIES: [&str; 3] = ["libc.a", "libgcc_eh.a", "libseccomp.a"];

const HEADER: &str = "\
# The functions that short verbs call, for build.rs: first those of `run`, and among them those that most verbs call.
# Written by `cargo xtask touched`; `*` stands for what differs from build to build.
";

/// `cargo xtask touched [TURF] [verbs|cold]`: takes the program of the last release build unless another is named, which stands beside
/// its `turf-seed` and `aworker`; with a word only the first or the last list is written. Needs root and nm(1).
pub fn run(arguments: &[String]) -> Result<()> {
    let is_word = |word: &&String| ["verbs", "cold"].contains(&word.as_str());
    let (words, programs): (Vec<&String>, Vec<&String>) = arguments.iter().partition(is_word);
    let turf = programs.first().map_or_else(|| program("turf"), PathBuf::from);
    let turf = turf.canonicalize().with_context(|| format!("find {}", turf.display()))?;
    let directory = std::env::temp_dir().join(format!("turf-touched-{}", std::process::id()));
    fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let wanted = |list: &str| words.is_empty() || words.iter().any(|word| *word == list);
    let written = write(&turf, &directory, wanted);
    fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    written
}

/// Writes the wanted of the three lists.
fn write(turf: &Path, directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    if wanted("verbs") {
        let members = members()?;
        let symbols = Symbols::read(turf, |name| pattern(name).or_else(|| members.get(name).cloned()))?;
        write_verbs(walk(turf, directory, &symbols)?)?;
    }
    if wanted("workers") {
        worker::write(&worker::walk(turf, directory)?)?;
    }
    match wanted("cold") {
        true => cold::write(&turf.with_file_name("aworker"), directory),
        false => Ok(()),
    }
}

/// Writes the list of the verbs: what `run` calls first, in which there is nearly all that the shorter ones call.
fn write_verbs(touched: BTreeMap<String, Verbs>) -> Result<()> {
    let mut lines: Vec<(Verbs, String)> = touched.into_iter().map(|(name, verbs)| (verbs, name)).collect();
    lines.sort_by_key(|(verbs, name)| (*verbs & RUN == 0, Reverse(verbs.count_ones()), *verbs, name.clone()));
    let text: String = lines.iter().map(|(_, name)| format!("{name}\n")).collect();
    fs::write(workspace().join(LIST), format!("{HEADER}{text}")).with_context(|| format!("write {LIST}"))?;
    println!("{} functions in {LIST}", lines.len());
    Ok(())
}

/// Which verbs call a function: one bit for each.
type Verbs = u16;

/// The bit of `run`, the first verb.
const RUN: Verbs = 1;

/// Runs every verb; returns which of them called each function.
fn walk(turf: &Path, directory: &Path, symbols: &Symbols) -> Result<BTreeMap<String, Verbs>> {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (root, bundle, worker) = (path("root"), path("bundle"), path("worker"));
    fs::create_dir_all(format!("{bundle}/rootfs/bin"))?;
    fs::create_dir_all(&worker)?;
    fs::copy("/bin/busybox", format!("{bundle}/rootfs/bin/sleep")).context("copy /bin/busybox")?;
    execute(command(turf).args(["spec", "--bundle", &bundle]))?;
    let config = fs::read_to_string(format!("{bundle}/config.json"))?;
    // So long that `run` has to wait for it, step by step as it goes.
    let config =
        config.replace("\"terminal\": true", "\"terminal\": false").replace("[\"sh\"]", "[\"sleep\", \"2\"]");
    fs::write(format!("{bundle}/config.json"), config)?;
    execute(command(turf).args(["spec", "--worker", "--bundle", &worker]))?;
    fs::write(format!("{worker}/worker.js"), "addEventListener('fetch', () => {});\n")?;
    let verbs: &[&[&str]] = &[
        &["run", "--bundle", &bundle, "a"],
        &["create", "--bundle", &bundle, "b"],
        &["state", "b"],
        &["start", "b"],
        &["delete", "--force", "b"],
        &["create", "--bundle", &worker, "c"],
        &["start", "c"],
        &["state", "c"],
        &["kill", "c", "KILL"],
        &["delete", "--force", "c"],
    ];
    let mut touched = BTreeMap::new();
    for (number, verb) in verbs.iter().enumerate() {
        step(&format!("turf {}", verb.join(" ")));
        let mut functions = BTreeSet::new();
        let mut count = 0;
        for address in addresses(turf, &[&["--root", root.as_str()], *verb].concat(), symbols)? {
            functions.extend(symbols.names_at(address).cloned());
            count += 1;
        }
        println!("    {count} addresses in {} functions", functions.len());
        functions.into_iter().for_each(|name| *touched.entry(name).or_insert(0) |= 1 << number);
    }
    execute(command(turf).args(["--root", &root, "seed", "stop", "default"]))?;
    Ok(touched)
}

/// The addresses in the program that a command comes to, its forks included.
fn addresses(turf: &Path, arguments: &[&str], symbols: &Symbols) -> Result<HashSet<u64>> {
    // The shell waits until it is traced; the program begins with execve(2).
    let mut shell = Command::new("sh")
        .args(["-c", "read begin; exec \"$0\" \"$@\" </dev/null"])
        .arg(turf)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("run sh")?;
    let pid = Pid::from_raw(shell.id().cast_signed());
    use ptrace::Options;
    let options = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(pid, options).context("trace the command")?;
    shell.stdin.take().context("the shell has no input")?.write_all(b"begin\n")?;
    let (mut seen, mut status) = (HashSet::new(), None);
    while status.is_none() {
        match waitpid(None, Some(WaitPidFlag::__WALL)).context("wait for the command")? {
            WaitStatus::PtraceEvent(process, _, event)
                if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 =>
            {
                // Before it is the program it is the shell; its children become something else.
                let is_turf = fs::read_link(format!("/proc/{process}/exe"))? == turf;
                match (process == pid, is_turf) {
                    (true, true) => ptrace::step(process, None)?,
                    (true, false) => ptrace::cont(process, None)?,
                    (false, _) => ptrace::detach(process, None)?,
                }
            }
            WaitStatus::PtraceEvent(process, ..) | WaitStatus::Stopped(process, Signal::SIGTRAP) => {
                let address = ptrace::getregs(process)?.rip;
                if symbols.covers(address) {
                    seen.insert(address);
                }
                ptrace::step(process, None)?;
            }
            WaitStatus::Stopped(process, signal) => ptrace::step(process, signal)?,
            WaitStatus::Exited(process, code) if process == pid => status = Some(code),
            WaitStatus::Signaled(process, signal, _) if process == pid => bail!("killed by {signal}"),
            _ => {}
        }
    }
    ensure!(status == Some(0), "turf {} ended with {status:?}", arguments.join(" "));
    Ok(seen)
}

/// The functions of a program that is linked at a fixed address.
struct Symbols {
    /// Begin, end and name in the list, sorted.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// Those that `listed` gives a name for the list.
    fn read(program: &Path, listed: impl Fn(&str) -> Option<String>) -> Result<Symbols> {
        let text = output(command("nm").args(["--print-size", "--defined-only"]).arg(program))?;
        let mut functions = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [begin, size, "t" | "T" | "w" | "W" | "i", name] = fields[..] else { continue };
            let (begin, size) = (u64::from_str_radix(begin, 16)?, u64::from_str_radix(size, 16)?);
            functions.extend(listed(name).map(|name| (begin, begin + size, name)));
        }
        functions.sort();
        Ok(Symbols { functions })
    }

    fn covers(&self, address: u64) -> bool {
        self.name_at(address).is_some()
    }

    fn name_at(&self, address: u64) -> Option<String> {
        self.names_at(address).last().cloned()
    }

    /// All names of a function: the compiler keeps one of several that are alike, and its section has the name of that one.
    fn names_at(&self, address: u64) -> impl Iterator<Item = &String> {
        let after = self.functions.partition_point(|(begin, ..)| *begin <= address);
        let begin = self.functions[..after].last().map_or(0, |(begin, ..)| *begin);
        let before = self.functions.partition_point(|(other, ..)| *other < begin);
        let all = self.functions[before..after].iter();
        all.filter(move |(_, end, _)| address < *end).map(|(.., name)| name)
    }
}

/// A name of the compiler's for the list: in the kind that says which types a function is for, without the hashes of crates, which
/// differ from build to build; in the older kind with the hash at its end, which alone tells the types.
fn pattern(name: &str) -> Option<String> {
    if name.starts_with("_ZN") {
        let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let at = name.rfind("17h").filter(|at| name.get(at + 3..at + 19).is_some_and(is_hash))?;
        return Some(name[..at + 20].to_owned());
    }
    if !name.starts_with("_R") {
        return (name == "main").then(|| name.to_owned());
    }
    // What the compiler adds to the name of a copy is new with every change of the crate that has it.
    let name = name.split(".llvm.").next().unwrap_or(name);
    let mut parts = name.split("Cs");
    let mut pattern = parts.next()?.to_owned();
    for part in parts {
        match part.split_once('_') {
            Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                pattern.push_str("Cs*_");
                pattern.push_str(rest);
            }
            Some(_) | None => pattern.push_str(&format!("Cs{part}")),
        }
    }
    Some(pattern)
}

/// Where the functions of the C libraries are: `library:member`.
fn members() -> Result<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    for library in LIBRARIES {
        let path = output(command("cc").arg(format!("-print-file-name={library}")))?;
        let text = output(command("nm").args(["-A", "--quiet", "--defined-only"]).arg(path.trim()))?;
        for line in text.lines() {
            // /usr/lib/libc.a:malloc.o:0000000000000010 T malloc
            let Some((place, name)) = line.rsplit_once(' ') else { continue };
            let Some(member) = place.split(':').nth(1) else { continue };
            members.entry(name.to_owned()).or_insert_with(|| format!("{library}:{member}"));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_differs_from_build_to_build() {
        for (name, wanted) in [
            ("_ZN4turf4main17h27811f855cb68d10E", Some("_ZN4turf4main17h27811f855cb68d10E")),
            ("_ZN4turf4main17h27811f855cb68d10E.llvm.123", Some("_ZN4turf4main17h27811f855cb68d10E")),
            ("_RNvNtCs1a2B_4core3fmt5writeCs9_5alloc", Some("_RNvNtCs*_4core3fmt5writeCs*_5alloc")),
            ("_RNvNtCs1a2B_4core3fmt5write.llvm.77", Some("_RNvNtCs*_4core3fmt5write")),
            ("main", Some("main")),
            ("malloc", None),
            ("_ZN2v84base17hash_value_unsignedEv", None),
        ] {
            assert_eq!(pattern(name).as_deref(), wanted, "{name}");
        }
    }
}
