//! ECDSA and ECDH over P-256, P-384 and P-521; keys as raw points, spki, pkcs8
//! (RFC 5480, RFC 5915). <https://w3c.github.io/webcrypto/#ecdsa>
//!
//! A public key is kept as an uncompressed point, a private key as its scalar
//! followed by that point.

use p256::ecdsa::signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use p256::elliptic_curve::sec1::{FromSec1Point, ToSec1Point};
use p256::elliptic_curve::{Generate, ecdh};
use rsa::pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use rsa::pkcs8::der::{Decode, Encode, referenced::OwnedToRef};
use rsa::pkcs8::spki::AlgorithmIdentifier;
use rsa::pkcs8::{AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef, SubjectPublicKeyInfoRef};
use sec1::EcPrivateKey;

use super::hash::Hash;

/// id-ecPublicKey, RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// The curves of NIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nist {
    P256,
    P384,
    P521,
}

/// Evaluates an expression with the crate of the curve.
macro_rules! with_curve {
    ($curve:expr, $c:ident => $body:expr) => {
        match $curve {
            Nist::P256 => {
                use p256 as $c;
                $body
            }
            Nist::P384 => {
                use p384 as $c;
                $body
            }
            Nist::P521 => {
                use p521 as $c;
                $body
            }
        }
    };
}

impl Nist {
    /// Bytes of a coordinate and of a scalar.
    fn field_bytes(self) -> usize {
        match self {
            Nist::P256 => 32,
            Nist::P384 => 48,
            Nist::P521 => 66,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(match self {
            Nist::P256 => "1.2.840.10045.3.1.7",
            Nist::P384 => "1.3.132.0.34",
            Nist::P521 => "1.3.132.0.35",
        })
    }

    /// The uncompressed point of a point in any form, if it is on the curve and not infinity.
    pub(super) fn point(self, bytes: &[u8]) -> Option<Vec<u8>> {
        with_curve!(self, c => {
            let point = c::Sec1Point::from_bytes(bytes).ok()?;
            let key = Option::<c::PublicKey>::from(c::PublicKey::from_sec1_point(&point))?;
            Some(key.to_sec1_point(false).as_bytes().to_vec())
        })
    }

    /// A private key from its scalar.
    pub(super) fn private(self, scalar: &[u8]) -> Option<Vec<u8>> {
        if scalar.len() != self.field_bytes() {
            return None;
        }
        with_curve!(self, c => {
            let key = c::SecretKey::from_slice(scalar).ok()?;
            Some([scalar, key.public_key().to_sec1_point(false).as_bytes()].concat())
        })
    }

    /// A new private key.
    pub(super) fn generate(self) -> Option<Vec<u8>> {
        with_curve!(self, c => {
            let key = c::SecretKey::try_generate_from_rng(&mut getrandom::SysRng).ok()?;
            Some([key.to_bytes().as_slice(), key.public_key().to_sec1_point(false).as_bytes()].concat())
        })
    }

    /// Scalar and point of a private key.
    pub(super) fn split(self, private: &[u8]) -> Option<(&[u8], &[u8])> {
        private.split_at_checked(self.field_bytes())
    }

    pub(super) fn read_spki(self, data: &[u8]) -> Option<Vec<u8>> {
        let info = SubjectPublicKeyInfoRef::from_der(data).ok()?;
        self.is_named_by(&info.algorithm)?;
        self.point(info.subject_public_key.as_bytes()?)
    }

    pub(super) fn read_pkcs8(self, data: &[u8]) -> Option<Vec<u8>> {
        let info = PrivateKeyInfoRef::from_der(data).ok()?;
        self.is_named_by(&info.algorithm)?;
        let key = EcPrivateKey::from_der(info.private_key.as_bytes()).ok()?;
        if key.parameters.is_some_and(|parameters| parameters.named_curve() != Some(self.oid())) {
            return None;
        }
        let private = self.private(key.private_key)?;
        let (_, point) = self.split(&private)?;
        // A public key that comes along must be that of the scalar.
        match key.public_key {
            Some(given) if self.point(given)? != point => None,
            _ => Some(private),
        }
    }

    fn is_named_by(self, algorithm: &AlgorithmIdentifierRef) -> Option<()> {
        let named = algorithm.parameters_oid().ok()?;
        (algorithm.oid == EC_PUBLIC_KEY && named == self.oid()).then_some(())
    }

    pub(super) fn to_spki(self, point: &[u8]) -> Option<Vec<u8>> {
        let oid = self.oid();
        let algorithm = AlgorithmIdentifier { oid: EC_PUBLIC_KEY, parameters: Some((&oid).into()) };
        let subject_public_key = BitStringRef::from_bytes(point).ok()?;
        SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().ok()
    }

    pub(super) fn to_pkcs8(self, private: &[u8]) -> Option<Vec<u8>> {
        let (scalar, point) = self.split(private)?;
        let inner = EcPrivateKey { private_key: scalar, parameters: None, public_key: Some(point) };
        let inner = zeroize::Zeroizing::new(inner.to_der().ok()?);
        let oid = self.oid();
        let algorithm = AlgorithmIdentifier { oid: EC_PUBLIC_KEY, parameters: Some((&oid).into()) };
        PrivateKeyInfoRef::new(algorithm.owned_to_ref(), OctetStringRef::new(&inner).ok()?).to_der().ok()
    }

    /// `r || s`. The nonce is that of RFC 6979 with fresh randomness mixed in, so that
    /// neither a weak generator nor a repeated one gives the key away.
    pub(super) fn sign(self, private: &[u8], hash: Hash, data: &[u8]) -> Option<Vec<u8>> {
        let (scalar, _) = self.split(private)?;
        let digest = hash.digest(data);
        with_curve!(self, c => {
            let key = c::ecdsa::SigningKey::from_slice(scalar).ok()?;
            let signature: c::ecdsa::Signature =
                key.sign_prehash_with_rng(&mut getrandom::SysRng, &digest).ok()?;
            Some(signature.to_bytes().to_vec())
        })
    }

    pub(super) fn verify(self, point: &[u8], hash: Hash, data: &[u8], signature: &[u8]) -> Option<()> {
        let digest = hash.digest(data);
        with_curve!(self, c => {
            let key = c::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
            let signature = c::ecdsa::Signature::from_slice(signature).ok()?;
            key.verify_prehash(&digest, &signature).ok()
        })
    }

    /// The x coordinate of the shared point.
    pub(super) fn derive(self, private: &[u8], point: &[u8]) -> Option<Vec<u8>> {
        let (scalar, _) = self.split(private)?;
        with_curve!(self, c => {
            let secret = c::SecretKey::from_slice(scalar).ok()?;
            let public = c::PublicKey::from_sec1_bytes(point).ok()?;
            let shared = ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
            Some(shared.raw_secret_bytes().to_vec())
        })
    }
}
