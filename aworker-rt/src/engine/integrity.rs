//! Whether bytes are those that somebody has vouched for: integrity metadata (`sha384-...`), as in import maps. Pure.
//!
//! <https://www.w3.org/TR/sri-2/#the-integrity-attribute>, 3.3.2 to 3.3.4. `fetch` has the same in `74_fetch_checks.js`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// From the weakest to the strongest: of several, only the strongest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// The digests that bytes may have. None at all: any bytes will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Integrity {
    digests: Vec<(Algorithm, Vec<u8>)>,
}

impl Integrity {
    /// Reads metadata; the empty text asks for nothing.
    ///
    /// # Errors
    /// The text is not empty and has no digest that can be checked: the end of a sentence.
    pub(super) fn parse(text: &str) -> Result<Integrity, String> {
        let mut digests: Vec<_> = text.split_ascii_whitespace().filter_map(item).collect();
        if digests.is_empty() && !text.trim_ascii().is_empty() {
            return Err(format!("\"{text}\" has no digest: want sha256-, sha384- or sha512- and base64"));
        }
        let strongest = digests.iter().map(|(algorithm, _)| *algorithm).max();
        digests.retain(|(algorithm, _)| Some(*algorithm) == strongest);
        Ok(Integrity { digests })
    }

    /// Whether the bytes have one of the digests.
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        let Some((algorithm, _)) = self.digests.first() else { return true };
        let digest = match algorithm {
            Algorithm::Sha256 => Sha256::digest(bytes).to_vec(),
            Algorithm::Sha384 => Sha384::digest(bytes).to_vec(),
            Algorithm::Sha512 => Sha512::digest(bytes).to_vec(),
        };
        self.digests.iter().any(|(_, allowed)| *allowed == digest)
    }
}

/// One digest, with the options behind it left out; `None` if it is of another kind or no base64.
fn item(text: &str) -> Option<(Algorithm, Vec<u8>)> {
    let (name, value) = text.split_once('-')?;
    let (algorithm, bytes) = match name.to_ascii_lowercase().as_str() {
        "sha256" => (Algorithm::Sha256, 32),
        "sha384" => (Algorithm::Sha384, 48),
        "sha512" => (Algorithm::Sha512, 64),
        _ => return None,
    };
    let value = value.split('?').next()?.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let digest = STANDARD_NO_PAD.decode(value).ok()?;
    (digest.len() == bytes).then_some((algorithm, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf abc | openssl dgst -sha256 -binary | base64
    const ABC_256: &str = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    const ABC_384: &str = "sha384-ywB1P0WjXou1oD1pmsZQBycsMqsO3tFjGotgWkP/W+2AhgcroefMI1i67KE0yCWn";

    #[test]
    fn the_strongest_digest_counts() {
        let wrong_384 = format!("sha384-{}", "A".repeat(64));
        for (metadata, matches) in [
            (ABC_256.to_owned(), true),
            (ABC_384.to_owned(), true),
            (ABC_256.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned(), true),
            (format!("{ABC_384}?ct=text/javascript"), true),
            (format!("  md5-abc {ABC_256}\n"), true),
            (format!("{ABC_256} {wrong_384}"), false),
            (format!("{wrong_384} {ABC_384}"), true),
            (wrong_384, false),
            (String::new(), true),
        ] {
            let integrity = Integrity::parse(&metadata).expect("digests");
            assert_eq!(integrity.matches(b"abc"), matches, "{metadata}");
        }
        assert!(!Integrity::parse(ABC_256).expect("a digest").matches(b"abd"));
    }

    #[test]
    fn what_checks_nothing_is_refused() {
        for text in ["md5-kAFQmDzST7DWlj99KOF/cg==", "sha256", "sha256-abc", "nonsense", &ABC_384[..40]] {
            assert!(Integrity::parse(text).is_err(), "{text}");
        }
    }
}
