//! S11: nobody is shown what a crash would take back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Bench, queued};
use longrun_core::Revision;
use longrun_store::conformance::sample::{Draft, creates, digest, operation_id, resource_key, time};
use longrun_store::conformance::{begin, wait};
use longrun_store::faulty::{CommitFault, ReadFault, StallAt};
use longrun_store::{
    Batch, CommitError, Direction, Entry, KeyRange, Kv, KvCapabilities, KvError, KvStore, MemoryKv,
    OperationQuery, Purge, ResourceQuery, Store, StoreError, Table,
};

/// Every way to read, answered or not.
fn look(bench: &Bench) -> [(&'static str, bool); 6] {
    let store = &bench.store;
    let parent = longrun_store::conformance::sample::parent("folder");
    let query = ResourceQuery::new(resource_key("a").kind, parent);
    [
        ("load", begin(&mut Box::pin(store.load(operation_id(1)))).is_some()),
        ("due", begin(&mut Box::pin(store.due(time(100), None, 10))).is_some()),
        ("resource", begin(&mut Box::pin(store.resource(&resource_key("a")))).is_some()),
        ("list_resources", begin(&mut Box::pin(store.list_resources(&query, None, 10))).is_some()),
        (
            "list_operations",
            begin(&mut Box::pin(store.list_operations(&OperationQuery::All, None, 10))).is_some(),
        ),
        ("ledger", begin(&mut Box::pin(store.ledger(&digest(1)))).is_some()),
    ]
}

#[test]
fn s11_no_reading_is_given_out_while_a_batch_is_visible_and_not_durable() {
    let bench = Bench::threaded();
    assert!(look(&bench).iter().all(|(_, answered)| *answered));
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let draft = Draft::chain(1, 1).with(creates("a", "folder")).with_key(1);
    let commit = queued(bench.store.commit(draft.accept(bench.fence).1));
    stall.wait_reached();
    // The engine shows it already.
    longrun_store::conformance::verify_indexes(bench.kv.inner()).unwrap();
    for (reading, answered) in look(&bench) {
        assert!(!answered, "{reading} was given out");
    }
    stall.release();
    wait(commit).unwrap();
    assert!(look(&bench).iter().all(|(_, answered)| *answered));
}

#[test]
fn s11_a_reading_that_waited_shows_the_batch_once_it_is_durable() {
    let bench = Bench::threaded();
    let mut live = bench.accept(Draft::chain(1, 2));
    let stall = bench.faults.stall(StallAt::BeforeSync);
    let commit = queued(bench.store.commit(live.done(bench.fence, 0)));
    stall.wait_reached();
    let reading = queued(bench.store.load(live.id()));
    stall.release();
    wait(commit).unwrap();
    assert_eq!(wait(reading).unwrap().unwrap().revision(), Revision(2));
}

#[test]
fn s11_a_reading_that_began_before_shows_the_state_before_or_after_but_waits_for_neither() {
    let bench = Bench::threaded();
    let mut live = bench.accept(Draft::chain(1, 2));
    let stall = bench.faults.stall(StallAt::BeforeApply);
    let commit = queued(bench.store.commit(live.done(bench.fence, 0)));
    stall.wait_reached();
    let reading = queued(bench.store.load(live.id()));
    stall.release();
    wait(commit).unwrap();
    let revision = wait(reading).unwrap().unwrap().revision();
    assert!(revision == Revision(1) || revision == Revision(2));
}

#[test]
fn s11_a_reading_across_a_batch_that_was_lost_shows_the_settled_truth() {
    for (fault, revision) in
        [(CommitFault::UnknownLost, 1), (CommitFault::UnknownApplied, 2), (CommitFault::TakenBack, 1)]
    {
        let bench = Bench::threaded();
        let mut live = bench.accept(Draft::chain(1, 2).with(creates("a", "folder")));
        let stall = bench.faults.stall(StallAt::BeforeSync);
        bench.faults.fail_commit(1, fault);
        let commit = queued(bench.store.commit(live.done(bench.fence, 0)));
        stall.wait_reached();
        let reading = queued(bench.store.load(live.id()));
        let listing = queued(bench.store.list_operations(&OperationQuery::All, None, 10));
        stall.release();
        wait(commit).unwrap_err();
        assert_eq!(wait(reading).unwrap().unwrap().revision(), Revision(revision), "{fault:?}");
        let listed = wait(listing).unwrap();
        assert_eq!(listed.items[0].revision(), Revision(revision), "{fault:?}");
        assert_eq!(bench.load(live.id()).unwrap().revision(), Revision(revision), "{fault:?}");
    }
}

#[test]
fn s11_an_operation_that_was_lost_was_never_shown() {
    let bench = Bench::threaded();
    let stall = bench.faults.stall(StallAt::BeforeSync);
    bench.faults.fail_commit(1, CommitFault::UnknownLost);
    let draft = Draft::chain(1, 1).with(creates("a", "folder")).with_key(1);
    let commit = queued(bench.store.commit(draft.accept(bench.fence).1));
    stall.wait_reached();
    let readings = (
        queued(bench.store.load(operation_id(1))),
        queued(bench.store.due(time(100), None, 10)),
        queued(bench.store.ledger(&[0xD1; 32])),
        queued(bench.store.list_operations(&OperationQuery::All, None, 10)),
    );
    let key = resource_key("a");
    let row = queued(bench.store.resource(&key));
    stall.release();
    assert!(matches!(wait(commit), Err(CommitError::Unknown(_))));
    assert!(wait(readings.0).unwrap().is_none());
    assert_eq!(wait(readings.1).unwrap(), []);
    assert_eq!(wait(readings.2).unwrap(), None);
    assert_eq!(wait(readings.3).unwrap().items, []);
    assert_eq!(wait(row).unwrap(), None);
}

#[test]
fn while_it_cannot_be_reopened_nothing_is_shown_and_a_reading_brings_it_back() {
    let bench = Bench::inline();
    let mut live = bench.accept(Draft::chain(1, 2));
    bench.faults.fail_commit(1, CommitFault::UnknownLost);
    // The first is that of the commit itself.
    bench.faults.refuse_reopens(4);
    let commit = live.done(bench.fence, 0);
    assert!(matches!(bench.commit(commit), Err(CommitError::Unknown(_))));
    for _ in 0..3 {
        assert!(matches!(wait(bench.store.load(live.id())), Err(StoreError::Unavailable(_))));
    }
    assert_eq!(bench.fired().reopens, 4);
    // C22: nobody commits, and whoever settles an unknown outcome reads. So reading has to be enough.
    assert_eq!(bench.load(live.id()).unwrap().revision(), Revision(1));
    assert_eq!(bench.faults.reopened(), 1);
}

#[test]
fn an_engine_that_says_so_in_a_reading_is_reopened() {
    for bench in [Bench::inline(), Bench::threaded()] {
        let mut live = bench.accept(Draft::chain(1, 2));
        bench.faults.set_reads(Some(ReadFault::Unknown));
        // The fault ends with the reopen, and only with it.
        assert_eq!(bench.load(live.id()).unwrap().revision(), Revision(1));
        assert_eq!((bench.fired().reads, bench.faults.reopened()), (1, 1));
        // Also when it is the committer who reads.
        bench.faults.set_reads(Some(ReadFault::Unknown));
        let (_, commit) = Draft::chain(2, 1).with(creates("a", "folder")).accept(bench.fence);
        assert!(matches!(bench.commit(commit.clone()), Err(CommitError::Unavailable(_))));
        bench.commit(commit).unwrap();
        bench.commit(live.done(bench.fence, 0)).unwrap();
        assert_eq!(bench.faults.reopened(), 2);
        bench.verify();
    }
}

#[test]
fn a_reading_that_fails_for_now_fails_by_itself() {
    let bench = Bench::threaded();
    let live = bench.accept(Draft::chain(1, 2));
    bench.faults.set_reads(Some(ReadFault::Unavailable));
    assert!(matches!(wait(bench.store.load(live.id())), Err(StoreError::Unavailable(_))));
    assert!(matches!(
        wait(bench.store.list_operations(&OperationQuery::All, None, 10)),
        Err(StoreError::Unavailable(_))
    ));
    bench.faults.set_reads(None);
    assert!(bench.load(live.id()).is_some());
    assert_eq!(bench.faults.reopened(), 0);
}

#[test]
fn a_panic_in_the_backend_is_an_error_of_the_store() {
    for bench in [Bench::inline(), Bench::threaded()] {
        let live = bench.accept(Draft::chain(1, 2));
        bench.faults.set_reads(Some(ReadFault::Panic));
        assert!(matches!(wait(bench.store.load(live.id())), Err(StoreError::Unavailable(_))));
        let (_, commit) = Draft::chain(2, 1).with(creates("a", "folder")).accept(bench.fence);
        assert!(matches!(bench.commit(commit.clone()), Err(CommitError::Unavailable(_))));
        bench.faults.set_reads(None);
        assert!(bench.load(live.id()).is_some());
        bench.commit(commit).unwrap();
        bench.verify();
    }
}

#[test]
fn after_a_panic_in_a_commit_nothing_hangs_and_nothing_is_overwritten() {
    for (fault, revision) in [(CommitFault::PanicBefore, 1), (CommitFault::PanicAfter, 2)] {
        for bench in [Bench::inline(), Bench::threaded()] {
            let mut live = bench.accept(Draft::chain(1, 2));
            let mut other = live.clone();
            bench.faults.fail_commit(1, fault);
            assert!(matches!(bench.commit(live.done(bench.fence, 0)), Err(CommitError::Unknown(_))));
            assert_eq!(bench.load(live.id()).unwrap().revision(), Revision(revision));
            // What was remembered of the operation from before must not let this through.
            let result = bench.commit(other.fails(bench.fence, 0, false));
            assert_eq!(result.is_ok(), revision == 1, "{fault:?}: {result:?}");
            bench.verify();
        }
    }
}

/// Does something in the middle of a reading: after the head of an operation was read, before its journal is.
struct Meanwhile {
    kv: MemoryKv,
    hook: Mutex<Option<Hook>>,
    /// Readings of journals.
    looks: AtomicUsize,
}

/// True: the journal is read without its first entry.
type Hook = Box<dyn FnMut() -> bool + Send>;

impl Meanwhile {
    /// A store over it.
    fn store() -> (Arc<KvStore>, Arc<Self>) {
        let (hook, looks) = (Mutex::default(), AtomicUsize::new(0));
        let kv = Arc::new(Self { kv: MemoryKv::new(), hook, looks });
        (Arc::new(KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap()), kv)
    }

    /// Does it before the next journal is read.
    fn once(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hook = Some(hook);
        self.always(move || {
            if let Some(hook) = hook.take() {
                hook();
            }
            false
        });
    }

    fn always(&self, hook: impl FnMut() -> bool + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
        self.looks.store(0, Ordering::SeqCst);
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

impl Kv for Meanwhile {
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
        let mut torn = false;
        if table == Table::Journal && direction == Direction::Forward {
            self.looks.fetch_add(1, Ordering::SeqCst);
            // Put back afterwards: what it does may read, too.
            let hook = self.hook.lock().unwrap().take();
            if let Some(mut hook) = hook {
                torn = hook();
                *self.hook.lock().unwrap() = Some(hook);
            }
        }
        let found = self.kv.scan(table, range, direction, limit)?;
        Ok(found.into_iter().skip(usize::from(torn)).collect())
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

#[test]
fn s11_an_operation_that_ends_or_goes_while_it_is_read_never_looks_younger_than_it_was() {
    // Done, done and purged, one more checkpoint, one more entry: between the two readings of one load.
    for case in 0..4 {
        for list in [false, true] {
            let (store, kv) = Meanwhile::store();
            let fence = wait(store.take_over()).unwrap();
            let (mut live, commit) = Draft::chain(1, 1).accept(fence);
            wait(store.commit(commit)).unwrap();
            wait(store.commit(live.checkpoint(fence, 0, 1))).unwrap();
            wait(store.commit(live.resume(fence))).unwrap();
            let before = live.execution.revision();

            let (hooked, mut ends) = (Arc::clone(&store), live.clone());
            kv.once(move || match case {
                0 | 1 => {
                    wait(hooked.commit(ends.done(fence, 0))).unwrap();
                    let purge = Purge {
                        only: None,
                        done_until: time(100),
                        keys_expire_at: time(0),
                        now: time(0),
                        limit: 1,
                    };
                    if case == 1 {
                        assert_eq!(wait(hooked.purge(fence, purge)).unwrap().operations, 1);
                    }
                }
                2 => wait(hooked.commit(ends.checkpoint(fence, 0, 2))).unwrap(),
                _ => wait(hooked.commit(ends.resume(fence))).unwrap(),
            });
            let found = if list {
                let page = wait(store.list_operations(&OperationQuery::All, None, 10)).unwrap();
                page.items.first().map(|operation| (operation.revision(), operation.done()))
            } else {
                let loaded = wait(store.load(live.id())).unwrap();
                loaded.map(|execution| (execution.revision(), execution.is_done()))
            };
            assert!(kv.looks() > 0, "nothing came in between");
            let next = before.next();
            match case {
                0 => assert_eq!(found, Some((next, true))),
                1 => assert_eq!(found, None),
                _ => assert_eq!(found, Some((next, false))),
            }
        }
    }
}

/// Operation 1, of which three turns are stored; somebody commits beside so many of the next readings of its journal, and so many
/// of them are torn.
fn read_beside_others(disturbed: usize, torn: usize) -> (Result<Revision, StoreError>, usize) {
    let (store, kv) = Meanwhile::store();
    let fence = wait(store.take_over()).unwrap();
    let (mut live, accepted) = Draft::chain(1, 3).accept(fence);
    for commit in [accepted, live.done(fence, 0), live.done(fence, 1)] {
        wait(store.commit(commit)).unwrap();
    }
    let (others, mut look) = (Arc::downgrade(&store), 0);
    kv.always(move || {
        look += 1;
        if look <= disturbed {
            let number = 100 + u64::try_from(look).unwrap();
            wait(others.upgrade().unwrap().commit(Draft::chain(number, 1).accept(fence).1)).unwrap();
        }
        look <= torn
    });
    let found = wait(store.load(operation_id(1)));
    (found.map(|execution| execution.unwrap().revision()), kv.looks())
}

#[test]
fn an_operation_is_one_look_at_its_journal() {
    assert!(matches!(read_beside_others(0, 0), (Ok(Revision(3)), 1)));
    // Commits beside it are no reason to look again at what fits together.
    assert!(matches!(read_beside_others(1, 0), (Ok(Revision(3)), 1)));
}

#[test]
fn s15_what_does_not_fit_is_damage_if_nobody_wrote_and_else_read_again() {
    assert!(matches!(read_beside_others(0, 1), (Err(StoreError::Corrupt { .. }), 1)));
    assert!(matches!(read_beside_others(3, 3), (Ok(Revision(3)), 4)));
    // And in the end, although somebody always writes.
    assert!(matches!(read_beside_others(usize::MAX, usize::MAX), (Err(StoreError::Corrupt { .. }), 100)));
}
