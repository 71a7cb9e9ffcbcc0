//! The simulated key-value store: what is durable, what fails, and when the process dies in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use longrun_core::{Execution, Operation, OperationId, Phase, ResourceKey, Row, Timestamp};
use longrun_store::conformance::records::reseal;
use longrun_store::{
    Batch, Direction, Due, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, KvStore, OperationQuery,
    Store, Table,
};

use super::world::Shared;
use crate::panics::lock;
use crate::random::Rng;
use crate::sim::coverage::{CrashPoint, Fault, Situation};
use crate::sim::plant::Plant;

/// The key that authenticates page tokens here.
pub(super) const SECRET: [u8; 32] = [7; 32];

type Tables = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

/// What is on the simulated medium.
#[derive(Debug, Default)]
pub(super) struct Medium {
    tables: Tables,
    /// With a lying store: what readers see beyond what is durable.
    ahead: Option<Tables>,
    /// Batches that were acknowledged and are not durable.
    held: Vec<Batch>,
    damage: Option<Damage>,
    /// The operation of which the process has read a damaged record, also if that has been stored anew since.
    misread: Option<OperationId>,
}

/// A bit of one stored value, which the process reads the other way. What is stored anew is whole.
#[derive(Debug)]
struct Damage {
    table: Table,
    key: Vec<u8>,
    value: Vec<u8>,
    bit: usize,
    read: bool,
}

impl Medium {
    fn seen(&self) -> &Tables {
        self.ahead.as_ref().unwrap_or(&self.tables)
    }

    fn apply(&mut self, batch: &Batch) {
        write(&mut self.tables, batch);
        if let Some(ahead) = &mut self.ahead {
            write(ahead, batch);
        }
    }

    /// What the process saw beyond what is durable is gone, and what was damaged is put right.
    pub(super) fn crash(&mut self) {
        self.ahead = None;
        self.held.clear();
        self.damage = None;
        self.misread = None;
    }

    /// Flips a bit of what is stored, if anything is. Says which.
    pub(super) fn flip(&mut self, rng: &mut Rng) -> Option<String> {
        let values = |table: &Table| {
            let entries = self.tables[table.index()].iter();
            entries.filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>()
        };
        let tables: Vec<_> = Table::ALL.into_iter().filter(|table| !values(table).is_empty()).collect();
        if tables.is_empty() {
            return None;
        }
        let table = rng.pick(&tables);
        let (key, value) = rng.pick(&values(&table));
        let bit = usize::try_from(rng.below(8 * value.len() as u64)).unwrap_or(0);
        let damage = Damage { table, key: key.clone(), value: value.clone(), bit, read: false };
        let what = format!("bit {bit} of {table:?} {:02x?} flips", damage.key);
        self.damage = Some(damage);
        Some(what)
    }

    /// The value as the process reads it, with a checksum that fits if it is to. Whether that is not what is stored.
    fn read_as(&mut self, table: Table, key: &[u8], value: &mut [u8], fits: bool) -> bool {
        let here = |damage: &&mut Damage| damage.table == table && damage.key == key && damage.value == value;
        let Some(damage) = self.damage.as_mut().filter(here) else { return false };
        value[damage.bit / 8] ^= 1 << (damage.bit % 8);
        damage.read = true;
        self.misread = operation_of(table, key);
        if fits {
            reseal(value);
        }
        true
    }

    pub(super) const fn is_damaged(&self) -> bool {
        self.damage.is_some()
    }

    /// The operation of which a damaged record was read in this life.
    pub(super) const fn misread(&self) -> Option<OperationId> {
        self.misread
    }

    /// The operation of which a record is damaged, and was read so.
    pub(super) fn damaged(&self) -> Option<OperationId> {
        let is_there =
            |damage: &&Damage| self.tables[damage.table.index()].get(&damage.key) == Some(&damage.value);
        let damage = self.damage.as_ref().filter(|damage| damage.read).filter(is_there)?;
        operation_of(damage.table, &damage.key)
    }
}

/// Whose record it is.
fn operation_of(table: Table, key: &[u8]) -> Option<OperationId> {
    let id = key.get(..20).filter(|_| matches!(table, Table::Journal | Table::Operations))?;
    OperationId::parse(std::str::from_utf8(id).ok()?).ok()
}

fn write(tables: &mut Tables, batch: &Batch) {
    for write in &batch.writes {
        let table = &mut tables[write.table.index()];
        match &write.value {
            Some(value) => _ = table.insert(write.key.clone(), value.clone()),
            None => _ = table.remove(&write.key),
        }
    }
}

fn get(tables: &Tables, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    tables[table.index()].get(key).cloned()
}

fn scan(tables: &Tables, table: Table, range: &KeyRange, direction: Direction, limit: usize) -> Vec<Entry> {
    if range.is_empty() {
        return Vec::new();
    }
    let bounds = (range.from.as_ref(), range.to.as_ref());
    let entries = tables[table.index()].range::<Vec<u8>, _>(bounds);
    let entries = entries.map(|(key, value)| (key.clone(), value.clone()));
    match direction {
        Direction::Forward => entries.take(limit).collect(),
        Direction::Backward => entries.rev().take(limit).collect(),
    }
}

/// Whether a batch gives the store another owner. Under another key nobody would ever own it, and all would be S30.
fn takes_over(batch: &Batch) -> bool {
    batch.writes.iter().any(|write| write.table == Table::Meta && write.key == b"epoch")
}

fn cause(what: &str) -> longrun_store::Cause {
    io::Error::other(what.to_owned()).into()
}

/// The store of one life of the process.
#[derive(Debug)]
pub(super) struct SimKv {
    pub(super) shared: Arc<Shared>,
    pub(super) life: u32,
}

impl SimKv {
    fn dead() -> KvError {
        KvError::Unknown(cause("the process is dead"))
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, KvError> {
        {
            let mut state = lock(&self.shared.state);
            if !state.alive(self.life) {
                return Err(Self::dead());
            }
            let rate = state.swarm.read_fails;
            if state.goes_wrong(rate) {
                state.coverage.fault(Fault::ReadFails);
                return Err(KvError::NotApplied(cause("injected: read")));
            }
        }
        Ok(read(lock(&self.shared.medium).seen()))
    }

    fn read_as(&self, table: Table, key: &[u8], value: &mut [u8]) {
        let fits = self.shared.setting.plant == Some(Plant::S15);
        if lock(&self.shared.medium).read_as(table, key, value, fits) {
            lock(&self.shared.state).coverage.fault(Fault::BitFlips);
        }
    }

    /// Applies a batch; a lying store keeps the decision to roll back to itself until the next batch.
    fn apply(&self, batch: &Batch) {
        let mut medium = lock(&self.shared.medium);
        if self.shared.setting.plant != Some(Plant::S22) {
            return medium.apply(batch);
        }
        if medium.ahead.is_none() {
            medium.ahead = Some(medium.tables.clone());
        }
        if let Some(ahead) = &mut medium.ahead {
            write(ahead, batch);
        }
        let heads: Vec<OperationId> =
            batch.writes.iter().filter_map(|write| operation_of(write.table, &write.key)).collect();
        drop(medium);
        let phase =
            |ahead, id| self.shared.inspect(ahead).and_then(|look| look.load(id)).map(|found| found.phase());
        let decides = heads.iter().any(|id| {
            phase(true, *id) == Some(Phase::RollingBack) && phase(false, *id) == Some(Phase::Pending)
        });
        let mut medium = lock(&self.shared.medium);
        medium.held.push(batch.clone());
        if !decides {
            for batch in std::mem::take(&mut medium.held) {
                write(&mut medium.tables, &batch);
            }
        }
    }
}

impl Kv for SimKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let mut found = self.read(|tables| get(tables, table, key))?;
        if let Some(value) = &mut found {
            self.read_as(table, key, value);
        }
        Ok(found)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let mut found = self.read(|tables| scan(tables, table, range, direction, limit))?;
        for (key, value) in &mut found {
            self.read_as(table, key, value);
        }
        Ok(found)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let applied;
        {
            let mut state = lock(&self.shared.state);
            if !state.alive(self.life) {
                return Err(Self::dead());
            }
            state.trace.add_batch(batch);
            if state.crash_point(CrashPoint::BeforeCommit) {
                let keeps = state.rng.chance(500);
                state.coverage.fault(if keeps { Fault::CrashKeepsCommit } else { Fault::CrashLosesCommit });
                drop(state);
                if keeps {
                    lock(&self.shared.medium).apply(batch);
                }
                return Err(Self::dead());
            }
            if state.full {
                state.coverage.fault(Fault::DiskFull);
                return Err(KvError::NotApplied(io::Error::from(io::ErrorKind::StorageFull).into()));
            }
            let swarm = state.swarm.clone();
            if state.goes_wrong(swarm.refuse) {
                state.coverage.fault(Fault::CommitRefused);
                return Err(KvError::NotApplied(cause("injected: refused")));
            }
            let unknown = state.goes_wrong(swarm.unknown);
            applied = !unknown || state.rng.chance(500);
            if unknown {
                let refusals = if state.goes_wrong(swarm.reopen) { state.rng.between(1, 4) } else { 0 };
                state.reopens_refused = u32::try_from(refusals).unwrap_or(0);
            }
            match (unknown, applied) {
                (true, true) => {
                    state.coverage.fault(Fault::CommitUnknownApplied);
                    state.coverage.met(Situation::UnknownApplied);
                }
                (true, false) => {
                    state.coverage.fault(Fault::CommitUnknownLost);
                    state.coverage.met(Situation::UnknownNotApplied);
                }
                _ => {}
            }
            if applied && takes_over(batch) {
                state.hand_over(self.shared.rolling_back());
            }
            if applied && batch.writes.iter().any(|write| write.table == Table::Journal) {
                state.changes += 1;
                state.fresh = false;
            }
            drop(state);
            if applied {
                self.apply(batch);
            }
            if unknown {
                return Err(KvError::Unknown(cause("injected: unknown")));
            }
        }
        let mut state = lock(&self.shared.state);
        state.coverage.commits += 1;
        if state.crash_point(CrashPoint::AfterCommit) {
            return Err(Self::dead());
        }
        Ok(())
    }

    fn reopen(&self) -> Result<(), KvError> {
        let mut state = lock(&self.shared.state);
        if !state.alive(self.life) {
            return Err(Self::dead());
        }
        if state.reopens_refused > 0 && !state.calm {
            state.reopens_refused -= 1;
            state.coverage.fault(Fault::ReopenRefused);
            return Err(KvError::Unknown(cause("injected: reopen")));
        }
        Ok(())
    }

    fn capabilities(&self) -> KvCapabilities {
        KvCapabilities::new("simulated", Durability::PowerLoss, 1 << 20, 1 << 24)
    }
}

/// The oracle's own look at the medium, past all faults.
#[derive(Debug)]
pub(super) struct Look {
    medium: Arc<Mutex<Medium>>,
    ahead: bool,
}

impl Look {
    /// At what is durable.
    pub(super) fn durable(medium: &Arc<Mutex<Medium>>) -> Self {
        Self { medium: Arc::clone(medium), ahead: false }
    }

    fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        let medium = lock(&self.medium);
        read(if self.ahead { medium.seen() } else { &medium.tables })
    }
}

impl Kv for Look {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.read(|tables| get(tables, table, key)))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        Ok(self.read(|tables| scan(tables, table, range, direction, limit)))
    }

    fn commit(&self, _: &Batch) -> Result<(), KvError> {
        Err(KvError::NotApplied(cause("only looking")))
    }

    fn reopen(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn capabilities(&self) -> KvCapabilities {
        KvCapabilities::new("look", Durability::Volatile, usize::MAX, usize::MAX)
    }
}

/// Reads operations and rows as a restart would find them.
#[derive(Debug)]
pub(super) struct Inspector(KvStore);

impl Inspector {
    /// `None` until the store has its first records.
    pub(super) fn open(medium: &Arc<Mutex<Medium>>, ahead: bool) -> Option<Self> {
        let look = Look { medium: Arc::clone(medium), ahead };
        KvStore::open_inline(look, SECRET).ok().map(Self)
    }

    /// The operation.
    pub(super) fn load(&self, id: OperationId) -> Option<Execution> {
        at_once(self.0.load(id))?.ok()?
    }

    /// The row.
    pub(super) fn row(&self, key: &ResourceKey) -> Option<Row> {
        at_once(self.0.resource(key))?.ok()?
    }

    /// The operations that claim a resource.
    pub(super) fn operations_of(&self, key: &ResourceKey) -> Vec<OperationId> {
        let query = OperationQuery::OfResource(key.clone());
        let found = at_once(self.0.list_operations(&query, None, 1000)).and_then(Result::ok);
        found.map(|found| found.items.iter().map(Operation::id).collect()).unwrap_or_default()
    }

    /// Every unfinished operation.
    pub(super) fn unfinished(&self) -> Vec<Due> {
        at_once(self.0.due(Timestamp::MAX, None, 1000)).and_then(Result::ok).unwrap_or_default()
    }
}

/// The result of something that does not wait.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
