//! The messages between init, whoever made it, and whoever starts it: their first bytes.
//!
//! The gate's protocol is described in turf-core's `sandbox::gate`, that of the creation in `sandbox::init`.

/// Creator to init: go on. `start` or `exec` to a process: the agent has its descriptor.
pub const GO: u8 = b'g';
/// Init to creator, at the gate: it stands there. Init to `start`: send the worker.
pub const READY: u8 = b'r';
/// `start` to init: perform the calls and execute the program.
pub const START_PROGRAM: u8 = b'X';
/// `start` to init: a worker comes.
pub const START_WORKER: u8 = b'W';
/// Worker to init: this is my pid. Joining process to `turf exec`: the pid of the new process (i32).
pub const BORN: u8 = b'B';
/// Worker to init, init to `start`: user code comes next.
pub const RUNNING: u8 = b'R';
/// How the worker ended: a wait status (i32).
pub const ENDED: u8 = b'E';
/// The process to `start` or `exec`: the filter is loaded, give this descriptor of mine (i32) to the seccomp agent.
/// Answered by [`GO`].
pub const NOTIFICATIONS: u8 = b'N';
/// execve(2) comes next.
pub const EXECUTING: u8 = b'x';
/// A step failed: error number (i32), length of the step's name (u16), the name, why in words. No words: those of
/// the error number.
pub const FAILED: u8 = b'F';

/// Longest failure that [`failure`] writes, its tag included.
pub const FAILURE_BYTES: usize = 512;

/// Writes a failure as a packet into `packet` and returns the packet. Where several packets share a pipe
/// (`Framing::Length`) the length of what follows comes after the tag.
pub fn failure<'a>(
    packet: &'a mut [u8; FAILURE_BYTES],
    framing: Framing,
    errno: i32,
    step: &[u8],
    text: &[u8],
) -> &'a [u8] {
    let step = &step[..step.len().min(FAILURE_BYTES / 2)];
    let text = &text[..text.len().min(FAILURE_BYTES / 2 - 16)];
    // Both are shorter than FAILURE_BYTES.
    let step_length = (step.len() as u16).to_le_bytes();
    let body_length = ((4 + 2 + step.len() + text.len()) as u16).to_le_bytes();
    let prefix: &[u8] = match framing {
        Framing::Packet => &[],
        Framing::Length => &body_length,
    };
    let mut length = 0;
    for part in [&[FAILED], prefix, &errno.to_le_bytes(), &step_length, step, text] {
        for &byte in part {
            if let Some(place) = packet.get_mut(length) {
                *place = byte;
                length += 1;
            }
        }
    }
    &packet[..length]
}

/// How a reader knows where a failure ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the packet's end.
    Packet,
    /// By its length (u16).
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_parts_in_order() {
        let mut packet = [0; FAILURE_BYTES];
        assert_eq!(failure(&mut packet, Framing::Packet, 2, b"ab", b"c"), b"F\x02\0\0\0\x02\0abc");
        assert_eq!(failure(&mut packet, Framing::Length, 2, b"ab", b"c"), b"F\x09\0\x02\0\0\0\x02\0abc");
    }

    #[test]
    fn a_failure_that_is_too_long_is_cut() {
        let mut packet = [0; FAILURE_BYTES];
        let long = failure(&mut packet, Framing::Length, 2, &[b'a'; 1000], &[b'b'; 1000]);
        assert!(long.len() <= FAILURE_BYTES && long.ends_with(b"b"));
    }
}
