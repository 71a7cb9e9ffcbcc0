//! S15, C18: a damaged bit is found and named; it never shows as other data, never panics, and never stops the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/scenario.rs"]
mod scenario;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::Bench;
use longrun_core::{OperationId, ResourceKey, Timestamp};
use longrun_store::conformance::records::reseal;
use longrun_store::conformance::sample::{
    Draft, creates, digest, operation_id, parent, resource_key, resource_kind, row, time,
};
use longrun_store::conformance::{verify_indexes, wait};
use longrun_store::faulty::rebuild;
use longrun_store::{
    Batch, CommitError, Direction, Entry, KeyRange, Kv, KvStore, MemoryKv, OpenError, OperationQuery, Purge,
    ResourceQuery, Store, StoreError, Table,
};
use scenario::Scenario;

fn all(kv: &dyn Kv, table: Table) -> Vec<Entry> {
    kv.scan(table, &KeyRange::prefix(b""), Direction::Forward, usize::MAX).unwrap()
}

/// The scenario, all but its last purges.
fn scenario() -> Bench {
    let bench = Bench::inline();
    Scenario::new(&bench.store, &bench.faults, bench.fence).run();
    let (history, fence) = (bench.faults.history(), bench.fence);
    let (kv, faults) = longrun_store::faulty::FaultyKv::new(rebuild(&history[..history.len() - 6]));
    let kv = Arc::new(kv);
    let store = KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap();
    wait(store.take_over()).unwrap();
    let fence = longrun_core::Fence(fence.0 + 2);
    Bench { store, kv, faults, fence }
}

#[track_caller]
fn named(error: &StoreError, subject: &str) {
    match error {
        StoreError::Corrupt { subject: found, .. } | StoreError::FutureFormat { subject: found, .. } => {
            assert!(found.contains(subject), "{found} is not {subject}");
        }
        other => panic!("{subject}: {other:?}"),
    }
}

/// Each list has all that can be read, and nothing else.
fn listed(store: &KvStore) -> BTreeSet<OperationId> {
    let page = wait(store.list_operations(&OperationQuery::All, None, 1000)).unwrap();
    assert_eq!(page.next, None);
    page.items.iter().map(longrun_core::Operation::id).collect()
}

#[test]
fn s15_every_flipped_bit_of_an_operation_is_found_and_the_others_are_not_touched() {
    let bench = scenario();
    let ids: BTreeSet<_> = listed(&bench.store);
    assert!(ids.len() >= 5);
    let due = wait(bench.store.due(Timestamp::MAX, None, 100)).unwrap();
    let mut flips = 0;
    for table in [Table::Operations, Table::Journal] {
        for (key, value) in all(bench.kv.inner(), table) {
            let id = OperationId::parse(std::str::from_utf8(&key[..20]).unwrap()).unwrap();
            for bit in 0..value.len() * 8 {
                bench.faults.flip_read(table, &key, bit);
                named(&wait(bench.store.load(id)).unwrap_err(), id.as_str());
                // All others are there, in the lists and by name; what is due is due.
                if bit % 61 == 0 {
                    let mut others = ids.clone();
                    others.remove(&id);
                    assert_eq!(listed(&bench.store), others);
                    for other in others {
                        assert_eq!(wait(bench.store.load(other)).unwrap().unwrap().id(), other);
                    }
                    assert_eq!(wait(bench.store.due(Timestamp::MAX, None, 100)).unwrap(), due);
                }
                bench.faults.clear_flips();
                flips += 1;
            }
        }
    }
    assert!(flips > 10_000 && bench.fired().flipped_reads > flips, "{flips}");
}

#[test]
fn s15_every_flipped_bit_of_a_row_is_found_and_the_others_are_not_touched() {
    let bench = scenario();
    let rows = all(bench.kv.inner(), Table::Resources);
    assert!(rows.len() >= 4);
    let query = |of: &str| ResourceQuery::new(resource_kind(), parent(of));
    let listed = || -> BTreeSet<ResourceKey> {
        let of = |of| wait(bench.store.list_resources(&query(of), None, 100)).unwrap().items;
        of("folder").into_iter().chain(of("other")).map(|row| row.key).collect()
    };
    let everything = listed();
    assert_eq!(everything.len(), rows.len());
    for (key, value) in rows {
        let id = String::from_utf8(key[resource_kind().as_str().len() + 1..].to_vec()).unwrap();
        let key_of = resource_key(&id);
        for bit in 0..value.len() * 8 {
            bench.faults.flip_read(Table::Resources, &key, bit);
            named(&wait(bench.store.resource(&key_of)).unwrap_err(), &key_of.to_string());
            if bit % 61 == 0 {
                let mut others = everything.clone();
                others.remove(&key_of);
                assert_eq!(listed(), others);
                // A commit that rests on the row is refused for that reason, and writes nothing.
                let draft = Draft::chain(77, 1).with(creates(&id, "folder"));
                match wait(bench.store.commit(draft.accept(bench.fence).1)) {
                    Err(CommitError::Unreadable(error)) => named(&error, &key_of.to_string()),
                    other => panic!("{other:?}"),
                }
                assert!(wait(bench.store.load(operation_id(77))).unwrap().is_none());
            }
            bench.faults.clear_flips();
        }
    }
}

#[test]
fn s15_every_flipped_bit_of_an_idempotency_key_is_found() {
    let bench = scenario();
    let keys = all(bench.kv.inner(), Table::Idempotency);
    assert!(keys.len() >= 2);
    for (key, value) in keys {
        let claimed: [u8; 32] = key.clone().try_into().unwrap();
        let number = (0..20).find(|n| digest(*n) == claimed).unwrap();
        for bit in 0..value.len() * 8 {
            bench.faults.flip_read(Table::Idempotency, &key, bit);
            named(&wait(bench.store.ledger(&claimed)).unwrap_err(), "idempotency key");
            // The key may be taken: nothing is accepted under it.
            let result = wait(bench.store.commit(Draft::chain(77, 1).with_key(number).accept(bench.fence).1));
            assert!(matches!(result, Err(CommitError::Unreadable(_))), "{result:?}");
            bench.faults.clear_flips();
        }
    }
}

#[test]
fn s15_every_flipped_bit_of_the_first_records_is_found_at_the_door() {
    let bench = scenario();
    for (key, value) in all(bench.kv.inner(), Table::Meta) {
        for bit in 0..value.len() * 8 {
            bench.faults.flip_read(Table::Meta, &key, bit);
            let error = KvStore::open_inline(Arc::clone(&bench.kv), [1; 32]).unwrap_err();
            assert!(matches!(error, OpenError::Store(StoreError::Corrupt { .. })), "{error:?}");
            bench.faults.clear_flips();
        }
    }
    // And a missing one is not made up.
    for (key, _) in all(bench.kv.inner(), Table::Meta) {
        let kv = rebuild(&[]);
        copy(&bench, &kv, |table, entry| (table != Table::Meta || entry.0 != key).then_some(entry));
        let error = KvStore::open_inline(kv, [1; 32]).map(drop);
        let key = key.escape_ascii();
        assert!(matches!(error, Err(OpenError::Store(StoreError::Corrupt { .. }))), "{key}: {error:?}");
    }
}

fn copy(bench: &Bench, to: &MemoryKv, map: impl Fn(Table, Entry) -> Option<Entry>) {
    let mut batch = Batch::default();
    for table in Table::ALL {
        for entry in all(bench.kv.inner(), table) {
            if let Some((key, value)) = map(table, entry) {
                batch.put(table, key, value);
            }
        }
    }
    to.commit(&batch).unwrap();
}

/// Every flip of every bit of every key. The engine below may have a checksum for keys, but not every one has.
#[test]
fn a_flipped_bit_of_a_key_is_found_by_the_checker_and_does_no_harm() {
    let bench = scenario();
    let unfinished: Vec<_> = wait(bench.store.due(Timestamp::MAX, None, 100)).unwrap();
    let mut flips = 0;
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        let entries = all(bench.kv.inner(), table);
        for (key, _) in &entries {
            for bit in 0..key.len() * 8 {
                let mut flipped = key.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let kv = MemoryKv::new();
                copy(&bench, &kv, |at, (found, value)| {
                    Some(if at == table && found == *key { (flipped.clone(), value) } else { (found, value) })
                });
                let problems = verify_indexes(&kv);
                assert!(problems.is_err(), "{} bit {bit} of {}", table.name(), key.escape_ascii());
                harmless(kv, table, &flipped, &unfinished);
                flips += 1;
            }
        }
    }
    assert!(flips > 5_000, "{flips}");
}

/// Whatever is asked, the answer is about what was asked for, and nothing unfinished is ever removed.
fn harmless(kv: MemoryKv, table: Table, flipped: &[u8], unfinished: &[longrun_store::Due]) {
    let kv = Arc::new(kv);
    let store = KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap();
    let fence = wait(store.take_over()).unwrap();
    for n in 0..scenario::OPERATIONS {
        if let Ok(Some(execution)) = wait(store.load(operation_id(n))) {
            assert_eq!(execution.id(), operation_id(n));
        }
    }
    let id = flipped.get(..20).and_then(|id| std::str::from_utf8(id).ok());
    if let Some(Ok(id)) = id.map(OperationId::parse)
        && let Ok(Some(execution)) = wait(store.load(id))
    {
        assert_eq!(execution.id(), id, "another operation's record");
    }
    for id in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        if let Ok(Some(row)) = wait(store.resource(&resource_key(id))) {
            assert_eq!(row.key, resource_key(id));
        }
        wait(store.list_operations(&OperationQuery::OfResource(resource_key(id)), None, 100)).unwrap();
    }
    for of in ["folder", "other"] {
        let query = ResourceQuery::new(resource_kind(), parent(of));
        let page = wait(store.list_resources(&query, None, 100)).unwrap();
        assert!(page.items.iter().all(|row| row.parent == parent(of)));
    }
    wait(store.list_operations(&OperationQuery::All, None, 100)).unwrap();
    // C18: what is due and not damaged is found.
    let due = wait(store.due(Timestamp::MAX, None, 100)).unwrap();
    let found = unfinished.iter().filter(|place| due.contains(place)).count();
    assert!(found >= unfinished.len() - usize::from(table == Table::Due));
    // C20: retention removes nothing that is not done, and nothing that is too young.
    let heads = |kv: &MemoryKv| all(kv, Table::Operations).len();
    let before = heads(&kv);
    let purge = |until| Purge {
        only: None,
        done_until: until,
        keys_expire_at: time(9999),
        now: time(-9999),
        limit: 100,
    };
    wait(store.purge(fence, purge(Timestamp::MIN))).unwrap();
    assert_eq!(heads(&kv), before);
    wait(store.purge(fence, purge(Timestamp::MAX))).unwrap();
    for place in unfinished {
        let key = place.id.as_bytes();
        let is_there = kv.get(Table::Operations, key).unwrap().is_some();
        assert!(is_there || table == Table::Operations, "{} was purged and is not done", place.id);
    }
}

#[test]
fn c18_a_thousand_damaged_operations_do_not_stop_retention_or_recovery() {
    let bench = Bench::inline();
    for n in 0..50 {
        let mut live = bench.accept(Draft::chain(n, 1)).at(100 + i64::try_from(n).unwrap());
        bench.commit(live.done(bench.fence, 0)).unwrap();
        // All but the last ten are damaged, and stand before them in the order of age.
        if n < 40 {
            assert!(bench.kv.flip_stored(Table::Operations, live.id().as_bytes(), 200).unwrap());
        }
    }
    let purge = Purge { only: None, done_until: time(1000), keys_expire_at: time(0), now: time(0), limit: 4 };
    let mut removed = 0;
    for round in 0..3 {
        let purged = wait(bench.store.purge(bench.fence, purge)).unwrap();
        removed += purged.operations;
        assert_eq!(purged.unreadable, 40);
        assert_eq!(purged.more, round < 2);
    }
    assert_eq!(removed, 10);

    // The same for what is due: keys that are no keys, in front of those that are.
    let mut batch = Batch::default();
    for n in 0..30_u8 {
        batch.put(Table::Due, vec![0, n], Vec::new());
        batch.put(Table::Finished, vec![0, n], Vec::new());
        batch.put(Table::IdempotencyExpiry, vec![0, n], Vec::new());
    }
    bench.kv.inner().commit(&batch).unwrap();
    let live = bench.accept(Draft::chain(60, 1));
    let due = wait(bench.store.due(Timestamp::MAX, None, 1)).unwrap();
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [live.id()]);
    let purge = Purge { now: Timestamp::MAX, ..purge };
    assert_eq!(wait(bench.store.purge(bench.fence, purge)).unwrap().unreadable, 40 + 30 + 30);
}

#[test]
fn the_future_is_told_from_damage_and_left_alone() {
    let bench = Bench::inline();
    let live = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")).with_key(1));
    let other = bench.accept(Draft::chain(2, 1));
    let newer = |table: Table, key: &[u8]| {
        let mut value = bench.kv.get(table, key).unwrap().unwrap();
        value[3] = 9;
        reseal(&mut value);
        let mut batch = Batch::default();
        batch.put(table, key.to_vec(), value);
        bench.kv.inner().commit(&batch).unwrap();
    };
    newer(Table::Operations, live.id().as_bytes());
    newer(Table::Resources, b"sample.thing\0a");
    newer(Table::Idempotency, &digest(1));
    let before: Vec<_> = Table::ALL.map(|table| all(bench.kv.inner(), table)).into();
    let errors = [
        wait(bench.store.load(live.id())).unwrap_err(),
        wait(bench.store.resource(&resource_key("a"))).unwrap_err(),
        wait(bench.store.ledger(&digest(1))).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::FutureFormat { found: 9, supported: 1, .. }), "{error:?}");
    }
    assert_eq!(listed(&bench.store), BTreeSet::from([other.id()]));
    let after: Vec<_> = Table::ALL.map(|table| all(bench.kv.inner(), table)).into();
    assert_eq!(after, before);
    assert_eq!(row("a", "folder", 1).key, resource_key("a"));
}

/// Damage that no checksum sees: a byte is changed and the envelope sealed anew, as a program with a bug would do it.
#[test]
fn content_that_makes_no_sense_is_an_error_and_never_a_panic() {
    let bench = scenario();
    let mut refused = 0;
    for table in [Table::Operations, Table::Journal, Table::Resources, Table::Idempotency] {
        for (key, value) in all(bench.kv.inner(), table) {
            let kv = Arc::new(MemoryKv::new());
            copy(&bench, &kv, |_, entry| Some(entry));
            let store = KvStore::open_inline(Arc::clone(&kv), [7; 32]).unwrap();
            for place in 12..value.len() {
                for change in [0x01, 0x80, 0xFF] {
                    let mut changed = value.clone();
                    changed[place] ^= change;
                    reseal(&mut changed);
                    let mut batch = Batch::default();
                    batch.put(table, key.clone(), changed);
                    kv.commit(&batch).unwrap();
                    let ask = || match table {
                        Table::Operations | Table::Journal => {
                            let id = OperationId::parse(std::str::from_utf8(&key[..20]).unwrap()).unwrap();
                            wait(store.load(id)).map(|execution| {
                                let execution = execution.unwrap();
                                assert_eq!(execution.id(), id);
                                _ = (execution.operation(), execution.next(time(0)), execution.due_at());
                            })
                        }
                        Table::Resources => {
                            let id = std::str::from_utf8(&key[13..]).unwrap();
                            wait(store.resource(&resource_key(id))).map(|row| {
                                assert_eq!(row.unwrap().key, resource_key(id));
                            })
                        }
                        _ => wait(store.ledger(&key.clone().try_into().unwrap())).map(drop),
                    };
                    let result = catch_unwind(AssertUnwindSafe(ask));
                    let result =
                        result.unwrap_or_else(|_| panic!("{} byte {place} ^ {change}", table.name()));
                    refused += u64::from(result.is_err());
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

/// C20, S43: an index entry is where to look, the record is what counts.
#[test]
fn c20_an_index_entry_that_lies_removes_nothing() {
    let bench = Bench::inline();
    let unfinished = bench.accept(Draft::chain(1, 1).with(creates("a", "folder")).with_key(1));
    let mut young = bench.accept(Draft::chain(2, 1).with_key(2)).at(1000);
    bench.commit(young.done(bench.fence, 0)).unwrap();
    let timed = |at: Timestamp, rest: &[u8]| {
        let micros = at.unix_micros() ^ i64::MIN;
        [&micros.to_be_bytes(), rest].concat()
    };
    let mut lies = Batch::default();
    for id in [unfinished.id(), young.id()] {
        lies.put(Table::Finished, timed(time(5), id.as_bytes()), Vec::new());
    }
    for n in 1..=2 {
        lies.put(Table::IdempotencyExpiry, timed(time(5), &digest(n)), Vec::new());
    }
    // These point to nothing at all.
    lies.put(Table::Finished, timed(time(5), operation_id(77).as_bytes()), Vec::new());
    lies.put(Table::IdempotencyExpiry, timed(time(5), &digest(77)), Vec::new());
    bench.kv.inner().commit(&lies).unwrap();

    let purge =
        Purge { only: None, done_until: time(10), keys_expire_at: time(20), now: time(10), limit: 100 };
    let purged = wait(bench.store.purge(bench.fence, purge)).unwrap();
    assert_eq!((purged.operations, purged.keys, purged.unreadable, purged.more), (0, 0, 4, false));
    for live in [&unfinished, &young] {
        assert_eq!(bench.load(live.id()).unwrap().revision(), live.execution.revision());
    }
    for n in 1..=2 {
        assert_eq!(wait(bench.store.ledger(&digest(n))).unwrap().unwrap().expires_at, None);
    }
    // What pointed to nothing is gone, what contradicts a record is left for people to see.
    assert_eq!(verify_indexes(bench.kv.inner()).unwrap_err().len(), 4);
}

/// C15: whose key it is, its record says.
#[test]
fn c20_a_key_of_another_operation_does_not_go_with_it() {
    let bench = Bench::inline();
    let owner = bench.accept(Draft::chain(1, 1).with_key(1));
    let mut old = bench.accept(Draft::chain(2, 1).with_key(2));
    bench.commit(old.done(bench.fence, 0)).unwrap();
    let record = bench.kv.inner().get(Table::Idempotency, &digest(1)).unwrap().unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Idempotency, digest(2).to_vec(), record);
    bench.kv.inner().commit(&batch).unwrap();
    let (now, later) = (time(1000), time(2000));
    let purge = Purge { only: None, done_until: now, keys_expire_at: later, now, limit: 100 };
    assert_eq!(wait(bench.store.purge(bench.fence, purge)).unwrap().operations, 1);
    let kept = wait(bench.store.ledger(&digest(2))).unwrap().unwrap();
    assert_eq!((kept.operation, kept.expires_at), (owner.id(), None));
}
