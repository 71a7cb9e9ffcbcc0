//! The key layout, on one page.
//!
//! | table | key | value |
//! |---|---|---|
//! | meta | `format` | version of this layout |
//! | meta | `epoch` | the last epoch that was handed out |
//! | meta | `page-secret` | 32 bytes that authenticate page tokens |
//! | operations | id | head: header and plan and first entry; or, once done, header and result |
//! | journal | id, first revision | what happened since, one entry a commit |
//! | due | time, id | – |
//! | finished | time, id | – |
//! | by_resource | kind, 0, resource id, 0, id | – |
//! | resources | kind, 0, resource id | row |
//! | by_parent | kind, 0, parent id, 0, resource id | – |
//! | by_name | kind, 0, parent id, 0, name, 0, resource id | – |
//! | by_creation | kind, 0, parent id, 0, time, resource id | – |
//! | idempotency | digest | operation, fingerprint, expiry |
//! | idempotency_expiry | time, digest | – |
//! | references | kind, 0, resource id, 0, item kind, 0, item id | incarnation |
//! | items | item kind, 0, item id | incarnation, number of references |
//! | orphans | operation id, incarnation, item kind, 0, item id | incarnation |
//!
//! Numbers and times are 8 bytes, big endian, times offset so that they order as bytes. An operation id is 20
//! characters and orders by time. Ids, kinds and names never contain the byte 0 that ends them; item ids may, and stand last.
//! A name is cut to what fits a page token beside the id. A key alone is enough to find all that belongs together by
//! prefix; no key is ever encoded by a library.

use longrun_core::{
    Incarnation, ItemId, ItemKey, OperationId, Orphan, ResourceId, ResourceKey, ResourceKind, Revision, Row,
    Timestamp,
};

use longrun_core::limits::ID_CHARS_MAX;

use crate::codec::CodecError;
use crate::page;

/// The version of the layout and of all record forms. A store of a newer one is refused.
pub const FORMAT_VERSION: u64 = 1;

pub(crate) const META_FORMAT: &[u8] = b"format";
pub(crate) const META_EPOCH: &[u8] = b"epoch";
pub(crate) const META_PAGE_SECRET: &[u8] = b"page-secret";

const TIME_BYTES: usize = 8;
const SEPARATOR: u8 = 0;

pub(crate) fn operation(id: OperationId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

pub(crate) fn journal(id: OperationId, first: Revision) -> Vec<u8> {
    [id.as_bytes().as_slice(), &first.0.to_be_bytes()].concat()
}

/// The sign bit flipped, so that times before 1970 come first.
fn time(at: Timestamp) -> [u8; TIME_BYTES] {
    (at.unix_micros() ^ i64::MIN).to_be_bytes()
}

fn parse_time(bytes: [u8; TIME_BYTES]) -> Result<Timestamp, CodecError> {
    Timestamp::from_unix_micros(i64::from_be_bytes(bytes) ^ i64::MIN)
        .map_err(|error| CodecError::Content(error.to_string()))
}

/// A key of `due` or `finished`.
pub(crate) fn timed(at: Timestamp, id: OperationId) -> Vec<u8> {
    [time(at).as_slice(), id.as_bytes()].concat()
}

pub(crate) fn parse_timed(key: &[u8]) -> Result<(Timestamp, OperationId), CodecError> {
    let (at, id) = key.split_first_chunk().ok_or(CodecError::Length)?;
    Ok((parse_time(*at)?, parse_operation(id)?))
}

/// Every key of `due` or `finished` at or before a time is below this.
pub(crate) fn timed_end(until: Timestamp) -> Vec<u8> {
    // One more than `Timestamp::MAX` is no timestamp, but it is a key.
    ((until.unix_micros() + 1) ^ i64::MIN).to_be_bytes().to_vec()
}

pub(crate) fn parse_operation(bytes: &[u8]) -> Result<OperationId, CodecError> {
    let text = std::str::from_utf8(bytes).map_err(|error| CodecError::Content(error.to_string()))?;
    OperationId::parse(text).map_err(|error| CodecError::Content(error.to_string()))
}

pub(crate) fn resource(key: &ResourceKey) -> Vec<u8> {
    let mut bytes = key.kind.as_str().as_bytes().to_vec();
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(key.id.as_str().as_bytes());
    bytes
}

pub(crate) fn by_resource_prefix(key: &ResourceKey) -> Vec<u8> {
    let mut bytes = resource(key);
    bytes.push(SEPARATOR);
    bytes
}

pub(crate) fn by_resource(key: &ResourceKey, id: OperationId) -> Vec<u8> {
    let mut bytes = by_resource_prefix(key);
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

pub(crate) fn by_parent_prefix(kind: &ResourceKind, parent: &ResourceId) -> Vec<u8> {
    let mut bytes = kind.as_str().as_bytes().to_vec();
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(parent.as_str().as_bytes());
    bytes.push(SEPARATOR);
    bytes
}

pub(crate) fn by_parent(key: &ResourceKey, parent: &ResourceId) -> Vec<u8> {
    let mut bytes = by_parent_prefix(&key.kind, parent);
    bytes.extend_from_slice(key.id.as_str().as_bytes());
    bytes
}

/// The name of a row as far as it counts for the order: a page token has to hold it, with the id.
pub(crate) fn sort_name<'a>(name: &'a str, id: &ResourceId) -> &'a str {
    let mut end = name.len();
    let fits =
        |end: usize| page::fits(&[&name.as_bytes()[..end], &[SEPARATOR], id.as_str().as_bytes()].concat());
    while end > 0 && !(name.is_char_boundary(end) && fits(end)) {
        end -= 1;
    }
    &name[..end]
}

pub(crate) fn by_name(row: &Row) -> Vec<u8> {
    let mut bytes = by_parent_prefix(&row.key.kind, &row.parent);
    bytes.extend_from_slice(sort_name(&row.name, &row.key.id).as_bytes());
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(row.key.id.as_str().as_bytes());
    bytes
}

/// Whether the index has the name uncut, whatever the id beside it.
pub(crate) fn is_whole_in_index(name: &str) -> bool {
    let longest_id = [b'a'; ID_CHARS_MAX];
    !name.bytes().any(|byte| byte == SEPARATOR)
        && page::fits(&[name.as_bytes(), &[SEPARATOR], &longest_id].concat())
}

/// What the keys of a name begin with in `by_name`, after the parent.
pub(crate) fn name_prefix(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(SEPARATOR);
    bytes
}

/// The id at the end of a key of `by_name`.
pub(crate) fn id_after_name(rest: &[u8]) -> &[u8] {
    rest.rsplit(|byte| *byte == SEPARATOR).next().unwrap_or_default()
}

pub(crate) fn by_creation(row: &Row) -> Vec<u8> {
    let mut bytes = by_parent_prefix(&row.key.kind, &row.parent);
    bytes.extend_from_slice(&time(row.created_at));
    bytes.extend_from_slice(row.key.id.as_str().as_bytes());
    bytes
}

/// The id at the end of a key of `by_creation`.
pub(crate) fn id_after_time(rest: &[u8]) -> &[u8] {
    rest.get(TIME_BYTES..).unwrap_or_default()
}

pub(crate) fn item(key: &ItemKey) -> Vec<u8> {
    let mut bytes = key.kind.as_str().as_bytes().to_vec();
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(key.id.as_bytes());
    bytes
}

pub(crate) fn parse_item(bytes: &[u8]) -> Result<ItemKey, CodecError> {
    let end = bytes.iter().position(|byte| *byte == SEPARATOR).ok_or(CodecError::Length)?;
    let (kind, id) = bytes.split_at(end);
    let content = |error: longrun_core::Invalid| CodecError::Content(error.to_string());
    let kind = ResourceKind::new(String::from_utf8_lossy(kind)).map_err(content)?;
    Ok(ItemKey { kind, id: ItemId::new(id.get(1..).unwrap_or_default()).map_err(content)? })
}

pub(crate) fn parse_resource(bytes: &[u8]) -> Result<ResourceKey, CodecError> {
    let end = bytes.iter().position(|byte| *byte == SEPARATOR).ok_or(CodecError::Length)?;
    let (kind, id) = bytes.split_at(end);
    let content = |error: longrun_core::Invalid| CodecError::Content(error.to_string());
    let kind = ResourceKind::new(String::from_utf8_lossy(kind)).map_err(content)?;
    let id = String::from_utf8_lossy(id.get(1..).unwrap_or_default());
    Ok(ResourceKey { kind, id: ResourceId::new(id).map_err(content)? })
}

/// The holder at the beginning of a key of `references`.
pub(crate) fn holder_in(reference: &[u8]) -> Result<ResourceKey, CodecError> {
    let mut parts = reference.splitn(3, |byte| *byte == SEPARATOR);
    let (kind, id) = parts.next().zip(parts.next()).ok_or(CodecError::Length)?;
    parse_resource(&[kind, &[SEPARATOR], id].concat())
}

/// Every reference of a holder is below this, and every one of the next holder is not.
pub(crate) fn references_end(holder: &ResourceKey) -> Vec<u8> {
    let mut bytes = resource(holder);
    bytes.push(SEPARATOR + 1);
    bytes
}

pub(crate) fn references_prefix(holder: &ResourceKey) -> Vec<u8> {
    by_resource_prefix(holder)
}

pub(crate) fn reference(holder: &ResourceKey, key: &ItemKey) -> Vec<u8> {
    let mut bytes = references_prefix(holder);
    bytes.extend_from_slice(&item(key));
    bytes
}

pub(crate) fn orphan(orphan: &Orphan) -> Vec<u8> {
    let mut bytes = orphan.operation.as_bytes().to_vec();
    bytes.extend_from_slice(&orphan.incarnation.0.to_be_bytes());
    bytes.extend_from_slice(&item(&orphan.item));
    bytes
}

pub(crate) fn parse_orphan(key: &[u8]) -> Result<Orphan, CodecError> {
    let (operation, rest) = key.split_at_checked(operation_bytes()).ok_or(CodecError::Length)?;
    let (incarnation, rest) = rest.split_first_chunk().ok_or(CodecError::Length)?;
    Ok(Orphan {
        operation: parse_operation(operation)?,
        incarnation: Incarnation(u128::from_be_bytes(*incarnation)),
        item: parse_item(rest)?,
    })
}

const fn operation_bytes() -> usize {
    longrun_core::limits::OPERATION_ID_CHARS
}

pub(crate) fn expiry(at: Timestamp, digest: &[u8; 32]) -> Vec<u8> {
    [time(at).as_slice(), digest].concat()
}

pub(crate) fn parse_expiry(key: &[u8]) -> Result<(Timestamp, [u8; 32]), CodecError> {
    let (at, digest) = key.split_first_chunk::<TIME_BYTES>().ok_or(CodecError::Length)?;
    Ok((parse_time(*at)?, digest.try_into().map_err(|_| CodecError::Length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_order_as_bytes() {
        let times =
            [-1, 0, 1, 1_700_000_000_000_000].map(|micros| Timestamp::from_unix_micros(micros).unwrap());
        let all: Vec<_> = [Timestamp::MIN].into_iter().chain(times).chain([Timestamp::MAX]).collect();
        assert!(all.iter().map(|at| time(*at)).is_sorted());
        for at in all {
            assert_eq!(parse_time(time(at)), Ok(at));
        }
    }

    #[test]
    fn the_end_of_a_time_is_after_all_its_keys() {
        let id = OperationId::parse("zzzvvvvvvvvvvvvvvvvv").unwrap();
        for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert!(timed(at, id) < timed_end(at), "{at}");
        }
    }

    #[test]
    fn a_prefix_never_takes_in_a_longer_id() {
        let kind = ResourceKind::new("k").unwrap();
        let key = |id: &str| ResourceKey { kind: kind.clone(), id: ResourceId::new(id).unwrap() };
        let short = by_resource_prefix(&key("a"));
        let id = OperationId::parse("fdv00000000000000000").unwrap();
        assert!(by_resource(&key("a"), id).starts_with(&short));
        assert!(!by_resource(&key("ab"), id).starts_with(&short));
    }
}
