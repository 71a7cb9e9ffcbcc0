//! Reading from a [`Kv`]: the other side of [`layout`] and [`record`].

use std::ops::Bound;

use longrun_core::limits::PAGE_SIZE_MAX;
use longrun_core::{Entry, Execution, ItemKey, OperationId, Orphan, ResourceKey, Revision, Row, Timestamp};

use crate::codec::CodecError;
use crate::error::StoreError;
use crate::gate::Reading;
use crate::kv::{Batch, Direction, KeyRange, Kv, Table};
use crate::layout;
use crate::record::{self, Head};
use crate::store::{Due, LedgerEntry, Position, Purge, Purged, Slice};

/// Entries that are read at once.
pub(crate) const SCAN_ENTRIES: usize = 512;
/// Entries of a list that are read at once.
const SLICE_ENTRIES: usize = 64;
/// Most operations, and most idempotency entries, that one purge removes.
const PURGE_MAX: usize = 10_000;
/// Bytes of keys and values in the batch of one purge, nearly.
const PURGE_BYTES_MAX: usize = 1 << 20;
/// Readings of an operation that keeps changing while it is read, before giving up.
const LOADS_MAX: usize = 100;

pub(crate) fn subject(id: OperationId) -> String {
    format!("operation {id}")
}

fn head(kv: &dyn Kv, id: OperationId) -> Result<Option<Head>, StoreError> {
    let record = kv.get(Table::Operations, &layout::operation(id))?;
    record.map(|record| checked_head(id, record)).transpose()
}

/// The head of an operation, from what lies under its key.
pub(crate) fn checked_head(id: OperationId, record: Vec<u8>) -> Result<Head, StoreError> {
    let head = Head::decode(&record.into()).map_err(|error| StoreError::unreadable(subject(id), error))?;
    // A checksum does not see a record that lies under a damaged key.
    if head.header().id == id { Ok(head) } else { Err(misplaced(subject(id))) }
}

fn misplaced(subject: String) -> StoreError {
    StoreError::unreadable(subject, CodecError::Content("it lies under another key".to_owned()))
}

/// Every entry of a range, oldest first.
fn entries(kv: &dyn Kv, id: OperationId) -> Result<Vec<Entry>, StoreError> {
    let mut range = KeyRange::prefix(id.as_bytes());
    let mut entries = Vec::new();
    loop {
        let found = kv.scan(Table::Journal, &range, Direction::Forward, SCAN_ENTRIES)?;
        let Some((last, _)) = found.last() else { return Ok(entries) };
        range.from = Bound::Excluded(last.clone());
        let is_last = found.len() < SCAN_ENTRIES;
        for (key, record) in found {
            let entry = record::decode_entry(&record.into());
            let entry = entry.map_err(|error| StoreError::unreadable(subject(id), error))?;
            if key != layout::journal(id, entry.first) {
                return Err(misplaced(subject(id)));
            }
            entries.push(entry);
        }
        if is_last {
            return Ok(entries);
        }
    }
}

/// The operation, as one commit left it.
///
/// Head and journal are two readings, and a scan need not be of one instant. So what was read is taken only if no
/// write came in between, or if the head is still the same (an operation's end replaces the head and removes the
/// journal in one batch) and the entries follow each other without a gap.
pub(crate) fn operation(
    kv: &dyn Kv,
    id: OperationId,
    reading: &Reading<'_>,
) -> Result<Option<Execution>, StoreError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(head) = head(kv, id)? else { return Ok(None) };
        if matches!(head, Head::Finished { .. }) {
            return restored(id, head.restore(Vec::new())).map(Some);
        }
        let entries = entries(kv, id);
        let undisturbed = reading.is_still();
        let ended_meanwhile =
            !undisturbed && matches!(self::head(kv, id)?, None | Some(Head::Finished { .. }));
        if ended_meanwhile {
            continue;
        }
        let result = entries.and_then(|entries| restored(id, head.restore(entries)));
        if result.is_ok() || undisturbed || tries >= LOADS_MAX {
            return result.map(Some);
        }
    }
}

/// The same with its head already read: of one that is done, that is all.
pub(crate) fn operation_of(
    kv: &dyn Kv,
    id: OperationId,
    record: Vec<u8>,
    reading: &Reading<'_>,
) -> Result<Option<Execution>, StoreError> {
    let head = checked_head(id, record)?;
    match head {
        Head::Finished { .. } => restored(id, head.restore(Vec::new())).map(Some),
        Head::Active { .. } => operation(kv, id, reading),
    }
}

pub(crate) fn restored(
    id: OperationId,
    result: Result<Execution, longrun_core::Inconsistent>,
) -> Result<Execution, StoreError> {
    result.map_err(|error| StoreError::Corrupt { subject: subject(id), cause: error.into() })
}

/// Where an operation stands, without reading all of it.
pub(crate) enum StoredTip {
    Active(Revision),
    Done,
}

/// Whether there is a head. Without one there is no journal: both are written and removed together.
pub(crate) fn is_there(kv: &dyn Kv, id: OperationId) -> Result<bool, StoreError> {
    Ok(kv.get(Table::Operations, &layout::operation(id))?.is_some())
}

/// Called by the committer, between its writes.
pub(crate) fn tip(kv: &dyn Kv, id: OperationId) -> Result<Option<StoredTip>, StoreError> {
    let last = kv.scan(Table::Journal, &KeyRange::prefix(id.as_bytes()), Direction::Backward, 1)?;
    if let Some((_, record)) = last.into_iter().next() {
        let entry = record::decode_entry(&record.into());
        let entry = entry.map_err(|error| StoreError::unreadable(subject(id), error))?;
        return Ok(Some(StoredTip::Active(entry.revision)));
    }
    Ok(head(kv, id)?.map(|head| match head {
        Head::Active { first, .. } => StoredTip::Active(first.revision),
        Head::Finished { .. } => StoredTip::Done,
    }))
}

pub(crate) fn due(
    kv: &dyn Kv,
    until: Timestamp,
    after: Option<Due>,
    limit: usize,
) -> Result<Vec<Due>, StoreError> {
    let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(layout::timed(after.at, after.id)));
    let mut range = KeyRange { from, to: Bound::Excluded(layout::timed_end(until)) };
    let mut all = Vec::new();
    loop {
        let wanted = limit - all.len();
        let found = kv.scan(Table::Due, &range, Direction::Forward, wanted)?;
        for (key, _) in &found {
            match layout::parse_timed(key) {
                Ok((at, id)) => all.push(Due { at, id }),
                // One damaged key must not keep all others from being worked on (C18).
                Err(error) => {
                    tracing::error!(%error, ?key, "a key in the index of due operations is damaged");
                }
            }
        }
        match found.last() {
            Some((last, _)) if found.len() == wanted && all.len() < limit => {
                range.from = Bound::Excluded(last.clone());
            }
            _ => return Ok(all),
        }
    }
}

pub(crate) fn row(kv: &dyn Kv, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
    let record = kv.get(Table::Resources, &layout::resource(key))?;
    record.map(|record| checked_row(key, record)).transpose()
}

/// The row of `key`, from what lies under it.
pub(crate) fn checked_row(key: &ResourceKey, record: Vec<u8>) -> Result<Row, StoreError> {
    let row = record::decode_row(&record.into());
    let row = row.map_err(|error| StoreError::unreadable(key.to_string(), error))?;
    if row.key == *key { Ok(row) } else { Err(misplaced(key.to_string())) }
}

pub(crate) fn ledger(kv: &dyn Kv, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
    let bytes = kv.get(Table::Idempotency, digest)?;
    bytes
        .map(|bytes| {
            record::decode_ledger(&bytes).map_err(|error| StoreError::unreadable("an idempotency key", error))
        })
        .transpose()
}

/// Orphans in the order of their keys.
pub(crate) fn orphans(
    kv: &dyn Kv,
    of: Option<OperationId>,
    after: Option<&Orphan>,
    limit: usize,
) -> Result<Vec<Orphan>, StoreError> {
    let mut range = KeyRange::prefix(of.as_ref().map_or(&[][..], |id| id.as_bytes()));
    if let Some(after) = after {
        range.from = Bound::Excluded(layout::orphan(after));
    }
    let found = kv.scan(Table::Orphans, &range, Direction::Forward, limit.clamp(1, PAGE_SIZE_MAX))?;
    let parsed = found.iter().filter_map(|(key, value)| {
        // One damaged key must not keep all others from being removed (C18).
        let damaged =
            |error: &CodecError| tracing::error!(%error, ?key, "a key in the table of orphans is damaged");
        record::decode_reference(key, value).and_then(|_| layout::parse_orphan(key)).inspect_err(damaged).ok()
    });
    Ok(parsed.collect())
}

/// The items that a resource refers to, in the order of their keys.
pub(crate) fn references(
    kv: &dyn Kv,
    of: &ResourceKey,
    after: Option<&ItemKey>,
    limit: usize,
) -> Result<Vec<ItemKey>, StoreError> {
    let prefix = layout::references_prefix(of);
    let mut range = KeyRange::prefix(&prefix);
    if let Some(after) = after {
        range.from = Bound::Excluded(layout::reference(of, after));
    }
    let found = kv.scan(Table::References, &range, Direction::Forward, limit.clamp(1, PAGE_SIZE_MAX))?;
    let item = |(key, _): &(Vec<u8>, Vec<u8>)| {
        layout::parse_item(key.get(prefix.len()..).unwrap_or_default())
            .map_err(|error| StoreError::unreadable(format!("a reference of {of}"), error))
    };
    found.iter().map(item).collect()
}

/// The resources that have references, in the order of their keys: one look into the table for each.
pub(crate) fn reference_holders(
    kv: &dyn Kv,
    after: Option<&ResourceKey>,
    limit: usize,
) -> Result<Vec<ResourceKey>, StoreError> {
    let mut range = KeyRange::prefix(b"");
    if let Some(after) = after {
        range.from = Bound::Included(layout::references_end(after));
    }
    let mut holders = Vec::new();
    while holders.len() < limit.clamp(1, PAGE_SIZE_MAX) {
        let found = kv.scan(Table::References, &range, Direction::Forward, 1)?;
        let Some((key, _)) = found.first() else { break };
        match layout::holder_in(key) {
            Ok(holder) => {
                range.from = Bound::Included(layout::references_end(&holder));
                holders.push(holder);
            }
            // One damaged key must not keep all others from being found (C18).
            Err(error) => {
                tracing::error!(%error, ?key, "a key in the table of references is damaged");
                range.from = Bound::Excluded(key.clone());
            }
        }
    }
    Ok(holders)
}

/// Walks the keys under a prefix after a position, and gives out what `item` makes of each.
///
/// A position is a key without the prefix. `item` gives `None` for what does not belong to the list: such a key is
/// passed over, but counts against the work that one call may do, so a slice may be short. So is an item that cannot
/// be read: it is reported, and whoever asks for it by name is told why (C18).
pub(crate) fn slice<T>(
    kv: &dyn Kv,
    (table, prefix, direction): (Table, &[u8], Direction),
    after: Option<&Position>,
    limit: usize,
    mut item: impl FnMut(&[u8], Vec<u8>) -> Result<Option<T>, StoreError>,
) -> Result<Slice<T>, StoreError> {
    let mut range = KeyRange::prefix(prefix);
    let beyond = |range: &mut KeyRange, key| match direction {
        Direction::Forward => range.from = Bound::Excluded(key),
        Direction::Backward => range.to = Bound::Excluded(key),
    };
    if let Some(Position(rest)) = after {
        beyond(&mut range, [prefix, rest].concat());
    }
    let limit = limit.clamp(1, PAGE_SIZE_MAX);
    let (mut items, mut looked_at, mut last) = (Vec::new(), 0, None);
    let position = |last: Option<Vec<u8>>| {
        last.map(|key: Vec<u8>| Position(key.get(prefix.len()..).unwrap_or_default().to_vec()))
    };
    loop {
        // A scan gives values too, and those of some tables are large: so a few at a time, and one more than wanted, which
        // tells whether anything follows.
        let wanted = (limit - looked_at).min(SLICE_ENTRIES);
        let mut found = kv.scan(table, &range, direction, wanted + 1)?;
        let more = found.len() > wanted;
        found.truncate(wanted);
        looked_at += found.len();
        for (key, value) in found {
            match item(key.get(prefix.len()..).unwrap_or_default(), value) {
                Ok(item) => items.extend(item),
                Err(StoreError::Unavailable(cause)) => return Err(StoreError::Unavailable(cause)),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    tracing::error!(%error, cause, table = table.name(), "left out of a list");
                }
            }
            last = Some(key);
        }
        match &last {
            Some(key) if more && looked_at < limit => beyond(&mut range, key.clone()),
            _ => return Ok(Slice { items, next: position(last).filter(|_| more) }),
        }
    }
}

/// What a purge has to remove. Called by the committer, between its writes.
pub(crate) fn purge(kv: &dyn Kv, purge: &Purge) -> Result<(Batch, Purged), StoreError> {
    let mut gathered =
        Gathered { batch: Batch::default(), purged: Purged::default(), bytes: 0, bytes_max: purge_bytes(kv) };
    let limit = purge.limit.clamp(1, PURGE_MAX);
    let until = |at| KeyRange { from: Bound::Unbounded, to: Bound::Excluded(layout::timed_end(at)) };
    let operations = match purge.only {
        Some(id) => place_of_finished(kv, id, purge.done_until)?,
        None => until(purge.done_until),
    };
    let all_operations = walk(kv, Table::Finished, operations, &mut |key| {
        if gathered.purged.operations >= limit || gathered.is_full() {
            return Ok(false);
        }
        let removed = purge_operation(kv, &key, purge)?;
        gathered.take(removed, |purged| &mut purged.operations);
        Ok(true)
    })?;
    let all_keys = walk(kv, Table::IdempotencyExpiry, until(purge.now), &mut |key| {
        if gathered.purged.keys >= limit || gathered.is_full() {
            return Ok(false);
        }
        let removed = purge_key(kv, &key)?;
        gathered.take(removed, |purged| &mut purged.keys);
        Ok(true)
    })?;
    gathered.purged.more = !(all_operations && all_keys);
    Ok((gathered.batch, gathered.purged))
}

/// The place of one operation among those that are done; an empty range if it has none, or was done later.
fn place_of_finished(kv: &dyn Kv, id: OperationId, done_until: Timestamp) -> Result<KeyRange, StoreError> {
    let key = match head(kv, id)? {
        Some(Head::Finished { modified_at, .. }) if modified_at <= done_until => {
            layout::timed(modified_at, id)
        }
        _ => Vec::new(),
    };
    Ok(KeyRange { from: Bound::Included(key.clone()), to: Bound::Included(key) })
}

/// One batch holds no more than half of what the backend takes, and never so much that commits wait long for it.
fn purge_bytes(kv: &dyn Kv) -> usize {
    PURGE_BYTES_MAX.min(kv.capabilities().batch_bytes_max / 2).max(1)
}

/// What becomes of one entry that a purge comes to.
enum Removal {
    /// These are its writes.
    Counted(Batch),
    /// It stood for nothing; this takes it away.
    Leftover(Batch),
    /// It cannot be read, or does not agree with its record. It stays.
    Unreadable,
}

struct Gathered {
    batch: Batch,
    purged: Purged,
    bytes: usize,
    bytes_max: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    fn take(&mut self, removal: Removal, count: impl Fn(&mut Purged) -> &mut usize) {
        let batch = match removal {
            Removal::Counted(batch) => {
                *count(&mut self.purged) += 1;
                batch
            }
            Removal::Leftover(batch) => batch,
            Removal::Unreadable => {
                self.purged.unreadable += 1;
                return;
            }
        };
        self.bytes += batch.byte_len();
        self.batch.writes.extend(batch.writes);
    }
}

/// Shows the keys of a range one by one, until `see` has seen enough; true when it has seen all.
fn walk(
    kv: &dyn Kv,
    table: Table,
    mut range: KeyRange,
    see: &mut dyn FnMut(Vec<u8>) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    loop {
        let found = kv.scan(table, &range, Direction::Forward, SCAN_ENTRIES)?;
        let Some((last, _)) = found.last() else { return Ok(true) };
        range.from = Bound::Excluded(last.clone());
        let is_last = found.len() < SCAN_ENTRIES;
        for (key, _) in found {
            if !see(key)? {
                return Ok(false);
            }
        }
        if is_last {
            return Ok(true);
        }
    }
}

fn purge_operation(kv: &dyn Kv, finished_key: &[u8], purge: &Purge) -> Result<Removal, StoreError> {
    let mut batch = Batch::default();
    batch.remove(Table::Finished, finished_key.to_vec());
    let Ok((at, id)) = layout::parse_timed(finished_key) else { return Ok(Removal::Unreadable) };
    let header = match head(kv, id) {
        Ok(None) => return Ok(Removal::Leftover(batch)),
        // What the record says counts: it may not be done, or not so long ago (C20).
        Ok(Some(Head::Finished { header, modified_at, .. })) if modified_at == at => header,
        Err(StoreError::Unavailable(cause)) => return Err(StoreError::Unavailable(cause)),
        Ok(Some(_)) | Err(_) => return Ok(Removal::Unreadable),
    };
    batch.remove(Table::Operations, layout::operation(id));
    for key in &header.resources {
        batch.remove(Table::ByResource, layout::by_resource(key, id));
    }
    let Some(digest) = header.idempotency else { return Ok(Removal::Counted(batch)) };
    // The key goes on being known for its own time: a late repeat must not start the work again (C15).
    match ledger(kv, &digest) {
        Ok(Some(entry)) if entry.operation == id => {
            let entry = LedgerEntry { expires_at: Some(purge.keys_expire_at), ..entry };
            let unencodable = |error: CodecError| StoreError::unreadable("an idempotency key", error);
            let bytes = record::encode_ledger(&entry).map_err(unencodable)?;
            batch.put(Table::Idempotency, digest.to_vec(), bytes);
            batch.put(Table::IdempotencyExpiry, layout::expiry(purge.keys_expire_at, &digest), Vec::new());
        }
        Ok(_) => {}
        Err(StoreError::Unavailable(cause)) => return Err(StoreError::Unavailable(cause)),
        Err(_) => return Ok(Removal::Unreadable),
    }
    Ok(Removal::Counted(batch))
}

fn purge_key(kv: &dyn Kv, expiry_key: &[u8]) -> Result<Removal, StoreError> {
    let mut batch = Batch::default();
    batch.remove(Table::IdempotencyExpiry, expiry_key.to_vec());
    let Ok((at, digest)) = layout::parse_expiry(expiry_key) else { return Ok(Removal::Unreadable) };
    match ledger(kv, &digest) {
        Ok(None) => Ok(Removal::Leftover(batch)),
        Ok(Some(entry)) if entry.expires_at == Some(at) => {
            batch.remove(Table::Idempotency, digest.to_vec());
            Ok(Removal::Counted(batch))
        }
        Err(StoreError::Unavailable(cause)) => Err(StoreError::Unavailable(cause)),
        Ok(Some(_)) | Err(_) => Ok(Removal::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use longrun_core::IdPrefix;

    use super::*;
    use crate::kv::Batch;
    use crate::memory::MemoryKv;

    /// C18: however many keys among them are damaged, those who are due are found, and as many as were asked for.
    #[test]
    fn c18_damaged_keys_take_no_place_among_what_is_due() {
        let (kv, mut batch, mut all) = (MemoryKv::new(), Batch::default(), Vec::new());
        for second in 0..9 {
            let at = Timestamp::from_unix_millis(second * 1000).unwrap();
            let id = OperationId::generate(IdPrefix::new("opr").unwrap(), at, 1);
            let mut key = layout::timed(at, id);
            if second % 3 == 1 {
                key.push(b'!');
            } else {
                all.push(Due { at, id });
            }
            batch.put(Table::Due, key, Vec::new());
        }
        kv.commit(&batch).unwrap();
        assert_eq!(all.len(), 6);
        for limit in 1..=7 {
            let found = due(&kv, Timestamp::MAX, None, limit).unwrap();
            assert_eq!(found, all[..limit.min(6)], "{limit}");
            let found = due(&kv, Timestamp::MAX, Some(all[1]), limit).unwrap();
            assert_eq!(found, all[2..(2 + limit).min(6)], "{limit} after the second");
        }
    }
}
