//! [`Kv`]: what an embedded store has to give, and nothing more.
//!
//! Ordered byte keys in a few named tables, point reads, range scans, and one atomic durable batch.
//! [`KvStore`](crate::KvStore) makes a full [`Store`](crate::Store) of it: conditions, group commit,
//! key layout, codec and paging live there, once. A new embedded backend is one file.

use std::error::Error;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A named, ordered set of keys. Tables are independent, but one [`Batch`] may touch any of them.
///
/// What each holds is written down in [`layout`](crate::layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// Facts about the store itself: format version, epoch.
    Meta,
    /// The head record of each operation.
    Operations,
    /// What happened to each unfinished operation since its head was written.
    Journal,
    /// Unfinished operations, by the time they are to be worked on.
    Due,
    /// Finished operations, by the time they were done.
    Finished,
    /// Operations of each resource.
    ByResource,
    /// Resource rows.
    Resources,
    /// Resource rows of each parent, by id.
    ByParent,
    /// The same, by name.
    ByName,
    /// The same, by the time of creation.
    ByCreation,
    /// The idempotency ledger.
    Idempotency,
    /// Idempotency entries whose operation is gone, by the time they expire.
    IdempotencyExpiry,
    /// References that resources hold to items.
    References,
    /// Items that have references.
    Items,
    /// Items that lost their last reference and are still to be removed outside.
    Orphans,
}

impl Table {
    /// Every table, in a fixed order. A backend creates all of them when it is opened.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Operations,
        Self::Journal,
        Self::Due,
        Self::Finished,
        Self::ByResource,
        Self::Resources,
        Self::ByParent,
        Self::ByName,
        Self::ByCreation,
        Self::Idempotency,
        Self::IdempotencyExpiry,
        Self::References,
        Self::Items,
        Self::Orphans,
    ];

    /// The table's name on disk. Fixed for ever.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Operations => "operations",
            Self::Journal => "journal",
            Self::Due => "due",
            Self::Finished => "finished",
            Self::ByResource => "by_resource",
            Self::Resources => "resources",
            Self::ByParent => "by_parent",
            Self::ByName => "by_name",
            Self::ByCreation => "by_creation",
            Self::Idempotency => "idempotency",
            Self::IdempotencyExpiry => "idempotency_expiry",
            Self::References => "references",
            Self::Items => "items",
            Self::Orphans => "orphans",
        }
    }

    /// The table's place in [`Table::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// The new value, or `None` to remove the key. Removing an absent key changes nothing.
    pub value: Option<Vec<u8>>,
}

/// Changes that happen together or not at all. A later write of a key wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, in order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push(Write { table, key, value: Some(value) });
    }

    /// Adds a removal.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.writes.push(Write { table, key, value: None });
    }

    /// What the batch makes of a key: `None` if it does not touch it.
    pub(crate) fn newest(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let written = self.writes.iter().rev().find(|write| write.table == table && write.key == key);
        written.map(|write| write.value.clone())
    }

    /// Bytes of all keys and values.
    pub fn byte_len(&self) -> usize {
        self.writes.iter().map(|write| write.key.len() + write.value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// Which way a scan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// A range of keys, compared as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Lower end.
    pub from: Bound<Vec<u8>>,
    /// Upper end.
    pub to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key that starts with `prefix`; with an empty prefix, every key.
    pub fn prefix(prefix: &[u8]) -> Self {
        let to = prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { from: Bound::Included(prefix.to_vec()), to }
    }

    /// True when no key can lie in the range. Some engines panic on such a range: ask before scanning.
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        }
    }
}

/// The first key after all keys with `prefix`, if there is one.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// A key and its value, as a scan yields them.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What happens to acknowledged commits when the ground gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// Gone with the process. For tests and for caches.
    Volatile,
    /// Survives a crash of the process, not of the machine.
    ProcessCrash,
    /// Survives the loss of power, as far as the medium keeps what it was told to sync.
    PowerLoss,
}

/// What a backend promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvCapabilities {
    /// The engine's name, for logs and reports.
    pub name: &'static str,
    /// What an acknowledged batch survives.
    pub durability: Durability,
    /// Largest value, in bytes, that the backend stores well.
    pub value_bytes_max: usize,
    /// Most bytes of keys and values it takes in one batch.
    pub batch_bytes_max: usize,
}

impl KvCapabilities {
    /// The promises of a backend called `name`.
    pub const fn new(
        name: &'static str,
        durability: Durability,
        value_bytes_max: usize,
        batch_bytes_max: usize,
    ) -> Self {
        Self { name, durability, value_bytes_max, batch_bytes_max }
    }
}

/// An ordered key-value engine under [`KvStore`](crate::KvStore).
///
/// Called from ordinary threads and allowed to block. `commit` and `reopen` are called by one thread at a
/// time; `get` and `scan` by any number of threads at once, also during a `commit` or a `reopen`. During a
/// `reopen` they may fail or wait, and what they say is not used.
pub trait Kv: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// To be correct: sees every batch whose `commit` has returned `Ok`. Whether it sees a batch whose
    /// `commit` still runs is left open (`KvStore` keeps such readings from its callers until the batch is
    /// durable), but it never sees a value that no batch wrote, and the writes of a batch come into sight
    /// in their order or all at once: who sees one, sees those before it from then on.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// At most `limit` entries of `range`, in key order or in reverse.
    ///
    /// To be correct: each entry is one that `get` could have returned during the call. The entries need not
    /// be of one instant. An [empty](KeyRange::is_empty) range gives no entries.
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError>;

    /// Makes a batch durable.
    ///
    /// To be correct: after `Ok`, the whole batch survives whatever
    /// [`KvCapabilities::durability`] names. After any crash either all of it is there or none of it.
    /// After [`KvError::NotApplied`] none of it is, now and for ever. After [`KvError::Unknown`] the caller
    /// makes no further use of the engine until [`reopen`](Kv::reopen) has returned `Ok`.
    fn commit(&self, batch: &Batch) -> Result<(), KvError>;

    /// Brings the engine back after [`KvError::Unknown`], by closing and opening it anew if need be.
    ///
    /// To be correct: after `Ok`, reads show exactly what a restart of the process would show, so a batch of
    /// unknown outcome is now either there or not there for good. May be called again after it fails.
    fn reopen(&self) -> Result<(), KvError>;

    /// What this backend promises.
    fn capabilities(&self) -> KvCapabilities;
}

/// A shared engine: the same data for several owners, one after the other.
impl<K: Kv + ?Sized> Kv for Arc<K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        (**self).get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        (**self).scan(table, range, direction, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        (**self).commit(batch)
    }

    fn reopen(&self) -> Result<(), KvError> {
        (**self).reopen()
    }

    fn capabilities(&self) -> KvCapabilities {
        (**self).capabilities()
    }
}

/// The reason an engine gave, kept as the source of the error.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a [`Kv`] did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum KvError {
    /// Nothing was applied, and the engine is usable. Try again when the cause is gone.
    NotApplied(Cause),
    /// The batch may or may not be on disk; or, as the answer to a reading, the engine can no longer be trusted.
    /// Reopen it.
    Unknown(Cause),
    /// Stored bytes are damaged or missing. Nothing heals this but a restore.
    Corrupt(Cause),
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplied(_) => f.write_str("the store did not apply the write"),
            Self::Unknown(_) => f.write_str("the outcome of the write is unknown"),
            Self::Corrupt(_) => f.write_str("the stored data is damaged"),
        }
    }
}

impl Error for KvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotApplied(cause) | Self::Unknown(cause) | Self::Corrupt(cause) => Some(cause.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_ends_before_the_next_prefix() {
        assert_eq!(KeyRange::prefix(b"ab").to, Bound::Excluded(b"ac".to_vec()));
        assert_eq!(KeyRange::prefix(&[1, 255]).to, Bound::Excluded(vec![2]));
        assert_eq!(KeyRange::prefix(&[255, 255]).to, Bound::Unbounded);
        assert_eq!(KeyRange::prefix(&[]).to, Bound::Unbounded);
    }

    #[test]
    fn an_error_says_what_became_of_the_write() {
        let text = |error: KvError| (error.to_string(), error.source().unwrap().to_string());
        let of = |text: &str, cause: &str| (text.to_owned(), cause.to_owned());
        let not_applied = KvError::NotApplied("full".into());
        assert_eq!(text(not_applied), of("the store did not apply the write", "full"));
        assert_eq!(text(KvError::Unknown("gone".into())), of("the outcome of the write is unknown", "gone"));
        assert_eq!(text(KvError::Corrupt("torn".into())), of("the stored data is damaged", "torn"));
    }

    /// Stores have these on disk.
    #[test]
    fn table_names_are_what_they_were() {
        let names = [
            "meta",
            "operations",
            "journal",
            "due",
            "finished",
            "by_resource",
            "resources",
            "by_parent",
            "by_name",
            "by_creation",
            "idempotency",
            "idempotency_expiry",
            "references",
            "items",
            "orphans",
        ];
        assert_eq!(Table::ALL.map(Table::name), names);
    }

    #[test]
    fn the_newest_write_of_a_key_counts() {
        let mut batch = Batch::default();
        batch.put(Table::Items, b"a".to_vec(), b"1".to_vec());
        batch.put(Table::Items, b"a".to_vec(), b"2".to_vec());
        batch.put(Table::Orphans, b"b".to_vec(), b"3".to_vec());
        batch.remove(Table::Orphans, b"b".to_vec());
        assert_eq!(batch.newest(Table::Items, b"a"), Some(Some(b"2".to_vec())));
        assert_eq!(batch.newest(Table::Orphans, b"b"), Some(None));
        assert_eq!(batch.newest(Table::Orphans, b"a"), None);
    }

    #[test]
    fn table_index_is_its_place() {
        for (place, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table.index(), place);
        }
    }
}
