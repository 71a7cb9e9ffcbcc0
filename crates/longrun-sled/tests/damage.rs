//! A damaged folder is refused, or still shows everything. Never a smaller set in silence.

// The helpers below are not inside a `#[test]`, so the lints do not know that they are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::cast_possible_truncation)]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{batch, copy_folder, holds, open};
use longrun_sled::{FolderOptions, OpenError, SledKv, SledOptions, Verify};
use longrun_store::{Batch, Direction, KeyRange, Kv, Table};
use tempfile::{TempDir, tempdir};

const BATCHES: u64 = 200;

/// 200 batches: by a process that was then killed, or closed.
fn written(killed: bool) -> TempDir {
    let (folder, copy) = (tempdir().unwrap(), tempdir().unwrap());
    let kv = open(folder.path()).unwrap();
    for n in 0..BATCHES {
        kv.commit(&batch(n)).unwrap();
    }
    if !killed {
        drop(kv);
        // Opened and closed once more, so that sled's snapshot covers the log.
        drop(open(folder.path()).unwrap());
    }
    copy_folder(folder.path(), copy.path());
    copy
}

#[derive(Debug, Default)]
struct Seen {
    refused: u32,
    unreadable: u32,
    whole: u32,
}

fn look(folder: &Path, seen: &mut Seen) {
    match open(folder) {
        Err(OpenError::Truncated { .. } | OpenError::Corrupt { .. }) => seen.refused += 1,
        Err(other) => panic!("{other}"),
        Ok(kv) if holds(&kv, BATCHES) => seen.whole += 1,
        Ok(_) => seen.unreadable += 1,
    }
}

fn damaged(original: &Path, damage: impl FnOnce(&Path)) -> TempDir {
    let copy = tempdir().unwrap();
    copy_folder(original, copy.path());
    damage(copy.path());
    copy
}

fn used_bytes(folder: &Path) -> u64 {
    let bytes = fs::read(folder.join("db")).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn cut_or_flipped_log_never_shows_less() {
    for killed in [true, false] {
        let original = written(killed);
        let used = used_bytes(original.path());
        let (mut cuts, mut flips) = (Seen::default(), Seen::default());
        for part in 0..16 {
            let at = used * part / 16;
            let copy = damaged(original.path(), |folder| {
                OpenOptions::new().write(true).open(folder.join("db")).unwrap().set_len(at).unwrap();
            });
            look(copy.path(), &mut cuts);
            let copy = damaged(original.path(), |folder| flip(&folder.join("db"), at));
            look(copy.path(), &mut flips);
        }
        // The last batches, of which `completeness` does not know yet.
        for back in [1, 20, 100, 400, 1000, 3000] {
            let copy = damaged(original.path(), |folder| flip(&folder.join("db"), used - back));
            look(copy.path(), &mut flips);
        }
        println!("killed {killed}: cuts {cuts:?}, flips {flips:?}");
        assert_eq!(cuts.whole, 0);
        assert!(flips.refused > 0);
    }
}

/// sled goes on after the damaged rest of a segment: the newest batches are there, older ones are not, and
/// counting alone may find nothing.
#[test]
fn hole_in_the_middle_is_found() {
    let (folder, original) = (tempdir().unwrap(), tempdir().unwrap());
    let kv = open(folder.path()).unwrap();
    let marked = |n: u64, len: usize| format!("value {n:03} ").into_bytes().repeat(len / 10);
    for n in 0..200u64 {
        let mut batch = Batch::default();
        // In one entry, or in parts.
        let len = if n % 2 == 0 { 40_000 } else { 200_000 };
        batch.put(Table::Operations, n.to_be_bytes().to_vec(), marked(n, len));
        kv.commit(&batch).unwrap();
    }
    copy_folder(folder.path(), original.path());
    let log = fs::read(original.path().join("db")).unwrap();
    let used = used_bytes(original.path());
    assert!(used > 3 * (8 << 20), "several segments");
    let entries = |kv: &SledKv| {
        let found = kv.scan(Table::Operations, &KeyRange::prefix(b""), Direction::Forward, usize::MAX);
        // A part of a long value may be missing.
        found.map(|entries| entries.len()).ok()
    };
    let counting = || SledOptions::default().verify(Verify::Count);
    let mut silent = 0;
    // Every copy of one value that the log has, so also the one that counts.
    for n in [10, 51, 100, 151] {
        let mark = marked(n, 10);
        let damage = damaged(original.path(), |folder| {
            let mut at = 0;
            while let Some(found) = log[at..].windows(10).position(|bytes| bytes == mark) {
                flip(&folder.join("db"), (at + found) as u64);
                at += found + 10_000;
            }
        });
        let copy = tempdir().unwrap();
        copy_folder(damage.path(), copy.path());
        assert!(
            matches!(open(damage.path()), Err(OpenError::Corrupt { .. } | OpenError::Truncated { .. })),
            "{n}"
        );
        silent += u32::from(SledKv::open(copy.path(), counting()).is_ok_and(|kv| entries(&kv) != Some(200)));
    }
    println!("{silent} of 4 would show less, or an error, if only batches were counted");
    for part in 1..5 {
        match open(damaged(original.path(), |folder| flip(&folder.join("db"), used * part / 5)).path()) {
            Err(OpenError::Corrupt { .. } | OpenError::Truncated { .. }) => {}
            Err(other) => panic!("{other}"),
            // What the flip hit was superseded.
            Ok(kv) => assert_eq!(entries(&kv), Some(200)),
        }
    }
}

#[test]
fn flipped_small_files_are_refused_or_harmless() {
    let original = written(false);
    let mut seen = Seen::default();
    let snapshot = fs::read_dir(original.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let snapshot = snapshot.into_iter().find(|name| name.to_string_lossy().starts_with("snap.")).unwrap();
    for at in [0, 5, 10, 30] {
        for file in ["conf".as_ref(), "completeness.tail".as_ref(), snapshot.as_os_str()] {
            look(damaged(original.path(), |folder| flip(&folder.join(file), at)).path(), &mut seen);
        }
    }
    println!("{seen:?}");
    assert!(seen.whole >= 4, "the tail is only a hint: {seen:?}");
}

#[test]
fn completeness_file_must_be_there_and_be_sound() {
    let original = written(true);
    let file = |folder: &Path| folder.join("completeness");

    let gone = damaged(original.path(), |folder| fs::remove_file(file(folder)).unwrap());
    assert!(
        matches!(open(gone.path()), Err(OpenError::Corrupt { path, .. }) if path.ends_with("completeness"))
    );

    for at in 0..72 {
        let flipped = damaged(original.path(), |folder| flip(&file(folder), at));
        assert!(matches!(open(flipped.path()), Err(OpenError::Corrupt { .. })), "byte {at}");
    }

    let future = damaged(original.path(), |folder| {
        let mut bytes = b"lr-sled\n".to_vec();
        bytes.extend_from_slice(&9u32.to_le_bytes());
        bytes.extend_from_slice(b"whatever there will be");
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        fs::write(file(folder), bytes).unwrap();
    });
    let before = fs::read(future.path().join("db")).unwrap();
    assert!(matches!(open(future.path()), Err(OpenError::FutureFormat { found: 9, supported: 1, .. })));
    assert_eq!(fs::read(future.path().join("db")).unwrap(), before, "a future format is left alone");
}

#[test]
fn absent_or_empty_database_is_truncated() {
    let original = written(true);
    let absent = damaged(original.path(), |folder| fs::remove_file(folder.join("db")).unwrap());
    let error = open(absent.path()).err().unwrap();
    assert!(matches!(error, OpenError::Truncated { expected: 192, found: 0, .. }), "{error}");
    assert!(!absent.path().join("db").exists(), "nothing was put in its place");
    let empty = damaged(original.path(), |folder| fs::write(folder.join("db"), b"").unwrap());
    assert!(matches!(open(empty.path()), Err(OpenError::Truncated { .. })));
}

#[test]
fn files_of_two_databases_do_not_mix() {
    let (one, two) = (written(true), written(true));
    let mixed = damaged(one.path(), |folder| {
        fs::copy(two.path().join("completeness"), folder.join("completeness")).unwrap();
    });
    assert!(matches!(open(mixed.path()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn old_copy_of_the_log_is_truncated_unless_loss_is_accepted() {
    let (folder, old) = (tempdir().unwrap(), tempdir().unwrap());
    let kv = open(folder.path()).unwrap();
    (0..10).for_each(|n| kv.commit(&batch(n)).unwrap());
    copy_folder(folder.path(), old.path());
    (10..13).for_each(|n| kv.commit(&batch(n)).unwrap());
    // Less than a checkpoint later: only the tail knows.
    fs::copy(folder.path().join("completeness.tail"), old.path().join("completeness.tail")).unwrap();
    let error = open(old.path()).err().unwrap();
    assert!(matches!(error, OpenError::Truncated { expected: 13, found: 10, .. }), "{error}");

    let kv =
        SledKv::open(old.path(), SledOptions::default().folder(FolderOptions::default().accept_loss(true)))
            .unwrap();
    assert!(holds(&kv, 10));
    drop(kv);
    let kv = open(old.path()).unwrap();
    kv.commit(&batch(10)).unwrap();
    assert!(holds(&kv, 11));
    assert_eq!(kv.scan(Table::Meta, &KeyRange::prefix(b""), Direction::Forward, 9).unwrap(), []);
}

/// A crash while sled made its first files: nothing was acknowledged, and what it left is made anew.
#[test]
fn an_unfinished_creation_is_begun_anew() {
    let whole = tempdir().unwrap();
    drop(open(whole.path()).unwrap());
    // What sled left of each file, and what it did not come to.
    for left in [&b""[..], b"part", &[0; 3000]] {
        for missing in ["", "db", "conf", "blobs"] {
            let folder = tempdir().unwrap();
            copy_folder(whole.path(), folder.path());
            fs::remove_file(folder.path().join("completeness")).unwrap();
            fs::write(folder.path().join("longrun.creating"), b"").unwrap();
            for name in ["db", "conf", "snap.0000000000000000.generating"] {
                fs::write(folder.path().join(name), left).unwrap();
            }
            match missing {
                "" => {}
                "blobs" => fs::remove_dir(folder.path().join(missing)).unwrap(),
                _ => fs::remove_file(folder.path().join(missing)).unwrap(),
            }
            let kv = open(folder.path()).unwrap();
            kv.commit(&batch(0)).unwrap();
            drop(kv);
            assert!(!folder.path().join("longrun.creating").exists());
            assert!(holds(&open(folder.path()).unwrap(), 1));
        }
    }
}

/// The mark of a creation that was finished, and damage without a mark, clear nothing.
#[test]
fn only_an_unfinished_creation_is_cleared() {
    let original = written(false);
    let mark = |folder: &Path| fs::write(folder.join("longrun.creating"), b"").unwrap();
    let marked = damaged(original.path(), mark);
    assert!(holds(&open(marked.path()).unwrap(), BATCHES));
    assert!(!marked.path().join("longrun.creating").exists());

    let damage = damaged(original.path(), |folder| {
        mark(folder);
        fs::write(folder.join("completeness"), b"damaged").unwrap();
    });
    for _ in 0..2 {
        assert!(matches!(open(damage.path()), Err(OpenError::Corrupt { .. })));
    }

    let unmarked = damaged(original.path(), |folder| {
        fs::remove_file(folder.join("completeness")).unwrap();
        fs::write(folder.join("conf"), b"part").unwrap();
    });
    let db = fs::read(unmarked.path().join("db")).unwrap();
    assert!(matches!(open(unmarked.path()), Err(OpenError::Corrupt { .. })));
    assert!(fs::read(unmarked.path().join("db")).unwrap() == db, "it was cleared");
}
