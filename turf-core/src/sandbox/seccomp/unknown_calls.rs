//! Calls that are newer than a profile: they fail with ENOSYS, as on an older kernel.
//!
//! A profile that lists what is allowed was written when it was written. A C library that tries a newer call first
//! falls back on ENOSYS, but not on the EPERM or the signal that the profile has for everything else. runc has the
//! same rule: what has a higher number than every call that the profile names is unknown to it.
//!
//! The filter begins with these instructions; everything else falls through to libseccomp's program.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

/// Numbers from here on belong to the x32 interface, which shares an architecture with x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// The architectures of the machines this runs on, with their numbers in `struct seccomp_data` (linux/audit.h).
const ARCHITECTURES: [(ScmpArch, u32); 4] = [
    (ScmpArch::X8664, 0xc000_003e),
    (ScmpArch::X86, 0x4000_0003),
    (ScmpArch::Aarch64, 0xc000_00b7),
    (ScmpArch::Arm, 0x4000_0028),
];

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The first instructions of the profile's filter; none if the profile does not forbid what it does not name.
pub(super) fn prologue(profile: &LinuxSeccomp) -> Vec<u64> {
    let forbids = match profile.default_action() {
        LinuxSeccompAction::ScmpActErrno => profile.default_errno_ret() != Some(libc::ENOSYS as u32),
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess
        | LinuxSeccompAction::ScmpActTrap => true,
        LinuxSeccompAction::ScmpActAllow
        | LinuxSeccompAction::ScmpActLog
        | LinuxSeccompAction::ScmpActTrace
        | LinuxSeccompAction::ScmpActNotify => false,
    };
    if !forbids {
        return Vec::new();
    }
    let highest = ARCHITECTURES.iter().filter_map(|&(arch, number)| Some((number, highest(profile, arch)?)));
    program(&highest.collect::<Vec<_>>())
}

/// The highest number of the calls that the profile names.
fn highest(profile: &LinuxSeccomp, arch: ScmpArch) -> Option<u32> {
    let rules = profile.syscalls().iter().flatten();
    let names = rules.flat_map(|rule| rule.names());
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
    // Negative: libseccomp knows the name, but this architecture has no such call.
    numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max()
}

fn program(highest: &[(u32, u32)]) -> Vec<u64> {
    if highest.is_empty() {
        return Vec::new();
    }
    const LOAD: u16 = 0x20;
    const JUMP: u16 = 0x05;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
    let mut program = vec![instruction(LOAD, 0, 0, ARCHITECTURE)];
    let mut left = highest.len() as u8;
    for &(architecture, highest) in highest {
        left -= 1;
        // Each architecture takes five instructions; behind the last come a jump over the return, and the return.
        let to_return = left * 5 + 2;
        program.extend([
            instruction(JUMP_IF_EQUAL, 0, 4, architecture),
            instruction(LOAD, 0, 0, NUMBER),
            instruction(JUMP_IF_AT_LEAST, 1, 0, X32_BIT),
            instruction(JUMP_IF_GREATER, to_return, 0, highest),
            instruction(JUMP, 0, 0, u32::from(left) * 5 + 2),
        ]);
    }
    program.push(instruction(JUMP, 0, 0, 1));
    program.push(instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    program
}

/// One `struct sock_filter`.
fn instruction(code: u16, jump_true: u8, jump_false: u8, value: u32) -> u64 {
    let [a, b] = code.to_ne_bytes();
    let [c, d, e, f] = value.to_ne_bytes();
    u64::from_ne_bytes([a, b, jump_true, jump_false, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the instructions on a call: what it returns, or `None` when it falls through to the profile's own.
    fn run(program: &[u64], architecture: u32, number: u32) -> Option<u32> {
        let mut accumulator = 0;
        let mut at = 0;
        while at < program.len() {
            let [a, b, jump_true, jump_false, c, d, e, f] = program[at].to_ne_bytes();
            let value = u32::from_ne_bytes([c, d, e, f]);
            let branch = |taken: bool| usize::from(if taken { jump_true } else { jump_false });
            at += 1 + match u16::from_ne_bytes([a, b]) {
                0x20 => {
                    accumulator = if value == NUMBER { number } else { architecture };
                    0
                }
                0x05 => value as usize,
                0x15 => branch(accumulator == value),
                0x25 => branch(accumulator > value),
                0x35 => branch(accumulator >= value),
                0x06 => return Some(value),
                other => panic!("unknown instruction {other:#x}"),
            };
        }
        assert_eq!(at, program.len(), "jumped too far");
        None
    }

    #[test]
    fn calls_above_the_highest_named_one_do_not_exist() {
        let profile = serde_json::from_value(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["read", "openat2", "no_such_call"], "action": "SCMP_ACT_ALLOW"}],
        }))
        .unwrap();
        let program = prologue(&profile);
        let enosys = Some(0x0005_0000 | 38);
        // openat2 is 437 everywhere.
        for (architecture, number, outcome) in [
            (0xc000_003e, 0, None),
            (0xc000_003e, 437, None),
            (0xc000_003e, 438, enosys),
            (0xc000_003e, u32::MAX, None),
            (0xc000_003e, X32_BIT + 600, None),
            (0x4000_0003, 437, None),
            (0x4000_0003, 9999, enosys),
            (0xc000_00b7, 437, None),
            (0xc000_00b7, 438, enosys),
            (0x4000_0028, 438, enosys),
            (7, 9999, None),
        ] {
            assert_eq!(run(&program, architecture, number), outcome, "{architecture:#x} {number}");
        }
    }

    #[test]
    fn a_profile_that_allows_what_it_does_not_name_has_no_such_rule() {
        for profile in [
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"}),
            serde_json::json!({"defaultAction": "SCMP_ACT_LOG"}),
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}),
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO"}),
        ] {
            assert!(prologue(&serde_json::from_value(profile.clone()).unwrap()).is_empty(), "{profile}");
        }
    }
}
