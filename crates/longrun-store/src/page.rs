//! Page tokens: opaque, authenticated, bound to the question they belong to, at most 100 characters (C19).
//!
//! ```text
//! byte  0        version of the token format
//! bytes 1..9     digest of the question: which list, which parent, which filter, which order
//! bytes 9..n-12  position: the key of the last item given out
//! last 12 bytes  keyed BLAKE3 of all before
//! ```
//!
//! The secret is kept in the store, so a token outlives restarts. Another question refuses it, and so does a flipped bit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longrun_core::limits::{ID_CHARS_MAX, PAGE_TOKEN_CHARS_MAX};

use crate::store::Position;

const VERSION: u8 = 1;
const QUESTION_BYTES: usize = 8;
const TAG_BYTES: usize = 12;
const OVERHEAD: usize = 1 + QUESTION_BYTES + TAG_BYTES;

// The longest position is the id of a resource; 4 characters carry 3 bytes.
const _: () = assert!((OVERHEAD + ID_CHARS_MAX).div_ceil(3) * 4 <= PAGE_TOKEN_CHARS_MAX);

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
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&digest(question));
        bytes.extend_from_slice(&position.0);
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
        if !equal_in_constant_time(&self.tag(body), tag) || body.first() != Some(&VERSION) {
            return Err(PageTokenError::NotOurs);
        }
        match body.get(1..).and_then(|rest| rest.split_first_chunk::<QUESTION_BYTES>()) {
            Some((asked, position)) if *asked == digest(question) => Ok(Position(position.to_vec())),
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
