//! `cargo xtask tidy`: the rules of docs/architecture.md and of the house's style that a program can check.
//!
//! Each rule is a pure function from the tree's files to the sentences it objects with.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, workspace};

mod dependencies;
mod promises;
mod sources;

/// A file of the tree: its path from the root, with slashes, and its text.
pub struct File {
    path: String,
    text: String,
}

/// What a rule objects to, one sentence each, beginning with the place.
pub type Objections = Vec<String>;

/// Every rule.
const RULES: &[fn(&[File]) -> Objections] = &[
    dependencies::rooms,
    dependencies::reasons_and_users,
    sources::headers,
    sources::lengths,
    sources::unsafe_rooms,
    sources::unfinished,
    sources::whitespace,
    promises::proofs,
];

/// `cargo xtask tidy`.
pub fn run() -> Result<()> {
    let tree = tree()?;
    let objections: Objections = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for objection in &objections {
        eprintln!("{objection}");
    }
    if !objections.is_empty() {
        bail!("tidy: {} objections", objections.len());
    }
    println!("    tidy: {} rules, {} files, no objection", RULES.len(), tree.len());
    Ok(())
}

/// The files that git tracks or would track, as they are in the working tree; those that are not text are left out.
fn tree() -> Result<Vec<File>> {
    let listing = output(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut files = Vec::new();
    for path in listing.lines() {
        let full = workspace().join(path);
        if !full.is_file() {
            continue;
        }
        let bytes = fs::read(&full).with_context(|| format!("read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

/// The files whose name ends so.
fn ending<'a>(tree: &'a [File], ends: &'a [&'a str]) -> impl Iterator<Item = &'a File> {
    tree.iter().filter(move |file| ends.iter().any(|end| file.path.ends_with(end)))
}

/// The crate that a path belongs to.
fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}
