//! AES in the modes of WebCrypto: CBC, CTR with a counter of any width, GCM with
//! nonces of any length and tags of 4 to 16 bytes, and key wrap (RFC 3394).
//! <https://w3c.github.io/webcrypto/#aes-cbc>

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit, StreamCipher, StreamCipherCoreWrapper, consts::U16,
};
use aes_kw::AesKw;
use ctr::CtrCore;
use ctr::flavors::{Ctr32BE, Ctr128BE, CtrFlavor};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::values::{Input, equal, give, number};

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes that key wrap adds and counts in.
const SEMIBLOCK: usize = 8;

/// Which way a cipher goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Encrypt,
    Decrypt,
}

impl Way {
    /// `true` encrypts.
    fn argument(value: v8::Local<v8::Value>) -> Way {
        if value.is_true() { Way::Encrypt } else { Way::Decrypt }
    }
}

/// Calls a generic function with the cipher of the key's length; `None` if there is none.
macro_rules! with_cipher {
    ($key:expr, $cipher:ident => $body:expr) => {
        match $key.len() {
            16 => {
                let $cipher = aes::Aes128::new_from_slice($key).ok()?;
                $body
            }
            24 => {
                let $cipher = aes::Aes192::new_from_slice($key).ok()?;
                $body
            }
            32 => {
                let $cipher = aes::Aes256::new_from_slice($key).ok()?;
                $body
            }
            _ => None,
        }
    };
}

/// CBC with PKCS #7 padding.
fn cbc(way: Way, key: &[u8], iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    with_cipher!(key, cipher => match way {
        Way::Encrypt => {
            let mode = cbc::Encryptor::inner_iv_slice_init(cipher, iv).ok()?;
            Some(mode.encrypt_padded_vec::<Pkcs7>(data))
        }
        Way::Decrypt if data.is_empty() || !data.len().is_multiple_of(BLOCK) => None,
        Way::Decrypt => {
            let mode = cbc::Decryptor::inner_iv_slice_init(cipher, iv).ok()?;
            mode.decrypt_padded_vec::<Pkcs7>(data).ok()
        }
    })
}

/// CTR whose counter is the lowest `width` bits of the block; the others never change.
/// `None` if the counter would come back to a value it had.
fn ctr(key: &[u8], block: &[u8], width: usize, data: &[u8]) -> Option<Vec<u8>> {
    let start = u128::from_be_bytes(block.try_into().ok()?);
    let mask = u128::MAX.checked_shr(u32::try_from(128 - width).ok()?)?;
    let blocks = u128::try_from(data.len().div_ceil(BLOCK)).ok()?;
    if blocks > 0 && blocks - 1 > mask {
        return None;
    }
    // Blocks until the counter is zero again, without which nothing wraps.
    let before_wrap = (mask - (start & mask)).saturating_add(1);
    let split = usize::try_from(before_wrap).ok().and_then(|blocks| blocks.checked_mul(BLOCK));
    let (first, second) = data.split_at(split.unwrap_or(data.len()).min(data.len()));
    let mut output = keystream(key, start, first)?;
    if !second.is_empty() {
        output.extend(keystream(key, start & !mask, second)?);
    }
    Some(output)
}

/// Data with the key stream that begins at a block.
fn keystream(key: &[u8], start: u128, data: &[u8]) -> Option<Vec<u8>> {
    let mut output = data.to_vec();
    with_cipher!(key, cipher => {
        apply::<_, Ctr128BE>(cipher, start.to_be_bytes(), &mut output);
        Some(output)
    })
}

/// Combines data with the key stream of a cipher and a width of counter.
fn apply<C, F>(cipher: C, start: [u8; BLOCK], data: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    F: CtrFlavor<U16>,
{
    let core = CtrCore::<C, F>::inner_iv_init(cipher, &start.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
}

/// What GCM works with, after NIST SP 800-38D, section 7.
struct Gcm<'a> {
    key: &'a [u8],
    nonce: &'a [u8],
    additional: &'a [u8],
    tag_length: usize,
}

impl Gcm<'_> {
    /// Ciphertext and tag, or the plaintext if the tag is right.
    fn run(&self, way: Way, data: &[u8]) -> Option<Vec<u8>> {
        with_cipher!(self.key, cipher => self.run_with(&cipher, way, data))
    }

    fn run_with<C>(&self, cipher: &C, way: Way, data: &[u8]) -> Option<Vec<u8>>
    where
        C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let mut hash_key = ghash::Block::default();
        cipher.encrypt_block(&mut hash_key);
        let hash = GHash::new(&hash_key);
        let first = self.first_block(&hash);
        let mut mask: ghash::Block = first.into();
        cipher.encrypt_block(&mut mask);
        // The counter of GCM is 32 bits wide.
        let counter = first.map_low(|low| low.wrapping_add(1));
        match way {
            Way::Encrypt => {
                let mut output = data.to_vec();
                apply::<_, Ctr32BE>(cipher, counter, &mut output);
                let tag = self.tag(hash, &mask, &output);
                output.extend_from_slice(&tag[..self.tag_length]);
                Some(output)
            }
            Way::Decrypt => {
                let (sealed, tag) = data.split_at(data.len().checked_sub(self.tag_length)?);
                if !equal(&self.tag(hash, &mask, sealed)[..self.tag_length], tag) {
                    return None;
                }
                let mut output = sealed.to_vec();
                apply::<_, Ctr32BE>(cipher, counter, &mut output);
                Some(output)
            }
        }
    }

    /// The pre-counter block: the nonce itself if it has 12 bytes, else a hash of it.
    fn first_block(&self, hash: &GHash) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        if self.nonce.len() == 12 {
            block[..12].copy_from_slice(self.nonce);
            block[15] = 1;
            return block;
        }
        let mut hash = hash.clone();
        hash.update_padded(self.nonce);
        hash.update(&[lengths(0, self.nonce.len())]);
        hash.finalize().into()
    }

    fn tag(&self, mut hash: GHash, mask: &ghash::Block, sealed: &[u8]) -> [u8; BLOCK] {
        hash.update_padded(self.additional);
        hash.update_padded(sealed);
        hash.update(&[lengths(self.additional.len(), sealed.len())]);
        let hash = hash.finalize();
        std::array::from_fn(|index| hash[index] ^ mask[index])
    }
}

/// Two lengths in bits, as GCM hashes them.
fn lengths(first: usize, second: usize) -> ghash::Block {
    let bits = |bytes: usize| (u64::try_from(bytes).expect("64 bits") * 8).to_be_bytes();
    let mut block = ghash::Block::default();
    block[..8].copy_from_slice(&bits(first));
    block[8..].copy_from_slice(&bits(second));
    block
}

/// The counter in the last four bytes of a block.
trait LowCounter {
    fn map_low(self, change: impl FnOnce(u32) -> u32) -> Self;
}

impl LowCounter for [u8; BLOCK] {
    fn map_low(mut self, change: impl FnOnce(u32) -> u32) -> Self {
        let low = u32::from_be_bytes([self[12], self[13], self[14], self[15]]);
        self[12..].copy_from_slice(&change(low).to_be_bytes());
        self
    }
}

/// Key wrap without padding.
fn key_wrap(way: Way, key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    // RFC 3394 wraps two semiblocks or more.
    let least = if way == Way::Encrypt { 2 } else { 3 } * SEMIBLOCK;
    if data.len() < least || !data.len().is_multiple_of(SEMIBLOCK) {
        return None;
    }
    with_cipher!(key, cipher => run_key_wrap(cipher, way, data))
}

fn run_key_wrap<C>(cipher: C, way: Way, data: &[u8]) -> Option<Vec<u8>>
where
    C: BlockCipherEncrypt<BlockSize = U16> + BlockCipherDecrypt<BlockSize = U16>,
{
    let wrap = <AesKw<C> as aes::cipher::common::InnerInit>::inner_init(cipher);
    match way {
        Way::Encrypt => {
            let mut output = vec![0; data.len() + SEMIBLOCK];
            wrap.wrap_key(data, &mut output).ok()?;
            Some(output)
        }
        Way::Decrypt => {
            let mut output = vec![0; data.len() - SEMIBLOCK];
            wrap.unwrap_key(data, &mut output).ok()?;
            Some(output)
        }
    }
}

/// `ops.crypto_aes_cbc(encrypt, key, iv, data)`.
pub(crate) fn crypto_aes_cbc(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let [mut key, mut iv, mut data] = [1, 2, 3].map(|index| Input::new(arguments.get(index)));
    let output = cbc(Way::argument(arguments.get(0)), key.bytes(), iv.bytes(), data.bytes());
    give(scope, &mut result, output);
}

/// `ops.crypto_aes_ctr(key, counter, width, data)`: both ways are the same.
pub(crate) fn crypto_aes_ctr(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let width = number(scope, arguments.get(2));
    if !(1..=128).contains(&width) {
        return;
    }
    let [mut key, mut counter, mut data] = [0, 1, 3].map(|index| Input::new(arguments.get(index)));
    let output = ctr(key.bytes(), counter.bytes(), width, data.bytes());
    give(scope, &mut result, output);
}

/// `ops.crypto_aes_gcm(encrypt, key, iv, additional, tag_bytes, data)`.
pub(crate) fn crypto_aes_gcm(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let tag_length = number(scope, arguments.get(4));
    if !(4..=BLOCK).contains(&tag_length) {
        return;
    }
    let [mut key, mut nonce, mut additional, mut data] =
        [1, 2, 3, 5].map(|index| Input::new(arguments.get(index)));
    let gcm = Gcm { key: key.bytes(), nonce: nonce.bytes(), additional: additional.bytes(), tag_length };
    let output = gcm.run(Way::argument(arguments.get(0)), data.bytes());
    give(scope, &mut result, output);
}

/// `ops.crypto_aes_kw(wrap, key, data)`.
pub(crate) fn crypto_aes_kw(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let [mut key, mut data] = [1, 2].map(|index| Input::new(arguments.get(index)));
    let output = key_wrap(Way::argument(arguments.get(0)), key.bytes(), data.bytes());
    give(scope, &mut result, output);
}

#[cfg(test)]
mod tests {
    use super::{Gcm, Way, cbc, ctr, key_wrap};

    #[test]
    fn a_narrow_counter_wraps_within_its_bits_and_never_repeats() {
        let key = [7; 16];
        let mut block = [0x5a; 16];
        block[15] = 0xfe;
        let data = vec![0; 16 * 4];
        let narrow = ctr(&key, &block, 2, &data).expect("four blocks");
        for (index, low) in [0xfe, 0xff, 0xfc, 0xfd].into_iter().enumerate() {
            block[15] = low;
            let single = ctr(&key, &block, 128, &[0; 16]).expect("one block");
            assert_eq!(narrow[index * 16..][..16], single, "block {index}");
        }
        assert_eq!(ctr(&key, &block, 2, &[0; 65]), None);
        assert_eq!(ctr(&key, &[0xff; 16], 128, &[0; 32]).map(|out| out.len()), Some(32));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        assert_eq!(cbc(Way::Decrypt, &[0; 16], &[0; 16], &[]), None);
        assert_eq!(cbc(Way::Decrypt, &[0; 16], &[0; 16], &[0; 17]), None);
        assert_eq!(cbc(Way::Encrypt, &[0; 16], &[0; 15], &[]), None);
        assert_eq!(cbc(Way::Encrypt, &[0; 15], &[0; 16], &[]), None);
        for length in [0, 8, 15, 17] {
            assert_eq!(key_wrap(Way::Encrypt, &[0; 16], &vec![0; length]), None, "{length}");
        }
        assert_eq!(key_wrap(Way::Decrypt, &[0; 16], &[0; 16]), None);
        let gcm = Gcm { key: &[0; 16], nonce: &[0; 12], additional: &[], tag_length: 16 };
        assert_eq!(gcm.run(Way::Decrypt, &[0; 15]), None);
    }
}
