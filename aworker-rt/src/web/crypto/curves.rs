//! The operations on keys of elliptic curves, for `nist.rs` and `edwards.rs`.

use super::edwards::{self, Edwards};
use super::hash::Hash;
use super::nist::Nist;
use super::values::{Input, give, name};

/// A curve by the name that WebCrypto gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    Nist(Nist),
    Edwards(Edwards),
}

impl Curve {
    pub(super) fn of(name: &str) -> Option<Curve> {
        Some(match name {
            "P-256" => Curve::Nist(Nist::P256),
            "P-384" => Curve::Nist(Nist::P384),
            "P-521" => Curve::Nist(Nist::P521),
            "Ed25519" => Curve::Edwards(Edwards::Ed25519),
            "X25519" => Curve::Edwards(Edwards::X25519),
            _ => return None,
        })
    }

    fn argument(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<Curve> {
        Curve::of(&name(scope, value))
    }

    /// The key that data of a format hold. `raw` and `scalar` are bare keys.
    pub(super) fn import(self, format: &str, data: &[u8]) -> Option<Vec<u8>> {
        match (self, format) {
            (Curve::Nist(curve), "raw") => curve.point(data),
            (Curve::Nist(curve), "scalar") => curve.private(data),
            (Curve::Nist(curve), "spki") => curve.read_spki(data),
            (Curve::Nist(curve), "pkcs8") => curve.read_pkcs8(data),
            (Curve::Edwards(curve), "raw") => curve.public(data),
            (Curve::Edwards(curve), "scalar") => curve.private(data),
            (Curve::Edwards(curve), "spki") => curve.read_spki(data),
            (Curve::Edwards(curve), "pkcs8") => curve.read_pkcs8(data),
            _ => None,
        }
    }

    /// A key in a format; `raw` is the public half of a private key, `scalar` the secret half.
    pub(super) fn export(self, format: &str, key: &[u8]) -> Option<Vec<u8>> {
        let halves = || match self {
            Curve::Nist(curve) => curve.split(key),
            Curve::Edwards(_) => Edwards::split(key),
        };
        match (self, format) {
            (_, "raw") => halves().map(|(_, public)| public.to_vec()),
            (_, "scalar") => halves().map(|(secret, _)| secret.to_vec()),
            (Curve::Nist(curve), "spki") => curve.to_spki(key),
            (Curve::Nist(curve), "pkcs8") => curve.to_pkcs8(key),
            (Curve::Edwards(curve), "spki") => curve.to_spki(key),
            (Curve::Edwards(curve), "pkcs8") => curve.to_pkcs8(key),
            _ => None,
        }
    }
}

/// `ops.crypto_curve_generate(curve)`: a private key.
pub(crate) fn crypto_curve_generate(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let key = Curve::argument(scope, arguments.get(0)).and_then(|curve| match curve {
        Curve::Nist(curve) => curve.generate(),
        Curve::Edwards(curve) => curve.generate(),
    });
    give(scope, &mut result, key);
}

/// `ops.crypto_curve_import(curve, format, data)`: a key, or undefined.
pub(crate) fn crypto_curve_import(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(curve) = Curve::argument(scope, arguments.get(0)) else { return };
    let format = name(scope, arguments.get(1));
    let key = curve.import(&format, Input::new(arguments.get(2)).bytes());
    give(scope, &mut result, key);
}

/// `ops.crypto_curve_export(curve, format, key)`.
pub(crate) fn crypto_curve_export(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(curve) = Curve::argument(scope, arguments.get(0)) else { return };
    let format = name(scope, arguments.get(1));
    let output = curve.export(&format, Input::new(arguments.get(2)).bytes());
    give(scope, &mut result, output);
}

/// `ops.crypto_curve_sign(curve, hash, private, data)`: Ed25519 has no hash.
pub(crate) fn crypto_curve_sign(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let hash = Hash::argument(scope, arguments.get(1));
    let curve = Curve::argument(scope, arguments.get(0));
    let (mut key, mut data) = (Input::new(arguments.get(2)), Input::new(arguments.get(3)));
    let signature = match (curve, hash) {
        (Some(Curve::Nist(curve)), Some(hash)) => curve.sign(key.bytes(), hash, data.bytes()),
        (Some(Curve::Edwards(Edwards::Ed25519)), _) => edwards::sign(key.bytes(), data.bytes()),
        _ => None,
    };
    give(scope, &mut result, signature);
}

/// `ops.crypto_curve_verify(curve, hash, public, data, signature)`.
pub(crate) fn crypto_curve_verify(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let hash = Hash::argument(scope, arguments.get(1));
    let curve = Curve::argument(scope, arguments.get(0));
    let [mut key, mut data, mut signature] = [2, 3, 4].map(|index| Input::new(arguments.get(index)));
    let holds = match (curve, hash) {
        (Some(Curve::Nist(curve)), Some(hash)) => {
            curve.verify(key.bytes(), hash, data.bytes(), signature.bytes())
        }
        (Some(Curve::Edwards(Edwards::Ed25519)), _) => {
            edwards::verify(key.bytes(), data.bytes(), signature.bytes())
        }
        _ => None,
    };
    result.set_bool(holds.is_some());
}

/// `ops.crypto_curve_derive(curve, private, public)`: the shared secret, or undefined.
pub(crate) fn crypto_curve_derive(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let curve = Curve::argument(scope, arguments.get(0));
    let (mut private, mut public) = (Input::new(arguments.get(1)), Input::new(arguments.get(2)));
    let secret = match curve {
        Some(Curve::Nist(curve)) => curve.derive(private.bytes(), public.bytes()),
        Some(Curve::Edwards(Edwards::X25519)) => edwards::derive(private.bytes(), public.bytes()),
        _ => None,
    };
    give(scope, &mut result, secret);
}

#[cfg(test)]
mod tests {
    use super::{Curve, Edwards, Nist};
    use crate::web::crypto::rsa::{read_pkcs8, read_spki};

    const NAMES: [&str; 5] = ["P-256", "P-384", "P-521", "Ed25519", "X25519"];

    /// A new key in each format, with its curve.
    fn exported() -> Vec<(Curve, &'static str, Vec<u8>)> {
        let mut list = Vec::new();
        for name in NAMES {
            let curve = Curve::of(name).expect("a curve");
            let private = match curve {
                Curve::Nist(curve) => curve.generate(),
                Curve::Edwards(curve) => curve.generate(),
            }
            .expect("a key");
            let public = curve.export("raw", &private).expect("its public half");
            for (format, key) in
                [("raw", &private), ("scalar", &private), ("pkcs8", &private), ("spki", &public)]
            {
                list.push((curve, format, curve.export(format, key).expect("an export")));
            }
        }
        list
    }

    #[test]
    fn a_scalar_of_zero_or_beyond_the_order_is_no_key() {
        for (curve, length) in [(Nist::P256, 32), (Nist::P384, 48), (Nist::P521, 66)] {
            assert_eq!(curve.private(&vec![0; length]), None);
            assert_eq!(curve.private(&vec![0xff; length]), None);
            assert_eq!(curve.private(&vec![1; length - 1]), None);
        }
        assert_eq!(Edwards::Ed25519.private(&[1; 31]), None);
    }

    #[test]
    fn random_changes_never_panic_and_what_is_read_is_written_alike() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).expect("31 bits") % bound
        };
        let (mut read, mut refused) = (0, 0);
        for (curve, format, original) in exported() {
            for _ in 0..400 {
                let mut bytes = original.clone();
                for _ in 0..next(3) {
                    let at = next(bytes.len());
                    bytes[at] ^= 1 << next(8);
                }
                if next(4) == 0 {
                    bytes.truncate(next(bytes.len()));
                }
                // Whatever another reader makes of it, it must come back.
                assert!(read_spki(&bytes).is_none() && read_pkcs8(&bytes).is_none());
                let Some(key) = curve.import(format, &bytes) else {
                    refused += 1;
                    continue;
                };
                read += 1;
                let again =
                    curve.export(if format == "raw" { "spki" } else { format }, &key).expect("an export");
                let format = if format == "raw" { "spki" } else { format };
                assert_eq!(curve.import(format, &again), Some(key), "{curve:?} {format}");
            }
        }
        assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    }
}
