//! The bytes of one chunk file.
//!
//! | bytes  | what |
//! |--------|------|
//! | 0..4   | `LRCK` |
//! | 4..6   | version of this layout, little endian |
//! | 6      | codec: 0 plain, 1 zstd |
//! | 7      | 0 |
//! | 8..12  | length of the plain bytes, little endian |
//! | 12..16 | length of the payload, little endian |
//! | 16..48 | BLAKE3 of the plain bytes |
//! | 48..56 | first 8 bytes of the BLAKE3 of the payload |
//! | 56..64 | first 8 bytes of the BLAKE3 of bytes 0..56 |
//! | 64..   | the payload |
//!
//! The header checks itself, so that it alone tells which chunk this is and how long the file must be. The payload is
//! checked before it is given to the decompressor. A frame does not say which snapshots it belongs to.

use std::fmt;

use zstd::bulk::Compressor;

use super::{Digest, geometry::CHUNK_LEN};

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
/// Where the check of the header begins.
const CHECK_AT: usize = 56;

/// A chunk ready to be written.
pub(super) struct Frame<'a> {
    pub(super) header: [u8; HEADER_LEN],
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Length of the whole.
    pub(super) fn stored_bytes(&self) -> u64 {
        (HEADER_LEN + self.payload.len()) as u64
    }
}

/// Makes frames one after the other, and keeps for it what is dear to make: a compressor's tables and a buffer.
#[derive(Default)]
pub(super) struct Press {
    compressor: Option<Compressor<'static>>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Press {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Press").finish_non_exhaustive()
    }
}

impl Press {
    /// Frames plain bytes of at most [`CHUNK_LEN`], whose digest the caller has.
    pub(super) fn seal<'a>(&'a mut self, plain: &'a [u8], digest: &Digest) -> Frame<'a> {
        // What is stored plain has the digest that is known already.
        let (codec, payload, check) = match self.compress(plain) {
            Some(smaller) => (ZSTD, smaller, Digest::of(smaller)),
            None => (PLAIN, plain, *digest),
        };
        let mut header = [0; HEADER_LEN];
        header[0..4].copy_from_slice(MAGIC);
        header[4..6].copy_from_slice(&VERSION.to_le_bytes());
        header[6] = codec;
        header[8..12].copy_from_slice(&length_of(plain).to_le_bytes());
        header[12..16].copy_from_slice(&length_of(payload).to_le_bytes());
        header[16..48].copy_from_slice(digest.as_bytes());
        header[48..CHECK_AT].copy_from_slice(&first_8(&check));
        let own = first_8(&Digest::of(&header[..CHECK_AT]));
        header[CHECK_AT..].copy_from_slice(&own);
        Frame { header, payload }
    }

    /// The compressed bytes, if they are fewer.
    fn compress(&mut self, plain: &[u8]) -> Option<&[u8]> {
        if self.compressor.is_none() {
            self.compressor = Compressor::new(ZSTD_LEVEL).ok();
        }
        self.buffer.clear();
        self.buffer.reserve(plain.len());
        let length = self.compressor.as_mut()?.compress_to_buffer(plain, &mut self.buffer).ok()?;
        self.buffer.get(..length).filter(|smaller| smaller.len() < plain.len())
    }
}

/// What a header says, once it is found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) digest: Digest,
    codec: u8,
    plain_len: usize,
    payload_len: usize,
    payload_check: [u8; 8],
}

impl Header {
    /// Reads a header, without a look at the payload.
    pub(super) fn read(header: &[u8; HEADER_LEN]) -> Result<Self, &'static str> {
        if &header[0..4] != MAGIC {
            return Err("it is not a chunk file");
        }
        if header[4..6] != VERSION.to_le_bytes() {
            return Err("its version is unknown");
        }
        if header[CHECK_AT..] != first_8(&Digest::of(&header[..CHECK_AT])) {
            return Err("the checksum of its header is wrong");
        }
        let digest = Digest::from_bytes(array(&header[16..48]));
        let length = |at: usize| u32::from_le_bytes(array(&header[at..at + 4])) as usize;
        let (plain_len, payload_len) = (length(8), length(12));
        if plain_len > CHUNK_LEN || payload_len > CHUNK_LEN {
            return Err("its length is over the limit");
        }
        Ok(Self { digest, codec: header[6], plain_len, payload_len, payload_check: array(&header[48..56]) })
    }

    /// Length of the whole file.
    pub(super) fn stored_bytes(&self) -> u64 {
        (HEADER_LEN + self.payload_len) as u64
    }
}

/// Gives the plain bytes and their digest, everything checked.
pub(super) fn open(mut frame: Vec<u8>) -> Result<(Vec<u8>, Digest), &'static str> {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().ok_or("it is cut short")?;
    let header = Header::read(header)?;
    if payload.len() != header.payload_len {
        return Err("its length is wrong");
    }
    let payload_digest = Digest::of(payload);
    if first_8(&payload_digest) != header.payload_check {
        return Err("its checksum is wrong");
    }
    let (plain, digest) = match header.codec {
        PLAIN => {
            frame.drain(..HEADER_LEN);
            (frame, payload_digest)
        }
        ZSTD => {
            let plain =
                zstd::bulk::decompress(payload, header.plain_len).map_err(|_| "it does not decompress")?;
            let digest = Digest::of(&plain);
            (plain, digest)
        }
        _ => return Err("its codec is unknown"),
    };
    if plain.len() != header.plain_len {
        return Err("its length is wrong");
    }
    if digest != header.digest {
        return Err("its content does not match its digest");
    }
    Ok((plain, digest))
}

/// No slice here is longer than a chunk.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn first_8(digest: &Digest) -> [u8; 8] {
    array(&digest.as_bytes()[..8])
}

/// A slice of known length as an array.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut press = Press::default();
        let frame = press.seal(plain, &Digest::of(plain));
        assert_eq!(frame.stored_bytes(), Header::read(&frame.header).unwrap().stored_bytes());
        [&frame.header[..], frame.payload].concat()
    }

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let text = b"to be or not to be, ".repeat(100);
        assert!(sealed(&text).len() < text.len() / 2);
        let noise: Vec<u8> = (0..64u8).flat_map(|n| *Digest::of(&[n]).as_bytes()).collect();
        assert_eq!(sealed(&noise).len(), HEADER_LEN + noise.len());
        for plain in [&text, &noise, &vec![7]] {
            assert_eq!(open(sealed(plain)), Ok((plain.clone(), Digest::of(plain))));
        }
    }

    #[test]
    fn a_press_is_used_again_and_again() {
        let mut press = Press::default();
        let mut bytes: Vec<u8> = b"abc".repeat(1000);
        for round in 0..20 {
            bytes.truncate(3000 - 100 * round);
            let digest = Digest::of(&bytes);
            let frame = press.seal(&bytes, &digest);
            assert_eq!(open([&frame.header[..], frame.payload].concat()), Ok((bytes.clone(), digest)));
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
                    if let Some(header) = bad.first_chunk().filter(|_| byte < HEADER_LEN) {
                        assert!(Header::read(header).is_err(), "bit {bit} of byte {byte}");
                    }
                    assert!(open(bad).is_err(), "bit {bit} of byte {byte}");
                }
                assert!(open(good[..byte].to_vec()).is_err(), "cut at {byte}");
            }
            assert!(open([&good[..], b"x"].concat()).is_err());
        }
    }

    /// The layout of version 1, for ever.
    #[test]
    fn golden() {
        let frame = sealed(b"A");
        assert_eq!(&frame[..16], b"LRCK\x01\0\0\0\x01\0\0\0\x01\0\0\0");
        assert_eq!(&frame[16..48], blake3::hash(b"A").as_bytes());
        assert_eq!(&frame[48..56], &blake3::hash(b"A").as_bytes()[..8]);
        assert_eq!(&frame[56..64], &blake3::hash(&frame[..56]).as_bytes()[..8]);
        assert_eq!(&frame[64..], b"A");

        let text = [b'a'; 100];
        let frame = sealed(&text);
        assert_eq!(&frame[4..12], b"\x01\0\x01\0\x64\0\0\0");
        assert_eq!(frame[12] as usize, frame.len() - 64);
        assert_eq!(&frame[16..48], blake3::hash(&text).as_bytes());
        assert_eq!(&frame[48..56], &blake3::hash(&frame[64..]).as_bytes()[..8]);
        assert_eq!(zstd::bulk::decompress(&frame[64..], 100).unwrap(), text);
    }
}
