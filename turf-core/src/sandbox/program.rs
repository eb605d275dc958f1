//! Finding the program of an exec bundle, with the words clients look for in errors.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::AccessFlags;

use crate::sandbox::orders::{Builder, ProgramOrders};
use crate::sandbox::plan::{HookPlan, ProcessPlan};
use crate::sandbox::step::StepError;

/// Where programs are looked for when the environment has no PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most of /etc/passwd that is read, in bytes.
const PASSWD_BYTES: u64 = 1 << 20;

/// Finds a program as a shell would: a name with a slash is a path, anything else is looked for in
/// `path`, of which an empty part is the working directory.
pub(super) fn find(program: &str, path: Option<&str>, cwd: &Path) -> Result<PathBuf, StepError> {
    let step = format!("exec: {program:?}");
    let mut refusal = None;
    for file in candidates(program, path, cwd) {
        match is_program(&file) {
            Ok(()) => return Ok(file),
            Err(error) if program.contains('/') => {
                return Err(StepError::new(format!("{step}: stat {}", file.display()), error));
            }
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

/// Every path that [`find`] looks at, in its order.
fn candidates(program: &str, path: Option<&str>, cwd: &Path) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![cwd.join(program)];
    }
    path.unwrap_or(DEFAULT_PATH).split(':').map(|directory| cwd.join(directory).join(program)).collect()
}

/// Writes down the plan's program with its arguments and its environment; in the sandbox, whose `/etc/passwd`
/// names the home directory.
pub(super) fn prepare(calls: &mut Builder, plan: &ProcessPlan) -> Result<ProgramOrders, StepError> {
    let name = plan.args.first().map(String::as_str).unwrap_or_default();
    let files = candidates(name, search_path(plan), &plan.cwd);
    let has_home = plan.env.iter().any(|entry| entry.starts_with("HOME="));
    let home = (!has_home).then(|| format!("HOME={}", home(plan.uid)));
    calls.program(
        files.iter().map(|file| file.as_os_str().as_bytes()),
        plan.args.iter().map(String::as_bytes),
        plan.env.iter().chain(&home).map(String::as_bytes),
    )
}

/// Writes down a hook.
pub(super) fn of_hook(calls: &mut Builder, hook: &HookPlan) -> Result<ProgramOrders, StepError> {
    let path = hook.path.as_os_str().as_bytes();
    let arguments = hook.args.iter().map(String::as_bytes);
    let alone = hook.args.is_empty().then_some(path);
    let environment = hook.env.iter().flatten().map(String::as_bytes);
    calls.program([path].into_iter(), alone.into_iter().chain(arguments), environment)
}

/// The `PATH` of the plan's environment.
pub(super) fn search_path(plan: &ProcessPlan) -> Option<&str> {
    plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="))
}

/// The home directory that the container's /etc/passwd has for the user; `/` if it has none.
fn home(uid: u32) -> String {
    let known = passwd_field(Path::new("/etc/passwd"), uid, 5);
    known.filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned())
}

/// The name that a passwd file has for the user.
pub(crate) fn user_name(passwd: &Path, uid: u32) -> Option<String> {
    passwd_field(passwd, uid, 0)
}

/// A field of the first line for the user (passwd(5)).
fn passwd_field(passwd: &Path, uid: u32, field: usize) -> Option<String> {
    let mut text = String::new();
    fs::File::open(passwd).and_then(|file| file.take(PASSWD_BYTES).read_to_string(&mut text)).ok()?;
    let uid = uid.to_string();
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut lines = fields.filter(|fields| fields.get(2) == Some(&uid.as_str()));
    lines.find_map(|fields| fields.get(field).map(|text| (*text).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_by_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "broken\nroot:x:0:0:root:/root:/bin/sh\nme:x:1000:1:Me:/home/me:\n").unwrap();
        assert_eq!(user_name(file.path(), 1000).as_deref(), Some("me"));
        assert_eq!(passwd_field(file.path(), 0, 5).as_deref(), Some("/root"));
        assert_eq!(user_name(file.path(), 7), None);
        assert_eq!(user_name(Path::new("/no/such"), 0), None);
    }

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
