//! The devices that a container may use: rules, as lines for version 1 and as a program for version 2.
//!
//! As in runc every device is denied at first, then the bundle's rules apply in order (the last one that
//! matters wins), then the default devices are allowed. config-linux.md, "Allowed Device List";
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// Denies everything, which is where every bundle's rules begin.
const NOTHING: Rule = Rule { allow: false, kind: Kind::All, major: None, minor: None, access: ANY };

/// The rules of a bundle, with the default devices after them.
pub fn compile(given: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = vec![NOTHING];
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
    rules.extend(DEFAULTS);
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
    /// The accesses as letters.
    pub fn access_letters(&self) -> String {
        letters(self.access)
    }
}

fn letters(access: u8) -> String {
    let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    all.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

/// What version 1 keeps of rules: what holds for all devices, and exceptions from that in the order of the rules that
/// made them, which is the order in which `devices.list` shows them.
#[derive(Debug, Default)]
struct Exceptions {
    allowed: bool,
    exceptions: Vec<(Devices, u8)>,
}

/// Which devices an exception is about: kind, major and minor number.
type Devices = (Kind, Option<u32>, Option<u32>);

impl Exceptions {
    /// Applies one rule. Version 1 forgets an exception only as it was made: a rule that takes away a part of
    /// one, it would ignore without a word.
    fn apply(&mut self, rule: &Rule) -> Result<()> {
        if rule.kind == Kind::All {
            *self = Exceptions { allowed: rule.allow, exceptions: Vec::new() };
            return Ok(());
        }
        let key = (rule.kind, rule.major, rule.minor);
        if rule.allow != self.allowed {
            match self.exceptions.iter_mut().find(|(devices, _)| *devices == key) {
                Some((_, access)) => *access |= rule.access,
                None => self.exceptions.push((key, rule.access)),
            }
            return Ok(());
        }
        let within = |inner: Option<u32>, outer: Option<u32>| outer.is_none() || inner == outer;
        let overlap = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        for ((kind, major, minor), access) in &mut self.exceptions {
            if *kind != rule.kind || *access & rule.access == 0 {
                continue;
            }
            if within(*major, rule.major) && within(*minor, rule.minor) {
                *access &= !rule.access;
            } else if overlap(*major, rule.major) && overlap(*minor, rule.minor) {
                return Err(unsupported(
                    "devices",
                    "takes a part of an earlier rule back, which cgroup v1 cannot; put the narrower rule first",
                ));
            }
        }
        self.exceptions.retain(|(_, access)| *access != 0);
        Ok(())
    }
}

/// What is allowed in the end, if everything else is denied and version 1 can say so.
pub fn allowed_list(rules: &[Rule]) -> Option<Vec<Rule>> {
    let mut state = Exceptions { allowed: true, exceptions: Vec::new() };
    rules.iter().try_for_each(|rule| state.apply(rule)).ok().filter(|()| !state.allowed)?;
    let rule = |((kind, major, minor), access)| allowed(kind, major, minor, access);
    Some(state.exceptions.into_iter().map(rule).collect())
}

/// The rules as version 1 takes them: the files and the lines, in order.
pub fn lines_v1(rules: &[Rule]) -> Result<Vec<(&'static str, String)>> {
    let mut state = Exceptions { allowed: true, exceptions: Vec::new() };
    rules.iter().try_for_each(|rule| state.apply(rule))?;
    let file = |allow: bool| if allow { "devices.allow" } else { "devices.deny" };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let mut lines = vec![(file(state.allowed), "a *:* rwm".to_owned())];
    for ((kind, major, minor), access) in state.exceptions {
        let kind = match kind {
            Kind::All => 'a',
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let access = letters(access);
        lines.push((file(!state.allowed), format!("{kind} {}:{} {access}", number(major), number(minor))));
    }
    Ok(lines)
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

    fn lines(json: serde_json::Value) -> Vec<String> {
        let lines = lines_v1(&rules(json)).unwrap();
        lines.iter().map(|(file, line)| format!("{}={line}", file.trim_start_matches("devices."))).collect()
    }

    /// What is allowed besides "nothing" if the bundle has no rules.
    const DEFAULT_LINES: [&str; 10] = [
        "allow=c *:* m",
        "allow=b *:* m",
        "allow=c 1:3 rwm",
        "allow=c 1:5 rwm",
        "allow=c 1:7 rwm",
        "allow=c 1:8 rwm",
        "allow=c 1:9 rwm",
        "allow=c 5:0 rwm",
        "allow=c 5:2 rwm",
        "allow=c 136:* rwm",
    ];

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        let mut expected = vec!["deny=a *:* rwm"];
        expected.extend(DEFAULT_LINES);
        assert_eq!(lines(serde_json::json!([])), expected);
        assert_eq!(lines(serde_json::json!([{"allow": false, "access": "rwm"}])), expected);
    }

    #[test]
    fn lines_of_version_1_are_what_holds_in_the_end_in_the_bundles_order() {
        let lines = lines(serde_json::json!([
            {"allow": true, "type": "b", "major": 7, "access": "rwm"},
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
            {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rw"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
            {"allow": true, "type": "c", "major": 4, "minor": 1},
            {"allow": false, "type": "c", "major": 4},
        ]));
        let mut expected = vec!["deny=a *:* rwm", "allow=c 10:229 rw", "allow=b 8:1 r"];
        expected.extend(DEFAULT_LINES);
        assert_eq!(lines, expected);
    }

    #[test]
    fn everything_but_some_devices() {
        let lines = lines(serde_json::json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
        ]));
        assert_eq!(lines, ["allow=a *:* rwm", "deny=b 8:* w"]);
    }

    #[test]
    fn version_1_refuses_what_it_would_ignore() {
        let rules = rules(serde_json::json!([
            {"allow": true, "type": "c", "major": 4, "access": "rw"},
            {"allow": false, "type": "c", "major": 4, "minor": 64, "access": "w"},
        ]));
        let text = lines_v1(&rules).unwrap_err().to_string();
        assert!(text.contains("cgroup v1 cannot"), "{text}");
    }

    /// On version 1 an access is allowed if one exception covers all of it, or if none touches it.
    fn decide_v1(lines: &[(&str, String)], kind: char, access: &str, major: u32, minor: u32) -> bool {
        let allowed = lines[0].0 == "devices.allow";
        let touched = lines[1..].iter().any(|(_, line)| {
            let (left, letters) = line.rsplit_once(' ').unwrap();
            let (of_kind, numbers) = left.split_once(' ').unwrap();
            let (of_major, of_minor) = numbers.split_once(':').unwrap();
            let same = |pattern: &str, number: u32| pattern == "*" || pattern == number.to_string();
            let covers = if allowed {
                access.chars().any(|letter| letters.contains(letter))
            } else {
                access.chars().all(|letter| letters.contains(letter))
            };
            of_kind == kind.to_string() && same(of_major, major) && same(of_minor, minor) && covers
        });
        allowed != touched
    }

    #[test]
    fn version_1_decides_single_accesses_as_the_rules_do() {
        let mut state = 29u64;
        let mut pick = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let (numbers, mut compared) = ([None, Some(0), Some(1)], 0);
        for _ in 0..3_000 {
            let mut rules = vec![NOTHING];
            rules.extend((0..pick(5)).map(|_| Rule {
                allow: pick(2) == 0,
                kind: [Kind::All, Kind::Block, Kind::Character, Kind::Block, Kind::Character]
                    [pick(5) as usize],
                major: numbers[pick(3) as usize],
                minor: numbers[pick(3) as usize],
                access: pick(7) as u8 + 1,
            }));
            let Ok(lines) = lines_v1(&rules) else { continue };
            for (kind, name) in [(1, 'b'), (2, 'c')] {
                for (access, letter) in [(MKNOD, "m"), (READ, "r"), (WRITE, "w")] {
                    for (major, minor) in [(0, 0), (0, 1), (1, 0), (2, 2)] {
                        let expected = decide(&rules, kind, access, major, minor);
                        assert_eq!(decide_v1(&lines, name, letter, major, minor), expected, "{rules:?}");
                        compared += 1;
                    }
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
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
