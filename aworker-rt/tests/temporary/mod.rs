//! Names below the directory for temporary files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A path that no other call has returned, of this process and of those that run beside it: tests of one program
/// run at once and may choose the same name.
pub fn path(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let module = module_path!().replace("::", "-");
    std::env::temp_dir().join(format!("{module}-{}-{call}-{name}", std::process::id()))
}
