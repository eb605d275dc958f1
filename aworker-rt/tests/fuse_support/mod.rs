//! A file system whose server is this test: it says what is asked of it and answers when it is told to.
//! `struct fuse_in_header` and what follows: <linux/fuse.h>, fuse(4).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
/// The node of the first name of [`SLOW`].
const FIRST: u64 = 2;
/// Length of `struct fuse_in_header`.
const HEADER: usize = 40;

/// What may take long, by the name of what it is done to.
pub const SLOW: [(&str, u32); 5] =
    [("lookup", LOOKUP), ("attributes", GETATTR), ("open", OPEN), ("read", READ), ("directory", READDIR)];

/// The file system; it ends with this value.
pub struct Slow {
    /// Names whose slow operation has come to the server.
    pub asked: Receiver<String>,
    /// Lets the operation that waits go on.
    pub go_on: Sender<()>,
    at: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Slow {
    /// Mounts it in a mount namespace of the calling thread, which whatever that thread starts inherits. Nothing if this
    /// is not allowed here.
    pub fn mount(at: &Path) -> Option<Slow> {
        let device = match File::options().read(true).write(true).open("/dev/fuse") {
            Ok(device) => device,
            Err(error) => {
                println!("skipped: open /dev/fuse: {error}");
                return None;
            }
        };
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
            .and_then(|()| mount(Some("slow"), at, Some("fuse"), flags, Some(options.as_str())));
        if let Err(error) = mounted {
            println!("skipped: mount a file system of one's own: {error}");
            return None;
        }
        let (told, asked) = channel();
        let (go_on, awaited) = channel();
        let server = thread::spawn(move || serve(device, &told, &awaited));
        Some(Slow { asked, go_on, at: at.to_owned(), server: Some(server) })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // A test that has failed does not wait for the server, which may wait for the test.
        if !thread::panicking()
            && let Some(server) = self.server.take()
        {
            umount2(&self.at, MntFlags::MNT_DETACH).expect("unmounted");
            server.join().expect("the server has not failed");
        }
    }
}

/// Answers until the file system is gone. Names are numbered by their places in [`SLOW`]; each file is its name's slow one.
fn serve(mut device: File, told: &Sender<String>, awaited: &Receiver<()>) {
    let mut buffer = vec![0; 1 << 20];
    let mut listed = false;
    loop {
        let Ok(length) = device.read(&mut buffer) else { return };
        let request = &buffer[..length];
        let (operation, number, node) = (u32_at(request, 4), &request[8..16], u64_at(request, 16));
        if [FORGET, BATCH_FORGET, INTERRUPT].contains(&operation) {
            continue;
        }
        let name = match operation {
            LOOKUP => SLOW.iter().position(|(name, _)| request[HEADER..].starts_with(name.as_bytes())),
            _ => usize::try_from(node).ok().and_then(|node| node.checked_sub(FIRST as usize)),
        };
        let slow = name.and_then(|name| SLOW.get(name)).filter(|(_, slow)| *slow == operation);
        if let Some((name, _)) = slow
            && (operation != READDIR || !listed)
        {
            // Whoever asked has gone when nobody listens: then the file system goes, too.
            if told.send((*name).to_owned()).is_err() || awaited.recv().is_err() {
                return;
            }
        }
        let answer = match operation {
            INIT => Ok(init()),
            LOOKUP => name.map(entry).ok_or(libc::ENOENT),
            GETATTR => Ok([&[0; 16][..], &attributes(node)].concat()),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => Ok(b"late".to_vec()),
            READDIR if listed => Ok(Vec::new()),
            READDIR => Ok(directory_entry()),
            RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        listed |= operation == READDIR;
        let (error, answer) = answer.map_or_else(|error| (-error, Vec::new()), |answer| (0, answer));
        let length = u32::try_from(16 + answer.len()).expect("a short answer");
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), number].concat();
        // An operation whose process has been killed wants no answer.
        let _ = device.write(&[head, answer].concat());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Version 7.31 of the protocol, and nothing optional of it.
fn init() -> Vec<u8> {
    let mut answer = vec![0; 64];
    for (at, value) in [(0, 7_u32), (4, 31), (8, 1 << 16), (20, 1 << 16), (24, 1)] {
        answer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    answer
}

/// A node that nobody may remember, so that the server is asked each time.
fn entry(name: usize) -> Vec<u8> {
    let node = FIRST + name as u64;
    [&node.to_ne_bytes()[..], &[0; 32], &attributes(node)].concat()
}

fn attributes(node: u64) -> Vec<u8> {
    let is_directory = node == ROOT || SLOW[usize::try_from(node - FIRST).expect("small")].0 == "directory";
    let mut attributes = vec![0; 88];
    attributes[0..8].copy_from_slice(&node.to_ne_bytes());
    attributes[8..16].copy_from_slice(&4_u64.to_ne_bytes());
    let mode: u32 = if is_directory { 0o040_755 } else { 0o100_644 };
    attributes[60..64].copy_from_slice(&mode.to_ne_bytes());
    attributes[64..68].copy_from_slice(&1_u32.to_ne_bytes());
    attributes
}

/// One entry, `x`, of no known type.
fn directory_entry() -> Vec<u8> {
    let mut entry = Vec::new();
    entry.extend(7_u64.to_ne_bytes());
    entry.extend(1_u64.to_ne_bytes());
    entry.extend(1_u32.to_ne_bytes());
    entry.extend(u32::from(libc::DT_REG).to_ne_bytes());
    entry.extend(b"x\0\0\0\0\0\0\0");
    entry
}
