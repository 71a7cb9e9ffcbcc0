//! Names of chunks and of runs. Checked once, so that none of them can be a path.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Digest, text::checked_text};

/// The longest [`Incarnation`], [`RunName`] or [`Owner`], in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Hex digits in a digest.
const HEX_CHARS: usize = 64;

/// Text that is no [`Incarnation`], [`RunName`], [`Owner`] or [`ChunkName`]. The text itself is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} is {rule}")]
pub struct BadName {
    what: &'static str,
    rule: &'static str,
}

const TEXT_RULE: &str = "1 to 64 of a-z, 0-9 and '-'";
const CHUNK_RULE: &str = "64 hex digits, '-' and an incarnation";

fn check_name(text: &str, what: &'static str) -> Result<(), BadName> {
    let fits = (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits { Ok(()) } else { Err(BadName { what, rule: TEXT_RULE }) }
}

checked_text! {
    /// One life of a digest in the chunk store, from its first holder to its last: `[0-9a-z-]{1,64}`.
    ///
    /// Whoever keeps the references gives them out, and never the same twice.
    Incarnation, BadName, |text| check_name(text, "an incarnation")
}

checked_text! {
    /// One run of the step that copies a disk, for example `<epoch>-<attempt>`: `[0-9a-z-]{1,64}`.
    ///
    /// No two runs that copy into one snapshot have the same name.
    RunName, BadName, |text| check_name(text, "the name of a run")
}

checked_text! {
    /// Whose chunks a chunk store keeps: `[0-9a-z-]{1,64}`.
    ///
    /// Whoever keeps the references is the owner, for no other can tell which chunks are in use.
    Owner, BadName, |text| check_name(text, "an owner")
}

/// The name of a chunk file. In text: `<64 hex digits>-<incarnation>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// The digest of its plain bytes.
    pub digest: Digest,
    /// Which life of the digest it belongs to.
    pub incarnation: Incarnation,
}

impl ChunkName {
    /// The name of a digest in one of its lives.
    pub const fn new(digest: Digest, incarnation: Incarnation) -> Self {
        Self { digest, incarnation }
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.digest, self.incarnation)
    }
}

impl FromStr for ChunkName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName { what: "the name of a chunk", rule: CHUNK_RULE };
        let (hex, rest) = text.split_at_checked(HEX_CHARS).ok_or_else(bad)?;
        let incarnation = rest.strip_prefix('-').ok_or_else(bad)?.parse().map_err(|_| bad())?;
        // Of the ways to write hex only that of `Display` is a name: one chunk, one file.
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        Ok(Self { digest: hex.parse().map_err(|_| bad())?, incarnation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_bounds() {
        for good in ["a", "0", "-", "fdv0123456789-17", &"x".repeat(64)] {
            let incarnation: Incarnation = good.parse().unwrap();
            let name = ChunkName::new(Digest::of(b"x"), incarnation);
            assert_eq!(name.to_string().parse::<ChunkName>(), Ok(name));
        }
    }

    #[test]
    fn a_name_is_never_a_path() {
        let long = "x".repeat(65);
        for bad in ["", ".", "..", "a/b", "../a", "/etc", "a\\b", "a.tmp", "A", "é", "a b", "a\0", "_", &long]
        {
            assert!(bad.parse::<Incarnation>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<RunName>(bad.into()).is_err(), "{bad:?}");
            assert!(format!("{}-{bad}", Digest::of(b"x")).parse::<ChunkName>().is_err(), "{bad:?}");
        }
        let hex = Digest::of(b"x").to_string();
        let (upper, short, wide) = (hex.to_uppercase(), &hex[1..], "é".repeat(32));
        for bad in [format!("{upper}-a"), format!("{short}-a"), format!("{hex}a"), format!("{wide}-a"), hex] {
            assert!(bad.parse::<ChunkName>().is_err(), "{bad:?}");
        }
    }
}
