//! Finding and executing the program of an exec bundle, with the words clients look for in errors.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;

use crate::sandbox::enter::c_string;
use crate::sandbox::plan::ProcessPlan;
use crate::sandbox::step::StepError;
use crate::sys::process;

/// Where programs are looked for when the environment has no PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most of /etc/passwd that is read, in bytes.
const PASSWD_BYTES: u64 = 1 << 20;

/// Finds a program as a shell would: a name with a slash is a path, anything else is looked for in
/// `path`, of which an empty part is the working directory.
pub(super) fn find(program: &str, path: Option<&str>, cwd: &Path) -> Result<PathBuf, StepError> {
    let step = format!("exec: {program:?}");
    if program.contains('/') {
        let file = cwd.join(program);
        return match is_program(&file) {
            Ok(()) => Ok(file),
            Err(error) => Err(StepError::new(format!("{step}: stat {}", file.display()), error)),
        };
    }
    let mut refusal = None;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let file = cwd.join(directory).join(program);
        match is_program(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refusal = Some(error),
            Err(_) => {}
        }
    }
    Err(match refusal {
        Some(error) => StepError::new(step, error),
        None => {
            StepError { step, errno: libc::ENOENT, text: "executable file not found in $PATH".to_owned() }
        }
    })
}

fn is_program(file: &Path) -> io::Result<()> {
    if fs::metadata(file)?.is_dir() {
        // What execve(2) says of a directory.
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(nix::unistd::access(file, AccessFlags::X_OK)?)
}

/// A program ready to be executed: everything that needs memory or can be refused beforehand.
pub(super) struct Program {
    file: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Finds the plan's program; for the process that has become the plan's user.
    pub(super) fn prepare(plan: &ProcessPlan) -> Result<Program, StepError> {
        let path = plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        let name = plan.args.first().map(String::as_str).unwrap_or_default();
        let file = find(name, path, &plan.cwd)?;
        let step = "prepare the program";
        let strings =
            |list: &[String]| list.iter().map(|text| c_string(step, text)).collect::<Result<Vec<_>, _>>();
        let mut env = strings(&plan.env)?;
        if !plan.env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(c_string(step, &format!("HOME={}", home(plan.uid)))?);
        }
        let file = CString::new(file.as_os_str().as_bytes())
            .map_err(|_| StepError::refused(step, "its path holds a zero byte"))?;
        Ok(Program { file, args: strings(&plan.args)?, env })
    }

    /// Executes it; returns only the error.
    pub(super) fn execute(&self) -> StepError {
        let args: Vec<_> = self.args.iter().map(CString::as_c_str).collect();
        let env: Vec<_> = self.env.iter().map(CString::as_c_str).collect();
        let error = process::execve(&self.file, &args, &env);
        StepError::new(format!("exec {}", self.file.to_string_lossy()), error)
    }
}

/// The home directory that the container's /etc/passwd has for the user; `/` if it has none.
fn home(uid: u32) -> String {
    let mut text = String::new();
    let read =
        fs::File::open("/etc/passwd").and_then(|file| file.take(PASSWD_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return "/".to_owned();
    }
    let uid = uid.to_string();
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = fields
        .filter(|fields| fields.get(2) == Some(&uid.as_str()))
        .filter_map(|fields| fields.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_owned()));
    homes.next().unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_the_words_clients_look_for() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        let path = dir.path().to_str().unwrap();
        let root = Path::new("/");
        assert_eq!(find("sh", Some("/nowhere:/bin"), root).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("bin/sh", None, root).unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("sh", Some(""), Path::new("/bin")).unwrap(), Path::new("/bin/sh"));
        let message = |program: &str, path: &str| find(program, Some(path), root).unwrap_err().to_string();
        assert_eq!(message("no-such", "/bin"), "exec: \"no-such\": executable file not found in $PATH");
        assert_eq!(message("/no/such", ""), "exec: \"/no/such\": stat /no/such: no such file or directory");
        assert_eq!(message("/bin", ""), "exec: \"/bin\": stat /bin: permission denied");
        assert_eq!(message("plain", path), "exec: \"plain\": permission denied");
    }
}
