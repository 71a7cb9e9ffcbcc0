//! The file: damage that redb would pass over or sees only if it is told to look, and others who open it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use longrun_redb::{FolderOptions, OpenError, RedbKv, RedbOptions, Verify};
use longrun_store::{Batch, Durability, Kv, Table};
use redb::{Database, DatabaseError, TableDefinition};
use tempfile::{TempDir, tempdir};

const FILE: &str = "longrun.redb";
const VALUE: &[u8] = b"what nobody else writes, and so is found in the file";

fn written() -> TempDir {
    let folder = tempdir().unwrap();
    let kv = RedbKv::open(folder.path(), RedbOptions::default()).unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Operations, b"key".to_vec(), VALUE.to_vec());
    kv.commit(&batch).unwrap();
    folder
}

fn open(folder: &Path, verify: Verify) -> Result<RedbKv, OpenError> {
    RedbKv::open(folder, RedbOptions::default().verify(verify))
}

/// redb would make it anew, empty, with the first write to it.
#[test]
fn s15_a_table_that_is_missing_is_damage() {
    for table in Table::ALL {
        let folder = written();
        let db = Database::open(folder.path().join(FILE)).unwrap();
        let write = db.begin_write().unwrap();
        assert!(write.delete_table(TableDefinition::<&[u8], &[u8]>::new(table.name())).unwrap());
        write.commit().unwrap();
        drop(db);
        let error = open(folder.path(), Verify::Full).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&format!("the table {} is missing", table.name())), "{error}");
    }
}

#[test]
fn s15_a_changed_page_is_damage_to_full_verification_which_is_the_default() {
    let folder = written();
    let file = folder.path().join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> =
        bytes.windows(VALUE.len()).enumerate().filter(|(_, part)| *part == VALUE).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&file, bytes).unwrap();

    for opened in [open(folder.path(), Verify::Full), RedbKv::open(folder.path(), RedbOptions::default())] {
        let error = opened.unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    }
    // As its documentation says: the page is read as it is.
    let kv = open(folder.path(), Verify::Count).unwrap();
    assert_ne!(kv.get(Table::Operations, b"key").unwrap().unwrap(), VALUE);
}

/// Who does not know of the folder and its lock, such as a tool for files of redb, must not write to one that is in use.
#[test]
fn a_file_in_use_is_refused_to_others_with_each_durability() {
    for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
        let folder = tempdir().unwrap();
        let options = RedbOptions::default().folder(FolderOptions::default().durability(durability));
        let kv = RedbKv::open(folder.path(), options).unwrap();
        let refused = Database::open(folder.path().join(FILE)).unwrap_err();
        assert!(matches!(refused, DatabaseError::DatabaseAlreadyOpen), "{durability:?}: {refused}");
        drop(kv);
        Database::open(folder.path().join(FILE)).unwrap();
    }
}
