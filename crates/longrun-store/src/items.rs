//! References to items, as the committer keeps them.
//!
//! | what | from | to |
//! |---|---|---|
//! | take | no item | item with a new incarnation and one reference |
//! | take | item | one reference more |
//! | take | the holder has a reference | nothing changes |
//! | drop | more than one reference | one reference less |
//! | drop | the last reference | no item; an orphan of that incarnation |
//! | confirm | item, in this life | the same, and whoever takes it from now on is told that it is there |
//! | unconfirm | item, in this life | the same, and whoever takes it from now on has to look himself |
//! | forget | orphan | nothing |
//!
//! Each change is idempotent, so a change of unknown outcome is simply repeated. It is conditional on the holder being
//! held by the operation: what rows promise and what references keep alive cannot part. References of a resource that is
//! gone, which an operator's intervention may leave, are dropped under the opposite condition: that there is no such resource.

use std::collections::BTreeSet;

use longrun_core::{Fence, Incarnation, ItemKey, OperationId, Orphan, ResourceKey};

use crate::error::StoreError;
use crate::kv::{Batch, Direction, Entry, KeyRange, Kv, Table};
use crate::layout;
use crate::read;
use crate::record::{self, Item};

/// For whom references are taken and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// With what the operation is committed: the fence of the store's owner, or that of its claim where engines share the store.
    pub fence: Fence,
    /// The operation that does it.
    pub operation: OperationId,
    /// The resource whose references they are. The operation must hold it, but where its absence is the condition.
    pub resource: ResourceKey,
}

/// A reference that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The life that the item is in.
    pub incarnation: Incarnation,
    /// Somebody who referred to it has [confirmed](crate::Store::confirm_items) that it is there.
    pub confirmed: bool,
}

/// What [`drop_references`](crate::Store::drop_references) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// References that are gone.
    pub references: usize,
    /// The holder has more of them.
    pub more: bool,
}

/// References to take.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) holder: Holder,
    pub(crate) items: Vec<ItemKey>,
    pub(crate) fresh: Incarnation,
}

/// References to drop.
#[derive(Debug)]
pub(crate) struct DropSome {
    pub(crate) holder: Holder,
    pub(crate) what: DropWhat,
    pub(crate) condition: DropIf,
}

/// Which of the holder's references to drop.
#[derive(Debug)]
pub(crate) enum DropWhat {
    /// The first so many.
    First(usize),
    /// Those to these items.
    Items(Vec<ItemKey>),
}

/// Under what condition references are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropIf {
    /// The operation holds the resource.
    Held,
    /// There is no such resource.
    ResourceGone,
}

/// Items to confirm.
#[derive(Debug)]
pub(crate) struct Confirm {
    pub(crate) holder: Holder,
    pub(crate) items: Vec<(ItemKey, Incarnation)>,
}

impl Confirm {
    pub(crate) const fn byte_len_max(&self) -> usize {
        self.items.len() * TAKE_BYTES_MAX
    }
}

/// Items that are not to count as confirmed any more.
#[derive(Debug)]
pub(crate) struct Unconfirm {
    pub(crate) fence: Fence,
    pub(crate) items: Vec<(ItemKey, Incarnation)>,
}

impl Unconfirm {
    pub(crate) const fn byte_len_max(&self) -> usize {
        self.items.len() * TAKE_BYTES_MAX
    }
}

/// What to write so that items count as confirmed, or not. One that lives in another life by now, or not at all, is passed
/// over.
pub(crate) fn mark(
    items: &[(ItemKey, Incarnation)],
    confirmed: bool,
    mut value: impl FnMut(Table, &[u8]) -> Result<Option<Vec<u8>>, StoreError>,
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for (key, incarnation) in items {
        let place = layout::item(key);
        let Some(bytes) = value(Table::Items, &place)? else { continue };
        let item = decode_item(key, &bytes)?;
        if item.incarnation == *incarnation && item.confirmed != confirmed {
            let item = Item { confirmed, ..item };
            batch.put(Table::Items, place, encode(key, record::encode_item(&item))?);
        }
    }
    Ok(batch)
}

/// Bytes that taking one reference writes, at most.
const TAKE_BYTES_MAX: usize = 640;
/// Bytes that dropping one reference writes, at most.
const DROP_BYTES_MAX: usize = 640;

impl Take {
    pub(crate) const fn byte_len_max(&self) -> usize {
        self.items.len() * TAKE_BYTES_MAX
    }

    /// What to write, and the incarnation of each item.
    pub(crate) fn perform(
        &self,
        mut value: impl FnMut(Table, &[u8], &Batch) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(Batch, Vec<Taken>), StoreError> {
        let (mut batch, mut references) = (Batch::default(), Batch::default());
        let mut taken = Vec::with_capacity(self.items.len());
        for key in &self.items {
            let reference = layout::reference(&self.holder.resource, key);
            let place = layout::item(key);
            if let Some(bytes) = value(Table::References, &reference, &references)? {
                let incarnation = decode_reference(key, &reference, &bytes)?;
                let item = value(Table::Items, &place, &batch)?;
                let item = item.map(|bytes| decode_item(key, &bytes)).transpose()?;
                let confirmed = item.is_some_and(|item| item.incarnation == incarnation && item.confirmed);
                taken.push(Taken { incarnation, confirmed });
                continue;
            }
            let item = match value(Table::Items, &place, &batch)? {
                Some(bytes) => {
                    let item = decode_item(key, &bytes)?;
                    Item { references: item.references + 1, ..item }
                }
                None => Item { incarnation: self.fresh, references: 1, confirmed: false },
            };
            batch.put(Table::Items, place, encode(key, record::encode_item(&item))?);
            let life = encode(key, record::encode_reference(&reference, item.incarnation))?;
            references.put(Table::References, reference, life);
            taken.push(Taken { incarnation: item.incarnation, confirmed: item.confirmed });
        }
        // All items before all references, so that no part of the batch looks whole.
        batch.writes.extend(references.writes);
        Ok((batch, taken))
    }
}

impl DropSome {
    /// Bytes that it writes, at most.
    pub(crate) fn byte_len_max(&self, bytes_max: usize) -> usize {
        match &self.what {
            // Makes itself as small as it has to be.
            DropWhat::First(_) => bytes_max.min(1),
            DropWhat::Items(items) => items.len() * DROP_BYTES_MAX,
        }
    }

    /// The references to drop, and whether there are more. As many as fit a batch.
    fn find(&self, kv: &dyn Kv, bytes_max: usize) -> Result<(Vec<Entry>, bool), StoreError> {
        match &self.what {
            DropWhat::First(limit) => {
                let limit = (*limit).clamp(1, (bytes_max / DROP_BYTES_MAX).clamp(1, read::SCAN_ENTRIES));
                let range = KeyRange::prefix(&layout::references_prefix(&self.holder.resource));
                let mut found = kv.scan(Table::References, &range, Direction::Forward, limit + 1)?;
                let more = found.len() > limit;
                found.truncate(limit);
                Ok((found, more))
            }
            DropWhat::Items(items) => {
                let items: BTreeSet<_> = items.iter().collect();
                let mut found = Vec::with_capacity(items.len());
                for item in items {
                    let reference = layout::reference(&self.holder.resource, item);
                    found.extend(kv.get(Table::References, &reference)?.map(|bytes| (reference, bytes)));
                }
                Ok((found, false))
            }
        }
    }

    /// What to write, and what that does. Called when nothing waits to be written.
    pub(crate) fn perform(&self, kv: &dyn Kv, bytes_max: usize) -> Result<(Batch, Dropped), StoreError> {
        let (mut batch, mut items) = (Batch::default(), Batch::default());
        let prefix = layout::references_prefix(&self.holder.resource);
        let (found, more) = self.find(kv, bytes_max)?;
        let references = found.len();
        for entry in found {
            batch.remove(Table::References, entry.0.clone());
            self.drop_one(kv, &prefix, entry, &mut items)?;
        }
        batch.writes.extend(items.writes);
        Ok((batch, Dropped { references, more }))
    }

    fn drop_one(
        &self,
        kv: &dyn Kv,
        prefix: &[u8],
        (reference, bytes): Entry,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let key = layout::parse_item(reference.get(prefix.len()..).unwrap_or_default()).map_err(|error| {
            StoreError::unreadable(format!("a reference of {}", self.holder.resource), error)
        })?;
        let incarnation = decode_reference(&key, &reference, &bytes)?;
        let place = layout::item(&key);
        let item = kv.get(Table::Items, &place)?.map(|bytes| decode_item(&key, &bytes)).transpose()?;
        match item {
            Some(item) if item.incarnation == incarnation && item.references > 1 => {
                let item = Item { references: item.references - 1, ..item };
                batch.put(Table::Items, place, encode(&key, record::encode_item(&item))?);
            }
            Some(item) if item.incarnation == incarnation => {
                batch.remove(Table::Items, place);
                let orphan = Orphan { operation: self.holder.operation, incarnation, item: key.clone() };
                let orphan = layout::orphan(&orphan);
                let life = encode(&key, record::encode_reference(&orphan, incarnation))?;
                batch.put(Table::Orphans, orphan, life);
            }
            _ => {
                return Err(StoreError::Corrupt {
                    subject: key.to_string(),
                    cause: "it is not the one that it is a reference to".into(),
                });
            }
        }
        Ok(())
    }
}

pub(crate) fn decode_item(key: &ItemKey, bytes: &[u8]) -> Result<Item, StoreError> {
    record::decode_item(bytes).map_err(|error| StoreError::unreadable(key.to_string(), error))
}

fn decode_reference(key: &ItemKey, reference: &[u8], bytes: &[u8]) -> Result<Incarnation, StoreError> {
    record::decode_reference(reference, bytes)
        .map_err(|error| StoreError::unreadable(format!("a reference to {key}"), error))
}

fn encode(key: &ItemKey, bytes: Result<Vec<u8>, crate::codec::CodecError>) -> Result<Vec<u8>, StoreError> {
    bytes.map_err(|error| StoreError::unreadable(key.to_string(), error))
}

#[cfg(test)]
mod tests {
    use longrun_core::limits::{ID_CHARS_MAX, ITEM_ID_BYTES_MAX, NAME_CHARS_MAX};
    use longrun_core::{IdPrefix, ItemId, ResourceId, ResourceKind, Timestamp};

    use super::*;
    use crate::memory::MemoryKv;

    const ITEMS: u8 = 20;

    fn longest_kind(letter: &str) -> ResourceKind {
        ResourceKind::new(letter.repeat(NAME_CHARS_MAX)).unwrap()
    }

    fn holder() -> Holder {
        let id = ResourceId::new("r".repeat(ID_CHARS_MAX)).unwrap();
        Holder {
            fence: Fence(1),
            operation: OperationId::generate(IdPrefix::new("opr").unwrap(), Timestamp::UNIX_EPOCH, 1),
            resource: ResourceKey { kind: longest_kind("h"), id },
        }
    }

    /// Commits what a change of every item writes, which has to fit into what was said before, and not by far.
    #[track_caller]
    fn fits(kv: &MemoryKv, batch: &Batch, bytes_max: usize) {
        let bytes = batch.byte_len();
        assert!(bytes < bytes_max && bytes_max <= 8 * bytes, "{bytes} bytes of {bytes_max}");
        kv.commit(batch).unwrap();
    }

    /// The committer asks before how much a change writes, so that no batch is larger than the store takes.
    #[test]
    fn no_change_writes_more_than_it_says() {
        let kv = MemoryKv::new();
        let key = |byte| {
            let id = ItemId::new([byte; ITEM_ID_BYTES_MAX]).unwrap();
            ItemKey { kind: longest_kind("i"), id }
        };
        let items: Vec<_> = (0..ITEMS).map(key).collect();
        let fresh = Incarnation(u128::MAX);
        let read = |table, key: &[u8]| Ok(kv.get(table, key)?);

        let take = Take { holder: holder(), items: items.clone(), fresh };
        let (batch, taken) = take.perform(|table, key, _| read(table, key)).unwrap();
        assert_eq!(taken.len(), items.len());
        fits(&kv, &batch, take.byte_len_max());

        let marked: Vec<_> = items.iter().map(|key| (key.clone(), fresh)).collect();
        let confirm = Confirm { holder: holder(), items: marked.clone() };
        fits(&kv, &mark(&confirm.items, true, read).unwrap(), confirm.byte_len_max());
        let unconfirm = Unconfirm { fence: Fence(1), items: marked };
        fits(&kv, &mark(&unconfirm.items, false, read).unwrap(), unconfirm.byte_len_max());

        let drop_some = DropSome { holder: holder(), what: DropWhat::Items(items), condition: DropIf::Held };
        let (batch, dropped) = drop_some.perform(&kv, usize::MAX).unwrap();
        assert_eq!((dropped.references, dropped.more), (usize::from(ITEMS), false));
        fits(&kv, &batch, drop_some.byte_len_max(usize::MAX));
    }

    /// One that drops as many as fit begins a batch of its own.
    #[test]
    fn what_makes_itself_as_small_as_it_has_to_be_drops_at_least_one() {
        let kv = MemoryKv::new();
        let items = (0..3).map(|byte| ItemKey { kind: longest_kind("i"), id: ItemId::new([byte]).unwrap() });
        let take = Take { holder: holder(), items: items.collect(), fresh: Incarnation(1) };
        let (batch, _) = take.perform(|table, key, _| Ok(kv.get(table, key)?)).unwrap();
        kv.commit(&batch).unwrap();
        for (bytes_max, references, more) in
            [(1, 1, true), (2 * DROP_BYTES_MAX, 2, true), (usize::MAX, 3, false)]
        {
            let drop_some = DropSome { holder: holder(), what: DropWhat::First(9), condition: DropIf::Held };
            assert_eq!(drop_some.byte_len_max(bytes_max), 1);
            let (_, dropped) = drop_some.perform(&kv, bytes_max).unwrap();
            assert_eq!(dropped, Dropped { references, more });
        }
    }

    /// S15: an item that lives in another life is not the one that the holder refers to.
    #[test]
    fn s15_a_reference_to_another_life_of_an_item_is_named() {
        let key = ItemKey { kind: longest_kind("i"), id: ItemId::new([1]).unwrap() };
        let reference = layout::reference(&holder().resource, &key);
        for references in [1, 2] {
            let (kv, mut batch) = (MemoryKv::new(), Batch::default());
            let item = Item { incarnation: Incarnation(2), references, confirmed: true };
            batch.put(Table::Items, layout::item(&key), record::encode_item(&item).unwrap());
            let life = record::encode_reference(&reference, Incarnation(1)).unwrap();
            batch.put(Table::References, reference.clone(), life);
            kv.commit(&batch).unwrap();
            let what = DropWhat::Items(vec![key.clone()]);
            let drop_some = DropSome { holder: holder(), what, condition: DropIf::Held };
            let error = drop_some.perform(&kv, usize::MAX).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        }
    }
}
