//! Heaps on their way to another process: the built-ins, which the build script
//! made of `src/js`, and a user's program, cut at `serialize`.
//!
//! A program's snapshot is V8's heap and what natives know beside it ([`Saved`]).
//! V8 has no check of its own for most of what could be wrong with a heap, so the
//! file says what it was made with ([`Identity`]), how long it is and what its
//! checksum is; whatever differs is refused before V8 sees it. Who may write the
//! file decides what the worker runs: a snapshot is code.
//!
//! ```text
//!  8 bytes  "AWKSNAP\n"
//!  4        version of this layout        all numbers are little-endian
//!  4        length of the identity
//!  8        length of what natives saved
//!  8        length of the heap
//!  4        CRC-32 of what follows
//!           identity, saved (both postcard), heap; then the file ends
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{modules, platform, source_maps};

include!("snapshot_layout.rs");

/// V8 reads the blob in words: keep it aligned.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static BLOB: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/builtins.snapshot")));

/// The heap with all built-ins loaded.
pub(super) fn builtins() -> v8::StartupData {
    v8::StartupData::from(&BLOB.0)
}

/// Flags the snapshot was made with.
pub(super) const FLAGS: &str = SNAPSHOT_FLAGS;

/// Index of `internals` among the context's data.
pub(super) const INTERNALS: usize = INTERNALS_INDEX;

const MAGIC: &[u8; 8] = b"AWKSNAP\n";
const LAYOUT: u32 = 2;
const HEADER_BYTES: usize = 36;

/// Largest heap in a file; V8 counts its bytes in an `int`.
const MAX_HEAP_BYTES: u64 = 1 << 30;
/// Longest part that is not the heap: names of modules, timers, an import map.
const MAX_SAVED_BYTES: u64 = 64 << 20;
/// Longest identity: a few versions and flags.
const MAX_IDENTITY_BYTES: u64 = 64 << 10;

/// A program's heap after `serialize`, and what natives knew beside it.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) saved: Saved,
    pub(super) heap: Heap,
}

/// What natives take along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The modules, in the order of the context's data behind `internals`.
    pub(super) modules: modules::SavedModules,
    /// Programs that have a source map.
    pub(super) source_maps: source_maps::SavedPrograms,
    /// The script's timers: number, nanoseconds that are left.
    pub timers: Vec<(u64, i64)>,
    /// The number of the network's next exchange.
    pub next_exchange: u64,
}

/// What a heap fits to. Natives are found by their place in a table, which is the built-ins' affair.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    aworker: String,
    v8: String,
    flags: String,
    /// CRC-32 of the built-ins' snapshot.
    builtins: u32,
}

impl Identity {
    fn own() -> Identity {
        Identity {
            aworker: env!("CARGO_PKG_VERSION").to_owned(),
            v8: platform::v8_version().to_owned(),
            flags: platform::flags().to_owned(),
            builtins: crc32fast::hash(&BLOB.0),
        }
    }
}

/// Why a snapshot cannot be made, written, read or used.
#[derive(Debug)]
pub enum SnapshotError {
    /// V8 gave no heap back.
    NotWritten,
    /// A file operation failed.
    Io(io::Error),
    /// The file is no snapshot, or is damaged.
    Damaged(String),
    /// The snapshot is of another program or version than this one.
    Foreign {
        /// What differs.
        what: &'static str,
        /// The snapshot's.
        theirs: String,
        /// This program's.
        ours: String,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NotWritten => f.write_str("V8 could not write the heap"),
            SnapshotError::Io(error) => write!(f, "{error}"),
            SnapshotError::Damaged(text) => f.write_str(text),
            SnapshotError::Foreign { what, theirs, ours } => {
                write!(f, "it was made with {what} {theirs}, this is {ours}: build it again")
            }
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::Io(error) => Some(error),
            SnapshotError::NotWritten | SnapshotError::Damaged(_) | SnapshotError::Foreign { .. } => None,
        }
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> SnapshotError {
        SnapshotError::Io(error)
    }
}

fn damaged<T>(text: impl Into<String>) -> Result<T, SnapshotError> {
    Err(SnapshotError::Damaged(text.into()))
}

/// V8's bytes, aligned for V8.
#[derive(Debug)]
pub(super) struct Heap {
    words: Vec<u128>,
    bytes: usize,
}

impl Heap {
    fn with_length(bytes: usize) -> Heap {
        Heap { words: vec![0; bytes.div_ceil(size_of::<u128>())], bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the words are initialised memory of at least that many bytes; any byte is a valid u8.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.bytes) }
    }

    fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the words are borrowed mutably for as long, and any bytes are valid words.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.bytes) }
    }

    /// For an isolate, which needs the bytes for as long as it makes contexts: for ever.
    pub(super) fn into_startup_data(self) -> v8::StartupData {
        let heap: &'static Heap = Box::leak(Box::new(self));
        v8::StartupData::from(heap.as_bytes())
    }
}

impl From<&[u8]> for Heap {
    fn from(bytes: &[u8]) -> Heap {
        let mut heap = Heap::with_length(bytes.len());
        heap.as_bytes_mut().copy_from_slice(bytes);
        heap
    }
}

impl Snapshot {
    /// What natives are to have again.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        self.heap.bytes
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As open(2), write(2) and rename(2).
    pub fn write(&self, path: &Path) -> Result<(), SnapshotError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        let written = self.write_to(&temporary).and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&temporary);
        }
        Ok(written?)
    }

    fn write_to(&self, path: &std::ffi::OsStr) -> io::Result<()> {
        let identity = postcard::to_allocvec(&Identity::own()).map_err(io::Error::other)?;
        let saved = postcard::to_allocvec(&self.saved).map_err(io::Error::other)?;
        let heap = self.heap.as_bytes();
        let mut checksum = crc32fast::Hasher::new();
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&LAYOUT.to_le_bytes());
        header.extend_from_slice(&u32::try_from(identity.len()).map_err(io::Error::other)?.to_le_bytes());
        header.extend_from_slice(&(saved.len() as u64).to_le_bytes());
        header.extend_from_slice(&(heap.len() as u64).to_le_bytes());
        for part in [&identity[..], &saved, heap] {
            checksum.update(part);
        }
        header.extend_from_slice(&checksum.finalize().to_le_bytes());
        let mut file = std::fs::File::create(path)?;
        for part in [&header[..], &identity, &saved, heap] {
            file.write_all(part)?;
        }
        file.sync_all()
    }

    /// Reads a file, and refuses what does not fit to this program.
    ///
    /// # Errors
    /// Names what is wrong with the file, or what it was made with.
    pub fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
        // A FIFO or a device would block, or never end.
        if !std::fs::metadata(path)?.is_file() {
            return damaged("it is no regular file");
        }
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        Snapshot::read_from(&mut file, length)
    }

    fn read_from(file: &mut impl Read, file_bytes: u64) -> Result<Snapshot, SnapshotError> {
        let mut header = [0; HEADER_BYTES];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return damaged("it is no snapshot of Aworker");
            }
            read => read?,
        }
        let Header { identity_bytes, saved_bytes, heap_bytes, checksum } = Header::parse(&header)?;
        let expected = HEADER_BYTES as u64 + identity_bytes + saved_bytes + heap_bytes;
        if file_bytes != expected {
            return damaged(format!("it has {file_bytes} bytes, its header says {expected}"));
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut part = |bytes: &mut [u8]| -> Result<(), SnapshotError> {
            file.read_exact(bytes)?;
            hasher.update(bytes);
            Ok(())
        };
        let (mut identity, mut saved) = (vec![0; size(identity_bytes)], vec![0; size(saved_bytes)]);
        let mut heap = Heap::with_length(size(heap_bytes));
        part(&mut identity)?;
        part(&mut saved)?;
        part(heap.as_bytes_mut())?;
        if hasher.finalize() != checksum {
            return damaged("its checksum is wrong: the file is damaged");
        }
        check_identity(&identity)?;
        match postcard::from_bytes(&saved) {
            Ok(saved) => Ok(Snapshot { saved, heap }),
            Err(error) => damaged(format!("what natives saved cannot be decoded: {error}")),
        }
    }
}

/// A length that was checked against a limit.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the limits fit into an address space")
}

struct Header {
    identity_bytes: u64,
    saved_bytes: u64,
    heap_bytes: u64,
    checksum: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, SnapshotError> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if &bytes[..8] != MAGIC {
            return damaged("it is no snapshot of Aworker");
        }
        if u32_at(8) != LAYOUT {
            let (theirs, ours) = (u32_at(8).to_string(), LAYOUT.to_string());
            return Err(SnapshotError::Foreign { what: "layout", theirs, ours });
        }
        let (identity_bytes, saved_bytes, heap_bytes) = (u64::from(u32_at(12)), u64_at(16), u64_at(24));
        let limits = [
            ("identity", identity_bytes, MAX_IDENTITY_BYTES),
            ("saved part", saved_bytes, MAX_SAVED_BYTES),
            ("heap", heap_bytes, MAX_HEAP_BYTES),
        ];
        for (part, bytes, limit) in limits {
            if bytes > limit {
                return damaged(format!("its {part} has {bytes} bytes, the most is {limit}"));
            }
        }
        Ok(Header { identity_bytes, saved_bytes, heap_bytes, checksum: u32_at(32) })
    }
}

fn check_identity(bytes: &[u8]) -> Result<(), SnapshotError> {
    let Ok(theirs) = postcard::from_bytes::<Identity>(bytes) else {
        return damaged("what it was made with cannot be decoded");
    };
    let ours = Identity::own();
    let pairs = [
        ("Aworker", theirs.aworker, ours.aworker),
        ("V8", theirs.v8, ours.v8),
        ("V8's flags", theirs.flags, ours.flags),
        ("built-ins", format!("{:08x}", theirs.builtins), format!("{:08x}", ours.builtins)),
    ];
    match pairs.into_iter().find(|(_, theirs, ours)| theirs != ours) {
        Some((what, theirs, ours)) => Err(SnapshotError::Foreign { what, theirs, ours }),
        None => Ok(()),
    }
}
