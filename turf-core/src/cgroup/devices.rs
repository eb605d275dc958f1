//! The devices that a container may use: rules, as lines for version 1 and as a program for version 2.
//!
//! Rules apply in order, the last one that matters wins, and what no rule names is allowed (the OCI
//! specification lets a bundle begin with "deny everything"). config-linux.md, "Allowed Device List";
//! Documentation/admin-guide/cgroup-v1/devices.rst; cgroup-v2.rst, "Device controller".

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::resources::unsupported;
use crate::error::Result;
use crate::sys::bpf::Instruction;

/// One rule for block or for character devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Which devices.
    pub kind: Kind,
    /// The major number; none means every one.
    pub major: Option<u32>,
    /// The minor number; none means every one.
    pub minor: Option<u32>,
    /// The accesses: a sum of [`MKNOD`], [`READ`] and [`WRITE`].
    pub access: u8,
}

/// A kind of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every device with every access, whatever the rest of the rule says.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Making a node (linux/bpf.h, `BPF_DEVCG_ACC_MKNOD`).
pub const MKNOD: u8 = 1;
/// Reading (`BPF_DEVCG_ACC_READ`).
pub const READ: u8 = 2;
/// Writing (`BPF_DEVCG_ACC_WRITE`).
pub const WRITE: u8 = 4;
const ANY: u8 = MKNOD | READ | WRITE;

/// What every container with rules gets besides: making any node (which needs CAP_MKNOD), and the use
/// of the devices that config-linux.md calls default, pseudo-terminals included.
const DEFAULTS: [Rule; 10] = [
    allowed(Kind::Character, None, None, MKNOD),
    allowed(Kind::Block, None, None, MKNOD),
    allowed(Kind::Character, Some(1), Some(3), ANY), // null
    allowed(Kind::Character, Some(1), Some(5), ANY), // zero
    allowed(Kind::Character, Some(1), Some(7), ANY), // full
    allowed(Kind::Character, Some(1), Some(8), ANY), // random
    allowed(Kind::Character, Some(1), Some(9), ANY), // urandom
    allowed(Kind::Character, Some(5), Some(0), ANY), // tty
    allowed(Kind::Character, Some(5), Some(2), ANY), // ptmx
    allowed(Kind::Character, Some(136), None, ANY),  // pts
];

const fn allowed(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

/// The rules of a bundle, with the default devices after them; none if the bundle has none.
pub fn compile(given: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (index, rule) in given.iter().enumerate() {
        let (allow, access) = (rule.allow(), access_of(index, rule.access().as_deref())?);
        let major = number(index, "major", rule.major())?;
        let minor = number(index, "minor", rule.minor())?;
        let kinds: &[Kind] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Character],
            LinuxDeviceType::P => {
                return Err(unsupported(
                    &format!("devices[{index}].type"),
                    "p (a pipe) has no device number",
                ));
            }
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == ANY => &[Kind::All],
            LinuxDeviceType::A => &[Kind::Block, Kind::Character],
        };
        rules.extend(kinds.iter().map(|&kind| Rule { allow, kind, major, minor, access }));
    }
    if !rules.is_empty() {
        rules.extend(DEFAULTS);
    }
    Ok(rules)
}

fn access_of(index: usize, text: Option<&str>) -> Result<u8> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(ANY) };
    text.chars().try_fold(0, |access, letter| match letter {
        'm' => Ok(access | MKNOD),
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        _ => Err(unsupported(&format!("devices[{index}].access"), "may contain only r, w and m")),
    })
}

/// A negative number stands for every one, as in runc.
fn number(index: usize, member: &str, number: Option<i64>) -> Result<Option<u32>> {
    match number {
        Some(number) if number >= 0 => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(unsupported(&format!("devices[{index}].{member}"), "must fit 32 bits")),
        },
        Some(_) | None => Ok(None),
    }
}

impl Rule {
    /// The file of version 1 that takes the rule, and the line.
    pub fn to_v1(self) -> (&'static str, String) {
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = match self.kind {
            Kind::All => 'a',
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, c)| c).collect();
        (file, format!("{kind} {}:{} {access}", number(self.major), number(self.minor)))
    }
}

// The registers of the program. It gets `struct bpf_cgroup_dev_ctx` in R1: access and kind in one
// number, then major and minor.
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_IF_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_UNLESS_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// The rules as a program for a version 2 group. The last rule comes first, because it wins.
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND | (R1 << 4), 0, 0),
        instruction(MOVE_REGISTER, ACCESS | (KIND << 4), 0, 0),
        instruction(AND, KIND, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        instruction(LOAD_WORD, MAJOR | (R1 << 4), 4, 0),
        instruction(LOAD_WORD, MINOR | (R1 << 4), 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(rule_program(rule));
        if rule.kind == Kind::All {
            // It always matters, and the kernel refuses instructions that are never reached.
            return program;
        }
    }
    program.extend(answer(true));
    program
}

fn rule_program(rule: &Rule) -> Vec<Instruction> {
    /// `BPF_DEVCG_DEV_BLOCK`, `BPF_DEVCG_DEV_CHAR`.
    const BLOCK: i32 = 1;
    const CHARACTER: i32 = 2;
    // Each test jumps over the rest of the rule when the rule does not matter; the distance is filled in
    // at the end.
    let mut program = Vec::new();
    match rule.kind {
        Kind::All => return answer(rule.allow).to_vec(),
        Kind::Block => program.push(instruction(JUMP_UNLESS_EQUAL, KIND, 0, BLOCK)),
        Kind::Character => program.push(instruction(JUMP_UNLESS_EQUAL, KIND, 0, CHARACTER)),
    }
    if rule.access != ANY {
        program.push(instruction(MOVE_REGISTER, R1 | (ACCESS << 4), 0, 0));
        if rule.allow {
            // Allowed is an access of which the rule names every part,
            program.push(instruction(AND, R1, 0, i32::from(ANY & !rule.access)));
            program.push(instruction(JUMP_UNLESS_EQUAL, R1, 0, 0));
        } else {
            // denied is one of which it names any part.
            program.push(instruction(AND, R1, 0, i32::from(rule.access)));
            program.push(instruction(JUMP_IF_EQUAL, R1, 0, 0));
        }
    }
    program.extend(rule.major.map(|major| instruction(JUMP_UNLESS_EQUAL, MAJOR, 0, major.cast_signed())));
    program.extend(rule.minor.map(|minor| instruction(JUMP_UNLESS_EQUAL, MINOR, 0, minor.cast_signed())));
    program.extend(answer(rule.allow));
    let length = program.len();
    for (index, instruction) in program.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
            // A rule has at most ten instructions.
            instruction.offset = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
        }
    }
    program
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE, R0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0)]
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: serde_json::Value) -> Vec<Rule> {
        let given: Vec<LinuxDeviceCgroup> = serde_json::from_value(json).unwrap();
        compile(&given).unwrap()
    }

    #[test]
    fn no_rules_are_no_rules() {
        assert!(rules(serde_json::json!([])).is_empty());
    }

    #[test]
    fn lines_of_version_1_end_with_the_default_devices() {
        let rules = rules(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": false, "type": "a", "major": 8, "access": "w"},
        ]));
        let lines: Vec<String> =
            rules.iter().map(|rule| rule.to_v1()).map(|(file, line)| format!("{file}={line}")).collect();
        assert_eq!(
            lines[..5],
            [
                "devices.deny=a *:* rwm",
                "devices.allow=c 10:229 rw",
                "devices.deny=b 8:* w",
                "devices.deny=c 8:* w",
                "devices.allow=c *:* m",
            ]
        );
        assert_eq!(lines.len(), 4 + DEFAULTS.len());
    }

    #[test]
    fn what_is_not_a_rule_is_named() {
        for (json, member) in [
            (serde_json::json!([{"allow": true, "access": "rx"}]), "devices[0].access"),
            (serde_json::json!([{"allow": true, "type": "p"}]), "devices[0].type"),
            (
                serde_json::json!([{"allow": true, "type": "c", "minor": 4_294_967_296u64}]),
                "devices[0].minor",
            ),
        ] {
            let given: Vec<LinuxDeviceCgroup> = serde_json::from_value(json).unwrap();
            let text = compile(&given).unwrap_err().to_string();
            assert!(text.contains(&format!("$.linux.resources.{member}: ")), "{text}");
        }
    }

    /// What a program answers, computed as the kernel does.
    fn execute(program: &[Instruction], kind: u32, access: u8, major: u32, minor: u32) -> bool {
        let mut registers = [0u64; 6];
        let context = [u64::from(access) << 16 | u64::from(kind), u64::from(major), u64::from(minor)];
        let mut next = 0usize;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[next];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = immediate as u32;
            next += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = u64::from(value),
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= u64::from(value),
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL if registers[to] == u64::from(value) => next += offset as usize,
                JUMP_UNLESS_EQUAL if registers[to] as u32 != value => next += offset as usize,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    /// What the rules say, straight from their definition.
    fn decide(rules: &[Rule], kind: u32, access: u8, major: u32, minor: u32) -> bool {
        let matters = |rule: &&Rule| {
            let same_kind = match rule.kind {
                Kind::All => return true,
                Kind::Block => kind == 1,
                Kind::Character => kind == 2,
            };
            let accessed = if rule.allow { access & !rule.access == 0 } else { access & rule.access != 0 };
            let same = |wanted: Option<u32>, given| wanted.is_none_or(|wanted| wanted == given);
            same_kind && accessed && same(rule.major, major) && same(rule.minor, minor)
        };
        rules.iter().rev().find(matters).is_none_or(|rule| rule.allow)
    }

    #[test]
    fn a_program_decides_as_its_rules_do() {
        let mut state = 11u64;
        let mut pick = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let numbers = [None, Some(0), Some(1), Some(u32::MAX)];
        for _ in 0..2_000 {
            let rules: Vec<Rule> = (0..pick(6))
                .map(|_| Rule {
                    allow: pick(2) == 0,
                    kind: [Kind::All, Kind::Block, Kind::Character, Kind::Block, Kind::Character]
                        [pick(5) as usize],
                    major: numbers[pick(4) as usize],
                    minor: numbers[pick(4) as usize],
                    access: pick(7) as u8 + 1,
                })
                .collect();
            let program = program(&rules);
            for _ in 0..50 {
                let (kind, access) = (pick(2) as u32 + 1, pick(7) as u8 + 1);
                let (major, minor) = ([0, 1, u32::MAX][pick(3) as usize], [0, 1, u32::MAX][pick(3) as usize]);
                assert_eq!(
                    execute(&program, kind, access, major, minor),
                    decide(&rules, kind, access, major, minor),
                    "{rules:?} {kind} {access} {major}:{minor}"
                );
            }
        }
    }
}
