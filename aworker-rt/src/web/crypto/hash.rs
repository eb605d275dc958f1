//! SHA-1 and SHA-2, HMAC, HKDF (RFC 5869), PBKDF2 (RFC 8018).
//! <https://w3c.github.io/webcrypto/#sha>

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;
use zeroize::Zeroizing;

use super::values::{Input, give, name, number};

/// The hash functions of WebCrypto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// Evaluates an expression with a type that implements the hash function.
macro_rules! with_hash {
    ($hash:expr, $D:ident => $body:expr) => {
        match $hash {
            $crate::web::crypto::hash::Hash::Sha1 => {
                type $D = sha1::Sha1;
                $body
            }
            $crate::web::crypto::hash::Hash::Sha256 => {
                type $D = sha2::Sha256;
                $body
            }
            $crate::web::crypto::hash::Hash::Sha384 => {
                type $D = sha2::Sha384;
                $body
            }
            $crate::web::crypto::hash::Hash::Sha512 => {
                type $D = sha2::Sha512;
                $body
            }
        }
    };
}
pub(super) use with_hash;

impl Hash {
    /// The hash function of a normalised algorithm's name.
    pub(super) fn of(name: &str) -> Option<Hash> {
        Some(match name {
            "SHA-1" => Hash::Sha1,
            "SHA-256" => Hash::Sha256,
            "SHA-384" => Hash::Sha384,
            "SHA-512" => Hash::Sha512,
            _ => return None,
        })
    }

    /// The hash function that an argument names.
    pub(super) fn argument(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<Hash> {
        Hash::of(&name(scope, value))
    }

    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        with_hash!(self, D => D::digest(data).to_vec())
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        with_hash!(self, D => {
            let mut mac = Hmac::<D>::new_from_slice(key).expect("a key of any length");
            mac.update(data);
            mac.finalize().into_bytes().to_vec()
        })
    }
}

/// HKDF's output; `None` if more than 255 hashes are asked for.
fn hkdf(hash: Hash, key: &[u8], salt: &[u8], info: &[u8], length: usize) -> Option<Vec<u8>> {
    with_hash!(hash, D => {
        if length > 255 * D::output_size() {
            return None;
        }
        let mut output = vec![0; length];
        Hkdf::<D>::new(Some(salt), key).expand(info, &mut output).ok()?;
        Some(output)
    })
}

/// `ops.crypto_digest(hash, data)`.
pub(crate) fn crypto_digest(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let digest = hash.digest(Input::new(arguments.get(1)).bytes());
    give(scope, &mut result, digest);
}

/// `ops.crypto_hmac(hash, key, data)`: the code.
pub(crate) fn crypto_hmac(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let code = hash.hmac(Input::new(arguments.get(1)).bytes(), Input::new(arguments.get(2)).bytes());
    give(scope, &mut result, code);
}

/// `ops.crypto_hkdf(hash, key, salt, info, length)`: `length` bytes, or undefined
/// if that is too many.
pub(crate) fn crypto_hkdf(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let length = number(scope, arguments.get(4));
    let [mut key, mut salt, mut info] = [1, 2, 3].map(|index| Input::new(arguments.get(index)));
    let output = hkdf(hash, key.bytes(), salt.bytes(), info.bytes(), length);
    give(scope, &mut result, output);
}

/// `ops.crypto_pbkdf2(hash, password, salt, iterations, length)`: `length` bytes.
/// Runs to its end on the one thread.
pub(crate) fn crypto_pbkdf2(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let iterations = arguments.get(3).uint32_value(scope).unwrap_or(0);
    let mut output = Zeroizing::new(vec![0; number(scope, arguments.get(4))]);
    let [mut password, mut salt] = [1, 2].map(|index| Input::new(arguments.get(index)));
    with_hash!(hash, D => pbkdf2::pbkdf2_hmac::<D>(password.bytes(), salt.bytes(), iterations, &mut output));
    give(scope, &mut result, std::mem::take(&mut *output));
}

#[cfg(test)]
mod tests {
    use super::{Hash, hkdf};

    #[test]
    fn hkdf_gives_at_most_255_hashes() {
        assert_eq!(hkdf(Hash::Sha256, b"k", b"", b"", 255 * 32).map(|output| output.len()), Some(8160));
        assert_eq!(hkdf(Hash::Sha256, b"k", b"", b"", 255 * 32 + 1), None);
        assert_eq!(hkdf(Hash::Sha1, b"k", b"", b"", 0), Some(vec![]));
    }
}
