//! The bytes of one chunk file.
//!
//! | bytes  | what |
//! |--------|------|
//! | 0..4   | `LRCK` |
//! | 4..6   | version of this layout, little endian |
//! | 6      | codec: 0 plain, 1 zstd |
//! | 7      | 0 |
//! | 8..16  | length of the plain bytes, little endian |
//! | 16..48 | BLAKE3 of the plain bytes |
//! | 48..64 | first half of the BLAKE3 of bytes 0..48 and all from 64 on |
//! | 64..   | the payload |
//!
//! The check covers every byte, so damage is seen before anything is given to the decompressor. A frame does not say
//! which snapshot and place it belongs to, so that snapshots can come to share it.

use std::borrow::Cow;

use super::{Digest, manifest::CHUNK_LEN};

/// Length of what stands before the payload.
pub(super) const HEADER_LEN: usize = 64;
/// The longest chunk file: compression is used only where it makes shorter.
pub(super) const FRAME_LEN_MAX: usize = HEADER_LEN + CHUNK_LEN;

const MAGIC: &[u8; 4] = b"LRCK";
const VERSION: u16 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// The fastest of the ordinary levels: a copy should wait for the disk.
const ZSTD_LEVEL: i32 = 1;
const CHECKED_LEN: usize = 48;

/// A chunk ready to be written.
pub(super) struct Frame<'a> {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) payload: Cow<'a, [u8]>,
}

/// Frames plain bytes, whose digest the caller has.
pub(super) fn seal<'a>(plain: &'a [u8], hash: &Digest) -> Frame<'a> {
    let (codec, payload) = match compress(plain) {
        Some(smaller) => (ZSTD, Cow::Owned(smaller)),
        None => (PLAIN, Cow::Borrowed(plain)),
    };
    let mut header = [0; HEADER_LEN];
    header[0..4].copy_from_slice(MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6] = codec;
    header[8..16].copy_from_slice(&(plain.len() as u64).to_le_bytes());
    header[16..48].copy_from_slice(hash.as_bytes());
    let check = check_of(&header, &payload);
    header[CHECKED_LEN..].copy_from_slice(&check);
    Frame { header, payload }
}

/// The digest a header claims, without a look at the payload.
pub(super) fn claimed_hash(header: &[u8; HEADER_LEN]) -> Result<Digest, &'static str> {
    if &header[0..4] != MAGIC {
        return Err("it is not a chunk file");
    }
    if header[4..6] != VERSION.to_le_bytes() {
        return Err("its version is unknown");
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(&header[16..48]);
    Ok(Digest::from_bytes(hash))
}

/// Gives the plain bytes and their digest, everything checked.
pub(super) fn open(frame: &[u8]) -> Result<(Vec<u8>, Digest), &'static str> {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().ok_or("it is cut short")?;
    let hash = claimed_hash(header)?;
    if header[CHECKED_LEN..] != check_of(header, payload) {
        return Err("its checksum is wrong");
    }
    let mut length = [0; 8];
    length.copy_from_slice(&header[8..16]);
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > CHUNK_LEN {
        return Err("its length is over the limit");
    }
    let plain = match header[6] {
        PLAIN => payload.to_vec(),
        ZSTD => zstd::bulk::decompress(payload, length).map_err(|_| "it does not decompress")?,
        _ => return Err("its codec is unknown"),
    };
    if plain.len() != length {
        return Err("its length is wrong");
    }
    if Digest::of(&plain) != hash {
        return Err("its content does not match its hash");
    }
    Ok((plain, hash))
}

/// The compressed bytes, if they are fewer.
fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    let mut smaller = vec![0; plain.len().checked_sub(1)?];
    let length = zstd::bulk::compress_to_buffer(plain, &mut smaller, ZSTD_LEVEL).ok()?;
    smaller.truncate(length);
    Some(smaller)
}

fn check_of(header: &[u8; HEADER_LEN], payload: &[u8]) -> [u8; HEADER_LEN - CHECKED_LEN] {
    let digest = Digest::of_parts(&[&header[..CHECKED_LEN], payload]);
    let mut check = [0; HEADER_LEN - CHECKED_LEN];
    check.copy_from_slice(&digest.as_bytes()[..HEADER_LEN - CHECKED_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let frame = seal(plain, &Digest::of(plain));
        [&frame.header[..], &frame.payload].concat()
    }

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let text = b"to be or not to be, ".repeat(100);
        assert!(sealed(&text).len() < text.len() / 2);
        let noise: Vec<u8> = (0..64u8).flat_map(|n| *Digest::of(&[n]).as_bytes()).collect();
        assert_eq!(sealed(&noise).len(), HEADER_LEN + noise.len());
        for plain in [&text, &noise, &vec![7]] {
            assert_eq!(open(&sealed(plain)), Ok((plain.clone(), Digest::of(plain))));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        for plain in [b"abc".repeat(50), Digest::of(b"noise").as_bytes().to_vec()] {
            let good = sealed(&plain);
            for byte in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[byte] ^= 1 << bit;
                    assert!(open(&bad).is_err(), "bit {bit} of byte {byte}");
                }
                assert!(open(&good[..byte]).is_err(), "cut at {byte}");
            }
            assert!(open(&[&good[..], b"x"].concat()).is_err());
        }
    }

    /// The layout of version 1, for ever.
    #[test]
    fn golden() {
        let frame = sealed(b"A");
        assert_eq!(&frame[..16], b"LRCK\x01\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(&frame[16..48], blake3::hash(b"A").as_bytes());
        assert_eq!(&frame[64..], b"A");
    }
}
