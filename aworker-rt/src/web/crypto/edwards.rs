//! Ed25519 (RFC 8032) and X25519 (RFC 7748); keys as 32 bytes, spki, pkcs8 (RFC 8410).
//! <https://w3c.github.io/webcrypto/#ed25519>
//!
//! A private key is kept as its 32 bytes followed by the 32 of the public key.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rsa::pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use rsa::pkcs8::der::{Decode, Encode};
use rsa::pkcs8::spki::AlgorithmIdentifier;
use rsa::pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef, SubjectPublicKeyInfoRef};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY: usize = 32;

/// What the curve is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edwards {
    Ed25519,
    X25519,
}

impl Edwards {
    fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Edwards::Ed25519 => "1.3.101.112",
            Edwards::X25519 => "1.3.101.110",
        })
    }

    /// A public key from its 32 bytes; whether they are a point is seen when they are used.
    pub(super) fn public(self, bytes: &[u8]) -> Option<Vec<u8>> {
        (bytes.len() == KEY).then(|| bytes.to_vec())
    }

    /// A private key from its 32 bytes.
    pub(super) fn private(self, seed: &[u8]) -> Option<Vec<u8>> {
        let seed = Zeroizing::new(<[u8; KEY]>::try_from(seed).ok()?);
        let public = match self {
            Edwards::Ed25519 => SigningKey::from_bytes(&seed).verifying_key().to_bytes(),
            Edwards::X25519 => PublicKey::from(&StaticSecret::from(*seed)).to_bytes(),
        };
        Some([&seed[..], &public].concat())
    }

    pub(super) fn generate(self) -> Option<Vec<u8>> {
        let mut seed = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut seed[..]).ok()?;
        self.private(&seed[..])
    }

    /// Secret and public bytes of a private key.
    pub(super) fn split(private: &[u8]) -> Option<(&[u8], &[u8])> {
        private.split_at_checked(KEY)
    }

    pub(super) fn read_spki(self, data: &[u8]) -> Option<Vec<u8>> {
        let info = SubjectPublicKeyInfoRef::from_der(data).ok()?;
        self.is_named_by(&info.algorithm)?;
        self.public(info.subject_public_key.as_bytes()?)
    }

    pub(super) fn read_pkcs8(self, data: &[u8]) -> Option<Vec<u8>> {
        let info = PrivateKeyInfoRef::from_der(data).ok()?;
        self.is_named_by(&info.algorithm)?;
        let inner = <&OctetStringRef>::from_der(info.private_key.as_bytes()).ok()?;
        let private = self.private(inner.as_bytes())?;
        match info.public_key {
            Some(given) if given.as_bytes()? != &private[KEY..] => None,
            _ => Some(private),
        }
    }

    fn is_named_by(self, algorithm: &AlgorithmIdentifierRef) -> Option<()> {
        (algorithm.oid == self.oid() && algorithm.parameters.is_none()).then_some(())
    }

    fn algorithm<'a>(self) -> AlgorithmIdentifierRef<'a> {
        AlgorithmIdentifier { oid: self.oid(), parameters: None }
    }

    pub(super) fn to_spki(self, public: &[u8]) -> Option<Vec<u8>> {
        let subject_public_key = BitStringRef::from_bytes(public).ok()?;
        SubjectPublicKeyInfoRef { algorithm: self.algorithm(), subject_public_key }.to_der().ok()
    }

    pub(super) fn to_pkcs8(self, private: &[u8]) -> Option<Vec<u8>> {
        let (seed, _) = Edwards::split(private)?;
        let inner = Zeroizing::new(OctetStringRef::new(seed).ok()?.to_der().ok()?);
        PrivateKeyInfoRef::new(self.algorithm(), OctetStringRef::new(&inner).ok()?).to_der().ok()
    }
}

/// An Ed25519 signature.
pub(super) fn sign(private: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (seed, _) = Edwards::split(private)?;
    let key = SigningKey::from_bytes(&Zeroizing::new(<[u8; KEY]>::try_from(seed).ok()?));
    Some(key.sign(data).to_bytes().to_vec())
}

/// Verifies without the cofactor; keys and commitments of small order hold for nothing,
/// as the standard says.
pub(super) fn verify(public: &[u8], data: &[u8], signature: &[u8]) -> Option<()> {
    let key = VerifyingKey::from_bytes(public.try_into().ok()?).ok()?;
    let signature = Signature::from_slice(signature).ok()?;
    key.verify_strict(data, &signature).ok()
}

/// The shared secret of X25519; `None` if it is zero, whatever the private key is.
pub(super) fn derive(private: &[u8], public: &[u8]) -> Option<Vec<u8>> {
    let (seed, _) = Edwards::split(private)?;
    let secret = StaticSecret::from(<[u8; KEY]>::try_from(seed).ok()?);
    let shared = secret.diffie_hellman(&PublicKey::from(<[u8; KEY]>::try_from(public).ok()?));
    shared.was_contributory().then(|| shared.as_bytes().to_vec())
}
