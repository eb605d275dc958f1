//! The form of orders: one block of memory with everything in it, pointers included.
//!
//! The block begins with [`Orders`]. Pointers are written as offsets from the block's beginning; wherever the block
//! comes to lie, `sys::relocate` adds its address to those words that the list of relocations names.
//! Then the arrays of arguments can go to the kernel as they are.

/// The beginning of the block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// [`MARK`]: both sides were built together.
    pub mark: u64,
    /// Offset of the list of relocations: `u32` offsets of words. Itself never relocated.
    pub relocations: u64,
    /// Their number.
    pub relocation_count: u64,
    /// What to do: a [`Task`].
    pub task: u32,
    /// The gate's listener; -1: none.
    pub listener: i32,
    /// Whom to talk to: the creator (a socket, closed after its last word) or `turf exec` (a pipe); -1: nobody.
    pub talk: i32,
    /// 0.
    pub padding: u32,
    /// Pointer to the [`Call`]s that dress the process; 0: none.
    pub calls: u64,
    /// Their number.
    pub call_count: u64,
    /// Pointer to the paths of the program, tried in this order, a null pointer behind the last.
    pub programs: u64,
    /// Pointer to the arguments, as for execve(2).
    pub arguments: u64,
    /// Pointer to the environment, as for execve(2).
    pub environment: u64,
}

/// The first word of orders; changes with their form.
pub const MARK: u64 = 0x7475_7266_0000_0001;

/// What the program is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Task {
    /// Wait at the gate for a start, then become the program.
    Program = 0,
    /// Wait at the gate for a worker, then attend it.
    Worker = 1,
    /// Make a sibling, which becomes the program.
    Join = 2,
    /// Become the program at once.
    Run = 3,
}

/// One thing that a process does to itself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// A [`Kind`].
    pub kind: u32,
    /// The number of a system call.
    pub number: u32,
    /// Its arguments, or what the kind says.
    pub arguments: [u64; 6],
    /// Pointer to the name of the step, for an error.
    pub step: u64,
    /// Length of that name.
    pub step_length: u32,
    /// An error number that is no failure; 0: none.
    pub tolerated: i32,
}

/// Kinds of [`Call`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The system call of this number.
    System = 0,
    /// The same; if it succeeds, the next call is left out, if it fails, the next call is another way.
    SystemOrNext = 1,
    /// Drops from the bounding set all capabilities but those in the mask: argument 0.
    DropBounding = 2,
    /// Changes into the directory: argument 0 is the path, 1 and 2 are pointer and length of the words for one that lies outside
    /// of the root. One that may not be entered is left to [`Kind::DirectoryAgain`].
    Directory = 3,
    /// The same, if it could not be entered before; now it must.
    DirectoryAgain = 4,
    /// Opens a file below a directory's descriptor and writes it at once: arguments 0 descriptor, 1 path, 2 pointer, 3 length.
    Write = 5,
    /// The same; if it succeeds, the next call is left out.
    WriteOrNext = 6,
    /// The system call of this number, seccomp(2), which returns the descriptor of notifications: the process goes on when the
    /// agent has it.
    Listener = 7,
}
