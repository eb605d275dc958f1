//! Runs the built `aworker` program in a directory of script files, and looks at what it leaves behind.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of script files, removed when dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str, files: &[(&str, &str)]) -> Directory {
        let path = crate::temporary::path(name);
        for (file, text) in files {
            let file = path.join(file);
            std::fs::create_dir_all(file.parent().expect("below the directory")).expect("make the directory");
            std::fs::write(&file, text).expect("write a script");
        }
        Directory(path)
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(aworker().current_dir(&self.0).args(arguments))
    }

    /// A file's path as messages show it.
    pub fn shown(&self, file: &str) -> String {
        path_text(&self.0.join(file))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn path_text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

pub fn aworker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aworker"));
    command.env_remove("LISTEN_FDS");
    command
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Run {
        let Output { status, stdout, stderr } = command.output().expect("aworker starts");
        Run {
            status: status.code(),
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        }
    }

    pub fn eval(code: &str) -> Run {
        Run::of(aworker().args(["eval", code]))
    }

    #[track_caller]
    pub fn prints(&self, stdout: &str) {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str(), self.status), (stdout, "", Some(0)));
    }

    #[track_caller]
    pub fn fails_with(&self, parts: &[&str]) {
        assert_eq!(self.status, Some(1), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in:\n{}", self.stderr);
        }
    }
}
