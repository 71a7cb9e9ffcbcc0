//! An operation is two readings, its head and its journal. What others commit in between never shows as damage, and damage never
//! as what others commit.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use longrun_core::{Fence, Revision};
use longrun_store::conformance::sample::{Draft, Live, operation_id};
use longrun_store::conformance::wait;
use longrun_store::{
    Batch, Commit, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, KvStore, MemoryKv, Store,
    StoreError, Table,
};

/// An engine in which the next readings of journals lack their first entry. Beside some of them somebody commits.
struct Torn {
    kv: MemoryKv,
    store: Arc<OnceLock<Weak<KvStore>>>,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    /// Committed before the next journal is read.
    before: Mutex<Option<Commit>>,
    torn: AtomicUsize,
    disturbed: AtomicUsize,
    scans: AtomicUsize,
}

/// True so many times as was left.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Torn {
    fn store(&self) -> Arc<KvStore> {
        self.store.get().and_then(Weak::upgrade).unwrap()
    }
}

impl Kv for Torn {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        way: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let journal = table == Table::Journal && way == Direction::Forward;
        if let Some(commit) = self.plan.before.lock().unwrap().take_if(|_| journal) {
            wait(self.store().commit(commit)).unwrap();
        }
        let mut found = self.kv.scan(table, range, way, limit)?;
        if journal {
            let number = self.plan.scans.fetch_add(1, Ordering::SeqCst);
            if take(&self.plan.disturbed) {
                let other = Draft::chain(100 + number as u64, 1).accept(Fence(1)).1;
                wait(self.store().commit(other)).unwrap();
            }
            if take(&self.plan.torn) {
                found.remove(0);
            }
        }
        Ok(found)
    }

    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.kv.commit(batch)
    }

    fn reopen(&self) -> Result<(), KvError> {
        self.kv.reopen()
    }

    fn capabilities(&self) -> KvCapabilities {
        self.kv.capabilities()
    }
}

/// A store with operation 1, of which three turns are stored, and the operation.
fn store() -> (Arc<KvStore>, Arc<Plan>, Live) {
    let (plan, later) = (Arc::<Plan>::default(), Arc::<OnceLock<_>>::default());
    let kv = Torn { kv: MemoryKv::new(), store: Arc::clone(&later), plan: Arc::clone(&plan) };
    let store = Arc::new(KvStore::open_inline(kv, [7; 32]).unwrap());
    _ = later.set(Arc::downgrade(&store));
    let fence = wait(store.take_over()).unwrap();
    assert_eq!(fence, Fence(1));
    let (mut live, accepted) = Draft::chain(1, 3).accept(fence);
    wait(store.commit(accepted)).unwrap();
    wait(store.commit(live.done(fence, 0))).unwrap();
    wait(store.commit(live.done(fence, 1))).unwrap();
    plan.scans.store(0, Ordering::SeqCst);
    (store, plan, live)
}

#[test]
fn an_operation_is_one_look_at_its_journal() {
    let (store, plan, _) = store();
    let found = wait(store.load(operation_id(1))).unwrap().unwrap();
    assert_eq!((found.revision(), plan.scans.load(Ordering::SeqCst)), (Revision(3), 1));
    // Commits beside it are no reason to look again at what fits together.
    plan.disturbed.store(1, Ordering::SeqCst);
    wait(store.load(operation_id(1))).unwrap();
    assert_eq!(plan.scans.load(Ordering::SeqCst), 2);
}

#[test]
fn s15_what_does_not_fit_is_damage_if_nobody_wrote_and_else_read_again() {
    let (store, plan, _) = store();
    plan.torn.store(1, Ordering::SeqCst);
    let error = wait(store.load(operation_id(1))).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(plan.scans.load(Ordering::SeqCst), 1);
    plan.torn.store(3, Ordering::SeqCst);
    plan.disturbed.store(3, Ordering::SeqCst);
    let found = wait(store.load(operation_id(1))).unwrap().unwrap();
    assert_eq!((found.revision(), plan.scans.load(Ordering::SeqCst)), (Revision(3), 5));
}

/// Its end takes the journal away: the head that was read before it, and no journal, would be its beginning.
#[test]
fn s38_what_ended_while_it_was_read_is_read_as_ended() {
    let (store, plan, mut live) = store();
    *plan.before.lock().unwrap() = Some(live.done(Fence(1), 2));
    let found = wait(store.load(operation_id(1))).unwrap().unwrap();
    assert!(found.is_done());
    assert_eq!((found.revision(), plan.scans.load(Ordering::SeqCst)), (Revision(4), 1));
}

#[test]
fn what_never_fits_while_somebody_always_writes_is_damage_in_the_end() {
    let (store, plan, _) = store();
    plan.torn.store(usize::MAX, Ordering::SeqCst);
    plan.disturbed.store(usize::MAX, Ordering::SeqCst);
    let error = wait(store.load(operation_id(1))).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(plan.scans.load(Ordering::SeqCst), 100);
}
