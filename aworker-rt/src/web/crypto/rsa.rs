//! RSA: keys in and out, RSASSA-PKCS1-v1_5, RSA-PSS, RSA-OAEP (RFC 8017).
//!
//! JavaScript keeps a key as the DER of PKCS #1. A private key is read from it, and
//! checked, for every operation: that is a twentieth of what a signature costs, and
//! no key stays in native memory.

use rsa::pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey};
use rsa::pkcs8::der::asn1::{AnyRef, BitStringRef, OctetStringRef};
use rsa::pkcs8::der::{Decode, Encode};
use rsa::pkcs8::{PrivateKeyInfoRef, SubjectPublicKeyInfoRef};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BoxedUint, Oaep, Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey};

use super::hash::{Hash, with_hash};
use super::values::{Input, give, give_list, name, number};

/// Longest modulus in bits: one private operation takes about two seconds.
pub(super) const MAX_MODULUS_BITS: usize = 16_384;
/// Shortest modulus in bits that is accepted from outside.
const MIN_MODULUS_BITS: usize = 512;
/// Longest modulus in bits that is made: finding primes takes seconds on the one thread.
const MAX_GENERATED_BITS: usize = 8192;
/// Shortest modulus in bits that is made.
const MIN_GENERATED_BITS: usize = 1024;
/// Longest public exponent in bits: that of the crate.
const MAX_EXPONENT_BITS: u32 = 33;

/// A number of at most [`MAX_MODULUS_BITS`] bits.
fn integer(bytes: &[u8]) -> Option<BoxedUint> {
    let start = bytes.iter().position(|byte| *byte != 0)?;
    let bytes = &bytes[start..];
    if bytes.len() > MAX_MODULUS_BITS / 8 {
        return None;
    }
    BoxedUint::from_be_slice(bytes, u32::try_from(bytes.len() * 8).ok()?).ok()
}

/// A public key whose numbers can be a key's.
fn public_from(modulus: &[u8], exponent: &[u8]) -> Option<RsaPublicKey> {
    let (n, e) = (integer(modulus)?, integer(exponent)?);
    RsaPublicKey::new_with_size_limits(n, e, MIN_MODULUS_BITS..=MAX_MODULUS_BITS).ok()
}

/// The public key of a DER of PKCS #1.
fn public_key(der: &[u8]) -> Option<RsaPublicKey> {
    let key = rsa::pkcs1::RsaPublicKeyRef::from_der(der).ok()?;
    public_from(key.modulus.as_bytes(), key.public_exponent.as_bytes())
}

/// The private key of a DER of PKCS #1; its numbers must belong together.
fn private_key(der: &[u8]) -> Option<RsaPrivateKey> {
    let key = rsa::pkcs1::RsaPrivateKeyRef::from_der(der).ok()?;
    let [n, e, d] = [key.modulus, key.public_exponent, key.private_exponent].map(|part| part.as_bytes());
    private_from(n, e, d, &[key.prime1.as_bytes(), key.prime2.as_bytes()])
}

/// Without primes, they are found from the exponents.
fn private_from(n: &[u8], e: &[u8], d: &[u8], primes: &[&[u8]]) -> Option<RsaPrivateKey> {
    // The crate's own limits come later than its arithmetic: look at the sizes first.
    public_from(n, e)?;
    let length = integer(n)?.bits();
    let primes = primes.iter().map(|prime| integer(prime)).collect::<Option<Vec<_>>>()?;
    let (n, e, d) = (integer(n)?, integer(e)?, integer(d)?);
    if d.bits() > length || primes.iter().any(|prime| prime.bits() > length) {
        return None;
    }
    // The crate accepts keys that it cannot prepare for the Chinese remainder theorem.
    let key = RsaPrivateKey::from_components(n, e, d, primes).ok()?;
    (key.primes().len() == 2 && key.qinv().is_some()).then_some(key)
}

/// What JavaScript needs to know: the DER, then modulus and public exponent.
fn described(der: Vec<u8>, key: &impl PublicKeyParts) -> Vec<Vec<u8>> {
    vec![der, key.n_bytes().into_vec(), key.e_bytes().into_vec()]
}

fn describe_public(key: &RsaPublicKey) -> Option<Vec<Vec<u8>>> {
    Some(described(key.to_pkcs1_der().ok()?.into_vec(), key))
}

fn describe_private(key: &RsaPrivateKey) -> Option<Vec<Vec<u8>>> {
    Some(described(key.to_pkcs1_der().ok()?.as_bytes().to_vec(), key))
}

/// The key in a SubjectPublicKeyInfo. Keys that are restricted to PSS or OAEP by
/// their identifier are refused, as the standard says.
pub(super) fn read_spki(data: &[u8]) -> Option<RsaPublicKey> {
    let info = SubjectPublicKeyInfoRef::from_der(data).ok()?;
    is_rsa(info.algorithm.oid, info.algorithm.parameters)?;
    public_key(info.subject_public_key.as_bytes()?)
}

/// The key in a PrivateKeyInfo.
pub(super) fn read_pkcs8(data: &[u8]) -> Option<RsaPrivateKey> {
    let info = PrivateKeyInfoRef::from_der(data).ok()?;
    is_rsa(info.algorithm.oid, info.algorithm.parameters)?;
    private_key(info.private_key.as_bytes())
}

fn is_rsa(oid: rsa::pkcs8::ObjectIdentifier, parameters: Option<AnyRef>) -> Option<()> {
    let plain = parameters.is_none_or(AnyRef::is_null);
    (oid == rsa::pkcs1::ALGORITHM_OID && plain).then_some(())
}

/// For `crate::fuzz`: keys that are read are written, and read again as the same keys.
#[cfg(any(test, fuzzing))]
pub(super) fn check_hostile(format: &str, encoding: &[u8]) {
    let key = match format {
        "spki" => read_spki(encoding).as_ref().and_then(describe_public),
        "pkcs8" => read_pkcs8(encoding).as_ref().and_then(describe_private),
        "raw" => public_key(encoding).as_ref().and_then(describe_public),
        _ => private_key(encoding).as_ref().and_then(describe_private),
    };
    let Some(key) = key else { return };
    let again = match format {
        "spki" | "raw" => public_key(&key[0]).as_ref().and_then(describe_public),
        _ => private_key(&key[0]).as_ref().and_then(describe_private),
    };
    assert_eq!(again, Some(key));
}

/// `ops.crypto_rsa_generate(bits, exponent)`: private and public DER, or undefined.
pub(crate) fn crypto_rsa_generate(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let bits = number(scope, arguments.get(0));
    let keys = generate(bits, Input::new(arguments.get(1)).bytes());
    give_list(scope, &mut result, keys);
}

fn generate(bits: usize, exponent: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_odd = exponent.last()? % 2 == 1;
    let exponent = integer(exponent)?;
    let is_fit = is_odd && exponent.bits() <= MAX_EXPONENT_BITS && exponent > BoxedUint::one();
    if !is_fit || !(MIN_GENERATED_BITS..=MAX_GENERATED_BITS).contains(&bits) || !bits.is_multiple_of(8) {
        return None;
    }
    let key = RsaPrivateKey::new_with_exp(&mut super::random()?, bits, exponent).ok()?;
    let public = key.as_public_key().to_pkcs1_der().ok()?.into_vec();
    Some(vec![key.to_pkcs1_der().ok()?.as_bytes().to_vec(), public])
}

/// `ops.crypto_rsa_import(format, data)`: `[DER, modulus, exponent]`, or undefined.
pub(crate) fn crypto_rsa_import(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let format = name(scope, arguments.get(0));
    let mut data = Input::new(arguments.get(1));
    let key = match format.as_str() {
        "spki" => read_spki(data.bytes()).as_ref().and_then(describe_public),
        _ => read_pkcs8(data.bytes()).as_ref().and_then(describe_private),
    };
    give_list(scope, &mut result, key);
}

/// `ops.crypto_rsa_import_parts(n, e, d?, p?, q?, dp?, dq?, qi?)`: `[DER, modulus,
/// exponent]` of a private key if there is `d`, else of a public one.
pub(crate) fn crypto_rsa_import_parts(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut inputs = [0, 1, 2, 3, 4, 5, 6, 7].map(|index| Input::new(arguments.get(index)));
    let is_private = arguments.get(2).is_array_buffer_view();
    let has_primes = arguments.get(3).is_array_buffer_view();
    let [n, e, d, p, q, exponents @ ..] = inputs.each_mut().map(|input| input.bytes());
    let key = match (is_private, has_primes) {
        (false, _) => public_from(n, e).as_ref().and_then(describe_public),
        (true, false) => private_from(n, e, d, &[]).as_ref().and_then(describe_private),
        (true, true) => private_from(n, e, d, &[p, q])
            .filter(|key| agrees(key, exponents))
            .as_ref()
            .and_then(describe_private),
    };
    give_list(scope, &mut result, key);
}

/// Whether the numbers that can be computed from the others are what was given.
fn agrees(key: &RsaPrivateKey, [dp, dq, qi]: [&[u8]; 3]) -> bool {
    let computed = [key.dp().cloned(), key.dq().cloned(), key.crt_coefficient()];
    computed.iter().zip([dp, dq, qi]).all(|(computed, given)| {
        computed.as_ref().is_some_and(|computed| {
            let given = &given[given.iter().position(|byte| *byte != 0).unwrap_or(given.len())..];
            *computed.to_be_bytes_trimmed_vartime() == *given
        })
    })
}

/// `ops.crypto_rsa_parts(is_private, der)`: `[n, e]` or `[n, e, d, p, q, dp, dq, qi]`.
pub(crate) fn crypto_rsa_parts(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut der = Input::new(arguments.get(1));
    let parts = if arguments.get(0).is_true() {
        rsa::pkcs1::RsaPrivateKeyRef::from_der(der.bytes()).ok().map(|key| {
            let [n, e, d] = [key.modulus, key.public_exponent, key.private_exponent];
            let parts = [n, e, d, key.prime1, key.prime2, key.exponent1, key.exponent2, key.coefficient];
            parts.iter().map(|part| part.as_bytes().to_vec()).collect()
        })
    } else {
        rsa::pkcs1::RsaPublicKeyRef::from_der(der.bytes())
            .ok()
            .map(|key| vec![key.modulus.as_bytes().to_vec(), key.public_exponent.as_bytes().to_vec()])
    };
    give_list(scope, &mut result, parts);
}

/// `ops.crypto_rsa_export(is_private, der)`: PrivateKeyInfo or SubjectPublicKeyInfo.
pub(crate) fn crypto_rsa_export(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut der = Input::new(arguments.get(1));
    let output = if arguments.get(0).is_true() {
        OctetStringRef::new(der.bytes())
            .ok()
            .and_then(|key| PrivateKeyInfoRef::new(rsa::pkcs1::ALGORITHM_ID, key).to_der().ok())
    } else {
        BitStringRef::from_bytes(der.bytes()).ok().and_then(|key| {
            SubjectPublicKeyInfoRef { algorithm: rsa::pkcs1::ALGORITHM_ID, subject_public_key: key }
                .to_der()
                .ok()
        })
    };
    give(scope, &mut result, output);
}

/// A signature; `salt_length` is RSA-PSS's, without it the scheme is PKCS #1 v1.5.
fn sign(key: &RsaPrivateKey, hash: Hash, salt_length: Option<usize>, data: &[u8]) -> Option<Vec<u8>> {
    let digest = hash.digest(data);
    let mut random = super::random()?;
    with_hash!(hash, D => match salt_length {
        Some(length) if length > key.size() => None,
        Some(length) => key.sign_with_rng(&mut random, Pss::<D>::new_with_salt(length), &digest).ok(),
        None => key.sign_with_rng(&mut random, Pkcs1v15Sign::new::<D>(), &digest).ok(),
    })
}

fn verify(key: &RsaPublicKey, hash: Hash, salt_length: Option<usize>, data: &[u8], signature: &[u8]) -> bool {
    let digest = hash.digest(data);
    with_hash!(hash, D => match salt_length {
        Some(length) if length > key.size() => false,
        Some(length) => key.verify(Pss::<D>::new_with_salt(length), &digest, signature).is_ok(),
        None => key.verify(Pkcs1v15Sign::new::<D>(), &digest, signature).is_ok(),
    })
}

/// The salt's length, if the argument is a number.
fn salt_length(scope: &v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<usize> {
    value.is_number().then(|| number(scope, value))
}

/// `ops.crypto_rsa_sign(hash, salt_length?, der, data)`.
pub(crate) fn crypto_rsa_sign(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let salt_length = salt_length(scope, arguments.get(1));
    let (mut der, mut data) = (Input::new(arguments.get(2)), Input::new(arguments.get(3)));
    let signature = private_key(der.bytes()).and_then(|key| sign(&key, hash, salt_length, data.bytes()));
    give(scope, &mut result, signature);
}

/// `ops.crypto_rsa_verify(hash, salt_length?, der, data, signature)`.
pub(crate) fn crypto_rsa_verify(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(0)) else { return };
    let salt_length = salt_length(scope, arguments.get(1));
    let [mut der, mut data, mut signature] = [2, 3, 4].map(|index| Input::new(arguments.get(index)));
    let holds = public_key(der.bytes())
        .is_some_and(|key| verify(&key, hash, salt_length, data.bytes(), signature.bytes()));
    result.set_bool(holds);
}

/// `ops.crypto_rsa_oaep(encrypt, hash, label, der, data)`.
pub(crate) fn crypto_rsa_oaep(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(hash) = Hash::argument(scope, arguments.get(1)) else { return };
    let [mut label, mut der, mut data] = [2, 3, 4].map(|index| Input::new(arguments.get(index)));
    let Some(mut random) = super::random() else { return };
    let output = with_hash!(hash, D => {
        let padding = Oaep::<D>::new_with_label(label.bytes());
        if arguments.get(0).is_true() {
            public_key(der.bytes()).and_then(|key| key.encrypt(&mut random, padding, data.bytes()).ok())
        } else {
            private_key(der.bytes())
                .and_then(|key| key.decrypt_blinded(&mut random, padding, data.bytes()).ok())
        }
    });
    give(scope, &mut result, output);
}

#[cfg(test)]
mod tests {
    use rsa::pkcs8::der::Decode;

    use super::{MIN_GENERATED_BITS, generate, private_from, private_key, public_key, read_pkcs8, read_spki};

    #[test]
    fn sizes_and_exponents_out_of_range_are_not_generated() {
        for (bits, exponent) in [
            (0, &[1, 0, 1][..]),
            (MIN_GENERATED_BITS - 8, &[1, 0, 1]),
            (1025, &[1, 0, 1]),
            (8200, &[1, 0, 1]),
            (1024, &[]),
            (1024, &[0]),
            (1024, &[1]),
            (1024, &[2]),
            (1024, &[1, 0]),
            (1024, &[3; 5]),
        ] {
            assert_eq!(generate(bits, exponent), None, "{bits} {exponent:?}");
        }
    }

    #[test]
    fn hostile_numbers_are_no_key_and_never_panic() {
        let keys = generate(1024, &[1, 0, 1]).expect("a key");
        let key = rsa::pkcs1::RsaPrivateKeyRef::from_der(&keys[0]).expect("the key's numbers");
        let parts = [key.modulus, key.public_exponent, key.private_exponent, key.prime1, key.prime2];
        let parts = parts.map(|part| part.as_bytes());
        let [n, e, d, p, q] = parts;
        assert!(private_from(n, e, d, &[p, q]).is_some() && private_from(n, e, d, &[]).is_some());
        let even = [&n[..n.len() - 1], &[n[n.len() - 1] ^ 1]].concat();
        let huge = vec![0xff; 2049];
        let values: [&[u8]; 11] =
            [&[], &[0], &[1], &[2], &[3], &[0xff; 64], &[0xff; 129], &even, &huge, n, d];
        for index in 0..parts.len() {
            for value in values.into_iter().filter(|value| *value != parts[index]) {
                let mut changed = parts;
                changed[index] = value;
                let [n, e, d, p, q] = changed;
                assert!(private_from(n, e, d, &[p, q]).is_none(), "{index} {value:x?}");
                if index < 3 {
                    assert!(private_from(n, e, d, &[]).is_none(), "{index} {value:x?} without primes");
                }
            }
        }
        for primes in [[p, p], [q, q], [&[1], n], [n, &[1]]] {
            assert!(private_from(n, e, d, &primes).is_none());
        }
    }

    #[test]
    fn random_changes_of_keys_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).expect("31 bits") % bound
        };
        let keys = generate(1024, &[1, 0, 1]).expect("a key");
        let mut read = 0;
        for round in 0..600 {
            let mut bytes = keys[round % 2].clone();
            let changes = next(4);
            for _ in 0..changes {
                let at = next(bytes.len());
                bytes[at] = u8::try_from(next(256)).expect("a byte");
            }
            let is_read = private_key(&bytes).is_some() || public_key(&bytes).is_some();
            assert!(is_read || changes > 0);
            read += usize::from(is_read);
        }
        assert!(read >= 100, "{read} of 600 were read");
    }

    #[test]
    fn a_generated_key_is_read_again_and_no_part_of_it_is() {
        let keys = generate(1024, &[0, 3]).expect("a key");
        assert!(private_key(&keys[0]).is_some() && public_key(&keys[1]).is_some());
        assert!(private_key(&keys[1]).is_none() && public_key(&keys[0]).is_none());
        for length in 0..keys[1].len() {
            assert!(public_key(&keys[1][..length]).is_none(), "{length}");
            assert!(read_spki(&keys[1][..length]).is_none() && read_pkcs8(&keys[1][..length]).is_none());
        }
    }
}
