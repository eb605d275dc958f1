//! The file `schemata` of a class of service: one line for each resource, like `L3:0=f;1=ff0`.
//!
//! Pure, but for reading and writing the file itself. Documentation/filesystems/resctrl.rst, "Schemata files".

use std::collections::BTreeMap;
use std::path::Path;

use super::{read_file, write_file};
use crate::error::{Error, Result};

const RDT: &str = "config.json: $.linux.intelRdt";

/// The lines that a bundle asks for: those of the cache, that of the bandwidth, then those that are given as they are,
/// which so have the last word.
pub(super) fn lines(
    l3_cache: Option<&str>,
    memory_bandwidth: Option<&str>,
    others: &[String],
) -> Result<Vec<String>> {
    let mut all = Vec::new();
    // It may have several lines; those of the bandwidth do not belong here (config-linux.md).
    let cache = l3_cache.unwrap_or_default().lines().map(str::trim);
    all.extend(cache.filter(|line| !line.is_empty() && !line.starts_with("MB:")).map(str::to_owned));
    if let Some(line) = memory_bandwidth.filter(|line| !line.is_empty()) {
        if !line.starts_with("MB:") || line.contains('\n') {
            let reason = format!("{line:?} is not one line that begins with MB:");
            return Err(Error::invalid(format!("{RDT}.memBwSchema"), reason));
        }
        all.push(line.to_owned());
    }
    for (index, line) in others.iter().enumerate() {
        if line.contains('\n') || parse(line).is_none() {
            let reason = format!("{line:?} is not one line like L3:0=f");
            return Err(Error::invalid(format!("{RDT}.schemata[{index}]"), reason));
        }
        all.push(line.clone());
    }
    Ok(all)
}

/// Writes the lines, all at once; nothing if there are none.
pub(super) fn write(file: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    write_file(file, &text).map_err(|error| explain(error, file))
}

/// The kernel says in words what it did not like.
fn explain(error: Error, file: &Path) -> Error {
    let words = file.ancestors().nth(2).map(|mount| mount.join("info/last_cmd_status"));
    match words.and_then(|path| read_file(&path).ok()).map(|text| text.trim().to_owned()) {
        Some(words) if !words.is_empty() && words != "ok" => {
            Error::invalid(RDT, format!("is refused by the kernel: {words} ({error})"))
        }
        Some(_) | None => error,
    }
}

/// Whether the file says what the lines say; of what they do not name it may say anything.
pub(super) fn compare(file: &Path, lines: &[String]) -> Result<()> {
    let text = read_file(file)?;
    let there: Vec<_> = text.lines().filter_map(parse).collect();
    for line in lines {
        let holds = parse(line).is_some_and(|(resource, wanted)| {
            let known = there.iter().find(|(name, _)| *name == resource);
            known.is_some_and(|(_, domains)| wanted.iter().all(|(id, share)| domains.get(id) == Some(share)))
        });
        if !holds {
            let reason = format!("asks for {line:?}, but {} says {:?}", file.display(), text.trim());
            return Err(Error::invalid(RDT, reason));
        }
    }
    Ok(())
}

/// The resource of a line, and the share of each domain; without leading zeros, which the kernel writes and accepts.
fn parse(line: &str) -> Option<(&str, BTreeMap<u32, String>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let share = |domain: &str| {
        let (id, share) = domain.split_once('=')?;
        let share = share.trim().to_ascii_lowercase();
        let significant = share.trim_start_matches('0');
        let share = if significant.is_empty() && !share.is_empty() { "0" } else { significant };
        Some((id.trim().parse().ok()?, share.to_owned()))
    };
    let domains: Option<BTreeMap<u32, String>> =
        domains.split(';').filter(|domain| !domain.trim().is_empty()).map(share).collect();
    domains.filter(|domains| !resource.is_empty() && !domains.is_empty()).map(|domains| (resource, domains))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_three_members() {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(None, None, &[]).unwrap(), own(&[]));
        assert_eq!(lines(Some(""), Some(""), &[]).unwrap(), own(&[]));
        let cache = "L3:0=f;1=f0\nMB:0=10\n L2:0=3";
        assert_eq!(
            lines(Some(cache), Some("MB:0=20"), &own(&["L3:0=1"])).unwrap(),
            own(&["L3:0=f;1=f0", "L2:0=3", "MB:0=20", "L3:0=1"])
        );
        for (bandwidth, others, member) in [
            (Some("L3:0=f"), &[][..], "memBwSchema"),
            (Some("MB:0=1\nL3:0=f"), &[], "memBwSchema"),
            (None, &["L3:0=f\nMB:0=1"][..], "schemata[0]"),
            (None, &["L3:0=f", "nonsense"], "schemata[1]"),
            (None, &["L3:"], "schemata[0]"),
            (None, &[":0=f"], "schemata[0]"),
            (None, &["L3:x=f"], "schemata[0]"),
        ] {
            let error = lines(None, bandwidth, &own(others)).unwrap_err().to_string();
            assert!(error.contains(member), "{error}");
        }
    }

    #[test]
    fn shares_are_compared_as_numbers() {
        let parsed = |line| parse(line).unwrap();
        assert_eq!(parsed("    L3:0=00f;1=FF0"), parsed("L3:1=ff0;0=f"));
        assert_eq!(parsed("MB:0= 50;1=100;"), parsed("MB:0=50;1=100"));
        assert_eq!(parsed("L3:0=000"), parsed("L3:0=0"));
        assert_ne!(parsed("L3:0=f0"), parsed("L3:0=f"));
        assert_ne!(parsed("L3:0=f"), parsed("L2:0=f"));
    }

    #[test]
    fn no_line_panics() {
        let mut state = 7u64;
        let pieces = ["L3", ":", "0", "=", ";", "f", " ", "MB", "é", "\0", "\n", "99999999999"];
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            if let Ok(lines) = lines(Some(&text), None, std::slice::from_ref(&text)) {
                assert!(lines.iter().all(|line| !line.contains('\n')), "{text:?}");
            }
        }
    }
}
