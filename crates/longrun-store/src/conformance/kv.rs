//! The contract of [`Kv`].

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use longrun_core::limits::RECORD_BYTES_MAX;

use super::KvFixture;
use crate::kv::{Batch, Direction, Durability, KeyRange, Kv, Table};

fn put(kv: &dyn Kv, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::default();
    batch.put(table, key.to_vec(), value.to_vec());
    kv.commit(&batch).unwrap();
}

fn remove(kv: &dyn Kv, table: Table, key: &[u8]) {
    let mut batch = Batch::default();
    batch.remove(table, key.to_vec());
    kv.commit(&batch).unwrap();
}

#[track_caller]
fn keys(kv: &dyn Kv, table: Table, range: &KeyRange, direction: Direction, limit: usize) -> Vec<Vec<u8>> {
    let entries = kv.scan(table, range, direction, limit).unwrap();
    entries.into_iter().map(|(key, _)| key).collect()
}

fn all(kv: &dyn Kv, table: Table) -> Vec<Vec<u8>> {
    keys(kv, table, &KeyRange::prefix(b""), Direction::Forward, usize::MAX)
}

fn number(n: u64) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

fn read_number(kv: &dyn Kv, table: Table, key: &[u8]) -> u64 {
    kv.get(table, key).unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// A fresh backend has no keys in any table.
pub fn an_empty_backend_holds_nothing(fixture: &mut dyn KvFixture) {
    for table in Table::ALL {
        assert_eq!(fixture.kv().get(table, b"key").unwrap(), None);
        assert_eq!(all(fixture.kv(), table), Vec::<Vec<u8>>::new());
    }
}

/// What was put is got, by its key and by a scan.
pub fn what_was_put_is_got(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    put(kv, Table::Operations, b"key", b"value");
    assert_eq!(kv.get(Table::Operations, b"key").unwrap().unwrap(), b"value");
    let entries = kv.scan(Table::Operations, &KeyRange::prefix(b""), Direction::Forward, 10).unwrap();
    assert_eq!(entries, [(b"key".to_vec(), b"value".to_vec())]);
}

/// The later write of a key wins, over batches and within one.
pub fn the_later_write_of_a_key_wins(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    put(kv, Table::Due, b"a", b"1");
    put(kv, Table::Due, b"a", b"2");
    assert_eq!(kv.get(Table::Due, b"a").unwrap().unwrap(), b"2");
    let mut batch = Batch::default();
    batch.put(Table::Due, b"a".to_vec(), b"3".to_vec());
    batch.remove(Table::Due, b"a".to_vec());
    batch.put(Table::Due, b"b".to_vec(), b"1".to_vec());
    batch.put(Table::Due, b"b".to_vec(), b"2".to_vec());
    batch.remove(Table::Due, b"c".to_vec());
    batch.put(Table::Due, b"c".to_vec(), b"3".to_vec());
    kv.commit(&batch).unwrap();
    assert_eq!(kv.get(Table::Due, b"a").unwrap(), None);
    assert_eq!(kv.get(Table::Due, b"b").unwrap().unwrap(), b"2");
    assert_eq!(kv.get(Table::Due, b"c").unwrap().unwrap(), b"3");
}

/// A removed key is gone, for readings and scans, and may be put again.
pub fn a_removed_key_is_gone(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    put(kv, Table::Due, b"a", b"1");
    put(kv, Table::Due, b"b", b"1");
    remove(kv, Table::Due, b"a");
    assert_eq!(kv.get(Table::Due, b"a").unwrap(), None);
    assert_eq!(all(kv, Table::Due), [b"b"]);
    put(kv, Table::Due, b"a", b"2");
    assert_eq!(all(kv, Table::Due), [b"a", b"b"]);
}

/// Removing what is not there is no error.
pub fn removing_what_is_not_there_changes_nothing(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    put(kv, Table::Due, b"b", b"1");
    for key in [&b"a"[..], b"bb", b""] {
        remove(kv, Table::Due, key);
    }
    remove(kv, Table::Meta, b"b");
    assert_eq!(all(kv, Table::Due), [b"b"]);
}

/// Index entries have an empty value: that is not the same as no entry.
pub fn an_empty_value_is_a_value(fixture: &mut dyn KvFixture) {
    put(fixture.kv(), Table::Due, b"a", b"");
    for _ in 0..2 {
        assert_eq!(fixture.kv().get(Table::Due, b"a").unwrap(), Some(Vec::new()));
        assert_eq!(all(fixture.kv(), Table::Due), [b"a"]);
        fixture.restart();
    }
}

/// A batch without writes is taken and changes nothing.
pub fn an_empty_batch_changes_nothing(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    kv.commit(&Batch::default()).unwrap();
    put(kv, Table::Due, b"a", b"1");
    kv.commit(&Batch::default()).unwrap();
    assert_eq!(all(kv, Table::Due), [b"a"]);
}

/// Keys of any bytes, compared as unsigned bytes.
pub fn keys_of_any_bytes_are_kept_in_order(fixture: &mut dyn KvFixture) {
    let mut expected: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    expected.extend((0..=255).map(|byte| vec![0, byte]));
    expected.extend((0..=255).map(|byte| vec![255, byte]));
    expected.extend([vec![0, 0, 0], vec![255, 255, 255], vec![127, 255], vec![128, 0], vec![b'a'; 300]]);
    let mut batch = Batch::default();
    for key in expected.iter().rev() {
        batch.put(Table::Operations, key.clone(), key.clone());
    }
    fixture.kv().commit(&batch).unwrap();
    expected.sort_unstable();
    for _ in 0..2 {
        assert_eq!(all(fixture.kv(), Table::Operations), expected);
        for key in &expected {
            assert_eq!(fixture.kv().get(Table::Operations, key).unwrap().as_ref(), Some(key));
        }
        fixture.restart();
    }
}

/// A key that begins like another is another.
pub fn a_key_is_not_its_prefix(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    for key in [&b"a"[..], b"a\0", b"a\0\0", b"ab"] {
        put(kv, Table::Due, key, key);
    }
    remove(kv, Table::Due, b"a\0");
    assert_eq!(kv.get(Table::Due, b"a").unwrap().unwrap(), b"a");
    assert_eq!(kv.get(Table::Due, b"a\0").unwrap(), None);
    assert_eq!(all(kv, Table::Due), [&b"a"[..], b"a\0\0", b"ab"]);
}

/// The same key in two tables is two keys.
pub fn tables_do_not_mix(fixture: &mut dyn KvFixture) {
    for table in Table::ALL {
        put(fixture.kv(), table, b"key", table.name().as_bytes());
    }
    remove(fixture.kv(), Table::Journal, b"key");
    for _ in 0..2 {
        for table in Table::ALL {
            let expected = (table != Table::Journal).then(|| table.name().as_bytes().to_vec());
            assert_eq!(fixture.kv().get(table, b"key").unwrap(), expected);
            assert_eq!(all(fixture.kv(), table).len(), usize::from(table != Table::Journal));
        }
        fixture.restart();
    }
}

/// One batch over all tables.
pub fn a_batch_over_all_tables_is_applied_whole(fixture: &mut dyn KvFixture) {
    put(fixture.kv(), Table::Meta, b"old", b"1");
    let mut batch = Batch::default();
    batch.remove(Table::Meta, b"old".to_vec());
    for table in Table::ALL {
        for n in 0..50 {
            batch.put(table, number(n), number(n));
        }
    }
    fixture.kv().commit(&batch).unwrap();
    for _ in 0..2 {
        for table in Table::ALL {
            assert_eq!(all(fixture.kv(), table), (0..50).map(number).collect::<Vec<_>>());
        }
        fixture.restart();
    }
}

/// Every backend keeps a record of the largest size that the engine writes.
pub fn the_largest_record_is_kept(fixture: &mut dyn KvFixture) {
    let value: Vec<u8> = (0..=250).cycle().take(RECORD_BYTES_MAX).collect();
    for key in [b"a", b"b", b"c"] {
        put(fixture.kv(), Table::Operations, key, &value);
    }
    put(fixture.kv(), Table::Operations, b"b", b"small again");
    for _ in 0..2 {
        for key in [b"a", b"c"] {
            assert_eq!(fixture.kv().get(Table::Operations, key).unwrap().as_ref(), Some(&value));
        }
        assert_eq!(fixture.kv().get(Table::Operations, b"b").unwrap().unwrap(), b"small again");
        fixture.restart();
    }
}

/// A batch of the size that the backend names is taken; for those that name none, of 4 MiB.
pub fn a_batch_of_the_largest_size_is_taken(fixture: &mut dyn KvFixture) {
    let promised = fixture.kv().capabilities();
    let bytes_max = promised.batch_bytes_max.min(4 << 20);
    let value_bytes = promised.value_bytes_max.min(RECORD_BYTES_MAX) - 8;
    let mut batch = Batch::default();
    let mut n = 0;
    while batch.byte_len() < bytes_max {
        let left = bytes_max - batch.byte_len();
        if left < 9 {
            break;
        }
        batch.put(Table::Resources, number(n), vec![7; value_bytes.min(left - 8)]);
        n += 1;
    }
    fixture.kv().commit(&batch).unwrap();
    for _ in 0..2 {
        let entries = fixture
            .kv()
            .scan(Table::Resources, &KeyRange::prefix(b""), Direction::Forward, usize::MAX)
            .unwrap();
        assert_eq!(entries.len() as u64, n);
        assert!(
            entries
                .iter()
                .zip(&batch.writes)
                .all(|((key, value), write)| { *key == write.key && Some(value) == write.value.as_ref() })
        );
        fixture.restart();
    }
}

fn with_letters(kv: &dyn Kv) {
    let mut batch = Batch::default();
    for letter in b'a'..=b'j' {
        batch.put(Table::Due, vec![letter], vec![letter]);
    }
    kv.commit(&batch).unwrap();
}

/// A scan backwards is a scan forwards, reversed.
pub fn a_scan_goes_both_ways(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    with_letters(kv);
    let range = KeyRange { from: Bound::Included(b"c".to_vec()), to: Bound::Excluded(b"g".to_vec()) };
    let mut forward = keys(kv, Table::Due, &range, Direction::Forward, 100);
    assert_eq!(forward, [b"c", b"d", b"e", b"f"]);
    forward.reverse();
    assert_eq!(keys(kv, Table::Due, &range, Direction::Backward, 100), forward);
}

/// At most as many as asked for, from the end at which the scan begins.
pub fn a_scan_keeps_its_limit(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    with_letters(kv);
    let range = KeyRange::prefix(b"");
    for limit in 0..13 {
        assert_eq!(keys(kv, Table::Due, &range, Direction::Forward, limit).len(), limit.min(10));
    }
    assert_eq!(keys(kv, Table::Due, &range, Direction::Forward, 2), [b"a", b"b"]);
    assert_eq!(keys(kv, Table::Due, &range, Direction::Backward, 2), [b"j", b"i"]);
    assert_eq!(keys(kv, Table::Due, &range, Direction::Backward, usize::MAX).len(), 10);
}

/// Bounds of every sort, on keys that are there and on keys that are not, against a model.
pub fn bounds_are_kept(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    let mut model = BTreeMap::new();
    for letter in (b'b'..=b'h').step_by(2) {
        put(kv, Table::Due, &[letter], &[letter]);
        model.insert(vec![letter], vec![letter]);
    }
    let ends = || {
        let at = (b'a'..=b'i').flat_map(|letter| {
            let key = vec![letter];
            [Bound::Included(key.clone()), Bound::Excluded(key)]
        });
        at.chain([Bound::Unbounded])
    };
    for from in ends() {
        for to in ends() {
            let range = KeyRange { from: from.clone(), to };
            let expected: Vec<_> = if range.is_empty() {
                Vec::new()
            } else {
                model.range((range.from.clone(), range.to.clone())).map(|(key, _)| key.clone()).collect()
            };
            assert_eq!(keys(kv, Table::Due, &range, Direction::Forward, 100), expected, "{range:?}");
            let reversed: Vec<_> = expected.into_iter().rev().collect();
            assert_eq!(keys(kv, Table::Due, &range, Direction::Backward, 100), reversed, "{range:?}");
        }
    }
}

/// A range in which no key can lie gives nothing; it is no error, and no panic.
pub fn empty_and_inverted_ranges_hold_nothing(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    with_letters(kv);
    let (c, f) = (|| b"c".to_vec(), || b"f".to_vec());
    let ranges = [
        (Bound::Included(f()), Bound::Included(c())),
        (Bound::Included(f()), Bound::Excluded(c())),
        (Bound::Excluded(f()), Bound::Excluded(c())),
        (Bound::Included(c()), Bound::Excluded(c())),
        (Bound::Excluded(c()), Bound::Included(c())),
        (Bound::Excluded(c()), Bound::Excluded(c())),
        (Bound::Excluded(b"zz".to_vec()), Bound::Unbounded),
        (Bound::Unbounded, Bound::Excluded(b"".to_vec())),
    ];
    for (from, to) in ranges {
        let range = KeyRange { from, to };
        for direction in [Direction::Forward, Direction::Backward] {
            let found = keys(kv, Table::Due, &range, direction, 10);
            assert_eq!(found, Vec::<Vec<u8>>::new(), "{range:?} {direction:?}");
        }
    }
    let one = KeyRange { from: Bound::Included(c()), to: Bound::Included(c()) };
    assert_eq!(keys(kv, Table::Due, &one, Direction::Backward, 10), [c()]);
}

/// A prefix holds the keys that begin with it, also where it ends in the highest byte.
pub fn a_prefix_holds_its_keys_and_no_others(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    let all: Vec<&[u8]> =
        vec![b"a", b"a\xFE", b"a\xFF", b"a\xFF\0", b"a\xFF\xFF", b"b", b"\xFF", b"\xFF\xFF\x01"];
    for key in &all {
        put(kv, Table::ByParent, key, b"");
    }
    for prefix in [&b""[..], b"a", b"a\xFF", b"b", b"\xFF", b"\xFF\xFF", b"c"] {
        let expected: Vec<_> = all.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        let range = KeyRange::prefix(prefix);
        assert_eq!(keys(kv, Table::ByParent, &range, Direction::Forward, 100), expected, "{prefix:?}");
    }
}

/// Ten thousand keys, written in a shuffled order over many batches, read in pages both ways.
pub fn many_keys_are_scanned_in_pages(fixture: &mut dyn KvFixture) {
    const KEYS: u64 = 10_000;
    // Steps of a size that has no factor in common with the number of keys visit each once.
    let mut order = (0..KEYS).map(|n| n * 7919 % KEYS);
    for _ in 0..20 {
        let mut batch = Batch::default();
        for n in order.by_ref().take(500) {
            batch.put(Table::Finished, number(n), number(n));
        }
        fixture.kv().commit(&batch).unwrap();
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let mut range = KeyRange::prefix(b"");
        let mut found = Vec::new();
        loop {
            let page = keys(fixture.kv(), Table::Finished, &range, direction, 333);
            let Some(last) = page.last().cloned() else { break };
            match direction {
                Direction::Forward => range.from = Bound::Excluded(last),
                Direction::Backward => range.to = Bound::Excluded(last),
            }
            found.extend(page);
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        assert_eq!(found, (0..KEYS).map(number).collect::<Vec<_>>());
    }
}

/// A restart shows what was acknowledged, and later batches go on from there.
pub fn a_restart_shows_the_same(fixture: &mut dyn KvFixture) {
    for round in 0..4 {
        put(fixture.kv(), Table::Operations, &number(round), b"kept");
        put(fixture.kv(), Table::Meta, b"last", &number(round));
        if round > 0 {
            remove(fixture.kv(), Table::Operations, &number(round - 1));
        }
        fixture.restart();
        assert_eq!(all(fixture.kv(), Table::Operations), [number(round)]);
        assert_eq!(read_number(fixture.kv(), Table::Meta, b"last"), round);
    }
}

/// A reopen that nothing called for changes nothing, and may be asked for again and again.
pub fn a_reopen_shows_the_same_and_goes_on(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    kv.reopen().unwrap();
    for round in 0..4 {
        put(kv, Table::Operations, &number(round), b"kept");
        kv.reopen().unwrap();
        kv.reopen().unwrap();
        assert_eq!(all(kv, Table::Operations).len() as u64, round + 1);
    }
}

/// While batches are committed, every reading in every thread sees values that some batch wrote, and never an older one
/// after a newer.
pub fn readings_during_commits_see_what_was_written(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    let over = AtomicBool::new(false);
    let look = || {
        let mut last = 0;
        while !over.load(Ordering::SeqCst) {
            let found = read_number(kv, Table::Meta, b"count");
            assert!(found >= last, "{found} after {last}");
            last = found;
            for (key, value) in kv.scan(Table::Due, &KeyRange::prefix(b""), Direction::Backward, 5).unwrap() {
                assert_eq!(key, value);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(look);
        }
        for n in 1..300 {
            let mut batch = Batch::default();
            batch.put(Table::Meta, b"count".to_vec(), number(n));
            batch.put(Table::Due, number(n % 10), number(n % 10));
            batch.remove(Table::Due, number((n + 5) % 10));
            kv.commit(&batch).unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// Who sees a write of a batch sees those before it in the batch from then on.
pub fn writes_of_a_batch_come_into_sight_in_order(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    let over = AtomicBool::new(false);
    let look = || {
        while !over.load(Ordering::SeqCst) {
            // Backwards: the last write first.
            let fourth = read_number(kv, Table::ByResource, b"fourth");
            let removed = kv.scan(Table::Journal, &KeyRange::prefix(b""), Direction::Forward, 1).unwrap();
            let first = read_number(kv, Table::Operations, b"first");
            assert!(first >= fourth, "{first} before {fourth}");
            // A journal that is empty was emptied after the head was written.
            let head_later = read_number(kv, Table::Operations, b"first");
            assert!(!removed.is_empty() || head_later > 0);
        }
    };
    put(kv, Table::Journal, b"entry", b"");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(look);
        }
        for n in 1..300 {
            let mut batch = Batch::default();
            batch.put(Table::Operations, b"first".to_vec(), number(n));
            batch.remove(Table::Journal, b"entry".to_vec());
            batch.put(Table::Due, number(n), Vec::new());
            batch.put(Table::ByResource, b"fourth".to_vec(), number(n));
            kv.commit(&batch).unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// After `commit` has returned, every thread sees the batch.
pub fn an_acknowledged_batch_is_seen_by_every_thread(fixture: &mut dyn KvFixture) {
    const READERS: usize = 3;
    let kv = fixture.kv();
    let acknowledged = AtomicU64::new(0);
    let round = Barrier::new(READERS + 1);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                for _ in 0..50 {
                    round.wait();
                    let n = acknowledged.load(Ordering::SeqCst);
                    assert_eq!(read_number(kv, Table::Meta, b"n"), n);
                    assert_eq!(all(kv, Table::Due), [number(n)]);
                    round.wait();
                }
            });
        }
        for n in 1..=50 {
            let mut batch = Batch::default();
            batch.put(Table::Meta, b"n".to_vec(), number(n));
            batch.remove(Table::Due, number(n - 1));
            batch.put(Table::Due, number(n), Vec::new());
            kv.commit(&batch).unwrap();
            acknowledged.store(n, Ordering::SeqCst);
            round.wait();
            round.wait();
        }
    });
}

/// Readings that overlap a reopen may fail or wait, but neither panic nor show what is not there; when it is over, all
/// is as before.
pub fn a_reopen_during_readings_harms_nothing(fixture: &mut dyn KvFixture) {
    let kv = fixture.kv();
    with_letters(kv);
    let over = AtomicBool::new(false);
    let look = || {
        while !over.load(Ordering::SeqCst) {
            if let Ok(value) = kv.get(Table::Due, b"c") {
                assert_eq!(value.as_deref(), Some(&b"c"[..]));
            }
            if let Ok(entries) = kv.scan(Table::Due, &KeyRange::prefix(b""), Direction::Forward, 100) {
                assert_eq!(entries.len(), 10);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(look);
        }
        for _ in 0..5 {
            kv.reopen().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(all(kv, Table::Due).len(), 10);
}

/// It has a name, says what it survives, and takes what the engine writes.
pub fn what_it_promises_is_enough(fixture: &mut dyn KvFixture) {
    let promised = fixture.kv().capabilities();
    assert!(!promised.name.is_empty());
    assert!(promised.durability >= Durability::Volatile);
    assert!(promised.value_bytes_max >= RECORD_BYTES_MAX, "{promised:?}");
    // The head of an operation, and the eight rows of which each may have a body of the largest size.
    assert!(promised.batch_bytes_max >= 2 * RECORD_BYTES_MAX + (32 << 10), "{promised:?}");
    fixture.restart();
    assert_eq!(fixture.kv().capabilities(), promised);
}
