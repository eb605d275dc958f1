//! Where V8's static library comes from, in this order: `RUSTY_V8_ARCHIVE`, the cache, a `shared/v8` directory beside
//! the checkout, the `v8` crate's own download, a build from the crate's source.
//!
//! Each place that is looked at is named. A file is used only when its checksum is the known one: the constant below,
//! or for a library that was built here, the one written beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::shell::{command, execute, output, shown, step, workspace};
use crate::{packages, v8_build};

/// The version of the `v8` crate in Cargo.toml.
pub const CRATE_VERSION: &str = "150.4.0";

/// The archive's name, as the crate's releases name it.
const ARCHIVE: &str = "librusty_v8_ptrcomp_release_x86_64-unknown-linux-gnu.a.gz";

/// SHA-256 of the archive that the project was developed with.
const ARCHIVE_SHA256: &str = "110d70c0c012e21c45121a975cd0c191a9e6191033bfedf327da0b7cb2ef94b2";

/// Seconds that the crate's own download may take, its compilation included.
const DOWNLOAD_SECONDS: u32 = 900;

/// The environment variable of the `v8` crate.
const VARIABLE: &str = "RUSTY_V8_ARCHIVE";

/// Where the library is.
pub enum Library {
    /// A local archive, for `RUSTY_V8_ARCHIVE`.
    Archive(PathBuf),
    /// The `v8` crate's own download, which its build script has done.
    CratesOwn,
}

impl Library {
    /// Makes cargo use this library.
    pub fn apply<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        match self {
            Library::Archive(path) => cargo.env(VARIABLE, path),
            Library::CratesOwn => cargo.env_remove(VARIABLE),
        }
    }
}

/// Finds the library, or downloads or builds it.
pub fn find() -> Result<Library> {
    step("look for V8's archive");
    if let Some(path) = env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        println!("    1. {VARIABLE}: {}", path.display());
        if !path.is_file() {
            bail!("{VARIABLE} names {}, which is no file; unset it to look elsewhere", path.display());
        }
        return Ok(Library::Archive(path));
    }
    println!("    1. {VARIABLE} is not set");
    let cached = cache_directory()?.join(format!("v8-{CRATE_VERSION}")).join(ARCHIVE);
    if usable("2. cache", &cached)? {
        return Ok(Library::Archive(cached));
    }
    let beside = workspace().join("../shared/v8").join(ARCHIVE);
    if usable("3. beside the checkout", &beside)? {
        return Ok(Library::Archive(beside.canonicalize()?));
    }
    println!("    4. the v8 crate's own download");
    if cfg!(not(target_arch = "x86_64")) {
        bail!("only x86-64 is supported: the fork of the seed and the archive exist for it alone");
    }
    if crates_own_download() {
        return Ok(Library::CratesOwn);
    }
    println!(
        "    5. build from the crate's source, about an hour on two cores; an interrupted build goes on"
    );
    packages::install(packages::V8_SOURCE)?;
    v8_build::build(&cache_directory()?.join(format!("v8-{CRATE_VERSION}-build")), &cached)?;
    let sum = sha256(&cached)?;
    fs::write(sum_file(&cached), sum).with_context(|| format!("write {}", sum_file(&cached).display()))?;
    Ok(Library::Archive(cached))
}

/// `cargo xtask v8`: finds the library and prints the line for a shell.
pub fn print_export() -> Result<()> {
    match find()? {
        Library::Archive(path) => println!("export {VARIABLE}={}", path.display()),
        Library::CratesOwn => println!("unset {VARIABLE}"),
    }
    Ok(())
}

/// `$XDG_CACHE_HOME/turf`, by default `~/.cache/turf`.
fn cache_directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    Ok(base.join("turf"))
}

/// Whether the archive is there; one with another checksum is an error, not a reason to go on silently.
fn usable(place: &str, archive: &Path) -> Result<bool> {
    if !archive.is_file() {
        println!("    {place}: {} is not there", archive.display());
        return Ok(false);
    }
    let known = match fs::read_to_string(sum_file(archive)) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => ARCHIVE_SHA256.to_owned(),
    };
    let actual = sha256(archive)?;
    if actual != known {
        bail!("{} has SHA-256 {actual}, expected {known}; remove it to look elsewhere", archive.display());
    }
    println!("    {place}: {}, checksum right", archive.display());
    Ok(true)
}

/// The file beside an archive that was built here, with its checksum.
fn sum_file(archive: &Path) -> PathBuf {
    archive.with_extension("gz.sha256")
}

fn sha256(path: &Path) -> Result<String> {
    let line = output(command("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Lets the crate's build script download its release, bounded in time.
fn crates_own_download() -> bool {
    let mut cargo = command("timeout");
    cargo.arg(DOWNLOAD_SECONDS.to_string()).args([
        "cargo",
        "build",
        "--quiet",
        "--release",
        "--package",
        "v8",
    ]);
    cargo.env_remove(VARIABLE);
    println!("    $ {}", shown(&cargo));
    let done = cargo.output().is_ok_and(|output| output.status.success());
    println!("       {}", if done { "downloaded" } else { "the download failed" });
    done
}

/// Compresses a library into the cache: written beside and renamed, so that a cached archive is always whole.
pub fn store(library: &Path, archive: &Path) -> Result<()> {
    let directory = archive.parent().context("the archive has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let part = archive.with_extension("part");
    let file = fs::File::create(&part).with_context(|| format!("create {}", part.display()))?;
    execute(command("gzip").args(["-9", "-c"]).arg(library).stdout(file))?;
    fs::rename(&part, archive).with_context(|| format!("rename to {}", archive.display()))
}
