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
//! | idempotency | digest | operation, fingerprint, expiry |
//! | idempotency_expiry | time, digest | – |
//!
//! Numbers and times are 8 bytes, big endian, times offset so that they order as bytes. An operation id is 20
//! characters and orders by time. Ids and kinds never contain the byte 0 that ends them. A key alone is enough to
//! find all that belongs together by prefix; no key is ever encoded by a library.

use longrun_core::{OperationId, ResourceId, ResourceKey, ResourceKind, Revision, Timestamp};

use crate::codec::CodecError;

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
