//! What a page of a list costs: it depends on the page, not on the list.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use longrun_core::{Fence, Intent};
use longrun_store::conformance::sample::{Draft, creates, parent, resource_kind, time};
use longrun_store::conformance::wait;
use longrun_store::{
    Batch, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, KvStore, MemoryKv, OperationQuery, Purge,
    ResourceOrder, ResourceQuery, Store, Table,
};

/// Counts the entries that are read.
struct Counting {
    kv: MemoryKv,
    entries: Arc<AtomicUsize>,
}

impl Kv for Counting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let found = self.kv.scan(table, range, direction, limit)?;
        self.entries.fetch_add(found.len(), Ordering::Relaxed);
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

/// The entries that are read for the first page, one from the middle and a look-up by name, in each order.
fn costs(rows: u64) -> Vec<usize> {
    let entries = Arc::new(AtomicUsize::new(0));
    let kv = Counting { kv: MemoryKv::new(), entries: Arc::clone(&entries) };
    let store = KvStore::open_inline(kv, [1; 32]).unwrap();
    let fence: Fence = wait(store.take_over()).unwrap();
    for n in 0..rows {
        let mut claim = creates(&format!("r{n:08}"), "folder");
        if let Intent::Create { name, .. } = &mut claim.intent {
            *name = format!("n{:08}", n * 7919 % rows);
        }
        let (mut live, commit) = Draft::chain(n, 1).with(claim).accept(fence);
        wait(store.commit(commit)).unwrap();
        let commit = live.done(fence, 0);
        wait(store.commit(commit)).unwrap();
    }
    let mut costs = Vec::new();
    let mut cost = |work: &mut dyn FnMut()| {
        let before = entries.load(Ordering::Relaxed);
        work();
        costs.push(entries.load(Ordering::Relaxed) - before);
    };
    for order in [ResourceOrder::Id, ResourceOrder::Name, ResourceOrder::Creation] {
        for descending in [false, true] {
            let query =
                ResourceQuery { order, descending, ..ResourceQuery::new(resource_kind(), parent("folder")) };
            let mut next = None;
            for _ in 0..3 {
                cost(&mut || {
                    let page = wait(store.list_resources(&query, next.as_ref(), 100)).unwrap();
                    assert_eq!(page.items.len(), 100);
                    next = page.next;
                });
            }
        }
        let name = Some(format!("n{:08}", rows / 2));
        let query = ResourceQuery { name, ..ResourceQuery::new(resource_kind(), parent("folder")) };
        cost(&mut || assert_eq!(wait(store.list_resources(&query, None, 100)).unwrap().items.len(), 1));
    }
    cost(&mut || {
        let page = wait(store.list_operations(&OperationQuery::All, None, 100)).unwrap();
        assert_eq!(page.items.len(), 100);
    });
    costs
}

/// More than is read at once.
#[test]
fn c20_a_purge_goes_through_all_that_is_old() {
    let store = KvStore::memory().unwrap();
    let fence = wait(store.take_over()).unwrap();
    for n in 0..600 {
        let (mut live, accepted) = Draft::chain(n, 1).accept(fence);
        wait(store.commit(accepted)).unwrap();
        wait(store.commit(live.done(fence, 0))).unwrap();
    }
    let (done_until, now) = (time(10_000), time(10_000));
    let purge = Purge { only: None, done_until, keys_expire_at: now, now, limit: 1_000 };
    let purged = wait(store.purge(fence, purge)).unwrap();
    assert_eq!((purged.operations, purged.more), (600, false));
}

fn assert_same_cost(rows: u64) {
    let (short, long) = (costs(1_000), costs(rows));
    assert_eq!(short, long);
    // An index entry and a row for each item, and one entry beyond each reading.
    assert!(long.iter().all(|entries| *entries <= 2 * 100 + 2 + 100), "{long:?}");
}

#[test]
fn a_page_costs_the_same_however_long_the_list_is() {
    assert_same_cost(20_000);
}

/// Takes some gigabytes of memory: `cargo test --release -p longrun-store --test list_cost -- --ignored`.
#[test]
#[ignore = "takes a minute and some gigabytes"]
fn a_page_of_a_million_costs_what_one_of_a_thousand_costs() {
    assert_same_cost(1_000_000);
}
