//! Whether bytes are ASCII, with the widest registers the processor has: the program is compiled
//! for every x86-64, and uploads of a mebibyte are looked through here.

/// Bytes looked at before the first decision; a multiple of every register's width.
const BLOCK_BYTES: usize = 1024;

/// Whether every byte is below 0x80.
pub fn is_ascii(bytes: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= BLOCK_BYTES && std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which is all that the function asks for.
        return unsafe { is_ascii_avx2(bytes) };
    }
    bytes.is_ascii()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn is_ascii_avx2(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    // The compiler makes this `or` of 32 bytes at a time.
    blocks.iter().all(|block| block.iter().fold(0, |seen, byte| seen | byte) < 0x80) && rest.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, is_ascii};

    #[test]
    fn one_byte_that_is_not_ascii_is_seen_wherever_it_is() {
        for length in [0, 1, 31, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 77] {
            let mut bytes = vec![0x7f; length];
            assert!(is_ascii(&bytes), "{length}");
            for at in 0..length {
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes), "{at} of {length}");
                bytes[at] = 0x7f;
            }
        }
    }
}
