//! Journals: where fjall itself would lose batches in silence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use longrun_fjall::{FjallKv, FjallOptions, FolderOptions, OpenError};
use longrun_store::{Batch, Kv, Table};
use tempfile::{TempDir, tempdir};

const VALUE_BYTES: usize = 1 << 20;
/// Of 3 MiB each: more than a journal takes, with what may wait to be written to tables.
const BATCHES: u8 = 34;

/// Enough for more than one journal of 64 MB. What `Due` holds was not written to a table, so the first journal is kept.
fn written() -> TempDir {
    let folder = tempdir().unwrap();
    let kv = open(folder.path()).unwrap();
    let mut first = Batch::default();
    first.put(Table::Due, b"first".to_vec(), b"of all".to_vec());
    kv.commit(&first).unwrap();
    for n in 0..BATCHES {
        let mut batch = Batch::default();
        for part in 0..3 {
            batch.put(Table::Operations, vec![n, part], noise(u64::from(n) * 3 + u64::from(part)));
        }
        kv.commit(&batch).unwrap();
    }
    drop(kv);
    folder
}

/// Bytes that cannot be packed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..VALUE_BYTES / 8).flat_map(|_| next()).collect()
}

fn open(folder: &Path) -> Result<FjallKv, OpenError> {
    FjallKv::open(folder, FjallOptions::default().memtable_bytes(4 << 20))
}

fn journals(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("longrun.fjall")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|name| name == "jnl")).collect();
    journals.sort();
    journals
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// fjall cuts the journal there and goes on with the next one: the newest batches are there, older ones are not.
#[test]
fn an_entry_that_cannot_be_read_in_an_older_journal_is_refused_at_every_open() {
    let folder = written();
    let journals = journals(folder.path());
    assert!(journals.len() > 1, "{journals:?}");
    // The mark of the first entry.
    flip(&journals[0], 0);
    for _ in 0..3 {
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(".jnl"), "{error}");
    }
    let options = FjallOptions::default().folder(FolderOptions::default().accept_loss(true));
    let kv = FjallKv::open(folder.path(), options).unwrap();
    assert_eq!(kv.get(Table::Due, b"first").unwrap(), None, "else the flip would not have mattered");
    drop(kv);
    assert!(open(folder.path()).is_ok(), "the loss was accepted");
}

#[test]
fn a_gap_between_journals_is_refused() {
    let folder = written();
    let journals = journals(folder.path());
    fs::rename(&journals[0], journals[0].with_file_name("99.jnl")).unwrap();
    let error = open(folder.path()).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[test]
fn several_journals_are_read_back_whole() {
    let folder = written();
    for _ in 0..2 {
        let kv = open(folder.path()).unwrap();
        assert_eq!(kv.get(Table::Due, b"first").unwrap().unwrap(), b"of all");
        for n in 0..BATCHES {
            for part in 0..3 {
                let found = kv.get(Table::Operations, &[n, part]).unwrap();
                assert_eq!(found.map(|value| value.len()), Some(VALUE_BYTES));
            }
        }
        kv.reopen().unwrap();
    }
}
