//! Page tokens: opaque, authenticated, bound to the question they belong to, at most 100 characters (C19).
//!
//! ```text
//! byte  0        version of the token format
//! bytes 1..7     digest of the question: which list, which parent, which filter, which order
//! bytes 7..n-10  position: the key of the last item given out
//! last 10 bytes  keyed BLAKE3 of all before
//! ```
//!
//! The secret is kept in the store, so a token outlives restarts. Another question refuses it, and so does a flipped bit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longrun_core::limits::{ID_CHARS_MAX, PAGE_TOKEN_CHARS_MAX};

use crate::store::Position;

/// The version of a token whose position stands as it is.
const PLAIN: u8 = 1;
/// The version of a token whose position is packed: see [`pack`].
const PACKED: u8 = 2;
const QUESTION_BYTES: usize = 6;
const TAG_BYTES: usize = 10;
const OVERHEAD: usize = 1 + QUESTION_BYTES + TAG_BYTES;
/// The longest position in a token, as it stands in it; 4 characters carry 3 bytes.
const POSITION_BYTES_MAX: usize = PAGE_TOKEN_CHARS_MAX / 4 * 3 - OVERHEAD;

// The longest positions are a time and an id, and a name and an id of the reference API, packed.
const _: () = assert!(8 + ID_CHARS_MAX <= POSITION_BYTES_MAX);
const _: () = assert!((63 + 1 + 20_usize).div_ceil(3) * 2 <= POSITION_BYTES_MAX);

/// Whether a token can hold the position.
pub(crate) fn fits(position: &[u8]) -> bool {
    position.len() <= POSITION_BYTES_MAX
        || position.len().div_ceil(3) * 2 <= POSITION_BYTES_MAX && pack(position).is_some()
}

/// The characters of names and ids, and the byte that parts them: 40, and 40 to the third is less than 2 to the 16th.
const SYMBOLS: &[u8; 40] = b"\0abcdefghijklmnopqrstuvwxyz0123456789-_.";

/// Three symbols in two bytes; `None` when there are others among them, or when it ends in 0.
fn pack(position: &[u8]) -> Option<Vec<u8>> {
    let number = |symbol: &u8| SYMBOLS.iter().position(|known| known == symbol);
    let mut packed = Vec::with_capacity(position.len().div_ceil(3) * 2);
    for three in position.chunks(3) {
        let mut sum = 0;
        for place in 0..3 {
            sum = sum * SYMBOLS.len() + three.get(place).map_or(Some(0), number)?;
        }
        packed.extend_from_slice(&u16::try_from(sum).ok()?.to_be_bytes());
    }
    (position.last() != Some(&0)).then_some(packed)
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let (pairs, _) = packed.as_chunks::<2>();
    let symbol = |number: usize| SYMBOLS[number % SYMBOLS.len()];
    let mut position: Vec<u8> = pairs
        .iter()
        .map(|pair| usize::from(u16::from_be_bytes(*pair)))
        .flat_map(|sum| [symbol(sum / 1600), symbol(sum / 40), symbol(sum)])
        .collect();
    while position.last() == Some(&0) {
        position.pop();
    }
    position
}

/// Why a page token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageTokenError {
    /// It is not a token that was given out here.
    #[error("page_token: is not a token of this service")]
    NotOurs,
    /// It belongs to another list, or to other arguments.
    #[error("page_token: belongs to a list with other arguments")]
    OtherQuestion,
}

/// Makes and reads page tokens.
#[derive(Clone)]
pub struct PageTokens {
    secret: [u8; 32],
}

impl std::fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageTokens")
    }
}

impl PageTokens {
    /// With the secret of a store.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The token for a position in the answer to a question.
    pub fn seal(&self, question: &[u8], position: &Position) -> String {
        let packed = if position.0.len() > POSITION_BYTES_MAX { pack(&position.0) } else { None };
        let mut bytes = vec![if packed.is_some() { PACKED } else { PLAIN }];
        bytes.extend_from_slice(&digest(question));
        bytes.extend_from_slice(packed.as_deref().unwrap_or(&position.0));
        let tag = self.tag(&bytes);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a token, if it was given out for this question.
    pub fn open(&self, question: &[u8], token: &str) -> Result<Position, PageTokenError> {
        if token.len() > PAGE_TOKEN_CHARS_MAX {
            return Err(PageTokenError::NotOurs);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenError::NotOurs)?;
        let Some((body, tag)) = bytes.split_last_chunk::<TAG_BYTES>() else {
            return Err(PageTokenError::NotOurs);
        };
        if !equal_in_constant_time(&self.tag(body), tag) {
            return Err(PageTokenError::NotOurs);
        }
        let Some((version @ &(PLAIN | PACKED), rest)) = body.split_first() else {
            return Err(PageTokenError::NotOurs);
        };
        match rest.split_first_chunk::<QUESTION_BYTES>() {
            Some((asked, position)) if *asked == digest(question) => {
                Ok(Position(if *version == PACKED { unpack(position) } else { position.to_vec() }))
            }
            Some(_) => Err(PageTokenError::OtherQuestion),
            None => Err(PageTokenError::NotOurs),
        }
    }

    fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&self.secret, bytes);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
        tag
    }
}

fn digest(question: &[u8]) -> [u8; QUESTION_BYTES] {
    let mut digest = [0; QUESTION_BYTES];
    digest.copy_from_slice(&blake3::hash(question).as_bytes()[..QUESTION_BYTES]);
    digest
}

fn equal_in_constant_time(left: &[u8; TAG_BYTES], right: &[u8; TAG_BYTES]) -> bool {
    left.iter().zip(right).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> PageTokens {
        PageTokens::new([7; 32])
    }

    #[test]
    fn c19_a_token_fits_and_opens_for_its_question_only() {
        let position = Position(vec![b'x'; ID_CHARS_MAX]);
        let token = tokens().seal(b"folder a", &position);
        assert!(token.len() <= PAGE_TOKEN_CHARS_MAX);
        assert_eq!(tokens().open(b"folder a", &token), Ok(position));
        assert_eq!(tokens().open(b"folder b", &token), Err(PageTokenError::OtherQuestion));
        assert_eq!(PageTokens::new([8; 32]).open(b"folder a", &token), Err(PageTokenError::NotOurs));
    }

    #[test]
    fn c19_the_longest_name_fits_with_its_id() {
        let name = "a-very-long-name-0123456789-that-has-as-many-characters-as-can_";
        assert_eq!(name.len(), 63);
        let position = Position([name.as_bytes(), b"\0fd8vvvvvvvvvvvvvvvvv"].concat());
        assert!(fits(&position.0));
        let token = tokens().seal(b"folder", &position);
        assert!(token.len() <= PAGE_TOKEN_CHARS_MAX, "{}", token.len());
        assert_eq!(tokens().open(b"folder", &token), Ok(position));
        assert!(!fits(&[b'A'; POSITION_BYTES_MAX + 1]) && !fits(&[b'a'; 100]));
    }

    #[test]
    fn c19_the_longest_positions_fill_a_token_and_longer_ones_do_not_fit() {
        // 75 bytes in 100 characters, 17 of them for version, question and tag; two bytes for each three symbols.
        assert!(fits(&[b'A'; 58]) && !fits(&[b'A'; 59]));
        assert!(fits(&[b'a'; 87]) && !fits(&[b'a'; 88]));
        for position in [vec![b'A'; 58], vec![b'a'; 58], vec![b'a'; 87]].map(Position) {
            let token = tokens().seal(b"folder", &position);
            assert_eq!(token.len(), PAGE_TOKEN_CHARS_MAX);
            assert_eq!(tokens().open(b"folder", &token), Ok(position));
        }
    }

    #[test]
    fn only_what_does_not_fit_as_it_stands_is_packed() {
        let version = |position: &[u8]| {
            let token = tokens().seal(b"folder", &Position(position.to_vec()));
            URL_SAFE_NO_PAD.decode(token).unwrap()[0]
        };
        assert_eq!((version(b"a"), version(&[b'a'; 58]), version(&[b'a'; 59])), (PLAIN, PLAIN, PACKED));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", tokens()), "PageTokens");
    }

    #[test]
    fn tags_that_differ_in_any_bytes_differ() {
        let tag = [3; TAG_BYTES];
        assert!(equal_in_constant_time(&tag, &tag));
        for (one, other) in [(0, 0), (0, 9), (4, 5)] {
            let mut changed = tag;
            changed[one] ^= 1;
            if other != one {
                // The same change twice, which must not cancel out.
                changed[other] ^= 1;
            }
            assert!(!equal_in_constant_time(&tag, &changed), "{one} and {other}");
        }
    }

    #[test]
    fn packing_is_reversed_by_unpacking() {
        for text in ["", "a", "ab", "abc", "a\0b", "\0\0x", "zzz9-_.\0fd8"] {
            assert_eq!(unpack(&pack(text.as_bytes()).unwrap()), text.as_bytes(), "{text:?}");
        }
        assert_eq!(pack(b"A"), None);
        assert_eq!(pack(b"a\0"), None);
    }

    #[test]
    fn every_changed_character_is_found() {
        let token = tokens().seal(b"q", &Position(b"position".to_vec()));
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(tokens().open(b"q", &changed).is_err(), "{place}");
        }
        for bad in ["", "A", "not base64!", &"A".repeat(101)] {
            assert_eq!(tokens().open(b"q", bad), Err(PageTokenError::NotOurs));
        }
    }
}
