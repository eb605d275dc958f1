//! Directories. A worker has them read by a process beside the event loop ([`crate::engine::beside`]); a process that is no worker
//! yet, and one that may have no further process, reads them in place.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;

use super::job::Failure;
use super::{MAX_JOBS, files, ops};
use crate::engine::beside::{Entry, Listing};
use crate::engine::conversions::string;
use crate::event_loop::{self, Checkpoint, Interest, Life, Ready, Token};

/// Most entries of one directory.
const MAX_ENTRIES: usize = 100_000;

/// A directory that is being read, and who waits for it.
pub(super) struct Waiting {
    listing: Listing,
    token: Token,
    path: String,
    resolver: v8::Global<v8::PromiseResolver>,
}

/// Names and kinds in turn, or a promise of them.
pub(super) fn begin<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    path: &str,
) -> Result<v8::Local<'s, v8::Value>, Failure> {
    let c_path = CString::new(path).map_err(|_| failure(path, libc::EINVAL))?;
    // For another process `/proc/self` is another one.
    let is_own = path.starts_with("/proc/");
    let state = files(scope);
    if state.is_worker
        && !is_own
        && state.listings.len() < MAX_JOBS
        && let Ok(listing) = Listing::begin(c_path)
    {
        return wait(scope, listing, path);
    }
    // No worker, no room for a process, or a filter that forbids one.
    let entries = read_in_place(path).map_err(|error| of(path, &error))?;
    to_value(scope, path, entries)
}

/// A promise of what comes of a listing.
fn wait<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    listing: Listing,
    path: &str,
) -> Result<v8::Local<'s, v8::Value>, Failure> {
    let resolver = v8::PromiseResolver::new(scope).ok_or_else(|| failure(path, libc::ENOMEM))?;
    let promise = resolver.get_promise(scope);
    let resolver = v8::Global::new(scope, resolver);
    let state = files(scope);
    let number = state.next_job;
    state.next_job += 1;
    // The operation keeps the loop running, not the descriptor.
    let reactor = event_loop::get(scope).reactor();
    let token = reactor
        .register(listing.as_fd(), Interest::READ, Life::Background, on_end, number)
        .map_err(|error| of(path, &error))?;
    event_loop::get(scope).begin_operation();
    let waiting = Waiting { listing, token, path: path.to_owned(), resolver };
    files(scope).listings.insert(number, waiting);
    Ok(promise.into())
}

/// The process has ended.
fn on_end(scope: &mut v8::PinScope<'_, '_>, ready: Ready) -> Checkpoint {
    let Some(Waiting { listing, token, path, resolver }) = files(scope).listings.remove(&ready.key) else {
        return Checkpoint::Done;
    };
    event_loop::get(scope).reactor().deregister(token, listing.as_fd());
    event_loop::get(scope).end_operation();
    let entries = listing.finish().map_err(|error| of(&path, &error));
    let resolver = v8::Local::new(scope, resolver);
    match entries.and_then(|entries| to_value(scope, &path, entries)) {
        Ok(value) => resolver.resolve(scope, value),
        Err(failure) => {
            let error = ops::error_value(scope, &failure);
            resolver.reject(scope, error)
        }
    };
    Checkpoint::Due
}

fn read_in_place(path: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entries.len() > MAX_ENTRIES {
            break;
        }
        let kind = match entry.file_type()? {
            kind if kind.is_file() => libc::DT_REG,
            kind if kind.is_dir() => libc::DT_DIR,
            kind if kind.is_symlink() => libc::DT_LNK,
            kind if kind.is_fifo() => libc::DT_FIFO,
            _ => libc::DT_UNKNOWN,
        };
        entries.push((entry.file_name().as_bytes().to_vec(), kind));
    }
    Ok(entries)
}

fn to_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    path: &str,
    entries: Vec<Entry>,
) -> Result<v8::Local<'s, v8::Value>, Failure> {
    if entries.len() > MAX_ENTRIES {
        return Err(failure(path, libc::EFBIG));
    }
    let name = |(name, kind): Entry| (String::from_utf8_lossy(&name).into_owned(), kind);
    let mut entries: Vec<(String, u8)> = entries.into_iter().map(name).collect();
    entries.sort();
    let mut values: Vec<v8::Local<v8::Value>> = Vec::with_capacity(entries.len() * 2);
    for (name, kind) in entries {
        let kind = match kind {
            libc::DT_REG => "file",
            libc::DT_DIR => "directory",
            libc::DT_LNK => "symlink",
            _ => "other",
        };
        values.push(string(scope, &name).into());
        values.push(string(scope, kind).into());
    }
    Ok(v8::Array::new_with_elements(scope, &values).into())
}

fn of(path: &str, error: &io::Error) -> Failure {
    failure(path, error.raw_os_error().unwrap_or(libc::EIO))
}

fn failure(path: &str, code: i32) -> Failure {
    let reason = nix::errno::Errno::from_raw(code).desc().to_lowercase();
    Failure { code, text: format!("list {path}: {reason}") }
}
