//! Files of modules: how they are read, and what is said of one that cannot be. No V8.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Largest source file. V8's longest string is about 500 MB; a bundle of this
/// size would not start in any sensible time.
const MAX_SOURCE_BYTES: u64 = 64 << 20;

/// Most names of a directory that are compared with a missing one.
const MAX_NAMES: usize = 10_000;

/// Names of files that must be compiled, though people import them as if not.
const COMPILED: [&str; 3] = ["cts", "tsx", "jsx"];

/// Reads a source file as UTF-8, without its byte order mark.
///
/// # Errors
/// `open /path: no such file or directory`, and the like.
pub(super) fn read_source(path: &str) -> Result<String, String> {
    refuse_other_languages(path)?;
    read_text(path)
}

/// As [`read_source`], the bytes themselves.
///
/// # Errors
/// As [`read_source`].
pub(super) fn read_source_bytes(path: &str) -> Result<Vec<u8>, String> {
    refuse_other_languages(path)?;
    read_bytes(path)
}

/// Reads a file as UTF-8, without its byte order mark; what is no UTF-8 becomes U+FFFD.
///
/// # Errors
/// As [`read_source`].
pub(super) fn read_text(path: &str) -> Result<String, String> {
    read_bytes(path).map(into_text)
}

/// UTF-8 without its byte order mark; what is none becomes U+FFFD.
pub(super) fn into_text(bytes: Vec<u8>) -> String {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

/// Reads a file as it is.
///
/// # Errors
/// As [`read_source`].
pub(super) fn read_bytes(path: &str) -> Result<Vec<u8>, String> {
    let explain = |operation: &str, error: &io::Error| format!("{operation} {path}: {}", reason(error));
    super::watched::tell(path);
    // A FIFO that nobody writes to must not keep the program from starting.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| explain("open", &error) + &suggestion(path, &error))?;
    let found = file.metadata().ok();
    if found.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return Err(format!("open {path}: it is no regular file"));
    }
    // Room for all of it and one byte more: the second read finds the end.
    let length = found.map_or(0, |metadata| metadata.len()).min(MAX_SOURCE_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(MAX_SOURCE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| explain("read", &error))?;
    if bytes.len() as u64 > MAX_SOURCE_BYTES {
        return Err(format!("read {path}: the file is larger than {} MB", MAX_SOURCE_BYTES >> 20));
    }
    Ok(bytes)
}

/// JSX, and TypeScript of CommonJS, are compiled elsewhere; V8's syntax errors would not say so.
fn refuse_other_languages(path: &str) -> Result<(), String> {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    if !COMPILED.contains(&extension) {
        return Ok(());
    }
    Err(format!(
        "{path}: Aworker runs JavaScript and TypeScript without JSX, as modules and classic scripts; compile it first, for instance with `esbuild --bundle --format=esm --sourcemap {path}`"
    ))
}

/// The system's words, in lower case as other runtimes print them.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => {
            let text = nix::errno::Errno::from_raw(code).desc();
            text[..1].to_lowercase() + &text[1..]
        }
        None => error.to_string(),
    }
}

/// `; did you mean "./b.js"?` if a file beside the missing one has almost its name.
fn suggestion(path: &str, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::NotFound {
        return String::new();
    }
    let path = Path::new(path);
    let Some((directory, wanted)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return String::new();
    };
    let names = std::fs::read_dir(directory).into_iter().flatten().take(MAX_NAMES).flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    match names.filter_map(|name| Some((likeness(wanted, &name)?, name))).min() {
        Some((_, name)) if directory.join(&name).is_dir() => {
            let index = ["index.js", "index.mjs", "index.ts"]
                .into_iter()
                .find(|index| directory.join(&name).join(index).is_file());
            index.map(|index| format!("; did you mean \"{name}/{index}\"?")).unwrap_or_default()
        }
        Some((_, name)) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    }
}

/// How far a name is from the wanted one, the nearest first; nothing if they are not alike.
fn likeness(wanted: &str, name: &str) -> Option<usize> {
    let stem = |name: &str| name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned();
    if wanted == name {
        return None;
    }
    if wanted.eq_ignore_ascii_case(name) || wanted == stem(name) || stem(wanted) == stem(name) {
        return Some(0);
    }
    // A mistake or two in a name of some length.
    let allowed = (stem(wanted).chars().count() / 2).min(2);
    Some(distance(wanted, name)).filter(|distance| *distance <= allowed)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_alike_or_not() {
        for (wanted, name, alike) in [
            ("util", "util.js", true),
            ("util.js", "util.mjs", true),
            ("Util.js", "util.js", true),
            ("utlis.js", "utils.js", true),
            ("helper.js", "helpers.js", true),
            ("a.js", "b.js", false),
            ("main.js", "other.js", false),
        ] {
            assert_eq!(likeness(wanted, name).is_some(), alike, "{wanted} {name}");
        }
    }

    #[test]
    fn the_distance_counts_mistakes() {
        for (left, right, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
