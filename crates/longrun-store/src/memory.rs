//! [`MemoryKv`]: a real store that forgets. Also the reference for what a backend has to do.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::kv::{Batch, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, Table};

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

/// Ordered maps behind a lock. Commits are atomic and visible at once; nothing outlives the process.
#[derive(Debug, Default)]
pub struct MemoryKv {
    tables: RwLock<Tables>,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Kv for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables[table.index()].get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let entries = tables[table.index()]
            .range::<Vec<u8>, _>((range.from.as_ref(), range.to.as_ref()))
            .map(|(key, value)| (key.clone(), value.clone()));
        Ok(match direction {
            Direction::Forward => entries.take(limit).collect(),
            Direction::Backward => entries.rev().take(limit).collect(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        // Nothing in here panics half way, so a poisoned lock still guards whole batches.
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for write in &batch.writes {
            let table = &mut tables[write.table.index()];
            match &write.value {
                Some(value) => _ = table.insert(write.key.clone(), value.clone()),
                None => _ = table.remove(&write.key),
            }
        }
        Ok(())
    }

    fn reopen(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn capabilities(&self) -> KvCapabilities {
        KvCapabilities::new("memory", Durability::Volatile, usize::MAX, usize::MAX)
    }
}
