//! Small configuration files of the system.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As open(2) and read(2); `InvalidData` if it is no regular file or longer.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // A FIFO would block: look before opening.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("is longer than {limit} bytes"))),
        false => Ok(bytes),
    }
}
