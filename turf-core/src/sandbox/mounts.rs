//! The options of a mount: words of mount(8) and of the runtime-spec, taken apart. Pure.
//!
//! Words that name no attribute of the mount are parameters of its file system (`size=64k`).
//! Table: <https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#linux-mount-options>.

use super::step::{MountAttributes, MountSource, MountStep, Parameter, Propagation, PropagationKind};
use crate::sys::mount::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};

/// Most options of one mount: more than any client sends, few enough to bound the work.
const OPTIONS: usize = 1024;

/// Longest option in bytes: the classic limit of a mount's data, one page.
const OPTION_BYTES: usize = 4096;

/// The options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether it is a bind mount, and whether the mounts below come along.
    pub bind: Option<Bind>,
    /// Attributes of this mount.
    pub attributes: MountAttributes,
    /// Attributes of this mount and all below.
    pub recursive_attributes: MountAttributes,
    /// Changes of propagation.
    pub propagation: Vec<Propagation>,
    /// `tmpcopyup`, and which option says so.
    pub copy_up: Option<usize>,
    /// `idmap` or `ridmap`, and which option says so.
    pub id_map: Option<(usize, Bind)>,
    /// `remount`: changes a mount that an earlier entry has made, and which option says so.
    pub remount: Option<usize>,
    /// Parameters of the file system.
    pub parameters: Vec<Parameter>,
}

/// Kinds of bind mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// `bind`.
    One,
    /// `rbind`.
    Recursive,
}

/// Takes options apart; an error is the index of the option at fault and why.
pub fn parse(options: &[String]) -> Result<Options, (usize, &'static str)> {
    if options.len() > OPTIONS {
        return Err((OPTIONS, "a mount has at most 1024 options"));
    }
    let mut parsed = Options::default();
    for (index, option) in options.iter().enumerate() {
        match option.as_str() {
            "tmpcopyup" => parsed.copy_up = Some(index),
            "idmap" => parsed.id_map = Some((index, Bind::One)),
            "ridmap" => parsed.id_map = Some((index, Bind::Recursive)),
            "remount" => parsed.remount = Some(index),
            _ => parse_one(option, &mut parsed).map_err(|reason| (index, reason))?,
        }
    }
    Ok(parsed)
}

fn parse_one(option: &str, parsed: &mut Options) -> Result<(), &'static str> {
    if option.is_empty() || option.len() > OPTION_BYTES || option.contains('\0') {
        return Err("must be 1 to 4096 bytes without a zero byte");
    }
    if let Some(propagation) = propagation(option) {
        parsed.propagation.push(propagation);
        return Ok(());
    }
    if let Some(change) = attribute(option, parsed.attributes) {
        apply(&mut parsed.attributes, change);
        return Ok(());
    }
    if let Some(change) =
        option.strip_prefix('r').and_then(|option| attribute(option, parsed.recursive_attributes))
    {
        apply(&mut parsed.recursive_attributes, change);
        return Ok(());
    }
    match option {
        "bind" => parsed.bind = Some(parsed.bind.unwrap_or(Bind::One)),
        "rbind" => parsed.bind = Some(Bind::Recursive),
        // They undo what an earlier option asked for, which is all they can do to a new mount.
        "async" => without(parsed, "sync"),
        "nolazytime" => without(parsed, "lazytime"),
        "nomand" => without(parsed, "mand"),
        // Words of mount(8) that ask for what is so anyway, or that the file systems decide for themselves:
        // mount(2) has flags for these, which change nothing that can be seen.
        "defaults" | "iversion" | "noiversion" | "acl" | "noacl" | "silent" | "loud" => {}
        _ => {
            let (key, value) = match option.split_once('=') {
                Some(("", _)) => return Err("a parameter needs a name before the ="),
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option, None),
            };
            parsed.parameters.push(Parameter { key: key.to_owned(), value });
        }
    }
    Ok(())
}

/// One attribute: bits to set and bits to clear.
type Change = (u64, u64);

fn apply(attributes: &mut MountAttributes, (set, clear): Change) {
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !set | clear;
}

/// Takes a flag of the file system back.
fn without(parsed: &mut Options, flag: &str) {
    parsed.parameters.retain(|parameter| parameter.key != flag || parameter.value.is_some());
}

/// Flags that every file system has, as the kernel calls them; a bind mount shares those of its source.
pub fn is_common_flag(parameter: &Parameter) -> bool {
    parameter.value.is_none() && matches!(parameter.key.as_str(), "sync" | "dirsync" | "lazytime" | "mand")
}

/// What a word does to the attributes `so_far`.
fn attribute(option: &str, so_far: MountAttributes) -> Option<Change> {
    const NOTHING: Change = (0, 0);
    let is = |value: u64| so_far.set & MOUNT_ATTR_ATIME == value;
    Some(match option {
        "ro" => (MOUNT_ATTR_RDONLY, 0),
        "rw" => (0, MOUNT_ATTR_RDONLY),
        "nosuid" => (MOUNT_ATTR_NOSUID, 0),
        "suid" => (0, MOUNT_ATTR_NOSUID),
        "nodev" => (MOUNT_ATTR_NODEV, 0),
        "dev" => (0, MOUNT_ATTR_NODEV),
        "noexec" => (MOUNT_ATTR_NOEXEC, 0),
        "exec" => (0, MOUNT_ATTR_NOEXEC),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, 0),
        "symfollow" => (0, MOUNT_ATTR_NOSYMFOLLOW),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, 0),
        "diratime" => (0, MOUNT_ATTR_NODIRATIME),
        // The three values of access time exclude each other: one field, cleared as a whole.
        "noatime" => (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
        "relatime" => (MOUNT_ATTR_RELATIME, MOUNT_ATTR_ATIME),
        // The negative words leave the other values alone. Without any of the three it is relatime.
        "atime" if is(MOUNT_ATTR_STRICTATIME) => NOTHING,
        "nostrictatime" if is(MOUNT_ATTR_NOATIME) => NOTHING,
        "atime" | "nostrictatime" => (MOUNT_ATTR_RELATIME, MOUNT_ATTR_ATIME),
        "norelatime" => NOTHING,
        _ => return None,
    })
}

/// Reads a word of propagation (also of `linux.rootfsPropagation`).
pub fn propagation(word: &str) -> Option<Propagation> {
    let (kind, recursive) = match word {
        "shared" => (PropagationKind::Shared, false),
        "rshared" => (PropagationKind::Shared, true),
        "slave" => (PropagationKind::Slave, false),
        "rslave" => (PropagationKind::Slave, true),
        "private" => (PropagationKind::Private, false),
        "rprivate" => (PropagationKind::Private, true),
        "unbindable" => (PropagationKind::Unbindable, false),
        "runbindable" => (PropagationKind::Unbindable, true),
        _ => return None,
    };
    Some(Propagation { kind, recursive })
}

/// A new file system with these options, for mounts that no config.json asks for.
pub(crate) fn filesystem(target: &str, kind: &str, options: &[&str]) -> MountStep {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let parsed = parse(&options).unwrap_or_default();
    MountStep {
        target: target.into(),
        source: MountSource::Filesystem {
            kind: kind.to_owned(),
            source: kind.to_owned(),
            parameters: parsed.parameters,
        },
        attributes: parsed.attributes,
        recursive_attributes: parsed.recursive_attributes,
        propagation: parsed.propagation,
        copy_up: parsed.copy_up.is_some(),
        id_mapping: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Options {
        let options: Vec<String> = words.split(',').map(str::to_owned).collect();
        parse(&options).unwrap()
    }

    #[test]
    fn options_are_taken_apart() {
        let nothing = MountAttributes::default();
        let set = |set| MountAttributes { set, clear: 0 };
        let table = [
            ("ro", set(MOUNT_ATTR_RDONLY), nothing),
            ("ro,rw", MountAttributes { set: 0, clear: MOUNT_ATTR_RDONLY }, nothing),
            ("nosuid,nodev,noexec", set(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC), nothing),
            ("rro,rnoexec", nothing, set(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC)),
            (
                "noatime,strictatime",
                MountAttributes { set: MOUNT_ATTR_STRICTATIME, clear: MOUNT_ATTR_ATIME },
                nothing,
            ),
            ("relatime", MountAttributes { set: 0, clear: MOUNT_ATTR_ATIME }, nothing),
            ("rnoatime", nothing, MountAttributes { set: MOUNT_ATTR_NOATIME, clear: MOUNT_ATTR_ATIME }),
        ];
        for (words, attributes, recursive) in table {
            let parsed = parse_words(words);
            assert_eq!((parsed.attributes, parsed.recursive_attributes), (attributes, recursive), "{words}");
            assert!(parsed.parameters.is_empty(), "{words}");
        }
    }

    #[test]
    fn negative_words_of_access_time_leave_the_other_values_alone() {
        let table = [
            ("noatime,nostrictatime", MOUNT_ATTR_NOATIME),
            ("noatime,norelatime", MOUNT_ATTR_NOATIME),
            ("strictatime,atime", MOUNT_ATTR_STRICTATIME),
            ("noatime,atime", MOUNT_ATTR_RELATIME),
            ("strictatime,nostrictatime", MOUNT_ATTR_RELATIME),
        ];
        for (words, value) in table {
            let attributes = MountAttributes { set: value, clear: MOUNT_ATTR_ATIME };
            assert_eq!(parse_words(words).attributes, attributes, "{words}");
            let recursive: Vec<String> = words.split(',').map(|word| format!("r{word}")).collect();
            assert_eq!(parse(&recursive).unwrap().recursive_attributes, attributes, "{recursive:?}");
        }
        assert_eq!(parse_words("norelatime").attributes, MountAttributes::default());
    }

    #[test]
    fn every_word_of_the_specification_is_known() {
        // config.md, "Linux mount options".
        let words = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev \
            nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid nosymfollow private \
            ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime \
            rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime \
            rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup \
            unbindable idmap ridmap";
        for word in words.split_whitespace() {
            let parsed = parse_words(word);
            assert!(parsed.parameters.iter().all(is_common_flag), "{word} became a parameter");
        }
        assert_eq!(parse_words("sync,async,lazytime,nolazytime,mand,nomand").parameters, []);
        assert_eq!(parse_words("rw,ridmap").id_map, Some((1, Bind::Recursive)));
        assert_eq!(parse_words("remount,ro").remount, Some(0));
    }

    #[test]
    fn words_of_propagation_and_binding_are_no_parameters() {
        assert_eq!(parse_words("ro,tmpcopyup").copy_up, Some(1));
        let parsed = parse_words("rbind,bind,rslave,shared");
        assert_eq!(parsed.bind, Some(Bind::Recursive));
        let wanted = [
            Propagation { kind: PropagationKind::Slave, recursive: true },
            Propagation { kind: PropagationKind::Shared, recursive: false },
        ];
        assert_eq!(parsed.propagation, wanted);
        assert!(parsed.parameters.is_empty());
    }

    #[test]
    fn everything_else_is_a_parameter_in_order() {
        let parsed = parse_words("mode=755,newinstance,size=64k,lowerdir=/a=b");
        let pairs: Vec<_> = parsed.parameters.iter().map(|p| (p.key.as_str(), p.value.as_deref())).collect();
        assert_eq!(
            pairs,
            [("mode", Some("755")), ("newinstance", None), ("size", Some("64k")), ("lowerdir", Some("/a=b"))]
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (index, option) in ["", "=x", "a\0b"].into_iter().enumerate() {
            let mut options = vec!["ro".to_owned(); index];
            options.push(option.to_owned());
            assert_eq!(parse(&options).unwrap_err().0, index, "{option:?}");
        }
        assert!(parse(&vec!["ro".to_owned(); OPTIONS + 1]).is_err());
        assert!(parse(&["x".repeat(OPTION_BYTES + 1)]).is_err());
    }

    /// A small generator of numbers (xorshift), so that every run tries the same inputs.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    #[test]
    fn random_options_never_set_and_clear_the_same_bit_outside_of_access_time() {
        const WORDS: [&str; 20] = [
            "ro",
            "rw",
            "rro",
            "rrw",
            "nosuid",
            "suid",
            "noatime",
            "relatime",
            "rnoatime",
            "bind",
            "rbind",
            "r",
            "rr",
            "shared",
            "=",
            "é=",
            "size=1",
            "rsize=1",
            "tmpcopyup",
            "",
        ];
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let options: Vec<String> = (0..numbers.below(6))
                .map(|_| format!("{}{}", WORDS[numbers.below(20)], WORDS[numbers.below(20)]))
                .collect();
            let Ok(parsed) = parse(&options) else { continue };
            for MountAttributes { set, clear } in [parsed.attributes, parsed.recursive_attributes] {
                assert_eq!(set & clear & !MOUNT_ATTR_ATIME, 0, "{options:?}");
            }
        }
    }
}
