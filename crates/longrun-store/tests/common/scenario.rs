//! One scenario with everything in it: creates, updates, deletes, retries, checkpoints, rollbacks, operators, keys,
//! references, purges.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use longrun_core::{Fence, Incarnation, ItemId, ItemKey, OperationId, ResourceKind, StepIndex, Verb};
use longrun_store::conformance::sample::{
    Draft, Live, creates, deletes, digest, operation_id, resource_key, time, updates,
};
use longrun_store::conformance::wait;
use longrun_store::faulty::Faults;
use longrun_store::{Commit, Holder, KvStore, OperationQuery, Purge, Store};

/// Operations that the scenario makes have numbers below this.
pub const OPERATIONS: u64 = 12;

pub struct Scenario<'a> {
    store: &'a KvStore,
    faults: &'a Faults,
    fence: Fence,
    /// How many batches there were after each acknowledged call, and all that could be seen then.
    pub seen: Vec<(usize, String)>,
}

impl<'a> Scenario<'a> {
    pub fn new(store: &'a KvStore, faults: &'a Faults, fence: Fence) -> Self {
        Self { store, faults, fence, seen: Vec::new() }
    }

    fn note(&mut self) {
        self.seen.push((self.faults.history().len(), everything(self.store)));
    }

    fn commit(&mut self, commit: Commit) {
        wait(self.store.commit(commit)).unwrap();
        self.note();
    }

    fn accept(&mut self, draft: Draft) -> Live {
        let (live, commit) = draft.accept(self.fence);
        self.commit(commit);
        live
    }

    fn turn(&mut self, live: &mut Live, turn: impl Fn(&mut Live, Fence) -> Commit) {
        let commit = turn(live, self.fence);
        self.commit(commit);
    }

    fn purge(&mut self, until: i64) {
        let purge = Purge {
            only: None,
            done_until: time(until),
            keys_expire_at: time(until + 100),
            now: time(until),
            limit: 2,
        };
        wait(self.store.purge(self.fence, purge)).unwrap();
        self.note();
    }

    fn holder(&self, live: &Live, resource: &str) -> Holder {
        Holder { fence: self.fence, operation: live.id(), resource: resource_key(resource) }
    }

    fn take(&mut self, live: &Live, resource: &str, items: &[u8]) {
        let items = items.iter().map(|n| item(*n)).collect();
        let fresh = Incarnation(live.id().as_bytes()[19].into());
        wait(self.store.take_references(self.holder(live, resource), items, fresh)).unwrap();
        self.note();
    }

    fn drop_all(&mut self, live: &Live, resource: &str) {
        while wait(self.store.drop_references(self.holder(live, resource), 2)).unwrap().more {
            self.note();
        }
        self.note();
    }

    fn forget(&mut self, live: &Live) {
        let orphans = wait(self.store.orphans(Some(live.id()), None, 10)).unwrap();
        wait(self.store.forget_orphans(self.fence, orphans)).unwrap();
        self.note();
    }

    pub fn run(&mut self) {
        self.note();
        // Two resources come to be.
        let mut one = self.accept(Draft::chain(1, 2).with(creates("a", "folder")).with_key(1));
        let mut two =
            self.accept(Draft::chain(2, 1).with(creates("b", "folder")).with(creates("c", "other")));
        for n in 0..3 {
            self.turn(&mut one, |live, fence| live.checkpoint(fence, 0, n));
        }
        self.take(&one, "a", &[1, 2, 3]);
        self.take(&two, "b", &[2, 3, 4]);
        self.turn(&mut one, |live, fence| live.done(fence, 0));
        self.turn(&mut two, |live, fence| live.done(fence, 0));
        self.turn(&mut one, |live, fence| live.done(fence, 1));
        // One that waits, one that rolls back, one that is blocked, one that is given up.
        let mut waits = self.accept(Draft::chain(3, 1).with(creates("d", "folder")).with_key(3)).at(20);
        self.turn(&mut waits, |live, fence| live.fails(fence, 0, true));
        let mut back = self.accept(Draft::chain(4, 2).with(creates("e", "folder")).with_key(4)).at(21);
        self.turn(&mut back, |live, fence| live.done(fence, 0));
        self.take(&back, "e", &[4, 5]);
        self.turn(&mut back, |live, fence| live.cancel(fence));
        let row = wait(self.store.resource(&resource_key("b"))).unwrap().unwrap();
        let mut blocked = self.accept(Draft::chain(5, 2).with(updates(row)).with_key(5)).at(22);
        self.turn(&mut blocked, |live, fence| live.done(fence, 0));
        self.turn(&mut blocked, |live, fence| live.fails(fence, 1, false));
        self.turn(&mut blocked, |live, fence| live.undo_fails(fence, 1));
        self.turn(&mut blocked, |live, fence| live.undo_fails(fence, 1));
        let mut given_up = self.accept(Draft::chain(6, 1).with(creates("f", "folder"))).at(23);
        self.turn(&mut given_up, |live, fence| live.fails(fence, 0, false));
        self.turn(&mut given_up, |live, fence| live.undo_fails(fence, 0));
        self.turn(&mut given_up, |live, fence| live.intervene(fence, Verb::Abandon));
        // The first ones have been done long enough.
        self.purge(10);
        self.turn(&mut back, |live, fence| live.fails(fence, 1, true));
        self.turn(&mut back, |live, fence| live.undone(fence, 1));
        self.drop_all(&back, "e");
        self.turn(&mut back, |live, fence| live.undone(fence, 0));
        self.turn(&mut blocked, |live, fence| live.intervene(fence, Verb::SkipUndo(StepIndex(1))));
        // A delete, a new owner, an adoption, one that is too late before it begins.
        let row = wait(self.store.resource(&resource_key("a"))).unwrap().unwrap();
        let mut gone = self.accept(Draft::chain(7, 1).with(deletes(row)).with_key(7)).at(30);
        self.fence = wait(self.store.take_over()).unwrap();
        self.note();
        self.turn(&mut gone, |live, fence| live.adopt(fence));
        self.turn(&mut gone, |live, fence| live.resume(fence));
        self.drop_all(&gone, "a");
        self.forget(&gone);
        self.turn(&mut gone, |live, fence| live.done(fence, 0));
        self.accept(Draft::chain(8, 1).with(creates("g", "folder")).with_key(8).with_deadline(time(7)));
        self.accept(Draft { start: false, ..Draft::wide(9, 3).with(creates("h", "other")) });
        self.purge(40);
        self.purge(40);
        // Keys expire, and one of them is used again.
        self.purge(150);
        self.accept(Draft::chain(10, 1).with(creates("a", "other")).with_key(1));
        self.purge(1000);
    }
}

fn item(n: u8) -> ItemKey {
    ItemKey { kind: ResourceKind::new("sample.chunk").unwrap(), id: ItemId::new([0, n, 0]).unwrap() }
}

/// All that can be seen through the store, in words.
pub fn everything(store: &KvStore) -> String {
    use std::fmt::Write;
    let mut seen = String::new();
    for n in 0..OPERATIONS {
        match wait(store.load(operation_id(n))).unwrap() {
            Some(execution) => {
                writeln!(seen, "{n}: {:?} {:?}", execution.operation(), execution.next(time(0)))
            }
            None => writeln!(seen, "{n}: -"),
        }
        .unwrap();
    }
    for id in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let key = resource_key(id);
        let of = wait(store.list_operations(&OperationQuery::OfResource(key.clone()), None, 100)).unwrap();
        let of: Vec<OperationId> = of.items.iter().map(longrun_core::Operation::id).collect();
        writeln!(seen, "{id}: {:?} {of:?}", wait(store.resource(&key)).unwrap()).unwrap();
    }
    for n in 0..10 {
        writeln!(seen, "key {n}: {:?}", wait(store.ledger(&digest(n))).unwrap()).unwrap();
    }
    let due = wait(store.due(longrun_core::Timestamp::MAX, None, 100)).unwrap();
    let all = wait(store.list_operations(&OperationQuery::All, None, 100)).unwrap();
    let all: Vec<OperationId> = all.items.iter().map(longrun_core::Operation::id).collect();
    let lives: Vec<_> = (0..6).map(item).collect();
    let lives = wait(store.incarnations(&lives)).unwrap();
    let orphans = wait(store.orphans(None, None, 100)).unwrap();
    writeln!(seen, "due {due:?}\nall {all:?}\nitems {lives:?} {orphans:?}").unwrap();
    seen
}
