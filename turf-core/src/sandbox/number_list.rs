//! Lists of CPUs and memory nodes as cpuset(7) writes them (`0-3,7`), as bit masks. Pure.

/// The highest number in a list: the kernel's largest configurations have 8192 CPUs and 1024 nodes.
pub const HIGHEST: u32 = 8191;

/// The mask of a list: number N is bit N % 64 of word N / 64. An empty list is an empty mask. The error says what is
/// wrong with the list.
pub fn mask(list: &str) -> Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number = |text: &str| {
            let number = text.trim().parse::<u32>().ok().filter(|number| *number <= HIGHEST);
            number.ok_or_else(|| format!("{text:?} must be a number of at most {HIGHEST}"))
        };
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("{part:?} goes backwards"));
        }
        for number in first..=last {
            let word = number as usize / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (list, words) in [
            ("", &[][..]),
            ("0", &[1]),
            ("0-3,7", &[0x8f]),
            (" 1 , 3 - 4 ,", &[0x1a]),
            ("63-64", &[1 << 63, 1]),
            ("8191,0", &[1]),
        ] {
            let mask = mask(list).unwrap();
            assert_eq!(&mask[..words.len()], words, "{list:?}");
        }
        assert_eq!(mask("8191").unwrap().len(), 128);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in ["a", "-", "1-", "-1", "3-1", "8192", "0-8192", "1--2", "1 2", "99999999999"] {
            assert!(mask(list).is_err(), "{list:?}");
        }
    }
}
