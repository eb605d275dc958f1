//! Receiving a packet with its sender's pid (recvmsg(2), cmsg(3), unix(7)).
#![allow(unsafe_code)]

use super::raw::{Errno, number, syscall};
use super::{close, word};

/// `struct msghdr`.
#[repr(C)]
struct Message {
    name: u64,
    name_length: u64,
    vectors: u64,
    vector_count: u64,
    control: u64,
    control_length: u64,
    flags: u64,
}

/// Words of room for credentials and the few descriptors somebody may have added.
const CONTROL_WORDS: usize = 32;
/// Words of a `struct cmsghdr`: length; level and kind.
const HEADER_WORDS: usize = 2;
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
const SOL_SOCKET: u32 = 1;

/// Receives one packet without waiting, and the pid of its sender as this pid namespace has it (0: unknown); the
/// socket passes credentials. Descriptors that came along are closed.
pub fn receive(socket: i32, packet: &mut [u8]) -> Result<(usize, i32), Errno> {
    const CLOEXEC_DONTWAIT: u64 = 0x4000_0040;
    let vector = [packet.as_mut_ptr() as u64, packet.len() as u64];
    let mut control = [0_u64; CONTROL_WORDS];
    let mut message = Message {
        name: 0,
        name_length: 0,
        vectors: vector.as_ptr() as u64,
        vector_count: 1,
        control: control.as_mut_ptr() as u64,
        control_length: size_of_val(&control) as u64,
        flags: 0,
    };
    let place = &raw mut message as u64;
    // SAFETY: the message names a live packet buffer and a live, aligned control buffer.
    let length = unsafe { syscall(number::RECVMSG, [word(socket), place, CLOEXEC_DONTWAIT, 0, 0, 0]) }?;
    let filled = (message.control_length as usize / 8).min(CONTROL_WORDS);
    Ok((length, take_control(&control[..filled])))
}

/// Reads the sender's pid from the control messages and closes any descriptors in them.
fn take_control(mut control: &[u64]) -> i32 {
    let mut pid = 0;
    while let [length, kind, rest @ ..] = control {
        let (level, kind) = (*kind as u32, (*kind >> 32) as u32);
        let bytes = (*length as usize).saturating_sub(8 * HEADER_WORDS);
        let data = |index: usize| {
            let word = rest.get(index / 2).copied().unwrap_or(0);
            (word >> (32 * (index % 2))) as u32 as i32
        };
        match (level, kind) {
            (SOL_SOCKET, SCM_CREDENTIALS) => pid = data(0),
            (SOL_SOCKET, SCM_RIGHTS) => (0..bytes / 4).for_each(|index| close(data(index))),
            _ => {}
        }
        control = rest.get(bytes.div_ceil(8)..).unwrap_or(&[]);
    }
    pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_pid_is_found_behind_other_messages() {
        let header = |length: u64, kind: u32| [length, u64::from(SOL_SOCKET) | u64::from(kind) << 32];
        let credentials = [77_u64, 0];
        // Descriptors with numbers that nobody has: two, then three.
        let rights = [0x7fff_ffff_7fff_fffe, 0x7fff_fffd];
        let mut control = Vec::new();
        control.extend(header(16 + 8, SCM_RIGHTS));
        control.push(rights[0]);
        control.extend(header(16 + 12, SCM_CREDENTIALS));
        control.extend(credentials);
        control.extend(header(16 + 12, SCM_RIGHTS));
        control.extend(rights);
        assert_eq!(take_control(&control), 77);
        assert_eq!(take_control(&control[..3]), 0);
        assert_eq!(take_control(&[]), 0);
        // A length that lies.
        assert_eq!(take_control(&header(u64::MAX, SCM_CREDENTIALS)), 0);
    }
}
