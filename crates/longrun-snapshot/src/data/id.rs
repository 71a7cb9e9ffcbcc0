//! Names of disks and snapshots. Checked once, so that none of them can be a path.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

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

fn is_id(text: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= ID_CHARS_MAX
        && bytes.first().is_some_and(|&first| edge(first))
        && bytes.iter().all(|&byte| edge(byte) || byte == b'-' || byte == b'_')
}

macro_rules! checked_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                if is_id(&text) { Ok(Self(text)) } else { Err(BadId { what: $what }) }
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_id! {
    /// The name of a disk: 1 to 50 characters of `[a-z0-9][-_a-z0-9]*`.
    DiskId, "disk"
}

checked_id! {
    /// The name of a snapshot: 1 to 50 characters of `[a-z0-9][-_a-z0-9]*`.
    SnapshotId, "snapshot"
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
