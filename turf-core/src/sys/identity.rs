//! What a process looks like from outside: its arguments and environment, proc_pid_cmdline(5) and environ(7).
//!
//! execve(2) sets these up for a program; a forked worker has to do it itself.

use std::ffi::CString;
use std::io;
use std::os::raw::{c_char, c_void};

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// Replaces the environment of the process. The strings are never freed: libc hands out pointers into them.
///
/// The process must have one thread, as after a fork.
pub fn replace_environment(entries: Vec<CString>) {
    let mut pointers: Vec<*mut c_char> = entries.into_iter().map(CString::into_raw).collect();
    pointers.push(std::ptr::null_mut());
    // SAFETY: the list and its strings live for ever, and no other thread reads it.
    unsafe { environ = pointers.leak().as_mut_ptr() };
}

/// Where the kernel finds a process's parts: `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// The layout of the calling process, read once so that a fork of it can change its visible arguments at once.
#[derive(Debug, Clone, Copy)]
pub struct ProcessLayout(MemoryMap);

impl ProcessLayout {
    /// Reads it from `/proc/self/stat` (proc_pid_stat(5), fields 26 to 28 and 45 to 51).
    pub fn read() -> io::Result<ProcessLayout> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // The name in parentheses may contain anything; the third field follows the last parenthesis.
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or("");
        let fields: Vec<u64> = after_name.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        let field = |number: usize| {
            fields.get(number - 3).copied().filter(|value| *value != 0).ok_or(io::ErrorKind::InvalidData)
        };
        Ok(ProcessLayout(MemoryMap {
            start_code: field(26)?,
            end_code: field(27)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            brk: 0,
            start_stack: field(28)?,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        }))
    }

    /// Shows these arguments and this environment (prctl(2), `PR_SET_MM_MAP`). The text is never freed.
    ///
    /// The kernel may be built without it (`CONFIG_CHECKPOINT_RESTORE`): then the arguments stay as they are.
    pub fn show(&self, arguments: &[CString], environment: &[CString]) -> io::Result<()> {
        let arguments_len: usize = arguments.iter().map(|text| text.as_bytes_with_nul().len()).sum();
        let text: Vec<u8> =
            arguments.iter().chain(environment).flat_map(|text| text.as_bytes_with_nul()).copied().collect();
        let len = text.len();
        let start = text.leak().as_ptr() as u64;
        let mut map = self.0;
        map.arg_start = start;
        map.arg_end = start + arguments_len as u64;
        map.env_start = map.arg_end;
        map.env_end = start + len as u64;
        // SAFETY: sbrk(0) changes nothing.
        map.brk = unsafe { libc::sbrk(0) } as u64;
        // SAFETY: the kernel reads a whole map, checks that its addresses are mapped, and stores the numbers.
        let result = unsafe {
            libc::prctl(
                libc::PR_SET_MM,
                libc::PR_SET_MM_MAP,
                (&raw const map).cast::<c_void>(),
                size_of::<MemoryMap>(),
                0,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
