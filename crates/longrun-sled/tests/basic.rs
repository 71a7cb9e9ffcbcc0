//! The contract of `Kv` and of `open`, without faults.

// The helpers below are not inside a `#[test]`, so the lints do not know that they are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;

use common::{batch, child, child_folder, holds, open};
use longrun_sled::{
    BatchTooLarge, FolderOptions, KEY_BYTES_MAX, OpenError, SledKv, SledOptions, VALUE_BYTES_MAX,
};
use longrun_store::{Batch, Direction, Durability, KeyRange, Kv, KvError, Table};
use tempfile::tempdir;

#[test]
fn data_survives_close_reopen_and_kill() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    for n in 0..100 {
        kv.commit(&batch(n)).unwrap();
    }
    kv.reopen().unwrap();
    assert!(holds(&kv, 100));
    kv.commit(&batch(100)).unwrap();
    drop(kv);
    let kv = open(folder.path()).unwrap();
    assert!(holds(&kv, 101));
    // As after a kill: what is on disk now, without a close.
    let copy = tempdir().unwrap();
    kv.commit(&batch(101)).unwrap();
    common::copy_folder(folder.path(), copy.path());
    assert!(holds(&open(copy.path()).unwrap(), 102));
    let stats = kv.stats();
    assert_eq!((stats.batches, stats.syncs), (1, 1));
    assert!(stats.disk_bytes > 0);
}

#[test]
fn process_crash_durability_keeps_data_and_proof() {
    let folder = tempdir().unwrap();
    let options = || {
        SledOptions::default()
            .folder(FolderOptions::default().durability(Durability::ProcessCrash))
            .checkpoint_every(3)
    };
    let kv = SledKv::open(folder.path(), options()).unwrap();
    assert_eq!(kv.capabilities().durability, Durability::ProcessCrash);
    for n in 0..10 {
        kv.commit(&batch(n)).unwrap();
    }
    drop(kv);
    assert!(holds(&SledKv::open(folder.path(), options()).unwrap(), 10));
    assert!(holds(&open(folder.path()).unwrap(), 10));
}

#[test]
fn second_handle_is_refused() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()));

    let output = child(&[], "open_in_another_process", folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("LOCKED"), "{output:?}");
    drop(kv);
    let output = child(&[], "open_in_another_process", folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("OPENED"), "{output:?}");
}

#[test]
#[ignore = "run by second_handle_is_refused"]
fn open_in_another_process() {
    match open(&child_folder()) {
        Ok(_) => println!("OPENED"),
        Err(OpenError::Locked { .. }) => println!("LOCKED"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn unfinished_snapshot_is_removed() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    (0..50).for_each(|n| kv.commit(&batch(n)).unwrap());
    drop(kv);
    let partial = folder.path().join("snap.00000000FFFFFFFF.generating");
    fs::write(&partial, b"partial").unwrap();
    assert!(holds(&open(folder.path()).unwrap(), 50));
    assert!(!partial.exists());
}

#[test]
fn files_are_private() {
    let parent = tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let _kv = open(&folder).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in ["db", "conf", "completeness", "completeness.tail", "longrun.lock"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
}

#[test]
fn too_large_is_not_applied_and_the_engine_goes_on() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    let refused = |key: usize, value: usize, times: u8| {
        let mut batch = Batch::default();
        for n in 0..times {
            batch.put(Table::Operations, vec![n; key], vec![0; value]);
        }
        match kv.commit(&batch) {
            Err(KvError::NotApplied(cause)) => *cause.downcast::<BatchTooLarge>().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused(KEY_BYTES_MAX + 1, 0, 1), BatchTooLarge::Key { .. }));
    assert!(matches!(refused(1, VALUE_BYTES_MAX + 1, 1), BatchTooLarge::Value { .. }));
    assert!(matches!(refused(1, VALUE_BYTES_MAX, 4), BatchTooLarge::Batch { .. }));
    kv.commit(&batch(0)).unwrap();
    assert!(holds(&kv, 1));
}

/// The largest value that is stored in one entry.
const WHOLE: usize = 48 << 10;

/// Pages of the largest entries, split and merged in every way, stay out of `blobs`.
#[test]
fn largest_entries_make_no_blobs() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    let mut random = Random(1);
    for round in 0..80u64 {
        let mut batch = Batch::default();
        let (writes, sizes) =
            if round % 2 == 0 { (12, [WHOLE, WHOLE + 1]) } else { (3, [WHOLE, VALUE_BYTES_MAX]) };
        for _ in 0..writes {
            // Keys that share no prefix, so that the index pages hold them whole.
            let mut key = vec![random.below(120) as u8];
            key.resize(KEY_BYTES_MAX, round as u8 & 1);
            if random.below(3) == 0 {
                batch.remove(Table::Operations, key);
            } else {
                batch.put(Table::Operations, key, vec![round as u8; sizes[random.below(2) as usize]]);
            }
        }
        kv.commit(&batch).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    kv.reopen().unwrap();
    assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }

    fn key(&mut self) -> Vec<u8> {
        let len = self.below(4);
        (0..len).map(|_| [0, 1, 7, 254, 255][self.below(5) as usize]).collect()
    }
}

#[test]
fn reads_agree_with_a_map() {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    let mut model = BTreeMap::new();
    let mut random = Random(2);
    for step in 0..400u64 {
        let mut batch = Batch::default();
        for n in 0..random.below(8) {
            let key = random.key();
            if random.below(3) == 0 {
                model.remove(&key);
                batch.remove(Table::Journal, key);
            } else {
                let value = vec![step as u8, n as u8];
                model.insert(key.clone(), value.clone());
                batch.put(Table::Journal, key, value);
            }
        }
        kv.commit(&batch).unwrap();
        if step % 100 == 50 {
            kv.reopen().unwrap();
        }
        let key = random.key();
        assert_eq!(kv.get(Table::Journal, &key).unwrap(), model.get(&key).cloned());
        let mut bound = || match random.below(3) {
            0 => Bound::Included(random.key()),
            1 => Bound::Excluded(random.key()),
            _ => Bound::Unbounded,
        };
        let range = KeyRange { from: bound(), to: bound() };
        let limit = random.below(30) as usize;
        let inside = |key: &Vec<u8>| {
            use std::ops::RangeBounds;
            RangeBounds::<Vec<u8>>::contains(&(range.from.as_ref(), range.to.as_ref()), key)
        };
        let all: Vec<_> =
            model.iter().filter(|(key, _)| inside(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let forward = kv.scan(Table::Journal, &range, Direction::Forward, limit).unwrap();
        assert!(forward.iter().eq(all.iter().take(limit)), "{range:?}");
        let backward = kv.scan(Table::Journal, &range, Direction::Backward, limit).unwrap();
        assert!(backward.iter().eq(all.iter().rev().take(limit)), "{range:?}");
    }
    assert!(kv.scan(Table::Meta, &KeyRange::prefix(b""), Direction::Backward, 9).unwrap().is_empty());
}
