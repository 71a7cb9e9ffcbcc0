//! [`Metered`]: a store that counts what is asked of it, and keeps it if that is wanted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use longrun::store::{Batch, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, Table};

/// What was asked of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Turns of operations: each writes one record of its operation.
    pub turns: u64,
    /// Batches, each made durable by itself.
    pub batches: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            turns: self.turns - before.turns,
            batches: self.batches - before.batches,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// The counts of a [`Metered`] store, from outside. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    turns: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    tape: Mutex<Option<Vec<Batch>>>,
}

impl Meter {
    /// The counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            turns: self.0.turns.load(Relaxed),
            batches: self.0.batches.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
        }
    }

    /// Keeps every batch from now on.
    pub fn record(&self) {
        *self.0.tape.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// Gives what was kept, and keeps nothing more.
    pub fn recorded(&self) -> Vec<Batch> {
        self.0.tape.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    fn count(&self, batch: &Batch) {
        let is_turn = |table| matches!(table, Table::Operations | Table::Journal);
        let turns = batch.writes.iter().filter(|write| is_turn(write.table) && write.value.is_some()).count();
        self.0.turns.fetch_add(turns as u64, Relaxed);
        self.0.batches.fetch_add(1, Relaxed);
        self.0.bytes.fetch_add(batch.byte_len() as u64, Relaxed);
        if let Some(tape) = &mut *self.0.tape.lock().unwrap_or_else(PoisonError::into_inner) {
            tape.push(batch.clone());
        }
    }
}

/// A store with a meter on it.
#[derive(Debug)]
pub struct Metered<K> {
    kv: K,
    meter: Meter,
}

impl<K> Metered<K> {
    /// Puts a meter on a store.
    pub fn new(kv: K) -> (Self, Meter) {
        let meter = Meter::default();
        (Self { kv, meter: meter.clone() }, meter)
    }
}

impl<K: Kv> Kv for Metered<K> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        self.kv.scan(table, range, direction, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.meter.count(batch);
        self.kv.commit(batch)
    }

    fn reopen(&self) -> Result<(), KvError> {
        self.kv.reopen()
    }

    fn capabilities(&self) -> KvCapabilities {
        self.kv.capabilities()
    }
}
