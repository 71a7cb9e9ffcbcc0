//! The conformance suite refuses a backend that breaks the contract: every lie here is found by a rule of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use longrun_store::conformance::{KvFixture, Reopenable, kv};
use longrun_store::{
    Batch, Direction, Durability, Entry, KeyRange, Kv, KvCapabilities, KvError, MemoryKv, Table,
};

/// How the contract is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Of a batch only the first half is applied.
    Torn,
    /// A restart finds only the first half of the newest batch.
    TornByARestart,
    /// A restart finds nothing of the newest batch.
    ForgottenByARestart,
    /// A reopen takes the newest batch back.
    ForgottenByAReopen,
    /// What was removed stays.
    Removes,
    /// The first write of a key wins.
    Order,
    /// All is in one table.
    Tables,
    /// A scan knows no limit.
    Limit,
    /// A scan goes forward, always.
    Direction,
    /// A scan takes the key at its end, too.
    Bounds,
    /// It takes no value of the largest size that it promises.
    Small,
    /// It promises less than an engine needs.
    Promise,
}

struct Liar {
    kv: MemoryKv,
    lie: Lie,
    /// What is on its disk.
    log: Arc<Mutex<Vec<Batch>>>,
}

fn half(batch: &Batch) -> Batch {
    Batch { writes: batch.writes[..batch.writes.len() / 2].to_vec() }
}

impl Liar {
    fn open(lie: Lie, log: &Arc<Mutex<Vec<Batch>>>) -> Self {
        let mut batches = log.lock().unwrap();
        let newest = batches.pop();
        batches.extend(match lie {
            Lie::TornByARestart => newest.as_ref().map(half),
            Lie::ForgottenByARestart => None,
            _ => newest,
        });
        let kv = MemoryKv::new();
        batches.iter().for_each(|batch| kv.commit(batch).unwrap());
        Self { kv, lie, log: Arc::clone(log) }
    }

    const fn table(&self, table: Table) -> Table {
        if matches!(self.lie, Lie::Tables) { Table::Meta } else { table }
    }
}

impl Kv for Liar {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.kv.get(self.table(table), key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        way: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let way = if self.lie == Lie::Direction { Direction::Forward } else { way };
        let limit = if self.lie == Lie::Limit { usize::MAX } else { limit };
        let mut range = range.clone();
        if let (Lie::Bounds, std::ops::Bound::Excluded(to)) = (self.lie, &range.to) {
            range.to = std::ops::Bound::Included(to.clone());
        }
        self.kv.scan(self.table(table), &range, way, limit)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        let mut batch = if self.lie == Lie::Torn { half(batch) } else { batch.clone() };
        if self.lie == Lie::Small
            && batch.writes.iter().flat_map(|write| &write.value).any(|value| value.len() > 4096)
        {
            return Err(KvError::NotApplied("too large".into()));
        }
        match self.lie {
            Lie::Removes => batch.writes.retain(|write| write.value.is_some()),
            Lie::Order => batch.writes.reverse(),
            _ => {}
        }
        batch.writes.iter_mut().for_each(|write| write.table = self.table(write.table));
        self.kv.commit(&batch)?;
        self.log.lock().unwrap().push(batch);
        Ok(())
    }

    fn reopen(&self) -> Result<(), KvError> {
        if self.lie != Lie::ForgottenByAReopen {
            return Ok(());
        }
        let mut undo = Batch::default();
        for write in self.log.lock().unwrap().pop().into_iter().flat_map(|batch| batch.writes) {
            undo.remove(write.table, write.key);
        }
        self.kv.commit(&undo)
    }

    fn capabilities(&self) -> KvCapabilities {
        let value_bytes_max = if self.lie == Lie::Promise { 4096 } else { usize::MAX };
        KvCapabilities::new("liar", Durability::Volatile, value_bytes_max, usize::MAX)
    }
}

type Rule = fn(&mut dyn KvFixture);

/// Whether a backend with this lie keeps a rule.
fn keeps(lie: Lie, rule: Rule) -> bool {
    let log = Arc::default();
    let mut fixture = Reopenable::new(move || Liar::open(lie, &log));
    catch_unwind(AssertUnwindSafe(|| rule(&mut fixture))).is_ok()
}

#[test]
fn s12_a_backend_that_breaks_the_contract_is_refused() {
    let lies: [(Lie, Rule); 12] = [
        (Lie::Torn, kv::a_batch_over_all_tables_is_applied_whole),
        (Lie::TornByARestart, kv::a_batch_over_all_tables_is_applied_whole),
        (Lie::ForgottenByARestart, kv::a_restart_shows_the_same),
        (Lie::ForgottenByAReopen, kv::a_reopen_shows_the_same_and_goes_on),
        (Lie::Removes, kv::a_removed_key_is_gone),
        (Lie::Order, kv::the_later_write_of_a_key_wins),
        (Lie::Tables, kv::tables_do_not_mix),
        (Lie::Limit, kv::a_scan_keeps_its_limit),
        (Lie::Direction, kv::a_scan_goes_both_ways),
        (Lie::Bounds, kv::bounds_are_kept),
        (Lie::Small, kv::the_largest_record_is_kept),
        (Lie::Promise, kv::what_it_promises_is_enough),
    ];
    for (lie, rule) in lies {
        assert!(keeps(Lie::None, rule), "without {lie:?} it keeps the rule");
        assert!(!keeps(lie, rule), "{lie:?} is not found");
    }
}
