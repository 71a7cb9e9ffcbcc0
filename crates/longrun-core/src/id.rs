//! Identifiers: checked newtypes, so that an unchecked one stops at the border.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Invalid;
use crate::limits::{
    CALLER_CHARS_MAX, ID_CHARS_MAX, ID_PREFIX_CHARS, IDEMPOTENCY_KEY_CHARS_MAX, NAME_CHARS_MAX,
    OPERATION_ID_CHARS,
};
use crate::time::Timestamp;

/// Digits of base32hex in lower case. Their order as bytes is their order as numbers.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const BODY_CHARS: usize = OPERATION_ID_CHARS - ID_PREFIX_CHARS;
/// Of the 85 bits of a body, the high 43 are milliseconds since 1970 (enough until the year 2248).
const RANDOM_BITS: u32 = 42;
const MILLIS_BITS: u32 = 43;
const _: () = assert!((RANDOM_BITS + MILLIS_BITS) as usize == BODY_CHARS * 5);

/// The 3-character prefix of generated ids: `[a-z][a-z0-9]{2}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdPrefix([u8; ID_PREFIX_CHARS]);

impl IdPrefix {
    /// Checks a prefix.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("id prefix", "must be a letter a-z and two of a-z, 0-9");
        let bytes: [u8; ID_PREFIX_CHARS] = text.as_bytes().try_into().map_err(|_| invalid())?;
        let rest_fits = bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if bytes[0].is_ascii_lowercase() && rest_fits { Ok(Self(bytes)) } else { Err(invalid()) }
    }

    /// A new id text: this prefix, then 17 digits that order by `now` and, within a millisecond, by `random`.
    ///
    /// Only the low 42 bits of `random` are used. Two ids of one millisecond collide when these are equal, so
    /// whoever stores an id makes sure that it is absent.
    fn generate(self, now: Timestamp, random: u64) -> [u8; OPERATION_ID_CHARS] {
        let millis = u64::try_from(now.unix_millis()).unwrap_or(0) & ((1 << MILLIS_BITS) - 1);
        let random = random & ((1 << RANDOM_BITS) - 1);
        let mut bits = (u128::from(millis) << RANDOM_BITS) | u128::from(random);
        let mut id = [0; OPERATION_ID_CHARS];
        for place in (ID_PREFIX_CHARS..OPERATION_ID_CHARS).rev() {
            id[place] = DIGITS[(bits & 31) as usize];
            bits >>= 5;
        }
        id[..ID_PREFIX_CHARS].copy_from_slice(&self.0);
        id
    }

    /// A new id for a resource.
    pub fn new_resource_id(self, now: Timestamp, random: u64) -> ResourceId {
        ResourceId(ascii_str(&self.generate(now, random)).into())
    }
}

impl fmt::Debug for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii_str(&self.0))
    }
}

/// The text of bytes that were checked to be ASCII when they came in.
fn ascii_str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The id of an operation: 3 characters of prefix, then 17 of lower-case base32hex, ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId([u8; OPERATION_ID_CHARS]);

impl OperationId {
    /// A new id that orders by `now`; `random` tells apart the ids of one millisecond.
    pub fn generate(prefix: IdPrefix, now: Timestamp, random: u64) -> Self {
        Self(prefix.generate(now, random))
    }

    /// The time that it orders by, in whole milliseconds.
    pub fn time(self) -> Timestamp {
        let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).unwrap_or_default() as u128;
        let bits = self.0[ID_PREFIX_CHARS..].iter().fold(0, |bits, byte| bits << 5 | digit(byte));
        let millis = i64::try_from(bits >> RANDOM_BITS).unwrap_or(i64::MAX);
        Timestamp::from_unix_millis(millis).unwrap_or(Timestamp::MAX)
    }

    /// Checks the text of an id.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid =
            || Invalid::new("operation_id", "must be 20 characters: a prefix of 3, then 17 of 0-9, a-v");
        let bytes: [u8; OPERATION_ID_CHARS] = text.as_bytes().try_into().map_err(|_| invalid())?;
        let (prefix, body) = bytes.split_at(ID_PREFIX_CHARS);
        IdPrefix::new(ascii_str(prefix)).map_err(|_| invalid())?;
        if body.iter().all(|digit| DIGITS.contains(digit)) { Ok(Self(bytes)) } else { Err(invalid()) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        ascii_str(&self.0)
    }

    /// The id as it is stored in keys.
    pub const fn as_bytes(&self) -> &[u8; OPERATION_ID_CHARS] {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OperationId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Declares a checked text: cheap to clone, compared as text, its rule in one function.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $rule:literal, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ByteString);

        impl $name {
            /// Checks the text.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
                let text = text.as_ref();
                Self::check(text)?;
                Ok(Self(text.into()))
            }

            /// Checks the text and takes it as it is, which may be a part of something larger. So nothing is copied, and
            /// all of that stays in memory as long as this does.
            pub fn from_shared(text: ByteString) -> Result<Self, Invalid> {
                Self::check(&text)?;
                Ok(Self(text))
            }

            fn check(text: &str) -> Result<(), Invalid> {
                let fits: fn(&str) -> bool = $fits;
                if fits(text) { Ok(()) } else { Err(Invalid::new($field, $rule)) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_id(text: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        })
}

fn is_printable_ascii(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

checked_text!(
    /// The id of a resource or of its parent: 1 to 50 of `[A-Za-z0-9_-]`.
    ResourceId,
    "resource_id",
    "must be 1 to 50 letters, digits, '-' or '_'",
    is_id
);
checked_text!(
    /// The name of a registered type of operation, such as `compute.snapshot.create`.
    KindName,
    "kind",
    "must be 1 to 64 of a-z, 0-9, '.', '-', '_', starting with a letter",
    is_name
);
checked_text!(
    /// The name of a registered step, such as `copy-chunks`.
    StepName,
    "step",
    "must be 1 to 64 of a-z, 0-9, '.', '-', '_', starting with a letter",
    is_name
);
checked_text!(
    /// The name of a type of resource, such as `compute.snapshot`.
    ResourceKind,
    "resource kind",
    "must be 1 to 64 of a-z, 0-9, '.', '-', '_', starting with a letter",
    is_name
);
checked_text!(
    /// Who calls: the id of a user or a service account. Printable ASCII, 1 to 128 characters.
    Caller,
    "caller",
    "must be 1 to 128 printable ASCII characters",
    |text| is_printable_ascii(text, CALLER_CHARS_MAX)
);
checked_text!(
    /// The key by which a caller marks its repeats of one request. Printable ASCII, 1 to 128 characters.
    IdempotencyKey,
    "idempotency_key",
    "must be 1 to 128 printable ASCII characters",
    |text| is_printable_ascii(text, IDEMPOTENCY_KEY_CHARS_MAX)
);

/// A step's place in its plan, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepIndex(pub u16);

impl StepIndex {
    /// As an index into a list of steps.
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for StepIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How often a record was written: 1 when it is created, then one more with each commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a record that was just created.
    pub const FIRST: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The epoch that makes a late writer's commit fail (C17). Grows with each owner; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis).unwrap()
    }

    #[test]
    fn an_operation_id_tells_its_time() {
        let prefix = IdPrefix::new("opr").unwrap();
        for millis in [0, 1, 1_800_000_000_000, (1 << MILLIS_BITS) - 1] {
            for random in [0, 1, u64::MAX] {
                assert_eq!(OperationId::generate(prefix, at(millis), random).time(), at(millis));
            }
        }
        for text in ["zzz00000000000000000", "zzzvvvvvvvvvvvvvvvvv"] {
            assert!(OperationId::parse(text).unwrap().time() >= at(0));
        }
    }

    #[test]
    fn operation_ids_order_by_time_then_by_randomness() {
        let prefix = IdPrefix::new("fdv").unwrap();
        let ids = [
            OperationId::generate(prefix, at(0), u64::MAX),
            OperationId::generate(prefix, at(1), 0),
            OperationId::generate(prefix, at(1), 1),
            OperationId::generate(prefix, at(1_800_000_000_000), 0),
        ];
        assert!(ids.is_sorted());
        // 1 << 42 is digit 4 in the ninth place from the right: 42 = 8 * 5 + 2.
        assert_eq!(ids[1].as_str(), "fdv00000000400000000");
    }

    #[test]
    fn an_operation_id_round_trips_through_text() {
        let id = OperationId::generate(IdPrefix::new("a1z").unwrap(), at(1_700_000_000_123), 987_654_321);
        assert_eq!(OperationId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn bad_operation_ids_are_refused_without_echo() {
        for text in ["", "fdv", "fdv0000000000000000w", "FDV00000000000000000", "1dv00000000000000000"] {
            let error = OperationId::parse(text).unwrap_err();
            assert_eq!(error.field, "operation_id");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }

    #[test]
    fn checked_texts_hold_their_bounds() {
        assert!(ResourceId::new("x".repeat(50)).is_ok());
        assert!(ResourceId::new("x".repeat(51)).is_err());
        assert!(ResourceId::new("").is_err());
        assert!(ResourceId::new("../etc").is_err());
        assert!(KindName::new("compute.snapshot.create").is_ok());
        assert!(KindName::new("Compute").is_err());
        assert!(IdempotencyKey::new("a\u{7f}").is_err());
        assert!(Caller::new("x".repeat(129)).is_err());
    }
}
