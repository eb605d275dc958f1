//! A server of files for tests that fetch what lies beside them. GET and HEAD, one request per connection.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};

use crate::wait;

/// Longest line of a request's head, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Serves a directory on a free port of the loopback until the process ends; the base of its URLs.
pub fn start(root: &Path) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen for the tests")?;
    let base = format!("http://{}", listener.local_addr()?);
    let root = root.to_path_buf();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            // A client that goes away early is no failure of the server.
            thread::spawn(move || answer(&root, stream).ok());
        }
    });
    Ok(base)
}

fn answer(root: &Path, mut stream: TcpStream) -> Result<()> {
    use std::io::Read;
    stream.set_read_timeout(Some(wait::STEP))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.by_ref().take(MAX_LINE).read_line(&mut request)?;
    let mut line = String::new();
    while reader.by_ref().take(MAX_LINE).read_line(&mut line)? > 0 && line.trim_end() != "" {
        line.clear();
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let file = file_of(root, target).filter(|file| file.is_file());
    let (status, body) = match &file {
        Some(file) => ("200 OK", fs::read(file)?),
        None => ("404 Not Found", b"not found\n".to_vec()),
    };
    let kind = content_type(file.as_deref());
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\naccess-control-allow-origin: *\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// The file of a request target, if it stays below the root.
fn file_of(root: &Path, target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let outside = path.split('/').any(|segment| segment == "..");
    (!outside).then(|| root.join(path))
}

fn content_type(file: Option<&Path>) -> &'static str {
    match file.and_then(|file| file.extension()).and_then(|extension| extension.to_str()) {
        Some("js" | "mjs") => "text/javascript",
        Some("json") => "application/json",
        Some("html" | "htm") => "text/html",
        Some("wasm") => "application/wasm",
        Some("png") => "image/png",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_below_the_root() {
        let root = Path::new("/srv");
        assert_eq!(file_of(root, "/a/b.json?q#f"), Some(PathBuf::from("/srv/a/b.json")));
        assert_eq!(file_of(root, "/../etc/passwd"), None);
        assert_eq!(file_of(root, "a"), None);
    }
}
