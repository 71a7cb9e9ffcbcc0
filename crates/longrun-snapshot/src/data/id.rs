//! Names of disks and snapshots. Checked once, so that none of them can be a path.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::text::checked_text;

/// The longest [`DiskId`] or [`SnapshotId`], in characters.
pub const ID_CHARS_MAX: usize = 50;

/// Text that is no [`DiskId`] or [`SnapshotId`].
///
/// The text itself is not repeated: it comes from outside and may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a {what} id is 1 to {ID_CHARS_MAX} of a-z, 0-9, '-' and '_', and starts with a letter or digit")]
pub struct BadId {
    what: &'static str,
}

fn check_id(text: &str, what: &'static str) -> Result<(), BadId> {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let fits = bytes.len() <= ID_CHARS_MAX
        && bytes.first().is_some_and(|&first| edge(first))
        && bytes.iter().all(|&byte| edge(byte) || byte == b'-' || byte == b'_');
    if fits { Ok(()) } else { Err(BadId { what }) }
}

checked_text! {
    /// The name of a disk: 1 to 50 characters of `[a-z0-9][-_a-z0-9]*`.
    DiskId, BadId, |text| check_id(text, "disk")
}

checked_text! {
    /// The name of a snapshot: 1 to 50 characters of `[a-z0-9][-_a-z0-9]*`.
    SnapshotId, BadId, |text| check_id(text, "snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_at_the_bounds() {
        for good in ["a", "0", "disk-1", "a_b-", &"x".repeat(50)] {
            assert_eq!(good.parse::<DiskId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_id_is_never_a_path() {
        let long = "x".repeat(51);
        for bad in
            ["", ".", "..", "a/b", "../a", "/etc", "a\\b", "a.raw", "A", "é", "a b", "a\0", "-a", "_a", &long]
        {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<DiskId>(bad.into()).is_err(), "{bad:?}");
        }
    }
}
