//! What must hold for input that an enemy chose, whatever it is: one function for each kind of input, which panics when
//! something does not hold. Two users: the targets of cargo-fuzz (`turf-core/fuzz`), and the bounded run of the tests
//! below, the same in every run. Compiled for those two only.

use std::collections::BTreeMap;

use crate::bundle;
use crate::cgroup::select_unit_properties;
use crate::sandbox::{mounts, seccomp};
use crate::seed::protocol::{Reply, Report, Request, decode, encode};

/// A config.json: refused with a place, or compiled to a plan that can be written down and read again.
pub fn configuration(data: &[u8]) {
    match bundle::compile_unchecked(data) {
        None => {}
        Some(Err(error)) => assert!(error.to_string().contains("$."), "no place: {error}"),
        Some(Ok(plan)) => {
            let text = serde_json::to_string(&plan).expect("a plan is JSON");
            let again: crate::sandbox::Plan = serde_json::from_str(&text).expect("a plan is read again");
            assert_eq!(plan, again);
        }
    }
}

/// Mount options, one a line: what is refused is one of them; a flag is set or cleared, never both.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let options: Vec<String> = text.lines().map(str::to_owned).collect();
    match mounts::parse(&options) {
        Err((index, reason)) => assert!(index <= options.len() && !reason.is_empty()),
        Ok(parsed) => {
            for index in
                [parsed.copy_up, parsed.remount, parsed.id_map.map(|(index, _)| index)].into_iter().flatten()
            {
                assert!(index < options.len());
            }
            assert!(parsed.parameters.iter().all(|parameter| !parameter.key.is_empty()), "{options:?}");
        }
    }
}

/// A profile of system calls: refused with a place, or a program that the kernel could take.
pub fn seccomp(data: &[u8]) {
    let Ok(profile) = serde_json::from_slice(data) else { return };
    match seccomp::compile(&profile, "$.linux.seccomp") {
        Err(error) => assert!(error.to_string().contains("$.linux.seccomp"), "no place: {error}"),
        Ok(plan) => assert!(!plan.program.is_empty() && plan.program.len() <= 4096),
    }
}

/// A packet of the seed protocol: refused, or a message that is written as it was read.
pub fn protocol(data: &[u8]) {
    if let Ok(message) = decode::<Request>(data) {
        let again = decode::<Request>(&encode(&message).expect("it was no longer than a packet"));
        assert_eq!(again.as_ref(), Ok(&message));
        if let Request::Fork(fork) = message {
            drop(fork.claim(Vec::new()));
        }
    }
    drop(decode::<Reply>(data));
    drop(decode::<Report>(data));
}

/// An annotation `org.systemd.property.NAME`, as a line with the name and lines with the value.
pub fn unit_property(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, value) = text.split_once('\n').unwrap_or((&text, ""));
    let annotation = format!("org.systemd.property.{name}");
    match select_unit_properties(&BTreeMap::from([(annotation, value.to_owned())])) {
        Err(error) => assert!(error.to_string().contains("$.annotations"), "no place: {error}"),
        Ok(selected) => {
            assert!(selected.len() == 1 && name.bytes().all(|letter| letter.is_ascii_alphabetic()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// xorshift64: the same sequence in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % bound.max(1)
        }
    }

    /// Bytes that parsers look for.
    const TELLING: &[u8] = b"\n :=,\"'-/@[]\\0129afx{}\x00\x01\x7f\xff";

    /// One change: a byte, a bit, a piece more, less, twice, or of another seed.
    fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
        let at = random.below(data.len() + 1);
        let until = at + random.below(data.len() - at + 1).min(32);
        match random.below(7) {
            0 if at < data.len() => data[at] = TELLING[random.below(TELLING.len())],
            1 if at < data.len() => data[at] ^= 1 << random.below(8),
            2 => data.insert(at, TELLING[random.below(TELLING.len())]),
            3 => drop(data.drain(at..until)),
            4 => {
                let piece = data[at..until].to_vec();
                let place = random.below(data.len() + 1);
                data.splice(place..place, piece);
            }
            5 if !other.is_empty() => {
                let start = random.below(other.len());
                let piece = &other[start..start + random.below(other.len() - start + 1).min(64)];
                data.splice(at..until, piece.iter().copied());
            }
            _ => data.truncate(at),
        }
    }

    /// Checks the seeds of a target and `rounds` changes of them.
    fn run(target: &str, rounds: usize, check: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut seeds: Vec<(std::path::PathBuf, Vec<u8>)> = std::fs::read_dir(&directory)
            .expect("the seeds")
            .map(|entry| entry.expect("a seed").path())
            .map(|path| (path.clone(), std::fs::read(path).expect("read a seed")))
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds.iter().for_each(|(_, seed)| check(seed));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let mut data = seeds[random.below(seeds.len())].1.clone();
            for _ in 0..=random.below(4) {
                let other = &seeds[random.below(seeds.len())].1;
                change(&mut random, &mut data, other);
            }
            check(&data);
        }
    }

    #[test]
    fn random_configurations_hold_no_surprise() {
        run("configuration", 4000, configuration);
    }

    #[test]
    fn random_mount_options_hold_no_surprise() {
        run("mount_options", 50_000, mount_options);
    }

    #[test]
    fn random_seccomp_profiles_hold_no_surprise() {
        run("seccomp", 1500, seccomp);
    }

    #[test]
    fn random_packets_hold_no_surprise() {
        // A seed of this target is written by the protocol itself, whose version it names.
        for message in [Request::Stat, Request::Stop] {
            protocol(&encode(&message).expect("it is short"));
        }
        run("protocol", 50_000, protocol);
    }

    #[test]
    fn random_unit_properties_hold_no_surprise() {
        run("unit_property", 50_000, unit_property);
    }
}
