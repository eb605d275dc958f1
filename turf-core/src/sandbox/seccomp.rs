//! The seccomp profile of config.json as a filter program, compiled by libseccomp in the parent.
//!
//! Init and workers only load the program: they have no need of the library. Section:
//! <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#seccomp>.

mod unknown_calls;

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::plan::{SeccompAgentPlan, SeccompPlan};
use crate::error::{Error, Result};
use crate::limits;

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
const PROGRAM_INSTRUCTIONS: usize = 4096;

/// Since Linux 5.19; not in the C library's headers everywhere.
const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Highest argument index of a system call.
const LAST_ARGUMENT: usize = 5;

/// The error number a refused call returns if the profile names none (`EPERM`).
const DEFAULT_ERRNO: i32 = libc::EPERM;

/// Compiles a profile. `place` is its JSON path, for errors ("$.linux.seccomp"). System calls that
/// libseccomp does not know are passed over, as runc does: profiles list those of newer kernels.
pub fn compile(profile: &LinuxSeccomp, place: &str) -> Result<SeccompPlan> {
    let default = action(profile.default_action(), profile.default_errno_ret(), place)?;
    if default == ScmpAction::Notify {
        // The process itself could not go on to run its program.
        return Err(invalid(&format!("{place}.defaultAction"), "must not be SCMP_ACT_NOTIFY"));
    }
    let mut filter = ScmpFilterContext::new(default).map_err(|error| failed(place, &error))?;
    // The program is loaded by our own system call, and no_new_privileges is a decision of its own.
    filter.set_ctl_nnp(false).map_err(|error| failed(place, &error))?;
    for (index, arch) in profile.architectures().iter().flatten().enumerate() {
        let arch = architecture(*arch);
        if let Some(arch) = arch {
            let place = format!("{place}.architectures[{index}]");
            filter.add_arch(arch).map_err(|error| failed(&place, &error))?;
        }
    }
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        add_rule(&mut filter, rule, default, &format!("{place}.syscalls[{index}]"))?;
    }
    // A search tree over the numbers instead of a list: fewer instructions are run on each call, and on each
    // of the calls that the kernel tries when it takes the program.
    // Libraries older than 2.5 have no such choice, and the list is as right.
    let _ = filter.set_ctl_optimize(2);
    let mut program = unknown_calls::prologue(profile);
    program.extend(export(&filter, place)?);
    if program.len() > PROGRAM_INSTRUCTIONS {
        let reason = format!(
            "compiles to {} instructions, the kernel takes at most {PROGRAM_INSTRUCTIONS}",
            program.len()
        );
        return Err(invalid(place, &reason));
    }
    let agent = agent(profile, place)?;
    Ok(SeccompPlan { flags: flags(profile, agent.is_some(), place)?, program, agent })
}

/// The agent, if some rule leaves calls to one.
fn agent(profile: &LinuxSeccomp, place: &str) -> Result<Option<SeccompAgentPlan>> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    if path.is_none() && !metadata.is_empty() {
        return Err(invalid(&format!("{place}.listenerMetadata"), "goes only with listenerPath"));
    }
    if metadata.len() > limits::SECCOMP_METADATA_BYTES {
        let reason = format!("must be at most {} bytes", limits::SECCOMP_METADATA_BYTES);
        return Err(invalid(&format!("{place}.listenerMetadata"), &reason));
    }
    if let Some(path) = path
        && (!path.is_absolute() || path.to_string_lossy().contains('\0'))
    {
        return Err(invalid(&format!("{place}.listenerPath"), "must be an absolute path of a Unix socket"));
    }
    let notifies = |rule: &&LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActNotify;
    if profile.syscalls().iter().flatten().find(notifies).is_none() {
        return Ok(None);
    }
    match path {
        Some(path) => Ok(Some(SeccompAgentPlan { socket: path.clone(), metadata })),
        None => Err(invalid(
            &format!("{place}.listenerPath"),
            "must name the socket of an agent for SCMP_ACT_NOTIFY",
        )),
    }
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
    place: &str,
) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret(), place)?;
    if rule.names().is_empty() {
        return Err(invalid(&format!("{place}.names"), "must not be empty"));
    }
    if action == default {
        return Ok(());
    }
    if action == ScmpAction::Notify && rule.names().iter().any(|name| name == "write") {
        // By write(2) the process tells that there is something for the agent, who does not know of it yet.
        return Err(invalid(
            &format!("{place}.action"),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ));
    }
    let arguments = rule.args().as_deref().unwrap_or_default();
    let conditions = arguments
        .iter()
        .enumerate()
        .map(|(index, argument)| condition(argument, &format!("{place}.args[{index}]")))
        .collect::<Result<Vec<_>>>()?;
    for name in rule.names() {
        let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
        let mut add = |conditions: &[ScmpArgCompare]| match conditions {
            [] => filter.add_rule(action, syscall).map(drop),
            conditions => filter.add_rule_conditional(action, syscall, conditions).map(drop),
        };
        let added = if compares_an_argument_twice(arguments) {
            // libseccomp takes one comparison for each argument; several mean "any of them".
            conditions.iter().try_for_each(|condition| add(std::slice::from_ref(condition)))
        } else {
            add(&conditions)
        };
        added.map_err(|error| failed(&format!("{place} ({name})"), &error))?;
    }
    Ok(())
}

fn compares_an_argument_twice(arguments: &[LinuxSeccompArg]) -> bool {
    let mut counts = BTreeMap::new();
    arguments.iter().for_each(|argument| *counts.entry(argument.index()).or_insert(0) += 1);
    counts.values().any(|&count| count > 1)
}

fn condition(argument: &LinuxSeccompArg, place: &str) -> Result<ScmpArgCompare> {
    if argument.index() > LAST_ARGUMENT {
        return Err(invalid(&format!("{place}.index"), "must be 0 to 5"));
    }
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    let index = u32::try_from(argument.index()).map_err(|_| invalid(place, "must be 0 to 5"))?;
    Ok(ScmpArgCompare::new(index, operator, value))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, place: &str) -> Result<ScmpAction> {
    let takes_errno = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
    if errno.is_some() && !takes_errno {
        return Err(invalid(place, "an error number goes only with SCMP_ACT_ERRNO and SCMP_ACT_TRACE"));
    }
    let number = errno.map_or(Ok(DEFAULT_ERRNO), i32::try_from);
    let number = number.ok().filter(|number| (0..=4095).contains(number));
    let number = number.ok_or_else(|| invalid(place, "the error number must be 0 to 4095"))?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(number).unwrap_or(0)),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
    })
}

/// libseccomp's name of an architecture; `None` for the machine's own, which is always part of a filter.
fn architecture(arch: Arch) -> Option<ScmpArch> {
    Some(match arch {
        Arch::ScmpArchNative => return None,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    })
}

/// The flags of seccomp(2). Without any in the profile the one runc sets: filters of containers do not
/// switch on the mitigation of speculative store bypass, which costs every thread speed.
fn flags(profile: &LinuxSeccomp, has_agent: bool, place: &str) -> Result<u32> {
    let Some(names) = profile.flags() else {
        return Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32);
    };
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name {
                // One thread loads the filter: there is nobody to synchronise with.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                    libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if has_agent => {
                    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    let place = format!("{place}.flags");
                    return Err(invalid(
                        &place,
                        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV goes only with SCMP_ACT_NOTIFY",
                    ));
                }
            })
    })
}

/// Writes the program to a file in memory and reads it back: the one form of export that every
/// version of the library has.
fn export(filter: &ScmpFilterContext, place: &str) -> Result<Vec<u64>> {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let file = nix::sys::memfd::memfd_create(c"seccomp", flags);
    let mut file =
        std::fs::File::from(file.map_err(|errno| Error::io("memfd_create for the seccomp program", errno))?);
    filter.export_bpf(&file).map_err(|error| failed(place, &error))?;
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| Error::io("read the seccomp program", error))?;
    let (instructions, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > PROGRAM_INSTRUCTIONS {
        let reason = format!(
            "compiles to {} instructions, the kernel takes 1 to {PROGRAM_INSTRUCTIONS}",
            instructions.len()
        );
        return Err(invalid(place, &reason));
    }
    Ok(instructions.iter().map(|&bytes| u64::from_ne_bytes(bytes)).collect())
}

fn failed(place: &str, error: &SeccompError) -> Error {
    invalid(place, &format!("libseccomp refuses it: {error}"))
}

fn invalid(place: &str, reason: &str) -> Error {
    Error::invalid(format!("config.json: {place}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile_json(profile: serde_json::Value) -> Result<SeccompPlan> {
        compile(&serde_json::from_value(profile).unwrap(), "$.linux.seccomp")
    }

    #[test]
    fn a_profile_becomes_a_program() {
        let plan = compile_json(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                { "names": ["read", "write", "no_such_call_ever"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
                { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
            ],
        }))
        .unwrap();
        assert!(plan.program.len() > 10);
        assert_eq!(plan.flags, libc::SECCOMP_FILTER_FLAG_LOG as u32);
    }

    #[test]
    fn a_profile_that_notifies_has_an_agent() {
        let plan = compile_json(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "listenerMetadata": "a b",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
        }))
        .unwrap();
        let agent = SeccompAgentPlan { socket: "/run/agent".into(), metadata: "a b".into() };
        assert_eq!((plan.agent, plan.flags), (Some(agent), SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV));
        let silent =
            compile_json(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}));
        assert_eq!(silent.unwrap().agent, None);
    }

    #[test]
    fn every_action_compiles() {
        for action in ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW"] {
            let rule = serde_json::json!([{ "names": ["chmod"], "action": format!("SCMP_ACT_{action}") }]);
            for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"] {
                let plan = compile_json(serde_json::json!({"defaultAction": default, "syscalls": rule}));
                assert!(!plan.unwrap().program.is_empty(), "{action}");
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_place() {
        let refused = [
            (serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "$.linux.seccomp.defaultAction"),
            (serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "goes only with"),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
                "$.linux.seccomp.listenerMetadata",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "x"}),
                "$.linux.seccomp.listenerPath",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["chmod"], "action": "SCMP_ACT_NOTIFY"}]}),
                "$.linux.seccomp.listenerPath",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": [
                    {"names": ["chmod", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
                "$.linux.seccomp.syscalls[0].action",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
                "$.linux.seccomp.flags",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
                "$.linux.seccomp.syscalls[0].args[0].index: must be 0 to 5",
            ),
            (
                serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}),
                "$.linux.seccomp.syscalls[0].names",
            ),
        ];
        for (profile, words) in refused {
            let error = compile_json(profile).unwrap_err().to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }
}
