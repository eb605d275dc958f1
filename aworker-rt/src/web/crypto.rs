//! `crypto`: random bytes here, the primitives of `crypto.subtle` in the files below
//! this one. Every random number is asked of the kernel, getrandom(2): nothing is
//! kept, so that no two forks can ever share a generator. Why these crates:
//! `docs/decisions/0004-webcrypto-by-rustcrypto.md`.

pub(crate) mod aes;
pub(crate) mod curves;
mod edwards;
pub(crate) mod hash;
mod nist;
pub(crate) mod rsa;
pub(crate) mod values;

use ::rsa::rand_core::UnwrapErr;
use getrandom::SysRng;

use super::bytes;
use crate::engine::conversions;

/// The kernel's generator, for crates that cannot be told of a failure; `None` if the
/// kernel gives nothing, which a seccomp filter can cause.
fn random() -> Option<UnwrapErr<SysRng>> {
    getrandom::fill(&mut [0; 1]).ok()?;
    Some(UnwrapErr(SysRng))
}

/// For `crate::fuzz`: whatever is read as a key is written, and read again as the same key.
/// The kind's last three bits are the kind of key, the next two the format.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_hostile_key(kind: u8, encoding: &[u8]) {
    let format = ["spki", "pkcs8", "raw", "scalar"][usize::from(kind >> 3 & 3)];
    let name = match kind & 7 {
        0 => "P-256",
        1 => "P-384",
        2 => "P-521",
        3 => "Ed25519",
        4 => "X25519",
        _ => return rsa::check_hostile(format, encoding),
    };
    let curve = curves::Curve::of(name).expect("a curve");
    let Some(key) = curve.import(format, encoding) else { return };
    let written = match format {
        "raw" | "spki" => "spki",
        _ => "pkcs8",
    };
    let again = curve.export(written, &key).expect("a key is written");
    assert_eq!(curve.import(written, &again), Some(key));
}

/// `ops.random_fill(view)`: fills a view of at most 64 KiB (JavaScript checks).
pub(crate) fn random_fill(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Ok(view) = arguments.get(0).try_cast::<v8::ArrayBufferView>() else {
        return conversions::throw_type_error(scope, "random_fill: the argument is not a view");
    };
    let mut random = vec![0; view.byte_length()];
    match getrandom::fill(&mut random) {
        Ok(()) => {
            bytes::write(scope, view.into(), &random);
        }
        Err(error) => conversions::throw_error(scope, &format!("getrandom: {error}")),
    }
}

/// `ops.random_uuid()`: a random UUID, RFC 9562 version 4.
pub(crate) fn random_uuid(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return conversions::throw_error(scope, &format!("getrandom: {error}"));
    }
    let text = uuid(random);
    if let Some(text) = v8::String::new_from_one_byte(scope, &text, v8::NewStringType::Normal) {
        result.set(text.into());
    }
}

/// Lower-case text of a version 4 UUID with these random bits.
fn uuid(mut bits: [u8; 16]) -> [u8; 36] {
    bits[6] = bits[6] & 0x0f | 0x40;
    bits[8] = bits[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut position = 0;
    for (index, byte) in bits.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            position += 1;
        }
        text[position] = hex(byte >> 4);
        text[position + 1] = hex(byte & 15);
        position += 2;
    }
    text
}

/// One hexadecimal digit.
fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

#[cfg(test)]
mod tests {
    use super::uuid;

    #[test]
    fn uuid_has_version_4_and_the_rfc_variant() {
        assert_eq!(&uuid([0; 16]), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid([0xff; 16]), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        let counted = std::array::from_fn(|index| index as u8);
        assert_eq!(&uuid(counted), b"00010203-0405-4607-8809-0a0b0c0d0e0f");
    }
}
