//! Items: what lies outside the store and is shared by several resources.
//!
//! A chunk of data, a layer of an image, a block of addresses: a resource that uses one holds a *reference* to it, kept in
//! the store. Whoever drops the last reference leaves an *orphan* behind, which the operation that dropped it removes from
//! the outside world and then forgets.
//!
//! Between the last reference and the removal somebody may want the item again. So each life of an item, from its first
//! reference to its last, has an [`Incarnation`] that is never used again, and what is outside carries it in its name:
//! a removal that comes late cannot hit what lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::id::{OperationId, ResourceKind};
use crate::limits::ITEM_ID_BYTES_MAX;

/// What identifies an item among those of its kind, such as a digest: 1 to 64 bytes of any value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(Box<[u8]>);

impl ItemId {
    /// Checks the length.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Invalid> {
        let bytes = bytes.as_ref();
        if (1..=ITEM_ID_BYTES_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(Invalid::new("item_id", format!("must be 1 to {ITEM_ID_BYTES_MAX} bytes")))
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which item: its kind and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// The kind, such as `compute.chunk`.
    pub kind: ResourceKind,
    /// The id, unique within the kind.
    pub id: ItemId,
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// One life of an item. Random, and so never the same twice. As text: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(pub u128);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Incarnation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(Self).ok_or_else(|| Invalid::new("incarnation", "must be 32 hex digits in lower case"))
    }
}

impl TryFrom<String> for Incarnation {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

/// An item without references, to be removed from the outside world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Orphan {
    /// The operation that dropped the last reference.
    pub operation: OperationId,
    /// The life that ended. The item may live again, in another.
    pub incarnation: Incarnation,
    /// The item.
    pub item: ItemKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_ids_at_the_bounds() {
        assert!(ItemId::new([]).is_err());
        assert!(ItemId::new([0; ITEM_ID_BYTES_MAX + 1]).is_err());
        assert_eq!(ItemId::new([0, 255]).unwrap().to_string(), "00ff");
        assert!(ItemId::new([7; ITEM_ID_BYTES_MAX]).is_ok());
    }

    #[test]
    fn an_incarnation_is_32_hex_digits() {
        for incarnation in [Incarnation(0), Incarnation(u128::MAX), Incarnation(42)] {
            assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
        }
        for bad in ["", "1", "+0000000000000000000000000000002a", "0000000000000000000000000000002A"] {
            assert!(bad.parse::<Incarnation>().is_err(), "{bad}");
        }
    }
}
