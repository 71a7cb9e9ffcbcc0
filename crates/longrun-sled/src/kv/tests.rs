//! Values in parts.
#![allow(clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use longrun_folder::{FolderOptions, Verify};
use longrun_store::KvStore;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::limits::{VALUE_BYTES_MAX, WHOLE_BYTES_MAX};

const TABLE: Table = Table::Operations;
/// Around each place where the stored form changes.
const SIZES: [usize; 12] = [
    0,
    1,
    WHOLE_BYTES_MAX - 1,
    WHOLE_BYTES_MAX,
    WHOLE_BYTES_MAX + 1,
    2 * PART_BYTES - 1,
    2 * PART_BYTES,
    2 * PART_BYTES + 1,
    5 * PART_BYTES,
    5 * PART_BYTES + 1,
    VALUE_BYTES_MAX - 1,
    VALUE_BYTES_MAX,
];

fn options() -> SledOptions {
    // No sync: these tests are about what is stored, not about power.
    with(FolderOptions::default())
}

fn accepting() -> SledOptions {
    with(FolderOptions::default().accept_loss(true))
}

fn with(folder: FolderOptions) -> SledOptions {
    SledOptions::default().folder(folder.durability(Durability::ProcessCrash)).cache_bytes(16 << 20)
}

fn fresh() -> (TempDir, SledKv) {
    let folder = tempdir().unwrap();
    let kv = SledKv::open(folder.path(), options()).unwrap();
    (folder, kv)
}

/// Bytes that differ from part to part and from seed to seed.
fn value(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|n| ((n ^ (n >> 8)).wrapping_mul(31).wrapping_add(seed) & 0xFF) as u8).collect()
}

fn put(kv: &SledKv, key: &[u8], value: Vec<u8>) {
    let mut batch = Batch::default();
    batch.put(TABLE, key.to_vec(), value);
    kv.commit(&batch).unwrap();
}

fn remove(kv: &SledKv, key: &[u8]) {
    let mut batch = Batch::default();
    batch.remove(TABLE, key.to_vec());
    kv.commit(&batch).unwrap();
}

fn engine<T>(kv: &SledKv, call: impl FnOnce(&Engine) -> T) -> T {
    kv.with_engine(|handle| Ok(call(&handle.engine))).unwrap()
}

fn parts(kv: &SledKv) -> usize {
    engine(kv, |engine| engine.parts.len())
}

fn parts_of(len: usize) -> usize {
    if len > WHOLE_BYTES_MAX { len.div_ceil(PART_BYTES) } else { 0 }
}

fn scan(kv: &SledKv, direction: Direction, limit: usize) -> Vec<Entry> {
    kv.scan(TABLE, &KeyRange::prefix(b""), direction, limit).unwrap()
}

fn is_damage(result: Result<Option<Vec<u8>>, KvError>) -> bool {
    matches!(result, Err(KvError::Corrupt(cause)) if cause.is::<crate::DamagedValue>())
}

#[test]
fn every_size_replaces_every_size_and_leaves_nothing() {
    let (_folder, kv) = fresh();
    let mut seed = 0;
    for first in SIZES {
        for second in SIZES.into_iter().map(Some).chain([None]) {
            seed += 1;
            put(&kv, b"key", value(first, seed));
            assert_eq!(parts(&kv), parts_of(first));
            assert_eq!(kv.get(TABLE, b"key").unwrap(), Some(value(first, seed)), "{first}");
            let Some(second) = second else { continue };
            put(&kv, b"key", value(second, seed + 1));
            assert_eq!(parts(&kv), parts_of(second), "{first} then {second}");
            assert_eq!(kv.get(TABLE, b"key").unwrap(), Some(value(second, seed + 1)), "{first}, {second}");
        }
        remove(&kv, b"key");
        assert_eq!(parts(&kv), 0, "{first} removed");
        assert_eq!(kv.get(TABLE, b"key").unwrap(), None);
        remove(&kv, b"key");
    }
    kv.reopen().unwrap();
    assert_eq!((parts(&kv), scan(&kv, Direction::Forward, 9).len()), (0, 0));
}

#[test]
fn long_and_short_values_agree_with_a_map() {
    let (folder, mut kv) = fresh();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut state = 3u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % end
    };
    for step in 0..150 {
        let mut batch = Batch::default();
        for n in 0..below(4) {
            // Few keys, so that some batches write one twice.
            let key = vec![below(40) as u8; below(3)];
            if below(3) == 0 {
                model.remove(&key);
                batch.remove(TABLE, key);
            } else {
                let value = value(SIZES[below(SIZES.len())], step * 4 + n as u64);
                model.insert(key.clone(), value.clone());
                batch.put(TABLE, key, value);
            }
        }
        kv.commit(&batch).unwrap();
        assert_eq!(parts(&kv), model.values().map(|value| parts_of(value.len())).sum::<usize>());
        match step % 30 {
            10 => kv.reopen().unwrap(),
            20 => {
                drop(kv);
                kv = SledKv::open(folder.path(), options()).unwrap();
            }
            _ => {}
        }
        let limit = below(30);
        let all = || model.iter().map(|(key, value)| (key.clone(), value.clone()));
        assert!(scan(&kv, Direction::Forward, limit).into_iter().eq(all().take(limit)), "step {step}");
        assert!(scan(&kv, Direction::Backward, limit).into_iter().eq(all().rev().take(limit)), "step {step}");
        let key = vec![below(40) as u8];
        assert_eq!(kv.get(TABLE, &key).unwrap(), model.get(&key).cloned());
    }
    assert!(model.len() > 10);
    let mut batch = Batch::default();
    model.into_keys().for_each(|key| batch.remove(TABLE, key));
    kv.commit(&batch).unwrap();
    assert_eq!(parts(&kv), 0);
    kv.reopen().unwrap();
}

/// What a reader does that was overtaken by a commit between the stub and the parts.
#[test]
fn reader_with_an_old_stub_finds_the_new_value() {
    let (_folder, kv) = fresh();
    let old = |kv: &SledKv| engine(kv, |engine| engine.tables[TABLE.index()].get(b"key").unwrap().unwrap());
    let read = |stored| kv.with_engine(|handle| handle.value(TABLE, b"key", stored)).unwrap();
    put(&kv, b"key", value(VALUE_BYTES_MAX, 1));
    let first = old(&kv);
    for len in [VALUE_BYTES_MAX, 100_000, 5] {
        put(&kv, b"key", value(len, 2));
        assert_eq!(read(first.clone()), Some(value(len, 2)));
    }
    remove(&kv, b"key");
    assert_eq!(read(first), None);
}

#[test]
fn readers_during_overwrites_see_whole_values() {
    let (_folder, kv) = fresh();
    let done = AtomicBool::new(false);
    // The first byte says which value it must be.
    let nth = |n: u64| {
        let mut value = value(SIZES[n as usize % SIZES.len()].max(1), n);
        value[0] = n as u8;
        value
    };
    let check = |value: &[u8]| assert!(value == nth(u64::from(value[0])), "torn: {} bytes", value.len());
    put(&kv, b"kept", nth(11));
    let seen = thread::scope(|scope| {
        let readers = [Direction::Forward, Direction::Backward].map(|direction| {
            let (kv, done) = (&kv, &done);
            scope.spawn(move || {
                let (mut seen, mut absent) = (0, 0);
                while !done.load(SeqCst) {
                    match kv.get(TABLE, b"changed").unwrap() {
                        Some(value) => check(&value),
                        None => absent += 1,
                    }
                    let entries = scan(kv, direction, 2);
                    entries.iter().for_each(|(_, value)| check(value));
                    assert!(entries.iter().any(|(key, _)| key == b"kept"));
                    seen += 1;
                }
                (seen, absent)
            })
        });
        for n in 0..240 {
            if n % 12 == 5 {
                remove(&kv, b"changed");
            } else {
                put(&kv, b"changed", nth(n));
            }
        }
        done.store(true, SeqCst);
        readers.map(|reader| reader.join().unwrap())
    });
    println!("reads and absences: {seen:?}");
    assert!(seen.iter().all(|(seen, _)| *seen > 0));
    assert_eq!(parts(&kv), parts_of(nth(239).len()) + parts_of(nth(11).len()));
}

#[test]
fn damaged_part_is_found_by_open_and_by_get() {
    for missing in [true, false] {
        let (folder, kv) = fresh();
        let long = || value(VALUE_BYTES_MAX, 1);
        [b"bad", b"odd", b"one"].into_iter().for_each(|key| put(&kv, key, long()));
        engine(&kv, |engine| {
            let (key, part) = engine.parts.iter().nth(2).unwrap().unwrap();
            let mut part = part.to_vec();
            part[40_000] ^= 1;
            if missing { engine.parts.remove(key).unwrap() } else { engine.parts.insert(key, part).unwrap() }
        });
        assert!(is_damage(kv.get(TABLE, b"bad")));
        assert!(kv.scan(TABLE, &KeyRange::prefix(b""), Direction::Backward, 3).is_err());
        assert_eq!(kv.get(TABLE, b"one").unwrap(), Some(long()), "other values are not affected");
        assert!(matches!(kv.reopen(), Err(KvError::Corrupt(_))));
        drop(kv);

        // Without a look at every entry it opens, and what is damaged can be overwritten; the sum stays wrong.
        let kv = SledKv::open(folder.path(), options().verify(Verify::Count)).unwrap();
        assert!(is_damage(kv.get(TABLE, b"bad")));
        put(&kv, b"odd", vec![1]);
        drop(kv);
        assert!(matches!(SledKv::open(folder.path(), options()), Err(OpenError::Corrupt { .. })));

        let kv = SledKv::open(folder.path(), accepting()).unwrap();
        assert_eq!(kv.get(TABLE, b"bad").unwrap(), None);
        assert_eq!(scan(&kv, Direction::Forward, 9), [(b"odd".to_vec(), vec![1]), (b"one".to_vec(), long())]);
        assert_eq!(parts(&kv), parts_of(VALUE_BYTES_MAX));
        drop(kv);
        let kv = SledKv::open(folder.path(), options()).unwrap();
        put(&kv, b"bad", long());
        assert_eq!(kv.get(TABLE, b"bad").unwrap(), Some(long()));
    }
}

/// The numbers of batches name the parts: they must not begin anew while parts are left.
#[test]
fn accepted_loss_of_the_count_keeps_the_names_of_parts_apart() {
    let (folder, kv) = fresh();
    (0..3).for_each(|n| put(&kv, &[n], value(100_000, n.into())));
    engine(&kv, |engine| engine.proof.remove(PROOF_KEY).unwrap());
    drop(kv);
    fs::remove_file(folder.path().join(completeness::FILE)).unwrap();
    assert!(matches!(SledKv::open(folder.path(), options()), Err(OpenError::Corrupt { .. })));
    let kv = SledKv::open(folder.path(), accepting()).unwrap();
    (3..6).for_each(|n| put(&kv, &[n], value(100_000, n.into())));
    assert_eq!(parts(&kv), 6 * parts_of(100_000));
    let expected = (0..6).map(|n| (vec![n], value(100_000, n.into())));
    assert!(scan(&kv, Direction::Forward, 9).into_iter().eq(expected));
    kv.reopen().unwrap();
}

#[test]
fn a_commit_that_meets_an_unreadable_stub_fails() {
    let (_folder, kv) = fresh();
    put(&kv, b"key", vec![1]);
    engine(&kv, |engine| engine.tables[TABLE.index()].insert(b"key", &[9][..]).unwrap());
    assert!(is_damage(kv.get(TABLE, b"key")));
    let mut batch = Batch::default();
    batch.put(TABLE, b"key".to_vec(), vec![2]);
    assert!(matches!(kv.commit(&batch), Err(KvError::Corrupt(_))));
}

#[test]
fn the_store_takes_this_backend() {
    let (_folder, kv) = fresh();
    KvStore::open_inline(kv, [0; 32]).unwrap();
}
