//! Performing calls: how a process is dressed, by init before it executes a program and by a forked worker before
//! user code.

use crate::orders::{Call, Kind};
use crate::sys::{self, Errno};

/// Why the calls did not come to their end.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// The name of the step.
    pub step: &'a [u8],
    /// The error number; 0 if no system call failed.
    pub errno: i32,
    /// Why, in words; empty: in those of the error number.
    pub text: &'a [u8],
}

const EACCES: i32 = 13;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;

/// Performs the calls in their order, to the first that fails. `hand_over` is given the descriptor of seccomp
/// notifications and returns when the agent has it.
pub fn perform<'a>(
    orders: &sys::Block<'a>,
    hand_over: &mut dyn FnMut(i32) -> Result<(), Errno>,
) -> Result<(), Failure<'a>> {
    let mut entered = false;
    let mut skip = false;
    for call in orders.calls() {
        if core::mem::take(&mut skip) {
            continue;
        }
        let failed = |errno: Errno| Failure { step: orders.step(call), errno: errno.0, text: &[] };
        match kind(call) {
            Some(Kind::System) => tolerate(call, sys::perform(call)).map_err(failed)?,
            Some(Kind::SystemOrNext) => skip = sys::perform(call).is_ok(),
            Some(Kind::DropBounding) => drop_bounding(call.arguments[0]).map_err(failed)?,
            Some(Kind::Directory) => entered = directory(orders, call, true)?,
            Some(Kind::DirectoryAgain) if !entered => entered = directory(orders, call, false)?,
            Some(Kind::DirectoryAgain) => {}
            Some(Kind::Write) => tolerate(call, sys::write_file(call)).map_err(failed)?,
            Some(Kind::WriteOrNext) => skip = sys::write_file(call).is_ok(),
            Some(Kind::Listener) => {
                let notifications = sys::perform(call).map_err(failed)?;
                let waiting =
                    |errno: Errno| Failure { step: b"wait for the seccomp agent", errno: errno.0, text: &[] };
                hand_over(notifications as i32).map_err(waiting)?;
            }
            None => return Err(failed(Errno(EINVAL))),
        }
    }
    Ok(())
}

fn kind(call: &Call) -> Option<Kind> {
    const KINDS: [Kind; 8] = [
        Kind::System,
        Kind::SystemOrNext,
        Kind::DropBounding,
        Kind::Directory,
        Kind::DirectoryAgain,
        Kind::Write,
        Kind::WriteOrNext,
        Kind::Listener,
    ];
    KINDS.into_iter().find(|kind| *kind as u32 == call.kind)
}

fn tolerate(call: &Call, result: Result<usize, Errno>) -> Result<(), Errno> {
    match result {
        Err(errno) if errno.0 != call.tolerated => Err(errno),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn drop_bounding(kept: u64) -> Result<(), Errno> {
    for capability in 0..64 {
        if kept & (1 << capability) != 0 {
            continue;
        }
        match sys::bounding_drop(capability) {
            Ok(_) => {}
            // The kernel knows no capability of this number, nor any above.
            Err(Errno(EINVAL)) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Changes into the directory and checks that it lies inside the root: a descriptor that leaked in must
/// not lead out through `/proc/self/fd/N` (CVE-2024-21626). Whether it could be entered.
fn directory<'a>(orders: &sys::Block<'a>, call: &Call, may_be_refused: bool) -> Result<bool, Failure<'a>> {
    let failed = |errno: Errno| Failure { step: orders.step(call), errno: errno.0, text: &[] };
    match sys::change_directory(call) {
        Err(Errno(EACCES | EPERM)) if may_be_refused => return Ok(false),
        result => result.map_err(failed)?,
    };
    if sys::directory_is_reachable().map_err(failed)? {
        return Ok(true);
    }
    let step = orders.step(call);
    sys::change_to_root().map_err(failed)?;
    Err(Failure { step, errno: 0, text: orders.words(call.arguments[1], call.arguments[2]) })
}
