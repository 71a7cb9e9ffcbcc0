//! Reading from a [`Kv`]: the other side of [`layout`] and [`record`].

use std::ops::Bound;

use longrun_core::limits::PAGE_SIZE_MAX;
use longrun_core::{Entry, Execution, OperationId, ResourceKey, Revision, Row, Timestamp};

use crate::codec::CodecError;
use crate::error::StoreError;
use crate::gate::Reading;
use crate::kv::{self, Batch, Direction, KeyRange, Kv, Table};
use crate::layout;
use crate::record::{self, Head};
use crate::store::{Due, LedgerEntry, Position, Purge, Purged, Slice};

/// Entries that are read at once.
const SCAN_ENTRIES: usize = 512;
/// Readings of an operation that keeps changing while it is read, before giving up.
const LOADS_MAX: usize = 100;

fn subject(id: OperationId) -> String {
    format!("operation {id}")
}

fn head(kv: &dyn Kv, id: OperationId) -> Result<Option<Head>, StoreError> {
    let bytes = kv.get(Table::Operations, &layout::operation(id))?;
    bytes
        .map(|bytes| Head::decode(&bytes).map_err(|error| StoreError::unreadable(subject(id), error)))
        .transpose()
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
        for (_, bytes) in &found {
            entries.push(
                record::decode_entry(bytes).map_err(|error| StoreError::unreadable(subject(id), error))?,
            );
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

fn restored(
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

/// Called by the committer, between its writes.
pub(crate) fn tip(kv: &dyn Kv, id: OperationId) -> Result<Option<StoredTip>, StoreError> {
    let last = kv.scan(Table::Journal, &KeyRange::prefix(id.as_bytes()), Direction::Backward, 1)?;
    if let Some((_, bytes)) = last.first() {
        let entry =
            record::decode_entry(bytes).map_err(|error| StoreError::unreadable(subject(id), error))?;
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
    let range = KeyRange { from, to: Bound::Excluded(layout::timed_end(until)) };
    let found = kv.scan(Table::Due, &range, Direction::Forward, limit)?;
    found
        .iter()
        .map(|(key, _)| match layout::parse_timed(key) {
            Ok((at, id)) => Ok(Due { at, id }),
            Err(error) => Err(StoreError::unreadable("the index of due operations", error)),
        })
        .collect()
}

pub(crate) fn row(kv: &dyn Kv, key: &ResourceKey) -> Result<Option<Row>, StoreError> {
    let bytes = kv.get(Table::Resources, &layout::resource(key))?;
    bytes
        .map(|bytes| {
            record::decode_row(&bytes).map_err(|error| StoreError::unreadable(key.to_string(), error))
        })
        .transpose()
}

pub(crate) fn ledger(kv: &dyn Kv, digest: &[u8; 32]) -> Result<Option<LedgerEntry>, StoreError> {
    let bytes = kv.get(Table::Idempotency, digest)?;
    bytes
        .map(|bytes| {
            record::decode_ledger(&bytes).map_err(|error| StoreError::unreadable("an idempotency key", error))
        })
        .transpose()
}

/// Walks the keys under a prefix after a position, and gives out what `item` makes of each.
///
/// A position is a key without the prefix. `item` gives `None` for what does not belong to the list: such a key is
/// passed over, but counts against the work that one call may do, so a slice may be short.
pub(crate) fn slice<T>(
    kv: &dyn Kv,
    (table, prefix, direction): (Table, &[u8], Direction),
    after: Option<&Position>,
    limit: usize,
    mut item: impl FnMut(&[u8]) -> Result<Option<T>, StoreError>,
) -> Result<Slice<T>, StoreError> {
    let mut range = KeyRange::prefix(prefix);
    let after = after.map(|Position(rest)| [prefix, rest].concat());
    let limit = limit.clamp(1, PAGE_SIZE_MAX);
    let mut last: Option<kv::Entry> = None;
    match (direction, after) {
        (_, None) => {}
        (Direction::Forward, Some(key)) => range.from = Bound::Excluded(key),
        (Direction::Backward, Some(key)) => range.to = Bound::Excluded(key),
    }
    // One more than wanted tells whether anything follows.
    let mut found = kv.scan(table, &range, direction, limit + 1)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let mut items = Vec::with_capacity(found.len());
    for (key, value) in found {
        let rest = key.get(prefix.len()..).unwrap_or_default();
        items.extend(item(rest)?);
        last = Some((key, value));
    }
    let position = last.map(|(key, _)| Position(key.get(prefix.len()..).unwrap_or_default().to_vec()));
    Ok(Slice { items, next: position.filter(|_| more) })
}

/// What a purge has to remove. Called by the committer, between its writes.
pub(crate) fn purge(kv: &dyn Kv, purge: &Purge) -> Result<(Batch, Purged), StoreError> {
    let mut batch = Batch::default();
    let mut purged = Purged::default();
    let limit = purge.limit.max(1);
    let range = KeyRange { from: Bound::Unbounded, to: Bound::Excluded(layout::timed_end(purge.done_until)) };
    let mut bytes_left = kv.capabilities().batch_bytes_max / 2;
    // An unreadable record stays where it is; look past as many as may be in the way.
    for (key, _) in kv.scan(Table::Finished, &range, Direction::Forward, limit.saturating_mul(2))? {
        if purged.operations == limit || bytes_left == 0 {
            purged.more = true;
            break;
        }
        let (_, id) = layout::parse_timed(&key)
            .map_err(|error| StoreError::unreadable("the index of finished operations", error))?;
        match head(kv, id) {
            Ok(Some(head)) => {
                let before = batch.byte_len();
                purge_operation(kv, &mut batch, &head, key, purge)?;
                bytes_left = bytes_left.saturating_sub(batch.byte_len() - before);
                purged.operations += 1;
            }
            Ok(None) => batch.remove(Table::Finished, key),
            Err(StoreError::Unavailable(cause)) => return Err(StoreError::Unavailable(cause)),
            Err(_) => purged.unreadable += 1,
        }
    }
    let range = KeyRange { from: Bound::Unbounded, to: Bound::Excluded(layout::timed_end(purge.now)) };
    let expired = kv.scan(Table::IdempotencyExpiry, &range, Direction::Forward, limit)?;
    purged.more |= expired.len() == limit;
    for (key, _) in expired {
        let digest = layout::parse_expiry(&key)
            .map_err(|error| StoreError::unreadable("the index of idempotency keys", error))?;
        batch.remove(Table::Idempotency, digest.to_vec());
        batch.remove(Table::IdempotencyExpiry, key);
        purged.keys += 1;
    }
    Ok((batch, purged))
}

fn purge_operation(
    kv: &dyn Kv,
    batch: &mut Batch,
    head: &Head,
    finished_key: Vec<u8>,
    purge: &Purge,
) -> Result<(), StoreError> {
    let header = head.header();
    let id = header.id;
    batch.remove(Table::Operations, layout::operation(id));
    batch.remove(Table::Finished, finished_key);
    for key in &header.resources {
        batch.remove(Table::ByResource, layout::by_resource(key, id));
    }
    let Some(digest) = header.idempotency else { return Ok(()) };
    // The key goes on being known for its own time: a late repeat must not start the work again (C15).
    if let Some(entry) = ledger(kv, &digest)? {
        let entry = LedgerEntry { expires_at: Some(purge.keys_expire_at), ..entry };
        let unencodable = |error: CodecError| StoreError::unreadable("an idempotency key", error);
        batch.put(Table::Idempotency, digest.to_vec(), record::encode_ledger(&entry).map_err(unencodable)?);
        batch.put(Table::IdempotencyExpiry, layout::expiry(purge.keys_expire_at, &digest), Vec::new());
    }
    Ok(())
}
